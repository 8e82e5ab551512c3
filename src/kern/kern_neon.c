/* kern_neon.c - AArch64 variants; NEON is part of that baseline. */
#if defined(__aarch64__)
#include <arm_neon.h>

#include "kern/kern_body.h"

/* ---- shortest paths ----------------------------------------------------------- */

static inline float32x4_t lesser4(float32x4_t a, float32x4_t b) {
    return vreinterpretq_f32_s32(vminq_s32(vreinterpretq_s32_f32(a), vreinterpretq_s32_f32(b)));
}

static inline unsigned equal4(float32x4_t a, float32x4_t b) {
    static const uint32_t bits[4] = {1, 2, 4, 8};
    return vaddvq_u32(vandq_u32(vceqq_f32(a, b), vld1q_u32(bits)));
}

static inline __attribute__((always_inline)) void transpose4(float32x4_t *v) {
    float32x4x2_t a = vtrnq_f32(v[0], v[1]);
    float32x4x2_t b = vtrnq_f32(v[2], v[3]);
    v[0] = vcombine_f32(vget_low_f32(a.val[0]), vget_low_f32(b.val[0]));
    v[1] = vcombine_f32(vget_low_f32(a.val[1]), vget_low_f32(b.val[1]));
    v[2] = vcombine_f32(vget_high_f32(a.val[0]), vget_high_f32(b.val[0]));
    v[3] = vcombine_f32(vget_high_f32(a.val[1]), vget_high_f32(b.val[1]));
}

#define PATH_NAME         path4
#define PATH_LANES        4
#define PATH_W            4
#define PATH_BLOCK        4
#define V                 float32x4_t
#define V_LOAD(p)         vld1q_f32(p)
#define V_STORE(p, a)     vst1q_f32(p, a)
#define V_SET1(x)         vdupq_n_f32(x)
#define V_ADD(a, b)       vaddq_f32(a, b)
#define V_SUB(a, b)       vsubq_f32(a, b)
#define V_MUL(a, b)       vmulq_f32(a, b)
#define V_MIN(a, b)       vminq_f32(a, b)
#define V_LESSER(a, b)    lesser4(a, b)
#define V_LEAST(a)        vdupq_n_f32(vminvq_f32(a))
#define V_LANE0(a)        vgetq_lane_f32(a, 0)
#define V_EQUAL(a, b)     equal4(a, b)
#define V_TRANSPOSE(rows) transpose4(rows)
#include "kern/kern_path.h"

#define PATH_NAME         path8
#define PATH_LANES        8
#define PATH_W            4
#define PATH_BLOCK        4
#define V                 float32x4_t
#define V_LOAD(p)         vld1q_f32(p)
#define V_STORE(p, a)     vst1q_f32(p, a)
#define V_SET1(x)         vdupq_n_f32(x)
#define V_ADD(a, b)       vaddq_f32(a, b)
#define V_SUB(a, b)       vsubq_f32(a, b)
#define V_MUL(a, b)       vmulq_f32(a, b)
#define V_MIN(a, b)       vminq_f32(a, b)
#define V_LESSER(a, b)    lesser4(a, b)
#define V_LEAST(a)        vdupq_n_f32(vminvq_f32(a))
#define V_LANE0(a)        vgetq_lane_f32(a, 0)
#define V_EQUAL(a, b)     equal4(a, b)
#define V_TRANSPOSE(rows) transpose4(rows)
#include "kern/kern_path.h"

#define PATH_NAME         path16
#define PATH_NEAREST      nearest_pair
#define PATH_LANES        16
#define PATH_W            4
#define PATH_BLOCK        4
#define V                 float32x4_t
#define V_LOAD(p)         vld1q_f32(p)
#define V_STORE(p, a)     vst1q_f32(p, a)
#define V_SET1(x)         vdupq_n_f32(x)
#define V_ADD(a, b)       vaddq_f32(a, b)
#define V_SUB(a, b)       vsubq_f32(a, b)
#define V_MUL(a, b)       vmulq_f32(a, b)
#define V_MIN(a, b)       vminq_f32(a, b)
#define V_LESSER(a, b)    lesser4(a, b)
#define V_LEAST(a)        vdupq_n_f32(vminvq_f32(a))
#define V_LANE0(a)        vgetq_lane_f32(a, 0)
#define V_EQUAL(a, b)     equal4(a, b)
#define V_TRANSPOSE(rows) transpose4(rows)
#include "kern/kern_path.h"

static void shortest_path(const nq_path *path, const nq_path_chain *chains, unsigned n,
                          uint64_t len) {
    (path->lanes == 16 ? path16 : path->lanes == 8 ? path8 : path4)(path, chains, n, len);
}

/* ---- decoding ----------------------------------------------------------------- */

