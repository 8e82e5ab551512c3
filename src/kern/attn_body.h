/* attn_body.h - the bodies of attn_<isa>.c, over a vector type of W floats that the
 * including file defines.
 * Included more than once: by every variant.
 *
 *   V, W                      the type and its floats
 *   QUERIES, MIX_QUERIES      queries of a register tile, 1 to 4; of a sum of f32 rows,
 *                             which need no registers of their own
 *   V_ZERO() V_SET1(x) V_LOAD(p) V_STORE(p, v) V_ADD V_SUB V_MUL V_DIV
 *   V_FMA(a, b, c)            a * b + c
 *   V_LOAD_SOME(p, n, fill)   p[0..n), the lanes after them from fill; n < W
 *   V_STORE_SOME(p, v, n)     p[0..n) = the first lanes of v
 *   V_MAX(a, b) V_MIN(a, b)   b where either is NaN
 *   V_F16(p) V_I8(p)          W stored numbers as floats
 *   V_TO_F16(p, v)            the inverse, to nearest even
 *   V_SUMS4(p, a, b, c, d)    p[0..4) = the sums over the lanes of each
 *   V_POW2(v)                 2^n of v = n + 1.5 * 2^23, -126 <= n <= 127
 *   V_KEEP(x, low, v)         v, but 0 where x < low
 */
#ifndef NQ_KERN_ATTN_BODY_H
#define NQ_KERN_ATTN_BODY_H

#include <string.h>

#include "kern/attn.h"

/* Keys of a register tile, vectors of a row in it, keys whose rows stay in the first
 * cache while all queries meet them. */
#define KEYS    4U
#define VECTORS 4U
#define NEAR    64U
/* With few queries memory is the limit: then rows are asked for so many keys early. */
#define REACH         32U
#define REACH_QUERIES 2U

#define INLINE static inline __attribute__((always_inline))
#if defined(__clang__)
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 8")
#endif

/* Element i of rows of a type known when compiling. */
INLINE V body_row(const void *rows, size_t i, nq_attn_type type) {
    if (type == NQ_ATTN_F16) {
        return V_F16((const uint16_t *)rows + i);
    }
    return type == NQ_ATTN_I8 ? V_I8((const int8_t *)rows + i) : V_LOAD((const float *)rows + i);
}

INLINE size_t body_size(nq_attn_type type) {
    return type == NQ_ATTN_F32 ? sizeof(float) : type == NQ_ATTN_F16 ? sizeof(uint16_t) : 1;
}

/* Asks for n elements from element i on, which may lie beyond the rows: a request
 * never fails. */
INLINE void body_reach(const void *rows, size_t i, size_t n, nq_attn_type type) {
    uintptr_t from = (uintptr_t)rows + i * body_size(type);
    for (size_t at = 0; at < n * body_size(type); at += 64) {
        __builtin_prefetch((const void *)(from + at));
    }
}

/* ---- scores ------------------------------------------------------------------- */

/* nq queries, nk keys (1 or KEYS). */
INLINE void body_scores_tile(const nq_attn_tile *t, uint32_t i, uint32_t j, unsigned nq,
                             unsigned nk, nq_attn_type type) {
    V acc[4][KEYS];
    size_t row = (size_t)j * t->pitch;
    const float *q = t->x + i * t->x_stride;
    UNROLL for (unsigned a = 0; a < nq; a++) {
        UNROLL for (unsigned b = 0; b < nk; b++) { acc[a][b] = V_ZERO(); }
    }
    for (uint32_t c = 0; c < t->pitch; c += W) {
        V k[KEYS];
        UNROLL for (unsigned b = 0; b < nk; b++) {
            k[b] = body_row(t->rows, row + (size_t)b * t->pitch + c, type);
        }
        UNROLL for (unsigned a = 0; a < nq; a++) {
            V x = V_LOAD(q + a * t->x_stride + c);
            UNROLL for (unsigned b = 0; b < nk; b++) { acc[a][b] = V_FMA(x, k[b], acc[a][b]); }
        }
    }
    float *out = t->scores + i * t->scores_stride + j;
    UNROLL for (unsigned a = 0; a < nq; a++) {
        if (nk == KEYS) {
            V_SUMS4(out + a * t->scores_stride, acc[a][0], acc[a][1], acc[a][2], acc[a][3]);
        } else {
            float sums[4];
            V_SUMS4(sums, acc[a][0], acc[a][0], acc[a][0], acc[a][0]);
            out[a * t->scores_stride] = sums[0];
        }
    }
}

