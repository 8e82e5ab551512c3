/* pickle.c - see pickle.h. Opcodes as in Python's pickletools. */
#include "format/pickle.h"

#include <string.h>

#include "base/mem.h"

#define NODES_MAX  ((uint64_t)1 << 21)
#define ITEMS_MAX  ((uint64_t)1 << 24)
#define STACK_MAX  ((uint64_t)1 << 20)
#define MARKS_MAX  1000U
#define NAME_BYTES 256U /* of a module or of a name in it */

/* Every opcode of protocols 0 to 5 below 0x80; from there 0x80 to 0x98 are. */
#define OLD_OPCODES "(.0125FGIJKLMNPQRSTUVXabcdeghijloprstu]})qBC"

/* These nodes exist once. */
enum { NODE_NONE, NODE_FALSE, NODE_TRUE, NODE_EMPTY, NODE_OTHER, NODES_FIXED };

typedef struct numbers {
    uint32_t *v;
    uint64_t count;
    uint64_t cap;
} numbers;

typedef struct parser {
    nq_pickle *p;
    const char *file;
    const uint8_t *data;
    uint64_t len;
    uint64_t base;
    uint64_t pos;
    uint64_t op_at; /* of the opcode in work */
    const nq_pickle_name *names;
    size_t name_count;
    numbers stack;
    numbers marks;  /* heights of the stack */
    numbers memo;   /* number of a node + 1, 0 where there is none */
    uint64_t memos; /* how many were set: what MEMOIZE numbers by */
} parser;

static novaq_status bad(const parser *s, const char *what, novaq_error *err) {
    return nq_fail(err, NOVAQ_E_FORMAT, "%s: offset %llu: pickle: %s", s->file,
                   (unsigned long long)(s->base + s->op_at), what);
}

/* ---- bytes ---------------------------------------------------------------- */

static novaq_status take(parser *s, const uint8_t **out, uint64_t n, novaq_error *err) {
    if (n > s->len - s->pos) {
        s->p->cut = true;
        return bad(s, "ends too early", err);
    }
    *out = s->data + s->pos;
    s->pos += n;
    return NOVAQ_OK;
}

/* A little-endian number of n bytes, n at most 8. */
static novaq_status take_number(parser *s, uint64_t *out, unsigned n, novaq_error *err) {
    const uint8_t *p = NULL;
    NQ_TRY(take(s, &p, n, err));
    *out = 0;
    for (unsigned i = 0; i < n; i++) {
        *out |= (uint64_t)p[i] << (8 * i);
    }
    return NOVAQ_OK;
}

/* A line of at most NAME_BYTES, its newline dropped. */
static novaq_status take_line(parser *s, char out[NAME_BYTES + 1], novaq_error *err) {
    uint64_t left = s->len - s->pos;
    const uint8_t *from = s->data + s->pos;
    const uint8_t *end = memchr(from, '\n', left < NAME_BYTES ? left : NAME_BYTES);
    if (end == NULL) {
        s->p->cut = left < NAME_BYTES;
        return bad(s, s->p->cut ? "ends too early" : "a name of more than 256 bytes", err);
    }
    size_t n = (size_t)(end - from);
    memcpy(out, from, n);
    out[n] = '\0';
    s->pos += n + 1;
    return NOVAQ_OK;
}

/* ---- growing tables ------------------------------------------------------- */

static novaq_status make_room(void *table, uint64_t *cap, uint64_t used, uint64_t want,
                              uint64_t size, novaq_error *err) {
    if (want <= *cap) {
        return NOVAQ_OK;
    }
    uint64_t now = *cap + *cap / 2 + 64;
    now = now < want ? want : now;
    NQ_TRY(nq_grow(table, used, now, size, err));
    *cap = now;
    return NOVAQ_OK;
}

static novaq_status add_number(parser *s, numbers *n, uint32_t v, uint64_t max, const char *what,
                               novaq_error *err) {
    if (n->count >= max) {
        return bad(s, what, err);
    }
    NQ_TRY(make_room(&n->v, &n->cap, n->count, n->count + 1, sizeof *n->v, err));
    n->v[n->count++] = v;
    return NOVAQ_OK;
}

static novaq_status push(parser *s, uint32_t node, novaq_error *err) {
    return add_number(s, &s->stack, node, STACK_MAX, "too much on the stack", err);
}

