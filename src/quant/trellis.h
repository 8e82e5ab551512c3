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

#include "kern/kern.h"
#include "quant/scheme.h"

/* Tables of one codebook, read-only while coding; shared by threads. */
typedef struct nq_trellis {
    nq_scheme scheme;
    float *values;  /* (levels, K_field, d), float values of the entries; owned */
    float *seen;    /* (levels, K_field, d), the entries under the metric: R c; owned */
    float *dual;    /* (levels, d, lanes), -2 R^T R c: <x, dual> = -2 <R x, R c>; owned */
    float *forward; /* squared norms of sums of seen entries; owned. Sliding: see
                       nq_path; product: (K1, K2) or (1, K) */
    float *back;    /* sliding only, see nq_path; owned */
    unsigned lanes; /* sliding: K padded to 4, 8 or 16; else 256 */
} nq_trellis;

/* values: (levels, K_field, d), copied. */
NOVAQ_CHECK novaq_status nq_trellis_open(nq_trellis *out, const nq_scheme *s, const float *values,
                                         novaq_error *err);
/* A copy of t for one thread whose metric can be changed. */
NOVAQ_CHECK novaq_status nq_trellis_clone(nq_trellis *out, const nq_trellis *t, novaq_error *err);
void nq_trellis_close(nq_trellis *t);

/* Errors are from now on measured as |R (x - r)|^2. r (d, d): upper triangular,
 * row-major, zeros below the diagonal; NULL: identity. Ignored at d = 1, where it
 * only scales. values stay the codebook as it is decoded. Cheap next to coding
 * a chain. */
void nq_trellis_metric(nq_trellis *t, const float *r);

/* Scratch bytes, of any alignment, for chains of up to len rows. */
uint64_t nq_trellis_scratch(const nq_trellis *t, uint64_t len);

/* Codes one chain that starts with symbol-0 history.
 * x (len, d); ratio (len): weight of row t-1 over weight of row t (ratio[0]
 * unused), NULL for equal weights; symbols (fields, len). Minimises
 * sum_t weight_t |x_t - sum_k C_k|^2. */
void nq_trellis_encode(uint8_t *symbols, const nq_trellis *t, const float *x, uint64_t len,
                       const float *ratio, void *scratch);

/* The same for several chains of one length, faster than one by one: x[i],
 * symbols[i] and ratio[i] are chain i's. ratio NULL: equal weights in all. The
 * scratch of one chain is enough. */
void nq_trellis_encode_many(uint8_t *const *symbols, const nq_trellis *t, const float *const *x,
                            uint64_t len, const float *const *ratio, uint64_t chains,
                            void *scratch);

/* nq_trellis_encode_many() with a given kernel table instead of the best one. */
void nq_trellis_encode_with(const nq_kern *kern, uint8_t *const *symbols, const nq_trellis *t,
                            const float *const *x, uint64_t len, const float *const *ratio,
                            uint64_t chains, void *scratch);

/* out (len, d): the reconstruction of coded symbols (fields, len). */
void nq_trellis_decode(float *out, const nq_trellis *t, const uint8_t *symbols, uint64_t len);

/* First value of level l in the (levels, K_field, d) order. */
uint64_t nq_level_offset(const nq_scheme *s, unsigned level);

#endif
