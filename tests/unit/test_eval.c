/* test_eval.c - perplexity, KL, sizes and generation of the tiny models through
 * the public interface, against figures computed in float64 by numpy. */
#include "model_util.h"

#include <math.h>

static json_t *parse(char *report) {
    json_t *o = NULL;
    assert_non_null(report);
    assert_int_equal(nq_json_parse_object(&o, "report", report, strlen(report), NULL), NOVAQ_OK);
    novaq_free(report);
    return o;
}

static novaq_eval_options options(const char *model) {
    novaq_eval_options o = NOVAQ_EVAL_OPTIONS_INIT;
    o.model = model;
    o.text_file = TINY("text.txt");
    o.n_ctx = 16;
    o.threads = 2;
    return o;
}

static json_t *evaluate(const novaq_eval_options *o) {
    novaq_error err = {0};
    char *report = NULL;
    if (novaq_eval(&report, o, &err) != NOVAQ_OK) {
        fail_msg("%s", err.msg);
    }
    return parse(report);
}

static int setup(void **state) {
    *state = load_json(TINY("expected.json"));
    return 0;
}

static int teardown(void **state) {
    json_decref(*state);
    return 0;
}

static int count_calls(void *ctx, const novaq_progress *p) {
    int *calls = ctx;
    assert_string_equal(p->phase, "perplexity");
    assert_true(p->done <= p->total && p->value > 1.0);
    (*calls)++;
    return 0;
}

static void test_perplexity(void **state) {
    static const char *const PATHS[] = {TINY("a.gguf"), TINY("a-hf")};
    const json_t *want = *state;
    for (size_t i = 0; i < 2; i++) {
        int calls = 0;
        novaq_eval_options o = options(PATHS[i]);
        o.progress = count_calls;
        o.progress_ctx = &calls;
        json_t *got = evaluate(&o);
        assert_near(number(got, "perplexity") / number(want, "perplexity"), 1, 1e-4, PATHS[i]);
        assert_near(number(got, "perplexity_stderr") / number(want, "perplexity_stderr"), 1, 1e-4,
                    PATHS[i]);
        assert_int_equal(number(got, "chunks"), number(want, "chunks"));
        assert_int_equal(number(got, "tokens"), 7 * number(want, "chunks"));
        assert_int_equal(number(got, "text_tokens"),
                         json_array_size(json_object_get(want, "tokens")));
        assert_int_equal(number(got, "n_ctx"), 16);
        assert_null(json_object_get(got, "mean_kld"));
        assert_true(calls > 0);
        json_decref(got);
    }
}

static void test_chunks(void **state) {
    novaq_eval_options o = options(TINY("a.gguf"));
    o.chunks = 2;
    json_t *got = evaluate(&o);
    assert_int_equal(number(got, "chunks"), 2);
    assert_int_equal(number(got, "chunks_available"), number(*state, "chunks"));
    assert_int_equal(number(got, "tokens"), 14);
    json_decref(got);
    o.chunks = 100000; /* more than there are */
    got = evaluate(&o);
    assert_int_equal(number(got, "chunks"), number(*state, "chunks"));
    assert_int_equal(number(got, "chunks_available"), number(*state, "chunks"));
    json_decref(got);
}

static void test_against(void **state) {
    const json_t *want = json_object_get(*state, "against");
    novaq_eval_options o = options(TINY("aq.gguf"));
    const char *key = NULL;
    json_t *value = NULL;
    size_t keys = 0;
    o.against = TINY("a.gguf");
    json_t *got = evaluate(&o);
    json_object_foreach((json_t *)(uintptr_t)want, key, value) {
        double v = json_number_value(value);
        assert_near(number(got, key), v, 1e-6 + 2e-3 * fabs(v), key);
        keys++;
    }
    assert_int_equal(keys, 11);
    json_decref(got);
}

/* A model against itself, in another file format: nothing but rounding. */
static void test_against_itself(void **state) {
    (void)state;
    novaq_eval_options o = options(TINY("a-hf"));
    o.against = TINY("a.gguf");
    json_t *got = evaluate(&o);
    assert_near(number(got, "mean_kld"), 0, 1e-6, "mean_kld");
    assert_near(number(got, "same_top"), 1, 0, "same_top");
    json_decref(got);
    o.against = o.model;
    got = evaluate(&o);
    assert_near(number(got, "mean_kld"), 0, 0, "mean_kld");
    assert_near(number(got, "ln_ratio"), 0, 0, "ln_ratio");
    json_decref(got);
}

static int stop_at_once(void *ctx, const novaq_progress *p) {
    (void)ctx;
    (void)p;
    return 1;
}

