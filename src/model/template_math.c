/* template_math.c - arithmetic of templates, by Python's rules.
 *
 * Refuses: integers beyond 64 bits. */
#include <math.h>
#include <string.h>

#include "model/template_impl.h"

static novaq_status overflow(nq_tctx *c) { return nq_tfail(c, "a number is too large"); }

static int64_t integer(const nq_tval *v) { return v->type == NQ_TV_BOOL ? v->u.b : v->u.i; }

static novaq_status int_power(nq_tctx *c, nq_tval *out, int64_t base, int64_t exponent) {
    int64_t r = 1;
    if (exponent < 0) {
        *out = nq_tv_float(pow((double)base, (double)exponent));
        return base == 0 ? nq_tfail(c, "division by zero") : NOVAQ_OK;
    }
    for (; exponent > 0; exponent--) {
        if (base == 0 || base == 1) {
            r = base;
            break;
        }
        if (base == -1) {
            r = exponent % 2 != 0 ? -r : r;
            break;
        }
        if (__builtin_mul_overflow(r, base, &r)) {
            return overflow(c);
        }
    }
    *out = nq_tv_int(r);
    return NOVAQ_OK;
}

/* Rounds towards minus infinity, as Python does. */
static novaq_status int_divide(nq_tctx *c, int64_t *q, int64_t *r, int64_t a, int64_t b) {
    if (b == 0) {
        return nq_tfail(c, "division by zero");
    }
    if (a == INT64_MIN && b == -1) {
        return overflow(c);
    }
    *q = a / b;
    *r = a % b;
    if (*r != 0 && (*r < 0) != (b < 0)) {
        --*q;
        *r += b;
    }
    return NOVAQ_OK;
}

static novaq_status int_math(nq_tctx *c, nq_tval *out, int op, int64_t a, int64_t b) {
    int64_t q = 0;
    int64_t r = 0;
    bool over = false;
    switch (op) {
    case '+': over = __builtin_add_overflow(a, b, &r); break;
    case '-': over = __builtin_sub_overflow(a, b, &r); break;
    case '*': over = __builtin_mul_overflow(a, b, &r); break;
    case '%': NQ_TRY(int_divide(c, &q, &r, a, b)); break;
    case NQ_TT_FLOORDIV: NQ_TRY(int_divide(c, &r, &q, a, b)); break;
    case '/':
        *out = nq_tv_float(b == 0 ? 0 : (double)a / (double)b);
        return b == 0 ? nq_tfail(c, "division by zero") : NOVAQ_OK;
    default: return int_power(c, out, a, b);
    }
    *out = nq_tv_int(r);
    return over ? overflow(c) : NOVAQ_OK;
}

static novaq_status float_math(nq_tctx *c, nq_tval *out, int op, double a, double b) {
    double r = 0;
    if (b == 0 && (op == '/' || op == '%' || op == NQ_TT_FLOORDIV)) {
        return nq_tfail(c, "division by zero");
    }
    switch (op) {
    case '+': r = a + b; break;
    case '-': r = a - b; break;
    case '*': r = a * b; break;
    case '/': r = a / b; break;
    case '%':
        r = fmod(a, b);
        r += r != 0 && (r < 0) != (b < 0) ? b : 0;
        break;
    case NQ_TT_FLOORDIV: r = floor(a / b); break;
    default: r = pow(a, b);
    }
    *out = nq_tv_float(r);
    return NOVAQ_OK;
}

static novaq_status join_lists(nq_tctx *c, nq_tval *out, const nq_tval *a, const nq_tval *b) {
    nq_tlist *l = NULL;
    NQ_TRY(nq_tlist_new(c, &l));
    const nq_tlist *parts[] = {a->u.list, b->u.list};
    for (size_t k = 0; k < 2; k++) {
        NQ_TRY(nq_tcharge(c, parts[k]->n));
        for (size_t i = 0; i < parts[k]->n; i++) {
            NQ_TRY(nq_tlist_push(c, l, parts[k]->v[i]));
        }
    }
    *out = (nq_tval){.type = a->type, .u.list = l};
    return NOVAQ_OK;
}

