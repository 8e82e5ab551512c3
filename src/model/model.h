/* model.h - a runnable model and running it.
 *
 * Owns: binding tensors to their places, the key/value cache, the forward pass
 * over blocks of tokens of several sequences at once. Refuses: text (see
 * tokenizer.h), choosing tokens (see sampler.h), architectures not in arch.h.
 *
 * A model is read-only once open, except for nq_model_swap(). A run holds all
 * mutable state; runs of one model share its thread pool, so one run works at
 * a time.
 */
#ifndef NQ_MODEL_MODEL_H
#define NQ_MODEL_MODEL_H

#include "base/pool.h"
#include "model/hyper.h"
#include "model/linear.h"
#include "model/weights.h"

typedef struct nq_block {
    const float *attn_norm; /* (dim) */
    const float *ffn_norm;  /* (dim) */
    nq_linear q, k, v, out, gate, up, down;
} nq_block;

typedef struct nq_model {
    nq_weights *weights; /* owned */
    nq_pool *pool;       /* borrowed */
    nq_hyper hyper;
    nq_linear embed;          /* rows are looked up */
    nq_linear head;           /* the embedding again when tied */
    const float *output_norm; /* (dim) */
    const float *rope_freqs;  /* (rope_dim/2) divisors of the angles, or NULL */
    nq_block *blocks;         /* (hyper.blocks) */
    uint64_t scratch_bytes;   /* largest nq_qmat_scratch(); raise it before nq_run_open() when
                                 nq_model_swap() will bring in matrices of another model */
    float **owned;            /* dense copies */
    size_t owned_count;
} nq_model;

/* Opens path (source or artifact), checks every shape against the
 * hyperparameters, converts what is not coded to float32 (up to half of the
 * machine's memory; the rest is read when used). NOVAQ_E_UNSUPPORTED names what
 * the runtime does not run. pool must outlive the model; NULL is one thread. */
NOVAQ_CHECK novaq_status nq_model_open(nq_model **out, const char *path, nq_pool *pool,
                                       novaq_error *err);
/* The same without copies of matrices: they are read when they are used. For
 * work that holds one block at a time. */
NOVAQ_CHECK novaq_status nq_model_open_lean(nq_model **out, const char *path, nq_pool *pool,
                                            novaq_error *err);
void nq_model_close(nq_model **m);

/* The places that hold a coded or dense matrix by tensor name: embed, head and
 * the seven of each block. NULL when no place has that tensor. With a tied
 * embedding the name finds embed; head follows nq_model_swap(). */
nq_linear *nq_model_linear(nq_model *m, const char *name);
/* Exchanges the matrix at `place` (of m) with *with; twice restores it. */
void nq_model_swap(nq_model *m, nq_linear *place, nq_linear *with);

typedef struct nq_run nq_run;

/* State for up to `sequences` independent sequences of up to n_ctx positions,
 * fed at most `block` tokens each at a time. */
NOVAQ_CHECK novaq_status nq_run_open(nq_run **out, const nq_model *m, uint32_t sequences,
                                     uint32_t n_ctx, uint32_t block, novaq_error *err);
void nq_run_close(nq_run **r);
/* Sees the input x (n, cols of l[0]) of `count` matrices that share it, before
 * each product inside the blocks; x is borrowed for the call. A status other
 * than OK ends the feed with it. */
typedef novaq_status (*nq_observe_fn)(void *ctx, const nq_linear *const *l, unsigned count,
                                      const float *x, uint64_t n, novaq_error *err);
/* fn == NULL: nobody watches. */
void nq_run_observe(nq_run *r, nq_observe_fn fn, void *ctx);
/* Forgets all positions. */
void nq_run_reset(nq_run *r);
/* Positions fed so far. */
uint32_t nq_run_position(const nq_run *r);
/* Feeds tokens (sequences, count); each sequence continues where it was. The
 * number of sequences stays the same between resets. */
NOVAQ_CHECK novaq_status nq_run_feed(nq_run *r, const int32_t *tokens, uint32_t sequences,
                                     uint32_t count, novaq_error *err);
/* logits (n, vocab) of rows of the last feed, row = sequence * count + index. */
NOVAQ_CHECK novaq_status nq_run_logits(float *logits, nq_run *r, const uint32_t *rows, uint32_t n,
                                       novaq_error *err);

/* ---- one block at a time ----------------------------------------------------
 *
 * A block is a chain of NQ_STAGES stages: products of the matrices that share an
 * input, and what follows. Between stages the state of n = sequences * count
 * tokens is the residual stream x (n, dim) and the input of the next products;
 * the caller keeps both. Whole sequences from position 0. */
#define NQ_STAGES 4 /* q k v | attention output | gate up | down */

/* The matrices of a stage that share their input; l holds NQ_GROUP_MAX. */
unsigned nq_block_linears(const nq_linear **l, const nq_block *b, unsigned stage);
uint64_t nq_stage_cols(const nq_model *m, unsigned stage);
/* Columns of the widest stage. */
uint64_t nq_stage_widest(const nq_model *m);
/* Whether the stage's output is added to the residual stream. */
static inline bool nq_stage_adds(unsigned stage) { return stage == 1 || stage == 3; }
/* A run whose cache holds one block only. */
NOVAQ_CHECK novaq_status nq_run_open_staged(nq_run **out, const nq_model *m, uint32_t sequences,
                                            uint32_t n_ctx, novaq_error *err);
/* x (n, dim): embedded tokens (sequences, count). */
NOVAQ_CHECK novaq_status nq_run_embed(float *x, nq_run *r, const int32_t *tokens,
                                      uint32_t sequences, uint32_t count, novaq_error *err);
/* input (n, dim): what the first stage of a block reads. */
NOVAQ_CHECK novaq_status nq_run_enter(float *input, nq_run *r, uint32_t block, const float *x,
                                      uint32_t sequences, uint32_t count, novaq_error *err);
/* One stage with the matrices l in place of the block's own (of the same shapes):
 * x is brought up to date; next, unless NULL or after the last stage, receives the
 * input of the next stage (n, its cols). */
NOVAQ_CHECK novaq_status nq_run_stage(float *next, float *x, nq_run *r, uint32_t block,
                                      unsigned stage, const nq_linear *const *l, const float *input,
                                      uint32_t sequences, uint32_t count, novaq_error *err);
/* h (rows, dim): what the output head reads. */
void nq_run_output(float *h, nq_run *r, const float *x, uint32_t rows);
/* logits (rows, vocab) of such h. */
NOVAQ_CHECK novaq_status nq_run_head(float *logits, nq_run *r, const float *h, uint32_t rows,
                                     novaq_error *err);

#endif
