/* stats.c - see stats.h. Blocks of rows are summed on their own and added in
 * order, so that threads do not change the result. */
#include "quant/stats.h"

#include <math.h>

#include "base/mem.h"

#define ROW_BLOCK  256
#define BLOCKS_MAX 256

typedef struct block_sums {
    double s1, s2, s3, s4;
    uint64_t zeros, nonfinite;
} block_sums;

typedef struct stats_job {
    const float *w;
    uint64_t rows, cols, block_rows;
    double shift;     /* near the mean: moments about it keep their digits */
    block_sums *sums; /* (blocks) */
    double *energy;   /* (blocks, cols) */
} stats_job;

static void sum_block(void *ctx, uint64_t block, unsigned worker) {
    (void)worker;
    stats_job *j = ctx;
    block_sums *s = &j->sums[block];
    double *energy = j->energy + block * j->cols;
    uint64_t r1 = (block + 1) * j->block_rows < j->rows ? (block + 1) * j->block_rows : j->rows;
    for (uint64_t r = block * j->block_rows; r < r1; r++) {
        for (uint64_t c = 0; c < j->cols; c++) {
            double x = (double)j->w[r * j->cols + c];
            if (!isfinite(x)) {
                s->nonfinite++;
                continue;
            }
            double y = x - j->shift;
            double yy = y * y;
            s->zeros += x == 0;
            s->s1 += y;
            s->s2 += yy;
            s->s3 += yy * y;
            s->s4 += yy * yy;
            energy[c] += x * x;
        }
    }
}

static void moments(nq_matrix_stats *out, const block_sums *t, double n, double shift) {
    double m = t->s1 / n;
    double e2 = t->s2 / n;
    double e3 = t->s3 / n;
    double e4 = t->s4 / n;
    double variance = e2 - m * m;
    double fourth = e4 - 4 * m * e3 + 6 * m * m * e2 - 3 * m * m * m * m;
    out->mean = shift + m;
    out->variance = variance > 0 ? variance : 0;
    out->kurtosis = variance > 0 ? fourth / (variance * variance) : 0;
    out->sparsity = (double)t->zeros / n;
}

static double energy_spread(const double *energy, uint64_t cols) {
    double sum = 0;
    double sq = 0;
    for (uint64_t c = 0; c < cols; c++) {
        sum += energy[c];
        sq += energy[c] * energy[c];
    }
    double mean = sum / (double)cols;
    double var = sq / (double)cols - mean * mean;
    return mean > 0 && var > 0 ? sqrt(var) / mean : 0;
}

novaq_status nq_matrix_stats_compute(nq_matrix_stats *out, const float *w, uint64_t rows,
                                     uint64_t cols, nq_pool *pool, novaq_error *err) {
    *out = (nq_matrix_stats){0};
    stats_job j = {.w = w, .rows = rows, .cols = cols, .block_rows = ROW_BLOCK};
    while ((rows + j.block_rows - 1) / j.block_rows > BLOCKS_MAX) {
        j.block_rows *= 2;
    }
    uint64_t blocks = (rows + j.block_rows - 1) / j.block_rows;
    j.shift = rows * cols > 0 && isfinite(w[0]) ? (double)w[0] : 0;
    NQ_TRY(nq_alloc(&j.sums, blocks, sizeof *j.sums, err));
    novaq_status st = nq_alloc(&j.energy, blocks * cols, sizeof(double), err);
    if (st == NOVAQ_OK) {
        nq_pool_run(pool, sum_block, &j, blocks);
        block_sums t = {0};
        for (uint64_t b = 0; b < blocks; b++) {
            const block_sums *s = &j.sums[b];
            t = (block_sums){t.s1 + s->s1, t.s2 + s->s2,       t.s3 + s->s3,
                             t.s4 + s->s4, t.zeros + s->zeros, t.nonfinite + s->nonfinite};
            for (uint64_t c = 0; b > 0 && c < cols; c++) {
                j.energy[c] += j.energy[b * cols + c];
            }
        }
        out->nonfinite = t.nonfinite;
        if (t.nonfinite < rows * cols) {
            moments(out, &t, (double)(rows * cols - t.nonfinite), j.shift);
            out->anisotropy = energy_spread(j.energy, cols);
        }
    }
    nq_free(j.sums);
    nq_free(j.energy);
    return st;
}
