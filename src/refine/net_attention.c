/* net_attention.c - see net_impl.h: attention of whole sequences and its way back.
 *
 * A tile is NQ_NET_TILE queries of one head of one sequence against the keys they may
 * see: three products of small matrices, one BLAS thread each. With S = scale Q Kt,
 * capped, P = softmax(S), O = P V:
 *
 *   dV = Pt dO,  dP = dO Vt,  dS = P (dP - <dO, O>), times 1 - (S / cap)^2 where capped,
 *   dQ = scale dS K,  dK = scale dSt Q.
 *
 * Going back, P is computed again; a task is one query head, and the gradients of keys
 * and values that several heads share are added in the order of the heads. */
#include <cblas.h>
#include <string.h>

#include "base/cpu.h"
#include "model/vec.h"
#include "refine/net_impl.h"

nq_heads nq_net_heads(const nq_net *n, const nq_tblock *t, float *qkv) {
    uint64_t wide = nq_net_wide(n);
    uint64_t kv = nq_net_kv(n);
    if (t->qkv != NULL) {
        uint64_t all = wide + 2 * kv;
        return (nq_heads){qkv, qkv + wide, qkv + wide + kv, all, all};
    }
    float *k = qkv + n->rows * wide;
    return (nq_heads){qkv, k, k + n->rows * kv, wide, kv};
}

/* The block at work. */
typedef struct call {
    nq_net *n;
    const nq_tblock *t;
    nq_heads a, d;       /* turned heads; their gradients */
    const nq_rope *rope; /* or NULL */
    uint32_t tiles;      /* of one head of a sequence */
} call;

static call call_of(nq_net *n, const nq_tblock *t) {
    bool turned = n->m->rope[t->b->kind].dim > 0;
    return (call){.n = n,
                  .t = t,
                  .a = nq_net_heads(n, t, n->in.qkv),
                  .d = nq_net_heads(n, t, n->in.dqkv),
                  .rope = turned ? &n->rope[t->b->kind] : NULL,
                  .tiles = (n->length + NQ_NET_TILE - 1) / NQ_NET_TILE};
}

/* ---- one tile ------------------------------------------------------------------- */

/* Queries t0..t0+n-1 of a head of a sequence, and the keys from..from+keys-1 that any of
 * them sees. Pointers are to their first rows. */
typedef struct tile {
    const call *c;
    uint32_t t0, n, from, keys;
    const float *q, *k, *v;
    float *capped;           /* (n, keys) scores after the cap, where there is one */
    float *p;                /* (n, keys) */
    float *dp;               /* (n, keys) */
    uint64_t q_row, k_row;   /* of the first query and key */
    uint64_t q_head, k_head; /* columns where the head starts */
} tile;

static uint32_t first_key(const call *c, uint32_t position) {
    uint32_t window = c->t->b->window;
    return window == 0 || position < window ? 0 : position - window + 1;
}

static tile tile_of(const call *c, uint32_t sequence, uint32_t head, uint32_t index,
                    unsigned worker) {
    const nq_net *n = c->n;
    const nq_hyper *h = &n->m->hyper;
    uint64_t room = (uint64_t)NQ_NET_TILE * n->opt.length;
    tile t = {.c = c, .t0 = index * NQ_NET_TILE};
    t.n = n->length - t.t0 < NQ_NET_TILE ? n->length - t.t0 : NQ_NET_TILE;
    t.from = first_key(c, t.t0);
    t.keys = t.t0 + t.n - t.from;
    t.q_row = (uint64_t)sequence * n->length + t.t0;
    t.k_row = (uint64_t)sequence * n->length + t.from;
    t.q_head = (uint64_t)head * h->head_dim;
    t.k_head = (uint64_t)(head / (h->heads / h->heads_kv)) * h->head_dim;
    t.q = c->a.q + t.q_row * c->a.q_stride + t.q_head;
    t.k = c->a.k + t.k_row * c->a.kv_stride + t.k_head;
    t.v = c->a.v + t.k_row * c->a.kv_stride + t.k_head;
    t.capped = n->in.tiles + worker * 3 * room;
    t.p = t.capped + room;
    t.dp = t.p + room;
    return t;
}

