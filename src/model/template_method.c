/* template_method.c - the methods of strings, dicts and lists, and the functions
 * that every template can call.
 *
 * Refuses: methods that would change a value, as the immutable sandbox does. */
#include <string.h>
#include <utf8proc.h>

#include "model/template_impl.h"

/* Longest list range() makes, Jinja's own limit in a sandbox. */
#define MAX_RANGE 100000

/* ---- arguments ------------------------------------------------------------------ */

const nq_tval *nq_targ(const nq_targs *a, size_t i, const char *name) {
    if (i < a->n) {
        return &a->v[i];
    }
    for (size_t k = 0; name != NULL && k < a->kwn; k++) {
        if (nq_tstr_is(a->kw[k].name, name)) {
            return &a->kw[k].value;
        }
    }
    return NULL;
}

novaq_status nq_targ_str(nq_tctx *c, nq_tstr *out, const nq_targs *a, size_t i, const char *name,
                         nq_tstr preset) {
    const nq_tval *v = nq_targ(a, i, name);
    *out = preset;
    if (v == NULL) {
        return preset.p != NULL ? NOVAQ_OK : nq_tfail(c, "an argument is missing");
    }
    if (v->type != NQ_TV_STR) {
        return nq_tfail(c, "an argument must be a string, not '%s'", nq_tv_type_name(v));
    }
    *out = v->u.s;
    return NOVAQ_OK;
}

novaq_status nq_targ_int(nq_tctx *c, int64_t *out, const nq_targs *a, size_t i, const char *name,
                         int64_t preset) {
    const nq_tval *v = nq_targ(a, i, name);
    *out = preset;
    if (v == NULL) {
        return NOVAQ_OK;
    }
    if (v->type != NQ_TV_INT && v->type != NQ_TV_BOOL) {
        return nq_tfail(c, "an argument must be an integer, not '%s'", nq_tv_type_name(v));
    }
    *out = v->type == NQ_TV_BOOL ? v->u.b : v->u.i;
    return NOVAQ_OK;
}

bool nq_targ_true(const nq_targs *a, size_t i, const char *name, bool preset) {
    const nq_tval *v = nq_targ(a, i, name);
    return v == NULL ? preset : nq_tv_true(v);
}

nq_tcallable nq_tentry_find(const nq_tentry *table, size_t n, nq_tstr name) {
    for (size_t i = 0; i < n; i++) {
        if (nq_tstr_is(name, table[i].name)) {
            return table[i].fn;
        }
    }
    return NULL;
}

static novaq_status wrap(nq_tctx *c, nq_tval *out, nq_tcallable fn, const nq_tval *self,
                         nq_tstr name) {
    nq_tfunc *f = NULL;
    if (fn == NULL) {
        *out = nq_tv_undefined(name);
        return NOVAQ_OK;
    }
    NQ_TRY(nq_tarena_get(&f, &c->arena, 1, sizeof *f, c->err));
    *f = (nq_tfunc){.fn = fn, .self = *self};
    *out = (nq_tval){.type = NQ_TV_FUNC, .u.func = f};
    return NOVAQ_OK;
}

static novaq_status unsafe(nq_tctx *c, nq_tval *out, const nq_tval *self, const nq_targs *a) {
    (void)out;
    (void)a;
    return nq_tfail(c, "values cannot be changed; this method of '%s' is not safe to call",
                    nq_tv_type_name(self));
}

/* ---- strings ------------------------------------------------------------------------ */

static novaq_status strip(nq_tctx *c, nq_tval *out, const nq_tval *self, const nq_targs *a,
                          int side) {
    const nq_tval *chars = nq_targ(a, 0, NULL);
    nq_tstr set = {"", 0};
    NQ_TRY(nq_tcharge(c, self->u.s.n));
    bool given = chars != NULL && chars->type != NQ_TV_NONE;
    if (given) {
        NQ_TRY(nq_targ_str(c, &set, a, 0, NULL, set));
        NQ_TRY(nq_tcharge(c, self->u.s.n * (set.n / 4)));
    }
    *out = nq_tv_str(nq_tu_strip(self->u.s, side, given ? &set : NULL));
    return NOVAQ_OK;
}

