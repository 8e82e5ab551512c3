/* refine_teacher.h - a teacher that has no room beside its student.
 *
 * Owns: its predictions in the file of novaq_refine_options.teacher_cache: taken over where
 * they are those of this teacher and text, else made by the teacher alone, which then is
 * closed again. Refuses: the format (refine/predictions.h), learning.
 */
#ifndef NQ_COMPRESS_REFINE_TEACHER_H
#define NQ_COMPRESS_REFINE_TEACHER_H

#include "compress/calibration.h"
#include "model/model.h"
#include "refine/predictions.h"

/* Most probable tokens of each prediction that are kept, unless told otherwise. */
#define NQ_TEACHER_TOP 64U

typedef struct nq_refine_teacher {
    const novaq_refine_options *opt;
    const char *locator; /* of the teacher */
    const char *key;     /* what tells that its weights are the same */
    const nq_calibration *text;
    nq_pool *pool;
    nq_tensors **source; /* the teacher's, NULL in it where it is an artifact, and the */
    nq_model **model;    /* teacher, lean: both as they were afterwards, opened anew */
    /* Receives a line of JSON before the work (its reference too). */
    void (*tell)(void *ctx, json_t *line);
    void *tell_ctx;
} nq_refine_teacher;

/* *record: what the report says of it. */
NOVAQ_CHECK novaq_status nq_refine_predictions(nq_predictions **out, json_t **record,
                                               const nq_refine_teacher *t, novaq_error *err);

#endif
