/* gemv_dotprod.c - products with coded weights on AArch64 with the dot product
 * instructions (Armv8.2). Reached only through the table. */
#if defined(__aarch64__)
#pragma GCC target("arch=armv8.2-a+dotprod")
#include <arm_neon.h>

typedef uint8x16_t V;
typedef int32x4_t ACC;

#define a_dot(acc, w, x) vdotq_s32(acc, vreinterpretq_s8_u8(w), vreinterpretq_s8_u8(x))

#include "kern/gemv_neon_body.h"

const nq_gemv_kern nq_gemv_dotprod = {"dotprod", true,       false,   gemv,     decode,  gemm_bytes,
                                      gemv_i8,   dot_fields, dot_f16, dot_bf16, dot_q8_0};
#else
typedef int nq_gemv_dotprod_is_for_aarch64;
#endif
