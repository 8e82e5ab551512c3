/* refine_made.c - novaq_compress() with opt->refine: compressing, then refining what was made.
 *
 * Owns: the artifact in between (OUTPUT.unrefined) and the key beside it that tells a later
 * call whether it is what that call would make; the report of both. Refuses: either of the
 * two steps.
 */
#include "compress/refine_made.h"

#include <string.h>
#include <unistd.h>

#include "artifact/manifest.h"
#include "base/buf.h"
#include "base/cpu.h"
#include "base/mem.h"
#include "compress/job.h"
#include "compress/refine_check.h"
#include "io/fs.h"
#include "model/describe.h"
#include "refine/checkpoint.h"

#define KEY_MAX ((size_t)64 << 20)

/* ---- the artifact in between ------------------------------------------------------------ */

static novaq_status key_path(char **out, const char *made, novaq_error *err) {
    return nq_asprintf(out, err, "%s.key", made);
}

static void remove_in(const char *dir, const char *name) {
    char *file = NULL;
    if (name != NULL && nq_path_join(&file, dir, name, NULL) == NOVAQ_OK) {
        (void)unlink(file);
    }
    nq_free(file);
}

void nq_remove_artifact(const char *path) {
    nq_artifact *a = NULL;
    char *beside = NULL;
    if (nq_artifact_open(&a, path, NULL) != NOVAQ_OK) {
        return;
    }
    if (nq_is_dir(path)) {
        const json_t *chunks = json_object_get(nq_artifact_manifest(a), "chunks");
        remove_in(path, "manifest.json");
        for (size_t i = 0; i < json_array_size(chunks); i++) {
            const json_t *chunk = json_array_get(chunks, i);
            remove_in(path, json_string_value(json_object_get(chunk, "file")));
        }
        (void)rmdir(path);
    } else {
        (void)unlink(path);
    }
    nq_artifact_close(&a);
    if (nq_origin_path(&beside, path, NULL) == NOVAQ_OK && beside != NULL) {
        (void)unlink(beside);
    }
    nq_free(beside);
    if (key_path(&beside, path, NULL) == NOVAQ_OK) {
        (void)unlink(beside);
        nq_free(beside);
    }
}

/* ---- its key ------------------------------------------------------------------------------ */

static novaq_status put_text(nq_buf *b, const char *text, novaq_error *err) {
    return nq_buf_printf(b, err, "%s\n", text != NULL ? text : "");
}

/* Options that decide bytes. */
static novaq_status put_options(nq_buf *b, const novaq_compress_options *o, novaq_error *err) {
    NQ_TRY(nq_buf_printf(b, err, "%d %a %d %u %u %u %u %u %u %a %llu %a %u %d %llu\n",
                         o->single_file, o->target_bits, o->paper, o->level1_centroids,
                         o->level2_centroids, o->max_subspace_dim, o->min_subspace_dim,
                         o->subspaces, o->max_iterations, o->tolerance, (unsigned long long)o->seed,
                         o->outlier_percentile, o->segment_rows, o->keep_embedding,
                         (unsigned long long)o->target_size));
    NQ_TRY(nq_buf_printf(b, err, "%u %d %d %u %a %a %d %u %u %llu\n", o->calibration_tokens,
                         o->feedback, o->propagate, o->sweeps, o->damping, o->column_scales,
                         o->row_means, o->rotation_block, o->refine_blocks,
                         (unsigned long long)o->max_memory));
    NQ_TRY(put_text(b, o->normalize, err));
    NQ_TRY(put_text(b, o->scheme, err));
    NQ_TRY(put_text(b, o->column_order, err));
    NQ_TRY(put_text(b, o->calibration, err));
    for (size_t i = 0; i < o->tensor_type_count; i++) {
        NQ_TRY(put_text(b, o->tensor_types[i], err));
    }
    return NOVAQ_OK;
}

/* The text that is calibrated on, wherever it lies. */
static novaq_status put_calibration(nq_buf *b, const novaq_compress_options *o, novaq_error *err) {
    char hex[NQ_BLAKE3_HEX + 1];
    NQ_TRY(nq_calibration_hash(hex, o->calibration, err));
    return put_text(b, hex, err);
}

/* *sure: false where nothing tells whether the source is the same without reading it. */
static novaq_status put_source(bool *sure, nq_buf *b, const char *input, novaq_error *err) {
    nq_tensors *ts = NULL;
    json_t *origin = NULL;
    nq_hash_text outline = "";
    nq_hash_text key = "";
    NQ_TRY(nq_model_tensors_open(&ts, input, err));
    novaq_status st = nq_files_origin(&origin, nq_tensors_files(ts), err);
    if (st == NOVAQ_OK) {
        st = nq_intake_origin_key(key, sure, origin, ts, err);
    }
    if (st == NOVAQ_OK) {
        st = nq_intake_outline(outline, ts, origin, err);
    }
    json_decref(origin);
    nq_tensors_close(&ts);
    return st == NOVAQ_OK ? nq_buf_printf(b, err, "%s %s\n", key, outline) : st;
}

