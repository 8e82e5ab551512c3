/* verify.c - novaq_validate() and novaq_verify(): what an artifact promises,
 * checked. Validate looks at the structure; verify hashes every chunk, looks for
 * bytes outside the pieces and decodes every quantized layer. */
#include <math.h>
#include <string.h>

#include "artifact/inside.h"
#include "base/pool.h"

#define BLOCK_WEIGHTS ((uint64_t)1 << 20) /* decoded by one task, about */
#define BATCH         64U                 /* tasks between two progress reports */

/* ---- the tasks ------------------------------------------------------------------- */

typedef enum task_kind { TASK_SHA256, TASK_BLAKE3, TASK_DECODE } task_kind;

typedef struct task {
    task_kind kind;
    size_t index;       /* chunk or layer */
    uint64_t row, rows; /* decode: rows [row, row + rows) */
    uint64_t bytes;     /* of the artifact, for progress */
} task;

typedef struct task_list {
    task *items;
    size_t count;
    size_t cap;
} task_list;

typedef struct verification {
    const nq_artifact *a;
    const task *batch;
    novaq_error errors[BATCH]; /* one per task of the batch; code 0 = fine */
} verification;

static novaq_status add_task(task_list *l, task t, novaq_error *err) {
    if (l->count == l->cap) {
        size_t cap = l->cap == 0 ? 256 : l->cap * 2;
        NQ_TRY(nq_grow(&l->items, l->cap, cap, sizeof *l->items, err));
        l->cap = cap;
    }
    l->items[l->count++] = t;
    return NOVAQ_OK;
}

static bool is_coded(const nq_layer *l) {
    return l->scheme.kind == NQ_SCHEME_CODE || l->scheme.kind == NQ_SCHEME_Q8;
}

static novaq_status list_decodes(task_list *l, const nq_contents *c, novaq_error *err) {
    for (size_t i = 0; i < c->layer_count; i++) {
        const nq_layer *layer = &c->layers[i].layer;
        if (!is_coded(layer)) {
            continue;
        }
        uint64_t step = BLOCK_WEIGHTS / layer->q.cols + 1;
        for (uint64_t row = 0; row < layer->q.rows; row += step) {
            uint64_t rows = layer->q.rows - row < step ? layer->q.rows - row : step;
            task t = {.kind = TASK_DECODE, .index = i, .row = row, .rows = rows};
            t.bytes = rows * nq_scheme_row_bytes(&layer->scheme, layer->q.cols);
            NQ_TRY(add_task(l, t, err));
        }
    }
    return NOVAQ_OK;
}

/* Hashes first: where they fail, decoding is not worth a word. */
static novaq_status list_tasks(task_list *l, const nq_contents *c, novaq_error *err) {
    for (size_t i = 0; i < c->chunk_count; i++) {
        task t = {.kind = TASK_SHA256, .index = i, .bytes = c->chunks[i].bytes};
        NQ_TRY(add_task(l, t, err));
        t.kind = TASK_BLAKE3;
        NQ_TRY(add_task(l, t, err));
    }
    return list_decodes(l, c, err);
}

static void check_hash(const nq_artifact *a, const task *t, novaq_error *err) {
    const nq_chunk *k = &a->c.chunks[t->index];
    char hex[NQ_SHA256_HEX + 1];
    const char *claim = t->kind == TASK_SHA256 ? k->sha256 : k->blake3;
    if (t->kind == TASK_BLAKE3) {
        nq_blake3_of(hex, a->chunk_data[t->index], (size_t)k->bytes);
    } else if (nq_sha256_of(hex, a->chunk_data[t->index], (size_t)k->bytes, err) != NOVAQ_OK) {
        return;
    }
    if (strcmp(hex, claim) != 0) {
        nq_fail(err, NOVAQ_E_VERIFY, "%s: chunk %zu: %s is %s, the manifest says %s", a->path,
                t->index, t->kind == TASK_SHA256 ? "SHA-256" : "BLAKE3", hex, claim);
    }
}

/* Every symbol below its K, padding symbols zero: only then is a decoder safe. */
static void check_symbols(const nq_layer *l, const task *t, uint8_t *symbols, novaq_error *err) {
    const nq_scheme *s = &l->scheme;
    uint64_t stride = nq_scheme_row_symbols(s, l->q.cols);
    uint64_t used = (l->q.cols + s->d - 1) / s->d;
    nq_symbol_rows rows = nq_symbol_rows_of(s, l->q.cols);
    for (uint64_t i = t->row; i < t->row + t->rows; i++) {
        nq_symbols_unpack_row(symbols, &rows, l->q.symbols + i * rows.bytes);
        for (unsigned f = 0; f < s->fields; f++) {
            const uint8_t *row = symbols + f * stride;
            for (uint64_t j = 0; j < stride; j++) {
                if (row[j] >= (j < used ? s->k[f] : 1U)) {
                    nq_fail(err, NOVAQ_E_VERIFY,
                            "layer '%s': row %llu: symbol %llu is %u, out of range", l->name,
                            (unsigned long long)i, (unsigned long long)j, row[j]);
                    return;
                }
            }
        }
    }
}

