/* Artifacts of a known shape with random content, and benching them: they verify,
 * run, have the size and the variance they should, and are the same bytes for any
 * number of threads. */
#include <math.h>

#include "compress/synthetic.h"
#include "model/model.h"
#include "model_util.h"
#include "novaq.h"

static char *artifact_path(const char *dir) {
    char *path = NULL;
    assert_int_equal(nq_path_join(&path, dir, "a.novaq", NULL), NOVAQ_OK);
    return path;
}

static novaq_status write_with(const char *path, const nq_synthetic *s, unsigned threads,
                               novaq_error *err) {
    nq_pool *pool = NULL;
    assert_int_equal(nq_pool_open(&pool, threads, NULL), NOVAQ_OK);
    novaq_status st = nq_synthetic_write(path, s, pool, err);
    nq_pool_close(&pool);
    return st;
}

static void write_tiny(const char *path, const char *scheme, double bits, uint64_t seed,
                       unsigned threads) {
    novaq_error err = {.code = NOVAQ_OK};
    nq_synthetic s = {
        .shape = "tiny", .scheme = scheme, .bits = bits, .seed = seed, .single_file = true};
    if (write_with(path, &s, threads, &err) != NOVAQ_OK) {
        fail_msg("%s, %g bits: %s", scheme == NULL ? "-" : scheme, bits, err.msg);
    }
}

static json_t *report_of(char *text) {
    json_t *o = NULL;
    assert_int_equal(nq_json_parse(&o, "report", text, strlen(text), NULL), NOVAQ_OK);
    novaq_free(text);
    return o;
}

/* Mean square of the weights of one matrix times its columns: the variance of
 * outputs for inputs of unit variance. */
static double gain(const char *path, const char *name) {
    nq_weights *w = NULL;
    float *x = NULL;
    double sum = 0;
    assert_int_equal(nq_weights_open(&w, path, NULL), NOVAQ_OK);
    const nq_weight *t = nq_weights_find(w, name);
    assert_non_null(t);
    assert_int_equal(nq_alloc(&x, t->elements, sizeof *x, NULL), NOVAQ_OK);
    assert_int_equal(nq_weights_read_rows(x, w, t, 0, t->rows, NULL), NOVAQ_OK);
    for (uint64_t i = 0; i < t->elements; i++) {
        sum += (double)x[i] * (double)x[i];
    }
    double result = sum / (double)t->rows;
    nq_free(x);
    nq_weights_close(&w);
    return result;
}

/* Root mean square of the logits of a short text, all of them finite. */
static double logits_rms(const char *path) {
    static const int32_t tokens[] = {1, 500, 17, 3};
    const uint32_t last = 3;
    nq_model *m = NULL;
    nq_run *r = NULL;
    float *logits = NULL;
    double sum = 0;
    assert_int_equal(nq_model_open(&m, path, NULL, NULL), NOVAQ_OK);
    assert_int_equal(nq_run_open(&r, m, 1, 8, 4, NULL), NOVAQ_OK);
    assert_int_equal(nq_alloc(&logits, m->hyper.vocab, sizeof *logits, NULL), NOVAQ_OK);
    assert_int_equal(nq_run_feed(r, tokens, 1, 4, NULL), NOVAQ_OK);
    assert_int_equal(nq_run_logits(logits, r, &last, 1, NULL), NOVAQ_OK);
    for (uint32_t i = 0; i < m->hyper.vocab; i++) {
        assert_true(isfinite(logits[i]));
        sum += (double)logits[i] * (double)logits[i];
    }
    double rms = sqrt(sum / m->hyper.vocab);
    nq_free(logits);
    nq_run_close(&r);
    nq_model_close(&m);
    return rms;
}

/* ---- content ------------------------------------------------------------------- */

