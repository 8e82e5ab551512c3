/* Tensors that are larger than what may be held: read ahead in slices, in the order of the
 * file, within the bound, by one request; those that cannot be are left to their reader.
 *
 * Runs threads: nq_pool_open is what marks such tests for TSan. */
#include "base/sha256.h"
#include "io/digest.h"
#include "slow_util.h"

#define MIB     ((uint64_t)1 << 20)
#define READERS 4U
#define LARGE   4U /* tensors: F16 of these mebibytes */

static const uint64_t sizes[LARGE] = {1, 9, 5, 2};

/* *b: the file, which has the same bytes in each run. */
static nq_tensors *open_large(slow **src, bytes *b, const nq_tensor_info **order) {
    char json[600];
    int n = snprintf(json, sizeof json, "{");
    uint64_t at = 0;
    for (unsigned i = 0; i < LARGE; i++) {
        n += snprintf(json + n, sizeof json - (size_t)n,
                      "%s\"t%u\":{\"dtype\":\"F16\",\"shape\":[%llu,1024],\"data_offsets\":["
                      "%llu,%llu]}",
                      i == 0 ? "" : ",", i, (unsigned long long)(sizes[i] * MIB / 2048),
                      (unsigned long long)at, (unsigned long long)(at + sizes[i] * MIB));
        at += sizes[i] * MIB;
    }
    n += snprintf(json + n, sizeof json - (size_t)n, "}");
    *b = (bytes){0};
    put_int(b, (uint64_t)n, 8);
    put(b, json, (size_t)n);
    for (uint64_t i = 0; i < at / 8; i++) {
        put_int(b, i * 0x9e3779b97f4a7c15U & 0x3bff3bff3bff3bffU, 8); /* no NaN */
    }
    *src = malloc(sizeof **src);
    assert_non_null(*src);
    slow_init(*src, b->data, b->len);
    (*src)->owned = true;
    nq_source *inner = &(*src)->base;
    nq_source *base = NULL;
    nq_tensors *ts = NULL;
    char sha256[NQ_SHA256_HEX + 1];
    assert_int_equal(nq_sha256_of(sha256, b->data, b->len, NULL), NOVAQ_OK);
    assert_int_equal(nq_digest_open(&base, &inner, sha256, NULL), NOVAQ_OK);
    assert_int_equal(nq_tensors_open_source(&ts, &base, NULL), NOVAQ_OK);
    for (size_t i = 0; i < LARGE; i++) {
        order[i] = nq_tensors_at(ts, i);
    }
    atomic_store(&(*src)->bytes, 0);
    atomic_store(&(*src)->expects, 0);
    atomic_store(&(*src)->expected, 0);
    atomic_store(&(*src)->reached, 0);
    atomic_store(&(*src)->backwards, 0);
    return ts;
}

/* In pieces, as who needs little memory does. *ok: whether they are right. */
static novaq_status read_pieces(bool *ok, nq_tensors *ts, const nq_tensor_info *t, const bytes *b,
                                uint64_t from, uint64_t piece, uint64_t step) {
    uint8_t *raw = malloc(piece);
    novaq_status st = raw == NULL ? NOVAQ_E_MEMORY : NOVAQ_OK;
    *ok = true;
    for (uint64_t at = from; st == NOVAQ_OK && at < t->bytes; at += step) {
        uint64_t n = t->bytes - at < piece ? t->bytes - at : piece;
        st = nq_tensors_read(raw, ts, t, at, n, NULL);
        *ok = *ok && st == NOVAQ_OK && memcmp(raw, b->data + t->offset + at, n) == 0;
        /* Where several read, what they wait for comes even beyond the bound. */
        *ok = *ok && (step != piece || nq_ahead_held(ts->ahead) <= 4 * MIB);
    }
    free(raw);
    return st;
}

/* All bytes of the file went by in order. */
static void expect_verified(nq_tensors *ts) {
    size_t verified = 0;
    size_t promised = 1;
    assert_int_equal(nq_tensors_verified(&verified, &promised, ts, NULL), NOVAQ_OK);
    assert_int_equal(verified, 1);
    assert_int_equal(promised, 0); /* by no place */
}

