/* torch_state.c - see torch_impl.h: the tree of a pickle and the tensors in it.
 * Owns the list of names a checkpoint may use. */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "format/names.h"
#include "format/torch_impl.h"

#define DEPTH_MAX  64U
#define PATH_BYTES 1024U               /* of a tensor's name */
#define TEXT_MAX   ((size_t)64 << 20)  /* bytes of all names and keys */
#define VISITS_MAX ((uint64_t)1 << 22) /* values looked at: dicts may be shared */
#define WRAPS_MAX  8

/* ---- the allow-list ------------------------------------------------------- */

/* Positions in the table below. */
enum {
    G_REBUILD,
    G_REBUILD_V2,
    G_REBUILD_V3,
    G_PARAMETER,
    G_PARAMETER_STATE,
    G_FROM_TYPE,
    G_FIRST_STORAGE,
    G_UNTYPED = G_FIRST_STORAGE + 10,
    G_FIRST_DTYPE,
    G_REST = G_FIRST_DTYPE + 15
};

static const nq_pickle_name names[] = {
    {"torch._utils", "_rebuild_tensor", NQ_PICKLE_CALL},
    {"torch._utils", "_rebuild_tensor_v2", NQ_PICKLE_CALL},
    {"torch._utils", "_rebuild_tensor_v3", NQ_PICKLE_CALL},
    {"torch._utils", "_rebuild_parameter", NQ_PICKLE_CALL},
    {"torch._utils", "_rebuild_parameter_with_state", NQ_PICKLE_CALL},
    {"torch._tensor", "_rebuild_from_type_v2", NQ_PICKLE_CALL},
    {"torch", "DoubleStorage", NQ_PICKLE_NAME}, /* G_FIRST_STORAGE */
    {"torch", "FloatStorage", NQ_PICKLE_NAME},
    {"torch", "HalfStorage", NQ_PICKLE_NAME},
    {"torch", "BFloat16Storage", NQ_PICKLE_NAME},
    {"torch", "LongStorage", NQ_PICKLE_NAME},
    {"torch", "IntStorage", NQ_PICKLE_NAME},
    {"torch", "ShortStorage", NQ_PICKLE_NAME},
    {"torch", "CharStorage", NQ_PICKLE_NAME},
    {"torch", "ByteStorage", NQ_PICKLE_NAME},
    {"torch", "BoolStorage", NQ_PICKLE_NAME},
    {"torch.storage", "UntypedStorage", NQ_PICKLE_NAME}, /* G_UNTYPED */
    {"torch", "float64", NQ_PICKLE_NAME},                /* G_FIRST_DTYPE */
    {"torch", "float32", NQ_PICKLE_NAME},
    {"torch", "float16", NQ_PICKLE_NAME},
    {"torch", "bfloat16", NQ_PICKLE_NAME},
    {"torch", "int64", NQ_PICKLE_NAME},
    {"torch", "int32", NQ_PICKLE_NAME},
    {"torch", "int16", NQ_PICKLE_NAME},
    {"torch", "int8", NQ_PICKLE_NAME},
    {"torch", "uint8", NQ_PICKLE_NAME},
    {"torch", "bool", NQ_PICKLE_NAME},
    {"torch", "uint16", NQ_PICKLE_NAME},
    {"torch", "uint32", NQ_PICKLE_NAME},
    {"torch", "uint64", NQ_PICKLE_NAME},
    {"torch", "float8_e4m3fn", NQ_PICKLE_NAME},
    {"torch", "float8_e5m2", NQ_PICKLE_NAME},
    {"collections", "OrderedDict", NQ_PICKLE_DICT}, /* G_REST */
    {"torch", "Size", NQ_PICKLE_SAME},
    {"torch", "device", NQ_PICKLE_VAGUE},
    {"torch", "Tensor", NQ_PICKLE_NAME},
    {"torch.nn.parameter", "Parameter", NQ_PICKLE_NAME},
    {"__builtin__", "set", NQ_PICKLE_VAGUE},
    {"builtins", "set", NQ_PICKLE_VAGUE},
    {"_codecs", "encode", NQ_PICKLE_VAGUE}, /* how protocol 2 writes bytes */
};

