/* gemm_avx512bf16.c - see gemm.h. A panel of A and one of B make 8 x 48 sums in registers:
 * for each pair of k, three vectors of B are multiplied by eight pairs of A. */
#if defined(__x86_64__)

#include <immintrin.h>
#include <string.h>

#include "kern/gemm.h"

#define MR NQ_GEMM16_A
#define NR NQ_GEMM16_B

static inline uint64_t smaller(uint64_t x, uint64_t y) { return x < y ? x : y; }

/* The first count of sixteen. */
static inline __mmask16 first(uint64_t count) {
    return (__mmask16)(0xffffU >> (16 - smaller(count, 16)));
}

/* ---- packing --------------------------------------------------------------------- */

/* Pairs of lines k0 and k1 (NULL: zeros) at 16 places: 16 numbers of each, count used. */
static inline __m512i pair_lines(const float *k0, const float *k1, uint64_t count) {
    __m512 low = _mm512_maskz_loadu_ps(first(count), k0);
    __m512 high = k1 != NULL ? _mm512_maskz_loadu_ps(first(count), k1) : _mm512_setzero_ps();
    __m256i l = (__m256i)_mm512_cvtneps_pbh(low);
    __m256i h = (__m256i)_mm512_cvtneps_pbh(high);
    return _mm512_or_si512(_mm512_cvtepu16_epi32(l),
                           _mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}

/* Pair p of lines [line, line + 16): of one panel of B, or of two of A. */
static inline void store(const nq_gemm16_lines *l, uint64_t line, uint64_t p, __m512i v) {
    if (l->b) {
        uint32_t *to = l->to + line / NR * NR * l->pairs + p * NR + line % NR;
        _mm512_storeu_si512(to, v);
        return;
    }
    uint32_t *to = l->to + line * l->pairs + p * MR;
    _mm256_storeu_si256((__m256i *)(void *)to, _mm512_castsi512_si256(v));
    _mm256_storeu_si256((__m256i *)(void *)(to + MR * l->pairs), _mm512_extracti64x4_epi64(v, 1));
}

/* Lines that are written: whole panels of B, pairs of panels of A. */
static inline uint64_t padded(const nq_gemm16_lines *l) {
    uint64_t unit = l->b ? NR : 2 * MR;
    return (l->count + unit - 1) / unit * unit;
}

static void pack_across(const nq_gemm16_lines *l) {
    uint64_t end = padded(l);
    for (uint64_t i = 0; i < l->k; i += 2) {
        const float *k0 = l->x + i * l->ld;
        for (uint64_t at = 0; at < end; at += 16) {
            uint64_t left = at < l->count ? l->count - at : 0;
            uint64_t from = left > 0 ? at : 0;
            const float *k1 = i + 1 < l->k ? k0 + l->ld + from : NULL;
            store(l, at, i / 2, pair_lines(k0 + from, k1, left));
        }
    }
}

/* 16 x 16 numbers of 32 bits. */
static inline void transpose(__m512i r[16]) {
    __m512i t[16];
#pragma GCC unroll 8
    for (unsigned i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
#pragma GCC unroll 4
    for (unsigned i = 0; i < 16; i += 4) {
        r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    /* Lane l of r[4 q + c]: column 4 l + c of rows 4 q to 4 q + 3. */
#pragma GCC unroll 4
    for (unsigned c = 0; c < 4; c++) {
        __m512i x = _mm512_shuffle_i32x4(r[c], r[4 + c], 0x88);
        __m512i y = _mm512_shuffle_i32x4(r[8 + c], r[12 + c], 0x88);
        __m512i u = _mm512_shuffle_i32x4(r[c], r[4 + c], 0xdd);
        __m512i v = _mm512_shuffle_i32x4(r[8 + c], r[12 + c], 0xdd);
        t[c] = _mm512_shuffle_i32x4(x, y, 0x88);
        t[4 + c] = _mm512_shuffle_i32x4(u, v, 0x88);
        t[8 + c] = _mm512_shuffle_i32x4(x, y, 0xdd);
        t[12 + c] = _mm512_shuffle_i32x4(u, v, 0xdd);
    }
    memcpy(r, t, sizeof t);
}

/* Sixteen pairs of a line: n <= 32 numbers of it are there. */
static inline __m512i pair_line(const float *x, uint64_t n) {
    if (n >= 32) {
        return (__m512i)_mm512_cvtne2ps_pbh(_mm512_loadu_ps(x + 16), _mm512_loadu_ps(x));
    }
    __m512 v0 = _mm512_maskz_loadu_ps(first(n), x);
    __m512 v1 = n > 16 ? _mm512_maskz_loadu_ps(first(n - 16), x + 16) : _mm512_setzero_ps();
    return (__m512i)_mm512_cvtne2ps_pbh(v1, v0);
}

static void pack_along(const nq_gemm16_lines *l) {
    uint64_t end = padded(l);
    for (uint64_t line = 0; line < end; line += 16) {
        uint64_t lines = l->count > line ? l->count - line : 0;
        for (uint64_t i = 0; i < l->k; i += 32) {
            __m512i r[16];
            uint64_t n = smaller(l->k - i, 32);
#pragma GCC unroll 16
            for (uint64_t j = 0; j < 16; j++) {
                r[j] = j < lines ? pair_line(l->x + (line + j) * l->ld + i, n)
                                 : _mm512_setzero_si512();
            }
            transpose(r);
            for (uint64_t p = 0; p < (n + 1) / 2; p++) {
                store(l, line, i / 2 + p, r[p]);
            }
        }
    }
}

static void pack(const nq_gemm16_lines *l) {
    if (l->along) {
        pack_along(l);
    } else {
        pack_across(l);
    }
}

/* ---- products ---------------------------------------------------------------------- */

static inline void put(float *c, __m512 v, uint64_t count, bool add) {
    if (add) {
        v = _mm512_add_ps(v, _mm512_maskz_loadu_ps(first(count), c));
    }
    _mm512_mask_storeu_ps(c, first(count), v);
}

/* One panel of each: rows x cols of C are there. */
static void panels(float *c, uint64_t ldc, const uint32_t (*a)[MR], const uint32_t (*b)[NR],
                   uint64_t pairs, uint64_t rows, uint64_t cols, bool add) {
    __m512 sum[MR][3];
    for (unsigned i = 0; i < MR; i++) {
        for (unsigned j = 0; j < 3; j++) {
            sum[i][j] = _mm512_setzero_ps();
        }
    }
    for (uint64_t p = 0; p < pairs; p++) {
        __m512bh b0 = (__m512bh)_mm512_loadu_si512(b[p]);
        __m512bh b1 = (__m512bh)_mm512_loadu_si512(b[p] + 16);
        __m512bh b2 = (__m512bh)_mm512_loadu_si512(b[p] + 32);
#pragma GCC unroll 8
        for (unsigned i = 0; i < MR; i++) {
            __m512bh ai = (__m512bh)_mm512_set1_epi32((int)a[p][i]);
            sum[i][0] = _mm512_dpbf16_ps(sum[i][0], ai, b0);
            sum[i][1] = _mm512_dpbf16_ps(sum[i][1], ai, b1);
            sum[i][2] = _mm512_dpbf16_ps(sum[i][2], ai, b2);
        }
    }
#pragma GCC unroll 8
    for (unsigned i = 0; i < MR; i++) {
        for (unsigned j = 0; j < 3 && i < rows && j * 16 < cols; j++) {
            put(c + i * ldc + j * 16, sum[i][j], cols - j * 16, add);
        }
    }
}

/* Pairs [p0, p0 + pairs) of all panels. */
static void block(const nq_gemm16_tile *t, uint64_t p0, uint64_t pairs) {
    uint64_t all = (t->k + 1) / 2;
    for (uint64_t j = 0; j < t->n; j += NR) {
        const uint32_t *b = t->b + j * all + p0 * NR;
        for (uint64_t i = 0; i < t->m; i += MR) {
            const uint32_t *a = t->a + i * all + p0 * MR;
            panels(t->c + i * t->ldc + j, t->ldc, (const uint32_t(*)[MR])a,
                   (const uint32_t(*)[NR])b, pairs, smaller(t->m - i, MR), smaller(t->n - j, NR),
                   t->add || p0 > 0);
        }
    }
}

static void tile(const nq_gemm16_tile *t) {
    uint64_t all = (t->k + 1) / 2;
    uint64_t p0 = 0;
    do {
        block(t, p0, smaller(all - p0, NQ_GEMM16_K / 2));
        p0 += NQ_GEMM16_K / 2;
    } while (p0 < all);
}

const nq_gemm16 nq_gemm16_avx512bf16 = {.pack = pack, .tile = tile};

#else
typedef int nq_gemm_avx512bf16_unused;
#endif
