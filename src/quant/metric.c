/* metric.c - see metric.h. Everything heavy runs in tiles of fixed size through
 * single-threaded BLAS, so that results do not depend on the number of threads. */
#include "quant/metric.h"

#include <cblas.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

/* Rows that one task of the basis change, or of a product, takes. */
#define TILE_ROWS 64
/* Samples per column below which H is shrunk towards its diagonal. */
#define FULL_SAMPLES 4
/* A little of the mean energy keeps silent columns from scales of zero. */
#define ENERGY_FLOOR 0.05

/* LAPACK: a = UT U, column-major. */
extern void dpotrf_(const char *uplo, const int *n, double *a, const int *lda, int *info);

/* ---- column scales and rotation ------------------------------------------------- */

/* c_j^2 = (E x_j^2)^a up to half an octave, a little energy added to all. Coding
 * makes an error that is white in the scaled matrix; with a = 0.5 its effect at
 * the output is least when nothing is fed back, and with feedback, which evens
 * out much of it, when a is smaller. Measured: docs/METHOD.md. */
static novaq_status column_exponents(nq_metric *m, const nq_moments *in, double a,
                                     novaq_error *err) {
    double mean = 0;
    for (uint64_t c = 0; c < in->cols; c++) {
        mean += (double)in->h[c * in->cols + c] / (double)in->cols;
    }
    if (!(a > 0) || !(mean > 0) || !isfinite(mean)) {
        return NOVAQ_OK;
    }
    NQ_TRY(nq_alloc(&m->col_exponent, in->cols, 1, err));
    for (uint64_t c = 0; c < in->cols; c++) {
        double energy = (double)in->h[c * in->cols + c] / mean + ENERGY_FLOOR;
        double e = rint(a * log2(energy));
        m->col_exponent[c] = (int8_t)(e > 32 ? 32 : e < -32 ? -32 : e);
    }
    return NOVAQ_OK;
}

static novaq_status make_basis(nq_metric *m, const nq_moments *in, const nq_metric_options *opt,
                               novaq_error *err) {
    if (opt->rotation_block != 0) {
        uint32_t block = nq_rotation_block(in->cols);
        block = block > opt->rotation_block ? opt->rotation_block : block;
        m->rotation = (nq_rotation){.block = block, .seed = opt->seed};
    }
    return column_exponents(m, in, opt->column_scales, err);
}

static novaq_status given_basis(nq_metric *m, const nq_qmat *basis, novaq_error *err) {
    m->rotation = basis->rotation;
    if (basis->col_exponent == NULL) {
        return NOVAQ_OK;
    }
    NQ_TRY(nq_alloc_raw(&m->col_exponent, m->cols, 1, err));
    memcpy(m->col_exponent, basis->col_exponent, m->cols);
    return NOVAQ_OK;
}

typedef struct input_job {
    float *x;
    nq_qmat basis;
    uint64_t count;
} input_job;

static void input_task(void *ctx, uint64_t task, unsigned worker) {
    (void)worker;
    const input_job *j = ctx;
    uint64_t r0 = task * TILE_ROWS;
    uint64_t n = j->count - r0 < TILE_ROWS ? j->count - r0 : TILE_ROWS;
    nq_qmat_input(j->x + r0 * j->basis.cols, &j->basis, n);
}

void nq_metric_input(float *x, const nq_metric *m, uint64_t count, nq_pool *pool) {
    input_job j = {.x = x, .count = count};
    j.basis = (nq_qmat){.cols = m->cols, .rotation = m->rotation, .col_exponent = m->col_exponent};
    nq_pool_run(pool, input_task, &j, (count + TILE_ROWS - 1) / TILE_ROWS);
}

static void transpose(float *a, uint64_t n) {
    for (uint64_t i = 0; i < n; i++) {
        for (uint64_t k = i + 1; k < n; k++) {
            float t = a[i * n + k];
            a[i * n + k] = a[k * n + i];
            a[k * n + i] = t;
        }
    }
}

/* a (cols, cols) becomes T a TT. */
static void both_sides(float *a, const nq_metric *m, nq_pool *pool) {
    nq_metric_input(a, m, m->cols, pool);
    transpose(a, m->cols);
    nq_metric_input(a, m, m->cols, pool);
    transpose(a, m->cols);
}

/* ---- damping, order, factor -------------------------------------------------------- */

static void shrink(float *h, uint64_t n, uint64_t samples) {
    if (samples >= FULL_SAMPLES * n) {
        return;
    }
    float keep = (float)((double)samples / (double)(FULL_SAMPLES * n));
    for (uint64_t i = 0; i < n; i++) {
        for (uint64_t k = 0; k < n; k++) {
            h[i * n + k] *= i == k ? 1.0F : keep;
        }
    }
}

