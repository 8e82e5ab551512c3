/* pool.c - see pool.h. Inside a loop, threads draw task numbers from one atomic
 * counter. Between loops, workers first look out for the next one for some
 * microseconds (generating a token is hundreds of loops in a row) and then sleep
 * on a condition variable. */
#include "base/pool.h"

#include <pthread.h>
#include <stdatomic.h>

#include "base/cpu.h"
#include "base/mem.h"

#define NQ_POOL_MAX 256

/* Looks before a worker goes to sleep, or before the caller does: some tens of
 * microseconds. */
#define NQ_POOL_LOOKS 2000

/* What a waiting worker prefetches between two looks: cache lines, of 64 bytes nearly
 * everywhere. */
#define FETCH_LINES 8
#define LINE        64

typedef struct worker {
    nq_pool *pool;
    unsigned index;
    unsigned hint;    /* the last one it saw, */
    uint64_t fetched; /* and how far it is with that */
    pthread_t thread;
} worker;

struct nq_pool {
    unsigned threads;
    unsigned started; /* pthreads that exist: workers 1..started */
    worker *workers;
    pthread_mutex_t lock; /* for sleeping only */
    pthread_cond_t wake;
    pthread_cond_t idle;
    atomic_uint_fast64_t round; /* grows by one per loop; publishes fn, ctx, count */
    atomic_uint active;         /* workers still in this round */
    atomic_uint sleepers;       /* workers on `wake` */
    atomic_uint waiting;        /* 1: the caller is on `idle` */
    atomic_int stop;
    nq_task_fn fn;
    void *ctx;
    uint64_t count;
    atomic_uint_fast64_t next;
    atomic_uint expected; /* grows by one per hint */
    _Atomic(const char *) expect_first;
    atomic_uint_fast64_t expect_stride;
    atomic_uint_fast64_t expect_bytes;
};

static inline void pause_cpu(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void drain(nq_pool *p, unsigned index) {
    for (;;) {
        uint64_t task = atomic_fetch_add_explicit(&p->next, 1, memory_order_relaxed);
        if (task >= p->count) {
            return;
        }
        p->fn(p->ctx, task, index);
    }
}

/* One step of fetching what the last hint names, at *at of it. A hint that changes
 * meanwhile is no harm: a prefetch never faults. */
static void fetch_ahead(nq_pool *p, unsigned index, unsigned *seen, uint64_t *at) {
    unsigned hint = atomic_load_explicit(&p->expected, memory_order_acquire);
    if (hint != *seen) {
        *seen = hint;
        *at = 0;
    }
    const char *first = atomic_load_explicit(&p->expect_first, memory_order_relaxed);
    uint64_t bytes = atomic_load_explicit(&p->expect_bytes, memory_order_relaxed);
    if (first == NULL || *at >= bytes) {
        return;
    }
    first += index * atomic_load_explicit(&p->expect_stride, memory_order_relaxed) + *at;
    for (unsigned i = 0; i < FETCH_LINES; i++) {
        __builtin_prefetch(first + (size_t)i * LINE, 0, 2);
    }
    *at += (uint64_t)FETCH_LINES * LINE;
}

/* Waits for a round after `seen`, or the end. Who goes to sleep says so first and
 * looks once more; who starts a round does that first and looks for sleepers
 * then: in one order of all these steps, one of the two sees the other. */
static void await_round(nq_pool *p, uint64_t seen, worker *w) {
    for (unsigned i = 0; i < NQ_POOL_LOOKS; i++) {
        if (atomic_load_explicit(&p->round, memory_order_acquire) != seen ||
            atomic_load_explicit(&p->stop, memory_order_relaxed)) {
            return;
        }
        fetch_ahead(p, w->index, &w->hint, &w->fetched);
        pause_cpu();
    }
    pthread_mutex_lock(&p->lock);
    atomic_fetch_add(&p->sleepers, 1);
    while (atomic_load(&p->round) == seen && !atomic_load(&p->stop)) {
        pthread_cond_wait(&p->wake, &p->lock);
    }
    atomic_fetch_sub(&p->sleepers, 1);
    pthread_mutex_unlock(&p->lock);
}

static void *worker_main(void *arg) {
    worker *w = arg;
    nq_pool *p = w->pool;
    for (uint64_t seen = 0;; seen++) {
        await_round(p, seen, w);
        if (atomic_load(&p->stop)) {
            return NULL;
        }
        drain(p, w->index);
        if (atomic_fetch_sub(&p->active, 1) == 1 && atomic_load(&p->waiting) != 0) {
            pthread_mutex_lock(&p->lock);
            pthread_cond_signal(&p->idle);
            pthread_mutex_unlock(&p->lock);
        }
    }
}

/* Until all workers have left the round. */
static void await_workers(nq_pool *p) {
    for (unsigned i = 0; i < NQ_POOL_LOOKS; i++) {
        if (atomic_load_explicit(&p->active, memory_order_acquire) == 0) {
            return;
        }
        pause_cpu();
    }
    pthread_mutex_lock(&p->lock);
    atomic_store(&p->waiting, 1);
    while (atomic_load(&p->active) != 0) {
        pthread_cond_wait(&p->idle, &p->lock);
    }
    atomic_store(&p->waiting, 0);
    pthread_mutex_unlock(&p->lock);
}

novaq_status nq_pool_open(nq_pool **out, unsigned threads, novaq_error *err) {
    *out = NULL;
    if (threads == 0) {
        threads = nq_cpu_count();
    }
    if (threads > NQ_POOL_MAX) {
        threads = NQ_POOL_MAX;
    }
    nq_pool *p = NULL;
    NQ_TRY(nq_alloc(&p, 1, sizeof *p, err));
    p->threads = threads;
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->wake, NULL);
    pthread_cond_init(&p->idle, NULL);
    novaq_status st = nq_alloc(&p->workers, threads, sizeof *p->workers, err);
    for (unsigned i = 1; st == NOVAQ_OK && i < threads; i++) {
        p->workers[i] = (worker){.pool = p, .index = i};
        int rc = pthread_create(&p->workers[i].thread, NULL, worker_main, &p->workers[i]);
        if (rc != 0) {
            st = nq_fail_errno(err, NOVAQ_E_MEMORY, rc, "cannot start thread %u", i);
        } else {
            p->started = i;
        }
    }
    if (st != NOVAQ_OK) {
        nq_pool_close(&p);
        return st;
    }
    *out = p;
    return NOVAQ_OK;
}

