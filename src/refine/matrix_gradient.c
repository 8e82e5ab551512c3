/* matrix_gradient.c - see matrix.h: products backward.
 *
 * Gradients of codebooks are sums over all rows and columns: rows are cut into pieces
 * by their number alone, each piece is summed apart, and the sums are added in order.
 */
#include <string.h>

#include "base/mem.h"
#include "quant/trellis.h"
#include "refine/matrix_impl.h"

/* ---- one row ------------------------------------------------------------------------ */

/* grad[l][symbol] += factor * dw over whole subvectors [j0, j1). */
static inline void scatter(float *const *grad, unsigned d, unsigned levels, float factor,
                           const float *dw, const uint8_t *const *symbols, uint64_t j0,
                           uint64_t j1) {
    for (uint64_t j = j0; j < j1; j++) {
        for (unsigned v = 0; v < d; v++) {
            float g = factor * dw[j * d + v];
            for (unsigned l = 0; l < levels; l++) {
                grad[l][(size_t)symbols[l][j] * d + v] += g;
            }
        }
    }
}

static inline void by_levels(float *const *grad, unsigned d, unsigned levels, float factor,
                             const float *dw, const uint8_t *const *symbols, uint64_t j0,
                             uint64_t j1) {
    switch (levels) {
    case 1: scatter(grad, d, 1, factor, dw, symbols, j0, j1); break;
    case 2: scatter(grad, d, 2, factor, dw, symbols, j0, j1); break;
    default: scatter(grad, d, 3, factor, dw, symbols, j0, j1); break;
    }
}

static void scatter_span(float *const *grad, const nq_scheme *s, float factor, const float *dw,
                         const uint8_t *const *symbols, uint64_t j0, uint64_t j1) {
    switch (s->d) {
    case 1: by_levels(grad, 1, s->levels, factor, dw, symbols, j0, j1); break;
    case 2: by_levels(grad, 2, s->levels, factor, dw, symbols, j0, j1); break;
    case 4: by_levels(grad, 4, s->levels, factor, dw, symbols, j0, j1); break;
    default: by_levels(grad, s->d, s->levels, factor, dw, symbols, j0, j1); break;
    }
}

/* Spreads the gradient dw (cols) of a row of W' to `sums`, (groups, entries). */
static void scatter_row(float *sums, const nq_tmatrix *m, uint64_t row, const float *dw,
                        const uint8_t *const *symbols) {
    const nq_scheme *s = &m->q->scheme;
    float factor = nq_tmatrix_row_factor(m, row);
    uint64_t whole = m->cols / s->d;
    uint64_t per_group = m->group_cols / s->d;
    float *grad[NQ_MAX_LEVELS] = {NULL};
    for (uint64_t g = 0; g < m->groups; g++) {
        for (unsigned l = 0; l < s->levels; l++) {
            grad[l] = sums + g * nq_tmatrix_book(m) + nq_level_offset(s, l);
        }
        uint64_t j1 = smaller((g + 1) * per_group, whole);
        scatter_span(grad, s, factor, dw, symbols, g * per_group, j1);
    }
    for (unsigned v = 0; v < m->cols % s->d; v++) {
        for (unsigned l = 0; l < s->levels; l++) {
            grad[l][(size_t)symbols[l][whole] * s->d + v] += factor * dw[whole * s->d + v];
        }
    }
}

/* *dot = <dw, w>, *sum = the sum of dw; eight sums side by side. */
static void row_sums(float *dot, float *sum, const float *dw, const float *w, uint64_t n) {
    float d[8] = {0};
    float s[8] = {0};
    uint64_t i = 0;
    for (; i + 8 <= n; i += 8) {
        for (unsigned k = 0; k < 8; k++) {
            d[k] += dw[i + k] * w[i + k];
            s[k] += dw[i + k];
        }
    }
    for (; i < n; i++) {
        d[0] += dw[i] * w[i];
        s[0] += dw[i];
    }
    *dot = ((d[0] + d[4]) + (d[1] + d[5])) + ((d[2] + d[6]) + (d[3] + d[7]));
    *sum = ((s[0] + s[4]) + (s[1] + s[5])) + ((s[2] + s[6]) + (s[3] + s[7]));
}

/* W' = factor * entries + mean: the derivatives after log_scale and mean. */
static void add_row(nq_tmatrix *m, uint64_t row, float dot, float sum) {
    float mean = m->row_mean != NULL ? m->row_mean[row] : 0.0F;
    m->grad_log_scale[row] += dot - mean * sum;
    if (m->grad_row_mean != NULL) {
        m->grad_row_mean[row] += sum;
    }
}

/* ---- pieces -------------------------------------------------------------------------- */

typedef struct piece_job {
    nq_tmatrix *m;
    nq_tmatrix_work *w;
    uint64_t row0, count, span; /* rows of the chunk; of a piece */
    const float *rows;          /* decoded chunk */
    const int32_t *ids;         /* lookups: (count), else NULL */
    const float *dx;            /* lookups: (count, cols) */
} piece_job;

