/* session.c - generating text, and the cache that outlives one generation.
 *
 * Owns: turning tokens into a stream of whole UTF-8 characters, texts that stop
 * it, the other reasons a generation ends, and which part of a prompt the cache
 * already holds. Refuses: choosing tokens (sampler.h). */
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "model/api_model.h"
#include "model/sampler.h"
#include "model/utf8.h"

/* Prompt tokens fed at once. */
#define PROMPT_BLOCK 512
/* Bytes of text one call may generate. */
#define MAX_TEXT ((size_t)64 << 20)
/* Positions of a session that asks for none in particular. */
#define DEFAULT_CONTEXT 8192

struct novaq_session {
    const novaq_model *m;
    nq_run *run;
    uint32_t n_ctx;
    uint32_t held; /* tokens whose keys and values the run has */
    int32_t *ids;  /* (n_ctx) those tokens */
    float *logits; /* (vocab) */
};

typedef struct generation {
    novaq_session *s;
    const novaq_generate_options *opt;
    nq_sampler *sampler;
    nq_buf text;        /* all that was emitted */
    nq_buf waiting;     /* whole characters that may begin a stop text */
    uint8_t pending[8]; /* bytes of a character that is not whole yet */
    size_t pending_len;
    uint32_t prompt_tokens, reused, tokens;
    double prompt_seconds, seconds;
    const char *stop;
} generation;

/* ---- sessions ------------------------------------------------------------- */

/* One place that knows the spellings of cache types. */
static novaq_status kv_type(nq_kv_type *out, const char *name, novaq_error *err) {
    static const struct {
        const char *name;
        nq_kv_type type;
    } table[] = {{"f16", NQ_KV_F16}, {"f32", NQ_KV_F32}, {"q8", NQ_KV_Q8}};
    name = name == NULL ? "f16" : name;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        if (strcmp(name, table[i].name) == 0) {
            *out = table[i].type;
            return NOVAQ_OK;
        }
    }
    return nq_fail(err, NOVAQ_E_ARG, "'%.40s' is no key/value cache type (f16, f32, q8)", name);
}

static novaq_status open_session(novaq_session **out, const novaq_model *m, uint32_t n_ctx,
                                 const char *kv, novaq_error *err) {
    nq_kv_type type = NQ_KV_F16;
    novaq_session *s = NULL;
    *out = NULL;
    NQ_TRY(kv_type(&type, kv, err));
    NQ_TRY(nq_alloc(&s, 1, sizeof *s, err));
    s->m = m;
    s->n_ctx = n_ctx;
    const nq_run_options run = {.sequences = 1, .n_ctx = n_ctx, .block = PROMPT_BLOCK, .kv = type};
    novaq_status st = nq_run_open_with(&s->run, m->model, &run, err);
    if (st == NOVAQ_OK) {
        st = nq_alloc_raw(&s->ids, n_ctx, sizeof *s->ids, err);
    }
    if (st == NOVAQ_OK) {
        st = nq_alloc_raw(&s->logits, m->model->hyper.vocab, sizeof *s->logits, err);
    }
    if (st != NOVAQ_OK) {
        novaq_session_close(&s);
        return st;
    }
    *out = s;
    return NOVAQ_OK;
}

novaq_status novaq_session_open(novaq_session **out, novaq_model *m,
                                const novaq_session_options *opt, novaq_error *err) {
    const novaq_session_options preset = NOVAQ_SESSION_OPTIONS_INIT;
    *out = NULL;
    opt = opt == NULL ? &preset : opt;
    if (m == NULL || opt->struct_size < sizeof *opt) {
        return nq_fail(err, NOVAQ_E_ARG, "novaq_session_open: no model, or options not set");
    }
    uint32_t context = m->model->hyper.context;
    uint32_t n_ctx = context < DEFAULT_CONTEXT ? context : DEFAULT_CONTEXT;
    if (opt->n_ctx > context) {
        return nq_fail(err, NOVAQ_E_ARG, "a context of %u, the model was made for %u", opt->n_ctx,
                       context);
    }
    return open_session(out, m, opt->n_ctx > 0 ? opt->n_ctx : n_ctx, opt->kv_type, err);
}

void novaq_session_close(novaq_session **ps) {
    if (ps == NULL || *ps == NULL) {
        return;
    }
    novaq_session *s = *ps;
    *ps = NULL;
    nq_run_close(&s->run);
    nq_free(s->ids);
    nq_free(s->logits);
    nq_free(s);
}

