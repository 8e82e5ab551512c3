/* encode.h - one matrix from floats to a quantized matrix.
 *
 * Owns: normalization (paper section 3.1 / DESIGN 2.1), codebook choice, coding
 * of all segments and subvectors in parallel, closed-form row-scale refit,
 * packing, error telemetry. The result is a function of weights and options
 * alone: any thread count, any instruction set. Refuses: NaN and infinity.
 */
#ifndef NQ_QUANT_ENCODE_H
#define NQ_QUANT_ENCODE_H

#include "base/pool.h"
#include "quant/codebook.h"
#include "quant/metric.h"

typedef enum nq_normalize {
    NQ_NORMALIZE_NONE,   /* one scale for the whole tensor */
    NQ_NORMALIZE_ROW,    /* a scale per row */
    NQ_NORMALIZE_ROTATE, /* a scale per row, input side rotated (default) */
    NQ_NORMALIZE_PAPER   /* row means; top rows by sigma scaled by sigma/Delta */
} nq_normalize;

typedef struct nq_encode_options {
    nq_normalize normalize;
    double outlier_percentile; /* PAPER: share of rows that are rescaled */
    uint32_t segment_rows;
    uint64_t seed;
    unsigned max_iterations;
    double tolerance;
    uint32_t rotation_block; /* ROTATE: largest block, 0 = 512 */
    bool row_means;          /* ROW, ROTATE: the mean of each row apart */
    /* What is known of the inputs, or NULL; borrowed, shared by the matrices of a
     * group. Its rotation and column scales are then the matrices'. */
    const nq_metric *metric;
    bool feedback;        /* with a metric: errors are fed forward */
    unsigned sweeps;      /* with a metric: passes after the first */
    double correct_share; /* with a metric that holds a cross moment, 0-1 */
} nq_encode_options;

/* What happened to each column of subvectors ("subspace"), summed over rows. */
typedef struct nq_subspace_stats {
    uint64_t count; /* subspaces: ceil(cols / d) */
    double mse_min, mse_mean, mse_max;
    double cosine_min;
    uint64_t worst;                /* index of mse_max */
    double entropy[NQ_MAX_FIELDS]; /* bits of information per symbol, per field */
    unsigned used[NQ_MAX_FIELDS];  /* symbols that occur at all */
} nq_subspace_stats;

/* One matrix of a group. */
typedef struct nq_encode_item {
    const char *name; /* seeds sampling, appears in errors */
    nq_scheme scheme; /* CODE or Q8 */
    float *w;         /* (rows, cols), overwritten */
    uint64_t rows;
    const float *residual; /* (rows, cols) or NULL, see nq_metric_correct() */
} nq_encode_item;

typedef struct nq_encoded {
    nq_qmat q; /* pieces point into the owned buffers below */
    uint8_t *symbols;
    int8_t *codebooks;
    uint16_t *codebook_scale;
    uint16_t *row_scale;
    uint16_t *row_mean;
    int8_t *col_exponent;
    double sq_error, sq_source, sq_decoded, dot; /* in the weights' own units */
    /* E|Tx - Qx|^2 / E|Tx|^2 under the damped metric, T what was coded (the corrected
     * target); NaN without a metric, and for q8. */
    double output_error;
    nq_subspace_stats subspaces;
} nq_encoded;

/* Codes `count` matrices of `cols` columns that read the same input; out (count),
 * each to be released with nq_encoded_close(), also on failure. */
NOVAQ_CHECK novaq_status nq_encode_group(nq_encoded *out, const nq_encode_item *items,
                                         unsigned count, uint64_t cols,
                                         const nq_encode_options *opt, nq_pool *pool,
                                         novaq_error *err);
/* A group of one; on failure nothing is left to release. */
NOVAQ_CHECK novaq_status nq_encode(nq_encoded *out, float *w, uint64_t rows, uint64_t cols,
                                   const nq_scheme *scheme, const nq_encode_options *opt,
                                   const char *name, nq_pool *pool, novaq_error *err);
void nq_encoded_close(nq_encoded *e);

/* Adds entropy and use of symbols, unpacked (rows, fields, stride), of which `subs` hold
 * data in each row. */
void nq_symbol_use(nq_subspace_stats *st, const nq_scheme *s, const uint8_t *symbols, uint64_t rows,
                   uint64_t stride, uint64_t subs);

/* Normalization of a matrix that is in the coded basis already: (w - mean) /
 * scale in place; row_mean may be NULL where none is asked for. */
NOVAQ_CHECK novaq_status nq_normalize_rows(float *w, float *row_scale, float *row_mean,
                                           uint64_t rows, uint64_t cols,
                                           const nq_encode_options *opt, nq_pool *pool,
                                           novaq_error *err);

#endif
