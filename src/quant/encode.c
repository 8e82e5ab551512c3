/* encode.c - see encode.h. The normalized matrix is cut into tasks (a segment of
 * rows x a block of subvectors); each is coded on its own, so threads share the
 * work without changing a byte. */
#include "quant/encode.h"

#include <math.h>
#include <string.h>

#include "base/half.h"
#include "base/mem.h"
#include "base/rng.h"
#include "kern/kern.h"
#include "quant/gaussian_table.h"
#include "quant/trellis.h"

#define SUBVECTOR_BLOCK 16 /* subvectors coded by one task */
#define SAMPLE_CHAINS   96 /* chains that adapt the codebook to a tensor */
#define ADAPT_ROUNDS    8  /* from a Gaussian start more gain nothing */
/* Share of plain error in the row-scale fit: the samples are few. */
#define PROBE_DAMP   0.3
#define WEIGHT_FLOOR 1e-4F /* a row much lighter than the rest still counts */

typedef struct encode_job {
    nq_encoded *out;
    const nq_encode_options *opt;
    const char *name;
    nq_pool *pool;
    float *source;  /* w, while it is being prepared */
    const float *w; /* (rows, cols) normalized */
    float *scale;   /* (rows) what was divided out; later the refitted scale */
    float *mean;    /* (rows), PAPER only */
    float *weight;  /* (rows) scale^2, mean 1 */
    float *ratio;   /* (rows) weight[i-1] / weight[i] */
    uint64_t rows, cols;
    uint64_t stride; /* stored symbols per row */
    uint64_t subs;   /* subvectors per row that hold data */
    uint64_t segments;
    uint8_t *plain; /* (rows, fields, stride) unpacked symbols */
    double *sums;   /* (segments, subs, 4): sq_error, sq_source, sq_decoded, dot */
    double *totals; /* (segments, 4): the same in the weights' own basis */
    nq_codebook codebook;
    nq_trellis trellis;
    uint8_t *scratch; /* (threads, scratch_bytes) */
    uint64_t scratch_bytes;
    float *probe;      /* (probe_rows, cols) rotated like w, or NULL */
    double probe_damp; /* weight of the plain error beside the outputs' */
} encode_job;

static uint64_t segment_end(const encode_job *j, uint64_t segment) {
    uint64_t end = (segment + 1) * j->opt->segment_rows;
    return end < j->rows ? end : j->rows;
}

/* Row weights of the path metric: errors count in the weights' own units. */
static void row_weights(encode_job *j) {
    double sum = 0;
    for (uint64_t r = 0; r < j->rows; r++) {
        sum += (double)j->scale[r] * (double)j->scale[r];
    }
    double mean = sum > 0 ? sum / (double)j->rows : 1;
    for (uint64_t r = 0; r < j->rows; r++) {
        float w = (float)((double)j->scale[r] * (double)j->scale[r] / mean);
        j->weight[r] = w > WEIGHT_FLOOR ? w : WEIGHT_FLOOR;
        j->ratio[r] = r > 0 ? j->weight[r - 1] / j->weight[r] : 1.0F;
    }
}

/* x (len, d) of subvector j in rows [r0, r1), zero beyond the last column. */
static void gather_chain(float *x, const encode_job *j, uint64_t r0, uint64_t r1, uint64_t sub) {
    unsigned d = j->opt->scheme.d;
    uint64_t c0 = sub * d;
    uint64_t have = j->cols - c0 < d ? j->cols - c0 : d;
    for (uint64_t r = r0; r < r1; r++, x += d) {
        const float *src = j->w + r * j->cols + c0;
        for (unsigned v = 0; v < d; v++) {
            x[v] = v < have ? src[v] : 0.0F;
        }
    }
}

/* ---- codebook --------------------------------------------------------------- */

/* Sample chains: (segment, subvector) pairs spread by hash over the tensor. Only
 * whole segments (or the only one) so that all chains have one length. */
