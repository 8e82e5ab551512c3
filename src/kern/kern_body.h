/* kern_body.h - bodies shared by the variants: plain C that the compiler
 * vectorises under each file's own flags. Included by kern_<isa>.c only. */
#ifndef NQ_KERN_KERN_BODY_H
#define NQ_KERN_KERN_BODY_H

#include <float.h>

#include "kern/kern.h"

static inline void body_trellis_best(float *best, int32_t *arg, const float *in, unsigned stride,
                                     const float *pair, unsigned k) {
    for (unsigned b = 0; b < k; b++) {
        best[b] = in[0] + pair[b];
        arg[b] = 0;
    }
    for (unsigned lo = 1; lo < k; lo++) {
        float c = in[(size_t)lo * stride];
        const float *row = pair + (size_t)lo * k;
        for (unsigned b = 0; b < k; b++) {
            float t = c + row[b];
            int less = t < best[b];
            best[b] = less ? t : best[b];
            arg[b] = less ? (int32_t)lo : arg[b];
        }
    }
}

static inline float body_trellis_step(float *out, uint8_t *back, const float *in, const float *pair,
                                      const float *p0, unsigned nhi, unsigned k) {
    float smallest = FLT_MAX;
    for (unsigned hi = 0; hi < nhi; hi++) {
        float best[16];
        int32_t arg[16];
        body_trellis_best(best, arg, in + hi, nhi, pair + (size_t)hi * k * k, k);
        for (unsigned b = 0; b < k; b++) {
            float c = best[b] + p0[b];
            out[(size_t)hi * k + b] = c;
            back[(size_t)hi * k + b] = (uint8_t)arg[b];
            smallest = c < smallest ? c : smallest;
        }
    }
    return smallest;
}

static inline void body_nearest_pair(unsigned *best, const float *pa, const float *pb,
                                     const float *pair, unsigned ka, unsigned kb) {
    float smallest = FLT_MAX;
    best[0] = 0;
    best[1] = 0;
    for (unsigned a = 0; a < ka; a++) {
        const float *row = pair + (size_t)a * kb;
        float m = FLT_MAX;
        for (unsigned b = 0; b < kb; b++) {
            float t = pa[a] + row[b] + pb[b];
            m = t < m ? t : m;
        }
        if (m < smallest) {
            smallest = m;
            best[0] = a;
        }
    }
    const float *row = pair + (size_t)best[0] * kb;
    for (unsigned b = 0; b < kb; b++) {
        if (pa[best[0]] + row[b] + pb[b] == smallest) {
            best[1] = b;
            return;
        }
    }
}

static inline void body_hadamard(float *x, uint32_t n, float scale) {
    for (uint32_t h = 1; h < n; h *= 2) {
        for (uint32_t i = 0; i < n; i += 2 * h) {
            float *lo = x + i;
            float *hi = x + i + h;
            for (uint32_t j = 0; j < h; j++) {
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

static inline void body_unpack4(uint8_t *dst, const uint8_t *src, uint64_t units) {
    for (uint64_t u = 0; u < units; u++) {
        for (unsigned t = 0; t < 16; t++) {
            uint8_t v = src[u * 16 + t];
            dst[u * 32 + t] = v & 15U;
            dst[u * 32 + 16 + t] = (uint8_t)(v >> 4);
        }
    }
}

static inline void body_lut16(int8_t *dst, const uint8_t *symbols, const int8_t *table, uint64_t n,
                              int add) {
    for (uint64_t i = 0; i < n; i++) {
        int8_t v = table[symbols[i]];
        dst[i] = (int8_t)(add ? dst[i] + v : v);
    }
}

/* Sixteen partial sums, added pairwise: an order SIMD registers can follow. */
static inline float body_reduce16(const float *acc) {
    float s8[8];
    for (int i = 0; i < 8; i++) {
        s8[i] = acc[i] + acc[i + 8];
    }
    for (int i = 0; i < 4; i++) {
        s8[i] += s8[i + 4];
    }
    return (s8[0] + s8[2]) + (s8[1] + s8[3]);
}

static inline float body_dot_i8(const int8_t *a, const float *x, uint64_t n) {
    float acc[16] = {0};
    uint64_t i = 0;
    for (; i + 16 <= n; i += 16) {
        for (int l = 0; l < 16; l++) {
            acc[l] += (float)a[i + (uint64_t)l] * x[i + (uint64_t)l];
        }
    }
    float tail = 0;
    for (; i < n; i++) {
        tail += (float)a[i] * x[i];
    }
    return body_reduce16(acc) + tail;
}

static inline float body_dot_f32(const float *a, const float *x, uint64_t n) {
    float acc[16] = {0};
    uint64_t i = 0;
    for (; i + 16 <= n; i += 16) {
        for (int l = 0; l < 16; l++) {
            acc[l] += a[i + (uint64_t)l] * x[i + (uint64_t)l];
        }
    }
    float tail = 0;
    for (; i < n; i++) {
        tail += a[i] * x[i];
    }
    return body_reduce16(acc) + tail;
}

#endif