INLINE void body_scores_keys(const nq_attn_tile *t, uint32_t i, uint32_t from, uint32_t to,
                             unsigned nq, nq_attn_type type) {
    uint32_t j = from;
    for (; j + KEYS <= to; j += KEYS) {
        if (t->n <= REACH_QUERIES) {
            body_reach(t->rows, (size_t)(j + REACH) * t->pitch, (size_t)KEYS * t->pitch, type);
        }
        body_scores_tile(t, i, j, nq, KEYS, type);
    }
    for (; j < to; j++) {
        body_scores_tile(t, i, j, nq, 1, type);
    }
}

/* Asks for the first of the rows needed next: the processor's own look-ahead begins
 * anew in every one of the many short streams of a cache. */
INLINE void body_fetch(const nq_attn_tile *t, nq_attn_type type) {
    size_t length = (t->keys < NEAR ? t->keys : NEAR) * t->pitch * body_size(type);
    for (size_t i = 0; i < length; i += 64) {
        __builtin_prefetch((const char *)t->ahead + i, 0, 2);
    }
}

INLINE void body_scores(const nq_attn_tile *t, nq_attn_type type) {
    if (t->ahead != NULL) {
        body_fetch(t, type);
    }
    for (uint32_t from = 0; from < t->keys; from += NEAR) {
        uint32_t to = t->keys - from < NEAR ? t->keys : from + NEAR;
        uint32_t i = 0;
        for (; i + QUERIES <= t->n; i += QUERIES) {
            body_scores_keys(t, i, from, to, QUERIES, type);
        }
        switch (t->n - i) {
        case 3: body_scores_keys(t, i, from, to, 3, type); break;
        case 2: body_scores_keys(t, i, from, to, 2, type); break;
        case 1: body_scores_keys(t, i, from, to, 1, type); break;
        default: break;
        }
    }
}

/* ---- weighted sums -------------------------------------------------------------- */

/* nq queries, nv vectors of the rows from element c on, keys from..to-1. */
INLINE void body_mix_tile(const nq_attn_tile *t, uint32_t i, uint32_t c, uint32_t from, uint32_t to,
                          unsigned nq, unsigned nv, nq_attn_type type) {
    V acc[4][VECTORS];
    const float *w = t->scores + i * t->scores_stride;
    float *out = t->x + i * t->x_stride + c;
    bool fresh = t->fresh && from == 0;
    UNROLL for (unsigned a = 0; a < nq; a++) {
        UNROLL for (unsigned b = 0; b < nv; b++) {
            acc[a][b] = fresh ? V_ZERO() : V_LOAD(out + a * t->x_stride + (size_t)b * W);
        }
    }
    for (uint32_t j = from; j < to; j++) {
        size_t row = (size_t)j * t->pitch + c;
        V v[VECTORS];
        if (t->n <= REACH_QUERIES) {
            body_reach(t->rows, row + (size_t)REACH * t->pitch, (size_t)nv * W, type);
        }
        UNROLL for (unsigned b = 0; b < nv; b++) {
            v[b] = body_row(t->rows, row + (size_t)b * W, type);
        }
        UNROLL for (unsigned a = 0; a < nq; a++) {
            V x = V_SET1(w[a * t->scores_stride + j]);
            UNROLL for (unsigned b = 0; b < nv; b++) { acc[a][b] = V_FMA(x, v[b], acc[a][b]); }
        }
    }
    UNROLL for (unsigned a = 0; a < nq; a++) {
        UNROLL for (unsigned b = 0; b < nv; b++) {
            V_STORE(out + a * t->x_stride + (size_t)b * W, acc[a][b]);
        }
    }
}

INLINE void body_mix_keys(const nq_attn_tile *t, uint32_t i, uint32_t from, uint32_t to,
                          unsigned nq, nq_attn_type type) {
    uint32_t c = 0;
    for (; c + VECTORS * W <= t->pitch; c += VECTORS * W) {
        body_mix_tile(t, i, c, from, to, nq, VECTORS, type);
    }
    for (; c < t->pitch; c += W) {
        body_mix_tile(t, i, c, from, to, nq, 1, type);
    }
}

