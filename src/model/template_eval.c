/* template_eval.c - what the expressions of a template are worth.
 *
 * Owns: names, attributes, subscripts, calls, by the rules of Jinja's sandbox:
 * what is missing is undefined, and undefined may be tested and printed but not
 * used. */
#include <string.h>

#include "model/template_impl.h"

/* Arguments a call has at most. */
#define MAX_ARGS 64

static novaq_status undefined_used(nq_tctx *c, const nq_tval *v) {
    return nq_tfail(c, "'%.*s' is undefined", (int)(v->u.s.n < 80 ? v->u.s.n : 80), v->u.s.p);
}

/* ---- names and attributes -------------------------------------------------- */

static novaq_status get_name(nq_tctx *c, nq_tval *out, nq_tstr name) {
    for (const nq_tscope *s = c->scope; s != NULL; s = s->parent) {
        NQ_TRY(nq_tcharge(c, s->n));
        for (size_t i = 0; i < s->n; i++) {
            if (nq_tstr_eq(s->vars[i].name, name)) {
                *out = s->vars[i].value;
                return NOVAQ_OK;
            }
        }
    }
    return nq_tglobal(c, out, name);
}

static novaq_status loop_attr(nq_tctx *c, nq_tval *out, const nq_tval *v, nq_tstr name) {
    const nq_tloop *l = v->u.loop;
    int64_t i = (int64_t)l->index;
    int64_t n = (int64_t)l->items->n;
    const struct {
        const char *name;
        int64_t value;
    } numbers[] = {{"index", i + 1}, {"index0", i}, {"revindex", n - i}, {"revindex0", n - i - 1},
                   {"length", n},    {"depth", 1},  {"depth0", 0}};
    for (size_t k = 0; k < sizeof numbers / sizeof numbers[0]; k++) {
        if (nq_tstr_is(name, numbers[k].name)) {
            *out = nq_tv_int(numbers[k].value);
            return NOVAQ_OK;
        }
    }
    if (nq_tstr_is(name, "first") || nq_tstr_is(name, "last")) {
        *out = nq_tv_bool(name.p[0] == 'f' ? i == 0 : i + 1 == n);
    } else if (nq_tstr_is(name, "previtem") && i > 0) {
        *out = l->items->v[i - 1];
    } else if (nq_tstr_is(name, "nextitem") && i + 1 < n) {
        *out = l->items->v[i + 1];
    } else {
        return nq_tmethod(c, out, v, name);
    }
    return NOVAQ_OK;
}

novaq_status nq_tgetattr(nq_tctx *c, nq_tval *out, const nq_tval *v, nq_tstr name) {
    if (v->type == NQ_TV_UNDEFINED) {
        return undefined_used(c, v);
    }
    if (name.n > 4 && memcmp(name.p, "__", 2) == 0 && memcmp(name.p + name.n - 2, "__", 2) == 0) {
        *out = nq_tv_undefined(name); /* nothing leads out of the sandbox */
        return NOVAQ_OK;
    }
    if (v->type == NQ_TV_LOOP) {
        return loop_attr(c, out, v, name);
    }
    *out = nq_tv_undefined(name);
    if (v->type != NQ_TV_NAMESPACE) {
        NQ_TRY(nq_tmethod(c, out, v, name));
    }
    if (out->type == NQ_TV_UNDEFINED && (v->type == NQ_TV_DICT || v->type == NQ_TV_NAMESPACE)) {
        NQ_TRY(nq_tcharge(c, v->u.dict->n));
        const nq_tval *found = nq_tdict_find(v->u.dict, name);
        *out = found != NULL ? *found : *out;
    }
    return NOVAQ_OK;
}

static void list_item(nq_tval *out, const nq_tlist *l, int64_t i) {
    i += i < 0 ? (int64_t)l->n : 0;
    *out =
        i >= 0 && !l->lazy && (uint64_t)i < l->n ? l->v[i] : nq_tv_undefined(NQ_TSTR("list item"));
}

static void string_item(nq_tval *out, nq_tstr s, int64_t i) {
    int64_t n = (int64_t)nq_tu_count(s);
    i += i < 0 ? n : 0;
    *out = nq_tv_undefined(NQ_TSTR("character"));
    if (i >= 0 && i < n) {
        size_t at = nq_tu_offset(s, (size_t)i);
        nq_tstr rest = {s.p + at, s.n - at};
        *out = nq_tv_str((nq_tstr){rest.p, nq_tu_offset(rest, 1)});
    }
}

