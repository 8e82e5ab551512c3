/* matrix_impl.h - what matrix.c and matrix_gradient.c share.
 *
 * Owns: the buffers of a work, and how rows of a matrix are gone through: in chunks
 * that fit a buffer, symbols unpacked row by row. Refuses: use outside matrix*.c.
 */
#ifndef NQ_REFINE_MATRIX_IMPL_H
#define NQ_REFINE_MATRIX_IMPL_H

#include "kern/gemm.h"
#include "refine/matrix.h"

/* Floats of a decoded chunk, unless fewer than NQ_TMATRIX_ROWS rows would fit. */
#define NQ_TMATRIX_CHUNK ((uint64_t)1 << 22)
/* Rows one task decodes; chunks hold a multiple of it. */
#define NQ_TMATRIX_ROWS 32
/* Pieces whose codebook gradients are summed apart. */
#define NQ_TMATRIX_PIECES 16
/* Rows of activations that one task brings into a basis. */
#define NQ_TMATRIX_TOKENS 8

/* Words of 32 bits for packed pairs of bfloat16. */
#define NQ_HALVES_WORDS ((uint64_t)1 << 22)

/* How products of numbers rounded to bfloat16 are made; kernel NULL: of floats. */
typedef struct nq_halves {
    const nq_gemm16 *kernel;
    uint32_t *memory; /* (NQ_HALVES_WORDS) */
} nq_halves;

struct nq_tmatrix_work {
    nq_pool *pool;
    unsigned threads;
    nq_halves halves;
    uint64_t max_rows, max_cols, max_tokens;
    uint64_t chunk_floats;
    float *chunk;      /* decoded rows */
    float *chunk_grad; /* gradients of them */
    float *input;      /* (max_tokens, max_cols) in the matrix's basis */
    float *input_grad; /* (max_tokens, max_cols) */
    float *factor;     /* (max_cols) of the inputs, column scales in training included */
    float *row_dot;    /* (max_tokens) of lookups: gradients of log scales */
    float *row_sum;    /* (max_tokens) of lookups: gradients of row means */
    float *partial;    /* (pieces, entries of all groups) */
    uint64_t partial_floats;
    uint8_t *symbols; /* (threads, symbol_bytes): rows of unpacked symbols */
    uint64_t symbol_bytes;
    novaq_status *status; /* (threads): first failure of each worker */
    novaq_error *errors;  /* (threads) */
};

/* Unpacked symbols of a row and of those above it, in a ring of one worker. */
typedef struct nq_tmatrix_ring {
    const nq_qmat *q;
    uint8_t *base;
    uint64_t stride, bytes; /* symbols of a field; bytes of a row */
    nq_symbol_rows rows;
    uint64_t next;       /* the row that would be unpacked next */
    const uint8_t *zero; /* a row of symbol 0 */
} nq_tmatrix_ring;

/* row: of the tensor, where reading begins. */
void nq_tmatrix_ring_open(nq_tmatrix_ring *r, const nq_qmat *q, uint64_t row, uint8_t *memory);
/* Unpacks row (the next one) and finds the symbols each level reads. */
void nq_tmatrix_ring_step(const uint8_t *level[NQ_MAX_LEVELS], nq_tmatrix_ring *r, uint64_t row);

/* Whether m has symbols and codebooks. */
static inline bool nq_tmatrix_coded(const nq_tmatrix *m) {
    return m->q != NULL && m->q->scheme.kind == NQ_SCHEME_CODE;
}
/* Floats of one group of codebooks. */
static inline uint64_t nq_tmatrix_book(const nq_tmatrix *m) {
    return nq_scheme_codebook_bytes(&m->q->scheme);
}
/* What a sum of codebook entries (a value of q8) is multiplied by. */
float nq_tmatrix_row_factor(const nq_tmatrix *m, uint64_t row);
/* Rows of a chunk. */
uint64_t nq_tmatrix_chunk_rows(const nq_tmatrix *m, const nq_tmatrix_work *w);
/* Rows [row0, row0+count) of the coded W' into out (count, cols). */
void nq_tmatrix_decode(float *out, const nq_tmatrix *m, uint64_t row0, uint64_t count,
                       uint8_t *symbols);
/* *out: the rows as floats, in w->chunk or where they are. */
NOVAQ_CHECK novaq_status nq_tmatrix_chunk(const float **out, const nq_tmatrix *m, uint64_t row0,
                                          uint64_t count, nq_tmatrix_work *w, novaq_error *err);
/* w->factor = what inputs are multiplied by before they are mixed; m->factor is set. */
void nq_tmatrix_factor(const nq_tmatrix *m, nq_tmatrix_work *w);
/* x in the matrix's basis, in w->input or where it is. */
const float *nq_tmatrix_input(const nq_tmatrix *m, const float *x, uint64_t n, nq_tmatrix_work *w);
/* nq_gemm(), of numbers rounded to bfloat16 where halves has a kernel. */
void nq_gemm_with(const nq_halves *halves, nq_pool *pool, bool ta, bool tb, uint64_t m, uint64_t n,
                  uint64_t k, const float *a, uint64_t lda, const float *b, uint64_t ldb, bool add,
                  float *c, uint64_t ldc);
/* NOVAQ_E_ARG when m or n is more than w was opened for. */
NOVAQ_CHECK novaq_status nq_tmatrix_fits(const nq_tmatrix *m, uint64_t n, const nq_tmatrix_work *w,
                                         novaq_error *err);

static inline uint64_t smaller(uint64_t a, uint64_t b) { return a < b ? a : b; }

#endif
