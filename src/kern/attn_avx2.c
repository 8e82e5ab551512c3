/* attn_avx2.c - AVX2, FMA and F16C variants of attn.h. Compiled with those flags;
 * reached only through the table. */
#if defined(__x86_64__)
#include <immintrin.h>
#include <stdint.h>

static inline void sums4(float *p, __m256 a, __m256 b, __m256 c, __m256 d) {
    __m256 all = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
    _mm_storeu_ps(p, _mm_add_ps(_mm256_castps256_ps128(all), _mm256_extractf128_ps(all, 1)));
}

static inline __m256i first(uint32_t n) {
    __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), lanes);
}

static inline __m256 load_some(const float *p, uint32_t n, __m256 fill) {
    __m256i mask = first(n);
    return _mm256_blendv_ps(fill, _mm256_maskload_ps(p, mask), _mm256_castsi256_ps(mask));
}

static inline __m256 pow2(__m256 shifted) {
    __m256i bits = _mm256_castps_si256(shifted);
    bits = _mm256_sub_epi32(bits, _mm256_set1_epi32(0x4B400000 - 127));
    return _mm256_castsi256_ps(_mm256_slli_epi32(bits, 23));
}

static inline __m256 load_i8(const void *p) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(p)));
}

#define V                       __m256
#define W                       8U
#define QUERIES                 2U
#define MIX_QUERIES             3U
#define V_ZERO()                _mm256_setzero_ps()
#define V_SET1(x)               _mm256_set1_ps(x)
#define V_LOAD(p)               _mm256_loadu_ps(p)
#define V_STORE(p, v)           _mm256_storeu_ps(p, v)
#define V_LOAD_SOME(p, n, fill) load_some(p, n, fill)
#define V_STORE_SOME(p, v, n)   _mm256_maskstore_ps(p, first(n), v)
#define V_ADD(a, b)             _mm256_add_ps(a, b)
#define V_SUB(a, b)             _mm256_sub_ps(a, b)
#define V_MUL(a, b)             _mm256_mul_ps(a, b)
#define V_DIV(a, b)             _mm256_div_ps(a, b)
#define V_FMA(a, b, c)          _mm256_fmadd_ps(a, b, c)
#define V_MAX(a, b)             _mm256_max_ps(a, b)
#define V_MIN(a, b)             _mm256_min_ps(a, b)
#define V_F16(p)                _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)(p)))
#define V_I8(p)                 load_i8(p)
#define V_TO_F16(p, v)          _mm_storeu_si128((__m128i *)(void *)(p), _mm256_cvtps_ph(v, 0))
#define V_SUMS4                 sums4
#define V_POW2(v)               pow2(v)
#define V_KEEP(x, low, v)       _mm256_and_ps(_mm256_cmp_ps(x, low, _CMP_NLT_UQ), v)
#include "kern/attn_body.h"

const nq_attn_kern nq_attn_avx2 = ATTN_TABLE("avx2");
#else
typedef int nq_attn_avx2_is_for_x86;
#endif
