/* refine_teacher.c - see refine_teacher.h. */
#include "compress/refine_teacher.h"

#include <math.h>
#include <string.h>

#include "artifact/artifact.h"
#include "base/mem.h"
#include "compress/recipe.h"
#include "compress/refine_check.h"
#include "model/describe.h"

/* ---- which file ------------------------------------------------------------------------ */

/* The predictions depend on the way products are rounded, and, as the teacher is the same
 * on every CPU but for such roundings, on nothing else of the machine. */
static novaq_status identify(char out[NQ_SHA256_HEX + 1], const nq_refine_teacher *t,
                             novaq_error *err) {
    nq_sha256 *h = NULL;
    char *model = NULL;
    uint8_t exact = t->opt->exact != 0;
    NQ_TRY(nq_json_dump(&model, nq_weights_model((*t->model)->weights), 0, err));
    novaq_status st = nq_sha256_open(&h, err);
    if (st == NOVAQ_OK) {
        nq_sha256_update(h, NOVAQ_VERSION, sizeof NOVAQ_VERSION);
        nq_sha256_update(h, model, strlen(model) + 1);
        nq_sha256_update(h, t->key, strlen(t->key) + 1);
        nq_sha256_update(h, &exact, sizeof exact);
        nq_sha256_update(h, t->text->tokens,
                         (size_t)t->text->sequences * t->text->length * sizeof *t->text->tokens);
        st = nq_sha256_finish(out, h, err);
    }
    nq_sha256_close(&h);
    nq_free(model);
    return st;
}

static novaq_status specify(nq_predictions_spec *out, const nq_refine_teacher *t,
                            novaq_error *err) {
    uint32_t vocab = (*t->model)->hyper.vocab;
    unsigned top = t->opt->teacher_top > 0 ? t->opt->teacher_top : NQ_TEACHER_TOP;
    *out = (nq_predictions_spec){.path = t->opt->teacher_cache,
                                 .windows = t->text->sequences,
                                 .length = t->text->length,
                                 .vocab = vocab,
                                 .top = top < vocab ? top : vocab,
                                 .temperature = (float)t->opt->temperature};
    return identify(out->identity, t, err);
}

/* ---- making it ---------------------------------------------------------------------------- */

static novaq_status on_tick(void *ctx, uint32_t done, novaq_error *err) {
    const nq_refine_teacher *t = ctx;
    novaq_progress p = {.phase = "teacher",
                        .item = "",
                        .done = done,
                        .total = t->text->sequences,
                        .unit = "sequences",
                        .value = (double)NAN};
    return nq_report_step(t->opt->progress, t->opt->progress_ctx, &p, err);
}

static novaq_status open_whole(const nq_refine_teacher *t, novaq_error *err) {
    nq_model_close(t->model);
    NQ_TRY(*t->source != NULL ? nq_refine_hold(*t->source, err) : NOVAQ_OK);
    return *t->source != NULL ? nq_model_open_over(t->model, *t->source, t->pool, err)
                              : nq_model_open(t->model, t->locator, t->pool, err);
}

/* What a source keeps in memory goes with it. */
static novaq_status open_lean(const nq_refine_teacher *t, novaq_error *err) {
    bool artifact = *t->source == NULL;
    nq_model_close(t->model);
    nq_tensors_close(t->source);
    if (artifact) {
        return nq_model_open_lean(t->model, t->locator, t->pool, err);
    }
    NQ_TRY(nq_model_tensors_open(t->source, t->locator, err));
    return nq_model_open_lean_over(t->model, *t->source, t->pool, err);
}

static void tell(json_t *record, const nq_refine_teacher *t) {
    json_t *line = json_pack("{s:s}", "event", "teacher");
    if (line == NULL || record == NULL || json_object_update(line, record) != 0) {
        json_decref(line);
        return;
    }
    t->tell(t->tell_ctx, line);
}

static novaq_status make(json_t *record, const nq_predictions_spec *s, const nq_refine_teacher *t,
                         novaq_error *err) {
    uint32_t sequences = nq_predictions_sequences(s->windows, s->length);
    nq_net_options o = {
        .sequences = sequences, .length = s->length, .frozen = true, .halves = t->opt->exact == 0};
    nq_predictions_making m = {.sequences = sequences,
                               .tokens = t->text->tokens,
                               .pool = t->pool,
                               .tick = on_tick,
                               .tick_ctx = (void *)(uintptr_t)t};
    NQ_TRY(open_whole(t, err));
    uint64_t memory = nq_net_bytes(*t->model, &o) + nq_predictions_making_bytes(s);
    json_object_set_new(record, "memory_bytes", json_integer((json_int_t)memory));
    tell(record, t);
    NQ_TRY(nq_net_open(&m.net, *t->model, &o, err));
    novaq_status st = nq_predictions_make(s, &m, err);
    nq_net_close(&m.net);
    return st;
}

static novaq_status make_and_open(nq_predictions **out, json_t *record,
                                  const nq_predictions_spec *s, const nq_refine_teacher *t,
                                  novaq_error *err) {
    const char *why = NULL;
    NQ_TRY(make(record, s, t, err));
    NQ_TRY(open_lean(t, err));
    NQ_TRY(nq_predictions_open(out, &why, s, err));
    return *out != NULL ? NOVAQ_OK
                        : nq_fail(err, NOVAQ_E_VERIFY, "%s: %s, though it was just written",
                                  s->path, why != NULL ? why : "is gone");
}

novaq_status nq_refine_predictions(nq_predictions **out, json_t **record,
                                   const nq_refine_teacher *t, novaq_error *err) {
    nq_predictions_spec s;
    const char *why = NULL;
    *out = NULL;
    *record = NULL;
    NQ_TRY(specify(&s, t, err));
    NQ_TRY(nq_predictions_open(out, &why, &s, err));
    bool reused = *out != NULL;
    *record = json_pack("{s:s, s:I, s:i, s:b}", "file", s.path, "bytes",
                        (json_int_t)nq_predictions_bytes(&s), "top", (int)s.top, "reused", reused);
    if (why != NULL && *record != NULL) {
        json_object_set_new(*record, "note", json_sprintf("%s: %s; it is made anew", s.path, why));
    }
    if (reused) {
        tell(*record, t);
    }
    novaq_status st = reused ? NOVAQ_OK : make_and_open(out, *record, &s, t, err);
    if (st == NOVAQ_OK && *record != NULL) {
        json_object_set_new(*record, "rest", json_real(nq_predictions_rest(*out)));
    }
    return st;
}