novaq_status nq_tgetitem(nq_tctx *c, nq_tval *out, const nq_tval *v, const nq_tval *key) {
    const nq_tval *found = NULL;
    if (v->type == NQ_TV_UNDEFINED) {
        return undefined_used(c, v);
    }
    *out = nq_tv_undefined(key->type == NQ_TV_STR ? key->u.s : NQ_TSTR("item"));
    if (v->type == NQ_TV_DICT) {
        NQ_TRY(nq_tdict_get(c, &found, v->u.dict, key));
        if (found != NULL) {
            *out = *found;
            return NOVAQ_OK;
        }
    }
    if (key->type == NQ_TV_INT || key->type == NQ_TV_BOOL) {
        int64_t i = key->type == NQ_TV_INT ? key->u.i : key->u.b;
        if (nq_tv_is_seq(v)) {
            list_item(out, v->u.list, i);
        } else if (v->type == NQ_TV_STR) {
            NQ_TRY(nq_tcharge(c, v->u.s.n));
            string_item(out, v->u.s, i);
        }
    } else if (key->type == NQ_TV_STR && v->type != NQ_TV_DICT) {
        return nq_tgetattr(c, out, v, key->u.s);
    } else if (key->type == NQ_TV_STR) {
        return nq_tmethod(c, out, v, key->u.s);
    }
    return NOVAQ_OK;
}

/* ---- slices -------------------------------------------------------------------- */

static novaq_status bound(nq_tctx *c, bool *given, int64_t *out, const nq_tnode *n) {
    nq_tval v = nq_tv_none();
    if (n != NULL) {
        NQ_TRY(nq_teval(c, n, &v));
    }
    *given = v.type != NQ_TV_NONE;
    if (*given && v.type != NQ_TV_INT && v.type != NQ_TV_BOOL) {
        return nq_tfail(c, "slice indices must be integers");
    }
    *out = v.type == NQ_TV_INT ? v.u.i : v.type == NQ_TV_BOOL ? v.u.b : 0;
    return NOVAQ_OK;
}

static int64_t clamp(int64_t i, int64_t n, int64_t low, int64_t high) {
    i += i < 0 ? n : 0;
    return i < low ? low : i > high ? high : i;
}

static novaq_status slice(nq_tctx *c, nq_tval *out, const nq_tval *v, const nq_tnode *s) {
    bool given[3];
    int64_t at[3] = {0};
    const nq_tlist *items = NULL;
    nq_tlist *l = NULL;
    NQ_TRY(bound(c, &given[0], &at[0], s->a));
    NQ_TRY(bound(c, &given[1], &at[1], s->b));
    NQ_TRY(bound(c, &given[2], &at[2], s->c));
    if (v->type == NQ_TV_UNDEFINED) {
        return undefined_used(c, v);
    }
    if ((!nq_tv_is_seq(v) || v->u.list->lazy) && v->type != NQ_TV_STR) {
        *out = nq_tv_undefined(NQ_TSTR("slice"));
        return NOVAQ_OK;
    }
    NQ_TRY(nq_tv_iterate(c, &items, v));
    int64_t n = (int64_t)items->n;
    int64_t step = given[2] ? at[2] : 1;
    if (step == 0) {
        return nq_tfail(c, "slice step cannot be zero");
    }
    int64_t low = step > 0 ? 0 : -1;
    int64_t high = step > 0 ? n : n - 1;
    int64_t i = given[0] ? clamp(at[0], n, low, high) : step > 0 ? low : high;
    int64_t end = given[1] ? clamp(at[1], n, low, high) : step > 0 ? high : low;
    NQ_TRY(nq_tcharge(c, items->n));
    NQ_TRY(nq_tlist_new(c, &l));
    while (step > 0 ? i < end : i > end) {
        NQ_TRY(nq_tlist_push(c, l, items->v[i]));
        if (__builtin_add_overflow(i, step, &i)) {
            break;
        }
    }
    if (v->type != NQ_TV_STR) {
        *out = (nq_tval){.type = v->type, .u.list = l};
        return NOVAQ_OK;
    }
    nq_buf b = nq_tbuf(c);
    novaq_status st = NOVAQ_OK;
    for (size_t k = 0; st == NOVAQ_OK && k < l->n; k++) {
        st = nq_buf_append(&b, l->v[k].u.s.p, l->v[k].u.s.n, c->err);
    }
    if (st != NOVAQ_OK) {
        nq_buf_free(&b);
        return st;
    }
    out->type = NQ_TV_STR;
    return nq_tbuf_take(c, &out->u.s, &b);
}

