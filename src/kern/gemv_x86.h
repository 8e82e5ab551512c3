/* gemv_x86.h - the 512-bit vocabulary of gemv_body.h.
 *
 * Included more than once: each AVX-512 variant includes <immintrin.h>, then this,
 * and defines a_dot() and a_dot_wide(). */
#ifndef NQ_KERN_GEMV_X86_H
#define NQ_KERN_GEMV_X86_H

#include <stdint.h>
#include <string.h>

#include "kern/gemv.h"

typedef __m512i V;
typedef __m512i ACC;
#define V_BYTES 64
#define ROWS    8

#define v_load(p)            _mm512_loadu_si512(p)
#define v_store(p, v)        _mm512_storeu_si512(p, v)
#define v_zero()             _mm512_setzero_si512()
#define v_and(v, byte)       _mm512_and_si512(v, _mm512_set1_epi8(byte))
#define v_low4(v)            v_and(v, 15)
#define v_high4(v)           v_and(_mm512_srli_epi16(v, 4), 15)
#define v_shl(v, n)          _mm512_slli_epi16(v, n)
#define v_shr(v, n)          _mm512_srli_epi16(v, n)
#define v_select(byte, a, b) _mm512_ternarylogic_epi32(_mm512_set1_epi8(byte), a, b, 0xCA)
#define v_lookup(t, i)       _mm512_shuffle_epi8(t, i)
#define v_add(a, b)          _mm512_add_epi8(a, b)
#define v_flip(v)            _mm512_xor_si512(v, _mm512_set1_epi8((char)0x80))
#define v_prefetch(p)        _mm_prefetch((const char *)(p), _MM_HINT_T0)
#define a_zero()             _mm512_setzero_si512()

/* Eight units of 12 bytes: 8 bytes of low bits each to one vector; 4 bytes of
 * third bits twice to the other, the second time shifted right, so that the third
 * bit of symbol 8*k + t is bit 2*k of byte t. */
static inline __attribute__((always_inline)) void v_load3(V *low, V *high, const uint8_t *p) {
    const __m512i pick_low = _mm512_setr_epi32(0, 1, 3, 4, 6, 7, 9, 10, 12, 13, 15, 16 + 8, 16 + 10,
                                               16 + 11, 16 + 13, 16 + 14);
    const __m512i pick_high = _mm512_setr_epi32(2, 2, 5, 5, 8, 8, 11, 11, 14, 14, 16 + 9, 16 + 9,
                                                16 + 12, 16 + 12, 16 + 15, 16 + 15);
    const __m512i shift = _mm512_set1_epi64(1LL << 32);
    __m512i first = _mm512_loadu_si512(p);     /* dwords 0..15 */
    __m512i last = _mm512_loadu_si512(p + 32); /* dwords 8..23 */
    *low = _mm512_permutex2var_epi32(first, pick_low, last);
    *high = _mm512_srlv_epi32(_mm512_permutex2var_epi32(first, pick_high, last), shift);
}

/* Horizontal sums: eight at once by a tree of half-and-half additions. */
static inline __m512i add_halves32(__m512i a, __m512i b) {
    return _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
}