static void test_rates(void **state) {
    (void)state;
    static const double rates[] = {1, 1.5, 2, 3, 4};
    char *dir = scratch_dir();
    char *path = artifact_path(dir);
    for (size_t i = 0; i < sizeof rates / sizeof rates[0]; i++) {
        char *text = NULL;
        write_tiny(path, NULL, rates[i], 42, 2);
        assert_int_equal(novaq_verify(&text, path, 2, NULL, NULL, NULL), NOVAQ_OK);
        novaq_free(text);
        assert_int_equal(novaq_stats(&text, path, NULL), NOVAQ_OK);
        json_t *stats = report_of(text);
        /* Row scales and padding come on top. */
        double over = number(stats, "bits_per_weight_linear") - rates[i];
        assert_true(over > 0 && over < 0.2);
        assert_near(number(stats, "parameters"), 1312000, 0, "parameters");
        json_decref(stats);
        assert_near(gain(path, "blk.1.ffn_down.weight"), 1.0, 0.1, "gain");
        assert_near(gain(path, "token_embd.weight"), 1.0, 0.1, "gain of the embedding");
        assert_near(logits_rms(path), 1.0, 0.25, "logits");
    }
    remove_dir(dir);
    nq_free(path);
    nq_free(dir);
}

/* Codes that use all their bits are filled word by word, others symbol by symbol;
 * floats keep within one binade. */
static void test_schemes(void **state) {
    (void)state;
    static const struct {
        const char *scheme;
        double low, high;
    } cases[] = {{"k16d2l3", 0.9, 1.1},  {"k5d3l2", 0.8, 1.2}, {"pq16x4d4", 0.9, 1.1},
                 {"pq12x5d8", 0.8, 1.2}, {"q8", 0.98, 1.02},   {"f16", 0.5, 1.01},
                 {"bf16", 0.5, 1.01},    {"f32", 0.5, 1.01}};
    char *dir = scratch_dir();
    char *path = artifact_path(dir);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *text = NULL;
        write_tiny(path, cases[i].scheme, 0, 7, 2);
        assert_int_equal(novaq_verify(&text, path, 1, NULL, NULL, NULL), NOVAQ_OK);
        novaq_free(text);
        double g = gain(path, "blk.0.attn_k.weight");
        if (!(g >= cases[i].low && g <= cases[i].high)) {
            fail_msg("%s: gain %g", cases[i].scheme, g);
        }
        assert_true(logits_rms(path) > 0.3);
    }
    remove_dir(dir);
    nq_free(path);
    nq_free(dir);
}

static void assert_files(const char *a, const char *b, bool same) {
    char *x = NULL;
    char *y = NULL;
    size_t nx = 0;
    size_t ny = 0;
    assert_int_equal(nq_read_file(&x, &nx, a, (size_t)1 << 24, NULL), NOVAQ_OK);
    assert_int_equal(nq_read_file(&y, &ny, b, (size_t)1 << 24, NULL), NOVAQ_OK);
    assert_true((nx == ny && memcmp(x, y, nx) == 0) == same);
    nq_free(x);
    nq_free(y);
}

static void test_same_bytes(void **state) {
    (void)state;
    static const char *const schemes[] = {"k16d2l2", "k5d3l2", "q8", "f16"};
    char *dir = scratch_dir();
    char *path = artifact_path(dir);
    char *other = NULL;
    assert_int_equal(nq_path_join(&other, dir, "b.novaq", NULL), NOVAQ_OK);
    assert_int_equal(setenv("SOURCE_DATE_EPOCH", "1700000000", 1), 0);
    for (size_t i = 0; i < sizeof schemes / sizeof schemes[0]; i++) {
        write_tiny(path, schemes[i], 0, 1, 1);
        write_tiny(other, schemes[i], 0, 1, 3);
        assert_files(path, other, true);
        write_tiny(other, schemes[i], 0, 2, 1);
        assert_files(path, other, false);
    }
    remove_dir(dir);
    nq_free(other);
    nq_free(path);
    nq_free(dir);
}

static void test_rules(void **state) {
    (void)state;
    static const char *const rules[] = {"embd=q8", "ffn_.*=k16d1l2"};
    char *dir = scratch_dir();
    char *path = artifact_path(dir);
    nq_synthetic s = {.shape = "tiny",
                      .bits = 2,
                      .seed = 42,
                      .single_file = true,
                      .tensor_types = rules,
                      .tensor_type_count = 2};
    nq_artifact *a = NULL;
    char name[NQ_SCHEME_NAME];
    assert_int_equal(write_with(path, &s, 2, NULL), NOVAQ_OK);
    assert_int_equal(nq_artifact_open(&a, path, NULL), NOVAQ_OK);
    const nq_layer *l = nq_artifact_find(a, "token_embd.weight");
    assert_string_equal(nq_scheme_name(name, &l->scheme), "q8");
    l = nq_artifact_find(a, "blk.1.ffn_up.weight");
    assert_string_equal(nq_scheme_name(name, &l->scheme), "k16d1l2");
    l = nq_artifact_find(a, "blk.1.attn_q.weight");
    assert_string_equal(nq_scheme_name(name, &l->scheme), "k16d2l2");
    nq_artifact_close(&a);
    remove_dir(dir);
    nq_free(path);
    nq_free(dir);
}