static novaq_status sample_chains(nq_chains *out, float **x, float **weight, const encode_job *j,
                                  novaq_error *err) {
    unsigned d = j->opt->scheme.d;
    uint64_t len = j->opt->segment_rows < j->rows ? j->opt->segment_rows : j->rows;
    if (len == 0 || j->subs == 0) {
        return nq_fail(err, NOVAQ_E_ARG, "%s: an empty matrix cannot be coded", j->name);
    }
    uint64_t whole = j->rows / len;
    uint64_t all = whole * j->subs;
    /* Enough subvectors for every entry to be met some 64 times. */
    uint64_t entries = nq_scheme_codebook_bytes(&j->opt->scheme) / d;
    uint64_t want = entries * 64 / len + 1;
    want = want < SAMPLE_CHAINS ? SAMPLE_CHAINS : want;
    uint64_t count = all < want ? all : want;
    NQ_TRY(nq_alloc(x, count * len * d, sizeof(float), err));
    novaq_status st = nq_alloc(weight, count * len, sizeof(float), err);
    if (st != NOVAQ_OK) {
        return st;
    }
    uint64_t stream = nq_stream(j->name);
    for (uint64_t i = 0; i < count; i++) {
        /* One pick from each of `count` equal strata. */
        uint64_t lo = i * all / count;
        uint64_t hi = (i + 1) * all / count;
        uint64_t pick = lo + nq_hash3(j->opt->seed, stream, i) % (hi - lo);
        uint64_t r0 = pick / j->subs * len;
        gather_chain(*x + i * len * d, j, r0, r0 + len, pick % j->subs);
        memcpy(*weight + i * len, j->weight + r0, len * sizeof(float));
    }
    *out = (nq_chains){.x = *x, .weight = *weight, .count = count, .len = len};
    return NOVAQ_OK;
}

/* Schemes that have a stored Gaussian codebook start from it and adapt; all
 * others are trained on the tensor from scratch, as in the paper. Product codes
 * of two fields always are: clustered data are what they are good at. */
static novaq_status choose_codebook(encode_job *j, novaq_error *err) {
    const nq_scheme *s = &j->opt->scheme;
    float *x = NULL;
    float *weight = NULL;
    nq_chains chains;
    nq_train_options train = {.rounds = j->opt->max_iterations,
                              .tolerance = j->opt->tolerance,
                              .seed = nq_hash3(j->opt->seed, nq_stream(j->name), 0) >> 1};
    novaq_status st = sample_chains(&chains, &x, &weight, j, err);
    char name[NQ_SCHEME_NAME];
    double gaussian = 0;
    if (st == NOVAQ_OK && s->fields == 1 && nq_gaussian_mse(&gaussian, nq_scheme_name(name, s))) {
        st = nq_codebook_gaussian(&j->codebook, s, err);
        train.rounds = train.rounds < ADAPT_ROUNDS ? train.rounds : ADAPT_ROUNDS;
    }
    if (st == NOVAQ_OK) {
        st = nq_codebook_train(&j->codebook, s, &chains, &train, NULL, err);
    }
    nq_free(x);
    nq_free(weight);
    if (st == NOVAQ_OK) {
        st = nq_trellis_open(&j->trellis, s, j->codebook.values, err);
    }
    return st;
}

/* ---- coding ------------------------------------------------------------------- */

static uint64_t chain_bytes(const encode_job *j) {
    uint64_t len = j->opt->segment_rows < j->rows ? j->opt->segment_rows : j->rows;
    uint64_t x = len * j->opt->scheme.d * sizeof(float);
    uint64_t symbols = len * j->opt->scheme.fields;
    return (x + symbols + nq_trellis_scratch(&j->trellis, len) + 255) / 64 * 64;
}

static void code_block(void *ctx, uint64_t task, unsigned worker) {
    encode_job *j = ctx;
    const nq_scheme *s = &j->opt->scheme;
    uint64_t blocks = (j->subs + SUBVECTOR_BLOCK - 1) / SUBVECTOR_BLOCK;
    uint64_t segment = task / blocks;
    uint64_t sub0 = task % blocks * SUBVECTOR_BLOCK;
    uint64_t sub1 = sub0 + SUBVECTOR_BLOCK < j->subs ? sub0 + SUBVECTOR_BLOCK : j->subs;
    uint64_t r0 = segment * j->opt->segment_rows;
    uint64_t len = segment_end(j, segment) - r0;
    uint8_t *p = j->scratch + worker * j->scratch_bytes;
    float *x = (float *)(void *)p;
    uint8_t *symbols = p + len * s->d * sizeof(float);
    uint8_t *search = symbols + len * s->fields;
    for (uint64_t sub = sub0; sub < sub1; sub++) {
        gather_chain(x, j, r0, r0 + len, sub);
        nq_trellis_encode(symbols, &j->trellis, x, len, j->ratio + r0, search);
        for (unsigned f = 0; f < s->fields; f++) {
            uint8_t *dst = j->plain + (r0 * s->fields + f) * j->stride + sub;
            for (uint64_t t = 0; t < len; t++) {
                dst[t * s->fields * j->stride] = symbols[f * len + t];
            }
        }
    }
}

