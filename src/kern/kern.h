/* kern.h - the inner loops, one table per instruction set.
 *
 * Owns: loops over raw pointers that are worth SIMD. Refuses: structs from
 * above, allocation, errors. Every variant of trellis_step, nearest, hadamard,
 * unpack4 and lut16 gives bit-identical results (no contraction, fixed order),
 * because artifacts depend on them; the dot products round differently per
 * variant, but the same for any thread count.
 */
#ifndef NQ_KERN_KERN_H
#define NQ_KERN_KERN_H

#include <stddef.h>
#include <stdint.h>

/* One step of the shortest path down the rows, for one field of k <= 16
 * symbols and 2 or 3 levels. States are the last one or two symbols: state
 * (older, newest) lives at older * nhi + newest, with nhi = 1 (two levels: the
 * only remembered symbol counts as older) or k (three levels).
 *   in[lo*nhi + hi] : path cost of each state, already with the terms of this
 *                     step that depend on the state alone
 *   pair[((hi*k) + lo)*k + b] : squared norm of the reconstruction of (b, state)
 *   p0[b]           : -2 <x, C_0[b]>
 * out[hi*k + b] = p0[b] + min over lo of (in[lo*nhi+hi] + pair[..][b]), the
 * smallest lo winning ties; back[hi*k + b] = that lo. Returns the minimum of
 * out. */
typedef float (*nq_trellis_step_fn)(float *out, uint8_t *back, const float *in, const float *pair,
                                    const float *p0, unsigned nhi, unsigned k);

typedef struct nq_kern {
    const char *name; /* "scalar", "avx2", "avx512" */
    nq_trellis_step_fn trellis_step;
    /* min over (a, b) of pa[a] + pair[a*kb + b] + pb[b]; the smallest a, then b
     * wins ties. Writes the pair to best[0], best[1]. */
    void (*nearest_pair)(unsigned *best, const float *pa, const float *pb, const float *pair,
                         unsigned ka, unsigned kb);
    /* In-place Walsh-Hadamard butterflies of x[0..n), then * scale. */
    void (*hadamard)(float *x, uint32_t n, float scale);
    /* units * 16 bytes to units * 32 symbols: low nibbles, then high nibbles. */
    void (*unpack4)(uint8_t *dst, const uint8_t *src, uint64_t units);
    /* dst[i] = (add ? dst[i] : 0) + table[symbols[i]], table of 16, symbols < 16. */
    void (*lut16)(int8_t *dst, const uint8_t *symbols, const int8_t *table, uint64_t n, int add);
    /* sum a[i] * x[i]. */
    float (*dot_i8)(const int8_t *a, const float *x, uint64_t n);
    float (*dot_f32)(const float *a, const float *x, uint64_t n);
} nq_kern;

extern const nq_kern nq_kern_scalar;
extern const nq_kern nq_kern_avx2;   /* defined on x86-64 only */
extern const nq_kern nq_kern_avx512; /* defined on x86-64 only */

/* The best table for nq_cpu_features() bits. */
const nq_kern *nq_kern_for(unsigned features);
/* nq_kern_for(nq_cpu_features()): cheap, but call it per matrix, not per row. */
const nq_kern *nq_kern_best(void);

#endif
