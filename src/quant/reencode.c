/* reencode.c - see reencode.h. */
#include "quant/reencode.h"

#include <math.h>
#include <string.h>

#include "base/half.h"
#include "base/mem.h"
#include "quant/feedback.h"

#define WEIGHT_FLOOR 1e-4F /* as in encode.c */
#define DECODE_ROWS  64U

typedef struct recoding {
    const nq_qmat *q;
    const nq_reencode_options *opt;
    nq_pool *pool;
    float *w; /* (rows, cols) */
    uint64_t stride, segments;
    uint32_t groups;
    float *scale, *weight, *factor; /* (rows) */
    uint8_t *old, *plain;           /* (rows, fields, stride) unpacked */
    double *before, *output;        /* (segments, 2) */
    nq_trellis *trellis;            /* (threads, groups) */
    nq_feedback feedback;
    uint8_t *scratch; /* (threads, bytes) */
    uint64_t bytes;
} recoding;

/* ---- the target ------------------------------------------------------------------- */

/* w into the coded basis: W C Dt Ht. */
static void change_basis(const recoding *r) {
    const nq_qmat *q = r->q;
    for (uint64_t i = 0; q->col_exponent != NULL && i < q->rows; i++) {
        for (uint64_t c = 0; c < q->cols; c++) {
            r->w[i * q->cols + c] *= nq_col_factor((int8_t)-q->col_exponent[c]);
        }
    }
    nq_rotate_forward(r->w, &q->rotation, q->rows, q->cols);
}

/* w becomes q + step (w - before). */
static novaq_status take_step(const recoding *r, novaq_error *err) {
    const nq_qmat *q = r->q;
    const nq_qmat *before = r->opt->before != NULL ? r->opt->before : q;
    uint64_t bytes = (nq_qmat_scratch(q) + nq_qmat_scratch(before) + 63) / 64 * 64;
    float *now = NULL;
    uint8_t *scratch = NULL;
    NQ_TRY(nq_alloc_raw(&now, 2 * DECODE_ROWS * q->cols, sizeof *now, err));
    float *then = now + DECODE_ROWS * q->cols;
    novaq_status st = nq_alloc_raw(&scratch, bytes, 1, err);
    for (uint64_t row = 0; st == NOVAQ_OK && row < q->rows; row += DECODE_ROWS) {
        uint64_t count = q->rows - row < DECODE_ROWS ? q->rows - row : DECODE_ROWS;
        float *w = r->w + row * q->cols;
        nq_qmat_decode(now, q, row, count, scratch);
        nq_qmat_decode(then, before, row, count, scratch);
        for (uint64_t i = 0; i < count * q->cols; i++) {
            w[i] = now[i] + r->opt->step * (w[i] - then[i]);
        }
    }
    nq_free(scratch);
    nq_free(now);
    return st;
}

/* w to (w - mean) / scale, with those that are stored. A row whose scale is 0 decodes to
 * its mean, whatever its symbols. */
static void normalize(recoding *r) {
    const nq_qmat *q = r->q;
    double sum = 0;
    for (uint64_t i = 0; i < q->rows; i++) {
        r->scale[i] = ldexpf(nq_f16_to_f32(q->row_scale[i]), q->exponent);
        sum += (double)r->scale[i] * (double)r->scale[i];
        float mean = q->row_mean != NULL ? nq_f16_to_f32(q->row_mean[i]) : 0.0F;
        float inverse = r->scale[i] > 0 ? 1.0F / r->scale[i] : 0.0F;
        for (uint64_t c = 0; c < q->cols; c++) {
            float *w = &r->w[i * q->cols + c];
            *w = (*w - mean) * inverse;
        }
    }
    double each = sum > 0 ? sum / (double)q->rows : 1;
    for (uint64_t i = 0; i < q->rows; i++) {
        float w = (float)((double)r->scale[i] * (double)r->scale[i] / each);
        r->weight[i] = w > WEIGHT_FLOOR ? w : WEIGHT_FLOOR;
    }
}

/* ---- codebooks and symbols ----------------------------------------------------------- */

/* Of group g, for each worker. */
static novaq_status open_group(recoding *r, uint32_t g, float *values, novaq_error *err) {
    const nq_qmat *q = r->q;
    uint64_t book = nq_scheme_codebook_bytes(&q->scheme);
    float scale = nq_f16_to_f32(q->codebook_scale[g]);
    for (uint64_t e = 0; e < book; e++) {
        values[e] = scale * (float)q->codebooks[g * book + e];
    }
    NQ_TRY(nq_trellis_open(&r->trellis[g], &q->scheme, values, err));
    for (unsigned t = 1; t < nq_pool_threads(r->pool); t++) {
        NQ_TRY(nq_trellis_clone(&r->trellis[t * r->groups + g], &r->trellis[g], err));
    }
    return NOVAQ_OK;
}