static novaq_status m_strip(nq_tctx *c, nq_tval *out, const nq_tval *self, const nq_targs *a) {
    return strip(c, out, self, a, 3);
}
static novaq_status m_lstrip(nq_tctx *c, nq_tval *out, const nq_tval *self, const nq_targs *a) {
    return strip(c, out, self, a, 1);
}
static novaq_status m_rstrip(nq_tctx *c, nq_tval *out, const nq_tval *self, const nq_targs *a) {
    return strip(c, out, self, a, 2);
}

static novaq_status recase(nq_tctx *c, nq_tval *out, const nq_tval *self, const char *how) {
    nq_tstr s;
    NQ_TRY(nq_tu_case(c, &s, self->u.s, how));
    *out = nq_tv_str(s);
    return NOVAQ_OK;
}

static novaq_status m_upper(nq_tctx *c, nq_tval *out, const nq_tval *self, const nq_targs *a) {
    (void)a;
    return recase(c, out, self, "upper");
}
static novaq_status m_lower(nq_tctx *c, nq_tval *out, const nq_tval *self, const nq_targs *a) {
    (void)a;
    return recase(c, out, self, "lower");
}
static novaq_status m_title(nq_tctx *c, nq_tval *out, const nq_tval *self, const nq_targs *a) {
    (void)a;
    return recase(c, out, self, "method title");
}
static novaq_status m_capitalize(nq_tctx *c, nq_tval *out, const nq_tval *self, const nq_targs *a) {
    (void)a;
    return recase(c, out, self, "capitalize");
}

/* Words between white space, at most max splits. */
static novaq_status split_words(nq_tctx *c, nq_tlist *l, nq_tstr s, int64_t max) {
    for (s = nq_tu_strip(s, 1, NULL); s.n > 0; s = nq_tu_strip(s, 1, NULL)) {
        const char *p = s.p;
        const char *end = s.p + s.n;
        const char *stop = end;
        while (p < end && max != 0) {
            const char *q = p;
            if (nq_tu_space(nq_tu_next(&q, end))) {
                stop = p;
                break;
            }
            p = q;
        }
        nq_tstr word = {s.p, (size_t)(stop - s.p)};
        NQ_TRY(nq_tlist_push(c, l, nq_tv_str(word)));
        s = (nq_tstr){stop, (size_t)(end - stop)};
        max -= max > 0;
    }
    return NOVAQ_OK;
}

static novaq_status m_split(nq_tctx *c, nq_tval *out, const nq_tval *self, const nq_targs *a) {
    const nq_tval *sep = nq_targ(a, 0, "sep");
    nq_tstr by = {"", 0};
    nq_tlist *l = NULL;
    int64_t max = -1;
    size_t from = 0;
    NQ_TRY(nq_tcharge(c, self->u.s.n));
    NQ_TRY(nq_targ_int(c, &max, a, 1, "maxsplit", -1));
    NQ_TRY(nq_tlist_new(c, &l));
    *out = nq_tv_list(l);
    if (sep == NULL || sep->type == NQ_TV_NONE) {
        return split_words(c, l, self->u.s, max);
    }
    NQ_TRY(nq_targ_str(c, &by, a, 0, "sep", by));
    if (by.n == 0) {
        return nq_tfail(c, "empty separator");
    }
    for (size_t at; max != 0 && (at = nq_tu_find(self->u.s, by, from)) != SIZE_MAX; max--) {
        NQ_TRY(nq_tlist_push(c, l, nq_tv_str((nq_tstr){self->u.s.p + from, at - from})));
        from = at + by.n;
    }
    return nq_tlist_push(c, l, nq_tv_str((nq_tstr){self->u.s.p + from, self->u.s.n - from}));
}

/* Last place of needle that ends at or before `end`; SIZE_MAX when there is none. */
static size_t find_last(nq_tstr s, nq_tstr needle, size_t end) {
    for (size_t at = end < needle.n ? 0 : end - needle.n + 1; at-- > 0;) {
        if (needle.n == 0 || memcmp(s.p + at, needle.p, needle.n) == 0) {
            return at;
        }
    }
    return SIZE_MAX;
}

