/* tensors.c - see tensors.h: the set itself; tensors_open.c fills it,
 * tensors_read.c reads from it. */
#include "format/tensors.h"

#include <string.h>

#include "base/mem.h"
#include "format/tensors_impl.h"
#include "io/fs.h"

/* ---- filling -------------------------------------------------------------- */

static novaq_status add_shard(nq_tensors *ts, nq_source *src, novaq_error *err) {
    novaq_status st = nq_grow(&ts->shards, ts->shard_count, (uint64_t)ts->shard_count + 1,
                              sizeof *ts->shards, err);
    if (st != NOVAQ_OK) {
        nq_source_close(&src);
        return st;
    }
    ts->shards[ts->shard_count++].src = src;
    return NOVAQ_OK;
}

/* Whether the place tells the SHA-256 of a file. */
static bool is_promised(const nq_files *files, const char *name) {
    size_t low = 0;
    size_t high = nq_files_count(files);
    while (low < high) { /* sorted by name */
        size_t mid = low + (high - low) / 2;
        const nq_file *f = nq_files_at(files, mid);
        int order = strcmp(f->name, name);
        if (order == 0) {
            return f->sha256 != NULL;
        }
        low = order < 0 ? mid + 1 : low;
        high = order < 0 ? high : mid;
    }
    return false;
}

novaq_status nq_tensors_open_shard(nq_tensors *ts, const char *name, novaq_error *err) {
    nq_source *src = NULL;
    if (ts->files == NULL) {
        return nq_fail(err, NOVAQ_E_ARG, "%s: its further file \"%.200s\" is not at hand", ts->path,
                       name);
    }
    NQ_TRY(nq_files_source(&src, ts->files, name, err));
    NQ_TRY(add_shard(ts, src, err));
    ts->shards[ts->shard_count - 1].promised = is_promised(ts->files, name);
    return NOVAQ_OK;
}

novaq_status nq_tensors_add(nq_tensors *ts, const nq_tensor_info *list, size_t count,
                            nq_keep_fn keep, void *ctx, novaq_error *err) {
    for (size_t i = 0; i < count; i++) {
        if (keep != NULL && !keep(ctx, list[i].name)) {
            continue;
        }
        if (ts->count == ts->cap) {
            size_t cap = ts->cap == 0 ? count - i : ts->cap + ts->cap / 2 + 1;
            NQ_TRY(nq_grow(&ts->tensors, ts->count, cap, sizeof *ts->tensors, err));
            ts->cap = cap;
        }
        ts->tensors[ts->count] = list[i];
        ts->tensors[ts->count++].file = ts->shard_count - 1;
    }
    return NOVAQ_OK;
}

static int by_place(const void *a, const void *b) {
    const nq_tensor_info *x = a;
    const nq_tensor_info *y = b;
    if (x->file != y->file) {
        return x->file < y->file ? -1 : 1;
    }
    if (x->offset != y->offset) {
        return x->offset < y->offset ? -1 : 1;
    }
    if (x->bytes != y->bytes) { /* empty tensors share their place with the next */
        return x->bytes < y->bytes ? -1 : 1;
    }
    return strcmp(x->name, y->name);
}

static novaq_status build_index(nq_tensors *ts, novaq_error *err) {
    nq_sort(ts->tensors, ts->count, sizeof *ts->tensors, by_place);
    NQ_TRY(nq_alloc_raw(&ts->by_name, ts->count, sizeof *ts->by_name, err));
    for (size_t i = 0; i < ts->count; i++) {
        ts->by_name[i] = (nq_name){ts->tensors[i].name, i};
    }
    nq_names_sort(ts->by_name, ts->count);
    const char *twice = nq_names_duplicate(ts->by_name, ts->count);
    return twice == NULL ? NOVAQ_OK
                         : nq_fail(err, NOVAQ_E_FORMAT, "%s: tensor \"%.200s\" is there twice",
                                   ts->path, twice);
}