static void check_values(const nq_layer *l, const task *t, const float *values, novaq_error *err) {
    for (uint64_t i = 0; i < t->rows * l->q.cols; i++) {
        if (!isfinite(values[i])) {
            nq_fail(err, NOVAQ_E_VERIFY, "layer '%s': row %llu column %llu is not a finite number",
                    l->name, (unsigned long long)(t->row + i / l->q.cols),
                    (unsigned long long)(i % l->q.cols));
            return;
        }
    }
}

static void check_columns(const nq_layer *l, novaq_error *err) {
    for (uint64_t c = 0; l->q.col_exponent != NULL && c < l->q.cols; c++) {
        int e = l->q.col_exponent[c];
        if (e < -NQ_COL_EXPONENT_MAX || e > NQ_COL_EXPONENT_MAX) {
            nq_fail(err, NOVAQ_E_VERIFY, "layer '%s': column %llu: col_exponent %d, out of range",
                    l->name, (unsigned long long)c, e);
            return;
        }
    }
}

/* Lags reach above the task's first row: those symbols are checked as well. */
static task with_history(const nq_layer *l, const task *t) {
    task h = *t;
    uint64_t above = t->row % l->q.segment_rows;
    uint64_t lag = nq_scheme_max_lag(&l->scheme);
    above = above < lag ? above : lag;
    h.row -= above;
    h.rows += above;
    return h;
}

static void check_decode(const nq_artifact *a, const task *t, novaq_error *err) {
    const nq_layer *l = &a->c.layers[t->index].layer;
    float *values = NULL;
    uint8_t *scratch = NULL;
    uint8_t *symbols = NULL;
    novaq_status st = nq_alloc_raw(&values, t->rows * l->q.cols, sizeof *values, err);
    if (st == NOVAQ_OK) {
        st = nq_alloc_raw(&scratch, nq_qmat_scratch(&l->q), 1, err);
    }
    if (st == NOVAQ_OK && l->scheme.kind == NQ_SCHEME_CODE) {
        uint64_t stride = nq_scheme_row_symbols(&l->scheme, l->q.cols);
        st = nq_alloc_raw(&symbols, stride, l->scheme.fields, err);
        if (st == NOVAQ_OK) {
            task h = with_history(l, t);
            check_symbols(l, &h, symbols, err);
        }
    }
    if (st == NOVAQ_OK && err->code == NOVAQ_OK && t->row == 0) {
        check_columns(l, err);
    }
    if (st == NOVAQ_OK && err->code == NOVAQ_OK) {
        nq_qmat_decode_plain(values, &l->q, t->row, t->rows, scratch);
        check_values(l, t, values, err);
    }
    nq_free(values);
    nq_free(scratch);
    nq_free(symbols);
}

static void run_task(void *ctx, uint64_t i, unsigned worker) {
    (void)worker;
    verification *v = ctx;
    const task *t = &v->batch[i];
    v->errors[i].code = NOVAQ_OK;
    if (t->kind == TASK_DECODE) {
        check_decode(v->a, t, &v->errors[i]);
    } else {
        check_hash(v->a, t, &v->errors[i]);
    }
}

/* ---- padding ----------------------------------------------------------------------- */

static novaq_status check_gap(const nq_artifact *a, uint32_t chunk, uint64_t begin, uint64_t end,
                              novaq_error *err) {
    for (uint64_t i = begin; i < end; i++) {
        if (a->chunk_data[chunk][i] != 0) {
            return nq_fail(err, NOVAQ_E_VERIFY, "%s: chunk %u offset %llu: stray byte in a gap",
                           a->path, chunk, (unsigned long long)i);
        }
    }
    return NOVAQ_OK;
}

/* A piece's gap reaches to the next multiple of 64; placement was checked when
 * the manifest was read, so there are no other bytes. */
static novaq_status check_gaps(const nq_artifact *a, novaq_error *err) {
    for (size_t i = 0; i < a->c.layer_count; i++) {
        for (unsigned k = 0; k < a->c.layers[i].pieces; k++) {
            const nq_piece *p = &a->c.layers[i].piece[k];
            uint64_t end = p->offset + p->bytes;
            NQ_TRY(check_gap(a, p->chunk, end, nq_align_piece(end), err));
        }
    }
    if (a->c.has_tokenizer) {
        const nq_piece *p = &a->c.tokenizer;
        uint64_t end = p->offset + p->bytes;
        NQ_TRY(check_gap(a, p->chunk, end, nq_align_piece(end), err));
    }
    return NOVAQ_OK;
}

/* ---- the whole --------------------------------------------------------------------- */

typedef struct watcher {
    novaq_progress_fn fn;
    void *ctx;
    uint64_t done;
    uint64_t total; /* bytes */
} watcher;

static novaq_status report(watcher *w, const char *item, novaq_error *err) {
    if (w->fn == NULL) {
        return NOVAQ_OK;
    }
    novaq_progress p = {.phase = "verify",
                        .item = item,
                        .done = w->done,
                        .total = w->total,
                        .unit = "B",
                        .value = NAN};
    return w->fn(w->ctx, &p) == 0 ? NOVAQ_OK
                                  : nq_fail(err, NOVAQ_E_INTERRUPTED, "verify: interrupted");
}

