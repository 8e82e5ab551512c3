/* journaled.c - see job.h: what an interrupted run leaves to the next one besides
 * finished tensors, and deciding whether it counts. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cpu.h"
#include "base/mem.h"
#include "compress/job.h"
#include "compress/sensitivity.h"
#include "io/fs.h"

#define LAYER_JSON 2048 /* bytes a layer takes in the manifest, about */

/* ---- keys ------------------------------------------------------------------------------- */

/* All that decides bytes: the options, the text that is calibrated on, and with
 * calibration the kind of CPU. */
static novaq_status recipe_key(nq_hash_text out, const nq_recipe *r, const json_t *config,
                               novaq_error *err) {
    char *text = NULL;
    const char *cpu = nq_recipe_calibrated(r) ? nq_cpu_level_name(nq_cpu_features()) : "";
    json_t *o = json_pack("{s:O, s:s}", "config", config, "cpu", cpu);
    novaq_status st = o != NULL ? nq_json_dump(&text, o, 0, err)
                                : nq_fail(err, NOVAQ_E_MEMORY, "cannot build a key");
    if (st == NOVAQ_OK) {
        nq_blake3_of(out, text, strlen(text));
    }
    nq_free(text);
    json_decref(o);
    return st;
}

/* ---- opening the writer ------------------------------------------------------------------ */

/* Not only in the report: hours of work may be done anew. */
static novaq_status announce(nq_compress_job *j, nq_resumption how, novaq_error *err) {
    const novaq_compress_options *o = j->recipe.opt;
    const char *what = NULL;
    switch (how) {
    case NQ_RESUME_OTHER:
        what = "what an interrupted run left there belongs to other options, another source or "
               "another version: started afresh";
        break;
    case NQ_RESUME_DOUBTFUL:
        what = nq_recipe_calibrated(&j->recipe)
                   ? "the source may have changed since a run was interrupted: started afresh"
                   : "the source may have changed since a run was interrupted: its tensors are "
                     "read and compared";
        break;
    case NQ_RESUME_NONE:
    case NQ_RESUME_SAME: return NOVAQ_OK;
    }
    const json_t *told = j->recipe.warnings;
    NQ_TRY(nq_recipe_warn(&j->recipe, err, "%s: %s", o->output, what));
    if (o->note != NULL) {
        o->note(o->note_ctx, json_string_value(json_array_get(told, json_array_size(told) - 1)));
    }
    return NOVAQ_OK;
}

/* Room for `data` bytes of layers, of which `there` are on the disk already. */
static novaq_status check_room(const nq_compress_job *j, uint64_t data, uint64_t there,
                               novaq_error *err) {
    const novaq_compress_options *o = j->recipe.opt;
    uint64_t need = data + j->recipe.count * LAYER_JSON;
    need *= o->single_file ? 2 : 1; /* the data wait beside the file until its header is known */
    uint64_t left = nq_space_left(o->output);
    need -= there < need ? there : need;
    if (need > left) {
        return nq_fail(
            err, NOVAQ_E_NOSPACE,
            "%s: about %llu bytes are to be written, its file system has %llu left; make "
            "room or choose another output",
            o->output, (unsigned long long)need, (unsigned long long)left);
    }
    return NOVAQ_OK;
}

/* Enough for all that is yet to be written, before any of it is. */
static novaq_status check_space(const nq_compress_job *j, novaq_error *err) {
    uint64_t data = 0;
    for (size_t i = 0; i < j->recipe.count; i++) {
        data += j->recipe.tensors[i].bytes;
    }
    return check_room(j, data, nq_writer_recallable(j->writer), err);
}

static uint64_t file_bytes(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && st.st_size > 0 ? (uint64_t)st.st_size : 0;
}

/* Bytes that lie where the artifact goes: a part of it may be done. */
static novaq_status bytes_there(uint64_t *bytes, const novaq_compress_options *o,
                                novaq_error *err) {
    char *path = NULL;
    char **names = NULL;
    size_t count = 0;
    *bytes = 0;
    if (o->single_file) {
        const char *name = nq_path_base(o->output);
        NQ_TRY(nq_asprintf(&path, err, "%.*s..%s.data.partial", (int)(name - o->output), o->output,
                           name));
        *bytes = file_bytes(path);
        nq_free(path);
        return NOVAQ_OK;
    }
    novaq_status st = nq_is_dir(o->output) ? nq_list_dir(&names, &count, o->output, err) : NOVAQ_OK;
    for (size_t i = 0; st == NOVAQ_OK && i < count; i++) {
        st = nq_path_join(&path, o->output, names[i], err);
        *bytes += st == NOVAQ_OK ? file_bytes(path) : 0;
        nq_free(path);
    }
    nq_free_names(names, count);
    return st;
}

novaq_status nq_job_check_target(const nq_compress_job *j, novaq_error *err) {
    const novaq_compress_options *o = j->recipe.opt;
    uint64_t data = 0;
    uint64_t there = 0;
    NQ_TRY(nq_writer_probe(o->output, o->single_file, err));
    NQ_TRY(nq_recipe_foresee(&data, &j->recipe, err));
    NQ_TRY(bytes_there(&there, o, err));
    return check_room(j, data, there, err);
}

