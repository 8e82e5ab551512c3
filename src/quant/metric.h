/* metric.h - how errors in a matrix count at its output.
 *
 * Owns: the Hessian H = E[x xT] of a linear layer's inputs in the basis the
 * matrix is coded in (column scales, rotation, coding order), its damping, its
 * factor, and the column scales themselves. The output error of coding W as Q is
 * tr((W - Q) H (W - Q)T) (LeCun et al. 1990; Frantar et al. 2022, "GPTQ").
 * Refuses: collecting H (compress/ does), coding (feedback.h).
 *
 * Matrices that read the same input share a metric; it is read-only once open.
 */
#ifndef NQ_QUANT_METRIC_H
#define NQ_QUANT_METRIC_H

#include <stdbool.h>

#include "base/pool.h"
#include "quant/qmat.h"

/* What was seen of the inputs x of a group of matrices; borrowed. */
typedef struct nq_moments {
    uint64_t cols;
    uint64_t samples;   /* inputs seen */
    const float *h;     /* (cols, cols) mean of x xT, both triangles */
    const float *cross; /* (cols, cols) mean of (x0 - x) xT, or NULL: x0 is what the original
                           model would have seen where the coded one sees x */
} nq_moments;

typedef struct nq_metric_options {
    uint64_t seed;
    uint32_t rotation_block; /* largest block; 0: no rotation */
    double column_scales;    /* exponent a of c_j^2 = (E x_j^2)^a; 0: none */
    double damping;          /* share of the mean diagonal added to all of it */
    double ridge;            /* the same for the correction, which must not follow noise */
    bool by_energy;          /* code columns in order of falling energy, not as they stand */
    unsigned order_block;    /* columns that stay neighbours in that order */
    const nq_qmat *basis;    /* the rotation and column scales are those of this matrix, or NULL */
} nq_metric_options;

typedef struct nq_metric {
    uint64_t cols;
    uint64_t samples;
    nq_rotation rotation;
    int8_t *col_exponent; /* (cols) or NULL */
    uint32_t *order;      /* (cols) column coded at each position, or NULL: as they stand */
    double floor;         /* what damping added to the diagonal */
    float *h;             /* (cols, cols) damped, in coding order */
    float *r;             /* (cols, cols) upper triangular, r rT = h, in coding order */
    float *cross;         /* (cols, cols) or NULL, in the coded basis, columns as they stand */
    float *ridge;         /* with cross: like r, of h with more damping, for the correction */
} nq_metric;

/* Few samples (fewer than 4 per column) say little about how columns depend on
 * each other: what is off the diagonal is then scaled down in proportion.
 * Release with nq_metric_close(), whatever the result. */
NOVAQ_CHECK novaq_status nq_metric_open(nq_metric *out, const nq_moments *m,
                                        const nq_metric_options *opt, nq_pool *pool,
                                        novaq_error *err);
void nq_metric_close(nq_metric *m);
/* x (count, cols) in place: inputs, or rows of something that multiplies them,
 * into the coded basis. */
void nq_metric_input(float *x, const nq_metric *m, uint64_t count, nq_pool *pool);

/* w (rows, cols), a matrix in the coded basis, in place: becomes the matrix that
 * gives, on the inputs the coded model sees, as nearly as a matrix can what w
 * gives on the original ones: w + (w cross + residual) (h + ridge)^-1. residual (rows,
 * cols) or NULL: mean of (r0 - r) xT in the coded basis, r0 and r what w's output
 * is added to in the original and in the coded model. share 0-1: how much of the
 * correction is applied. Ridge regression: samples are few beside the columns. */
NOVAQ_CHECK novaq_status nq_metric_correct(float *w, uint64_t rows, const nq_metric *m,
                                           const float *residual, double share, nq_pool *pool,
                                           novaq_error *err);

#endif
