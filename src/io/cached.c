/* cached.c - see cached.h. */
#include "io/cached.h"

#include <string.h>

#include "base/mem.h"

#define BLOCK    ((uint64_t)1 << 12)
#define SLOTS    1536U                 /* 6 MiB of blocks */
#define AT_ONCE  ((uint64_t)1 << 8)    /* blocks fetched by one request, at most */
#define STRAIGHT ((uint64_t)256 << 10) /* bytes missing from which a read is passed on */
#define NOTHING  UINT64_MAX

typedef struct slot {
    uint64_t block; /* number, NOTHING: empty */
    uint64_t used;  /* when, by the clock of the cache */
} slot;

typedef struct cached {
    nq_source base; /* first, so that the pointers convert */
    nq_source *over;
    uint8_t *data;  /* (SLOTS, BLOCK) */
    uint8_t *fresh; /* (AT_ONCE, BLOCK) */
    slot *slots;
    uint64_t clock;
    uint64_t next; /* block behind the last one fetched */
    uint64_t last; /* blocks fetched last time */
    uint64_t expect_at;
    uint64_t expect_end;
} cached;

static slot *find(cached *c, uint64_t block) {
    for (size_t i = 0; i < SLOTS; i++) {
        if (c->slots[i].block == block) {
            return &c->slots[i];
        }
    }
    return NULL;
}

static uint8_t *bytes_of(const cached *c, const slot *s) {
    return c->data + (uint64_t)(s - c->slots) * BLOCK;
}

static slot *oldest(cached *c) {
    slot *s = &c->slots[0];
    for (size_t i = 1; i < SLOTS; i++) {
        s = c->slots[i].used < s->used ? &c->slots[i] : s;
    }
    return s;
}

/* How many blocks to fetch at `block`, of which `need` are asked for and missing. */
static uint64_t amount(cached *c, uint64_t block, uint64_t need) {
    uint64_t n = need;
    uint64_t at = block * BLOCK;
    if (at < c->expect_end && at + BLOCK > c->expect_at) {
        uint64_t end = (c->expect_end + BLOCK - 1) / BLOCK;
        n = end - block > n ? end - block : n;
    } else if (block == c->next && c->last * 2 > n) {
        n = c->last * 2;
    }
    n = n < AT_ONCE ? n : AT_ONCE;
    uint64_t all = (c->over->size + BLOCK - 1) / BLOCK;
    n = n < all - block ? n : all - block;
    for (uint64_t i = need; i < n; i++) {
        if (find(c, block + i) != NULL) {
            return i;
        }
    }
    return n;
}

static novaq_status fetch(cached *c, uint64_t block, uint64_t need, novaq_error *err) {
    uint64_t n = amount(c, block, need);
    uint64_t left = c->over->size - block * BLOCK;
    NQ_TRY(
        nq_source_read(c->over, block * BLOCK, c->fresh, left < n * BLOCK ? left : n * BLOCK, err));
    for (uint64_t i = 0; i < n; i++) {
        slot *s = oldest(c);
        *s = (slot){block + i, ++c->clock};
        memcpy(bytes_of(c, s), c->fresh + i * BLOCK, BLOCK);
    }
    c->next = block + n;
    c->last = n;
    return NOVAQ_OK;
}

/* Blocks from `block` to `last` that are not there, up to the first that is. */
static uint64_t missing(cached *c, uint64_t block, uint64_t last) {
    uint64_t n = 1;
    while (block + n <= last && find(c, block + n) == NULL) {
        n++;
    }
    return n;
}

static novaq_status cached_read_at(nq_source *src, uint64_t offset, void *dst, uint64_t len,
                                   novaq_error *err) {
    cached *c = (cached *)src;
    uint8_t *p = dst;
    while (len > 0) {
        uint64_t block = offset / BLOCK;
        slot *s = find(c, block);
        uint64_t now = BLOCK - offset % BLOCK;
        if (s == NULL) {
            uint64_t run = missing(c, block, (offset + len - 1) / BLOCK);
            if (run * BLOCK < STRAIGHT) {
                NQ_TRY(fetch(c, block, run, err));
                continue;
            }
            now += (run - 1) * BLOCK;
            now = now < len ? now : len;
            NQ_TRY(nq_source_read(c->over, offset, p, now, err));
        } else {
            now = now < len ? now : len;
            s->used = ++c->clock;
            memcpy(p, bytes_of(c, s) + offset % BLOCK, now);
        }
        p += now;
        offset += now;
        len -= now;
    }
    return NOVAQ_OK;
}

static void cached_expect(nq_source *src, uint64_t offset, uint64_t len) {
    cached *c = (cached *)src;
    c->expect_at = offset;
    c->expect_end = offset + len;
}

static void cached_close(nq_source *src) {
    cached *c = (cached *)src;
    nq_free(c->data);
    nq_free(c->fresh);
    nq_free(c->slots);
    nq_free(c->base.name);
    nq_free(c);
}

static const nq_source_vtable cached_vtable = {cached_read_at, cached_close, cached_expect};

novaq_status nq_cached_open(nq_source **out, nq_source *over, novaq_error *err) {
    *out = NULL;
    cached *c = NULL;
    NQ_TRY(nq_alloc(&c, 1, sizeof *c, err));
    *c = (cached){.base = {.vt = &cached_vtable, .size = over->size, .remote = over->remote},
                  .over = over,
                  .next = NOTHING};
    novaq_status st = nq_strdup(&c->base.name, over->name, err);
    if (st == NOVAQ_OK) {
        st = nq_alloc_raw(&c->data, SLOTS, BLOCK, err);
    }
    if (st == NOVAQ_OK) {
        st = nq_alloc_raw(&c->fresh, AT_ONCE, BLOCK, err);
    }
    if (st == NOVAQ_OK) {
        st = nq_alloc(&c->slots, SLOTS, sizeof *c->slots, err);
    }
    if (st != NOVAQ_OK) {
        cached_close(&c->base);
        return st;
    }
    for (size_t i = 0; i < SLOTS; i++) {
        c->slots[i].block = NOTHING;
    }
    *out = &c->base;
    return NOVAQ_OK;
}
