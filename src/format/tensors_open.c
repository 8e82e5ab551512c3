/* tensors_open.c - from a file to a filled nq_tensors.
 *
 * Owns: recognising files by content, index.json, GGUF splits. Headers of remote files
 * are read through a cache of small blocks, which goes when they have been read.
 * Refuses: shard names that are not plain file names, artifacts (which are no source).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/mem.h"
#include "base/text.h"
#include "format/tensors_impl.h"
#include "io/cached.h"
#include "io/fs.h"

#define INDEX_MAX  ((size_t)64 << 20) /* bytes of an index.json */
#define SHARDS_MAX 100000
#define HEAD_USUAL ((uint64_t)64 << 10) /* bytes of most SafeTensors headers */

typedef enum kind {
    KIND_UNKNOWN,
    KIND_SAFETENSORS,
    KIND_GGUF,
    KIND_JSON,
    KIND_PYTORCH,
    KIND_ONNX
} kind;

/* ---- recognising ---------------------------------------------------------- */

static kind kind_by_name(const char *path) {
    return nq_ends_with(path, ".gguf")          ? KIND_GGUF
           : nq_ends_with(path, ".safetensors") ? KIND_SAFETENSORS
           : nq_ends_with(path, ".json")        ? KIND_JSON
           : nq_ends_with(path, ".onnx")        ? KIND_ONNX
                                                : KIND_UNKNOWN;
}

static kind kind_by_content(const uint8_t *head, size_t n) {
    if (n >= 4 && memcmp(head, "GGUF", 4) == 0) {
        return KIND_GGUF;
    }
    /* A zip archive, or a pickle of a long integer: the two forms of torch.save(). */
    if (n >= 4 && (memcmp(head, "PK\3\4", 4) == 0 || memcmp(head, "\x80\2\x8a\n", 4) == 0)) {
        return KIND_PYTORCH;
    }
    if (n > 8) {
        uint64_t len = 0;
        for (unsigned i = 0; i < 8; i++) {
            len |= (uint64_t)head[i] << (8 * i);
        }
        if (len > 0 && len <= NQ_SAFETENSORS_HEADER_MAX && strchr("{ \t\r\n", head[8]) != NULL &&
            head[8] != 0) {
            return KIND_SAFETENSORS;
        }
    }
    if (n >= 2 && head[0] == 0x80 && head[1] >= 2 && head[1] <= 5) { /* another pickle */
        return KIND_PYTORCH;
    }
    size_t i = 0;
    while (i < n && strchr(" \t\r\n", head[i]) != NULL && head[i] != 0) {
        i++;
    }
    return i < n && head[i] == '{' ? KIND_JSON : KIND_UNKNOWN;
}

/* Content decides; the name only where the content says nothing, so that a
 * damaged file is reported by the right parser. */
static novaq_status recognise(kind *out, nq_source *src, novaq_error *err) {
    uint8_t head[64];
    size_t n = src->size < sizeof head ? (size_t)src->size : sizeof head;
    NQ_TRY(nq_source_read(src, 0, head, n, err));
    *out = kind_by_content(head, n);
    if (*out == KIND_UNKNOWN) {
        bool onnx = false;
        NQ_TRY(nq_onnx_is_model(&onnx, src, err));
        *out = onnx ? KIND_ONNX : kind_by_name(src->name);
    }
    return NOVAQ_OK;
}

/* ---- single files --------------------------------------------------------- */

/* Calls fn with what the header of the last shard is to be read from. */
typedef novaq_status (*input_fn)(void *ctx, nq_tensors *ts, nq_source *in, novaq_error *err);

static novaq_status with_input(nq_tensors *ts, input_fn fn, void *ctx, novaq_error *err) {
    nq_source *src = ts->shards[ts->shard_count - 1].src;
    nq_source *cache = NULL;
    if (!src->remote) {
        return fn(ctx, ts, src, err);
    }
    NQ_TRY(nq_cached_open(&cache, src, err));
    nq_source_expect(cache, 0, src->size < HEAD_USUAL ? src->size : HEAD_USUAL);
    novaq_status st = fn(ctx, ts, cache, err);
    nq_source_close(&cache);
    return st;
}

