/* loss.h - how far a student is from its teacher, with gradients.
 *
 * Owns: divergence of predictions, distance of residual streams, error of a block's
 * output. Refuses: knowing models; it sees rows of numbers.
 *
 * Threads: rows are tasks of the pool, and sums over them are taken in order.
 */
#ifndef NQ_REFINE_LOSS_H
#define NQ_REFINE_LOSS_H

#include <stdbool.h>

#include "base/pool.h"

/* One set of rows of logits. */
typedef struct nq_loss_rows {
    const float *student; /* (n, vocab) */
    float *teacher;       /* (n, vocab), overwritten */
    const int32_t *next;  /* (n) tokens that came, or NULL; below 0: none */
    uint64_t n, vocab;
    float temperature; /* above 0; logits are divided by it */
    float weight;      /* of the gradient */
} nq_loss_rows;

/* What rows add up to. */
typedef struct nq_loss_sums {
    double kl;  /* nats, of predictions at the given temperature, times its square */
    double nll; /* nats, of tokens that came, by the student at temperature 1 */
    uint64_t rows, scored;
} nq_loss_sums;

/* *sums += those of the rows; dlogits (n, vocab) = weight times the gradient of kl by the
 * student's logits, unless NULL. scratch: (2 n) doubles, and (n, vocab) floats where
 * dlogits is NULL. */
void nq_loss_kl(nq_loss_sums *sums, float *dlogits, const nq_loss_rows *rows, double *scratch,
                float *scratch_rows, nq_pool *pool);

/* The same where of the teacher's predictions only the k largest are known one by one. */
typedef struct nq_loss_top {
    const float *student; /* (n, vocab) */
    const uint32_t *ids;  /* (n, k) the tokens they are of, none twice in a row, below vocab */
    float *logs;          /* (n, k) their logarithms at temperature 1, overwritten */
    const float *rest;    /* (n) sum of what exp(log / temperature) is for all others */
    float *kept;          /* (n, k) scratch */
    const int32_t *next;  /* as in nq_loss_rows, as are the following */
    uint64_t n, k, vocab;
    float temperature;
    float weight;
} nq_loss_top;

/* As nq_loss_kl(), of k + 1 outcomes: all that are not kept count as one,
 *   sum_kept p log(p / q) + p_r log(p_r / q_r),
 * at most the divergence of all of them and equal to it where k is vocab. Gradient by a
 * logit that is not kept: q (1 - p_r / q_r), which leaves alone how the student divides
 * q_r. */
void nq_loss_kl_top(nq_loss_sums *sums, float *dlogits, const nq_loss_top *rows, double *scratch,
                    float *scratch_rows, nq_pool *pool);

/* Sum over rows of 1 - cos(teacher, student), both (n, dim); dstudent += weight times its
 * gradient, unless NULL. Rows of zeros are at distance 0. scratch: (n) doubles. */
double nq_loss_cosine(float *dstudent, const float *teacher, const float *student, uint64_t n,
                      uint64_t dim, float weight, double *scratch, nq_pool *pool);

/* Sum of squared differences; dstudent (count) = weight times its gradient, unless NULL. */
double nq_loss_square(float *dstudent, const float *teacher, const float *student, uint64_t count,
                      float weight);

#endif
