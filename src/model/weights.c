/* weights.c - see weights.h. */
#include "model/weights.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "format/dequant.h"

struct nq_weights {
    nq_tensors *tensors;
    bool borrowed; /* tensors */
    nq_artifact *artifact;
    json_t *model;
    nq_weight *items;          /* (count), in the order of the file */
    const nq_weight **by_name; /* (count), sorted */
    size_t count;
};

static void set_view(nq_weight *t) {
    t->rows = 1;
    t->cols = t->elements;
    if (t->rank >= 2) {
        nq_matrix_view(&t->rows, &t->cols, t->rank, t->shape);
    }
}

static void from_tensor(nq_weight *t, const nq_tensor_info *src) {
    *t = (nq_weight){.name = src->name,
                     .rank = src->rank,
                     .elements = src->elements,
                     .dtype = src->dtype,
                     .src = src,
                     .role = nq_tensor_role(src->name, src->rank)};
    memcpy(t->shape, src->shape, sizeof t->shape);
    set_view(t);
}

static novaq_status from_layer(nq_weight *t, const nq_layer *layer, novaq_error *err) {
    *t = (nq_weight){.name = layer->name,
                     .rank = layer->rank,
                     .elements = layer->elements,
                     .dtype = layer->source_dtype,
                     .layer = layer,
                     .role = layer->role};
    memcpy(t->shape, layer->shape, sizeof t->shape);
    set_view(t);
    if (layer->scheme.kind == NQ_SCHEME_CODE || layer->scheme.kind == NQ_SCHEME_Q8) {
        t->q = &layer->q;
        if (t->q->rows != t->rows || t->q->cols != t->cols) {
            return nq_fail(err, NOVAQ_E_FORMAT,
                           "%s: coded as %llu x %llu, its shape says %llu x %llu", t->name,
                           (unsigned long long)t->q->rows, (unsigned long long)t->q->cols,
                           (unsigned long long)t->rows, (unsigned long long)t->cols);
        }
    }
    return NOVAQ_OK;
}

static int compare_names(const void *a, const void *b) {
    const nq_weight *const *x = a;
    const nq_weight *const *y = b;
    return strcmp((*x)->name, (*y)->name);
}

static novaq_status index_names(nq_weights *w, novaq_error *err) {
    NQ_TRY(nq_alloc(&w->by_name, w->count, sizeof *w->by_name, err));
    for (size_t i = 0; i < w->count; i++) {
        w->by_name[i] = &w->items[i];
    }
    qsort(w->by_name, w->count, sizeof *w->by_name, compare_names);
    return NOVAQ_OK;
}

static novaq_status list_source(nq_weights *w, novaq_error *err) {
    NQ_TRY(nq_describe(&w->model, w->tensors, err));
    w->count = nq_tensors_count(w->tensors);
    NQ_TRY(nq_alloc(&w->items, w->count, sizeof *w->items, err));
    for (size_t i = 0; i < w->count; i++) {
        from_tensor(&w->items[i], nq_tensors_at(w->tensors, i));
    }
    return NOVAQ_OK;
}

static novaq_status open_source(nq_weights *w, const char *path, novaq_error *err) {
    NQ_TRY(nq_model_tensors_open(&w->tensors, path, err));
    return list_source(w, err);
}

static novaq_status open_artifact(nq_weights *w, const char *path, novaq_error *err) {
    NQ_TRY(nq_artifact_open(&w->artifact, path, err));
    NQ_TRY(nq_artifact_model(&w->model, w->artifact, err));
    w->count = nq_artifact_count(w->artifact);
    NQ_TRY(nq_alloc(&w->items, w->count, sizeof *w->items, err));
    for (size_t i = 0; i < w->count; i++) {
        NQ_TRY(from_layer(&w->items[i], nq_artifact_at(w->artifact, i), err));
    }
    return NOVAQ_OK;
}

/* path NULL: over ts, which is borrowed. */
static novaq_status open_weights(nq_weights **out, const char *path, nq_tensors *ts,
                                 novaq_error *err) {
    *out = NULL;
    nq_weights *w = NULL;
    novaq_status st;
    NQ_TRY(nq_alloc(&w, 1, sizeof *w, err));
    if (path == NULL) {
        w->tensors = ts;
        w->borrowed = true;
        st = list_source(w, err);
    } else if (!nq_is_remote(path) && nq_artifact_probe(path)) {
        st = open_artifact(w, path, err);
    } else {
        st = open_source(w, path, err);
    }
    if (st == NOVAQ_OK) {
        st = index_names(w, err);
    }
    if (st != NOVAQ_OK) {
        nq_weights_close(&w);
        return st;
    }
    *out = w;
    return NOVAQ_OK;
}

novaq_status nq_weights_open(nq_weights **out, const char *path, novaq_error *err) {
    return open_weights(out, path, NULL, err);
}

novaq_status nq_weights_open_over(nq_weights **out, nq_tensors *ts, novaq_error *err) {
    return open_weights(out, NULL, ts, err);
}

void nq_weights_close(nq_weights **pw) {
    nq_weights *w = *pw;
    *pw = NULL;
    if (w == NULL) {
        return;
    }
    nq_free(w->by_name);
    nq_free(w->items);
    json_decref(w->model);
    nq_artifact_close(&w->artifact);
    if (!w->borrowed) {
        nq_tensors_close(&w->tensors);
    }
    nq_free(w);
}

