/* test_teacher.c - a teacher's predictions in a file: what is in it, the same bytes for any
 * thread count, nothing half-written, whatever is wrong with one; and where predictions come
 * from while a student learns: held-out windows pass the teacher once. */
#include "model_util.h"

#include <math.h>
#include <sys/stat.h>

#include "base/rng.h"
#include "model/model.h"
#include "refine/predictions_impl.h"
#include "refine/teacher.h"

#define WINDOWS 5
#define LENGTH  12
#define ROWS    (WINDOWS * LENGTH)
#define TOP     7

typedef struct bench {
    char *dir, *path;
    nq_pool *pool;
    nq_model *model;
    nq_net *net;
    uint32_t vocab;
    int32_t tokens[ROWS];
    float *logits;    /* (ROWS, vocab) of the teacher */
    unsigned ticks;   /* so far */
    unsigned stop_at; /* 0: never */
} bench;

static novaq_status on_tick(void *ctx, uint32_t done, novaq_error *err) {
    bench *b = ctx;
    assert_true(done < WINDOWS);
    b->ticks++;
    return b->ticks == b->stop_at ? nq_fail(err, NOVAQ_E_INTERRUPTED, "stopped") : NOVAQ_OK;
}

static bench open_bench(unsigned threads) {
    bench b = {.dir = scratch_dir()};
    nq_net_options o = {.sequences = WINDOWS, .length = LENGTH, .frozen = true};
    assert_int_equal(nq_path_join(&b.path, b.dir, "predictions", NULL), NOVAQ_OK);
    assert_int_equal(nq_pool_open(&b.pool, threads, NULL), NOVAQ_OK);
    assert_int_equal(nq_model_open(&b.model, TINY("a.gguf"), b.pool, NULL), NOVAQ_OK);
    assert_int_equal(nq_net_open(&b.net, b.model, &o, NULL), NOVAQ_OK);
    b.vocab = b.model->hyper.vocab;
    for (unsigned i = 0; i < ROWS; i++) {
        b.tokens[i] = (int32_t)(nq_hash3(5, i, 0) % b.vocab);
    }
    nq_net_pass pass = {.tokens = b.tokens, .sequences = WINDOWS, .length = LENGTH};
    assert_int_equal(nq_alloc(&b.logits, (uint64_t)ROWS * b.vocab, sizeof(float), NULL), NOVAQ_OK);
    assert_int_equal(nq_net_run(b.net, &pass, NULL), NOVAQ_OK);
    assert_int_equal(nq_net_logits(b.logits, b.net, 0, ROWS, NULL), NOVAQ_OK);
    return b;
}

static void close_bench(bench *b) {
    nq_net_close(&b->net);
    nq_model_close(&b->model);
    nq_pool_close(&b->pool);
    nq_free(b->logits);
    remove_dir(b->dir);
    nq_free(b->dir);
    nq_free(b->path);
}

static nq_predictions_spec spec_of(const bench *b, uint32_t top, float temperature) {
    nq_predictions_spec s = {.path = b->path,
                             .windows = WINDOWS,
                             .length = LENGTH,
                             .vocab = b->vocab,
                             .top = top,
                             .temperature = temperature};
    memset(s.identity, 'a', NQ_SHA256_HEX);
    return s;
}

static novaq_status try_make(bench *b, const nq_predictions_spec *s) {
    nq_predictions_making m = {.net = b->net,
                               .sequences = 2,
                               .tokens = b->tokens,
                               .pool = b->pool,
                               .tick = on_tick,
                               .tick_ctx = b};
    b->ticks = 0;
    return nq_predictions_make(s, &m, NULL);
}

static nq_predictions *make(bench *b, const nq_predictions_spec *s) {
    nq_predictions *p = NULL;
    const char *why = NULL;
    assert_int_equal(try_make(b, s), NOVAQ_OK);
    assert_int_equal(nq_predictions_open(&p, &why, s, NULL), NOVAQ_OK);
    assert_non_null(p);
    assert_null(why);
    return p;
}

static char *bytes_of(const char *path, size_t *len) {
    char *data = NULL;
    assert_int_equal(nq_read_file(&data, len, path, (size_t)1 << 24, NULL), NOVAQ_OK);
    return data;
}

/* ---- what is in it ------------------------------------------------------------------- */

