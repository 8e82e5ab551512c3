/* template_expr.c - the expressions of a template, from tokens to a tree.
 *
 * Owns: Jinja's precedence, which is not quite Python's. Refuses: *args and
 * **kwargs in calls. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model/template_impl.h"

static novaq_status unary(nq_tnode **out, nq_tparser *p, bool filters);

/* ---- lists ------------------------------------------------------------------ */

/* Elements up to and with the closing bracket. */
static novaq_status elements(nq_tnode **first, nq_tparser *p, int close) {
    nq_tnode **tail = first;
    *first = NULL;
    while (p->at->kind != close) {
        NQ_TRY(nq_tparse_expr(tail, p, true));
        tail = &(*tail)->next;
        if (p->at->kind != close) {
            NQ_TRY(nq_tparse_expect(p, ',', "',' or the end of a list"));
        }
    }
    p->at++;
    return NOVAQ_OK;
}

static novaq_status dict(nq_tnode **out, nq_tparser *p) {
    p->at++;
    NQ_TRY(nq_tparse_node(out, p, NQ_TN_DICT));
    nq_tnode **tail = &(*out)->a;
    while (p->at->kind != '}') {
        NQ_TRY(nq_tparse_node(tail, p, NQ_TN_PAIR));
        NQ_TRY(nq_tparse_expr(&(*tail)->a, p, true));
        NQ_TRY(nq_tparse_expect(p, ':', "':'"));
        NQ_TRY(nq_tparse_expr(&(*tail)->b, p, true));
        tail = &(*tail)->next;
        if (p->at->kind != '}') {
            NQ_TRY(nq_tparse_expect(p, ',', "',' or '}'"));
        }
    }
    p->at++;
    return NOVAQ_OK;
}

static novaq_status parenthesis(nq_tnode **out, nq_tparser *p) {
    p->at++;
    if (p->at->kind == ')') {
        p->at++;
        return nq_tparse_node(out, p, NQ_TN_TUPLE);
    }
    NQ_TRY(nq_tparse_tuple(out, p, true));
    return nq_tparse_expect(p, ')', "')'");
}

novaq_status nq_tparse_tuple(nq_tnode **out, nq_tparser *p, bool cond) {
    nq_tnode *first = NULL;
    NQ_TRY(nq_tparse_expr(&first, p, cond));
    if (p->at->kind != ',') {
        *out = first;
        return NOVAQ_OK;
    }
    NQ_TRY(nq_tparse_node(out, p, NQ_TN_TUPLE));
    (*out)->a = first;
    nq_tnode **tail = &first->next;
    while (p->at->kind == ',') {
        p->at++;
        if (p->at->kind == ')' || p->at->kind == NQ_TT_VAR_END || p->at->kind == NQ_TT_BLOCK_END) {
            break;
        }
        NQ_TRY(nq_tparse_expr(tail, p, cond));
        tail = &(*tail)->next;
    }
    return NOVAQ_OK;
}

/* ---- constants and names ------------------------------------------------------ */

static novaq_status number(nq_tnode **out, nq_tparser *p) {
    char text[64];
    size_t n = 0;
    NQ_TRY(nq_tparse_node(out, p, NQ_TN_CONST));
    for (size_t i = 0; i < p->at->str.n; i++) {
        if (p->at->str.p[i] != '_' && n + 1 < sizeof text) {
            text[n++] = p->at->str.p[i];
        }
    }
    text[n] = '\0';
    errno = 0;
    if (p->at->kind == NQ_TT_FLOAT) {
        (*out)->val = nq_tv_float(strtod(text, NULL));
    } else {
        (*out)->val = nq_tv_int((int64_t)strtoll(text, NULL, 10));
    }
    if (n + 1 >= sizeof text || errno == ERANGE) {
        return nq_tparse_fail(p, "a number is too large");
    }
    p->at++;
    return NOVAQ_OK;
}

