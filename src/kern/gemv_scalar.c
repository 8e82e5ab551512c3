/* gemv_scalar.c - products with coded weights in plain C: the reference the other
 * variants are held against, written from the layout in gemv.h, one weight at a
 * time. */
#include <string.h>

#include "kern/gemv.h"

/* Symbol s of a unit of 32; see docs/FORMAT.md, "Symbols". */
static unsigned unit_symbol(const uint8_t *unit, unsigned bits, unsigned s) {
    if (bits == 4) {
        return (unsigned)unit[s % 16] >> (s / 16 * 4) & 15U;
    }
    unsigned low = (unsigned)unit[s % 8] >> (s / 8 * 2) & 3U;
    return bits == 2 ? low : low | ((unsigned)unit[8 + s % 4] >> (s / 4) & 1U) << 2;
}

/* Symbol s of unit u at `lag` rows above row; 0 above the segment. */
static unsigned symbol_at(const nq_codes *c, uint64_t row, unsigned lag, uint64_t u, unsigned s) {
    if (row % c->segment_rows < lag) {
        return 0;
    }
    uint64_t from = row - lag;
    const uint8_t *unit = u < c->units ? c->symbols + from * c->row_bytes + u * c->bits * 4
                                       : c->tail + from * NQ_TAIL_BYTES;
    return unit_symbol(unit, c->bits, s);
}

static unsigned entry(const nq_codes *c, unsigned table, unsigned v, uint64_t at, unsigned index) {
    return c->tables[(table * c->d + v) * c->table_plane + at + index];
}

/* Component v of the weight bytes of symbol s in unit u. */
static uint8_t weight(const nq_codes *c, uint64_t row, uint64_t u, unsigned s, unsigned v) {
    uint64_t at = c->table_plane == NQ_PLANE_ALIGN ? 0 : u * nq_codes_lane(c->bits) / 16 * 16;
    unsigned a = symbol_at(c, row, 0, u, s);
    unsigned b = symbol_at(c, row, 1, u, s);
    unsigned old = symbol_at(c, row, 2, u, s);
    if (c->bits == 2) {
        unsigned sum = entry(c, 0, v, at, a | b << 2);
        return (uint8_t)(c->levels > 2 ? sum + entry(c, 1, v, at, old << 2) : sum);
    }
    unsigned sum = entry(c, 0, v, at, a);
    sum += c->levels > 1 ? entry(c, 1, v, at, b) : 0;
    sum += c->levels > 2 ? entry(c, 2, v, at, old) : 0;
    return (uint8_t)sum;
}

static void decode(uint8_t *out, const nq_codes *c, uint64_t row0, uint64_t count) {
    unsigned lane = nq_codes_lane(c->bits);
    uint64_t units = c->units + (c->tail != NULL ? 1 : 0);
    memset(out, 0, count * nq_codes_row(c));
    for (uint64_t i = 0; i < count; i++, out += nq_codes_row(c)) {
        for (uint64_t u = 0; u < units; u++) {
            for (unsigned s = 0; s < 32; s++) {
                for (unsigned v = 0; v < c->d; v++) {
                    out[(s / lane * c->d + v) * c->x_plane + u * lane + s % lane] =
                        weight(c, row0 + i, u, s, v);
                }
            }
        }
    }
}

static int32_t dot(const uint8_t *w, const int8_t *x, uint64_t n) {
    int32_t sum = 0;
    for (uint64_t i = 0; i < n; i++) {
        sum += (int32_t)w[i] * x[i];
    }
    return sum;
}

static void gemv(int32_t *y, const nq_codes *c, uint64_t row0, uint64_t count, const int8_t *x) {
    unsigned lane = nq_codes_lane(c->bits);
    uint64_t units = c->units + (c->tail != NULL ? 1 : 0);
    for (uint64_t i = 0; i < count; i++) {
        y[i] = 0;
        for (uint64_t u = 0; u < units; u++) {
            for (unsigned s = 0; s < 32; s++) {
                const int8_t *xs = x + s / lane * c->d * c->x_plane + u * lane + s % lane;
                for (unsigned v = 0; v < c->d; v++) {
                    y[i] += (int32_t)weight(c, row0 + i, u, s, v) * xs[v * c->x_plane];
                }
            }
        }
    }
}

static void gemm(int32_t *y, uint64_t ldy, const uint8_t *w, uint64_t rows, const int8_t *x,
                 uint64_t tokens, uint64_t n, bool wide) {
    (void)wide;
    for (uint64_t t = 0; t < tokens; t++) {
        for (uint64_t r = 0; r < rows; r++) {
            y[t * ldy + r] = dot(w + r * n, x + t * n, n);
        }
    }
}

static void gemv_i8(int32_t *y, const int8_t *w, uint64_t rows, uint64_t n, const int8_t *x) {
    for (uint64_t i = 0; i < rows; i++) {
        y[i] = 0;
        for (uint64_t c = 0; c < n; c++) {
            y[i] += ((int32_t)w[i * n + c] + 128) * x[c];
        }
    }
}

static int32_t dot_fields(const nq_fields *f, const uint8_t *symbols, const int8_t *x) {
    int32_t sum = 0;
    for (uint64_t j = 0; j < f->stride; j++) {
        for (unsigned v = 0; v < f->d; v++) {
            uint8_t w = f->tables[(size_t)v * NQ_PLANE_ALIGN + symbols[j]];
            if (f->fields > 1) {
                w = (uint8_t)(w + f->tables[(size_t)(f->d + v) * NQ_PLANE_ALIGN +
                                            symbols[f->stride + j]]);
            }
            sum += (int32_t)w * x[v * f->x_plane + j];
        }
    }
    return sum;
}

static float binary16(uint16_t h) {
    unsigned exponent = (unsigned)h >> 10 & 31U;
    uint32_t bits = ((uint32_t)h & 0x8000U) << 16 | ((uint32_t)h & 0x3FFU) << 13;
    float f;
    if (exponent == 0) { /* zero and subnormal numbers: a multiple of 2^-24 */
        f = (float)(h & 0x3FFU) * 0x1p-24F;
        return (h & 0x8000U) != 0 ? -f : f;
    }
    bits |= exponent == 31 ? 0x7F800000U : (exponent + 112) << 23;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static float dot_f16(const uint16_t *a, const float *x, uint64_t n) {
    float sum = 0;
    for (uint64_t i = 0; i < n; i++) {
        sum += binary16(a[i]) * x[i];
    }
    return sum;
}

static float dot_bf16(const uint16_t *a, const float *x, uint64_t n) {
    float sum = 0;
    for (uint64_t i = 0; i < n; i++) {
        uint32_t bits = (uint32_t)a[i] << 16;
        float f;
        memcpy(&f, &bits, sizeof f);
        sum += f * x[i];
    }
    return sum;
}

static float dot_q8_0(const uint8_t *blocks, const float *x, uint64_t n) {
    float sum = 0;
    for (uint64_t i = 0; i < n; i += NQ_Q8_0_WEIGHTS, blocks += NQ_Q8_0_BYTES) {
        float part = 0;
        for (unsigned j = 0; j < NQ_Q8_0_WEIGHTS; j++) {
            part += (float)(int8_t)blocks[2 + j] * x[i + j];
        }
        sum += binary16((uint16_t)(blocks[0] | blocks[1] << 8)) * part;
    }
    return sum;
}

const nq_gemv_kern nq_gemv_scalar = {"scalar", false,      false,   gemv,     decode,  gemm,
                                     gemv_i8,  dot_fields, dot_f16, dot_bf16, dot_q8_0};
