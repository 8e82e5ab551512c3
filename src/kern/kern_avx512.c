/* kern_avx512.c - AVX-512 (F, BW, VL, DQ) variants. Compiled with those flags;
 * reached only through the table. */
#if defined(__x86_64__)
#include <immintrin.h>

#include "kern/kern_body.h"

/* k = 16: one register holds all candidates of a state group. Two independent
 * chains (even and odd lo) hide the latency of compare-and-select. Joining them
 * takes the even chain on a tie only if its lo is smaller: the rule of the
 * reference (smallest lo wins). */
static float step16(float *out, uint8_t *back, const float *in, const float *pair, const float *p0,
                    unsigned nhi) {
    __m512 smallest = _mm512_set1_ps(FLT_MAX);
    __m512 first = _mm512_loadu_ps(p0);
    for (unsigned hi = 0; hi < nhi; hi++) {
        const float *row = pair + (size_t)hi * 256;
        const float *c = in + hi;
        __m512 best0 = _mm512_add_ps(_mm512_set1_ps(c[0]), _mm512_loadu_ps(row));
        __m512 best1 = _mm512_add_ps(_mm512_set1_ps(c[nhi]), _mm512_loadu_ps(row + 16));
        __m512i arg0 = _mm512_setzero_si512();
        __m512i arg1 = _mm512_set1_epi32(1);
        for (unsigned lo = 2; lo < 16; lo += 2) {
            __m512 t0 = _mm512_add_ps(_mm512_set1_ps(c[(size_t)lo * nhi]),
                                      _mm512_loadu_ps(row + (size_t)lo * 16));
            __m512 t1 = _mm512_add_ps(_mm512_set1_ps(c[(size_t)(lo + 1) * nhi]),
                                      _mm512_loadu_ps(row + (size_t)(lo + 1) * 16));
            __mmask16 m0 = _mm512_cmp_ps_mask(t0, best0, _CMP_LT_OQ);
            __mmask16 m1 = _mm512_cmp_ps_mask(t1, best1, _CMP_LT_OQ);
            best0 = _mm512_min_ps(t0, best0);
            best1 = _mm512_min_ps(t1, best1);
            arg0 = _mm512_mask_set1_epi32(arg0, m0, (int)lo);
            arg1 = _mm512_mask_set1_epi32(arg1, m1, (int)lo + 1);
        }
        __mmask16 less = _mm512_cmp_ps_mask(best1, best0, _CMP_LT_OQ);
        __mmask16 tie = _mm512_cmp_ps_mask(best1, best0, _CMP_EQ_OQ);
        __mmask16 lower = _mm512_cmplt_epi32_mask(arg1, arg0);
        arg0 = _mm512_mask_mov_epi32(arg0, (__mmask16)(less | (tie & lower)), arg1);
        best0 = _mm512_add_ps(_mm512_min_ps(best1, best0), first);
        _mm512_storeu_ps(out + (size_t)hi * 16, best0);
        smallest = _mm512_min_ps(smallest, best0);
        _mm_storeu_si128((__m128i *)(back + (size_t)hi * 16), _mm512_cvtepi32_epi8(arg0));
    }
    return _mm512_reduce_min_ps(smallest);
}

static float trellis_step(float *out, uint8_t *back, const float *in, const float *pair,
                          const float *p0, unsigned nhi, unsigned k) {
    return k == 16 ? step16(out, back, in, pair, p0, nhi)
                   : body_trellis_step(out, back, in, pair, p0, nhi, k);
}

static void lut16(int8_t *dst, const uint8_t *symbols, const int8_t *table, uint64_t n, int add) {
    __m512i lut = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)table));
    uint64_t i = 0;
    for (; i + 64 <= n; i += 64) {
        __m512i v = _mm512_shuffle_epi8(lut, _mm512_loadu_si512(symbols + i));
        if (add) {
            v = _mm512_add_epi8(v, _mm512_loadu_si512(dst + i));
        }
        _mm512_storeu_si512(dst + i, v);
    }
    body_lut16(dst + i, symbols + i, table, n - i, add);
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

const nq_kern nq_kern_avx512 = {
    "avx512", trellis_step, body_nearest_pair, body_hadamard, body_unpack4, lut16, dot_i8, dot_f32};
#else
typedef int nq_kern_avx512_is_for_x86;
#endif
