/* refine_check.c - see refine_check.h. */
#include "compress/refine_check.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "artifact/manifest.h"
#include "base/mem.h"
#include "io/fs.h"
#include "refine/checkpoint.h"

/* Samples of a source: of so many tensors, so many bytes from the middle of each. */
#define SAMPLES      64
#define SAMPLE_BYTES ((uint64_t)4096)
/* Of tokens that both models have, one of so many may be spelled differently. */
#define TOKENS_OTHER 16

/* ---- places ---------------------------------------------------------------------------- */

size_t nq_trimmed(const char *path) {
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/') {
        n--;
    }
    return n;
}

/* *dir (nq_free): what `path`, without slashes at its end, lies in. False at the top. */
static bool folder_of(char **dir, const char *path) {
    char *own = NULL;
    *dir = NULL;
    if (nq_strndup(&own, path, nq_trimmed(path), NULL) != NOVAQ_OK) {
        return false;
    }
    bool below =
        strcmp(own, "/") != 0 && strcmp(own, ".") != 0 && nq_path_dir(dir, own, NULL) == NOVAQ_OK;
    nq_free(own);
    return below;
}

static bool same_name(const char *a, const char *b) {
    size_t n = nq_trimmed(a);
    size_t m = nq_trimmed(b);
    while (n > 0 && m > 0 && a[n - 1] == b[m - 1] && a[n - 1] != '/') {
        n--;
        m--;
    }
    return (n == 0 || a[n - 1] == '/') && (m == 0 || b[m - 1] == '/');
}

/* Both are still to be made. */
static bool same_new_place(const char *a, const char *b) {
    char *x = NULL;
    char *y = NULL;
    bool same = same_name(a, b) && folder_of(&x, a) && folder_of(&y, b) && nq_same_place(x, y);
    nq_free(x);
    nq_free(y);
    return same;
}

bool nq_same_place(const char *a, const char *b) {
    struct stat x;
    struct stat y;
    bool there = stat(a, &x) == 0;
    if (there != (stat(b, &y) == 0)) {
        return false;
    }
    return there ? x.st_dev == y.st_dev && x.st_ino == y.st_ino : same_new_place(a, b);
}

static bool lies_in(const char *path, const char *folder) {
    char *at = NULL;
    bool in = false;
    bool more = folder_of(&at, path);
    while (more && !in) {
        char *up = NULL;
        in = nq_same_place(at, folder);
        more = folder_of(&up, at);
        nq_free(at);
        at = up;
    }
    nq_free(at);
    return in;
}

static novaq_status both(novaq_error *err, const char *path, const char *what) {
    return nq_fail(err, NOVAQ_E_ARG, "%s: is both %s; give another", path, what);
}

static novaq_status check_checkpoint_place(const novaq_refine_options *o, novaq_error *err) {
    if (nq_same_place(o->checkpoint, o->output)) {
        return both(err, o->checkpoint, "checkpoint and output");
    }
    if (nq_same_place(o->checkpoint, o->artifact)) {
        return both(err, o->checkpoint, "checkpoint and artifact");
    }
    if (o->teacher != NULL && nq_same_place(o->checkpoint, o->teacher)) {
        return both(err, o->checkpoint, "checkpoint and teacher");
    }
    if (o->teacher_cache != NULL && nq_same_place(o->checkpoint, o->teacher_cache)) {
        return both(err, o->checkpoint, "checkpoint and the teacher's cache");
    }
    if (lies_in(o->checkpoint, o->output) || lies_in(o->checkpoint, o->artifact)) {
        return nq_fail(err, NOVAQ_E_ARG,
                       "%s: a checkpoint has no place in an artifact's folder; give another",
                       o->checkpoint);
    }
    return NOVAQ_OK;
}

novaq_status nq_refine_check_paths(const novaq_refine_options *o, novaq_error *err) {
    if (nq_same_place(o->artifact, o->output)) {
        return nq_fail(err, NOVAQ_E_ARG, "%s: is both artifact and output; give a new output",
                       o->output);
    }
    if (o->teacher != NULL && nq_same_place(o->teacher, o->output)) {
        return both(err, o->output, "teacher and output");
    }
    if (o->teacher_cache != NULL && nq_same_place(o->teacher_cache, o->output)) {
        return nq_fail(err, NOVAQ_E_ARG, "%s: is both output and the teacher's cache", o->output);
    }
    return o->checkpoint != NULL ? check_checkpoint_place(o, err) : NOVAQ_OK;
}

