/* run_impl.h - the inside of nq_run, shared by the files of the forward pass.
 *
 * Owns: the buffers of a run. Refuses: use outside forward.c, stages.c, moe.c.
 */
#ifndef NQ_MODEL_RUN_IMPL_H
#define NQ_MODEL_RUN_IMPL_H

#include "model/model.h"

/* Tokens of one task of the element-wise passes. */
#define NQ_ROW_TASK 16

/* moe.c: what choosing experts needs. */
typedef struct nq_moe {
    float *scores;     /* (rows, experts) of the router */
    uint32_t *chosen;  /* (rows, used) */
    float *weights;    /* (rows, used) */
    uint32_t *members; /* (rows) tokens of the expert at work, */
    float *shares;     /* (rows) and its weight for each */
    uint32_t count;    /* of them */
    float *in;         /* (rows, dim) their inputs */
    float *out;        /* (rows, dim) their outputs */
    float *sum;        /* (rows, dim) of all experts */
} nq_moe;

struct nq_run {
    const nq_model *m;
    uint32_t sequences; /* capacity */
    uint32_t n_ctx;     /* capacity */
    uint32_t block;     /* capacity */
    uint32_t position;  /* tokens in the cache, of each sequence */
    uint32_t fed;       /* sequences in use since the reset */
    uint32_t rows;      /* tokens of the last feed, all sequences */
    uint32_t count;     /* tokens of the last feed, per sequence */
    const int32_t *tokens;
    const nq_block *layer; /* of the pass at work */
    uint32_t layer_index;
    uint32_t cached; /* blocks the cache holds: all, or the one at work */
    float *x;        /* (rows, dim) residual stream */
    float *h;        /* (rows, dim) normed input, or a layer's output */
    float *qkv;      /* (rows, wide + 2 kv) fused, or the three behind each other */
    float *att;      /* (rows, wide) */
    float *gate;     /* (rows, ff) also what is activated */
    float *up;       /* (rows, ff), or (rows, 2 ff) fused */
    nq_moe moe;      /* without experts all NULL */
    nq_kv *kv;
    nq_rope rope[NQ_LAYER_KINDS];
    uint8_t *scratch;     /* (threads, scratch_bytes) of embedding look-ups */
    novaq_status *status; /* (threads) of embedding look-ups */
    novaq_error *errors;  /* (threads) */
    nq_linear_work *work;
    nq_observe_fn observe; /* or NULL */
    void *observe_ctx;
};

/* Tokens of a task, and tasks of a feed. */
static inline uint32_t nq_rows_from(const nq_run *r, uint64_t task) {
    uint64_t left = r->rows - task * NQ_ROW_TASK;
    return left < NQ_ROW_TASK ? (uint32_t)left : NQ_ROW_TASK;
}
static inline uint64_t nq_row_tasks(const nq_run *r) {
    return (r->rows + NQ_ROW_TASK - 1) / NQ_ROW_TASK;
}
/* Runs fn over all tokens of the feed, NQ_ROW_TASK at a time. */
void nq_run_rows(nq_run *r, nq_task_fn fn);

/* forward.c */
NOVAQ_CHECK novaq_status nq_run_floats(float **out, uint64_t a, uint64_t b, novaq_error *err);
void nq_run_norm(float *out, const float *x, const nq_norm *n, uint64_t width, const nq_hyper *h);
void nq_run_activate(float *out, const float *gate, const float *up, uint64_t n, const nq_hyper *h);
NOVAQ_CHECK novaq_status nq_run_check(const nq_run *r, const int32_t *tokens, uint32_t sequences,
                                      uint32_t count, novaq_error *err);
/* r->x = the embedded tokens. */
NOVAQ_CHECK novaq_status nq_run_look_up(nq_run *r, novaq_error *err);
/* r->h = what the first stage of r->layer reads. */
void nq_run_enter_block(nq_run *r);
/* Where the input of a stage's matrices lies. */
float *nq_run_stage_input(const nq_run *r, unsigned stage);
/* One stage of r->layer with `count` matrices l. */
NOVAQ_CHECK novaq_status nq_run_do_stage(nq_run *r, unsigned stage, const nq_linear *const *l,
                                         unsigned count, novaq_error *err);
/* logits (rows, vocab) of h (rows, dim). */
NOVAQ_CHECK novaq_status nq_run_apply_head(float *logits, nq_run *r, const float *h, uint32_t rows,
                                           novaq_error *err);

/* moe.c: room for `rows` tokens; and the experts of r->layer, from r->h to r->h. */
NOVAQ_CHECK novaq_status nq_moe_open(nq_moe *out, const nq_hyper *h, uint64_t rows,
                                     novaq_error *err);
void nq_moe_close(nq_moe *m);
NOVAQ_CHECK novaq_status nq_moe_run(nq_run *r, novaq_error *err);

#endif