static double log_sum(const float *x, uint32_t n, double temperature) {
    double sum = 0;
    for (uint32_t i = 0; i < n; i++) {
        sum += exp((double)x[i] / temperature);
    }
    return log(sum);
}

/* One row against the teacher's logits x: the largest, and what the others add up to. */
static void check_row(const uint32_t *ids, const float *logs, float rest, const float *x,
                      const nq_predictions_spec *s, double temperature) {
    double z = log_sum(x, s->vocab, 1);
    double others = 0;
    double least = INFINITY;
    double most = -INFINITY;
    for (uint32_t i = 0, k = 0; i < s->vocab; i++) {
        double v = (double)x[i] - z;
        if (k < s->top && ids[k] == i) {
            assert_near((double)logs[k], v, 1e-3 * fabs(v) + 1e-6, "logarithm");
            least = v < least ? v : least;
            k++;
            continue;
        }
        others += exp(v / temperature);
        most = v > most ? v : most;
    }
    assert_true(least >= most);
    assert_near((double)rest, others, 1e-4 * others + 1e-6, "rest");
}

static void test_content(void **state) {
    (void)state;
    bench b = open_bench(1);
    const uint32_t tops[] = {1, TOP, b.vocab};
    for (unsigned t = 0; t < 3; t++) {
        nq_predictions_spec s = spec_of(&b, tops[t], 2);
        nq_predictions *p = make(&b, &s);
        uint32_t *ids = NULL;
        float *logs = NULL;
        uint8_t *bytes = NULL;
        float rest[ROWS];
        double mean = 0;
        uint64_t row = nq_predictions_row_bytes(p);
        assert_int_equal(nq_alloc(&ids, ROWS, s.top * sizeof *ids, NULL), NOVAQ_OK);
        assert_int_equal(nq_alloc(&logs, ROWS, s.top * sizeof *logs, NULL), NOVAQ_OK);
        assert_int_equal(nq_alloc(&bytes, ROWS, row, NULL), NOVAQ_OK);
        for (int plain = 0; plain < 2; plain++) {
            assert_int_equal(
                nq_predictions_read(ids, logs, rest, p, plain != 0, 0, ROWS, bytes, NULL),
                NOVAQ_OK);
            for (uint32_t r = 0; r < ROWS; r++) {
                check_row(ids + (uint64_t)r * s.top, logs + (uint64_t)r * s.top, rest[r],
                          b.logits + (uint64_t)r * b.vocab, &s, plain != 0 ? 1 : 2);
                mean += plain != 0 ? (double)rest[r] / ROWS : 0;
            }
        }
        assert_near(nq_predictions_rest(p), mean, 1e-9, "mean rest");
        assert_true(s.top < b.vocab ? mean > 0 : mean <= 0);
        assert_int_equal(nq_predictions_top(p), s.top);
        assert_int_equal(nq_predictions_read(ids, logs, rest, p, true, ROWS - 1, 2, bytes, NULL),
                         NOVAQ_E_ARG);
        nq_free(ids);
        nq_free(logs);
        nq_free(bytes);
        nq_predictions_close(&p);
    }
    close_bench(&b);
}

static void test_threads(void **state) {
    (void)state;
    char *files[2];
    size_t len[2];
    for (unsigned i = 0; i < 2; i++) {
        bench b = open_bench(1 + 2 * i);
        nq_predictions_spec s = spec_of(&b, TOP, 2);
        nq_predictions *p = make(&b, &s);
        files[i] = bytes_of(b.path, &len[i]);
        assert_int_equal(len[i], nq_predictions_bytes(&s));
        nq_predictions_close(&p);
        close_bench(&b);
    }
    assert_int_equal(len[0], len[1]);
    assert_memory_equal(files[0], files[1], len[0]);
    nq_free(files[0]);
    nq_free(files[1]);
}