/* Opens a file beside the first one as a further shard. */
static novaq_status open_sibling(nq_tensors *ts, const char *name, novaq_error *err) {
    char *full = NULL;
    NQ_TRY(nq_tensors_sibling(&full, ts, name, err));
    novaq_status st = nq_tensors_open_shard(ts, full, err);
    nq_free(full);
    return st;
}

static novaq_status load_safetensors(nq_tensors *ts, nq_source *in, nq_keep_fn keep, void *ctx,
                                     novaq_error *err) {
    nq_shard *s = &ts->shards[ts->shard_count - 1];
    ts->format = NQ_FORMAT_SAFETENSORS;
    NQ_TRY(nq_safetensors_parse(&s->st, in, err));
    if (s->st.is_artifact) {
        return nq_tensors_is_artifact(s->src->name, err);
    }
    NQ_TRY(nq_tensors_add(ts, s->st.tensors, s->st.count, keep, ctx, err));
    nq_free(s->st.tensors); /* now in the set; a hostile header makes many */
    s->st.tensors = NULL;
    s->st.count = 0;
    return NOVAQ_OK;
}

static novaq_status load_torch(nq_tensors *ts, nq_source *in, nq_keep_fn keep, void *ctx,
                               novaq_error *err) {
    nq_shard *s = &ts->shards[ts->shard_count - 1];
    ts->format = NQ_FORMAT_PYTORCH;
    NQ_TRY(nq_torch_parse(&s->torch, in, err));
    NQ_TRY(nq_tensors_add(ts, s->torch.tensors, s->torch.count, keep, ctx, err));
    nq_free(s->torch.tensors); /* now in the set; names and strides stay */
    s->torch.tensors = NULL;
    s->torch.count = 0;
    return NOVAQ_OK;
}

/* ---- GGUF splits ---------------------------------------------------------- */

/* An optional non-negative integer key; `absent` when there is none. */
static novaq_status split_key(int64_t *out, const nq_shard *s, const char *key, int64_t absent,
                              novaq_error *err) {
    const nq_gguf_kv *kv = nq_gguf_find(s->gguf.kvs, s->gguf.kv_count, key);
    *out = absent;
    if (kv != NULL && (!nq_gguf_integer(out, kv, 0) || kv->type == NQ_GGUF_ARRAY || *out < 0)) {
        return nq_fail(err, NOVAQ_E_FORMAT, "%s: key %s is not a count", s->src->name, key);
    }
    return NOVAQ_OK;
}

/* The name of the first file within its place, before "-00001-of-00003.gguf" (no: 1).
 * Names for messages say nothing: those of blobs and addresses are others. *out stays
 * NULL where the file is not named so. */
static novaq_status split_prefix(char **out, const nq_tensors *ts, int64_t no, int64_t count,
                                 novaq_error *err) {
    char tail[64];
    (void)snprintf(tail, sizeof tail, "-%05lld-of-%05lld.gguf", (long long)no, (long long)count);
    const char *base = nq_path_base(ts->model);
    *out = NULL;
    return nq_ends_with(base, tail) ? nq_strndup(out, base, strlen(base) - strlen(tail), err)
                                    : NOVAQ_OK;
}

static novaq_status not_first(const nq_tensors *ts, int64_t no, int64_t count, novaq_error *err) {
    char *prefix = NULL;
    NQ_TRY(split_prefix(&prefix, ts, no + 1, count, err));
    novaq_status st = nq_fail(err, NOVAQ_E_ARG,
                              "%s: this is part %lld of a split model: give the path of part 1 "
                              "(%s-00001-of-%05lld.gguf)",
                              ts->shards[0].src->name, (long long)no + 1,
                              prefix != NULL ? prefix : "NAME", (long long)count);
    nq_free(prefix);
    return st;
}