static void assert_refused(const char *path, const nq_synthetic *s, const char *says) {
    novaq_error err = {.code = NOVAQ_OK};
    assert_int_equal(write_with(path, s, 1, &err), NOVAQ_E_ARG);
    if (strstr(err.msg, says) == NULL) {
        fail_msg("'%s' does not say '%s'", err.msg, says);
    }
    assert_false(nq_is_file(path));
}

static int stop_at_once(void *ctx, const novaq_progress *p) {
    (void)p;
    ++*(int *)ctx;
    return 1;
}

static void test_refusals(void **state) {
    (void)state;
    static const char *const unused[] = {"no_such_tensor=q8"};
    char *dir = scratch_dir();
    char *path = artifact_path(dir);
    int calls = 0;
    nq_synthetic s = {.shape = "giant", .bits = 2, .single_file = true};
    assert_refused(path, &s, "llama-2-7b");
    s.shape = "tiny";
    s.bits = 2.5;
    assert_refused(path, &s, "2.5");
    s.bits = 2;
    s.scheme = "raw";
    assert_refused(path, &s, "raw");
    s.scheme = "nonsense";
    assert_refused(path, &s, "nonsense");
    s.scheme = "k16d2l2";
    s.tensor_types = unused;
    s.tensor_type_count = 1;
    assert_refused(path, &s, "no_such_tensor");
    s.tensor_type_count = 0;
    s.progress = stop_at_once;
    s.progress_ctx = &calls;
    assert_int_equal(write_with(path, &s, 1, NULL), NOVAQ_E_INTERRUPTED);
    assert_int_equal(calls, 1);
    char **names = NULL;
    size_t count = 0;
    assert_int_equal(nq_list_dir(&names, &count, dir, NULL), NOVAQ_OK);
    assert_int_equal(count, 0); /* nothing half-written stays behind */
    nq_free_names(names, count);
    remove_dir(dir);
    nq_free(path);
    nq_free(dir);
}

/* ---- benching ------------------------------------------------------------------- */

static size_t entries(const char *dir) {
    char **names = NULL;
    size_t count = 0;
    assert_int_equal(nq_list_dir(&names, &count, dir, NULL), NOVAQ_OK);
    nq_free_names(names, count);
    return count;
}

static void check_test(const json_t *t, const char *name, double threads, unsigned repetitions) {
    const json_t *samples = json_object_get(t, "samples");
    double sum = 0;
    assert_string_equal(json_string_value(json_object_get(t, "test")), name);
    assert_near(number(t, "threads"), threads, 0, name);
    assert_int_equal(json_array_size(samples), repetitions);
    for (size_t i = 0; i < repetitions; i++) {
        double v = json_real_value(json_array_get(samples, i));
        assert_true(v > 0);
        sum += v;
    }
    double mean = number(t, "tokens_per_second");
    assert_near(mean, sum / repetitions, 1e-6 * mean, "mean");
    double sq = 0;
    for (size_t i = 0; i < repetitions; i++) {
        double v = json_real_value(json_array_get(samples, i)) - mean;
        sq += v * v;
    }
    double deviation = repetitions > 1 ? sqrt(sq / (repetitions - 1)) : 0;
    assert_near(number(t, "stddev"), deviation, 1e-4 * mean, "standard deviation");
}

