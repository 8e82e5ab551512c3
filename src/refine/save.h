/* save.h - a refined artifact from the one that came in.
 *
 * Owns: which pieces change (codebooks with their scales, scales and means of rows,
 * gains, biases) and their telemetry; every other byte of every layer is as it was.
 * Refuses: learning.
 */
#ifndef NQ_REFINE_SAVE_H
#define NQ_REFINE_SAVE_H

#include "artifact/write.h"
#include "refine/net.h"

typedef struct nq_refine_save {
    const nq_weights *weights; /* of the artifact that came in */
    nq_net *net;               /* what was learnt; NULL: nothing */
    nq_weights *source;        /* errors are measured against it, where it has the tensor */
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
