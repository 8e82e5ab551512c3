/* forward.c - see model.h: the forward pass.
 *
 *   h = x + Wo attention(rope(Wq n), rope(Wk n), Wv n),  n = rmsnorm(x)
 *   x = h + Wdown (silu(Wgate r) * Wup r),               r = rmsnorm(h)
 *
 * A feed holds `sequences` rows of `count` tokens; all linear layers see them as
 * one matrix, attention sees each sequence alone. */
#include <cblas.h>
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "model/model.h"
#include "model/vec.h"

/* Tokens of one task of the element-wise passes, queries of one of attention. */
#define ROW_TASK   16
#define QUERY_TASK 128

struct nq_run {
    const nq_model *m;
    uint32_t sequences; /* capacity */
    uint32_t n_ctx;     /* capacity */
    uint32_t block;     /* capacity */
    uint32_t position;  /* tokens in the cache, of each sequence */
    uint32_t fed;       /* sequences in use since the reset */
    uint32_t rows;      /* tokens of the last feed, all sequences */
    uint32_t count;     /* tokens of the last feed, per sequence */
    const int32_t *tokens;
    const nq_block *layer; /* of the pass at work */
    uint32_t layer_index;
    uint32_t cached;      /* blocks the cache holds: all, or the one at work */
    float *x;             /* (rows, dim) residual stream */
    float *h;             /* (rows, dim) normed input, or a layer's output */
    float *q;             /* (rows, heads*head_dim) */
    float *k;             /* (rows, heads_kv*head_dim) */
    float *v;             /* (rows, heads_kv*head_dim) */
    float *att;           /* (rows, heads*head_dim) */
    float *gate;          /* (rows, ff) */
    float *up;            /* (rows, ff) */
    float *scores;        /* (threads, QUERY_TASK, n_ctx) */
    float *cache;         /* (cached, 2, sequences, heads_kv, n_ctx, head_dim) */
    float *cosine;        /* (n_ctx, rope_dim/2) */
    float *sine;          /* (n_ctx, rope_dim/2) */
    novaq_status *status; /* (threads) of embedding look-ups */
    novaq_error *errors;  /* (threads) */
    nq_linear_work *work;
    nq_observe_fn observe; /* or NULL */
    void *observe_ctx;
};

static uint32_t rows_from(const nq_run *r, uint64_t task) {
    uint64_t left = r->rows - task * ROW_TASK;
    return left < ROW_TASK ? (uint32_t)left : ROW_TASK;
}

static uint64_t row_tasks(const nq_run *r) { return (r->rows + ROW_TASK - 1) / ROW_TASK; }

/* ---- opening ------------------------------------------------------------ */

static void fill_rope(nq_run *r) {
    const nq_hyper *h = &r->m->hyper;
    uint32_t half = h->rope_dim / 2;
    for (uint32_t i = 0; i < half; i++) {
        double f = nq_rope_frequency(h, i);
        if (r->m->rope_freqs != NULL) {
            f /= (double)r->m->rope_freqs[i];
        }
        for (uint32_t p = 0; p < r->n_ctx; p++) {
            r->cosine[(uint64_t)p * half + i] = (float)cos(f * p);
            r->sine[(uint64_t)p * half + i] = (float)sin(f * p);
        }
    }
}

static novaq_status floats(float **out, uint64_t a, uint64_t b, novaq_error *err) {
    uint64_t n = 0;
    if (!nq_mul_u64(a, b, &n)) {
        return nq_fail(err, NOVAQ_E_MEMORY, "%llu x %llu activations are too many",
                       (unsigned long long)a, (unsigned long long)b);
    }
    return nq_alloc_raw(out, n, sizeof(float), err);
}

