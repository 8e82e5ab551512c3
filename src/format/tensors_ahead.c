/* tensors_ahead.c - see tensors_ahead.h.
 *
 * What is in memory or on its way never exceeds the limit, with two exceptions: a single
 * range that is larger, and ranges that readers wait for while all of the memory is in
 * the hands of readers. So nobody ever waits for something that waits for them: for a
 * range that is asked for, those fetched ahead but not yet read make room (and are
 * fetched again in their turn).
 */
#include "format/tensors_ahead.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "base/mem.h"
#include "base/wait.h"

#define NONE       UINT32_MAX
#define PIECE      ((uint64_t)1 << 20)   /* bytes read between two looks at `stop` */
#define GAP_MAX    ((uint64_t)256 << 10) /* bytes worth fetching to keep one request */
#define WINDOW_MAX ((uint64_t)1 << 30)   /* bytes of one announcement */

typedef enum phase {
    WAITING,
    PASSED_OVER, /* fetched only if somebody asks */
    DIRECT,      /* never fetched; what is behind waits until it is released */
    FETCHING,
    READY,
    FAILED,
    GONE /* released, or reported as failed */
} phase;

typedef struct block { /* may serve several entries of one range */
    uint8_t *data;
    uint64_t bytes;
    uint32_t users;
} block;

typedef struct entry {
    nq_ahead_item item;
    phase phase;
    block *block;
    uint32_t next;   /* the next of the same key, or NONE */
    uint32_t pins;   /* readers that hold bytes */
    uint32_t wanted; /* readers that wait */
    bool read;       /* by anybody so far */
    novaq_status failed;
    char *says; /* why, if there was memory to note it */
} entry;

struct nq_ahead {
    pthread_t thread;
    pthread_mutex_t lock; /* of all below */
    pthread_cond_t work;  /* the thread may have something to do */
    pthread_cond_t done;  /* a range is there, or failed */
    entry *entries;
    uint32_t count;
    uint32_t *current; /* (keys) the first entry of a key that is not GONE, or NONE */
    uint64_t held;     /* bytes of all blocks, and of the one on its way */
    uint64_t limit;
    uint32_t cursor;  /* no entry before it is WAITING */
    uint32_t front;   /* the last entry that was released */
    uint32_t waiting; /* readers that wait for anything */
    bool keep;
    bool sick; /* the last range failed: only what is asked for is fetched */
    nq_ahead_check check;
    void *ctx;
    nq_source *window_src; /* what was announced last; only the thread looks here */
    uint64_t window_at;
    uint64_t window_end;
    bool started;
    atomic_bool stop;
};

/* ---- memory --------------------------------------------------------------- */

static uint64_t size_of(const entry *e) { return e->item.end - e->item.begin; }

static void drop_block(nq_ahead *a, entry *e) {
    block *b = e->block;
    e->block = NULL;
    if (b == NULL || --b->users > 0) {
        return;
    }
    a->held -= b->bytes;
    nq_pages_free(b->data, b->bytes);
    nq_free(b);
}

/* The entry counts no more; its bytes go when nobody holds them. */
static void retire(nq_ahead *a, uint32_t i) {
    entry *e = &a->entries[i];
    e->phase = GONE;
    if (e->pins == 0) {
        drop_block(a, e);
    }
    uint32_t *at = &a->current[e->item.key];
    while (*at != NONE && a->entries[*at].phase == GONE) {
        *at = a->entries[*at].next;
    }
}

/* Still to be fetched. */
static bool is_due(const entry *e) { return e->phase == WAITING || e->phase == PASSED_OVER; }

/* In memory for nothing at present. */
static bool is_idle(const entry *e) {
    return e->phase == READY && !e->read && e->pins == 0 && e->wanted == 0;
}

static bool fits(const nq_ahead *a, uint64_t bytes) {
    return a->held == 0 || (a->held <= a->limit && bytes <= a->limit - a->held);
}

/* Makes room at the cost of what was passed over: fetched, never read, and something
 * behind it is done with already. */
static bool drop_passed_over(nq_ahead *a, uint64_t bytes) {
    for (uint32_t i = 0; i < a->front && !fits(a, bytes); i++) {
        entry *e = &a->entries[i];
        if (is_idle(e)) {
            drop_block(a, e);
            e->phase = PASSED_OVER;
        }
    }
    return fits(a, bytes);
}

/* Makes room at the cost of what would be needed last. */
static void put_back(nq_ahead *a, uint32_t wanted, uint64_t bytes) {
    for (uint32_t i = a->count; i-- > 0 && !fits(a, bytes);) {
        entry *e = &a->entries[i];
        if (i != wanted && is_idle(e)) {
            drop_block(a, e);
            e->phase = WAITING;
            a->cursor = i < a->cursor ? i : a->cursor;
        }
    }
}

