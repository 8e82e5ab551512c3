/* linear.c - see linear.h. Blocks of tokens go through OpenBLAS, one tile of
 * decoded rows at a time; a single token through the codec's own products. */
#include "model/linear.h"

#include <cblas.h>
#include <limits.h>
#include <string.h>

#include "base/mem.h"
#include "model/vec.h"

/* Rows of activations that one preparing task takes. */
#define PREPARE_ROWS 32

struct nq_linear_work {
    nq_pool *pool;
    unsigned threads;
    uint64_t tile_floats;
    uint64_t scratch_bytes;
    uint64_t max_tokens;
    uint64_t max_cols;
    float *tiles;         /* (threads, tile_floats) */
    uint8_t *scratch;     /* (threads, scratch_bytes) */
    float *prepared;      /* (max_tokens, max_cols) */
    novaq_status *status; /* (threads): first failure of each worker */
    novaq_error *errors;  /* (threads) */
};

/* One call: matrices that read the same input in the same basis. */
typedef struct product {
    nq_linear_work *work;
    const nq_linear *l[NQ_GROUP_MAX];
    float *y[NQ_GROUP_MAX];
    uint64_t tiles[NQ_GROUP_MAX]; /* row tiles of each */
    unsigned count;
    const float *x;  /* (n, cols) */
    const float *xr; /* the same in the matrices' basis; x itself when basis is NULL */
    uint64_t n;
    uint64_t spans;       /* pieces of NQ_TILE_TOKENS */
    const nq_qmat *basis; /* one of the matrices, for nq_qmat_input(); NULL: that of x */
    uint64_t cols;
} product;

novaq_status nq_linear_work_open(nq_linear_work **out, nq_pool *pool, uint64_t max_cols,
                                 uint64_t scratch_bytes, uint64_t max_tokens, novaq_error *err) {
    *out = NULL;
    nq_linear_work *w = NULL;
    uint64_t floats = 0;
    NQ_TRY(nq_alloc(&w, 1, sizeof *w, err));
    w->pool = pool;
    w->threads = nq_pool_threads(pool);
    w->max_tokens = max_tokens;
    w->max_cols = max_cols;
    w->tile_floats = max_cols * NQ_TILE_ROWS;
    w->scratch_bytes = (scratch_bytes + 63) / 64 * 64;
    novaq_status st = nq_mul_u64(max_tokens, max_cols, &floats)
                          ? nq_alloc_raw(&w->prepared, floats, sizeof(float), err)
                          : nq_fail(err, NOVAQ_E_MEMORY, "activations are too large");
    if (st == NOVAQ_OK) {
        st = nq_alloc_raw(&w->tiles, w->tile_floats * w->threads, sizeof(float), err);
    }
    if (st == NOVAQ_OK) {
        st = nq_alloc_raw(&w->scratch, w->scratch_bytes * w->threads, 1, err);
    }
    if (st == NOVAQ_OK) {
        st = nq_alloc(&w->status, w->threads, sizeof *w->status, err);
    }
    if (st == NOVAQ_OK) {
        st = nq_alloc(&w->errors, w->threads, sizeof *w->errors, err);
    }
    if (st != NOVAQ_OK) {
        nq_linear_work_close(&w);
    }
    *out = w;
    return st;
}

void nq_linear_work_close(nq_linear_work **pw) {
    nq_linear_work *w = *pw;
    *pw = NULL;
    if (w == NULL) {
        return;
    }
    nq_free(w->prepared);
    nq_free(w->tiles);
    nq_free(w->scratch);
    nq_free(w->status);
    nq_free(w->errors);
    nq_free(w);
}

/* NULL where the weights are used as they are. */
static const nq_qmat *basis_of(const nq_linear *l) {
    const nq_qmat *q = l->dense == NULL ? l->w->q : NULL;
    return q != NULL && (q->rotation.block != 0 || q->col_exponent != NULL) ? q : NULL;
}

static bool same_basis(const nq_qmat *a, const nq_qmat *b) {
    if (a == NULL || b == NULL || a == b) {
        return a == b;
    }
    if (a->cols != b->cols || a->rotation.block != b->rotation.block ||
        (a->rotation.block != 0 && a->rotation.seed != b->rotation.seed)) {
        return false;
    }
    if (a->col_exponent == NULL || b->col_exponent == NULL) {
        return a->col_exponent == b->col_exponent;
    }
    return memcmp(a->col_exponent, b->col_exponent, a->cols) == 0;
}

static void prepare_task(void *ctx, uint64_t task, unsigned worker) {
    const product *p = ctx;
    (void)worker;
    uint64_t first = task * PREPARE_ROWS;
    uint64_t count = p->n - first < PREPARE_ROWS ? p->n - first : PREPARE_ROWS;
    float *dst = p->work->prepared + first * p->cols;
    memcpy(dst, p->x + first * p->cols, count * p->cols * sizeof(float));
    nq_qmat_input(dst, p->basis, count);
}

