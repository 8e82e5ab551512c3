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

#endif