static novaq_status alloc_state(nq_run *r, novaq_error *err) {
    const nq_hyper *h = &r->m->hyper;
    uint64_t rows = (uint64_t)r->sequences * r->block;
    uint64_t wide = (uint64_t)h->heads * h->head_dim;
    uint64_t kv = (uint64_t)h->heads_kv * h->head_dim;
    unsigned threads = nq_pool_threads(r->m->pool);
    NQ_TRY(floats(&r->x, rows, h->dim, err));
    NQ_TRY(floats(&r->h, rows, h->dim, err));
    NQ_TRY(floats(&r->q, rows, wide, err));
    NQ_TRY(floats(&r->k, rows, kv, err));
    NQ_TRY(floats(&r->v, rows, kv, err));
    NQ_TRY(floats(&r->att, rows, wide, err));
    NQ_TRY(floats(&r->gate, rows, h->ff, err));
    NQ_TRY(floats(&r->up, rows, h->ff, err));
    NQ_TRY(floats(&r->scores, (uint64_t)threads * QUERY_TASK, r->n_ctx, err));
    NQ_TRY(floats(&r->cache, (uint64_t)r->cached * 2 * r->sequences * r->n_ctx, kv, err));
    NQ_TRY(floats(&r->cosine, r->n_ctx, h->rope_dim / 2, err));
    NQ_TRY(floats(&r->sine, r->n_ctx, h->rope_dim / 2, err));
    NQ_TRY(nq_alloc(&r->status, threads, sizeof *r->status, err));
    NQ_TRY(nq_alloc(&r->errors, threads, sizeof *r->errors, err));
    uint64_t widest = h->dim > h->ff ? h->dim : h->ff;
    widest = wide > widest ? wide : widest;
    return nq_linear_work_open(&r->work, r->m->pool, widest, r->m->scratch_bytes, rows, err);
}

static novaq_status open_run(nq_run **out, const nq_model *m, uint32_t sequences, uint32_t n_ctx,
                             uint32_t block, uint32_t cached, novaq_error *err) {
    *out = NULL;
    nq_run *r = NULL;
    if (sequences == 0 || n_ctx == 0 || block == 0 || (uint64_t)sequences * block > 1U << 24) {
        return nq_fail(err, NOVAQ_E_ARG, "a run of %u sequences of %u tokens in blocks of %u",
                       sequences, n_ctx, block);
    }
    NQ_TRY(nq_alloc(&r, 1, sizeof *r, err));
    r->m = m;
    r->sequences = sequences;
    r->n_ctx = n_ctx;
    r->block = block < n_ctx ? block : n_ctx;
    r->cached = cached;
    novaq_status st = alloc_state(r, err);
    if (st != NOVAQ_OK) {
        nq_run_close(&r);
        return st;
    }
    fill_rope(r);
    *out = r;
    return NOVAQ_OK;
}

novaq_status nq_run_open(nq_run **out, const nq_model *m, uint32_t sequences, uint32_t n_ctx,
                         uint32_t block, novaq_error *err) {
    return open_run(out, m, sequences, n_ctx, block, m->hyper.blocks, err);
}

novaq_status nq_run_open_staged(nq_run **out, const nq_model *m, uint32_t sequences, uint32_t n_ctx,
                                novaq_error *err) {
    return open_run(out, m, sequences, n_ctx, n_ctx, 1, err);
}

void nq_run_close(nq_run **pr) {
    nq_run *r = *pr;
    *pr = NULL;
    if (r == NULL) {
        return;
    }
    float *owned[] = {r->x,    r->h,  r->q,      r->k,     r->v,      r->att,
                      r->gate, r->up, r->scores, r->cache, r->cosine, r->sine};
    for (size_t i = 0; i < sizeof owned / sizeof owned[0]; i++) {
        nq_free(owned[i]);
    }
    nq_free(r->status);
    nq_free(r->errors);
    nq_linear_work_close(&r->work);
    nq_free(r);
}

void nq_run_reset(nq_run *r) {
    r->position = 0;
    r->fed = 0;
    r->rows = 0;
    r->count = 0;
}

uint32_t nq_run_position(const nq_run *r) { return r->position; }

/* ---- the passes --------------------------------------------------------- */

static void embed_task(void *ctx, uint64_t task, unsigned worker) {
    nq_run *r = ctx;
    const nq_linear *e = &r->m->embed;
    uint32_t dim = r->m->hyper.dim;
    for (uint32_t i = 0; i < rows_from(r, task) && r->status[worker] == NOVAQ_OK; i++) {
        uint64_t row = task * ROW_TASK + i;
        uint64_t token = (uint64_t)r->tokens[row];
        if (e->dense != NULL) {
            memcpy(r->x + row * dim, e->dense + token * dim, dim * sizeof(float));
        } else {
            r->status[worker] = nq_weights_read_rows(r->x + row * dim, e->weights, e->w, token, 1,
                                                     &r->errors[worker]);
        }
    }
}

