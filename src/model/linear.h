/* linear.h - y = W x for every way a weight matrix is stored.
 *
 * Owns: tiling of the products over the thread pool. Output rows are cut into
 * tiles whose results do not depend on their size or on the number of threads.
 * Float products are exact but for rounding; integer products (`fast`) round the
 * activations to 8 bits. Refuses: knowing what the matrices mean.
 */
#ifndef NQ_MODEL_LINEAR_H
#define NQ_MODEL_LINEAR_H

#include "base/pool.h"
#include "model/weights.h"
#include "quant/fast.h"

/* Output rows of one task. */
#define NQ_TILE_ROWS 96
/* Inputs (tokens) of one task. */
#define NQ_TILE_TOKENS 1024
/* Matrices that share their input, at most. */
#define NQ_GROUP_MAX 4

typedef struct nq_linear {
    nq_weights *weights; /* borrowed; where rows are read that are not in memory */
    const nq_weight *w;  /* rows = outputs, cols = inputs; NULL: not bound */
    const float *dense;  /* (rows, cols), borrowed; NULL: decoded, or read as stored */
    uint64_t row0;       /* the part of w that this matrix is: its first row, */
    uint64_t rows;       /* and how many; 0: all of w. dense starts at row0 */
    const nq_fast *fast; /* w prepared for integer products, or NULL: float32 */
} nq_linear;

/* Outputs of l. */
static inline uint64_t nq_linear_rows(const nq_linear *l) {
    return l->rows != 0 ? l->rows : l->w->rows;
}

/* Scratch of the products: a decoded tile per worker, prepared inputs. */
typedef struct nq_linear_work nq_linear_work;

/* For matrices up to max_cols inputs and scratch_bytes of nq_qmat_scratch(),
 * and at most max_tokens inputs at once. pool is borrowed, NULL is one thread. */
NOVAQ_CHECK novaq_status nq_linear_work_open(nq_linear_work **out, nq_pool *pool, uint64_t max_cols,
                                             uint64_t scratch_bytes, uint64_t max_tokens,
                                             novaq_error *err);
/* Makes room for matrices with `fast` set: nq_fast_row_bytes() and
 * nq_linear_fast_scratch() of the largest. */
NOVAQ_CHECK novaq_status nq_linear_work_fast(nq_linear_work *work, uint64_t row_bytes,
                                             uint64_t scratch_bytes, novaq_error *err);
/* Scratch of one worker for products with f. */
uint64_t nq_linear_fast_scratch(const nq_fast *f);
void nq_linear_work_close(nq_linear_work **work);

/* y[g] (n, rows of l[g]) = x (n, cols) * transposed l[g], for count <=
 * NQ_GROUP_MAX matrices of equal cols. */
NOVAQ_CHECK novaq_status nq_linear_apply(float *const *y, const nq_linear *const *l, unsigned count,
                                         const float *x, uint64_t n, nq_linear_work *work,
                                         novaq_error *err);

/* Says that these matrices are the next to be applied to one token: idle threads begin
 * to fetch them. A hint only. */
void nq_linear_expect(const nq_linear *const *l, unsigned count, nq_linear_work *work);

#endif
