/* encode.c - see encode.h. The normalized matrix is cut into tasks, each coded on
 * its own, so threads share the work without changing a byte: a segment of rows
 * where errors are fed from column to column, else a segment x a block of
 * subvectors. Matrices of a group are coded in one loop. */
#include "quant/encode.h"

#include <math.h>
#include <string.h>

#include "base/half.h"
#include "base/mem.h"
#include "base/rng.h"
#include "kern/kern.h"
#include "quant/encode_job.h"
#include "quant/gaussian_table.h"

#define SUBVECTOR_BLOCK 16    /* subvectors coded by one task */
#define CHAINS          2     /* of them searched at once */
#define SAMPLE_CHAINS   96    /* chains that adapt the codebook to a tensor */
#define ADAPT_ROUNDS    8     /* from a Gaussian start more gain nothing */
#define WEIGHT_FLOOR    1e-4F /* a row much lighter than the rest still counts */

uint64_t nq_encode_segment_end(const encode_job *j, uint64_t segment) {
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
    unsigned d = j->scheme.d;
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
    unsigned d = j->scheme.d;
    uint64_t len = j->opt->segment_rows < j->rows ? j->opt->segment_rows : j->rows;
    if (len == 0 || j->subs == 0) {
        return nq_fail(err, NOVAQ_E_ARG, "%s: an empty matrix cannot be coded", j->item->name);
    }
    uint64_t whole = j->rows / len;
    uint64_t all = whole * j->subs;
    /* Enough subvectors for every entry to be met some 64 times. */
    uint64_t entries = nq_scheme_codebook_bytes(&j->scheme) / d;
    uint64_t want = entries * 64 / len + 1;
    want = want < SAMPLE_CHAINS ? SAMPLE_CHAINS : want;
    uint64_t count = all < want ? all : want;
    NQ_TRY(nq_alloc(x, count * len * d, sizeof(float), err));
    novaq_status st = nq_alloc(weight, count * len, sizeof(float), err);
    if (st != NOVAQ_OK) {
        return st;
    }
    uint64_t stream = nq_stream(j->item->name);
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
    const nq_scheme *s = &j->scheme;
    float *x = NULL;
    float *weight = NULL;
    nq_chains chains;
    nq_train_options train = {.rounds = j->opt->max_iterations,
                              .tolerance = j->opt->tolerance,
                              .seed = nq_hash3(j->opt->seed, nq_stream(j->item->name), 0) >> 1};
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

static uint64_t longest_segment(const encode_job *j) {
    return j->opt->segment_rows < j->rows ? j->opt->segment_rows : j->rows;
}

/* Scratch of one task: CHAINS chains with their symbols, and the search's own. */
static uint64_t chain_bytes(const encode_job *j) {
    uint64_t len = longest_segment(j);
    uint64_t x = len * j->scheme.d * sizeof(float);
    uint64_t symbols = len * j->scheme.fields;
    return (CHAINS * (x + symbols) + nq_trellis_scratch(&j->trellis, len) + 255) / 64 * 64;
}

static uint64_t subvector_blocks(const encode_job *j) {
    return (j->subs + SUBVECTOR_BLOCK - 1) / SUBVECTOR_BLOCK;
}

static void keep_symbols(const encode_job *j, const uint8_t *symbols, uint64_t r0, uint64_t len,
                         uint64_t sub) {
    unsigned fields = j->scheme.fields;
    for (unsigned f = 0; f < fields; f++) {
        uint8_t *dst = j->plain + (r0 * fields + f) * j->stride + sub;
        for (uint64_t t = 0; t < len; t++) {
            dst[t * fields * j->stride] = symbols[f * len + t];
        }
    }
}

static void code_block(const encode_job *j, uint64_t task, uint8_t *p) {
    const nq_scheme *s = &j->scheme;
    uint64_t blocks = subvector_blocks(j);
    uint64_t segment = task / blocks;
    uint64_t sub0 = task % blocks * SUBVECTOR_BLOCK;
    uint64_t sub1 = sub0 + SUBVECTOR_BLOCK < j->subs ? sub0 + SUBVECTOR_BLOCK : j->subs;
    uint64_t r0 = segment * j->opt->segment_rows;
    uint64_t len = nq_encode_segment_end(j, segment) - r0;
    float *x[CHAINS];
    uint8_t *symbols[CHAINS];
    const float *ratio[CHAINS];
    for (unsigned i = 0; i < CHAINS; i++) {
        x[i] = (float *)(void *)p + i * len * s->d;
        symbols[i] = p + CHAINS * len * s->d * sizeof(float) + i * len * s->fields;
        ratio[i] = j->ratio + r0;
    }
    uint8_t *search = symbols[0] + CHAINS * len * s->fields;
    for (uint64_t sub = sub0; sub < sub1; sub += CHAINS) {
        unsigned n = sub1 - sub < CHAINS ? (unsigned)(sub1 - sub) : CHAINS;
        for (unsigned i = 0; i < n; i++) {
            gather_chain(x[i], j, r0, r0 + len, sub + i);
        }
        nq_trellis_encode_many(symbols, &j->trellis, (const float *const *)x, len, ratio, n,
                               search);
        for (unsigned i = 0; i < n; i++) {
            keep_symbols(j, symbols[i], r0, len, sub + i);
        }
    }
}

/* ---- one matrix, phase by phase ---------------------------------------------- */

static void scale_columns(const encode_job *j, float *w) {
    for (uint64_t c = 0; c < j->cols; c++) {
        float f = nq_col_factor((int8_t)-j->out->col_exponent[c]);
        for (uint64_t r = 0; r < j->rows; r++) {
            w[r * j->cols + c] *= f;
        }
    }
}

typedef struct rotate_job {
    float *w;
    const nq_rotation *rotation;
    uint64_t rows, cols;
} rotate_job;

static void rotate_task(void *ctx, uint64_t task, unsigned worker) {
    (void)worker;
    const rotate_job *j = ctx;
    uint64_t r0 = task * 64;
    nq_rotate_forward(j->w + r0 * j->cols, j->rotation, j->rows - r0 < 64 ? j->rows - r0 : 64,
                      j->cols);
}

/* The item's array into the coded basis: W C Dt Ht. */
static novaq_status change_basis(encode_job *j, novaq_error *err) {
    nq_encoded *o = j->out;
    const nq_metric *m = j->opt->metric;
    if (m != NULL) {
        o->q.rotation = m->rotation;
        if (m->col_exponent != NULL) {
            NQ_TRY(nq_alloc_raw(&o->col_exponent, j->cols, 1, err));
            memcpy(o->col_exponent, m->col_exponent, j->cols);
            scale_columns(j, j->item->w);
        }
    } else if (j->opt->normalize == NQ_NORMALIZE_ROTATE) {
        uint32_t block = nq_rotation_block(j->cols);
        bool less = j->opt->rotation_block != 0 && j->opt->rotation_block < block;
        o->q.rotation =
            (nq_rotation){.block = less ? j->opt->rotation_block : block, .seed = j->opt->seed};
    }
    rotate_job r = {j->item->w, &o->q.rotation, j->rows, j->cols};
    nq_pool_run(j->pool, rotate_task, &r, (j->rows + 63) / 64);
    return NOVAQ_OK;
}

/* With inputs that the coded model sees otherwise than the original one, w is not
 * what is to be coded, but what does the most for the output. */
static novaq_status make_target(encode_job *j, novaq_error *err) {
    const nq_metric *m = j->opt->metric;
    uint64_t n = j->rows * j->cols;
    j->w = j->item->w;
    if (m == NULL || !(j->opt->correct_share > 0) ||
        (m->cross == NULL && j->item->residual == NULL)) {
        return NOVAQ_OK;
    }
    NQ_TRY(nq_alloc_raw(&j->target, n, sizeof(float), err));
    memcpy(j->target, j->item->w, n * sizeof(float));
    j->w = j->target;
    return nq_metric_correct(j->target, j->rows, m, j->item->residual, j->opt->correct_share,
                             j->pool, err);
}

static novaq_status normalize(encode_job *j, novaq_error *err) {
    nq_normalize how = j->opt->normalize;
    bool fitted = how == NQ_NORMALIZE_ROW || how == NQ_NORMALIZE_ROTATE;
    if (how == NQ_NORMALIZE_PAPER || (j->opt->row_means && fitted)) {
        NQ_TRY(nq_alloc(&j->mean, j->rows, sizeof(float), err));
        NQ_TRY(nq_alloc(&j->out->row_mean, j->rows, sizeof(uint16_t), err));
    }
    float *w = j->target != NULL ? j->target : j->item->w;
    j->fit = fitted;
    NQ_TRY(nq_normalize_rows(w, j->scale, j->mean, j->rows, j->cols, j->opt, j->pool, err));
    for (uint64_t r = 0; r < j->rows; r++) {
        if (!isfinite(j->scale[r])) {
            return nq_fail(err, NOVAQ_E_NUMERIC,
                           "%s: row %llu holds NaN, infinity or values whose "
                           "squares overflow",
                           j->item->name, (unsigned long long)r);
        }
    }
    return NOVAQ_OK;
}

static novaq_status open_feedback(encode_job *j, novaq_error *err) {
    unsigned threads = nq_pool_threads(j->pool);
    NQ_TRY(nq_alloc(&j->output, j->segments, 2 * sizeof(double), err));
    NQ_TRY(nq_alloc(&j->clones, threads, sizeof *j->clones, err));
    for (unsigned i = 0; i < threads; i++) {
        NQ_TRY(nq_trellis_clone(&j->clones[i], &j->trellis, err));
    }
    j->feedback = (nq_feedback){.metric = j->opt->metric,
                                .trellis = j->clones,
                                .w = j->w,
                                .weight = j->weight,
                                .factor = j->factor,
                                .symbols = j->plain,
                                .output = j->output,
                                .rows = j->rows,
                                .stride = j->stride,
                                .segment_rows = j->opt->segment_rows,
                                .feed = j->opt->feedback,
                                .fit_scales = j->fit,
                                .sweeps = j->opt->sweeps};
    return NOVAQ_OK;
}

static novaq_status prepare_code(encode_job *j, novaq_error *err) {
    nq_encoded *o = j->out;
    const nq_scheme *s = &j->scheme;
    j->stride = nq_scheme_row_symbols(s, j->cols);
    j->subs = j->cols / s->d + (j->cols % s->d != 0);
    j->segments = (j->rows + j->opt->segment_rows - 1) / j->opt->segment_rows;
    row_weights(j);
    NQ_TRY(choose_codebook(j, err));
    NQ_TRY(nq_alloc(&j->plain, j->rows * s->fields, j->stride, err));
    NQ_TRY(nq_alloc(&j->sums, j->segments * j->subs, 4 * sizeof(double), err));
    NQ_TRY(nq_alloc(&j->totals, j->segments, 4 * sizeof(double), err));
    NQ_TRY(nq_alloc(&o->codebooks, nq_scheme_codebook_bytes(s), 1, err));
    NQ_TRY(nq_alloc(&o->codebook_scale, 1, sizeof(uint16_t), err));
    memcpy(o->codebooks, j->codebook.entries, nq_scheme_codebook_bytes(s));
    o->codebook_scale[0] = j->codebook.scale;
    return j->opt->metric != NULL ? open_feedback(j, err) : NOVAQ_OK;
}

/* A metric is for matrices of its columns, whose subvectors its order leaves whole. */
static novaq_status check_metric(const encode_job *j, novaq_error *err) {
    const nq_metric *m = j->opt->metric;
    bool fits = m == NULL || m->cols == j->cols;
    for (uint64_t k = 0; fits && m != NULL && m->order != NULL && k < j->cols; k++) {
        unsigned v = (unsigned)(k % j->scheme.d);
        fits = m->order[k] % j->scheme.d == v && (v == 0 || m->order[k] == m->order[k - 1] + 1);
    }
    if (!fits) {
        return nq_fail(err, NOVAQ_E_ARG, "%s: the metric's columns or their order do not fit",
                       j->item->name);
    }
    return NOVAQ_OK;
}

static novaq_status prepare(encode_job *j, novaq_error *err) {
    NQ_TRY(check_metric(j, err));
    NQ_TRY(nq_alloc(&j->scale, j->rows, sizeof(float), err));
    NQ_TRY(nq_alloc(&j->weight, j->rows, sizeof(float), err));
    NQ_TRY(nq_alloc(&j->ratio, j->rows, sizeof(float), err));
    NQ_TRY(nq_alloc(&j->factor, j->rows, sizeof(float), err));
    NQ_TRY(nq_alloc(&j->out->row_scale, j->rows, sizeof(uint16_t), err));
    NQ_TRY(change_basis(j, err));
    NQ_TRY(make_target(j, err));
    NQ_TRY(normalize(j, err));
    return j->scheme.kind == NQ_SCHEME_Q8 ? NOVAQ_OK : prepare_code(j, err);
}

/* ---- groups ---------------------------------------------------------------------- */

typedef struct group_job {
    encode_job *jobs;
    unsigned count;
    uint8_t *scratch; /* (threads, bytes) */
    uint64_t bytes;
} group_job;

static uint64_t task_count(const encode_job *j) {
    if (j->scheme.kind == NQ_SCHEME_Q8) {
        return 0;
    }
    return j->opt->metric != NULL ? j->segments : j->segments * subvector_blocks(j);
}

static void group_task(void *ctx, uint64_t task, unsigned worker) {
    const group_job *g = ctx;
    const encode_job *j = g->jobs;
    while (task >= task_count(j)) {
        task -= task_count(j++);
    }
    uint8_t *scratch = g->scratch + worker * g->bytes;
    if (j->opt->metric != NULL) {
        nq_feedback_segment(&j->feedback, task, worker, scratch);
    } else {
        code_block(j, task, scratch);
    }
}

static novaq_status code_group(group_job *g, nq_pool *pool, novaq_error *err) {
    uint64_t tasks = 0;
    for (unsigned i = 0; i < g->count; i++) {
        encode_job *j = &g->jobs[i];
        NQ_TRY(prepare(j, err));
        if (j->scheme.kind == NQ_SCHEME_Q8) {
            continue;
        }
        uint64_t coding =
            j->opt->metric != NULL ? nq_feedback_scratch(&j->feedback) : chain_bytes(j);
        uint64_t finishing = nq_encode_finish_scratch(j);
        uint64_t most = coding > finishing ? coding : finishing;
        g->bytes = most > g->bytes ? most : g->bytes;
        tasks += task_count(j);
    }
    g->bytes = (g->bytes + 63) / 64 * 64;
    NQ_TRY(nq_alloc_raw(&g->scratch, nq_pool_threads(pool), g->bytes, err));
    nq_pool_run(pool, group_task, g, tasks);
    for (unsigned i = 0; i < g->count; i++) {
        encode_job *j = &g->jobs[i];
        if (j->scheme.kind == NQ_SCHEME_Q8) {
            NQ_TRY(nq_encode_q8(j, err));
        } else {
            nq_encode_finish(j, g->scratch, g->bytes);
        }
    }
    return NOVAQ_OK;
}

static void close_job(encode_job *j) {
    for (unsigned i = 0; j->clones != NULL && i < nq_pool_threads(j->pool); i++) {
        nq_trellis_close(&j->clones[i]);
    }
    nq_codebook_close(&j->codebook);
    nq_trellis_close(&j->trellis);
    nq_free(j->clones);
    nq_free(j->target);
    nq_free(j->scale);
    nq_free(j->mean);
    nq_free(j->weight);
    nq_free(j->ratio);
    nq_free(j->factor);
    nq_free(j->plain);
    nq_free(j->sums);
    nq_free(j->totals);
    nq_free(j->output);
}

static void point_pieces(nq_encoded *o) {
    o->q.col_exponent = o->col_exponent;
    o->q.symbols = o->symbols;
    o->q.codebooks = o->codebooks;
    o->q.codebook_scale = o->codebook_scale;
    o->q.row_scale = o->row_scale;
    o->q.row_mean = o->row_mean;
}

novaq_status nq_encode_group(nq_encoded *out, const nq_encode_item *items, unsigned count,
                             uint64_t cols, const nq_encode_options *opt, nq_pool *pool,
                             novaq_error *err) {
    memset(out, 0, count * sizeof *out);
    group_job g = {.count = count};
    NQ_TRY(nq_alloc(&g.jobs, count, sizeof *g.jobs, err));
    for (unsigned i = 0; i < count; i++) {
        out[i] = (nq_encoded){.q = {.scheme = items[i].scheme,
                                    .rows = items[i].rows,
                                    .cols = cols,
                                    .segment_rows = opt->segment_rows,
                                    .groups = 1,
                                    .group_cols = cols},
                              .output_error = NAN};
        g.jobs[i] = (encode_job){.out = &out[i],
                                 .opt = opt,
                                 .item = &items[i],
                                 .scheme = items[i].scheme,
                                 .pool = pool,
                                 .rows = items[i].rows,
                                 .cols = cols};
    }
    novaq_status st = code_group(&g, pool, err);
    for (unsigned i = 0; i < count; i++) {
        close_job(&g.jobs[i]);
        point_pieces(&out[i]);
    }
    nq_free(g.scratch);
    nq_free(g.jobs);
    return st;
}

novaq_status nq_encode(nq_encoded *out, float *w, uint64_t rows, uint64_t cols,
                       const nq_scheme *scheme, const nq_encode_options *opt, const char *name,
                       nq_pool *pool, novaq_error *err) {
    nq_encode_item item = {.name = name, .scheme = *scheme, .w = w, .rows = rows};
    novaq_status st = nq_encode_group(out, &item, 1, cols, opt, pool, err);
    if (st != NOVAQ_OK) {
        nq_encoded_close(out);
    }
    return st;
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
