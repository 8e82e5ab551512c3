/* kern_avx2.c - AVX2 variants. Compiled with -mavx2 -mfma -mf16c; reached only
 * through the table, so nothing here may run on a CPU without them. */
#if defined(__x86_64__)
#include <immintrin.h>

#include "kern/kern_path_x86.h"

static void lut16(int8_t *dst, const uint8_t *symbols, const int8_t *table, uint64_t n, int add) {
    __m256i lut = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)table));
    uint64_t i = 0;
    for (; i + 32 <= n; i += 32) {
        __m256i s = _mm256_loadu_si256((const __m256i *)(symbols + i));
        __m256i v = _mm256_shuffle_epi8(lut, s);
        if (add) {
            v = _mm256_add_epi8(v, _mm256_loadu_si256((const __m256i *)(dst + i)));
        }
        _mm256_storeu_si256((__m256i *)(dst + i), v);
    }
    body_lut16(dst + i, symbols + i, table, n - i, add);
}

static float dot_i8(const int8_t *a, const float *x, uint64_t n) {
    __m256 acc[4];
    for (int l = 0; l < 4; l++) {
        acc[l] = _mm256_setzero_ps();
    }
    uint64_t i = 0;
    for (; i + 32 <= n; i += 32) {
        for (int l = 0; l < 4; l++) {
            __m128i bytes = _mm_loadl_epi64((const __m128i *)(a + i + 8 * (uint64_t)l));
            __m256 w = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes));
            acc[l] = _mm256_fmadd_ps(w, _mm256_loadu_ps(x + i + 8 * (uint64_t)l), acc[l]);
        }
    }
    float sum[16];
    _mm256_storeu_ps(sum, _mm256_add_ps(acc[0], acc[2]));
    _mm256_storeu_ps(sum + 8, _mm256_add_ps(acc[1], acc[3]));
    return body_reduce16(sum) + body_dot_i8(a + i, x + i, n - i);
}

static float dot_f32(const float *a, const float *x, uint64_t n) {
    __m256 acc[4];
    for (int l = 0; l < 4; l++) {
        acc[l] = _mm256_setzero_ps();
    }
    uint64_t i = 0;
    for (; i + 32 <= n; i += 32) {
        for (int l = 0; l < 4; l++) {
            uint64_t at = i + 8 * (uint64_t)l;
            acc[l] = _mm256_fmadd_ps(_mm256_loadu_ps(a + at), _mm256_loadu_ps(x + at), acc[l]);
        }
    }
    float sum[16];
    _mm256_storeu_ps(sum, _mm256_add_ps(acc[0], acc[2]));
    _mm256_storeu_ps(sum + 8, _mm256_add_ps(acc[1], acc[3]));
    return body_reduce16(sum) + body_dot_f32(a + i, x + i, n - i);
}

const nq_kern nq_kern_avx2 = {"avx2",       shortest_path, nearest_pair, body_hadamard,
                              body_unpack4, lut16,         dot_i8,       dot_f32};
#else
typedef int nq_kern_avx2_is_for_x86;
#endif