static uint64_t book_floats(const nq_tmatrix *m) {
    return m->grad_codebooks != NULL ? m->groups * nq_tmatrix_book(m) : 0;
}

static novaq_status need_partial(nq_tmatrix_work *w, uint64_t floats, novaq_error *err) {
    if (floats > w->partial_floats) {
        nq_free(w->partial);
        w->partial = NULL;
        w->partial_floats = 0;
        NQ_TRY(nq_alloc_raw(&w->partial, floats, sizeof(float), err));
        w->partial_floats = floats;
    }
    return NOVAQ_OK;
}

static void rows_task(void *ctx, uint64_t task, unsigned worker) {
    const piece_job *job = ctx;
    nq_tmatrix *m = job->m;
    nq_tmatrix_work *w = job->w;
    float *sums = w->partial + task * book_floats(m);
    uint64_t first = task * job->span;
    uint64_t end = smaller(first + job->span, job->count);
    nq_tmatrix_ring ring = {0};
    if (m->grad_codebooks != NULL) {
        memset(sums, 0, book_floats(m) * sizeof(float));
        nq_tmatrix_ring_open(&ring, m->q, m->source.row0 + job->row0 + first,
                             w->symbols + w->symbol_bytes * worker);
    }
    for (uint64_t i = first; i < end; i++) {
        const float *dw = w->chunk_grad + i * m->cols;
        uint64_t row = job->row0 + i;
        float dot = 0;
        float sum = 0;
        row_sums(&dot, &sum, dw, job->rows + i * m->cols, m->cols);
        add_row(m, row, dot, sum);
        if (m->grad_codebooks != NULL) {
            const uint8_t *level[NQ_MAX_LEVELS] = {NULL};
            nq_tmatrix_ring_step(level, &ring, m->source.row0 + row);
            scatter_row(sums, m, row, dw, level);
        }
    }
}

static void lookup_task(void *ctx, uint64_t task, unsigned worker) {
    const piece_job *job = ctx;
    nq_tmatrix *m = job->m;
    nq_tmatrix_work *w = job->w;
    float *sums = w->partial + task * book_floats(m);
    uint8_t *symbols = w->symbols + w->symbol_bytes * worker;
    uint64_t end = smaller((task + 1) * job->span, job->count);
    if (m->grad_codebooks != NULL) {
        memset(sums, 0, book_floats(m) * sizeof(float));
    }
    for (uint64_t t = task * job->span; t < end; t++) {
        uint64_t row = (uint64_t)job->ids[t];
        float *dw = w->input_grad + t * m->cols;
        float *plain = w->input + t * m->cols;
        for (uint64_t c = 0; c < m->cols; c++) {
            dw[c] = job->dx[t * m->cols + c] * (m->factor != NULL ? w->factor[c] : 1.0F);
        }
        nq_tmatrix_decode(plain, m, row, 1, symbols);
        if (m->q->rotation.block != 0) {
            nq_rotate_mix(dw, &m->q->rotation, 1, m->cols);
        }
        row_sums(&w->row_dot[t], &w->row_sum[t], dw, plain, m->cols);
        if (m->grad_codebooks != NULL) {
            nq_tmatrix_ring ring;
            const uint8_t *level[NQ_MAX_LEVELS] = {NULL};
            nq_tmatrix_ring_open(&ring, m->q, m->source.row0 + row, symbols);
            nq_tmatrix_ring_step(level, &ring, m->source.row0 + row);
            scatter_row(sums, m, row, dw, level);
        }
        if (m->q->rotation.block != 0) {
            nq_rotate_mix(plain, &m->q->rotation, 1, m->cols);
        }
        for (uint64_t c = 0; m->factor != NULL && c < m->cols; c++) {
            plain[c] *= w->factor[c];
        }
    }
}

/* Runs the job's pieces and adds what they summed. */
static novaq_status run_pieces(piece_job *job, nq_task_fn fn, uint64_t multiple, novaq_error *err) {
    nq_tmatrix *m = job->m;
    uint64_t n = book_floats(m);
    job->span = (job->count + NQ_TMATRIX_PIECES - 1) / NQ_TMATRIX_PIECES;
    job->span = (job->span + multiple - 1) / multiple * multiple;
    uint64_t pieces = (job->count + job->span - 1) / job->span;
    NQ_TRY(need_partial(job->w, pieces * n, err));
    nq_pool_run(job->w->pool, fn, job, pieces);
    for (uint64_t p = 0; p < pieces && n > 0; p++) {
        for (uint64_t e = 0; e < n; e++) {
            m->grad_codebooks[e] += job->w->partial[p * n + e];
        }
    }
    return NOVAQ_OK;
}

/* ---- gradients of inputs --------------------------------------------------------------- */

typedef struct input_job {
    const nq_tmatrix *m;
    nq_tmatrix_work *w;
    float *dx;
    uint64_t n;
} input_job;