static novaq_status parse_part(void *ctx, nq_tensors *ts, nq_source *in, novaq_error *err) {
    (void)ctx;
    return nq_gguf_parse(&ts->shards[ts->shard_count - 1].gguf, in, err);
}

static novaq_status load_split_part(nq_tensors *ts, const char *prefix, int64_t no, int64_t count,
                                    novaq_error *err) {
    char *name = NULL;
    NQ_TRY(nq_asprintf(&name, err, "%s-%05lld-of-%05lld.gguf", prefix, (long long)no + 1,
                       (long long)count));
    novaq_status st = open_sibling(ts, name, err);
    nq_free(name);
    NQ_TRY(st);
    nq_shard *s = &ts->shards[ts->shard_count - 1];
    NQ_TRY(with_input(ts, parse_part, NULL, err));
    int64_t its_no = 0;
    int64_t its_count = 0;
    NQ_TRY(split_key(&its_no, s, "split.no", -1, err));
    NQ_TRY(split_key(&its_count, s, "split.count", -1, err));
    if (its_no != no || its_count != count) {
        return nq_fail(err, NOVAQ_E_FORMAT,
                       "%s: says it is part %lld of %lld, part %lld of %lld is due", s->src->name,
                       (long long)its_no + 1, (long long)its_count, (long long)no + 1,
                       (long long)count);
    }
    return nq_tensors_add(ts, s->gguf.tensors, s->gguf.tensor_count, NULL, NULL, err);
}

static novaq_status load_split(nq_tensors *ts, int64_t count, novaq_error *err) {
    int64_t tensors = 0;
    NQ_TRY(split_key(&tensors, &ts->shards[0], "split.tensors.count", -1, err));
    char *prefix = NULL;
    NQ_TRY(split_prefix(&prefix, ts, 1, count, err));
    if (prefix == NULL) {
        return nq_fail(err, NOVAQ_E_ARG,
                       "%s: the first of %lld files of a split model must be named "
                       "NAME-00001-of-%05lld.gguf",
                       ts->shards[0].src->name, (long long)count, (long long)count);
    }
    novaq_status st = NOVAQ_OK;
    for (int64_t no = 1; st == NOVAQ_OK && no < count; no++) {
        st = load_split_part(ts, prefix, no, count, err);
    }
    nq_free(prefix);
    if (st == NOVAQ_OK && tensors >= 0 && (uint64_t)tensors != ts->count) {
        st = nq_fail(err, NOVAQ_E_FORMAT, "%s: split.tensors.count is %lld, the files hold %zu",
                     ts->path, (long long)tensors, ts->count);
    }
    return st;
}

static novaq_status load_gguf(nq_tensors *ts, nq_source *in, novaq_error *err) {
    nq_shard *s = &ts->shards[0];
    ts->format = NQ_FORMAT_GGUF;
    NQ_TRY(nq_gguf_parse(&s->gguf, in, err));
    NQ_TRY(nq_tensors_add(ts, s->gguf.tensors, s->gguf.tensor_count, NULL, NULL, err));
    int64_t no = 0;
    int64_t count = 0;
    NQ_TRY(split_key(&no, s, "split.no", 0, err));
    NQ_TRY(split_key(&count, s, "split.count", 0, err));
    if (count <= 1) {
        return NOVAQ_OK;
    }
    if (count > SHARDS_MAX || no >= count) {
        return nq_fail(err, NOVAQ_E_FORMAT, "%s: claims to be part %lld of %lld", s->src->name,
                       (long long)no + 1, (long long)count);
    }
    if (no != 0) {
        return not_first(ts, no, count, err);
    }
    return load_split(ts, count, err);
}

/* ---- index.json ----------------------------------------------------------- */

typedef struct mapped {
    const json_t *map; /* tensor name -> file name */
    const char *file;
} mapped;

