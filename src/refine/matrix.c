/* matrix.c - see matrix.h: making matrices, decoding them, products forward. */
#include <limits.h>
#include <math.h>
#include <string.h>

#include "base/cpu.h"
#include "base/half.h"
#include "base/mem.h"
#include "quant/trellis.h"
#include "refine/matrix_impl.h"

/* ---- opening ------------------------------------------------------------------ */

static bool is_whole(const nq_tmatrix *m) { return m->rows == m->source.w->rows; }

/* Groups of training from those stored. */
static void cut_groups(nq_tmatrix *m, uint64_t group_cols) {
    const nq_qmat *q = m->q;
    uint64_t d = q->scheme.d;
    uint64_t stored = q->groups == 1 ? (q->cols + d - 1) / d * d : q->group_cols;
    uint64_t lane = (nq_scheme_field_bits(&q->scheme, 0) == 4 ? 32 : 64) * d;
    uint64_t cols = (group_cols + lane - 1) / lane * lane;
    bool fits = cols > 0 && cols < stored && (q->groups == 1 || stored % cols == 0);
    m->group_cols = fits && is_whole(m) ? cols : stored;
    m->groups = (uint32_t)((q->cols + m->group_cols - 1) / m->group_cols);
}

static void copy_codebooks(nq_tmatrix *m) {
    const nq_qmat *q = m->q;
    uint64_t book = nq_tmatrix_book(m);
    for (uint64_t g = 0; g < m->groups; g++) {
        uint64_t from = q->groups == 1 ? 0 : g * m->group_cols / q->group_cols;
        float scale = nq_f16_to_f32(q->codebook_scale[from]);
        for (uint64_t e = 0; e < book; e++) {
            m->codebooks[g * book + e] = scale * (float)q->codebooks[from * book + e];
        }
    }
}

/* A K that is no power of two leaves room for symbols that have no entry. */
static novaq_status check_symbols(const nq_tmatrix *m, novaq_error *err) {
    const nq_scheme *s = &m->q->scheme;
    uint64_t stride = nq_scheme_row_symbols(s, m->cols);
    uint64_t used = (m->cols + s->d - 1) / s->d;
    bool needed = false;
    for (unsigned f = 0; f < s->fields; f++) {
        needed = needed || 1U << nq_scheme_field_bits(s, f) != s->k[f];
    }
    nq_symbol_rows rows = nq_symbol_rows_of(s, m->cols);
    uint8_t *row = NULL;
    if (needed) {
        NQ_TRY(nq_alloc_raw(&row, stride * s->fields, 1, err));
    }
    novaq_status st = NOVAQ_OK;
    for (uint64_t i = 0; needed && st == NOVAQ_OK && i < m->q->rows; i++) {
        nq_symbols_unpack_row(row, &rows, m->q->symbols + i * rows.bytes);
        for (uint64_t j = 0; st == NOVAQ_OK && j < used * s->fields; j++) {
            unsigned f = (unsigned)(j / used);
            if (row[f * stride + j % used] >= s->k[f]) {
                st = nq_fail(err, NOVAQ_E_FORMAT, "%s: row %llu has a symbol without an entry",
                             m->source.w->name, (unsigned long long)i);
            }
        }
    }
    nq_free(row);
    return st;
}

static novaq_status open_books(nq_tmatrix *m, uint64_t group_cols, bool frozen, novaq_error *err) {
    cut_groups(m, group_cols);
    uint64_t n = m->groups * nq_tmatrix_book(m);
    NQ_TRY(check_symbols(m, err));
    NQ_TRY(nq_alloc_raw(&m->codebooks, n, sizeof(float), err));
    copy_codebooks(m);
    return is_whole(m) && !frozen ? nq_alloc(&m->grad_codebooks, n, sizeof(float), err) : NOVAQ_OK;
}