/* String literals that follow each other are one. */
static novaq_status strings(nq_tnode **out, nq_tparser *p) {
    size_t n = 0;
    char *joined = NULL;
    NQ_TRY(nq_tparse_node(out, p, NQ_TN_CONST));
    nq_tstr s = p->at->str;
    const nq_ttoken *last = p->at;
    for (; last->kind == NQ_TT_STR; last++) {
        n += last->str.n;
    }
    if (last > p->at + 1) {
        NQ_TRY(nq_tarena_get(&joined, p->arena, n, 1, p->err));
        s = (nq_tstr){joined, n};
        for (n = 0; p->at < last; n += p->at->str.n, p->at++) {
            memcpy(joined + n, p->at->str.p, p->at->str.n);
        }
    }
    p->at = last;
    (*out)->val = nq_tv_str(s);
    return NOVAQ_OK;
}

static novaq_status name(nq_tnode **out, nq_tparser *p) {
    static const struct {
        const char *name;
        nq_tval val;
    } constants[] = {{"true", {.type = NQ_TV_BOOL, .u.b = true}},
                     {"True", {.type = NQ_TV_BOOL, .u.b = true}},
                     {"false", {.type = NQ_TV_BOOL, .u.b = false}},
                     {"False", {.type = NQ_TV_BOOL, .u.b = false}},
                     {"none", {.type = NQ_TV_NONE}},
                     {"None", {.type = NQ_TV_NONE}}};
    static const struct {
        const char *name;
        unsigned flag;
    } special[] = {{"varargs", NQ_TM_VARARGS}, {"kwargs", NQ_TM_KWARGS}, {"caller", NQ_TM_CALLER}};
    NQ_TRY(nq_tparse_node(out, p, NQ_TN_NAME));
    (*out)->str = p->at->str;
    for (size_t i = 0; i < sizeof constants / sizeof constants[0]; i++) {
        if (nq_tparse_is(p, constants[i].name)) {
            (*out)->kind = NQ_TN_CONST;
            (*out)->val = constants[i].val;
        }
    }
    for (size_t i = 0; i < sizeof special / sizeof special[0]; i++) {
        p->mentioned |= nq_tparse_is(p, special[i].name) ? special[i].flag : 0;
    }
    p->at++;
    return NOVAQ_OK;
}

static novaq_status primary(nq_tnode **out, nq_tparser *p) {
    switch (p->at->kind) {
    case NQ_TT_NAME: return name(out, p);
    case NQ_TT_STR: return strings(out, p);
    case NQ_TT_INT:
    case NQ_TT_FLOAT: return number(out, p);
    case '(': return parenthesis(out, p);
    case '[':
        NQ_TRY(nq_tparse_node(out, p, NQ_TN_LIST));
        p->at++;
        return elements(&(*out)->a, p, ']');
    case '{': return dict(out, p);
    default: return nq_tparse_fail(p, "an expression was expected");
    }
}

/* ---- what follows a primary ------------------------------------------------------ */

static novaq_status arguments(nq_tnode *call, nq_tparser *p) {
    nq_tnode **tail = &call->b;
    nq_tnode **keywords = &call->c;
    p->at++;
    while (p->at->kind != ')') {
        if (p->at->kind == '*' || p->at->kind == NQ_TT_POW) {
            return nq_fail(p->err, NOVAQ_E_UNSUPPORTED,
                           "chat template, line %u: '*' in a call is not supported", p->at->line);
        }
        if (p->at->kind == NQ_TT_NAME && p->at[1].kind == '=') {
            NQ_TRY(nq_tparse_node(keywords, p, NQ_TN_KEYWORD));
            (*keywords)->str = p->at->str;
            p->at += 2;
            NQ_TRY(nq_tparse_expr(&(*keywords)->a, p, true));
            keywords = &(*keywords)->next;
        } else if (call->c != NULL) {
            return nq_tparse_fail(p, "an argument without a name after one with a name");
        } else {
            NQ_TRY(nq_tparse_expr(tail, p, true));
            tail = &(*tail)->next;
        }
        if (p->at->kind != ')') {
            NQ_TRY(nq_tparse_expect(p, ',', "',' or ')'"));
        }
    }
    p->at++;
    return NOVAQ_OK;
}

