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
#include "model/attention.h"
#include "model/hyper.h"
#include "model/linear.h"
#include "model/weights.h"

typedef struct nq_norm {
    const float *gain; /* NULL: there is no such norm */
    const float *bias; /* NULL: none */
} nq_norm;

/* The feed-forward layers of a block whose tokens each choose a few of them. */
typedef struct nq_experts {
    nq_linear router; /* (experts, dim) */
    nq_linear *gate;  /* (experts) of (ff, dim); the three lists are one allocation */
    nq_linear *up;    /* (experts) of (ff, dim) */
    nq_linear *down;  /* (experts) of (dim, ff) */
} nq_experts;

/* A fused matrix takes the place of those it is made of: then qkv or gate_up is bound
 * and the others are not. Biases are NULL where there are none. */
typedef struct nq_block {
    nq_norm attn_norm, ffn_norm;           /* (dim) */
    nq_norm attn_post_norm, ffn_post_norm; /* (dim), of what is then added */
    nq_norm q_norm, k_norm;                /* (head_dim), of each head */
    nq_linear q, k, v, qkv, out;
    nq_linear gate, up, gate_up, down;     /* gate is unbound where up alone is activated */
    nq_experts experts;                    /* instead of these, where router is bound */
    const float *q_bias, *k_bias, *v_bias; /* (wide), (kv), (kv); also of a fused matrix */
    const float *out_bias, *gate_bias, *up_bias, *down_bias;
    uint32_t window; /* keys a query sees, itself included; 0 = all */
    uint32_t kind;   /* NQ_GLOBAL or NQ_LOCAL: which rotary table */
} nq_block;

typedef struct nq_model {
    nq_weights *weights; /* owned */
    nq_pool *pool;       /* borrowed */
    nq_hyper hyper;
    nq_linear embed;                   /* rows are looked up */
    nq_linear head;                    /* the embedding again when tied */
    const float *positions;            /* (context, dim) added to the embedding, or NULL */
    nq_norm output_norm;               /* (dim) */
    nq_rope_spec rope[NQ_LAYER_KINDS]; /* hyper's with their divisors; dim 0: none */
    nq_block *blocks;                  /* (hyper.blocks) */
    uint64_t scratch_bytes;  /* largest nq_qmat_scratch(); raise it before nq_run_open() when
                                nq_model_swap() will bring in matrices of another model */
    nq_fast_set *fast;       /* owned; NULL: products in float32 */
    uint64_t fast_row_bytes; /* largest nq_fast_row_bytes() */
    uint64_t fast_scratch;   /* largest nq_linear_fast_scratch() */
    float **owned;           /* dense copies */
    size_t owned_count;
} nq_model;

/* Opens path (source or artifact), checks every shape against the
 * hyperparameters, converts what is not coded to float32 (up to half of the
 * machine's memory; the rest is read when used) unless an artifact stores it as products
 * read it (F32, F16, BF16, Q8_0). NOVAQ_E_UNSUPPORTED names what
 * the runtime does not run. pool must outlive the model; NULL is one thread. */
NOVAQ_CHECK novaq_status nq_model_open(nq_model **out, const char *path, nq_pool *pool,
                                       novaq_error *err);
/* The same without copies of matrices: they are read when they are used. For
 * work that holds one block at a time. */
NOVAQ_CHECK novaq_status nq_model_open_lean(nq_model **out, const char *path, nq_pool *pool,
                                            novaq_error *err);
/* Both over a source that nq_model_tensors_open() opened; borrowed. */
NOVAQ_CHECK novaq_status nq_model_open_over(nq_model **out, nq_tensors *ts, nq_pool *pool,
                                            novaq_error *err);
NOVAQ_CHECK novaq_status nq_model_open_lean_over(nq_model **out, nq_tensors *ts, nq_pool *pool,
                                                 novaq_error *err);
void nq_model_close(nq_model **m);
/* fast.c: prepares all coded matrices for integer products, where there are kernels
 * for them. Runs opened from now on use them. */
NOVAQ_CHECK novaq_status nq_model_prepare_fast(nq_model *m, novaq_error *err);

/* The places that hold a coded or dense matrix by tensor name: embed, head and
 * those of each block. NULL when no place is that whole tensor. With a tied
 * embedding the name finds embed; head follows nq_model_swap(). */
nq_linear *nq_model_linear(nq_model *m, const char *name);
/* Calls fn for every place that is bound; a status other than OK ends it. With a tied
 * embedding head is not among them. */
typedef novaq_status (*nq_linear_fn)(void *ctx, nq_linear *l, novaq_error *err);
NOVAQ_CHECK novaq_status nq_model_each_linear(nq_model *m, nq_linear_fn fn, void *ctx,
                                              novaq_error *err);
/* Exchanges the matrix at `place` (of m) with *with; twice restores it. */
void nq_model_swap(nq_model *m, nq_linear *place, nq_linear *with);

typedef struct nq_run nq_run;

typedef struct nq_run_options {
    uint32_t sequences; /* independent ones, at most */
    uint32_t n_ctx;     /* positions of each, at most */
    uint32_t block;     /* tokens of each fed at a time, at most */
    nq_kv_type kv;      /* how keys and values are kept */
} nq_run_options;

/* State for such a number of sequences; nothing is allocated after this. */
NOVAQ_CHECK novaq_status nq_run_open_with(nq_run **out, const nq_model *m, const nq_run_options *o,
                                          novaq_error *err);
/* The same with keys and values kept as float32. */
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
/* Forgets the positions from `position` on (at most what was fed). */
void nq_run_rewind(nq_run *r, uint32_t position);
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
 * the caller keeps both. Whole sequences from position 0.
 *
 * Where a block has experts, stage 2 is all of its feed-forward layer and has no
 * matrices of its own: it reads (n, dim) and runs the model's experts; stage 3
 * then does nothing. nq_block_expert() tells the experts' matrices. */
#define NQ_STAGES 4 /* q k v | attention output | gate up | down */

/* The matrices of a stage that share their input; l holds NQ_GROUP_MAX. 0 of them in
 * the stages of experts. */
unsigned nq_block_linears(const nq_linear **l, const nq_block *b, unsigned stage);
/* The i-th of the tensors that hold matrices of experts which read the input of stage
 * 2 (gate and up); NULL after the last. One tensor may hold many of them. */
const nq_weight *nq_block_expert(const nq_model *m, const nq_block *b, uint64_t i);
static inline bool nq_block_has_experts(const nq_block *b) { return b->experts.router.w != NULL; }
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