static void test_refusals(void **state) {
    (void)state;
    novaq_error err = {0};
    char *report = (char *)&err;
    novaq_eval_options o = options(TINY("a.gguf"));
    o.n_ctx = 65;
    assert_int_equal(novaq_eval(&report, &o, &err), NOVAQ_E_ARG);
    assert_null(report);
    assert_non_null(strstr(err.msg, "context of 64; give --n-ctx 64 or less"));
    o.n_ctx = 3;
    assert_int_equal(novaq_eval(&report, &o, &err), NOVAQ_E_ARG);
    o = options(TINY("a.gguf"));
    o.layer_kl = 1;
    assert_int_equal(novaq_eval(&report, &o, &err), NOVAQ_E_ARG);
    o = options(TINY("a.gguf"));
    o.text_file = TINY("nothing.txt");
    assert_int_equal(novaq_eval(&report, &o, &err), NOVAQ_E_IO);
    o = options(TINY("nothing.gguf"));
    assert_int_not_equal(novaq_eval(&report, &o, &err), NOVAQ_OK);
    o = options(TINY("a.gguf"));
    o.progress = stop_at_once;
    assert_int_equal(novaq_eval(&report, &o, &err), NOVAQ_E_INTERRUPTED);
    char *dir = scratch_dir();
    char *path = NULL;
    assert_int_equal(nq_path_join(&path, dir, "short.txt", NULL), NOVAQ_OK);
    assert_int_equal(nq_write_file(path, "short", 5, NULL), NOVAQ_OK);
    o = options(TINY("a.gguf"));
    o.text_file = path;
    assert_int_equal(novaq_eval(&report, &o, &err), NOVAQ_E_ARG);
    assert_non_null(strstr(err.msg, " tokens, one window needs 16"));
    remove_dir(dir);
    nq_free(path);
    nq_free(dir);
}

/* Sizes of an artifact equal what lies on disk. */
static uint64_t folder_bytes(const char *dir) {
    char **names = NULL;
    size_t count = 0;
    uint64_t sum = 0;
    assert_int_equal(nq_list_dir(&names, &count, dir, NULL), NOVAQ_OK);
    for (size_t i = 0; i < count; i++) {
        char *p = NULL;
        char *text = NULL;
        size_t len = 0;
        assert_int_equal(nq_path_join(&p, dir, names[i], NULL), NOVAQ_OK);
        assert_int_equal(nq_read_file(&text, &len, p, (size_t)1 << 24, NULL), NOVAQ_OK);
        sum += len;
        nq_free(text);
        nq_free(p);
    }
    nq_free_names(names, count);
    return sum;
}

static void check_layers(const json_t *stats, bool artifact) {
    const json_t *layers = json_object_get(stats, "layers");
    const json_t *up = json_object_get(layers, "blk.0.ffn_up.weight");
    assert_int_equal(json_object_size(layers), 21);
    assert_int_equal(json_integer_value(json_array_get(json_object_get(up, "shape"), 1)), 64);
    if (!artifact) {
        assert_string_equal(json_string_value(json_object_get(up, "dtype")), "f16");
        assert_near(number(up, "bits_per_weight"), 16, 0, "f16 layer");
        assert_int_equal(number(up, "bytes"), 64 * 64 * 2);
        assert_null(json_object_get(up, "scheme"));
        return;
    }
    assert_string_equal(json_string_value(json_object_get(up, "scheme")), "k16d2l2");
    assert_near(number(up, "bits_per_weight"), 8.0 * number(up, "bytes") / 4096, 1e-6, "layer");
    assert_near(number(up, "relative_error"), 0.1, 0.05, "relative error of 2 bits");
    assert_true(number(up, "mse") > 0);
    assert_near(number(up, "cosine_similarity"), 0.95, 0.03, "cosine");
}

static void check_sizes(const json_t *s, uint64_t bytes, double parameters) {
    assert_int_equal(number(s, "bytes"), bytes);
    assert_near(number(s, "parameters"), parameters, 0, "parameters");
    assert_near(number(s, "bits_per_weight"), 8.0 * (double)bytes / parameters, 1e-5, "bits");
    assert_near(number(s, "ratio_fp16"), 2.0 * parameters / (double)bytes, 1e-5, "ratio");
    assert_near(number(s, "ratio_fp32"), 4.0 * parameters / (double)bytes, 1e-5, "ratio");
}