/* The number of a fresh node of this kind. */
static novaq_status add_node(parser *s, uint32_t *out, nq_pickle_kind kind, novaq_error *err) {
    nq_pickle *p = s->p;
    if (p->node_count >= NODES_MAX) {
        return bad(s, "more than 2097152 objects", err);
    }
    NQ_TRY(make_room(&p->nodes, &p->node_cap, p->node_count, p->node_count + 1ULL, sizeof *p->nodes,
                     err));
    *out = p->node_count++;
    p->nodes[*out] = (nq_pickle_node){.kind = kind, .at = (uint32_t)s->op_at};
    return NOVAQ_OK;
}

static novaq_status push_new(parser *s, nq_pickle_kind kind, int64_t integer, novaq_error *err) {
    uint32_t n = 0;
    NQ_TRY(add_node(s, &n, kind, err));
    s->p->nodes[n].u.integer = integer;
    return push(s, n, err);
}

/* ---- the stack ------------------------------------------------------------ */

static uint64_t floor_of(const parser *s) {
    return s->marks.count == 0 ? 0 : s->marks.v[s->marks.count - 1];
}

/* The number on top, which stays there. */
static novaq_status top(parser *s, uint32_t *out, novaq_error *err) {
    if (s->stack.count <= floor_of(s)) {
        return bad(s, "takes from an empty stack", err);
    }
    *out = s->stack.v[s->stack.count - 1];
    return NOVAQ_OK;
}

static novaq_status pop(parser *s, uint32_t *out, novaq_error *err) {
    NQ_TRY(top(s, out, err));
    s->stack.count--;
    return NOVAQ_OK;
}

/* Drops the newest mark; *first: the height it marked, above which the items
 * lie that the caller must take off. */
static novaq_status pop_mark(parser *s, uint64_t *first, novaq_error *err) {
    if (s->marks.count == 0) {
        return bad(s, "wants a mark where none is", err);
    }
    *first = s->marks.v[--s->marks.count];
    return NOVAQ_OK;
}

/* ---- containers ----------------------------------------------------------- */

/* Appends count numbers to a container. What does not fit moves to the end of
 * the common table, with room to double. */
static novaq_status append(parser *s, uint32_t node, const uint32_t *v, uint64_t count,
                           novaq_error *err) {
    nq_pickle *p = s->p;
    nq_pickle_node *n = &p->nodes[node];
    uint64_t total = n->count + count;
    if (total > n->room) {
        uint64_t room = n->count == 0 ? total : total * 2;
        if (room > ITEMS_MAX - p->item_count) {
            return bad(s, "more than 16777216 items", err);
        }
        NQ_TRY(make_room(&p->items, &p->item_cap, p->item_count, p->item_count + room,
                         sizeof *p->items, err));
        if (n->count > 0) {
            memcpy(p->items + p->item_count, p->items + n->u.first, n->count * sizeof *p->items);
        }
        n->u.first = p->item_count;
        n->room = (uint32_t)room;
        p->item_count += room;
    }
    if (count > 0) {
        memcpy(p->items + n->u.first + n->count, v, count * sizeof *v);
    }
    n->count = (uint32_t)total;
    return NOVAQ_OK;
}

/* The newest count numbers become one container. */
static novaq_status gather(parser *s, nq_pickle_kind kind, uint64_t count, novaq_error *err) {
    uint32_t n = 0;
    if (count > s->stack.count - floor_of(s)) {
        return bad(s, "takes from an empty stack", err);
    }
    NQ_TRY(add_node(s, &n, kind, err));
    s->stack.count -= count;
    NQ_TRY(append(s, n, s->stack.v + s->stack.count, count, err));
    return push(s, n, err);
}

static novaq_status gather_marked(parser *s, nq_pickle_kind kind, novaq_error *err) {
    uint64_t first = 0;
    NQ_TRY(pop_mark(s, &first, err));
    return gather(s, kind, s->stack.count - first, err);
}