static novaq_status open_trellises(recoding *r, novaq_error *err) {
    float *values = NULL;
    uint64_t count = (uint64_t)nq_pool_threads(r->pool) * r->groups;
    NQ_TRY(nq_alloc(&r->trellis, count, sizeof *r->trellis, err));
    NQ_TRY(nq_alloc_raw(&values, nq_scheme_codebook_bytes(&r->q->scheme), sizeof *values, err));
    novaq_status st = NOVAQ_OK;
    for (uint32_t g = 0; st == NOVAQ_OK && g < r->groups; g++) {
        st = open_group(r, g, values, err);
    }
    nq_free(values);
    return st;
}

static uint64_t subvectors(const recoding *r) {
    return (r->q->cols + r->q->scheme.d - 1) / r->q->scheme.d;
}

/* A K that is no power of two leaves room for symbols that have no entry. */
static novaq_status unpack(recoding *r, novaq_error *err) {
    const nq_scheme *s = &r->q->scheme;
    nq_symbol_rows rows = nq_symbol_rows_of(s, r->q->cols);
    for (uint64_t i = 0; i < r->q->rows; i++) {
        uint8_t *row = r->old + i * s->fields * r->stride;
        nq_symbols_unpack_row(row, &rows, r->q->symbols + i * rows.bytes);
        for (uint64_t j = 0; j < subvectors(r) * s->fields; j++) {
            uint64_t f = j / subvectors(r);
            if (row[f * r->stride + j % subvectors(r)] >= s->k[f]) {
                return nq_fail(err, NOVAQ_E_FORMAT, "row %llu has a symbol without an entry",
                               (unsigned long long)i);
            }
        }
    }
    memcpy(r->plain, r->old, r->q->rows * s->fields * r->stride);
    return NOVAQ_OK;
}

/* ---- all of it ------------------------------------------------------------------------- */

static novaq_status check(const nq_qmat *q, const nq_reencode_options *opt, novaq_error *err) {
    const nq_metric *m = opt->metric;
    bool fits = q->scheme.kind == NQ_SCHEME_CODE && m->cols == q->cols && m->order == NULL &&
                m->rotation.block == q->rotation.block &&
                (m->rotation.block == 0 || m->rotation.seed == q->rotation.seed) &&
                (m->col_exponent == NULL) == (q->col_exponent == NULL) &&
                (m->col_exponent == NULL || memcmp(m->col_exponent, q->col_exponent, q->cols) == 0);
    if (!fits) {
        return nq_fail(err, NOVAQ_E_ARG, "a metric in another basis than the matrix is in");
    }
    const nq_qmat *b = opt->before;
    bool same =
        b == NULL || (b->rows == q->rows && b->cols == q->cols &&
                      b->scheme.kind == NQ_SCHEME_CODE && b->rotation.block == q->rotation.block);
    return same ? NOVAQ_OK : nq_fail(err, NOVAQ_E_ARG, "another matrix than it was before");
}

static novaq_status prepare(recoding *r, novaq_error *err) {
    const nq_qmat *q = r->q;
    unsigned threads = nq_pool_threads(r->pool);
    r->stride = nq_scheme_row_symbols(&q->scheme, q->cols);
    r->segments = (q->rows + q->segment_rows - 1) / q->segment_rows;
    r->groups = q->groups > 1 ? q->groups : 1;
    NQ_TRY(nq_alloc(&r->scale, q->rows, sizeof(float), err));
    NQ_TRY(nq_alloc(&r->weight, q->rows, sizeof(float), err));
    NQ_TRY(nq_alloc(&r->factor, q->rows, sizeof(float), err));
    NQ_TRY(nq_alloc(&r->old, q->rows * q->scheme.fields, r->stride, err));
    NQ_TRY(nq_alloc(&r->plain, q->rows * q->scheme.fields, r->stride, err));
    NQ_TRY(nq_alloc(&r->before, r->segments, 2 * sizeof(double), err));
    NQ_TRY(nq_alloc(&r->output, r->segments, 2 * sizeof(double), err));
    NQ_TRY(open_trellises(r, err));
    NQ_TRY(unpack(r, err));
    r->feedback = (nq_feedback){.metric = r->opt->metric,
                                .trellis = r->trellis,
                                .w = r->w,
                                .weight = r->weight,
                                .factor = r->factor,
                                .symbols = r->plain,
                                .output = r->output,
                                .before = r->before,
                                .rows = q->rows,
                                .stride = r->stride,
                                .segment_rows = q->segment_rows,
                                .groups = r->groups,
                                .group_cols = q->group_cols,
                                .feed = true,
                                .sweeps = r->opt->sweeps};
    r->bytes = (nq_feedback_scratch(&r->feedback) + 63) / 64 * 64;
    return nq_alloc_raw(&r->scratch, threads, r->bytes, err);
}