static novaq_status call(nq_tnode **node, nq_tparser *p) {
    nq_tnode *n = NULL;
    NQ_TRY(nq_tparse_node(&n, p, NQ_TN_CALL));
    n->a = *node;
    *node = n;
    return arguments(n, p);
}

static novaq_status slice(nq_tnode **out, nq_tparser *p) {
    nq_tnode *first = NULL;
    if (p->at->kind != ':') {
        NQ_TRY(nq_tparse_expr(&first, p, true));
        if (p->at->kind != ':') {
            *out = first;
            return NOVAQ_OK;
        }
    }
    NQ_TRY(nq_tparse_node(out, p, NQ_TN_SLICE));
    (*out)->a = first;
    p->at++;
    if (p->at->kind != ']' && p->at->kind != ':') {
        NQ_TRY(nq_tparse_expr(&(*out)->b, p, true));
    }
    if (p->at->kind == ':') {
        p->at++;
        if (p->at->kind != ']') {
            NQ_TRY(nq_tparse_expr(&(*out)->c, p, true));
        }
    }
    return NOVAQ_OK;
}

static novaq_status subscript(nq_tnode **node, nq_tparser *p) {
    nq_tnode *n = NULL;
    NQ_TRY(nq_tparse_node(&n, p, p->at->kind == '.' ? NQ_TN_ATTR : NQ_TN_ITEM));
    n->a = *node;
    *node = n;
    p->at++;
    if (n->kind == NQ_TN_ITEM) {
        NQ_TRY(slice(&n->b, p));
        return nq_tparse_expect(p, ']', "']'");
    }
    if (p->at->kind == NQ_TT_INT) {
        n->kind = NQ_TN_ITEM;
        return number(&n->b, p);
    }
    n->str = p->at->str;
    return nq_tparse_expect(p, NQ_TT_NAME, "a name after '.'");
}

static novaq_status postfix(nq_tnode **node, nq_tparser *p) {
    for (;;) {
        if (p->at->kind == '.' || p->at->kind == '[') {
            NQ_TRY(subscript(node, p));
        } else if (p->at->kind == '(') {
            NQ_TRY(call(node, p));
        } else {
            return NOVAQ_OK;
        }
    }
}

/* name or name.name, as filters and tests have them. */
static novaq_status dotted(nq_tstr *out, nq_tparser *p) {
    *out = p->at->str;
    NQ_TRY(nq_tparse_expect(p, NQ_TT_NAME, "the name of a filter or test"));
    while (p->at->kind == '.' && p->at[1].kind == NQ_TT_NAME) {
        out->n = (size_t)(p->at[1].str.p + p->at[1].str.n - out->p);
        p->at += 2;
    }
    return NOVAQ_OK;
}

static novaq_status test(nq_tnode **node, nq_tparser *p) {
    nq_tnode *n = NULL;
    p->at++;
    bool negated = nq_tparse_skip(p, "not");
    NQ_TRY(nq_tparse_node(&n, p, NQ_TN_TEST));
    n->a = *node;
    NQ_TRY(dotted(&n->str, p));
    int k = p->at->kind;
    if (k == '(') {
        NQ_TRY(arguments(n, p));
    } else if ((k == NQ_TT_NAME || k == NQ_TT_STR || k == NQ_TT_INT || k == NQ_TT_FLOAT ||
                k == '[' || k == '{') &&
               !nq_tparse_is(p, "else") && !nq_tparse_is(p, "or") && !nq_tparse_is(p, "and")) {
        if (nq_tparse_is(p, "is")) {
            return nq_tparse_fail(p, "tests cannot be chained");
        }
        NQ_TRY(primary(&n->b, p));
        NQ_TRY(postfix(&n->b, p));
    }
    *node = n;
    if (negated) {
        NQ_TRY(nq_tparse_node(node, p, NQ_TN_NOT));
        (*node)->a = n;
    }
    return NOVAQ_OK;
}

