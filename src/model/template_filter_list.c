/* template_filter_list.c - the filters of templates that look at the items of a
 * value. */
#include <string.h>

#include "model/template_impl.h"

/* ---- "a.b.0" of a value ----------------------------------------------------------- */

/* path: a string of names and numbers between dots, or an integer; other (or NULL)
 * stands for what is not there. */
static novaq_status dig(nq_tctx *c, nq_tval *out, const nq_tval *v, const nq_tval *path,
                        const nq_tval *other) {
    *out = *v;
    if (path->type != NQ_TV_STR) {
        return nq_tgetitem(c, out, v, path);
    }
    for (nq_tstr rest = path->u.s;;) {
        const char *dot = rest.n > 0 ? memchr(rest.p, '.', rest.n) : NULL;
        nq_tstr part = {rest.p, dot == NULL ? rest.n : (size_t)(dot - rest.p)};
        nq_tval key = nq_tv_str(part);
        const nq_tval at = *out;
        int64_t i = 0;
        bool number = part.n > 0 && part.n < 10;
        for (size_t k = 0; k < part.n && number; k++) {
            number = part.p[k] >= '0' && part.p[k] <= '9';
            i = 10 * i + (part.p[k] - '0');
        }
        if (number) {
            key = nq_tv_int(i);
        }
        NQ_TRY(nq_tgetitem(c, out, &at, &key));
        if (out->type == NQ_TV_UNDEFINED && other != NULL) {
            *out = *other;
        }
        if (dot == NULL) {
            return NOVAQ_OK;
        }
        rest = (nq_tstr){dot + 1, rest.n - part.n - 1};
    }
}

/* What an item is sorted or compared by: an attribute, without case. */
static novaq_status sort_key(nq_tctx *c, nq_tval *out, const nq_tval *v, const nq_tval *path,
                             bool keep_case) {
    *out = *v;
    if (path != NULL && path->type != NQ_TV_NONE) {
        NQ_TRY(dig(c, out, v, path, NULL));
    }
    if (!keep_case && out->type == NQ_TV_STR) {
        return nq_tu_case(c, &out->u.s, out->u.s, "lower");
    }
    return NOVAQ_OK;
}

static novaq_status copy_list(nq_tctx *c, nq_tlist **out, const nq_tval *v) {
    const nq_tlist *items = NULL;
    NQ_TRY(nq_tv_iterate(c, &items, v));
    NQ_TRY(nq_tcharge(c, items->n));
    NQ_TRY(nq_tlist_new(c, out));
    for (size_t i = 0; i < items->n; i++) {
        NQ_TRY(nq_tlist_push(c, *out, items->v[i]));
    }
    return NOVAQ_OK;
}

/* What select, reject, map and unique give. */
static nq_tval generator(nq_tlist *l) {
    l->lazy = true;
    return nq_tv_list(l);
}

/* ---- whole lists --------------------------------------------------------------------- */

static novaq_status f_list(nq_tctx *c, nq_tval *out, const nq_tval *v, const nq_targs *a) {
    nq_tlist *l = NULL;
    (void)a;
    NQ_TRY(copy_list(c, &l, v));
    *out = nq_tv_list(l);
    return NOVAQ_OK;
}

static novaq_status f_reverse(nq_tctx *c, nq_tval *out, const nq_tval *v, const nq_targs *a) {
    nq_tlist *l = NULL;
    (void)a;
    NQ_TRY(copy_list(c, &l, v));
    for (size_t i = 0; i < l->n / 2; i++) {
        nq_tval swap = l->v[i];
        l->v[i] = l->v[l->n - 1 - i];
        l->v[l->n - 1 - i] = swap;
    }
    if (v->type != NQ_TV_STR) {
        *out = generator(l);
        return NOVAQ_OK;
    }
    nq_buf b = nq_tbuf(c);
    novaq_status st = NOVAQ_OK;
    for (size_t i = 0; st == NOVAQ_OK && i < l->n; i++) {
        st = nq_buf_append(&b, l->v[i].u.s.p, l->v[i].u.s.n, c->err);
    }
    if (st != NOVAQ_OK) {
        nq_buf_free(&b);
        return st;
    }
    out->type = NQ_TV_STR;
    return nq_tbuf_take(c, &out->u.s, &b);
}

static novaq_status end_item(nq_tctx *c, nq_tval *out, const nq_tval *v, bool first) {
    const nq_tlist *items = NULL;
    NQ_TRY(nq_tv_iterate(c, &items, v));
    if (!first && items->lazy) {
        return nq_tfail(c, "a generator has no last item; use the filter list");
    }
    *out = nq_tv_undefined(first ? NQ_TSTR("first item") : NQ_TSTR("last item"));
    if (items->n > 0) {
        *out = items->v[first ? 0 : items->n - 1];
    }
    return NOVAQ_OK;
}