/* By distance from G_FIRST_STORAGE and from G_FIRST_DTYPE. */
static const nq_dtype dtypes[G_REST - G_FIRST_DTYPE] = {
    NQ_F64, NQ_F32,  NQ_F16, NQ_BF16, NQ_I64, NQ_I32,     NQ_I16,    NQ_I8,
    NQ_U8,  NQ_BOOL, NQ_U16, NQ_U32,  NQ_U64, NQ_F8_E4M3, NQ_F8_E5M2};

novaq_status nq_torch_unpickle(nq_torch_tree *out, const char *file, const uint8_t *data,
                               uint64_t len, uint64_t base, novaq_error *err) {
    *out = (nq_torch_tree){.file = file, .base = base};
    return nq_pickle_parse(&out->pickle, file, data, len, base, names,
                           sizeof names / sizeof names[0], err);
}

/* ---- looking into the tree ------------------------------------------------ */

static const nq_pickle_node *node_of(const nq_torch_tree *t, uint32_t n) {
    return &t->pickle.nodes[n];
}

static const nq_pickle_node *item(const nq_torch_tree *t, const nq_pickle_node *n, uint32_t i) {
    return node_of(t, nq_pickle_item(&t->pickle, n, i));
}

static bool is_text(const nq_pickle_node *n, const char *s) {
    return n->kind == NQ_PICKLE_K_TEXT && n->count == strlen(s) &&
           memcmp(n->u.text, s, n->count) == 0;
}

static bool is_global(const nq_pickle_node *n, int64_t first, int64_t end) {
    return n->kind == NQ_PICKLE_K_GLOBAL && n->u.integer >= first && n->u.integer < end;
}

static bool is_sequence(const nq_pickle_node *n) {
    return n->kind == NQ_PICKLE_K_TUPLE || n->kind == NQ_PICKLE_K_LIST;
}

const nq_pickle_node *nq_torch_member(const nq_torch_tree *t, const nq_pickle_node *dict,
                                      const char *key) {
    const nq_pickle_node *found = NULL; /* the last one counts, as in Python */
    for (uint32_t i = 0; dict->kind == NQ_PICKLE_K_DICT && i + 1 < dict->count; i += 2) {
        if (is_text(item(t, dict, i), key)) {
            found = item(t, dict, i + 1);
        }
    }
    return found;
}

novaq_status nq_torch_keep(uint64_t *at, nq_buf *text, const char *s, uint64_t len,
                           novaq_error *err) {
    *at = text->len;
    NQ_TRY(nq_buf_append(text, s, len, err));
    return nq_buf_zeros(text, 1, err);
}

/* ---- storages ------------------------------------------------------------- */

static novaq_status bad_storage(const nq_torch_tree *t, uint32_t at, const char *what,
                                novaq_error *err) {
    return nq_fail(err, NOVAQ_E_FORMAT, "%s: offset %llu: pickle: %s", t->file,
                   (unsigned long long)(t->base + at), what);
}

novaq_status nq_torch_read_storage(nq_torch_storage *out, nq_buf *text, const nq_torch_tree *t,
                                   uint32_t node, novaq_error *err) {
    const nq_pickle_node *n = node_of(t, node);
    *out = (nq_torch_storage){.at = n->at};
    const nq_pickle_node *id = item(t, n, 0);
    /* ('storage', type, key, location, elements) and, before 1.6, a view. */
    if (id->kind != NQ_PICKLE_K_TUPLE || id->count < 5 || id->count > 6 ||
        !is_text(item(t, id, 0), "storage")) {
        return bad_storage(t, n->at, "a persistent id that is no storage", err);
    }
    const nq_pickle_node *type = item(t, id, 1);
    const nq_pickle_node *key = item(t, id, 2);
    const nq_pickle_node *size = item(t, id, 4);
    if (!is_global(type, G_FIRST_STORAGE, G_UNTYPED + 1) || key->kind != NQ_PICKLE_K_TEXT ||
        key->count == 0 || key->count > PATH_BYTES || memchr(key->u.text, 0, key->count) != NULL ||
        size->kind != NQ_PICKLE_K_INT || size->u.integer < 0) {
        return bad_storage(t, n->at, "a storage without type, key or size", err);
    }
    if (id->count == 6 && item(t, id, 5)->kind != NQ_PICKLE_K_NONE) {
        return nq_fail(err, NOVAQ_E_UNSUPPORTED,
                       "%s: offset %llu: a storage within another one (PyTorch before 0.4): load "
                       "and save it with a newer PyTorch",
                       t->file, (unsigned long long)(t->base + n->at));
    }
    out->dtype = type->u.integer == G_UNTYPED ? NQ_U8 : dtypes[type->u.integer - G_FIRST_STORAGE];
    if (!nq_mul_u64((uint64_t)size->u.integer, nq_dtype_get(out->dtype)->bytes, &out->bytes)) {
        return bad_storage(t, n->at, "the size of a storage overflows", err);
    }
    return nq_torch_keep(&out->key, text, key->u.text, key->count, err);
}

