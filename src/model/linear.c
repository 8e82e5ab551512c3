/* linear.c - see linear.h. As floats, blocks of tokens go through OpenBLAS, one tile
 * of decoded rows at a time, and a single token through the codec's own products, or
 * those with rows as the artifact stores them; as integers, both through quant/fast.h. */
#include "model/linear.h"

#include <cblas.h>
#include <limits.h>
#include <string.h>

#include "base/cpu.h"
#include "base/mem.h"
#include "kern/kern.h"

/* Rows of activations that one preparing task takes. */
#define PREPARE_ROWS 8

struct nq_linear_work {
    nq_pool *pool;
    unsigned threads;
    const nq_gemv_kern *stored; /* for weights read where they lie */
    uint64_t tile_floats;
    uint64_t scratch_bytes;
    uint64_t max_tokens;
    uint64_t max_cols;
    float *tiles;        /* (threads, tile_floats) */
    uint8_t *scratch;    /* (threads, scratch_bytes) */
    float *prepared;     /* (max_tokens, max_cols) */
    uint64_t fast_bytes; /* of one token in fast_input.x; 0: floats only */
    nq_fast_input fast_input;
    float *fast_work;      /* (threads, 2 * fast_bytes) */
    uint8_t *fast_scratch; /* (threads, fast_scratch_bytes) */
    uint64_t fast_scratch_bytes;
    novaq_status *status; /* (threads): first failure of each worker */
    novaq_error *errors;  /* (threads) */
};

/* With a single token: rows of a task are a multiple of the first, done so many at a
 * time; symbols of a task, as a rule. */
#define FAST_ROWS_MIN 8
#define FAST_ROWS_MAX 256
/* Tasks of a thread in one matrix; more where FAST_BYTES_MAX cuts. */
#define FAST_TASKS     2
#define FAST_BYTES_MIN (8 << 10)
#define FAST_BYTES_MAX (1 << 20)
/* Symbols that a thread with nothing else to do fetches ahead of time. */
#define EXPECT_BYTES (256U << 10)

/* One call: matrices that read the same input in the same basis. */
typedef struct product {
    nq_linear_work *work;
    const nq_linear *l[NQ_GROUP_MAX];
    float *y[NQ_GROUP_MAX];
    uint64_t tiles[NQ_GROUP_MAX];     /* row tiles of each */
    uint64_t tile_rows[NQ_GROUP_MAX]; /* rows of each tile */
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
    w->stored = nq_gemv_for(nq_cpu_features());
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
    nq_free(w->fast_input.x);
    nq_free(w->fast_input.scale);
    nq_free(w->fast_input.sum);
    nq_free(w->fast_input.total);
    nq_free(w->fast_work);
    nq_free(w->fast_scratch);
    nq_free(w->tiles);
    nq_free(w->scratch);
    nq_free(w->status);
    nq_free(w->errors);
    nq_free(w);
}

uint64_t nq_linear_fast_scratch(const nq_fast *f) {
    uint64_t rows = nq_fast_tile_rows(f);
    rows = rows > FAST_ROWS_MAX ? rows : FAST_ROWS_MAX;
    uint64_t one = nq_fast_scratch(f, rows, 1);
    uint64_t many = nq_fast_scratch(f, nq_fast_tile_rows(f), NQ_TILE_TOKENS);
    return (one > many ? one : many) / 64 * 64 + 64;
}

novaq_status nq_linear_work_fast(nq_linear_work *w, uint64_t row_bytes, uint64_t scratch_bytes,
                                 novaq_error *err) {
    nq_fast_input *in = &w->fast_input;
    uint64_t bytes = 0;
    if (!nq_mul_u64(w->max_tokens, row_bytes, &bytes)) {
        return nq_fail(err, NOVAQ_E_MEMORY, "activations are too large");
    }
    NQ_TRY(nq_alloc_raw(&in->x, bytes, 1, err));
    NQ_TRY(nq_alloc_raw(&in->scale, w->max_tokens, sizeof *in->scale, err));
    NQ_TRY(nq_alloc_raw(&in->sum, w->max_tokens, sizeof *in->sum, err));
    NQ_TRY(nq_alloc_raw(&in->total, w->max_tokens, sizeof *in->total, err));
    NQ_TRY(nq_alloc_raw(&w->fast_work, row_bytes * 2 * w->threads, sizeof(float), err));
    NQ_TRY(nq_alloc_raw(&w->fast_scratch, scratch_bytes * w->threads, 1, err));
    w->fast_scratch_bytes = scratch_bytes;
    w->fast_bytes = row_bytes;
    return NOVAQ_OK;
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
        nq_qmat_decode(tile, l->w->q, l->row0 + row0, rows,
                       work->scratch + work->scratch_bytes * worker);
        return tile;
    }
    if (work->status[worker] != NOVAQ_OK) {
        return NULL;
    }
    work->status[worker] =
        nq_weights_read_rows(tile, l->weights, l->w, l->row0 + row0, rows, &work->errors[worker]);
    return work->status[worker] == NOVAQ_OK ? tile : NULL;
}

