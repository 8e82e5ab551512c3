/* onnx_load.c - an ONNX model as a set of tensors.
 *
 * Owns: external files as further shards, which file of a folder is the model,
 * where the model's config.json is. Refuses: choosing between several models.
 */
#include <string.h>

#include "base/mem.h"
#include "format/tensors_impl.h"
#include "io/fs.h"

/* ---- a file ----------------------------------------------------------------- */

static novaq_status open_external(void *ctx, nq_source **out, uint32_t *file, const char *location,
                                  novaq_error *err) {
    nq_tensors *ts = ctx;
    char *path = NULL;
    nq_source *src = NULL;
    *out = NULL;
    NQ_TRY(nq_onnx_external_path(&path, ts->shards[0].src->name, location, err));
    novaq_status st = nq_source_open_file(&src, path, err);
    nq_free(path);
    NQ_TRY(st);
    NQ_TRY(nq_tensors_add_shard(ts, src, err));
    *file = ts->shard_count - 1;
    *out = src;
    return NOVAQ_OK;
}

static bool has_config(const char *dir) {
    char *path = NULL;
    bool there = nq_path_join(&path, dir, "config.json", NULL) == NOVAQ_OK && nq_is_file(path);
    nq_free(path);
    return there;
}

/* Repositories keep their ONNX files in a folder of that name, beside config.json. */
static novaq_status find_config(nq_tensors *ts, novaq_error *err) {
    if (has_config(ts->dir) || strcmp(nq_path_base(ts->dir), "onnx") != 0) {
        return NOVAQ_OK;
    }
    char *above = NULL;
    NQ_TRY(nq_path_dir(&above, ts->dir, err));
    if (has_config(above)) {
        char *old = ts->dir;
        ts->dir = above;
        above = old;
    }
    nq_free(above);
    return NOVAQ_OK;
}

novaq_status nq_tensors_load_onnx(nq_tensors *ts, novaq_error *err) {
    ts->format = NQ_FORMAT_ONNX;
    NQ_TRY(nq_onnx_parse(&ts->onnx, ts->shards[0].src, open_external, ts, err));
    NQ_TRY(nq_tensors_add(ts, ts->onnx.tensors, ts->onnx.count, NULL, NULL, err));
    for (size_t i = 0; i < ts->count; i++) {
        ts->tensors[i].file = ts->onnx.tensors[i].file; /* not just the last shard */
    }
    nq_free(ts->onnx.tensors); /* now in the set */
    ts->onnx.tensors = NULL;
    ts->onnx.count = 0;
    return find_config(ts, err);
}

/* ---- a folder --------------------------------------------------------------- */

static bool is_onnx_name(const char *s) {
    size_t n = strlen(s);
    return s[0] != '.' && n > 5 && strcmp(s + n - 5, ".onnx") == 0;
}

static novaq_status only_onnx(char **out, const char *dir, char *const *names, size_t count,
                              novaq_error *err) {
    const char *first = NULL;
    for (size_t i = 0; i < count; i++) {
        if (!is_onnx_name(names[i])) {
            continue;
        }
        if (first != NULL) {
            return nq_fail(err, NOVAQ_E_ARG, "%s: holds several models (%.100s, %.100s): name one",
                           dir, first, names[i]);
        }
        first = names[i];
    }
    return first == NULL ? NOVAQ_OK : nq_path_join(out, dir, first, err);
}

novaq_status nq_tensors_locate_onnx(char **out, const char *dir, novaq_error *err) {
    static const char *const usual[] = {"model.onnx", "onnx/model.onnx",
                                        "decoder_model_merged.onnx",
                                        "onnx/decoder_model_merged.onnx"};
    *out = NULL;
    for (size_t i = 0; i < sizeof usual / sizeof usual[0]; i++) {
        char *path = NULL;
        NQ_TRY(nq_path_join(&path, dir, usual[i], err));
        if (nq_is_file(path)) {
            *out = path;
            return NOVAQ_OK;
        }
        nq_free(path);
    }
    char **names = NULL;
    size_t count = 0;
    NQ_TRY(nq_list_dir(&names, &count, dir, err));
    novaq_status st = only_onnx(out, dir, names, count, err);
    nq_free_names(names, count);
    return st;
}
