/* template_filter.c - the filters of templates that look at one value; see
 * template_filter_list.c for those that look at its items. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model/template_impl.h"

static novaq_status cased(nq_tctx *c, nq_tval *out, const nq_tval *v, const char *how) {
    nq_tstr s;
    NQ_TRY(nq_tv_string(c, &s, v));
    NQ_TRY(nq_tu_case(c, &s, s, how));
    *out = nq_tv_str(s);
    return NOVAQ_OK;
}

static novaq_status f_upper(nq_tctx *c, nq_tval *out, const nq_tval *v, const nq_targs *a) {
    (void)a;
    return cased(c, out, v, "upper");
}
static novaq_status f_lower(nq_tctx *c, nq_tval *out, const nq_tval *v, const nq_targs *a) {
    (void)a;
    return cased(c, out, v, "lower");
}
static novaq_status f_capitalize(nq_tctx *c, nq_tval *out, const nq_tval *v, const nq_targs *a) {
    (void)a;
    return cased(c, out, v, "capitalize");
}
static novaq_status f_title(nq_tctx *c, nq_tval *out, const nq_tval *v, const nq_targs *a) {
    (void)a;
    return cased(c, out, v, "title");
}

static novaq_status f_string(nq_tctx *c, nq_tval *out, const nq_tval *v, const nq_targs *a) {
    nq_tstr s;
    (void)a;
    NQ_TRY(nq_tv_string(c, &s, v));
    *out = nq_tv_str(s);
    return NOVAQ_OK;
}

static novaq_status f_trim(nq_tctx *c, nq_tval *out, const nq_tval *v, const nq_targs *a) {
    nq_tstr s;
    nq_tstr set = {"", 0};
    const nq_tval *chars = nq_targ(a, 0, "chars");
    bool given = chars != NULL && chars->type != NQ_TV_NONE;
    NQ_TRY(nq_tv_string(c, &s, v));
    if (given) {
        NQ_TRY(nq_targ_str(c, &set, a, 0, "chars", set));
    }
    NQ_TRY(nq_tcharge(c, s.n * (1 + set.n / 4)));
    *out = nq_tv_str(nq_tu_strip(s, 3, given ? &set : NULL));
    return NOVAQ_OK;
}

static novaq_status f_replace(nq_tctx *c, nq_tval *out, const nq_tval *v, const nq_targs *a) {
    nq_tstr s;
    nq_tstr from;
    nq_tstr to;
    int64_t count = -1;
    const nq_tval *limit = nq_targ(a, 2, "count");
    NQ_TRY(nq_tv_string(c, &s, v));
    NQ_TRY(nq_targ_str(c, &from, a, 0, "old", (nq_tstr){NULL, 0}));
    NQ_TRY(nq_targ_str(c, &to, a, 1, "new", (nq_tstr){NULL, 0}));
    if (limit != NULL && limit->type != NQ_TV_NONE) {
        NQ_TRY(nq_targ_int(c, &count, a, 2, "count", -1));
    }
    NQ_TRY(nq_tu_replace(c, &s, s, from, to, count));
    *out = nq_tv_str(s);
    return NOVAQ_OK;
}

static novaq_status f_default(nq_tctx *c, nq_tval *out, const nq_tval *v, const nq_targs *a) {
    const nq_tval *other = nq_targ(a, 0, "default_value");
    bool falsy = nq_targ_true(a, 1, "boolean", false) && !nq_tv_true(v);
    (void)c;
    *out = *v;
    if (v->type == NQ_TV_UNDEFINED || falsy) {
        *out = other != NULL ? *other : nq_tv_str((nq_tstr){"", 0});
    }
    return NOVAQ_OK;
}

static novaq_status f_length(nq_tctx *c, nq_tval *out, const nq_tval *v, const nq_targs *a) {
    size_t n = 0;
    (void)a;
    if (v->type == NQ_TV_STR) {
        NQ_TRY(nq_tcharge(c, v->u.s.n));
        n = nq_tu_count(v->u.s);
    } else if (nq_tv_is_seq(v) && !v->u.list->lazy) {
        n = v->u.list->n;
    } else if (v->type == NQ_TV_DICT) {
        n = v->u.dict->n;
    } else if (v->type != NQ_TV_UNDEFINED) {
        return nq_tfail(c, "'%s' has no length", nq_tv_type_name(v));
    }
    *out = nq_tv_int((int64_t)n);
    return NOVAQ_OK;
}

static novaq_status f_safe(nq_tctx *c, nq_tval *out, const nq_tval *v, const nq_targs *a) {
    return f_string(c, out, v, a);
}

static novaq_status f_escape(nq_tctx *c, nq_tval *out, const nq_tval *v, const nq_targs *a) {
    static const struct {
        nq_tstr from, to;
    } marks[] = {{NQ_TSTR("&"), NQ_TSTR("&amp;")},
                 {NQ_TSTR("<"), NQ_TSTR("&lt;")},
                 {NQ_TSTR(">"), NQ_TSTR("&gt;")},
                 {NQ_TSTR("'"), NQ_TSTR("&#39;")},
                 {NQ_TSTR("\""), NQ_TSTR("&#34;")}};
    nq_tstr s;
    (void)a;
    NQ_TRY(nq_tv_string(c, &s, v));
    for (size_t i = 0; i < sizeof marks / sizeof marks[0]; i++) {
        NQ_TRY(nq_tu_replace(c, &s, s, marks[i].from, marks[i].to, -1));
    }
    *out = nq_tv_str(s);
    return NOVAQ_OK;
}

/* ---- numbers -------------------------------------------------------------------- */

