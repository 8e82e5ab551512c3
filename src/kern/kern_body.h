/* kern_body.h - bodies shared by the variants: plain C that the compiler
 * vectorises under each file's own flags. Included by kern_<isa>.c only. */
#ifndef NQ_KERN_KERN_BODY_H
#define NQ_KERN_KERN_BODY_H

#include <float.h>

#include "kern/kern.h"

/* Costs before the first row, (newest, older): only a history of symbol 0 exists. */
static inline void body_path_start(float *cost, unsigned lanes, unsigned levels) {
    unsigned states = levels == 3 ? lanes * lanes : lanes;
    for (unsigned i = 0; i < states; i++) {
        cost[i] = i == 0 ? 0.0F : NQ_PATH_FAR;
    }
}

/* The cheapest state after the last row; hi is 0 where only b is remembered. */
static inline void body_path_end(unsigned *hi, unsigned *b, const float *cost, unsigned lanes,
                                 unsigned levels) {
    *hi = 0;
    *b = 0;
    for (unsigned older = 0; older < (levels == 3 ? lanes : 1); older++) {
        for (unsigned newest = 0; newest < lanes; newest++) {
            size_t stride = levels == 3 ? lanes : 1;
            if (cost[newest * stride + older] < cost[*b * stride + *hi]) {
                *hi = older;
                *b = newest;
            }
        }
    }
}

static inline void body_path_products(float *p, const float *x, const float *dual, unsigned d,
                                      unsigned lanes) {
    for (unsigned s = 0; s < lanes; s++) {
        p[s] = x[0] * dual[s];
    }
    for (unsigned c = 1; c < d; c++) {
        for (unsigned s = 0; s < lanes; s++) {
            p[s] += x[c] * dual[(size_t)c * lanes + s];
        }
    }
}

/* The same with the smallest at 0. */
static inline void body_path_from_zero(float *p, const float *x, const float *dual, unsigned d,
                                       unsigned lanes) {
    body_path_products(p, x, dual, d, lanes);
    float least = p[0];
    for (unsigned s = 1; s < lanes; s++) {
        least = p[s] < least ? p[s] : least;
    }
    for (unsigned s = 0; s < lanes; s++) {
        p[s] -= least;
    }
}

/* in of one row: (hi, lo), or (lo) of two levels; the order the costs have. */
static inline void body_path_in(float *in, const float *cost, float least, float ratio,
                                const float *x, const nq_path *path, unsigned lanes) {
    float p1[16];
    float p2[16];
    const float *dual = path->dual + (size_t)path->d * lanes;
    body_path_from_zero(p1, x, dual, path->d, lanes);
    if (path->levels == 2) {
        for (unsigned lo = 0; lo < lanes; lo++) {
            in[lo] = (cost[lo] - least) * ratio + p1[lo];
        }
        return;
    }
    body_path_from_zero(p2, x, dual + (size_t)path->d * lanes, path->d, lanes);
    for (unsigned hi = 0; hi < lanes; hi++) {
        for (unsigned lo = 0; lo < lanes; lo++) {
            size_t at = (size_t)hi * lanes + lo;
            in[at] = ((cost[at] - least) * ratio + p2[lo]) + p1[hi];
        }
    }
}

/* out (n, n) = in transposed. */
static inline void body_path_turn(float *out, const float *in, unsigned n) {
    for (unsigned i = 0; i < n; i++) {
        for (unsigned j = 0; j < n; j++) {
            out[(size_t)j * n + i] = in[(size_t)i * n + j];
        }
    }
}

/* best[i] = min over lo of in[lo * lanes + i] + pair[lo * lanes + i]; with spread
 * of in[lo] + pair[lo * lanes + i]. */
static inline void body_path_least(float *restrict best, const float *restrict in,
                                   const float *restrict pair, unsigned lanes, int spread) {
    for (unsigned i = 0; i < lanes; i++) {
        best[i] = in[spread ? 0 : i] + pair[i];
    }
    for (unsigned lo = 1; lo < lanes; lo++) {
        const float *row = pair + (size_t)lo * lanes;
        if (spread) {
            float c = in[lo];
            for (unsigned i = 0; i < lanes; i++) {
                float t = c + row[i];
                best[i] = t < best[i] ? t : best[i];
            }
        } else {
            const float *from = in + (size_t)lo * lanes;
            for (unsigned i = 0; i < lanes; i++) {
                float t = from[i] + row[i];
                best[i] = t < best[i] ? t : best[i];
            }
        }
    }
}

/* One row of costs from in; returns the smallest. */
static inline float body_path_row(float *cost, const float *in, const float *x, const nq_path *path,
                                  unsigned lanes) {
    float turned[256];
    float p0[16];
    float best[16];
    float least = FLT_MAX;
    body_path_products(p0, x, path->dual, path->d, lanes);
    if (path->levels == 2) {
        body_path_least(best, in, path->forward, lanes, 1);
        for (unsigned b = 0; b < lanes; b++) {
            cost[b] = best[b] + p0[b];
            least = cost[b] < least ? cost[b] : least;
        }
        return least;
    }
    body_path_turn(turned, in, lanes);
    for (unsigned b = 0; b < lanes; b++) {
        const float *pair = path->forward + (size_t)b * lanes * lanes;
        body_path_least(best, turned, pair, lanes, 0);
        for (unsigned hi = 0; hi < lanes; hi++) {
            float c = best[hi] + p0[b];
            cost[(size_t)b * lanes + hi] = c;
            least = c < least ? c : least;
        }
    }
    return least;
}