INLINE void body_mix(const nq_attn_tile *t, nq_attn_type type) {
    const unsigned step = type == NQ_ATTN_F32 ? MIX_QUERIES : QUERIES;
    for (uint32_t from = 0; from < t->keys; from += NEAR) {
        uint32_t to = t->keys - from < NEAR ? t->keys : from + NEAR;
        uint32_t i = 0;
        for (; i + step <= t->n; i += step) {
            body_mix_keys(t, i, from, to, step, type);
        }
        switch (t->n - i) {
        case 3: body_mix_keys(t, i, from, to, 3, type); break;
        case 2: body_mix_keys(t, i, from, to, 2, type); break;
        case 1: body_mix_keys(t, i, from, to, 1, type); break;
        default: break;
        }
    }
}

/* ---- turned keys ---------------------------------------------------------------- */

typedef float body_four __attribute__((vector_size(16)));

/* Four rows of four numbers, from + i * stride, become to + i * NQ_ATTN_PANEL. */
INLINE void body_turn4(float *to, const float *from, size_t stride) {
    body_four r[4];
    UNROLL for (unsigned i = 0; i < 4; i++) { memcpy(&r[i], from + i * stride, sizeof r[i]); }
    body_four a = __builtin_shufflevector(r[0], r[1], 0, 4, 1, 5);
    body_four b = __builtin_shufflevector(r[2], r[3], 0, 4, 1, 5);
    body_four c = __builtin_shufflevector(r[0], r[1], 2, 6, 3, 7);
    body_four d = __builtin_shufflevector(r[2], r[3], 2, 6, 3, 7);
    r[0] = __builtin_shufflevector(a, b, 0, 1, 4, 5);
    r[1] = __builtin_shufflevector(a, b, 2, 3, 6, 7);
    r[2] = __builtin_shufflevector(c, d, 0, 1, 4, 5);
    r[3] = __builtin_shufflevector(c, d, 2, 3, 6, 7);
    UNROLL for (unsigned i = 0; i < 4; i++) {
        memcpy(to + (size_t)i * NQ_ATTN_PANEL, &r[i], sizeof r[i]);
    }
}

INLINE void body_turn(float *panel, const void *rows, const float *scales, uint32_t keys,
                      uint32_t pitch, nq_attn_type type) {
    for (uint32_t j = 0; j < NQ_ATTN_PANEL; j += KEYS) {
        for (uint32_t c = 0; c < pitch; c += NQ_ATTN_ALIGN) {
            float four[KEYS * NQ_ATTN_ALIGN] = {0};
            for (uint32_t i = 0; i < KEYS && j + i < keys; i++) {
                V scale = V_SET1(scales == NULL ? 1.0F : scales[j + i]);
                for (uint32_t k = 0; k < NQ_ATTN_ALIGN; k += W) {
                    V x = body_row(rows, (size_t)(j + i) * pitch + c + k, type);
                    V_STORE(four + i * NQ_ATTN_ALIGN + k, V_MUL(x, scale));
                }
            }
            for (uint32_t k = 0; k < NQ_ATTN_ALIGN; k += 4) {
                body_turn4(panel + (size_t)(c + k) * NQ_ATTN_PANEL + j, four + k, NQ_ATTN_ALIGN);
            }
        }
    }
}

/* ---- by type -------------------------------------------------------------------- */

#define BY_TYPE(name, type)                                                                        \
    static void scores_##name(const nq_attn_tile *t) { body_scores(t, type); }                     \
    static void mix_##name(const nq_attn_tile *t) { body_mix(t, type); }                           \
    static void turn_##name(float *panel, const void *rows, const float *scales, uint32_t keys,    \
                            uint32_t pitch) {                                                      \
        body_turn(panel, rows, scales, keys, pitch, type);                                         \
    }
BY_TYPE(f32, NQ_ATTN_F32)
BY_TYPE(f16, NQ_ATTN_F16)
BY_TYPE(i8, NQ_ATTN_I8)

/* ---- rows of scores ------------------------------------------------------------- */

static float row_max(const float *x, uint32_t n) {
    float lane[W];
    float max = x[0];
    uint32_t i = 0;
    V most = V_SET1(max);
    for (; i + W <= n; i += W) {
        most = V_MAX(V_LOAD(x + i), most);
    }
    V_STORE(lane, most);
    for (; i < n; i++) {
        max = x[i] > max ? x[i] : max;
    }
    for (unsigned l = 0; l < W; l++) {
        max = lane[l] > max ? lane[l] : max;
    }
    return max;
}

/* 2^n * p(r), |r| <= ln2/2, p the Taylor polynomial of degree 7, whose error there
 * is below a float's. Adding 1.5 * 2^23 rounds to an integer; ln2 is in two parts,
 * so that r is exact. */