/* The items above `first` go into the list or dict below them. */
static novaq_status extend(parser *s, uint64_t first, nq_pickle_kind kind, novaq_error *err) {
    uint64_t count = s->stack.count - first;
    uint32_t target = 0;
    s->stack.count = first;
    NQ_TRY(top(s, &target, err));
    if (s->p->nodes[target].kind != kind) {
        return bad(s,
                   kind == NQ_PICKLE_K_DICT ? "sets an item of what is no dict"
                                            : "appends to what is no list",
                   err);
    }
    if (kind == NQ_PICKLE_K_DICT && count % 2 != 0) {
        return bad(s, "a key without a value", err);
    }
    return append(s, target, s->stack.v + first, count, err);
}

static novaq_status extend_marked(parser *s, nq_pickle_kind kind, novaq_error *err) {
    uint64_t first = 0;
    NQ_TRY(pop_mark(s, &first, err));
    return extend(s, first, kind, err);
}

static novaq_status extend_by(parser *s, uint64_t count, nq_pickle_kind kind, novaq_error *err) {
    if (count > s->stack.count - floor_of(s)) {
        return bad(s, "takes from an empty stack", err);
    }
    return extend(s, s->stack.count - count, kind, err);
}

/* ---- memo ----------------------------------------------------------------- */

static novaq_status memo_put(parser *s, uint64_t index, novaq_error *err) {
    uint32_t n = 0;
    NQ_TRY(top(s, &n, err));
    if (index >= s->len) { /* each entry takes bytes of the pickle to set */
        return bad(s, "a memo index larger than the pickle", err);
    }
    NQ_TRY(make_room(&s->memo.v, &s->memo.cap, s->memo.count, index + 1, sizeof *s->memo.v, err));
    s->memo.count = index + 1 > s->memo.count ? index + 1 : s->memo.count;
    s->memos += s->memo.v[index] == 0 ? 1 : 0;
    s->memo.v[index] = n + 1;
    return NOVAQ_OK;
}

static novaq_status memo_get(parser *s, uint64_t index, novaq_error *err) {
    if (index >= s->memo.count || s->memo.v[index] == 0) {
        return bad(s, "asks the memo for what was never put there", err);
    }
    return push(s, s->memo.v[index] - 1, err);
}

/* ---- names and calls ------------------------------------------------------ */

static novaq_status push_name(parser *s, const char *module, const char *name, novaq_error *err) {
    for (size_t i = 0; i < s->name_count; i++) {
        if (strcmp(module, s->names[i].module) == 0 && strcmp(name, s->names[i].name) == 0) {
            return push_new(s, NQ_PICKLE_K_GLOBAL, (int64_t)i, err);
        }
    }
    return nq_fail(err, NOVAQ_E_UNSUPPORTED,
                   "%s: offset %llu: pickle asks for \"%.100s.%.100s\", which a file of tensors "
                   "does not need; nothing was executed (save model.state_dict() alone, or "
                   "convert to SafeTensors where the file is trusted)",
                   s->file, (unsigned long long)(s->base + s->op_at), module, name);
}

static novaq_status op_global(parser *s, novaq_error *err) {
    char module[NAME_BYTES + 1];
    char name[NAME_BYTES + 1];
    NQ_TRY(take_line(s, module, err));
    NQ_TRY(take_line(s, name, err));
    return push_name(s, module, name, err);
}

static novaq_status pop_text(parser *s, char out[NAME_BYTES + 1], novaq_error *err) {
    uint32_t n = 0;
    NQ_TRY(pop(s, &n, err));
    const nq_pickle_node *node = &s->p->nodes[n];
    if (node->kind != NQ_PICKLE_K_TEXT || node->count > NAME_BYTES) {
        return bad(s, "a name that is no short text", err);
    }
    memcpy(out, node->u.text, node->count);
    out[node->count] = '\0';
    return NOVAQ_OK;
}

static novaq_status op_stack_global(parser *s, novaq_error *err) {
    char module[NAME_BYTES + 1];
    char name[NAME_BYTES + 1];
    NQ_TRY(pop_text(s, name, err));
    NQ_TRY(pop_text(s, module, err));
    return push_name(s, module, name, err);
}

