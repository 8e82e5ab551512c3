/* kern_path_x86.h - shortest_path and nearest_pair for x86.
 *
 * Included more than once: by kern_avx2.c and kern_avx512.c after <immintrin.h>,
 * each compiled with its own flags. Both use 256-bit registers: AVX-512 gives
 * the inputs of 16 lanes registers of their own, and where 512-bit operations are
 * two halves (Zen 4), wider ones are 10 % slower for want of loads.
 */
#ifndef NQ_KERN_KERN_PATH_X86_H
#define NQ_KERN_KERN_PATH_X86_H

#include "kern/kern_body.h"

static inline __m128 lesser4(__m128 a, __m128 b) {
    return _mm_castsi128_ps(_mm_min_epi32(_mm_castps_si128(a), _mm_castps_si128(b)));
}

static inline __m256 lesser8(__m256 a, __m256 b) {
    return _mm256_castsi256_ps(_mm256_min_epi32(_mm256_castps_si256(a), _mm256_castps_si256(b)));
}

static inline __m128 least4(__m128 v) {
    v = _mm_min_ps(v, _mm_shuffle_ps(v, v, 0x4E));
    return _mm_min_ps(v, _mm_shuffle_ps(v, v, 0xB1));
}

static inline __m256 least8(__m256 v) {
    v = _mm256_min_ps(v, _mm256_permute2f128_ps(v, v, 1));
    v = _mm256_min_ps(v, _mm256_shuffle_ps(v, v, 0x4E));
    return _mm256_min_ps(v, _mm256_shuffle_ps(v, v, 0xB1));
}

static inline unsigned equal4(__m128 a, __m128 b) {
    return (unsigned)_mm_movemask_ps(_mm_cmpeq_ps(a, b));
}

static inline unsigned equal8(__m256 a, __m256 b) {
    return (unsigned)_mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_EQ_OQ));
}

static inline __attribute__((always_inline)) void transpose4(__m128 *v) {
    _MM_TRANSPOSE4_PS(v[0], v[1], v[2], v[3]);
}

static inline __attribute__((always_inline)) void transpose8(__m256 *v) {
    __m256 t[8];
    __m256 q[8];
    for (int i = 0; i < 4; i++) { /* pairs of rows, then pairs of pairs, then halves */
        t[2 * i] = _mm256_unpacklo_ps(v[2 * i], v[2 * i + 1]);
        t[2 * i + 1] = _mm256_unpackhi_ps(v[2 * i], v[2 * i + 1]);
    }
    for (int i = 0; i < 2; i++) {
        q[4 * i] = _mm256_shuffle_ps(t[4 * i], t[4 * i + 2], 0x44);
        q[4 * i + 1] = _mm256_shuffle_ps(t[4 * i], t[4 * i + 2], 0xEE);
        q[4 * i + 2] = _mm256_shuffle_ps(t[4 * i + 1], t[4 * i + 3], 0x44);
        q[4 * i + 3] = _mm256_shuffle_ps(t[4 * i + 1], t[4 * i + 3], 0xEE);
    }
    for (int i = 0; i < 4; i++) {
        v[i] = _mm256_permute2f128_ps(q[i], q[i + 4], 0x20);
        v[i + 4] = _mm256_permute2f128_ps(q[i], q[i + 4], 0x31);
    }
}

#define PATH_NAME         path4
#define PATH_LANES        4
#define PATH_W            4
#define PATH_BLOCK        2
#define V                 __m128
#define V_LOAD(p)         _mm_loadu_ps(p)
#define V_STORE(p, a)     _mm_storeu_ps(p, a)
#define V_SET1(x)         _mm_set1_ps(x)
#define V_ADD(a, b)       _mm_add_ps(a, b)
#define V_SUB(a, b)       _mm_sub_ps(a, b)
#define V_MUL(a, b)       _mm_mul_ps(a, b)
#define V_MIN(a, b)       _mm_min_ps(a, b)
#define V_LESSER(a, b)    lesser4(a, b)
#define V_LEAST(a)        least4(a)
#define V_LANE0(a)        _mm_cvtss_f32(a)
#define V_EQUAL(a, b)     equal4(a, b)
#define V_TRANSPOSE(rows) transpose4(rows)
#include "kern/kern_path.h"

#define PATH_NAME         path8
#define PATH_LANES        8
#define PATH_W            8
#define PATH_BLOCK        2
#define V                 __m256
#define V_LOAD(p)         _mm256_loadu_ps(p)
#define V_STORE(p, a)     _mm256_storeu_ps(p, a)
#define V_SET1(x)         _mm256_set1_ps(x)
#define V_ADD(a, b)       _mm256_add_ps(a, b)
#define V_SUB(a, b)       _mm256_sub_ps(a, b)
#define V_MUL(a, b)       _mm256_mul_ps(a, b)
#define V_MIN(a, b)       _mm256_min_ps(a, b)
#define V_LESSER(a, b)    lesser8(a, b)
#define V_LEAST(a)        least8(a)
#define V_LANE0(a)        _mm256_cvtss_f32(a)
#define V_EQUAL(a, b)     equal8(a, b)
#define V_TRANSPOSE(rows) transpose8(rows)
#include "kern/kern_path.h"

#define PATH_NAME         path16
#define PATH_NEAREST      nearest_pair
#define PATH_LANES        16
#define PATH_W            8
#define PATH_BLOCK        4
#define V                 __m256
#define V_LOAD(p)         _mm256_loadu_ps(p)
#define V_STORE(p, a)     _mm256_storeu_ps(p, a)
#define V_SET1(x)         _mm256_set1_ps(x)
#define V_ADD(a, b)       _mm256_add_ps(a, b)
#define V_SUB(a, b)       _mm256_sub_ps(a, b)
#define V_MUL(a, b)       _mm256_mul_ps(a, b)
#define V_MIN(a, b)       _mm256_min_ps(a, b)
#define V_LESSER(a, b)    lesser8(a, b)
#define V_LEAST(a)        least8(a)
#define V_LANE0(a)        _mm256_cvtss_f32(a)
#define V_EQUAL(a, b)     equal8(a, b)
#define V_TRANSPOSE(rows) transpose8(rows)
#include "kern/kern_path.h"

static void shortest_path(const nq_path *path, const nq_path_chain *chains, unsigned n,
                          uint64_t len) {
    (path->lanes == 16 ? path16 : path->lanes == 8 ? path8 : path4)(path, chains, n, len);
}

#endif
