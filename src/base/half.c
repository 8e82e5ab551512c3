/* half.c - see half.h. */
#include "base/half.h"

#include <math.h>
#include <string.h>

static uint32_t bits_of(float f) {
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

static float float_of(uint32_t u) {
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

float nq_f16_to_f32(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000U) << 16;
    uint32_t exp = (h >> 10) & 0x1FU;
    uint32_t man = h & 0x3FFU;
    if (exp == 31) {
        return float_of(sign | 0x7F800000U | man << 13);
    }
    if (exp == 0) {
        /* Subnormal: man * 2^-24 is exact in binary32. */
        float v = (float)man * 0x1p-24F;
        return float_of(bits_of(v) | sign);
    }
    return float_of(sign | (exp + 112) << 23 | man << 13);
}

uint16_t nq_f32_to_f16(float f) {
    uint32_t u = bits_of(f);
    uint16_t sign = (uint16_t)((u >> 16) & 0x8000U);
    uint32_t mag = u & 0x7FFFFFFFU;
    if (mag > 0x7F800000U) {
        return (uint16_t)(sign | 0x7E00U);
    }
    if (mag >= 0x477FF000U) { /* rounds to 2^16 or more */
        return (uint16_t)(sign | 0x7C00U);
    }
    if (mag < 0x38800000U) {                    /* below 2^-14: subnormal, multiples of 2^-24 */
        float scaled = float_of(mag) * 0x1p24F; /* exact */
        uint32_t q = (uint32_t)scaled;
        float rest = scaled - (float)q;
        if (rest > 0.5F || (rest == 0.5F && (q & 1U) != 0)) {
            q++;
        }
        return (uint16_t)(sign | q);
    }
    uint32_t rounded = mag + 0xFFFU + ((mag >> 13) & 1U);
    return (uint16_t)(sign | ((rounded - 0x38000000U) >> 13));
}

float nq_bf16_to_f32(uint16_t h) { return float_of((uint32_t)h << 16); }

uint16_t nq_f32_to_bf16(float f) {
    uint32_t u = bits_of(f);
    if ((u & 0x7FFFFFFFU) > 0x7F800000U) {
        return (uint16_t)((u >> 16) | 0x40U); /* keep NaN quiet and not infinite */
    }
    return (uint16_t)((u + 0x7FFFU + ((u >> 16) & 1U)) >> 16);
}

float nq_f8_e4m3_to_f32(uint8_t b) {
    uint32_t exp = (b >> 3) & 0xFU;
    uint32_t man = b & 7U;
    float v;
    if (exp == 15 && man == 7) {
        v = NAN;
    } else if (exp == 0) {
        v = (float)man * 0x1p-9F;
    } else {
        v = float_of((exp + 120) << 23 | man << 20);
    }
    return (b & 0x80U) != 0 ? -v : v;
}

float nq_f8_e5m2_to_f32(uint8_t b) { return nq_f16_to_f32((uint16_t)((uint16_t)b << 8)); }
