/* refine_run.c - novaq_refine(): from an artifact, its source and a text to a refined
 * artifact.
 *
 * Owns: opening both models, choosing windows of the text, the identity of a run, what
 * is told of it, removing the checkpoint when all is done. Refuses: learning
 * (refine/refine.h) and writing (refine/save.h).
 */
#include <math.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/cpu.h"
#include "base/mem.h"
#include "compress/job.h"
#include "compress/refine_check.h"
#include "compress/refine_rounds.h"
#include "compress/refine_teacher.h"
#include "io/fs.h"
#include "model/describe.h"
#include "model/tokenizer.h"
#include "refine/checkpoint.h"
#include "refine/refine.h"
#include "refine/save.h"

#define TEXT_MAX      ((size_t)1 << 30)
#define STEPS         300
#define STEPS_MAX     1000000U
#define PATIENCE      4
#define SELF_TOKENS   65536U /* sampled, at most */
#define SELF_LENGTH   256U   /* of sampled sequences */
#define RATE_MAX      1.0
#define WINDOWS_LEAST 2U
#define SHORTEST      8U /* sequence, in tokens */
#define ROUNDS_MAX    16U

typedef struct refinement {
    const novaq_refine_options *opt;
    const nq_refine_maker *maker; /* of the artifact, or NULL */
    const nq_round *round;        /* the one at work, of several; NULL: there is one */
    json_t *warnings;             /* array, for the report */
    nq_pool *pool;
    nq_tensors *source; /* that the teacher reads; NULL where it is an artifact */
    bool held;          /* all of it was brought into memory, where it is remote */
    char *locator;      /* of the teacher */
    nq_model *student, *teacher;
    nq_net *student_net, *teacher_net;
    nq_predictions *predictions; /* instead of the teacher's net; NULL: there is one */
    json_t *predictions_record;  /* what the report says of them */
    nq_calibration text;
    nq_refine_options run;
    nq_refine_data data;
    nq_refine_result result;
    char *checkpoint;
    uint64_t memory; /* bytes beside the models, at most */
    double began;    /* seconds */
} refinement;

/* ---- options -------------------------------------------------------------------------- */

static novaq_status check_numbers(const novaq_refine_options *o, novaq_error *err) {
    if (o->steps > STEPS_MAX || o->sequence < SHORTEST || o->sequence > 65536 || o->batch < 1 ||
        o->batch > 4096) {
        return nq_fail(err, NOVAQ_E_ARG,
                       "%u steps of %u sequences of %u tokens: at most %u steps, 1 to 4096 "
                       "sequences of 8 to 65536 tokens",
                       o->steps, o->batch, o->sequence, STEPS_MAX);
    }
    if (o->rounds > ROUNDS_MAX || (o->steps > 0 && o->rounds > o->steps)) {
        return nq_fail(err, NOVAQ_E_ARG, "%u rounds: at most %u, and a step for each", o->rounds,
                       ROUNDS_MAX);
    }
    if (o->rounds > 1 && o->teacher_cache != NULL) {
        return nq_fail(err, NOVAQ_E_ARG,
                       "several rounds compare symbols with the teacher itself; give no cache");
    }
    bool rates =
        o->rate > 0 && o->rate <= RATE_MAX && o->scale_rate <= RATE_MAX && o->gain_rate <= RATE_MAX;
    if (!rates) {
        return nq_fail(err, NOVAQ_E_ARG, "rates of learning must be above 0 and at most 1");
    }
    if (!(o->lambda >= 0 && o->lambda <= 1e6) || !(o->temperature > 0 && o->temperature <= 100)) {
        return nq_fail(err, NOVAQ_E_ARG,
                       "lambda must be 0 or more, temperature above 0 and at most 100");
    }
    return NOVAQ_OK;
}