static novaq_status open_gradient(float **out, uint64_t count, bool frozen, novaq_error *err) {
    return frozen ? NOVAQ_OK : nq_alloc(out, count, sizeof(float), err);
}

static novaq_status open_rows(nq_tmatrix *m, bool frozen, novaq_error *err) {
    const nq_qmat *q = m->q;
    uint64_t row0 = m->source.row0;
    NQ_TRY(nq_alloc_raw(&m->row_scale, m->rows, sizeof(float), err));
    NQ_TRY(nq_alloc(&m->log_scale, m->rows, sizeof(float), err));
    NQ_TRY(open_gradient(&m->grad_log_scale, m->rows, frozen, err));
    for (uint64_t i = 0; i < m->rows; i++) {
        m->row_scale[i] = ldexpf(nq_f16_to_f32(q->row_scale[row0 + i]), q->exponent);
    }
    if (q->row_mean != NULL) {
        NQ_TRY(nq_alloc_raw(&m->row_mean, m->rows, sizeof(float), err));
        NQ_TRY(open_gradient(&m->grad_row_mean, m->rows, frozen, err));
        for (uint64_t i = 0; i < m->rows; i++) {
            m->row_mean[i] = nq_f16_to_f32(q->row_mean[row0 + i]);
        }
    }
    return NOVAQ_OK;
}

static novaq_status open_columns(nq_tmatrix *m, bool frozen, novaq_error *err) {
    const nq_qmat *q = m->q;
    if (q->rotation.block == 0 && q->col_exponent == NULL) {
        return NOVAQ_OK;
    }
    NQ_TRY(nq_alloc_raw(&m->factor, m->cols, sizeof(float), err));
    for (uint64_t c = 0; c < m->cols; c++) {
        float sign = q->rotation.block != 0 ? nq_rotation_sign(&q->rotation, m->cols, c) : 1.0F;
        m->factor[c] = sign * (q->col_exponent != NULL ? nq_col_factor(q->col_exponent[c]) : 1.0F);
    }
    if (q->col_exponent != NULL) {
        NQ_TRY(nq_alloc(&m->col_scale, m->cols, sizeof(float), err));
        NQ_TRY(open_gradient(&m->grad_col_scale, m->cols, frozen, err));
    }
    return NOVAQ_OK;
}

novaq_status nq_tmatrix_open(nq_tmatrix *out, const nq_linear *source, uint64_t group_cols,
                             bool frozen, novaq_error *err) {
    *out = (nq_tmatrix){.source = *source, .rows = nq_linear_rows(source), .cols = source->w->cols};
    if (out->cols > INT_MAX || out->rows > INT_MAX) {
        return nq_fail(err, NOVAQ_E_UNSUPPORTED, "%s: too large to train", source->w->name);
    }
    if (source->dense != NULL || source->w->q == NULL) {
        return NOVAQ_OK;
    }
    out->q = source->w->q;
    novaq_status st = nq_tmatrix_coded(out) ? open_books(out, group_cols, frozen, err) : NOVAQ_OK;
    if (st == NOVAQ_OK) {
        st = open_rows(out, frozen, err);
    }
    if (st == NOVAQ_OK) {
        st = open_columns(out, frozen, err);
    }
    if (st != NOVAQ_OK) {
        nq_tmatrix_close(out);
    }
    return st;
}

void nq_tmatrix_close(nq_tmatrix *m) {
    nq_free(m->codebooks);
    nq_free(m->row_scale);
    nq_free(m->factor);
    nq_free(m->log_scale);
    nq_free(m->row_mean);
    nq_free(m->col_scale);
    nq_free(m->grad_codebooks);
    nq_free(m->grad_log_scale);
    nq_free(m->grad_row_mean);
    nq_free(m->grad_col_scale);
    *m = (nq_tmatrix){0};
}

static void add_param(nq_param *list, unsigned *n, const nq_tmatrix *m, nq_param_kind kind,
                      float *value, float *grad, uint64_t count) {
    if (grad != NULL) {
        list[(*n)++] = (nq_param){
            .name = m->source.w->name, .kind = kind, .value = value, .grad = grad, .count = count};
    }
}