static novaq_status f_first(nq_tctx *c, nq_tval *out, const nq_tval *v, const nq_targs *a) {
    (void)a;
    return end_item(c, out, v, true);
}
static novaq_status f_last(nq_tctx *c, nq_tval *out, const nq_tval *v, const nq_targs *a) {
    (void)a;
    return end_item(c, out, v, false);
}

static novaq_status f_join(nq_tctx *c, nq_tval *out, const nq_tval *v, const nq_targs *a) {
    const nq_tlist *items = NULL;
    const nq_tval *path = nq_targ(a, 1, "attribute");
    nq_tstr by;
    NQ_TRY(nq_targ_str(c, &by, a, 0, "d", (nq_tstr){"", 0}));
    NQ_TRY(nq_tv_iterate(c, &items, v));
    nq_buf b = nq_tbuf(c);
    novaq_status st = NOVAQ_OK;
    for (size_t i = 0; st == NOVAQ_OK && i < items->n; i++) {
        nq_tval item;
        st = sort_key(c, &item, &items->v[i], path, true);
        st = st == NOVAQ_OK ? nq_buf_append(&b, by.p, i > 0 ? by.n : 0, c->err) : st;
        st = st == NOVAQ_OK ? nq_tv_write(c, &b, &item) : st;
    }
    if (st != NOVAQ_OK) {
        nq_buf_free(&b);
        return st;
    }
    out->type = NQ_TV_STR;
    return nq_tbuf_take(c, &out->u.s, &b);
}

static novaq_status f_items(nq_tctx *c, nq_tval *out, const nq_tval *v, const nq_targs *a) {
    nq_tval method;
    nq_tlist *l = NULL;
    if (v->type == NQ_TV_UNDEFINED) {
        NQ_TRY(nq_tlist_new(c, &l));
        *out = nq_tv_list(l);
        return NOVAQ_OK;
    }
    if (v->type != NQ_TV_DICT) {
        return nq_tfail(c, "only mappings have items");
    }
    NQ_TRY(nq_tmethod(c, &method, v, NQ_TSTR("items")));
    return nq_tcall(c, out, &method, a);
}

static novaq_status f_sum(nq_tctx *c, nq_tval *out, const nq_tval *v, const nq_targs *a) {
    const nq_tlist *items = NULL;
    const nq_tval *path = nq_targ(a, 0, "attribute");
    const nq_tval *start = nq_targ(a, 1, "start");
    NQ_TRY(nq_tv_iterate(c, &items, v));
    *out = start != NULL ? *start : nq_tv_int(0);
    for (size_t i = 0; i < items->n; i++) {
        nq_tval item;
        const nq_tval before = *out;
        NQ_TRY(nq_tcharge(c, 0));
        NQ_TRY(sort_key(c, &item, &items->v[i], path, true));
        NQ_TRY(nq_tmath(c, out, '+', &before, &item));
    }
    return NOVAQ_OK;
}

/* ---- order ------------------------------------------------------------------------------ */

typedef struct keyed {
    nq_tval key, item;
} keyed;

/* Stable merge of two sorted halves of k[0..n) through scratch. */
static novaq_status merge(nq_tctx *c, keyed *k, keyed *scratch, size_t n, int sign) {
    if (n < 2) {
        return NOVAQ_OK;
    }
    size_t half = n / 2;
    NQ_TRY(merge(c, k, scratch, half, sign));
    NQ_TRY(merge(c, k + half, scratch, n - half, sign));
    memcpy(scratch, k, half * sizeof *k);
    for (size_t i = 0, j = half, to = 0; i < half; to++) {
        int order = -1;
        NQ_TRY(nq_tcharge(c, 0));
        if (j < n) {
            NQ_TRY(nq_tv_compare(c, &order, &scratch[i].key, &k[j].key));
            order *= sign;
        }
        k[to] = order <= 0 ? scratch[i++] : k[j++];
    }
    return NOVAQ_OK;
}

/* Sorts l in place by what path (may be NULL) finds in its items. */
static novaq_status sorted(nq_tctx *c, nq_tlist *l, const nq_tval *path, bool keep_case,
                           bool reverse) {
    keyed *k = NULL;
    NQ_TRY(nq_tarena_get(&k, &c->arena, 2 * (uint64_t)l->n, sizeof *k, c->err));
    for (size_t i = 0; i < l->n; i++) {
        k[i].item = l->v[i];
        NQ_TRY(sort_key(c, &k[i].key, &l->v[i], path, keep_case));
    }
    NQ_TRY(merge(c, k, k + l->n, l->n, reverse ? -1 : 1));
    for (size_t i = 0; i < l->n; i++) {
        l->v[i] = k[i].item;
    }
    return NOVAQ_OK;
}

