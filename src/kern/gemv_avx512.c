/* gemv_avx512.c - products with coded weights on AVX-512 (F, BW, VL, DQ) without
 * VNNI. Compiled with those flags; reached only through the table. */
#if defined(__x86_64__)
#include <immintrin.h>

#include "kern/gemv_x86.h"

/* Two products are added in 16 bits: fits while neither side is wide. */
static inline __m512i dot_narrow(__m512i acc, __m512i w, __m512i x) {
    __m512i pairs = _mm512_maddubs_epi16(w, x);
    return _mm512_add_epi32(acc, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)));
}

/* Even and odd bytes apart: one product of any two bytes fits 16 bits. */
static inline __m512i dot_wide(__m512i acc, __m512i w, __m512i x) {
    const __m512i even = _mm512_set1_epi16(0xFF);
    const __m512i one = _mm512_set1_epi16(1);
    __m512i a = _mm512_maddubs_epi16(_mm512_and_si512(w, even), x);
    __m512i b = _mm512_maddubs_epi16(_mm512_andnot_si512(even, w), x);
    acc = _mm512_add_epi32(acc, _mm512_madd_epi16(a, one));
    return _mm512_add_epi32(acc, _mm512_madd_epi16(b, one));
}

#define a_dot(acc, w, x)      dot_narrow(acc, w, x)
#define a_dot_wide(acc, w, x) dot_wide(acc, w, x)
#define NARROW
#define G_ROWS   4
#define G_TOKENS 4

#include "kern/gemv_body.h"

#include "kern/gemm_body.h"
#include "kern/gemv_fields.h"

PRODUCTS(4)
PRODUCTS(3)
PRODUCTS(2)
ENTRIES

const nq_gemv_kern nq_gemv_avx512 = {"avx512", false,      true,    gemv,     decode,  gemm_bytes,
                                     gemv_i8,  dot_fields, dot_f16, dot_bf16, dot_q8_0};
#else
typedef int nq_gemv_avx512_is_for_x86;
#endif
