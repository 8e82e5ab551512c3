/* round.h - learnt values as an artifact can hold them.
 *
 * Owns: codebooks to int8 with one binary16 scale a group, so that the entries of all
 * levels together fit 8 bits; scales and means of rows to binary16; gains and biases to
 * the type of their tensor; what a change of 1 is for each value. Refuses: writing.
 */
#ifndef NQ_REFINE_ROUND_H
#define NQ_REFINE_ROUND_H

#include "refine/net.h"

/* entries: one group, all levels, nq_scheme_codebook_bytes(). */
void nq_round_group(int8_t *entries, uint16_t *scale, const nq_tmatrix *m, uint32_t group);
/* binary16, without the matrix's exponent. */
uint16_t nq_round_row(const nq_tmatrix *m, uint64_t row);

/* How the tensor of a gain or bias is stored. */
typedef enum nq_store_kind {
    NQ_STORE_NONE, /* in a way that cannot be written anew: it is not learnt */
    NQ_STORE_F32,
    NQ_STORE_F16,
    NQ_STORE_BF16
} nq_store_kind;
/* Of p, whose tensor is in the artifact behind `weights`; NULL: there is none, here and
 * below. */
nq_store_kind nq_store_of(const nq_weights *weights, const nq_param *p);
float nq_store_round(nq_store_kind kind, float v);

/* All values of the net as they would be read back. */
void nq_round_net(nq_net *net, const nq_weights *weights);

/* unit (values of all parameters, one behind the other): what the rate of learning is
 * relative to: the size of a group's entries, of a gain, 1 for logarithms; 0 for what is
 * not learnt. All of a matrix times its squared relative error, as its layer tells it, by
 * 0.09 (0.05 to 3; 1 where it is not known), gains and biases times the mean of that. */
void nq_round_units(float *unit, nq_net *net, const nq_weights *weights);
/* The same of one gain or bias: unit (p->count). */
void nq_round_vector_units(float *unit, const nq_param *p);

#endif