static void segment_task(void *ctx, uint64_t segment, unsigned worker) {
    const recoding *r = ctx;
    nq_feedback_segment(&r->feedback, segment, worker, r->scratch + worker * r->bytes);
}

/* What was there is measured the same way, whatever is done then. */
static void run(recoding *r) {
    nq_feedback first = r->feedback;
    r->feedback.present = true;
    if (r->opt->anew) {
        r->feedback.sweeps = 0;
        nq_pool_run(r->pool, segment_task, r, r->segments);
        memset(r->output, 0, r->segments * 2 * sizeof(double)); /* it is added to */
        r->feedback = first;
    }
    nq_pool_run(r->pool, segment_task, r, r->segments);
}

static double share_of(const double *sums, uint64_t segments) {
    double error = 0;
    double size = 0;
    for (uint64_t g = 0; g < segments; g++) {
        error += sums[g * 2];
        size += sums[g * 2 + 1];
    }
    return size > 0 ? error / size : 0;
}

static void count_changes(nq_reencoded *out, const recoding *r) {
    unsigned fields = r->q->scheme.fields;
    out->count = r->q->rows * subvectors(r);
    for (uint64_t i = 0; i < r->q->rows; i++) {
        uint64_t at = i * fields * r->stride;
        for (uint64_t j = 0; j < subvectors(r); j++) {
            bool other = r->plain[at + j] != r->old[at + j];
            other =
                other || (fields > 1 && r->plain[at + r->stride + j] != r->old[at + r->stride + j]);
            out->changed += other;
        }
    }
}

static novaq_status finish(nq_reencoded *out, recoding *r, novaq_error *err) {
    const nq_scheme *s = &r->q->scheme;
    uint64_t row_bytes = nq_scheme_row_bytes(s, r->q->cols);
    NQ_TRY(nq_alloc(&out->symbols, r->q->rows, row_bytes, err));
    for (uint64_t i = 0; i < r->q->rows; i++) {
        nq_symbols_pack(out->symbols + i * row_bytes, s, r->plain + i * s->fields * r->stride,
                        r->q->cols);
    }
    out->before = share_of(r->before, r->segments);
    out->after = share_of(r->output, r->segments);
    count_changes(out, r);
    nq_symbol_use(&out->symbol_use, s, r->plain, r->q->rows, r->stride, subvectors(r));
    return NOVAQ_OK;
}

static void close_recoding(recoding *r) {
    uint64_t count = (uint64_t)nq_pool_threads(r->pool) * r->groups;
    for (uint64_t i = 0; r->trellis != NULL && i < count; i++) {
        nq_trellis_close(&r->trellis[i]);
    }
    nq_free(r->trellis);
    nq_free(r->scale);
    nq_free(r->weight);
    nq_free(r->factor);
    nq_free(r->old);
    nq_free(r->plain);
    nq_free(r->before);
    nq_free(r->output);
    nq_free(r->scratch);
}

novaq_status nq_reencode(nq_reencoded *out, const nq_qmat *q, float *w,
                         const nq_reencode_options *opt, nq_pool *pool, novaq_error *err) {
    recoding r = {.q = q, .opt = opt, .pool = pool, .w = w};
    *out = (nq_reencoded){0};
    NQ_TRY(check(q, opt, err));
    novaq_status st = prepare(&r, err);
    if (st == NOVAQ_OK) {
        change_basis(&r);
        st = nq_metric_correct(w, q->rows, opt->metric, opt->residual, opt->correct_share, pool,
                               err);
    }
    if (st == NOVAQ_OK && (opt->before != NULL || opt->step < 1)) {
        st = take_step(&r, err);
    }
    if (st == NOVAQ_OK) {
        normalize(&r);
        run(&r);
        st = finish(out, &r, err);
    }
    close_recoding(&r);
    return st;
}
