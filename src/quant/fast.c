/* fast.c - see fast.h: products with prepared matrices. */
#include "quant/fast.h"

#include <math.h>
#include <string.h>

#include "base/cpu.h"
#include "kern/kern.h"
#include "quant/fast_impl.h"

uint64_t nq_fast_row_bytes(const nq_fast *f) { return f->row_bytes; }

bool nq_fast_same_input(const nq_fast *a, const nq_fast *b) {
    return a == b ||
           (a->basis == b->basis && a->column_scale == NULL && b->column_scale == NULL &&
            (a->q->row_mean == NULL) == (b->q->row_mean == NULL) && a->lane == b->lane &&
            a->d == b->d && a->plane == b->plane && a->limit == b->limit && a->bias == b->bias);
}

/* ---- activations ------------------------------------------------------------- */

/* work = the input in the basis of the coded matrix; nq_qmat_input() with the signs
 * and column scales looked up. */
static void change_basis(float *work, const nq_fast *f, const float *x) {
    const nq_fast_basis *b = f->basis;
    uint64_t cols = f->q->cols;
    if (b == NULL) {
        memcpy(work, x, cols * sizeof *work);
        return;
    }
    for (uint64_t c = 0; c < cols; c++) {
        work[c] = x[c] * b->factor[c];
    }
    if (b->rotation.block != 0) {
        nq_rotate_mix(work, &b->rotation, 1, cols);
    }
}

/* The largest magnitude; NaN when one of x is no finite number. */
NQ_CPU_CLONES static float largest(const float *x, uint64_t n) {
    float lane[16] = {0};
    float probe[16] = {0}; /* 0 * finite is 0, all else becomes NaN and stays */
    uint64_t i = 0;
    for (; i + 16 <= n; i += 16) {
        for (unsigned l = 0; l < 16; l++) {
            float a = fabsf(x[i + l]);
            lane[l] = a > lane[l] ? a : lane[l];
            probe[l] += a * 0.0F;
        }
    }
    for (; i < n; i++) {
        lane[0] = fabsf(x[i]) > lane[0] ? fabsf(x[i]) : lane[0];
        probe[0] += x[i] * 0.0F;
    }
    for (unsigned l = 1; l < 16; l++) {
        lane[0] = lane[l] > lane[0] ? lane[l] : lane[0];
        probe[0] += probe[l];
    }
    return lane[0] + probe[0];
}

/* Nearest integers of x * inverse, magnitudes below 2^22: adding 1.5 * 2^23 rounds. */
NQ_CPU_CLONES static int32_t round_all(int8_t *out, const float *x, float inverse, uint64_t n) {
    int32_t sum = 0;
    for (uint64_t i = 0; i < n; i++) {
        float shifted = x[i] * inverse + 12582912.0F;
        int32_t bits;
        memcpy(&bits, &shifted, sizeof bits);
        int32_t v = bits - 0x4B400000;
        out[i] = (int8_t)v;
        sum += v;
    }
    return sum;
}

/* out[part*d + v][u*lane + t] = in[(u*32 + part*lane + t)*d + v]; d is a constant
 * after inlining, so that the inner loop becomes shuffles. */
static inline __attribute__((always_inline)) void to_planes(int8_t *out, const int8_t *in,
                                                            uint64_t units, unsigned lane,
                                                            unsigned d, uint64_t plane) {
    for (unsigned part = 0; part < 32 / lane; part++) {
        for (unsigned v = 0; v < d; v++) {
            int8_t *to = out + (part * d + v) * plane;
            const int8_t *from = in + (size_t)part * lane * d + v;
            for (uint64_t u = 0; u < units; u++) {
                for (unsigned t = 0; t < lane; t++) {
                    to[u * lane + t] = from[(u * 32 + t) * d];
                }
            }
        }
    }
}

/* in: whole units, padded with zeros. */
NQ_CPU_CLONES static void arrange(int8_t *out, const int8_t *in, const nq_fast *f) {
    uint64_t units = f->codes.units + (f->codes.tail != NULL ? 1 : 0);
    if (f->lane == 16) {
        switch (f->d) {
        case 1: to_planes(out, in, units, 16, 1, f->plane); return;
        case 2: to_planes(out, in, units, 16, 2, f->plane); return;
        case 3: to_planes(out, in, units, 16, 3, f->plane); return;
        case 4: to_planes(out, in, units, 16, 4, f->plane); return;
        default: to_planes(out, in, units, 16, f->d, f->plane); return;
        }
    }
    switch (f->d) {
    case 1: to_planes(out, in, units, 8, 1, f->plane); return;
    case 2: to_planes(out, in, units, 8, 2, f->plane); return;
    case 3: to_planes(out, in, units, 8, 3, f->plane); return;
    case 4: to_planes(out, in, units, 8, 4, f->plane); return;
    default: to_planes(out, in, units, 8, f->d, f->plane); return;
    }
}