static novaq_status check_options(const novaq_refine_options *o, novaq_error *err) {
    if (o == NULL || o->struct_size < sizeof *o || o->artifact == NULL || o->output == NULL) {
        return nq_fail(err, NOVAQ_E_ARG,
                       "novaq_refine: no artifact or output, or options uninitialised");
    }
    if (!nq_artifact_probe(o->artifact)) {
        return nq_fail(err, NOVAQ_E_ARG, "%s: is not an artifact; compress the model first",
                       o->artifact);
    }
    NQ_TRY(nq_refine_check_paths(o, err));
    if (o->calibration == NULL || strcmp(o->calibration, "none") == 0) {
        return nq_fail(err, NOVAQ_E_ARG, "refinement needs a text; give a file or \"self\"");
    }
    if (o->more_text_count > 0 && strcmp(o->calibration, "self") == 0) {
        return nq_fail(err, NOVAQ_E_ARG, "either files or \"self\" to learn from, not both");
    }
    if (o->teacher_cache == NULL && o->teacher_top > 0) {
        return nq_fail(err, NOVAQ_E_ARG, "teacher_top is of a teacher's cache; name the file");
    }
    if (o->teacher_cache != NULL && o->lambda > 0) {
        return nq_fail(err, NOVAQ_E_ARG,
                       "%s: a teacher's cache holds predictions, not what lambda compares; lambda "
                       "must be 0 with it",
                       o->teacher_cache);
    }
    return check_numbers(o, err);
}

static uint32_t steps_of(const novaq_refine_options *o) { return o->steps > 0 ? o->steps : STEPS; }

/* ---- text ---------------------------------------------------------------------------------- */

/* Where the i-th of n windows goes: those held out, one of each of `held` equal parts of
 * the text, come last. Else in order. */
static size_t place_of(size_t i, size_t n) {
    size_t held = nq_refine_held_out((uint32_t)n);
    size_t every = n / held;
    size_t before = (i + every - 1 - every / 2) / every; /* held out, of the first i windows */
    before = before < held ? before : held;
    bool out = i % every == every / 2 && i / every < held;
    return out ? n - held + before : i - before;
}

/* Of a short text sequences are shorter, so that there are enough of them. */
static uint32_t fitting(size_t tokens, uint32_t length) {
    size_t most = tokens / WINDOWS_LEAST;
    return most >= length ? length : most < SHORTEST ? SHORTEST : (uint32_t)most;
}

/* Windows that follow each other; of a long text as many as are asked for, spread. */
static novaq_status windows_of(refinement *r, const int32_t *ids, size_t count, uint32_t length,
                               const nq_tokenizer *tok, novaq_error *err) {
    size_t tokens = r->opt->calibration_tokens;
    size_t have = tokens > 0 && tokens < count ? tokens : count;
    length = fitting(have, length);
    size_t most = count / length;
    size_t wanted = (tokens + length - 1) / length;
    size_t n = wanted > 0 && wanted < most ? wanted : most;
    if (n < WINDOWS_LEAST || n > UINT32_MAX) {
        return nq_fail(
            err, NOVAQ_E_ARG,
            "%s: %zu tokens are too few: two sequences of %u are the least, some hundred "
            "a good number",
            r->opt->calibration, have, length);
    }
    bool bos = nq_tokenizer_adds_bos(tok) && nq_tokenizer_bos(tok) >= 0;
    r->text.sequences = (uint32_t)n;
    r->text.length = length;
    NQ_TRY(nq_alloc_raw(&r->text.tokens, n * length, sizeof *r->text.tokens, err));
    for (size_t i = 0; i < n; i++) {
        int32_t *to = r->text.tokens + place_of(i, n) * length;
        memcpy(to, ids + i * most / n * length, length * sizeof *ids);
        if (bos) {
            to[0] = nq_tokenizer_bos(tok);
        }
    }
    return NOVAQ_OK;
}

static novaq_status add_file(nq_buf *text, const char *path, novaq_error *err) {
    char *more = NULL;
    size_t len = 0;
    NQ_TRY(nq_read_file(&more, &len, path, TEXT_MAX, err));
    novaq_status st = nq_buf_append(text, more, len, err);
    nq_free(more);
    return st;
}

static novaq_status read_texts(nq_buf *text, const novaq_refine_options *o, novaq_error *err) {
    *text = nq_buf_init(TEXT_MAX);
    NQ_TRY(add_file(text, o->calibration, err));
    for (size_t i = 0; i < o->more_text_count; i++) {
        NQ_TRY(add_file(text, o->more_texts[i], err));
    }
    return NOVAQ_OK;
}

