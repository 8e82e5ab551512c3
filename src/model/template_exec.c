/* template_exec.c - running the statements of a template.
 *
 * Owns: scopes (a loop's body has one of its own, anew for each item; an if has
 * none; a macro sees where it was defined), the output. */
#include <string.h>

#include "model/template_impl.h"

/* ---- scopes ------------------------------------------------------------------ */

novaq_status nq_tscope_new(nq_tctx *c, nq_tscope **out, nq_tscope *parent) {
    NQ_TRY(nq_tarena_get(out, &c->arena, 1, sizeof **out, c->err));
    **out = (nq_tscope){.parent = parent};
    return NOVAQ_OK;
}

novaq_status nq_tscope_set(nq_tctx *c, nq_tscope *s, nq_tstr name, nq_tval v) {
    NQ_TRY(nq_tcharge(c, s->n));
    for (size_t i = 0; i < s->n; i++) {
        if (nq_tstr_eq(s->vars[i].name, name)) {
            s->vars[i].value = v;
            return NOVAQ_OK;
        }
    }
    if (s->n == s->cap) {
        nq_tvar *more = NULL;
        size_t cap = s->cap == 0 ? 4 : 2 * s->cap;
        NQ_TRY(nq_tarena_get(&more, &c->arena, cap, sizeof *more, c->err));
        if (s->n > 0) {
            memcpy(more, s->vars, s->n * sizeof *more);
        }
        s->vars = more;
        s->cap = cap;
    }
    s->vars[s->n++] = (nq_tvar){.name = name, .value = v};
    return NOVAQ_OK;
}

static novaq_status assign_one(nq_tctx *c, nq_tscope *s, const nq_tnode *target, nq_tval v) {
    if (target->kind == NQ_TN_NAME) {
        return nq_tscope_set(c, s, target->str, v);
    }
    nq_tval owner;
    NQ_TRY(nq_teval(c, target->a, &owner));
    if (owner.type != NQ_TV_NAMESPACE) {
        return nq_tfail(c, "cannot assign an attribute of a '%s', only of a namespace",
                        nq_tv_type_name(&owner));
    }
    return nq_tdict_set(c, owner.u.dict, nq_tv_str(target->str), v);
}

static novaq_status assign(nq_tctx *c, nq_tscope *s, const nq_tnode *target, nq_tval v) {
    const nq_tlist *items = NULL;
    size_t i = 0;
    if (target->kind != NQ_TN_TUPLE) {
        return assign_one(c, s, target, v);
    }
    NQ_TRY(nq_tv_iterate(c, &items, &v));
    for (const nq_tnode *t = target->a; t != NULL; t = t->next, i++) {
        if (i >= items->n) {
            return nq_tfail(c, "not enough values to unpack (%zu)", items->n);
        }
        NQ_TRY(assign_one(c, s, t, items->v[i]));
    }
    return i == items->n ? NOVAQ_OK : nq_tfail(c, "too many values to unpack (%zu)", items->n);
}

/* ---- bodies whose text is a value ---------------------------------------------- */

static novaq_status capture(nq_tctx *c, nq_tstr *out, const nq_tnode *body, nq_tscope *scope) {
    nq_buf text = nq_tbuf(c);
    nq_buf *outside = c->out;
    nq_tscope *before = c->scope;
    c->out = &text;
    c->scope = scope;
    novaq_status st = nq_texec(c, body);
    c->out = outside;
    c->scope = before;
    if (st != NOVAQ_OK) {
        nq_buf_free(&text);
        return st;
    }
    return nq_tbuf_take(c, out, &text);
}

static novaq_status bind_parameters(nq_tctx *c, nq_tscope *s, const nq_tmacro *m,
                                    const nq_targs *a) {
    size_t i = 0;
    for (const nq_tnode *p = m->node->a; p != NULL; p = p->next, i++) {
        const nq_tval *given = i < a->n ? &a->v[i] : NULL;
        nq_tval v = nq_tv_undefined(p->str);
        for (size_t k = 0; k < a->kwn; k++) {
            if (nq_tstr_eq(a->kw[k].name, p->str)) {
                if (given != NULL) {
                    return nq_tfail(c, "a macro got an argument twice");
                }
                given = &a->kw[k].value;
            }
        }
        if (given == NULL && p->a != NULL) {
            nq_tscope *before = c->scope;
            c->scope = s;
            novaq_status st = nq_teval(c, p->a, &v);
            c->scope = before;
            NQ_TRY(st);
        }
        NQ_TRY(nq_tscope_set(c, s, p->str, given != NULL ? *given : v));
    }
    return NOVAQ_OK;
}

