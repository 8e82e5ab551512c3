/* rotate.h - the random orthogonal change of basis on the input side.
 *
 * x' = H D x: D flips signs (hash of seed, column count and column), H is the
 * blockwise Walsh-Hadamard transform scaled to be orthonormal. W' = W Dt Ht, so
 * W' x' = W x. Tensors with equal column counts share a rotation.
 */
#ifndef NQ_QUANT_ROTATE_H
#define NQ_QUANT_ROTATE_H

#include <stdint.h>

typedef struct nq_rotation {
    uint32_t block; /* power of two 16-512 that divides the columns; 0 = none */
    uint64_t seed;
} nq_rotation;

/* Largest power of two <= 512 that divides cols, or 0 if that is below 16. */
uint32_t nq_rotation_block(uint64_t cols);
/* The sign of column j: +1 or -1. */
float nq_rotation_sign(const nq_rotation *r, uint64_t cols, uint64_t j);
/* x (count, cols) in place: each row becomes H D x. block 0 does nothing. */
void nq_rotate_forward(float *x, const nq_rotation *r, uint64_t count, uint64_t cols);
/* H alone: for rows whose signs are flipped already. */
void nq_rotate_mix(float *x, const nq_rotation *r, uint64_t count, uint64_t cols);
/* The inverse, D H x. */
void nq_rotate_inverse(float *x, const nq_rotation *r, uint64_t count, uint64_t cols);

#endif
