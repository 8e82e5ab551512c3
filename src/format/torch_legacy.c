/* torch_legacy.c - see torch_impl.h: the stream form of PyTorch before 1.6.
 *
 * Five pickles (a magic number, a version, the writer's system, the objects, the
 * keys of the storages), then per key a count of elements and the elements.
 */
#include <string.h>

#include "base/cursor.h"
#include "base/mem.h"
#include "format/names.h"
#include "format/torch_impl.h"

#define WINDOW_FIRST ((uint64_t)256 << 10) /* bytes; the pickles end where they end */
#define WINDOW_MAX   (2 * NQ_PICKLE_MAX)
#define VERSION      1001

enum { P_MAGIC, P_VERSION, P_SYSTEM, P_OBJECTS, P_KEYS, PICKLES };

static const uint8_t magic[15] = {0x80, 0x02, 0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46,
                                  0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19, '.'};

/* A storage as the objects describe it, then as it lies in the file. */
typedef struct stored {
    const char *key;
    uint64_t bytes;
    uint64_t element; /* bytes */
    uint64_t offset;
    bool seen;
} stored;

typedef struct stream {
    nq_source *src;
    nq_torch_tree trees[PICKLES];
    uint8_t *window;
    uint64_t have; /* bytes of the file in the window */
    uint64_t end;  /* of the last pickle */
    nq_torch *out; /* where claims go */
    nq_buf text;   /* keys */
    stored *list;  /* sorted by key */
    size_t count;
} stream;

static novaq_status bad(const stream *s, uint64_t offset, const char *what, novaq_error *err) {
    return nq_fail(err, NOVAQ_E_FORMAT, "%s: offset %llu: %s", s->src->name,
                   (unsigned long long)offset, what);
}

/* ---- the pickles ---------------------------------------------------------- */

static void drop_trees(stream *s) {
    for (int i = 0; i < PICKLES; i++) {
        nq_pickle_free(&s->trees[i].pickle);
    }
}

/* All pickles from a window of len bytes; *cut when it is too short. */
static novaq_status read_window(stream *s, uint64_t len, bool *cut, novaq_error *err) {
    s->end = 0;
    NQ_TRY(nq_grow(&s->window, s->have, len, 1, err));
    NQ_TRY(nq_source_read(s->src, s->have, s->window + s->have, len - s->have, err));
    s->have = len;
    for (int i = 0; i < PICKLES; i++) {
        nq_torch_tree *t = &s->trees[i];
        novaq_status st =
            nq_torch_unpickle(t, s->src->name, s->window + s->end, len - s->end, s->end, err);
        *cut = t->pickle.cut;
        NQ_TRY(st);
        s->end += t->pickle.used;
    }
    return NOVAQ_OK;
}

static novaq_status read_pickles(stream *s, novaq_error *err) {
    uint64_t most = s->src->size < WINDOW_MAX ? s->src->size : WINDOW_MAX;
    uint64_t len = WINDOW_FIRST < most ? WINDOW_FIRST : most;
    for (;;) {
        bool cut = false;
        novaq_status st = read_window(s, len, &cut, err);
        if (st == NOVAQ_OK || !cut || len == most) {
            return st;
        }
        drop_trees(s);
        len = len * 4 < most ? len * 4 : most;
    }
}

static const nq_pickle_node *root_of(const nq_torch_tree *t) {
    return &t->pickle.nodes[t->pickle.root];
}

static bool is_number(const nq_pickle_node *n, int64_t v) {
    return n->kind == NQ_PICKLE_K_INT && n->u.integer == v;
}