/* The keys that query i of the tile sees, as columns lo..hi-1. */
static void seen(const tile *t, uint32_t i, uint32_t *lo, uint32_t *hi) {
    *lo = first_key(t->c, t->t0 + i) - t->from;
    *hi = t->t0 + i + 1 - t->from;
}

/* p: the weights of the tile; 0 where a query does not look. */
static void weigh(const tile *t) {
    const nq_hyper *h = &t->c->n->m->hyper;
    float cap = (float)h->attention_softcap;
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)t->n, (int)t->keys, (int)h->head_dim,
                (float)h->attention_scale, t->q, (int)t->c->a.q_stride, t->k,
                (int)t->c->a.kv_stride, 0.0F, t->p, (int)t->keys);
    if (cap > 0) {
        nq_vec_softcap(t->p, (uint64_t)t->n * t->keys, cap);
        memcpy(t->capped, t->p, (uint64_t)t->n * t->keys * sizeof *t->p);
    }
    for (uint32_t i = 0; i < t->n; i++) {
        float *row = t->p + (uint64_t)i * t->keys;
        uint32_t lo = 0;
        uint32_t hi = 0;
        seen(t, i, &lo, &hi);
        nq_vec_softmax(row + lo, hi - lo);
        memset(row, 0, lo * sizeof *row);
        memset(row + hi, 0, (t->keys - hi) * sizeof *row);
    }
}

static void attend_task(void *ctx, uint64_t task, unsigned worker) {
    const call *c = ctx;
    const nq_hyper *h = &c->n->m->hyper;
    uint64_t wide = nq_net_wide(c->n);
    uint64_t at = task / c->tiles;
    tile t = tile_of(c, (uint32_t)(at / h->heads), (uint32_t)(at % h->heads),
                     (uint32_t)(task % c->tiles), worker);
    weigh(&t);
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)t.n, (int)h->head_dim, (int)t.keys,
                1.0F, t.p, (int)t.keys, t.v, (int)c->a.kv_stride, 0.0F,
                c->n->in.att + t.q_row * wide + t.q_head, (int)wide);
}

/* ---- before attention -------------------------------------------------------------- */

static void turn_task(void *ctx, uint64_t task, unsigned worker) {
    const call *c = ctx;
    const nq_hyper *h = &c->n->m->hyper;
    (void)worker;
    for (uint64_t i = 0; i < nq_net_task_rows(c->n->rows, task); i++) {
        uint64_t row = task * NQ_NET_TASK + i;
        uint32_t position = (uint32_t)(row % c->n->length);
        for (uint32_t g = 0; g < h->heads; g++) {
            nq_rope_turn(c->rope, c->a.q + row * c->a.q_stride + (uint64_t)g * h->head_dim,
                         position);
        }
        for (uint32_t g = 0; g < h->heads_kv; g++) {
            nq_rope_turn(c->rope, c->a.k + row * c->a.kv_stride + (uint64_t)g * h->head_dim,
                         position);
        }
    }
}

static nq_spans spans_of(const nq_net *n, uint64_t count, uint64_t stride) {
    return (nq_spans){n->rows, count, n->m->hyper.head_dim, stride};
}