unsigned nq_tmatrix_params(nq_param *list, nq_tmatrix *m) {
    unsigned n = 0;
    uint64_t entries = m->grad_codebooks != NULL ? m->groups * nq_tmatrix_book(m) : 0;
    add_param(list, &n, m, NQ_PARAM_CODEBOOK, m->codebooks, m->grad_codebooks, entries);
    add_param(list, &n, m, NQ_PARAM_LOG_SCALE, m->log_scale, m->grad_log_scale, m->rows);
    add_param(list, &n, m, NQ_PARAM_ROW_MEAN, m->row_mean, m->grad_row_mean, m->rows);
    add_param(list, &n, m, NQ_PARAM_COL_SCALE, m->col_scale, m->grad_col_scale, m->cols);
    return n;
}

/* ---- work ----------------------------------------------------------------------- */

novaq_status nq_tmatrix_work_open(nq_tmatrix_work **out, nq_pool *pool, uint64_t max_elements,
                                  uint64_t max_rows, uint64_t max_cols, uint64_t max_tokens,
                                  novaq_error *err) {
    *out = NULL;
    nq_tmatrix_work *w = NULL;
    NQ_TRY(nq_alloc(&w, 1, sizeof *w, err));
    w->pool = pool;
    w->threads = nq_pool_threads(pool);
    w->max_rows = max_rows;
    w->max_cols = max_cols;
    w->max_tokens = max_tokens;
    uint64_t least = NQ_TMATRIX_ROWS * max_cols;
    w->chunk_floats = smaller(max_elements, NQ_TMATRIX_CHUNK);
    w->chunk_floats = w->chunk_floats < least ? least : w->chunk_floats;
    w->symbol_bytes = (max_cols + 64) * NQ_MAX_FIELDS * (NQ_MAX_LEVELS + 2);
    uint64_t floats = 0;
    novaq_status st = nq_mul_u64(max_tokens, max_cols, &floats)
                          ? nq_alloc_raw(&w->input, floats, sizeof(float), err)
                          : nq_fail(err, NOVAQ_E_MEMORY, "activations are too large");
    struct {
        void *out;
        uint64_t count, size;
    } list[] = {{&w->input_grad, floats, sizeof(float)},
                {&w->chunk, w->chunk_floats, sizeof(float)},
                {&w->chunk_grad, w->chunk_floats, sizeof(float)},
                {&w->factor, max_cols, sizeof(float)},
                {&w->row_dot, max_tokens, sizeof(float)},
                {&w->row_sum, max_tokens, sizeof(float)},
                {&w->symbols, w->symbol_bytes * w->threads, 1},
                {&w->status, w->threads, sizeof *w->status},
                {&w->errors, w->threads, sizeof *w->errors}};
    for (size_t i = 0; st == NOVAQ_OK && i < sizeof list / sizeof list[0]; i++) {
        st = nq_alloc(list[i].out, list[i].count, list[i].size, err);
    }
    if (st != NOVAQ_OK) {
        nq_tmatrix_work_close(&w);
    }
    *out = w;
    return st;
}

void nq_tmatrix_work_close(nq_tmatrix_work **pw) {
    nq_tmatrix_work *w = *pw;
    *pw = NULL;
    if (w == NULL) {
        return;
    }
    nq_free(w->chunk);
    nq_free(w->chunk_grad);
    nq_free(w->input);
    nq_free(w->input_grad);
    nq_free(w->factor);
    nq_free(w->row_dot);
    nq_free(w->row_sum);
    nq_free(w->partial);
    nq_free(w->halves.memory);
    nq_free(w->symbols);
    nq_free(w->status);
    nq_free(w->errors);
    nq_free(w);
}