/* The task's rows as float32 in the basis of xr: in memory, or
 * decoded into this worker's tile. */
static const float *tile_weights(const product *p, const nq_linear *l, uint64_t row0, uint64_t rows,
                                 unsigned worker) {
    nq_linear_work *work = p->work;
    float *tile = work->tiles + work->tile_floats * worker;
    if (l->dense != NULL) {
        return l->dense + row0 * p->cols;
    }
    if (l->w->q != NULL) {
        nq_qmat_decode(tile, l->w->q, row0, rows, work->scratch + work->scratch_bytes * worker);
        return tile;
    }
    if (work->status[worker] != NOVAQ_OK) {
        return NULL;
    }
    work->status[worker] =
        nq_weights_read_rows(tile, l->weights, l->w, row0, rows, &work->errors[worker]);
    return work->status[worker] == NOVAQ_OK ? tile : NULL;
}

static void single_token(const product *p, const nq_linear *l, float *y, uint64_t row0,
                         uint64_t rows, unsigned worker) {
    if (l->dense == NULL && l->w->q != NULL) {
        nq_qmat_gemv(y + row0, l->w->q, row0, rows, p->xr,
                     p->work->scratch + p->work->scratch_bytes * worker);
        return;
    }
    const float *w = tile_weights(p, l, row0, rows, worker);
    for (uint64_t i = 0; w != NULL && i < rows; i++) {
        y[row0 + i] = (float)nq_vec_dot(w + i * p->cols, p->xr, p->cols);
    }
}

static void product_task(void *ctx, uint64_t task, unsigned worker) {
    const product *p = ctx;
    uint64_t span = task % p->spans;
    uint64_t tile = task / p->spans;
    unsigned g = 0;
    while (tile >= p->tiles[g]) {
        tile -= p->tiles[g++];
    }
    const nq_linear *l = p->l[g];
    uint64_t row0 = tile * NQ_TILE_ROWS;
    uint64_t rows = l->w->rows - row0 < NQ_TILE_ROWS ? l->w->rows - row0 : NQ_TILE_ROWS;
    if (p->n == 1) {
        single_token(p, l, p->y[g], row0, rows, worker);
        return;
    }
    const float *w = tile_weights(p, l, row0, rows, worker);
    uint64_t first = span * NQ_TILE_TOKENS;
    uint64_t n = p->n - first < NQ_TILE_TOKENS ? p->n - first : NQ_TILE_TOKENS;
    if (w != NULL) {
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)n, (int)rows, (int)p->cols, 1.0F,
                    p->xr + first * p->cols, (int)p->cols, w, (int)p->cols, 0.0F,
                    p->y[g] + first * l->w->rows + row0, (int)l->w->rows);
    }
}

static novaq_status run_product(product *p, novaq_error *err) {
    nq_linear_work *work = p->work;
    uint64_t tasks = 0;
    for (unsigned g = 0; g < p->count; g++) {
        p->tiles[g] = (p->l[g]->w->rows + NQ_TILE_ROWS - 1) / NQ_TILE_ROWS;
        tasks += p->tiles[g];
    }
    p->spans = (p->n + NQ_TILE_TOKENS - 1) / NQ_TILE_TOKENS;
    p->xr = p->x;
    if (p->basis != NULL) {
        nq_pool_run(work->pool, prepare_task, p, (p->n + PREPARE_ROWS - 1) / PREPARE_ROWS);
        p->xr = work->prepared;
    }
    memset(work->status, 0, work->threads * sizeof *work->status);
    nq_pool_run(work->pool, product_task, p, tasks * p->spans);
    for (unsigned i = 0; i < work->threads; i++) {
        if (work->status[i] != NOVAQ_OK) {
            return nq_fail(err, work->status[i], "%s", work->errors[i].msg);
        }
    }
    return NOVAQ_OK;
}

novaq_status nq_linear_apply(float *const *y, const nq_linear *const *l, unsigned count,
                             const float *x, uint64_t n, nq_linear_work *work, novaq_error *err) {
    bool done[NQ_GROUP_MAX] = {false};
    uint64_t cols = l[0]->w->cols;
    if (n > work->max_tokens || cols > work->max_cols || cols > INT_MAX || count > NQ_GROUP_MAX) {
        return nq_fail(err, NOVAQ_E_ARG, "%s: %llu inputs of %llu are more than planned",
                       l[0]->w->name, (unsigned long long)n, (unsigned long long)cols);
    }
    for (unsigned first = 0; first < count && n > 0; first++) {
        if (done[first]) {
            continue;
        }
        product p = {.work = work, .x = x, .n = n, .cols = cols};
        p.basis = basis_of(l[first]);
        for (unsigned g = first; g < count; g++) {
            if (!done[g] && same_basis(basis_of(l[g]), p.basis)) {
                p.l[p.count] = l[g];
                p.y[p.count++] = y[g];
                done[g] = true;
            }
        }
        NQ_TRY(run_product(&p, err));
    }
    return NOVAQ_OK;
}