/* A dict of the pairs in the first argument, as Python 2 wrote OrderedDict. */
static novaq_status call_dict(parser *s, const nq_pickle_node *args, novaq_error *err) {
    uint32_t d = 0;
    nq_pickle *p = s->p;
    uint32_t pairs = args->count == 0 ? NODE_EMPTY : nq_pickle_item(p, args, 0);
    uint32_t count = p->nodes[pairs].count;
    if (args->count > 1 || (p->nodes[pairs].kind != NQ_PICKLE_K_LIST && pairs != NODE_EMPTY)) {
        return bad(s, "a dict made of what is no list of pairs", err);
    }
    NQ_TRY(add_node(s, &d, NQ_PICKLE_K_DICT, err));
    for (uint32_t i = 0; i < count; i++) {
        const nq_pickle_node *pair = &p->nodes[nq_pickle_item(p, &p->nodes[pairs], i)];
        if ((pair->kind != NQ_PICKLE_K_LIST && pair->kind != NQ_PICKLE_K_TUPLE) ||
            pair->count != 2) {
            return bad(s, "a dict made of what is no list of pairs", err);
        }
        const uint32_t two[2] = {nq_pickle_item(p, pair, 0), nq_pickle_item(p, pair, 1)};
        NQ_TRY(append(s, d, two, 2, err));
    }
    return push(s, d, err);
}

/* REDUCE, and NEWOBJ which is the same here. */
static novaq_status op_call(parser *s, novaq_error *err) {
    uint32_t args = 0;
    uint32_t callee = 0;
    NQ_TRY(pop(s, &args, err));
    NQ_TRY(pop(s, &callee, err));
    const nq_pickle_node *a = &s->p->nodes[args];
    const nq_pickle_node *f = &s->p->nodes[callee];
    if (f->kind != NQ_PICKLE_K_GLOBAL || a->kind != NQ_PICKLE_K_TUPLE) {
        return bad(s, "calls what is no function, or with no arguments", err);
    }
    switch (s->names[f->u.integer].effect) {
    case NQ_PICKLE_CALL:
        NQ_TRY(push(s, callee, err));
        NQ_TRY(push(s, args, err));
        return gather(s, NQ_PICKLE_K_CALL, 2, err);
    case NQ_PICKLE_DICT: return call_dict(s, a, err);
    case NQ_PICKLE_SAME:
        if (a->count == 0) {
            return bad(s, "a call without the argument it needs", err);
        }
        return push(s, nq_pickle_item(s->p, a, 0), err);
    case NQ_PICKLE_VAGUE: return push(s, NODE_OTHER, err);
    case NQ_PICKLE_NAME: break;
    }
    return nq_fail(err, NOVAQ_E_FORMAT, "%s: offset %llu: pickle: \"%s.%s\" is no function",
                   s->file, (unsigned long long)(s->base + s->op_at), s->names[f->u.integer].module,
                   s->names[f->u.integer].name);
}

/* Attributes of an OrderedDict (torch keeps versions there): dropped. */
static novaq_status op_build(parser *s, novaq_error *err) {
    uint32_t state = 0;
    uint32_t target = 0;
    NQ_TRY(pop(s, &state, err));
    NQ_TRY(top(s, &target, err));
    return s->p->nodes[target].kind == NQ_PICKLE_K_DICT
               ? NOVAQ_OK
               : bad(s, "sets attributes of what is no dict", err);
}

/* ---- plain values --------------------------------------------------------- */

/* Text or bytes whose length has width bytes. */
static novaq_status op_text(parser *s, unsigned width, bool text, novaq_error *err) {
    uint64_t n = 0;
    const uint8_t *p = NULL;
    NQ_TRY(take_number(s, &n, width, err));
    NQ_TRY(take(s, &p, n, err));
    if (!text) {
        return push(s, NODE_OTHER, err);
    }
    NQ_TRY(push_new(s, NQ_PICKLE_K_TEXT, 0, err));
    nq_pickle_node *node = &s->p->nodes[s->p->node_count - 1];
    node->u.text = (const char *)p;
    node->count = (uint32_t)n;
    return NOVAQ_OK;
}

static novaq_status op_int(parser *s, unsigned width, novaq_error *err) {
    uint64_t v = 0;
    NQ_TRY(take_number(s, &v, width, err));
    /* Only the four-byte form has a sign. */
    return push_new(s, NQ_PICKLE_K_INT, width == 4 ? (int32_t)(uint32_t)v : (int64_t)v, err);
}

