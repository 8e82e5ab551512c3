/* template_parse.c - the statements of a template, from tokens to a tree.
 *
 * Refuses, by name: what needs other templates (include, import, extends, block)
 * and recursive loops. */
#include <stdarg.h>
#include <string.h>

#include "model/template_impl.h"

/* Levels of brackets and statements. */
#define MAX_NESTING 100

static novaq_status body(nq_tnode **out, nq_tparser *p, const char *const *ends);

novaq_status nq_tparse_fail(const nq_tparser *p, const char *fmt, ...) {
    char text[256];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return nq_fail(p->err, NOVAQ_E_FORMAT, "chat template, line %u: %s", p->at->line, text);
}

novaq_status nq_tparse_node(nq_tnode **out, nq_tparser *p, nq_tkind kind) {
    nq_tnode *n = NULL;
    NQ_TRY(nq_tarena_get(&n, p->arena, 1, sizeof *n, p->err));
    *n = (nq_tnode){.kind = kind, .line = p->at->line};
    *out = n;
    return NOVAQ_OK;
}

novaq_status nq_tparse_enter(nq_tparser *p) {
    return ++p->depth > MAX_NESTING ? nq_tparse_fail(p, "nested too deeply") : NOVAQ_OK;
}

bool nq_tparse_is(const nq_tparser *p, const char *name) {
    return p->at->kind == NQ_TT_NAME && nq_tstr_is(p->at->str, name);
}

bool nq_tparse_skip(nq_tparser *p, const char *name) {
    bool is = nq_tparse_is(p, name);
    p->at += is ? 1 : 0;
    return is;
}

novaq_status nq_tparse_expect(nq_tparser *p, int kind, const char *what) {
    if (p->at->kind != kind) {
        return nq_tparse_fail(p, "%s was expected", what);
    }
    p->at++;
    return NOVAQ_OK;
}

static novaq_status end_of_tag(nq_tparser *p) {
    return nq_tparse_expect(p, NQ_TT_BLOCK_END, "the end of the tag");
}

/* A body, its end tag NAME and the end of that tag. */
static novaq_status body_until(nq_tnode **out, nq_tparser *p, const char *name) {
    const char *const ends[] = {name, NULL};
    NQ_TRY(end_of_tag(p));
    NQ_TRY(body(out, p, ends));
    p->at++;
    return end_of_tag(p);
}

/* ---- targets of assignments --------------------------------------------------- */

static novaq_status target_name(nq_tnode **out, nq_tparser *p, bool attribute) {
    if (p->at->kind == '(') {
        return nq_tparse_fail(p, "only names can be assigned to");
    }
    NQ_TRY(nq_tparse_node(out, p, NQ_TN_NAME));
    (*out)->str = p->at->str;
    NQ_TRY(nq_tparse_expect(p, NQ_TT_NAME, "a name"));
    if (attribute && p->at->kind == '.') {
        nq_tnode *n = NULL;
        NQ_TRY(nq_tparse_node(&n, p, NQ_TN_ATTR));
        n->a = *out;
        *out = n;
        p->at++;
        n->str = p->at->str;
        NQ_TRY(nq_tparse_expect(p, NQ_TT_NAME, "a name after '.'"));
    }
    return NOVAQ_OK;
}

/* name | name.name | name, name, ... | (name, ...) */
static novaq_status target(nq_tnode **out, nq_tparser *p, bool attribute) {
    bool bracket = p->at->kind == '(';
    nq_tnode *first = NULL;
    p->at += bracket ? 1 : 0;
    NQ_TRY(target_name(&first, p, attribute));
    *out = first;
    if (p->at->kind == ',') {
        NQ_TRY(nq_tparse_node(out, p, NQ_TN_TUPLE));
        (*out)->a = first;
        for (nq_tnode *last = first; last != NULL && p->at->kind == ','; last = last->next) {
            p->at++;
            if (p->at->kind != NQ_TT_NAME || nq_tparse_is(p, "in")) {
                break;
            }
            NQ_TRY(target_name(&last->next, p, attribute));
        }
    }
    return bracket ? nq_tparse_expect(p, ')', "')'") : NOVAQ_OK;
}

/* ---- statements ------------------------------------------------------------------ */

static novaq_status statement_if(nq_tnode **out, nq_tparser *p) {
    static const char *const ends[] = {"elif", "else", "endif", NULL};
    NQ_TRY(nq_tparse_node(out, p, NQ_TN_IF));
    nq_tnode **tail = &(*out)->a;
    bool last = false;
    do {
        NQ_TRY(nq_tparse_node(tail, p, NQ_TN_BRANCH));
        if (!last) {
            NQ_TRY(nq_tparse_tuple(&(*tail)->a, p, false));
        }
        NQ_TRY(end_of_tag(p));
        NQ_TRY(body(&(*tail)->d, p, ends + (last ? 2 : 0)));
        tail = &(*tail)->next;
        last = nq_tparse_skip(p, "else");
    } while (last || nq_tparse_skip(p, "elif"));
    p->at++;
    return end_of_tag(p);
}