static novaq_status check_head(const stream *s, novaq_error *err) {
    const nq_torch_tree *system = &s->trees[P_SYSTEM];
    if (!is_number(root_of(&s->trees[P_VERSION]), VERSION)) {
        return nq_fail(err, NOVAQ_E_UNSUPPORTED,
                       "%s: offset %llu: not the version 1001 of PyTorch's stream format",
                       s->src->name, (unsigned long long)s->trees[P_VERSION].base);
    }
    const nq_pickle_node *little = nq_torch_member(system, root_of(system), "little_endian");
    if (little == NULL || little->kind != NQ_PICKLE_K_BOOL) {
        return bad(s, system->base, "does not say whether it is little-endian", err);
    }
    if (little->u.integer == 0) {
        return nq_fail(err, NOVAQ_E_UNSUPPORTED,
                       "%s: offset %llu: big-endian, which novaq does not read: save it on another "
                       "machine",
                       s->src->name, (unsigned long long)system->base);
    }
    return NOVAQ_OK;
}

/* ---- the storages --------------------------------------------------------- */

static int by_key(const void *a, const void *b) {
    return strcmp(((const stored *)a)->key, ((const stored *)b)->key);
}

/* What the objects say of storages: each once. Those that no tensor uses count,
 * too: they take their place in the file. */
static novaq_status list_storages(stream *s, novaq_error *err) {
    const nq_torch_tree *t = &s->trees[P_OBJECTS];
    size_t count = 0;
    for (uint32_t i = 0; i < t->pickle.node_count; i++) {
        count += t->pickle.nodes[i].kind == NQ_PICKLE_K_PERSISTENT ? 1 : 0;
    }
    uint64_t *at = NULL;
    NQ_TRY(nq_alloc(&at, count, sizeof *at, err));
    novaq_status st = nq_alloc(&s->list, count, sizeof *s->list, err);
    for (uint32_t i = 0; st == NOVAQ_OK && i < t->pickle.node_count; i++) {
        if (t->pickle.nodes[i].kind == NQ_PICKLE_K_PERSISTENT) {
            nq_torch_storage one;
            st = nq_torch_read_storage(&one, &s->text, t, i, err);
            at[s->count] = one.key;
            s->list[s->count++] =
                (stored){.bytes = one.bytes, .element = nq_dtype_get(one.dtype)->bytes};
        }
    }
    for (size_t i = 0; st == NOVAQ_OK && i < s->count; i++) {
        s->list[i].key = (const char *)s->text.data + at[i];
    }
    nq_free(at);
    NQ_TRY(st);
    nq_sort(s->list, s->count, sizeof *s->list, by_key);
    size_t kept = 0;
    for (size_t i = 0; i < s->count; i++) {
        const stored *last = kept == 0 ? NULL : &s->list[kept - 1];
        if (last == NULL || strcmp(last->key, s->list[i].key) != 0) {
            s->list[kept++] = s->list[i];
        } else if (last->bytes != s->list[i].bytes || last->element != s->list[i].element) {
            return bad(s, t->base, "one storage with two types or sizes", err);
        }
    }
    s->count = kept;
    return NOVAQ_OK;
}

/* The storage of a key that is not NUL-terminated, or NULL. */
static stored *find_key(const stream *s, const char *key, size_t len) {
    size_t low = 0;
    size_t high = s->count;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        int order = strncmp(s->list[mid].key, key, len);
        order = order == 0 && s->list[mid].key[len] != '\0' ? 1 : order;
        if (order == 0) {
            return &s->list[mid];
        }
        if (order < 0) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    return NULL;
}

/* The count of elements that stands at `at`: looked at now, or when the elements are
 * fetched where each look costs a round trip. */
static novaq_status check_count(const stream *s, const stored *one, uint64_t at, novaq_error *err) {
    uint8_t raw[8];
    nq_torch_claim claim = {.head = at,
                            .look = sizeof raw,
                            .data = at + sizeof raw,
                            .bytes = one->bytes,
                            .says = one->bytes / one->element};
    if (s->src->remote && s->src->size - at >= sizeof raw) {
        return nq_torch_claim_add(s->out, &claim, err);
    }
    NQ_TRY(nq_source_read(s->src, at, raw, sizeof raw, err));
    nq_cursor c = nq_cursor_init(s->src->name, raw, sizeof raw, at);
    return nq_cursor_u64(&c) == claim.says
               ? NOVAQ_OK
               : bad(s, at, "a storage has another size than its tensors say", err);
}

