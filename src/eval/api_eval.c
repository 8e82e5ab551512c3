/* api_eval.c - novaq_eval(): opens what is compared, tokenises the text, and
 * reports. */
#include <string.h>

#include "base/mem.h"
#include "eval/eval.h"
#include "io/fs.h"
#include "model/tokenizer.h"

#define MAX_TEXT ((size_t)1 << 30)

typedef struct evaluation {
    const novaq_eval_options *opt;
    nq_pool *pool;
    nq_model *model;
    nq_model *base; /* NULL without `against` */
    nq_tokenizer *tokenizer;
    int32_t *tokens;
    size_t count;
    nq_windows w;
    size_t available; /* windows that the text fills */
    nq_position *positions;
    json_t *report;
} evaluation;

static novaq_status check_options(const novaq_eval_options *o, novaq_error *err) {
    if (o == NULL || o->struct_size < sizeof *o || o->model == NULL || o->text_file == NULL) {
        return nq_fail(err, NOVAQ_E_ARG, "novaq_eval: no model or text, or options uninitialised");
    }
    if (o->n_ctx < 4 || o->n_ctx > 1U << 20) {
        return nq_fail(err, NOVAQ_E_ARG, "a window of %u tokens: must be 4 to 1048576", o->n_ctx);
    }
    if (o->layer_kl && o->against == NULL) {
        return nq_fail(err, NOVAQ_E_ARG, "KL per layer needs a source to measure against");
    }
    return NOVAQ_OK;
}

static novaq_status tokenize(evaluation *e, novaq_error *err) {
    const json_t *desc = NULL;
    char *text = NULL;
    size_t len = 0;
    NQ_TRY(nq_json_get_object(&desc, nq_weights_model(e->model->weights), "tokenizer",
                              e->opt->model, err));
    NQ_TRY(nq_tokenizer_open(&e->tokenizer, desc, err));
    NQ_TRY(nq_read_file(&text, &len, e->opt->text_file, MAX_TEXT, err));
    if (len > 0 && text[len - 1] == '\n') { /* llama-perplexity drops one, too */
        len--;
    }
    novaq_status st =
        nq_tokenizer_encode(&e->tokens, &e->count, e->tokenizer, text, len, 1, 0, err);
    nq_free(text);
    return st;
}

static novaq_status cut_windows(evaluation *e, novaq_error *err) {
    uint32_t n_ctx = e->opt->n_ctx;
    uint32_t context = e->model->hyper.context;
    if (e->base != NULL && e->base->hyper.context < context) {
        context = e->base->hyper.context;
    }
    if (n_ctx > context) {
        return nq_fail(err, NOVAQ_E_ARG,
                       "a window of %u tokens is longer than the model's context of %u; give "
                       "--n-ctx %u or less",
                       n_ctx, context, context);
    }
    size_t chunks = e->count / n_ctx;
    if (chunks == 0) {
        return nq_fail(err, NOVAQ_E_ARG,
                       "%s: too short: it has %zu tokens, one window needs %u; give a longer text "
                       "or a smaller --n-ctx",
                       e->opt->text_file, e->count, n_ctx);
    }
    e->available = chunks;
    if (e->opt->chunks != 0 && e->opt->chunks < chunks) {
        chunks = e->opt->chunks;
    }
    bool bos = nq_tokenizer_adds_bos(e->tokenizer) != 0;
    e->w = (nq_windows){.tokens = e->tokens,
                        .n_ctx = n_ctx,
                        .chunks = (uint32_t)chunks,
                        .bos = bos ? nq_tokenizer_bos(e->tokenizer) : -1};
    return NOVAQ_OK;
}

static novaq_status put(json_t *o, const char *key, json_t *value, novaq_error *err) {
    return json_object_set_new(o, key, value) == 0
               ? NOVAQ_OK
               : nq_fail(err, NOVAQ_E_MEMORY, "cannot report \"%s\"", key);
}

static novaq_status open_all(evaluation *e, novaq_error *err) {
    const novaq_eval_options *o = e->opt;
    NQ_TRY(nq_pool_open(&e->pool, o->threads, err));
    NQ_TRY(nq_model_open(&e->model, o->model, e->pool, err));
    if (o->against != NULL) {
        NQ_TRY(nq_model_open(&e->base, o->against, e->pool, err));
    }
    NQ_TRY(tokenize(e, err));
    return cut_windows(e, err);
}

static novaq_status evaluate(evaluation *e, novaq_error *err) {
    const novaq_eval_options *o = e->opt;
    uint64_t n = (uint64_t)e->w.chunks * nq_windows_scored(&e->w);
    json_t *layers = NULL;
    NQ_TRY(nq_alloc(&e->positions, n, sizeof *e->positions, err));
    NQ_TRY(nq_score(e->positions, e->model, e->base, &e->w, o->progress, o->progress_ctx, err));
    e->report = json_object();
    NQ_TRY(nq_summarize(e->report, e->positions, n, e->base != NULL, err));
    NQ_TRY(put(e->report, "chunks", json_integer((json_int_t)e->w.chunks), err));
    NQ_TRY(put(e->report, "chunks_available", json_integer((json_int_t)e->available), err));
    NQ_TRY(put(e->report, "tokens", json_integer((json_int_t)n), err));
    NQ_TRY(put(e->report, "text_tokens", json_integer((json_int_t)e->count), err));
    NQ_TRY(put(e->report, "n_ctx", json_integer((json_int_t)e->w.n_ctx), err));
    if (!o->layer_kl) {
        return NOVAQ_OK;
    }
    NQ_TRY(nq_layer_kld(&layers, e->base, e->model, &e->w, o->progress, o->progress_ctx, err));
    return put(e->report, "layer_kld", layers, err);
}

novaq_status novaq_eval(char **report, const novaq_eval_options *opt, novaq_error *err) {
    if (report != NULL) {
        *report = NULL;
    }
    NQ_TRY(check_options(opt, err));
    evaluation e = {.opt = opt};
    novaq_status st = open_all(&e, err);
    if (st == NOVAQ_OK) {
        st = evaluate(&e, err);
    }
    if (st == NOVAQ_OK && report != NULL) {
        st = nq_json_dump(report, e.report, 2, err);
    }
    json_decref(e.report);
    nq_free(e.positions);
    nq_free(e.tokens);
    nq_tokenizer_close(&e.tokenizer);
    nq_model_close(&e.base);
    nq_model_close(&e.model);
    nq_pool_close(&e.pool);
    return st;
}