unsigned novaq_session_n_ctx(const novaq_session *s) { return s->n_ctx; }

/* ---- text out --------------------------------------------------------------- */

/* Hands a piece of whole characters to the callback. */
static novaq_status emit(generation *g, const void *s, size_t len, novaq_error *err) {
    if (len == 0) {
        return NOVAQ_OK;
    }
    NQ_TRY(nq_buf_append(&g->text, s, len, err));
    if (g->opt->text != NULL && g->opt->text(g->opt->text_ctx, s, len) != 0) {
        g->stop = "callback";
    }
    return NOVAQ_OK;
}

/* Bytes at the end of w that a stop text begins with, the longest such. */
static size_t may_continue(const nq_buf *w, const char *stop) {
    size_t n = strlen(stop);
    for (size_t k = n - 1 < w->len ? n - 1 : w->len; k > 0; k--) {
        if (memcmp(w->data + w->len - k, stop, k) == 0) {
            return k;
        }
    }
    return 0;
}

/* Emits what no stop text can swallow any more, all of it at the end. */
static novaq_status release(generation *g, bool last, novaq_error *err) {
    nq_buf *w = &g->waiting;
    size_t first = w->len; /* where the earliest stop text begins */
    size_t keep = 0;
    for (size_t i = 0; i < g->opt->stop_count && w->len > 0; i++) {
        const char *stop = g->opt->stop[i];
        if (stop[0] == '\0') {
            continue;
        }
        const uint8_t *at = memmem(w->data, w->len, stop, strlen(stop));
        first = at != NULL && (size_t)(at - w->data) < first ? (size_t)(at - w->data) : first;
        size_t k = may_continue(w, stop);
        keep = k > keep ? k : keep;
    }
    bool found = first < w->len;
    size_t n = found ? first : last ? w->len : w->len - keep;
    NQ_TRY(emit(g, w->data, n, err));
    if (found) {
        g->stop = "stop";
        w->len = 0;
    } else if (n > 0) {
        w->len -= n;
        memmove(w->data, w->data + n, w->len);
    }
    return NOVAQ_OK;
}

/* Adds bytes of one token; passes on what became whole, U+FFFD for what never can. */
static novaq_status stream(generation *g, const char *bytes, size_t len, bool last,
                           novaq_error *err) {
    for (size_t i = 0; i < len; i++) {
        g->pending[g->pending_len++] = (uint8_t)bytes[i];
        for (int n = -1; g->pending_len > 0 && n != 0;) {
            n = nq_utf8_whole(g->pending, g->pending_len);
            if (n != 0) {
                size_t used = n < 0 ? 1 : (size_t)n;
                NQ_TRY(n < 0 ? nq_buf_puts(&g->waiting, "\xEF\xBF\xBD", err)
                             : nq_buf_append(&g->waiting, g->pending, used, err));
                g->pending_len -= used;
                memmove(g->pending, g->pending + used, g->pending_len);
            }
        }
    }
    if (last && g->pending_len > 0) {
        g->pending_len = 0;
        NQ_TRY(nq_buf_puts(&g->waiting, "\xEF\xBF\xBD", err));
    }
    return release(g, last, err);
}

/* ---- tokens ------------------------------------------------------------------- */

/* Feeds count tokens behind those held; their keys and values are held, too. */
static novaq_status feed(novaq_session *s, const int32_t *ids, uint32_t count, novaq_error *err) {
    novaq_status st = nq_run_feed(s->run, ids, 1, count, err);
    if (st != NOVAQ_OK) { /* nobody knows what is in the cache now */
        nq_run_reset(s->run);
        s->held = 0;
        return st;
    }
    memmove(s->ids + s->held, ids, count * sizeof *ids);
    s->held += count;
    return NOVAQ_OK;
}

static novaq_status feed_prompt(generation *g, const int32_t *ids, uint32_t count,
                                novaq_error *err) {
    novaq_session *s = g->s;
    uint32_t last = 0;
    uint32_t same = 0;
    while (same < s->held && same + 1 < count && s->ids[same] == ids[same]) {
        same++;
    }
    nq_run_rewind(s->run, same);
    s->held = same;
    g->reused = same;
    for (uint32_t at = same; at < count;) {
        uint32_t n = count - at < PROMPT_BLOCK ? count - at : PROMPT_BLOCK;
        NQ_TRY(feed(s, ids + at, n, err));
        at += n;
        last = n - 1;
        if (at < count && g->opt->text != NULL && g->opt->text(g->opt->text_ctx, "", 0) != 0) {
            g->stop = "callback"; /* long prompts can be stopped, too */
            return NOVAQ_OK;
        }
    }
    for (uint32_t i = count < NQ_REPEAT_WINDOW ? 0 : count - NQ_REPEAT_WINDOW; i < count; i++) {
        nq_sampler_accept(g->sampler, ids[i]);
    }
    return nq_run_logits(s->logits, s->run, &last, 1, err);
}

