/* test_digest.c - digests of what goes by: orders of reading, gaps, threads. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "base/pool.h"
#include "base/sha256.h"
#include "io/digest.h"
#include "io/files.h"

#define MIB  ((uint64_t)1 << 20)
#define SIZE (40 * MIB)

static uint8_t *content; /* SIZE bytes */

/* A source over the first bytes of the content that counts what is read of it. */
typedef struct counted {
    nq_source base;
    pthread_mutex_t lock;
    uint64_t bytes;
    bool fails;
    bool *closed;
} counted;

static novaq_status counted_read(nq_source *s, uint64_t offset, void *dst, uint64_t len,
                                 novaq_error *err) {
    counted *c = (counted *)s;
    (void)pthread_mutex_lock(&c->lock);
    c->bytes += len;
    bool fails = c->fails;
    (void)pthread_mutex_unlock(&c->lock);
    if (fails) {
        return nq_fail(err, NOVAQ_E_NETWORK, "gone");
    }
    memcpy(dst, content + offset, (size_t)len);
    return NOVAQ_OK;
}

static void counted_close(nq_source *s) {
    counted *c = (counted *)s;
    *c->closed = true;
    (void)pthread_mutex_destroy(&c->lock);
}

static const nq_source_vtable counted_vtable = {counted_read, counted_close, NULL};

typedef struct setup {
    counted below;
    nq_source *s;
    bool closed;
    uint8_t *dst;
} setup;

static void sha_of(char hex[NQ_SHA256_HEX + 1], uint64_t size) {
    assert_int_equal(nq_sha256_of(hex, content, (size_t)size, NULL), NOVAQ_OK);
}

static void begin(setup *u, uint64_t size, bool right) {
    static char name[] = "content";
    char hex[NQ_SHA256_HEX + 1];
    sha_of(hex, size);
    if (!right) {
        hex[0] = hex[0] == '0' ? '1' : '0';
    }
    *u = (setup){.below = {.base = {.vt = &counted_vtable, .name = name, .size = size}}};
    u->below.closed = &u->closed;
    assert_int_equal(pthread_mutex_init(&u->below.lock, NULL), 0);
    assert_int_equal(nq_alloc_raw(&u->dst, SIZE, 1, NULL), NOVAQ_OK);
    nq_source *inner = &u->below.base;
    assert_int_equal(nq_digest_open(&u->s, &inner, hex, NULL), NOVAQ_OK);
    assert_null(inner);
    assert_int_equal(u->s->size, size);
    assert_string_equal(u->s->name, "content");
}

static void get(setup *u, uint64_t offset, uint64_t len) {
    assert_int_equal(nq_source_read(u->s, offset, u->dst, len, NULL), NOVAQ_OK);
    assert_memory_equal(u->dst, content + offset, len);
}

static void end(setup *u, novaq_status want, bool verified) {
    for (unsigned i = 0; i < 2; i++) { /* asked again it says the same */
        bool v = !verified;
        novaq_error err;
        assert_int_equal(nq_source_verified(&v, u->s, &err), want);
        assert_true(v == verified);
    }
    nq_source_close(&u->s);
    assert_true(u->closed);
    nq_free(u->dst);
}

static void test_in_order(void **state) {
    (void)state;
    static const uint64_t sizes[] = {0, 1, 64, 1000003, SIZE};
    for (size_t i = 0; i < 2 * sizeof sizes / sizeof sizes[0]; i++) {
        setup u;
        uint64_t size = sizes[i / 2];
        bool right = i % 2 == 0;
        begin(&u, size, right);
        for (uint64_t at = 0; at < size; at += 999983) {
            get(&u, at, size - at < 999983 ? size - at : 999983);
        }
        assert_int_equal(u.below.bytes, size);
        end(&u, right ? NOVAQ_OK : NOVAQ_E_VERIFY, right);
        /* Nothing was read twice. */
        assert_int_equal(u.below.bytes, size);
    }
}

/* Overlaps, repetitions, a look at the end first. */
static void test_any_order_that_covers(void **state) {
    (void)state;
    setup u;
    begin(&u, SIZE, true);
    get(&u, SIZE - 22, 22);
    get(&u, 0, 8);
    get(&u, 8, 100);
    get(&u, 0, 64);
    get(&u, 50, 10 * MIB);
    get(&u, 5 * MIB, 20 * MIB);
    get(&u, 0, 1 * MIB);
    get(&u, 25 * MIB - 7, 15 * MIB + 7);
    end(&u, NOVAQ_OK, true);
}

/* Padding and small pieces nobody wants are read on the spot or at the end. */
static void test_gaps(void **state) {
    (void)state;
    setup u;
    begin(&u, SIZE, true);
    get(&u, 100, 10 * MIB);     /* a header left out */
    get(&u, 11 * MIB, 4 * MIB); /* a piece smaller than the one behind it */
    get(&u, 15 * MIB + 4096, 20 * MIB);
    end(&u, NOVAQ_OK, true);
    begin(&u, SIZE, false);
    get(&u, 100, 30 * MIB);
    end(&u, NOVAQ_E_VERIFY, false);
}

