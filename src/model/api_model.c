/* api_model.c - the public functions that run a model: open, tokenize,
 * generate. Owns: turning tokens into a stream of whole UTF-8 characters, and
 * the reasons a generation ends. */
#include <string.h>
#include <time.h>

#include "base/buf.h"
#include "model/model.h"
#include "model/sampler.h"
#include "model/tokenizer.h"
#include "model/utf8.h"

/* Prompt tokens fed at once. */
#define PROMPT_BLOCK 512
/* Bytes of text one call may generate. */
#define MAX_TEXT ((size_t)64 << 20)

struct novaq_model {
    nq_pool *pool;
    nq_model *model;
    nq_tokenizer *tokenizer;
};

novaq_status novaq_model_open(novaq_model **out, const char *path, const novaq_model_options *opt,
                              novaq_error *err) {
    *out = NULL;
    novaq_model *m = NULL;
    const json_t *tokenizer = NULL;
    if (path == NULL || (opt != NULL && opt->struct_size < sizeof *opt)) {
        return nq_fail(err, NOVAQ_E_ARG, "novaq_model_open: no path, or options not initialised");
    }
    NQ_TRY(nq_alloc(&m, 1, sizeof *m, err));
    novaq_status st = nq_pool_open(&m->pool, opt == NULL ? 0 : opt->threads, err);
    if (st == NOVAQ_OK) {
        st = nq_model_open(&m->model, path, m->pool, err);
    }
    if (st == NOVAQ_OK) {
        st = nq_json_get_object(&tokenizer, nq_weights_model(m->model->weights), "tokenizer", path,
                                err);
    }
    if (st == NOVAQ_OK) {
        st = nq_tokenizer_open(&m->tokenizer, tokenizer, err);
    }
    if (st != NOVAQ_OK) {
        novaq_model_close(&m);
        return st;
    }
    *out = m;
    return NOVAQ_OK;
}

void novaq_model_close(novaq_model **pm) {
    if (pm == NULL || *pm == NULL) {
        return;
    }
    novaq_model *m = *pm;
    *pm = NULL;
    nq_tokenizer_close(&m->tokenizer);
    nq_model_close(&m->model);
    nq_pool_close(&m->pool);
    nq_free(m);
}

novaq_status novaq_tokenize(int32_t **ids, size_t *count, const novaq_model *m, const char *text,
                            size_t len, int add_special, int parse_special, novaq_error *err) {
    return nq_tokenizer_encode(ids, count, m->tokenizer, text, len, add_special, parse_special,
                               err);
}

novaq_status novaq_detokenize(char **text, size_t *len, const novaq_model *m, const int32_t *ids,
                              size_t count, int skip_special, novaq_error *err) {
    return nq_tokenizer_decode(text, len, m->tokenizer, ids, count, skip_special, err);
}

/* ---- generation --------------------------------------------------------- */

typedef struct generation {
    const novaq_model *m;
    const novaq_generate_options *opt;
    nq_run *run;
    nq_sampler *sampler;
    float *logits;      /* (vocab) */
    nq_buf text;        /* all that was emitted */
    uint8_t pending[8]; /* bytes of a character that is not whole yet */
    size_t pending_len;
    uint32_t prompt_tokens;
    uint32_t tokens;
    const char *stop;
} generation;

/* Hands a piece of whole characters to the callback. */
static novaq_status emit(generation *g, const char *s, size_t len, novaq_error *err) {
    NQ_TRY(nq_buf_append(&g->text, s, len, err));
    if (g->opt->text != NULL && g->opt->text(g->opt->text_ctx, s, len) != 0) {
        g->stop = "callback";
    }
    return NOVAQ_OK;
}

/* Adds bytes of one token; emits what became whole, U+FFFD for what never can. */
static novaq_status stream(generation *g, const char *bytes, size_t len, bool last,
                           novaq_error *err) {
    nq_buf out = nq_buf_init(MAX_TEXT);
    novaq_status st = NOVAQ_OK;
    for (size_t i = 0; st == NOVAQ_OK && i < len; i++) {
        g->pending[g->pending_len++] = (uint8_t)bytes[i];
        for (int n = -1; st == NOVAQ_OK && g->pending_len > 0 && n != 0;) {
            n = nq_utf8_whole(g->pending, g->pending_len);
            if (n != 0) {
                size_t used = n < 0 ? 1 : (size_t)n;
                st = n < 0 ? nq_buf_puts(&out, "\xEF\xBF\xBD", err)
                           : nq_buf_append(&out, g->pending, used, err);
                g->pending_len -= used;
                memmove(g->pending, g->pending + used, g->pending_len);
            }
        }
    }
    if (st == NOVAQ_OK && last && g->pending_len > 0) {
        g->pending_len = 0;
        st = nq_buf_puts(&out, "\xEF\xBF\xBD", err);
    }
    if (st == NOVAQ_OK && out.len > 0) {
        st = emit(g, (const char *)out.data, out.len, err);
    }
    nq_buf_free(&out);
    return st;
}

static novaq_status feed_prompt(generation *g, const int32_t *ids, size_t count, novaq_error *err) {
    uint32_t last = 0;
    for (size_t at = 0; at < count;) {
        uint32_t n = count - at < PROMPT_BLOCK ? (uint32_t)(count - at) : PROMPT_BLOCK;
        NQ_TRY(nq_run_feed(g->run, ids + at, 1, n, err));
        at += n;
        last = n - 1;
    }
    for (size_t i = 0; i < count; i++) {
        nq_sampler_accept(g->sampler, ids[i]);
    }
    return nq_run_logits(g->logits, g->run, &last, 1, err);
}

