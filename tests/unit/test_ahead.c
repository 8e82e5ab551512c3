/* The thread that reads ahead: order, bounds of memory, readers that ask for what is far
 * ahead or was passed over, failures, interruption, bytes as read directly.
 *
 * Runs threads: nq_pool_open is what marks such tests for TSan. */
#include <pthread.h>
#include <stdatomic.h>

#include "slow_util.h"

/* ---- ranges ------------------------------------------------------------------- */

#define COUNT 40U
#define UNIT  1000U /* bytes of a range, times 1 to 5 */

typedef struct bench {
    slow src;
    uint8_t *data;
    nq_ahead_item items[COUNT];
    uint64_t total;
    nq_ahead *a;
} bench;

static void setup(bench *b, unsigned delay_us) {
    uint64_t at = 7;
    for (uint32_t i = 0; i < COUNT; i++) {
        uint64_t n = UNIT * (1 + (i * 7) % 5);
        b->items[i] = (nq_ahead_item){.src = &b->src.base, .begin = at, .end = at + n, .key = i};
        at += n + i % 3;
    }
    b->total = at;
    b->data = malloc(at);
    assert_non_null(b->data);
    for (uint64_t i = 0; i < at; i++) {
        b->data[i] = (uint8_t)((i * 2654435761U) >> 13);
    }
    slow_init(&b->src, b->data, at);
    b->src.delay_us = delay_us;
    b->a = NULL;
}

static void begin(bench *b, const nq_ahead_item *items, size_t count, uint64_t limit) {
    nq_ahead_plan plan = {.items = items, .count = count, .keys = COUNT, .limit = limit};
    novaq_error err;
    assert_int_equal(nq_ahead_open(&b->a, &plan, &err), NOVAQ_OK);
}

static void teardown(bench *b) {
    nq_ahead_close(&b->a);
    assert_null(b->a);
    assert_int_equal(atomic_load(&b->src.wrong), 0);
    free(b->data);
}

/* Takes a key, compares, gives it back. *there: whether it came from memory. By any
 * thread. */
static bool try_key(bool *there, bench *b, uint32_t key) {
    const nq_ahead_item *m = &b->items[key];
    nq_ahead_bytes got;
    bool ended = false;
    *there = false;
    if (nq_ahead_take(&got, b->a, key, m->begin, (nq_ahead_tick){NULL, NULL}, &ended, NULL) !=
        NOVAQ_OK) {
        return false;
    }
    if (got.data == NULL) {
        return true;
    }
    bool same = got.begin == m->begin && got.end == m->end &&
                memcmp(got.data, b->data + m->begin, m->end - m->begin) == 0;
    nq_ahead_give(b->a, &got, got.end);
    *there = true;
    return same;
}

static bool read_key(bench *b, uint32_t key) {
    bool there = false;
    if (!try_key(&there, b, key)) {
        fail_msg("key %u", key);
    }
    return there;
}

static void test_in_order(void **state) {
    (void)state;
    const uint64_t limit = 10 * UNIT;
    bench b;
    setup(&b, 200);
    begin(&b, b.items, COUNT, limit);
    for (uint32_t i = 0; i < COUNT; i++) {
        assert_true(read_key(&b, i));
        assert_true(nq_ahead_held(b.a) <= limit);
        assert_true(read_key(&b, i)); /* as often as one likes */
        nq_ahead_release(b.a, i);
        assert_false(read_key(&b, i)); /* then it is gone */
    }
    assert_int_equal(nq_ahead_held(b.a), 0);
    assert_int_equal(atomic_load(&b.src.reads), COUNT); /* each once */
    assert_int_equal(atomic_load(&b.src.expects), 1);   /* by one request */
    teardown(&b);
}

/* It really runs ahead: everything that fits is there before anybody asks. */
static void test_runs_ahead(void **state) {
    (void)state;
    bench b;
    setup(&b, 0);
    begin(&b, b.items, COUNT, 10 * UNIT);
    /* 1 + 3 + 5; the next has 2. However long a busy machine takes for it. */
    for (unsigned i = 0; i < 30000 && nq_ahead_held(b.a) < 9 * UNIT; i++) {
        usleep(1000);
    }
    usleep(20000);
    assert_int_equal(nq_ahead_held(b.a), 9 * UNIT);
    uint64_t before = atomic_load(&b.src.reads);
    assert_true(read_key(&b, 0));
    assert_int_equal(atomic_load(&b.src.reads), before); /* nothing more fits */
    teardown(&b);
}