/* key: of what this call makes, "" where it cannot be told. */
static novaq_status key_of(nq_hash_text key, const novaq_compress_options *o, novaq_error *err) {
    bool sure = false;
    nq_buf b = nq_buf_init(KEY_MAX);
    key[0] = '\0';
    novaq_status st = nq_buf_printf(&b, err, "novaq/%s %x\n", NOVAQ_VERSION, nq_cpu_features());
    if (st == NOVAQ_OK) {
        st = put_options(&b, o, err);
    }
    if (st == NOVAQ_OK) {
        st = put_calibration(&b, o, err);
    }
    if (st == NOVAQ_OK) {
        st = put_source(&sure, &b, o->input, err);
    }
    if (st == NOVAQ_OK && sure) {
        nq_blake3_of(key, b.data, b.len);
    }
    nq_buf_free(&b);
    return st;
}

/* *line (nq_free): what the key file says of the artifact at `made`, NULL where there is
 * none that is complete. */
static novaq_status key_line(char **line, const char *key, const char *made, novaq_error *err) {
    nq_artifact *a = NULL;
    const char *digest = NULL;
    *line = NULL;
    if (key[0] == '\0' || nq_artifact_open(&a, made, NULL) != NOVAQ_OK) {
        return NOVAQ_OK;
    }
    novaq_status st =
        nq_json_get_string(&digest, nq_artifact_manifest(a), "manifest_sha256", made, err);
    if (st == NOVAQ_OK) {
        st = nq_asprintf(line, err, "%s %s\n", key, digest);
    }
    nq_artifact_close(&a);
    return st;
}

/* Whether what an interrupted call left is what this one would make; *report (nq_free): of
 * that call. */
static bool is_made(char **report, const char *made, const char *key) {
    char *path = NULL;
    char *line = NULL;
    char *found = NULL;
    size_t len = 0;
    bool same = key_line(&line, key, made, NULL) == NOVAQ_OK && line != NULL &&
                key_path(&path, made, NULL) == NOVAQ_OK &&
                nq_read_file(&found, &len, path, KEY_MAX, NULL) == NOVAQ_OK &&
                strncmp(found, line, strlen(line)) == 0;
    same = same && nq_strdup(report, found + strlen(line), NULL) == NOVAQ_OK;
    nq_free(found);
    nq_free(line);
    nq_free(path);
    return same;
}

/* With the report, for the end. A call that cannot tell makes it again: failing here costs
 * no more. */
static void note_made(const char *made, const char *key, const char *report) {
    char *path = NULL;
    char *line = NULL;
    nq_buf b = nq_buf_init(KEY_MAX);
    if (key_line(&line, key, made, NULL) == NOVAQ_OK && line != NULL &&
        key_path(&path, made, NULL) == NOVAQ_OK &&
        (nq_buf_puts(&b, line, NULL) != NOVAQ_OK || nq_buf_puts(&b, report, NULL) != NOVAQ_OK ||
         nq_write_file(path, b.data, b.len, NULL) != NOVAQ_OK)) {
        (void)unlink(path);
    }
    nq_buf_free(&b);
    nq_free(line);
    nq_free(path);
}

/* ---- the report ------------------------------------------------------------------------- */

/* Of all tensors that are coded, as stored. */
static double coded_bits(const char *path) {
    nq_artifact *a = NULL;
    double bytes = 0;
    double elements = 0;
    if (nq_artifact_open(&a, path, NULL) != NOVAQ_OK) {
        return 0;
    }
    for (size_t i = 0; i < nq_artifact_count(a); i++) {
        const nq_layer *l = nq_artifact_at(a, i);
        bool coded = l->scheme.kind == NQ_SCHEME_CODE || l->scheme.kind == NQ_SCHEME_Q8;
        bytes += coded ? (double)l->stored_bytes : 0;
        elements += coded ? (double)l->elements : 0;
    }
    nq_artifact_close(&a);
    return elements > 0 ? 8 * bytes / elements : 0;
}

/* Figures are those of what was written, warnings those of both steps. `refined` ends as
 * the summary's member "refinement". */
static void merge(json_t *summary, json_t *refined, const json_t *first, const char *output) {
    static const char *const kept[] = {"received_bytes", "verified_files", "resumed", "left_out"};
    json_t *warnings = json_array();
    json_array_extend(warnings, json_object_get(first, "warnings"));
    json_array_extend(warnings, json_object_get(refined, "warnings"));
    for (size_t i = 0; i < sizeof kept / sizeof kept[0]; i++) {
        json_t *value = json_object_get(first, kept[i]);
        if (value != NULL) {
            json_object_set(summary, kept[i], value);
        }
    }
    json_object_set_new(summary, "output", json_string(output));
    json_object_set(summary, "bytes", json_object_get(summary, "total_bytes"));
    json_object_set(summary, "parameters", json_object_get(summary, "total_parameters"));
    json_object_set_new(summary, "bits_per_weight_quantized", json_real(coded_bits(output)));
    json_object_set_new(summary, "warnings", warnings);
    json_object_del(refined, "warnings");
    json_object_set(summary, "refinement", refined);
}