static novaq_status embed(nq_run *r, novaq_error *err) {
    unsigned threads = nq_pool_threads(r->m->pool);
    memset(r->status, 0, threads * sizeof *r->status);
    nq_pool_run(r->m->pool, embed_task, r, row_tasks(r));
    for (unsigned i = 0; i < threads; i++) {
        if (r->status[i] != NOVAQ_OK) {
            return nq_fail(err, r->status[i], "%s", r->errors[i].msg);
        }
    }
    return NOVAQ_OK;
}

static void norm_rows(nq_run *r, uint64_t task, const float *gain) {
    uint32_t dim = r->m->hyper.dim;
    for (uint32_t i = 0; i < rows_from(r, task); i++) {
        uint64_t at = (task * ROW_TASK + i) * dim;
        nq_vec_rmsnorm(r->h + at, r->x + at, gain, dim, r->m->hyper.rms_eps);
    }
}

static void attn_norm_task(void *ctx, uint64_t task, unsigned worker) {
    nq_run *r = ctx;
    (void)worker;
    norm_rows(r, task, r->layer->attn_norm);
}

static void ffn_norm_task(void *ctx, uint64_t task, unsigned worker) {
    nq_run *r = ctx;
    (void)worker;
    norm_rows(r, task, r->layer->ffn_norm);
}

static void output_norm_task(void *ctx, uint64_t task, unsigned worker) {
    nq_run *r = ctx;
    (void)worker;
    norm_rows(r, task, r->m->output_norm);
}

/* x += h. */
static void add_task(void *ctx, uint64_t task, unsigned worker) {
    nq_run *r = ctx;
    (void)worker;
    uint64_t at = task * ROW_TASK * r->m->hyper.dim;
    nq_vec_add(r->x + at, r->h + at, (uint64_t)rows_from(r, task) * r->m->hyper.dim);
}

static void swiglu_task(void *ctx, uint64_t task, unsigned worker) {
    nq_run *r = ctx;
    (void)worker;
    uint64_t at = task * ROW_TASK * r->m->hyper.ff;
    nq_vec_swiglu(r->gate + at, r->up + at, (uint64_t)rows_from(r, task) * r->m->hyper.ff);
}

/* Turns one head's vector to position p. */
static void rope(const nq_run *r, float *head, uint32_t p) {
    uint32_t half = r->m->hyper.rope_dim / 2;
    bool split = r->m->hyper.rope_half;
    const float *c = r->cosine + (uint64_t)p * half;
    const float *s = r->sine + (uint64_t)p * half;
    for (uint32_t i = 0; i < half; i++) {
        float *a = head + (split ? i : 2 * i);
        float *b = head + (split ? i + half : 2 * i + 1);
        float x = *a;
        float y = *b;
        *a = x * c[i] - y * s[i];
        *b = x * s[i] + y * c[i];
    }
}

/* Keys (which = 0) or values (1) of one head of one sequence: (n_ctx, head_dim). */
static float *cache_of(const nq_run *r, unsigned which, uint32_t sequence, uint32_t head) {
    const nq_hyper *h = &r->m->hyper;
    uint64_t block = r->layer_index % r->cached;
    uint64_t index = (block * 2 + which) * r->sequences + sequence;
    return r->cache + (index * h->heads_kv + head) * r->n_ctx * h->head_dim;
}

static void rope_task(void *ctx, uint64_t task, unsigned worker) {
    nq_run *r = ctx;
    const nq_hyper *h = &r->m->hyper;
    uint32_t width = h->head_dim;
    (void)worker;
    for (uint32_t i = 0; i < rows_from(r, task); i++) {
        uint64_t row = task * ROW_TASK + i;
        uint32_t sequence = (uint32_t)(row / r->count);
        uint32_t p = r->position + (uint32_t)(row % r->count);
        for (uint32_t g = 0; g < h->heads; g++) {
            rope(r, r->q + (row * h->heads + g) * width, p);
        }
        for (uint32_t g = 0; g < h->heads_kv; g++) {
            float *k = r->k + (row * h->heads_kv + g) * width;
            const float *v = r->v + (row * h->heads_kv + g) * width;
            rope(r, k, p);
            memcpy(cache_of(r, 0, sequence, g) + (uint64_t)p * width, k, width * sizeof(float));
            memcpy(cache_of(r, 1, sequence, g) + (uint64_t)p * width, v, width * sizeof(float));
        }
    }
}