/* Ranges larger than the limit come one at a time. */
static void test_larger_than_limit(void **state) {
    (void)state;
    bench b;
    setup(&b, 0);
    begin(&b, b.items, COUNT, 1);
    for (uint32_t i = 0; i < COUNT; i++) {
        assert_true(read_key(&b, i));
        assert_true(nq_ahead_held(b.a) <= 5 * UNIT);
        nq_ahead_release(b.a, i);
    }
    teardown(&b);
}

static void shuffle(uint32_t *order, uint32_t n, uint64_t seed) {
    for (uint32_t i = 0; i < n; i++) {
        order[i] = i;
    }
    for (uint32_t i = n; i > 1; i--) {
        seed = seed * 6364136223846793005U + 1442695040888963407U;
        uint32_t k = (uint32_t)(seed >> 33) % i;
        uint32_t t = order[i - 1];
        order[i - 1] = order[k];
        order[k] = t;
    }
}

/* Whatever the order of reading, with or without releasing, everything arrives and
 * nothing hangs; what is not released but read may exceed the limit, no more. */
static void test_any_order(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= 12; seed++) {
        bench b;
        uint32_t fetch[COUNT];
        uint32_t ask[COUNT];
        nq_ahead_item items[COUNT];
        setup(&b, seed % 3 == 0 ? 100 : 0);
        shuffle(fetch, COUNT, seed);
        shuffle(ask, COUNT, seed * 77);
        for (uint32_t i = 0; i < COUNT; i++) {
            items[i] = b.items[fetch[i]];
        }
        begin(&b, items, COUNT, 6 * UNIT);
        uint64_t kept = 0; /* bytes read and not released */
        for (uint32_t i = 0; i < COUNT; i++) {
            uint32_t key = ask[i];
            if (seed % 4 == 1 && i % 5 == 0) {
                continue; /* never asked for */
            }
            assert_true(read_key(&b, key));
            kept += b.items[key].end - b.items[key].begin;
            uint64_t bound = kept + 5 * UNIT > 6 * UNIT ? kept + 5 * UNIT : 6 * UNIT;
            assert_true(nq_ahead_held(b.a) <= bound);
            if (seed % 2 == 0 || i % 3 != 0) {
                nq_ahead_release(b.a, key);
                kept -= b.items[key].end - b.items[key].begin;
            }
        }
        teardown(&b);
    }
}

/* The same key twice in the order: it counts again once it was released. */
static void test_twice(void **state) {
    (void)state;
    bench b;
    setup(&b, 0);
    nq_ahead_item items[4] = {b.items[0], b.items[1], b.items[0], b.items[2]};
    begin(&b, items, 4, 100 * UNIT);
    for (unsigned i = 0; i < 4; i++) {
        assert_true(read_key(&b, items[i].key));
        nq_ahead_release(b.a, items[i].key);
    }
    assert_false(read_key(&b, 0));
    /* One range under two keys (tied weights) is fetched once. */
    teardown(&b);
    setup(&b, 0);
    items[0] = b.items[3];
    items[1] = b.items[3];
    items[1].key = 4;
    b.items[4] = items[1];
    begin(&b, items, 2, 100 * UNIT);
    assert_true(read_key(&b, 4));
    assert_true(read_key(&b, 3));
    assert_int_equal(nq_ahead_held(b.a), items[0].end - items[0].begin);
    nq_ahead_release(b.a, 3);
    assert_true(read_key(&b, 4));
    nq_ahead_release(b.a, 4);
    assert_int_equal(nq_ahead_held(b.a), 0);
    assert_int_equal(atomic_load(&b.src.reads), 1);
    teardown(&b);
}

