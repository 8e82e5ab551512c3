/* qmat.h - a quantized matrix, as it lies on disk and in memory.
 *
 * Owns: the meaning of the pieces (docs/FORMAT.md states every byte) and
 * decoding them. Refuses: allocation of pieces; they are mapped or borrowed.
 *
 * w'(i, j*d + v) = 2^exponent * row_scale[i] * codebook_scale[g]
 *                  * sum_k C[g][k][field_k(symbol(i - lag_k, j))][v] + row_mean[i]
 * with g the codebook group of column j*d, and symbol 0 above the first row of a
 * segment. w' is the rotated matrix W C Dt Ht: C = diag(2^(e_j/2)) are the column
 * scales, if there are any, Dt Ht the rotation, see rotate.h.
 */
#ifndef NQ_QUANT_QMAT_H
#define NQ_QUANT_QMAT_H

#include "quant/rotate.h"
#include "quant/scheme.h"

#define NQ_COL_EXPONENT_MAX 64

typedef struct nq_qmat {
    nq_scheme scheme; /* CODE or Q8 */
    uint64_t rows;    /* outputs */
    uint64_t cols;    /* inputs */
    uint32_t segment_rows;
    uint32_t groups;     /* codebook groups along the columns, at least 1 */
    uint64_t group_cols; /* columns per group, a multiple of d (last may be short) */
    int32_t exponent;
    nq_rotation rotation;
    const uint8_t *symbols;         /* (rows, row_bytes); int8 values for Q8 */
    const int8_t *codebooks;        /* (groups, levels, K_field, d); NULL for Q8 */
    const uint16_t *codebook_scale; /* (groups) binary16; NULL for Q8 */
    const uint16_t *row_scale;      /* (rows) binary16 */
    const uint16_t *row_mean;       /* (rows) binary16, or NULL */
    const int8_t *col_exponent;     /* (cols) or NULL: column j was multiplied by 2^(e/2) before
                                       the rotation, |e| <= NQ_COL_EXPONENT_MAX */
} nq_qmat;

/* Byte sizes of the pieces, for writers and validators. */
uint64_t nq_qmat_symbol_bytes(const nq_qmat *q);
uint64_t nq_qmat_codebook_bytes(const nq_qmat *q);

/* Symbols of one row, field f of subvector j at out[f*stride + j], where stride
 * is nq_scheme_row_symbols(). */
void nq_symbols_unpack(uint8_t *out, const nq_scheme *s, const uint8_t *row, uint64_t cols);
/* The same for many rows of one shape. */
typedef struct nq_symbol_rows {
    const struct nq_kern *kern;
    uint64_t stride;     /* symbols of a row and field, padded */
    uint64_t bytes;      /* of a packed row */
    uint64_t unit_bytes; /* of 32 symbols */
    unsigned fields;
    unsigned bits[NQ_MAX_FIELDS];
} nq_symbol_rows;
nq_symbol_rows nq_symbol_rows_of(const nq_scheme *s, uint64_t cols);
void nq_symbols_unpack_row(uint8_t *out, const nq_symbol_rows *r, const uint8_t *row);
void nq_symbols_pack(uint8_t *row, const nq_scheme *s, const uint8_t *symbols, uint64_t cols);

/* Scratch bytes that nq_qmat_decode() needs. */
uint64_t nq_qmat_scratch(const nq_qmat *q);
/* Rows [row0, row0+count) of w' (rotated domain), out (count, cols) row-major.
 * Starts anywhere; symbols of the rows above are unpacked as needed.
 * Thread-safe; each thread its own scratch. */
void nq_qmat_decode(float *out, const nq_qmat *q, uint64_t row0, uint64_t count, void *scratch);
/* The same with rotation and column scales undone: rows of W itself. */
void nq_qmat_decode_plain(float *out, const nq_qmat *q, uint64_t row0, uint64_t count,
                          void *scratch);
/* What undoes the column scale 2^(e/2): 2^(-e/2) as binary32, for any e. */
float nq_col_factor(int8_t e);
/* x (count, cols) in place: activations into the basis of the coded matrix,
 * x C^-1 Dt Ht. */
void nq_qmat_input(float *x, const nq_qmat *q, uint64_t count);
/* y[i] = sum_j W(i,j) x[j] for rows [row0, row0+count), where xr is x after
 * nq_qmat_input(). y[0] is row row0. */
void nq_qmat_gemv(float *y, const nq_qmat *q, uint64_t row0, uint64_t count, const float *xr,
                  void *scratch);

/* `first` plus the sums of codebook entries (values of Q8), modulo 256, of rows
 * [row0, row0+count): component v of subvector j at out[v*plane + j], plane at least
 * nq_scheme_row_symbols() (cols for Q8); rows d*plane apart. What pads is not
 * written, or means nothing. */
void nq_qmat_sums(uint8_t *out, uint64_t plane, int first, const nq_qmat *q, uint64_t row0,
                  uint64_t count, void *scratch);

/* Structural check of untrusted parameters (not of piece sizes). */
NOVAQ_CHECK novaq_status nq_qmat_check(const nq_qmat *q, const char *name, novaq_error *err);

#endif