/* Stopped anywhere it leaves what was there before, and nothing beside it. */
static void test_stopped(void **state) {
    (void)state;
    bench b = open_bench(1);
    nq_predictions_spec s = spec_of(&b, TOP, 1);
    for (b.stop_at = 1; b.stop_at <= 3; b.stop_at++) {
        assert_int_equal(try_make(&b, &s), NOVAQ_E_INTERRUPTED);
        assert_int_equal(rmdir(b.dir), 0);
        assert_int_equal(mkdir(b.dir, 0700), 0);
    }
    b.stop_at = 0;
    nq_predictions *p = make(&b, &s);
    nq_predictions_close(&p);
    size_t len = 0;
    size_t n = 0;
    char *whole = bytes_of(b.path, &len);
    b.stop_at = 2;
    assert_int_equal(try_make(&b, &s), NOVAQ_E_INTERRUPTED);
    char *again = bytes_of(b.path, &n);
    assert_int_equal(n, len);
    assert_memory_equal(again, whole, len);
    char **names = NULL;
    assert_int_equal(nq_list_dir(&names, &n, b.dir, NULL), NOVAQ_OK);
    assert_int_equal(n, 1);
    nq_free_names(names, n);
    nq_free(whole);
    nq_free(again);
    close_bench(&b);
}

/* ---- what is wrong with it ------------------------------------------------------------- */

static void assert_no_good(const nq_predictions_spec *s, const char *says) {
    nq_predictions *p = NULL;
    const char *why = NULL;
    assert_int_equal(nq_predictions_open(&p, &why, s, NULL), NOVAQ_OK);
    assert_null(p);
    assert_non_null(why);
    if (strstr(why, says) == NULL) {
        fail_msg("'%s' does not say '%s'", why, says);
    }
}

static void assert_refused(const nq_predictions_spec *s, novaq_status want) {
    nq_predictions *p = NULL;
    const char *why = NULL;
    assert_int_equal(nq_predictions_open(&p, &why, s, NULL), want);
    assert_null(p);
}

/* Thousands of times: without waiting for the disk. */
static void put(const bench *b, const char *data, size_t len) {
    FILE *f = fopen(b->path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, len, f), len);
    assert_int_equal(fclose(f), 0);
}

static void test_damaged(void **state) {
    (void)state;
    bench b = open_bench(1);
    nq_predictions_spec s = spec_of(&b, 2, 1);
    nq_predictions *p = make(&b, &s);
    size_t len = 0;
    char *data = bytes_of(b.path, &len);
    nq_predictions_close(&p);
    for (size_t i = 0; i < len; i++) {
        put(&b, data, i);
        assert_no_good(&s, i < NQ_PREDICTIONS_HEAD ? "another" : "damaged");
    }
    for (size_t i = 0; i < len; i++) {
        data[i] ^= 1;
        put(&b, data, len);
        if (i < 8) {
            assert_refused(&s, NOVAQ_E_ARG);
        } else {
            assert_no_good(&s, i < NQ_PREDICTIONS_HEAD ? "another" : "damaged");
        }
        data[i] ^= 1;
    }
    put(&b, data, len + 1); /* the buffer ends with a NUL */
    assert_no_good(&s, "damaged");
    put(&b, data, len);
    assert_int_equal(nq_predictions_open(&p, &(const char *){NULL}, &s, NULL), NOVAQ_OK);
    assert_non_null(p);
    nq_predictions_close(&p);
    nq_free(data);
    close_bench(&b);
}

/* Rows no teacher gives, with a digest that holds. */
static void test_crafted(void **state) {
    (void)state;
    static const struct {
        size_t at; /* in the second row, whose top is 2: sums, ids, logarithms */
        uint32_t value;
        unsigned bytes;
    } bad[] = {
        {0, 0x7FC00000U, 4}, {0, 0xBF800000U, 4}, {0, 0x40000000U, 4}, /* NaN, -1, 2 */
        {4, 0x7F800000U, 4}, {4, 0xFFC00000U, 4}, {10, 0xFFFFU, 2},    /* inf, NaN; id */
        {8, 0xFFFFU, 2},     {12, 0x7E00U, 2},    {14, 0xFC00U, 2},    /* NaN, -inf */
        {12, 0x3C00U, 2},                                              /* 1 */
    };
    bench b = open_bench(1);
    nq_predictions_spec s = spec_of(&b, 2, 1);
    nq_predictions *p = make(&b, &s);
    size_t len = 0;
    char *data = bytes_of(b.path, &len);
    nq_predictions_close(&p);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char *copy = NULL;
        char digest[NQ_BLAKE3_HEX + 1];
        assert_int_equal(nq_alloc(&copy, len, 1, NULL), NOVAQ_OK);
        memcpy(copy, data, len);
        uint8_t *at = (uint8_t *)copy + NQ_PREDICTIONS_HEAD + nq_predictions_row(&s) + bad[i].at;
        if (bad[i].bytes == 4) {
            nq_put_u32(at, bad[i].value);
        } else {
            nq_put_u16(at, bad[i].value);
        }
        nq_blake3_of(digest, copy, len - NQ_PREDICTIONS_TAIL);
        memcpy(copy + len - NQ_PREDICTIONS_TAIL, digest, NQ_PREDICTIONS_TAIL);
        put(&b, copy, len);
        assert_no_good(&s, "damaged");
        nq_free(copy);
    }
    nq_free(data);
    close_bench(&b);
}