novaq_status nq_tmatrix_work_halves(nq_tmatrix_work *w, novaq_error *err) {
    const nq_gemm16 *kernel = nq_gemm16_for(nq_cpu_features());
    if (kernel == NULL || w->halves.kernel != NULL) {
        return NOVAQ_OK;
    }
    NQ_TRY(nq_alloc_raw(&w->halves.memory, NQ_HALVES_WORDS, sizeof *w->halves.memory, err));
    w->halves.kernel = kernel;
    return NOVAQ_OK;
}

novaq_status nq_tmatrix_fits(const nq_tmatrix *m, uint64_t n, const nq_tmatrix_work *w,
                             novaq_error *err) {
    if (n > w->max_tokens || m->cols > w->max_cols || m->rows > w->max_rows || n > INT_MAX) {
        return nq_fail(err, NOVAQ_E_ARG, "%s: %llu tokens for %llu x %llu are more than planned",
                       m->source.w->name, (unsigned long long)n, (unsigned long long)m->rows,
                       (unsigned long long)m->cols);
    }
    return NOVAQ_OK;
}

/* ---- symbols ---------------------------------------------------------------------- */

static uint8_t *ring_row(const nq_tmatrix_ring *r, uint64_t row) {
    return r->base + row % (NQ_MAX_LEVELS + 1) * r->bytes;
}

static void unpack(nq_tmatrix_ring *r, uint64_t row) {
    nq_symbols_unpack_row(ring_row(r, row), &r->rows, r->q->symbols + row * r->rows.bytes);
    r->next = row + 1;
}

void nq_tmatrix_ring_open(nq_tmatrix_ring *r, const nq_qmat *q, uint64_t row, uint8_t *memory) {
    *r = (nq_tmatrix_ring){.q = q, .base = memory, .rows = nq_symbol_rows_of(&q->scheme, q->cols)};
    r->stride = r->rows.stride;
    r->bytes = r->stride * q->scheme.fields;
    uint8_t *zero = memory + (NQ_MAX_LEVELS + 1) * r->bytes;
    memset(zero, 0, r->bytes);
    r->zero = zero;
    uint64_t start = row - row % q->segment_rows;
    uint64_t lag = nq_scheme_max_lag(&q->scheme);
    for (uint64_t above = row - start < lag ? start : row - lag; above < row; above++) {
        unpack(r, above);
    }
    r->next = row;
}

void nq_tmatrix_ring_step(const uint8_t *level[NQ_MAX_LEVELS], nq_tmatrix_ring *r, uint64_t row) {
    const nq_scheme *s = &r->q->scheme;
    unpack(r, row);
    for (unsigned l = 0; l < s->levels; l++) {
        bool above = row % r->q->segment_rows < s->lag[l];
        level[l] = (above ? r->zero : ring_row(r, row - s->lag[l])) + s->field[l] * r->stride;
    }
}

/* ---- decoding --------------------------------------------------------------------- */

float nq_tmatrix_row_factor(const nq_tmatrix *m, uint64_t row) {
    return m->row_scale[row] * expf(m->log_scale[row]);
}

/* Whole subvectors [j0, j1) of a row; d is a constant where this is inlined. */
static inline void add_entries(float *out, unsigned d, unsigned levels, float factor,
                               const float *const *book, const uint8_t *const *symbols, uint64_t j0,
                               uint64_t j1) {
    for (uint64_t j = j0; j < j1; j++) {
        const float *a = book[0] + (size_t)symbols[0][j] * d;
        const float *b = levels > 1 ? book[1] + (size_t)symbols[1][j] * d : NULL;
        const float *c = levels > 2 ? book[2] + (size_t)symbols[2][j] * d : NULL;
        for (unsigned v = 0; v < d; v++) {
            float sum = a[v];
            sum += levels > 1 ? b[v] : 0.0F;
            sum += levels > 2 ? c[v] : 0.0F;
            out[j * d + v] = factor * sum;
        }
    }
}

