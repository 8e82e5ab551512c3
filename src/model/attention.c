/* attention.c - see attention.h.
 *
 * Queries that share keys - the heads of a group, of several tokens - are the rows
 * of one task. They meet the keys in blocks of NQ_KV_BLOCK: scores, then softmax
 * with a running maximum m and sum l (Milakov and Gimelshein 2018, arXiv
 * 1805.02867), then the weighted sum of the values, so that scratch does not grow
 * with the context. One new token has too few rows for that: its keys are cut into
 * pieces at multiples of NQ_KV_BLOCK, which are tasks, and the pieces are added in
 * their order. How the work is cut depends on the shape of the call alone, never
 * on the number of threads. */
#include "model/attention.h"

#include <math.h>
#include <string.h>

#include "model/kv.h"

/* Rows from which it pays to turn the keys on their side first. */
#define TURN_ROWS 24U
/* Multiply-adds below which waking other threads costs more than it brings. */
#define ALONE 262144U
/* Tokens of one task that turns and stores. */
#define STORE_TOKENS 16U

/* A call at work. */
typedef struct pass {
    nq_kv *kv;
    const nq_attention *a;
    uint32_t pieces;     /* tasks of one head of a sequence */
    uint32_t first_span; /* one token: of the window */
} pass;

/* The rows of one task: n tokens from t0 on, keys from..to-1. */
typedef struct job {
    const pass *p;
    nq_kv_work w;
    uint32_t sequence;
    uint32_t head; /* of keys */
    uint32_t t0;
    uint32_t n;
    uint32_t from;
    uint32_t to;
} job;

static void run(const nq_kv *kv, nq_task_fn fn, pass *p, uint64_t tasks, uint64_t products) {
    nq_pool_run(products < ALONE ? NULL : kv->pool, fn, p, tasks);
}

/* ---- turning and storing ------------------------------------------------------ */

static void store_token(const pass *p, uint64_t row, float *padded) {
    nq_kv *kv = p->kv;
    const nq_attention *a = p->a;
    uint32_t dim = kv->s.head_dim;
    uint32_t sequence = (uint32_t)(row / a->count);
    uint32_t position = a->position + (uint32_t)(row % a->count);
    float *q = a->q + row * a->q_stride;
    float *k = a->k + row * a->kv_stride;
    const float *v = a->v + row * a->kv_stride;
    for (uint32_t g = 0; a->rope != NULL && g < kv->s.heads; g++) {
        nq_rope_turn(a->rope, q + (uint64_t)g * dim, position);
    }
    for (uint32_t g = 0; g < kv->s.heads_kv; g++) {
        uint64_t at = (uint64_t)g * dim;
        if (a->rope != NULL) {
            nq_rope_turn(a->rope, k + at, position);
        }
        nq_kv_store(kv, nq_kv_row(kv, a->layer, sequence, g, position), k + at, v + at, padded);
    }
}

static void store_task(void *ctx, uint64_t task, unsigned worker) {
    const pass *p = ctx;
    nq_kv_work w = nq_kv_work_of(p->kv, worker);
    uint64_t rows = (uint64_t)p->a->sequences * p->a->count;
    uint64_t from = task * STORE_TOKENS;
    uint64_t to = rows - from < STORE_TOKENS ? rows : from + STORE_TOKENS;
    for (uint64_t row = from; row < to; row++) {
        store_token(p, row, w.q); /* whose padding is never anything but zero */
    }
}

/* ---- a block of keys ------------------------------------------------------------ */

