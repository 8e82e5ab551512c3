/* hyper.h - the hyperparameters of a runnable model, checked.
 *
 * Owns: reading the "hyperparameters" object of a description (describe.h),
 * which is untrusted, into plain numbers inside hard bounds. Refuses: defaults;
 * a missing number is an error.
 */
#ifndef NQ_MODEL_HYPER_H
#define NQ_MODEL_HYPER_H

#include "base/json.h"
#include "model/arch.h"
#include "model/rope.h"

#define NQ_MAX_BLOCKS 4096
/* Divisors of angles that a description may hold: of heads up to twice as wide. */
#define NQ_MAX_DIVISORS 256

/* The two kinds of layers: those that see everything before a token, and those
 * that see a window. */
enum { NQ_GLOBAL, NQ_LOCAL, NQ_LAYER_KINDS };

typedef struct nq_hyper {
    const nq_arch *arch;
    nq_spelling spelling;
    uint32_t blocks;
    uint32_t context; /* longest context the model was made for */
    uint32_t dim;     /* width of the residual stream */
    uint32_t ff;      /* width of the feed-forward layer, of one expert where there are any */
    uint32_t heads;
    uint32_t heads_kv; /* divides heads */
    uint32_t head_dim; /* even */
    uint32_t vocab;
    bool tied;      /* the head is the embedding */
    bool biases;    /* the description promises biases of the attention's matrices */
    uint64_t needs; /* tensors there must be beside those all have, as arch.h's bits */
    double norm_eps;
    double attention_scale;             /* of scores */
    double attention_softcap;           /* 0: none */
    double logit_softcap;               /* 0: none */
    double embedding_scale;             /* 1: none */
    uint32_t window;                    /* of local layers; 0: there are none */
    uint64_t local[NQ_MAX_BLOCKS / 64]; /* bit per block */
    nq_rope_spec rope[NQ_LAYER_KINDS];  /* dim 0: heads are not turned. No divisors here */
    uint32_t divisors;                  /* how many of each of these: 0 or rope dim / 2 */
    float long_divisors[NQ_MAX_DIVISORS];
    float short_divisors[NQ_MAX_DIVISORS];
    uint32_t experts;      /* 0: one feed-forward layer for all tokens */
    uint32_t experts_used; /* of them by each token */
    bool experts_normed;   /* their weights are made to add up to 1 */
} nq_hyper;

static inline bool nq_hyper_is_local(const nq_hyper *h, uint32_t block) {
    return (h->local[block / 64] >> (block % 64) & 1) != 0;
}

/* name: the model's path, for messages. NOVAQ_E_UNSUPPORTED names an
 * architecture or feature the runtime does not run. */
NOVAQ_CHECK novaq_status nq_hyper_read(nq_hyper *out, const json_t *model, const char *name,
                                       novaq_error *err);

#endif
