/* onnx_names.c - what a tensor of a graph is called and which way round it lies.
 *
 * Owns: scopes, aliases, copies in the branches of an If, names of modules from
 * names of nodes. Refuses: a name that the graph does not prove; the tensor then
 * keeps the one it has in the file.
 */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "format/names.h"
#include "format/onnx_impl.h"

#define ALIAS_HOPS    8
#define COMPARE_BYTES ((uint64_t)1 << 16)

/* ---- looking up ------------------------------------------------------------- */

static int by_key(const void *a, const void *b) {
    const nq_onnx_key *x = a;
    const nq_onnx_key *y = b;
    int order = strcmp(x->name, y->name);
    if (order != 0) {
        return order;
    }
    return x->scope != y->scope ? (x->scope < y->scope ? -1 : 1) : 0;
}

/* The entry with this name in a scope or the ones around it. */
static const nq_onnx_key *find(const nq_onnx_walk *w, const nq_onnx_key *table, size_t count,
                               const char *name, uint32_t scope) {
    const nq_onnx_key *hit = NULL;
    while (count > 0 && hit == NULL && scope != NQ_ONNX_NO_SCOPE) {
        nq_onnx_key key = {name, scope, 0};
        hit = bsearch(&key, table, count, sizeof *table, by_key);
        scope = w->scopes[scope].parent;
    }
    return hit;
}

nq_onnx_item *nq_onnx_find(nq_onnx_walk *w, const char *name, uint32_t scope) {
    for (unsigned hop = 0; hop < ALIAS_HOPS; hop++) {
        const nq_onnx_key *hit = find(w, w->by_name, w->count, name, scope);
        if (hit != NULL) {
            return &w->items[w->items[hit->index].same];
        }
        hit = find(w, w->by_alias, w->alias_count, name, scope);
        if (hit == NULL) {
            return NULL;
        }
        name = w->aliases[hit->index].target;
        scope = w->aliases[hit->index].scope;
    }
    return NULL;
}

/* ---- copies ----------------------------------------------------------------- */

static nq_source *source_of(const nq_onnx_walk *w, const nq_onnx_item *t) {
    for (size_t i = 0; i < w->file_count; i++) {
        if (w->files[i].file == t->info.file) {
            return w->files[i].src;
        }
    }
    return w->pb.src;
}

static novaq_status same_data(bool *same, const nq_onnx_walk *w, const nq_onnx_item *a,
                              const nq_onnx_item *b, novaq_error *err) {
    uint8_t *buf = NULL;
    uint64_t width = nq_dtype_get(a->info.dtype)->bytes;
    uint64_t step = COMPARE_BYTES / width;
    NQ_TRY(nq_alloc_raw(&buf, 2 * COMPARE_BYTES, 1, err));
    novaq_status st = NOVAQ_OK;
    *same = true;
    for (uint64_t at = 0; st == NOVAQ_OK && *same && at < a->info.elements; at += step) {
        uint64_t n = a->info.elements - at < step ? a->info.elements - at : step;
        st = nq_onnx_read_stored(buf, source_of(w, a), &a->info, w->out->pieces + a->piece,
                                 a->pieces, at, n, err);
        if (st == NOVAQ_OK) {
            st = nq_onnx_read_stored(buf + COMPARE_BYTES, source_of(w, b), &b->info,
                                     w->out->pieces + b->piece, b->pieces, at, n, err);
        }
        *same = st == NOVAQ_OK && memcmp(buf, buf + COMPARE_BYTES, n * width) == 0;
    }
    nq_free(buf);
    return st;
}

/* Two tensors of one name in different graphs, the branches of a merged decoder:
 * one weight when they hold the same. budget: bytes still to be compared, since
 * external data may be claimed by many. */
static novaq_status match_copy(nq_onnx_walk *w, size_t first, size_t other, uint64_t *budget,
                               novaq_error *err) {
    const nq_onnx_item *a = &w->items[first];
    const nq_onnx_item *b = &w->items[other];
    bool same = a->info.dtype == b->info.dtype && a->info.rank == b->info.rank &&
                memcmp(a->info.shape, b->info.shape, sizeof a->info.shape) == 0;
    bool one_place = a->pieces == 0 && b->pieces == 0 && a->info.file == b->info.file &&
                     a->info.offset == b->info.offset;
    if (same && !one_place) {
        same = a->info.bytes <= *budget;
        *budget -= same ? a->info.bytes : 0;
        if (same) {
            NQ_TRY(same_data(&same, w, a, b, err));
        }
    }
    if (same) {
        w->items[other].same = first;
    }
    return NOVAQ_OK;
}

