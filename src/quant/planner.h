/* planner.h - how many bits each tensor gets.
 *
 * Owns: minimising sum over tensors of sensitivity * expected damage
 * under a budget of bytes, by steepest descent on each tensor's lower convex
 * hull of (bytes, error): exact on the hull (Shoham & Gersho 1988). What the
 * first step that does not fit leaves over goes, steepest first, to any schemes
 * that do. The result is never worse than the best there is by more than what
 * that step would have saved. Refuses: reading weights; the caller supplies
 * sensitivities, from statistics or measured.
 */
#ifndef NQ_QUANT_PLANNER_H
#define NQ_QUANT_PLANNER_H

#include "quant/scheme.h"

typedef struct nq_plan_item {
    uint64_t rows, cols;
    double sensitivity; /* > 0: how much relative error in this tensor costs */
    uint64_t extra;     /* bytes besides symbols, codebook and row scales: means, column scales */
    nq_scheme scheme;   /* out */
    uint64_t bytes;     /* out: symbols, codebooks and scales */
    double error;       /* out: expected relative error (MSE / variance) */
} nq_plan_item;

/* Bytes a (rows, cols) matrix takes under s, row scales and codebook included,
 * and `extra` where the scheme is a code. */
uint64_t nq_plan_bytes(const nq_scheme *s, uint64_t rows, uint64_t cols, uint64_t extra);
/* Expected MSE on unit-variance data: measured for the ladder's schemes on
 * Gaussian data, a rate model c * 4^-bits for the others. */
double nq_plan_error(const nq_scheme *s);
/* What such an error e does, in units of sensitivity: e / (1 - e), error over what
 * is left of the signal. For small errors that is e; but a matrix coded at a
 * quarter of a bit is not three times as bad as one at one bit, it is gone. */
double nq_plan_damage(const nq_scheme *s);

/* The default ladder, 0.25 to 8 bits: of the schemes of one rate the one with the
 * least error, however many levels it takes to decode (two levels decode faster
 * than three: --scheme and --tensor-type choose them), a further level only where
 * it saves more than 0.5 %. And the paper's: (k1, k2) fixed, d from
 * d_min to d_max. *out: nq_free(). */
NOVAQ_CHECK novaq_status nq_ladder_default(nq_scheme **out, size_t *count, novaq_error *err);
NOVAQ_CHECK novaq_status nq_ladder_paper(nq_scheme **out, size_t *count, unsigned k1, unsigned k2,
                                         unsigned d_min, unsigned d_max, novaq_error *err);

/* Chooses a scheme for every item. budget counts all of them.
 * When even the smallest schemes exceed it they are taken: the caller compares
 * the sum of bytes with the budget. */
NOVAQ_CHECK novaq_status nq_plan_choose(nq_plan_item *items, size_t count, const nq_scheme *ladder,
                                        size_t ladder_count, uint64_t budget, novaq_error *err);

#endif
