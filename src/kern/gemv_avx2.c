/* gemv_avx2.c - products with coded weights on AVX2 with FMA and F16C. Compiled
 * with those flags; reached only through the table. */
#if defined(__x86_64__)
#include <immintrin.h>
#include <stdint.h>

typedef __m256i V;
typedef __m256i ACC;
#define V_BYTES 32
#define ROWS    4

#define v_load(p)     _mm256_loadu_si256((const __m256i *)(const void *)(p))
#define v_store(p, v) _mm256_storeu_si256((__m256i *)(void *)(p), v)
#define v_zero()      _mm256_setzero_si256()
#define v_and(v, b)   _mm256_and_si256(v, _mm256_set1_epi8(b))
#define v_low4(v)     v_and(v, 15)
#define v_high4(v)    v_and(_mm256_srli_epi16(v, 4), 15)
#define v_shl(v, n)   _mm256_slli_epi16(v, n)
#define v_shr(v, n)   _mm256_srli_epi16(v, n)
#define v_select(byte, a, b)                                                                       \
    _mm256_or_si256(_mm256_and_si256(_mm256_set1_epi8(byte), a),                                   \
                    _mm256_andnot_si256(_mm256_set1_epi8(byte), b))
#define v_lookup(t, i) _mm256_shuffle_epi8(t, i)
#define v_add(a, b)    _mm256_add_epi8(a, b)
#define v_flip(v)      _mm256_xor_si256(v, _mm256_set1_epi8((char)0x80))
#define v_prefetch(p)  _mm_prefetch((const char *)(p), _MM_HINT_T0)
#define a_zero()       _mm256_setzero_si256()

/* Four units of 12 bytes; see the 512-bit version. */
static inline __attribute__((always_inline)) void v_load3(V *low, V *high, const uint8_t *p) {
    const __m256i low_a = _mm256_setr_epi32(0, 1, 3, 4, 6, 7, 0, 0);
    const __m256i low_b = _mm256_setr_epi32(0, 0, 0, 0, 0, 0, 5, 6);
    const __m256i high_a = _mm256_setr_epi32(2, 2, 5, 5, 0, 0, 0, 0);
    const __m256i high_b = _mm256_setr_epi32(0, 0, 0, 0, 4, 4, 7, 7);
    __m256i first = v_load(p);     /* dwords 0..7 */
    __m256i last = v_load(p + 16); /* dwords 4..11 */
    *low = _mm256_blend_epi32(_mm256_permutevar8x32_epi32(first, low_a),
                              _mm256_permutevar8x32_epi32(last, low_b), 0xC0);
    __m256i third = _mm256_blend_epi32(_mm256_permutevar8x32_epi32(first, high_a),
                                       _mm256_permutevar8x32_epi32(last, high_b), 0xF0);
    *high = _mm256_srlv_epi32(third, _mm256_set1_epi64x(1LL << 32));
}