static novaq_status place(const stream *s, uint64_t *at, const nq_pickle_node *key,
                          novaq_error *err) {
    stored *one = key->kind == NQ_PICKLE_K_TEXT && key->count > 0 &&
                          memchr(key->u.text, 0, key->count) == NULL
                      ? find_key(s, key->u.text, key->count)
                      : NULL;
    if (one == NULL || one->seen) {
        return bad(s, s->trees[P_KEYS].base + key->at,
                   one == NULL ? "a storage key that no tensor has" : "a storage key twice", err);
    }
    NQ_TRY(check_count(s, one, *at, err));
    *at += sizeof(uint64_t);
    if (one->bytes > s->src->size - *at) {
        return bad(s, *at, "a storage reaches beyond the end of the file", err);
    }
    one->offset = *at;
    one->seen = true;
    *at += one->bytes;
    return NOVAQ_OK;
}

static novaq_status place_storages(const stream *s, novaq_error *err) {
    const nq_torch_tree *t = &s->trees[P_KEYS];
    const nq_pickle_node *keys = root_of(t);
    if (keys->kind != NQ_PICKLE_K_LIST) {
        return bad(s, t->base, "the keys of the storages are no list", err);
    }
    uint64_t at = s->end;
    for (uint32_t i = 0; i < keys->count; i++) {
        NQ_TRY(place(s, &at, &t->pickle.nodes[nq_pickle_item(&t->pickle, keys, i)], err));
    }
    return at == s->src->size ? NOVAQ_OK : bad(s, at, "bytes that belong to no storage", err);
}

static novaq_status find_in_stream(void *ctx, uint64_t *offset, const char *key, uint64_t bytes,
                                   novaq_error *err) {
    const stream *s = ctx;
    const stored *one = find_key(s, key, strlen(key));
    if (one == NULL || !one->seen || one->bytes != bytes) {
        return nq_fail(err, NOVAQ_E_FORMAT, "%s: its storage \"%.100s\" is not in the file",
                       s->src->name, key);
    }
    *offset = one->offset;
    return NOVAQ_OK;
}

/* ---- the whole ------------------------------------------------------------ */

static novaq_status parse_stream(nq_torch *out, stream *s, novaq_error *err) {
    nq_torch_views views = {.count = 0};
    NQ_TRY(read_pickles(s, err));
    NQ_TRY(check_head(s, err));
    NQ_TRY(list_storages(s, err));
    NQ_TRY(place_storages(s, err));
    novaq_status st = nq_torch_collect(&views, &s->trees[P_OBJECTS], err);
    if (st == NOVAQ_OK) {
        st = nq_torch_finish(out, &views, s->src, find_in_stream, s, err);
    }
    nq_torch_drop(&views);
    return st;
}

novaq_status nq_torch_parse_legacy(nq_torch *out, nq_source *src, novaq_error *err) {
    uint8_t head[sizeof magic];
    bool known = src->size >= sizeof head;
    if (known) {
        NQ_TRY(nq_source_read(src, 0, head, sizeof head, err));
        known = memcmp(head, magic, sizeof magic) == 0;
    }
    if (!known) {
        return nq_fail(err, NOVAQ_E_FORMAT,
                       "%s: offset 0: a pickle, but not as torch.save begins a file", src->name);
    }
    stream s = {.src = src, .out = out, .text = nq_buf_init((size_t)NQ_PICKLE_MAX)};
    novaq_status st = parse_stream(out, &s, err);
    drop_trees(&s);
    nq_free(s.window);
    nq_free(s.list);
    nq_buf_free(&s.text);
    return st;
}