static novaq_status statement_for(nq_tnode **out, nq_tparser *p) {
    static const char *const ends[] = {"else", "endfor", NULL};
    NQ_TRY(nq_tparse_node(out, p, NQ_TN_FOR));
    nq_tnode *n = *out;
    NQ_TRY(target(&n->a, p, false));
    if (!nq_tparse_skip(p, "in")) {
        return nq_tparse_fail(p, "'in' was expected");
    }
    NQ_TRY(nq_tparse_tuple(&n->b, p, false));
    if (nq_tparse_skip(p, "if")) {
        NQ_TRY(nq_tparse_expr(&n->c, p, true));
    }
    if (nq_tparse_is(p, "recursive")) {
        return nq_fail(p->err, NOVAQ_E_UNSUPPORTED,
                       "chat template, line %u: recursive loops are not supported", p->at->line);
    }
    NQ_TRY(end_of_tag(p));
    p->loops++;
    NQ_TRY(body(&n->d, p, ends));
    p->loops--;
    if (nq_tparse_skip(p, "else")) {
        NQ_TRY(end_of_tag(p));
        NQ_TRY(body(&n->e, p, ends + 1));
    }
    p->at++;
    return end_of_tag(p);
}

static novaq_status statement_set(nq_tnode **out, nq_tparser *p) {
    NQ_TRY(nq_tparse_node(out, p, NQ_TN_SET));
    nq_tnode *n = *out;
    NQ_TRY(target(&n->a, p, true));
    if (p->at->kind == '=') {
        p->at++;
        NQ_TRY(nq_tparse_tuple(&n->b, p, true));
        return end_of_tag(p);
    }
    n->kind = NQ_TN_SETBLOCK;
    NQ_TRY(nq_tparse_filters(&n->b, p, false));
    return body_until(&n->d, p, "endset");
}

static novaq_status parameters(nq_tnode **first, nq_tparser *p) {
    bool preset = false;
    NQ_TRY(nq_tparse_expect(p, '(', "'('"));
    for (nq_tnode **tail = first; p->at->kind != ')'; tail = &(*tail)->next) {
        NQ_TRY(nq_tparse_node(tail, p, NQ_TN_KEYWORD));
        (*tail)->str = p->at->str;
        NQ_TRY(nq_tparse_expect(p, NQ_TT_NAME, "the name of a parameter"));
        if (p->at->kind == '=') {
            p->at++;
            preset = true;
            NQ_TRY(nq_tparse_expr(&(*tail)->a, p, true));
        } else if (preset) {
            return nq_tparse_fail(p, "a parameter without a default after one with a default");
        }
        if (p->at->kind != ')') {
            NQ_TRY(nq_tparse_expect(p, ',', "',' or ')'"));
        }
    }
    p->at++;
    return NOVAQ_OK;
}

/* From the parameters on; loops outside do not reach into a macro. */
static novaq_status macro_rest(nq_tnode *n, nq_tparser *p, const char *end) {
    unsigned loops = p->loops;
    unsigned outside = p->mentioned;
    p->loops = 0;
    p->mentioned = 0;
    NQ_TRY(body_until(&n->d, p, end));
    n->flags = p->mentioned;
    p->mentioned = outside;
    p->loops = loops;
    return NOVAQ_OK;
}

static novaq_status statement_macro(nq_tnode **out, nq_tparser *p) {
    NQ_TRY(nq_tparse_node(out, p, NQ_TN_MACRO));
    (*out)->str = p->at->str;
    NQ_TRY(nq_tparse_expect(p, NQ_TT_NAME, "the name of a macro"));
    NQ_TRY(parameters(&(*out)->a, p));
    return macro_rest(*out, p, "endmacro");
}

static novaq_status statement_call(nq_tnode **out, nq_tparser *p) {
    NQ_TRY(nq_tparse_node(out, p, NQ_TN_CALLER));
    nq_tnode *n = *out;
    NQ_TRY(nq_tparse_node(&n->b, p, NQ_TN_MACRO));
    n->b->str = NQ_TSTR("caller");
    if (p->at->kind == '(') {
        NQ_TRY(parameters(&n->b->a, p));
    }
    NQ_TRY(nq_tparse_expr(&n->a, p, true));
    if (n->a->kind != NQ_TN_CALL) {
        return nq_tparse_fail(p, "a call was expected");
    }
    nq_tnode **tail = &n->a->c; /* the macro becomes the argument "caller" */
    while (*tail != NULL) {
        tail = &(*tail)->next;
    }
    NQ_TRY(nq_tparse_node(tail, p, NQ_TN_KEYWORD));
    (*tail)->str = n->b->str;
    NQ_TRY(nq_tparse_node(&(*tail)->a, p, NQ_TN_NAME));
    (*tail)->a->str = n->b->str;
    return macro_rest(n->b, p, "endcall");
}

static novaq_status statement_filter(nq_tnode **out, nq_tparser *p) {
    NQ_TRY(nq_tparse_node(out, p, NQ_TN_FILTERED));
    NQ_TRY(nq_tparse_filters(&(*out)->b, p, true));
    return body_until(&(*out)->d, p, "endfilter");
}