/* Fetched in the order of the file, each byte once, by one request, within the bound. */
static void test_slices(void **state) {
    (void)state;
    for (unsigned round = 0; round < 3; round++) {
        const nq_tensor_info *order[LARGE];
        slow *src = NULL;
        bytes b;
        nq_tensors *ts = open_large(&src, &b, order);
        bool ok = false;
        assert_int_equal(nq_tensors_ahead(ts, order, LARGE, 4 * MIB, NULL), NOVAQ_OK);
        for (unsigned i = 0; i < LARGE; i++) {
            float *f = malloc(order[i]->elements * sizeof *f);
            assert_non_null(f);
            if (round == 0) {
                assert_int_equal(nq_tensors_read_f32(f, ts, order[i], NULL), NOVAQ_OK);
            } else {
                uint64_t n = round == 1 ? 700001 : 20 * MIB;
                assert_int_equal(read_pieces(&ok, ts, order[i], &b, 0, n, n), NOVAQ_OK);
                assert_true(ok);
            }
            nq_tensors_release(ts, order[i]);
            free(f);
        }
        assert_int_equal(nq_ahead_held(ts->ahead), 0);
        assert_int_equal(atomic_load(&src->bytes), 17 * MIB);
        assert_int_equal(atomic_load(&src->backwards), 0);
        assert_int_equal(atomic_load(&src->expects), 1);
        /* What is gone is read directly, announced as a whole. */
        assert_int_equal(read_pieces(&ok, ts, order[1], &b, 0, MIB, MIB), NOVAQ_OK);
        assert_true(ok);
        assert_int_equal(atomic_load(&src->bytes), 26 * MIB);
        assert_int_equal(atomic_load(&src->expects), 2);
        assert_int_equal(atomic_load(&src->wrong), 0);
        expect_verified(ts);
        nq_tensors_close(&ts);
        bytes_free(&b);
    }
}

typedef struct slice_reader {
    nq_tensors *ts;
    const nq_tensor_info *t;
    const bytes *b;
    uint64_t first;
    bool ok;
} slice_reader;

static void *read_slices(void *arg) {
    slice_reader *r = arg;
    const uint64_t piece = 300000;
    bool ok = false;
    r->ok =
        read_pieces(&ok, r->ts, r->t, r->b, r->first * piece, piece, READERS * piece) == NOVAQ_OK &&
        ok;
    return NULL;
}

/* Several readers of the same tensor, each with every fourth piece. */
static void test_slices_readers(void **state) {
    (void)state;
    const nq_tensor_info *order[LARGE];
    slow *src = NULL;
    bytes b;
    nq_tensors *ts = open_large(&src, &b, order);
    assert_int_equal(nq_tensors_ahead(ts, order, LARGE, 4 * MIB, NULL), NOVAQ_OK);
    for (unsigned i = 0; i < LARGE; i++) {
        slice_reader readers[READERS];
        pthread_t threads[READERS];
        for (uint32_t k = 0; k < READERS; k++) {
            readers[k] = (slice_reader){ts, order[i], &b, k, false};
            assert_int_equal(pthread_create(&threads[k], NULL, read_slices, &readers[k]), 0);
        }
        for (uint32_t k = 0; k < READERS; k++) {
            assert_int_equal(pthread_join(threads[k], NULL), 0);
            assert_true(readers[k].ok);
        }
        nq_tensors_release(ts, order[i]);
    }
    assert_int_equal(nq_ahead_held(ts->ahead), 0);
    nq_tensors_close(&ts);
    bytes_free(&b);
}

/* A large tensor that is presented in another order than it is stored in: nothing behind
 * it is fetched until it is done with, and what it takes is announced. */
static void test_left_to_reader(void **state) {
    (void)state;
    const nq_tensor_info *order[LARGE];
    slow *src = NULL;
    bytes b;
    nq_tensors *ts = open_large(&src, &b, order);
    assert_int_equal(nq_tensors_transpose(ts, 1, NULL), NOVAQ_OK);
    uint8_t *raw = malloc(order[1]->bytes);
    uint8_t *turned = malloc(order[1]->bytes);
    bool ok = false;
    assert_true(raw != NULL && turned != NULL);
    assert_int_equal(nq_tensors_ahead(ts, order, LARGE, 4 * MIB, NULL), NOVAQ_OK);
    assert_int_equal(read_pieces(&ok, ts, order[0], &b, 0, MIB, MIB), NOVAQ_OK);
    nq_tensors_release(ts, order[0]);
    usleep(20000);
    assert_int_equal(atomic_load(&src->bytes), MIB);
    assert_int_equal(nq_tensors_read(raw, ts, order[1], 0, order[1]->bytes, NULL), NOVAQ_OK);
    assert_int_equal(nq_ahead_held(ts->ahead), 0);
    uint64_t rows = order[1]->shape[1]; /* as stored */
    for (uint64_t i = 0; i < rows * 1024; i++) {
        memcpy(turned + (i % 1024 * rows + i / 1024) * 2, b.data + order[1]->offset + 2 * i, 2);
    }
    assert_memory_equal(raw, turned, order[1]->bytes);
    nq_tensors_release(ts, order[1]);
    for (unsigned i = 2; i < LARGE; i++) {
        assert_int_equal(read_pieces(&ok, ts, order[i], &b, 0, MIB, MIB), NOVAQ_OK);
        assert_true(ok);
        nq_tensors_release(ts, order[i]);
    }
    assert_int_equal(atomic_load(&src->bytes), 17 * MIB);
    assert_int_equal(atomic_load(&src->backwards), 0);
    assert_int_equal(atomic_load(&src->expects), 3);
    expect_verified(ts);
    nq_tensors_close(&ts);
    free(raw);
    free(turned);
    bytes_free(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_slices),
        cmocka_unit_test(test_slices_readers),
        cmocka_unit_test(test_left_to_reader),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