static novaq_status file_text(refinement *r, uint32_t length, novaq_error *err) {
    nq_tokenizer *tok = NULL;
    nq_buf text;
    int32_t *ids = NULL;
    size_t count = 0;
    const json_t *desc = json_object_get(nq_weights_model(r->student->weights), "tokenizer");
    NQ_TRY(nq_tokenizer_open(&tok, desc, err));
    novaq_status st = read_texts(&text, r->opt, err);
    if (st == NOVAQ_OK) {
        st = nq_tokenizer_encode(&ids, &count, tok, (const char *)text.data, text.len, 0, 0, err);
    }
    if (st == NOVAQ_OK) {
        st = windows_of(r, ids, count, length, tok, err);
    }
    nq_free(ids);
    nq_buf_free(&text);
    nq_tokenizer_close(&tok);
    return st;
}

static novaq_status self_text(refinement *r, const char *teacher, novaq_error *err) {
    const novaq_refine_options *o = r->opt;
    uint64_t wanted = o->calibration_tokens;
    if (wanted == 0) {
        wanted = (uint64_t)steps_of(o) * o->batch * o->sequence;
        wanted = wanted < SELF_TOKENS ? wanted : SELF_TOKENS;
    }
    wanted = wanted > WINDOWS_LEAST * SELF_LENGTH ? wanted : WINDOWS_LEAST * SELF_LENGTH;
    char *why = NULL;
    novaq_status st =
        nq_calibration_open(&r->text, &why, teacher, r->source, "self", (uint32_t)wanted, o->seed,
                            r->pool, o->progress, o->progress_ctx, err);
    nq_free(why);
    return st;
}

static novaq_status open_text(refinement *r, novaq_error *err) {
    if (r->text.tokens == NULL) {
        uint32_t length = r->opt->sequence;
        uint32_t context = r->student->hyper.context;
        NQ_TRY(file_text(r, length < context ? length : context, err));
    }
    uint32_t held = nq_refine_held_out(r->text.sequences);
    r->data = (nq_refine_data){r->text.tokens, r->text.sequences, r->text.length,
                               r->text.sequences - held};
    return NOVAQ_OK;
}

/* ---- models ------------------------------------------------------------------------------ */

static novaq_status check_pair(refinement *r, novaq_error *err) {
    (void)json_array_clear(r->warnings); /* of a round before, they are the same */
    return nq_refine_check_pair(r->warnings, r->opt->artifact, r->student, r->teacher,
                                r->opt->lambda, err);
}

/* *out (nq_free): the one that was given, or where the artifact came from. */
static novaq_status find_teacher(char **out, const refinement *r, novaq_error *err) {
    if (r->opt->teacher != NULL) {
        return nq_strdup(out, r->opt->teacher, err);
    }
    NQ_TRY(nq_artifact_origin(out, nq_weights_artifact(r->student->weights), err));
    if (*out == NULL) {
        return nq_fail(err, NOVAQ_E_ARG, "%s: does not tell what it was made of; name the teacher",
                       r->opt->artifact);
    }
    /* Nothing vouches for what a file beside an artifact says: no address of its choice. */
    if (strncmp(*out, "http", 4) == 0 && nq_is_remote(*out)) {
        novaq_status st = nq_fail(err, NOVAQ_E_ARG,
                                  "%s: was made of %s; name that as the teacher to have it opened",
                                  r->opt->artifact, *out);
        nq_free(*out);
        *out = NULL;
        return st;
    }
    return NOVAQ_OK;
}

/* What is written is about as large as what came in; a single file waits beside itself. */
static novaq_status check_space(const refinement *r, novaq_error *err) {
    uint64_t need = nq_artifact_bytes(nq_weights_artifact(r->student->weights));
    uint64_t left = nq_space_left(r->opt->output);
    need *= r->opt->single_file ? 2 : 1;
    return need <= left
               ? NOVAQ_OK
               : nq_fail(err, NOVAQ_E_NOSPACE,
                         "%s: about %llu bytes are to be written, its file system has "
                         "%llu left; make room or choose another output",
                         r->opt->output, (unsigned long long)need, (unsigned long long)left);
}

