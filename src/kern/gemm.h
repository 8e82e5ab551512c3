/* gemm.h - products of matrices whose numbers are rounded to bfloat16.
 *
 * Owns: for CPUs that multiply pairs of bfloat16 twice as fast as floats, packing the
 * lines of A (its rows) and B (its columns) into panels, and one tile of C = A B with float
 * sums from panels. Refuses: threads, memory, choosing tiles of a whole product.
 *
 * A panel holds the pairs (k, k + 1) of some lines, line by line within a pair: uint32_t
 * [pairs][NQ_GEMM16_A or NQ_GEMM16_B]; panels lie behind each other, so line i (a multiple
 * of the panel's) begins at i * pairs. Inputs are rounded to nearest even; products are
 * exact, sums are floats in an order that k alone decides.
 */
#ifndef NQ_KERN_GEMM_H
#define NQ_KERN_GEMM_H

#include <stdbool.h>
#include <stdint.h>

/* Lines of a panel of A and of B, and what both divide; numbers of k summed at a time:
 * longer products are cut at multiples of it. */
#define NQ_GEMM16_A     8
#define NQ_GEMM16_B     48
#define NQ_GEMM16_LINES 48
#define NQ_GEMM16_K     256

typedef struct nq_gemm16_lines {
    bool b;            /* lines of B, else of A */
    bool along;        /* x[line * ld + k], else x[k * ld + line] */
    uint64_t count, k; /* lines and numbers of each to pack: k even unless the last */
    uint64_t pairs;    /* of a whole panel */
    uint64_t ld;       /* floats */
    const float *x;    /* first line, first number */
    uint32_t *to;      /* its pair; a multiple of NQ_GEMM16_LINES lines is written at most */
} nq_gemm16_lines;

typedef struct nq_gemm16_tile {
    bool add;         /* C += */
    uint64_t m, n, k; /* of the tile; k: of whole panels */
    uint64_t ldc;     /* floats from one row to the next */
    const uint32_t *a, *b;
    float *c;
} nq_gemm16_tile;

typedef struct nq_gemm16 {
    void (*pack)(const nq_gemm16_lines *l); /* lines missing in the last panel become zeros */
    void (*tile)(const nq_gemm16_tile *t);
} nq_gemm16;

extern const nq_gemm16 nq_gemm16_avx512bf16; /* defined on x86-64 only */
/* NULL where there is nothing faster than floats. */
const nq_gemm16 *nq_gemm16_for(unsigned features);

#endif
