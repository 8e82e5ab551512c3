/* gemm.h - products of matrices whose numbers are rounded to bfloat16.
 *
 * Owns: one tile of C = A B with float sums, for CPUs that multiply pairs of bfloat16
 * twice as fast as floats. Refuses: threads, tiles of a whole product.
 *
 * Inputs are rounded to nearest even on the way in; products are exact, sums are floats
 * in an order that shape alone decides.
 */
#ifndef NQ_KERN_GEMM_H
#define NQ_KERN_GEMM_H

#include <stdbool.h>
#include <stdint.h>

/* Largest tile. */
#define NQ_GEMM16_M 256
#define NQ_GEMM16_N 384

typedef struct nq_gemm16_tile {
    bool ta, tb, add;       /* A (k, m), B (n, k) stored transposed; C += */
    uint64_t m, n, k;       /* m <= NQ_GEMM16_M, n <= NQ_GEMM16_N */
    uint64_t lda, ldb, ldc; /* floats from one row to the next */
    const float *a, *b;
    float *c;
} nq_gemm16_tile;

typedef void (*nq_gemm16_fn)(const nq_gemm16_tile *t);

void nq_gemm16_avx512bf16(const nq_gemm16_tile *t); /* defined on x86-64 only */
/* NULL where there is nothing faster than floats. */
nq_gemm16_fn nq_gemm16_for(unsigned features);

#endif
