/* template_test.c - "is": what Jinja's tests say of a value. */
#include "model/template_impl.h"

static bool is_lower_or_upper(nq_tctx *c, bool *out, const nq_tval *v, const char *how,
                              novaq_status *st) {
    nq_tstr changed;
    nq_tstr other;
    *out = false;
    if (v->type != NQ_TV_STR) {
        return true;
    }
    *st = nq_tu_case(c, &changed, v->u.s, how);
    if (*st == NOVAQ_OK) {
        *st = nq_tu_case(c, &other, v->u.s, how[0] == 'l' ? "upper" : "lower");
    }
    *out = *st == NOVAQ_OK && nq_tstr_eq(changed, v->u.s) && !nq_tstr_eq(other, v->u.s);
    return true;
}

/* Tests of the value alone; false when there is none of that name. */
static bool plain(nq_tctx *c, bool *out, nq_tstr name, const nq_tval *v, novaq_status *st) {
    nq_ttype t = v->type;
    bool sequence = t == NQ_TV_STR || nq_tv_is_seq(v) || t == NQ_TV_DICT || t == NQ_TV_UNDEFINED;
    bool callable = t == NQ_TV_MACRO || t == NQ_TV_FUNC;
    bool boolean = t == NQ_TV_BOOL;
    const struct {
        const char *name;
        bool holds;
    } table[] = {{"defined", t != NQ_TV_UNDEFINED},
                 {"undefined", t == NQ_TV_UNDEFINED},
                 {"none", t == NQ_TV_NONE},
                 {"string", t == NQ_TV_STR},
                 {"mapping", t == NQ_TV_DICT},
                 {"iterable", sequence},
                 {"sequence", sequence},
                 {"number", nq_tv_is_number(v)},
                 {"integer", t == NQ_TV_INT},
                 {"float", t == NQ_TV_FLOAT},
                 {"boolean", boolean},
                 {"true", boolean && v->u.b},
                 {"false", boolean && !v->u.b},
                 {"callable", callable},
                 {"escaped", false}};
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        if (nq_tstr_is(name, table[i].name)) {
            *out = table[i].holds;
            return true;
        }
    }
    if (nq_tstr_is(name, "lower") || nq_tstr_is(name, "upper")) {
        return is_lower_or_upper(c, out, v, name.p[0] == 'l' ? "lower" : "upper", st);
    }
    return false;
}

/* The comparison a test of that name makes; 0 when it makes none. */
static int comparison(nq_tstr name) {
    static const struct {
        const char *name;
        int op;
    } table[] = {{"eq", NQ_TT_EQ}, {"equalto", NQ_TT_EQ}, {"==", NQ_TT_EQ},  {"ne", NQ_TT_NE},
                 {"!=", NQ_TT_NE}, {"lt", '<'},           {"lessthan", '<'}, {"<", '<'},
                 {"le", NQ_TT_LE}, {"<=", NQ_TT_LE},      {"gt", '>'},       {"greaterthan", '>'},
                 {">", '>'},       {"ge", NQ_TT_GE},      {">=", NQ_TT_GE},  {"in", NQ_TT_IN},
                 {"sameas", 's'},  {"divisibleby", '%'}};
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        if (nq_tstr_is(name, table[i].name)) {
            return table[i].op;
        }
    }
    return 0;
}

static novaq_status remainder_is(nq_tctx *c, bool *out, const nq_tval *v, const nq_tval *by,
                                 int64_t wanted) {
    nq_tval r;
    const nq_tval w = nq_tv_int(wanted);
    NQ_TRY(nq_tmath(c, &r, '%', v, by));
    return nq_tv_equal(c, out, &r, &w);
}

static novaq_status compared(nq_tctx *c, bool *out, int op, const nq_tval *v, const nq_tval *by) {
    int order = 0;
    switch (op) {
    case NQ_TT_EQ: return nq_tv_equal(c, out, v, by);
    case NQ_TT_NE:
        NQ_TRY(nq_tv_equal(c, out, v, by));
        *out = !*out;
        return NOVAQ_OK;
    case NQ_TT_IN: return nq_tcontains(c, out, v, by);
    case '%': return remainder_is(c, out, v, by, 0);
    case 's': *out = false; return v->type == by->type ? nq_tv_equal(c, out, v, by) : NOVAQ_OK;
    default: break;
    }
    NQ_TRY(nq_tv_compare(c, &order, v, by));
    *out = op == '<' ? order < 0 : op == '>' ? order > 0 : op == NQ_TT_LE ? order <= 0 : order >= 0;
    return NOVAQ_OK;
}

novaq_status nq_ttest(nq_tctx *c, bool *out, nq_tstr name, const nq_tval *v, const nq_targs *a) {
    const nq_tval two = nq_tv_int(2);
    novaq_status st = NOVAQ_OK;
    if (plain(c, out, name, v, &st)) {
        return st;
    }
    if (nq_tstr_is(name, "odd") || nq_tstr_is(name, "even")) {
        return remainder_is(c, out, v, &two, name.p[0] == 'o');
    }
    int op = comparison(name);
    if (op == 0) {
        return nq_tfail(c, "no test named '%.*s'", (int)(name.n < 80 ? name.n : 80), name.p);
    }
    if (a->n != 1) {
        return nq_tfail(c, "a test needs one argument");
    }
    return compared(c, out, op, v, &a->v[0]);
}
