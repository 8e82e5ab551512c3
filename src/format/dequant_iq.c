/* dequant_iq.c - ggml's codebook types: IQ1_S to IQ4_XS, super-blocks of 256
 * elements (IQ4_NL: blocks of 32).
 *
 * IQ1 to IQ3 look up 4 or 8 magnitudes at a time in a grid (iq_grids.h) and
 * IQ2 and IQ3 keep the signs apart; IQ4 has 16 fixed uneven levels.
 */
#include "format/dequant_impl.h"
#include "format/iq_grids.h"

/* y[j] = (scale * magnitude j) * sign j, for the 8 elements of one grid row. */
static void grid8(float *y, uint16_t row, float scale, unsigned signs) {
    for (int j = 0; j < 8; j++) {
        float sign = (signs >> j & 1U) != 0 ? -1.0F : 1.0F;
        y[j] = scale * (float)iq2_levels[row >> (2 * j) & 3] * sign;
    }
}

/* The same for 8 elements made of two grid rows of 4. */
static void grid4x2(float *y, uint16_t row0, uint16_t row1, const uint8_t *levels, float scale,
                    unsigned signs) {
    for (int j = 0; j < 8; j++) {
        unsigned row = j < 4 ? row0 : row1;
        float sign = (signs >> j & 1U) != 0 ? -1.0F : 1.0F;
        y[j] = scale * (float)levels[row >> (4 * (j % 4)) & 7] * sign;
    }
}

/* f16 d; per 32 elements four 8-bit grid indices, then a word of four 7-bit
 * sign patterns and a 4-bit scale. */
void nq_deq_iq2_xxs(float *y, const uint8_t *b) {
    float d = nq_le_f16(b);
    for (int g = 0; g < 8; g++) {
        const uint8_t *q = b + 2 + 8 * g;
        uint32_t word = nq_le32(q + 4);
        float scale = d * (0.5F + (float)(word >> 28)) * 0.25F;
        for (int l = 0; l < 4; l++) {
            unsigned signs = iq_signs[word >> (7 * l) & 127];
            grid8(y + 32 * g + 8 * l, iq2xxs_grid[q[l]], scale, signs);
        }
    }
}

/* f16 d; per 8 elements a 9-bit grid index and a 7-bit sign pattern; then a
 * 4-bit scale per 16 elements. */
void nq_deq_iq2_xs(float *y, const uint8_t *b) {
    float d = nq_le_f16(b);
    const uint8_t *scales = b + 66;
    for (int k = 0; k < 32; k++) { /* groups of 8 elements */
        unsigned q = nq_le16(b + 2 + 2 * k);
        unsigned s = scales[k / 4] >> (4 * (k / 2 % 2)) & 15;
        float scale = d * (0.5F + (float)s) * 0.25F;
        grid8(y + 8 * k, iq2xs_grid[q & 511], scale, iq_signs[q >> 9]);
    }
}

/* f16 d, 32 low index bytes, 32 sign bytes, 8 bytes of upper index bits (two
 * per group of 8), 8 bytes of 4-bit scales. */
void nq_deq_iq2_s(float *y, const uint8_t *b) {
    float d = nq_le_f16(b);
    const uint8_t *qs = b + 2;
    const uint8_t *signs = b + 34;
    const uint8_t *qh = b + 66;
    const uint8_t *scales = b + 74;
    for (int k = 0; k < 32; k++) {
        unsigned high = (unsigned)qh[k / 4] >> (2 * (k % 4));
        unsigned index = qs[k] | (high & 3U) << 8;
        unsigned s = scales[k / 4] >> (4 * (k / 2 % 2)) & 15;
        float scale = d * (0.5F + (float)s) * 0.25F;
        grid8(y + 8 * k, iq2s_grid[index], scale, signs[k]);
    }
}

/* f16 d, 64 grid indices, then per 32 elements a word of four 7-bit sign
 * patterns and a 4-bit scale. */
void nq_deq_iq3_xxs(float *y, const uint8_t *b) {
    float d = nq_le_f16(b);
    for (int g = 0; g < 8; g++) {
        const uint8_t *q = b + 2 + 8 * g;
        uint32_t word = nq_le32(b + 66 + 4 * g);
        float scale = d * (0.5F + (float)(word >> 28)) * 0.5F;
        for (int l = 0; l < 4; l++) {
            unsigned signs = iq_signs[word >> (7 * l) & 127];
            grid4x2(y + 32 * g + 8 * l, iq3xxs_grid[q[2 * l]], iq3xxs_grid[q[2 * l + 1]],
                    iq3xxs_levels, scale, signs);
        }
    }
}