/* ---- calls ------------------------------------------------------------------------ */

typedef struct call_args {
    nq_tval *v;
    nq_tvar *kw;
    nq_targs args;
} call_args;

/* Evaluates arguments behind `room` values that the caller fills in. */
static novaq_status eval_args(nq_tctx *c, call_args *out, const nq_tnode *call, size_t room) {
    size_t n = room;
    size_t kwn = 0;
    for (const nq_tnode *a = call->b; a != NULL; a = a->next) {
        n++;
    }
    for (const nq_tnode *a = call->c; a != NULL; a = a->next) {
        kwn++;
    }
    if (n > MAX_ARGS || kwn > MAX_ARGS) {
        return nq_tfail(c, "a call has more than %d arguments", MAX_ARGS);
    }
    NQ_TRY(nq_tarena_get(&out->v, &c->arena, n, sizeof *out->v, c->err));
    NQ_TRY(nq_tarena_get(&out->kw, &c->arena, kwn, sizeof *out->kw, c->err));
    out->args = (nq_targs){.v = out->v, .n = n, .kw = out->kw, .kwn = kwn};
    nq_tval *v = out->v + room;
    for (const nq_tnode *a = call->b; a != NULL; a = a->next) {
        NQ_TRY(nq_teval(c, a, v++));
    }
    nq_tvar *kw = out->kw;
    for (const nq_tnode *a = call->c; a != NULL; a = a->next, kw++) {
        kw->name = a->str;
        NQ_TRY(nq_teval(c, a->a, &kw->value));
    }
    return NOVAQ_OK;
}

novaq_status nq_tcall(nq_tctx *c, nq_tval *out, const nq_tval *callee, const nq_targs *a) {
    switch (callee->type) {
    case NQ_TV_MACRO: return nq_tmacro_call(c, out, callee->u.macro, a);
    case NQ_TV_FUNC: return callee->u.func->fn(c, out, &callee->u.func->self, a);
    case NQ_TV_CYCLER: {
        nq_tcycler *k = callee->u.cycler;
        if (k->items == NULL) { /* a joiner: nothing the first time */
            *out = nq_tv_str(k->at++ == 0 ? (nq_tstr){"", 0} : k->joint);
            return NOVAQ_OK;
        }
        return nq_tfail(c, "a cycler cannot be called");
    }
    case NQ_TV_UNDEFINED: return undefined_used(c, callee);
    default: return nq_tfail(c, "'%s' cannot be called", nq_tv_type_name(callee));
    }
}

static novaq_status call(nq_tctx *c, const nq_tnode *n, nq_tval *out) {
    nq_tval callee;
    call_args a;
    NQ_TRY(nq_teval(c, n->a, &callee));
    NQ_TRY(eval_args(c, &a, n, 0));
    c->line = n->line;
    return nq_tcall(c, out, &callee, &a.args);
}

static novaq_status filter(nq_tctx *c, nq_tval *out, const nq_tval *v, const nq_tnode *n) {
    call_args a;
    nq_tcallable fn = nq_tfilter_find(n->str);
    fn = fn != NULL ? fn : nq_tfilter_list_find(n->str);
    if (fn == NULL) {
        return nq_tfail(c, "no filter named '%.*s'", (int)(n->str.n < 80 ? n->str.n : 80),
                        n->str.p);
    }
    NQ_TRY(eval_args(c, &a, n, 0));
    c->line = n->line;
    return fn(c, out, v, &a.args);
}

novaq_status nq_tapply_filter(nq_tctx *c, nq_tval *out, const nq_tval *v, const nq_tnode *n) {
    nq_tval inner = *v;
    NQ_TRY(nq_tenter(c));
    if (n->a != NULL) {
        NQ_TRY(nq_tapply_filter(c, &inner, v, n->a));
    }
    NQ_TRY(filter(c, out, &inner, n));
    c->depth--;
    return NOVAQ_OK;
}

static novaq_status test(nq_tctx *c, const nq_tnode *n, nq_tval *out) {
    nq_tval v;
    call_args a;
    bool holds = false;
    NQ_TRY(nq_teval(c, n->a, &v));
    NQ_TRY(eval_args(c, &a, n, 0));
    NQ_TRY(nq_ttest(c, &holds, n->str, &v, &a.args));
    *out = nq_tv_bool(holds);
    return NOVAQ_OK;
}