/* ---- scales, packing, telemetry -------------------------------------------------- */

/* out (cols rounded up to whole subvectors): decoded normalized row. */
static void decode_normalized(float *out, const encode_job *j, uint64_t row) {
    const nq_scheme *s = &j->opt->scheme;
    uint64_t in_segment = row % j->opt->segment_rows;
    memset(out, 0, j->subs * s->d * sizeof(float));
    for (unsigned l = 0; l < s->levels; l++) {
        const float *entries = j->trellis.values + nq_level_offset(s, l);
        const uint8_t *symbols = NULL;
        if (in_segment >= s->lag[l]) {
            symbols = j->plain + ((row - s->lag[l]) * s->fields + s->field[l]) * j->stride;
        }
        for (uint64_t sub = 0; sub < j->subs; sub++) {
            const float *e = entries + (symbols == NULL ? 0 : (size_t)symbols[sub] * s->d);
            for (unsigned v = 0; v < s->d; v++) {
                out[sub * s->d + v] += e[v];
            }
        }
    }
}

/* argmin over a of sum_t (<w, x_t> - a <q, x_t>)^2 + damp |w - a q|^2: the best
 * scale given the symbols, in closed form. Without a probe only the second term
 * is there. One fixed loop (the scalar kernel), so that every CPU agrees. */
static float best_scale(const encode_job *j, const float *w, const float *q) {
    double wq = 0;
    double qq = 0;
    for (uint64_t c = 0; c < j->cols; c++) {
        wq += (double)w[c] * (double)q[c];
        qq += (double)q[c] * (double)q[c];
    }
    if (j->probe != NULL) {
        wq *= j->probe_damp;
        qq *= j->probe_damp;
        for (uint64_t t = 0; t < j->opt->probe_rows; t++) {
            const float *x = j->probe + t * j->cols;
            double wx = (double)nq_kern_scalar.dot_f32(w, x, j->cols);
            double qx = (double)nq_kern_scalar.dot_f32(q, x, j->cols);
            wq += wx * qx;
            qq += qx * qx;
        }
    }
    return qq > 0 && wq > 0 ? (float)(wq / qq) : 1.0F;
}

static void refit_segment(void *ctx, uint64_t segment, unsigned worker) {
    encode_job *j = ctx;
    float *q = (float *)(void *)(j->scratch + worker * j->scratch_bytes);
    for (uint64_t r = segment * j->opt->segment_rows; r < segment_end(j, segment); r++) {
        decode_normalized(q, j, r);
        j->weight[r] = best_scale(j, j->w + r * j->cols, q); /* weight has served */
    }
}

/* Turns the probe into the matrix's own basis. */
static novaq_status rotate_probe(encode_job *j, novaq_error *err) {
    uint64_t n = j->opt->probe_rows * j->cols;
    if (j->opt->probe == NULL || n == 0) {
        return NOVAQ_OK;
    }
    NQ_TRY(nq_alloc_raw(&j->probe, n, sizeof(float), err));
    memcpy(j->probe, j->opt->probe, n * sizeof(float));
    nq_qmat basis = j->out->q;
    basis.col_exponent = j->out->col_exponent;
    nq_qmat_input(j->probe, &basis, j->opt->probe_rows);
    double energy = 0;
    for (uint64_t i = 0; i < n; i++) {
        energy += (double)j->probe[i] * (double)j->probe[i];
    }
    j->probe_damp = PROBE_DAMP * energy / (double)j->cols;
    return NOVAQ_OK;
}