/* ---- opening and closing ----------------------------------------------------- */

static novaq_status fill(nq_tensors *ts, nq_source **src, novaq_error *err) {
    if (*src != NULL) {
        nq_source *s = *src;
        *src = NULL;
        NQ_TRY(add_shard(ts, s, err));
        NQ_TRY(nq_strdup(&ts->model, nq_path_base(ts->path), err));
        NQ_TRY(nq_strdup(&ts->folder, "", err));
    }
    NQ_TRY(nq_tensors_load(ts, err));
    return build_index(ts, err);
}

/* path: for messages; of files and src one is there, and taken over. */
static novaq_status open_over(nq_tensors **out, const char *path, nq_files **files, nq_source **src,
                              novaq_error *err) {
    *out = NULL;
    nq_tensors *ts = NULL;
    novaq_status st = nq_alloc(&ts, 1, sizeof *ts, err);
    if (st == NOVAQ_OK) {
        ts->files = *files;
        *files = NULL;
        st = nq_strdup(&ts->path, path, err);
    }
    if (st == NOVAQ_OK) {
        st = fill(ts, src, err);
    }
    nq_source_close(src);
    nq_files_close(files);
    if (st != NOVAQ_OK) {
        nq_tensors_close(&ts);
    }
    *out = ts;
    return st;
}

novaq_status nq_tensors_open(nq_tensors **out, const char *path, novaq_error *err) {
    nq_files *files = NULL;
    nq_source *none = NULL;
    *out = NULL;
    NQ_TRY(nq_files_open(&files, path, err));
    return open_over(out, path, &files, &none, err);
}

novaq_status nq_tensors_open_files(nq_tensors **out, nq_files **files, novaq_error *err) {
    nq_source *none = NULL;
    return open_over(out, nq_files_locator(*files), files, &none, err);
}

novaq_status nq_tensors_open_source(nq_tensors **out, nq_source **src, novaq_error *err) {
    nq_files *none = NULL;
    return open_over(out, (*src)->name, &none, src, err);
}

void nq_tensors_close(nq_tensors **tensors) {
    nq_tensors *ts = *tensors;
    *tensors = NULL;
    if (ts == NULL) {
        return;
    }
    if (ts->ahead != NULL && ts->files != NULL) {
        nq_files_stop(ts->files); /* what is on its way is not waited for */
    }
    nq_ahead_close(&ts->ahead);
    for (uint32_t i = 0; i < ts->shard_count; i++) {
        nq_safetensors_free(&ts->shards[i].st);
        nq_gguf_free(&ts->shards[i].gguf);
        nq_torch_free(&ts->shards[i].torch);
        nq_source_close(&ts->shards[i].src);
    }
    nq_onnx_free(&ts->onnx);
    nq_files_close(&ts->files);
    nq_free(ts->shards);
    nq_free(ts->tensors);
    nq_free(ts->by_name);
    nq_free(ts->names);
    nq_free(ts->turned);
    nq_free(ts->dir);
    nq_free(ts->folder);
    nq_free(ts->model);
    nq_free(ts->path);
    nq_free(ts);
}

/* ---- looking -------------------------------------------------------------- */

nq_format nq_tensors_format(const nq_tensors *ts) { return ts->format; }

const char *nq_tensors_path(const nq_tensors *ts) { return ts->path; }

uint64_t nq_tensors_file_bytes(const nq_tensors *ts) {
    uint64_t sum = 0;
    for (uint32_t i = 0; i < ts->shard_count; i++) {
        sum += ts->shards[i].src->size;
    }
    return sum;
}

const char *nq_tensors_dir(const nq_tensors *ts) { return ts->dir; }

nq_files *nq_tensors_files(const nq_tensors *ts) { return ts->files; }