/* What no parameter took: varargs, kwargs, caller, where the macro names them. */
static novaq_status bind_rest(nq_tctx *c, nq_tscope *s, const nq_tmacro *m, const nq_targs *a) {
    size_t count = 0;
    nq_tlist *rest = NULL;
    nq_tdict *more = NULL;
    unsigned flags = m->node->flags;
    for (const nq_tnode *p = m->node->a; p != NULL; p = p->next) {
        count++;
    }
    NQ_TRY(nq_tlist_new(c, &rest));
    NQ_TRY(nq_tdict_new(c, &more));
    for (size_t i = count; i < a->n; i++) {
        NQ_TRY(nq_tlist_push(c, rest, a->v[i]));
    }
    for (size_t k = 0; k < a->kwn; k++) {
        const nq_tnode *p = m->node->a;
        while (p != NULL && !nq_tstr_eq(p->str, a->kw[k].name)) {
            p = p->next;
        }
        if (p == NULL && (flags & NQ_TM_CALLER) != 0 && nq_tstr_is(a->kw[k].name, "caller")) {
            NQ_TRY(nq_tscope_set(c, s, a->kw[k].name, a->kw[k].value));
        } else if (p == NULL) {
            NQ_TRY(nq_tdict_set(c, more, nq_tv_str(a->kw[k].name), a->kw[k].value));
        }
    }
    if ((rest->n > 0 && (flags & NQ_TM_VARARGS) == 0) ||
        (more->n > 0 && (flags & NQ_TM_KWARGS) == 0)) {
        return nq_tfail(c, "macro '%.*s' does not take these arguments",
                        (int)(m->node->str.n < 80 ? m->node->str.n : 80), m->node->str.p);
    }
    if ((flags & NQ_TM_VARARGS) != 0) {
        NQ_TRY(nq_tscope_set(c, s, NQ_TSTR("varargs"),
                             (nq_tval){.type = NQ_TV_TUPLE, .u.list = rest}));
    }
    if ((flags & NQ_TM_KWARGS) != 0) {
        NQ_TRY(
            nq_tscope_set(c, s, NQ_TSTR("kwargs"), (nq_tval){.type = NQ_TV_DICT, .u.dict = more}));
    }
    return NOVAQ_OK;
}

novaq_status nq_tmacro_call(nq_tctx *c, nq_tval *out, const nq_tmacro *m, const nq_targs *a) {
    nq_tscope *s = NULL;
    NQ_TRY(nq_tenter(c));
    NQ_TRY(nq_tscope_new(c, &s, m->scope));
    NQ_TRY(bind_parameters(c, s, m, a));
    NQ_TRY(bind_rest(c, s, m, a));
    NQ_TRY(capture(c, &out->u.s, m->node->d, s));
    out->type = NQ_TV_STR;
    c->depth--;
    return NOVAQ_OK;
}

/* ---- statements ------------------------------------------------------------------ */

static novaq_status run_output(nq_tctx *c, const nq_tnode *n) {
    nq_tval v;
    NQ_TRY(nq_teval(c, n->a, &v));
    return nq_tv_write(c, c->out, &v);
}

static novaq_status run_if(nq_tctx *c, const nq_tnode *n) {
    for (const nq_tnode *b = n->a; b != NULL; b = b->next) {
        nq_tval v = nq_tv_bool(true);
        if (b->a != NULL) {
            NQ_TRY(nq_teval(c, b->a, &v));
        }
        if (nq_tv_true(&v)) {
            return nq_texec(c, b->d);
        }
    }
    return NOVAQ_OK;
}

/* The items that the condition of a loop lets through. */
static novaq_status select_items(nq_tctx *c, const nq_tlist **items, const nq_tnode *n) {
    nq_tlist *kept = NULL;
    nq_tscope *outside = c->scope;
    nq_tscope *s = NULL;
    novaq_status st = NOVAQ_OK;
    NQ_TRY(nq_tlist_new(c, &kept));
    NQ_TRY(nq_tscope_new(c, &s, outside));
    c->scope = s;
    for (size_t i = 0; st == NOVAQ_OK && i < (*items)->n; i++) {
        nq_tval holds = nq_tv_bool(false);
        st = assign(c, s, n->a, (*items)->v[i]);
        if (st == NOVAQ_OK) {
            st = nq_teval(c, n->c, &holds);
        }
        if (st == NOVAQ_OK && nq_tv_true(&holds)) {
            st = nq_tlist_push(c, kept, (*items)->v[i]);
        }
    }
    c->scope = outside;
    *items = kept;
    return st;
}

static novaq_status run_items(nq_tctx *c, const nq_tnode *n, const nq_tlist *items) {
    nq_tscope *s = NULL;
    nq_tloop *loop = NULL;
    NQ_TRY(nq_tscope_new(c, &s, c->scope));
    NQ_TRY(nq_tarena_get(&loop, &c->arena, 1, sizeof *loop, c->err));
    *loop = (nq_tloop){.items = items};
    c->scope = s;
    for (size_t i = 0; i < items->n; i++) {
        s->n = 0; /* nothing of the last item's body is left */
        loop->index = i;
        NQ_TRY(nq_tscope_set(c, s, NQ_TSTR("loop"), (nq_tval){.type = NQ_TV_LOOP, .u.loop = loop}));
        NQ_TRY(assign(c, s, n->a, items->v[i]));
        NQ_TRY(nq_texec(c, n->d));
        bool stop = c->flow == NQ_TFLOW_BREAK;
        c->flow = NQ_TFLOW_ON;
        if (stop) {
            break;
        }
    }
    c->scope = s->parent;
    return NOVAQ_OK;
}

