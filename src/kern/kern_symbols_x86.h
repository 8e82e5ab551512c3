/* kern_symbols_x86.h - unpacking symbols, for x86.
 *
 * Included more than once: by kern_avx2.c and kern_avx512.c after kern_path_x86.h, each
 * compiled with its own flags. 256-bit registers: a unit of 32 symbols is one.
 */
#ifndef NQ_KERN_KERN_SYMBOLS_X86_H
#define NQ_KERN_KERN_SYMBOLS_X86_H

#include <string.h>

#include "kern/kern_body.h"

/* The bits of one unit's plane, each in the byte of its symbol: the plane once for each
 * symbol that shares a byte, shifted lane by lane. */
static inline __attribute__((always_inline)) __m256i plane_symbols(const uint8_t *p,
                                                                   unsigned width) {
    __m256i v;
    if (width == 8) {
        return _mm256_loadu_si256((const __m256i *)(const void *)p);
    }
    if (width == 4) {
        v = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)p));
        v = _mm256_srlv_epi64(v, _mm256_setr_epi64x(0, 0, 4, 4));
    } else if (width == 2) {
        v = _mm256_broadcastq_epi64(_mm_loadl_epi64((const __m128i *)(const void *)p));
        v = _mm256_srlv_epi64(v, _mm256_setr_epi64x(0, 2, 4, 6));
    } else {
        int32_t four;
        memcpy(&four, p, sizeof four);
        v = _mm256_srlv_epi32(_mm256_set1_epi32(four), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
    }
    return _mm256_and_si256(v, _mm256_set1_epi8((char)((1U << width) - 1U)));
}

static inline __attribute__((always_inline)) void unpack_width(uint8_t *dst, const uint8_t *src,
                                                               uint64_t units, uint64_t unit_bytes,
                                                               unsigned width, unsigned shift) {
    __m128i up = _mm_cvtsi32_si128((int)shift);
    for (uint64_t u = 0; u < units; u++, src += unit_bytes, dst += 32) {
        __m256i v = _mm256_sll_epi16(plane_symbols(src, width), up);
        if (shift > 0) {
            v = _mm256_or_si256(v, _mm256_loadu_si256((const __m256i *)(const void *)dst));
        }
        _mm256_storeu_si256((__m256i *)(void *)dst, v);
    }
}

UNPACK

#endif
