/* tensors_ahead.h - byte ranges fetched in a given order while others are at work.
 *
 * Owns: the thread, the memory it fills and its bound, waiting for a range. Refuses:
 * knowing tensors: a range has a key, which tensors.h's functions make of one. Private
 * to format/.
 */
#ifndef NQ_FORMAT_TENSORS_AHEAD_H
#define NQ_FORMAT_TENSORS_AHEAD_H

#include "io/source.h"

typedef struct nq_ahead nq_ahead;

typedef struct nq_ahead_item {
    nq_source *src; /* borrowed */
    uint64_t begin; /* bytes [begin, end) of it */
    uint64_t end;
    uint32_t key; /* several items may have the same: later ones count once earlier ones
                     are released */
    bool more;    /* a slice: the next item of the same key goes on with it */
    bool direct;  /* not fetched, but left to its reader, whom nothing overtakes */
} nq_ahead_item;

/* Judges the bytes of an item once they are there (by the thread that fetched them). */
typedef novaq_status (*nq_ahead_check)(void *ctx, const nq_ahead_item *item, const uint8_t *data,
                                       novaq_error *err);

typedef struct nq_ahead_plan {
    const nq_ahead_item *items; /* in the order to fetch; copied */
    size_t count;
    size_t keys;          /* all keys are below */
    uint64_t limit;       /* bytes held, at most; or one item that is larger */
    bool keep;            /* everything stays until the end: releasing does nothing */
    nq_ahead_check check; /* may be NULL */
    void *ctx;            /* of check */
} nq_ahead_plan;

/* Asked while waiting, see nq_tensors_on_wait(). */
typedef struct nq_ahead_tick {
    novaq_status (*fn)(void *ctx, novaq_error *err); /* may be NULL */
    void *ctx;
} nq_ahead_tick;

/* Bytes that stay where they are until nq_ahead_give(). */
typedef struct nq_ahead_bytes {
    const uint8_t *data; /* NULL: not kept here, to be read directly ... */
    uint64_t begin;      /* as in the item */
    uint64_t end;        /* ... up to where the next slice begins, or UINT64_MAX */
    size_t entry;        /* the callee's */
} nq_ahead_bytes;

NOVAQ_CHECK novaq_status nq_ahead_open(nq_ahead **out, const nq_ahead_plan *plan, novaq_error *err);
/* Nobody may be waiting or hold bytes. Returns when the running read of at most a
 * mebibyte is over. */
void nq_ahead_close(nq_ahead **a);

/* Waits for the item of a key in which byte `at` of its source is. A failure of the thread
 * is reported once; after it the bytes are to be read directly. *ended: the failure is the
 * tick's. Thread-safe, as are the next two. */
NOVAQ_CHECK novaq_status nq_ahead_take(nq_ahead_bytes *out, nq_ahead *a, uint32_t key, uint64_t at,
                                       nq_ahead_tick tick, bool *ended, novaq_error *err);
/* upto: where reading ended. A slice that was read to its end makes room for the next;
 * but the last one of a key stays until it is released, as whole items do. */
void nq_ahead_give(nq_ahead *a, const nq_ahead_bytes *b, uint64_t upto);
/* The bytes of a key, all of its slices, are not wanted again. */
void nq_ahead_release(nq_ahead *a, uint32_t key);
/* Bytes in memory now. */
uint64_t nq_ahead_held(nq_ahead *a);

#endif
