/* matrix.h - a weight matrix in training: y = W x and its derivatives.
 *
 * Owns: the float copies of codebooks, row scales, row means and column scales of a
 * coded matrix, decoding them to floats, the gradient of each from the gradient of W
 * (docs/METHOD.md, refinement). A matrix that is not coded is constant: only the
 * gradient of its input is made. Refuses: changing symbols, knowing where in a model
 * the matrix stands.
 *
 * W as the codec has it (quant/qmat.h), rotated basis, x' = x C^-1 Dt Ht:
 *   W'(i, j*d + v) = exp(log_scale[i]) s_i sum_k B[g][k][symbol][v] + mean[i]
 * with s_i and B the stored values in float (s_i includes the matrix's exponent, B the
 * group's scale).
 *
 * Threads: one matrix at a time; the work inside is spread over the pool in pieces
 * that do not depend on the number of threads, so results do not either.
 */
#ifndef NQ_REFINE_MATRIX_H
#define NQ_REFINE_MATRIX_H

#include "base/pool.h"
#include "model/linear.h"
#include "refine/param.h"

typedef struct nq_tmatrix {
    nq_linear source; /* what it was made of; its w gives name and shape */
    uint64_t rows, cols;
    const nq_qmat *q;    /* NULL: constant. Symbols, rotation, shapes; borrowed */
    uint32_t groups;     /* codebook groups in training, at least q's */
    uint64_t group_cols; /* columns of each, the last may have fewer */
    float *codebooks;    /* (groups, entries of all levels, d), owned as are all below */
    float *row_scale;    /* (rows) s_i: stored values, constant */
    float *factor;       /* (cols) of the inputs before they are mixed: signs of the
                            rotation times what undoes stored column scales; constant */
    float *log_scale;    /* (rows) learnt, 0 at first */
    float *row_mean;     /* (rows), NULL: none */
    float *col_scale;    /* (cols) log of what divides x_j beyond the stored scale, 0 at
                            first; NULL: none stored */
    float *grad_codebooks, *grad_log_scale, *grad_row_mean, *grad_col_scale;
} nq_tmatrix;

/* Buffers that matrices of one net share: a decoded matrix, the gradient of one,
 * rotated inputs, partial sums. */
typedef struct nq_tmatrix_work nq_tmatrix_work;

/* group_cols: columns of a codebook group in training, rounded up to what integer kernels
 * have a table for, 32 subvectors (64 where symbols have 3 or 2 bits); each stored group is copied
 * to those it is cut into. 0, or where stored groups cannot be cut like that: as stored. A part of
 * a coded tensor (an expert) shares its codebooks with the others, so they stay as they are: only
 * its rows' scales and means are learnt. frozen: nothing is, and there is no memory for
 * gradients. The matrix of `source` must outlive *out. */
NOVAQ_CHECK novaq_status nq_tmatrix_open(nq_tmatrix *out, const nq_linear *source,
                                         uint64_t group_cols, bool frozen, novaq_error *err);
void nq_tmatrix_close(nq_tmatrix *m);
/* Parameters of m, at most 4, into list; their number. */
unsigned nq_tmatrix_params(nq_param *list, nq_tmatrix *m);

/* For matrices up to max_elements and inputs of up to max_tokens tokens (also the most
 * ids of a lookup), max_cols wide and giving max_rows outputs. pool is borrowed. */
NOVAQ_CHECK novaq_status nq_tmatrix_work_open(nq_tmatrix_work **out, nq_pool *pool,
                                              uint64_t max_elements, uint64_t max_rows,
                                              uint64_t max_cols, uint64_t max_tokens,
                                              novaq_error *err);
void nq_tmatrix_work_close(nq_tmatrix_work **w);
/* Products from now on round what they multiply to bfloat16, where this CPU is faster so
 * (sums stay floats): a relative error of about 2^-9 in each product. */
NOVAQ_CHECK novaq_status nq_tmatrix_work_halves(nq_tmatrix_work *w, novaq_error *err);

/* y (n, rows) = x (n, cols) times transposed W. */
NOVAQ_CHECK novaq_status nq_tmatrix_forward(float *y, const nq_tmatrix *m, const float *x,
                                            uint64_t n, nq_tmatrix_work *w, novaq_error *err);
/* From dy (n, rows), the gradient of a loss, and the input x (n, cols) of the forward
 * pass: dx (n, cols) += its gradient (dx may be NULL: not wanted), and the gradients of
 * m's parameters += theirs (unless frozen). */
NOVAQ_CHECK novaq_status nq_tmatrix_backward(float *dx, nq_tmatrix *m, const float *dy,
                                             const float *x, uint64_t n, bool frozen,
                                             nq_tmatrix_work *w, novaq_error *err);
/* x (n, cols) = rows `ids` of W itself (rotation undone), as an embedding is looked up;
 * and the gradient of that: dx (n, cols) is spread to m's parameters. */
NOVAQ_CHECK novaq_status nq_tmatrix_lookup(float *x, const nq_tmatrix *m, const int32_t *ids,
                                           uint64_t n, nq_tmatrix_work *w, novaq_error *err);
NOVAQ_CHECK novaq_status nq_tmatrix_lookup_backward(nq_tmatrix *m, const float *dx,
                                                    const int32_t *ids, uint64_t n,
                                                    nq_tmatrix_work *w, novaq_error *err);

/* C (m, n) = or += A B over the pool, one BLAS thread each, in tiles that do not depend on
 * the number of threads; row-major with leading dimensions; ta, tb: A (k, m), B (n, k)
 * stored transposed. */
void nq_gemm(nq_pool *pool, bool ta, bool tb, uint64_t m, uint64_t n, uint64_t k, const float *a,
             uint64_t lda, const float *b, uint64_t ldb, bool add, float *c, uint64_t ldc);

#endif