static novaq_status m_rsplit(nq_tctx *c, nq_tval *out, const nq_tval *self, const nq_targs *a) {
    nq_tstr by;
    nq_tlist *l = NULL;
    int64_t max = -1;
    size_t end = self->u.s.n;
    NQ_TRY(nq_tcharge(c, self->u.s.n));
    NQ_TRY(nq_targ_int(c, &max, a, 1, "maxsplit", -1));
    if (max < 0) {
        return m_split(c, out, self, a);
    }
    NQ_TRY(nq_targ_str(c, &by, a, 0, "sep", (nq_tstr){NULL, 0}));
    if (by.n == 0) {
        return nq_tfail(c, "empty separator");
    }
    NQ_TRY(nq_tlist_new(c, &l));
    for (size_t at; max > 0 && (at = find_last(self->u.s, by, end)) != SIZE_MAX; max--) {
        nq_tstr part = {self->u.s.p + at + by.n, end - at - by.n};
        NQ_TRY(nq_tlist_push(c, l, nq_tv_str(part)));
        end = at;
    }
    NQ_TRY(nq_tlist_push(c, l, nq_tv_str((nq_tstr){self->u.s.p, end})));
    for (size_t i = 0; i < l->n / 2; i++) {
        nq_tval swap = l->v[i];
        l->v[i] = l->v[l->n - 1 - i];
        l->v[l->n - 1 - i] = swap;
    }
    *out = nq_tv_list(l);
    return NOVAQ_OK;
}

static novaq_status m_splitlines(nq_tctx *c, nq_tval *out, const nq_tval *self, const nq_targs *a) {
    nq_tlist *l = NULL;
    if (nq_targ_true(a, 0, "keepends", false)) {
        return nq_tfail(c, "splitlines(keepends) is not supported");
    }
    NQ_TRY(nq_tu_lines(c, &l, self->u.s));
    *out = nq_tv_list(l);
    return NOVAQ_OK;
}

static bool has_edge(nq_tstr s, nq_tstr part, bool start) {
    return part.n <= s.n &&
           (part.n == 0 || memcmp(start ? s.p : s.p + s.n - part.n, part.p, part.n) == 0);
}

static novaq_status edge(nq_tctx *c, nq_tval *out, const nq_tval *self, const nq_targs *a,
                         bool start) {
    const nq_tval *v = nq_targ(a, 0, NULL);
    const nq_tval *one = v;
    size_t n = 1;
    if (v != NULL && v->type == NQ_TV_TUPLE) {
        one = v->u.list->v;
        n = v->u.list->n;
    }
    if (a->n > 1 || v == NULL) {
        return nq_tfail(c, "startswith() and endswith() take one argument here");
    }
    bool found = false;
    for (size_t i = 0; i < n; i++) {
        if (one[i].type != NQ_TV_STR) {
            return nq_tfail(c, "an argument must be a string, not '%s'", nq_tv_type_name(&one[i]));
        }
        NQ_TRY(nq_tcharge(c, one[i].u.s.n));
        found = found || has_edge(self->u.s, one[i].u.s, start);
    }
    *out = nq_tv_bool(found);
    return NOVAQ_OK;
}

static novaq_status m_startswith(nq_tctx *c, nq_tval *out, const nq_tval *self, const nq_targs *a) {
    return edge(c, out, self, a, true);
}
static novaq_status m_endswith(nq_tctx *c, nq_tval *out, const nq_tval *self, const nq_targs *a) {
    return edge(c, out, self, a, false);
}

static novaq_status remove_edge(nq_tctx *c, nq_tval *out, const nq_tval *self, const nq_targs *a,
                                bool start) {
    nq_tstr part;
    nq_tstr s = self->u.s;
    NQ_TRY(nq_targ_str(c, &part, a, 0, NULL, (nq_tstr){NULL, 0}));
    if (has_edge(s, part, start)) {
        s = (nq_tstr){start ? s.p + part.n : s.p, s.n - part.n};
    }
    *out = nq_tv_str(s);
    return NOVAQ_OK;
}

static novaq_status m_removeprefix(nq_tctx *c, nq_tval *out, const nq_tval *self,
                                   const nq_targs *a) {
    return remove_edge(c, out, self, a, true);
}
static novaq_status m_removesuffix(nq_tctx *c, nq_tval *out, const nq_tval *self,
                                   const nq_targs *a) {
    return remove_edge(c, out, self, a, false);
}