/* Adds to the whole diagonal. */
static void lift(nq_metric *m, double add) {
    m->floor += add;
    for (uint64_t c = 0; c < m->cols; c++) {
        m->h[c * m->cols + c] += (float)add;
    }
}

/* Returns the mean of the diagonal before. */
static double damp(nq_metric *m, double share) {
    uint64_t n = m->cols;
    double mean = 0;
    for (uint64_t c = 0; c < n; c++) {
        mean += (double)m->h[c * n + c] / (double)n;
    }
    lift(m, share * mean);
    return mean;
}

typedef struct ranked {
    double energy;
    uint32_t block;
} ranked;

static int by_energy(const void *a, const void *b) {
    const ranked *x = a;
    const ranked *y = b;
    if (x->energy != y->energy) {
        return x->energy > y->energy ? -1 : 1;
    }
    return x->block < y->block ? -1 : 1;
}

/* Blocks of columns by falling energy: what is coded first is corrected by all
 * that follows. A short last block stays last. */
static novaq_status choose_order(nq_metric *m, unsigned block, novaq_error *err) {
    uint64_t n = m->cols;
    uint64_t whole = n / block;
    ranked *rank = NULL;
    NQ_TRY(nq_alloc(&m->order, n, sizeof *m->order, err));
    NQ_TRY(nq_alloc(&rank, whole + 1, sizeof *rank, err));
    for (uint64_t b = 0; b < whole; b++) {
        rank[b].block = (uint32_t)b;
        for (uint64_t c = b * block; c < (b + 1) * block; c++) {
            rank[b].energy += (double)m->h[c * n + c];
        }
    }
    qsort(rank, whole, sizeof *rank, by_energy);
    for (uint64_t p = 0; p < n; p++) {
        bool tail = p / block >= whole;
        m->order[p] = (uint32_t)(tail ? p : rank[p / block].block * (uint64_t)block + p % block);
    }
    nq_free(rank);
    return NOVAQ_OK;
}

static novaq_status reorder(nq_metric *m, novaq_error *err) {
    uint64_t n = m->cols;
    float *sorted = NULL;
    NQ_TRY(nq_alloc_raw(&sorted, n * n, sizeof(float), err));
    for (uint64_t i = 0; i < n; i++) {
        const float *row = m->h + (uint64_t)m->order[i] * n;
        for (uint64_t k = 0; k < n; k++) {
            sorted[i * n + k] = row[m->order[k]];
        }
    }
    nq_free(m->h);
    m->h = sorted;
    return NOVAQ_OK;
}

/* *r upper triangular with r rT = h + extra: the Cholesky factor of that with rows
 * and columns in reverse, read backwards. In double; rounding may leave it just not
 * positive definite, then more of the diagonal is added, and to *extra. */
static novaq_status factor(float **r, const nq_metric *m, double *extra, novaq_error *err) {
    uint64_t n = m->cols;
    double *a = NULL;
    NQ_TRY(nq_alloc_raw(&a, n * n, sizeof(double), err));
    double more = m->floor > 0 ? m->floor : 1e-6;
    double sum = *extra;
    int info = 1;
    for (int attempt = 0; attempt < 12 && info != 0; attempt++) {
        for (uint64_t i = 0; i < n; i++) {
            for (uint64_t k = 0; k < n; k++) {
                a[i * n + k] = (double)m->h[(n - 1 - i) * n + (n - 1 - k)];
            }
            a[i * n + i] += sum;
        }
        int order = (int)n;
        dpotrf_("U", &order, a, &order, &info);
        *extra = sum;
        sum += more;
        more *= 10;
    }
    if (info != 0) {
        nq_free(a);
        return nq_fail(err, NOVAQ_E_NUMERIC,
                       "the second moments of the inputs are not positive definite; raise "
                       "--damping");
    }
    novaq_status st = nq_alloc(r, n * n, sizeof(float), err);
    for (uint64_t i = 0; st == NOVAQ_OK && i < n; i++) {
        for (uint64_t k = 0; k <= i; k++) { /* row-major a: lower triangle holds the factor */
            (*r)[(n - 1 - i) * n + (n - 1 - k)] = (float)a[i * n + k];
        }
    }
    nq_free(a);
    return st;
}

/* ---- opening ------------------------------------------------------------------------- */

static novaq_status copy_square(float **out, const float *src, uint64_t n, novaq_error *err) {
    NQ_TRY(nq_alloc_raw(out, n * n, sizeof(float), err));
    memcpy(*out, src, n * n * sizeof(float));
    return NOVAQ_OK;
}