/* f16 d, 64 low index bytes, 8 bytes of ninth index bits, 32 sign bytes, 4
 * bytes of 4-bit scales, one per 32 elements. */
void nq_deq_iq3_s(float *y, const uint8_t *b) {
    float d = nq_le_f16(b);
    const uint8_t *qs = b + 2;
    const uint8_t *qh = b + 66;
    const uint8_t *signs = b + 74;
    const uint8_t *scales = b + 106;
    for (int k = 0; k < 32; k++) { /* groups of 8 elements, two indices each */
        unsigned high = (unsigned)qh[k / 4] >> (2 * (k % 4));
        unsigned i0 = qs[2 * k] | (high & 1U) << 8;
        unsigned i1 = qs[2 * k + 1] | (high >> 1 & 1U) << 8;
        int s = scales[k / 8] >> (4 * (k / 4 % 2)) & 15;
        float scale = d * (float)(1 + 2 * s);
        grid4x2(y + 8 * k, iq3s_grid[i0], iq3s_grid[i1], iq3s_levels, scale, signs[k]);
    }
}

/* y[j] = scale * (trit j + delta), delta = 1/8 with the given sign. */
static void ternary8(float *y, unsigned index, float scale, unsigned negative) {
    float delta = negative != 0 ? -0.125F : 0.125F;
    unsigned row = iq1s_grid[index];
    for (int j = 0; j < 8; j++) {
        int trit = (int)(row >> (2 * j) & 3U) - 1;
        y[j] = scale * ((float)trit + delta);
    }
}

/* f16 d, 32 low index bytes, then per 32 elements a half-word: four 3-bit upper
 * index parts, a 3-bit scale, the sign of delta. */
void nq_deq_iq1_s(float *y, const uint8_t *b) {
    float d = nq_le_f16(b);
    for (int k = 0; k < 32; k++) { /* groups of 8 elements */
        unsigned h = nq_le16(b + 34 + 2 * (k / 4));
        float scale = d * (float)(2 * (h >> 12 & 7U) + 1);
        unsigned index = b[2 + k] | (h >> (3 * (k % 4)) & 7U) << 8;
        ternary8(y + 8 * k, index, scale, h & 0x8000U);
    }
}

/* 32 low index bytes, 16 bytes of nibbles (3 upper index bits, sign of delta),
 * four half-words of 3-bit scales, one per 16 elements; their top nibbles
 * together are the f16 d. */
void nq_deq_iq1_m(float *y, const uint8_t *b) {
    const uint8_t *qh = b + 32;
    unsigned sc[4];
    unsigned half = 0;
    for (int i = 0; i < 4; i++) {
        sc[i] = nq_le16(b + 48 + 2 * i);
        half |= sc[i] >> 12 << (4 * i);
    }
    float d = nq_f16_to_f32((uint16_t)half);
    for (int k = 0; k < 32; k++) {
        unsigned s = sc[k / 8] >> (3 * (k / 2 % 4)) & 7U;
        unsigned h = (unsigned)qh[k / 2] >> (4 * (k % 2));
        float scale = d * (float)(2 * s + 1);
        ternary8(y + 8 * k, b[k] | (h & 7U) << 8, scale, h & 8U);
    }
}

/* 32 elements of 16 bytes of nibbles; elements j and j + 16 share byte j. */
static void levels32(float *y, const uint8_t *q, float scale) {
    for (int j = 0; j < 16; j++) {
        y[j] = scale * (float)iq_kvalues_iq4nl[q[j] & 15];
        y[j + 16] = scale * (float)iq_kvalues_iq4nl[q[j] >> 4];
    }
}

/* f16 d, 16 bytes of nibbles. */
void nq_deq_iq4_nl(float *y, const uint8_t *b) { levels32(y, b + 2, nq_le_f16(b)); }

/* f16 d, a half-word of upper and 4 bytes of lower scale bits (6-bit scales,
 * one per 32 elements), 128 bytes of nibbles. */
void nq_deq_iq4_xs(float *y, const uint8_t *b) {
    float d = nq_le_f16(b);
    unsigned high = nq_le16(b + 2);
    for (int g = 0; g < 8; g++) {
        int low = b[4 + g / 2] >> (4 * (g % 2)) & 15;
        int s = (low | (int)(high >> (2 * g) & 3U) << 4) - 32;
        levels32(y + 32 * g, b + 8 + 16 * g, d * (float)s);
    }
}