/* What only has to tell about itself is opened lean. */
static novaq_status open_teacher(refinement *r, novaq_error *err) {
    if (r->opt->teacher_cache != NULL) {
        return r->source != NULL ? nq_model_open_lean_over(&r->teacher, r->source, r->pool, err)
                                 : nq_model_open_lean(&r->teacher, r->locator, r->pool, err);
    }
    return r->source != NULL ? nq_model_open_over(&r->teacher, r->source, r->pool, err)
                             : nq_model_open(&r->teacher, r->locator, r->pool, err);
}

static novaq_status open_student(refinement *r, bool lean, novaq_error *err) {
    nq_model_close(&r->student);
    return lean ? nq_model_open_lean(&r->student, r->opt->artifact, r->pool, err)
                : nq_model_open(&r->student, r->opt->artifact, r->pool, err);
}

static novaq_status on_wait(void *ctx, novaq_error *err) {
    const refinement *r = ctx;
    novaq_progress p = {.phase = "fetch",
                        .item = "",
                        .done = nq_intake_received(r->source),
                        .total = nq_intake_bytes(r->source),
                        .unit = "B",
                        .value = (double)NAN};
    return nq_report_step(r->opt->progress, r->opt->progress_ctx, &p, err);
}

/* Text that the teacher samples is sampled by a model of its own, which is closed again
 * before the one that stays is opened. */
static novaq_status open_source(refinement *r, const char *locator, novaq_error *err) {
    bool self = strcmp(r->opt->calibration, "self") == 0;
    if (!nq_artifact_probe(locator)) {
        NQ_TRY(nq_model_tensors_open(&r->source, locator, err));
    }
    bool read = self || r->opt->teacher_cache == NULL; /* else only if there is no cache yet */
    if (r->source != NULL && read) {
        nq_tensors_on_wait(r->source, on_wait, r);
        NQ_TRY(nq_refine_hold(r->source, err));
        nq_tensors_on_wait(r->source, NULL, NULL);
        r->held = true;
    }
    if (!self) {
        return NOVAQ_OK;
    }
    return self_text(r, locator, err);
}

static novaq_status open_models(refinement *r, novaq_error *err) {
    const novaq_refine_options *o = r->opt;
    /* Before hours go into what belongs there. */
    NQ_TRY(nq_writer_probe(o->output, o->single_file, err));
    bool again = r->teacher != NULL; /* another round */
    if (!again) {
        NQ_TRY(nq_pool_open(&r->pool, o->threads, err));
    }
    NQ_TRY(open_student(r, o->teacher_cache != NULL, err));
    NQ_TRY(check_space(r, err));
    if (again) {
        return check_pair(r, err);
    }
    NQ_TRY(find_teacher(&r->locator, r, err));
    novaq_status st = open_source(r, r->locator, err);
    if (st == NOVAQ_OK) {
        st = open_teacher(r, err);
    }
    return st == NOVAQ_OK ? check_pair(r, err) : nq_fail_context(err, st, "the teacher");
}

/* ---- the run --------------------------------------------------------------------------------- */

/* Short sequences come in larger batches, so that a step sees as many tokens. */
static uint32_t batch_of(const refinement *r) {
    uint64_t tokens = (uint64_t)r->opt->batch * r->opt->sequence;
    uint64_t n = (tokens + r->text.length - 1) / r->text.length;
    return n < 4096 ? (uint32_t)n : 4096;
}

static novaq_status open_nets(refinement *r, novaq_error *err) {
    nq_net_options o = {.sequences = batch_of(r),
                        .length = r->text.length,
                        .group_cols = r->opt->codebook_columns,
                        .keep = nq_physical_memory() / 4,
                        .halves = r->opt->exact == 0};
    nq_net_options t = {
        .sequences = o.sequences, .length = o.length, .frozen = true, .halves = o.halves};
    bool beside = r->predictions == NULL;
    nq_teacher_from from = {.dim = r->teacher->hyper.dim, .predictions = r->predictions};
    r->memory = nq_net_bytes(r->student, &o) + (beside ? nq_net_bytes(r->teacher, &t) : 0);
    NQ_TRY(nq_net_open(&r->student_net, r->student, &o, err));
    r->memory += nq_refine_bytes(r->student_net, &r->student->hyper, &from, &r->data, &r->run);
    r->memory += (uint64_t)r->text.sequences * r->text.length * sizeof *r->text.tokens;
    return beside ? nq_net_open(&r->teacher_net, r->teacher, &t, err) : NOVAQ_OK;
}