static novaq_status m_replace(nq_tctx *c, nq_tval *out, const nq_tval *self, const nq_targs *a) {
    nq_tstr from;
    nq_tstr to;
    nq_tstr s;
    int64_t count = -1;
    NQ_TRY(nq_targ_str(c, &from, a, 0, "old", (nq_tstr){NULL, 0}));
    NQ_TRY(nq_targ_str(c, &to, a, 1, "new", (nq_tstr){NULL, 0}));
    NQ_TRY(nq_targ_int(c, &count, a, 2, "count", -1));
    NQ_TRY(nq_tu_replace(c, &s, self->u.s, from, to, count));
    *out = nq_tv_str(s);
    return NOVAQ_OK;
}

static novaq_status place(nq_tctx *c, nq_tval *out, const nq_tval *self, const nq_targs *a,
                          bool last) {
    nq_tstr needle;
    NQ_TRY(nq_targ_str(c, &needle, a, 0, NULL, (nq_tstr){NULL, 0}));
    if (a->n > 1) {
        return nq_tfail(c, "find() and rfind() take one argument here");
    }
    NQ_TRY(nq_tcharge(c, self->u.s.n));
    size_t at = last ? find_last(self->u.s, needle, self->u.s.n) : nq_tu_find(self->u.s, needle, 0);
    *out = nq_tv_int(at == SIZE_MAX ? -1 : (int64_t)nq_tu_count((nq_tstr){self->u.s.p, at}));
    return NOVAQ_OK;
}

static novaq_status m_find(nq_tctx *c, nq_tval *out, const nq_tval *self, const nq_targs *a) {
    return place(c, out, self, a, false);
}
static novaq_status m_rfind(nq_tctx *c, nq_tval *out, const nq_tval *self, const nq_targs *a) {
    return place(c, out, self, a, true);
}

static novaq_status m_str_count(nq_tctx *c, nq_tval *out, const nq_tval *self, const nq_targs *a) {
    nq_tstr needle;
    int64_t n = 0;
    NQ_TRY(nq_targ_str(c, &needle, a, 0, NULL, (nq_tstr){NULL, 0}));
    NQ_TRY(nq_tcharge(c, self->u.s.n));
    if (needle.n == 0) {
        n = (int64_t)nq_tu_count(self->u.s) + 1;
    } else {
        for (size_t at = 0; (at = nq_tu_find(self->u.s, needle, at)) != SIZE_MAX; at += needle.n) {
            n++;
        }
    }
    *out = nq_tv_int(n);
    return NOVAQ_OK;
}

static novaq_status m_join(nq_tctx *c, nq_tval *out, const nq_tval *self, const nq_targs *a) {
    const nq_tlist *items = NULL;
    nq_buf b = nq_tbuf(c);
    if (a->n != 1) {
        return nq_tfail(c, "join() takes one list");
    }
    NQ_TRY(nq_tv_iterate(c, &items, &a->v[0]));
    novaq_status st = NOVAQ_OK;
    for (size_t i = 0; st == NOVAQ_OK && i < items->n; i++) {
        const nq_tval *v = &items->v[i];
        st = v->type == NQ_TV_STR ? nq_buf_append(&b, self->u.s.p, i > 0 ? self->u.s.n : 0, c->err)
                                  : nq_tfail(c, "join() takes strings");
        st = st == NOVAQ_OK ? nq_tv_write(c, &b, v) : st;
    }
    if (st != NOVAQ_OK) {
        nq_buf_free(&b);
        return st;
    }
    out->type = NQ_TV_STR;
    return nq_tbuf_take(c, &out->u.s, &b);
}

/* One {field} of format(): empty, a number or a name. */
static novaq_status field(nq_tctx *c, nq_buf *b, nq_tstr f, size_t *next, const nq_targs *a) {
    const nq_tval *v = NULL;
    uint64_t i = 0;
    bool number = f.n < 4;
    for (size_t k = 0; k < f.n; k++) {
        number = number && f.p[k] >= '0' && f.p[k] <= '9';
        i = 10 * (i % 100000) + (uint64_t)(f.p[k] - '0');
    }
    if (f.n == 0) {
        v = nq_targ(a, (*next)++, NULL);
    } else if (number) {
        v = nq_targ(a, (size_t)i, NULL);
    } else {
        for (size_t k = 0; k < a->kwn; k++) {
            v = nq_tstr_eq(a->kw[k].name, f) ? &a->kw[k].value : v;
        }
    }
    return v != NULL ? nq_tv_write(c, b, v)
                     : nq_tfail(c, "format() has no such argument, or its field is not supported");
}