static inline __m512i add_halves64(__m512i a, __m512i b) {
    return _mm512_add_epi32(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
}

/* Sums of four, in four neighbouring lanes. */
static inline __m128i sums4(__m512i a, __m512i b, __m512i c, __m512i d) {
    __m512i s = add_halves64(add_halves32(a, b), add_halves32(c, d));
    __m256i h = _mm256_add_epi32(_mm512_castsi512_si256(s), _mm512_extracti64x4_epi64(s, 1));
    return _mm_add_epi32(_mm256_castsi256_si128(h), _mm256_extracti128_si256(h, 1));
}

static inline __attribute__((always_inline)) void a_sums(int32_t *y, const ACC *acc,
                                                         unsigned count) {
    unsigned i = 0;
    for (; i + 4 <= count; i += 4) {
        _mm_storeu_si128((__m128i *)(void *)(y + i),
                         sums4(acc[i], acc[i + 1], acc[i + 2], acc[i + 3]));
    }
    for (; i < count; i++) {
        y[i] = _mm512_reduce_add_epi32(acc[i]);
    }
}

static float reduce(__m512 v) {
    float lane[16];
    _mm512_storeu_ps(lane, v);
    for (unsigned w = 8; w > 0; w /= 2) {
        for (unsigned i = 0; i < w; i++) {
            lane[i] += lane[i + w];
        }
    }
    return lane[0];
}

static float dot_f16(const uint16_t *a, const float *x, uint64_t n) {
    __m512 acc[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
    uint64_t i = 0;
    for (; i + 32 <= n; i += 32) {
        __m512i h = _mm512_loadu_si512(a + i);
        __m512 lo = _mm512_cvtph_ps(_mm512_castsi512_si256(h));
        __m512 hi = _mm512_cvtph_ps(_mm512_extracti64x4_epi64(h, 1));
        acc[0] = _mm512_fmadd_ps(lo, _mm512_loadu_ps(x + i), acc[0]);
        acc[1] = _mm512_fmadd_ps(hi, _mm512_loadu_ps(x + i + 16), acc[1]);
    }
    if (i < n) {
        __mmask32 m = (__mmask32)((1ULL << (n - i)) - 1U);
        __m512i h = _mm512_maskz_loadu_epi16(m, a + i);
        __m512 lo = _mm512_cvtph_ps(_mm512_castsi512_si256(h));
        __m512 hi = _mm512_cvtph_ps(_mm512_extracti64x4_epi64(h, 1));
        acc[0] = _mm512_fmadd_ps(lo, _mm512_maskz_loadu_ps((__mmask16)m, x + i), acc[0]);
        acc[1] =
            _mm512_fmadd_ps(hi, _mm512_maskz_loadu_ps((__mmask16)(m >> 16), x + i + 16), acc[1]);
    }
    return reduce(_mm512_add_ps(acc[0], acc[1]));
}

static __m512 widen_bf16(__m256i h) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}

static float dot_bf16(const uint16_t *a, const float *x, uint64_t n) {
    __m512 acc[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
    uint64_t i = 0;
    for (; i + 32 <= n; i += 32) {
        __m512i h = _mm512_loadu_si512(a + i);
        acc[0] =
            _mm512_fmadd_ps(widen_bf16(_mm512_castsi512_si256(h)), _mm512_loadu_ps(x + i), acc[0]);
        acc[1] = _mm512_fmadd_ps(widen_bf16(_mm512_extracti64x4_epi64(h, 1)),
                                 _mm512_loadu_ps(x + i + 16), acc[1]);
    }
    for (; i < n; i += 16) {
        __mmask16 m = (__mmask16)(n - i >= 16 ? 0xFFFFU : (1U << (n - i)) - 1U);
        acc[0] = _mm512_fmadd_ps(widen_bf16(_mm256_maskz_loadu_epi16(m, a + i)),
                                 _mm512_maskz_loadu_ps(m, x + i), acc[0]);
    }
    return reduce(_mm512_add_ps(acc[0], acc[1]));
}

static __m512 widen_i8(const uint8_t *p) {
    return _mm512_cvtepi32_ps(
        _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(const void *)p)));
}

static float dot_q8_0(const uint8_t *blocks, const float *x, uint64_t n) {
    __m512 acc = _mm512_setzero_ps();
    for (uint64_t i = 0; i < n; i += NQ_Q8_0_WEIGHTS, blocks += NQ_Q8_0_BYTES) {
        int16_t half;
        memcpy(&half, blocks, sizeof half);
        __m512 part = _mm512_mul_ps(widen_i8(blocks + 2), _mm512_loadu_ps(x + i));
        part = _mm512_fmadd_ps(widen_i8(blocks + 18), _mm512_loadu_ps(x + i + 16), part);
        acc = _mm512_fmadd_ps(_mm512_cvtph_ps(_mm256_set1_epi16(half)), part, acc);
    }
    return reduce(acc);
}

#endif