static void test_foreign(void **state) {
    (void)state;
    bench b = open_bench(1);
    nq_predictions_spec s = spec_of(&b, TOP, 1);
    nq_predictions *p = NULL;
    const char *why = "";
    assert_int_equal(nq_predictions_open(&p, &why, &s, NULL), NOVAQ_OK);
    assert_null(p);
    assert_null(why);
    p = make(&b, &s);
    nq_predictions_close(&p);
    nq_predictions_spec other = s;
    other.identity[63] = 'b';
    assert_no_good(&other, "another");
    other = s;
    other.top--;
    assert_no_good(&other, "another");
    other = s;
    other.temperature = 2;
    assert_no_good(&other, "another");
    other = s;
    other.windows--;
    assert_no_good(&other, "another");
    put(&b, "a text of somebody else", 23);
    assert_refused(&s, NOVAQ_E_ARG);
    s.path = b.dir;
    assert_refused(&s, NOVAQ_E_IO);
    s.top = s.windows = s.length = s.vocab = UINT32_MAX;
    assert_true(nq_predictions_bytes(&s) == UINT64_MAX);
    close_bench(&b);
}

/* What changes under a reader is an error, not a wrong place in memory. */
static void test_changed(void **state) {
    (void)state;
    bench b = open_bench(1);
    nq_predictions_spec s = spec_of(&b, 2, 1);
    nq_predictions *p = make(&b, &s);
    uint32_t ids[2];
    float logs[2];
    float rest[1];
    uint8_t bytes[64];
    FILE *f = fopen(b.path, "r+b");
    assert_non_null(f);
    assert_true(nq_predictions_row_bytes(p) <= sizeof bytes);
    assert_int_equal(fseek(f, NQ_PREDICTIONS_HEAD + 10, SEEK_SET), 0);
    assert_int_equal(fwrite("\xff\xff", 1, 2, f), 2);
    assert_int_equal(fclose(f), 0);
    assert_int_equal(nq_predictions_read(ids, logs, rest, p, true, 0, 1, bytes, NULL),
                     NOVAQ_E_VERIFY);
    assert_int_equal(nq_predictions_read(ids, logs, rest, p, true, 1, 1, bytes, NULL), NOVAQ_OK);
    assert_int_equal(truncate(b.path, NQ_PREDICTIONS_HEAD), 0);
    assert_int_equal(nq_predictions_read(ids, logs, rest, p, true, 1, 1, bytes, NULL), NOVAQ_E_IO);
    nq_predictions_close(&p);
    close_bench(&b);
}

/* ---- while a student learns -------------------------------------------------------------- */

#define TRAIN 2

/* Windows first, first + 1 compared with noise as their student, in pieces of 7 rows. */
static nq_loss_sums compare(nq_teacher *t, const bench *b, const int32_t *tokens, uint32_t first,
                            float *gradient, bool plain) {
    const uint32_t windows[2] = {first, first + 1};
    nq_net_pass pass = {.tokens = tokens, .sequences = 2, .length = LENGTH};
    nq_loss_sums sums = {0};
    float *student = NULL;
    assert_int_equal(nq_alloc(&student, (uint64_t)2 * LENGTH * b->vocab, sizeof *student, NULL),
                     NOVAQ_OK);
    for (uint64_t i = 0; i < (uint64_t)2 * LENGTH * b->vocab; i++) {
        student[i] = (float)nq_normal(9, first, i);
    }
    assert_int_equal(nq_teacher_see(t, &pass, windows, NULL), NOVAQ_OK);
    for (uint32_t row = 0; row < 2 * LENGTH; row += 7) {
        nq_teacher_rows a = {.student = student + (uint64_t)row * b->vocab,
                             .row0 = row,
                             .n = 2 * LENGTH - row < 7 ? 2 * LENGTH - row : 7,
                             .plain = plain,
                             .temperature = 2,
                             .weight = 1};
        float *g = gradient != NULL ? gradient + (uint64_t)row * b->vocab : NULL;
        assert_int_equal(nq_teacher_compare(&sums, g, t, &a, NULL), NOVAQ_OK);
    }
    nq_free(student);
    return sums;
}

