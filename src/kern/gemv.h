/* gemv.h - integer products with coded weights, one table per instruction set.
 *
 * Owns: y = W x for matrices whose rows are packed symbols (docs/FORMAT.md,
 * "Symbols") and activations of 8 bits: unpack, look up, add the levels, multiply
 * and sum in int32, all in registers. Refuses: scales, floats, threads; see
 * quant/fast.h, which prepares the tables and activations.
 *
 * Every variant computes the same int32 numbers, bit for bit: integer sums have
 * no order. Products with weights that are no codes (dot_f16 and on) are floats and
 * round differently on each. Rows of matrices are independent, so any split over threads gives
 * the same.
 *
 * Layout. 32 symbols are a unit. Symbol s of unit u, component v meets
 *   x[part*d + v][u*lane + s % lane],  part = s / lane,  lane = 16 (4 bits) or 8,
 * planes of x_plane bytes, padded with zeros: "plane order". One vector of a
 * plane holds several units, as many on every instruction set as fit.
 */
#ifndef NQ_KERN_GEMV_H
#define NQ_KERN_GEMV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Planes are padded to this many bytes, tables repeated to as many. */
#define NQ_PLANE_ALIGN 64
/* Bytes of one row of the table of expanded last units. */
#define NQ_TAIL_BYTES 16
/* Weights of a block of Q8_0, and its bytes. */
#define NQ_Q8_0_WEIGHTS 32
#define NQ_Q8_0_BYTES   34

/* A coded matrix, ready for products. Entries are bytes that mean entry - bias,
 * so that sums of levels are never negative on the instruction sets that multiply
 * unsigned by signed bytes; the bias is in the entries of the newest symbol. */
typedef struct nq_codes {
    unsigned bits;   /* of a symbol: 4, 3 or 2 */
    unsigned d;      /* components of a subvector: 1 to 8 */
    unsigned levels; /* 1 to 3: this row's symbol, the row's above, the one's above that */
    uint64_t units;  /* whole units of a row */
    uint64_t row_bytes;
    uint32_t segment_rows;  /* above the first row of a segment, symbols are 0 */
    const uint8_t *symbols; /* (rows, row_bytes) */
    uint64_t bytes;         /* of all symbols: what may be read */
    const uint8_t *tail;    /* (rows, NQ_TAIL_BYTES) a last partial unit, made whole with
                               symbol 0; or NULL */
    /* 16-byte tables [table*d + v][table_plane], the 16 bytes at u*lane belonging to
     * unit u; or, with table_plane == NQ_PLANE_ALIGN, one table for all units, repeated.
     * 4 and 3 bits: table l is level l, index the symbol (twice 8 entries for 3 bits).
     * 2 bits: table 0 has levels 0 and 1, index symbol + 4 * the one above; table 1
     * level 2, index 4 * the oldest symbol + anything. */
    const uint8_t *tables;
    uint64_t table_plane;
    /* 3 bits, one table for all units: [2][d][64], the pair of symbols a (this row), b
     * (above) at (a & 3) | (b & 3) << 2 | (a >> 2) << 4 | (b >> 2) << 5; the second half
     * is level 2 by b. NULL otherwise. */
    const uint8_t *pairs;
    uint64_t x_plane; /* bytes of a plane */
    bool wide; /* entries and activations are too large for the sum of two products in 16 bits */
} nq_codes;

/* Rows whose fields are looked up one by one, all of the row itself: product quantization. */
typedef struct nq_fields {
    unsigned fields;       /* 1 or 2 */
    unsigned d;            /* components of a subvector */
    uint64_t stride;       /* symbols of a row */
    const uint8_t *tables; /* (fields, d, NQ_PLANE_ALIGN) 16 entries, repeated; bias in the first */
    uint64_t x_plane;      /* bytes of a plane: component v of subvector j meets x[v][j] */
} nq_fields;

typedef struct nq_gemv_kern {
    const char *name;
    bool signed_bytes; /* weights are signed bytes: bias 0; else unsigned */
    bool narrow;       /* prefers activations so small that nothing is wide */
    /* y[i] = sum over columns of (w(row0+i, c) + bias) * x[c]. */
    void (*gemv)(int32_t *y, const nq_codes *c, uint64_t row0, uint64_t count, const int8_t *x);
    /* The rows' bytes in plane order, (count, parts*d*x_plane), bias included. */
    void (*decode)(uint8_t *out, const nq_codes *c, uint64_t row0, uint64_t count);
    /* y[t*ldy + i] = sum of w[i][c] * x[t][c], c < n, n a multiple of NQ_PLANE_ALIGN. */
    void (*gemm)(int32_t *y, uint64_t ldy, const uint8_t *w, uint64_t rows, const int8_t *x,
                 uint64_t tokens, uint64_t n, bool wide);
    /* y[i] = sum of (w[i*n + c] + 128) * x[c], c < n; without the 128 on signed_bytes. x is
     * padded with zeros to NQ_PLANE_ALIGN, w is not. */
    void (*gemv_i8)(int32_t *y, const int8_t *w, uint64_t rows, uint64_t n, const int8_t *x);
    /* The sum of (w(c) + bias) * x[c] of one row; symbols (fields, stride), each below 16, may
     * be read to the next multiple of NQ_PLANE_ALIGN, where x is 0. */
    int32_t (*dot_fields)(const nq_fields *f, const uint8_t *symbols, const int8_t *x);
    /* sum of a[i] * x[i]; a: binary16, bfloat16. */
    float (*dot_f16)(const uint16_t *a, const float *x, uint64_t n);
    float (*dot_bf16)(const uint16_t *a, const float *x, uint64_t n);
    /* The same with GGUF's Q8_0: a binary16 scale and 32 int8, 34 bytes, for each 32 of n. */
    float (*dot_q8_0)(const uint8_t *blocks, const float *x, uint64_t n);
} nq_gemv_kern;

extern const nq_gemv_kern nq_gemv_scalar;
extern const nq_gemv_kern nq_gemv_avx2;    /* x86-64 */
extern const nq_gemv_kern nq_gemv_avx512;  /* x86-64: without VNNI */
extern const nq_gemv_kern nq_gemv_vnni;    /* x86-64: with VNNI */
extern const nq_gemv_kern nq_gemv_vbmi;    /* x86-64: with VNNI and VBMI */
extern const nq_gemv_kern nq_gemv_neon;    /* AArch64 */
extern const nq_gemv_kern nq_gemv_dotprod; /* AArch64 with dot products */

/* The best table for nq_cpu_features() bits. */
const nq_gemv_kern *nq_gemv_for(unsigned features);

/* Symbols of one lane, and lanes of a unit. */
static inline unsigned nq_codes_lane(unsigned bits) { return bits == 4 ? 16 : 8; }
static inline unsigned nq_codes_parts(unsigned bits) { return 32 / nq_codes_lane(bits); }
/* Bytes of a row in plane order. */
static inline uint64_t nq_codes_row(const nq_codes *c) {
    return (uint64_t)nq_codes_parts(c->bits) * c->d * c->x_plane;
}

#endif
