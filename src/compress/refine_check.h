/* refine_check.h - what is looked at before a refinement begins.
 *
 * Owns: that a refinement writes over nothing it should not (its artifact, its checkpoint's
 * file, which may hold something else), whether a checkpoint is this run's, whether teacher
 * and student mean the same by their tokens, what of the teacher tells that it is the same.
 * Refuses: opening models, learning.
 */
#ifndef NQ_COMPRESS_REFINE_CHECK_H
#define NQ_COMPRESS_REFINE_CHECK_H

#include "compress/intake.h"
#include "model/model.h"
#include "novaq.h"

/* Whoever made the artifact may have made it anew: then a checkpoint of before is put aside
 * instead of refused, which `note` is told. */
typedef struct nq_refine_maker {
    void (*note)(void *ctx, const char *text);
    void *ctx;
} nq_refine_maker;

/* novaq_refine() for who made the artifact; maker NULL: it came from elsewhere. */
NOVAQ_CHECK novaq_status nq_refine_for(char **report, const novaq_refine_options *opt,
                                       const nq_refine_maker *maker, novaq_error *err);

/* The same file or folder, or what would become one. */
bool nq_same_place(const char *a, const char *b);
/* Length of `path` without slashes at its end. */
size_t nq_trimmed(const char *path);

/* Output, artifact, checkpoint and teacher's cache: none is or lies in another, as far as
 * that would destroy something. */
NOVAQ_CHECK novaq_status nq_refine_check_paths(const novaq_refine_options *o, novaq_error *err);
/* *out (nq_free): where the checkpoint goes. What is there must be one. */
NOVAQ_CHECK novaq_status nq_refine_checkpoint_path(char **out, const novaq_refine_options *o,
                                                   novaq_error *err);
/* Where a maker puts a checkpoint aside. */
NOVAQ_CHECK novaq_status nq_refine_aside(char **out, const char *checkpoint, novaq_error *err);
/* A checkpoint of another run is refused, or put aside. */
NOVAQ_CHECK novaq_status nq_refine_check_checkpoint(const char *path, const char *identity,
                                                    const nq_refine_maker *maker, novaq_error *err);

/* lambda: above 0 residual streams are compared. warnings: an array, to which is added what
 * is allowed but may be a mistake. */
NOVAQ_CHECK novaq_status nq_refine_check_pair(json_t *warnings, const char *artifact,
                                              const nq_model *student, const nq_model *teacher,
                                              double lambda, novaq_error *err);

/* Hash of what tells that the weights of a source are the same, wherever it lies and
 * whenever it was copied: of one on this machine its outline and samples of its tensors. */
NOVAQ_CHECK novaq_status nq_refine_source_key(nq_hash_text out, nq_tensors *ts, novaq_error *err);
/* The same of an artifact: what it holds, not when it was made. */
NOVAQ_CHECK novaq_status nq_refine_artifact_key(nq_hash_text out, const nq_artifact *a,
                                                novaq_error *err);
/* Brings a remote source into memory, as it is read more than once. Refuses what does not
 * fit. */
NOVAQ_CHECK novaq_status nq_refine_hold(nq_tensors *ts, novaq_error *err);

#endif
