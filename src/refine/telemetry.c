/* telemetry.c - see telemetry.h. */
#include "refine/telemetry.h"

#include <math.h>
#include <string.h>

#include "base/half.h"
#include "base/mem.h"

/* Sums are taken in so many pieces of rows, so many rows at a time. */
#define PIECES 16
#define ROWS   16

typedef struct measurement {
    const nq_layer *l;
    nq_weights *source;
    const nq_weight *w;
    uint64_t span;        /* rows of a piece */
    uint64_t subs;        /* subspaces; 0: not coded by symbols */
    double *sums;         /* (pieces, subs or 1, 4) in the coded basis */
    double *totals;       /* (pieces, 4) in the weights' own */
    novaq_status *status; /* (pieces) */
    novaq_error *errors;  /* (pieces) */
} measurement;

static void add_error(double *sums, double w, double q) {
    sums[0] += (w - q) * (w - q);
    sums[1] += w * w;
    sums[2] += q * q;
    sums[3] += w * q;
}

static bool is_coded(const nq_layer *l) {
    return l->scheme.kind == NQ_SCHEME_CODE || l->scheme.kind == NQ_SCHEME_Q8;
}

/* Element i of a layer of floats. */
static float element(const nq_layer *l, uint64_t i) {
    uint64_t width = l->data_bytes / l->elements;
    float f = 0;
    uint16_t h = 0;
    if (width == 4) {
        memcpy(&f, l->data + i * 4, 4);
        return f;
    }
    memcpy(&h, l->data + i * 2, 2);
    bool bf16 = l->scheme.kind == NQ_SCHEME_BF16 ||
                (l->scheme.kind == NQ_SCHEME_RAW && l->source_dtype == NQ_BF16);
    return bf16 ? nq_bf16_to_f32(h) : nq_f16_to_f32(h);
}

/* Rows of W into the coded basis: the way back of nq_qmat_decode_plain(). */
static void to_basis(float *w, const nq_qmat *q, uint64_t count) {
    for (uint64_t i = 0; q->col_exponent != NULL && i < count; i++) {
        for (uint64_t c = 0; c < q->cols; c++) {
            w[i * q->cols + c] /= nq_col_factor(q->col_exponent[c]);
        }
    }
    nq_rotate_forward(w, &q->rotation, count, q->cols);
}

static void measure_coded(const measurement *m, uint64_t piece, float *w, float *q, uint64_t row0,
                          uint64_t count, void *scratch) {
    const nq_qmat *qm = &m->l->q;
    uint64_t n = count * qm->cols;
    nq_qmat_decode_plain(q, qm, row0, count, scratch);
    for (uint64_t i = 0; i < n; i++) {
        add_error(m->totals + piece * 4, (double)w[i], (double)q[i]);
    }
    if (m->subs == 0) {
        return;
    }
    nq_qmat_decode(q, qm, row0, count, scratch);
    to_basis(w, qm, count);
    for (uint64_t i = 0; i < n; i++) {
        uint64_t sub = i % qm->cols / qm->scheme.d;
        add_error(m->sums + (piece * m->subs + sub) * 4, (double)w[i], (double)q[i]);
    }
}

static novaq_status measure_piece(const measurement *m, uint64_t piece, novaq_error *err) {
    uint64_t cols = m->w->cols;
    float *w = NULL;
    void *scratch = NULL;
    NQ_TRY(nq_alloc_raw(&w, 2 * ROWS * cols, sizeof *w, err));
    float *q = w + ROWS * cols;
    novaq_status st = NOVAQ_OK;
    if (is_coded(m->l)) {
        st = nq_alloc_raw(&scratch, nq_qmat_scratch(&m->l->q), 1, err);
    }
    uint64_t end = (piece + 1) * m->span < m->w->rows ? (piece + 1) * m->span : m->w->rows;
    for (uint64_t row = piece * m->span; st == NOVAQ_OK && row < end; row += ROWS) {
        uint64_t count = end - row < ROWS ? end - row : ROWS;
        st = nq_weights_read_rows(w, m->source, m->w, row, count, err);
        if (st == NOVAQ_OK && is_coded(m->l)) {
            measure_coded(m, piece, w, q, row, count, scratch);
        }
        for (uint64_t i = 0; st == NOVAQ_OK && !is_coded(m->l) && i < count * cols; i++) {
            add_error(m->totals + piece * 4, (double)w[i], (double)element(m->l, row * cols + i));
        }
    }
    nq_free(scratch);
    nq_free(w);
    return st;
}

static void piece_task(void *ctx, uint64_t task, unsigned worker) {
    const measurement *m = ctx;
    (void)worker;
    m->status[task] = measure_piece(m, task, &m->errors[task]);
}