novaq_status nq_tparse_filters(nq_tnode **node, nq_tparser *p, bool bare) {
    while (p->at->kind == '|' || bare) {
        nq_tnode *n = NULL;
        p->at += bare ? 0 : 1;
        bare = false;
        NQ_TRY(nq_tparse_node(&n, p, NQ_TN_FILTER));
        n->a = *node;
        NQ_TRY(dotted(&n->str, p));
        if (p->at->kind == '(') {
            NQ_TRY(arguments(n, p));
        }
        *node = n;
    }
    return NOVAQ_OK;
}

static novaq_status filters_and_tests(nq_tnode **node, nq_tparser *p) {
    for (;;) {
        if (p->at->kind == '|') {
            NQ_TRY(nq_tparse_filters(node, p, false));
        } else if (nq_tparse_is(p, "is")) {
            NQ_TRY(test(node, p));
        } else if (p->at->kind == '(') {
            NQ_TRY(call(node, p));
        } else {
            return NOVAQ_OK;
        }
    }
}

/* ---- operators, tightest first ------------------------------------------------------ */

static novaq_status unary_inner(nq_tnode **out, nq_tparser *p, bool filters) {
    if (p->at->kind == '-' || p->at->kind == '+') {
        NQ_TRY(nq_tparse_node(out, p, p->at->kind == '-' ? NQ_TN_NEG : NQ_TN_POS));
        p->at++;
        NQ_TRY(unary(&(*out)->a, p, false));
    } else {
        NQ_TRY(primary(out, p));
    }
    NQ_TRY(postfix(out, p));
    return filters ? filters_and_tests(out, p) : NOVAQ_OK;
}

static novaq_status unary(nq_tnode **out, nq_tparser *p, bool filters) {
    NQ_TRY(nq_tparse_enter(p));
    NQ_TRY(unary_inner(out, p, filters));
    p->depth--;
    return NOVAQ_OK;
}

/* *node = *node op right, right still to be read. */
static novaq_status binary(nq_tnode **node, nq_tparser *p) {
    nq_tnode *n = NULL;
    NQ_TRY(nq_tparse_node(&n, p, NQ_TN_BIN));
    n->op = p->at->kind;
    n->a = *node;
    *node = n;
    p->at++;
    return NOVAQ_OK;
}

static novaq_status power(nq_tnode **out, nq_tparser *p) {
    NQ_TRY(unary(out, p, true));
    while (p->at->kind == NQ_TT_POW) {
        NQ_TRY(binary(out, p));
        NQ_TRY(unary(&(*out)->b, p, true));
    }
    return NOVAQ_OK;
}

static novaq_status product(nq_tnode **out, nq_tparser *p) {
    NQ_TRY(power(out, p));
    while (p->at->kind == '*' || p->at->kind == '/' || p->at->kind == '%' ||
           p->at->kind == NQ_TT_FLOORDIV) {
        NQ_TRY(binary(out, p));
        NQ_TRY(power(&(*out)->b, p));
    }
    return NOVAQ_OK;
}

static novaq_status concatenation(nq_tnode **out, nq_tparser *p) {
    nq_tnode *n = NULL;
    NQ_TRY(product(out, p));
    if (p->at->kind != '~') {
        return NOVAQ_OK;
    }
    NQ_TRY(nq_tparse_node(&n, p, NQ_TN_CONCAT));
    n->a = *out;
    nq_tnode **tail = &n->a->next;
    *out = n;
    while (p->at->kind == '~') {
        p->at++;
        NQ_TRY(product(tail, p));
        tail = &(*tail)->next;
    }
    return NOVAQ_OK;
}

