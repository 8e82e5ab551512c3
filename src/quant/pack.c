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

/* ---- units that are not whole ---------------------------------------------------- */

/* Up to 24 symbols as words, and one to reach into: put together in registers, for bytes
 * that are stored one by one and read as words make the processor wait. */
typedef struct rest_unit {
    uint64_t word[4];
} rest_unit;

/* n bytes as a number, 1 <= n <= 8, nothing read behind them. */
static uint64_t load_bytes(const uint8_t *p, uint64_t n) {
    uint64_t v = 0;
    uint32_t four = 0;
    uint16_t two = 0;
    uint64_t at = 0;
    if (n == 8) {
        memcpy(&v, p, sizeof v);
        return v;
    }
    if ((n & 4U) != 0) {
        memcpy(&four, p, sizeof four);
        v = four;
        at = 4;
    }
    if ((n & 2U) != 0) {
        memcpy(&two, p + at, sizeof two);
        v |= (uint64_t)two << (8 * at);
        at += 2;
    }
    return (n & 1U) != 0 ? v | (uint64_t)p[at] << (8 * at) : v;
}

/* Symbols from byte `at` of the unit on. */
static void put(rest_unit *r, uint64_t at, uint64_t symbols) {
    unsigned shift = (unsigned)(at % 8 * 8);
    r->word[at / 8] |= symbols << shift;
    if (shift != 0) {
        r->word[at / 8 + 1] |= symbols >> (64 - shift);
    }
}

/* Adds one plane of u (8, 16 or 24) symbols, shifted left by `shift`; returns its bytes. */
static uint64_t plane_unpack(rest_unit *r, const uint8_t *bytes, uint64_t u, unsigned width,
                             unsigned shift) {
    uint64_t n = u * width / 8;
    uint64_t mask = 0x0101010101010101U * ((1U << width) - 1U);
    for (uint64_t t = 0; t < n; t += 8) {
        uint64_t v = load_bytes(bytes + t, n - t < 8 ? n - t : 8);
        for (unsigned k = 0; k < 8 / width; k++) {
            put(r, k * n + t, (v >> (k * width) & mask) << shift);
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

nq_symbol_rows nq_symbol_rows_of(const nq_scheme *s, uint64_t cols) {
    nq_symbol_rows r = {.kern = nq_kern_best(),
                        .stride = nq_scheme_row_symbols(s, cols),
                        .bytes = nq_scheme_row_bytes(s, cols),
                        .fields = s->fields};
    for (unsigned f = 0; f < s->fields; f++) {
        r.bits[f] = nq_scheme_field_bits(s, f);
        r.unit_bytes += UNIT / 8 * r.bits[f];
    }
    return r;
}

static void unpack_rest(uint8_t *out, const nq_symbol_rows *r, const uint8_t *row, uint64_t u) {
    for (unsigned f = 0; f < r->fields; f++) {
        rest_unit rest = {{0}};
        for (unsigned done = 0; done < r->bits[f];) {
            unsigned width = widest_plane(r->bits[f] - done);
            row += plane_unpack(&rest, row, u, width, done);
            done += width;
        }
        for (uint64_t t = 0; t < u; t += 8) {
            memcpy(out + f * r->stride + t, &rest.word[t / 8], 8);
        }
    }
}

void nq_symbols_unpack_row(uint8_t *out, const nq_symbol_rows *r, const uint8_t *row) {
    uint64_t units = r->stride / UNIT;
    const uint8_t *plane = row;
    for (unsigned f = 0; f < r->fields; f++) {
        for (unsigned done = 0; done < r->bits[f];) {
            unsigned width = widest_plane(r->bits[f] - done);
            r->kern->unpack(out + f * r->stride, plane, units, r->unit_bytes, width, done);
            plane += UNIT / 8 * width;
            done += width;
        }
    }
    if (r->stride % UNIT != 0) {
        unpack_rest(out + units * UNIT, r, row + units * r->unit_bytes, r->stride % UNIT);
    }
}

void nq_symbols_unpack(uint8_t *out, const nq_scheme *s, const uint8_t *row, uint64_t cols) {
    nq_symbol_rows r = nq_symbol_rows_of(s, cols);
    nq_symbols_unpack_row(out, &r, row);
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