/* Largest row scale to [512, 1024): room for scales 2^24 times smaller. */
static int32_t choose_exponent(const float *scale, uint64_t rows) {
    float peak = 0;
    for (uint64_t r = 0; r < rows; r++) {
        peak = scale[r] > peak ? scale[r] : peak;
    }
    int e = 0;
    if (peak > 0) {
        (void)frexpf(peak, &e); /* peak = m * 2^e, m in [0.5, 1) */
        e -= 10;
    }
    return e < -126 ? -126 : e > 126 ? 126 : e;
}

static void store_scales(encode_job *j) {
    nq_encoded *o = j->out;
    o->q.exponent = choose_exponent(j->scale, j->rows);
    for (uint64_t r = 0; r < j->rows; r++) {
        o->row_scale[r] = nq_f32_to_f16(ldexpf(j->scale[r], -o->q.exponent));
        if (o->row_mean != NULL) {
            o->row_mean[r] = nq_f32_to_f16(j->mean[r]);
        }
    }
}

static void add_error(double *sum, double src, double dec) {
    sum[0] += (src - dec) * (src - dec);
    sum[1] += src * src;
    sum[2] += dec * dec;
    sum[3] += src * dec;
}

/* Adds the error of one row, given in the coded basis (both are overwritten), in
 * the weights' own: rotation and column scales undone. */
static void own_basis_error(double *sum, const encode_job *j, float *src, float *dec) {
    nq_rotate_inverse(src, &j->out->q.rotation, 1, j->cols);
    nq_rotate_inverse(dec, &j->out->q.rotation, 1, j->cols);
    for (uint64_t c = 0; c < j->cols; c++) {
        bool scaled = j->out->col_exponent != NULL;
        double f = scaled ? (double)nq_col_factor(j->out->col_exponent[c]) : 1.0;
        add_error(sum, f * (double)src[c], f * (double)dec[c]);
    }
}

/* Packs a segment and measures it with the scales as stored. w holds the row
 * divided by what normalization divided by (ratio[r] now), so both sides are
 * brought back to the weights' units. Subspaces are measured where they are
 * coded; with column scales the layer's own sums need the way back as well. */
static void finish_segment(void *ctx, uint64_t segment, unsigned worker) {
    encode_job *j = ctx;
    const nq_scheme *s = &j->opt->scheme;
    float *q = (float *)(void *)(j->scratch + worker * j->scratch_bytes);
    float *src = q + j->subs * s->d;
    uint64_t row_bytes = nq_scheme_row_bytes(s, j->cols);
    double *total = j->totals + segment * 4;
    for (uint64_t r = segment * j->opt->segment_rows; r < segment_end(j, segment); r++) {
        nq_symbols_pack(j->out->symbols + r * row_bytes, s, j->plain + r * s->fields * j->stride,
                        j->cols);
        double factor = ldexp((double)nq_f16_to_f32(j->out->row_scale[r]), j->out->q.exponent);
        double mean = j->mean != NULL ? (double)j->mean[r] : 0;
        decode_normalized(q, j, r);
        for (uint64_t c = 0; c < j->cols; c++) {
            double w = (double)j->ratio[r] * (double)j->w[r * j->cols + c] + mean;
            double dec = factor * (double)q[c] + mean;
            add_error(j->sums + (segment * j->subs + c / s->d) * 4, w, dec);
            src[c] = (float)w;
            q[c] = (float)dec;
        }
        if (j->out->col_exponent != NULL) {
            own_basis_error(total, j, src, q);
        }
    }
}

static void symbol_usage(const encode_job *j, nq_subspace_stats *st) {
    const nq_scheme *s = &j->opt->scheme;
    for (unsigned f = 0; f < s->fields; f++) {
        uint64_t hist[256] = {0};
        for (uint64_t r = 0; r < j->rows; r++) {
            const uint8_t *symbols = j->plain + (r * s->fields + f) * j->stride;
            for (uint64_t sub = 0; sub < j->subs; sub++) {
                hist[symbols[sub]]++;
            }
        }
        double n = (double)j->rows * (double)j->subs;
        for (unsigned b = 0; b < s->k[f]; b++) {
            if (hist[b] > 0) {
                double p = (double)hist[b] / n;
                st->entropy[f] -= p * log2(p);
                st->used[f]++;
            }
        }
        /* Telemetry is part of the manifest: keep digits libm agrees on. */
        st->entropy[f] = rint(st->entropy[f] * 1e6) / 1e6;
    }
}