novaq_status nq_onnx_index(nq_onnx_walk *w, novaq_error *err) {
    NQ_TRY(nq_alloc_raw(&w->by_name, w->count, sizeof *w->by_name, err));
    NQ_TRY(nq_alloc_raw(&w->by_alias, w->alias_count, sizeof *w->by_alias, err));
    uint64_t budget = w->pb.src->size;
    for (size_t i = 0; i < w->file_count; i++) {
        budget += w->files[i].src->size; /* of real files: far below 2^64 */
    }
    for (size_t i = 0; i < w->count; i++) {
        w->by_name[i] = (nq_onnx_key){w->items[i].info.name, w->items[i].scope, i};
    }
    for (size_t i = 0; i < w->alias_count; i++) {
        w->by_alias[i] = (nq_onnx_key){w->aliases[i].name, w->aliases[i].scope, i};
    }
    nq_sort(w->by_name, w->count, sizeof *w->by_name, by_key);
    nq_sort(w->by_alias, w->alias_count, sizeof *w->by_alias, by_key);
    size_t first = 0;
    for (size_t i = 1; i < w->count; i++) {
        const nq_onnx_key *k = &w->by_name[i];
        if (strcmp(k->name, w->by_name[first].name) != 0) {
            first = i;
        } else if (k->scope == k[-1].scope) {
            return nq_fail(err, NOVAQ_E_FORMAT, "%s: offset %llu: tensor \"%.200s\" is there twice",
                           w->pb.src->name, (unsigned long long)w->items[k->index].at, k->name);
        } else {
            NQ_TRY(match_copy(w, w->by_name[first].index, k->index, &budget, err));
        }
    }
    return NOVAQ_OK;
}

/* ---- names ------------------------------------------------------------------ */

bool nq_onnx_module(char *s, const char *op) {
    size_t n = strlen(s);
    size_t m = strlen(op);
    if (n < m + 3 || s[0] != '/' || s[n - m - 1] != '/' || strcmp(s + n - m, op) != 0) {
        return false;
    }
    n -= m + 2; /* without the slash before and "/op" behind */
    memmove(s, s + 1, n);
    s[n] = '\0';
    const char *last = s; /* the component before this one */
    size_t last_len = 0;
    for (char *p = s; p < s + n;) {
        size_t len = strcspn(p, "/");
        /* "/net/net.0": the scope of net.0 in net, or of net.net.0? */
        bool unclear =
            last_len > 0 && len > last_len && p[last_len] == '.' && memcmp(p, last, last_len) == 0;
        if (len == 0 || unclear) {
            return false;
        }
        last = p;
        last_len = len;
        p += len;
        if (*p == '/') {
            *p++ = '.';
            if (*p == '\0') {
                return false;
            }
        }
    }
    return true;
}

bool nq_onnx_module_of_scopes(char *s) {
    /* The last is the operation, the one before it the module. */
    char *end = strrchr(s, ',');
    char *start = end;
    while (start != NULL && start > s && *start != '\'') {
        start--;
    }
    if (start == NULL || start == s) {
        return false;
    }
    end = start;
    do {
        start--;
    } while (start > s && *start != '\'');
    size_t n = (size_t)(end - start) - 1;
    if (*start != '\'' || n == 0) {
        return false;
    }
    memmove(s, start + 1, n);
    s[n] = '\0';
    return true;
}

/* Names that an exporter made up, of a folded matrix or of a node's output. */
static bool is_made_up(const nq_onnx_item *t) {
    const char *s = t->info.name;
    bool counted =
        strncmp(s, "val_", 4) == 0 && s[4] != '\0' && s[4 + strspn(s + 4, "0123456789")] == '\0';
    return t->constant || s[0] == '/' || counted || strncmp(s, "onnx::", 6) == 0;
}

static bool is_transposed(const nq_onnx_item *t) {
    /* A Gemm's own parameter lies as in PyTorch, where it is [in, out] too (the
     * Conv1D of GPT-2); only a folded one was turned. */
    uint32_t right = NQ_ONNX_RIGHT | (is_made_up(t) ? (uint32_t)NQ_ONNX_GEMM : 0);
    return t->info.rank == 2 && (t->uses & right) != 0 && (t->uses & ~right) == 0;
}

/* Length of a name without "_merged_0", which merging decoders appends. */
static size_t unmerged(const char *s) {
    size_t n = strlen(s);
    size_t k = n;
    while (k > 0 && s[k - 1] >= '0' && s[k - 1] <= '9') {
        k--;
    }
    return k < n && k > 8 && strncmp(s + k - 8, "_merged_", 8) == 0 ? k - 8 : n;
}

/* A name better than the item's own, or its own. */
static novaq_status better_name(const char **out, nq_onnx_walk *w, const nq_onnx_item *t,
                                novaq_error *err) {
    *out = t->info.name;
    char *s = NULL;
    novaq_status st = NOVAQ_OK;
    size_t n = w->scope_count > 1 ? unmerged(t->info.name) : strlen(t->info.name);
    if (is_made_up(t)) {
        if (t->module == NULL || t->two_modules || t->info.rank != 2) {
            return NOVAQ_OK;
        }
        st = nq_asprintf(&s, err, "%s.weight", t->module);
    } else if (t->info.name[n] == '\0') {
        return NOVAQ_OK;
    } else {
        st = nq_strndup(&s, t->info.name, n, err);
    }
    if (st == NOVAQ_OK) {
        st = nq_onnx_keep(out, &w->out->text, s, err);
    }
    nq_free(s);
    return st;
}

