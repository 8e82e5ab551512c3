/* job.h - what the files of novaq_compress() share.
 *
 * Owns: the state of one compression and the ways a tensor gets into the
 * artifact: recalled from an interrupted run, as it is, as floats, coded. compress.c
 * runs the whole, store.c writes tensors, journaled.c keeps what was found out before
 * the first of them; calibrated.c goes block by block. Refuses: use outside these.
 */
#ifndef NQ_COMPRESS_JOB_H
#define NQ_COMPRESS_JOB_H

#include <time.h>

#include "artifact/write.h"
#include "compress/calibration.h"
#include "compress/intake.h"
#include "compress/recipe.h"
#include "model/model.h"

typedef struct nq_compress_job {
    nq_recipe recipe;
    nq_tensors *ts;
    nq_intake intake;
    nq_pool *pool;
    json_t *model;     /* its description */
    nq_writer *writer; /* NULL for a plan */
    bool held;         /* a remote source is kept in memory */
    bool doubtful;     /* recalled tensors are compared with the source */
    nq_calibration calibration;
    const nq_tensor_info *embedding; /* that embedding_values hold, or NULL */
    const float *embedding_values;   /* borrowed from the flow */
    bool *written;                   /* (recipe.count) */
    uint64_t tensors;                /* written so far */
    uint64_t done, total;            /* source bytes, for progress */
    uint64_t coded_bytes;            /* of the coded tensors, as stored */
    uint64_t scarce;          /* groups of matrices with fewer calibration tokens than columns */
    uint32_t unlearnt;        /* blocks that were not refined one by one */
    uint64_t resumed;         /* tensors that were recalled */
    uint64_t resumed_bytes;   /* of the source */
    size_t verified;          /* files of the source whose promised hash holds */
    bool refuted;             /* a file of the source is not the one that was promised */
    nq_weights *teacher;      /* what is written was refined: its errors are measured anew
                                 against this; else NULL; borrowed */
    struct timespec finished; /* when the last tensor was, for telemetry */
} nq_compress_job;

/* ---- store.c */

/* The whole tensor as floats in *w (nq_free), its statistics filled in. *w is NULL
 * when it holds NaN or infinity: such a tensor is then no longer to be coded, of
 * which nq_job_store() warns. */
NOVAQ_CHECK novaq_status nq_job_read(float **w, nq_compress_job *j, nq_recipe_tensor *t,
                                     novaq_error *err);
/* Takes the tensor over from an interrupted run, if it is the next there and still the
 * same, and marks it written. *layer: with its data, until the writer is used again. */
NOVAQ_CHECK novaq_status nq_job_recall(nq_layer *layer, bool *found, nq_compress_job *j,
                                       nq_recipe_tensor *t, novaq_error *err);
/* Writes a coded tensor and marks it written. */
NOVAQ_CHECK novaq_status nq_job_write(nq_compress_job *j, nq_recipe_tensor *t, const nq_encoded *e,
                                      novaq_error *err);
/* Recalls, codes (without knowledge of inputs) or copies a tensor, and writes it. */
NOVAQ_CHECK novaq_status nq_job_store(nq_compress_job *j, nq_recipe_tensor *t, novaq_error *err);
/* All that is not written yet, in the order of the source. */
NOVAQ_CHECK novaq_status nq_job_store_rest(nq_compress_job *j, novaq_error *err);
/* Progress of the compress phase; NOVAQ_E_INTERRUPTED when asked to stop. */
NOVAQ_CHECK novaq_status nq_job_progress(nq_compress_job *j, const char *item, novaq_error *err);
/* The same again, as a tick of a flow or of what waits for the source; ctx is the job. */
NOVAQ_CHECK novaq_status nq_job_tick(void *ctx, novaq_error *err);

/* ---- journaled.c */

/* Before anything is fetched: whether the output can be written, by nobody else, and
 * whether there is about enough room. */
NOVAQ_CHECK novaq_status nq_job_check_target(const nq_compress_job *j, novaq_error *err);
/* Opens the writer, and says in a warning how it goes on from an interrupted run.
 * config: what goes to the manifest. */
NOVAQ_CHECK novaq_status nq_job_open_writer(nq_compress_job *j, const json_t *config,
                                            novaq_error *err);
/* Calibration text, sampled or read, or taken over; a reason for having none is
 * worth a warning. */
NOVAQ_CHECK novaq_status nq_job_calibration(nq_compress_job *j, novaq_error *err);
/* s (recipe.count): as nq_sensitivity_measure(), or taken over. */
NOVAQ_CHECK novaq_status nq_job_sensitivities(nq_sensitivity *s, nq_compress_job *j,
                                              novaq_error *err);
/* Whether the failure is none of the input's: the same call may succeed later. */
bool nq_job_may_go_on(novaq_status st);
/* Gives the writer up after a failure; err then says that the run can be continued, if
 * it can. Returns st. */
NOVAQ_CHECK novaq_status nq_job_give_up(nq_compress_job *j, novaq_status st, novaq_error *err);

/* calibrated.c: codes and writes all matrices of the model's blocks, its embedding
 * and head, with knowledge of their inputs. */
NOVAQ_CHECK novaq_status nq_job_calibrated(nq_compress_job *j, novaq_error *err);

/* compress.c: novaq_compress() without refining; opt->refine: what is made will be refined,
 * so budgets leave room for what that adds, and a model that cannot be is refused. */
NOVAQ_CHECK novaq_status nq_compress_plain(char **report, const novaq_compress_options *opt,
                                           novaq_error *err);

/* refine_made.c: novaq_compress() with opt->refine. */
NOVAQ_CHECK novaq_status nq_compress_refined(char **report, const novaq_compress_options *opt,
                                             novaq_error *err);
/* Removes the files of an artifact; what is none stays, and so does what else lies in its
 * folder. */
void nq_remove_artifact(const char *path);

#endif
