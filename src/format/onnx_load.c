/* onnx_load.c - an ONNX model as a set of tensors.
 *
 * Owns: external files as further shards. Refuses: files outside the model's folder.
 */
#include <string.h>

#include "base/mem.h"
#include "format/tensors_impl.h"

/* In the file system, names are followed through links: where they end is checked, and
 * after opening that it is what was opened. *path stays NULL elsewhere. */
static novaq_status check_place(char **path, const nq_tensors *ts, const char *location,
                                novaq_error *err) {
    *path = NULL;
    return ts->files == NULL || nq_files_dir(ts->files) == NULL
               ? nq_onnx_external_name(location, err)
               : nq_onnx_external_path(path, ts->shards[0].src->name, location, err);
}

/* As the last shard. path: from check_place(). */
static novaq_status open_checked(nq_tensors *ts, const char *name, const char *path,
                                 novaq_error *err) {
    NQ_TRY(nq_tensors_open_shard(ts, name, err));
    const nq_source *src = ts->shards[ts->shard_count - 1].src;
    return path == NULL || nq_source_is_file(src, path)
               ? NOVAQ_OK
               : nq_fail(err, NOVAQ_E_IO, "%s: was replaced while it was opened; try again",
                         src->name);
}

/* Without the parts "." that a location may have. In place. */
static void drop_dots(char *name) {
    char *to = name;
    for (const char *p = name; *p != '\0';) {
        size_t n = strcspn(p, "/");
        size_t whole = p[n] == '/' ? n + 1 : n;
        if (n != 1 || p[0] != '.') {
            memmove(to, p, whole);
            to += whole;
        }
        p += whole;
    }
    *to = '\0';
}

static novaq_status open_external(void *ctx, nq_source **out, uint32_t *file, const char *location,
                                  novaq_error *err) {
    nq_tensors *ts = ctx;
    char *name = NULL;
    char *path = NULL;
    *out = NULL;
    NQ_TRY(check_place(&path, ts, location, err));
    novaq_status st = nq_tensors_sibling(&name, ts, location, err);
    if (st == NOVAQ_OK) {
        drop_dots(name);
        st = open_checked(ts, name, path, err);
    }
    nq_free(name);
    nq_free(path);
    NQ_TRY(st);
    *file = ts->shard_count - 1;
    *out = ts->shards[*file].src;
    return NOVAQ_OK;
}

novaq_status nq_tensors_load_onnx(nq_tensors *ts, nq_source *in, novaq_error *err) {
    ts->format = NQ_FORMAT_ONNX;
    NQ_TRY(nq_onnx_parse(&ts->onnx, in, open_external, ts, err));
    NQ_TRY(nq_tensors_add(ts, ts->onnx.tensors, ts->onnx.count, NULL, NULL, err));
    for (size_t i = 0; i < ts->count; i++) {
        ts->tensors[i].file = ts->onnx.tensors[i].file; /* not just the last shard */
    }
    nq_free(ts->onnx.tensors); /* now in the set */
    ts->onnx.tensors = NULL;
    ts->onnx.count = 0;
    return NOVAQ_OK;
}
