/* dequant_plain.c - element types without blocks: floats, integers, bool.
 *
 * Owns: conversion by value, rounded to nearest once. Refuses: scaling; an F8
 * tensor's companion scale tensor is somebody else's business.
 */
#include "format/dequant_impl.h"

/* out[i] = expr, where p is the address of element i, `size` bytes each. */
#define PLAIN(name, size, expr)                                                                    \
    void name(float *out, const uint8_t *src, uint64_t n) {                                        \
        for (uint64_t i = 0; i < n; i++) {                                                         \
            const uint8_t *p = src + i * (size);                                                   \
            out[i] = (expr);                                                                       \
        }                                                                                          \
    }

static inline float f64_at(const uint8_t *p) {
    uint64_t u = nq_le64(p);
    double d;
    memcpy(&d, &u, sizeof d);
    return (float)d;
}

/* nq_f16_to_f32() inline and without branches: large sources are F16 or BF16,
 * so these two loops should vectorise. */
static inline float f16_at(const uint8_t *p) {
    uint32_t h = nq_le16(p);
    uint32_t mag = (h & 0x7FFFU) << 13;
    float tiny = (float)(h & 0x3FFU) * 0x1p-24F;
    uint32_t small = 0;
    memcpy(&small, &tiny, sizeof small);
    uint32_t exp = h & 0x7C00U;
    uint32_t rebased = mag + (exp == 0x7C00U ? 224U << 23 : 112U << 23);
    uint32_t u = (exp == 0 ? small : rebased) | (h & 0x8000U) << 16;
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

static inline float bf16_at(const uint8_t *p) {
    uint32_t u = (uint32_t)nq_le16(p) << 16;
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

PLAIN(nq_deq_f64, 8, f64_at(p))
PLAIN(nq_deq_f32, 4, nq_le_f32(p))
PLAIN(nq_deq_f16, 2, f16_at(p))
PLAIN(nq_deq_bf16, 2, bf16_at(p))
PLAIN(nq_deq_f8_e4m3, 1, nq_f8_e4m3_to_f32(*p))
PLAIN(nq_deq_f8_e5m2, 1, nq_f8_e5m2_to_f32(*p))
PLAIN(nq_deq_i64, 8, (float)(int64_t)nq_le64(p))
PLAIN(nq_deq_i32, 4, (float)(int32_t)nq_le32(p))
PLAIN(nq_deq_i16, 2, (float)(int16_t)nq_le16(p))
PLAIN(nq_deq_i8, 1, (float)(int8_t)*p)
PLAIN(nq_deq_u64, 8, (float)nq_le64(p))
PLAIN(nq_deq_u32, 4, (float)nq_le32(p))
PLAIN(nq_deq_u16, 2, (float)nq_le16(p))
PLAIN(nq_deq_u8, 1, (float)*p)
PLAIN(nq_deq_bool, 1, *p != 0 ? 1.0F : 0.0F)