/* Matrices that are decoded first: component v of subvector j at v*stride + j. */
static void arrange_bytes(int8_t *out, const int8_t *in, const nq_fast *f) {
    for (uint64_t c = 0; c < f->q->cols; c++) {
        out[c % f->d * f->plane + c / f->d] = in[c];
    }
}

void nq_fast_prepare(nq_fast_input *in, uint64_t token, const nq_fast *f, const float *x,
                     float *work) {
    uint64_t cols = f->q->cols;
    change_basis(work, f, x);
    float total = 0;
    for (uint64_t c = 0; f->q->row_mean != NULL && c < cols; c++) {
        total += work[c];
    }
    for (uint64_t c = 0; f->column_scale != NULL && c < cols; c++) {
        work[c] *= f->column_scale[c];
    }
    float most = largest(work, cols);
    bool usable = most > 1e-30F; /* not for NaN */
    int8_t *natural = (int8_t *)(void *)(work + cols);
    memset(natural, 0, f->padded_cols);
    int32_t sum = usable ? round_all(natural, work, (float)f->limit / most, cols) : 0;
    int8_t *out = in->x + token * f->row_bytes;
    memset(out, 0, f->row_bytes);
    if (f->lane != 0) {
        arrange(out, natural, f);
    } else {
        arrange_bytes(out, natural, f);
    }
    /* What is no number stays none: NaN in the input is NaN in the output. */
    in->scale[token] = most / (float)f->limit;
    in->sum[token] = sum * f->bias;
    in->total[token] = total;
}

/* ---- products ------------------------------------------------------------------ */

/* binary16 to binary32 as arithmetic, so that the loop becomes vectors: the bits
 * as a binary32 are the value times 2^-112, exactly. */
static inline float widen(uint16_t h) {
    uint32_t bits = ((uint32_t)h & 0x7FFFU) << 13 | ((uint32_t)h & 0x8000U) << 16;
    float f;
    memcpy(&f, &bits, sizeof f);
    f *= 0x1p112F;
    /* Infinities and NaN, exponent 31, must not come out as large numbers. Chosen among
     * integers: a product that might trap would keep the loop from becoming vectors. */
    memcpy(&bits, &f, sizeof f);
    bits |= (h & 0x7C00U) == 0x7C00U ? 0x7F800000U : 0;
    memcpy(&f, &bits, sizeof f);
    return f;
}

NQ_CPU_CLONES static void finish(float *restrict y, const int32_t *restrict sums, const nq_fast *f,
                                 uint64_t row0, uint64_t count, const nq_fast_input *in,
                                 uint64_t token) {
    const uint16_t *scale = f->q->row_scale + row0;
    float s = f->scale * in->scale[token];
    int32_t bias = in->sum[token];
    for (uint64_t i = 0; i < count; i++) {
        y[i] = widen(scale[i]) * (s * (float)(sums[i] - bias));
    }
    for (uint64_t i = 0; f->q->row_mean != NULL && i < count; i++) {
        y[i] += widen(f->q->row_mean[row0 + i]) * in->total[token];
    }
}

/* Rows of bytes, bias included. */
static void decode_rows(uint8_t *out, const nq_fast *f, uint64_t row0, uint64_t count,
                        void *scratch) {
    if (f->lane != 0) {
        f->kern->decode(out, &f->codes, row0, count);
        return;
    }
    nq_qmat_sums(out, f->plane, f->bias, f->q, row0, count, scratch);
}

static uint64_t align64(uint64_t n) { return (n + 63) / 64 * 64; }

/* Tokens whose sums are kept at once. */
#define SUM_TOKENS 256
/* Decoded bytes of rows that one token meets: they stay in the caches of
 * a core, and rows are enough for the tables that decoding makes. */
#define ONE_TOKEN_BYTES (64U << 10)

uint64_t nq_fast_tile_rows(const nq_fast *f) {
    uint64_t rows = (uint64_t)(256 << 10) / f->row_bytes / 8 * 8;
    return rows < 16 ? 16 : rows > 96 ? 96 : rows;
}

