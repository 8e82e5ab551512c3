/* dequant_legacy.c - the small-block types of ggml: Q1_0, Q2_0, Q4_0 to Q8_1,
 * and the 4-bit floats MXFP4 and NVFP4.
 *
 * Each block is one scale (and for _1 an offset), then the payload; element j
 * and element j + half share byte j unless stated.
 */
#include "format/dequant_impl.h"
#include "format/iq_grids.h"

/* 128 elements: f16 d, 1 bit each, lowest bit first; a set bit is +d. */
void nq_deq_q1_0(float *y, const uint8_t *b) {
    float d = nq_le_f16(b);
    const uint8_t *qs = b + 2;
    for (int j = 0; j < 128; j++) {
        y[j] = (qs[j / 8] >> (j % 8) & 1) != 0 ? d : -d;
    }
}

/* 64 elements: f16 d, 2 bits each, lowest first; values -1, 0, 1, 2. */
void nq_deq_q2_0(float *y, const uint8_t *b) {
    float d = nq_le_f16(b);
    const uint8_t *qs = b + 2;
    for (int j = 0; j < 64; j++) {
        int q = (qs[j / 4] >> (2 * (j % 4)) & 3) - 1;
        y[j] = (float)q * d;
    }
}

/* 32 elements: f16 d, 16 bytes of nibbles. */
void nq_deq_q4_0(float *y, const uint8_t *b) {
    float d = nq_le_f16(b);
    const uint8_t *qs = b + 2;
    for (int j = 0; j < 16; j++) {
        y[j] = (float)((qs[j] & 15) - 8) * d;
        y[j + 16] = (float)((qs[j] >> 4) - 8) * d;
    }
}

/* f16 d, f16 m, nibbles. */
void nq_deq_q4_1(float *y, const uint8_t *b) {
    float d = nq_le_f16(b);
    float m = nq_le_f16(b + 2);
    const uint8_t *qs = b + 4;
    for (int j = 0; j < 16; j++) {
        y[j] = (float)(qs[j] & 15) * d + m;
        y[j + 16] = (float)(qs[j] >> 4) * d + m;
    }
}

/* Element j of a five-bit block: nibble from qs, fifth bit is bit j of qh. */
static int five_bits(const uint8_t *qs, uint32_t qh, int j) {
    int low = j < 16 ? qs[j] & 15 : qs[j - 16] >> 4;
    return low | (int)((qh >> j & 1U) << 4);
}

/* f16 d, 32 high bits, nibbles. */
void nq_deq_q5_0(float *y, const uint8_t *b) {
    float d = nq_le_f16(b);
    uint32_t qh = nq_le32(b + 2);
    for (int j = 0; j < 32; j++) {
        y[j] = (float)(five_bits(b + 6, qh, j) - 16) * d;
    }
}

/* f16 d, f16 m, 32 high bits, nibbles. */
void nq_deq_q5_1(float *y, const uint8_t *b) {
    float d = nq_le_f16(b);
    float m = nq_le_f16(b + 2);
    uint32_t qh = nq_le32(b + 4);
    for (int j = 0; j < 32; j++) {
        y[j] = (float)five_bits(b + 8, qh, j) * d + m;
    }
}

static void scaled_bytes(float *y, const uint8_t *qs, int n, float d) {
    for (int j = 0; j < n; j++) {
        y[j] = (float)(int8_t)qs[j] * d;
    }
}

/* f16 d, 32 signed bytes. */
void nq_deq_q8_0(float *y, const uint8_t *b) { scaled_bytes(y, b + 2, 32, nq_le_f16(b)); }

/* f16 d, f16 sum (of use to dot products only), 32 signed bytes. */
void nq_deq_q8_1(float *y, const uint8_t *b) { scaled_bytes(y, b + 4, 32, nq_le_f16(b)); }

/* 2^(e - 128): half the E8M0 scale, because the table holds doubled values. */
static float e8m0_half(uint8_t e) {
    uint32_t u = e < 2 ? (uint32_t)0x00200000U << e : (uint32_t)(e - 1) << 23;
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

/* 32 elements: E8M0 scale, nibbles. */
void nq_deq_mxfp4(float *y, const uint8_t *b) {
    float d = e8m0_half(b[0]);
    const uint8_t *qs = b + 1;
    for (int j = 0; j < 16; j++) {
        y[j] = (float)iq_kvalues_mxfp4[qs[j] & 15] * d;
        y[j + 16] = (float)iq_kvalues_mxfp4[qs[j] >> 4] * d;
    }
}

/* Half of an unsigned E4M3 scale. ggml ignores bit 7, reads only the code 0x7F
 * as NaN and turns that into zero; 0xFF is therefore 480. */
static float ue4m3_half(uint8_t s) {
    if (s == 0x7F) {
        return 0.0F;
    }
    int exp = s >> 3 & 15;
    float man = (float)(s & 7);
    if (exp == 0) {
        return man * 0x1p-10F;
    }
    return (8.0F + man) * (float)(1 << exp) * 0x1p-11F; /* exact: 4 bits times 2^k */
}

/* 64 elements: four UE4M3 scales, then four groups of 16 elements in 8 bytes. */
void nq_deq_nvfp4(float *y, const uint8_t *b) {
    for (int g = 0; g < 4; g++) {
        float d = ue4m3_half(b[g]);
        const uint8_t *qs = b + 4 + 8 * g;
        for (int j = 0; j < 8; j++) {
            y[16 * g + j] = (float)iq_kvalues_mxfp4[qs[j] & 15] * d;
            y[16 * g + j + 8] = (float)iq_kvalues_mxfp4[qs[j] >> 4] * d;
        }
    }
}
