/* kern_avx512.c - AVX-512 (F, BW, VL, DQ) variants. Compiled with those flags;
 * reached only through the table. */
#if defined(__x86_64__)
#include <immintrin.h>

#include "kern/kern_path_x86.h"
#include "kern/kern_symbols_x86.h"

/* Sixteen entries at a time: of an index whose high half is another one's, the byte gets
 * its top bit, for which the shuffle gives 0. */
static inline __m512i look_up(const int8_t *table, unsigned k, __m512i symbols) {
    __m512i sum = _mm512_setzero_si512();
    for (unsigned b = 0; b < k; b += 16) {
        __m512i index = _mm512_xor_si512(symbols, _mm512_set1_epi8((char)b));
        index = _mm512_adds_epu8(index, _mm512_set1_epi8(0x70));
        __m512i part =
            _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)(const void *)(table + b)));
        sum = _mm512_or_si512(sum, _mm512_shuffle_epi8(part, index));
    }
    return sum;
}

static inline void lut_at(int8_t *dst, const uint8_t *symbols, const int8_t *table, unsigned k,
                          __mmask64 m, int add) {
    __m512i v = look_up(table, k, _mm512_maskz_loadu_epi8(m, symbols));
    if (add) {
        v = _mm512_add_epi8(v, _mm512_maskz_loadu_epi8(m, dst));
    }
    _mm512_mask_storeu_epi8(dst, m, v);
}

static void lut(int8_t *dst, const uint8_t *symbols, const int8_t *table, unsigned k, uint64_t n,
                int add) {
    uint64_t i = 0;
    for (; i + 64 <= n; i += 64) {
        __m512i v = look_up(table, k, _mm512_loadu_si512(symbols + i));
        if (add) {
            v = _mm512_add_epi8(v, _mm512_loadu_si512(dst + i));
        }
        _mm512_storeu_si512(dst + i, v);
    }
    if (i < n) {
        lut_at(dst + i, symbols + i, table, k, (1ULL << (n - i)) - 1U, add);
    }
}

static float dot_i8(const int8_t *a, const float *x, uint64_t n) {
    __m512 acc0 = _mm512_setzero_ps();
    __m512 acc1 = acc0;
    uint64_t i = 0;
    for (; i + 32 <= n; i += 32) {
        __m128i a0 = _mm_loadu_si128((const __m128i *)(a + i));
        __m128i a1 = _mm_loadu_si128((const __m128i *)(a + i + 16));
        __m512 w0 = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(a0));
        __m512 w1 = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(a1));
        acc0 = _mm512_fmadd_ps(w0, _mm512_loadu_ps(x + i), acc0);
        acc1 = _mm512_fmadd_ps(w1, _mm512_loadu_ps(x + i + 16), acc1);
    }
    float sum[16];
    _mm512_storeu_ps(sum, _mm512_add_ps(acc0, acc1));
    return body_reduce16(sum) + body_dot_i8(a + i, x + i, n - i);
}

static float dot_f32(const float *a, const float *x, uint64_t n) {
    __m512 acc0 = _mm512_setzero_ps();
    __m512 acc1 = acc0;
    uint64_t i = 0;
    for (; i + 32 <= n; i += 32) {
        acc0 = _mm512_fmadd_ps(_mm512_loadu_ps(a + i), _mm512_loadu_ps(x + i), acc0);
        acc1 = _mm512_fmadd_ps(_mm512_loadu_ps(a + i + 16), _mm512_loadu_ps(x + i + 16), acc1);
    }
    float sum[16];
    _mm512_storeu_ps(sum, _mm512_add_ps(acc0, acc1));
    return body_reduce16(sum) + body_dot_f32(a + i, x + i, n - i);
}

/* x + partner in the lanes whose bit is clear, partner - x where it is set. */
static __m512 butterfly(__m512 x, __m512 partner, __mmask16 set) {
    const __m512i sign = _mm512_set1_epi32((int)0x80000000U);
    __m512i bits = _mm512_castps_si512(x);
    return _mm512_add_ps(partner,
                         _mm512_castsi512_ps(_mm512_mask_xor_epi32(bits, set, bits, sign)));
}

/* The first four rounds inside a register, the others between registers. */
static void hadamard(float *x, uint32_t n, float scale) {
    if (n < 16) {
        body_hadamard(x, n, scale);
        return;
    }
    for (uint32_t i = 0; i < n; i += 16) {
        __m512 v = _mm512_loadu_ps(x + i);
        v = butterfly(v, _mm512_permute_ps(v, 0xB1), 0xAAAA);
        v = butterfly(v, _mm512_permute_ps(v, 0x4E), 0xCCCC);
        v = butterfly(v, _mm512_shuffle_f32x4(v, v, 0xB1), 0xF0F0);
        v = butterfly(v, _mm512_shuffle_f32x4(v, v, 0x4E), 0xFF00);
        _mm512_storeu_ps(x + i, v);
    }
    for (uint32_t h = 16; h < n; h *= 2) {
        for (uint32_t i = 0; i < n; i += 2 * h) {
            for (uint32_t j = i; j < i + h; j += 16) {
                __m512 a = _mm512_loadu_ps(x + j);
                __m512 b = _mm512_loadu_ps(x + j + h);
                _mm512_storeu_ps(x + j, _mm512_add_ps(a, b));
                _mm512_storeu_ps(x + j + h, _mm512_sub_ps(a, b));
            }
        }
    }
    for (uint32_t i = 0; i < n; i += 16) {
        _mm512_storeu_ps(x + i, _mm512_mul_ps(_mm512_loadu_ps(x + i), _mm512_set1_ps(scale)));
    }
}

const nq_kern nq_kern_avx512 = {"avx512", shortest_path, nearest_pair, hadamard,
                                unpack,   lut,           dot_i8,       dot_f32};
#else
typedef int nq_kern_avx512_is_for_x86;
#endif