static novaq_status next_token(generation *g, novaq_error *err) {
    int32_t token = 0;
    uint32_t row = 0;
    size_t len = 0;
    novaq_session *s = g->s;
    NQ_TRY(nq_sampler_draw(&token, g->sampler, s->logits, err));
    if (nq_tokenizer_is_end(s->m->tokenizer, token) && !g->opt->ignore_eos) {
        g->stop = "eos";
        return NOVAQ_OK;
    }
    g->tokens++;
    nq_sampler_accept(g->sampler, token);
    const uint8_t *bytes = nq_tokenizer_piece(&len, s->m->tokenizer, token, 1);
    NQ_TRY(stream(g, (const char *)bytes, len, false, err));
    if (g->stop == NULL && g->tokens >= g->opt->max_tokens) {
        g->stop = "length";
    } else if (g->stop == NULL && s->held >= s->n_ctx) {
        g->stop = "context";
    }
    if (g->stop != NULL) {
        return NOVAQ_OK;
    }
    NQ_TRY(feed(s, &token, 1, err));
    return nq_run_logits(s->logits, s->run, &row, 1, err);
}

static novaq_status run_tokens(generation *g, const int32_t *ids, uint32_t count,
                               novaq_error *err) {
    double start = nq_seconds();
    NQ_TRY(feed_prompt(g, ids, count, err));
    double prompted = nq_seconds();
    g->prompt_seconds = prompted - start;
    if (g->stop == NULL && g->opt->max_tokens == 0) {
        g->stop = "length";
    }
    while (g->stop == NULL) {
        NQ_TRY(next_token(g, err));
    }
    g->seconds = nq_seconds() - prompted;
    return strcmp(g->stop, "callback") == 0 || strcmp(g->stop, "stop") == 0
               ? NOVAQ_OK
               : stream(g, "", 0, true, err);
}

/* ---- the whole ------------------------------------------------------------------ */

static novaq_status write_report(char **report, const generation *g, double seconds,
                                 novaq_error *err) {
    const char *bytes = g->text.len == 0 ? "" : (const char *)g->text.data;
    json_t *text = json_stringn(bytes, g->text.len);
    json_t *o = json_pack("{s:o, s:I, s:I, s:I, s:f, s:f, s:f, s:I, s:s}", "text", text,
                          "prompt_tokens", (json_int_t)g->prompt_tokens, "reused_tokens",
                          (json_int_t)g->reused, "tokens", (json_int_t)g->tokens, "seconds",
                          seconds, "prompt_seconds", g->prompt_seconds, "generate_seconds",
                          g->seconds, "n_ctx", (json_int_t)g->s->n_ctx, "stop", g->stop);
    if (o == NULL) {
        return nq_fail(err, NOVAQ_E_MEMORY, "cannot report the generated text");
    }
    novaq_status st = nq_json_dump(report, o, 2, err);
    json_decref(o);
    return st;
}

static novaq_status open_sampler(nq_sampler **out, const novaq_model *m,
                                 const novaq_generate_options *o, novaq_error *err) {
    const nq_sampling s = {.temperature = o->temperature,
                           .top_k = o->top_k,
                           .top_p = o->top_p,
                           .min_p = o->min_p,
                           .repeat_penalty = o->repeat_penalty,
                           .seed = o->seed};
    /* Padded vocabularies have logits that no token stands for. */
    size_t known = nq_tokenizer_vocab(m->tokenizer);
    uint32_t vocab = m->model->hyper.vocab;
    return nq_sampler_open(out, &s, known < vocab ? (uint32_t)known : vocab, err);
}

static bool is_utf8(const char *s) {
    size_t len = strlen(s);
    for (size_t i = 0; i < len;) {
        int n = nq_utf8_whole((const uint8_t *)s + i, len - i);
        if (n <= 0) {
            return false;
        }
        i += (size_t)n;
    }
    return true;
}