/* ---- tensors -------------------------------------------------------------- */

typedef struct walk {
    const nq_torch_tree *tree;
    nq_torch_views *out;
    uint64_t visits;
    size_t len; /* bytes of path */
    char path[PATH_BYTES + 1];
} walk;

static novaq_status bad_tensor(const walk *w, const nq_pickle_node *n, const char *what,
                               novaq_error *err) {
    return nq_fail(err, NOVAQ_E_FORMAT, "%s: offset %llu: tensor \"%.200s\": %s", w->tree->file,
                   (unsigned long long)(w->tree->base + n->at), w->path, what);
}

/* Sizes or strides: a tuple of non-negative integers. */
static novaq_status read_sizes(uint64_t out[NQ_MAX_RANK], uint32_t *count, const walk *w,
                               const nq_pickle_node *n, novaq_error *err) {
    if (!is_sequence(n)) {
        return bad_tensor(w, n, "its shape or strides are no tuple", err);
    }
    *count = n->count;
    for (uint32_t i = 0; i < n->count; i++) {
        const nq_pickle_node *v = item(w->tree, n, i);
        if (v->kind != NQ_PICKLE_K_INT || v->u.integer < 0) {
            return bad_tensor(w, n, "its shape or strides are no positive numbers", err);
        }
        if (i < NQ_MAX_RANK) {
            out[i] = (uint64_t)v->u.integer;
        }
    }
    return NOVAQ_OK;
}

/* What else a rebuilt tensor may come with: a dtype (v3) and marks such as
 * "conjugate this when reading" (a dict, last). */
static novaq_status read_extras(nq_torch_view *v, const walk *w, const nq_pickle_node *args,
                                bool v3, novaq_error *err) {
    uint32_t at = 6;
    if (v3) {
        const nq_pickle_node *type = args->count > at ? item(w->tree, args, at) : args;
        if (!is_global(type, G_FIRST_DTYPE, G_REST)) {
            return bad_tensor(w, args, "it has no dtype", err);
        }
        v->info.dtype = dtypes[type->u.integer - G_FIRST_DTYPE];
        at++;
    }
    for (; at < args->count; at++) {
        const nq_pickle_node *n = item(w->tree, args, at);
        if (n->kind != NQ_PICKLE_K_NONE && n->count > 0) {
            return nq_fail(err, NOVAQ_E_UNSUPPORTED,
                           "%s: offset %llu: tensor \"%.200s\" is stored conjugated, negated or "
                           "otherwise marked: save a plain copy of it",
                           w->tree->file, (unsigned long long)(w->tree->base + n->at), w->path);
        }
    }
    return NOVAQ_OK;
}

