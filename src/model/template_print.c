/* template_print.c - values as text: Python's str() and repr(), json.dumps().
 *
 * Owns: the shortest decimal form of a float that reads back as the same. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "model/template_impl.h"

/* Levels of lists in lists that are written. */
#define MAX_NESTING 100

nq_buf nq_tbuf(const nq_tctx *c) { return nq_buf_init(c->limits.output); }

novaq_status nq_tbuf_take(nq_tctx *c, nq_tstr *out, nq_buf *b) {
    char *p = NULL;
    novaq_status st = nq_tarena_get(&p, &c->arena, b->len, 1, c->err);
    if (st == NOVAQ_OK) {
        if (b->len > 0) {
            memcpy(p, b->data, b->len);
        }
        *out = (nq_tstr){p, b->len};
        st = nq_tcharge(c, b->len);
    }
    nq_buf_free(b);
    return st;
}

/* ---- numbers -------------------------------------------------------------- */

/* Digits (at least one) and decimal exponent of the shortest form. */
static int shortest(char digits[32], double v) {
    char text[40];
    char *e = NULL;
    for (int precision = 0; precision <= 16; precision++) {
        (void)snprintf(text, sizeof text, "%.*e", precision, v);
        if (strtod(text, NULL) == v) {
            break;
        }
    }
    e = strchr(text, 'e');
    size_t n = 0;
    for (const char *p = text; p < e; p++) {
        if (*p >= '0' && *p <= '9') {
            digits[n++] = *p;
        }
    }
    while (n > 1 && digits[n - 1] == '0') {
        n--;
    }
    digits[n] = '\0';
    return (int)strtol(e + 1, NULL, 10);
}

static novaq_status put_float(nq_tctx *c, nq_buf *b, double v, bool json) {
    char digits[32];
    if (!isfinite(v)) {
        const char *name = isnan(v) ? "nan" : v < 0 ? "-inf" : "inf";
        const char *long_name = isnan(v) ? "NaN" : v < 0 ? "-Infinity" : "Infinity";
        return nq_buf_puts(b, json ? long_name : name, c->err);
    }
    if (signbit(v)) {
        NQ_TRY(nq_buf_puts(b, "-", c->err));
        v = -v;
    }
    int e = shortest(digits, v);
    int n = (int)strlen(digits);
    if (e < -4 || e >= 16) {
        return nq_buf_printf(b, c->err, "%c%s%se%c%02d", digits[0], n > 1 ? "." : "", digits + 1,
                             e < 0 ? '-' : '+', abs(e));
    }
    if (e < 0) {
        return nq_buf_printf(b, c->err, "0.%.*s%s", -e - 1, "000", digits);
    }
    if (n <= e + 1) {
        NQ_TRY(nq_buf_puts(b, digits, c->err));
        for (int i = n; i <= e; i++) {
            NQ_TRY(nq_buf_puts(b, "0", c->err));
        }
        return nq_buf_puts(b, ".0", c->err);
    }
    return nq_buf_printf(b, c->err, "%.*s.%s", e + 1, digits, digits + e + 1);
}

/* ---- str() and repr() -------------------------------------------------------- */

static bool printable(uint32_t cp) {
    switch (utf8proc_category((utf8proc_int32_t)cp)) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
    case UTF8PROC_CATEGORY_ZS: return cp == ' ';
    default: return true;
    }
}

