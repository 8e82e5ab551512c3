/* tensors_locate.c - which file of a place is the model.
 *
 * Owns: the choice among what a directory or repository holds (SafeTensors, then GGUF,
 * PyTorch, ONNX), and in which folder config.json is. Refuses: choosing between several
 * models of one format, artifacts.
 */
#include <string.h>

#include "base/buf.h"
#include "base/mem.h"
#include "base/text.h"
#include "format/tensors_impl.h"
#include "io/fs.h"

#define SHOWN_MAX  8   /* models named in a message */
#define SHOWN_TEXT 280 /* bytes of their names there */

novaq_status nq_tensors_is_artifact(const char *path, novaq_error *err) {
    return nq_fail(
        err, NOVAQ_E_ARG,
        "%s: this is a novaq artifact, already compressed; a source model is needed here "
        "(novaq export makes one from an artifact)",
        path);
}

/* ---- names ---------------------------------------------------------------- */

/* The "-00001" of a name like "m-00001-of-00003.gguf", or NULL. */
static const char *part_number(const char *name) {
    const char *of = strstr(name, "-of-");
    if (of == NULL || of - name < 6 || of[-6] != '-' || strspn(of - 5, "0123456789") != 5) {
        return NULL;
    }
    return of - 6;
}

/* The shards "-00001-of-00002" themselves do not start a model: their index does. */
static bool starts_safetensors(const char *name) {
    return nq_ends_with(name, ".safetensors.index.json") ||
           (nq_ends_with(name, ".safetensors") && part_number(name) == NULL);
}

/* Later parts of a split do not, nor do projectors of images that lie beside. */
static bool starts_gguf(const char *name) {
    const char *part = part_number(name);
    return nq_ends_with(name, ".gguf") && (part == NULL || strncmp(part, "-00001", 6) == 0) &&
           strncmp(name, "mmproj", 6) != 0;
}

/* What training leaves beside a model (optimizer.pt, rng_state.pth,
 * training_args.bin) does not. */
static bool starts_torch(const char *name) {
    static const char *const beside[] = {"optimizer", "scheduler", "rng_state", "scaler",
                                         "training_args"};
    for (size_t i = 0; i < sizeof beside / sizeof beside[0]; i++) {
        if (strncmp(name, beside[i], strlen(beside[i])) == 0) {
            return false;
        }
    }
    if (nq_ends_with(name, ".bin.index.json")) {
        return true;
    }
    return part_number(name) == NULL && (nq_ends_with(name, ".pt") || nq_ends_with(name, ".pth") ||
                                         nq_ends_with(name, ".bin") || nq_ends_with(name, ".ckpt"));
}

static bool starts_onnx(const char *name) {
    return nq_ends_with(name, ".onnx") && strlen(name) > strlen(".onnx");
}

/* ---- the choice ------------------------------------------------------------- */

/* All models of one format in a list of names, as text for a message. */
typedef struct finds {
    const char *first;
    size_t count;
    size_t shown;
    nq_buf text;
} finds;

static novaq_status note(finds *f, const nq_file *file, novaq_error *err) {
    f->first = f->count == 0 ? file->name : f->first;
    bool show = f->shown == f->count && f->shown < SHOWN_MAX &&
                (f->shown == 0 || f->text.len + strlen(file->name) < SHOWN_TEXT);
    f->count++;
    f->shown += show ? 1 : 0;
    return show ? nq_buf_printf(&f->text, err, "%s%.200s", f->shown == 1 ? "" : ", ", file->name)
                : NOVAQ_OK;
}

static novaq_status several(const nq_tensors *ts, finds *f, novaq_error *err) {
    if (f->count > f->shown) {
        NQ_TRY(nq_buf_printf(&f->text, err, " and %zu more", f->count - f->shown));
    }
    return nq_fail(err, NOVAQ_E_ARG, "%.120s: holds several models (%s): name one%s", ts->path,
                   (const char *)f->text.data,
                   nq_files_dir(ts->files) == NULL ? " (-f FILE, or FILE behind the locator)" : "");
}

/* The one model of this format; deep: also in folders within the place. *name stays NULL
 * without any. */
static novaq_status only(char **name, const nq_tensors *ts, bool (*starts)(const char *), bool deep,
                         novaq_error *err) {
    finds f = {.text = nq_buf_init(4096)};
    novaq_status st = NOVAQ_OK;
    for (size_t i = 0; st == NOVAQ_OK && i < nq_files_count(ts->files); i++) {
        const nq_file *file = nq_files_at(ts->files, i);
        const char *base = nq_path_base(file->name);
        if (base[0] != '.' && (deep || base == file->name) && starts(base)) {
            st = note(&f, file, err);
        }
    }
    if (st == NOVAQ_OK && f.count > 1) {
        st = several(ts, &f, err);
    } else if (st == NOVAQ_OK && f.count == 1) {
        st = nq_strdup(name, f.first, err);
    }
    nq_buf_free(&f.text);
    return st;
}

/* The first of some names that is there. */
static novaq_status usual(char **name, const nq_tensors *ts, const char *const *names, size_t count,
                          novaq_error *err) {
    for (size_t i = 0; i < count; i++) {
        bool has = false;
        NQ_TRY(nq_files_has(&has, ts->files, names[i], err));
        if (has) {
            return nq_strdup(name, names[i], err);
        }
    }
    return NOVAQ_OK;
}

