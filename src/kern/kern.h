/* kern.h - the inner loops, one table per instruction set.
 *
 * Owns: loops over raw pointers that are worth SIMD. Refuses: structs from
 * above, allocation, errors. Every variant of shortest_path, nearest_pair, hadamard,
 * unpack and lut gives bit-identical results (no contraction, fixed order),
 * because artifacts depend on them; the dot products round differently per
 * variant, but the same for any thread count.
 */
#ifndef NQ_KERN_KERN_H
#define NQ_KERN_KERN_H

#include <stddef.h>
#include <stdint.h>

/* The shortest path down chains of rows, for one field of k <= 16 symbols and 2
 * or 3 levels. b is a row's symbol; of the rows above, three levels remember hi
 * (one above) and lo (two above), two levels only lo (one above). A path's cost
 * is the sum over rows of weight * (|r|^2 - 2 <x, r>), r the sum of its entries.
 * Symbols are padded to a number of lanes; the pairs of padding cost NQ_PATH_FAR,
 * so that no path takes them. */
#define NQ_PATH_FAR 1e30F
typedef struct nq_path {
    unsigned lanes;       /* symbols with padding: 4, 8 or 16 */
    unsigned levels;      /* 2 or 3 */
    unsigned d;           /* components of a row */
    const float *dual;    /* (levels, d, lanes): -2 * entries, in the metric */
    const float *forward; /* |r|^2: three levels (b, lo, hi), two (lo, b) */
    const float *back;    /* the same as (hi, b, lo) or (b, lo) */
} nq_path;

/* One chain, starting after rows of symbol 0. */
typedef struct nq_path_chain {
    uint8_t *symbols;   /* (len) out */
    const float *x;     /* (len, d) */
    const float *ratio; /* (len) weight of row t-1 over weight of row t; NULL: equal */
    float *history;     /* (len, lanes^(levels-1)) scratch */
} nq_path_chain;

/* Codes n chains of len rows. The arithmetic, one rounding per operation:
 *   p_l[s] = ((x_0 * dual_l0[s] + x_1 * dual_l1[s]) + ...)
 *            minus its smallest where l > 0, so that in is never negative
 *   in     = ((cost - least) * ratio + p_oldest[lo]) + p_1[hi]   (p_1[hi]: three levels)
 *   cost'  = min over lo of (in + |r|^2) + p_0[b]
 * with least the minimum of the row before; the smallest lo wins ties, and at the
 * end the smallest (older symbol, newest symbol). */
typedef void (*nq_path_fn)(const nq_path *path, const nq_path_chain *chains, unsigned n,
                           uint64_t len);

typedef struct nq_kern {
    const char *name; /* "scalar", "avx2", "avx512", "neon" */
    nq_path_fn shortest_path;
    /* min over (a, b) of pa[a] + pair[a*kb + b] + pb[b]; the smallest a, then b
     * wins ties; ka, kb <= 256. Writes the pair to best[0], best[1]. */
    void (*nearest_pair)(unsigned *best, const float *pa, const float *pb, const float *pair,
                         unsigned ka, unsigned kb);
    /* In-place Walsh-Hadamard butterflies of x[0..n), then * scale. */
    void (*hadamard)(float *x, uint32_t n, float scale);
    /* One plane of `width` bits (1, 2, 4, 8) of whole units, docs/FORMAT.md, "Symbols": the
     * 4 * width bytes at src + u*unit_bytes to the symbols dst[32*u ...], their lowest bit
     * at `shift`. With shift 0 symbols are set, else bits are added to them. */
    void (*unpack)(uint8_t *dst, const uint8_t *src, uint64_t units, uint64_t unit_bytes,
                   unsigned width, unsigned shift);
    /* dst[i] = (add ? dst[i] : 0) + table[symbols[i]] modulo 256; table of k entries, k a
     * multiple of 16 up to 256, all symbols below it. */
    void (*lut)(int8_t *dst, const uint8_t *symbols, const int8_t *table, unsigned k, uint64_t n,
                int add);
    /* sum a[i] * x[i]. */
    float (*dot_i8)(const int8_t *a, const float *x, uint64_t n);
    float (*dot_f32)(const float *a, const float *x, uint64_t n);
} nq_kern;

extern const nq_kern nq_kern_scalar;
extern const nq_kern nq_kern_avx2;   /* defined on x86-64 only */
extern const nq_kern nq_kern_avx512; /* defined on x86-64 only */
extern const nq_kern nq_kern_neon;   /* defined on AArch64 only */

/* The best table for nq_cpu_features() bits. */
const nq_kern *nq_kern_for(unsigned features);
/* nq_kern_for(nq_cpu_features()): cheap, but call it per matrix, not per row. */
const nq_kern *nq_kern_best(void);

#endif