static novaq_status check(const novaq_generate_options *opt, novaq_error *err) {
    if (opt == NULL || opt->struct_size < sizeof *opt ||
        (opt->prompt == NULL) == (opt->chat == NULL) ||
        (opt->stop_count > 0 && opt->stop == NULL)) {
        return nq_fail(err, NOVAQ_E_ARG, "generate: no prompt, or options not initialised");
    }
    for (size_t i = 0; i < opt->stop_count; i++) { /* or half a character could be left */
        if (!is_utf8(opt->stop[i])) {
            return nq_fail(err, NOVAQ_E_ARG, "a stop text is not UTF-8");
        }
    }
    return NOVAQ_OK;
}

static novaq_status check_count(size_t count, uint32_t n_ctx, const char *whose, novaq_error *err) {
    if (count == 0) {
        return nq_fail(err, NOVAQ_E_ARG,
                       "the prompt is empty, and this model has no token that begins a text; give "
                       "at least one character");
    }
    if (count > n_ctx) {
        return nq_fail(err, NOVAQ_E_ARG, "the prompt has %zu tokens, the %s context %u", count,
                       whose, n_ctx);
    }
    return NOVAQ_OK;
}

static novaq_status session_generate(char **report, novaq_session *s,
                                     const novaq_generate_options *opt, const int32_t *ids,
                                     size_t count, double start, novaq_error *err) {
    generation g = {.s = s,
                    .opt = opt,
                    .prompt_tokens = (uint32_t)count,
                    .text = nq_buf_init(MAX_TEXT),
                    .waiting = nq_buf_init(MAX_TEXT)};
    novaq_status st = open_sampler(&g.sampler, s->m, opt, err);
    if (st == NOVAQ_OK) {
        st = run_tokens(&g, ids, (uint32_t)count, err);
    }
    if (st == NOVAQ_OK && report != NULL) {
        st = write_report(report, &g, nq_seconds() - start, err);
    }
    nq_sampler_close(&g.sampler);
    nq_buf_free(&g.text);
    nq_buf_free(&g.waiting);
    return st;
}

novaq_status novaq_session_generate(char **report, novaq_session *s,
                                    const novaq_generate_options *opt, novaq_error *err) {
    double start = nq_seconds();
    int32_t *ids = NULL;
    size_t count = 0;
    if (report != NULL) {
        *report = NULL;
    }
    if (s == NULL) {
        return nq_fail(err, NOVAQ_E_ARG, "novaq_session_generate: no session");
    }
    NQ_TRY(check(opt, err));
    NQ_TRY(nq_prompt_ids(&ids, &count, s->m, opt, err));
    novaq_status st = check_count(count, s->n_ctx, "session's", err);
    if (st == NOVAQ_OK) {
        st = session_generate(report, s, opt, ids, count, start, err);
    }
    nq_free(ids);
    return st;
}

/* Positions a generation on its own needs. */
static novaq_status needed(uint32_t *n_ctx, const novaq_model *m, const novaq_generate_options *o,
                           size_t count, novaq_error *err) {
    uint32_t context = m->model->hyper.context;
    if (o->n_ctx > context) {
        return nq_fail(err, NOVAQ_E_ARG, "a context of %u, the model was made for %u", o->n_ctx,
                       context);
    }
    NQ_TRY(check_count(count, context, "model's", err));
    uint64_t wanted = o->n_ctx > 0 ? o->n_ctx : (uint64_t)count + o->max_tokens;
    *n_ctx = wanted < context ? (uint32_t)wanted : context;
    return o->n_ctx > 0 ? check_count(count, *n_ctx, "given", err) : NOVAQ_OK;
}

novaq_status novaq_generate(char **report, novaq_model *m, const novaq_generate_options *opt,
                            novaq_error *err) {
    double start = nq_seconds();
    int32_t *ids = NULL;
    size_t count = 0;
    uint32_t n_ctx = 0;
    novaq_session *s = NULL;
    if (report != NULL) {
        *report = NULL;
    }
    if (m == NULL) {
        return nq_fail(err, NOVAQ_E_ARG, "novaq_generate: no model");
    }
    NQ_TRY(check(opt, err));
    NQ_TRY(nq_prompt_ids(&ids, &count, m, opt, err));
    novaq_status st = needed(&n_ctx, m, opt, count, err);
    if (st == NOVAQ_OK) {
        st = open_session(&s, m, n_ctx, opt->kv_type, err);
    }
    if (st == NOVAQ_OK) {
        st = session_generate(report, s, opt, ids, count, start, err);
    }
    novaq_session_close(&s);
    nq_free(ids);
    return st;
}
