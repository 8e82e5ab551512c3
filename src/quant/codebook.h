/* codebook.h - training and rounding of codebooks.
 *
 * Owns: alternating minimisation: code the chains with the current codebooks,
 * then solve for all entries of all levels at once by least squares (joint, not
 * level by level); int8 rounding under the rule that the entries of all levels
 * together fit 8 bits. Codebooks for unit Gaussian data are trained once and
 * kept in gaussian_codebooks.h: rotated, row-scaled weights are close to it.
 * Refuses: data with NaN (the caller has checked).
 */
#ifndef NQ_QUANT_CODEBOOK_H
#define NQ_QUANT_CODEBOOK_H

#include "quant/scheme.h"

typedef struct nq_codebook {
    nq_scheme scheme;
    int8_t *entries; /* (levels, K_field, d); owned */
    uint16_t scale;  /* binary16 */
    float *values;   /* entries * scale as float; owned */
} nq_codebook;

typedef struct nq_chains {
    const float *x;      /* (count, len, d) */
    const float *weight; /* (count, len) or NULL */
    uint64_t count;
    uint64_t len;
} nq_chains;

typedef struct nq_train_options {
    unsigned rounds;
    double tolerance; /* relative improvement of the error that ends training */
    uint64_t seed;
    unsigned start; /* how a fresh start is made: 0 by scheme and seed, else 1 + START_* */
} nq_train_options;

/* The stored codebook for unit Gaussian data, or one trained on the spot when
 * the scheme is not in the table. */
NOVAQ_CHECK novaq_status nq_codebook_gaussian(nq_codebook *out, const nq_scheme *s,
                                              novaq_error *err);
/* Trains from scratch (k-means++ seeding on the chains) or, when cb already has
 * entries, from them. Never worse than the start on the same chains. *mse (may
 * be NULL) receives the weighted mean squared error per weight with the rounded
 * result. */
NOVAQ_CHECK novaq_status nq_codebook_train(nq_codebook *cb, const nq_scheme *s,
                                           const nq_chains *chains, const nq_train_options *opt,
                                           double *mse, novaq_error *err);
/* Weighted mean squared error per weight of coding the chains with cb. */
NOVAQ_CHECK novaq_status nq_codebook_mse(double *mse, const nq_codebook *cb,
                                         const nq_chains *chains, novaq_error *err);
void nq_codebook_close(nq_codebook *cb);

/* count*len*d unit Gaussian samples, a function of (seed, stream) alone. */
void nq_gaussian_fill(float *x, uint64_t n, uint64_t seed, uint64_t stream);

/* Largest magnitude of level l among the entries of one group. */
float nq_level_peak(const float *values, const nq_scheme *s, unsigned l);

#endif