/* Rows as the artifact has them, see nq_weight_in_place(); those of F32 are l->dense. */
static void stored_dots(float *y, const nq_gemv_kern *kern, const void *w, nq_dtype type,
                        uint64_t rows, const float *x, uint64_t cols) {
    const char *row = w;
    uint64_t row_bytes =
        type == NQ_Q8_0 ? cols / NQ_Q8_0_WEIGHTS * NQ_Q8_0_BYTES : cols * sizeof(uint16_t);
    for (uint64_t i = 0; i < rows; i++, row += row_bytes) {
        const void *at = row;
        y[i] = type == NQ_Q8_0  ? kern->dot_q8_0(at, x, cols)
               : type == NQ_F16 ? kern->dot_f16(at, x, cols)
                                : kern->dot_bf16(at, x, cols);
    }
}

static void single_token(const product *p, const nq_linear *l, float *y, uint64_t row0,
                         uint64_t rows, unsigned worker) {
    if (l->dense == NULL && l->w->q != NULL) {
        nq_qmat_gemv(y + row0, l->w->q, l->row0 + row0, rows, p->xr,
                     p->work->scratch + p->work->scratch_bytes * worker);
        return;
    }
    nq_dtype type;
    const void *stored = l->dense == NULL ? nq_weight_in_place(&type, l->w, l->row0 + row0) : NULL;
    if (stored != NULL) {
        stored_dots(y + row0, p->work->stored, stored, type, rows, p->xr, p->cols);
        return;
    }
    const nq_kern *kern = nq_kern_best();
    const float *w = tile_weights(p, l, row0, rows, worker);
    for (uint64_t i = 0; w != NULL && i < rows; i++) {
        y[row0 + i] = kern->dot_f32(w + i * p->cols, p->xr, p->cols);
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
    uint64_t all = nq_linear_rows(l);
    uint64_t rows = all - row0 < NQ_TILE_ROWS ? all - row0 : NQ_TILE_ROWS;
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
                    p->y[g] + first * all + row0, (int)all);
    }
}

static bool is_fast(const nq_linear *l, const nq_linear_work *work) {
    return l->fast != NULL && nq_fast_row_bytes(l->fast) <= work->fast_bytes;
}

/* ---- integer products ------------------------------------------------------ */

static void prepare_fast_task(void *ctx, uint64_t task, unsigned worker) {
    const product *p = ctx;
    nq_linear_work *work = p->work;
    uint64_t first = task * PREPARE_ROWS;
    uint64_t end = p->n - first < PREPARE_ROWS ? p->n : first + PREPARE_ROWS;
    for (uint64_t t = first; t < end; t++) {
        nq_fast_prepare(&work->fast_input, t, p->l[0]->fast, p->x + t * p->cols,
                        work->fast_work + 2 * work->fast_bytes * worker);
    }
}

static void fast_task(void *ctx, uint64_t task, unsigned worker) {
    const product *p = ctx;
    nq_linear_work *work = p->work;
    uint64_t tile = task;
    unsigned g = 0;
    while (tile >= p->tiles[g]) {
        tile -= p->tiles[g++];
    }
    const nq_linear *l = p->l[g];
    uint64_t all = nq_linear_rows(l);
    uint64_t row0 = tile * p->tile_rows[g];
    uint64_t rows = all - row0 < p->tile_rows[g] ? all - row0 : p->tile_rows[g];
    uint8_t *scratch = work->fast_scratch + work->fast_scratch_bytes * worker;
    nq_fast_input in = work->fast_input;
    if (p->n == 1) {
        for (uint64_t r = 0; r < rows; r += FAST_ROWS_MAX) {
            uint64_t count = rows - r < FAST_ROWS_MAX ? rows - r : FAST_ROWS_MAX;
            nq_fast_apply(p->y[g] + row0 + r, all, l->fast, l->row0 + row0 + r, count, &in, 1,
                          scratch);
        }
        return;
    }
    for (uint64_t t0 = 0; t0 < p->n; t0 += NQ_TILE_TOKENS) {
        uint64_t n = p->n - t0 < NQ_TILE_TOKENS ? p->n - t0 : NQ_TILE_TOKENS;
        nq_fast_apply(p->y[g] + t0 * all + row0, all, l->fast, l->row0 + row0, rows, &in, n,
                      scratch);
        in.x += n * nq_fast_row_bytes(l->fast);
        in.scale += n;
        in.sum += n;
        in.total += n;
    }
}