static inline void by_levels(float *out, unsigned d, unsigned levels, float factor,
                             const float *const *book, const uint8_t *const *symbols, uint64_t j0,
                             uint64_t j1) {
    switch (levels) {
    case 1: add_entries(out, d, 1, factor, book, symbols, j0, j1); break;
    case 2: add_entries(out, d, 2, factor, book, symbols, j0, j1); break;
    default: add_entries(out, d, 3, factor, book, symbols, j0, j1); break;
    }
}

static void decode_span(float *out, const nq_scheme *s, float factor, const float *const *book,
                        const uint8_t *const *symbols, uint64_t j0, uint64_t j1) {
    switch (s->d) {
    case 1: by_levels(out, 1, s->levels, factor, book, symbols, j0, j1); break;
    case 2: by_levels(out, 2, s->levels, factor, book, symbols, j0, j1); break;
    case 4: by_levels(out, 4, s->levels, factor, book, symbols, j0, j1); break;
    default: by_levels(out, s->d, s->levels, factor, book, symbols, j0, j1); break;
    }
}

/* The last subvector of a row whose columns are no multiple of d. */
static void decode_tail(float *out, const nq_tmatrix *m, float factor, const float *const *book,
                        const uint8_t *const *symbols) {
    const nq_scheme *s = &m->q->scheme;
    uint64_t j = m->cols / s->d;
    for (unsigned v = 0; v < m->cols % s->d; v++) {
        float sum = 0;
        for (unsigned l = 0; l < s->levels; l++) {
            sum += book[l][(size_t)symbols[l][j] * s->d + v];
        }
        out[j * s->d + v] = factor * sum;
    }
}

static void decode_coded(float *out, const nq_tmatrix *m, uint64_t row,
                         const uint8_t *const *symbols) {
    const nq_scheme *s = &m->q->scheme;
    float factor = nq_tmatrix_row_factor(m, row);
    uint64_t whole = m->cols / s->d;
    uint64_t per_group = m->group_cols / s->d;
    for (uint64_t g = 0; g < m->groups; g++) {
        const float *book[NQ_MAX_LEVELS] = {NULL};
        for (unsigned l = 0; l < s->levels; l++) {
            book[l] = m->codebooks + g * nq_tmatrix_book(m) + nq_level_offset(s, l);
        }
        uint64_t j1 = smaller((g + 1) * per_group, whole);
        decode_span(out, s, factor, book, symbols, g * per_group, j1);
        if (g + 1 == m->groups && m->cols % s->d != 0) {
            decode_tail(out, m, factor, book, symbols);
        }
    }
}

static void decode_q8(float *out, const nq_tmatrix *m, uint64_t row) {
    const int8_t *v = (const int8_t *)m->q->symbols + (m->source.row0 + row) * m->cols;
    float factor = nq_tmatrix_row_factor(m, row);
    for (uint64_t c = 0; c < m->cols; c++) {
        out[c] = factor * (float)v[c];
    }
}

void nq_tmatrix_decode(float *out, const nq_tmatrix *m, uint64_t row0, uint64_t count,
                       uint8_t *symbols) {
    nq_tmatrix_ring ring = {0};
    if (nq_tmatrix_coded(m)) {
        nq_tmatrix_ring_open(&ring, m->q, m->source.row0 + row0, symbols);
    }
    for (uint64_t i = 0; i < count; i++) {
        float *row = out + i * m->cols;
        if (nq_tmatrix_coded(m)) {
            const uint8_t *level[NQ_MAX_LEVELS] = {NULL};
            nq_tmatrix_ring_step(level, &ring, m->source.row0 + row0 + i);
            decode_coded(row, m, row0 + i, level);
        } else {
            decode_q8(row, m, row0 + i);
        }
        for (uint64_t c = 0; m->row_mean != NULL && c < m->cols; c++) {
            row[c] += m->row_mean[row0 + i];
        }
    }
}

