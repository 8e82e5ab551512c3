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
#include "quant/qmat.h"

typedef enum nq_normalize {
    NQ_NORMALIZE_NONE,   /* one scale for the whole tensor */
    NQ_NORMALIZE_ROW,    /* a scale per row */
    NQ_NORMALIZE_ROTATE, /* a scale per row, input side rotated (default) */
    NQ_NORMALIZE_PAPER   /* row means; top rows by sigma scaled by sigma/Delta */
} nq_normalize;

typedef struct nq_encode_options {
    nq_scheme scheme;
    nq_normalize normalize;
    double outlier_percentile; /* PAPER: share of rows that are rescaled */
    uint32_t segment_rows;
    uint64_t seed;
    unsigned max_iterations;
    double tolerance;
    /* What is known of the inputs x of this matrix; all borrowed, NULL if nothing.
     * Column scales are chosen from the energies, row scales fitted to the
     * outputs on the samples. */
    const double *col_energy; /* (cols) mean of x_j^2 */
    const float *probe;       /* (probe_rows, cols) samples of x */
    uint64_t probe_rows;
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

typedef struct nq_encoded {
    nq_qmat q; /* pieces point into the owned buffers below */
    uint8_t *symbols;
    int8_t *codebooks;
    uint16_t *codebook_scale;
    uint16_t *row_scale;
    uint16_t *row_mean;
    int8_t *col_exponent;
    double sq_error, sq_source, sq_decoded, dot; /* in the weights' own units */
    nq_subspace_stats subspaces;
} nq_encoded;

/* w (rows, cols) is overwritten (normalized, rotated). name seeds sampling and
 * appears in errors. Release with nq_encoded_close(). */
NOVAQ_CHECK novaq_status nq_encode(nq_encoded *out, float *w, uint64_t rows, uint64_t cols,
                                   const nq_encode_options *opt, const char *name, nq_pool *pool,
                                   novaq_error *err);
void nq_encoded_close(nq_encoded *e);

/* The normalized matrix alone, for planning by measurement: (w - mean) / scale,
 * rotated; scales in row_scale (rows). */
NOVAQ_CHECK novaq_status nq_normalize_rows(float *w, float *row_scale, float *row_mean,
                                           uint64_t rows, uint64_t cols,
                                           const nq_encode_options *opt, nq_pool *pool,
                                           novaq_error *err);

#endif