INLINE V body_exp(V x) {
    const V magic = V_SET1(12582912.0F);
    V c = V_MIN(V_SET1(88.0F), V_MAX(V_SET1(-87.0F), x));
    V shifted = V_FMA(c, V_SET1(1.44269504F), magic);
    V n = V_SUB(shifted, magic);
    V r = V_FMA(n, V_SET1(-0.693359375F), c);
    r = V_FMA(n, V_SET1(2.12194440e-4F), r);
    V p = V_SET1(1.0F / 5040.0F);
    p = V_FMA(p, r, V_SET1(1.0F / 720.0F));
    p = V_FMA(p, r, V_SET1(1.0F / 120.0F));
    p = V_FMA(p, r, V_SET1(1.0F / 24.0F));
    p = V_FMA(p, r, V_SET1(1.0F / 6.0F));
    p = V_FMA(p, r, V_SET1(0.5F));
    p = V_FMA(p, r, V_SET1(1.0F));
    p = V_FMA(p, r, V_SET1(1.0F));
    return V_KEEP(x, V_SET1(-87.0F), V_MUL(p, V_POW2(shifted)));
}

static float exp_sum(float *x, uint32_t n, float shift) {
    V sum = V_ZERO();
    uint32_t i = 0;
    for (; i + W <= n; i += W) {
        V e = body_exp(V_SUB(V_LOAD(x + i), V_SET1(shift)));
        V_STORE(x + i, e);
        sum = V_ADD(sum, e);
    }
    if (i < n) { /* the padding gives 0 */
        V e = body_exp(V_SUB(V_LOAD_SOME(x + i, n - i, V_SET1(-1e30F)), V_SET1(shift)));
        V_STORE_SOME(x + i, e, n - i);
        sum = V_ADD(sum, e);
    }
    float sums[4];
    V_SUMS4(sums, sum, sum, sum, sum);
    return sums[0];
}

/* tanh t = 1 - 2 / (exp(2t) + 1). */
INLINE V body_softcap(V x, V cap, V twice) {
    V e = V_ADD(body_exp(V_MUL(x, twice)), V_SET1(1.0F));
    return V_SUB(cap, V_DIV(V_ADD(cap, cap), e));
}

static void softcap(float *x, uint32_t n, float cap) {
    V most = V_SET1(cap);
    V twice = V_SET1(2.0F / cap);
    uint32_t i = 0;
    for (; i + W <= n; i += W) {
        V_STORE(x + i, body_softcap(V_LOAD(x + i), most, twice));
    }
    if (i < n) {
        V v = V_LOAD_SOME(x + i, n - i, V_ZERO());
        V_STORE_SOME(x + i, body_softcap(v, most, twice), n - i);
    }
}

static void scale_by(float *restrict x, const float *restrict y, uint32_t n) {
    for (uint32_t i = 0; i < n; i++) {
        x[i] *= y[i];
    }
}

/* ---- storage -------------------------------------------------------------------- */

static void to_f16(uint16_t *dst, const float *src, uint32_t n) {
    for (uint32_t i = 0; i < n; i += W) {
        V x = V_MIN(V_SET1(65504.0F), V_LOAD(src + i));
        V_TO_F16(dst + i, V_MAX(V_SET1(-65504.0F), x));
    }
}

/* The same bytes from every variant: one rounding per operation. */
static float to_i8(int8_t *dst, const float *src, uint32_t n) {
    float most = 0;
    for (uint32_t i = 0; i < n; i++) {
        float size = __builtin_fabsf(src[i]);
        most = size > most ? size : most;
    }
    float inverse = most > 0 ? 127.0F / most : 0.0F;
    for (uint32_t i = 0; i < n; i++) {
        float shifted = src[i] * inverse + 12582912.0F; /* its low bits are the integer */
        uint32_t bits;
        memcpy(&bits, &shifted, sizeof bits);
        dst[i] = (int8_t)(uint8_t)bits;
    }
    return most / 127.0F;
}

/* clang-format off */
#define ATTN_TABLE(label)                                                                          \
    {.name = label,                                                                                \
     .scores = {scores_f32, scores_f16, scores_i8},                                                \
     .mix = {mix_f32, mix_f16, mix_i8},                                                            \
     .turn = {turn_f32, turn_f16, turn_i8},                                                        \
     .max = row_max,                                                                               \
     .exp_sum = exp_sum,                                                                           \
     .softcap = softcap,                                                                           \
     .scale_by = scale_by,                                                                         \
     .to_f16 = to_f16,                                                                             \
     .to_i8 = to_i8}
/* clang-format on */

#endif