static novaq_status put_repr(nq_tctx *c, nq_buf *b, nq_tstr s) {
    char quote =
        s.n > 0 && memchr(s.p, '\'', s.n) != NULL && memchr(s.p, '"', s.n) == NULL ? '"' : '\'';
    NQ_TRY(nq_tcharge(c, s.n));
    NQ_TRY(nq_buf_append(b, &quote, 1, c->err));
    for (const char *p = s.p, *end = s.p + s.n; p < end;) {
        const char *start = p;
        uint32_t cp = nq_tu_next(&p, end);
        if (cp == '\n' || cp == '\r' || cp == '\t') {
            NQ_TRY(nq_buf_puts(b, cp == '\n' ? "\\n" : cp == '\r' ? "\\r" : "\\t", c->err));
        } else if (cp == '\\' || cp == (uint32_t)quote) {
            NQ_TRY(nq_buf_printf(b, c->err, "\\%c", (int)cp));
        } else if (printable(cp)) {
            NQ_TRY(nq_buf_append(b, start, (size_t)(p - start), c->err));
        } else {
            NQ_TRY(nq_buf_printf(b, c->err,
                                 cp < 0x100     ? "\\x%02x"
                                 : cp < 0x10000 ? "\\u%04x"
                                                : "\\U%08x",
                                 cp));
        }
    }
    return nq_buf_append(b, &quote, 1, c->err);
}

static novaq_status put(nq_tctx *c, nq_buf *b, const nq_tval *v, unsigned depth);

static novaq_status put_list(nq_tctx *c, nq_buf *b, const nq_tval *v, unsigned depth) {
    bool tuple = v->type == NQ_TV_TUPLE;
    const nq_tlist *l = v->u.list;
    if (l->lazy) {
        return nq_tfail(c, "a generator cannot be printed; use the filter list");
    }
    NQ_TRY(nq_buf_puts(b, tuple ? "(" : "[", c->err));
    for (size_t i = 0; i < l->n; i++) {
        NQ_TRY(nq_buf_puts(b, i > 0 ? ", " : "", c->err));
        NQ_TRY(put(c, b, &l->v[i], depth + 1));
    }
    return nq_buf_puts(b, !tuple ? "]" : l->n == 1 ? ",)" : ")", c->err);
}

static novaq_status put_dict(nq_tctx *c, nq_buf *b, const nq_tdict *d, unsigned depth) {
    NQ_TRY(nq_buf_puts(b, "{", c->err));
    for (size_t i = 0; i < d->n; i++) {
        NQ_TRY(nq_buf_puts(b, i > 0 ? ", " : "", c->err));
        NQ_TRY(put(c, b, &d->keys[i], depth + 1));
        NQ_TRY(nq_buf_puts(b, ": ", c->err));
        NQ_TRY(put(c, b, &d->values[i], depth + 1));
    }
    return nq_buf_puts(b, "}", c->err);
}

/* depth 0 is str(), deeper is repr(). */
static novaq_status put(nq_tctx *c, nq_buf *b, const nq_tval *v, unsigned depth) {
    NQ_TRY(nq_tcharge(c, 0));
    if (depth > MAX_NESTING) {
        return nq_tfail(c, "a value is nested too deeply to print");
    }
    switch (v->type) {
    case NQ_TV_UNDEFINED: return depth == 0 ? NOVAQ_OK : nq_buf_puts(b, "Undefined", c->err);
    case NQ_TV_NONE: return nq_buf_puts(b, "None", c->err);
    case NQ_TV_BOOL: return nq_buf_puts(b, v->u.b ? "True" : "False", c->err);
    case NQ_TV_INT: return nq_buf_printf(b, c->err, "%lld", (long long)v->u.i);
    case NQ_TV_FLOAT: return put_float(c, b, v->u.f, false);
    case NQ_TV_STR:
        return depth == 0 ? nq_buf_append(b, v->u.s.p, v->u.s.n, c->err) : put_repr(c, b, v->u.s);
    case NQ_TV_LIST:
    case NQ_TV_TUPLE: return put_list(c, b, v, depth);
    case NQ_TV_DICT: return put_dict(c, b, v->u.dict, depth);
    case NQ_TV_CYCLER:
    case NQ_TV_NAMESPACE:
    case NQ_TV_MACRO:
    case NQ_TV_FUNC:
    case NQ_TV_LOOP: break;
    }
    return nq_tfail(c, "a %s cannot be printed", nq_tv_type_name(v));
}

