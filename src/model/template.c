/* template.c - see template.h. */
#include "model/template.h"

#include <stdarg.h>
#include <string.h>

#include "model/template_impl.h"

/* Bytes of a template; the largest published ones have 40 kB. */
#define MAX_TEXT ((size_t)4 << 20)
/* Nested evaluations, each a few hundred bytes of stack. */
#define MAX_DEPTH      600
#define DEFAULT_STEPS  ((uint64_t)40 * 1000 * 1000)
#define DEFAULT_MEMORY ((size_t)512 << 20)
#define DEFAULT_OUTPUT ((size_t)64 << 20)

novaq_status nq_tfail(nq_tctx *c, const char *fmt, ...) {
    char text[400];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return nq_fail(c->err, NOVAQ_E_FORMAT, "chat template, line %u: %s", c->line, text);
}

novaq_status nq_tcharge(nq_tctx *c, uint64_t n) {
    c->steps += 1 + n / 16;
    if (c->steps > c->limits.steps) {
        return nq_fail(c->err, NOVAQ_E_MEMORY, "chat template, line %u: does not come to an end",
                       c->line);
    }
    return NOVAQ_OK;
}

novaq_status nq_tenter(nq_tctx *c) {
    return ++c->depth > MAX_DEPTH ? nq_tfail(c, "calls are nested too deeply") : NOVAQ_OK;
}

novaq_status nq_template_open(nq_template **out, const char *text, size_t len, novaq_error *err) {
    nq_template *t = NULL;
    nq_ttoken *tokens = NULL;
    *out = NULL;
    if (len > MAX_TEXT) {
        return nq_fail(err, NOVAQ_E_FORMAT, "chat template: %zu bytes, more than %zu", len,
                       MAX_TEXT);
    }
    NQ_TRY(nq_alloc(&t, 1, sizeof *t, err));
    t->arena.max = DEFAULT_MEMORY;
    novaq_status st = nq_tlex(&tokens, &t->arena, text, len, err);
    if (st == NOVAQ_OK) {
        st = nq_tparse(&t->body, &t->arena, tokens, err);
    }
    if (st != NOVAQ_OK) {
        nq_template_close(&t);
        return st;
    }
    *out = t;
    return NOVAQ_OK;
}

void nq_template_close(nq_template **pt) {
    if (pt == NULL || *pt == NULL) {
        return;
    }
    nq_tarena_free(&(*pt)->arena);
    nq_free(*pt);
    *pt = NULL;
}

static novaq_status render(nq_tctx *c, const nq_template *t, const json_t *variables) {
    nq_tval v;
    nq_tscope *given = NULL;
    NQ_TRY(nq_tv_from_json(c, &v, variables));
    if (v.type != NQ_TV_DICT) {
        return nq_fail(c->err, NOVAQ_E_ARG, "chat template: the variables are not an object");
    }
    NQ_TRY(nq_tscope_new(c, &given, NULL));
    for (size_t i = 0; i < v.u.dict->n; i++) {
        NQ_TRY(nq_tscope_set(c, given, v.u.dict->keys[i].u.s, v.u.dict->values[i]));
    }
    NQ_TRY(nq_tscope_new(c, &c->scope, given));
    return nq_texec(c, t->body);
}

novaq_status nq_template_render(char **text, size_t *len, const nq_template *t,
                                const json_t *variables, const struct tm *now,
                                const nq_template_limits *limits, novaq_error *err) {
    static const nq_template_limits generous = {DEFAULT_STEPS, DEFAULT_MEMORY, DEFAULT_OUTPUT};
    nq_tctx c = {.limits = limits != NULL ? *limits : generous, .line = 1, .now = now, .err = err};
    *text = NULL;
    *len = 0;
    nq_buf out = nq_tbuf(&c);
    c.arena.max = c.limits.memory;
    c.out = &out;
    novaq_status st = render(&c, t, variables);
    if (st == NOVAQ_OK) {
        st = nq_buf_take(&out, text, len, err);
    }
    nq_buf_free(&out);
    nq_tarena_free(&c.arena);
    return st;
}