static inline unsigned body_path_first(const float *in, const float *pair, unsigned lanes) {
    unsigned first = 0;
    for (unsigned lo = 1; lo < lanes; lo++) {
        first = in[lo] + pair[lo] < in[first] + pair[first] ? lo : first;
    }
    return first;
}

static inline void body_path_chain(const nq_path *path, const nq_path_chain *c, uint64_t len) {
    unsigned lanes = path->lanes;
    float cost[256];
    float least = 0;
    unsigned hi;
    unsigned b;
    size_t states = path->levels == 3 ? (size_t)lanes * lanes : lanes;
    body_path_start(cost, lanes, path->levels);
    for (uint64_t t = 0; t < len; t++) {
        const float *x = c->x + t * path->d;
        float ratio = c->ratio == NULL || t == 0 ? 1.0F : c->ratio[t];
        body_path_in(c->history + t * states, cost, least, ratio, x, path, lanes);
        least = body_path_row(cost, c->history + t * states, x, path, lanes);
    }
    body_path_end(&hi, &b, cost, lanes, path->levels);
    for (uint64_t t = len; t-- > 0;) {
        const float *pair = path->back + ((size_t)hi * lanes + b) * lanes;
        unsigned lo = body_path_first(c->history + t * states + (size_t)hi * lanes, pair, lanes);
        c->symbols[t] = (uint8_t)b;
        b = path->levels == 3 ? hi : lo;
        hi = path->levels == 3 ? lo : 0;
    }
}

static inline void body_shortest_path(const nq_path *path, const nq_path_chain *chains, unsigned n,
                                      uint64_t len) {
    for (unsigned c = 0; c < n; c++) {
        body_path_chain(path, chains + c, len);
    }
}

/* Offers column b, whose smallest cost is least, as the nearest pair. */
static inline void body_nearest_offer(unsigned *best, unsigned b, float least, const float *pa,
                                      float pb, const float *pair, unsigned ka, unsigned kb) {
    for (unsigned a = 0; a < ka && a < best[0]; a++) {
        if (pa[a] + pair[(size_t)a * kb + b] + pb == least) {
            best[0] = a;
            best[1] = b;
        }
    }
}

/* The smallest cost of a column. */
static inline float body_nearest_column(const float *pa, float pb, const float *pair, unsigned ka,
                                        unsigned kb) {
    float least = pa[0] + pair[0] + pb;
    for (unsigned a = 1; a < ka; a++) {
        float t = pa[a] + pair[(size_t)a * kb] + pb;
        least = t < least ? t : least;
    }
    return least;
}

static inline void body_nearest_pair(unsigned *best, const float *pa, const float *pb,
                                     const float *pair, unsigned ka, unsigned kb) {
    float cost[256];
    float least = FLT_MAX;
    for (unsigned b = 0; b < kb; b++) {
        cost[b] = body_nearest_column(pa, pb[b], pair + b, ka, kb);
        least = cost[b] < least ? cost[b] : least;
    }
    best[0] = ka;
    best[1] = 0;
    for (unsigned b = 0; b < kb; b++) {
        if (cost[b] == least) {
            body_nearest_offer(best, b, least, pa, pb[b], pair, ka, kb);
        }
    }
    best[0] = best[0] < ka ? best[0] : 0; /* nothing equals a NaN */
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

static inline void body_unpack(uint8_t *dst, const uint8_t *src, uint64_t units,
                               uint64_t unit_bytes, unsigned width, unsigned shift) {
    unsigned n = 4 * width;
    unsigned mask = (1U << width) - 1U;
    for (uint64_t u = 0; u < units; u++, src += unit_bytes, dst += 32) {
        for (unsigned i = 0; i < 32; i++) {
            unsigned v = ((unsigned)src[i % n] >> (i / n * width) & mask) << shift;
            dst[i] = (uint8_t)(shift > 0 ? dst[i] | v : v);
        }
    }
}

/* The `unpack` of a table, from its unpack_width(), which is inlined for each width. */
#define UNPACK                                                                                     \
    static void unpack(uint8_t *dst, const uint8_t *src, uint64_t units, uint64_t unit_bytes,      \
                       unsigned width, unsigned shift) {                                           \
        switch (width) {                                                                           \
        case 8: unpack_width(dst, src, units, unit_bytes, 8, 0); break;                            \
        case 4: unpack_width(dst, src, units, unit_bytes, 4, shift); break;                        \
        case 2: unpack_width(dst, src, units, unit_bytes, 2, shift); break;                        \
        default: unpack_width(dst, src, units, unit_bytes, 1, shift); break;                       \
        }                                                                                          \
    }

static inline void body_lut(int8_t *dst, const uint8_t *symbols, const int8_t *table, unsigned k,
                            uint64_t n, int add) {
    (void)k;
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
