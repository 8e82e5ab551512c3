/* pack.c - symbols to bytes and back (docs/FORMAT.md, "Symbols").
 *
 * Units of 32 symbols (one tail unit of 8, 16 or 24) hold their fields one after
 * the other; a field is cut into bit planes of 8, 4, 2 or 1 bits, widest first,
 * and byte t of a plane of width w holds the symbols t + k*n, n = bytes of the
 * plane. So one 4-bit unit is exactly one 128-bit lane: low nibbles are its
 * first 16 symbols, high nibbles the other 16.
 */
#include <string.h>

#include "kern/kern.h"
#include "quant/qmat.h"

#define UNIT 32

static unsigned widest_plane(unsigned bits) {
    return bits >= 8 ? 8 : bits >= 4 ? 4 : bits >= 2 ? 2 : 1;
}

/* Adds one plane to symbols[0..u), shifted left by `shift`; returns its bytes. */
static uint64_t plane_unpack(uint8_t *symbols, const uint8_t *bytes, uint64_t u, unsigned width,
                             unsigned shift) {
    uint64_t n = u * width / 8;
    uint8_t mask = (uint8_t)((1U << width) - 1U);
    for (unsigned k = 0; k < 8 / width; k++) {
        for (uint64_t t = 0; t < n; t++) {
            unsigned v = ((unsigned)bytes[t] >> (k * width)) & mask;
            symbols[t + k * n] = (uint8_t)(symbols[t + k * n] | v << shift);
        }
    }
    return n;
}

static uint64_t plane_pack(uint8_t *bytes, const uint8_t *symbols, uint64_t u, unsigned width,
                           unsigned shift) {
    uint64_t n = u * width / 8;
    uint8_t mask = (uint8_t)((1U << width) - 1U);
    memset(bytes, 0, n);
    for (unsigned k = 0; k < 8 / width; k++) {
        for (uint64_t t = 0; t < n; t++) {
            unsigned v = ((unsigned)symbols[t + k * n] >> shift) & mask;
            bytes[t] = (uint8_t)(bytes[t] | v << (k * width));
        }
    }
    return n;
}

void nq_symbols_unpack(uint8_t *out, const nq_scheme *s, const uint8_t *row, uint64_t cols) {
    uint64_t stride = nq_scheme_row_symbols(s, cols);
    uint64_t j = 0;
    if (s->fields == 1 && nq_scheme_field_bits(s, 0) == 4) {
        /* The common case: whole units by the kernel, the tail below. */
        uint64_t units = stride / UNIT;
        nq_kern_best()->unpack4(out, row, units);
        j = units * UNIT;
        row += units * 16;
    }
    while (j < stride) {
        uint64_t u = stride - j < UNIT ? stride - j : UNIT;
        for (unsigned f = 0; f < s->fields; f++) {
            uint8_t *dst = out + f * stride + j;
            memset(dst, 0, u);
            unsigned bits = nq_scheme_field_bits(s, f);
            for (unsigned done = 0; done < bits;) {
                unsigned width = widest_plane(bits - done);
                row += plane_unpack(dst, row, u, width, done);
                done += width;
            }
        }
        j += u;
    }
}

void nq_symbols_pack(uint8_t *row, const nq_scheme *s, const uint8_t *symbols, uint64_t cols) {
    uint64_t stride = nq_scheme_row_symbols(s, cols);
    for (uint64_t j = 0; j < stride; j += UNIT) {
        uint64_t u = stride - j < UNIT ? stride - j : UNIT;
        for (unsigned f = 0; f < s->fields; f++) {
            unsigned bits = nq_scheme_field_bits(s, f);
            for (unsigned done = 0; done < bits;) {
                unsigned width = widest_plane(bits - done);
                row += plane_pack(row, symbols + f * stride + j, u, width, done);
                done += width;
            }
        }
    }
}