static void set_rates(nq_refine_options *run, const novaq_refine_options *o) {
    double *rate = run->adam.rate;
    rate[NQ_PARAM_CODEBOOK] = o->rate;
    rate[NQ_PARAM_LOG_SCALE] = o->scale_rate >= 0 ? o->scale_rate : 2 * o->rate;
    rate[NQ_PARAM_ROW_MEAN] = rate[NQ_PARAM_LOG_SCALE];
    rate[NQ_PARAM_GAIN] = o->gain_rate >= 0 ? o->gain_rate : 2 * o->rate;
    rate[NQ_PARAM_BIAS] = rate[NQ_PARAM_GAIN];
    /* Column scales are stored as powers of the root of 2: too coarse to be learnt. */
    rate[NQ_PARAM_COL_SCALE] = 0;
}

static double finite_or_zero(double v) { return isfinite(v) ? v : 0; }

static void tell(const refinement *r, json_t *line) {
    char *text = NULL;
    if (line != NULL && r->round != NULL) {
        nq_round_line(line, r->round);
    }
    if (line != NULL && r->opt->step != NULL && nq_json_dump(&text, line, 0, NULL) == NOVAQ_OK) {
        r->opt->step(r->opt->step_ctx, text);
    }
    nq_free(text);
    json_decref(line);
}

static void put_number(json_t *o, const char *key, double v) {
    if (isfinite(v)) {
        json_object_set_new(o, key, json_real(v));
    }
}

static json_t *step_line(const nq_refine_event *e) {
    json_t *o =
        json_pack("{s:s, s:i, s:i}", "event", "step", "step", (int)e->step, "steps", (int)e->steps);
    if (o == NULL) {
        return NULL;
    }
    put_number(o, "kl", e->kl);
    put_number(o, "hidden", e->hidden);
    put_number(o, "rate", e->rate);
    if (e->measured) {
        put_number(o, "held_out_kl", e->held_kl);
        put_number(o, "held_out_perplexity", e->held_perplexity);
    }
    json_object_set_new(o, "best_step", json_integer((json_int_t)e->best_step));
    put_number(o, "best_held_out_kl", e->best_kl);
    put_number(o, "seconds", e->seconds);
    put_number(o, "eta", e->eta);
    if (e->rolled_back) {
        json_object_set_new(o, "rolled_back", json_true());
    }
    if (e->warning != NULL) {
        json_object_set_new(o, "warning", json_string(e->warning));
    }
    return o;
}

static novaq_status on_event(void *ctx, const nq_refine_event *e, bool within, novaq_error *err) {
    const refinement *r = ctx;
    novaq_progress p = {.phase = "refine",
                        .item = "",
                        .done = e->step + (r->round != NULL ? r->round->first : 0),
                        .total = r->round != NULL ? r->round->steps : e->steps,
                        .unit = "steps",
                        .value = e->measured ? e->held_perplexity : (double)NAN};
    if (!within) {
        tell(r, step_line(e));
    }
    return nq_report_step(r->opt->progress, r->opt->progress_ctx, &p, err);
}

static void hash_number(nq_sha256 *h, double v) { nq_sha256_update(h, &v, sizeof v); }

/* What tells that the teacher's weights are the same without reading them. */
static novaq_status identify_teacher(nq_hash_text out, const refinement *r, novaq_error *err) {
    const nq_artifact *a = nq_weights_artifact(r->teacher->weights);
    return a != NULL ? nq_refine_artifact_key(out, a, err)
                     : nq_refine_source_key(out, r->source, err);
}