static bool keep_mapped(void *ctx, const char *name) {
    const mapped *m = ctx;
    const char *file = json_string_value(json_object_get(m->map, name));
    return file != NULL && strcmp(file, m->file) == 0;
}

/* A plain name: no directories, so a repository cannot reach out of its own. */
static bool is_plain_name(const char *s) {
    return s[0] != '\0' && strchr(s, '/') == NULL && strchr(s, '\\') == NULL &&
           strcmp(s, ".") != 0 && strcmp(s, "..") != 0;
}

/* The distinct file names of a weight map, sorted. *count may be 0. */
static novaq_status map_files(nq_name **out, size_t *count, const char *path, const json_t *map,
                              novaq_error *err) {
    NQ_TRY(nq_alloc(out, json_object_size(map), sizeof **out, err));
    size_t n = 0;
    /* jansson's iterators take a non-const object but do not change it. */
    json_t *walk = (json_t *)(uintptr_t)map;
    for (void *it = json_object_iter(walk); it != NULL; it = json_object_iter_next(walk, it)) {
        const char *file = json_string_value(json_object_iter_value(it));
        if (file == NULL || !is_plain_name(file)) {
            return nq_fail(err, NOVAQ_E_FORMAT,
                           "%s: tensor \"%.100s\": \"%.200s\" is not a plain file name", path,
                           json_object_iter_key(it), file == NULL ? "" : file);
        }
        (*out)[n++] = (nq_name){file, 0};
    }
    nq_names_sort(*out, n);
    for (size_t i = 0; i < n; i++) {
        if (*count == 0 || strcmp((*out)[*count - 1].name, (*out)[i].name) != 0) {
            (*out)[(*count)++] = (*out)[i];
        }
    }
    return NOVAQ_OK;
}

/* Names a tensor of the map that no shard had. */
static novaq_status missing_tensor(const nq_tensors *ts, const char *path, const json_t *map,
                                   novaq_error *err) {
    nq_name *have = NULL;
    NQ_TRY(nq_alloc_raw(&have, ts->count, sizeof *have, err));
    for (size_t i = 0; i < ts->count; i++) {
        have[i] = (nq_name){ts->tensors[i].name, i};
    }
    nq_names_sort(have, ts->count);
    json_t *walk = (json_t *)(uintptr_t)map;
    void *it = json_object_iter(walk);
    while (it != NULL && nq_names_find(have, ts->count, json_object_iter_key(it)) != NULL) {
        it = json_object_iter_next(walk, it);
    }
    novaq_status st =
        nq_fail(err, NOVAQ_E_FORMAT, "%s: tensor \"%.200s\" is not in \"%.200s\" as the index says",
                path, it == NULL ? "?" : json_object_iter_key(it),
                it == NULL ? "?" : json_string_value(json_object_iter_value(it)));
    nq_free(have);
    return st;
}

/* The last shard, whichever of the two formats that have indices it is in. */
static novaq_status load_mapped(void *ctx, nq_tensors *ts, nq_source *in, novaq_error *err) {
    kind k = KIND_UNKNOWN;
    NQ_TRY(recognise(&k, in, err));
    return k == KIND_PYTORCH ? load_torch(ts, in, keep_mapped, ctx, err)
                             : load_safetensors(ts, in, keep_mapped, ctx, err);
}

static novaq_status load_shards(nq_tensors *ts, const char *path, const json_t *map,
                                const nq_name *files, size_t count, novaq_error *err) {
    if (count == 0 || count > SHARDS_MAX) {
        return nq_fail(err, NOVAQ_E_FORMAT, "%s: weight_map names %zu files", path, count);
    }
    for (size_t i = 0; i < count; i++) {
        mapped m = {map, files[i].name};
        NQ_TRY(open_sibling(ts, files[i].name, err));
        /* Tensors that the map leaves out are ignored, as Hugging Face does:
         * they are remnants (tied weights, buffers) that no model asks for. */
        NQ_TRY(with_input(ts, load_mapped, &m, err));
    }
    return ts->count == json_object_size(map) ? NOVAQ_OK : missing_tensor(ts, path, map, err);
}