const json_t *nq_weights_model(const nq_weights *w) { return w->model; }
const nq_artifact *nq_weights_artifact(const nq_weights *w) { return w->artifact; }
nq_tensors *nq_weights_tensors(const nq_weights *w) { return w->tensors; }
size_t nq_weights_count(const nq_weights *w) { return w->count; }
const nq_weight *nq_weights_at(const nq_weights *w, size_t i) { return &w->items[i]; }

const nq_weight *nq_weights_find(const nq_weights *w, const char *name) {
    nq_weight key = {.name = name};
    const nq_weight *wanted = &key;
    const nq_weight **hit =
        bsearch(&wanted, w->by_name, w->count, sizeof *w->by_name, compare_names);
    return hit == NULL ? NULL : *hit;
}

static novaq_status read_coded(float *dst, const nq_qmat *q, uint64_t row0, uint64_t count,
                               novaq_error *err) {
    void *scratch = NULL;
    NQ_TRY(nq_alloc_raw(&scratch, nq_qmat_scratch(q), 1, err));
    nq_qmat_decode_plain(dst, q, row0, count, scratch);
    nq_free(scratch);
    return NOVAQ_OK;
}

/* Element type of a layer whose data are plain elements. */
static nq_dtype stored_dtype(const nq_layer *layer) {
    switch (layer->scheme.kind) {
    case NQ_SCHEME_F32: return NQ_F32;
    case NQ_SCHEME_F16: return NQ_F16;
    case NQ_SCHEME_BF16: return NQ_BF16;
    default: return layer->source_dtype;
    }
}

const void *nq_weight_in_place(nq_dtype *type, const nq_weight *t, uint64_t row) {
    *type = NQ_F32;
    if (t->q != NULL || t->layer == NULL || row >= t->rows) {
        return NULL;
    }
    *type = stored_dtype(t->layer);
    uint64_t all = 0;
    uint64_t start = 0;
    unsigned align = *type == NQ_F32 ? 4 : *type == NQ_Q8_0 ? 1 : 2;
    if ((*type != NQ_F32 && *type != NQ_F16 && *type != NQ_BF16 && *type != NQ_Q8_0) ||
        !nq_dtype_bytes(*type, t->elements, t->cols, &all) || all > t->layer->data_bytes ||
        !nq_dtype_bytes(*type, row * t->cols, t->cols, &start) ||
        (uintptr_t)t->layer->data % align != 0) {
        return NULL;
    }
    return t->layer->data + start;
}

static novaq_status read_plain(float *dst, const nq_weight *t, uint64_t row0, uint64_t count,
                               novaq_error *err) {
    nq_dtype type = stored_dtype(t->layer);
    uint64_t start = 0;
    uint64_t bytes = 0;
    if (!nq_dtype_bytes(type, row0 * t->cols, t->cols, &start) ||
        !nq_dtype_bytes(type, count * t->cols, t->cols, &bytes) || start > t->layer->data_bytes ||
        bytes > t->layer->data_bytes - start) {
        return nq_fail(err, NOVAQ_E_FORMAT, "%s: rows are not whole blocks of %s", t->name,
                       nq_dtype_get(type)->name);
    }
    nq_dequantize(dst, type, t->layer->data + start, count * t->cols);
    return NOVAQ_OK;
}

static novaq_status read_source(float *dst, nq_tensors *ts, const nq_weight *t, uint64_t row0,
                                uint64_t count, novaq_error *err) {
    uint64_t start = 0;
    uint64_t bytes = 0;
    void *raw = NULL;
    if (!nq_dtype_bytes(t->dtype, row0 * t->cols, t->cols, &start) ||
        !nq_dtype_bytes(t->dtype, count * t->cols, t->cols, &bytes)) {
        return nq_fail(err, NOVAQ_E_FORMAT, "%s: rows are not whole blocks of %s", t->name,
                       nq_dtype_get(t->dtype)->name);
    }
    NQ_TRY(nq_alloc_raw(&raw, bytes, 1, err));
    novaq_status st = nq_tensors_read(raw, ts, t->src, start, bytes, err);
    if (st == NOVAQ_OK) {
        nq_dequantize(dst, t->dtype, raw, count * t->cols);
    }
    nq_free(raw);
    return st;
}

novaq_status nq_weights_read_rows(float *dst, nq_weights *w, const nq_weight *t, uint64_t row0,
                                  uint64_t count, novaq_error *err) {
    if (row0 > t->rows || count > t->rows - row0) {
        return nq_fail(err, NOVAQ_E_ARG, "%s: rows %llu+%llu of %llu", t->name,
                       (unsigned long long)row0, (unsigned long long)count,
                       (unsigned long long)t->rows);
    }
    if (count == 0 || t->cols == 0) {
        return NOVAQ_OK;
    }
    if (t->q != NULL) {
        return read_coded(dst, t->q, row0, count, err);
    }
    return t->layer != NULL ? read_plain(dst, t, row0, count, err)
                            : read_source(dst, w->tensors, t, row0, count, err);
}