static novaq_status first_error(const verification *v, size_t n, novaq_error *err) {
    for (size_t i = 0; i < n; i++) {
        if (v->errors[i].code != NOVAQ_OK) {
            return nq_fail(err, v->errors[i].code, "%s", v->errors[i].msg);
        }
    }
    return NOVAQ_OK;
}

static novaq_status run_list(const nq_artifact *a, const task_list *l, nq_pool *pool, watcher *w,
                             novaq_error *err) {
    verification *v = NULL;
    NQ_TRY(nq_alloc(&v, 1, sizeof *v, err));
    v->a = a;
    for (size_t i = 0; i < l->count; i++) {
        w->total += l->items[i].bytes;
    }
    novaq_status st = report(w, "", err);
    for (size_t i = 0; st == NOVAQ_OK && i < l->count;) {
        size_t n = l->count - i < BATCH ? l->count - i : BATCH;
        v->batch = l->items + i;
        nq_pool_run(pool, run_task, v, n);
        st = first_error(v, n, err);
        for (size_t k = 0; k < n; k++) {
            w->done += l->items[i + k].bytes;
        }
        i += n;
        if (st == NOVAQ_OK) {
            const task *t = &l->items[i - 1];
            st = report(w, t->kind == TASK_DECODE ? a->c.layers[t->index].layer.name : "chunks",
                        err);
        }
    }
    nq_free(v);
    return st;
}

static novaq_status check_tokenizer(const nq_artifact *a, novaq_error *err) {
    json_t *model = NULL;
    novaq_status st = nq_artifact_model(&model, a, err);
    json_decref(model);
    return st;
}

static novaq_status verify(const nq_artifact *a, unsigned threads, watcher *w, novaq_error *err) {
    task_list l = {0};
    nq_pool *pool = NULL;
    novaq_status st = nq_pool_open(&pool, threads, err);
    if (st == NOVAQ_OK) {
        st = list_tasks(&l, &a->c, err);
    }
    if (st == NOVAQ_OK) {
        st = run_list(a, &l, pool, w, err);
    }
    if (st == NOVAQ_OK) {
        st = check_gaps(a, err);
    }
    if (st == NOVAQ_OK) {
        st = check_tokenizer(a, err);
    }
    nq_pool_close(&pool);
    nq_free(l.items);
    return st;
}

static novaq_status describe(char **out, const nq_artifact *a, bool verified, novaq_error *err) {
    uint64_t decoded = 0;
    size_t coded = 0;
    for (size_t i = 0; i < a->c.layer_count; i++) {
        if (is_coded(&a->c.layers[i].layer)) {
            coded++;
            decoded += a->c.layers[i].layer.elements;
        }
    }
    const json_t *summary = json_object_get(json_object_get(a->root, "quantization"), "summary");
    json_t *o = json_pack(
        "{ss sb sb ss sO sI sI sI sI sI}", "form", a->c.single_file ? "single" : "directory",
        "valid", 1, "verified", verified ? 1 : 0, "schema_version",
        json_string_value(json_object_get(a->root, "schema_version")), "summary", summary, "chunks",
        (json_int_t)a->c.chunk_count, "bytes", (json_int_t)a->bytes, "layers",
        (json_int_t)a->c.layer_count, "quantized_layers", (json_int_t)coded, "quantized_parameters",
        (json_int_t)decoded);
    novaq_status st = o != NULL ? nq_json_dump(out, o, 2, err)
                                : nq_fail(err, NOVAQ_E_MEMORY, "cannot build the report");
    json_decref(o);
    return st;
}

novaq_status novaq_validate(char **out, const char *path, novaq_error *err) {
    if (out != NULL) {
        *out = NULL;
    }
    nq_artifact *a = NULL;
    NQ_TRY(nq_artifact_open(&a, path, err));
    novaq_status st = out != NULL ? describe(out, a, false, err) : NOVAQ_OK;
    nq_artifact_close(&a);
    return st;
}

/* Whatever is malformed does not hold what the artifact promised. */
static novaq_status as_verification(novaq_status st, novaq_error *err) {
    if (st != NOVAQ_E_FORMAT) {
        return st;
    }
    if (err != NULL) {
        err->code = NOVAQ_E_VERIFY;
    }
    return NOVAQ_E_VERIFY;
}

novaq_status novaq_verify(char **out, const char *path, unsigned threads,
                          novaq_progress_fn progress, void *progress_ctx, novaq_error *err) {
    if (out != NULL) {
        *out = NULL;
    }
    nq_artifact *a = NULL;
    watcher w = {.fn = progress, .ctx = progress_ctx};
    novaq_status st = nq_artifact_open(&a, path, err);
    if (st == NOVAQ_OK) {
        st = verify(a, threads, &w, err);
    }
    if (st == NOVAQ_OK && out != NULL) {
        st = describe(out, a, true, err);
    }
    nq_artifact_close(&a);
    return as_verification(st, err);
}
