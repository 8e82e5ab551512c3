/* flow.h - calibration text flowing through a model one block at a time.
 *
 * Owns: the state of all calibration tokens between two stages of a block, in two
 * streams: what the original model computes, and what the model computes whose
 * blocks so far are replaced by coded ones; the second moments of the inputs of
 * each group of matrices, accumulated in fixed order. Only one block's matrices
 * are in memory; the tokens' state goes to a temporary file when it is larger
 * than allowed. Refuses: coding.
 *
 * Use: nq_flow_open(); for each block: nq_flow_enter(); for each stage:
 * nq_flow_moments(), nq_flow_advance(); at the end nq_flow_head_moments().
 */
#ifndef NQ_COMPRESS_FLOW_H
#define NQ_COMPRESS_FLOW_H

#include "compress/calibration.h"
#include "model/model.h"
#include "quant/metric.h"

typedef struct nq_flow nq_flow;

typedef struct nq_flow_options {
    nq_tensors *ts;   /* the source, which nq_model_tensors_open() opened; borrowed */
    const char *path; /* of the source, where ts is NULL */
    bool two_streams; /* false: coded blocks see what the original ones see */
    /* What the coded stream goes through, but for the matrices that are given: an artifact
     * of the source, whose norms may have learnt; borrowed. NULL: the source. */
    nq_model *coded;
    bool keep_inputs; /* of the block at work, for nq_flow_inputs() and nq_flow_again() */
    uint64_t memory;  /* bytes the tokens' state may take before it goes to a file */
    nq_pool *pool;
    /* Called between batches; a status other than OK ends the work. May be NULL. */
    novaq_status (*tick)(void *ctx, novaq_error *err);
    void *tick_ctx;
    /* Reads the embedding, which is then kept as floats: for sources whose rows are
     * better not looked up one by one. May be NULL; ctx is tick_ctx. */
    novaq_status (*embedding)(void *ctx, float *dst, const nq_weight *t, novaq_error *err);
} nq_flow_options;

/* calibration is borrowed. */
NOVAQ_CHECK novaq_status nq_flow_open(nq_flow **out, const nq_calibration *calibration,
                                      const nq_flow_options *opt, novaq_error *err);
void nq_flow_close(nq_flow **f);
/* The model, opened without copies of its matrices. */
nq_model *nq_flow_model(nq_flow *f);

/* The coded stream starts again from rows of another embedding: coded, whose
 * nq_linear has the embedding's shape. Before the first block. */
NOVAQ_CHECK novaq_status nq_flow_embed_coded(nq_flow *f, const nq_linear *coded, novaq_error *err);
/* The residual stream (tokens, dim) of the original model, as it now stands. */
const float *nq_flow_stream(const nq_flow *f);
NOVAQ_CHECK novaq_status nq_flow_enter(nq_flow *f, uint32_t block, novaq_error *err);
/* What the matrices of this stage read, as the coded model sees it. *m is borrowed
 * until the next call. *residual: (dim, cols) mean of (r0 - r) xT for a stage whose
 * output is added to the residual stream r, else NULL; likewise borrowed. */
void nq_flow_moments(nq_moments *m, const float **residual, nq_flow *f, unsigned stage);
/* Both streams through the stage: original matrices, coded matrices (arrays as
 * nq_block_linears() gives them). */
NOVAQ_CHECK novaq_status nq_flow_advance(nq_flow *f, unsigned stage,
                                         const nq_linear *const *original,
                                         const nq_linear *const *coded, novaq_error *err);
/* (tokens, dim): what the coded block at work read. */
const float *nq_flow_inputs(const nq_flow *f);
/* The coded stream goes back to where it entered the block; then, stage by stage, through
 * other coded matrices. Nothing happens where there is one stream. */
NOVAQ_CHECK novaq_status nq_flow_again(nq_flow *f, novaq_error *err);
NOVAQ_CHECK novaq_status nq_flow_advance_coded(nq_flow *f, unsigned stage,
                                               const nq_linear *const *coded, novaq_error *err);
/* After the last block: what the output head reads. */
void nq_flow_head_moments(nq_moments *m, nq_flow *f);

#endif