static novaq_status f_sort(nq_tctx *c, nq_tval *out, const nq_tval *v, const nq_targs *a) {
    nq_tlist *l = NULL;
    NQ_TRY(copy_list(c, &l, v));
    NQ_TRY(sorted(c, l, nq_targ(a, 2, "attribute"), nq_targ_true(a, 1, "case_sensitive", false),
                  nq_targ_true(a, 0, "reverse", false)));
    *out = nq_tv_list(l);
    return NOVAQ_OK;
}

static novaq_status f_dictsort(nq_tctx *c, nq_tval *out, const nq_tval *v, const nq_targs *a) {
    nq_tval pairs;
    nq_tlist *l = NULL;
    nq_tstr by;
    const nq_targs none = {.n = 0};
    NQ_TRY(nq_targ_str(c, &by, a, 1, "by", NQ_TSTR("key")));
    if (v->type != NQ_TV_DICT) {
        return nq_tfail(c, "dictsort of '%s'", nq_tv_type_name(v));
    }
    if (!nq_tstr_is(by, "key") && !nq_tstr_is(by, "value")) {
        return nq_tfail(c, "dictsort: sort by key or value");
    }
    NQ_TRY(f_items(c, &pairs, v, &none));
    NQ_TRY(copy_list(c, &l, &pairs));
    const nq_tval at = nq_tv_int(by.p[0] == 'k' ? 0 : 1);
    NQ_TRY(sorted(c, l, &at, nq_targ_true(a, 0, "case_sensitive", false),
                  nq_targ_true(a, 2, "reverse", false)));
    *out = nq_tv_list(l);
    return NOVAQ_OK;
}

static novaq_status extreme(nq_tctx *c, nq_tval *out, const nq_tval *v, const nq_targs *a,
                            int sign) {
    const nq_tlist *items = NULL;
    nq_tval best = nq_tv_none();
    bool keep_case = nq_targ_true(a, 0, "case_sensitive", false);
    const nq_tval *path = nq_targ(a, 1, "attribute");
    NQ_TRY(nq_tv_iterate(c, &items, v));
    *out = nq_tv_undefined(NQ_TSTR("smallest or largest item"));
    for (size_t i = 0; i < items->n; i++) {
        nq_tval key;
        int order = 1;
        NQ_TRY(nq_tcharge(c, 0));
        NQ_TRY(sort_key(c, &key, &items->v[i], path, keep_case));
        if (i > 0) {
            NQ_TRY(nq_tv_compare(c, &order, &key, &best));
            order *= sign;
        }
        if (order > 0) {
            best = key;
            *out = items->v[i];
        }
    }
    return NOVAQ_OK;
}

static novaq_status f_max(nq_tctx *c, nq_tval *out, const nq_tval *v, const nq_targs *a) {
    return extreme(c, out, v, a, 1);
}
static novaq_status f_min(nq_tctx *c, nq_tval *out, const nq_tval *v, const nq_targs *a) {
    return extreme(c, out, v, a, -1);
}

static novaq_status f_unique(nq_tctx *c, nq_tval *out, const nq_tval *v, const nq_targs *a) {
    const nq_tlist *items = NULL;
    nq_tlist *keys = NULL;
    nq_tlist *l = NULL;
    bool keep_case = nq_targ_true(a, 0, "case_sensitive", false);
    const nq_tval *path = nq_targ(a, 1, "attribute");
    NQ_TRY(nq_tv_iterate(c, &items, v));
    NQ_TRY(nq_tlist_new(c, &keys));
    NQ_TRY(nq_tlist_new(c, &l));
    for (size_t i = 0; i < items->n; i++) {
        nq_tval key;
        bool seen = false;
        const nq_tval all = nq_tv_list(keys);
        NQ_TRY(sort_key(c, &key, &items->v[i], path, keep_case));
        NQ_TRY(nq_tcontains(c, &seen, &key, &all));
        if (!seen) {
            NQ_TRY(nq_tlist_push(c, keys, key));
            NQ_TRY(nq_tlist_push(c, l, items->v[i]));
        }
    }
    *out = generator(l);
    return NOVAQ_OK;
}

/* ---- item by item -------------------------------------------------------------------------- */

/* Jinja takes anything that is false for an empty list here. */
static novaq_status items_or_none(nq_tctx *c, const nq_tlist **out, const nq_tval *v) {
    const nq_tval nothing = nq_tv_undefined(NQ_TSTR("items"));
    return nq_tv_iterate(c, out, nq_tv_true(v) ? v : &nothing);
}