static novaq_status refuse_four(void *ctx, const nq_ahead_item *item, const uint8_t *data,
                                novaq_error *err) {
    const bench *b = ctx;
    bool same = memcmp(data, b->data + item->begin, item->end - item->begin) == 0;
    return same && item->key != 4 ? NOVAQ_OK : nq_fail(err, NOVAQ_E_FORMAT, "not four");
}

/* Bytes that serve several keys are judged for each. */
static void test_judged(void **state) {
    (void)state;
    bench b;
    setup(&b, 0);
    nq_ahead_item items[3] = {b.items[3], b.items[3], b.items[5]};
    items[1].key = 4;
    nq_ahead_plan plan = {items, 3, COUNT, 100 * UNIT, false, refuse_four, &b};
    assert_int_equal(nq_ahead_open(&b.a, &plan, NULL), NOVAQ_OK);
    nq_ahead_bytes got;
    novaq_error err = {.msg = ""};
    bool ended = false;
    assert_true(read_key(&b, 3));
    assert_int_equal(
        nq_ahead_take(&got, b.a, 4, items[1].begin, (nq_ahead_tick){NULL, NULL}, &ended, &err),
        NOVAQ_E_FORMAT);
    assert_string_equal(err.msg, "not four");
    assert_true(read_key(&b, 3) && read_key(&b, 5));
    nq_ahead_release(b.a, 3);
    nq_ahead_release(b.a, 5);
    assert_int_equal(nq_ahead_held(b.a), 0);
    assert_int_equal(atomic_load(&b.src.reads), 2);
    teardown(&b);
}

/* A failure goes to who reads that range; the others are not harmed. */
static void test_failure(void **state) {
    (void)state;
    bench b;
    setup(&b, 50);
    b.src.fail_at = b.items[9].begin + 5;
    atomic_store(&b.src.failures, 1);
    begin(&b, b.items, COUNT, 8 * UNIT);
    for (uint32_t i = 0; i < COUNT; i++) {
        nq_ahead_bytes got;
        novaq_error err = {.msg = ""};
        bool ended = false;
        novaq_status st = nq_ahead_take(&got, b.a, i, b.items[i].begin, (nq_ahead_tick){NULL, NULL},
                                        &ended, &err);
        assert_false(ended);
        if (i == 9) {
            assert_int_equal(st, NOVAQ_E_NETWORK);
            assert_non_null(strstr(err.msg, "slow: offset"));
            assert_false(read_key(&b, i)); /* once; from now on directly */
            continue;
        }
        assert_int_equal(st, NOVAQ_OK);
        assert_non_null(got.data);
        nq_ahead_give(b.a, &got, got.end);
        nq_ahead_release(b.a, i);
    }
    teardown(&b);
}

typedef struct ticker {
    int left; /* OK so often */
} ticker;

static novaq_status tick(void *ctx, novaq_error *err) {
    ticker *t = ctx;
    return t->left-- > 0 ? NOVAQ_OK : nq_fail(err, NOVAQ_E_INTERRUPTED, "asked to stop");
}

static void test_interrupt(void **state) {
    (void)state;
    bench b;
    setup(&b, 0);
    atomic_store(&b.src.stuck, true);
    begin(&b, b.items, COUNT, 8 * UNIT);
    ticker t = {.left = 2};
    nq_ahead_bytes got;
    novaq_error err = {.msg = ""};
    bool ended = false;
    assert_int_equal(
        nq_ahead_take(&got, b.a, 3, b.items[3].begin, (nq_ahead_tick){tick, &t}, &ended, &err),
        NOVAQ_E_INTERRUPTED);
    assert_true(ended && t.left < 0);
    assert_string_equal(err.msg, "asked to stop");
    atomic_store(&b.src.stuck, false);
    assert_true(read_key(&b, 3)); /* nothing is broken */
    teardown(&b);
}

/* Closing at any moment. */
static void test_close_early(void **state) {
    (void)state;
    for (unsigned i = 0; i < 20; i++) {
        bench b;
        setup(&b, 100);
        begin(&b, b.items, COUNT, (1 + i % 9) * UNIT);
        if (i % 2 == 0) {
            usleep(i * 100);
        }
        if (i % 5 == 0) {
            assert_true(read_key(&b, i % COUNT));
        }
        teardown(&b);
    }
}