static novaq_status statement_with(nq_tnode **out, nq_tparser *p) {
    NQ_TRY(nq_tparse_node(out, p, NQ_TN_WITH));
    for (nq_tnode **tail = &(*out)->a; p->at->kind != NQ_TT_BLOCK_END; tail = &(*tail)->next) {
        NQ_TRY(nq_tparse_node(tail, p, NQ_TN_PAIR));
        NQ_TRY(target_name(&(*tail)->a, p, false));
        NQ_TRY(nq_tparse_expect(p, '=', "'='"));
        NQ_TRY(nq_tparse_expr(&(*tail)->b, p, true));
        if (p->at->kind != NQ_TT_BLOCK_END) {
            NQ_TRY(nq_tparse_expect(p, ',', "',' or the end of the tag"));
        }
    }
    return body_until(&(*out)->d, p, "endwith");
}

/* Marks what a model is trained on; rendering sees through it. */
static novaq_status statement_generation(nq_tnode **out, nq_tparser *p) {
    NQ_TRY(nq_tparse_node(out, p, NQ_TN_GROUP));
    return body_until(&(*out)->d, p, "endgeneration");
}

static novaq_status loop_control(nq_tnode **out, nq_tparser *p, nq_tkind kind) {
    if (p->loops == 0) {
        return nq_tparse_fail(p, "break and continue belong in a loop");
    }
    NQ_TRY(nq_tparse_node(out, p, kind));
    return end_of_tag(p);
}

static novaq_status statement_break(nq_tnode **out, nq_tparser *p) {
    return loop_control(out, p, NQ_TN_BREAK);
}

static novaq_status statement_continue(nq_tnode **out, nq_tparser *p) {
    return loop_control(out, p, NQ_TN_CONTINUE);
}

static novaq_status statement(nq_tnode **out, nq_tparser *p) {
    static const struct {
        const char *name;
        novaq_status (*fn)(nq_tnode **out, nq_tparser *p);
    } table[] = {{"if", statement_if},
                 {"for", statement_for},
                 {"set", statement_set},
                 {"macro", statement_macro},
                 {"call", statement_call},
                 {"filter", statement_filter},
                 {"with", statement_with},
                 {"generation", statement_generation},
                 {"break", statement_break},
                 {"continue", statement_continue},
                 {"include", NULL},
                 {"import", NULL},
                 {"from", NULL},
                 {"extends", NULL},
                 {"block", NULL},
                 {"autoescape", NULL},
                 {"trans", NULL}};
    if (p->at->kind != NQ_TT_NAME) {
        return nq_tparse_fail(p, "the name of a tag was expected");
    }
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        if (nq_tparse_is(p, table[i].name)) {
            if (table[i].fn == NULL) {
                return nq_fail(p->err, NOVAQ_E_UNSUPPORTED,
                               "chat template, line %u: '%s' is not supported", p->at->line,
                               table[i].name);
            }
            p->at++;
            NQ_TRY(nq_tparse_enter(p));
            NQ_TRY(table[i].fn(out, p));
            p->depth--;
            return NOVAQ_OK;
        }
    }
    return nq_tparse_fail(p, "unknown tag '%.*s'", (int)(p->at->str.n < 40 ? p->at->str.n : 40),
                          p->at->str.p);
}

static bool is_end(const nq_tparser *p, const char *const *ends) {
    for (size_t i = 0; ends != NULL && ends[i] != NULL; i++) {
        if (nq_tparse_is(p, ends[i])) {
            return true;
        }
    }
    return false;
}

/* Statements up to one of the end tags (stopping on its name), or, with ends ==
 * NULL, to the end of the text. */
static novaq_status body(nq_tnode **out, nq_tparser *p, const char *const *ends) {
    nq_tnode **tail = out;
    for (*out = NULL;; tail = *tail != NULL ? &(*tail)->next : tail) {
        switch (p->at->kind) {
        case NQ_TT_DATA:
            NQ_TRY(nq_tparse_node(tail, p, NQ_TN_DATA));
            (*tail)->str = p->at->str;
            p->at++;
            break;
        case NQ_TT_VAR_BEGIN:
            p->at++;
            NQ_TRY(nq_tparse_node(tail, p, NQ_TN_OUTPUT));
            NQ_TRY(nq_tparse_tuple(&(*tail)->a, p, true));
            NQ_TRY(nq_tparse_expect(p, NQ_TT_VAR_END, "the end of the tag"));
            break;
        case NQ_TT_BLOCK_BEGIN:
            p->at++;
            if (is_end(p, ends)) {
                return NOVAQ_OK;
            }
            NQ_TRY(statement(tail, p));
            break;
        default:
            return ends == NULL ? NOVAQ_OK
                                : nq_tparse_fail(p, "the text ends before '%s'",
                                                 ends[1] == NULL ? ends[0] : "endif or endfor");
        }
    }
}

novaq_status nq_tparse(nq_tnode **out, nq_tarena *a, const nq_ttoken *tokens, novaq_error *err) {
    nq_tparser p = {.arena = a, .at = tokens, .err = err};
    return body(out, &p, NULL);
}
