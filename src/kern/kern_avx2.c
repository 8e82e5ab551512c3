/* kern_avx2.c - AVX2 variants. Compiled with -mavx2 -mfma -mf16c; reached only
 * through the table, so nothing here may run on a CPU without them. */
#if defined(__x86_64__)
#include <immintrin.h>

#include "kern/kern_body.h"

/* k = 16: two registers of candidates, chosen by compare and blend. */
static float step16(float *out, uint8_t *back, const float *in, const float *pair, const float *p0,
                    unsigned nhi) {
    __m256 smallest = _mm256_set1_ps(FLT_MAX);
    for (unsigned hi = 0; hi < nhi; hi++) {
        const float *row = pair + (size_t)hi * 256;
        __m256 c = _mm256_broadcast_ss(in + hi);
        __m256 best0 = _mm256_add_ps(c, _mm256_loadu_ps(row));
        __m256 best1 = _mm256_add_ps(c, _mm256_loadu_ps(row + 8));
        __m256 arg0 = _mm256_setzero_ps();
        __m256 arg1 = arg0;
        for (unsigned lo = 1; lo < 16; lo++) {
            row += 16;
            c = _mm256_broadcast_ss(in + (size_t)lo * nhi + hi);
            __m256 index = _mm256_castsi256_ps(_mm256_set1_epi32((int)lo));
            __m256 t0 = _mm256_add_ps(c, _mm256_loadu_ps(row));
            __m256 t1 = _mm256_add_ps(c, _mm256_loadu_ps(row + 8));
            arg0 = _mm256_blendv_ps(arg0, index, _mm256_cmp_ps(t0, best0, _CMP_LT_OQ));
            arg1 = _mm256_blendv_ps(arg1, index, _mm256_cmp_ps(t1, best1, _CMP_LT_OQ));
            best0 = _mm256_min_ps(t0, best0);
            best1 = _mm256_min_ps(t1, best1);
        }
        best0 = _mm256_add_ps(best0, _mm256_loadu_ps(p0));
        best1 = _mm256_add_ps(best1, _mm256_loadu_ps(p0 + 8));
        _mm256_storeu_ps(out + (size_t)hi * 16, best0);
        _mm256_storeu_ps(out + (size_t)hi * 16 + 8, best1);
        smallest = _mm256_min_ps(smallest, _mm256_min_ps(best0, best1));
        __m256i words = _mm256_packs_epi32(_mm256_castps_si256(arg0), _mm256_castps_si256(arg1));
        words = _mm256_permute4x64_epi64(words, 0xD8);
        __m128i bytes =
            _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
        _mm_storeu_si128((__m128i *)(back + (size_t)hi * 16), bytes);
    }
    float lanes[8];
    _mm256_storeu_ps(lanes, smallest);
    float m = lanes[0];
    for (int i = 1; i < 8; i++) {
        m = lanes[i] < m ? lanes[i] : m;
    }
    return m;
}

static float trellis_step(float *out, uint8_t *back, const float *in, const float *pair,
                          const float *p0, unsigned nhi, unsigned k) {
    return k == 16 ? step16(out, back, in, pair, p0, nhi)
                   : body_trellis_step(out, back, in, pair, p0, nhi, k);
}

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

const nq_kern nq_kern_avx2 = {
    "avx2", trellis_step, body_nearest_pair, body_hadamard, body_unpack4, lut16, dot_i8, dot_f32};
#else
typedef int nq_kern_avx2_is_for_x86;
#endif