/* Two products are added in 16 bits: fits while neither side is wide. */
static inline __m256i dot_narrow(__m256i acc, __m256i w, __m256i x) {
    __m256i pairs = _mm256_maddubs_epi16(w, x);
    return _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

/* Even and odd bytes apart: one product of any two bytes fits 16 bits. */
static inline __m256i dot_wide(__m256i acc, __m256i w, __m256i x) {
    const __m256i even = _mm256_set1_epi16(0xFF);
    const __m256i one = _mm256_set1_epi16(1);
    __m256i a = _mm256_maddubs_epi16(_mm256_and_si256(w, even), x);
    __m256i b = _mm256_maddubs_epi16(_mm256_andnot_si256(even, w), x);
    acc = _mm256_add_epi32(acc, _mm256_madd_epi16(a, one));
    return _mm256_add_epi32(acc, _mm256_madd_epi16(b, one));
}

static inline __m128i sums4(__m256i a, __m256i b, __m256i c, __m256i d) {
    __m256i s = _mm256_hadd_epi32(_mm256_hadd_epi32(a, b), _mm256_hadd_epi32(c, d));
    return _mm_add_epi32(_mm256_castsi256_si128(s), _mm256_extracti128_si256(s, 1));
}

static inline __attribute__((always_inline)) void a_sums(int32_t *y, const ACC *acc,
                                                         unsigned count) {
    unsigned i = 0;
    for (; i + 4 <= count; i += 4) {
        _mm_storeu_si128((__m128i *)(void *)(y + i),
                         sums4(acc[i], acc[i + 1], acc[i + 2], acc[i + 3]));
    }
    for (; i < count; i++) {
        y[i] = _mm_cvtsi128_si32(sums4(acc[i], v_zero(), v_zero(), v_zero()));
    }
}

#define a_dot(acc, w, x)      dot_narrow(acc, w, x)
#define a_dot_wide(acc, w, x) dot_wide(acc, w, x)
#define NARROW
#define G_ROWS   4
#define G_TOKENS 2

#include "kern/gemv_body.h"

#include "kern/gemm_body.h"
#include "kern/gemv_fields.h"

PRODUCTS(4)
PRODUCTS(3)
PRODUCTS(2)
ENTRIES

static float reduce(__m256 v) {
    float lane[8];
    _mm256_storeu_ps(lane, v);
    for (unsigned w = 4; w > 0; w /= 2) {
        for (unsigned i = 0; i < w; i++) {
            lane[i] += lane[i + w];
        }
    }
    return lane[0];
}

static __m256 load_f16(const uint16_t *a) {
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)a));
}

static __m256 load_bf16(const uint16_t *a) {
    __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(const void *)a));
    return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
}

/* The same loop for both: the conversion is the only difference. */
#define DOT(NAME, LOAD)                                                                            \
    static float NAME(const uint16_t *a, const float *x, uint64_t n) {                             \
        __m256 acc[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};                                \
        uint64_t i = 0;                                                                            \
        for (; i + 16 <= n; i += 16) {                                                             \
            acc[0] = _mm256_fmadd_ps(LOAD(a + i), _mm256_loadu_ps(x + i), acc[0]);                 \
            acc[1] = _mm256_fmadd_ps(LOAD(a + i + 8), _mm256_loadu_ps(x + i + 8), acc[1]);         \
        }                                                                                          \
        for (; i < n; i += 8) {                                                                    \
            uint16_t ta[8] = {0};                                                                  \
            float tx[8] = {0};                                                                     \
            uint64_t left = n - i < 8 ? n - i : 8;                                                 \
            memcpy(ta, a + i, left * sizeof *ta);                                                  \
            memcpy(tx, x + i, left * sizeof *tx);                                                  \
            acc[0] = _mm256_fmadd_ps(LOAD(ta), _mm256_loadu_ps(tx), acc[0]);                       \
        }                                                                                          \
        return reduce(_mm256_add_ps(acc[0], acc[1]));                                              \
    }

DOT(dot_f16, load_f16)
DOT(dot_bf16, load_bf16)

static __m256 widen_i8(const uint8_t *p) {
    return _mm256_cvtepi32_ps(
        _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)p)));
}

static float dot_q8_0(const uint8_t *blocks, const float *x, uint64_t n) {
    __m256 acc = _mm256_setzero_ps();
    for (uint64_t i = 0; i < n; i += NQ_Q8_0_WEIGHTS, blocks += NQ_Q8_0_BYTES) {
        int16_t half;
        memcpy(&half, blocks, sizeof half);
        __m256 part = _mm256_mul_ps(widen_i8(blocks + 2), _mm256_loadu_ps(x + i));
        for (unsigned j = 8; j < NQ_Q8_0_WEIGHTS; j += 8) {
            part = _mm256_fmadd_ps(widen_i8(blocks + 2 + j), _mm256_loadu_ps(x + i + j), part);
        }
        acc = _mm256_fmadd_ps(_mm256_cvtph_ps(_mm_set1_epi16(half)), part, acc);
    }
    return reduce(acc);
}

const nq_gemv_kern nq_gemv_avx2 = {"avx2",  false,      true,    gemv,     decode,  gemm_bytes,
                                   gemv_i8, dot_fields, dot_f16, dot_bf16, dot_q8_0};
#else
typedef int nq_gemv_avx2_is_for_x86;
#endif