/* args: storage, offset, size, stride, and for v2 and v3 requires_grad, hooks ... */
static novaq_status read_view(walk *w, int64_t which, const nq_pickle_node *args,
                              novaq_error *err) {
    uint32_t least = which == G_REBUILD ? 4 : 6;
    if (args->count < least || item(w->tree, args, 0)->kind != NQ_PICKLE_K_PERSISTENT) {
        return bad_tensor(w, args, "is rebuilt from what is no storage", err);
    }
    nq_torch_view v = {.skip = 0};
    nq_buf *text = &w->out->text;
    uint32_t strides = 0;
    NQ_TRY(nq_torch_read_storage(&v.storage, text, w->tree,
                                 nq_pickle_item(&w->tree->pickle, args, 0), err));
    const nq_pickle_node *skip = item(w->tree, args, 1);
    if (skip->kind != NQ_PICKLE_K_INT || skip->u.integer < 0) {
        return bad_tensor(w, args, "its offset is no positive number", err);
    }
    v.skip = (uint64_t)skip->u.integer;
    NQ_TRY(read_sizes(v.info.shape, &v.info.rank, w, item(w->tree, args, 2), err));
    NQ_TRY(read_sizes(v.strides, &strides, w, item(w->tree, args, 3), err));
    if (strides != v.info.rank) {
        return bad_tensor(w, args, "it has not as many strides as dimensions", err);
    }
    if (v.info.rank > NQ_MAX_RANK) {
        return nq_fail(err, NOVAQ_E_UNSUPPORTED,
                       "%s: tensor \"%.200s\" has %u dimensions, novaq reads at most %d",
                       w->tree->file, w->path, v.info.rank, NQ_MAX_RANK);
    }
    v.info.dtype = v.storage.dtype;
    if (which != G_REBUILD) {
        NQ_TRY(read_extras(&v, w, args, which == G_REBUILD_V3, err));
    }
    NQ_TRY(nq_torch_keep(&v.name, text, w->path, w->len, err));
    if (text->len > TEXT_MAX) {
        return bad_tensor(w, args, "up to it, names and keys take more than 64 MiB", err);
    }
    nq_torch_views *out = w->out;
    /* A name and a reference take at least four bytes, unless containers are shared. */
    if (out->count > w->tree->pickle.used / 4 + 16) {
        return bad_tensor(w, args, "more tensors than so short a pickle names", err);
    }
    if (out->count == out->cap) {
        uint64_t cap = out->cap + out->cap / 2 + 64;
        NQ_TRY(nq_grow(&out->v, out->count, cap, sizeof *out->v, err));
        out->cap = cap;
    }
    out->v[out->count++] = v;
    return NOVAQ_OK;
}

/* A call node: a parameter around a tensor, or the tensor. */
static novaq_status read_tensor(walk *w, const nq_pickle_node *call, novaq_error *err) {
    const nq_torch_tree *t = w->tree;
    const nq_pickle_node *f = item(t, call, 0);
    const nq_pickle_node *args = item(t, call, 1);
    for (unsigned depth = 0; depth < WRAPS_MAX; depth++) {
        if (is_global(f, G_REBUILD, G_REBUILD_V3 + 1)) {
            return read_view(w, f->u.integer, args, err);
        }
        if (is_global(f, G_FROM_TYPE, G_FROM_TYPE + 1)) {
            /* (function, type, its arguments, attributes) */
            if (args->count < 3 || item(t, args, 2)->kind != NQ_PICKLE_K_TUPLE) {
                break;
            }
            f = item(t, args, 0);
            args = item(t, args, 2);
            continue;
        }
        if (!is_global(f, G_PARAMETER, G_FROM_TYPE) || args->count < 1 ||
            item(t, args, 0)->kind != NQ_PICKLE_K_CALL) {
            break;
        }
        call = item(t, args, 0);
        f = item(t, call, 0);
        args = item(t, call, 1);
    }
    return bad_tensor(w, call, "is rebuilt from what is no tensor", err);
}

/* ---- names ---------------------------------------------------------------- */

/* Puts the key behind the path. */
static novaq_status enter(walk *w, const nq_pickle_node *at, const char *key, size_t len,
                          novaq_error *err) {
    size_t dot = w->len == 0 ? 0 : 1;
    if (len == 0 || memchr(key, 0, len) != NULL || nq_utf8_prefix(key, len) != len) {
        return bad_tensor(w, at, "a key below it is empty or no UTF-8", err);
    }
    if (len + dot > PATH_BYTES - w->len) {
        return bad_tensor(w, at, "the names below it are longer than 1024 bytes", err);
    }
    memcpy(w->path + w->len, ".", dot);
    memcpy(w->path + w->len + dot, key, len);
    w->len += dot + len;
    w->path[w->len] = '\0';
    return NOVAQ_OK;
}

static void leave(walk *w, size_t len) {
    w->len = len;
    w->path[len] = '\0';
}

static bool may_hold_tensors(const nq_pickle_node *n) {
    return n->kind == NQ_PICKLE_K_CALL || n->kind == NQ_PICKLE_K_DICT || is_sequence(n);
}

