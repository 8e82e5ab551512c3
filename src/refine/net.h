/* net.h - a whole model with derivatives.
 *
 * Owns: the forward pass over whole sequences that keeps what the backward pass needs
 * (the input of each block, and its inside where there is memory for it; else it is
 * computed again), the backward pass through every architecture of model/arch.h, the
 * gradients of norm gains and biases. Refuses: losses, optimisers, choosing tokens;
 * symbols.
 *
 * Threads: one net at a time; results do not depend on the number of threads.
 */
#ifndef NQ_REFINE_NET_H
#define NQ_REFINE_NET_H

#include "model/model.h"
#include "refine/matrix.h"

typedef struct nq_net nq_net;

/* Floats of a chunk of logits at most, unless fewer than so many rows would fit. */
#define NQ_NET_CHUNK_FLOATS ((uint64_t)1 << 25)
#define NQ_NET_CHUNK_ROWS   16

typedef struct nq_net_options {
    uint32_t sequences;  /* of one pass, at most */
    uint32_t length;     /* tokens of each, at most */
    uint64_t group_cols; /* of codebook groups in training; 0: as stored */
    bool frozen;         /* a teacher: no parameters, no gradients */
    uint64_t keep;       /* bytes for the insides of blocks, which then are not computed again
                            going back: a fifth of a pass where all are kept. 0: none */
    bool halves;         /* products of matrices round to bfloat16 where that is faster */
    bool single;         /* nothing but one block, for nq_net_block() and its way back: in */
    uint32_t block;      /* the memory of that one */
} nq_net_options;

/* m: source or artifact, must outlive the net. pool is m's. */
NOVAQ_CHECK novaq_status nq_net_open(nq_net **out, nq_model *m, const nq_net_options *opt,
                                     novaq_error *err);
void nq_net_close(nq_net **net);
/* Bytes the net takes beside the model's own, for a bound printed beforehand. A frozen net
 * takes logits only once nq_net_run() is asked for them: those are not in it. */
uint64_t nq_net_bytes(const nq_model *m, const nq_net_options *opt);

/* Gains and biases carry the name of their tensor; the tensor holds value - offset. A
 * fused bias (of q, k and v) is one parameter. */
size_t nq_net_param_count(const nq_net *net);
nq_param *nq_net_param(nq_net *net, size_t i);
void nq_net_zero_gradients(nq_net *net);
/* The coded matrices, for reading learnt values back. */
size_t nq_net_matrix_count(const nq_net *net);
nq_tmatrix *nq_net_matrix(nq_net *net, size_t i);

/* Called for rows [row0, row0+n) of all tokens of a pass, in order. logits (n, vocab);
 * dlogits (n, vocab): to be filled with the gradient of the loss; NULL in a pass
 * without gradients. */
typedef novaq_status (*nq_logits_fn)(void *ctx, uint32_t row0, uint32_t n, const float *logits,
                                     float *dlogits, novaq_error *err);
/* Called with the residual stream h (rows, dim) after each block; dh (rows, dim): to which
 * a gradient may be added; NULL in a pass without gradients. In a pass with gradients it
 * is called while going back, from the last block to the first. */
typedef novaq_status (*nq_hidden_fn)(void *ctx, uint32_t block, const float *h, float *dh,
                                     novaq_error *err);

typedef struct nq_net_pass {
    const int32_t *tokens; /* (sequences, length) */
    uint32_t sequences, length;
    nq_logits_fn logits; /* NULL: no head is computed */
    void *logits_ctx;
    nq_hidden_fn hidden; /* or NULL */
    void *hidden_ctx;
    bool gradients; /* adds to those of the parameters */
    /* Asked before each block, going back too: a status other than OK ends the pass. May be
     * NULL. */
    novaq_status (*tick)(void *ctx, novaq_error *err);
    void *tick_ctx;
} nq_net_pass;

NOVAQ_CHECK novaq_status nq_net_run(nq_net *net, const nq_net_pass *pass, novaq_error *err);

/* ---- pieces of a pass, for teacher and student in step -------------------------
 * The output of the last block, (rows, dim), borrowed until the next pass; and logits
 * (n, vocab) of some of its rows. */
const float *nq_net_output(const nq_net *net);
NOVAQ_CHECK novaq_status nq_net_logits(float *logits, nq_net *net, uint32_t row0, uint32_t n,
                                       novaq_error *err);
/* The same of rows (n, dim) that were copied from such an output, of whatever pass. */
NOVAQ_CHECK novaq_status nq_net_head(float *logits, nq_net *net, const float *output, uint32_t n,
                                     novaq_error *err);

/* ---- one block alone ---------------------------------------------------------------
 * y (rows, dim), which may be x, from x (rows, dim) of whole sequences from position 0; and
 * backward: dx (or NULL) from dy, gradients of the block's parameters added. */
NOVAQ_CHECK novaq_status nq_net_block(float *y, nq_net *net, uint32_t block, const float *x,
                                      uint32_t sequences, uint32_t length, novaq_error *err);
NOVAQ_CHECK novaq_status nq_net_block_backward(float *dx, nq_net *net, uint32_t block,
                                               const float *x, const float *dy, uint32_t sequences,
                                               uint32_t length, novaq_error *err);
/* The same right after nq_net_block() of this block and x, while parameters are as they
 * were: the inside is not computed again. */
NOVAQ_CHECK novaq_status nq_net_block_learn(float *dx, nq_net *net, uint32_t block, const float *x,
                                            const float *dy, uint32_t sequences, uint32_t length,
                                            novaq_error *err);

#endif