novaq_status nq_job_open_writer(nq_compress_job *j, const json_t *config, novaq_error *err) {
    const novaq_compress_options *o = j->recipe.opt;
    nq_hash_text recipe;
    nq_hash_text tensors;
    nq_hash_text origin_key;
    nq_resumption how;
    json_t *origin = NULL;
    NQ_TRY(recipe_key(recipe, &j->recipe, config, err));
    NQ_TRY(nq_intake_outline(tensors, j->ts, j->model, err));
    NQ_TRY(nq_files_origin(&origin, nq_tensors_files(j->ts), err));
    bool sure = false;
    novaq_status st = nq_intake_origin_key(origin_key, &sure, origin, j->ts, err);
    json_decref(origin);
    NQ_TRY(st);
    nq_writer_key key = {.recipe = recipe, .tensors = tensors, .origin = origin_key};
    NQ_TRY(nq_writer_open_resumable(&j->writer, &how, o->output, o->single_file, &key,
                                    o->restart != 0, err));
    how = how == NQ_RESUME_SAME && !sure ? NQ_RESUME_DOUBTFUL : how;
    NQ_TRY(announce(j, how, err));
    /* What was made with calibration depends on every tensor before it: none can be
     * taken over. */
    j->doubtful = how == NQ_RESUME_DOUBTFUL;
    if (j->doubtful && nq_recipe_calibrated(&j->recipe)) {
        j->doubtful = false;
        NQ_TRY(nq_writer_forget(j->writer, err));
    }
    return check_space(j, err);
}

/* ---- notes -------------------------------------------------------------------------------- */

static json_t *tokens_json(const nq_calibration *c) {
    json_t *list = json_array();
    uint64_t n = (uint64_t)c->sequences * c->length;
    for (uint64_t i = 0; i < n; i++) {
        if (json_array_append_new(list, json_integer(c->tokens[i])) != 0) {
            json_decref(list);
            return NULL;
        }
    }
    return list;
}

static novaq_status note_calibration(nq_compress_job *j, const char *why, novaq_error *err) {
    const nq_calibration *c = &j->calibration;
    json_t *value =
        json_pack("{s:s?, s:I, s:I, s:o}", "why", why, "sequences", (json_int_t)c->sequences,
                  "length", (json_int_t)c->length, "tokens", tokens_json(c));
    novaq_status st = value != NULL ? nq_writer_note(j->writer, "calibration", value, err)
                                    : nq_fail(err, NOVAQ_E_MEMORY, "cannot build a note");
    json_decref(value);
    return st;
}

/* *found false: there is no such note, or none that makes sense. */
static novaq_status recall_calibration(bool *found, char **why, nq_compress_job *j,
                                       novaq_error *err) {
    const json_t *value = nq_writer_noted(j->writer, "calibration");
    const json_t *tokens = json_object_get(value, "tokens");
    const char *reason = json_string_value(json_object_get(value, "why"));
    json_int_t sequences = json_integer_value(json_object_get(value, "sequences"));
    json_int_t length = json_integer_value(json_object_get(value, "length"));
    nq_calibration *c = &j->calibration;
    size_t n = json_array_size(tokens);
    *found = false;
    if (value == NULL || sequences < 0 || length < 0 || n > NQ_CALIBRATION_TOKENS_MAX * 2UL ||
        (size_t)sequences > n || (sequences > 0 && n / (size_t)sequences != (size_t)length) ||
        n != (size_t)(sequences * length)) {
        return NOVAQ_OK;
    }
    NQ_TRY(nq_alloc(&c->tokens, n, sizeof *c->tokens, err));
    for (size_t i = 0; i < n; i++) {
        c->tokens[i] = (int32_t)json_integer_value(json_array_get(tokens, i));
    }
    c->sequences = (uint32_t)sequences;
    c->length = (uint32_t)length;
    *found = true;
    return reason != NULL ? nq_strdup(why, reason, err) : NOVAQ_OK;
}

/* Sampling goes over the weights again and again: what comes over a network is kept in
 * memory for it, where it fits. *why (nq_free): it does not, and need not. */
static novaq_status hold_source(char **why, nq_compress_job *j, novaq_error *err) {
    const novaq_compress_options *o = j->recipe.opt;
    uint64_t limit = o->max_memory > 0 ? o->max_memory : nq_physical_memory() / 2;
    uint64_t bytes = nq_intake_bytes(j->ts);
    bool automatic = strcmp(o->calibration, "auto") == 0;
    bool self = automatic || strcmp(o->calibration, "self") == 0;
    if (j->held) { /* for its statistics */
        return NOVAQ_OK;
    }
    if (bytes <= limit) {
        j->held = true;
        return nq_recipe_hold(&j->recipe, err);
    }
    if (automatic) {
        return nq_strdup(why, "the model does not fit in memory; --calibration FILE streams it",
                         err);
    }
    return self ? nq_fail(err, NOVAQ_E_ARG,
                          "%s: %llu bytes do not fit in memory (%llu), which sampling needs; give "
                          "--calibration FILE, or download the model",
                          o->input, (unsigned long long)bytes, (unsigned long long)limit)
                : NOVAQ_OK;
}