uint64_t nq_tmatrix_chunk_rows(const nq_tmatrix *m, const nq_tmatrix_work *w) {
    return w->chunk_floats / m->cols / NQ_TMATRIX_ROWS * NQ_TMATRIX_ROWS;
}

typedef struct chunk_job {
    const nq_tmatrix *m;
    nq_tmatrix_work *w;
    uint64_t row0, count;
} chunk_job;

static void chunk_task(void *ctx, uint64_t task, unsigned worker) {
    const chunk_job *job = ctx;
    nq_tmatrix_work *w = job->w;
    const nq_tmatrix *m = job->m;
    uint64_t first = task * NQ_TMATRIX_ROWS;
    uint64_t count = smaller(job->count - first, NQ_TMATRIX_ROWS);
    float *out = w->chunk + first * m->cols;
    if (m->q != NULL) {
        nq_tmatrix_decode(out, m, job->row0 + first, count, w->symbols + w->symbol_bytes * worker);
    } else if (w->status[worker] == NOVAQ_OK) {
        w->status[worker] =
            nq_weights_read_rows(out, m->source.weights, m->source.w,
                                 m->source.row0 + job->row0 + first, count, &w->errors[worker]);
    }
}

novaq_status nq_tmatrix_chunk(const float **out, const nq_tmatrix *m, uint64_t row0, uint64_t count,
                              nq_tmatrix_work *w, novaq_error *err) {
    if (m->source.dense != NULL) {
        *out = m->source.dense + row0 * m->cols;
        return NOVAQ_OK;
    }
    chunk_job job = {.m = m, .w = w, .row0 = row0, .count = count};
    memset(w->status, 0, w->threads * sizeof *w->status);
    nq_pool_run(w->pool, chunk_task, &job, (count + NQ_TMATRIX_ROWS - 1) / NQ_TMATRIX_ROWS);
    *out = w->chunk;
    for (unsigned i = 0; i < w->threads; i++) {
        if (w->status[i] != NOVAQ_OK) {
            return nq_fail(err, w->status[i], "%s", w->errors[i].msg);
        }
    }
    return NOVAQ_OK;
}

/* ---- inputs ------------------------------------------------------------------------ */

typedef struct input_job {
    const nq_tmatrix *m;
    nq_tmatrix_work *w;
    const float *x;
    uint64_t n;
} input_job;

static void input_task(void *ctx, uint64_t task, unsigned worker) {
    const input_job *job = ctx;
    const nq_tmatrix *m = job->m;
    (void)worker;
    uint64_t first = task * NQ_TMATRIX_TOKENS;
    uint64_t count = smaller(job->n - first, NQ_TMATRIX_TOKENS);
    float *dst = job->w->input + first * m->cols;
    for (uint64_t t = 0; t < count; t++) {
        const float *src = job->x + (first + t) * m->cols;
        for (uint64_t c = 0; c < m->cols; c++) {
            dst[t * m->cols + c] = src[c] * job->w->factor[c];
        }
    }
    if (m->q->rotation.block != 0) {
        nq_rotate_mix(dst, &m->q->rotation, count, m->cols);
    }
}

void nq_tmatrix_factor(const nq_tmatrix *m, nq_tmatrix_work *w) {
    memcpy(w->factor, m->factor, m->cols * sizeof(float));
    for (uint64_t c = 0; m->col_scale != NULL && c < m->cols; c++) {
        w->factor[c] *= expf(-m->col_scale[c]);
    }
}

const float *nq_tmatrix_input(const nq_tmatrix *m, const float *x, uint64_t n, nq_tmatrix_work *w) {
    if (m->factor == NULL) {
        return x;
    }
    nq_tmatrix_factor(m, w);
    input_job job = {.m = m, .w = w, .x = x, .n = n};
    nq_pool_run(w->pool, input_task, &job, (n + NQ_TMATRIX_TOKENS - 1) / NQ_TMATRIX_TOKENS);
    return w->input;
}