novaq_status nq_tv_write(nq_tctx *c, nq_buf *b, const nq_tval *v) {
    NQ_TRY(nq_tcharge(c, v->type == NQ_TV_STR ? v->u.s.n : 0));
    return put(c, b, v, 0);
}

novaq_status nq_tv_string(nq_tctx *c, nq_tstr *out, const nq_tval *v) {
    if (v->type == NQ_TV_STR) {
        *out = v->u.s;
        return NOVAQ_OK;
    }
    nq_buf b = nq_tbuf(c);
    novaq_status st = put(c, &b, v, 0);
    if (st != NOVAQ_OK) {
        nq_buf_free(&b);
        return st;
    }
    return nq_tbuf_take(c, out, &b);
}

/* ---- JSON --------------------------------------------------------------------- */

typedef struct json_out {
    nq_tctx *c;
    nq_buf *b;
    const nq_tjson_style *style;
} json_out;

static novaq_status json_char(const json_out *o, const char *start, size_t n, uint32_t cp) {
    static const char from[] = "\"\\\n\r\t\f\b";
    static const char to[] = "\"\\nrtfb";
    const char *known = cp < 0x80 && cp != 0 ? strchr(from, (int)cp) : NULL;
    if (known != NULL) {
        return nq_buf_printf(o->b, o->c->err, "\\%c", to[known - from]);
    }
    if (cp < 0x20 || (o->style->ascii && cp > 0x7E && cp < 0x10000)) {
        return nq_buf_printf(o->b, o->c->err, "\\u%04x", cp);
    }
    if (o->style->ascii && cp >= 0x10000) {
        uint32_t x = cp - 0x10000;
        return nq_buf_printf(o->b, o->c->err, "\\u%04x\\u%04x", 0xD800 + (x >> 10),
                             0xDC00 + (x & 0x3FF));
    }
    return nq_buf_append(o->b, start, n, o->c->err);
}

static novaq_status json_str(const json_out *o, nq_tstr s) {
    NQ_TRY(nq_tcharge(o->c, s.n));
    NQ_TRY(nq_buf_puts(o->b, "\"", o->c->err));
    for (const char *p = s.p, *end = s.p + s.n; p < end;) {
        const char *start = p;
        uint32_t cp = nq_tu_next(&p, end);
        NQ_TRY(json_char(o, start, (size_t)(p - start), cp));
    }
    return nq_buf_puts(o->b, "\"", o->c->err);
}

static novaq_status json_line(const json_out *o, unsigned depth) {
    if (o->style->indent < 0) {
        return NOVAQ_OK;
    }
    return nq_buf_printf(o->b, o->c->err, "\n%*s", (int)depth * o->style->indent, "");
}

static novaq_status json_value(const json_out *o, const nq_tval *v, unsigned depth);

static novaq_status json_list(const json_out *o, const nq_tlist *l, unsigned depth) {
    if (l->lazy) {
        return nq_tfail(o->c, "a generator cannot be written as JSON; use the filter list");
    }
    if (l->n == 0) {
        return nq_buf_puts(o->b, "[]", o->c->err);
    }
    NQ_TRY(nq_buf_puts(o->b, "[", o->c->err));
    for (size_t i = 0; i < l->n; i++) {
        if (i > 0) {
            NQ_TRY(nq_buf_append(o->b, o->style->item.p, o->style->item.n, o->c->err));
        }
        NQ_TRY(json_line(o, depth + 1));
        NQ_TRY(json_value(o, &l->v[i], depth + 1));
    }
    NQ_TRY(json_line(o, depth));
    return nq_buf_puts(o->b, "]", o->c->err);
}

/* Keys become strings the way json.dumps() makes them. */
static novaq_status json_key(const json_out *o, const nq_tval *key) {
    if (key->type == NQ_TV_STR) {
        return json_str(o, key->u.s);
    }
    NQ_TRY(nq_buf_puts(o->b, "\"", o->c->err));
    NQ_TRY(json_value(o, key, 0));
    return nq_buf_puts(o->b, "\"", o->c->err);
}