/* The queries of a job, scaled; sums empty. */
static void begin(const job *j) {
    const nq_kv *kv = j->p->kv;
    const nq_attention *a = j->p->a;
    uint32_t dim = kv->s.head_dim;
    for (uint32_t r = 0; r < j->n * kv->group; r++) {
        uint64_t row = (uint64_t)j->sequence * a->count + j->t0 + r / kv->group;
        uint64_t head = (uint64_t)j->head * kv->group + r % kv->group;
        const float *from = a->q + row * a->q_stride + head * dim;
        float *to = j->w.q + (uint64_t)r * kv->pitch;
        for (uint32_t i = 0; i < dim; i++) {
            to[i] = from[i] * a->scale;
        }
        memset(to + dim, 0, (kv->pitch - dim) * sizeof *to);
        j->w.most[r] = -INFINITY;
        j->w.sum[r] = 0;
    }
    memset(j->w.o, 0, (uint64_t)j->n * kv->group * kv->pitch * sizeof *j->w.o);
}

static const void *rows_at(const nq_kv *kv, const uint8_t *rows, uint64_t row) {
    return rows + row * kv->pitch * nq_kv_element(kv->s.type);
}

/* Scores of many rows: through keys turned on their side. */
static void score_turned(const job *j, uint64_t row, uint32_t n) {
    const nq_kv *kv = j->p->kv;
    nq_attn_type type = nq_kv_rows_type(kv);
    nq_attn_tile t = {.rows = j->w.panel,
                      .scores = j->w.q,
                      .scores_stride = kv->pitch,
                      .x_stride = NQ_KV_BLOCK,
                      .n = j->n * kv->group,
                      .keys = kv->s.head_dim,
                      .pitch = NQ_ATTN_PANEL,
                      .fresh = true};
    for (uint32_t at = 0; at < n; at += NQ_ATTN_PANEL) {
        uint32_t keys = n - at < NQ_ATTN_PANEL ? n - at : NQ_ATTN_PANEL;
        const float *scales = type == NQ_ATTN_I8 ? kv->key_scales + row + at : NULL;
        kv->kern->turn[type](j->w.panel, rows_at(kv, kv->keys, row + at), scales, keys, kv->pitch);
        t.x = j->w.scores + at;
        kv->kern->mix[NQ_ATTN_F32](&t);
    }
}

static void scale_scores(const job *j, const float *scales, uint32_t n) {
    const nq_kv *kv = j->p->kv;
    for (uint32_t r = 0; r < j->n * kv->group; r++) {
        kv->kern->scale_by(j->w.scores + (uint64_t)r * NQ_KV_BLOCK, scales, n);
    }
}

/* All rows of the job against n stored rows. */
static nq_attn_tile tile_of(const job *j, const uint8_t *rows, uint64_t row, uint32_t n, float *x) {
    const nq_kv *kv = j->p->kv;
    return (nq_attn_tile){.rows = rows_at(kv, rows, row),
                          .scores = j->w.scores,
                          .x = x,
                          .scores_stride = NQ_KV_BLOCK,
                          .x_stride = kv->pitch,
                          .n = j->n * kv->group,
                          .keys = n,
                          .pitch = kv->pitch};
}

/* Scores of all rows against n keys from row number `row` on. */
static void score(const job *j, uint64_t row, uint32_t n) {
    const nq_kv *kv = j->p->kv;
    if (j->n * kv->group >= TURN_ROWS) {
        score_turned(j, row, n);
        return;
    }
    nq_attn_tile t = tile_of(j, kv->keys, row, n, j->w.q);
    t.ahead = rows_at(kv, kv->values, row);
    kv->kern->scores[nq_kv_rows_type(kv)](&t);
    if (kv->s.type == NQ_KV_Q8) {
        scale_scores(j, kv->key_scales + row, n);
    }
}

/* Adds the weighted values. */
static void mix(const job *j, uint64_t row, uint32_t n) {
    const nq_kv *kv = j->p->kv;
    nq_attn_tile t = tile_of(j, kv->values, row, n, j->w.o);
    if (kv->s.type == NQ_KV_Q8) {
        scale_scores(j, kv->value_scales + row, n);
    }
    kv->kern->mix[nq_kv_rows_type(kv)](&t);
}

/* The first key that the query at a position sees. */
static uint32_t first_key(const nq_attention *a, uint32_t position) {
    return a->window == 0 || position < a->window ? 0 : position - a->window + 1;
}

