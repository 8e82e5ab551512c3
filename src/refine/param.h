/* param.h - what refinement may change, as flat arrays.
 *
 * Owns: one list of values with their gradients, which an optimiser walks through
 * without knowing what they mean. Refuses: symbols; they are never parameters.
 */
#ifndef NQ_REFINE_PARAM_H
#define NQ_REFINE_PARAM_H

#include <stdbool.h>

#include "base/status.h"

typedef enum nq_param_kind {
    NQ_PARAM_CODEBOOK,  /* entries, all levels and groups of one matrix */
    NQ_PARAM_LOG_SCALE, /* natural logarithm of row scales, relative to the stored ones */
    NQ_PARAM_ROW_MEAN,
    NQ_PARAM_COL_SCALE, /* logarithm of column scales, relative to the stored ones */
    NQ_PARAM_GAIN,      /* of a norm */
    NQ_PARAM_BIAS,      /* of a norm or a matrix */
    NQ_PARAM_KINDS
} nq_param_kind;

typedef struct nq_param {
    const char *name; /* of the tensor it belongs to; borrowed */
    nq_param_kind kind;
    float *value; /* (count) */
    float *grad;  /* (count); whoever owns the parameter adds to it */
    uint64_t count;
    float offset; /* what value has above what the tensor stores: 1 for gains stored less one */
} nq_param;

/* Stored as a tensor of its own, not as a piece of a coded matrix. */
static inline bool nq_param_is_vector(const nq_param *p) {
    return p->kind == NQ_PARAM_GAIN || p->kind == NQ_PARAM_BIAS;
}

#endif