novaq_status nq_tensors_beside(char **out, const nq_tensors *ts, const char *name,
                               novaq_error *err) {
    return ts->folder[0] == '\0' ? nq_strdup(out, name, err)
                                 : nq_path_join(out, ts->folder, name, err);
}

novaq_status nq_tensors_sibling(char **out, const nq_tensors *ts, const char *name,
                                novaq_error *err) {
    int folder = (int)(nq_path_base(ts->model) - ts->model);
    return nq_asprintf(out, err, "%.*s%s", folder, ts->model, name);
}

const nq_gguf_kv *nq_tensors_kv(const nq_tensors *ts, size_t *count) {
    bool gguf = ts->format == NQ_FORMAT_GGUF;
    *count = gguf ? ts->shards[0].gguf.kv_count : 0;
    return gguf ? ts->shards[0].gguf.kvs : NULL;
}

size_t nq_tensors_count(const nq_tensors *ts) { return ts->count; }

const nq_tensor_info *nq_tensors_at(const nq_tensors *ts, size_t i) { return &ts->tensors[i]; }

const nq_tensor_info *nq_tensors_find(const nq_tensors *ts, const char *name) {
    const nq_name *hit = nq_names_find(ts->by_name, ts->count, name);
    return hit == NULL ? NULL : &ts->tensors[hit->index];
}

/* Gives the tensors that stay their names, one after the other in ts->names. */
static void pick_each(nq_tensors *ts, nq_pick_fn pick) {
    char *at = ts->names;
    size_t kept = 0;
    for (size_t i = 0; i < ts->count; i++) {
        nq_tensor_info *t = &ts->tensors[i];
        if (!pick(at, t->name)) {
            ts->left_out++;
            ts->left_out_bytes += t->bytes;
            continue;
        }
        t->name = at;
        at += strlen(at) + 1;
        ts->tensors[kept++] = *t;
    }
    ts->count = kept;
}

novaq_status nq_tensors_pick(nq_tensors *ts, nq_pick_fn pick, novaq_error *err) {
    uint64_t bytes = 0;
    for (size_t i = 0; i < ts->count; i++) {
        bytes += strlen(ts->tensors[i].name) + 1;
    }
    if (ts->names != NULL) {
        return nq_fail(err, NOVAQ_E_ARG, "%s: its tensors were picked already", ts->path);
    }
    NQ_TRY(nq_alloc(&ts->names, bytes, 1, err));
    pick_each(ts, pick);
    nq_free(ts->by_name);
    ts->by_name = NULL;
    return build_index(ts, err);
}

size_t nq_tensors_left_out(const nq_tensors *ts, uint64_t *bytes) {
    *bytes = ts->left_out_bytes;
    return ts->left_out;
}

novaq_status nq_tensors_transpose(nq_tensors *ts, size_t i, novaq_error *err) {
    nq_tensor_info *t = &ts->tensors[i];
    if (t->rank != 2 || t->elements == 0 || nq_dtype_get(t->dtype)->block != 1) {
        return NOVAQ_OK;
    }
    if (t->view != 0) { /* turned by its reader, or as it was before that */
        nq_onnx_view *v = &ts->onnx.views[t->view - 1];
        uint64_t first = t->shape[0];
        v->transposed = !v->transposed;
        t->shape[0] = t->shape[1];
        t->shape[1] = first;
        return NOVAQ_OK;
    }
    if (ts->turned == NULL) {
        NQ_TRY(nq_alloc(&ts->turned, (uint64_t)ts->count * 2, sizeof *ts->turned, err));
    }
    uint64_t rows = t->shape[0];
    uint64_t *strides = ts->turned + i * 2;
    uint64_t row = t->strides != NULL ? t->strides[0] : t->shape[1];
    strides[0] = t->strides != NULL ? t->strides[1] : 1;
    strides[1] = row;
    t->shape[0] = t->shape[1];
    t->shape[1] = rows;
    t->strides = strides;
    return NOVAQ_OK;
}
