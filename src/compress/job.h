/* job.h - what the files of novaq_compress() share.
 *
 * Owns: the state of one compression and the ways a tensor gets into the
 * artifact: as it is, as floats, coded. compress.c writes tensor by tensor;
 * calibrated.c block by block. Refuses: use outside these.
 */
#ifndef NQ_COMPRESS_JOB_H
#define NQ_COMPRESS_JOB_H

#include "artifact/write.h"
#include "compress/calibration.h"
#include "compress/recipe.h"
#include "model/model.h"

typedef struct nq_compress_job {
    nq_recipe recipe;
    nq_tensors *ts;
    nq_pool *pool;
    nq_writer *writer;
    nq_calibration calibration;
    bool *written;        /* (recipe.count) */
    uint64_t done, total; /* source bytes, for progress */
    uint64_t coded_bytes; /* of the coded tensors, as stored */
    uint64_t scarce;      /* groups of matrices with fewer calibration tokens than columns */
    const char *item;     /* tensor at work, for progress; borrowed */
} nq_compress_job;

/* The whole tensor as floats in *w (nq_free), its statistics filled in. *w is NULL
 * when it holds NaN or infinity: such a tensor is then no longer to be coded, of
 * which nq_job_store() warns. */
NOVAQ_CHECK novaq_status nq_job_read(float **w, nq_compress_job *j, nq_recipe_tensor *t,
                                     novaq_error *err);
/* Writes a coded tensor and marks it written. */
NOVAQ_CHECK novaq_status nq_job_write(nq_compress_job *j, nq_recipe_tensor *t, const nq_encoded *e,
                                      novaq_error *err);
/* Codes (without knowledge of inputs) or copies a tensor, and writes it. */
NOVAQ_CHECK novaq_status nq_job_store(nq_compress_job *j, nq_recipe_tensor *t, novaq_error *err);
/* Progress of the compress phase; NOVAQ_E_INTERRUPTED when asked to stop. */
NOVAQ_CHECK novaq_status nq_job_progress(nq_compress_job *j, const char *item, novaq_error *err);
/* The same again, as a tick of a flow; ctx is the job. */
NOVAQ_CHECK novaq_status nq_job_tick(void *ctx, novaq_error *err);

/* calibrated.c: codes and writes all matrices of the model's blocks, its embedding
 * and head, with knowledge of their inputs. */
NOVAQ_CHECK novaq_status nq_job_calibrated(nq_compress_job *j, novaq_error *err);

#endif