void nq_net_attention(nq_net *n, const nq_tblock *t) {
    const nq_hyper *h = &n->m->hyper;
    call c = call_of(n, t);
    nq_net_add_bias(n, c.a.q, &t->q_bias, c.a.q_stride);
    nq_net_add_bias(n, c.a.k, &t->k_bias, c.a.kv_stride);
    nq_net_add_bias(n, c.a.v, &t->v_bias, c.a.kv_stride);
    if (n->in.raw != NULL) {
        memcpy(n->in.raw, n->in.qkv, n->rows * (nq_net_wide(n) + 2 * nq_net_kv(n)) * sizeof(float));
    }
    if (t->q_norm.gain.value != NULL) {
        nq_net_norm(n, c.a.q, c.a.q, &t->q_norm, spans_of(n, h->heads, c.a.q_stride));
    }
    if (t->k_norm.gain.value != NULL) {
        nq_net_norm(n, c.a.k, c.a.k, &t->k_norm, spans_of(n, h->heads_kv, c.a.kv_stride));
    }
    if (c.rope != NULL) {
        nq_pool_run(n->m->pool, turn_task, &c, nq_net_tasks(n->rows));
    }
    nq_pool_run(n->m->pool, attend_task, &c, (uint64_t)n->sequences * h->heads * c.tiles);
}

/* ---- the way back -------------------------------------------------------------------- */

/* dp becomes the gradient by the scaled scores, row by row. */
NQ_CPU_CLONES static void back_softmax(float *restrict dp, const float *restrict p, float mean,
                                       uint64_t n) {
    for (uint64_t i = 0; i < n; i++) {
        dp[i] = p[i] * (dp[i] - mean);
    }
}

NQ_CPU_CLONES static void back_cap(float *restrict dp, const float *restrict capped, float by,
                                   uint64_t n) {
    for (uint64_t i = 0; i < n; i++) {
        float y = capped[i] * by;
        dp[i] *= 1.0F - y * y;
    }
}

static void back_tile(const tile *t) {
    const call *c = t->c;
    const nq_inside *in = &c->n->in;
    const nq_hyper *h = &c->n->m->hyper;
    int dim = (int)h->head_dim;
    int wide = (int)nq_net_wide(c->n);
    int n = (int)t->n;
    int keys = (int)t->keys;
    float scale = (float)h->attention_scale;
    uint64_t q_at = t->q_row * (uint64_t)wide + t->q_head;
    uint64_t k_at = t->k_row * (uint64_t)wide + t->q_head;
    const float *dout = in->datt + q_at;
    cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, keys, dim, n, 1.0F, t->p, keys, dout, wide,
                1.0F, in->dvals + k_at, wide);
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, n, keys, dim, 1.0F, dout, wide, t->v,
                (int)c->a.kv_stride, 0.0F, t->dp, keys);
    for (uint32_t i = 0; i < t->n; i++) {
        uint64_t at = (uint64_t)i * (uint64_t)wide;
        double mean = nq_vec_dot(dout + at, in->att + q_at + at, h->head_dim);
        back_softmax(t->dp + (uint64_t)i * t->keys, t->p + (uint64_t)i * t->keys, (float)mean,
                     t->keys);
    }
    if (h->attention_softcap > 0) {
        back_cap(t->dp, t->capped, (float)(1.0 / h->attention_softcap), (uint64_t)t->n * t->keys);
    }
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, n, dim, keys, scale, t->dp, keys, t->k,
                (int)c->a.kv_stride, 0.0F, c->d.q + t->q_row * c->d.q_stride + t->q_head,
                (int)c->d.q_stride);
    cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, keys, dim, n, scale, t->dp, keys, t->q,
                (int)c->a.q_stride, 1.0F, in->dkeys + k_at, wide);
}

static void back_head_task(void *ctx, uint64_t task, unsigned worker) {
    const call *c = ctx;
    const nq_hyper *h = &c->n->m->hyper;
    uint64_t wide = nq_net_wide(c->n);
    uint32_t sequence = (uint32_t)(task / h->heads);
    uint32_t head = (uint32_t)(task % h->heads);
    for (uint64_t i = 0; i < c->n->length; i++) {
        uint64_t at = ((uint64_t)sequence * c->n->length + i) * wide + (uint64_t)head * h->head_dim;
        memset(c->n->in.dkeys + at, 0, h->head_dim * sizeof(float));
        memset(c->n->in.dvals + at, 0, h->head_dim * sizeof(float));
    }
    for (uint32_t i = 0; i < c->tiles; i++) {
        tile t = tile_of(c, sequence, head, i, worker);
        weigh(&t);
        back_tile(&t);
    }
}