static nq_teacher *open_teacher(const bench *b, nq_predictions *p) {
    nq_teacher *t = NULL;
    nq_refine_data data = {b->tokens, WINDOWS, LENGTH, TRAIN};
    nq_teacher_from from = {p == NULL ? b->net : NULL, b->model->hyper.dim, p};
    assert_int_equal(nq_teacher_open(&t, &from, &data, b->vocab, b->pool, NULL), NOVAQ_OK);
    assert_true(nq_teacher_bytes(&from, &data, b->vocab, 2) > 0);
    return t;
}

/* What was measured on before is compared with what the teacher gave then, bit for bit;
 * what is learnt from passes it every time. */
static void test_held_out_once(void **state) {
    (void)state;
    bench b = open_bench(1);
    nq_teacher *t = open_teacher(&b, NULL);
    const int32_t nothing[2 * LENGTH] = {0};
    nq_loss_sums first = compare(t, &b, b.tokens + 3 * LENGTH, 3, NULL, true);
    nq_loss_sums learnt = compare(t, &b, b.tokens, 0, NULL, true);
    nq_loss_sums second = compare(t, &b, nothing, 3, NULL, true);
    assert_true(first.kl == second.kl);
    assert_true(compare(t, &b, nothing, 0, NULL, true).kl != learnt.kl);
    assert_true(compare(t, &b, b.tokens, 0, NULL, true).kl == learnt.kl);
    /* Half of this pass is known. */
    nq_loss_sums mixed = compare(t, &b, b.tokens + 2 * LENGTH, 2, NULL, true);
    nq_teacher_close(&t);
    t = open_teacher(&b, NULL);
    assert_true(compare(t, &b, b.tokens + 2 * LENGTH, 2, NULL, true).kl == mixed.kl);
    assert_true(compare(t, &b, b.tokens + 3 * LENGTH, 3, NULL, true).kl == first.kl);
    nq_teacher_close(&t);
    close_bench(&b);
}

/* A file that holds all predictions says what the net says, but for its roundings. */
static void test_file_as_net(void **state) {
    (void)state;
    bench b = open_bench(1);
    nq_predictions_spec s = spec_of(&b, b.vocab, 2);
    nq_predictions *p = make(&b, &s);
    nq_teacher *net = open_teacher(&b, NULL);
    nq_teacher *file = open_teacher(&b, p);
    uint64_t floats = (uint64_t)2 * LENGTH * b.vocab;
    float *g[2] = {NULL, NULL};
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(nq_alloc(&g[i], floats, sizeof(float), NULL), NOVAQ_OK);
    }
    for (uint32_t first = 0; first < 4; first++) {
        bool plain = first >= TRAIN;
        const int32_t *tokens = b.tokens + (size_t)first * LENGTH;
        if (first == TRAIN - 1) {
            continue; /* one of each kind is no batch */
        }
        double want = compare(net, &b, tokens, first, g[0], plain).kl;
        double got = compare(file, &b, tokens, first, g[1], plain).kl;
        assert_near(got, want, 1e-3 * want, "divergence");
        for (uint64_t i = 0; i < floats; i++) {
            assert_near((double)g[1][i], (double)g[0][i], 2e-3, "gradient");
        }
    }
    nq_free(g[0]);
    nq_free(g[1]);
    nq_teacher_close(&net);
    nq_teacher_close(&file);
    nq_predictions_close(&p);
    close_bench(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_content),     cmocka_unit_test(test_threads),
        cmocka_unit_test(test_stopped),     cmocka_unit_test(test_damaged),
        cmocka_unit_test(test_crafted),     cmocka_unit_test(test_foreign),
        cmocka_unit_test(test_changed),     cmocka_unit_test(test_held_out_once),
        cmocka_unit_test(test_file_as_net),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