static void input_task(void *ctx, uint64_t task, unsigned worker) {
    const input_job *job = ctx;
    const nq_tmatrix *m = job->m;
    (void)worker;
    uint64_t first = task * NQ_TMATRIX_TOKENS;
    uint64_t count = smaller(job->n - first, NQ_TMATRIX_TOKENS);
    float *grad = job->w->input_grad + first * m->cols;
    if (m->q->rotation.block != 0) {
        nq_rotate_mix(grad, &m->q->rotation, count, m->cols);
    }
    for (uint64_t t = 0; t < count; t++) {
        for (uint64_t c = 0; c < m->cols; c++) {
            grad[t * m->cols + c] *= job->w->factor[c];
        }
    }
    float *dx = job->dx != NULL ? job->dx + first * m->cols : NULL;
    for (uint64_t i = 0; dx != NULL && i < count * m->cols; i++) {
        dx[i] += grad[i];
    }
}

/* From w->input_grad, in the basis of the matrix, to dx. */
static void spread_input(float *dx, const nq_tmatrix *m, uint64_t n, nq_tmatrix_work *w) {
    input_job job = {.m = m, .w = w, .dx = dx, .n = n};
    nq_pool_run(w->pool, input_task, &job, (n + NQ_TMATRIX_TOKENS - 1) / NQ_TMATRIX_TOKENS);
}

/* A column's scale divides what is read: its gradient is -<x, dx>. */
static void add_columns(nq_tmatrix *m, const float *x, const float *dx, uint64_t n) {
    for (uint64_t t = 0; t < n; t++) {
        for (uint64_t c = 0; c < m->cols; c++) {
            m->grad_col_scale[c] -= x[t * m->cols + c] * dx[t * m->cols + c];
        }
    }
}

/* ---- backward ---------------------------------------------------------------------------- */

static novaq_status backward_chunk(float *dxr, bool add, nq_tmatrix *m, const float *dy,
                                   const float *xr, uint64_t n, bool learn, uint64_t row0,
                                   uint64_t count, nq_tmatrix_work *w, novaq_error *err) {
    const float *rows = NULL;
    NQ_TRY(nq_tmatrix_chunk(&rows, m, row0, count, w, err));
    if (dxr != NULL) {
        nq_gemm_with(&w->halves, w->pool, false, false, n, m->cols, count, dy + row0, m->rows, rows,
                     m->cols, add, dxr, m->cols);
    }
    if (!learn) {
        return NOVAQ_OK;
    }
    nq_gemm_with(&w->halves, w->pool, true, false, count, m->cols, n, dy + row0, m->rows, xr,
                 m->cols, false, w->chunk_grad, m->cols);
    piece_job job = {.m = m, .w = w, .row0 = row0, .count = count, .rows = rows};
    return run_pieces(&job, rows_task, NQ_TMATRIX_ROWS, err);
}

novaq_status nq_tmatrix_backward(float *dx, nq_tmatrix *m, const float *dy, const float *x,
                                 uint64_t n, bool frozen, nq_tmatrix_work *w, novaq_error *err) {
    NQ_TRY(nq_tmatrix_fits(m, n, w, err));
    bool learn = m->q != NULL && !frozen;
    bool columns = learn && m->grad_col_scale != NULL;
    if (!learn && dx == NULL) {
        return NOVAQ_OK;
    }
    const float *xr = learn ? nq_tmatrix_input(m, x, n, w) : NULL;
    if (m->factor != NULL) {
        nq_tmatrix_factor(m, w);
    }
    float *dxr = m->factor != NULL && (dx != NULL || columns) ? w->input_grad : dx;
    uint64_t step = m->source.dense != NULL ? m->rows : nq_tmatrix_chunk_rows(m, w);
    for (uint64_t row0 = 0; row0 < m->rows; row0 += step) {
        bool add = m->factor == NULL || row0 > 0;
        NQ_TRY(backward_chunk(dxr, add, m, dy, xr, n, learn, row0, smaller(m->rows - row0, step), w,
                              err));
    }
    if (m->factor != NULL && dxr != NULL) {
        spread_input(dx, m, n, w);
        if (columns) {
            add_columns(m, x, w->input_grad, n);
        }
    }
    return NOVAQ_OK;
}

novaq_status nq_tmatrix_lookup_backward(nq_tmatrix *m, const float *dx, const int32_t *ids,
                                        uint64_t n, nq_tmatrix_work *w, novaq_error *err) {
    NQ_TRY(nq_tmatrix_fits(m, n, w, err));
    if (m->q == NULL || n == 0) {
        return NOVAQ_OK;
    }
    if (m->factor != NULL) {
        nq_tmatrix_factor(m, w);
    }
    piece_job job = {.m = m, .w = w, .count = n, .ids = ids, .dx = dx};
    NQ_TRY(run_pieces(&job, lookup_task, 1, err));
    for (uint64_t t = 0; t < n; t++) {
        add_row(m, (uint64_t)ids[t], w->row_dot[t], w->row_sum[t]);
    }
    if (m->grad_col_scale != NULL) {
        add_columns(m, w->input, dx, n);
    }
    return NOVAQ_OK;
}