static uint64_t rows_at_once(const nq_fast *f) {
    uint64_t rows = ONE_TOKEN_BYTES / f->row_bytes / 4 * 4;
    return rows < 4 ? 4 : rows;
}

uint64_t nq_fast_scratch(const nq_fast *f, uint64_t rows, uint64_t tokens) {
    uint64_t sums = tokens < SUM_TOKENS ? tokens : SUM_TOKENS;
    uint64_t one = f->lane != 0 ? 0 : rows_at_once(f);
    uint64_t decoded = tokens > 1 && rows > one ? rows : one;
    uint64_t bytes = align64(decoded * f->row_bytes);
    return 64 + bytes + align64(rows * sums * sizeof(int32_t)) + align64(nq_qmat_scratch(f->q));
}

/* Scales of rows lie apart from the symbols: asked for first, they are there when the
 * products are done. */
static void fetch_scales(const nq_fast *f, uint64_t row0, uint64_t count) {
    const char *scales = (const char *)(f->q->row_scale + row0);
    const char *end = (const char *)(f->q->row_scale + row0 + count);
    for (; scales < end; scales += 64) {
        __builtin_prefetch(scales);
    }
    __builtin_prefetch(end - 1);
}

/* Rows of symbols that are unpacked before they are looked up; scratch: NQ_PLANE_ALIGN more
 * than one. */
static void unpacked_rows(int32_t *sums, const nq_fast *f, uint64_t row0, uint64_t count,
                          const int8_t *x, uint8_t *scratch) {
    nq_symbol_rows rows = nq_symbol_rows_of(&f->q->scheme, f->q->cols);
    for (uint64_t i = 0; i < count; i++) {
        nq_symbols_unpack_row(scratch, &rows, f->q->symbols + (row0 + i) * rows.bytes);
        sums[i] = f->kern->dot_fields(&f->fields, scratch, x);
    }
}

/* scratch: rows_at_once() decoded rows, then what decoding needs. */
static void one_token(int32_t *sums, const nq_fast *f, uint64_t row0, uint64_t count,
                      const int8_t *x, uint8_t *scratch) {
    if (f->lane != 0) {
        f->kern->gemv(sums, &f->codes, row0, count, x);
        return;
    }
    if (f->q->scheme.kind == NQ_SCHEME_Q8) {
        f->kern->gemv_i8(sums, (const int8_t *)f->q->symbols + row0 * f->q->cols, count, f->q->cols,
                         x);
        return;
    }
    if (f->fields.tables != NULL) {
        unpacked_rows(sums, f, row0, count, x, scratch);
        return;
    }
    uint64_t step = rows_at_once(f);
    uint8_t *rest = scratch + align64(step * f->row_bytes);
    for (uint64_t i = 0; i < count; i += step) {
        uint64_t rows = count - i < step ? count - i : step;
        decode_rows(scratch, f, row0 + i, rows, rest);
        f->kern->gemm(sums + i, rows, scratch, rows, x, 1, f->row_bytes, f->codes.wide);
    }
}

void nq_fast_apply(float *y, uint64_t ldy, const nq_fast *f, uint64_t row0, uint64_t count,
                   const nq_fast_input *in, uint64_t n, void *scratch) {
    uint8_t *p = (uint8_t *)align64((uint64_t)(uintptr_t)scratch);
    uint64_t most = n < SUM_TOKENS ? n : SUM_TOKENS;
    int32_t *sums = (int32_t *)(void *)p;
    p += align64(count * most * sizeof *sums);
    if (n == 1) {
        fetch_scales(f, row0, count);
        one_token(sums, f, row0, count, in->x, p);
        finish(y, sums, f, row0, count, in, 0);
        return;
    }
    decode_rows(p, f, row0, count, p + align64(count * f->row_bytes));
    for (uint64_t t0 = 0; t0 < n; t0 += SUM_TOKENS) {
        uint64_t tokens = n - t0 < SUM_TOKENS ? n - t0 : SUM_TOKENS;
        f->kern->gemm(sums, count, p, count, in->x + t0 * f->row_bytes, tokens, f->row_bytes,
                      f->codes.wide);
        for (uint64_t t = 0; t < tokens; t++) {
            finish(y + (t0 + t) * ldy, sums + t * count, f, row0, count, in, t0 + t);
        }
    }
}