/* The whole string, but for white space around it, as a number. */
static bool parse_number(double *f, int64_t *i, bool *is_int, nq_tstr s) {
    char text[64];
    char *end = NULL;
    s = nq_tu_strip(s, 3, NULL);
    if (s.n == 0 || s.n >= sizeof text || memchr(s.p, 'x', s.n) != NULL ||
        memchr(s.p, 'X', s.n) != NULL) {
        return false;
    }
    memcpy(text, s.p, s.n);
    text[s.n] = '\0';
    *i = (int64_t)strtoll(text, &end, 10);
    *is_int = *end == '\0' && *i != INT64_MAX && *i != INT64_MIN;
    *f = strtod(text, &end);
    return *end == '\0';
}

static novaq_status to_int(nq_tval *out, double f, const nq_tval *other) {
    if (f > -9e18 && f < 9e18) {
        *out = nq_tv_int((int64_t)f);
    } else {
        *out = other != NULL ? *other : nq_tv_int(0);
    }
    return NOVAQ_OK;
}

static novaq_status f_int(nq_tctx *c, nq_tval *out, const nq_tval *v, const nq_targs *a) {
    const nq_tval *other = nq_targ(a, 0, "default");
    double f = 0;
    int64_t i = 0;
    int64_t base = 10;
    bool is_int = false;
    NQ_TRY(nq_targ_int(c, &base, a, 1, "base", 10));
    if (base != 10) {
        return nq_tfail(c, "int() with a base other than 10 is not supported");
    }
    if (v->type == NQ_TV_FLOAT) {
        return to_int(out, v->u.f, other);
    }
    if (v->type == NQ_TV_INT || v->type == NQ_TV_BOOL) {
        *out = nq_tv_int(v->type == NQ_TV_INT ? v->u.i : v->u.b);
        return NOVAQ_OK;
    }
    if (v->type == NQ_TV_STR && parse_number(&f, &i, &is_int, v->u.s)) {
        if (is_int) {
            *out = nq_tv_int(i);
            return NOVAQ_OK;
        }
        return to_int(out, f, other);
    }
    if (v->type == NQ_TV_UNDEFINED) {
        return nq_tfail(c, "an undefined value is no number");
    }
    *out = other != NULL ? *other : nq_tv_int(0);
    return NOVAQ_OK;
}