/* Scaled scores of `n` queries from token t0 on, masked to the past, softmaxed;
 * row i has `keys` columns. */
static void softmax_rows(const nq_run *r, float *s, uint32_t n, uint32_t t0, uint32_t keys) {
    for (uint32_t i = 0; i < n; i++) {
        float *row = s + (uint64_t)i * keys;
        uint32_t seen = r->position + t0 + i + 1;
        nq_vec_softmax(row, seen);
        memset(row + seen, 0, (keys - seen) * sizeof(float));
    }
}

/* One head of one sequence, QUERY_TASK queries. */
static void attention_task(void *ctx, uint64_t task, unsigned worker) {
    nq_run *r = ctx;
    const nq_hyper *h = &r->m->hyper;
    uint32_t spans = (r->count + QUERY_TASK - 1) / QUERY_TASK;
    uint32_t span = (uint32_t)(task % spans);
    uint32_t head = (uint32_t)(task / spans % h->heads);
    uint32_t sequence = (uint32_t)(task / spans / h->heads);
    uint32_t t0 = span * QUERY_TASK;
    uint32_t n = r->count - t0 < QUERY_TASK ? r->count - t0 : QUERY_TASK;
    uint32_t keys = r->position + t0 + n;
    int width = (int)h->head_dim;
    int wide = (int)(h->heads * h->head_dim);
    uint32_t group = head / (h->heads / h->heads_kv);
    uint64_t at = ((uint64_t)sequence * r->count + t0) * (uint64_t)wide + head * h->head_dim;
    const float *k = cache_of(r, 0, sequence, group);
    const float *v = cache_of(r, 1, sequence, group);
    float *s = r->scores + (uint64_t)worker * QUERY_TASK * r->n_ctx;
    float scale = (float)(1.0 / sqrt((double)h->head_dim));
    if (n == 1) {
        cblas_sgemv(CblasRowMajor, CblasNoTrans, (int)keys, width, scale, k, width, r->q + at, 1,
                    0.0F, s, 1);
        softmax_rows(r, s, n, t0, keys);
        cblas_sgemv(CblasRowMajor, CblasTrans, (int)keys, width, 1.0F, v, width, s, 1, 0.0F,
                    r->att + at, 1);
        return;
    }
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)n, (int)keys, width, scale, r->q + at,
                wide, k, width, 0.0F, s, (int)keys);
    softmax_rows(r, s, n, t0, keys);
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)n, width, (int)keys, 1.0F, s,
                (int)keys, v, width, 0.0F, r->att + at, wide);
}

void nq_run_observe(nq_run *r, nq_observe_fn fn, void *ctx) {
    r->observe = fn;
    r->observe_ctx = ctx;
}

unsigned nq_block_linears(const nq_linear **l, const nq_block *b, unsigned stage) {
    switch (stage) {
    case 0:
        l[0] = &b->q;
        l[1] = &b->k;
        l[2] = &b->v;
        return 3;
    case 1: l[0] = &b->out; return 1;
    case 2:
        l[0] = &b->gate;
        l[1] = &b->up;
        return 2;
    default: l[0] = &b->down; return 1;
    }
}

/* Where the input of a stage's matrices lies. */
static float *stage_input(const nq_run *r, unsigned stage) {
    float *const input[NQ_STAGES] = {r->h, r->att, r->h, r->gate};
    return input[stage];
}