/* ---- the thread ------------------------------------------------------------- */

static uint32_t first_wanted(const nq_ahead *a) {
    for (uint32_t i = 0; a->waiting > 0 && i < a->count; i++) {
        if (is_due(&a->entries[i]) && a->entries[i].wanted > 0) {
            return i;
        }
    }
    return NONE;
}

/* Nothing to fetch in order, nor to wait for. */
static bool is_behind(const nq_ahead *a, uint32_t i) {
    phase p = a->entries[i].phase;
    return p != WAITING && (p != DIRECT || i < a->front);
}

/* What to fetch now, with room for it, or NONE. */
static uint32_t pick(nq_ahead *a) {
    uint32_t i = first_wanted(a);
    if (i != NONE) {
        uint64_t bytes = size_of(&a->entries[i]);
        if (!a->keep && !drop_passed_over(a, bytes)) {
            put_back(a, i, bytes);
        }
        return i;
    }
    while (a->cursor < a->count && is_behind(a, a->cursor)) {
        a->cursor++;
    }
    if (a->cursor == a->count || a->sick || a->entries[a->cursor].phase == DIRECT) {
        return NONE;
    }
    uint64_t bytes = size_of(&a->entries[a->cursor]);
    return fits(a, bytes) || drop_passed_over(a, bytes) ? a->cursor : NONE;
}

/* A block in memory of the same range (tied weights), or NULL. */
static block *same_range(const nq_ahead *a, uint32_t i) {
    const nq_ahead_item *m = &a->entries[i].item;
    for (uint32_t k = 0; k < a->count; k++) {
        const entry *e = &a->entries[k];
        if (k != i && e->phase == READY && e->item.src == m->src && e->item.begin == m->begin &&
            e->item.end == m->end) {
            return e->block;
        }
    }
    return NULL;
}

/* Where reading goes straight on from entry i: the end of the last entry that does. */
static uint64_t run_end(const nq_ahead *a, uint32_t i) {
    const nq_ahead_item *first = &a->entries[i].item;
    uint64_t end = first->end;
    for (uint32_t k = i + 1; k < a->count; k++) {
        const nq_ahead_item *m = &a->entries[k].item;
        if (a->entries[k].phase != WAITING) {
            continue;
        }
        if (m->src != first->src || m->begin < first->begin || m->begin > end + GAP_MAX ||
            m->end - first->begin > WINDOW_MAX) {
            break;
        }
        end = m->end > end ? m->end : end;
    }
    return end;
}

/* Up to where to tell the source what comes; 0: not at all. It is told for every item: a
 * reader elsewhere may have told it something else since, and if not it costs nothing. */
static uint64_t announce(nq_ahead *a, uint32_t i) {
    const nq_ahead_item *m = &a->entries[i].item;
    bool known = a->window_src == m->src && m->begin >= a->window_at && m->end <= a->window_end;
    if (!known) {
        a->window_src = m->src;
        a->window_end = run_end(a, i);
    }
    a->window_at = m->end;
    return m->src->remote ? a->window_end : 0;
}

static novaq_status judge(const nq_ahead *a, const nq_ahead_item *m, const uint8_t *data,
                          novaq_error *err) {
    return a->check == NULL ? NOVAQ_OK : a->check(a->ctx, m, data, err);
}

static novaq_status read_block(nq_ahead *a, const nq_ahead_item *m, uint8_t *data,
                               novaq_error *err) {
    for (uint64_t at = m->begin; at < m->end; at += PIECE) {
        if (atomic_load(&a->stop)) {
            return nq_fail(err, NOVAQ_E_INTERRUPTED, "%s: reading ahead was ended", m->src->name);
        }
        uint64_t now = m->end - at < PIECE ? m->end - at : PIECE;
        NQ_TRY(nq_source_read(m->src, at, data + (at - m->begin), now, err));
    }
    return judge(a, m, data, err);
}

/* Without the lock. */
static novaq_status fetch(nq_ahead *a, const nq_ahead_item *m, block **out, novaq_error *err) {
    block *b = NULL;
    *out = NULL;
    NQ_TRY(nq_alloc(&b, 1, sizeof *b, err));
    *b = (block){.bytes = m->end - m->begin, .users = 1};
    novaq_status st = nq_pages(&b->data, b->bytes, err);
    if (st == NOVAQ_OK) {
        st = read_block(a, m, b->data, err);
    }
    if (st != NOVAQ_OK) {
        nq_pages_free(b->data, b->bytes);
        nq_free(b);
        return st;
    }
    *out = b;
    return NOVAQ_OK;
}

