/* refine_made.c - novaq_compress() with opt->refine: compressing, then refining what was made.
 *
 * Owns: the artifact in between (OUTPUT.unrefined) and the key beside it that tells a later
 * call whether it is what that call would make. Refuses: either of the two steps.
 */
#include <string.h>
#include <unistd.h>

#include "artifact/manifest.h"
#include "base/buf.h"
#include "base/cpu.h"
#include "base/mem.h"
#include "compress/job.h"
#include "io/fs.h"
#include "model/describe.h"

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

/* Removes the files of an artifact; what is none stays, and so does what else lies in its
 * folder. */
static void remove_artifact(const char *path) {
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

/* Whether what an interrupted call left is what this one would make. */
static bool is_made(const char *made, const char *key) {
    char *path = NULL;
    char *line = NULL;
    char *found = NULL;
    size_t len = 0;
    bool same = key_line(&line, key, made, NULL) == NOVAQ_OK && line != NULL &&
                key_path(&path, made, NULL) == NOVAQ_OK &&
                nq_read_file(&found, &len, path, 4096, NULL) == NOVAQ_OK && len == strlen(line) &&
                memcmp(found, line, len) == 0;
    nq_free(found);
    nq_free(line);
    nq_free(path);
    return same;
}

/* A call that cannot tell makes it again: failing here costs no more. */
static void note_made(const char *made, const char *key) {
    char *path = NULL;
    char *line = NULL;
    if (key_line(&line, key, made, NULL) == NOVAQ_OK && line != NULL &&
        key_path(&path, made, NULL) == NOVAQ_OK &&
        nq_write_file(path, line, strlen(line), NULL) != NOVAQ_OK) {
        (void)unlink(path);
    }
    nq_free(line);
    nq_free(path);
}

/* ---- refining it ------------------------------------------------------------------------ */

static novaq_status refine_made(char **report, const novaq_compress_options *opt, const char *made,
                                novaq_error *err) {
    novaq_refine_options o = NOVAQ_REFINE_OPTIONS_INIT;
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
    json_t *record = NULL;
    NQ_TRY(novaq_refine(&whole, &o, err));
    novaq_status st = nq_json_parse_object(&record, "report", whole, strlen(whole), err);
    if (st == NOVAQ_OK && report != NULL) {
        json_t *summary = json_object_get(record, "summary");
        json_object_set(summary, "refinement", record);
        json_incref(summary);
        json_object_del(record, "summary");
        json_object_set(summary, "warnings", json_object_get(record, "warnings"));
        json_object_del(record, "warnings");
        st = nq_json_dump(report, summary, 0, err);
        json_decref(summary);
    }
    json_decref(record);
    nq_free(whole);
    return st;
}

/* What refinement adds to the artifact at most: codebooks of the usual schemes for each
 * 64 columns of a matrix, and their alignment. */
#define GROUP_COLS  64
#define GROUP_BYTES 98U
#define MATRIX_PAD  128U

/* *bytes, and the weights of those matrices. */
static novaq_status growth(uint64_t *bytes, uint64_t *weights, const novaq_compress_options *opt,
                           novaq_error *err) {
    nq_tensors *ts = NULL;
    *bytes = *weights = 0;
    NQ_TRY(nq_model_tensors_open(&ts, opt->input, err));
    for (size_t i = 0; i < nq_tensors_count(ts); i++) {
        const nq_tensor_info *t = nq_tensors_at(ts, i);
        nq_role role = nq_tensor_role(t->name, t->rank);
        bool kept = opt->keep_embedding && (role == NQ_ROLE_EMBEDDING || role == NQ_ROLE_HEAD);
        if (t->rank < 2 || kept) {
            continue;
        }
        uint64_t rows = 0;
        uint64_t cols = 0;
        nq_matrix_view(&rows, &cols, t->rank, t->shape);
        *bytes += (cols + GROUP_COLS - 1) / GROUP_COLS * GROUP_BYTES + MATRIX_PAD;
        *weights += t->elements;
    }
    nq_tensors_close(&ts);
    return NOVAQ_OK;
}

/* Leaves room in the budget for what refinement adds. */
static novaq_status make_room(novaq_compress_options *first, novaq_error *err) {
    uint64_t bytes = 0;
    uint64_t weights = 0;
    if (first->scheme != NULL || first->paper != 0) {
        return NOVAQ_OK;
    }
    NQ_TRY(growth(&bytes, &weights, first, err));
    if (first->target_size > bytes) {
        first->target_size -= bytes;
    } else if (first->target_size == 0 && weights > 0) {
        double bits = 8.0 * (double)bytes / (double)weights;
        double left = first->target_bits - bits;
        first->target_bits = left > 0.9 * first->target_bits ? left : first->target_bits;
    }
    return NOVAQ_OK;
}

/* Made, or still there from an interrupted call. */
static novaq_status make(const char *made, const novaq_compress_options *opt, novaq_error *err) {
    novaq_compress_options first = *opt;
    nq_hash_text key;
    first.output = made;
    first.refine = 0;
    NQ_TRY(key_of(key, &first, err));
    if (opt->restart == 0 && is_made(made, key)) {
        return NOVAQ_OK;
    }
    NQ_TRY(make_room(&first, err));
    NQ_TRY(novaq_compress(NULL, &first, err));
    note_made(made, key);
    return NOVAQ_OK;
}

/* Symbols first, in an artifact beside the output, which a run that was interrupted in
 * its refinement leaves for the next. */
novaq_status nq_compress_refined(char **report, const novaq_compress_options *opt,
                                 novaq_error *err) {
    char *made = NULL;
    size_t len = strlen(opt->output);
    while (len > 1 && opt->output[len - 1] == '/') {
        len--;
    }
    NQ_TRY(nq_asprintf(&made, err, "%.*s.unrefined", (int)len, opt->output));
    novaq_status st = make(made, opt, err);
    if (st == NOVAQ_OK) {
        st = refine_made(report, opt, made, err);
    }
    if (st == NOVAQ_OK) {
        remove_artifact(made);
    }
    nq_free(made);
    return st;
}
