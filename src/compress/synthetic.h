/* synthetic.h - artifacts of a known shape with random content.
 *
 * Owns: the shapes of well-known models, and writing an artifact of one of them
 * that costs as much to run as a real one: symbols from a hash, codebooks for
 * Gaussian data, row scales that keep activations near unit variance. The same
 * description gives the same bytes, for any number of threads. Refuses: meaning;
 * there is no tokenizer, and the predictions are noise.
 */
#ifndef NQ_COMPRESS_SYNTHETIC_H
#define NQ_COMPRESS_SYNTHETIC_H

#include "base/json.h"
#include "base/pool.h"
#include "quant/scheme.h"

typedef struct nq_synthetic {
    const char *shape;  /* "llama-1b", ...; an unknown one lists them all */
    const char *scheme; /* of every matrix, embedding and head included; NULL: by bits */
    double bits;        /* 1, 1.5, 2, 3 or 4 */
    const char *const *tensor_types; /* "REGEX=SCHEME", first match wins */
    size_t tensor_type_count;
    uint64_t seed;
    bool single_file;
    novaq_progress_fn progress; /* may be NULL */
    void *progress_ctx;
} nq_synthetic;

/* All shapes, see novaq_bench_shapes(). */
NOVAQ_CHECK novaq_status nq_synthetic_shapes(json_t **out, novaq_error *err);

/* The scheme that is benched for a rate: the two-level one, but one level at 1 bit. */
NOVAQ_CHECK novaq_status nq_synthetic_scheme(nq_scheme *out, double bits, novaq_error *err);

/* Writes the artifact to path; at any time at most one tensor is in memory. */
NOVAQ_CHECK novaq_status nq_synthetic_write(const char *path, const nq_synthetic *s, nq_pool *pool,
                                            novaq_error *err);

#endif
