/* trellis.h - choosing symbols for a chain of subvectors under given codebooks.
 *
 * Owns: the search. Sliding schemes (levels with lags) are coded by the shortest
 * path down the rows (Viterbi 1967): the state is the last symbol or two.
 * Product schemes need no memory: the nearest of all pairs of centroids (the
 * paper's argmin, section 4, takes them one after the other; the joint search is
 * never worse).
 * Refuses: choosing codebooks (codebook.h) or scales (encode.h).
 */
#ifndef NQ_QUANT_TRELLIS_H
#define NQ_QUANT_TRELLIS_H

#include "quant/scheme.h"

/* Tables of one codebook, read-only while coding; shared by threads. */
typedef struct nq_trellis {
    nq_scheme scheme;
    float *values; /* (levels, K_field, d), float values of the entries; owned */
    float *pair;   /* squared norms of sums of entries, see kern.h; owned */
} nq_trellis;

/* values: (levels, K_field, d), copied. */
NOVAQ_CHECK novaq_status nq_trellis_open(nq_trellis *out, const nq_scheme *s, const float *values,
                                         novaq_error *err);
void nq_trellis_close(nq_trellis *t);

/* Scratch bytes for chains of up to len rows. */
uint64_t nq_trellis_scratch(const nq_trellis *t, uint64_t len);

/* Codes one chain that starts with symbol-0 history.
 * x (len, d); ratio (len): weight of row t-1 over weight of row t (ratio[0]
 * unused), NULL for equal weights; symbols (fields, len). Minimises
 * sum_t weight_t |x_t - sum_k C_k|^2. */
void nq_trellis_encode(uint8_t *symbols, const nq_trellis *t, const float *x, uint64_t len,
                       const float *ratio, void *scratch);

/* out (len, d): the reconstruction of coded symbols (fields, len). */
void nq_trellis_decode(float *out, const nq_trellis *t, const uint8_t *symbols, uint64_t len);

/* First value of level l in the (levels, K_field, d) order. */
uint64_t nq_level_offset(const nq_scheme *s, unsigned level);

#endif
