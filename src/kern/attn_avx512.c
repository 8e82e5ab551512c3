/* attn_avx512.c - AVX-512 variants of attn.h. Compiled with those flags; reached
 * only through the table. */
#if defined(__x86_64__)
#include <immintrin.h>
#include <stdint.h>

static inline __m256 fold(__m512 a) {
    return _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
}

static inline void sums4(float *p, __m512 wide_a, __m512 wide_b, __m512 wide_c, __m512 wide_d) {
    __m256 a = fold(wide_a);
    __m256 b = fold(wide_b);
    __m256 c = fold(wide_c);
    __m256 d = fold(wide_d);
    __m256 ab = _mm256_add_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
    __m256 cd = _mm256_add_ps(_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
    __m256 all = _mm256_add_ps(_mm256_shuffle_ps(ab, cd, 0x44), _mm256_shuffle_ps(ab, cd, 0xEE));
    _mm_storeu_ps(p, _mm_add_ps(_mm256_castps256_ps128(all), _mm256_extractf128_ps(all, 1)));
}

static inline __mmask16 first(uint32_t n) { return (__mmask16)((1U << n) - 1U); }

static inline __m512 pow2(__m512 shifted) {
    __m512i bits = _mm512_castps_si512(shifted);
    bits = _mm512_sub_epi32(bits, _mm512_set1_epi32(0x4B400000 - 127));
    return _mm512_castsi512_ps(_mm512_slli_epi32(bits, 23));
}

static inline __m512 load_i8(const void *p) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(p)));
}

#define V                       __m512
#define W                       16U
#define QUERIES                 4U
#define MIX_QUERIES             4U
#define V_ZERO()                _mm512_setzero_ps()
#define V_SET1(x)               _mm512_set1_ps(x)
#define V_LOAD(p)               _mm512_loadu_ps(p)
#define V_STORE(p, v)           _mm512_storeu_ps(p, v)
#define V_LOAD_SOME(p, n, fill) _mm512_mask_loadu_ps(fill, first(n), p)
#define V_STORE_SOME(p, v, n)   _mm512_mask_storeu_ps(p, first(n), v)
#define V_ADD(a, b)             _mm512_add_ps(a, b)
#define V_SUB(a, b)             _mm512_sub_ps(a, b)
#define V_MUL(a, b)             _mm512_mul_ps(a, b)
#define V_DIV(a, b)             _mm512_div_ps(a, b)
#define V_FMA(a, b, c)          _mm512_fmadd_ps(a, b, c)
#define V_MAX(a, b)             _mm512_max_ps(a, b)
#define V_MIN(a, b)             _mm512_min_ps(a, b)
#define V_F16(p)                _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)(p)))
#define V_I8(p)                 load_i8(p)
#define V_TO_F16(p, v)          _mm256_storeu_si256((__m256i *)(void *)(p), _mm512_cvtps_ph(v, 0))
#define V_SUMS4                 sums4
#define V_POW2(v)               pow2(v)
#define V_KEEP(x, low, v)       _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, low, _CMP_NLT_UQ), v)
#include "kern/attn_body.h"

const nq_attn_kern nq_attn_avx512 = ATTN_TABLE("avx512");
#else
typedef int nq_attn_avx512_is_for_x86;
#endif