/* Several readers, each with keys of its own, in an order that suits nobody. */
typedef struct reader {
    bench *b;
    uint32_t first;
    atomic_uint *from_memory;
    atomic_uint *wrong;
} reader;

#define READERS 4U

static void *read_some(void *arg) {
    reader *r = arg;
    for (uint32_t i = 0; i < COUNT / READERS; i++) {
        uint32_t key = (r->first * 7 + i * READERS + r->first) % COUNT;
        key = key / READERS * READERS + r->first;
        bool there = false;
        atomic_fetch_add(r->wrong, try_key(&there, r->b, key) ? 0 : 1);
        atomic_fetch_add(r->from_memory, there ? 1 : 0);
        nq_ahead_release(r->b->a, key);
    }
    return NULL;
}

static void test_readers(void **state) {
    (void)state;
    for (unsigned round = 0; round < 5; round++) {
        bench b;
        pthread_t threads[READERS];
        reader readers[READERS];
        atomic_uint from_memory = 0;
        atomic_uint wrong = 0;
        setup(&b, round * 20);
        begin(&b, b.items, COUNT, (2 + 3 * round) * UNIT);
        for (uint32_t i = 0; i < READERS; i++) {
            readers[i] = (reader){&b, i, &from_memory, &wrong};
            assert_int_equal(pthread_create(&threads[i], NULL, read_some, &readers[i]), 0);
        }
        for (uint32_t i = 0; i < READERS; i++) {
            assert_int_equal(pthread_join(threads[i], NULL), 0);
        }
        assert_int_equal(atomic_load(&wrong), 0);
        assert_int_equal(atomic_load(&from_memory), COUNT);
        teardown(&b);
    }
}

/* ---- tensors -------------------------------------------------------------------- */

/* A file of the fixtures as a remote one. *data: free(). */
static nq_tensors *open_remote(const char *path, slow **src, char **data) {
    size_t len = 0;
    novaq_error err = {.msg = ""};
    nq_tensors *ts = NULL;
    assert_int_equal(nq_read_file(data, &len, path, (size_t)1 << 28, &err), NOVAQ_OK);
    *src = malloc(sizeof **src);
    assert_non_null(*src);
    slow_init(*src, (const uint8_t *)*data, len);
    (*src)->owned = true;
    nq_source *base = &(*src)->base;
    if (nq_tensors_open_source(&ts, &base, &err) != NOVAQ_OK) {
        fail_msg("%s: %s", path, err.msg);
    }
    assert_null(base);
    return ts;
}

static void same_as_local(nq_tensors *ts, nq_tensors *local, size_t i, uint64_t part) {
    const nq_tensor_info *t = nq_tensors_at(ts, i);
    const nq_tensor_info *u = nq_tensors_find(local, t->name);
    novaq_error err = {.msg = ""};
    assert_non_null(u);
    assert_int_equal(t->bytes, u->bytes);
    uint8_t *a = malloc(t->bytes + 1);
    uint8_t *b = malloc(t->bytes + 1);
    float *x = malloc(t->elements * sizeof *x + 1);
    float *y = malloc(t->elements * sizeof *y + 1);
    assert_true(a != NULL && b != NULL && x != NULL && y != NULL);
    assert_int_equal(nq_tensors_read(b, local, u, 0, u->bytes, &err), NOVAQ_OK);
    for (uint64_t at = 0; at < t->bytes; at += part) {
        uint64_t n = t->bytes - at < part ? t->bytes - at : part;
        if (nq_tensors_read(a + at, ts, t, at, n, &err) != NOVAQ_OK) {
            fail_msg("%s: %s", t->name, err.msg);
        }
    }
    assert_memory_equal(a, b, t->bytes);
    assert_int_equal(nq_tensors_read_f32(x, ts, t, &err), NOVAQ_OK);
    assert_int_equal(nq_tensors_read_f32(y, local, u, &err), NOVAQ_OK);
    assert_memory_equal(x, y, t->elements * sizeof *x);
    free(a);
    free(b);
    free(x);
    free(y);
}