/* The text of the first shard, which is none but an index. */
static novaq_status read_index(nq_tensors *ts, char **text, size_t *len, novaq_error *err) {
    nq_source *src = ts->shards[0].src;
    if (src->size > INDEX_MAX) {
        return nq_fail(err, NOVAQ_E_FORMAT, "%s: offset 0: larger than %zu bytes", src->name,
                       INDEX_MAX);
    }
    bool verified = false;
    NQ_TRY(nq_alloc_raw(text, src->size, 1, err));
    *len = (size_t)src->size;
    NQ_TRY(nq_source_read(src, 0, *text, src->size, err));
    return nq_source_verified(&verified, src, err); /* it decides what else is read */
}

static novaq_status follow_index(nq_tensors *ts, const char *path, json_t *root, novaq_error *err) {
    nq_name *files = NULL;
    size_t count = 0;
    const json_t *map = NULL;
    novaq_status st = NOVAQ_OK;
    if (json_object_get(root, "chunks") != NULL &&
        json_object_get(root, "schema_version") != NULL) {
        st = nq_tensors_is_artifact(path, err);
    }
    if (st == NOVAQ_OK) {
        st = nq_json_get_object(&map, root, "weight_map", path, err);
    }
    if (st == NOVAQ_OK) {
        st = map_files(&files, &count, path, map, err);
    }
    if (st == NOVAQ_OK) {
        st = load_shards(ts, path, map, files, count, err);
    }
    nq_free(files);
    return st;
}

static novaq_status load_index(nq_tensors *ts, novaq_error *err) {
    char *text = NULL;
    char *path = NULL;
    size_t len = 0;
    json_t *root = NULL;
    novaq_status st = read_index(ts, &text, &len, err);
    if (st == NOVAQ_OK) {
        st = nq_strdup(&path, ts->shards[0].src->name, err);
    }
    nq_source_close(&ts->shards[0].src);
    ts->shard_count = 0;
    if (st == NOVAQ_OK) {
        st = nq_json_parse_object(&root, path, text, len, err);
    }
    if (st == NOVAQ_OK) {
        st = follow_index(ts, path, root, err);
    }
    json_decref(root);
    nq_free(path);
    nq_free(text);
    return st;
}

/* ---- entry ---------------------------------------------------------------- */

static novaq_status load_kind(nq_tensors *ts, nq_source *in, kind k, novaq_error *err) {
    switch (k) {
    case KIND_SAFETENSORS: return load_safetensors(ts, in, NULL, NULL, err);
    case KIND_GGUF: return load_gguf(ts, in, err);
    case KIND_JSON: return load_index(ts, err);
    case KIND_ONNX: return nq_tensors_load_onnx(ts, in, err);
    case KIND_PYTORCH: return load_torch(ts, in, NULL, NULL, err);
    case KIND_UNKNOWN: break;
    }
    return nq_fail(err, NOVAQ_E_FORMAT, "%s: offset 0: neither SafeTensors, GGUF, PyTorch nor ONNX",
                   in->name);
}

static novaq_status recognise_and_load(void *ctx, nq_tensors *ts, nq_source *in, novaq_error *err) {
    kind k = KIND_UNKNOWN;
    (void)ctx;
    NQ_TRY(recognise(&k, in, err));
    return load_kind(ts, in, k, err);
}

novaq_status nq_tensors_load(nq_tensors *ts, novaq_error *err) {
    if (ts->files != NULL) {
        NQ_TRY(nq_tensors_locate(ts, err));
        NQ_TRY(nq_tensors_open_shard(ts, ts->model, err));
    }
    return with_input(ts, recognise_and_load, NULL, err);
}
