/* teacher.c - see teacher.h. */
#include "refine/teacher.h"

#include <string.h>

#include "base/mem.h"

struct nq_teacher {
    nq_teacher_from from;
    nq_refine_data data;
    uint32_t vocab;
    nq_pool *pool;
    float *outputs;          /* (held, length, dim) of the teacher's last block */
    bool *known;             /* (held) which of them; NULL with a file */
    const float *output;     /* (rows, dim) of the pass at work: the net's, or kept */
    const uint32_t *windows; /* of the pass at work */
    uint32_t room;           /* rows of what follows */
    float *scratch_rows;     /* (room, vocab) */
    double *scratch;         /* (2, room) */
    float *logits;           /* (room, vocab) of the net */
    uint32_t *ids;           /* (room, top) of a file, as are the following */
    float *logs, *kept;
    float *rest;    /* (room) */
    uint8_t *bytes; /* (room) rows of the file */
};

static uint32_t held_out(const nq_refine_data *d) { return d->sequences - d->train; }

static uint64_t output_floats(const nq_teacher *t) {
    return (uint64_t)t->data.length * t->from.dim;
}

novaq_status nq_teacher_open(nq_teacher **out, const nq_teacher_from *from,
                             const nq_refine_data *data, uint32_t vocab, nq_pool *pool,
                             novaq_error *err) {
    nq_teacher *t = NULL;
    *out = NULL;
    NQ_TRY(nq_alloc(&t, 1, sizeof *t, err));
    *t = (nq_teacher){.from = *from, .data = *data, .vocab = vocab, .pool = pool};
    novaq_status st = NOVAQ_OK;
    if (from->predictions == NULL) {
        st = nq_alloc(&t->known, held_out(data), sizeof *t->known, err);
        if (st == NOVAQ_OK) {
            st = nq_alloc_raw(&t->outputs, held_out(data), output_floats(t) * sizeof(float), err);
        }
    }
    if (st != NOVAQ_OK) {
        nq_teacher_close(&t);
        return st;
    }
    *out = t;
    return NOVAQ_OK;
}

/* ---- buffers ------------------------------------------------------------------------------- */

static void free_rows(nq_teacher *t) {
    nq_free(t->scratch_rows);
    nq_free(t->scratch);
    nq_free(t->logits);
    nq_free(t->ids);
    nq_free(t->logs);
    nq_free(t->kept);
    nq_free(t->rest);
    nq_free(t->bytes);
    t->scratch_rows = t->logits = t->logs = t->kept = t->rest = NULL;
    t->scratch = NULL;
    t->ids = NULL;
    t->bytes = NULL;
    t->room = 0;
}

static novaq_status alloc_rows(nq_teacher *t, uint64_t n, novaq_error *err) {
    const nq_predictions *p = t->from.predictions;
    NQ_TRY(nq_alloc_raw(&t->scratch_rows, n * t->vocab, sizeof(float), err));
    NQ_TRY(nq_alloc_raw(&t->scratch, 2 * n, sizeof(double), err));
    if (p == NULL) {
        return nq_alloc_raw(&t->logits, n * t->vocab, sizeof(float), err);
    }
    uint64_t kept = n * nq_predictions_top(p);
    NQ_TRY(nq_alloc_raw(&t->ids, kept, sizeof(uint32_t), err));
    NQ_TRY(nq_alloc_raw(&t->logs, kept, sizeof(float), err));
    NQ_TRY(nq_alloc_raw(&t->kept, kept, sizeof(float), err));
    NQ_TRY(nq_alloc_raw(&t->rest, n, sizeof(float), err));
    return nq_alloc_raw(&t->bytes, n, nq_predictions_row_bytes(p), err);
}

static novaq_status need_rows(nq_teacher *t, uint32_t n, novaq_error *err) {
    if (n <= t->room) {
        return NOVAQ_OK;
    }
    free_rows(t);
    NQ_TRY(alloc_rows(t, n, err));
    t->room = n;
    return NOVAQ_OK;
}

void nq_teacher_close(nq_teacher **pt) {
    nq_teacher *t = *pt;
    *pt = NULL;
    if (t != NULL) {
        free_rows(t);
        nq_free(t->outputs);
        nq_free(t->known);
        nq_free(t);
    }
}

