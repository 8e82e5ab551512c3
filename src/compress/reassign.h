/* reassign.h - the symbols of a refined artifact are chosen again.
 *
 * Owns: going through the model block by block, stage by stage: new symbols for the matrices
 * of a stage under the codebooks and scales that refinement learnt (quant/reencode.h), from
 * the inputs which the artifact with its new symbols so far really sees and the source's
 * weights; keeping them only where the model's divergence from its teacher on the windows
 * held out falls; writing the artifact with what was kept. Refuses: changing anything but
 * symbols; the embedding, the head, matrices of experts and q8, which keep theirs.
 */
#ifndef NQ_COMPRESS_REASSIGN_H
#define NQ_COMPRESS_REASSIGN_H

#include "model/model.h"
#include "refine/refine.h"

typedef struct nq_reassign_options {
    const char *artifact, *output; /* output: one file */
    const char *before;            /* the artifact as it was before it learnt, same symbols */
    const char *teacher;           /* locator of the source; used where `source` is NULL */
    nq_tensors *source;            /* nq_model_tensors_open() opened it; or NULL; borrowed */
    nq_model *model;               /* the teacher, opened; borrowed */
    nq_refine_data data;           /* windows of the text */
    bool exact;                    /* as in novaq_refine_options */
    nq_pool *pool;
    json_t *record; /* for "refinement" in quantization.config; becomes part of what it says:
                       "reassigned" is added */
    novaq_progress_fn progress; /* may be NULL */
    void *progress_ctx;
    /* Told of each stage: a line of JSON as an object, borrowed. May be NULL. */
    void (*tell)(void *ctx, json_t *line);
    void *tell_ctx;
} nq_reassign_options;

/* Writes the artifact. record's "reassigned": stages (tried), kept, symbols, changed (of
 * them), held_out_kl (before, after), blocks (each with stages, kept, held_out_kl). The same
 * bytes for any number of threads. */
NOVAQ_CHECK novaq_status nq_reassign(const nq_reassign_options *opt, novaq_error *err);

#endif
