/* gemv_neon_body.h - the 128-bit vocabulary of gemv_body.h for AArch64.
 *
 * Included more than once: both variants define a_dot() first. Weights are signed
 * bytes here: NEON multiplies signed by signed, so nothing is ever wide. */
#ifndef NQ_KERN_GEMV_NEON_BODY_H
#define NQ_KERN_GEMV_NEON_BODY_H

#define V_BYTES 16
#define ROWS    4

#define v_load(p)            vld1q_u8(p)
#define v_store(p, v)        vst1q_u8(p, v)
#define v_zero()             vdupq_n_u8(0)
#define v_and(v, b)          vandq_u8(v, vdupq_n_u8(b))
#define v_low4(v)            v_and(v, 15)
#define v_high4(v)           vshrq_n_u8(v, 4)
#define v_shl(v, n)          vshlq_n_u8(v, n)
#define v_shr(v, n)          vshrq_n_u8(v, n)
#define v_select(byte, a, b) vbslq_u8(vdupq_n_u8(byte), a, b)
#define v_lookup(t, i)       vqtbl1q_u8(t, i)
#define v_add(a, b)          vaddq_u8(a, b)
#define v_flip(v)            (v)
#define v_prefetch(p)        __builtin_prefetch(p)
#define a_zero()             vdupq_n_s32(0)
#define a_dot_wide(a, w, x)  a_dot(a, w, x)
#define G_ROWS               4
#define G_TOKENS             4

/* Two units of 12 bytes; see the 512-bit version. */
static inline __attribute__((always_inline)) void v_load3(V *low, V *high, const uint8_t *p) {
    const uint8_t pick_low[16] = {0, 1, 2, 3, 4, 5, 6, 7, 20, 21, 22, 23, 24, 25, 26, 27};
    const uint8_t pick_high[16] = {8, 9, 10, 11, 8, 9, 10, 11, 28, 29, 30, 31, 28, 29, 30, 31};
    const int32_t shift[4] = {0, -1, 0, -1};
    uint8x16x2_t both = {{vld1q_u8(p), vld1q_u8(p + 8)}}; /* bytes 0..15, 8..23 */
    *low = vqtbl2q_u8(both, vld1q_u8(pick_low));
    uint32x4_t third = vreinterpretq_u32_u8(vqtbl2q_u8(both, vld1q_u8(pick_high)));
    *high = vreinterpretq_u8_u32(vshlq_u32(third, vld1q_s32(shift)));
}

static inline __attribute__((always_inline)) void a_sums(int32_t *y, const ACC *acc,
                                                         unsigned count) {
    for (unsigned i = 0; i < count; i++) {
        y[i] = vaddvq_s32(acc[i]);
    }
}

#include "kern/gemv_body.h"

#include "kern/gemm_body.h"
#include "kern/gemv_fields.h"

PRODUCTS(4)
PRODUCTS(3)
PRODUCTS(2)
ENTRIES

static float dot_f16(const uint16_t *a, const float *x, uint64_t n) {
    float32x4_t acc = vdupq_n_f32(0);
    uint64_t i = 0;
    for (; i + 4 <= n; i += 4) {
        float32x4_t w = vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(a + i)));
        acc = vfmaq_f32(acc, w, vld1q_f32(x + i));
    }
    return vaddvq_f32(acc) + nq_gemv_scalar.dot_f16(a + i, x + i, n - i);
}

static float dot_bf16(const uint16_t *a, const float *x, uint64_t n) {
    float32x4_t acc = vdupq_n_f32(0);
    uint64_t i = 0;
    for (; i + 4 <= n; i += 4) {
        float32x4_t w = vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(a + i), 16));
        acc = vfmaq_f32(acc, w, vld1q_f32(x + i));
    }
    return vaddvq_f32(acc) + nq_gemv_scalar.dot_bf16(a + i, x + i, n - i);
}

static float dot_q8_0(const uint8_t *blocks, const float *x, uint64_t n) {
    float32x4_t acc = vdupq_n_f32(0);
    for (uint64_t i = 0; i < n; i += NQ_Q8_0_WEIGHTS, blocks += NQ_Q8_0_BYTES) {
        float32x4_t part = vdupq_n_f32(0);
        for (unsigned j = 0; j < NQ_Q8_0_WEIGHTS; j += 8) {
            int16x8_t w = vmovl_s8(vreinterpret_s8_u8(vld1_u8(blocks + 2 + j)));
            float32x4_t low = vcvtq_f32_s32(vmovl_s16(vget_low_s16(w)));
            float32x4_t high = vcvtq_f32_s32(vmovl_high_s16(w));
            part = vfmaq_f32(part, low, vld1q_f32(x + i + j));
            part = vfmaq_f32(part, high, vld1q_f32(x + i + j + 4));
        }
        uint16_t half;
        memcpy(&half, blocks, sizeof half);
        acc = vfmaq_f32(acc, vcvt_f32_f16(vreinterpret_f16_u16(vdup_n_u16(half))), part);
    }
    return vaddvq_f32(acc);
}

#endif