static novaq_status f_float(nq_tctx *c, nq_tval *out, const nq_tval *v, const nq_targs *a) {
    const nq_tval *other = nq_targ(a, 0, "default");
    double f = 0;
    int64_t i = 0;
    bool is_int = false;
    if (v->type == NQ_TV_UNDEFINED) {
        return nq_tfail(c, "an undefined value is no number");
    }
    if (nq_tv_is_number(v)) {
        *out = nq_tv_float(nq_tv_number(v));
    } else if (v->type == NQ_TV_STR && parse_number(&f, &i, &is_int, v->u.s)) {
        *out = nq_tv_float(f);
    } else {
        *out = other != NULL ? *other : nq_tv_float(0);
    }
    return NOVAQ_OK;
}

static novaq_status f_abs(nq_tctx *c, nq_tval *out, const nq_tval *v, const nq_targs *a) {
    (void)a;
    if (!nq_tv_is_number(v)) {
        return nq_tfail(c, "abs of '%s'", nq_tv_type_name(v));
    }
    if (v->type == NQ_TV_FLOAT) {
        *out = nq_tv_float(fabs(v->u.f));
        return NOVAQ_OK;
    }
    int64_t i = v->type == NQ_TV_INT ? v->u.i : v->u.b;
    if (i == INT64_MIN) {
        return nq_tfail(c, "a number is too large");
    }
    *out = nq_tv_int(i < 0 ? -i : i);
    return NOVAQ_OK;
}

static novaq_status f_round(nq_tctx *c, nq_tval *out, const nq_tval *v, const nq_targs *a) {
    nq_tstr method;
    int64_t digits = 0;
    char text[400];
    NQ_TRY(nq_targ_int(c, &digits, a, 0, "precision", 0));
    NQ_TRY(nq_targ_str(c, &method, a, 1, "method", NQ_TSTR("common")));
    if (!nq_tv_is_number(v) || digits < 0 || digits > 15) {
        return nq_tfail(c, "round of '%s' to %lld digits", nq_tv_type_name(v), (long long)digits);
    }
    double scale = pow(10, (double)digits);
    double f = nq_tv_number(v);
    if (nq_tstr_is(method, "ceil")) {
        *out = nq_tv_float(ceil(f * scale) / scale);
    } else if (nq_tstr_is(method, "floor")) {
        *out = nq_tv_float(floor(f * scale) / scale);
    } else if (v->type != NQ_TV_FLOAT) {
        *out = nq_tv_int(v->type == NQ_TV_INT ? v->u.i : v->u.b);
    } else { /* to even on the exact decimal expansion, as printf and Python do */
        (void)snprintf(text, sizeof text, "%.*f", (int)digits, f);
        *out = nq_tv_float(strtod(text, NULL));
    }
    return NOVAQ_OK;
}

/* ---- JSON, indentation ------------------------------------------------------------- */

static novaq_status separators(nq_tctx *c, nq_tjson_style *style, const nq_tval *v) {
    if (v == NULL || v->type == NQ_TV_NONE) {
        return NOVAQ_OK;
    }
    if (!nq_tv_is_seq(v) || v->u.list->n != 2 || v->u.list->v[0].type != NQ_TV_STR ||
        v->u.list->v[1].type != NQ_TV_STR) {
        return nq_tfail(c, "separators must be two strings");
    }
    style->item = v->u.list->v[0].u.s;
    style->key = v->u.list->v[1].u.s;
    return NOVAQ_OK;
}