/* Everything the result depends on: also what decides the order of sums. */
static novaq_status identify(refinement *r, novaq_error *err) {
    const novaq_refine_options *o = r->opt;
    const nq_artifact *a = nq_weights_artifact(r->student->weights);
    nq_sha256 *h = NULL;
    char *model = NULL;
    nq_hash_text student;
    nq_hash_text teacher;
    unsigned cpu = nq_cpu_features();
    NQ_TRY(identify_teacher(teacher, r, err));
    NQ_TRY(nq_refine_artifact_key(student, a, err));
    NQ_TRY(nq_json_dump(&model, nq_weights_model(r->teacher->weights), 0, err));
    novaq_status st = nq_sha256_open(&h, err);
    if (st == NOVAQ_OK) {
        nq_sha256_update(h, NOVAQ_VERSION, sizeof NOVAQ_VERSION);
        nq_sha256_update(h, &cpu, sizeof cpu);
        nq_sha256_update(h, student, sizeof student);
        nq_sha256_update(h, model, strlen(model));
        nq_sha256_update(h, teacher, strlen(teacher) + 1);
        nq_sha256_update(h, r->text.tokens,
                         (size_t)r->text.sequences * r->text.length * sizeof *r->text.tokens);
        hash_number(h, (double)r->text.length);
        for (unsigned k = 0; k < NQ_PARAM_KINDS; k++) {
            hash_number(h, r->run.adam.rate[k]);
        }
        hash_number(h, (double)r->run.adam.steps);
        hash_number(h, (double)r->run.batch);
        hash_number(h, o->lambda);
        hash_number(h, o->temperature);
        hash_number(h, (double)o->codebook_columns);
        hash_number(h, (double)o->exact);
        nq_sha256_update(h, &o->seed, sizeof o->seed);
        if (r->predictions != NULL) { /* and how many of each token, as their file says */
            nq_sha256_update(h, nq_predictions_digest(r->predictions), NQ_BLAKE3_HEX);
        }
        st = nq_sha256_finish(r->run.identity, h, err);
    }
    nq_sha256_close(&h);
    nq_free(model);
    return st;
}

static novaq_status prepare_run(refinement *r, novaq_error *err) {
    const novaq_refine_options *o = r->opt;
    nq_adam_options adam = NQ_ADAM_OPTIONS_INIT;
    r->run = (nq_refine_options){.adam = adam,
                                 .batch = batch_of(r),
                                 .temperature = (float)o->temperature,
                                 .lambda = (float)o->lambda,
                                 .seed = o->seed,
                                 .patience = PATIENCE,
                                 .fn = on_event,
                                 .ctx = r};
    r->run.adam.steps = steps_of(o);
    set_rates(&r->run, o);
    r->run.checkpoint = r->checkpoint;
    return identify(r, err);
}

static novaq_status check_checkpoint(const refinement *r, novaq_error *err) {
    if (r->opt->restart) {
        nq_checkpoint_remove(r->checkpoint);
    }
    return nq_refine_check_checkpoint(r->checkpoint, r->run.identity, r->maker, err);
}

static void tell_of_teacher(void *ctx, json_t *line) { tell(ctx, line); }

/* With a file of them the teacher is in memory before its student is, or not at all. */
static novaq_status open_predictions(refinement *r, novaq_error *err) {
    nq_hash_text key;
    if (r->opt->teacher_cache == NULL) {
        return NOVAQ_OK;
    }
    NQ_TRY(identify_teacher(key, r, err));
    nq_refine_teacher t = {.opt = r->opt,
                           .locator = r->locator,
                           .key = key,
                           .text = &r->text,
                           .pool = r->pool,
                           .source = &r->source,
                           .model = &r->teacher,
                           .tell = tell_of_teacher,
                           .tell_ctx = r};
    NQ_TRY(nq_refine_predictions(&r->predictions, &r->predictions_record, &t, err));
    r->held = false; /* the source may be another one since */
    return open_student(r, false, err);
}