/* The same name in another graph for other numbers: said with its graph. */
static novaq_status qualify(nq_onnx_walk *w, size_t i, novaq_error *err) {
    nq_onnx_item *t = &w->items[i];
    const char *label = w->scopes[t->scope].label;
    char *s = NULL;
    NQ_TRY(nq_asprintf(&s, err, "%s/%s", label == NULL ? "main" : label, t->info.name));
    novaq_status st = nq_onnx_keep(&t->info.name, &w->out->text, s, err);
    nq_free(s);
    return st;
}

static novaq_status qualify_all(nq_onnx_walk *w, novaq_error *err) {
    const char *last = NULL;
    for (size_t i = 0; i < w->count; i++) {
        size_t at = w->by_name[i].index;
        const char *name = w->by_name[i].name;
        if (last != NULL && strcmp(last, name) == 0 && w->items[at].same == at) {
            NQ_TRY(qualify(w, at, err));
        }
        last = name;
    }
    return NOVAQ_OK;
}

/* A module called twice is "fc" and then "fc_1": when both forms occur, the
 * second proves nothing. */
static bool is_second_call(const char *name, const nq_name *sorted, size_t count, char *scratch) {
    for (const char *p = strchr(name, '_'); p != NULL; p = strchr(p + 1, '_')) {
        size_t digits = strspn(p + 1, "0123456789");
        size_t before = (size_t)(p - name);
        if (digits == 0 || p[1 + digits] != '.' || strlen(name) >= NQ_ONNX_NAME_MAX) {
            continue;
        }
        memcpy(scratch, name, before);
        memcpy(scratch + before, p + 1 + digits, strlen(p + 1 + digits) + 1);
        if (nq_names_find(sorted, count, scratch) != NULL) {
            return true;
        }
    }
    return false;
}

/* Better names that are clear and belong to one tensor only. names: one entry per
 * tensor, sorted; its index is the item's. */
static void adopt(nq_onnx_walk *w, nq_name *names, size_t count) {
    for (size_t i = 0; i < count; i++) {
        bool twice = (i > 0 && strcmp(names[i - 1].name, names[i].name) == 0) ||
                     (i + 1 < count && strcmp(names[i + 1].name, names[i].name) == 0);
        nq_onnx_item *t = &w->items[names[i].index];
        if (!twice && !(is_made_up(t) && is_second_call(names[i].name, names, count, w->text))) {
            t->module = names[i].name; /* its last use: the name to present */
        } else {
            t->module = t->info.name;
        }
    }
}

static novaq_status choose_names(nq_onnx_walk *w, novaq_error *err) {
    nq_name *names = NULL;
    size_t count = 0;
    NQ_TRY(nq_alloc_raw(&names, w->count, sizeof *names, err));
    novaq_status st = NOVAQ_OK;
    for (size_t i = 0; st == NOVAQ_OK && i < w->count; i++) {
        if (w->items[i].same == i) {
            st = better_name(&names[count].name, w, &w->items[i], err);
            names[count++].index = i;
        }
    }
    if (st == NOVAQ_OK) {
        nq_names_sort(names, count);
        adopt(w, names, count);
    }
    nq_free(names);
    return st;
}

/* ---- presenting ------------------------------------------------------------- */

static void present(nq_onnx *o, nq_onnx_item *item, size_t *views) {
    nq_tensor_info t = item->info;
    bool transposed = is_transposed(item);
    if (transposed) {
        t.shape[0] = item->info.shape[1];
        t.shape[1] = item->info.shape[0];
    }
    t.name = item->module;
    if (transposed || item->pieces > 0) {
        o->views[*views] = (nq_onnx_view){item->piece, item->pieces, transposed, item->end};
        t.view = (uint32_t)++ * views;
    }
    o->tensors[o->count++] = t;
}

novaq_status nq_onnx_present(nq_onnx_walk *w, novaq_error *err) {
    nq_onnx *o = w->out;
    size_t views = 0;
    NQ_TRY(qualify_all(w, err));
    NQ_TRY(choose_names(w, err));
    NQ_TRY(nq_alloc(&o->tensors, w->count, sizeof *o->tensors, err));
    NQ_TRY(nq_alloc(&o->views, w->count, sizeof *o->views, err));
    for (size_t i = 0; i < w->count; i++) {
        if (w->items[i].same == i) {
            present(o, &w->items[i], &views);
        }
    }
    return NOVAQ_OK;
}