/* key: NULL for item number `number` of a list. */
static novaq_status enter_item(walk *w, const nq_pickle_node *value, const nq_pickle_node *key,
                               uint32_t number, novaq_error *err) {
    char digits[24];
    if (key != NULL && key->kind == NQ_PICKLE_K_TEXT) {
        return enter(w, value, key->u.text, key->count, err);
    }
    if (key != NULL && key->kind != NQ_PICKLE_K_INT) {
        return bad_tensor(w, value, "a key below it is neither text nor a number", err);
    }
    int n = snprintf(digits, sizeof digits, "%lld",
                     key != NULL ? (long long)key->u.integer : (long long)number);
    return enter(w, value, digits, (size_t)n, err);
}

/* Depth is bounded, and so is the number of visits: containers may be shared,
 * even with themselves. */
static novaq_status walk_node(walk *w, const nq_pickle_node *n, unsigned depth, novaq_error *err) {
    if (n->kind == NQ_PICKLE_K_CALL) {
        return read_tensor(w, n, err);
    }
    if (depth > DEPTH_MAX) {
        return bad_tensor(w, n, "is nested more than 64 deep", err);
    }
    uint32_t step = n->kind == NQ_PICKLE_K_DICT ? 2 : 1;
    for (uint32_t i = 0; i + step <= n->count; i += step) {
        const nq_pickle_node *value = item(w->tree, n, i + step - 1);
        size_t len = w->len;
        if (++w->visits > VISITS_MAX) {
            return bad_tensor(w, n, "more than 4194304 values: containers within each other", err);
        }
        if (may_hold_tensors(value)) {
            NQ_TRY(enter_item(w, value, step == 2 ? item(w->tree, n, i) : NULL, i, err));
            NQ_TRY(walk_node(w, value, depth + 1, err));
            leave(w, len);
        }
    }
    return NOVAQ_OK;
}

/* ---- the whole ------------------------------------------------------------ */

static bool holds_tensor(const nq_torch_tree *t, const nq_pickle_node *dict) {
    for (uint32_t i = 1; i < dict->count; i += 2) {
        if (item(t, dict, i)->kind == NQ_PICKLE_K_CALL) {
            return true;
        }
    }
    return false;
}

/* The dict that stands for the model, see torch.h. */
static const nq_pickle_node *unwrap(const nq_torch_tree *t, const nq_pickle_node *root) {
    static const char *const wraps[] = {"state_dict", "model_state_dict", "model", "module"};
    for (unsigned depth = 0; depth < WRAPS_MAX; depth++) {
        const nq_pickle_node *inner = NULL;
        if (root->kind != NQ_PICKLE_K_DICT || holds_tensor(t, root)) {
            return root;
        }
        for (size_t i = 0; i < sizeof wraps / sizeof wraps[0] && inner == NULL; i++) {
            const nq_pickle_node *n = nq_torch_member(t, root, wraps[i]);
            inner = n != NULL && n->kind == NQ_PICKLE_K_DICT && n->count > 0 ? n : NULL;
        }
        if (inner == NULL) {
            return root;
        }
        root = inner;
    }
    return root;
}

novaq_status nq_torch_collect(nq_torch_views *out, const nq_torch_tree *tree, novaq_error *err) {
    *out = (nq_torch_views){.text = nq_buf_init(TEXT_MAX + (4 * PATH_BYTES))};
    walk w = {.tree = tree, .out = out};
    const nq_pickle_node *root = unwrap(tree, node_of(tree, tree->pickle.root));
    if (root->kind == NQ_PICKLE_K_CALL) {
        NQ_TRY(enter(&w, root, "tensor", 6, err));
    } else if (!may_hold_tensors(root)) {
        return bad_tensor(&w, root, "the file holds no dict of tensors", err);
    }
    NQ_TRY(walk_node(&w, root, 0, err));
    return out->count > 0 ? NOVAQ_OK : bad_tensor(&w, root, "the file holds no tensors", err);
}

void nq_torch_drop(nq_torch_views *views) {
    nq_free(views->v);
    nq_buf_free(&views->text);
    *views = (nq_torch_views){.v = NULL};
}