static uint64_t largest(const nq_tensors *ts) {
    uint64_t most = 0;
    for (size_t i = 0; i < nq_tensors_count(ts); i++) {
        uint64_t n = nq_tensors_at(ts, i)->bytes;
        most = n > most ? n : most;
    }
    return most;
}

static void turn_all(nq_tensors *ts) {
    for (size_t i = 0; i < nq_tensors_count(ts); i++) {
        assert_int_equal(nq_tensors_transpose(ts, i, NULL), NOVAQ_OK);
    }
}

/* Reads everything in the order that ahead has it, by parts and as floats. */
static void read_ahead(nq_tensors *ts, nq_tensors *local, bool backwards, uint64_t room) {
    size_t count = nq_tensors_count(ts);
    novaq_error err = {.msg = ""};
    const nq_tensor_info **order = calloc(count + 1, sizeof *order);
    assert_non_null(order);
    for (size_t i = 0; i < count; i++) {
        order[i] = nq_tensors_at(ts, backwards ? count - 1 - i : i);
    }
    assert_int_equal(nq_tensors_ahead(ts, order, count, room, &err), NOVAQ_OK);
    for (size_t i = 0; i < count; i++) {
        same_as_local(ts, local, backwards ? count - 1 - i : i, backwards ? 1000000 : 100);
        nq_tensors_release(ts, order[i]);
    }
    free((void *)order);
}

static void check_file(const char *name) {
    nq_tensors *local = NULL;
    novaq_error err = {.msg = ""};
    char path[1024];
    (void)snprintf(path, sizeof path, "%s/%s", FIXTURES, name);
    if (nq_tensors_open(&local, path, &err) != NOVAQ_OK) {
        fail_msg("%s: %s", path, err.msg);
    }
    for (unsigned round = 0; round < 6; round++) {
        char *data = NULL;
        slow *src = NULL;
        nq_tensors *ts = open_remote(path, &src, &data);
        assert_int_equal(nq_tensors_count(ts), nq_tensors_count(local));
        if (round == 3) { /* from here on turned round, both */
            turn_all(local);
        }
        if (round >= 3) {
            turn_all(ts);
        }
        if (round == 1 || round == 4) {
            read_ahead(ts, local, round == 4, 2 * largest(ts));
            read_ahead(ts, local, round == 1, 1);
        } else if (round == 2 || round == 5) {
            unsigned long before = atomic_load(&src->bytes);
            assert_int_equal(nq_tensors_hold(ts, &err), NOVAQ_OK);
            read_ahead(ts, local, true, 1);
            /* Each byte once, however many views of it there are. */
            assert_true(atomic_load(&src->bytes) - before <= src->base.size);
            unsigned long reads = atomic_load(&src->reads);
            read_ahead(ts, local, false, 1); /* all of it is still there */
            assert_int_equal(atomic_load(&src->reads), reads);
        }
        for (size_t i = 0; i < nq_tensors_count(ts); i++) { /* directly, or held */
            same_as_local(ts, local, i, 100);
        }
        size_t verified = 1;
        size_t promised = 1;
        assert_int_equal(nq_tensors_verified(&verified, &promised, ts, &err), NOVAQ_OK);
        assert_int_equal(verified, 0);
        assert_int_equal(promised, 0);
        assert_int_equal(atomic_load(&src->wrong), 0);
        nq_tensors_close(&ts);
        free(data);
    }
    nq_tensors_close(&local);
}

static void test_formats(void **state) {
    (void)state;
    static const char *const files[] = {
        "readers/types.safetensors", "readers/v1.gguf", "readers/v3.gguf",       "torch/types.pt",
        "torch/types-legacy.pt",     "torch/views.pt",  "torch/views-legacy.pt", "torch/wrapped.pt",
        "onnx/types.onnx",           "onnx/graph.onnx", "onnx/linear.onnx",      "onnx/merged.onnx",
    };
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        check_file(files[i]);
    }
}

