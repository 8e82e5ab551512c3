/* api_eval.c - novaq_eval(): opens what is compared, tokenises the text or takes
 * the tokens of a base file, and reports. */
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
    nq_model *base;   /* NULL without `against` */
    nq_kl_base file;  /* source NULL without one to read */
    nq_outfile *save; /* NULL without one to write */
    nq_tokenizer *tokenizer;
    int32_t *tokens; /* of the text; NULL with a file */
    size_t count;
    nq_windows w;
    size_t available; /* windows that the text fills */
    nq_position *positions;
    json_t *report;
} evaluation;

static novaq_status check_options(const novaq_eval_options *o, novaq_error *err) {
    if (o == NULL || o->struct_size < sizeof *o || o->model == NULL ||
        (o->text_file == NULL && !o->kl_divergence)) {
        return nq_fail(err, NOVAQ_E_ARG, "novaq_eval: no model or text, or options uninitialised");
    }
    if (o->kl_divergence && (o->kl_base == NULL || o->text_file != NULL || o->against != NULL)) {
        return nq_fail(
            err, NOVAQ_E_ARG,
            "measuring against a base file needs that file, and no text or model besides");
    }
    if (o->n_ctx < 4 || o->n_ctx > 1U << 20) {
        return nq_fail(err, NOVAQ_E_ARG, "a window of %u tokens: must be 4 to 1048576", o->n_ctx);
    }
    if (o->layer_kl && o->against == NULL) {
        return nq_fail(err, NOVAQ_E_ARG, "KL per layer needs a source to measure against");
    }
    return NOVAQ_OK;
}

static novaq_status open_tokenizer(evaluation *e, novaq_error *err) {
    const json_t *desc = NULL;
    NQ_TRY(nq_json_get_object(&desc, nq_weights_model(e->model->weights), "tokenizer",
                              e->opt->model, err));
    return nq_tokenizer_open(&e->tokenizer, desc, err);
}

static novaq_status tokenize(evaluation *e, novaq_error *err) {
    char *text = NULL;
    size_t len = 0;
    NQ_TRY(nq_read_file(&text, &len, e->opt->text_file, MAX_TEXT, err));
    if (len > 0 && text[len - 1] == '\n') { /* llama-perplexity drops one, too */
        len--;
    }
    novaq_status st =
        nq_tokenizer_encode(&e->tokens, &e->count, e->tokenizer, text, len, 1, 0, err);
    nq_free(text);
    return st;
}

static novaq_status check_context(const evaluation *e, uint32_t n_ctx, novaq_error *err) {
    uint32_t context = e->model->hyper.context;
    if (e->base != NULL && e->base->hyper.context < context) {
        context = e->base->hyper.context;
    }
    if (n_ctx <= context) {
        return NOVAQ_OK;
    }
    if (e->file.source != NULL) {
        return nq_fail(err, NOVAQ_E_ARG,
                       "%s: offset 8: a window of %u tokens is longer than the model's context of "
                       "%u; make the base with a smaller window",
                       e->file.source->name, n_ctx, context);
    }
    return nq_fail(err, NOVAQ_E_ARG,
                   "a window of %u tokens is longer than the model's context of %u; give --n-ctx "
                   "%u or less",
                   n_ctx, context, context);
}

/* As many of the available windows as were asked for. */
static void set_windows(evaluation *e, const int32_t *tokens, uint32_t n_ctx) {
    const novaq_eval_options *o = e->opt;
    size_t chunks = o->chunks != 0 && o->chunks < e->available ? o->chunks : e->available;
    bool bos = nq_tokenizer_adds_bos(e->tokenizer) != 0;
    e->w = (nq_windows){.tokens = tokens,
                        .n_ctx = n_ctx,
                        .chunks = (uint32_t)chunks,
                        .bos = bos ? nq_tokenizer_bos(e->tokenizer) : -1};
}

