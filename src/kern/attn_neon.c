/* attn_neon.c - AArch64 variants of attn.h; NEON is part of that baseline. */
#if defined(__aarch64__)
#include <arm_neon.h>
#include <stdint.h>
#include <string.h>

static inline void sums4(float *p, float32x4_t a, float32x4_t b, float32x4_t c, float32x4_t d) {
    vst1q_f32(p, vpaddq_f32(vpaddq_f32(a, b), vpaddq_f32(c, d)));
}

static inline float32x4_t load_some(const float *p, uint32_t n, float32x4_t fill) {
    float lane[4];
    vst1q_f32(lane, fill);
    memcpy(lane, p, n * sizeof *p);
    return vld1q_f32(lane);
}

static inline void store_some(float *p, float32x4_t v, uint32_t n) {
    float lane[4];
    vst1q_f32(lane, v);
    memcpy(p, lane, n * sizeof *p);
}

static inline float32x4_t pow2(float32x4_t shifted) {
    int32x4_t bits = vsubq_s32(vreinterpretq_s32_f32(shifted), vdupq_n_s32(0x4B400000 - 127));
    return vreinterpretq_f32_s32(vshlq_n_s32(bits, 23));
}

static inline float32x4_t load_i8(const int8_t *p) {
    int32_t four;
    memcpy(&four, p, sizeof four);
    int8x8_t bytes = vreinterpret_s8_s32(vdup_n_s32(four));
    return vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(bytes))));
}

static inline float32x4_t load_f16(const uint16_t *p) {
    return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p)));
}

static inline void store_f16(uint16_t *p, float32x4_t v) {
    vst1_u16(p, vreinterpret_u16_f16(vcvt_f16_f32(v)));
}

/* As x86 does: b where either is NaN. */
static inline float32x4_t greater(float32x4_t a, float32x4_t b) {
    return vbslq_f32(vcgtq_f32(a, b), a, b);
}

static inline float32x4_t lesser(float32x4_t a, float32x4_t b) {
    return vbslq_f32(vcltq_f32(a, b), a, b);
}

static inline float32x4_t keep(float32x4_t x, float32x4_t low, float32x4_t v) {
    return vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(v), vcltq_f32(x, low)));
}

#define V                       float32x4_t
#define W                       4U
#define QUERIES                 4U
#define MIX_QUERIES             4U
#define V_ZERO()                vdupq_n_f32(0)
#define V_SET1(x)               vdupq_n_f32(x)
#define V_LOAD(p)               vld1q_f32(p)
#define V_STORE(p, v)           vst1q_f32(p, v)
#define V_LOAD_SOME(p, n, fill) load_some(p, n, fill)
#define V_STORE_SOME(p, v, n)   store_some(p, v, n)
#define V_ADD(a, b)             vaddq_f32(a, b)
#define V_SUB(a, b)             vsubq_f32(a, b)
#define V_MUL(a, b)             vmulq_f32(a, b)
#define V_DIV(a, b)             vdivq_f32(a, b)
#define V_FMA(a, b, c)          vfmaq_f32(c, a, b)
#define V_MAX(a, b)             greater(a, b)
#define V_MIN(a, b)             lesser(a, b)
#define V_F16(p)                load_f16(p)
#define V_I8(p)                 load_i8(p)
#define V_TO_F16(p, v)          store_f16(p, v)
#define V_SUMS4                 sums4
#define V_POW2(v)               pow2(v)
#define V_KEEP(x, low, v)       keep(x, low, v)
#include "kern/attn_body.h"

const nq_attn_kern nq_attn_neon = ATTN_TABLE("neon");
#else
typedef int nq_attn_neon_is_for_aarch64;
#endif