/* Without what describes the codebooks that were. */
static novaq_status copy_diagnostics(json_t **out, const nq_layer *l, novaq_error *err) {
    static const char *const gone[] = {"mse_min", "mse_mean", "mse_max", "worst", "cosine_min"};
    *out = NULL;
    if (l->diagnostics == NULL) {
        return NOVAQ_OK;
    }
    *out = json_deep_copy(l->diagnostics);
    if (*out == NULL) {
        return nq_fail(err, NOVAQ_E_MEMORY, "%s: cannot copy telemetry", l->name);
    }
    (void)json_object_del(*out, "relative_output_error");
    json_t *subspaces = json_object_get(*out, "subspaces");
    for (size_t i = 0; subspaces != NULL && i < sizeof gone / sizeof gone[0]; i++) {
        (void)json_object_del(subspaces, gone[i]);
    }
    return NOVAQ_OK;
}

static void put_subspaces(json_t *o, const measurement *m, uint64_t pieces) {
    double least = INFINITY;
    double most = -1;
    double mean = 0;
    double cosine_min = 1;
    uint64_t worst = 0;
    for (uint64_t sub = 0; sub < m->subs; sub++) {
        double t[4] = {0};
        for (uint64_t i = 0; i < pieces * 4; i++) {
            t[i % 4] += m->sums[(i / 4 * m->subs + sub) * 4 + i % 4];
        }
        uint64_t d = m->l->q.scheme.d;
        uint64_t width = sub + 1 < m->subs ? d : m->l->q.cols - sub * d;
        double mse = t[0] / ((double)m->l->q.rows * (double)width);
        double cosine = t[1] > 0 && t[2] > 0 ? t[3] / sqrt(t[1] * t[2]) : 1;
        cosine_min = cosine < cosine_min ? cosine : cosine_min;
        least = mse < least ? mse : least;
        worst = mse > most ? sub : worst;
        most = mse > most ? mse : most;
        mean += mse / (double)m->subs;
    }
    json_object_set_new(o, "mse_min", json_real(least));
    json_object_set_new(o, "mse_mean", json_real(mean));
    json_object_set_new(o, "mse_max", json_real(most));
    json_object_set_new(o, "worst", json_integer((json_int_t)worst));
    json_object_set_new(o, "cosine_min", json_real(cosine_min));
}

static novaq_status take_sums(nq_layer *l, const measurement *m, uint64_t pieces,
                              novaq_error *err) {
    double t[4] = {0};
    for (uint64_t p = 0; p < pieces; p++) {
        if (m->status[p] != NOVAQ_OK) {
            return nq_fail(err, m->status[p], "%s", m->errors[p].msg);
        }
        for (unsigned i = 0; i < 4; i++) {
            t[i] += m->totals[p * 4 + i];
        }
    }
    l->error = (nq_layer_error){t[0], t[1], t[2], t[3]};
    return NOVAQ_OK;
}

static novaq_status measure(json_t *diagnostics, nq_layer *l, measurement *m, nq_pool *pool,
                            novaq_error *err) {
    m->span = (m->w->rows + PIECES - 1) / PIECES;
    uint64_t pieces = (m->w->rows + m->span - 1) / m->span;
    NQ_TRY(nq_alloc(&m->sums, pieces * (m->subs > 0 ? m->subs : 1) * 4, sizeof(double), err));
    NQ_TRY(nq_alloc(&m->totals, pieces * 4, sizeof(double), err));
    NQ_TRY(nq_alloc(&m->status, pieces, sizeof *m->status, err));
    NQ_TRY(nq_alloc(&m->errors, pieces, sizeof *m->errors, err));
    nq_pool_run(pool, piece_task, m, pieces);
    NQ_TRY(take_sums(l, m, pieces, err));
    json_t *subspaces = json_object_get(diagnostics, "subspaces");
    if (m->subs > 0 && subspaces != NULL) {
        put_subspaces(subspaces, m, pieces);
    }
    return NOVAQ_OK;
}

novaq_status nq_refine_telemetry(json_t **diagnostics, nq_layer *layer, nq_weights *source,
                                 nq_pool *pool, novaq_error *err) {
    NQ_TRY(copy_diagnostics(diagnostics, layer, err));
    measurement m = {.l = layer, .source = source};
    m.w = source != NULL ? nq_weights_find(source, layer->name) : NULL;
    if (m.w == NULL || m.w->elements != layer->elements || layer->elements == 0 ||
        (is_coded(layer) && (m.w->cols != layer->q.cols || m.w->rows != layer->q.rows))) {
        layer->error = (nq_layer_error){.sq_error = 0};
        layer->error_unknown = true;
        return NOVAQ_OK;
    }
    layer->error_unknown = false;
    if (layer->scheme.kind == NQ_SCHEME_CODE) {
        m.subs = (layer->q.cols + layer->q.scheme.d - 1) / layer->q.scheme.d;
    }
    novaq_status st = measure(*diagnostics, layer, &m, pool, err);
    nq_free(m.sums);
    nq_free(m.totals);
    nq_free(m.status);
    nq_free(m.errors);
    if (st != NOVAQ_OK) {
        json_decref(*diagnostics);
        *diagnostics = NULL;
    }
    return st;
}