static novaq_status map_item(nq_tctx *c, nq_tval *out, const nq_tval *item, const nq_tval *path,
                             const nq_targs *a) {
    const nq_tval *other = nq_targ(a, SIZE_MAX, "default");
    if (path != NULL) {
        return dig(c, out, item, path, other);
    }
    nq_tstr name;
    NQ_TRY(nq_targ_str(c, &name, a, 0, NULL, (nq_tstr){NULL, 0}));
    nq_tcallable fn = nq_tfilter_find(name);
    fn = fn != NULL ? fn : nq_tfilter_list_find(name);
    const nq_targs rest = {.v = a->v + 1, .n = a->n - 1, .kw = a->kw, .kwn = a->kwn};
    return fn != NULL ? fn(c, out, item, &rest) : nq_tfail(c, "map: no such filter");
}

static novaq_status f_map(nq_tctx *c, nq_tval *out, const nq_tval *v, const nq_targs *a) {
    const nq_tlist *items = NULL;
    nq_tlist *l = NULL;
    const nq_tval *path = a->n == 0 ? nq_targ(a, SIZE_MAX, "attribute") : NULL;
    if (a->n == 0 && path == NULL) {
        return nq_tfail(c, "map needs a filter or an attribute");
    }
    NQ_TRY(nq_tenter(c)); /* map may map */
    NQ_TRY(items_or_none(c, &items, v));
    NQ_TRY(nq_tlist_new(c, &l));
    for (size_t i = 0; i < items->n; i++) {
        nq_tval item = {0};
        NQ_TRY(nq_tcharge(c, 0));
        NQ_TRY(map_item(c, &item, &items->v[i], path, a));
        NQ_TRY(nq_tlist_push(c, l, item));
    }
    c->depth--;
    *out = generator(l);
    return NOVAQ_OK;
}

/* select, reject and their attr forms: keeps items whose test gives `wanted`. */
static novaq_status pick(nq_tctx *c, nq_tval *out, const nq_tval *v, const nq_targs *a, bool attr,
                         bool wanted) {
    const nq_tlist *items = NULL;
    nq_tlist *l = NULL;
    size_t skip = attr ? 1 : 0;
    nq_tstr name = {NULL, 0};
    if (a->n < skip) {
        return nq_tfail(c, "the name of an attribute is missing");
    }
    if (a->n > skip) {
        NQ_TRY(nq_targ_str(c, &name, a, skip, NULL, name));
        skip++;
    }
    const nq_targs rest = {.v = a->v + skip, .n = a->n - skip, .kw = a->kw, .kwn = a->kwn};
    NQ_TRY(items_or_none(c, &items, v));
    NQ_TRY(nq_tlist_new(c, &l));
    for (size_t i = 0; i < items->n; i++) {
        nq_tval item = items->v[i];
        NQ_TRY(nq_tcharge(c, 0));
        if (attr) {
            NQ_TRY(dig(c, &item, &items->v[i], &a->v[0], NULL));
        }
        bool holds = nq_tv_true(&item);
        if (name.p != NULL) {
            NQ_TRY(nq_ttest(c, &holds, name, &item, &rest));
        }
        if (holds == wanted) {
            NQ_TRY(nq_tlist_push(c, l, items->v[i]));
        }
    }
    *out = generator(l);
    return NOVAQ_OK;
}

static novaq_status f_select(nq_tctx *c, nq_tval *out, const nq_tval *v, const nq_targs *a) {
    return pick(c, out, v, a, false, true);
}
static novaq_status f_reject(nq_tctx *c, nq_tval *out, const nq_tval *v, const nq_targs *a) {
    return pick(c, out, v, a, false, false);
}
static novaq_status f_selectattr(nq_tctx *c, nq_tval *out, const nq_tval *v, const nq_targs *a) {
    return pick(c, out, v, a, true, true);
}
static novaq_status f_rejectattr(nq_tctx *c, nq_tval *out, const nq_tval *v, const nq_targs *a) {
    return pick(c, out, v, a, true, false);
}

nq_tcallable nq_tfilter_list_find(nq_tstr name) {
    static const nq_tentry table[] = {{"list", f_list},
                                      {"reverse", f_reverse},
                                      {"first", f_first},
                                      {"last", f_last},
                                      {"join", f_join},
                                      {"items", f_items},
                                      {"sum", f_sum},
                                      {"sort", f_sort},
                                      {"dictsort", f_dictsort},
                                      {"max", f_max},
                                      {"min", f_min},
                                      {"unique", f_unique},
                                      {"map", f_map},
                                      {"select", f_select},
                                      {"reject", f_reject},
                                      {"selectattr", f_selectattr},
                                      {"rejectattr", f_rejectattr}};
    return nq_tentry_find(table, sizeof table / sizeof table[0], name);
}