/* ---- checkpoints -------------------------------------------------------------------------- */

novaq_status nq_refine_checkpoint_path(char **out, const novaq_refine_options *o,
                                       novaq_error *err) {
    NQ_TRY(o->checkpoint != NULL
               ? nq_strdup(out, o->checkpoint, err)
               : nq_asprintf(out, err, "%.*s.refine", (int)nq_trimmed(o->output), o->output));
    return nq_checkpoint_look(*out, NULL) != NQ_CHECKPOINT_ALIEN
               ? NOVAQ_OK
               : nq_fail(err, NOVAQ_E_ARG,
                         "%s: is not a checkpoint, and would be replaced; move it away or give "
                         "another name",
                         *out);
}

novaq_status nq_refine_aside(char **out, const char *checkpoint, novaq_error *err) {
    return nq_asprintf(out, err, "%s.old", checkpoint);
}

static novaq_status put_aside(const char *path, const nq_refine_maker *maker, novaq_error *err) {
    char *aside = NULL;
    char *text = NULL;
    NQ_TRY(nq_refine_aside(&aside, path, err));
    novaq_status st = nq_asprintf(&text, err,
                                  "%s: belongs to another refinement (other options, another "
                                  "source or version): it is %s now, and refining starts afresh",
                                  path, aside);
    if (st == NOVAQ_OK &&
        (nq_checkpoint_look(aside, NULL) == NQ_CHECKPOINT_ALIEN || rename(path, aside) != 0)) {
        st = nq_fail(err, NOVAQ_E_IO,
                     "%s: belongs to another refinement, and cannot be moved to %s; move it away",
                     path, aside);
    }
    if (st == NOVAQ_OK) {
        maker->note(maker->ctx, text);
    }
    nq_free(aside);
    nq_free(text);
    return st;
}

novaq_status nq_refine_check_checkpoint(const char *path, const char *identity,
                                        const nq_refine_maker *maker, novaq_error *err) {
    if (nq_checkpoint_look(path, identity) != NQ_CHECKPOINT_OTHER) {
        return NOVAQ_OK;
    }
    if (maker != NULL) {
        return put_aside(path, maker, err);
    }
    return nq_fail(err, NOVAQ_E_ARG,
                   "%s: is the checkpoint of another refinement (other options, text, artifact, "
                   "teacher or version); give the same to go on, --restart to begin afresh, or "
                   "another name",
                   path);
}

/* ---- teacher and student --------------------------------------------------------------------- */

static const json_t *tokens_of(const nq_model *m) {
    const json_t *tokenizer = json_object_get(nq_weights_model(m->weights), "tokenizer");
    return json_object_get(tokenizer, "tokens");
}

/* Of the tokens that both have. What fills vocabularies up is named in many ways, so few
 * may differ. */
static novaq_status check_tokens(json_t *warnings, const char *artifact, const json_t *a,
                                 const json_t *b, novaq_error *err) {
    size_t count =
        json_array_size(a) < json_array_size(b) ? json_array_size(a) : json_array_size(b);
    size_t other = 0;
    for (size_t i = 0; i < count; i++) {
        other += json_equal(json_array_get(a, i), json_array_get(b, i)) == 0;
    }
    if (other > count / TOKENS_OTHER) {
        return nq_fail(err, NOVAQ_E_ARG,
                       "%s: %zu of %zu tokens stand for other text than the teacher's: its "
                       "tokenizer is another; give the source the artifact was made from",
                       artifact, other, count);
    }
    if (other > 0) {
        json_array_append_new(warnings, json_sprintf("%zu of %zu tokens of the teacher stand for "
                                                     "other text than the artifact's",
                                                     other, count));
    }
    return NOVAQ_OK;
}