static novaq_status cut_windows(evaluation *e, novaq_error *err) {
    uint32_t n_ctx = e->opt->n_ctx;
    NQ_TRY(check_context(e, n_ctx, err));
    e->available = e->count / n_ctx;
    if (e->available == 0) {
        return nq_fail(err, NOVAQ_E_ARG,
                       "%s: too short: it has %zu tokens, one window needs %u; give a longer text "
                       "or a smaller --n-ctx",
                       e->opt->text_file, e->count, n_ctx);
    }
    set_windows(e, e->tokens, n_ctx);
    return NOVAQ_OK;
}

/* The windows of the base file. The vocabulary is compared first: it bounds what
 * the rest of the header may ask for. */
static novaq_status open_base_file(evaluation *e, novaq_error *err) {
    uint32_t vocab = e->model->hyper.vocab;
    NQ_TRY(nq_kl_base_open(&e->file, e->opt->kl_base, err));
    if (e->file.vocab != vocab) {
        return nq_fail(err, NOVAQ_E_ARG,
                       "%s: offset 12: made with a vocabulary of %u tokens, the model has %u",
                       e->opt->kl_base, e->file.vocab, vocab);
    }
    NQ_TRY(check_context(e, e->file.n_ctx, err));
    uint32_t wanted = e->opt->chunks != 0 ? e->opt->chunks : e->file.chunks;
    NQ_TRY(nq_kl_base_tokens(&e->file, wanted, err));
    e->available = e->file.chunks;
    e->count = (uint64_t)e->file.chunks * e->file.n_ctx;
    set_windows(e, e->file.tokens, e->file.n_ctx);
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
    if (o->fast) {
        NQ_TRY(nq_model_prepare_fast(e->model, err));
    }
    if (o->against != NULL) {
        NQ_TRY(nq_model_open(&e->base, o->against, e->pool, err));
    }
    NQ_TRY(open_tokenizer(e, err));
    if (o->kl_divergence) {
        return open_base_file(e, err);
    }
    NQ_TRY(tokenize(e, err));
    NQ_TRY(cut_windows(e, err));
    if (o->kl_base == NULL) {
        return NOVAQ_OK;
    }
    return nq_kl_base_create(&e->save, o->kl_base, e->tokens, e->w.n_ctx, e->model->hyper.vocab,
                             e->w.chunks, err);
}

static novaq_status evaluate(evaluation *e, novaq_error *err) {
    const novaq_eval_options *o = e->opt;
    uint64_t n = (uint64_t)e->w.chunks * nq_windows_scored(&e->w);
    json_t *layers = NULL;
    NQ_TRY(nq_alloc(&e->positions, n, sizeof *e->positions, err));
    nq_scoring what = {.model = e->model,
                       .base = e->base,
                       .file = e->file.source != NULL ? &e->file : NULL,
                       .save = e->save,
                       .w = &e->w,
                       .progress = o->progress,
                       .progress_ctx = o->progress_ctx};
    NQ_TRY(nq_score(e->positions, &what, err));
    e->report = json_object();
    NQ_TRY(nq_summarize(e->report, e->positions, n, e->base != NULL || what.file != NULL, err));
    NQ_TRY(put(e->report, "chunks", json_integer((json_int_t)e->w.chunks), err));
    NQ_TRY(put(e->report, "chunks_available", json_integer((json_int_t)e->available), err));
    NQ_TRY(put(e->report, "tokens", json_integer((json_int_t)n), err));
    NQ_TRY(put(e->report, "text_tokens", json_integer((json_int_t)e->count), err));
    NQ_TRY(put(e->report, "n_ctx", json_integer((json_int_t)e->w.n_ctx), err));
    NQ_TRY(put(e->report, "arithmetic", json_string(o->fast ? "int8" : "float32"), err));
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
    if (st == NOVAQ_OK && e.save != NULL) {
        st = nq_outfile_commit(&e.save, NULL, err);
    }
    if (st == NOVAQ_OK && report != NULL) {
        st = nq_json_dump(report, e.report, 2, err);
    }
    nq_outfile_abort(&e.save);
    nq_kl_base_close(&e.file);
    json_decref(e.report);
    nq_free(e.positions);
    nq_free(e.tokens);
    nq_tokenizer_close(&e.tokenizer);
    nq_model_close(&e.base);
    nq_model_close(&e.model);
    nq_pool_close(&e.pool);
    return st;
}