/* A reader that only looks around causes no more reading than little. */
static void test_looking_around(void **state) {
    (void)state;
    setup u;
    begin(&u, SIZE, true);
    for (uint64_t at = 0; at < SIZE; at += 4 * MIB) {
        get(&u, at, 16);
    }
    assert_true(u.below.bytes < 1000);
    /* Later it is read in order after all. */
    for (uint64_t at = 0; at < SIZE; at += 4 * MIB) {
        get(&u, at + 16, 4 * MIB - 16);
    }
    end(&u, NOVAQ_OK, true);
    /* And if it is not: no verdict, no reading of the rest. */
    begin(&u, SIZE, false);
    get(&u, 0, 16);
    get(&u, 30 * MIB, 16);
    end(&u, NOVAQ_OK, false);
    assert_true(u.below.bytes < 1000);
}

/* Gaps are closed up to 16 MiB in all. */
static void test_gap_budget(void **state) {
    (void)state;
    setup u;
    begin(&u, SIZE, true);
    for (uint64_t at = 2 * MIB; at < SIZE; at += 4 * MIB) {
        get(&u, at, 2 * MIB);
    }
    assert_true(u.below.bytes <= 20 * MIB + 16 * MIB);
    assert_true(u.below.bytes >= 20 * MIB + 14 * MIB);
    end(&u, NOVAQ_OK, false);
}

static void test_failures(void **state) {
    (void)state;
    setup u;
    begin(&u, SIZE, true);
    get(&u, 0, 30 * MIB);
    u.below.fails = true;
    novaq_error err;
    assert_int_equal(nq_source_read(u.s, 30 * MIB, u.dst, 10, &err), NOVAQ_E_NETWORK);
    bool v = true;
    assert_int_equal(nq_source_verified(&v, u.s, &err), NOVAQ_E_NETWORK);
    assert_false(v);
    assert_int_equal(nq_source_read(u.s, SIZE, u.dst, 1, &err), NOVAQ_E_FORMAT);
    u.below.fails = false;
    end(&u, NOVAQ_OK, true); /* what failed can be made up for */
}

static void test_nothing_promised(void **state) {
    (void)state;
    bool closed = false;
    static char name[] = "plain";
    counted c = {.base = {.vt = &counted_vtable, .name = name, .size = 4}, .closed = &closed};
    assert_int_equal(pthread_mutex_init(&c.lock, NULL), 0);
    bool v = true;
    assert_int_equal(nq_source_verified(&v, &c.base, NULL), NOVAQ_OK);
    assert_false(v);
    counted_close(&c.base);
}

typedef struct sweep {
    setup *u;
    uint64_t piece;
} sweep;

static void read_piece(void *ctx, uint64_t i, unsigned thread) {
    (void)thread;
    const sweep *w = ctx;
    uint64_t at = i * w->piece;
    /* Assertions belong to the main thread, which compares all of it. */
    if (nq_source_read(w->u->s, at, w->u->dst + at, w->piece, NULL) != NOVAQ_OK) {
        w->u->dst[at] = (uint8_t)~content[at];
    }
}

/* All pieces at once by four threads, out of order; then again in order by one. */
static void test_threads(void **state) {
    (void)state;
    nq_pool *pool = NULL;
    assert_int_equal(nq_pool_open(&pool, 4, NULL), NOVAQ_OK);
    for (unsigned round = 0; round < 3; round++) {
        setup u;
        begin(&u, SIZE, true);
        sweep w = {.u = &u, .piece = 64 << 10};
        nq_pool_run(pool, read_piece, &w, SIZE / w.piece);
        assert_memory_equal(u.dst, content, SIZE);
        for (uint64_t at = 0; at < SIZE; at += MIB) {
            get(&u, at, MIB);
        }
        end(&u, NOVAQ_OK, true);
    }
    nq_pool_close(&pool);
}

static int fill(void **state) {
    (void)state;
    content = malloc(SIZE);
    uint64_t x = 88172645463325252U;
    for (uint64_t i = 0; content != NULL && i < SIZE; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        content[i] = (uint8_t)x;
    }
    return content == NULL ? -1 : 0;
}

static int drop(void **state) {
    (void)state;
    free(content);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_in_order),
        cmocka_unit_test(test_any_order_that_covers),
        cmocka_unit_test(test_gaps),
        cmocka_unit_test(test_looking_around),
        cmocka_unit_test(test_gap_budget),
        cmocka_unit_test(test_failures),
        cmocka_unit_test(test_nothing_promised),
        cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests(tests, fill, drop);
}