static void tell_begin(const refinement *r) {
    tell(r,
         json_pack("{s:s, s:I, s:I, s:i, s:i, s:i, s:i, s:s}", "event", "begin", "memory_bytes",
                   (json_int_t)r->memory, "tokens", (json_int_t)r->text.sequences * r->text.length,
                   "sequences", (int)r->text.sequences, "held_out",
                   (int)(r->text.sequences - r->data.train), "batch", (int)r->run.batch, "steps",
                   (int)r->run.adam.steps, "checkpoint", r->checkpoint));
    for (size_t i = 0; i < json_array_size(r->warnings); i++) {
        tell(r,
             json_pack("{s:s, s:O}", "event", "note", "warning", json_array_get(r->warnings, i)));
    }
}

/* ---- the result
 * ---------------------------------------------------------------------------------- */

/* What an artifact says of its refinement: options that decide bytes, and the gain. */
static json_t *make_record(const refinement *r) {
    const novaq_refine_options *o = r->opt;
    const nq_refine_result *x = &r->result;
    return json_pack(
        "{s:i, s:i, s:s, s:i, s:i, s:f, s:f, s:f, s:f, s:f, s:i, s:I, s:{s:f, s:f}, s:{s:f, s:f}}",
        "steps", (int)r->run.adam.steps, "best_step", (int)x->best_step, "calibration",
        strcmp(o->calibration, "self") == 0 ? "self" : "file", "sequence", (int)r->text.length,
        "batch", (int)r->run.batch, "rate", r->run.adam.rate[NQ_PARAM_CODEBOOK], "scale_rate",
        r->run.adam.rate[NQ_PARAM_LOG_SCALE], "gain_rate", r->run.adam.rate[NQ_PARAM_GAIN],
        "lambda", o->lambda, "temperature", o->temperature, "codebook_columns",
        (int)o->codebook_columns, "seed", (json_int_t)o->seed, "held_out_kl", "before", x->base_kl,
        "after", x->best_kl, "held_out_perplexity", "before", finite_or_zero(x->base_perplexity),
        "after", finite_or_zero(x->best_perplexity));
}

/* What the report of this call tells besides the record. */
static void complete_record(json_t *record, const refinement *r, json_t *summary) {
    json_t *warnings = json_copy(r->warnings);
    if (r->round == NULL) {
        json_object_set_new(record, "steps_done", json_integer((json_int_t)r->result.steps));
    }
    json_object_set_new(record, "resumed_at", json_integer((json_int_t)r->result.resumed));
    json_object_set_new(record, "rolled_back", json_integer((json_int_t)r->result.rolled_back));
    json_object_set_new(record, "memory_bytes", json_integer((json_int_t)r->memory));
    json_t *note = json_object_get(r->predictions_record, "note");
    if (r->predictions_record != NULL) {
        json_object_set(record, "teacher_cache", r->predictions_record);
    }
    if (note != NULL) {
        json_array_append(warnings, note);
    }
    json_object_set_new(record, "seconds", json_real(nq_seconds() - r->began));
    if (r->result.checkpoints_failed > 0) {
        json_array_append_new(warnings, json_sprintf("%s: %u checkpoints could not be written",
                                                     r->checkpoint, r->result.checkpoints_failed));
    }
    json_object_set_new(record, "warnings", warnings);
    json_object_set(record, "summary", summary);
}

/* A source that is not would be read over the network once more, for telemetry alone. */
static bool at_hand(const refinement *r) {
    return r->source == NULL || r->held || !nq_intake_is_remote(r->source);
}

static novaq_status finish(char **report, refinement *r, novaq_error *err) {
    json_t *record = make_record(r);
    json_t *summary = NULL;
    if (record == NULL) {
        return nq_fail(err, NOVAQ_E_MEMORY, "cannot build the manifest");
    }
    if (r->predictions != NULL) {
        json_object_set_new(record, "teacher_top",
                            json_integer((json_int_t)nq_predictions_top(r->predictions)));
    }
    if (r->round != NULL) {
        json_object_set_new(record, "steps_done", json_integer((json_int_t)r->result.steps));
        novaq_status st = nq_round_record(record, r->round, r->run.identity, err);
        if (st != NOVAQ_OK) {
            json_decref(record);
            return st;
        }
    }
    nq_refine_save save = {.weights = r->student->weights,
                           .net = r->result.best_step > 0 ? r->student_net : NULL,
                           .source = at_hand(r) ? r->teacher->weights : NULL,
                           .pool = r->pool,
                           .record = record,
                           .output = r->opt->output,
                           .single_file = r->opt->single_file,
                           .progress = r->opt->progress,
                           .progress_ctx = r->opt->progress_ctx};
    novaq_status st = nq_refine_write(&summary, &save, err);
    if (st == NOVAQ_OK && report != NULL) {
        complete_record(record, r, summary);
        st = nq_json_dump(report, record, 0, err);
    }
    json_decref(summary);
    json_decref(record);
    if (st == NOVAQ_OK) {
        nq_checkpoint_remove(r->checkpoint);
    }
    return st;
}

