/* attn.h - the inner loops of attention, one table per instruction set.
 *
 * Owns: scores of queries against stored keys, weighted sums of stored values,
 * the row arithmetic of softmax, and the conversion of rows to and from storage.
 * Refuses: masks, positions, heads; scales of int8 rows, which the caller
 * multiplies in (scale_by). Sums round differently per variant, but the same for
 * any thread count: their order depends on the arguments alone.
 *
 * Rows have a pitch: a multiple of NQ_ATTN_ALIGN elements, zero where unused, and
 * begin at multiples of 16 bytes.
 */
#ifndef NQ_KERN_ATTN_H
#define NQ_KERN_ATTN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NQ_ATTN_ALIGN 16U

typedef enum nq_attn_type { NQ_ATTN_F32, NQ_ATTN_F16, NQ_ATTN_I8, NQ_ATTN_TYPES } nq_attn_type;

/* Keys of a panel of turned keys. */
#define NQ_ATTN_PANEL 64U

/* n rows of scores or weights, n rows of x, and `keys` stored rows of a pitch. */
typedef struct nq_attn_tile {
    const void *rows;
    float *scores; /* (n, scores_stride) */
    float *x;      /* (n, x_stride): queries, or sums */
    size_t scores_stride;
    size_t x_stride;
    unsigned n;
    uint32_t keys;
    uint32_t pitch;
    bool fresh;        /* mix: x is written, not added to */
    const void *ahead; /* scores: rows that are needed next, of the same shape; or NULL */
} nq_attn_tile;

typedef struct nq_attn_kern {
    const char *name; /* "scalar", "avx2", "avx512", "neon" */
    /* scores[i][j] = sum over c of x[i][c] * rows[j][c]. */
    void (*scores[NQ_ATTN_TYPES])(const nq_attn_tile *t);
    /* x[i][c] += sum over j of scores[i][j] * rows[j][c]. */
    void (*mix[NQ_ATTN_TYPES])(const nq_attn_tile *t);
    /* A panel (pitch, NQ_ATTN_PANEL) of keys <= NQ_ATTN_PANEL rows turned on their
     * side, as floats, times their scales (NULL: 1); zero where there is no key. With
     * many queries, mix over it gives their scores faster than scores does. */
    void (*turn[NQ_ATTN_TYPES])(float *panel, const void *rows, const float *scales, uint32_t keys,
                                uint32_t pitch);
    /* Largest of x (n > 0). */
    float (*max)(const float *x, uint32_t n);
    /* x[i] = exp(x[i] - shift), within 3e-7 relative, 0 below -87; returns their sum. */
    float (*exp_sum)(float *x, uint32_t n, float shift);
    /* x[i] = cap * tanh(x[i] / cap), within 5e-7 * cap. */
    void (*softcap)(float *x, uint32_t n, float cap);
    /* x[i] *= y[i]. */
    void (*scale_by)(float *x, const float *y, uint32_t n);
    /* Stores n floats, n a multiple of NQ_ATTN_ALIGN. f16: to nearest even, finite
     * values beyond its range become its largest. i8: returns the scale, the
     * largest magnitude / 127, to nearest even; the error is half a scale. */
    void (*to_f16)(uint16_t *dst, const float *src, uint32_t n);
    float (*to_i8)(int8_t *dst, const float *src, uint32_t n);
} nq_attn_kern;

extern const nq_attn_kern nq_attn_scalar;
extern const nq_attn_kern nq_attn_avx2;   /* defined on x86-64 only */
extern const nq_attn_kern nq_attn_avx512; /* defined on x86-64 only */
extern const nq_attn_kern nq_attn_neon;   /* defined on AArch64 only */

/* The best table for nq_cpu_features() bits. */
const nq_attn_kern *nq_attn_for(unsigned features);
const nq_attn_kern *nq_attn_best(void);

#endif
