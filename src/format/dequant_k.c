/* dequant_k.c - ggml's super-blocks of 256 elements with uniform levels: Q2_K
 * to Q6_K, Q8_K, and the ternary TQ1_0 and TQ2_0.
 *
 * In Q2_K to Q5_K a run of 32 payload bytes serves several groups of 32
 * elements, one bit field per group: the lowest field is the first group.
 */
#include "format/dequant_impl.h"

/* 16 bytes (4-bit scale, 4-bit min), 64 payload bytes, f16 d, f16 dmin. */
void nq_deq_q2_k(float *y, const uint8_t *b) {
    const uint8_t *scales = b;
    const uint8_t *qs = b + 16;
    float d = nq_le_f16(b + 80);
    float dmin = nq_le_f16(b + 82);
    for (int g = 0; g < 16; g++) { /* groups of 16 elements */
        float dl = d * (float)(scales[g] & 15);
        float ml = dmin * (float)(scales[g] >> 4);
        const uint8_t *q = qs + 32 * (g / 8) + 16 * (g % 2);
        int shift = 2 * (g / 2 % 4);
        for (int j = 0; j < 16; j++) {
            y[16 * g + j] = dl * (float)(q[j] >> shift & 3) - ml;
        }
    }
}

/* Scale g of Q3_K: low nibbles in bytes 0-7, top two bits in bytes 8-11. */
static int q3_scale(const uint8_t *s, int g) {
    int low = s[g % 8] >> (4 * (g / 8)) & 15;
    int high = s[8 + g % 4] >> (2 * (g / 4)) & 3;
    return (low | high << 4) - 32;
}

/* 32 bytes of third bits, 64 payload bytes, 12 bytes of 6-bit scales, f16 d.
 * A clear third bit means minus 4. */
void nq_deq_q3_k(float *y, const uint8_t *b) {
    const uint8_t *hmask = b;
    const uint8_t *qs = b + 32;
    const uint8_t *scales = b + 96;
    float d = nq_le_f16(b + 108);
    for (int g = 0; g < 16; g++) {
        float dl = d * (float)q3_scale(scales, g);
        const uint8_t *q = qs + 32 * (g / 8) + 16 * (g % 2);
        const uint8_t *h = hmask + 16 * (g % 2);
        int shift = 2 * (g / 2 % 4);
        for (int j = 0; j < 16; j++) {
            int offset = (h[j] >> (g / 2) & 1) != 0 ? 0 : 4;
            y[16 * g + j] = dl * (float)((q[j] >> shift & 3) - offset);
        }
    }
}

/* Scale and min g of Q4_K and Q5_K: 8 + 8 six-bit numbers in 12 bytes. */
static void scale_min(int *scale, int *min, const uint8_t *s, int g) {
    if (g < 4) {
        *scale = s[g] & 63;
        *min = s[g + 4] & 63;
    } else {
        *scale = (s[g + 4] & 15) | (s[g - 4] >> 6) << 4;
        *min = s[g + 4] >> 4 | (s[g] >> 6) << 4;
    }
}

/* f16 d, f16 dmin, 12 bytes of scales, 128 bytes of nibbles. */
void nq_deq_q4_k(float *y, const uint8_t *b) {
    float d = nq_le_f16(b);
    float dmin = nq_le_f16(b + 2);
    for (int g = 0; g < 8; g++) { /* groups of 32 elements */
        int sc = 0;
        int mn = 0;
        scale_min(&sc, &mn, b + 4, g);
        float dl = d * (float)sc;
        float ml = dmin * (float)mn;
        const uint8_t *q = b + 16 + 32 * (g / 2);
        for (int j = 0; j < 32; j++) {
            y[32 * g + j] = dl * (float)(q[j] >> (4 * (g % 2)) & 15) - ml;
        }
    }
}

/* f16 d, f16 dmin, 12 bytes of scales, 32 bytes of fifth bits, nibbles. */
void nq_deq_q5_k(float *y, const uint8_t *b) {
    float d = nq_le_f16(b);
    float dmin = nq_le_f16(b + 2);
    const uint8_t *qh = b + 16;
    for (int g = 0; g < 8; g++) {
        int sc = 0;
        int mn = 0;
        scale_min(&sc, &mn, b + 4, g);
        float dl = d * (float)sc;
        float ml = dmin * (float)mn;
        const uint8_t *q = b + 48 + 32 * (g / 2);
        for (int j = 0; j < 32; j++) {
            int v = (q[j] >> (4 * (g % 2)) & 15) | (qh[j] >> g & 1) << 4;
            y[32 * g + j] = dl * (float)v - ml;
        }
    }
}

/* 128 bytes of low nibbles, 64 bytes of upper bit pairs, 16 signed scales,
 * f16 d. Each half of 128 elements has 64 low and 32 upper bytes. */
void nq_deq_q6_k(float *y, const uint8_t *b) {
    const uint8_t *scales = b + 192;
    float d = nq_le_f16(b + 208);
    for (int g = 0; g < 16; g++) { /* groups of 16 elements */
        float dl = d * (float)(int8_t)scales[g];
        int part = g / 2 % 4; /* which 32 elements of the half */
        const uint8_t *ql = b + 64 * (g / 8) + 32 * (part % 2) + 16 * (g % 2);
        const uint8_t *qh = b + 128 + 32 * (g / 8) + 16 * (g % 2);
        for (int j = 0; j < 16; j++) {
            int v = (ql[j] >> (4 * (part / 2)) & 15) | (qh[j] >> (2 * part) & 3) << 4;
            y[16 * g + j] = dl * (float)(v - 32);
        }
    }
}

/* f32 d, 256 signed bytes, 16 sums (of use to dot products only). */
void nq_deq_q8_k(float *y, const uint8_t *b) {
    float d = nq_le_f32(b);
    for (int j = 0; j < 256; j++) {
        y[j] = d * (float)(int8_t)b[4 + j];
    }
}

/* `digits` base-3 digits of each of `width` bytes, most significant first. A
 * byte holds ceil(value * 256 / 243), so multiplying by a power of three (mod
 * 256) and then by 3 pushes the wanted digit out at the top. */
static float *trits(float *y, const uint8_t *q, int width, int digits, float d) {
    unsigned power = 1;
    for (int k = 0; k < digits; k++) {
        for (int j = 0; j < width; j++) {
            unsigned rest = q[j] * power & 255U;
            *y++ = (float)((int)(rest * 3 >> 8) - 1) * d;
        }
        power *= 3;
    }
    return y;
}

/* 48 bytes of five trits, 4 bytes of four trits, f16 d. */
void nq_deq_tq1_0(float *y, const uint8_t *b) {
    float d = nq_le_f16(b + 52);
    y = trits(y, b, 32, 5, d);
    y = trits(y, b + 32, 16, 5, d);
    (void)trits(y, b + 48, 4, 4, d);
}

/* 64 bytes of four two-bit fields, f16 d; the value is the field minus one. */
void nq_deq_tq2_0(float *y, const uint8_t *b) {
    float d = nq_le_f16(b + 64);
    for (int g = 0; g < 8; g++) { /* groups of 32 elements */
        const uint8_t *q = b + 32 * (g / 4);
        for (int j = 0; j < 32; j++) {
            y[32 * g + j] = (float)((q[j] >> (2 * (g % 4)) & 3) - 1) * d;
        }
    }
}
