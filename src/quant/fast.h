/* fast.h - quantized matrices prepared for integer products.
 *
 * Owns: the tables, signs and expanded tails that the kernels of kern/gemv.h need
 * beside the mapped pieces; activations rounded to 8 bits in the matrix's basis;
 * the scales around the integer sums. Refuses: threads and tiles, see
 * model/linear.h.
 *
 *   y(i) = row_scale(i) * scale * (sum_j w(i,j) x(j)) + row_mean(i) * total
 *
 * with w the int8 sums of codebook entries and x the input of nq_qmat_input(),
 * times the codebook scales where there are several, rounded to int8 with one
 * scale a token. The rounding is the only difference from nq_qmat_decode().
 */
#ifndef NQ_QUANT_FAST_H
#define NQ_QUANT_FAST_H

#include "kern/gemv.h"
#include "quant/qmat.h"

/* Matrices of one model; bases of activations are shared between them. */
typedef struct nq_fast_set nq_fast_set;
/* One prepared matrix; owned by its set. */
typedef struct nq_fast nq_fast;

/* kern outlives the set. */
NOVAQ_CHECK novaq_status nq_fast_set_open(nq_fast_set **out, const nq_gemv_kern *kern,
                                          novaq_error *err);
void nq_fast_set_close(nq_fast_set **set);
/* Prepares q, which is borrowed for the life of the set. *out stays NULL (and the
 * status OK) for a matrix whose integer sums could overflow; it is read as floats. */
NOVAQ_CHECK novaq_status nq_fast_add(const nq_fast **out, nq_fast_set *set, const nq_qmat *q,
                                     novaq_error *err);

/* Activations of some tokens, ready for products. The caller owns the arrays. */
typedef struct nq_fast_input {
    int8_t *x;    /* (n, nq_fast_row_bytes) */
    float *scale; /* (n) */
    int32_t *sum; /* (n) sum of the int8 values, times the bias of the weights */
    float *total; /* (n) sum of the activations, for row means */
} nq_fast_input;

/* Bytes of one token's activations, a multiple of 64. */
uint64_t nq_fast_row_bytes(const nq_fast *f);
/* Whether activations prepared for a serve b as they are. */
bool nq_fast_same_input(const nq_fast *a, const nq_fast *b);
/* Prepares token `token` of in from x (cols), an input of W itself, not changed.
 * work: 2 * nq_fast_row_bytes() floats. */
void nq_fast_prepare(nq_fast_input *in, uint64_t token, const nq_fast *f, const float *x,
                     float *work);

/* Scratch of the products of up to `rows` rows with up to `tokens` tokens. */
uint64_t nq_fast_scratch(const nq_fast *f, uint64_t rows, uint64_t tokens);
/* Rows decoded at once: what keeps a tile in the second cache. */
uint64_t nq_fast_tile_rows(const nq_fast *f);
/* y[t*ldy + i] = (W x_t)(row0 + i), i < count, t < n. Thread-safe; each thread its
 * own scratch. */
void nq_fast_apply(float *y, uint64_t ldy, const nq_fast *f, uint64_t row0, uint64_t count,
                   const nq_fast_input *in, uint64_t n, void *scratch);

#endif