static novaq_status next_token(generation *g, uint32_t n_ctx, novaq_error *err) {
    int32_t token = 0;
    uint32_t row = 0;
    char *bytes = NULL;
    size_t len = 0;
    NQ_TRY(nq_sampler_draw(&token, g->sampler, g->logits, err));
    if (nq_tokenizer_is_end(g->m->tokenizer, token) && !g->opt->ignore_eos) {
        g->stop = "eos";
        return NOVAQ_OK;
    }
    g->tokens++;
    nq_sampler_accept(g->sampler, token);
    NQ_TRY(nq_tokenizer_decode(&bytes, &len, g->m->tokenizer, &token, 1, 1, err));
    novaq_status st = stream(g, bytes, len, false, err);
    nq_free(bytes);
    NQ_TRY(st);
    if (g->stop == NULL && g->tokens >= g->opt->max_tokens) {
        g->stop = "length";
    } else if (g->stop == NULL && nq_run_position(g->run) >= n_ctx) {
        g->stop = "context";
    }
    if (g->stop != NULL) {
        return NOVAQ_OK;
    }
    NQ_TRY(nq_run_feed(g->run, &token, 1, 1, err));
    return nq_run_logits(g->logits, g->run, &row, 1, err);
}

/* Opens what a generation needs and runs it to its end. */
static novaq_status generate(generation *g, const int32_t *ids, size_t count, novaq_error *err) {
    const nq_model *model = g->m->model;
    const novaq_generate_options *o = g->opt;
    uint32_t context = model->hyper.context;
    if (count == 0) {
        return nq_fail(err, NOVAQ_E_ARG,
                       "the prompt is empty, and this model has no token that begins a text; give "
                       "at least one character");
    }
    if (count > context) {
        return nq_fail(err, NOVAQ_E_ARG, "the prompt has %zu tokens, the model's context %u", count,
                       context);
    }
    uint64_t wanted = (uint64_t)count + o->max_tokens;
    uint32_t n_ctx = wanted < context ? (uint32_t)wanted : context;
    nq_sampling s = {.temperature = o->temperature,
                     .top_k = o->top_k,
                     .top_p = o->top_p,
                     .min_p = o->min_p,
                     .repeat_penalty = o->repeat_penalty,
                     .seed = o->seed};
    g->prompt_tokens = (uint32_t)count;
    /* Padded vocabularies have logits that no token stands for. */
    size_t known = nq_tokenizer_vocab(g->m->tokenizer);
    uint32_t vocab = known < model->hyper.vocab ? (uint32_t)known : model->hyper.vocab;
    NQ_TRY(nq_sampler_open(&g->sampler, &s, vocab, err));
    NQ_TRY(nq_alloc_raw(&g->logits, model->hyper.vocab, sizeof *g->logits, err));
    NQ_TRY(nq_run_open(&g->run, model, 1, n_ctx, PROMPT_BLOCK, err));
    NQ_TRY(feed_prompt(g, ids, count, err));
    if (o->max_tokens == 0) {
        g->stop = "length";
    }
    while (g->stop == NULL) {
        NQ_TRY(next_token(g, n_ctx, err));
    }
    return strcmp(g->stop, "callback") == 0 ? NOVAQ_OK : stream(g, "", 0, true, err);
}

static double seconds_since(const struct timespec *start) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)(now.tv_sec - start->tv_sec) + 1e-9 * (double)(now.tv_nsec - start->tv_nsec);
}

static novaq_status write_report(char **report, const generation *g, double seconds,
                                 novaq_error *err) {
    json_t *text =
        g->text.len == 0 ? json_string("") : json_stringn((const char *)g->text.data, g->text.len);
    json_t *o = json_pack("{s:o, s:I, s:I, s:f, s:s}", "text", text, "prompt_tokens",
                          (json_int_t)g->prompt_tokens, "tokens", (json_int_t)g->tokens, "seconds",
                          seconds, "stop", g->stop);
    if (o == NULL) {
        return nq_fail(err, NOVAQ_E_MEMORY, "cannot report the generated text");
    }
    novaq_status st = nq_json_dump(report, o, 2, err);
    json_decref(o);
    return st;
}

novaq_status novaq_generate(char **report, novaq_model *m, const novaq_generate_options *opt,
                            novaq_error *err) {
    struct timespec start;
    int32_t *ids = NULL;
    size_t count = 0;
    if (report != NULL) {
        *report = NULL;
    }
    if (m == NULL || opt == NULL || opt->struct_size < sizeof *opt || opt->prompt == NULL) {
        return nq_fail(err, NOVAQ_E_ARG, "novaq_generate: no prompt, or options not initialised");
    }
    clock_gettime(CLOCK_MONOTONIC, &start);
    generation g = {.m = m, .opt = opt, .text = nq_buf_init(MAX_TEXT)};
    novaq_status st = nq_tokenizer_encode(&ids, &count, m->tokenizer, opt->prompt,
                                          strlen(opt->prompt), 1, opt->parse_special, err);
    if (st == NOVAQ_OK) {
        st = generate(&g, ids, count, err);
    }
    if (st == NOVAQ_OK && report != NULL) {
        st = write_report(report, &g, seconds_since(&start), err);
    }
    nq_free(ids);
    nq_run_close(&g.run);
    nq_sampler_close(&g.sampler);
    nq_free(g.logits);
    nq_buf_free(&g.text);
    return st;
}