/* Scores of row r against keys from..from+n-1 become weights relative to the
 * running maximum; what the row has summed so far follows it. */
static void soften(const job *j, uint32_t r, uint32_t from, uint32_t n) {
    const nq_kv *kv = j->p->kv;
    const nq_attention *a = j->p->a;
    float *row = j->w.scores + (uint64_t)r * NQ_KV_BLOCK;
    uint32_t position = a->position + j->t0 + r / kv->group;
    uint32_t first = first_key(a, position);
    uint32_t lo = first > from ? first - from : 0;
    uint32_t hi = position < from ? 0 : position - from + 1;
    lo = lo < n ? lo : n;
    hi = hi < n ? hi : n;
    if (lo >= hi) {
        memset(row, 0, n * sizeof *row);
        return;
    }
    if (a->softcap > 0) {
        kv->kern->softcap(row + lo, hi - lo, a->softcap);
    }
    float most = kv->kern->max(row + lo, hi - lo);
    if (most > j->w.most[r]) {
        float fade = expf(j->w.most[r] - most); /* 0 at first: the maximum was -infinity */
        float *o = j->w.o + (uint64_t)r * kv->pitch;
        for (uint32_t i = 0; i < kv->pitch && j->w.sum[r] != 0; i++) {
            o[i] *= fade;
        }
        j->w.sum[r] *= fade;
        j->w.most[r] = most;
    }
    j->w.sum[r] += kv->kern->exp_sum(row + lo, hi - lo, j->w.most[r]);
    memset(row, 0, lo * sizeof *row);
    memset(row + hi, 0, (n - hi) * sizeof *row);
}

static void attend(const job *j) {
    const nq_kv *kv = j->p->kv;
    uint64_t start = nq_kv_row(kv, j->p->a->layer, j->sequence, j->head, 0);
    begin(j);
    for (uint32_t from = j->from; from < j->to; from += NQ_KV_BLOCK) {
        uint32_t n = j->to - from < NQ_KV_BLOCK ? j->to - from : NQ_KV_BLOCK;
        score(j, start + from, n);
        for (uint32_t r = 0; r < j->n * kv->group; r++) {
            soften(j, r, from, n);
        }
        mix(j, start + from, n);
    }
}

static void divide(float *out, const float *o, float sum, uint32_t dim) {
    float inverse = 1.0F / sum;
    for (uint32_t i = 0; i < dim; i++) {
        out[i] = o[i] * inverse;
    }
}

static void finish(const job *j) {
    const nq_kv *kv = j->p->kv;
    uint32_t dim = kv->s.head_dim;
    for (uint32_t r = 0; r < j->n * kv->group; r++) {
        uint64_t row = (uint64_t)j->sequence * j->p->a->count + j->t0 + r / kv->group;
        uint64_t head = (uint64_t)j->head * kv->group + r % kv->group;
        divide(j->p->a->out + (row * kv->s.heads + head) * dim, j->w.o + (uint64_t)r * kv->pitch,
               j->w.sum[r], dim);
    }
}

/* ---- many tokens ---------------------------------------------------------------- */

static void block_task(void *ctx, uint64_t task, unsigned worker) {
    const pass *p = ctx;
    const nq_kv *kv = p->kv;
    uint64_t heads = task / p->pieces;
    job j = {.p = p, .w = nq_kv_work_of(kv, worker)};
    j.t0 = (uint32_t)(task % p->pieces) * kv->tokens;
    j.n = p->a->count - j.t0 < kv->tokens ? p->a->count - j.t0 : kv->tokens;
    j.head = (uint32_t)(heads % kv->s.heads_kv);
    j.sequence = (uint32_t)(heads / kv->s.heads_kv);
    j.from = first_key(p->a, p->a->position + j.t0);
    j.to = p->a->position + j.t0 + j.n;
    attend(&j);
    finish(&j);
}

/* ---- one token, keys in pieces ---------------------------------------------------- */

