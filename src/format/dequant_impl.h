/* dequant_impl.h - what the dequant*.c files share; nobody else includes it.
 *
 * Owns: little-endian loads from unaligned bytes, the decoder of each type.
 * Every decoder multiplies and adds in the order ggml does, one rounding each:
 * regrouping a product would change the last bit.
 */
#ifndef NQ_FORMAT_DEQUANT_IMPL_H
#define NQ_FORMAT_DEQUANT_IMPL_H

#include <stdint.h>
#include <string.h>

#include "base/half.h"

static inline uint16_t nq_le16(const uint8_t *p) { return (uint16_t)(p[0] | p[1] << 8); }

static inline uint32_t nq_le32(const uint8_t *p) {
    return (uint32_t)nq_le16(p) | (uint32_t)nq_le16(p + 2) << 16;
}

static inline uint64_t nq_le64(const uint8_t *p) {
    return (uint64_t)nq_le32(p) | (uint64_t)nq_le32(p + 4) << 32;
}

static inline float nq_le_f16(const uint8_t *p) { return nq_f16_to_f32(nq_le16(p)); }

static inline float nq_le_f32(const uint8_t *p) {
    uint32_t u = nq_le32(p);
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

/* Plain types: n elements from src. */
typedef void nq_plain_fn(float *out, const uint8_t *src, uint64_t n);
nq_plain_fn nq_deq_f64, nq_deq_f32, nq_deq_f16, nq_deq_bf16, nq_deq_f8_e4m3, nq_deq_f8_e5m2;
nq_plain_fn nq_deq_i64, nq_deq_i32, nq_deq_i16, nq_deq_i8;
nq_plain_fn nq_deq_u64, nq_deq_u32, nq_deq_u16, nq_deq_u8, nq_deq_bool;

/* Block types: the one block at b into y[0..elements per block). */
typedef void nq_block_fn(float *y, const uint8_t *b);
nq_block_fn nq_deq_q1_0, nq_deq_q2_0, nq_deq_q4_0, nq_deq_q4_1, nq_deq_q5_0, nq_deq_q5_1;
nq_block_fn nq_deq_q8_0, nq_deq_q8_1;
nq_block_fn nq_deq_q2_k, nq_deq_q3_k, nq_deq_q4_k, nq_deq_q5_k, nq_deq_q6_k, nq_deq_q8_k;
nq_block_fn nq_deq_tq1_0, nq_deq_tq2_0;
nq_block_fn nq_deq_iq1_s, nq_deq_iq1_m, nq_deq_iq2_xxs, nq_deq_iq2_xs, nq_deq_iq2_s;
nq_block_fn nq_deq_iq3_xxs, nq_deq_iq3_s, nq_deq_iq4_nl, nq_deq_iq4_xs;
nq_block_fn nq_deq_mxfp4, nq_deq_nvfp4;

#endif