static void summarise(encode_job *j) {
    nq_encoded *o = j->out;
    nq_subspace_stats *st = &o->subspaces;
    unsigned d = j->opt->scheme.d;
    *st = (nq_subspace_stats){.count = j->subs, .cosine_min = 1};
    for (uint64_t sub = 0; sub < j->subs; sub++) {
        double t[4] = {0};
        for (uint64_t g = 0; g < j->segments; g++) {
            for (int i = 0; i < 4; i++) {
                t[i] += j->sums[(g * j->subs + sub) * 4 + (uint64_t)i];
            }
        }
        uint64_t width = sub + 1 < j->subs ? d : j->cols - sub * d;
        double mse = t[0] / ((double)j->rows * (double)width);
        double cosine = t[1] > 0 && t[2] > 0 ? t[3] / sqrt(t[1] * t[2]) : 1;
        st->mse_min = sub == 0 || mse < st->mse_min ? mse : st->mse_min;
        st->cosine_min = cosine < st->cosine_min ? cosine : st->cosine_min;
        if (sub == 0 || mse > st->mse_max) {
            st->mse_max = mse;
            st->worst = sub;
        }
        st->mse_mean += mse / (double)j->subs;
        o->sq_error += t[0];
        o->sq_source += t[1];
        o->sq_decoded += t[2];
        o->dot += t[3];
    }
    for (uint64_t g = 0; o->col_exponent != NULL && g < j->segments; g++) {
        const double *t = j->totals + g * 4;
        double first = g == 0 ? 0.0 : 1.0;
        o->sq_error = first * o->sq_error + t[0];
        o->sq_source = first * o->sq_source + t[1];
        o->sq_decoded = first * o->sq_decoded + t[2];
        o->dot = first * o->dot + t[3];
    }
    symbol_usage(j, st);
}

static novaq_status alloc_code(encode_job *j, novaq_error *err) {
    nq_encoded *o = j->out;
    const nq_scheme *s = &j->opt->scheme;
    NQ_TRY(nq_alloc(&j->plain, j->rows * s->fields, j->stride, err));
    NQ_TRY(nq_alloc(&j->sums, j->segments * j->subs, 4 * sizeof(double), err));
    NQ_TRY(nq_alloc(&j->totals, j->segments, 4 * sizeof(double), err));
    NQ_TRY(nq_alloc(&o->symbols, j->rows, nq_scheme_row_bytes(s, j->cols), err));
    NQ_TRY(nq_alloc(&o->codebooks, nq_scheme_codebook_bytes(s), 1, err));
    NQ_TRY(nq_alloc(&o->codebook_scale, 1, sizeof(uint16_t), err));
    j->scratch_bytes = chain_bytes(j);
    uint64_t row = (2 * j->subs * s->d * sizeof(float) + 63) / 64 * 64; /* decoded and source */
    j->scratch_bytes = j->scratch_bytes > row ? j->scratch_bytes : row;
    return nq_alloc(&j->scratch, nq_pool_threads(j->pool), j->scratch_bytes, err);
}

static novaq_status encode_code(encode_job *j, novaq_error *err) {
    const nq_scheme *s = &j->opt->scheme;
    j->stride = nq_scheme_row_symbols(s, j->cols);
    j->subs = j->cols / s->d + (j->cols % s->d != 0);
    j->segments = (j->rows + j->opt->segment_rows - 1) / j->opt->segment_rows;
    row_weights(j);
    NQ_TRY(choose_codebook(j, err));
    NQ_TRY(alloc_code(j, err));
    uint64_t blocks = (j->subs + SUBVECTOR_BLOCK - 1) / SUBVECTOR_BLOCK;
    nq_pool_run(j->pool, code_block, j, j->segments * blocks);
    memcpy(j->out->codebooks, j->codebook.entries, nq_scheme_codebook_bytes(s));
    j->out->codebook_scale[0] = j->codebook.scale;
    /* From here on ratio keeps the divisor, scale becomes what is stored. */
    memcpy(j->ratio, j->scale, j->rows * sizeof(float));
    bool refit = j->opt->normalize == NQ_NORMALIZE_ROW || j->opt->normalize == NQ_NORMALIZE_ROTATE;
    if (refit) {
        NQ_TRY(rotate_probe(j, err));
        nq_pool_run(j->pool, refit_segment, j, j->segments);
        for (uint64_t r = 0; r < j->rows; r++) {
            j->scale[r] *= j->weight[r];
        }
    }
    store_scales(j);
    nq_pool_run(j->pool, finish_segment, j, j->segments);
    summarise(j);
    return NOVAQ_OK;
}