static novaq_status join_strings(nq_tctx *c, nq_tval *out, nq_tstr a, nq_tstr b) {
    char *p = NULL;
    if (a.n == 0 || b.n == 0) {
        *out = nq_tv_str(a.n == 0 ? b : a);
        return NOVAQ_OK;
    }
    NQ_TRY(nq_tcharge(c, a.n + b.n));
    NQ_TRY(nq_tarena_get(&p, &c->arena, (uint64_t)a.n + b.n, 1, c->err));
    memcpy(p, a.p, a.n);
    memcpy(p + a.n, b.p, b.n);
    *out = nq_tv_str((nq_tstr){p, a.n + b.n});
    return NOVAQ_OK;
}

/* A string or list `times` times. */
static novaq_status repeat(nq_tctx *c, nq_tval *out, const nq_tval *v, int64_t times) {
    uint64_t n = times > 0 ? (uint64_t)times : 0;
    uint64_t size = v->type == NQ_TV_STR ? v->u.s.n : v->u.list->n;
    uint64_t total = 0;
    if (!nq_mul_u64(n, size, &total)) {
        return overflow(c);
    }
    NQ_TRY(nq_tcharge(c, total));
    n = size == 0 ? 0 : n;
    if (v->type == NQ_TV_STR) {
        char *p = NULL;
        NQ_TRY(nq_tarena_get(&p, &c->arena, total, 1, c->err));
        for (uint64_t i = 0; i < n; i++) {
            memcpy(p + i * size, v->u.s.p, size);
        }
        *out = nq_tv_str((nq_tstr){p, total});
        return NOVAQ_OK;
    }
    nq_tlist *l = NULL;
    NQ_TRY(nq_tlist_new(c, &l));
    for (uint64_t i = 0; size > 0 && i < total; i++) {
        NQ_TRY(nq_tlist_push(c, l, v->u.list->v[i % size]));
    }
    *out = (nq_tval){.type = v->type, .u.list = l};
    return NOVAQ_OK;
}

static bool whole(const nq_tval *v) { return v->type == NQ_TV_INT || v->type == NQ_TV_BOOL; }
static bool repeats(const nq_tval *v) { return v->type == NQ_TV_STR || nq_tv_is_seq(v); }

novaq_status nq_tmath(nq_tctx *c, nq_tval *out, int op, const nq_tval *a, const nq_tval *b) {
    if (whole(a) && whole(b)) {
        return int_math(c, out, op, integer(a), integer(b));
    }
    if (nq_tv_is_number(a) && nq_tv_is_number(b)) {
        return float_math(c, out, op, nq_tv_number(a), nq_tv_number(b));
    }
    if (op == '+' && a->type == NQ_TV_STR && b->type == NQ_TV_STR) {
        return join_strings(c, out, a->u.s, b->u.s);
    }
    if (op == '+' && nq_tv_is_seq(a) && a->type == b->type) {
        return join_lists(c, out, a, b);
    }
    if (op == '*' && repeats(a) && whole(b)) {
        return repeat(c, out, a, integer(b));
    }
    if (op == '*' && repeats(b) && whole(a)) {
        return repeat(c, out, b, integer(a));
    }
    const nq_tval *missing = a->type == NQ_TV_UNDEFINED ? a : b;
    if (missing->type == NQ_TV_UNDEFINED) {
        return nq_tfail(c, "'%.*s' is undefined", (int)(missing->u.s.n < 80 ? missing->u.s.n : 80),
                        missing->u.s.p);
    }
    return nq_tfail(c, "no such operation on '%s' and '%s'", nq_tv_type_name(a),
                    nq_tv_type_name(b));
}