static novaq_status m_format(nq_tctx *c, nq_tval *out, const nq_tval *self, const nq_targs *a) {
    nq_buf b = nq_tbuf(c);
    nq_tstr s = self->u.s;
    size_t next = 0;
    novaq_status st = nq_tcharge(c, s.n);
    for (size_t i = 0; st == NOVAQ_OK && i < s.n; i++) {
        bool brace = s.p[i] == '{' || s.p[i] == '}';
        if (!brace || (i + 1 < s.n && s.p[i + 1] == s.p[i])) {
            st = nq_buf_append(&b, s.p + i, 1, c->err);
            i += brace;
            continue;
        }
        const char *end = s.p[i] == '{' ? memchr(s.p + i, '}', s.n - i) : NULL;
        if (end == NULL) {
            st = nq_tfail(c, "format() has a single brace");
            break;
        }
        st = field(c, &b, (nq_tstr){s.p + i + 1, (size_t)(end - s.p) - i - 1}, &next, a);
        i = (size_t)(end - s.p);
    }
    if (st != NOVAQ_OK) {
        nq_buf_free(&b);
        return st;
    }
    out->type = NQ_TV_STR;
    return nq_tbuf_take(c, &out->u.s, &b);
}

/* isdigit() and its kind: every character, at least one, is of the class. */
static novaq_status all_of(nq_tctx *c, nq_tval *out, nq_tstr s, char kind) {
    bool all = s.n > 0;
    NQ_TRY(nq_tcharge(c, s.n));
    for (const char *p = s.p, *end = s.p + s.n; all && p < end;) {
        uint32_t cp = nq_tu_next(&p, end);
        utf8proc_category_t k = utf8proc_category((utf8proc_int32_t)cp);
        bool alpha = k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_LO;
        bool digit = k == UTF8PROC_CATEGORY_ND;
        all = kind == 'd'   ? digit
              : kind == 'a' ? alpha
              : kind == 'n' ? alpha || digit || k == UTF8PROC_CATEGORY_NL
                            : nq_tu_space(cp);
    }
    *out = nq_tv_bool(all);
    return NOVAQ_OK;
}

static novaq_status m_isdigit(nq_tctx *c, nq_tval *out, const nq_tval *self, const nq_targs *a) {
    (void)a;
    return all_of(c, out, self->u.s, 'd');
}
static novaq_status m_isalpha(nq_tctx *c, nq_tval *out, const nq_tval *self, const nq_targs *a) {
    (void)a;
    return all_of(c, out, self->u.s, 'a');
}
static novaq_status m_isalnum(nq_tctx *c, nq_tval *out, const nq_tval *self, const nq_targs *a) {
    (void)a;
    return all_of(c, out, self->u.s, 'n');
}
static novaq_status m_isspace(nq_tctx *c, nq_tval *out, const nq_tval *self, const nq_targs *a) {
    (void)a;
    return all_of(c, out, self->u.s, 's');
}

/* ---- dicts and lists -------------------------------------------------------------------- */

static novaq_status m_get(nq_tctx *c, nq_tval *out, const nq_tval *self, const nq_targs *a) {
    const nq_tval *found = NULL;
    if (a->n == 0) {
        return nq_tfail(c, "get() needs a key");
    }
    NQ_TRY(nq_tdict_get(c, &found, self->u.dict, &a->v[0]));
    *out = found != NULL ? *found : a->n > 1 ? a->v[1] : nq_tv_none();
    return NOVAQ_OK;
}

static novaq_status m_items(nq_tctx *c, nq_tval *out, const nq_tval *self, const nq_targs *a) {
    const nq_tdict *d = self->u.dict;
    nq_tlist *l = NULL;
    (void)a;
    NQ_TRY(nq_tcharge(c, d->n));
    NQ_TRY(nq_tlist_new(c, &l));
    for (size_t i = 0; i < d->n; i++) {
        nq_tval pair;
        NQ_TRY(nq_tv_pair(c, &pair, d->keys[i], d->values[i]));
        NQ_TRY(nq_tlist_push(c, l, pair));
    }
    *out = nq_tv_list(l);
    return NOVAQ_OK;
}

static novaq_status half(nq_tctx *c, nq_tval *out, nq_tval *v, size_t n) {
    nq_tlist *l = NULL;
    NQ_TRY(nq_tlist_new(c, &l));
    l->v = v;
    l->n = l->cap = n;
    *out = nq_tv_list(l);
    return NOVAQ_OK;
}