/* Totals over an artifact are those of its layers, and of its manifest. */
static void check_errors(const json_t *stats, const char *path) {
    const char *name = NULL;
    json_t *l = NULL;
    double quantized = 0;
    double source = 0;
    double all = 0;
    json_object_foreach(json_object_get(stats, "layers"), name, l) {
        double sum = number(l, "mse") * 8.0 * number(l, "bytes") / number(l, "bits_per_weight");
        all += sum;
        if (strcmp(json_string_value(json_object_get(l, "scheme")), "k16d2l2") == 0) {
            quantized += sum;
            source += sum / number(l, "relative_error");
        }
    }
    assert_true(quantized > 0);
    assert_near(number(stats, "relative_error") / (quantized / source), 1, 1e-6, "relative error");
    assert_near(number(stats, "global_mse") / (all / 84288), 1, 1e-6, "mean squared error");
    assert_near(number(stats, "global_cosine_similarity"), 0.97, 0.03, "cosine");
    char *report = NULL;
    assert_int_equal(novaq_validate(&report, path, NULL), NOVAQ_OK);
    json_t *o = parse(report);
    const json_t *summary = json_object_get(o, "summary");
    static const char *const keys[] = {"relative_error", "global_mse", "global_cosine_similarity"};
    for (size_t i = 0; i < 3; i++) {
        assert_near(number(summary, keys[i]) / number(stats, keys[i]), 1, 1e-8, keys[i]);
    }
    json_decref(o);
}

static char *compress(const char *dir) {
    char *path = NULL;
    novaq_error err = {0};
    novaq_compress_options o = NOVAQ_COMPRESS_OPTIONS_INIT;
    assert_int_equal(nq_path_join(&path, dir, "art", NULL), NOVAQ_OK);
    o.input = TINY("a.gguf");
    o.output = path;
    o.scheme = "k16d2l2";
    o.threads = 2;
    if (novaq_compress(NULL, &o, &err) != NOVAQ_OK) {
        fail_msg("%s", err.msg);
    }
    return path;
}

static json_t *stats_of(const char *path) {
    char *report = NULL;
    assert_int_equal(novaq_stats(&report, path, NULL), NOVAQ_OK);
    return parse(report);
}

static void test_stats(void **state) {
    const double parameters = 84288; /* 2 * 272*64 + 2 * (6 * 4096 + 128) + 64; k and v make one */
    (void)state;
    char *dir = scratch_dir();
    char *path = compress(dir);
    json_t *source = stats_of(TINY("a.gguf"));
    json_t *artifact = stats_of(path);
    char *text = NULL;
    size_t len = 0;
    assert_int_equal(nq_read_file(&text, &len, TINY("a.gguf"), (size_t)1 << 24, NULL), NOVAQ_OK);
    check_sizes(source, len, parameters);
    check_sizes(artifact, folder_bytes(path), parameters);
    assert_near(number(source, "bits_per_weight_linear"), 16, 0, "linear bits");
    check_layers(source, false);
    check_layers(artifact, true);
    check_errors(artifact, path);
    assert_null(json_object_get(source, "relative_error"));
    json_decref(source);
    json_decref(artifact);
    nq_free(text);
    remove_dir(dir);
    nq_free(path);
    nq_free(dir);
}

/* The artifact runs, and each coded layer causes some divergence alone. */
static void test_layer_kl(void **state) {
    (void)state;
    char *dir = scratch_dir();
    char *path = compress(dir);
    novaq_eval_options o = options(path);
    const char *key = NULL;
    json_t *value = NULL;
    o.against = TINY("a.gguf");
    o.layer_kl = 1;
    json_t *got = evaluate(&o);
    json_t *layers = json_object_get(got, "layer_kld");
    assert_int_equal(json_object_size(layers), 16);
    json_object_foreach(layers, key, value) {
        assert_true(json_real_value(value) > 1e-5);
        assert_true(json_real_value(value) < 10 * number(got, "mean_kld"));
    }
    json_decref(got);
    remove_dir(dir);
    nq_free(path);
    nq_free(dir);
}

static void test_info(void **state) {
    (void)state;
    char *report = NULL;
    assert_int_equal(novaq_info(&report, TINY("b-hf"), NULL), NOVAQ_OK);
    json_t *o = parse(report);
    const json_t *hp = json_object_get(o, "hyperparameters");
    assert_string_equal(json_string_value(json_object_get(o, "architecture")), "llama");
    assert_true(json_is_true(json_object_get(o, "runnable")));
    assert_true(json_is_true(json_object_get(hp, "tie_embeddings")));
    assert_int_equal(number(hp, "head_dim"), 16);
    assert_int_equal(number(json_object_get(o, "tokenizer"), "tokens"), 272);
    assert_int_equal(json_array_size(json_object_get(o, "tensors")), 20);
    json_decref(o);
    char *dir = altered_model("model_type", "\"bert\"");
    assert_int_equal(novaq_info(&report, dir, NULL), NOVAQ_OK);
    o = parse(report);
    assert_string_equal(json_string_value(json_object_get(o, "architecture")), "bert");
    assert_true(json_is_false(json_object_get(o, "runnable")));
    json_decref(o);
    remove_dir(dir);
    nq_free(dir);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_perplexity), cmocka_unit_test(test_chunks),
        cmocka_unit_test(test_against),    cmocka_unit_test(test_against_itself),
        cmocka_unit_test(test_refusals),   cmocka_unit_test(test_stats),
        cmocka_unit_test(test_layer_kl),   cmocka_unit_test(test_info),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