static novaq_status sum(nq_tnode **out, nq_tparser *p) {
    NQ_TRY(concatenation(out, p));
    while (p->at->kind == '+' || p->at->kind == '-') {
        NQ_TRY(binary(out, p));
        NQ_TRY(concatenation(&(*out)->b, p));
    }
    return NOVAQ_OK;
}

/* The comparison at the current token, its tokens skipped; 0 when there is none. */
static int comparison_operator(nq_tparser *p) {
    int k = p->at->kind;
    if (k == NQ_TT_EQ || k == NQ_TT_NE || k == '<' || k == '>' || k == NQ_TT_LE || k == NQ_TT_GE) {
        p->at++;
        return k;
    }
    if (nq_tparse_skip(p, "in")) {
        return NQ_TT_IN;
    }
    if (nq_tparse_is(p, "not") && p->at[1].kind == NQ_TT_NAME && nq_tstr_is(p->at[1].str, "in")) {
        p->at += 2;
        return NQ_TT_NOT_IN;
    }
    return 0;
}

static novaq_status comparison(nq_tnode **out, nq_tparser *p) {
    NQ_TRY(sum(out, p));
    int op = comparison_operator(p);
    if (op == 0) {
        return NOVAQ_OK;
    }
    nq_tnode *n = NULL;
    NQ_TRY(nq_tparse_node(&n, p, NQ_TN_COMPARE));
    n->a = *out;
    *out = n;
    for (nq_tnode **tail = &n->b; op != 0; op = comparison_operator(p)) {
        NQ_TRY(nq_tparse_node(tail, p, NQ_TN_OPERAND));
        (*tail)->op = op;
        NQ_TRY(sum(&(*tail)->a, p));
        tail = &(*tail)->next;
    }
    return NOVAQ_OK;
}

static novaq_status negation(nq_tnode **out, nq_tparser *p) {
    if (!nq_tparse_is(p, "not")) {
        return comparison(out, p);
    }
    NQ_TRY(nq_tparse_enter(p));
    NQ_TRY(nq_tparse_node(out, p, NQ_TN_NOT));
    p->at++;
    NQ_TRY(negation(&(*out)->a, p));
    p->depth--;
    return NOVAQ_OK;
}

static novaq_status conjunction(nq_tnode **out, nq_tparser *p) {
    NQ_TRY(negation(out, p));
    while (nq_tparse_skip(p, "and")) {
        nq_tnode *n = NULL;
        NQ_TRY(nq_tparse_node(&n, p, NQ_TN_AND));
        n->a = *out;
        *out = n;
        NQ_TRY(negation(&n->b, p));
    }
    return NOVAQ_OK;
}

static novaq_status disjunction(nq_tnode **out, nq_tparser *p) {
    NQ_TRY(conjunction(out, p));
    while (nq_tparse_skip(p, "or")) {
        nq_tnode *n = NULL;
        NQ_TRY(nq_tparse_node(&n, p, NQ_TN_OR));
        n->a = *out;
        *out = n;
        NQ_TRY(conjunction(&n->b, p));
    }
    return NOVAQ_OK;
}

novaq_status nq_tparse_expr(nq_tnode **out, nq_tparser *p, bool cond) {
    NQ_TRY(nq_tparse_enter(p));
    NQ_TRY(disjunction(out, p));
    while (cond && nq_tparse_skip(p, "if")) {
        nq_tnode *n = NULL;
        NQ_TRY(nq_tparse_node(&n, p, NQ_TN_COND));
        n->b = *out;
        *out = n;
        NQ_TRY(disjunction(&n->a, p));
        if (nq_tparse_skip(p, "else")) {
            NQ_TRY(nq_tparse_expr(&n->c, p, true));
        }
    }
    p->depth--;
    return NOVAQ_OK;
}