/* Two's complement of any length; more than 64 bits is no size of anything. */
static novaq_status op_long(parser *s, novaq_error *err) {
    uint64_t n = 0;
    const uint8_t *p = NULL;
    NQ_TRY(take_number(s, &n, 1, err));
    NQ_TRY(take(s, &p, n, err));
    if (n > 8) {
        return push(s, NODE_OTHER, err);
    }
    uint64_t v = n > 0 && (p[n - 1] & 0x80U) != 0 ? UINT64_MAX : 0;
    for (uint64_t i = n; i > 0; i--) {
        v = v << 8 | p[i - 1];
    }
    return push_new(s, NQ_PICKLE_K_INT, (int64_t)v, err);
}

static novaq_status op_skip(parser *s, uint64_t n, uint32_t node, novaq_error *err) {
    const uint8_t *p = NULL;
    NQ_TRY(take(s, &p, n, err));
    return node == NODES_FIXED ? NOVAQ_OK : push(s, node, err);
}

static novaq_status op_indexed(parser *s, unsigned width, bool get, novaq_error *err) {
    uint64_t i = 0;
    NQ_TRY(take_number(s, &i, width, err));
    return get ? memo_get(s, i, err) : memo_put(s, i, err);
}

static novaq_status op_mark(parser *s, novaq_error *err) {
    return add_number(s, &s->marks, (uint32_t)s->stack.count, MARKS_MAX,
                      "more than 1000 open marks", err);
}

static novaq_status op_add_items(parser *s, novaq_error *err) {
    uint64_t first = 0;
    uint32_t set = 0;
    NQ_TRY(pop_mark(s, &first, err));
    s->stack.count = first;
    NQ_TRY(top(s, &set, err));
    return set == NODE_OTHER ? NOVAQ_OK : bad(s, "adds to what is no set", err);
}

/* ---- the loop ------------------------------------------------------------- */

static novaq_status refuse(const parser *s, uint8_t op, novaq_error *err) {
    bool known =
        (op != 0 && op < 0x80 && strchr(OLD_OPCODES, op) != NULL) || (op > 0x80 && op <= 0x98);
    return nq_fail(err, known ? NOVAQ_E_UNSUPPORTED : NOVAQ_E_FORMAT,
                   "%s: offset %llu: pickle opcode 0x%02x %s", s->file,
                   (unsigned long long)(s->base + s->op_at), (unsigned)op,
                   known ? "is none that torch.save writes: not read" : "does not exist");
}

/* Opcodes of protocols 3 to 5, which torch.save(pickle_protocol=) can write. */
static novaq_status step_new(parser *s, uint8_t op, novaq_error *err) {
    switch (op) {
    case 0x85: return gather(s, NQ_PICKLE_K_TUPLE, 1, err);
    case 0x86: return gather(s, NQ_PICKLE_K_TUPLE, 2, err);
    case 0x87: return gather(s, NQ_PICKLE_K_TUPLE, 3, err);
    case 0x88: return push(s, NODE_TRUE, err);
    case 0x89: return push(s, NODE_FALSE, err);
    case 0x81: return op_call(s, err); /* NEWOBJ */
    case 0x8a: return op_long(s, err);
    case 0x8c: return op_text(s, 1, true, err);
    case 0x8d: return op_text(s, 8, true, err);
    case 0x8f: return push(s, NODE_OTHER, err); /* EMPTY_SET */
    case 0x90: return op_add_items(s, err);
    case 0x93: return op_stack_global(s, err);
    case 0x94: return memo_put(s, s->memos, err);      /* MEMOIZE */
    case 0x95: return op_skip(s, 8, NODES_FIXED, err); /* FRAME */
    default: return refuse(s, op, err);
    }
}