static void note_failure(nq_ahead *a, entry *e, novaq_status st, const novaq_error *err) {
    a->sick = true;
    a->window_src = NULL;
    if (e->phase == FETCHING) {
        e->phase = FAILED;
        e->failed = st;
        if (nq_strdup(&e->says, err->msg, NULL) != NOVAQ_OK) {
            e->says = NULL;
        }
    }
}

/* Fetches entry i; the lock is held, but not meanwhile. */
static void work_on(nq_ahead *a, uint32_t i) {
    entry *e = &a->entries[i];
    nq_ahead_item m = e->item;
    block *shared = same_range(a, i);
    block *b = shared;
    uint64_t end = shared != NULL ? 0 : announce(a, i);
    e->phase = FETCHING;
    if (shared != NULL) {
        shared->users++; /* stays while it is judged */
    } else {
        a->held += size_of(e);
    }
    (void)pthread_mutex_unlock(&a->lock);
    novaq_error err = {.code = NOVAQ_OK, .msg = ""};
    if (end > 0) {
        nq_source_expect(m.src, m.begin, end - m.begin);
    }
    novaq_status st = shared != NULL ? judge(a, &m, shared->data, &err) : fetch(a, &m, &b, &err);
    (void)pthread_mutex_lock(&a->lock);
    if (st != NOVAQ_OK) {
        a->held -= shared != NULL ? 0 : size_of(e);
        e->block = shared;
        drop_block(a, e);
        note_failure(a, e, st, &err);
        return;
    }
    a->sick = false;
    e->block = b;
    if (e->phase == FETCHING) {
        e->phase = READY;
    } else { /* released meanwhile */
        drop_block(a, e);
    }
}

static void *run(void *arg) {
    nq_ahead *a = arg;
    (void)pthread_mutex_lock(&a->lock);
    while (!atomic_load(&a->stop)) {
        uint32_t i = pick(a);
        if (i == NONE) {
            (void)pthread_cond_wait(&a->work, &a->lock);
            continue;
        }
        work_on(a, i);
        (void)pthread_cond_broadcast(&a->done);
    }
    (void)pthread_mutex_unlock(&a->lock);
    return NULL;
}

/* ---- readers ---------------------------------------------------------------- */

/* The lock is held, but not while the tick is asked. The entry stays wanted. */
static novaq_status wait_for(nq_ahead *a, entry *e, nq_ahead_tick tick, novaq_error *err) {
    novaq_status st = NOVAQ_OK;
    e->wanted++;
    a->waiting++;
    (void)pthread_cond_signal(&a->work);
    while (st == NOVAQ_OK && (is_due(e) || e->phase == FETCHING)) {
        nq_wait_moment(&a->done, &a->lock);
        if (tick.fn != NULL) {
            (void)pthread_mutex_unlock(&a->lock);
            st = tick.fn(tick.ctx, err);
            (void)pthread_mutex_lock(&a->lock);
        }
    }
    e->wanted--;
    a->waiting--;
    return st;
}

/* The entry of a key that has, or will have, byte `at`; NONE: there is none, and *next is
 * where one begins that is further on. */
static uint32_t find(const nq_ahead *a, uint32_t key, uint64_t at, uint64_t *next) {
    *next = UINT64_MAX;
    for (uint32_t i = a->current[key]; i != NONE; i = a->entries[i].next) {
        const entry *e = &a->entries[i];
        bool there = e->phase != GONE && e->phase != DIRECT;
        if (there && at >= e->item.begin && at < e->item.end) {
            return i;
        }
        if (there && e->item.begin > at && e->item.begin < *next) {
            *next = e->item.begin;
        }
        if (!e->item.more) {
            break;
        }
    }
    return NONE;
}

/* The lock is held. */
static novaq_status take(nq_ahead_bytes *out, nq_ahead *a, uint32_t key, uint64_t at,
                         nq_ahead_tick tick, bool *ended, novaq_error *err) {
    for (;;) {
        uint32_t i = find(a, key, at, &out->end);
        if (i == NONE) {
            return NOVAQ_OK;
        }
        entry *e = &a->entries[i];
        if (e->phase == READY) {
            e->pins++;
            e->read = true;
            *out = (nq_ahead_bytes){e->block->data, e->item.begin, e->item.end, i};
            return NOVAQ_OK;
        }
        if (e->phase == FAILED) {
            novaq_status st =
                nq_fail(err, e->failed, "%s", e->says != NULL ? e->says : "out of memory");
            retire(a, i);
            return st;
        }
        novaq_status st = wait_for(a, e, tick, err);
        if (st != NOVAQ_OK) {
            *ended = true;
            return st;
        }
    }
}

