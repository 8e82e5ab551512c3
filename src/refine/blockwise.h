/* blockwise.h - one block learns to give what the original block gave.
 *
 * Owns: least squares over the output of a block that is coded already, on the inputs it
 * will really see: Adam over codebooks, scales and means of rows, gains and biases;
 * measuring, as stored, on sequences that are not learnt from; the pieces of the matrices
 * that change. Refuses: symbols, knowing where streams come from, writing.
 *
 * The block is the only one of a net (nq_net_options.single). Same inputs and options, same
 * values, for any number of threads on one machine.
 */
#ifndef NQ_REFINE_BLOCKWISE_H
#define NQ_REFINE_BLOCKWISE_H

#include "quant/encode.h"
#include "refine/adam.h"
#include "refine/net.h"
#include "refine/round.h"

typedef struct nq_blockwise_data {
    const float *x; /* (sequences, length, dim) inputs of the block */
    const float *y; /* (sequences, length, dim) outputs of the original one on its own inputs */
    uint32_t sequences, length, dim;
    uint32_t train; /* the first so many are learnt from, the others measured on */
} nq_blockwise_data;

typedef struct nq_blockwise_options {
    nq_adam_options adam; /* its steps: of the whole run */
    uint32_t batch;       /* sequences a step; the net has room for them */
    uint32_t every;       /* steps from one measurement to the next; 0: four measurements */
    uint64_t seed;        /* of the order of sequences */
    /* How the tensor of a gain or bias is stored. */
    nq_store_kind (*store)(void *ctx, const nq_param *p);
    void *store_ctx;
    /* Called between passes; a status other than OK ends the work. May be NULL. */
    novaq_status (*tick)(void *ctx, novaq_error *err);
    void *tick_ctx;
} nq_blockwise_options;

typedef struct nq_blockwise_result {
    double before, after; /* squared error of the tokens held out over their mean square,
                             mean over tokens */
    uint32_t step;        /* the values are those of; 0: nothing was better than what came in */
} nq_blockwise_result;

/* Sequences held out of so many: an eighth, at least 1. */
uint32_t nq_blockwise_held_out(uint32_t sequences);

/* The net's values become those that, stored, were the best found: not rounded yet. */
NOVAQ_CHECK novaq_status nq_blockwise_run(nq_blockwise_result *out, nq_net *net, uint32_t block,
                                          const nq_blockwise_data *data,
                                          const nq_blockwise_options *opt, novaq_error *err);

/* What m learnt becomes what e holds, rounded; m was opened over all of e->q. Once it has
 * been taken, m's net can only be closed. */
NOVAQ_CHECK novaq_status nq_blockwise_take(nq_encoded *e, const nq_tmatrix *m, novaq_error *err);

#endif
