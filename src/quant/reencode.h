/* reencode.h - other symbols for a matrix that is coded already.
 *
 * Owns: choosing symbols by the search of feedback.h under what is given: codebooks of
 * every group of columns, scales and means of rows, rotation, column scales, all as they
 * are stored and none of them changed. Refuses: q8, which has no codebooks; choosing
 * anything but symbols (encode.h does).
 */
#ifndef NQ_QUANT_REENCODE_H
#define NQ_QUANT_REENCODE_H

#include "quant/encode.h"

typedef struct nq_reencode_options {
    const nq_metric *metric; /* in the matrix's basis: nq_metric_options.basis */
    const float *residual;   /* (rows, cols) in that basis, or NULL: see nq_metric_correct() */
    double correct_share;
    /* What the matrix was before it learnt, with the same symbols; or NULL. Symbols are chosen
     * for Q + step (T - B): Q what it decodes to, T the target, B what it was (NULL: Q). So
     * what has been learnt stays, and a small step moves the symbols alone that are worth
     * it; 1 and NULL: T itself. */
    const nq_qmat *before;
    float step; /* above 0, at most 1 */
    /* The search begins with nothing, errors fed forward; else with the symbols that are
     * there, which change only where the error falls. */
    bool anew;
    unsigned sweeps; /* not anew: at least one is needed for anything to change */
} nq_reencode_options;

typedef struct nq_reencoded {
    uint8_t *symbols; /* as nq_qmat has them; nq_free() */
    /* E|Tx - Qx|^2 / E|Tx|^2 under the damped metric, T what they are chosen for: with the
     * symbols that were there, and with these. */
    double before, after;
    uint64_t count, changed;      /* subvectors; those whose symbol is another one */
    nq_subspace_stats symbol_use; /* count, entropy and used alone */
} nq_reencoded;

/* w (rows, cols): the weights that are to be coded, in their own basis; overwritten. The
 * same for any number of threads. On failure nothing is left to release. */
NOVAQ_CHECK novaq_status nq_reencode(nq_reencoded *out, const nq_qmat *q, float *w,
                                     const nq_reencode_options *opt, nq_pool *pool,
                                     novaq_error *err);

#endif
