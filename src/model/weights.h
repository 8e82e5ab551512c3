/* weights.h - one view of a model's tensors, over a source or an artifact.
 *
 * Owns: opening either by path, the model description, decoding any tensor (or
 * rows of it) to float32 with rotation and column scales undone. Refuses: keeping
 * decoded copies.
 */
#ifndef NQ_MODEL_WEIGHTS_H
#define NQ_MODEL_WEIGHTS_H

#include "model/describe.h"

typedef struct nq_weight {
    const char *name;
    uint32_t rank;
    uint64_t shape[NQ_MAX_RANK];
    uint64_t elements;
    uint64_t rows, cols; /* matrix view (1 x elements for rank < 2) */
    nq_role role;
    nq_dtype dtype;            /* source dtype */
    const nq_layer *layer;     /* artifact layer, or NULL */
    const nq_tensor_info *src; /* source tensor, or NULL */
    const nq_qmat *q;          /* set when stored as CODE or Q8 */
} nq_weight;

typedef struct nq_weights nq_weights;

/* path: a source (what nq_tensors_open() takes) or an artifact. */
NOVAQ_CHECK novaq_status nq_weights_open(nq_weights **out, const char *path, novaq_error *err);
/* Over a source that nq_model_tensors_open() opened; borrowed. */
NOVAQ_CHECK novaq_status nq_weights_open_over(nq_weights **out, nq_tensors *ts, novaq_error *err);
void nq_weights_close(nq_weights **w);
const json_t *nq_weights_model(const nq_weights *w);         /* description, borrowed */
const nq_artifact *nq_weights_artifact(const nq_weights *w); /* or NULL */
nq_tensors *nq_weights_tensors(const nq_weights *w);         /* or NULL */
size_t nq_weights_count(const nq_weights *w);
const nq_weight *nq_weights_at(const nq_weights *w, size_t i);
const nq_weight *nq_weights_find(const nq_weights *w, const char *name); /* or NULL */
/* Row `row` on, where an artifact stores t as binary32, binary16, bfloat16 or Q8_0 (*type
 * says which): in place, for products that read it as it is. NULL otherwise. */
const void *nq_weight_in_place(nq_dtype *type, const nq_weight *t, uint64_t row);
/* Rows [row0, row0+count) of the matrix view as float32 (count, cols).
 * Thread-safe. */
NOVAQ_CHECK novaq_status nq_weights_read_rows(float *dst, nq_weights *w, const nq_weight *t,
                                              uint64_t row0, uint64_t count, novaq_error *err);

#endif