static bool may_run(const nq_compress_job *j) {
    const char *mode = j->recipe.opt->calibration;
    bool large = strcmp(mode, "auto") == 0 && nq_calibration_is_large(j->ts);
    return !large && json_object_get(j->model, "unsupported") == NULL;
}

static novaq_status find_calibration(char **why, nq_compress_job *j, novaq_error *err) {
    const novaq_compress_options *o = j->recipe.opt;
    bool found = false;
    if (!nq_recipe_calibrated(&j->recipe)) {
        return NOVAQ_OK;
    }
    if (j->writer != NULL) {
        NQ_TRY(recall_calibration(&found, why, j, err));
    }
    bool wanted = !found || j->calibration.sequences > 0;
    if (wanted && nq_intake_is_remote(j->ts) && may_run(j)) {
        NQ_TRY(hold_source(why, j, err));
    }
    if (!found && *why == NULL) {
        NQ_TRY(nq_calibration_open(&j->calibration, why, o->input, j->ts, o->calibration,
                                   o->calibration_tokens, o->seed, j->pool, o->progress,
                                   o->progress_ctx, err));
    }
    return found || j->writer == NULL ? NOVAQ_OK : note_calibration(j, *why, err);
}

novaq_status nq_job_calibration(nq_compress_job *j, novaq_error *err) {
    const novaq_compress_options *o = j->recipe.opt;
    char *why = NULL;
    novaq_status st = find_calibration(&why, j, err);
    if (st == NOVAQ_OK && why != NULL) {
        st = nq_recipe_warn(&j->recipe, err, "compressed without knowledge of its inputs: %s", why);
    }
    nq_free(why);
    NQ_TRY(st);
    uint64_t got = (uint64_t)j->calibration.sequences * j->calibration.length;
    if (got > 0 && got < o->calibration_tokens) {
        return nq_recipe_warn(&j->recipe, err, "%s: holds %llu of the %u tokens asked for",
                              o->calibration, (unsigned long long)got, o->calibration_tokens);
    }
    return NOVAQ_OK;
}

/* Exact, where JSON numbers are written with nine digits. */
static novaq_status note_sensitivities(nq_compress_job *j, const nq_sensitivity *s,
                                       novaq_error *err) {
    json_t *list = json_array();
    int failed = list == NULL;
    for (size_t i = 0; i < j->recipe.count; i++) {
        json_t *v = s[i].known ? json_sprintf("%a", s[i].weight) : json_null();
        failed |= json_array_append_new(list, v);
    }
    novaq_status st = failed == 0 ? nq_writer_note(j->writer, "sensitivities", list, err)
                                  : nq_fail(err, NOVAQ_E_MEMORY, "cannot build a note");
    json_decref(list);
    return st;
}

static bool recall_sensitivities(nq_sensitivity *s, const nq_compress_job *j) {
    const json_t *list = nq_writer_noted(j->writer, "sensitivities");
    if (json_array_size(list) != j->recipe.count) {
        return false;
    }
    for (size_t i = 0; i < j->recipe.count; i++) {
        const char *text = json_string_value(json_array_get(list, i));
        char *end = NULL;
        s[i].weight = text != NULL ? strtod(text, &end) : 0;
        s[i].known = text != NULL && end != text && *end == '\0';
    }
    return true;
}

novaq_status nq_job_sensitivities(nq_sensitivity *s, nq_compress_job *j, novaq_error *err) {
    if (j->writer != NULL && recall_sensitivities(s, j)) {
        return NOVAQ_OK;
    }
    NQ_TRY(nq_sensitivity_measure(s, j, err));
    return j->writer != NULL ? note_sensitivities(j, s, err) : NOVAQ_OK;
}

/* ---- giving up ---------------------------------------------------------------------------- */

bool nq_job_may_go_on(novaq_status st) {
    return st == NOVAQ_E_INTERRUPTED || st == NOVAQ_E_NETWORK || st == NOVAQ_E_NOSPACE ||
           st == NOVAQ_E_IO || st == NOVAQ_E_MEMORY;
}

novaq_status nq_job_give_up(nq_compress_job *j, novaq_status st, novaq_error *err) {
    /* A source that changed while it was read: what was finished is compared with it by
     * the next run. */
    bool changed = st == NOVAQ_E_VERIFY && !j->refuted;
    if (!nq_job_may_go_on(st) && !changed) {
        nq_writer_abort(&j->writer);
        return st;
    }
    if (nq_writer_leave(&j->writer) && err != NULL) {
        static const char hint[] = "; the same command continues from here";
        size_t used = strlen(err->msg);
        size_t most = sizeof err->msg - sizeof hint;
        (void)snprintf(err->msg + (used < most ? used : most), sizeof hint, "%s", hint);
    }
    return st;
}
