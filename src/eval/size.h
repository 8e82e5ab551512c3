/* size.h - how big a model is.
 *
 * Owns: the one definition of every size figure that reports print. Refuses:
 * counting anything but bytes on disk.
 */
#ifndef NQ_EVAL_SIZE_H
#define NQ_EVAL_SIZE_H

#include "model/weights.h"

typedef struct nq_size {
    uint64_t bytes;                /* of the file or files */
    uint64_t parameters;           /* elements of all tensors */
    double bits_per_weight;        /* bytes over all parameters */
    double bits_per_weight_linear; /* stored bytes over elements, linear layers only */
    double ratio_fp16;
    double ratio_fp32;
} nq_size;

nq_size nq_size_of(const nq_weights *w);
/* Adds the six figures to an object. */
NOVAQ_CHECK novaq_status nq_size_put(json_t *report, const nq_size *s, novaq_error *err);
/* Bytes that one tensor occupies. */
uint64_t nq_stored_bytes(const nq_weight *t);
/* Those bytes in bits per element. */
double nq_stored_bits(const nq_weight *t);
/* [rows, cols, ...]; NULL when memory is short. */
json_t *nq_shape_json(const nq_weight *t);
/* Adds mse, cosine_similarity and relative_error of an artifact's layer; those
 * that are undefined are left out. Nonzero when memory is short. */
int nq_error_put(json_t *o, const nq_weight *t);

#endif