/* What follows the products of a stage; leaves the input of the next one. */
static void finish_stage(nq_run *r, unsigned stage) {
    nq_pool *pool = r->m->pool;
    uint64_t heads = (uint64_t)r->fed * r->m->hyper.heads;
    uint64_t spans = (r->count + QUERY_TASK - 1) / QUERY_TASK;
    switch (stage) {
    case 0:
        nq_pool_run(pool, rope_task, r, row_tasks(r));
        nq_pool_run(pool, attention_task, r, heads * spans);
        break;
    case 1:
        nq_pool_run(pool, add_task, r, row_tasks(r));
        nq_pool_run(pool, ffn_norm_task, r, row_tasks(r));
        break;
    case 2: nq_pool_run(pool, swiglu_task, r, row_tasks(r)); break;
    default: nq_pool_run(pool, add_task, r, row_tasks(r)); break;
    }
}

/* The products of a stage, y = x * transposed l, and what follows them. Whoever
 * watches sees the input first. */
static novaq_status run_stage(nq_run *r, unsigned stage, const nq_linear *const *l, unsigned count,
                              novaq_error *err) {
    float *const outputs[NQ_STAGES][3] = {{r->q, r->k, r->v}, {r->h}, {r->gate, r->up}, {r->h}};
    const float *x = stage_input(r, stage);
    if (r->observe != NULL) {
        NQ_TRY(r->observe(r->observe_ctx, l, count, x, r->rows, err));
    }
    NQ_TRY(nq_linear_apply(outputs[stage], l, count, x, r->rows, r->work, err));
    finish_stage(r, stage);
    return NOVAQ_OK;
}

static novaq_status run_block(nq_run *r, novaq_error *err) {
    nq_pool_run(r->m->pool, attn_norm_task, r, row_tasks(r));
    for (unsigned stage = 0; stage < NQ_STAGES; stage++) {
        const nq_linear *l[NQ_GROUP_MAX];
        unsigned count = nq_block_linears(l, r->layer, stage);
        NQ_TRY(run_stage(r, stage, l, count, err));
    }
    return NOVAQ_OK;
}

static novaq_status check_feed(const nq_run *r, const int32_t *tokens, uint32_t sequences,
                               uint32_t count, novaq_error *err) {
    if (sequences == 0 || sequences > r->sequences || count == 0 || count > r->block ||
        count > r->n_ctx - r->position || (r->fed != 0 && sequences != r->fed)) {
        return nq_fail(err, NOVAQ_E_ARG, "%u x %u tokens at position %u do not fit %u x %u",
                       sequences, count, r->position, r->sequences, r->n_ctx);
    }
    for (uint64_t i = 0; i < (uint64_t)sequences * count; i++) {
        if (tokens[i] < 0 || (uint32_t)tokens[i] >= r->m->hyper.vocab) {
            return nq_fail(err, NOVAQ_E_ARG, "token %d is outside the vocabulary of %u", tokens[i],
                           r->m->hyper.vocab);
        }
    }
    return NOVAQ_OK;
}

novaq_status nq_run_feed(nq_run *r, const int32_t *tokens, uint32_t sequences, uint32_t count,
                         novaq_error *err) {
    NQ_TRY(check_feed(r, tokens, sequences, count, err));
    r->tokens = tokens;
    r->fed = sequences;
    r->count = count;
    r->rows = sequences * count;
    NQ_TRY(embed(r, err));
    for (uint32_t i = 0; i < r->m->hyper.blocks; i++) {
        r->layer = &r->m->blocks[i];
        r->layer_index = i;
        NQ_TRY(run_block(r, err));
    }
    nq_pool_run(r->m->pool, output_norm_task, r, row_tasks(r));
    r->position += count;
    r->tokens = NULL;
    return NOVAQ_OK;
}

novaq_status nq_run_logits(float *logits, nq_run *r, const uint32_t *rows, uint32_t n,
                           novaq_error *err) {
    uint32_t dim = r->m->hyper.dim;
    if (n > r->rows) {
        return nq_fail(err, NOVAQ_E_ARG, "logits of %u rows asked, %u fed", n, r->rows);
    }
    for (uint32_t i = 0; i < n; i++) { /* x is free after the last block: gather there */
        if (rows[i] >= r->rows) {
            return nq_fail(err, NOVAQ_E_ARG, "row %u of %u", rows[i], r->rows);
        }
        memcpy(r->x + (uint64_t)i * dim, r->h + (uint64_t)rows[i] * dim, dim * sizeof(float));
    }
    return nq_linear_apply((float *[]){logits}, (const nq_linear *[]){&r->m->head}, 1, r->x, n,
                           r->work, err);
}