uint64_t nq_teacher_bytes(const nq_teacher_from *from, const nq_refine_data *data, uint32_t vocab,
                          uint32_t batch) {
    uint64_t rows = (uint64_t)batch * data->length;
    uint64_t most = NQ_NET_CHUNK_FLOATS / vocab;
    most = most > NQ_NET_CHUNK_ROWS ? most : NQ_NET_CHUNK_ROWS;
    rows = rows < most ? rows : most; /* of logits at a time */
    uint64_t row = (uint64_t)vocab * sizeof(float) + 2 * sizeof(double);
    if (from->predictions == NULL) {
        uint64_t held = (uint64_t)held_out(data) * (data->length * (uint64_t)from->dim + 1);
        return rows * (row + (uint64_t)vocab * sizeof(float)) + held * sizeof(float);
    }
    uint64_t top = nq_predictions_top(from->predictions);
    return rows * (row + 3 * top * sizeof(float) + sizeof(float) +
                   nq_predictions_row_bytes(from->predictions));
}

/* ---- comparing --------------------------------------------------------------------------------
 */

novaq_status nq_teacher_see(nq_teacher *t, const nq_net_pass *pass, const uint32_t *windows,
                            novaq_error *err) {
    t->windows = windows;
    if (t->from.predictions != NULL) {
        return NOVAQ_OK;
    }
    bool held = windows[0] >= t->data.train;
    uint32_t first = held ? windows[0] - t->data.train : 0;
    bool known = held;
    for (uint32_t i = 0; held && i < pass->sequences; i++) {
        known = known && t->known[first + i];
    }
    float *kept = t->outputs + first * output_floats(t);
    t->output = kept;
    if (known) {
        return NOVAQ_OK;
    }
    NQ_TRY(nq_net_run(t->from.net, pass, err));
    t->output = nq_net_output(t->from.net);
    for (uint32_t i = 0; held && i < pass->sequences; i++) {
        memcpy(kept + i * output_floats(t), t->output + i * output_floats(t),
               output_floats(t) * sizeof(float));
        t->known[first + i] = true;
    }
    return NOVAQ_OK;
}

static novaq_status compare_net(nq_loss_sums *sums, float *dlogits, nq_teacher *t,
                                const nq_teacher_rows *a, novaq_error *err) {
    NQ_TRY(nq_net_head(t->logits, t->from.net, t->output + (uint64_t)a->row0 * t->from.dim, a->n,
                       err));
    nq_loss_rows rows = {.student = a->student,
                         .teacher = t->logits,
                         .next = a->next,
                         .n = a->n,
                         .vocab = t->vocab,
                         .temperature = a->plain ? 1.0F : a->temperature,
                         .weight = a->weight};
    nq_loss_kl(sums, dlogits, &rows, t->scratch, t->scratch_rows, t->pool);
    return NOVAQ_OK;
}

/* The rows of a pass lie in the file window by window. */
static novaq_status read_rows(nq_teacher *t, const nq_teacher_rows *a, novaq_error *err) {
    uint64_t top = nq_predictions_top(t->from.predictions);
    uint32_t length = t->data.length;
    for (uint32_t done = 0; done < a->n;) {
        uint32_t row = a->row0 + done;
        uint32_t n = length - row % length;
        n = n < a->n - done ? n : a->n - done;
        uint64_t at = (uint64_t)t->windows[row / length] * length + row % length;
        NQ_TRY(nq_predictions_read(t->ids + done * top, t->logs + done * top, t->rest + done,
                                   t->from.predictions, a->plain, at, n, t->bytes, err));
        done += n;
    }
    return NOVAQ_OK;
}

static novaq_status compare_file(nq_loss_sums *sums, float *dlogits, nq_teacher *t,
                                 const nq_teacher_rows *a, novaq_error *err) {
    NQ_TRY(read_rows(t, a, err));
    nq_loss_top rows = {.student = a->student,
                        .ids = t->ids,
                        .logs = t->logs,
                        .rest = t->rest,
                        .kept = t->kept,
                        .next = a->next,
                        .n = a->n,
                        .k = nq_predictions_top(t->from.predictions),
                        .vocab = t->vocab,
                        .temperature = a->plain ? 1.0F : a->temperature,
                        .weight = a->weight};
    nq_loss_kl_top(sums, dlogits, &rows, t->scratch, t->scratch_rows, t->pool);
    return NOVAQ_OK;
}

novaq_status nq_teacher_compare(nq_loss_sums *sums, float *dlogits, nq_teacher *t,
                                const nq_teacher_rows *rows, novaq_error *err) {
    NQ_TRY(need_rows(t, rows->n, err));
    return t->from.predictions != NULL ? compare_file(sums, dlogits, t, rows, err)
                                       : compare_net(sums, dlogits, t, rows, err);
}
