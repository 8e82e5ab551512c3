/* teacher.h - where the teacher's predictions come from while its student learns.
 *
 * Owns: comparing a student's logits with what the teacher predicts for the same windows: by
 * a net beside the student, of which the last block's output for the held-out windows is kept
 * once it is known, so that measuring again takes its head alone; or from a file
 * (predictions.h), and then the teacher takes no memory. Refuses: opening models, making
 * such files.
 */
#ifndef NQ_REFINE_TEACHER_H
#define NQ_REFINE_TEACHER_H

#include "refine/loss.h"
#include "refine/predictions.h"

/* Windows of a text: the first `train` are learnt from, the others measured on. */
typedef struct nq_refine_data {
    const int32_t *tokens; /* (sequences, length) */
    uint32_t sequences, length, train;
} nq_refine_data;

/* One of the two; borrowed. */
typedef struct nq_teacher_from {
    nq_net *net;                 /* frozen, */
    uint32_t dim;                /* whose residual stream is so wide */
    nq_predictions *predictions; /* of the windows in their order; NULL: the net */
} nq_teacher_from;

typedef struct nq_teacher nq_teacher;

/* vocab: the student's, and the teacher's. */
NOVAQ_CHECK novaq_status nq_teacher_open(nq_teacher **out, const nq_teacher_from *from,
                                         const nq_refine_data *data, uint32_t vocab, nq_pool *pool,
                                         novaq_error *err);
void nq_teacher_close(nq_teacher **t);
/* Bytes it takes for batches of so many windows, at most; a net's own are not in it, and
 * need not be there yet. */
uint64_t nq_teacher_bytes(const nq_teacher_from *from, const nq_refine_data *data, uint32_t vocab,
                          uint32_t batch);

/* What is compared next: the windows of this pass, held out all (then they follow each
 * other) or none. pass: as the net sees it; its `hidden` is only called of windows that are
 * not held out, and never without a net. Borrowed until the next. */
NOVAQ_CHECK novaq_status nq_teacher_see(nq_teacher *t, const nq_net_pass *pass,
                                        const uint32_t *windows, novaq_error *err);

/* Rows of that pass. */
typedef struct nq_teacher_rows {
    const float *student; /* (n, vocab) */
    uint32_t row0, n;
    const int32_t *next; /* (n) tokens that came, or NULL; below 0: none */
    bool plain;          /* at temperature 1 instead of: */
    float temperature;   /* what the file was made for, where there is one */
    float weight;        /* of the gradient */
} nq_teacher_rows;

/* *sums and dlogits (n, vocab) or NULL: as nq_loss_kl() does, or nq_loss_kl_top(). */
NOVAQ_CHECK novaq_status nq_teacher_compare(nq_loss_sums *sums, float *dlogits, nq_teacher *t,
                                            const nq_teacher_rows *rows, novaq_error *err);

#endif
