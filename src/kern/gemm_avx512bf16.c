/* gemm_avx512bf16.c - see gemm.h. Both inputs are packed, KC of k at a time, into panels
 * of pairs (k, k + 1): A in panels of MR rows, B in panels of NR columns; a panel of each
 * makes MR x NR sums in registers. */
#if defined(__x86_64__)

#include <immintrin.h>
#include <string.h>

#include "kern/gemm.h"

#define MR 8
#define NR 48
#define KC 256

typedef struct packed {
    uint32_t a[NQ_GEMM16_M / MR][KC / 2][MR];
    uint32_t b[NQ_GEMM16_N / NR][KC / 2][NR];
} packed;

/* Pairs of lines k0 and k1 (NULL: zeros) at 16 places: 16 numbers of each, count used. */
static inline __m512i pair_lines(const float *k0, const float *k1, uint64_t count) {
    __mmask16 use = count >= 16 ? (__mmask16)0xffff : (__mmask16)((1U << count) - 1U);
    __m512 low = _mm512_maskz_loadu_ps(use, k0);
    __m512 high = k1 != NULL ? _mm512_maskz_loadu_ps(use, k1) : _mm512_setzero_ps();
    __m256i l = (__m256i)_mm512_cvtneps_pbh(low);
    __m256i h = (__m256i)_mm512_cvtneps_pbh(high);
    return _mm512_or_si512(_mm512_cvtepu16_epi32(l),
                           _mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}

/* x lies with its lines along k: x[k * ld + line]. dst (k / 2, width), lines [0, count). */
static void pack_across(uint32_t *dst, uint64_t width, const float *x, uint64_t ld, uint64_t count,
                        uint64_t k) {
    for (uint64_t i = 0; i < k; i += 2) {
        for (uint64_t at = 0; at < width; at += 16) {
            uint64_t left = at < count ? count - at : 0;
            const float *k0 = x + i * ld + (left > 0 ? at : 0);
            __m512i v = pair_lines(k0, i + 1 < k ? k0 + ld : NULL, left);
            if (width - at >= 16) {
                _mm512_storeu_si512(dst + i / 2 * width + at, v);
            } else {
                _mm256_storeu_si256((__m256i *)(void *)(dst + i / 2 * width + at),
                                    _mm512_castsi512_si256(v));
            }
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
    __mmask16 low = n >= 16 ? (__mmask16)0xffff : (__mmask16)((1U << n) - 1U);
    __mmask16 high = n > 16 ? (__mmask16)((1U << (n - 16)) - 1U) : (__mmask16)0;
    __m512 v0 = _mm512_maskz_loadu_ps(low, x);
    __m512 v1 = high != 0 ? _mm512_maskz_loadu_ps(high, x + 16) : _mm512_setzero_ps();
    return (__m512i)_mm512_cvtne2ps_pbh(v1, v0);
}

/* x lies with k along its lines: x[line * ld + k]. Sixteen lines at a time. */
static void pack_along(uint32_t *dst, uint64_t width, const float *x, uint64_t ld, uint64_t count,
                       uint64_t k) {
    for (uint64_t line = 0; line < width; line += 16) {
        uint64_t lines = count > line ? count - line : 0;
        for (uint64_t i = 0; i < k; i += 32) {
            __m512i r[16];
            uint64_t n = k - i < 32 ? k - i : 32;
#pragma GCC unroll 16
            for (uint64_t l = 0; l < 16; l++) {
                r[l] = l < lines ? pair_line(x + (line + l) * ld + i, n) : _mm512_setzero_si512();
            }
            transpose(r);
            uint32_t *to = dst + i / 2 * width + line;
            for (uint64_t p = 0; p < (n + 1) / 2; p++) {
                if (width >= 16) {
                    _mm512_storeu_si512(to + p * width, r[p]);
                } else {
                    _mm256_storeu_si256((__m256i *)(void *)(to + p * width),
                                        _mm512_castsi512_si256(r[p]));
                }
            }
        }
    }
}

static void pack(uint32_t *dst, uint64_t width, bool along, const float *x, uint64_t ld,
                 uint64_t count, uint64_t k) {
    if (along) {
        pack_along(dst, width, x, ld, count, k);
    } else {
        pack_across(dst, width, x, ld, count, k);
    }
}

static inline void put(float *c, __m512 v, uint64_t count, bool add) {
    __mmask16 use = count >= 16 ? (__mmask16)0xffff : (__mmask16)((1U << count) - 1U);
    if (add) {
        v = _mm512_add_ps(v, _mm512_maskz_loadu_ps(use, c));
    }
    _mm512_mask_storeu_ps(c, use, v);
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

static uint64_t smaller(uint64_t x, uint64_t y) { return x < y ? x : y; }

static void block(const nq_gemm16_tile *t, packed *w, uint64_t k0, uint64_t k) {
    const float *a = t->a + (t->ta ? k0 * t->lda : k0);
    const float *b = t->b + (t->tb ? k0 : k0 * t->ldb);
    uint64_t pairs = (k + 1) / 2;
    for (uint64_t i = 0; i < t->m; i += MR) {
        pack(w->a[i / MR][0], MR, !t->ta, a + (t->ta ? i : i * t->lda), t->lda,
             smaller(t->m - i, MR), k);
    }
    for (uint64_t j = 0; j < t->n; j += NR) {
        uint64_t cols = smaller(t->n - j, NR);
        pack(w->b[j / NR][0], NR, t->tb, b + (t->tb ? j * t->ldb : j), t->ldb, cols, k);
        for (uint64_t i = 0; i < t->m; i += MR) {
            panels(t->c + i * t->ldc + j, t->ldc, (const uint32_t(*)[MR])w->a[i / MR],
                   (const uint32_t(*)[NR])w->b[j / NR], pairs, smaller(t->m - i, MR), cols,
                   t->add || k0 > 0);
        }
    }
}

void nq_gemm16_avx512bf16(const nq_gemm16_tile *t) {
    packed w;
    for (uint64_t k0 = 0; k0 < t->k; k0 += KC) {
        block(t, &w, k0, smaller(t->k - k0, KC));
    }
    for (uint64_t i = 0; t->k == 0 && !t->add && i < t->m; i++) {
        memset(t->c + i * t->ldc, 0, t->n * sizeof(float));
    }
}

#else
typedef int nq_gemm_avx512bf16_unused;
#endif