static novaq_status m_keys(nq_tctx *c, nq_tval *out, const nq_tval *self, const nq_targs *a) {
    (void)a;
    return half(c, out, self->u.dict->keys, self->u.dict->n);
}
static novaq_status m_values(nq_tctx *c, nq_tval *out, const nq_tval *self, const nq_targs *a) {
    (void)a;
    return half(c, out, self->u.dict->values, self->u.dict->n);
}
static novaq_status m_copy(nq_tctx *c, nq_tval *out, const nq_tval *self, const nq_targs *a) {
    (void)c;
    (void)a;
    *out = *self;
    return NOVAQ_OK;
}

static novaq_status m_index(nq_tctx *c, nq_tval *out, const nq_tval *self, const nq_targs *a) {
    if (a->n != 1) {
        return nq_tfail(c, "index() takes one argument here");
    }
    for (size_t i = 0; i < self->u.list->n; i++) {
        bool same = false;
        NQ_TRY(nq_tv_equal(c, &same, &self->u.list->v[i], &a->v[0]));
        if (same) {
            *out = nq_tv_int((int64_t)i);
            return NOVAQ_OK;
        }
    }
    return nq_tfail(c, "index(): not in the list");
}

static novaq_status m_list_count(nq_tctx *c, nq_tval *out, const nq_tval *self, const nq_targs *a) {
    int64_t n = 0;
    if (a->n != 1) {
        return nq_tfail(c, "count() takes one argument");
    }
    for (size_t i = 0; i < self->u.list->n; i++) {
        bool same = false;
        NQ_TRY(nq_tv_equal(c, &same, &self->u.list->v[i], &a->v[0]));
        n += same;
    }
    *out = nq_tv_int(n);
    return NOVAQ_OK;
}

/* ---- loop and cycler ---------------------------------------------------------------------- */

static novaq_status m_cycle(nq_tctx *c, nq_tval *out, const nq_tval *self, const nq_targs *a) {
    if (a->n == 0) {
        return nq_tfail(c, "cycle() has no items");
    }
    *out = a->v[self->u.loop->index % a->n];
    return NOVAQ_OK;
}

static novaq_status m_changed(nq_tctx *c, nq_tval *out, const nq_tval *self, const nq_targs *a) {
    nq_tlist *l = NULL;
    bool same = false;
    nq_tloop *loop = self->u.loop;
    NQ_TRY(nq_tlist_new(c, &l));
    for (size_t i = 0; i < a->n; i++) {
        NQ_TRY(nq_tlist_push(c, l, a->v[i]));
    }
    const nq_tval now = nq_tv_list(l);
    NQ_TRY(nq_tv_equal(c, &same, &loop->changed, &now));
    loop->changed = now;
    *out = nq_tv_bool(!same);
    return NOVAQ_OK;
}

static novaq_status m_next(nq_tctx *c, nq_tval *out, const nq_tval *self, const nq_targs *a) {
    nq_tcycler *k = self->u.cycler;
    (void)a;
    if (k->items == NULL || k->items->n == 0) {
        return nq_tfail(c, "next() has no items");
    }
    *out = k->items->v[k->at++ % k->items->n];
    return NOVAQ_OK;
}

static novaq_status m_reset(nq_tctx *c, nq_tval *out, const nq_tval *self, const nq_targs *a) {
    (void)c;
    (void)a;
    self->u.cycler->at = 0;
    *out = nq_tv_none();
    return NOVAQ_OK;
}

