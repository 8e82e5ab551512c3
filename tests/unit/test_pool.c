/* test_pool.c - the thread pool runs every task exactly once, whatever the
 * number of threads, and has finished when nq_pool_run() returns. Run under
 * TSan as well: results are plain (not atomic) on purpose, so that a missing
 * happens-before edge shows. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <string.h>

#include "base/cpu.h"
#include "base/mem.h"
#include "base/pool.h"
#include "base/rng.h"

#define MAX_THREADS 8
#define MAX_TASKS   5000

typedef struct job {
    unsigned threads;
    uint32_t ran[MAX_TASKS];        /* times each task ran */
    uint32_t by[MAX_THREADS];       /* tasks each worker ran */
    uint32_t bad_worker[MAX_TASKS]; /* a worker number out of range */
    uint64_t value[MAX_TASKS];
} job;

static void run_task(void *ctx, uint64_t task, unsigned worker) {
    job *j = ctx;
    j->ran[task]++;
    if (worker >= j->threads) {
        j->bad_worker[task] = 1;
        return;
    }
    j->by[worker]++;
    j->value[task] = nq_hash3(1, 2, task);
}

static job *job_new(unsigned threads) {
    job *j = NULL;
    assert_int_equal(nq_alloc(&j, 1, sizeof *j, NULL), NOVAQ_OK);
    j->threads = threads;
    return j;
}

static void check(const job *j, uint64_t count, uint32_t times) {
    uint64_t total = 0;
    for (uint64_t i = 0; i < MAX_TASKS; i++) {
        assert_int_equal(j->ran[i], i < count ? times : 0);
        assert_int_equal(j->bad_worker[i], 0);
        assert_true(i >= count || j->value[i] == nq_hash3(1, 2, i));
    }
    for (unsigned w = 0; w < MAX_THREADS; w++) {
        total += j->by[w];
    }
    assert_int_equal(total, count * times);
}

static void test_every_task_once(void **state) {
    (void)state;
    static const uint64_t counts[] = {0, 1, 2, 3, 7, 8, 9, 100, MAX_TASKS};
    for (unsigned threads = 1; threads <= MAX_THREADS; threads++) {
        nq_pool *pool = NULL;
        novaq_error err;
        assert_int_equal(nq_pool_open(&pool, threads, &err), NOVAQ_OK);
        assert_int_equal(nq_pool_threads(pool), threads);
        for (size_t c = 0; c < sizeof counts / sizeof counts[0]; c++) {
            job *j = job_new(threads);
            nq_pool_run(pool, run_task, j, counts[c]);
            check(j, counts[c], 1);
            nq_free(j);
        }
        nq_pool_close(&pool);
        assert_null(pool);
    }
}

/* Many loops too short to wake everybody: a worker that sleeps through a round,
 * or runs a task of the next round early, is found here. */
static void test_many_small_rounds(void **state) {
    (void)state;
    for (unsigned threads = 2; threads <= MAX_THREADS; threads += 3) {
        nq_pool *pool = NULL;
        assert_int_equal(nq_pool_open(&pool, threads, NULL), NOVAQ_OK);
        job *j = job_new(threads);
        for (uint32_t round = 1; round <= 2000; round++) {
            nq_pool_run(pool, run_task, j, 5);
            assert_int_equal(j->ran[round % 5], round);
        }
        check(j, 5, 2000);
        nq_free(j);
        nq_pool_close(&pool);
    }
}

/* Each round reads what other workers wrote in the round before. */
typedef struct relay {
    uint64_t a[64], b[64];
} relay;

static void relay_forward(void *ctx, uint64_t task, unsigned worker) {
    (void)worker;
    relay *r = ctx;
    r->b[task] = r->a[(task + 1) % 64] + r->a[(task + 31) % 64];
}

static void relay_back(void *ctx, uint64_t task, unsigned worker) {
    (void)worker;
    relay *r = ctx;
    r->a[task] = r->b[(task + 17) % 64] ^ (r->b[task] << 1);
}

static void relay_run(relay *r, nq_pool *pool) {
    memset(r, 0, sizeof *r);
    for (uint64_t i = 0; i < 64; i++) {
        r->a[i] = i + 1;
    }
    for (int round = 0; round < 500; round++) {
        nq_pool_run(pool, relay_forward, r, 64);
        nq_pool_run(pool, relay_back, r, 64);
    }
}

static void test_rounds_are_ordered(void **state) {
    (void)state;
    relay want, got;
    relay_run(&want, NULL);
    for (unsigned threads = 1; threads <= MAX_THREADS; threads *= 2) {
        nq_pool *pool = NULL;
        assert_int_equal(nq_pool_open(&pool, threads, NULL), NOVAQ_OK);
        relay_run(&got, pool);
        assert_memory_equal(&got, &want, sizeof want);
        nq_pool_close(&pool);
    }
}

typedef struct order {
    uint64_t seen[10];
    uint64_t n;
} order;

static void note_order(void *ctx, uint64_t task, unsigned worker) {
    order *o = ctx;
    assert_int_equal(worker, 0);
    o->seen[o->n++] = task;
}

static void count_once(void *ctx, uint64_t task, unsigned worker) {
    order *all = ctx;
    (void)worker;
    all[task].n++;
}

static void test_without_pool(void **state) {
    (void)state;
    order o = {.n = 0};
    nq_pool_run(NULL, note_order, &o, 10);
    assert_int_equal(o.n, 10);
    for (uint64_t i = 0; i < 10; i++) {
        assert_int_equal(o.seen[i], i);
    }
    assert_int_equal(nq_pool_threads(NULL), 1);
    nq_pool *none = NULL;
    nq_pool_close(&none);
}

/* Hints in between, also of memory that is not there, change nothing. */
static void test_hints(void **state) {
    (void)state;
    enum { TASKS = 64 };
    static const char near[4096];
    nq_pool *pool = NULL;
    assert_int_equal(nq_pool_open(&pool, MAX_THREADS, NULL), NOVAQ_OK);
    nq_pool_expect(NULL, near, 64, 64);
    for (unsigned round = 0; round < 300; round++) {
        const void *first[] = {near, NULL, (const void *)(uintptr_t)64};
        order all[TASKS] = {{.n = 0}};
        nq_pool_expect(pool, first[round % 3], 1024, 1U << 20);
        nq_pool_run(pool, count_once, all, TASKS);
        for (unsigned i = 0; i < TASKS; i++) {
            assert_int_equal(all[i].n, 1);
        }
    }
    nq_pool_close(&pool);
}

static void test_open_close(void **state) {
    (void)state;
    for (unsigned i = 0; i < 200; i++) {
        nq_pool *pool = NULL;
        assert_int_equal(nq_pool_open(&pool, 1 + i % MAX_THREADS, NULL), NOVAQ_OK);
        nq_pool_close(&pool);
    }
    nq_pool *pool = NULL;
    assert_int_equal(nq_pool_open(&pool, 0, NULL), NOVAQ_OK);
    assert_int_equal(nq_pool_threads(pool), nq_cpu_count() > 256 ? 256 : nq_cpu_count());
    nq_pool_close(&pool);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_task_once),
        cmocka_unit_test(test_many_small_rounds),
        cmocka_unit_test(test_rounds_are_ordered),
        cmocka_unit_test(test_without_pool),
        cmocka_unit_test(test_hints),
        cmocka_unit_test(test_open_close),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