static novaq_status refine(char **report, refinement *r, novaq_error *err) {
    NQ_TRY(nq_refine_checkpoint_path(&r->checkpoint, r->opt, err));
    NQ_TRY(open_models(r, err));
    NQ_TRY(open_text(r, err));
    NQ_TRY(open_predictions(r, err));
    NQ_TRY(prepare_run(r, err));
    if (r->round != NULL) {
        char *found = NULL;
        NQ_TRY(nq_round_recall(&found, r->round, r->run.identity, err));
        if (found != NULL) {
            *report = found;
            return NOVAQ_OK;
        }
    }
    NQ_TRY(check_checkpoint(r, err));
    NQ_TRY(open_nets(r, err));
    tell_begin(r);
    nq_teacher_from from = {r->teacher_net, r->teacher->hyper.dim, r->predictions};
    NQ_TRY(nq_refine_run(&r->result, r->student_net, r->student->weights, &from, &r->student->hyper,
                         r->pool, &r->data, &r->run, err));
    return finish(report, r, err);
}

/* What is the round's own. */
static void close_round(refinement *r) {
    nq_net_close(&r->student_net);
    nq_net_close(&r->teacher_net);
    nq_model_close(&r->student);
    nq_free(r->checkpoint);
    r->checkpoint = NULL;
}

static novaq_status refine_round(void *ctx, char **report, const nq_round *round,
                                 novaq_error *err) {
    refinement *r = ctx;
    r->round = round;
    r->opt = &round->opt;
    novaq_status st = refine(report, r, err);
    close_round(r);
    return st;
}

static void tell_of_symbols(void *ctx, json_t *line) { tell(ctx, json_incref(line)); }

static void lend(void *ctx, nq_reassign_options *o) {
    refinement *r = ctx;
    o->teacher = r->locator;
    o->source = r->source;
    o->model = r->teacher;
    o->data = r->data;
    o->exact = r->opt->exact != 0;
    o->pool = r->pool;
    o->progress = r->opt->progress;
    o->progress_ctx = r->opt->progress_ctx;
    o->tell = tell_of_symbols;
    o->tell_ctx = r;
}

static novaq_status refine_rounds(char **report, refinement *r, novaq_error *err) {
    novaq_refine_options whole = *r->opt;
    nq_rounds_host host = {.ctx = r, .refine = refine_round, .lend = lend};
    whole.steps = steps_of(&whole);
    return nq_refine_rounds(report, &whole, &host, err);
}

novaq_status nq_refine_for(char **report, const novaq_refine_options *opt,
                           const nq_refine_maker *maker, novaq_error *err) {
    if (report != NULL) {
        *report = NULL;
    }
    NQ_TRY(check_options(opt, err));
    refinement r = {.opt = opt, .maker = maker, .warnings = json_array(), .began = nq_seconds()};
    novaq_status st = opt->rounds > 1 ? refine_rounds(report, &r, err) : refine(report, &r, err);
    close_round(&r);
    nq_calibration_close(&r.text);
    nq_model_close(&r.teacher);
    nq_tensors_close(&r.source);
    nq_pool_close(&r.pool);
    nq_predictions_close(&r.predictions);
    json_decref(r.predictions_record);
    json_decref(r.warnings);
    nq_free(r.locator);
    return st;
}

novaq_status novaq_refine(char **report, const novaq_refine_options *opt, novaq_error *err) {
    return nq_refine_for(report, opt, NULL, err);
}