/* ---- one block at a time ---------------------------------------------------- */

uint64_t nq_stage_cols(const nq_model *m, unsigned stage) {
    const nq_linear *l[NQ_GROUP_MAX];
    (void)nq_block_linears(l, &m->blocks[0], stage);
    return l[0]->w->cols;
}

uint64_t nq_stage_widest(const nq_model *m) {
    uint64_t widest = 0;
    for (unsigned stage = 0; stage < NQ_STAGES; stage++) {
        uint64_t cols = nq_stage_cols(m, stage);
        widest = cols > widest ? cols : widest;
    }
    return widest;
}

/* A feed of whole sequences from position 0, at `block`. */
static novaq_status enter(nq_run *r, uint32_t block, uint32_t sequences, uint32_t count,
                          novaq_error *err) {
    if (sequences == 0 || sequences > r->sequences || count == 0 || count > r->block ||
        block >= r->m->hyper.blocks) {
        return nq_fail(err, NOVAQ_E_ARG, "%u x %u tokens in block %u do not fit", sequences, count,
                       block);
    }
    r->position = 0;
    r->fed = sequences;
    r->count = count;
    r->rows = sequences * count;
    r->layer = &r->m->blocks[block];
    r->layer_index = block;
    return NOVAQ_OK;
}

novaq_status nq_run_embed(float *x, nq_run *r, const int32_t *tokens, uint32_t sequences,
                          uint32_t count, novaq_error *err) {
    nq_run_reset(r);
    NQ_TRY(check_feed(r, tokens, sequences, count, err));
    NQ_TRY(enter(r, 0, sequences, count, err));
    r->tokens = tokens;
    novaq_status st = embed(r, err);
    r->tokens = NULL;
    memcpy(x, r->x, (uint64_t)r->rows * r->m->hyper.dim * sizeof(float));
    return st;
}

novaq_status nq_run_enter(float *input, nq_run *r, uint32_t block, const float *x,
                          uint32_t sequences, uint32_t count, novaq_error *err) {
    NQ_TRY(enter(r, block, sequences, count, err));
    uint64_t bytes = (uint64_t)r->rows * r->m->hyper.dim * sizeof(float);
    memcpy(r->x, x, bytes);
    nq_pool_run(r->m->pool, attn_norm_task, r, row_tasks(r));
    memcpy(input, r->h, bytes);
    return NOVAQ_OK;
}

novaq_status nq_run_stage(float *next, float *x, nq_run *r, uint32_t block, unsigned stage,
                          const nq_linear *const *l, const float *input, uint32_t sequences,
                          uint32_t count, novaq_error *err) {
    NQ_TRY(enter(r, block, sequences, count, err));
    const nq_linear *own[NQ_GROUP_MAX];
    unsigned matrices = nq_block_linears(own, r->layer, stage);
    uint64_t bytes = (uint64_t)r->rows * r->m->hyper.dim * sizeof(float);
    memcpy(r->x, x, bytes);
    memcpy(stage_input(r, stage), input, r->rows * own[0]->w->cols * sizeof(float));
    NQ_TRY(run_stage(r, stage, l, matrices, err));
    memcpy(x, r->x, bytes);
    if (next != NULL && stage + 1 < NQ_STAGES) {
        memcpy(next, stage_input(r, stage + 1),
               r->rows * nq_stage_cols(r->m, stage + 1) * sizeof(float));
    }
    return NOVAQ_OK;
}

void nq_run_output(float *h, nq_run *r, const float *x, uint32_t rows) {
    for (uint32_t i = 0; i < rows; i++) {
        uint64_t at = (uint64_t)i * r->m->hyper.dim;
        nq_vec_rmsnorm(h + at, x + at, r->m->output_norm, r->m->hyper.dim, r->m->hyper.rms_eps);
    }
}

novaq_status nq_run_head(float *logits, nq_run *r, const float *h, uint32_t rows,
                         novaq_error *err) {
    return nq_linear_apply((float *[]){logits}, (const nq_linear *[]){&r->m->head}, 1, h, rows,
                           r->work, err);
}