static void q8_row(encode_job *j, uint64_t r, float *src, float *dec) {
    nq_encoded *o = j->out;
    double factor = ldexp((double)nq_f16_to_f32(o->row_scale[r]), o->q.exponent);
    double mean = j->mean != NULL ? (double)j->mean[r] : 0;
    for (uint64_t c = 0; c < j->cols; c++) {
        double w = (double)j->ratio[r] * (double)j->w[r * j->cols + c];
        double q = factor > 0 ? rint(w / factor) : 0;
        q = q > 127 ? 127 : q < -127 ? -127 : q;
        o->symbols[r * j->cols + c] = (uint8_t)(int8_t)q;
        src[c] = (float)(w + mean);
        dec[c] = (float)(factor * q + mean);
    }
    double total[4] = {0};
    own_basis_error(total, j, src, dec);
    o->sq_error += total[0];
    o->sq_source += total[1];
    o->sq_decoded += total[2];
    o->dot += total[3];
}

/* q8: round(w / step), step = peak / 127 per row. */
static novaq_status encode_q8(encode_job *j, novaq_error *err) {
    nq_encoded *o = j->out;
    float *rows = NULL;
    NQ_TRY(nq_alloc(&o->symbols, j->rows, j->cols, err));
    NQ_TRY(nq_alloc(&rows, 2 * j->cols, sizeof(float), err));
    memcpy(j->ratio, j->scale, j->rows * sizeof(float));
    for (uint64_t r = 0; r < j->rows; r++) {
        float peak = 0;
        for (uint64_t c = 0; c < j->cols; c++) {
            float a = fabsf(j->w[r * j->cols + c]);
            peak = a > peak ? a : peak;
        }
        j->scale[r] *= peak / 127.0F;
    }
    store_scales(j);
    for (uint64_t r = 0; r < j->rows; r++) {
        q8_row(j, r, rows, rows + j->cols);
    }
    nq_free(rows);
    return NOVAQ_OK;
}

/* ---- column scales ------------------------------------------------------------- */

/* c_j^2 = sqrt(E x_j^2) up to half an octave, a little energy added to all. Coding
 * makes an error that is white in the scaled matrix: the output error is about
 * (sum_j |W_j|^2 c_j^2) (sum_j E x_j^2 / c_j^2), least at c_j^2 ~ sqrt(E x_j^2) /
 * |W_j|; column norms differ little beside the inputs, and without them matrices
 * that share an input share their scales. Measured: docs/METHOD.md. */
#define ENERGY_FLOOR 0.05
static novaq_status column_exponents(encode_job *j, novaq_error *err) {
    const double *energy = j->opt->col_energy;
    double mean = 0;
    for (uint64_t c = 0; energy != NULL && c < j->cols; c++) {
        mean += energy[c] / (double)j->cols;
    }
    if (energy == NULL || !(mean > 0) || !isfinite(mean) ||
        j->opt->normalize != NQ_NORMALIZE_ROTATE) {
        return NOVAQ_OK; /* nothing known, or a normalization that is to be taken literally */
    }
    NQ_TRY(nq_alloc(&j->out->col_exponent, j->cols, 1, err));
    for (uint64_t c = 0; c < j->cols; c++) {
        int k = 0;
        (void)frexp(energy[c] / mean + ENERGY_FLOOR, &k); /* 2^(k-1) <= ratio < 2^k */
        int e = k >= 0 ? k / 2 : -((1 - k) / 2);          /* floor(k / 2) */
        j->out->col_exponent[c] = (int8_t)(e > 32 ? 32 : e);
    }
    return NOVAQ_OK;
}

