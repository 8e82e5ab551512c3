/* template_value.c - values of a template, and the arena they live in.
 *
 * Owns: truth, equality and order as Python has them. Refuses: changing a value
 * that a template has seen. */
#include <math.h>
#include <string.h>

#include "model/template_impl.h"

#define CHUNK ((size_t)32 << 10)
#define ALIGN ((size_t)16)
/* Levels of lists in lists that equality and order follow. */
#define MAX_NESTING 100

typedef struct nq_tchunk {
    struct nq_tchunk *next;
    size_t size;
} nq_tchunk;

#define CHUNK_HEAD ((sizeof(nq_tchunk) + ALIGN - 1) / ALIGN * ALIGN)

static novaq_status add_chunk(nq_tarena *a, size_t need, novaq_error *err) {
    size_t size = need > CHUNK ? need : CHUNK;
    nq_tchunk *k = NULL;
    if (size > a->max - a->total) {
        return nq_fail(err, NOVAQ_E_MEMORY, "chat template: needs more than %zu MB of memory",
                       a->max >> 20);
    }
    NQ_TRY(nq_alloc_raw(&k, CHUNK_HEAD + size, 1, err));
    k->next = a->chunks;
    k->size = size;
    a->chunks = k;
    a->used = 0;
    a->cap = size;
    a->total += size;
    return NOVAQ_OK;
}

novaq_status nq_tarena_get(void *out, nq_tarena *a, uint64_t count, size_t size, novaq_error *err) {
    uint64_t bytes = 0;
    if (!nq_mul_u64(count, size, &bytes) || bytes > (SIZE_MAX >> 8)) {
        return nq_fail(err, NOVAQ_E_MEMORY, "chat template: needs too much memory");
    }
    size_t need = ((size_t)bytes + ALIGN - 1) / ALIGN * ALIGN;
    need = need == 0 ? ALIGN : need;
    if (a->chunks == NULL || a->cap - a->used < need) {
        NQ_TRY(add_chunk(a, need, err));
    }
    void *p = (char *)a->chunks + CHUNK_HEAD + a->used;
    a->used += need;
    memcpy(out, &p, sizeof p);
    return NOVAQ_OK;
}

void nq_tarena_free(nq_tarena *a) {
    while (a->chunks != NULL) {
        nq_tchunk *k = a->chunks;
        a->chunks = k->next;
        nq_free(k);
    }
    a->used = a->cap = a->total = 0;
}

/* ---- making values -------------------------------------------------------- */

nq_tval nq_tv_bool(bool b) { return (nq_tval){.type = NQ_TV_BOOL, .u.b = b}; }
nq_tval nq_tv_int(int64_t i) { return (nq_tval){.type = NQ_TV_INT, .u.i = i}; }
nq_tval nq_tv_float(double f) { return (nq_tval){.type = NQ_TV_FLOAT, .u.f = f}; }
nq_tval nq_tv_str(nq_tstr s) { return (nq_tval){.type = NQ_TV_STR, .u.s = s}; }
nq_tval nq_tv_none(void) { return (nq_tval){.type = NQ_TV_NONE}; }
nq_tval nq_tv_undefined(nq_tstr what) { return (nq_tval){.type = NQ_TV_UNDEFINED, .u.s = what}; }
nq_tval nq_tv_list(nq_tlist *l) { return (nq_tval){.type = NQ_TV_LIST, .u.list = l}; }

bool nq_tstr_is(nq_tstr s, const char *literal) {
    return strlen(literal) == s.n && (s.n == 0 || memcmp(s.p, literal, s.n) == 0);
}