/* sum (heads_kv, head_dim) of what each query head left in each (heads, head_dim). */
static void gather_heads(float *sum, const float *each, const nq_hyper *h) {
    uint32_t group = h->heads / h->heads_kv;
    for (uint32_t g = 0; g < h->heads; g++) {
        float *to = sum + (uint64_t)(g / group) * h->head_dim;
        if (g % group == 0) {
            memset(to, 0, h->head_dim * sizeof *to);
        }
        nq_vec_add(to, each + (uint64_t)g * h->head_dim, h->head_dim);
    }
}

/* The turn's transpose; its magnitude stays. */
static void turn_back(const nq_rope *r, float *head, uint32_t p) {
    uint32_t half = r->dim / 2;
    const float *cosine = r->cosine + (uint64_t)p * half;
    const float *sine = r->sine + (uint64_t)p * half;
    uint32_t step = r->half ? 1 : 2;
    uint32_t other = r->half ? half : 1;
    for (uint32_t i = 0; i < half; i++) {
        float a = head[i * step];
        float b = head[i * step + other];
        head[i * step] = a * cosine[i] + b * sine[i];
        head[i * step + other] = b * cosine[i] - a * sine[i];
    }
}

static void back_rows_task(void *ctx, uint64_t task, unsigned worker) {
    const call *c = ctx;
    const nq_net *n = c->n;
    const nq_hyper *h = &n->m->hyper;
    (void)worker;
    for (uint64_t i = 0; i < nq_net_task_rows(n->rows, task); i++) {
        uint64_t row = task * NQ_NET_TASK + i;
        uint32_t position = (uint32_t)(row % n->length);
        float *q = c->d.q + row * c->d.q_stride;
        float *k = c->d.k + row * c->d.kv_stride;
        gather_heads(k, n->in.dkeys + row * nq_net_wide(n), h);
        gather_heads(c->d.v + row * c->d.kv_stride, n->in.dvals + row * nq_net_wide(n), h);
        for (uint32_t g = 0; c->rope != NULL && g < h->heads; g++) {
            turn_back(c->rope, q + (uint64_t)g * h->head_dim, position);
        }
        for (uint32_t g = 0; c->rope != NULL && g < h->heads_kv; g++) {
            turn_back(c->rope, k + (uint64_t)g * h->head_dim, position);
        }
    }
}

void nq_net_attention_backward(nq_net *n, const nq_tblock *t) {
    const nq_hyper *h = &n->m->hyper;
    call c = call_of(n, t);
    nq_heads d = c.d;
    nq_pool_run(n->m->pool, back_head_task, &c, (uint64_t)n->sequences * h->heads);
    nq_pool_run(n->m->pool, back_rows_task, &c, nq_net_tasks(n->rows));
    nq_heads raw = n->in.raw != NULL ? nq_net_heads(n, t, n->in.raw) : (nq_heads){0};
    if (t->q_norm.gain.value != NULL) {
        nq_net_norm_backward(n, d.q, false, d.q, raw.q, &t->q_norm,
                             spans_of(n, h->heads, d.q_stride));
    }
    if (t->k_norm.gain.value != NULL) {
        nq_net_norm_backward(n, d.k, false, d.k, raw.k, &t->k_norm,
                             spans_of(n, h->heads_kv, d.kv_stride));
    }
    nq_net_bias_backward(n, &t->q_bias, d.q, d.q_stride);
    nq_net_bias_backward(n, &t->k_bias, d.k, d.kv_stride);
    nq_net_bias_backward(n, &t->v_bias, d.v, d.kv_stride);
}