void nq_pool_close(nq_pool **pool) {
    nq_pool *p = *pool;
    *pool = NULL;
    if (p == NULL) {
        return;
    }
    pthread_mutex_lock(&p->lock);
    atomic_store(&p->stop, 1);
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->lock);
    for (unsigned i = 1; i <= p->started; i++) {
        pthread_join(p->workers[i].thread, NULL);
    }
    pthread_cond_destroy(&p->idle);
    pthread_cond_destroy(&p->wake);
    pthread_mutex_destroy(&p->lock);
    nq_free(p->workers);
    nq_free(p);
}

unsigned nq_pool_threads(const nq_pool *pool) { return pool == NULL ? 1 : pool->threads; }

void nq_pool_run(nq_pool *p, nq_task_fn fn, void *ctx, uint64_t count) {
    if (p == NULL || p->threads == 1 || count <= 1) {
        for (uint64_t i = 0; i < count; i++) {
            fn(ctx, i, 0);
        }
        return;
    }
    p->fn = fn;
    p->ctx = ctx;
    p->count = count;
    atomic_store_explicit(&p->next, 0, memory_order_relaxed);
    atomic_store_explicit(&p->active, p->started, memory_order_relaxed);
    atomic_fetch_add(&p->round, 1);
    if (atomic_load(&p->sleepers) != 0) {
        pthread_mutex_lock(&p->lock);
        pthread_cond_broadcast(&p->wake);
        pthread_mutex_unlock(&p->lock);
    }
    drain(p, 0);
    await_workers(p);
}

void nq_pool_expect(nq_pool *p, const void *first, uint64_t stride, uint64_t bytes) {
    if (p == NULL || p->threads == 1) {
        return;
    }
    atomic_store_explicit(&p->expect_first, first, memory_order_relaxed);
    atomic_store_explicit(&p->expect_stride, stride, memory_order_relaxed);
    atomic_store_explicit(&p->expect_bytes, bytes, memory_order_relaxed);
    atomic_fetch_add_explicit(&p->expected, 1, memory_order_release);
}