/* Local models are read ahead as well, but not held. */
static void test_local(void **state) {
    (void)state;
    nq_tensors *ts = NULL;
    nq_tensors *local = NULL;
    assert_int_equal(nq_tensors_open(&ts, FIXTURES "/readers/v3.gguf", NULL), NOVAQ_OK);
    assert_int_equal(nq_tensors_open(&local, FIXTURES "/readers/v3.gguf", NULL), NOVAQ_OK);
    read_ahead(ts, local, false, 1000);
    assert_int_equal(nq_tensors_hold(ts, NULL), NOVAQ_OK);
    assert_null(ts->ahead);
    nq_tensors_close(&ts);
    nq_tensors_close(&local);
}

/* The tick ends waiting, for what is read ahead and for what is not. */
static void test_tensors_interrupted(void **state) {
    (void)state;
    for (unsigned direct = 0; direct < 2; direct++) {
        char *data = NULL;
        slow *src = NULL;
        nq_tensors *ts = open_remote(FIXTURES "/readers/types.safetensors", &src, &data);
        const nq_tensor_info *t = nq_tensors_at(ts, nq_tensors_count(ts) - 1);
        ticker k = {.left = 1000000};
        float *f = calloc(t->elements + 1, sizeof *f);
        novaq_error err = {.msg = ""};
        assert_non_null(f);
        nq_tensors_on_wait(ts, tick, &k);
        assert_int_equal(nq_tensors_read_f32(f, ts, t, &err), NOVAQ_OK);
        src->delay_us = 300000;
        if (direct == 0) {
            assert_int_equal(nq_tensors_ahead(ts, &t, 1, 1, &err), NOVAQ_OK);
        }
        k.left = 2;
        assert_int_equal(nq_tensors_read_f32(f, ts, t, &err), NOVAQ_E_INTERRUPTED);
        assert_string_equal(err.msg, "asked to stop");
        k.left = 1000000;
        assert_int_equal(nq_tensors_read_f32(f, ts, t, &err), NOVAQ_OK);
        free(f);
        nq_tensors_close(&ts);
        free(data);
    }
}

/* A broken transfer is told by the reader of that tensor; reading it again is a new try. */
static void test_tensors_failure(void **state) {
    (void)state;
    char *data = NULL;
    slow *src = NULL;
    nq_tensors *ts = open_remote(FIXTURES "/readers/types.safetensors", &src, &data);
    size_t count = nq_tensors_count(ts);
    const nq_tensor_info *order[64];
    novaq_error err = {.msg = ""};
    assert_true(count > 3 && count <= 64);
    for (size_t i = 0; i < count; i++) {
        order[i] = nq_tensors_at(ts, i);
    }
    size_t bad = count / 2;
    while (order[bad]->bytes == 0) {
        bad++;
    }
    src->fail_at = order[bad]->offset;
    atomic_store(&src->failures, 2);
    assert_int_equal(nq_tensors_ahead(ts, order, count, (uint64_t)1 << 20, &err), NOVAQ_OK);
    for (size_t i = 0; i < count; i++) {
        uint8_t *raw = malloc(order[i]->bytes + 1);
        assert_non_null(raw);
        for (unsigned turn = 0; turn < 3; turn++) {
            novaq_status want = i == bad && turn < 2 ? NOVAQ_E_NETWORK : NOVAQ_OK;
            assert_int_equal(nq_tensors_read(raw, ts, order[i], 0, order[i]->bytes, &err), want);
        }
        assert_memory_equal(raw, data + order[i]->offset, order[i]->bytes);
        free(raw);
    }
    nq_tensors_close(&ts);
    free(data);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_in_order),
        cmocka_unit_test(test_runs_ahead),
        cmocka_unit_test(test_larger_than_limit),
        cmocka_unit_test(test_any_order),
        cmocka_unit_test(test_twice),
        cmocka_unit_test(test_judged),
        cmocka_unit_test(test_failure),
        cmocka_unit_test(test_interrupt),
        cmocka_unit_test(test_close_early),
        cmocka_unit_test(test_readers),
        cmocka_unit_test(test_formats),
        cmocka_unit_test(test_local),
        cmocka_unit_test(test_tensors_interrupted),
        cmocka_unit_test(test_tensors_failure),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