novaq_status nq_tmethod(nq_tctx *c, nq_tval *out, const nq_tval *v, nq_tstr name) {
    static const nq_tentry strings[] = {{"strip", m_strip},
                                        {"lstrip", m_lstrip},
                                        {"rstrip", m_rstrip},
                                        {"split", m_split},
                                        {"rsplit", m_rsplit},
                                        {"splitlines", m_splitlines},
                                        {"startswith", m_startswith},
                                        {"endswith", m_endswith},
                                        {"upper", m_upper},
                                        {"lower", m_lower},
                                        {"title", m_title},
                                        {"capitalize", m_capitalize},
                                        {"replace", m_replace},
                                        {"find", m_find},
                                        {"rfind", m_rfind},
                                        {"count", m_str_count},
                                        {"join", m_join},
                                        {"format", m_format},
                                        {"isdigit", m_isdigit},
                                        {"isalpha", m_isalpha},
                                        {"isalnum", m_isalnum},
                                        {"isspace", m_isspace},
                                        {"removeprefix", m_removeprefix},
                                        {"removesuffix", m_removesuffix}};
    static const nq_tentry dicts[] = {{"get", m_get},        {"items", m_items}, {"keys", m_keys},
                                      {"values", m_values},  {"copy", m_copy},   {"pop", unsafe},
                                      {"popitem", unsafe},   {"clear", unsafe},  {"update", unsafe},
                                      {"setdefault", unsafe}};
    static const nq_tentry lists[] = {
        {"index", m_index},  {"count", m_list_count}, {"copy", m_copy}, {"append", unsafe},
        {"extend", unsafe},  {"insert", unsafe},      {"pop", unsafe},  {"remove", unsafe},
        {"reverse", unsafe}, {"sort", unsafe},        {"clear", unsafe}};
    static const nq_tentry loops[] = {{"cycle", m_cycle}, {"changed", m_changed}};
    static const nq_tentry cyclers[] = {{"next", m_next}, {"reset", m_reset}};
    nq_tcallable fn = NULL;
    switch (v->type) {
    case NQ_TV_STR: fn = nq_tentry_find(strings, sizeof strings / sizeof *strings, name); break;
    case NQ_TV_DICT: fn = nq_tentry_find(dicts, sizeof dicts / sizeof *dicts, name); break;
    case NQ_TV_LIST: fn = nq_tentry_find(lists, sizeof lists / sizeof *lists, name); break;
    case NQ_TV_TUPLE: fn = nq_tentry_find(lists, 2, name); break;
    case NQ_TV_LOOP: fn = nq_tentry_find(loops, sizeof loops / sizeof *loops, name); break;
    case NQ_TV_CYCLER: fn = nq_tentry_find(cyclers, sizeof cyclers / sizeof *cyclers, name); break;
    default: break;
    }
    return wrap(c, out, fn, v, name);
}

/* ---- functions --------------------------------------------------------------------------------
 */

static novaq_status f_range(nq_tctx *c, nq_tval *out, const nq_tval *self, const nq_targs *a) {
    int64_t start = 0;
    int64_t stop = 0;
    int64_t step = 1;
    nq_tlist *l = NULL;
    (void)self;
    if (a->n == 0 || a->n > 3) {
        return nq_tfail(c, "range() takes one to three integers");
    }
    NQ_TRY(nq_targ_int(c, a->n == 1 ? &stop : &start, a, 0, NULL, 0));
    if (a->n > 1) {
        NQ_TRY(nq_targ_int(c, &stop, a, 1, NULL, 0));
    }
    NQ_TRY(nq_targ_int(c, &step, a, 2, NULL, 1));
    if (step == 0) {
        return nq_tfail(c, "range() with step 0");
    }
    NQ_TRY(nq_tlist_new(c, &l));
    for (int64_t i = start; step > 0 ? i < stop : i > stop;) {
        if (l->n == MAX_RANGE) {
            return nq_tfail(c, "range() longer than %d", MAX_RANGE);
        }
        NQ_TRY(nq_tlist_push(c, l, nq_tv_int(i)));
        if (__builtin_add_overflow(i, step, &i)) {
            break;
        }
    }
    NQ_TRY(nq_tcharge(c, l->n));
    *out = nq_tv_list(l);
    return NOVAQ_OK;
}

/* dict(...) and namespace(...): another one's entries, then keywords. */
static novaq_status gather(nq_tctx *c, nq_tval *out, const nq_targs *a, nq_ttype type) {
    nq_tdict *d = NULL;
    NQ_TRY(nq_tdict_new(c, &d));
    if (a->n > 1 || (a->n == 1 && a->v[0].type != NQ_TV_DICT)) {
        return nq_tfail(c, "dict() and namespace() take a dict and keywords");
    }
    for (size_t i = 0; a->n == 1 && i < a->v[0].u.dict->n; i++) {
        NQ_TRY(nq_tdict_set(c, d, a->v[0].u.dict->keys[i], a->v[0].u.dict->values[i]));
    }
    for (size_t i = 0; i < a->kwn; i++) {
        NQ_TRY(nq_tdict_set(c, d, nq_tv_str(a->kw[i].name), a->kw[i].value));
    }
    *out = (nq_tval){.type = type, .u.dict = d};
    return NOVAQ_OK;
}