/* A single token: long runs of rows, as what lies ahead in memory is fetched early
 * only inside of a run, but enough of them for every thread to have work. */
static uint64_t fast_tile_rows(const nq_linear *l, uint64_t n, unsigned threads) {
    if (n > 1) {
        return nq_fast_tile_rows(l->fast);
    }
    uint64_t row = nq_qmat_symbol_bytes(l->w->q) / l->w->q->rows;
    uint64_t tasks = FAST_TASKS * (uint64_t)threads;
    uint64_t share = (nq_linear_rows(l) + tasks - 1) / tasks;
    uint64_t least = FAST_BYTES_MIN / row;
    uint64_t most = FAST_BYTES_MAX / row;
    uint64_t rows = share < least ? least : share > most ? most : share;
    return (rows / FAST_ROWS_MIN + (rows % FAST_ROWS_MIN != 0)) * FAST_ROWS_MIN;
}

static void run_fast(product *p) {
    nq_pool *pool = p->work->pool;
    uint64_t tasks = 0;
    for (unsigned g = 0; g < p->count; g++) {
        p->tile_rows[g] = fast_tile_rows(p->l[g], p->n, p->work->threads);
        p->tiles[g] = (nq_linear_rows(p->l[g]) + p->tile_rows[g] - 1) / p->tile_rows[g];
        tasks += p->tiles[g];
    }
    nq_pool_run(pool, prepare_fast_task, p, (p->n + PREPARE_ROWS - 1) / PREPARE_ROWS);
    nq_pool_run(pool, fast_task, p, tasks);
}

/* The first task of every thread, as run_fast() will cut them, as far as a thread gets
 * while another normalizes, rotates and rounds. */
void nq_linear_expect(const nq_linear *const *l, unsigned count, nq_linear_work *work) {
    if (count == 0 || !is_fast(l[0], work)) {
        return;
    }
    const nq_qmat *q = l[0]->w->q;
    uint64_t row = nq_qmat_symbol_bytes(q) / q->rows;
    uint64_t rows = fast_tile_rows(l[0], 1, work->threads);
    uint64_t all = nq_linear_rows(l[0]);
    uint64_t bytes = rows * row < EXPECT_BYTES ? rows * row : EXPECT_BYTES;
    rows = rows * work->threads <= all ? rows : 0;
    nq_pool_expect(work->pool, q->symbols + l[0]->row0 * row, rows * row, bytes);
}

/* ---- all products -------------------------------------------------------------- */

static novaq_status run_product(product *p, novaq_error *err) {
    nq_linear_work *work = p->work;
    uint64_t tasks = 0;
    for (unsigned g = 0; g < p->count; g++) {
        p->tiles[g] = (nq_linear_rows(p->l[g]) + NQ_TILE_ROWS - 1) / NQ_TILE_ROWS;
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

/* Whether a and b read their input in the same form. */
static bool together(const nq_linear *a, const nq_linear *b, const nq_linear_work *work) {
    if (is_fast(a, work) || is_fast(b, work)) {
        return is_fast(a, work) && is_fast(b, work) && nq_fast_same_input(a->fast, b->fast);
    }
    return same_basis(basis_of(a), basis_of(b));
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
        for (unsigned g = first; g < count; g++) {
            if (!done[g] && together(l[first], l[g], work)) {
                p.l[p.count] = l[g];
                p.y[p.count++] = y[g];
                done[g] = true;
            }
        }
        if (is_fast(l[first], work)) {
            run_fast(&p);
            continue;
        }
        p.basis = basis_of(l[first]);
        NQ_TRY(run_product(&p, err));
    }
    return NOVAQ_OK;
}