static void piece_task(void *ctx, uint64_t task, unsigned worker) {
    const pass *p = ctx;
    const nq_kv *kv = p->kv;
    uint32_t span = (uint32_t)(task % p->pieces);
    uint64_t heads = task / p->pieces;
    uint32_t first = first_key(p->a, p->a->position);
    uint32_t start = (p->first_span + span) * NQ_KV_BLOCK;
    job j = {.p = p, .w = nq_kv_work_of(kv, worker), .n = 1};
    j.head = (uint32_t)(heads % kv->s.heads_kv);
    j.sequence = (uint32_t)(heads / kv->s.heads_kv);
    j.from = start > first ? start : first;
    j.to = p->a->position - start < NQ_KV_BLOCK ? p->a->position + 1 : start + NQ_KV_BLOCK;
    attend(&j);
    if (p->pieces == 1) {
        finish(&j);
        return;
    }
    for (uint32_t r = 0; r < kv->group; r++) {
        uint64_t head = (uint64_t)j.sequence * kv->s.heads + j.head * kv->group + r;
        uint64_t at = head * kv->spans + span;
        memcpy(kv->parts + at * kv->pitch, j.w.o + (uint64_t)r * kv->pitch,
               kv->pitch * sizeof(float));
        kv->part_most[at] = j.w.most[r];
        kv->part_sum[at] = j.w.sum[r];
    }
}

/* Adds the pieces of one head of one sequence. */
static void add_task(void *ctx, uint64_t task, unsigned worker) {
    const pass *p = ctx;
    const nq_kv *kv = p->kv;
    nq_kv_work w = nq_kv_work_of(kv, worker);
    const float *most = kv->part_most + task * kv->spans;
    const float *sums = kv->part_sum + task * kv->spans;
    float *weights = kv->part_most + task * kv->spans;
    float top = kv->kern->max(most, p->pieces);
    float sum = 0;
    for (uint32_t i = 0; i < p->pieces; i++) {
        weights[i] = expf(most[i] - top);
        sum += weights[i] * sums[i];
    }
    nq_attn_tile t = {.rows = kv->parts + task * kv->spans * kv->pitch,
                      .scores = weights,
                      .x = w.o,
                      .n = 1,
                      .keys = p->pieces,
                      .pitch = kv->pitch,
                      .fresh = true};
    kv->kern->mix[NQ_ATTN_F32](&t);
    divide(p->a->out + task * kv->s.head_dim, w.o, sum, kv->s.head_dim);
}

/* ---- the call ------------------------------------------------------------------- */

static void attend_one(pass *p) {
    nq_kv *kv = p->kv;
    const nq_attention *a = p->a;
    uint32_t first = first_key(a, a->position);
    uint64_t width = (uint64_t)a->sequences * kv->s.heads * kv->pitch;
    p->first_span = first / NQ_KV_BLOCK;
    p->pieces = a->position / NQ_KV_BLOCK - p->first_span + 1;
    run(kv, piece_task, p, (uint64_t)a->sequences * kv->s.heads_kv * p->pieces,
        width * (a->position + 1 - first));
    if (p->pieces > 1) {
        run(kv, add_task, p, (uint64_t)a->sequences * kv->s.heads, width * p->pieces);
    }
}

void nq_attention_run(nq_kv *kv, const nq_attention *a) {
    pass p = {.kv = kv, .a = a};
    uint64_t rows = (uint64_t)a->sequences * a->count;
    uint64_t width = rows * kv->s.heads * kv->s.head_dim;
    run(kv, store_task, &p, (rows + STORE_TOKENS - 1) / STORE_TOKENS, width);
    if (a->count == 1) {
        attend_one(&p);
        return;
    }
    p.pieces = (a->count + kv->tokens - 1) / kv->tokens;
    run(kv, block_task, &p, (uint64_t)a->sequences * kv->s.heads_kv * p.pieces,
        width * (a->position + a->count));
}