static novaq_status f_tojson(nq_tctx *c, nq_tval *out, const nq_tval *v, const nq_targs *a) {
    nq_tjson_style style = {.indent = -1, .item = NQ_TSTR(", "), .key = NQ_TSTR(": ")};
    const nq_tval *indent = nq_targ(a, 1, "indent");
    const nq_tval *first = a->n > 0 ? &a->v[0] : NULL;
    nq_tstr s;
    int64_t width = -1;
    if (indent != NULL && indent->type != NQ_TV_NONE) {
        NQ_TRY(nq_targ_int(c, &width, a, 1, "indent", -1));
        if (width < 0 || width > 64) {
            return nq_tfail(c, "tojson: an indent of %lld is not supported", (long long)width);
        }
        style.indent = (int)width;
        style.item = NQ_TSTR(",");
    }
    NQ_TRY(separators(c, &style, nq_targ(a, 2, "separators")));
    style.ascii =
        first != NULL ? nq_tv_true(first) : nq_targ_true(a, SIZE_MAX, "ensure_ascii", false);
    style.sort = nq_targ_true(a, 3, "sort_keys", false);
    NQ_TRY(nq_tv_json(c, &s, v, &style));
    *out = nq_tv_str(s);
    return NOVAQ_OK;
}

static novaq_status f_indent(nq_tctx *c, nq_tval *out, const nq_tval *v, const nq_targs *a) {
    nq_tstr s;
    nq_tlist *lines = NULL;
    int64_t width = 4;
    const nq_tval *by = nq_targ(a, 0, "width");
    bool first = nq_targ_true(a, 1, "first", false);
    bool blank = nq_targ_true(a, 2, "blank", false);
    nq_tstr text = {NULL, 0};
    char spaces[64];
    NQ_TRY(nq_tv_string(c, &s, v));
    if (by != NULL && by->type == NQ_TV_STR) {
        text = by->u.s;
    } else {
        NQ_TRY(nq_targ_int(c, &width, a, 0, "width", 4));
        if (width < 0 || width > (int64_t)sizeof spaces) {
            return nq_tfail(c, "indent: a width of %lld is not supported", (long long)width);
        }
        memset(spaces, ' ', sizeof spaces);
        text = (nq_tstr){spaces, (size_t)width};
    }
    NQ_TRY(nq_tu_lines(c, &lines, s));
    if (s.n == 0 || s.p[s.n - 1] == '\n') { /* Jinja appends a line feed, then splits */
        NQ_TRY(nq_tlist_push(c, lines, nq_tv_str((nq_tstr){"", 0})));
    }
    nq_buf b = nq_tbuf(c);
    novaq_status st = NOVAQ_OK;
    for (size_t i = 0; st == NOVAQ_OK && i < lines->n; i++) {
        nq_tstr line = lines->v[i].u.s;
        bool shifted = i == 0 ? first : (blank || line.n > 0);
        st = nq_buf_append(&b, "\n", i > 0, c->err);
        st = st == NOVAQ_OK ? nq_buf_append(&b, text.p, shifted ? text.n : 0, c->err) : st;
        st = st == NOVAQ_OK ? nq_buf_append(&b, line.p, line.n, c->err) : st;
    }
    if (st != NOVAQ_OK) {
        nq_buf_free(&b);
        return st;
    }
    NQ_TRY(nq_tbuf_take(c, &s, &b));
    *out = nq_tv_str(s);
    return NOVAQ_OK;
}

nq_tcallable nq_tfilter_find(nq_tstr name) {
    static const nq_tentry table[] = {
        {"upper", f_upper},     {"lower", f_lower},     {"capitalize", f_capitalize},
        {"title", f_title},     {"string", f_string},   {"trim", f_trim},
        {"replace", f_replace}, {"default", f_default}, {"d", f_default},
        {"length", f_length},   {"count", f_length},    {"safe", f_safe},
        {"escape", f_escape},   {"e", f_escape},        {"int", f_int},
        {"float", f_float},     {"abs", f_abs},         {"round", f_round},
        {"tojson", f_tojson},   {"indent", f_indent}};
    return nq_tentry_find(table, sizeof table / sizeof table[0], name);
}
