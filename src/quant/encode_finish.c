/* encode_finish.c - the last phase of encode.c: row scales, packing, telemetry. */
#include <math.h>
#include <string.h>

#include "base/half.h"
#include "base/mem.h"
#include "kern/kern.h"
#include "quant/encode_job.h"

typedef struct finish_job {
    encode_job *j;
    uint8_t *scratch; /* (threads, bytes) */
    uint64_t bytes;
} finish_job;

static uint64_t padded_cols(const encode_job *j) { return j->subs * j->scheme.d; }

uint64_t nq_encode_finish_scratch(const encode_job *j) {
    return (2 * padded_cols(j) * sizeof(float) + 63) / 64 * 64; /* decoded and source */
}

/* out (cols rounded up to whole subvectors): decoded normalized row. */
static void decode_normalized(float *out, const encode_job *j, uint64_t row) {
    const nq_scheme *s = &j->scheme;
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

/* Least squares without knowledge of the inputs: <w, q> / <q, q>. */
static float best_scale(const float *w, const float *q, uint64_t n) {
    double wq = 0;
    double qq = 0;
    for (uint64_t c = 0; c < n; c++) {
        wq += (double)w[c] * (double)q[c];
        qq += (double)q[c] * (double)q[c];
    }
    return qq > 0 && wq > 0 ? (float)(wq / qq) : 1.0F;
}

static void fit_segment(void *ctx, uint64_t segment, unsigned worker) {
    const finish_job *f = ctx;
    const encode_job *j = f->j;
    float *q = (float *)(void *)(f->scratch + worker * f->bytes);
    uint64_t end = nq_encode_segment_end(j, segment);
    for (uint64_t r = segment * j->opt->segment_rows; r < end; r++) {
        decode_normalized(q, j, r);
        j->factor[r] = best_scale(j->w + r * j->cols, q, j->cols);
    }
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

/* Measures a segment with the scales as stored. w holds the row
 * divided by what normalization divided by (ratio[r] now), so it is brought back
 * to the weights' units; where the coded target is not the original itself, the
 * original lies in the item's array. Subspaces are measured where they are coded;
 * with column scales the layer's own sums need the way back as well. */
static void finish_segment(void *ctx, uint64_t segment, unsigned worker) {
    const finish_job *f = ctx;
    const encode_job *j = f->j;
    const nq_scheme *s = &j->scheme;
    float *q = (float *)(void *)(f->scratch + worker * f->bytes);
    float *src = q + padded_cols(j);
    double *total = j->totals + segment * 4;
    uint64_t end = nq_encode_segment_end(j, segment);
    for (uint64_t r = segment * j->opt->segment_rows; r < end; r++) {
        double factor = ldexp((double)nq_f16_to_f32(j->out->row_scale[r]), j->out->q.exponent);
        double mean = j->mean != NULL ? (double)j->mean[r] : 0;
        const float *original = j->target != NULL ? j->item->w + r * j->cols : NULL;
        decode_normalized(q, j, r);
        for (uint64_t c = 0; c < j->cols; c++) {
            double w = original != NULL
                           ? (double)original[c]
                           : (double)j->ratio[r] * (double)j->w[r * j->cols + c] + mean;
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

void nq_symbol_use(nq_subspace_stats *st, const nq_scheme *s, const uint8_t *symbols, uint64_t rows,
                   uint64_t stride, uint64_t subs) {
    for (unsigned f = 0; f < s->fields; f++) {
        uint64_t hist[256] = {0};
        for (uint64_t r = 0; r < rows; r++) {
            const uint8_t *row = symbols + (r * s->fields + f) * stride;
            for (uint64_t sub = 0; sub < subs; sub++) {
                hist[row[sub]]++;
            }
        }
        double n = (double)rows * (double)subs;
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
    unsigned d = j->scheme.d;
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
    nq_symbol_use(st, &j->scheme, j->plain, j->rows, j->stride, j->subs);
    double error = 0;
    double size = 0;
    for (uint64_t g = 0; j->output != NULL && g < j->segments; g++) {
        error += j->output[g * 2];
        size += j->output[g * 2 + 1];
    }
    o->output_error = size > 0 ? error / size : NAN;
}

/* Packs the rows where they lie, one after the other: a packed row is no longer than its
 * symbols, a byte each, so none is overwritten before its turn. */
static void pack_in_place(encode_job *j, uint8_t *row) {
    uint64_t plain = j->scheme.fields * j->stride;
    uint64_t packed = nq_scheme_row_bytes(&j->scheme, j->cols);
    for (uint64_t r = 0; r < j->rows; r++) {
        nq_symbols_pack(row, &j->scheme, j->plain + r * plain, j->cols);
        memcpy(j->plain + r * packed, row, packed);
    }
    j->out->symbols = j->plain;
    j->plain = NULL;
}

void nq_encode_finish(encode_job *j, uint8_t *scratch, uint64_t bytes) {
    finish_job f = {.j = j, .scratch = scratch, .bytes = bytes};
    /* From here on ratio keeps the divisor, scale becomes what is stored. */
    memcpy(j->ratio, j->scale, j->rows * sizeof(float));
    if (j->fit) {
        if (j->opt->metric == NULL) {
            nq_pool_run(j->pool, fit_segment, &f, j->segments);
        }
        for (uint64_t r = 0; r < j->rows; r++) {
            j->scale[r] *= j->factor[r];
        }
    }
    store_scales(j);
    nq_pool_run(j->pool, finish_segment, &f, j->segments);
    summarise(j);
    pack_in_place(j, scratch);
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
        src[c] = j->target != NULL ? j->item->w[r * j->cols + c] : (float)(w + mean);
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
novaq_status nq_encode_q8(encode_job *j, novaq_error *err) {
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