static novaq_status check(const nq_moments *in, novaq_error *err) {
    if (in->cols == 0 || in->cols > INT_MAX / 8 || in->samples == 0) {
        return nq_fail(err, NOVAQ_E_ARG, "a metric of %llu columns from %llu inputs",
                       (unsigned long long)in->cols, (unsigned long long)in->samples);
    }
    for (uint64_t i = 0; i < in->cols * in->cols; i++) {
        if (!isfinite(in->h[i]) || (in->cross != NULL && !isfinite(in->cross[i]))) {
            return nq_fail(err, NOVAQ_E_NUMERIC, "the inputs of a layer are not finite");
        }
    }
    return NOVAQ_OK;
}

novaq_status nq_metric_open(nq_metric *out, const nq_moments *in, const nq_metric_options *opt,
                            nq_pool *pool, novaq_error *err) {
    *out = (nq_metric){.cols = in->cols, .samples = in->samples};
    NQ_TRY(check(in, err));
    NQ_TRY(opt->basis != NULL ? given_basis(out, opt->basis, err) : make_basis(out, in, opt, err));
    NQ_TRY(copy_square(&out->h, in->h, in->cols, err));
    shrink(out->h, in->cols, in->samples);
    both_sides(out->h, out, pool);
    if (in->cross != NULL) {
        NQ_TRY(copy_square(&out->cross, in->cross, in->cols, err));
        both_sides(out->cross, out, pool);
    }
    double mean = damp(out, opt->damping);
    if (opt->by_energy) {
        NQ_TRY(choose_order(out, opt->order_block > 0 ? opt->order_block : 1, err));
        NQ_TRY(reorder(out, err));
    }
    double extra = 0;
    double ridge = mean * opt->ridge;
    NQ_TRY(factor(&out->r, out, &extra, err));
    lift(out, extra);
    return out->cross != NULL ? factor(&out->ridge, out, &ridge, err) : NOVAQ_OK;
}

void nq_metric_close(nq_metric *m) {
    nq_free(m->col_exponent);
    nq_free(m->order);
    nq_free(m->h);
    nq_free(m->r);
    nq_free(m->cross);
    nq_free(m->ridge);
    *m = (nq_metric){0};
}

/* ---- correction ------------------------------------------------------------------------ */

typedef struct correct_job {
    float *w;
    const float *residual;
    const nq_metric *m;
    uint64_t rows;
    float share;
    float *scratch; /* (threads, 2, TILE_ROWS, cols) */
} correct_job;

static void correct_task(void *ctx, uint64_t task, unsigned worker) {
    const correct_job *j = ctx;
    uint64_t n = j->m->cols;
    uint64_t r0 = task * TILE_ROWS;
    uint64_t rows = j->rows - r0 < TILE_ROWS ? j->rows - r0 : TILE_ROWS;
    float *b = j->scratch + (uint64_t)worker * 2 * TILE_ROWS * n;
    float *sorted = b + TILE_ROWS * n;
    float *w = j->w + r0 * n;
    int in = (int)n;
    memset(b, 0, rows * n * sizeof(float));
    if (j->residual != NULL) {
        memcpy(b, j->residual + r0 * n, rows * n * sizeof(float));
    }
    if (j->m->cross != NULL) {
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)rows, in, in, 1.0F, w, in,
                    j->m->cross, in, 1.0F, b, in);
    }
    const uint32_t *order = j->m->order;
    const float *ridge = j->m->ridge != NULL ? j->m->ridge : j->m->r;
    for (uint64_t i = 0; i < rows; i++) {
        for (uint64_t c = 0; c < n; c++) {
            sorted[i * n + c] = b[i * n + (order != NULL ? order[c] : c)];
        }
    }
    /* x r rT = b */
    cblas_strsm(CblasRowMajor, CblasRight, CblasUpper, CblasTrans, CblasNonUnit, (int)rows, in,
                1.0F, ridge, in, sorted, in);
    cblas_strsm(CblasRowMajor, CblasRight, CblasUpper, CblasNoTrans, CblasNonUnit, (int)rows, in,
                1.0F, ridge, in, sorted, in);
    for (uint64_t i = 0; i < rows; i++) {
        for (uint64_t c = 0; c < n; c++) {
            w[i * n + (order != NULL ? order[c] : c)] += j->share * sorted[i * n + c];
        }
    }
}

novaq_status nq_metric_correct(float *w, uint64_t rows, const nq_metric *m, const float *residual,
                               double share, nq_pool *pool, novaq_error *err) {
    correct_job j = {.w = w, .residual = residual, .m = m, .rows = rows, .share = (float)share};
    uint64_t floats = (uint64_t)nq_pool_threads(pool) * 2 * TILE_ROWS * m->cols;
    if (m->cross == NULL && residual == NULL) {
        return NOVAQ_OK;
    }
    NQ_TRY(nq_alloc_raw(&j.scratch, floats, sizeof(float), err));
    nq_pool_run(pool, correct_task, &j, (rows + TILE_ROWS - 1) / TILE_ROWS);
    nq_free(j.scratch);
    return NOVAQ_OK;
}