static novaq_status choose_other(char **name, const nq_tensors *ts, novaq_error *err) {
    static const char *const onnx[] = {"model.onnx", "onnx/model.onnx", "decoder_model_merged.onnx",
                                       "onnx/decoder_model_merged.onnx"};
    NQ_TRY(only(name, ts, starts_safetensors, false, err));
    if (*name == NULL) {
        NQ_TRY(only(name, ts, starts_gguf, false, err));
    }
    if (*name == NULL) {
        NQ_TRY(only(name, ts, starts_torch, false, err));
    }
    if (*name == NULL) {
        NQ_TRY(usual(name, ts, onnx, sizeof onnx / sizeof onnx[0], err));
    }
    if (*name == NULL) {
        NQ_TRY(only(name, ts, starts_onnx, false, err));
    }
    /* Repositories of GGUF files keep larger ones in a folder for each. */
    return *name == NULL ? only(name, ts, starts_gguf, true, err) : NOVAQ_OK;
}

static novaq_status choose(char **name, const nq_tensors *ts, novaq_error *err) {
    static const char *const names[] = {"model.safetensors", "model.safetensors.index.json",
                                        "pytorch_model.bin", "pytorch_model.bin.index.json"};
    bool artifact = false;
    NQ_TRY(usual(name, ts, names, sizeof names / sizeof names[0], err));
    if (*name == NULL && nq_files_dir(ts->files) != NULL) {
        NQ_TRY(nq_files_has(&artifact, ts->files, "manifest.json", err));
    }
    if (artifact) {
        return nq_tensors_is_artifact(ts->path, err);
    }
    if (*name == NULL) {
        NQ_TRY(choose_other(name, ts, err));
    }
    if (*name == NULL) {
        return nq_fail(err, NOVAQ_E_ARG,
                       "%s: no .safetensors, .safetensors.index.json, .gguf, PyTorch file or "
                       ".onnx in it",
                       ts->path);
    }
    return NOVAQ_OK;
}

/* ---- the folder --------------------------------------------------------------- */

static novaq_status has_config(bool *has, const nq_tensors *ts, const char *folder,
                               novaq_error *err) {
    char *name = NULL;
    NQ_TRY(nq_asprintf(&name, err, "%s%sconfig.json", folder, folder[0] == '\0' ? "" : "/"));
    novaq_status st = nq_files_has(has, ts->files, name, err);
    nq_free(name);
    return st;
}

/* Repositories keep their ONNX files in a folder of that name, beside config.json. */
static novaq_status set_folder(nq_tensors *ts, novaq_error *err) {
    size_t n = (size_t)(nq_path_base(ts->model) - ts->model);
    NQ_TRY(nq_strndup(&ts->folder, ts->model, n == 0 ? 0 : n - 1, err));
    bool has = false;
    if (strcmp(nq_path_base(ts->folder), "onnx") != 0 || !nq_ends_with(ts->model, ".onnx")) {
        return NOVAQ_OK;
    }
    NQ_TRY(has_config(&has, ts, ts->folder, err));
    if (has) {
        return NOVAQ_OK;
    }
    char *above = NULL;
    size_t cut = (size_t)(nq_path_base(ts->folder) - ts->folder);
    NQ_TRY(nq_strndup(&above, ts->folder, cut == 0 ? 0 : cut - 1, err));
    novaq_status st = has_config(&has, ts, above, err);
    if (st == NOVAQ_OK && has) {
        nq_free(ts->folder);
        ts->folder = above;
        above = NULL;
    }
    nq_free(above);
    return st;
}

/* The same for a path into such a folder: the place becomes the one above it. */
static novaq_status step_up(nq_tensors *ts, novaq_error *err) {
    const char *dir = nq_files_dir(ts->files);
    const char *chosen = nq_files_chosen(ts->files);
    char *above = NULL;
    bool here = false;
    bool there = false;
    if (dir == NULL || chosen == NULL || strcmp(nq_path_base(dir), "onnx") != 0 ||
        !nq_ends_with(chosen, ".onnx")) {
        return NOVAQ_OK;
    }
    nq_files *files = NULL;
    NQ_TRY(nq_files_has(&here, ts->files, "config.json", err));
    NQ_TRY(nq_path_dir(&above, dir, err));
    novaq_status st = here ? NOVAQ_OK : nq_files_open(&files, above, err);
    nq_free(above);
    if (st == NOVAQ_OK && files != NULL) {
        st = nq_files_has(&there, files, "config.json", err);
    }
    if (st == NOVAQ_OK && there) {
        st = nq_asprintf(&ts->model, err, "onnx/%s", chosen);
    }
    if (st == NOVAQ_OK && there) {
        nq_files *old = ts->files;
        ts->files = files;
        files = old;
    }
    nq_files_close(&files);
    return st;
}

static novaq_status set_dir(nq_tensors *ts, novaq_error *err) {
    const char *dir = nq_files_dir(ts->files);
    if (dir == NULL) {
        return NOVAQ_OK;
    }
    return ts->folder[0] == '\0' ? nq_strdup(&ts->dir, dir, err)
                                 : nq_path_join(&ts->dir, dir, ts->folder, err);
}

novaq_status nq_tensors_locate(nq_tensors *ts, novaq_error *err) {
    NQ_TRY(step_up(ts, err));
    const char *chosen = nq_files_chosen(ts->files);
    if (ts->model == NULL) {
        NQ_TRY(chosen != NULL ? nq_strdup(&ts->model, chosen, err) : choose(&ts->model, ts, err));
    }
    NQ_TRY(set_folder(ts, err));
    return set_dir(ts, err);
}
