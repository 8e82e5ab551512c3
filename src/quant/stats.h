/* stats.h - what a matrix looks like before it is coded.
 *
 * Owns: the layer statistics that planning without calibration goes by
 * (variance, kurtosis, anisotropy, sparsity). Refuses: deciding anything.
 */
#ifndef NQ_QUANT_STATS_H
#define NQ_QUANT_STATS_H

#include "base/pool.h"

typedef struct nq_matrix_stats {
    double mean;
    double variance;
    double kurtosis;    /* fourth central moment / variance^2; 3 for a Gaussian */
    double anisotropy;  /* standard deviation of the column energies / their mean */
    double sparsity;    /* share of exact zeros */
    uint64_t nonfinite; /* NaN and infinite values; the other figures leave them out */
} nq_matrix_stats;

/* w (rows, cols). Same bits for any thread count. */
NOVAQ_CHECK novaq_status nq_matrix_stats_compute(nq_matrix_stats *out, const float *w,
                                                 uint64_t rows, uint64_t cols, nq_pool *pool,
                                                 novaq_error *err);

#endif
