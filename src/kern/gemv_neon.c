/* gemv_neon.c - products with coded weights on AArch64, baseline instructions.
 * Reached only through the table. */
#if defined(__aarch64__)
#include <arm_neon.h>

typedef uint8x16_t V;
typedef int32x4_t ACC;

/* Sums of two products stay below 2^15: no byte times no byte exceeds 2^14. */
static inline int32x4_t dot_pairs(int32x4_t acc, int8x16_t w, int8x16_t x) {
    int16x8_t low = vmull_s8(vget_low_s8(w), vget_low_s8(x));
    int16x8_t high = vmull_high_s8(w, x);
    return vpadalq_s16(vpadalq_s16(acc, low), high);
}

#define a_dot(acc, w, x) dot_pairs(acc, vreinterpretq_s8_u8(w), vreinterpretq_s8_u8(x))

#include "kern/gemv_neon_body.h"

const nq_gemv_kern nq_gemv_neon = {"neon",  true,       false,   gemv,     decode,  gemm_bytes,
                                   gemv_i8, dot_fields, dot_f16, dot_bf16, dot_q8_0};
#else
typedef int nq_gemv_neon_is_for_aarch64;
#endif
