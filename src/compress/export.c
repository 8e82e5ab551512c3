/* export.c - novaq_export(): plain weights for other tools.
 *
 * Owns: checking the request, refusing to overwrite the input, the order in
 * which files appear (weights last), the report. Refuses: holding more of the
 * model than a few blocks of rows.
 */
#include "compress/export.h"

#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "artifact/write_safetensors.h"
#include "base/mem.h"
#include "base/text.h"

#define WEIGHTS_FILE "model.safetensors"

typedef struct job {
    const novaq_export_options *opt;
    nq_export_plan plan;
    nq_pool *pool;
    nq_out_progress progress;
    json_t *files;  /* array of paths written */
    uint64_t bytes; /* in them */
} job;

/* ---- the request --------------------------------------------------------- */

static bool same_file(const char *a, const char *b) {
    struct stat x;
    struct stat y;
    return a != NULL && b != NULL && stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev &&
           x.st_ino == y.st_ino;
}

static novaq_status check_output(const nq_weights *w, const novaq_export_options *o, bool gguf,
                                 novaq_error *err) {
    const nq_tensors *ts = nq_weights_tensors((nq_weights *)(uintptr_t)w);
    if (gguf && nq_is_dir(o->output)) {
        return nq_fail(err, NOVAQ_E_ARG, "%s: is a directory; give the name of a .gguf file",
                       o->output);
    }
    if (!gguf && (nq_is_file(o->output) || nq_ends_with(o->output, ".safetensors"))) {
        return nq_fail(err, NOVAQ_E_ARG, "%s: SafeTensors are written to a directory; name one",
                       o->output);
    }
    bool clash = same_file(o->input, o->output) ||
                 (ts != NULL && (same_file(nq_tensors_path(ts), o->output) ||
                                 (!gguf && same_file(nq_tensors_dir(ts), o->output))));
    if (clash || (!gguf && nq_artifact_probe(o->output))) {
        return nq_fail(err, NOVAQ_E_ARG, "%s: holds a model already; write somewhere else",
                       o->output);
    }
    return NOVAQ_OK;
}

static novaq_status parse_request(bool *gguf, nq_dtype *dtype, const novaq_export_options *o,
                                  novaq_error *err) {
    if (o->struct_size < sizeof *o || o->input == NULL || o->output == NULL ||
        o->output[0] == '\0') {
        return nq_fail(err, NOVAQ_E_ARG, "export: input and output are needed");
    }
    const char *format = o->format != NULL ? o->format : "gguf";
    *gguf = strcmp(format, "gguf") == 0;
    if (!*gguf && strcmp(format, "safetensors") != 0) {
        return nq_fail(err, NOVAQ_E_ARG, "export: format '%s' is neither gguf nor safetensors",
                       format);
    }
    const char *name = o->dtype != NULL ? o->dtype : "f16";
    if (!nq_dtype_from_name(dtype, name) ||
        (*dtype != NQ_F16 && *dtype != NQ_F32 && *dtype != NQ_BF16)) {
        return nq_fail(err, NOVAQ_E_ARG, "export: dtype '%s' is none of f16, f32, bf16", name);
    }
    return NOVAQ_OK;
}

/* ---- writing ------------------------------------------------------------- */

static novaq_status note_file(job *j, const char *path, uint64_t bytes, novaq_error *err) {
    j->bytes += bytes;
    json_t *s = json_string(path);
    if (s == NULL) {
        s = json_string("(a path that is not UTF-8)");
    }
    return json_array_append_new(j->files, s) == 0 ? NOVAQ_OK
                                                   : nq_fail(err, NOVAQ_E_MEMORY, "out of memory");
}

static novaq_status commit(job *j, nq_outfile **f, const char *path, novaq_error *err) {
    uint64_t size = nq_outfile_size(*f);
    NQ_TRY(nq_outfile_commit(f, NULL, err));
    return note_file(j, path, size, err);
}

static novaq_status write_gguf(job *j, novaq_error *err) {
    nq_gguf_keys keys = nq_gguf_keys_init();
    nq_outfile *f = NULL;
    novaq_status st = nq_export_gguf_keys(&keys, &j->plan, err);
    if (st == NOVAQ_OK) {
        st = nq_outfile_open(&f, j->opt->output, err);
    }
    if (st == NOVAQ_OK) {
        st = nq_write_gguf(f, &keys, j->plan.out, j->plan.count, j->pool, &j->progress, err);
    }
    if (st == NOVAQ_OK) {
        st = commit(j, &f, j->opt->output, err);
    }
    nq_outfile_abort(&f);
    nq_gguf_keys_free(&keys);
    return st;
}

