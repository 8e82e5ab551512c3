/* pool.c - see pool.h. Workers sleep on a condition variable between loops and
 * draw task numbers from one atomic counter inside a loop. */
#include "base/pool.h"

#include <pthread.h>
#include <stdatomic.h>

#include "base/cpu.h"
#include "base/mem.h"

#define NQ_POOL_MAX 256

typedef struct worker {
    nq_pool *pool;
    unsigned index;
    pthread_t thread;
} worker;

struct nq_pool {
    unsigned threads;
    unsigned started; /* pthreads that exist: workers 1..started */
    worker *workers;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    pthread_cond_t idle;
    uint64_t round;  /* guarded by lock: grows by one per loop */
    unsigned active; /* guarded by lock: workers still in this round */
    int stop;        /* guarded by lock */
    nq_task_fn fn;
    void *ctx;
    uint64_t count;
    atomic_uint_fast64_t next;
};

static void drain(nq_pool *p, unsigned index) {
    for (;;) {
        uint64_t task = atomic_fetch_add_explicit(&p->next, 1, memory_order_relaxed);
        if (task >= p->count) {
            return;
        }
        p->fn(p->ctx, task, index);
    }
}

static void *worker_main(void *arg) {
    worker *w = arg;
    nq_pool *p = w->pool;
    uint64_t seen = 0;
    pthread_mutex_lock(&p->lock);
    for (;;) {
        while (p->round == seen && !p->stop) {
            pthread_cond_wait(&p->wake, &p->lock);
        }
        if (p->stop) {
            break;
        }
        seen = p->round;
        pthread_mutex_unlock(&p->lock);
        drain(p, w->index);
        pthread_mutex_lock(&p->lock);
        if (--p->active == 0) {
            pthread_cond_signal(&p->idle);
        }
    }
    pthread_mutex_unlock(&p->lock);
    return NULL;
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
    p->stop = 1;
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
    pthread_mutex_lock(&p->lock);
    p->active = p->started;
    p->round++;
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->lock);
    drain(p, 0);
    pthread_mutex_lock(&p->lock);
    while (p->active != 0) {
        pthread_cond_wait(&p->idle, &p->lock);
    }
    pthread_mutex_unlock(&p->lock);
}