static void hadamard(float *x, uint32_t n, float scale) {
    for (uint32_t h = 1; h < n; h *= 2) {
        for (uint32_t i = 0; i < n; i += 2 * h) {
            float *lo = x + i;
            float *hi = x + i + h;
            uint32_t j = 0;
            for (; j + 4 <= h; j += 4) {
                float32x4_t a = vld1q_f32(lo + j);
                float32x4_t b = vld1q_f32(hi + j);
                vst1q_f32(lo + j, vaddq_f32(a, b));
                vst1q_f32(hi + j, vsubq_f32(a, b));
            }
            for (; j < h; j++) {
                float a = lo[j];
                float b = hi[j];
                lo[j] = a + b;
                hi[j] = a - b;
            }
        }
    }
    for (uint32_t i = 0; i < n; i++) {
        x[i] *= scale;
    }
}

/* Symbols 16*half to 16*half + 15 of one unit's plane: its bytes as often as symbols share
 * them, each shifted down to its own. */
static inline uint8x16_t plane_symbols(const uint8_t *p, unsigned width, unsigned half) {
    uint8_t bytes[16];
    int8_t down[16];
    unsigned n = 4 * width;
    for (unsigned i = 0; i < 16; i++) {
        bytes[i] = p[(16 * half + i) % n];
        down[i] = (int8_t)(-(int)((16 * half + i) / n * width));
    }
    return vandq_u8(vshlq_u8(vld1q_u8(bytes), vld1q_s8(down)),
                    vdupq_n_u8((uint8_t)((1U << width) - 1U)));
}

static inline __attribute__((always_inline)) void unpack_width(uint8_t *dst, const uint8_t *src,
                                                               uint64_t units, uint64_t unit_bytes,
                                                               unsigned width, unsigned shift) {
    int8x16_t up = vdupq_n_s8((int8_t)shift);
    for (uint64_t u = 0; u < units; u++, src += unit_bytes, dst += 32) {
        for (unsigned half = 0; half < 2; half++) {
            uint8x16_t v = vshlq_u8(plane_symbols(src, width, half), up);
            if (shift > 0) {
                v = vorrq_u8(v, vld1q_u8(dst + (size_t)16 * half));
            }
            vst1q_u8(dst + (size_t)16 * half, v);
        }
    }
}

UNPACK

/* Sixteen entries at a time; an index beyond its sixteen gives 0. */
static void lut(int8_t *dst, const uint8_t *symbols, const int8_t *table, unsigned k, uint64_t n,
                int add) {
    uint64_t i = 0;
    for (; i + 16 <= n; i += 16) {
        uint8x16_t s = vld1q_u8(symbols + i);
        int8x16_t v = add ? vld1q_s8(dst + i) : vdupq_n_s8(0);
        for (unsigned b = 0; b < k; b += 16) {
            v = vaddq_s8(v, vqtbl1q_s8(vld1q_s8(table + b), vsubq_u8(s, vdupq_n_u8((uint8_t)b))));
        }
        vst1q_s8(dst + i, v);
    }
    body_lut(dst + i, symbols + i, table, k, n - i, add);
}

/* Sixteen partial sums in four registers, as the other variants keep them. */
static float reduce(const float32x4_t *acc) {
    float sum[16];
    for (int l = 0; l < 4; l++) {
        vst1q_f32(sum + 4 * l, acc[l]);
    }
    return body_reduce16(sum);
}

static float dot_i8(const int8_t *a, const float *x, uint64_t n) {
    float32x4_t acc[4] = {vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0)};
    uint64_t i = 0;
    for (; i + 16 <= n; i += 16) {
        int8x16_t bytes = vld1q_s8(a + i);
        int16x8_t low = vmovl_s8(vget_low_s8(bytes));
        int16x8_t high = vmovl_s8(vget_high_s8(bytes));
        float32x4_t w[4] = {vcvtq_f32_s32(vmovl_s16(vget_low_s16(low))),
                            vcvtq_f32_s32(vmovl_s16(vget_high_s16(low))),
                            vcvtq_f32_s32(vmovl_s16(vget_low_s16(high))),
                            vcvtq_f32_s32(vmovl_s16(vget_high_s16(high)))};
        for (int l = 0; l < 4; l++) {
            acc[l] = vfmaq_f32(acc[l], w[l], vld1q_f32(x + i + 4 * (uint64_t)l));
        }
    }
    return reduce(acc) + body_dot_i8(a + i, x + i, n - i);
}

static float dot_f32(const float *a, const float *x, uint64_t n) {
    float32x4_t acc[4] = {vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0)};
    uint64_t i = 0;
    for (; i + 16 <= n; i += 16) {
        for (int l = 0; l < 4; l++) {
            uint64_t at = i + 4 * (uint64_t)l;
            acc[l] = vfmaq_f32(acc[l], vld1q_f32(a + at), vld1q_f32(x + at));
        }
    }
    return reduce(acc) + body_dot_f32(a + i, x + i, n - i);
}

const nq_kern nq_kern_neon = {"neon", shortest_path, nearest_pair, hadamard,
                              unpack, lut,           dot_i8,       dot_f32};
#else
typedef int nq_kern_neon_is_for_aarch64;
#endif
