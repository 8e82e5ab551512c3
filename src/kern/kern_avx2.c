/* kern_avx2.c - AVX2 variants. Compiled with -mavx2 -mfma -mf16c; reached only
 * through the table, so nothing here may run on a CPU without them. */
#if defined(__x86_64__)
#include <immintrin.h>

#include "kern/kern_path_x86.h"
#include "kern/kern_symbols_x86.h"

/* Sixteen entries at a time: of an index whose high half is another one's, the byte gets
 * its top bit, for which the shuffle gives 0. */
static inline __m128i look_up16(const int8_t *table, unsigned k, __m128i symbols) {
    __m128i sum = _mm_setzero_si128();
    for (unsigned b = 0; b < k; b += 16) {
        __m128i index = _mm_xor_si128(symbols, _mm_set1_epi8((char)b));
        index = _mm_adds_epu8(index, _mm_set1_epi8(0x70));
        __m128i part = _mm_loadu_si128((const __m128i *)(const void *)(table + b));
        sum = _mm_or_si128(sum, _mm_shuffle_epi8(part, index));
    }
    return sum;
}

/* What is left after whole vectors: rows of symbols are multiples of eight. */
static void lut_rest(int8_t *dst, const uint8_t *symbols, const int8_t *table, unsigned k,
                     uint64_t n, int add) {
    uint64_t i = 0;
    for (; i + 16 <= n; i += 16) {
        __m128i s = _mm_loadu_si128((const __m128i *)(const void *)(symbols + i));
        __m128i v = look_up16(table, k, s);
        if (add) {
            v = _mm_add_epi8(v, _mm_loadu_si128((const __m128i *)(const void *)(dst + i)));
        }
        _mm_storeu_si128((__m128i *)(void *)(dst + i), v);
    }
    if (i + 8 <= n) {
        __m128i s = _mm_loadl_epi64((const __m128i *)(const void *)(symbols + i));
        __m128i v = look_up16(table, k, s);
        if (add) {
            v = _mm_add_epi8(v, _mm_loadl_epi64((const __m128i *)(const void *)(dst + i)));
        }
        _mm_storel_epi64((__m128i *)(void *)(dst + i), v);
        i += 8;
    }
    body_lut(dst + i, symbols + i, table, k, n - i, add);
}

static inline __m256i look_up(const int8_t *table, unsigned k, __m256i symbols) {
    __m256i sum = _mm256_setzero_si256();
    for (unsigned b = 0; b < k; b += 16) { /* see look_up16() */
        __m256i index = _mm256_xor_si256(symbols, _mm256_set1_epi8((char)b));
        index = _mm256_adds_epu8(index, _mm256_set1_epi8(0x70));
        __m256i part = _mm256_broadcastsi128_si256(
            _mm_loadu_si128((const __m128i *)(const void *)(table + b)));
        sum = _mm256_or_si256(sum, _mm256_shuffle_epi8(part, index));
    }
    return sum;
}

static void lut(int8_t *dst, const uint8_t *symbols, const int8_t *table, unsigned k, uint64_t n,
                int add) {
    uint64_t i = 0;
    for (; i + 32 <= n; i += 32) {
        __m256i s = _mm256_loadu_si256((const __m256i *)(const void *)(symbols + i));
        __m256i v = look_up(table, k, s);
        if (add) {
            v = _mm256_add_epi8(v, _mm256_loadu_si256((const __m256i *)(const void *)(dst + i)));
        }
        _mm256_storeu_si256((__m256i *)(void *)(dst + i), v);
    }
    lut_rest(dst + i, symbols + i, table, k, n - i, add);
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

/* x + partner in the lanes whose sign is clear, partner - x where it is set. */
static __m256 butterfly(__m256 x, __m256 partner, __m256 sign) {
    return _mm256_add_ps(partner, _mm256_xor_ps(x, sign));
}

/* The first three rounds inside a register, the others between registers. */
static void hadamard(float *x, uint32_t n, float scale) {
    const float z = 0.0F;
    const __m256 sign1 = _mm256_setr_ps(z, -z, z, -z, z, -z, z, -z);
    const __m256 sign2 = _mm256_setr_ps(z, z, -z, -z, z, z, -z, -z);
    const __m256 sign4 = _mm256_setr_ps(z, z, z, z, -z, -z, -z, -z);
    if (n < 8) {
        body_hadamard(x, n, scale);
        return;
    }
    for (uint32_t i = 0; i < n; i += 8) {
        __m256 v = _mm256_loadu_ps(x + i);
        v = butterfly(v, _mm256_permute_ps(v, 0xB1), sign1);
        v = butterfly(v, _mm256_permute_ps(v, 0x4E), sign2);
        v = butterfly(v, _mm256_permute2f128_ps(v, v, 1), sign4);
        _mm256_storeu_ps(x + i, v);
    }
    for (uint32_t h = 8; h < n; h *= 2) {
        for (uint32_t i = 0; i < n; i += 2 * h) {
            for (uint32_t j = i; j < i + h; j += 8) {
                __m256 a = _mm256_loadu_ps(x + j);
                __m256 b = _mm256_loadu_ps(x + j + h);
                _mm256_storeu_ps(x + j, _mm256_add_ps(a, b));
                _mm256_storeu_ps(x + j + h, _mm256_sub_ps(a, b));
            }
        }
    }
    for (uint32_t i = 0; i < n; i += 8) {
        _mm256_storeu_ps(x + i, _mm256_mul_ps(_mm256_loadu_ps(x + i), _mm256_set1_ps(scale)));
    }
}

const nq_kern nq_kern_avx2 = {"avx2", shortest_path, nearest_pair, hadamard,
                              unpack, lut,           dot_i8,       dot_f32};
#else
typedef int nq_kern_avx2_is_for_x86;
#endif