static novaq_status write_json(job *j, const char *name, const json_t *value, novaq_error *err) {
    char *path = NULL;
    char *text = NULL;
    novaq_status st = nq_path_join(&path, j->opt->output, name, err);
    if (st == NOVAQ_OK) {
        st = nq_json_dump(&text, value, 2, err);
    }
    if (st == NOVAQ_OK) {
        st = nq_write_file(path, text, strlen(text), err);
    }
    if (st == NOVAQ_OK) {
        st = note_file(j, path, strlen(text), err);
    }
    nq_free(text);
    nq_free(path);
    return st;
}

/* The weights are streamed first and appear last: a directory that has them is
 * whole. */
static novaq_status write_directory(job *j, nq_outfile **f, const char *path, novaq_error *err) {
    json_t *metadata = json_pack("{s:s, s:s}", "format", "pt", "generator", "novaq " NOVAQ_VERSION);
    json_t *files = NULL;
    novaq_status st = nq_export_hf_files(&files, &j->plan, err);
    if (st == NOVAQ_OK) {
        st = nq_write_safetensors(*f, j->plan.out, j->plan.count, metadata, j->pool, &j->progress,
                                  err);
    }
    const char *name;
    json_t *value;
    json_object_foreach(files, name, value) {
        if (st == NOVAQ_OK) {
            st = write_json(j, name, value, err);
        }
    }
    if (st == NOVAQ_OK) {
        st = commit(j, f, path, err);
    }
    json_decref(files);
    json_decref(metadata);
    return st;
}

static novaq_status write_safetensors(job *j, novaq_error *err) {
    const char *dir = j->opt->output;
    bool existed = nq_is_dir(dir);
    char *path = NULL;
    nq_outfile *f = NULL;
    novaq_status st = nq_make_dir(dir, err);
    if (st == NOVAQ_OK) {
        st = nq_path_join(&path, dir, WEIGHTS_FILE, err);
    }
    if (st == NOVAQ_OK) {
        st = nq_outfile_open(&f, path, err);
    }
    if (st == NOVAQ_OK) {
        st = write_directory(j, &f, path, err);
    }
    nq_outfile_abort(&f);
    if (st != NOVAQ_OK && !existed) {
        (void)rmdir(dir); /* only if it is empty */
    }
    nq_free(path);
    return st;
}

/* ---- the whole ----------------------------------------------------------- */

static novaq_status make_report(char **report, const job *j, bool gguf, novaq_error *err) {
    const char *arch = json_string_value(json_object_get(j->plan.model, "architecture"));
    const char *names = !j->plan.known ? "source" : gguf ? "gguf" : "hugging face";
    json_t *o =
        json_pack("{s:s, s:s, s:s, s:s, s:I, s:I, s:O}", "format", gguf ? "gguf" : "safetensors",
                  "architecture", arch != NULL ? arch : "unknown", "names", names, "dtype",
                  nq_dtype_get(j->plan.dtype)->name, "tensors", (json_int_t)j->plan.count, "bytes",
                  (json_int_t)j->bytes, "files", j->files);
    novaq_status st =
        o != NULL ? nq_json_dump(report, o, 2, err) : nq_fail(err, NOVAQ_E_MEMORY, "out of memory");
    json_decref(o);
    return st;
}

static novaq_status export_weights(char **report, job *j, nq_weights *w, novaq_error *err) {
    bool gguf = false;
    nq_dtype dtype = NQ_F16;
    NQ_TRY(parse_request(&gguf, &dtype, j->opt, err));
    NQ_TRY(check_output(w, j->opt, gguf, err));
    NQ_TRY(nq_export_plan_make(&j->plan, w, j->opt->input, gguf ? NQ_SPELL_GGUF : NQ_SPELL_HF,
                               dtype, err));
    NQ_TRY(nq_pool_open(&j->pool, j->opt->threads, err));
    NQ_TRY(gguf ? write_gguf(j, err) : write_safetensors(j, err));
    return report != NULL ? make_report(report, j, gguf, err) : NOVAQ_OK;
}

novaq_status novaq_export(char **report, const novaq_export_options *opt, novaq_error *err) {
    bool gguf = false;
    nq_dtype dtype = NQ_F16;
    if (report != NULL) {
        *report = NULL;
    }
    NQ_TRY(parse_request(&gguf, &dtype, opt, err));
    job j = {.opt = opt,
             .progress = {.fn = opt->progress, .ctx = opt->progress_ctx},
             .files = json_array()};
    nq_weights *w = NULL;
    novaq_status st = j.files != NULL ? NOVAQ_OK : nq_fail(err, NOVAQ_E_MEMORY, "out of memory");
    if (st == NOVAQ_OK) {
        st = nq_weights_open(&w, opt->input, err);
    }
    if (st == NOVAQ_OK) {
        st = export_weights(report, &j, w, err);
    }
    nq_pool_close(&j.pool);
    nq_export_plan_free(&j.plan);
    nq_weights_close(&w);
    json_decref(j.files);
    return st;
}