/* Order of the pairs: places in d, sorted by key when the style says so. */
static novaq_status json_order(const json_out *o, size_t **order, const nq_tdict *d) {
    NQ_TRY(nq_tarena_get(order, &o->c->arena, d->n, sizeof **order, o->c->err));
    for (size_t i = 0; i < d->n; i++) {
        size_t at = i;
        int cmp = 1;
        while (o->style->sort && at > 0 && cmp > 0) {
            NQ_TRY(nq_tcharge(o->c, 0));
            NQ_TRY(nq_tv_compare(o->c, &cmp, &d->keys[(*order)[at - 1]], &d->keys[i]));
            if (cmp > 0) {
                (*order)[at] = (*order)[at - 1];
                at--;
            }
        }
        (*order)[at] = i;
    }
    return NOVAQ_OK;
}

static novaq_status json_dict(const json_out *o, const nq_tdict *d, unsigned depth) {
    size_t *order = NULL;
    if (d->n == 0) {
        return nq_buf_puts(o->b, "{}", o->c->err);
    }
    NQ_TRY(json_order(o, &order, d));
    NQ_TRY(nq_buf_puts(o->b, "{", o->c->err));
    for (size_t i = 0; i < d->n; i++) {
        const nq_tval *key = &d->keys[order[i]];
        if (key->type > NQ_TV_STR || key->type == NQ_TV_UNDEFINED) {
            return nq_tfail(o->c, "a %s cannot be a key of JSON", nq_tv_type_name(key));
        }
        if (i > 0) {
            NQ_TRY(nq_buf_append(o->b, o->style->item.p, o->style->item.n, o->c->err));
        }
        NQ_TRY(json_line(o, depth + 1));
        NQ_TRY(json_key(o, key));
        NQ_TRY(nq_buf_append(o->b, o->style->key.p, o->style->key.n, o->c->err));
        NQ_TRY(json_value(o, &d->values[order[i]], depth + 1));
    }
    NQ_TRY(json_line(o, depth));
    return nq_buf_puts(o->b, "}", o->c->err);
}

static novaq_status json_value(const json_out *o, const nq_tval *v, unsigned depth) {
    NQ_TRY(nq_tcharge(o->c, 0));
    if (depth > MAX_NESTING) {
        return nq_tfail(o->c, "a value is nested too deeply for JSON");
    }
    switch (v->type) {
    case NQ_TV_NONE: return nq_buf_puts(o->b, "null", o->c->err);
    case NQ_TV_BOOL: return nq_buf_puts(o->b, v->u.b ? "true" : "false", o->c->err);
    case NQ_TV_INT: return nq_buf_printf(o->b, o->c->err, "%lld", (long long)v->u.i);
    case NQ_TV_FLOAT: return put_float(o->c, o->b, v->u.f, true);
    case NQ_TV_STR: return json_str(o, v->u.s);
    case NQ_TV_LIST:
    case NQ_TV_TUPLE: return json_list(o, v->u.list, depth);
    case NQ_TV_DICT: return json_dict(o, v->u.dict, depth);
    case NQ_TV_UNDEFINED:
    case NQ_TV_NAMESPACE:
    case NQ_TV_MACRO:
    case NQ_TV_FUNC:
    case NQ_TV_LOOP:
    case NQ_TV_CYCLER: break;
    }
    return nq_tfail(o->c, "a value of type %s cannot be written as JSON", nq_tv_type_name(v));
}

novaq_status nq_tv_json(nq_tctx *c, nq_tstr *out, const nq_tval *v, const nq_tjson_style *style) {
    nq_buf b = nq_tbuf(c);
    const json_out o = {.c = c, .b = &b, .style = style};
    novaq_status st = json_value(&o, v, 0);
    if (st != NOVAQ_OK) {
        nq_buf_free(&b);
        return st;
    }
    return nq_tbuf_take(c, out, &b);
}