novaq_status nq_ahead_take(nq_ahead_bytes *out, nq_ahead *a, uint32_t key, uint64_t at,
                           nq_ahead_tick tick, bool *ended, novaq_error *err) {
    *out = (nq_ahead_bytes){.data = NULL};
    *ended = false;
    (void)pthread_mutex_lock(&a->lock);
    novaq_status st = take(out, a, key, at, tick, ended, err);
    (void)pthread_mutex_unlock(&a->lock);
    return st;
}

void nq_ahead_give(nq_ahead *a, const nq_ahead_bytes *b, uint64_t upto) {
    (void)pthread_mutex_lock(&a->lock);
    entry *e = &a->entries[b->entry];
    if (e->item.more && upto == b->end && e->phase == READY && !a->keep) {
        retire(a, (uint32_t)b->entry);
    }
    if (--e->pins == 0 && e->phase == GONE) {
        drop_block(a, e);
    }
    (void)pthread_cond_signal(&a->work);
    (void)pthread_mutex_unlock(&a->lock);
}

void nq_ahead_release(nq_ahead *a, uint32_t key) {
    (void)pthread_mutex_lock(&a->lock);
    bool more = !a->keep;
    for (uint32_t i = a->current[key]; i != NONE && more; i = a->entries[i].next) {
        more = a->entries[i].item.more;
        if (a->entries[i].phase != GONE) {
            a->front = i > a->front ? i : a->front;
            retire(a, i);
        }
    }
    (void)pthread_cond_signal(&a->work);
    (void)pthread_mutex_unlock(&a->lock);
}

uint64_t nq_ahead_held(nq_ahead *a) {
    (void)pthread_mutex_lock(&a->lock);
    uint64_t held = a->held;
    (void)pthread_mutex_unlock(&a->lock);
    return held;
}

/* ---- opening ---------------------------------------------------------------- */

static novaq_status make_entries(nq_ahead *a, const nq_ahead_plan *plan, novaq_error *err) {
    if (plan->count >= NONE || plan->keys >= NONE) {
        return nq_fail(err, NOVAQ_E_ARG, "%zu tensors are too many to read ahead", plan->count);
    }
    NQ_TRY(nq_alloc(&a->entries, plan->count, sizeof *a->entries, err));
    NQ_TRY(nq_alloc_raw(&a->current, plan->keys, sizeof *a->current, err));
    for (size_t k = 0; k < plan->keys; k++) {
        a->current[k] = NONE;
    }
    a->count = (uint32_t)plan->count;
    for (uint32_t i = a->count; i-- > 0;) {
        uint32_t *first = &a->current[plan->items[i].key];
        a->entries[i] = (entry){.item = plan->items[i],
                                .phase = plan->items[i].direct ? DIRECT : WAITING,
                                .next = *first};
        *first = i;
    }
    return NOVAQ_OK;
}

static novaq_status start(nq_ahead *a, novaq_error *err) {
    int e = pthread_create(&a->thread, NULL, run, a);
    if (e != 0) {
        return nq_fail_errno(err, NOVAQ_E_MEMORY, e, "cannot start the thread that reads ahead");
    }
    a->started = true;
    return NOVAQ_OK;
}

novaq_status nq_ahead_open(nq_ahead **out, const nq_ahead_plan *plan, novaq_error *err) {
    *out = NULL;
    nq_ahead *a = NULL;
    NQ_TRY(nq_alloc(&a, 1, sizeof *a, err));
    a->limit = plan->limit;
    a->keep = plan->keep;
    a->check = plan->check;
    a->ctx = plan->ctx;
    atomic_init(&a->stop, false);
    (void)pthread_mutex_init(&a->lock, NULL);
    (void)pthread_cond_init(&a->work, NULL);
    (void)nq_wait_init(&a->done);
    novaq_status st = make_entries(a, plan, err);
    if (st == NOVAQ_OK) {
        st = start(a, err);
    }
    if (st != NOVAQ_OK) {
        nq_ahead_close(&a);
        return st;
    }
    *out = a;
    return NOVAQ_OK;
}

void nq_ahead_close(nq_ahead **ahead) {
    nq_ahead *a = *ahead;
    *ahead = NULL;
    if (a == NULL) {
        return;
    }
    if (a->started) {
        (void)pthread_mutex_lock(&a->lock);
        atomic_store(&a->stop, true);
        (void)pthread_cond_signal(&a->work);
        (void)pthread_mutex_unlock(&a->lock);
        (void)pthread_join(a->thread, NULL);
    }
    for (uint32_t i = 0; a->entries != NULL && i < a->count; i++) {
        drop_block(a, &a->entries[i]);
        nq_free(a->entries[i].says);
    }
    (void)pthread_cond_destroy(&a->done);
    (void)pthread_cond_destroy(&a->work);
    (void)pthread_mutex_destroy(&a->lock);
    nq_free(a->entries);
    nq_free(a->current);
    nq_free(a);
}