/* ---- operators ---------------------------------------------------------------------- */

novaq_status nq_tcontains(nq_tctx *c, bool *out, const nq_tval *item, const nq_tval *container) {
    const nq_tval *found = NULL;
    *out = false;
    if (container->type == NQ_TV_STR) {
        if (item->type != NQ_TV_STR) {
            return nq_tfail(c, "'in <string>' needs a string on its left, not '%s'",
                            nq_tv_type_name(item));
        }
        NQ_TRY(nq_tcharge(c, container->u.s.n));
        *out = nq_tu_find(container->u.s, item->u.s, 0) != SIZE_MAX;
    } else if (container->type == NQ_TV_DICT) {
        NQ_TRY(nq_tdict_get(c, &found, container->u.dict, item));
        *out = found != NULL;
    } else if (nq_tv_is_seq(container)) {
        for (size_t i = 0; !*out && i < container->u.list->n; i++) {
            NQ_TRY(nq_tv_equal(c, out, &container->u.list->v[i], item));
        }
    } else if (container->type != NQ_TV_UNDEFINED) {
        return nq_tfail(c, "'%s' contains nothing", nq_tv_type_name(container));
    }
    return NOVAQ_OK;
}

static novaq_status compare(nq_tctx *c, bool *out, int op, const nq_tval *a, const nq_tval *b) {
    int order = 0;
    if (op == NQ_TT_EQ || op == NQ_TT_NE) {
        NQ_TRY(nq_tv_equal(c, out, a, b));
        *out = *out == (op == NQ_TT_EQ);
        return NOVAQ_OK;
    }
    if (op == NQ_TT_IN || op == NQ_TT_NOT_IN) {
        NQ_TRY(nq_tcontains(c, out, a, b));
        *out = *out == (op == NQ_TT_IN);
        return NOVAQ_OK;
    }
    NQ_TRY(nq_tv_compare(c, &order, a, b));
    *out = op == '<' ? order < 0 : op == '>' ? order > 0 : op == NQ_TT_LE ? order <= 0 : order >= 0;
    return NOVAQ_OK;
}

static novaq_status comparison(nq_tctx *c, const nq_tnode *n, nq_tval *out) {
    nq_tval left;
    nq_tval right;
    bool holds = true;
    NQ_TRY(nq_teval(c, n->a, &left));
    for (const nq_tnode *o = n->b; holds && o != NULL; o = o->next) {
        NQ_TRY(nq_teval(c, o->a, &right));
        NQ_TRY(compare(c, &holds, o->op, &left, &right));
        left = right;
    }
    *out = nq_tv_bool(holds);
    return NOVAQ_OK;
}

static novaq_status concatenation(nq_tctx *c, const nq_tnode *n, nq_tval *out) {
    nq_buf b = nq_tbuf(c);
    novaq_status st = NOVAQ_OK;
    for (const nq_tnode *a = n->a; st == NOVAQ_OK && a != NULL; a = a->next) {
        nq_tval v;
        st = nq_teval(c, a, &v);
        st = st == NOVAQ_OK ? nq_tv_write(c, &b, &v) : st;
    }
    if (st != NOVAQ_OK) {
        nq_buf_free(&b);
        return st;
    }
    out->type = NQ_TV_STR;
    return nq_tbuf_take(c, &out->u.s, &b);
}

static novaq_status sign(nq_tctx *c, const nq_tnode *n, nq_tval *out) {
    nq_tval v;
    const nq_tval zero = nq_tv_int(0);
    NQ_TRY(nq_teval(c, n->a, &v));
    if (v.type == NQ_TV_FLOAT && n->kind == NQ_TN_NEG) {
        *out = nq_tv_float(-v.u.f);
        return NOVAQ_OK;
    }
    return nq_tmath(c, out, n->kind == NQ_TN_NEG ? '-' : '+', &zero, &v);
}

static novaq_status binary(nq_tctx *c, const nq_tnode *n, nq_tval *out) {
    nq_tval a;
    nq_tval b;
    NQ_TRY(nq_teval(c, n->a, &a));
    NQ_TRY(nq_teval(c, n->b, &b));
    c->line = n->line;
    return nq_tmath(c, out, n->op, &a, &b);
}