static void test_bench(void **state) {
    (void)state;
    static const unsigned prompt[] = {4, 9};
    static const unsigned generate[] = {3, 0};
    static const unsigned depth[] = {0, 5};
    static const unsigned threads[] = {1, 2};
    static const char *const names[] = {"pp4", "pp9", "tg3", "pp4 @ d5", "pp9 @ d5", "tg3 @ d5"};
    char *dir = scratch_dir();
    char *text = NULL;
    assert_int_equal(setenv("TMPDIR", dir, 1), 0);
    novaq_bench_options o = NOVAQ_BENCH_OPTIONS_INIT;
    o.synthetic = "tiny";
    o.prompt = prompt;
    o.prompt_count = 2;
    o.generate = generate;
    o.generate_count = 2;
    o.depth = depth;
    o.depth_count = 2;
    o.threads = threads;
    o.threads_count = 2;
    o.repetitions = 3;
    o.kv_type = "q8";
    assert_int_equal(novaq_bench(&text, &o, NULL), NOVAQ_OK);
    json_t *report = report_of(text);
    const json_t *tests = json_object_get(report, "tests");
    assert_int_equal(json_array_size(tests), 12);
    for (size_t i = 0; i < 12; i++) {
        check_test(json_array_get(tests, i), names[i % 6], i < 6 ? 1 : 2, 3);
    }
    assert_near(number(report, "parameters"), 1312000, 0, "parameters");
    assert_string_equal(json_string_value(json_object_get(report, "kv_type")), "q8");
    assert_true(number(report, "load_ms") > 0 && number(report, "peak_memory") > 1e6);
    json_decref(report);
    assert_int_equal(entries(dir), 0); /* the temporary folder is gone */
    int calls = 0;
    o.progress = stop_at_once;
    o.progress_ctx = &calls;
    assert_int_equal(novaq_bench(&text, &o, NULL), NOVAQ_E_INTERRUPTED);
    assert_null(text);
    assert_int_equal(entries(dir), 0);
    unsetenv("TMPDIR");
    remove_dir(dir);
    nq_free(dir);
}

static void assert_bench_refused(const novaq_bench_options *o, const char *says) {
    novaq_error err = {.code = NOVAQ_OK};
    char *text = NULL;
    assert_int_equal(novaq_bench(&text, o, &err), NOVAQ_E_ARG);
    assert_null(text);
    if (strstr(err.msg, says) == NULL) {
        fail_msg("'%s' does not say '%s'", err.msg, says);
    }
}

static void test_bench_refusals(void **state) {
    (void)state;
    static const unsigned none[] = {0};
    static const unsigned long_prompt[] = {600};
    char *text = NULL;
    novaq_bench_options o = NOVAQ_BENCH_OPTIONS_INIT;
    assert_bench_refused(&o, "model");
    o.model = TINY("a.gguf");
    o.synthetic = "tiny";
    assert_bench_refused(&o, "model");
    o.model = NULL;
    o.repetitions = 0;
    assert_bench_refused(&o, "repetitions");
    o.repetitions = 1;
    o.prompt = none;
    o.prompt_count = 1;
    o.generate = none;
    o.generate_count = 1;
    assert_bench_refused(&o, "neither");
    o.prompt = long_prompt;
    assert_bench_refused(&o, "context");
    o.prompt_count = 1000;
    assert_bench_refused(&o, "prompt tokens");
    o.prompt_count = 0;
    o.kv_type = "q3";
    assert_bench_refused(&o, "q3");
    o.kv_type = NULL;
    o.synthetic = NULL;
    o.model = TINY("no-such-model.gguf");
    assert_int_equal(novaq_bench(&text, &o, NULL), NOVAQ_E_IO);
}

/* A source is benched like an artifact. */
static void test_bench_source(void **state) {
    (void)state;
    static const unsigned few[] = {4};
    char *text = NULL;
    novaq_bench_options o = NOVAQ_BENCH_OPTIONS_INIT;
    o.model = TINY("a.gguf");
    o.prompt = few;
    o.prompt_count = 1;
    o.generate = few;
    o.generate_count = 1;
    o.repetitions = 1;
    assert_int_equal(novaq_bench(&text, &o, NULL), NOVAQ_OK);
    json_t *report = report_of(text);
    check_test(json_array_get(json_object_get(report, "tests"), 0), "pp4",
               number(json_array_get(json_object_get(report, "tests"), 0), "threads"), 1);
    json_decref(report);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rates),          cmocka_unit_test(test_schemes),
        cmocka_unit_test(test_same_bytes),     cmocka_unit_test(test_rules),
        cmocka_unit_test(test_refusals),       cmocka_unit_test(test_bench),
        cmocka_unit_test(test_bench_refusals), cmocka_unit_test(test_bench_source),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
