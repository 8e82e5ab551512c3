/* normalize.c - W to (W - mean) / scale: the paper's section 3.1 and
 * DESIGN 2.1. Rows are independent; sums run in double, in column order. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/half.h"
#include "base/mem.h"
#include "quant/encode.h"

#define ROW_BLOCK 64
#define SCALE_MIN 1e-30F

typedef struct rows_job {
    float *w;
    float *scale;
    float *mean;
    uint64_t rows, cols;
} rows_job;

static void row_moments(const float *x, uint64_t n, double *mean, double *square) {
    double sum = 0;
    double sq = 0;
    for (uint64_t c = 0; c < n; c++) {
        sum += (double)x[c];
        sq += (double)x[c] * (double)x[c];
    }
    *mean = sum / (double)n;
    *square = sq / (double)n;
}

/* Means out, where asked for, and each row's root mean square. */
static void prepare_rows(void *ctx, uint64_t task, unsigned worker) {
    (void)worker;
    rows_job *j = ctx;
    uint64_t r0 = task * ROW_BLOCK;
    uint64_t r1 = r0 + ROW_BLOCK < j->rows ? r0 + ROW_BLOCK : j->rows;
    for (uint64_t r = r0; r < r1; r++) {
        float *x = j->w + r * j->cols;
        double mean;
        double square;
        row_moments(x, j->cols, &mean, &square);
        if (j->mean != NULL) {
            /* Subtract the mean as it will be stored. */
            j->mean[r] = nq_f16_to_f32(nq_f32_to_f16((float)mean));
            for (uint64_t c = 0; c < j->cols; c++) {
                x[c] -= j->mean[r];
            }
            row_moments(x, j->cols, &mean, &square);
        }
        j->scale[r] = (float)sqrt(square);
    }
}

static void divide_rows(void *ctx, uint64_t task, unsigned worker) {
    (void)worker;
    rows_job *j = ctx;
    uint64_t r1 = (task + 1) * ROW_BLOCK < j->rows ? (task + 1) * ROW_BLOCK : j->rows;
    for (uint64_t r = task * ROW_BLOCK; r < r1; r++) {
        /* Smaller rows count as zero: their inverse would overflow. */
        float inverse = j->scale[r] > SCALE_MIN ? 1.0F / j->scale[r] : 0.0F;
        for (uint64_t c = 0; c < j->cols; c++) {
            j->w[r * j->cols + c] *= inverse;
        }
    }
}

static double overall_rms(const float *rms, uint64_t rows) {
    double sum = 0;
    for (uint64_t r = 0; r < rows; r++) {
        sum += (double)rms[r] * (double)rms[r];
    }
    return sqrt(sum / (double)rows);
}

static int descending(const void *a, const void *b) {
    float x = *(const float *)a;
    float y = *(const float *)b;
    return x < y ? 1 : x > y ? -1 : 0;
}

/* PAPER: s_i = sigma_i / Delta for the top share of rows by sigma, else 1. Delta
 * is the largest sigma below them, so that no row stands out afterwards. All are
 * multiplied by the tensor's overall size, which the paper leaves to the
 * codebooks and we to the scales (8-bit entries need it). */
static novaq_status paper_scales(float *scale, uint64_t rows, double percentile, novaq_error *err) {
    float *sorted = NULL;
    NQ_TRY(nq_alloc(&sorted, rows, sizeof(float), err));
    memcpy(sorted, scale, rows * sizeof(float));
    qsort(sorted, rows, sizeof(float), descending);
    uint64_t top = (uint64_t)ceil(percentile * (double)rows);
    top = top < rows ? top : rows - 1;
    while (top > 0 && !(sorted[top] > 0)) {
        top--; /* empty rows give no threshold */
    }
    float delta = sorted[top];
    double sum = 0;
    for (uint64_t r = 0; r < rows; r++) {
        float size = scale[r] < delta ? scale[r] : delta;
        sum += (double)size * (double)size;
    }
    float rms = (float)sqrt(sum / (double)rows);
    for (uint64_t r = 0; r < rows; r++) {
        bool outlier = scale[r] > delta && delta > 0;
        scale[r] = outlier ? scale[r] / delta * rms : rms;
    }
    nq_free(sorted);
    return NOVAQ_OK;
}

novaq_status nq_normalize_rows(float *w, float *row_scale, float *row_mean, uint64_t rows,
                               uint64_t cols, const nq_encode_options *opt, nq_pool *pool,
                               novaq_error *err) {
    rows_job job = {.w = w, .scale = row_scale, .mean = row_mean, .rows = rows, .cols = cols};
    uint64_t tasks = (rows + ROW_BLOCK - 1) / ROW_BLOCK;
    nq_pool_run(pool, prepare_rows, &job, tasks);
    if (opt->normalize == NQ_NORMALIZE_PAPER) {
        NQ_TRY(paper_scales(row_scale, rows, opt->outlier_percentile, err));
    } else if (opt->normalize == NQ_NORMALIZE_NONE) {
        float rms = (float)overall_rms(row_scale, rows);
        for (uint64_t r = 0; r < rows; r++) {
            row_scale[r] = rms;
        }
    }
    nq_pool_run(pool, divide_rows, &job, tasks);
    return NOVAQ_OK;
}