static novaq_status step(parser *s, uint8_t op, novaq_error *err) {
    switch (op) {
    case 'N': return push(s, NODE_NONE, err);
    case ')': return push(s, NODE_EMPTY, err);
    case '(': return op_mark(s, err);
    case 't': return gather_marked(s, NQ_PICKLE_K_TUPLE, err);
    case ']': return push_new(s, NQ_PICKLE_K_LIST, 0, err);
    case '}': return push_new(s, NQ_PICKLE_K_DICT, 0, err);
    case 'a': return extend_by(s, 1, NQ_PICKLE_K_LIST, err);
    case 'e': return extend_marked(s, NQ_PICKLE_K_LIST, err);
    case 's': return extend_by(s, 2, NQ_PICKLE_K_DICT, err);
    case 'u': return extend_marked(s, NQ_PICKLE_K_DICT, err);
    case 'J': return op_int(s, 4, err);
    case 'K': return op_int(s, 1, err);
    case 'M': return op_int(s, 2, err);
    case 'G': return op_skip(s, 8, NODE_OTHER, err); /* BINFLOAT */
    case 'X': return op_text(s, 4, true, err);
    case 'U': return op_text(s, 1, true, err); /* SHORT_BINSTRING: text of Python 2 */
    case 'T': return op_text(s, 4, true, err); /* BINSTRING */
    case 'B': return op_text(s, 4, false, err);
    case 'C': return op_text(s, 1, false, err);
    case 'q': return op_indexed(s, 1, false, err);
    case 'r': return op_indexed(s, 4, false, err);
    case 'h': return op_indexed(s, 1, true, err);
    case 'j': return op_indexed(s, 4, true, err);
    case 'c': return op_global(s, err);
    case 'R': return op_call(s, err);
    case 'b': return op_build(s, err);
    case 'Q': return gather(s, NQ_PICKLE_K_PERSISTENT, 1, err);
    default: return step_new(s, op, err);
    }
}

static novaq_status add_fixed(parser *s, novaq_error *err) {
    static const nq_pickle_kind kinds[NODES_FIXED] = {
        [NODE_NONE] = NQ_PICKLE_K_NONE,   [NODE_FALSE] = NQ_PICKLE_K_BOOL,
        [NODE_TRUE] = NQ_PICKLE_K_BOOL,   [NODE_EMPTY] = NQ_PICKLE_K_TUPLE,
        [NODE_OTHER] = NQ_PICKLE_K_OTHER,
    };
    for (uint32_t i = 0; i < NODES_FIXED; i++) {
        uint32_t n = 0;
        NQ_TRY(add_node(s, &n, kinds[i], err));
    }
    s->p->nodes[NODE_TRUE].u.integer = 1;
    return NOVAQ_OK;
}

static novaq_status run(parser *s, novaq_error *err) {
    const uint8_t *op = NULL;
    uint64_t protocol = 0;
    NQ_TRY(add_fixed(s, err));
    NQ_TRY(take(s, &op, 1, err));
    if (*op != 0x80) {
        return bad(s, "does not begin with a protocol (2 or later)", err);
    }
    NQ_TRY(take_number(s, &protocol, 1, err));
    if (protocol < 2 || protocol > 5) {
        return nq_fail(err, NOVAQ_E_UNSUPPORTED, "%s: offset %llu: pickle protocol %llu", s->file,
                       (unsigned long long)s->base, (unsigned long long)protocol);
    }
    for (;;) {
        s->op_at = s->pos;
        NQ_TRY(take(s, &op, 1, err));
        if (*op == '.') {
            break;
        }
        NQ_TRY(step(s, *op, err));
    }
    if (s->marks.count != 0 || s->stack.count != 1) {
        return bad(s, "stops with other than one object", err);
    }
    s->p->root = s->stack.v[0];
    s->p->used = s->pos;
    return NOVAQ_OK;
}

novaq_status nq_pickle_parse(nq_pickle *out, const char *file, const uint8_t *data, uint64_t len,
                             uint64_t base, const nq_pickle_name *names, size_t name_count,
                             novaq_error *err) {
    *out = (nq_pickle){.nodes = NULL};
    parser s = {.p = out,
                .file = file,
                .data = data,
                .len = len < NQ_PICKLE_MAX ? len : NQ_PICKLE_MAX,
                .base = base,
                .names = names,
                .name_count = name_count};
    novaq_status st = run(&s, err);
    nq_free(s.stack.v);
    nq_free(s.marks.v);
    nq_free(s.memo.v);
    if (st != NOVAQ_OK) {
        bool cut = out->cut;
        nq_pickle_free(out);
        out->cut = cut;
    }
    return st;
}

void nq_pickle_free(nq_pickle *p) {
    nq_free(p->nodes);
    nq_free(p->items);
    *p = (nq_pickle){.nodes = NULL};
}