novaq_status nq_refine_check_pair(json_t *warnings, const char *artifact, const nq_model *student,
                                  const nq_model *teacher, double lambda, novaq_error *err) {
    const nq_hyper *a = &student->hyper;
    const nq_hyper *b = &teacher->hyper;
    if (a->vocab != b->vocab) {
        return nq_fail(err, NOVAQ_E_ARG,
                       "%s: %u tokens in its vocabulary, the teacher has %u; give the source the "
                       "artifact was made from",
                       artifact, a->vocab, b->vocab);
    }
    NQ_TRY(check_tokens(warnings, artifact, tokens_of(student), tokens_of(teacher), err));
    if (lambda > 0 && (a->dim != b->dim || a->blocks != b->blocks)) {
        return nq_fail(err, NOVAQ_E_ARG,
                       "the teacher's residual stream has another shape; lambda must be 0");
    }
    if (a->arch != b->arch || a->dim != b->dim || a->blocks != b->blocks) {
        json_array_append_new(
            warnings,
            json_sprintf("the teacher is another model (%s, %u blocks of width %u) than "
                         "the artifact was made from (%s, %u of %u)",
                         b->arch->name, b->blocks, b->dim, a->arch->name, a->blocks, a->dim));
    }
    return NOVAQ_OK;
}

/* ---- sources -----------------------------------------------------------------------------------
 */

static novaq_status add_sample(nq_blake3 *h, nq_tensors *ts, const nq_tensor_info *t,
                               novaq_error *err) {
    uint8_t bytes[SAMPLE_BYTES];
    uint64_t len = t->bytes < SAMPLE_BYTES ? t->bytes : SAMPLE_BYTES;
    NQ_TRY(nq_tensors_read(bytes, ts, t, (t->bytes - len) / 2, len, err));
    nq_blake3_update(h, bytes, (size_t)len);
    return NOVAQ_OK;
}

static novaq_status sample(nq_hash_text out, nq_tensors *ts, novaq_error *err) {
    size_t count = nq_tensors_count(ts);
    size_t samples = count < SAMPLES ? count : SAMPLES;
    json_t *more = json_integer((json_int_t)nq_tensors_file_bytes(ts));
    nq_hash_text outline = "";
    nq_blake3 h;
    novaq_status st = more != NULL ? nq_intake_outline(outline, ts, more, err)
                                   : nq_fail(err, NOVAQ_E_MEMORY, "cannot describe the teacher");
    json_decref(more);
    nq_blake3_init(&h);
    nq_blake3_update(&h, outline, sizeof outline);
    for (size_t i = 0; st == NOVAQ_OK && i < samples; i++) {
        st = add_sample(&h, ts, nq_tensors_at(ts, i * count / samples), err);
    }
    nq_blake3_finish(out, &h);
    return st;
}

novaq_status nq_refine_source_key(nq_hash_text out, nq_tensors *ts, novaq_error *err) {
    json_t *origin = NULL;
    bool sure = false; /* or else that the place is the same, which has to do */
    if (!nq_intake_is_remote(ts)) {
        return sample(out, ts, err);
    }
    NQ_TRY(nq_files_origin(&origin, nq_tensors_files(ts), err));
    novaq_status st = nq_intake_origin_key(out, &sure, origin, ts, err);
    json_decref(origin);
    return st;
}

novaq_status nq_refine_artifact_key(nq_hash_text out, const nq_artifact *a, novaq_error *err) {
    static const char *const keys[] = {"chunks", "layers", "model"};
    nq_blake3 h;
    novaq_status st = NOVAQ_OK;
    nq_blake3_init(&h);
    for (size_t i = 0; st == NOVAQ_OK && i < sizeof keys / sizeof keys[0]; i++) {
        const json_t *part = json_object_get(nq_artifact_manifest(a), keys[i]);
        char *text = NULL;
        st = part != NULL ? nq_json_dump(&text, part, 0, err) : NOVAQ_OK;
        if (text != NULL) {
            nq_blake3_update(&h, text, strlen(text) + 1);
        }
        nq_free(text);
    }
    nq_blake3_finish(out, &h);
    return st;
}

novaq_status nq_refine_hold(nq_tensors *ts, novaq_error *err) {
    uint64_t limit = nq_physical_memory() / 2;
    uint64_t bytes = nq_intake_bytes(ts);
    if (!nq_intake_is_remote(ts)) {
        return NOVAQ_OK;
    }
    if (bytes > limit) {
        return nq_fail(err, NOVAQ_E_ARG,
                       "%s: %llu bytes do not fit in memory (%llu), and a teacher is read more "
                       "than once; download it",
                       nq_tensors_path(ts), (unsigned long long)bytes, (unsigned long long)limit);
    }
    return nq_tensors_hold(ts, err);
}
