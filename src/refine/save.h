/* save.h - a refined artifact from the one that came in.
 *
 * Owns: which pieces change (codebooks with their scales, scales and means of rows,
 * gains, biases; symbols, where new ones are given) and their telemetry; every other byte of every
 * layer is as it was. Refuses: learning.
 */
#ifndef NQ_REFINE_SAVE_H
#define NQ_REFINE_SAVE_H

#include "artifact/write.h"
#include "quant/encode.h"
#include "refine/net.h"

/* What takes the place of a layer's symbols. */
typedef struct nq_new_symbols {
    const uint8_t *symbols;       /* as nq_qmat has them; NULL: they stay */
    const nq_subspace_stats *use; /* their entropy and use */
} nq_new_symbols;

typedef struct nq_refine_save {
    const nq_weights *weights;     /* of the artifact that came in */
    nq_net *net;                   /* what was learnt; NULL: nothing */
    const nq_new_symbols *symbols; /* (layers of the artifact), or NULL: all stay */
    nq_weights *source;            /* errors are measured against it, where it has the tensor;
                                      or NULL */
    nq_pool *pool;
    const json_t *record; /* object for "refinement" in quantization.config */
    const char *output;   /* path */
    int single_file;
    novaq_progress_fn progress; /* may be NULL */
    void *progress_ctx;
} nq_refine_save;

/* *summary (may be NULL): the manifest's. */
NOVAQ_CHECK novaq_status nq_refine_write(json_t **summary, const nq_refine_save *s,
                                         novaq_error *err);

#endif