bool nq_tstr_eq(nq_tstr a, nq_tstr b) {
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

const char *nq_tv_type_name(const nq_tval *v) {
    static const char *const names[] = {
        [NQ_TV_UNDEFINED] = "undefined", [NQ_TV_NONE] = "None",
        [NQ_TV_BOOL] = "bool",           [NQ_TV_INT] = "int",
        [NQ_TV_FLOAT] = "float",         [NQ_TV_STR] = "str",
        [NQ_TV_LIST] = "list",           [NQ_TV_TUPLE] = "tuple",
        [NQ_TV_DICT] = "dict",           [NQ_TV_NAMESPACE] = "namespace",
        [NQ_TV_MACRO] = "macro",         [NQ_TV_FUNC] = "function",
        [NQ_TV_LOOP] = "loop",           [NQ_TV_CYCLER] = "cycler",
    };
    return names[v->type];
}

bool nq_tv_is_number(const nq_tval *v) {
    return v->type == NQ_TV_BOOL || v->type == NQ_TV_INT || v->type == NQ_TV_FLOAT;
}

double nq_tv_number(const nq_tval *v) {
    return v->type == NQ_TV_FLOAT ? v->u.f : v->type == NQ_TV_BOOL ? v->u.b : (double)v->u.i;
}

bool nq_tv_is_seq(const nq_tval *v) { return v->type == NQ_TV_LIST || v->type == NQ_TV_TUPLE; }

bool nq_tv_true(const nq_tval *v) {
    switch (v->type) {
    case NQ_TV_UNDEFINED:
    case NQ_TV_NONE: return false;
    case NQ_TV_BOOL: return v->u.b;
    case NQ_TV_INT: return v->u.i != 0;
    case NQ_TV_FLOAT: return v->u.f != 0;
    case NQ_TV_STR: return v->u.s.n > 0;
    case NQ_TV_LIST:
    case NQ_TV_TUPLE: return v->u.list->n > 0 || v->u.list->lazy;
    case NQ_TV_DICT: return v->u.dict->n > 0;
    case NQ_TV_NAMESPACE:
    case NQ_TV_MACRO:
    case NQ_TV_FUNC:
    case NQ_TV_LOOP:
    case NQ_TV_CYCLER: return true;
    }
    return true;
}

/* ---- equality and order ---------------------------------------------------- */

static int compare_numbers(const nq_tval *a, const nq_tval *b) {
    if (a->type != NQ_TV_FLOAT && b->type != NQ_TV_FLOAT) {
        int64_t x = a->type == NQ_TV_BOOL ? a->u.b : a->u.i;
        int64_t y = b->type == NQ_TV_BOOL ? b->u.b : b->u.i;
        return x < y ? -1 : x > y;
    }
    double x = nq_tv_number(a);
    double y = nq_tv_number(b);
    return x < y ? -1 : x > y;
}

static novaq_status equal(nq_tctx *c, bool *out, const nq_tval *a, const nq_tval *b,
                          unsigned depth);

static novaq_status equal_lists(nq_tctx *c, bool *out, const nq_tlist *a, const nq_tlist *b,
                                unsigned depth) {
    *out = a->n == b->n;
    for (size_t i = 0; *out && i < a->n; i++) {
        NQ_TRY(equal(c, out, &a->v[i], &b->v[i], depth + 1));
    }
    return NOVAQ_OK;
}

static novaq_status equal_dicts(nq_tctx *c, bool *out, const nq_tdict *a, const nq_tdict *b,
                                unsigned depth) {
    *out = a->n == b->n;
    for (size_t i = 0; *out && i < a->n; i++) {
        const nq_tval *other = NULL;
        NQ_TRY(nq_tdict_get(c, &other, b, &a->keys[i]));
        *out = other != NULL;
        if (*out) {
            NQ_TRY(equal(c, out, &a->values[i], other, depth + 1));
        }
    }
    return NOVAQ_OK;
}

static novaq_status equal(nq_tctx *c, bool *out, const nq_tval *a, const nq_tval *b,
                          unsigned depth) {
    NQ_TRY(nq_tcharge(c, 0));
    if (depth > MAX_NESTING) {
        return nq_tfail(c, "values are nested too deeply to compare");
    }
    *out = false;
    if (nq_tv_is_number(a) && nq_tv_is_number(b)) {
        *out = nq_tv_number(a) == nq_tv_number(b) && compare_numbers(a, b) == 0;
        return NOVAQ_OK;
    }
    if (a->type != b->type) {
        return NOVAQ_OK;
    }
    switch (a->type) {
    case NQ_TV_UNDEFINED:
    case NQ_TV_NONE: *out = true; break;
    case NQ_TV_STR:
        NQ_TRY(nq_tcharge(c, a->u.s.n));
        *out = nq_tstr_eq(a->u.s, b->u.s);
        break;
    case NQ_TV_LIST:
    case NQ_TV_TUPLE: return equal_lists(c, out, a->u.list, b->u.list, depth);
    case NQ_TV_DICT: return equal_dicts(c, out, a->u.dict, b->u.dict, depth);
    case NQ_TV_NAMESPACE: *out = a->u.dict == b->u.dict; break;
    case NQ_TV_MACRO: *out = a->u.macro == b->u.macro; break;
    case NQ_TV_FUNC: *out = a->u.func->fn == b->u.func->fn; break;
    case NQ_TV_LOOP: *out = a->u.loop == b->u.loop; break;
    case NQ_TV_CYCLER: *out = a->u.cycler == b->u.cycler; break;
    case NQ_TV_BOOL:
    case NQ_TV_INT:
    case NQ_TV_FLOAT: break; /* compared above */
    }
    return NOVAQ_OK;
}

novaq_status nq_tv_equal(nq_tctx *c, bool *out, const nq_tval *a, const nq_tval *b) {
    return equal(c, out, a, b, 0);
}

static novaq_status compare(nq_tctx *c, int *out, const nq_tval *a, const nq_tval *b,
                            unsigned depth) {
    if (depth > MAX_NESTING) {
        return nq_tfail(c, "values are nested too deeply to compare");
    }
    if (nq_tv_is_number(a) && nq_tv_is_number(b)) {
        *out = compare_numbers(a, b);
        return NOVAQ_OK;
    }
    if (a->type == NQ_TV_STR && b->type == NQ_TV_STR) {
        size_t n = a->u.s.n < b->u.s.n ? a->u.s.n : b->u.s.n;
        NQ_TRY(nq_tcharge(c, n));
        *out = n > 0 ? memcmp(a->u.s.p, b->u.s.p, n) : 0;
        if (*out == 0) {
            *out = a->u.s.n < b->u.s.n ? -1 : a->u.s.n > b->u.s.n;
        }
        return NOVAQ_OK;
    }
    if (!nq_tv_is_seq(a) || a->type != b->type) {
        return nq_tfail(c, "'%s' and '%s' have no order", nq_tv_type_name(a), nq_tv_type_name(b));
    }
    const nq_tlist *x = a->u.list;
    const nq_tlist *y = b->u.list;
    for (size_t i = 0; i < x->n && i < y->n; i++) {
        bool same = false;
        NQ_TRY(equal(c, &same, &x->v[i], &y->v[i], depth + 1));
        if (!same) {
            return compare(c, out, &x->v[i], &y->v[i], depth + 1);
        }
    }
    *out = x->n < y->n ? -1 : x->n > y->n;
    return NOVAQ_OK;
}

novaq_status nq_tv_compare(nq_tctx *c, int *out, const nq_tval *a, const nq_tval *b) {
    return compare(c, out, a, b, 0);
}

/* ---- lists and dicts -------------------------------------------------------- */

novaq_status nq_tlist_new(nq_tctx *c, nq_tlist **out) {
    NQ_TRY(nq_tarena_get(out, &c->arena, 1, sizeof **out, c->err));
    **out = (nq_tlist){.v = NULL};
    return NOVAQ_OK;
}

novaq_status nq_tlist_push(nq_tctx *c, nq_tlist *l, nq_tval v) {
    if (l->n == l->cap) {
        nq_tval *more = NULL;
        size_t cap = l->cap == 0 ? 4 : 2 * l->cap;
        NQ_TRY(nq_tarena_get(&more, &c->arena, cap, sizeof *more, c->err));
        if (l->n > 0) {
            memcpy(more, l->v, l->n * sizeof *more);
        }
        l->v = more;
        l->cap = cap;
    }
    l->v[l->n++] = v;
    return NOVAQ_OK;
}

novaq_status nq_tdict_new(nq_tctx *c, nq_tdict **out) {
    NQ_TRY(nq_tarena_get(out, &c->arena, 1, sizeof **out, c->err));
    **out = (nq_tdict){.n = 0};
    return NOVAQ_OK;
}

/* Adds a key known not to be there. */
static novaq_status dict_add(nq_tctx *c, nq_tdict *d, nq_tval key, nq_tval value) {
    if (d->n == d->cap) {
        nq_tval *more = NULL;
        size_t cap = d->cap == 0 ? 4 : 2 * d->cap;
        NQ_TRY(nq_tarena_get(&more, &c->arena, 2 * (uint64_t)cap, sizeof *more, c->err));
        if (d->n > 0) {
            memcpy(more, d->keys, d->n * sizeof *more);
            memcpy(more + cap, d->values, d->n * sizeof *more);
        }
        d->keys = more;
        d->values = more + cap;
        d->cap = cap;
    }
    d->keys[d->n] = key;
    d->values[d->n++] = value;
    return NOVAQ_OK;
}

novaq_status nq_tdict_get(nq_tctx *c, const nq_tval **out, const nq_tdict *d, const nq_tval *key) {
    NQ_TRY(nq_tcharge(c, d->n));
    *out = NULL;
    if (key->type == NQ_TV_STR) {
        *out = nq_tdict_find(d, key->u.s);
        return NOVAQ_OK;
    }
    for (size_t i = 0; i < d->n; i++) {
        bool same = false;
        NQ_TRY(nq_tv_equal(c, &same, &d->keys[i], key));
        if (same) {
            *out = &d->values[i];
            break;
        }
    }
    return NOVAQ_OK;
}

const nq_tval *nq_tdict_find(const nq_tdict *d, nq_tstr key) {
    for (size_t i = 0; i < d->n; i++) {
        if (d->keys[i].type == NQ_TV_STR && nq_tstr_eq(d->keys[i].u.s, key)) {
            return &d->values[i];
        }
    }
    return NULL;
}

novaq_status nq_tdict_set(nq_tctx *c, nq_tdict *d, nq_tval key, nq_tval value) {
    const nq_tval *old = NULL;
    if (key.type == NQ_TV_LIST || key.type == NQ_TV_DICT) {
        return nq_tfail(c, "a %s cannot be a key", nq_tv_type_name(&key));
    }
    NQ_TRY(nq_tdict_get(c, &old, d, &key));
    if (old != NULL) {
        d->values[old - d->values] = value;
        return NOVAQ_OK;
    }
    return dict_add(c, d, key, value);
}

novaq_status nq_tv_pair(nq_tctx *c, nq_tval *out, nq_tval a, nq_tval b) {
    nq_tlist *l = NULL;
    NQ_TRY(nq_tlist_new(c, &l));
    NQ_TRY(nq_tlist_push(c, l, a));
    NQ_TRY(nq_tlist_push(c, l, b));
    *out = (nq_tval){.type = NQ_TV_TUPLE, .u.list = l};
    return NOVAQ_OK;
}

novaq_status nq_tv_iterate(nq_tctx *c, const nq_tlist **out, const nq_tval *v) {
    nq_tlist *l = NULL;
    if (nq_tv_is_seq(v)) {
        *out = v->u.list;
        return NOVAQ_OK;
    }
    NQ_TRY(nq_tlist_new(c, &l));
    *out = l;
    if (v->type == NQ_TV_DICT) {
        l->v = v->u.dict->keys;
        l->n = l->cap = v->u.dict->n;
    } else if (v->type == NQ_TV_STR) {
        NQ_TRY(nq_tcharge(c, v->u.s.n));
        for (const char *p = v->u.s.p, *end = p + v->u.s.n; p < end;) {
            const char *start = p;
            (void)nq_tu_next(&p, end);
            NQ_TRY(nq_tlist_push(c, l, nq_tv_str((nq_tstr){start, (size_t)(p - start)})));
        }
    } else if (v->type != NQ_TV_UNDEFINED) {
        return nq_tfail(c, "'%s' cannot be iterated", nq_tv_type_name(v));
    }
    return NOVAQ_OK;
}

/* ---- from JSON ---------------------------------------------------------------- */

static novaq_status from_json(nq_tctx *c, nq_tval *out, const json_t *j, unsigned depth) {
    if (depth > MAX_NESTING) {
        return nq_tfail(c, "the variables are nested too deeply");
    }
    switch (json_typeof(j)) {
    case JSON_NULL: *out = nq_tv_none(); break;
    case JSON_TRUE: *out = nq_tv_bool(true); break;
    case JSON_FALSE: *out = nq_tv_bool(false); break;
    case JSON_INTEGER: *out = nq_tv_int(json_integer_value(j)); break;
    case JSON_REAL: *out = nq_tv_float(json_real_value(j)); break;
    case JSON_STRING:
        *out = nq_tv_str((nq_tstr){json_string_value(j), json_string_length(j)});
        break;
    case JSON_ARRAY: {
        nq_tlist *l = NULL;
        NQ_TRY(nq_tlist_new(c, &l));
        for (size_t i = 0; i < json_array_size(j); i++) {
            nq_tval v;
            NQ_TRY(from_json(c, &v, json_array_get(j, i), depth + 1));
            NQ_TRY(nq_tlist_push(c, l, v));
        }
        *out = nq_tv_list(l);
        break;
    }
    case JSON_OBJECT: {
        nq_tdict *d = NULL;
        NQ_TRY(nq_tdict_new(c, &d));
        json_t *o = (json_t *)(uintptr_t)j; /* iteration does not change it */
        for (void *it = json_object_iter(o); it != NULL; it = json_object_iter_next(o, it)) {
            const char *key = json_object_iter_key(it);
            nq_tval v;
            NQ_TRY(from_json(c, &v, json_object_iter_value(it), depth + 1));
            NQ_TRY(dict_add(c, d, nq_tv_str((nq_tstr){key, strlen(key)}), v));
        }
        *out = (nq_tval){.type = NQ_TV_DICT, .u.dict = d};
        break;
    }
    }
    return NOVAQ_OK;
}

novaq_status nq_tv_from_json(nq_tctx *c, nq_tval *out, const json_t *j) {
    return from_json(c, out, j, 0);
}