static novaq_status f_dict(nq_tctx *c, nq_tval *out, const nq_tval *self, const nq_targs *a) {
    (void)self;
    return gather(c, out, a, NQ_TV_DICT);
}
static novaq_status f_namespace(nq_tctx *c, nq_tval *out, const nq_tval *self, const nq_targs *a) {
    (void)self;
    return gather(c, out, a, NQ_TV_NAMESPACE);
}

static novaq_status f_raise(nq_tctx *c, nq_tval *out, const nq_tval *self, const nq_targs *a) {
    nq_tstr text = {"", 0};
    (void)self;
    (void)out;
    if (a->n > 0) {
        NQ_TRY(nq_tv_string(c, &text, &a->v[0]));
    }
    size_t n = text.n < 400 ? text.n : 400;
    while (n > 0 && n < text.n && ((unsigned char)text.p[n] & 0xC0) == 0x80) {
        n--;
    }
    return nq_fail(c->err, NOVAQ_E_ARG, "the chat template refuses: %.*s", (int)n, text.p);
}

static novaq_status f_strftime(nq_tctx *c, nq_tval *out, const nq_tval *self, const nq_targs *a) {
    char format[256];
    char text[1024];
    nq_tstr s;
    char *p = NULL;
    (void)self;
    NQ_TRY(nq_targ_str(c, &s, a, 0, "format", (nq_tstr){NULL, 0}));
    /* The character in front tells an empty result from one that does not fit. */
    if (s.n + 2 > sizeof format) {
        return nq_tfail(c, "strftime_now(): the format is too long");
    }
    format[0] = ' ';
    if (s.n > 0) {
        memcpy(format + 1, s.p, s.n);
    }
    format[s.n + 1] = '\0';
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    size_t n = strftime(text, sizeof text, format, c->now);
#pragma GCC diagnostic pop
    if (n == 0) {
        return nq_tfail(c, "strftime_now(): the date is too long");
    }
    NQ_TRY(nq_tarena_get(&p, &c->arena, n, 1, c->err));
    memcpy(p, text + 1, n - 1);
    *out = nq_tv_str((nq_tstr){p, n - 1});
    return NOVAQ_OK;
}

static novaq_status f_cycler(nq_tctx *c, nq_tval *out, const nq_tval *self, const nq_targs *a) {
    nq_tcycler *k = NULL;
    nq_tlist *l = NULL;
    (void)self;
    NQ_TRY(nq_tarena_get(&k, &c->arena, 1, sizeof *k, c->err));
    NQ_TRY(nq_tlist_new(c, &l));
    for (size_t i = 0; i < a->n; i++) {
        NQ_TRY(nq_tlist_push(c, l, a->v[i]));
    }
    *k = (nq_tcycler){.items = l};
    *out = (nq_tval){.type = NQ_TV_CYCLER, .u.cycler = k};
    return NOVAQ_OK;
}

static novaq_status f_joiner(nq_tctx *c, nq_tval *out, const nq_tval *self, const nq_targs *a) {
    nq_tcycler *k = NULL;
    (void)self;
    NQ_TRY(nq_tarena_get(&k, &c->arena, 1, sizeof *k, c->err));
    *k = (nq_tcycler){.items = NULL};
    NQ_TRY(nq_targ_str(c, &k->joint, a, 0, "sep", NQ_TSTR(", ")));
    *out = (nq_tval){.type = NQ_TV_CYCLER, .u.cycler = k};
    return NOVAQ_OK;
}

novaq_status nq_tglobal(nq_tctx *c, nq_tval *out, nq_tstr name) {
    static const nq_tentry table[] = {{"range", f_range},   {"namespace", f_namespace},
                                      {"dict", f_dict},     {"raise_exception", f_raise},
                                      {"cycler", f_cycler}, {"joiner", f_joiner}};
    const nq_tval nobody = nq_tv_none();
    nq_tcallable fn = nq_tentry_find(table, sizeof table / sizeof table[0], name);
    if (fn == NULL && c->now != NULL && nq_tstr_is(name, "strftime_now")) {
        fn = f_strftime;
    }
    return wrap(c, out, fn, &nobody, name);
}