static novaq_status sequence(nq_tctx *c, const nq_tnode *n, nq_tval *out) {
    nq_tlist *l = NULL;
    NQ_TRY(nq_tlist_new(c, &l));
    for (const nq_tnode *a = n->a; a != NULL; a = a->next) {
        nq_tval v;
        NQ_TRY(nq_teval(c, a, &v));
        NQ_TRY(nq_tlist_push(c, l, v));
    }
    *out = (nq_tval){.type = n->kind == NQ_TN_LIST ? NQ_TV_LIST : NQ_TV_TUPLE, .u.list = l};
    return NOVAQ_OK;
}

static novaq_status dictionary(nq_tctx *c, const nq_tnode *n, nq_tval *out) {
    nq_tdict *d = NULL;
    NQ_TRY(nq_tdict_new(c, &d));
    for (const nq_tnode *a = n->a; a != NULL; a = a->next) {
        nq_tval key;
        nq_tval value;
        NQ_TRY(nq_teval(c, a->a, &key));
        NQ_TRY(nq_teval(c, a->b, &value));
        NQ_TRY(nq_tdict_set(c, d, key, value));
    }
    *out = (nq_tval){.type = NQ_TV_DICT, .u.dict = d};
    return NOVAQ_OK;
}

static novaq_status subscript(nq_tctx *c, const nq_tnode *n, nq_tval *out) {
    nq_tval v;
    nq_tval key;
    NQ_TRY(nq_teval(c, n->a, &v));
    if (n->kind == NQ_TN_ATTR) {
        c->line = n->line;
        return nq_tgetattr(c, out, &v, n->str);
    }
    if (n->b->kind == NQ_TN_SLICE) {
        return slice(c, out, &v, n->b);
    }
    NQ_TRY(nq_teval(c, n->b, &key));
    c->line = n->line;
    return nq_tgetitem(c, out, &v, &key);
}

static novaq_status logic(nq_tctx *c, const nq_tnode *n, nq_tval *out) {
    NQ_TRY(nq_teval(c, n->a, out));
    switch (n->kind) {
    case NQ_TN_NOT: *out = nq_tv_bool(!nq_tv_true(out)); return NOVAQ_OK;
    case NQ_TN_AND: return nq_tv_true(out) ? nq_teval(c, n->b, out) : NOVAQ_OK;
    case NQ_TN_OR: return nq_tv_true(out) ? NOVAQ_OK : nq_teval(c, n->b, out);
    default: break;
    }
    if (nq_tv_true(out)) {
        return nq_teval(c, n->b, out);
    }
    *out = nq_tv_undefined(NQ_TSTR("the other branch of an inline if"));
    return n->c != NULL ? nq_teval(c, n->c, out) : NOVAQ_OK;
}

static novaq_status eval(nq_tctx *c, const nq_tnode *n, nq_tval *out) {
    nq_tval v;
    switch (n->kind) {
    case NQ_TN_CONST: *out = n->val; return NOVAQ_OK;
    case NQ_TN_NAME: return get_name(c, out, n->str);
    case NQ_TN_LIST:
    case NQ_TN_TUPLE: return sequence(c, n, out);
    case NQ_TN_DICT: return dictionary(c, n, out);
    case NQ_TN_ATTR:
    case NQ_TN_ITEM: return subscript(c, n, out);
    case NQ_TN_CALL: return call(c, n, out);
    case NQ_TN_FILTER: NQ_TRY(nq_teval(c, n->a, &v)); return filter(c, out, &v, n);
    case NQ_TN_TEST: return test(c, n, out);
    case NQ_TN_NEG:
    case NQ_TN_POS: return sign(c, n, out);
    case NQ_TN_BIN: return binary(c, n, out);
    case NQ_TN_CONCAT: return concatenation(c, n, out);
    case NQ_TN_COMPARE: return comparison(c, n, out);
    case NQ_TN_NOT:
    case NQ_TN_AND:
    case NQ_TN_OR:
    case NQ_TN_COND: return logic(c, n, out);
    default: return nq_tfail(c, "not an expression");
    }
}

novaq_status nq_teval(nq_tctx *c, const nq_tnode *n, nq_tval *out) {
    *out = nq_tv_none();
    NQ_TRY(nq_tcharge(c, 0));
    NQ_TRY(nq_tenter(c));
    NQ_TRY(eval(c, n, out));
    c->depth--;
    return NOVAQ_OK;
}