static novaq_status run_for(nq_tctx *c, const nq_tnode *n) {
    nq_tval v;
    const nq_tlist *items = NULL;
    NQ_TRY(nq_teval(c, n->b, &v));
    c->line = n->line;
    NQ_TRY(nq_tv_iterate(c, &items, &v));
    if (n->c != NULL) {
        NQ_TRY(select_items(c, &items, n));
    }
    if (items->n == 0) {
        return nq_texec(c, n->e);
    }
    return run_items(c, n, items);
}

static novaq_status run_set(nq_tctx *c, const nq_tnode *n) {
    nq_tval v;
    if (n->kind == NQ_TN_SET) {
        NQ_TRY(nq_teval(c, n->b, &v));
    } else {
        nq_tscope *s = NULL;
        nq_tstr text;
        NQ_TRY(nq_tscope_new(c, &s, c->scope));
        NQ_TRY(capture(c, &text, n->d, s));
        v = nq_tv_str(text);
        if (n->b != NULL) {
            NQ_TRY(nq_tapply_filter(c, &v, &v, n->b));
        }
    }
    c->line = n->line;
    return assign(c, c->scope, n->a, v);
}

static novaq_status make_macro(nq_tctx *c, nq_tval *out, const nq_tnode *n) {
    nq_tmacro *m = NULL;
    NQ_TRY(nq_tarena_get(&m, &c->arena, 1, sizeof *m, c->err));
    *m = (nq_tmacro){.node = n, .scope = c->scope};
    *out = (nq_tval){.type = NQ_TV_MACRO, .u.macro = m};
    return NOVAQ_OK;
}

static novaq_status run_macro(nq_tctx *c, const nq_tnode *n) {
    nq_tval m;
    NQ_TRY(make_macro(c, &m, n));
    return nq_tscope_set(c, c->scope, n->str, m);
}

/* {% call f(x) %}body{% endcall %} */
static novaq_status run_caller(nq_tctx *c, const nq_tnode *n) {
    nq_tval v;
    nq_tscope *s = NULL;
    NQ_TRY(make_macro(c, &v, n->b));
    NQ_TRY(nq_tscope_new(c, &s, c->scope));
    NQ_TRY(nq_tscope_set(c, s, n->b->str, v));
    c->scope = s;
    NQ_TRY(nq_teval(c, n->a, &v));
    c->scope = s->parent;
    return nq_tv_write(c, c->out, &v);
}

static novaq_status run_filtered(nq_tctx *c, const nq_tnode *n) {
    nq_tstr text;
    nq_tval v;
    nq_tscope *s = NULL;
    NQ_TRY(nq_tscope_new(c, &s, c->scope));
    NQ_TRY(capture(c, &text, n->d, s));
    v = nq_tv_str(text);
    NQ_TRY(nq_tapply_filter(c, &v, &v, n->b));
    return nq_tv_write(c, c->out, &v);
}

static novaq_status run_with(nq_tctx *c, const nq_tnode *n) {
    nq_tscope *s = NULL;
    NQ_TRY(nq_tscope_new(c, &s, c->scope));
    for (const nq_tnode *p = n->a; p != NULL; p = p->next) {
        nq_tval v;
        NQ_TRY(nq_teval(c, p->b, &v));
        NQ_TRY(nq_tscope_set(c, s, p->a->str, v));
    }
    c->scope = s;
    NQ_TRY(nq_texec(c, n->d));
    c->scope = s->parent;
    return NOVAQ_OK;
}

static novaq_status run(nq_tctx *c, const nq_tnode *n) {
    switch (n->kind) {
    case NQ_TN_DATA:
        NQ_TRY(nq_tcharge(c, n->str.n));
        return nq_buf_append(c->out, n->str.p, n->str.n, c->err);
    case NQ_TN_OUTPUT: return run_output(c, n);
    case NQ_TN_IF: return run_if(c, n);
    case NQ_TN_FOR: return run_for(c, n);
    case NQ_TN_SET:
    case NQ_TN_SETBLOCK: return run_set(c, n);
    case NQ_TN_MACRO: return run_macro(c, n);
    case NQ_TN_CALLER: return run_caller(c, n);
    case NQ_TN_FILTERED: return run_filtered(c, n);
    case NQ_TN_WITH: return run_with(c, n);
    case NQ_TN_GROUP: return nq_texec(c, n->d);
    case NQ_TN_BREAK: c->flow = NQ_TFLOW_BREAK; return NOVAQ_OK;
    case NQ_TN_CONTINUE: c->flow = NQ_TFLOW_CONTINUE; return NOVAQ_OK;
    default: return nq_tfail(c, "not a statement");
    }
}

novaq_status nq_texec(nq_tctx *c, const nq_tnode *body) {
    NQ_TRY(nq_tenter(c));
    for (const nq_tnode *n = body; n != NULL && c->flow == NQ_TFLOW_ON; n = n->next) {
        NQ_TRY(nq_tcharge(c, 0));
        c->line = n->line;
        NQ_TRY(run(c, n));
    }
    c->depth--;
    return NOVAQ_OK;
}
