/* pickle.h - a Python pickle read as data.
 *
 * Owns: the opcodes that torch.save() writes (protocols 2 to 5) and their limits.
 * Nothing is imported, called or constructed: a GLOBAL is a string looked up in
 * the caller's table, a call of it becomes a node that says so. Refuses: every
 * name outside the table, every other opcode, depth by recursion (containers
 * refer to each other by number and may do so in circles: whoever walks them
 * must count).
 */
#ifndef NQ_FORMAT_PICKLE_H
#define NQ_FORMAT_PICKLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

#define NQ_PICKLE_MAX ((uint64_t)64 << 20) /* bytes of one pickle */

/* What comes of calling a name. */
typedef enum nq_pickle_effect {
    NQ_PICKLE_NAME, /* it cannot be called */
    NQ_PICKLE_CALL, /* a node NQ_PICKLE_K_CALL */
    NQ_PICKLE_DICT, /* a dict of the pairs in its argument, if there is one */
    NQ_PICKLE_SAME, /* its first argument */
    NQ_PICKLE_VAGUE /* something nobody looks at */
} nq_pickle_effect;

typedef struct nq_pickle_name {
    const char *module;
    const char *name;
    nq_pickle_effect effect;
} nq_pickle_name;

typedef enum nq_pickle_kind {
    NQ_PICKLE_K_NONE,
    NQ_PICKLE_K_BOOL,
    NQ_PICKLE_K_INT,   /* of 64 bits */
    NQ_PICKLE_K_OTHER, /* float, long integer, set, bytes: there, not kept */
    NQ_PICKLE_K_TEXT,
    NQ_PICKLE_K_TUPLE,
    NQ_PICKLE_K_LIST,
    NQ_PICKLE_K_DICT,      /* items: key, value, key, value ... */
    NQ_PICKLE_K_GLOBAL,    /* integer: which name of the table */
    NQ_PICKLE_K_CALL,      /* items: the global, the tuple of arguments */
    NQ_PICKLE_K_PERSISTENT /* item: what identifies it */
} nq_pickle_kind;

typedef struct nq_pickle_node {
    nq_pickle_kind kind;
    uint32_t at;    /* where in the pickle it was made */
    uint32_t count; /* bytes of text, or items */
    uint32_t room;  /* items that fit without moving */
    union {
        int64_t integer;  /* BOOL, INT, GLOBAL */
        const char *text; /* borrowed from the pickle, not NUL-terminated */
        uint64_t first;   /* item, in nq_pickle.items */
    } u;
} nq_pickle_node;

typedef struct nq_pickle {
    nq_pickle_node *nodes;
    uint32_t *items; /* numbers of nodes */
    uint32_t root;
    uint64_t used; /* bytes of the pickle, its STOP included */
    uint32_t node_count;
    uint64_t item_count;
    uint64_t node_cap;
    uint64_t item_cap;
    bool cut; /* failed because the bytes ended before the pickle did */
} nq_pickle;

/* One pickle from data[0..len), which stays borrowed; base: its offset in the
 * file. names: what GLOBAL may say. On failure *out holds `cut` alone. */
NOVAQ_CHECK novaq_status nq_pickle_parse(nq_pickle *out, const char *file, const uint8_t *data,
                                         uint64_t len, uint64_t base, const nq_pickle_name *names,
                                         size_t name_count, novaq_error *err);
void nq_pickle_free(nq_pickle *p);

/* Number of the i-th item of a container; i below its count. */
static inline uint32_t nq_pickle_item(const nq_pickle *p, const nq_pickle_node *n, uint32_t i) {
    return p->items[n->u.first + i];
}

#endif