/* ---- forward ------------------------------------------------------------------------- */

novaq_status nq_tmatrix_forward(float *y, const nq_tmatrix *m, const float *x, uint64_t n,
                                nq_tmatrix_work *w, novaq_error *err) {
    NQ_TRY(nq_tmatrix_fits(m, n, w, err));
    const float *xr = nq_tmatrix_input(m, x, n, w);
    uint64_t step = m->source.dense != NULL ? m->rows : nq_tmatrix_chunk_rows(m, w);
    for (uint64_t row0 = 0; row0 < m->rows; row0 += step) {
        uint64_t count = smaller(m->rows - row0, step);
        const float *rows = NULL;
        NQ_TRY(nq_tmatrix_chunk(&rows, m, row0, count, w, err));
        nq_gemm_with(&w->halves, w->pool, false, true, n, count, m->cols, xr, m->cols, rows,
                     m->cols, false, y + row0, m->rows);
    }
    return NOVAQ_OK;
}

typedef struct lookup_job {
    const nq_tmatrix *m;
    nq_tmatrix_work *w;
    const int32_t *ids;
    float *x;
    uint64_t n;
} lookup_job;

static void lookup_task(void *ctx, uint64_t task, unsigned worker) {
    const lookup_job *job = ctx;
    const nq_tmatrix *m = job->m;
    nq_tmatrix_work *w = job->w;
    uint64_t end = smaller((task + 1) * NQ_TMATRIX_TOKENS, job->n);
    for (uint64_t t = task * NQ_TMATRIX_TOKENS; t < end; t++) {
        uint64_t row = (uint64_t)job->ids[t];
        float *out = job->x + t * m->cols;
        if (m->q != NULL) {
            nq_tmatrix_decode(out, m, row, 1, w->symbols + w->symbol_bytes * worker);
            if (m->q->rotation.block != 0) {
                nq_rotate_mix(out, &m->q->rotation, 1, m->cols);
            }
            for (uint64_t c = 0; m->factor != NULL && c < m->cols; c++) {
                out[c] *= w->factor[c];
            }
        } else if (m->source.dense != NULL) {
            memcpy(out, m->source.dense + row * m->cols, m->cols * sizeof(float));
        } else if (w->status[worker] == NOVAQ_OK) {
            w->status[worker] = nq_weights_read_rows(out, m->source.weights, m->source.w,
                                                     m->source.row0 + row, 1, &w->errors[worker]);
        }
    }
}

static novaq_status check_ids(const nq_tmatrix *m, const int32_t *ids, uint64_t n,
                              novaq_error *err) {
    for (uint64_t t = 0; t < n; t++) {
        if (ids[t] < 0 || (uint64_t)ids[t] >= m->rows) {
            return nq_fail(err, NOVAQ_E_ARG, "%s: there is no token %d", m->source.w->name, ids[t]);
        }
    }
    return NOVAQ_OK;
}

novaq_status nq_tmatrix_lookup(float *x, const nq_tmatrix *m, const int32_t *ids, uint64_t n,
                               nq_tmatrix_work *w, novaq_error *err) {
    NQ_TRY(nq_tmatrix_fits(m, n, w, err));
    NQ_TRY(check_ids(m, ids, n, err));
    lookup_job job = {.m = m, .w = w, .ids = ids, .x = x, .n = n};
    if (m->factor != NULL) {
        nq_tmatrix_factor(m, w);
    }
    memset(w->status, 0, w->threads * sizeof *w->status);
    nq_pool_run(w->pool, lookup_task, &job, (n + NQ_TMATRIX_TOKENS - 1) / NQ_TMATRIX_TOKENS);
    for (unsigned i = 0; i < w->threads; i++) {
        if (w->status[i] != NOVAQ_OK) {
            return nq_fail(err, w->status[i], "%s", w->errors[i].msg);
        }
    }
    return NOVAQ_OK;
}