/* w (rows, cols) *= 2^(e/2) per column. */
static void scale_columns(void *ctx, uint64_t row, unsigned worker) {
    (void)worker;
    encode_job *j = ctx;
    float *w = j->source + row * j->cols;
    for (uint64_t c = 0; c < j->cols; c++) {
        w[c] *= nq_col_factor((int8_t)-j->out->col_exponent[c]);
    }
}

static void point_pieces(nq_encoded *o) {
    o->q.col_exponent = o->col_exponent;
    o->q.symbols = o->symbols;
    o->q.codebooks = o->codebooks;
    o->q.codebook_scale = o->codebook_scale;
    o->q.row_scale = o->row_scale;
    o->q.row_mean = o->row_mean;
}

static novaq_status encode_all(encode_job *j, float *w, novaq_error *err) {
    nq_encoded *o = j->out;
    bool paper = j->opt->normalize == NQ_NORMALIZE_PAPER;
    NQ_TRY(nq_alloc(&j->scale, j->rows, sizeof(float), err));
    NQ_TRY(nq_alloc(&j->weight, j->rows, sizeof(float), err));
    NQ_TRY(nq_alloc(&j->ratio, j->rows, sizeof(float), err));
    NQ_TRY(nq_alloc(&o->row_scale, j->rows, sizeof(uint16_t), err));
    if (paper) {
        NQ_TRY(nq_alloc(&j->mean, j->rows, sizeof(float), err));
        NQ_TRY(nq_alloc(&o->row_mean, j->rows, sizeof(uint16_t), err));
    }
    NQ_TRY(column_exponents(j, err));
    if (o->col_exponent != NULL) {
        nq_pool_run(j->pool, scale_columns, j, j->rows);
    }
    NQ_TRY(nq_normalize_rows(w, j->scale, j->mean, j->rows, j->cols, j->opt, j->pool, err));
    for (uint64_t r = 0; r < j->rows; r++) {
        if (!isfinite(j->scale[r])) {
            return nq_fail(err, NOVAQ_E_NUMERIC,
                           "%s: row %llu holds NaN, infinity or values whose "
                           "squares overflow",
                           j->name, (unsigned long long)r);
        }
    }
    return j->opt->scheme.kind == NQ_SCHEME_Q8 ? encode_q8(j, err) : encode_code(j, err);
}

novaq_status nq_encode(nq_encoded *out, float *w, uint64_t rows, uint64_t cols,
                       const nq_encode_options *opt, const char *name, nq_pool *pool,
                       novaq_error *err) {
    *out = (nq_encoded){.q = {.scheme = opt->scheme,
                              .rows = rows,
                              .cols = cols,
                              .segment_rows = opt->segment_rows,
                              .groups = 1,
                              .group_cols = cols}};
    if (opt->normalize == NQ_NORMALIZE_ROTATE) {
        out->q.rotation = (nq_rotation){.block = nq_rotation_block(cols), .seed = opt->seed};
    }
    encode_job j = {.out = out,
                    .opt = opt,
                    .name = name,
                    .pool = pool,
                    .source = w,
                    .w = w,
                    .rows = rows,
                    .cols = cols};
    novaq_status st = encode_all(&j, w, err);
    nq_codebook_close(&j.codebook);
    nq_trellis_close(&j.trellis);
    nq_free(j.scale);
    nq_free(j.mean);
    nq_free(j.weight);
    nq_free(j.ratio);
    nq_free(j.plain);
    nq_free(j.sums);
    nq_free(j.totals);
    nq_free(j.scratch);
    nq_free(j.probe);
    if (st != NOVAQ_OK) {
        nq_encoded_close(out);
        return st;
    }
    point_pieces(out);
    return NOVAQ_OK;
}

void nq_encoded_close(nq_encoded *e) {
    nq_free(e->symbols);
    nq_free(e->codebooks);
    nq_free(e->codebook_scale);
    nq_free(e->row_scale);
    nq_free(e->row_mean);
    nq_free(e->col_exponent);
    *e = (nq_encoded){0};
}