/* whole: of the refinement; first: of the compression, or NULL. */
static novaq_status write_report(char **report, const char *whole, const char *first,
                                 const json_t *notes, const char *output, novaq_error *err) {
    json_t *refined = NULL;
    json_t *before = NULL;
    novaq_status st = nq_json_parse_object(&refined, "report", whole, strlen(whole), err);
    if (st == NOVAQ_OK && first != NULL) {
        st = nq_json_parse_object(&before, "report", first, strlen(first), err);
    }
    if (st == NOVAQ_OK) {
        json_t *summary = json_incref(json_object_get(refined, "summary"));
        json_array_extend(json_object_get(refined, "warnings"), (json_t *)(uintptr_t)notes);
        json_object_del(refined, "summary");
        merge(summary, refined, before, output);
        st = nq_json_dump(report, summary, 0, err);
        json_decref(summary);
    }
    json_decref(refined);
    json_decref(before);
    return st;
}

/* ---- refining it ------------------------------------------------------------------------ */

typedef struct telling {
    const novaq_compress_options *opt;
    json_t *notes; /* array */
} telling;

static void on_note(void *ctx, const char *text) {
    telling *t = ctx;
    json_array_append_new(t->notes, json_string(text));
    if (t->opt->note != NULL) {
        t->opt->note(t->opt->note_ctx, text);
    }
}

/* What was put aside when this began is of no use any more. */
static void forget_aside(const char *output) {
    char *checkpoint = NULL;
    char *aside = NULL;
    if (nq_asprintf(&checkpoint, NULL, "%.*s.refine", (int)nq_trimmed(output), output) ==
            NOVAQ_OK &&
        nq_refine_aside(&aside, checkpoint, NULL) == NOVAQ_OK) {
        nq_checkpoint_remove(aside);
    }
    nq_free(checkpoint);
    nq_free(aside);
}

static novaq_status refine(char **report, const novaq_compress_options *opt, const char *made,
                           const char *first, novaq_error *err) {
    novaq_refine_options o = NOVAQ_REFINE_OPTIONS_INIT;
    telling t = {.opt = opt, .notes = json_array()};
    nq_refine_maker maker = {.note = on_note, .ctx = &t};
    bool text = opt->calibration != NULL && strcmp(opt->calibration, "none") != 0 &&
                strcmp(opt->calibration, "auto") != 0;
    o.artifact = made;
    o.teacher = opt->input;
    o.output = opt->output;
    o.single_file = opt->single_file;
    o.steps = opt->refine_steps;
    o.calibration = text ? opt->calibration : "self";
    o.calibration_tokens = opt->calibration_tokens;
    o.seed = opt->seed;
    o.restart = opt->restart;
    o.threads = opt->threads;
    o.progress = opt->progress;
    o.progress_ctx = opt->progress_ctx;
    o.step = opt->refine_step;
    o.step_ctx = opt->refine_step_ctx;
    char *whole = NULL;
    novaq_status st = nq_refine_for(&whole, &o, &maker, err);
    if (st == NOVAQ_OK && report != NULL) {
        st = write_report(report, whole, first, t.notes, opt->output, err);
    }
    if (st == NOVAQ_OK) {
        forget_aside(opt->output);
    }
    json_decref(t.notes);
    nq_free(whole);
    return st;
}

novaq_status nq_refine_made(char **report, const novaq_compress_options *opt, const char *made,
                            novaq_error *err) {
    return refine(report, opt, made, NULL, err);
}

static novaq_status compress(char **report, const char *made, const novaq_compress_options *opt,
                             novaq_error *err) {
    novaq_compress_options first = *opt;
    first.output = made;
    return nq_compress_plain(report, &first, err);
}

novaq_status nq_compress_unrefined(const char *made, const novaq_compress_options *opt,
                                   novaq_error *err) {
    return compress(NULL, made, opt, err);
}

/* Made, or still there from an interrupted call. */
static novaq_status make(char **report, const char *made, const novaq_compress_options *opt,
                         novaq_error *err) {
    nq_hash_text key;
    NQ_TRY(key_of(key, opt, err));
    if (opt->restart == 0 && is_made(report, made, key)) {
        return NOVAQ_OK;
    }
    NQ_TRY(compress(report, made, opt, err));
    note_made(made, key, *report);
    return NOVAQ_OK;
}

/* Symbols first, in an artifact beside the output, which a run that was interrupted in
 * its refinement leaves for the next. */
novaq_status nq_compress_refined(char **report, const novaq_compress_options *opt,
                                 novaq_error *err) {
    char *made = NULL;
    char *first = NULL;
    NQ_TRY(nq_asprintf(&made, err, "%.*s.unrefined", (int)nq_trimmed(opt->output), opt->output));
    novaq_status st = make(&first, made, opt, err);
    if (st == NOVAQ_OK) {
        st = refine(report, opt, made, first, err);
    }
    if (st == NOVAQ_OK) {
        nq_remove_artifact(made);
    }
    nq_free(first);
    nq_free(made);
    return st;
}
