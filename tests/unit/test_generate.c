/* test_generate.c - generating text through the public interface. */
#include "model_util.h"

#include "model/utf8.h"

typedef struct sink {
    char text[4096];
    size_t len;
    int calls;
    int stop_after; /* 0: never */
} sink;

/* Every piece must be whole characters. */
static int receive(void *ctx, const char *text, size_t len) {
    sink *s = ctx;
    for (size_t i = 0; i < len;) {
        int n = nq_utf8_whole((const uint8_t *)text + i, len - i);
        assert_true(n > 0);
        i += (size_t)n;
    }
    assert_true(len > 0 && s->len + len < sizeof s->text);
    memcpy(s->text + s->len, text, len);
    s->len += len;
    s->calls++;
    return s->stop_after != 0 && s->calls >= s->stop_after;
}

static novaq_model *open_model(const char *path, unsigned threads) {
    novaq_model *m = NULL;
    novaq_error err = {0};
    novaq_model_options o = NOVAQ_MODEL_OPTIONS_INIT;
    o.threads = threads;
    if (novaq_model_open(&m, path, &o, &err) != NOVAQ_OK) {
        fail_msg("%s", err.msg);
    }
    return m;
}

static novaq_generate_options options(sink *s) {
    novaq_generate_options o = NOVAQ_GENERATE_OPTIONS_INIT;
    memset(s, 0, sizeof *s);
    o.prompt = "the small model";
    o.text = receive;
    o.text_ctx = s;
    o.max_tokens = 30;
    o.ignore_eos = 1;
    return o;
}

static json_t *generate(novaq_model *m, const novaq_generate_options *o) {
    char *report = NULL;
    json_t *r = NULL;
    novaq_error err = {0};
    if (novaq_generate(&report, m, o, &err) != NOVAQ_OK) {
        fail_msg("%s", err.msg);
    }
    r = json_loads(report, JSON_ALLOW_NUL, NULL); /* a model may say U+0000 */
    assert_non_null(r);
    novaq_free(report);
    return r;
}

static void assert_stop(const json_t *r, const char *why) {
    assert_string_equal(json_string_value(json_object_get(r, "stop")), why);
}

/* The same seed gives the same text, streamed and reported, on any threads. */
static void test_same_seed(void **state) {
    sink first;
    sink other;
    (void)state;
    novaq_model *m = open_model(TINY("a.gguf"), 1);
    novaq_generate_options o = options(&first);
    json_t *r = generate(m, &o);
    const json_t *text = json_object_get(r, "text");
    assert_int_equal(json_string_length(text), first.len);
    assert_memory_equal(json_string_value(text), first.text, first.len);
    assert_stop(r, "length");
    assert_int_equal(number(r, "tokens"), 30);
    assert_true(number(r, "prompt_tokens") > 1);
    json_decref(r);
    novaq_model_close(&m);
    assert_null(m);
    m = open_model(TINY("a.gguf"), 2);
    o = options(&other);
    json_decref(generate(m, &o));
    assert_int_equal(first.len, other.len);
    assert_memory_equal(first.text, other.text, first.len);
    o = options(&other);
    o.seed = 43;
    json_decref(generate(m, &o));
    assert_true(first.len != other.len || memcmp(first.text, other.text, first.len) != 0);
    novaq_model_close(&m);
}

static void test_stops(void **state) {
    sink s;
    (void)state;
    novaq_model *m = open_model(TINY("b-hf"), 1);
    novaq_generate_options o = options(&s);
    o.max_tokens = 1000; /* the context is 64 */
    json_t *r = generate(m, &o);
    assert_stop(r, "context");
    assert_int_equal(number(r, "prompt_tokens") + number(r, "tokens"), 65);
    json_decref(r);
    o = options(&s);
    o.max_tokens = 0;
    r = generate(m, &o);
    assert_stop(r, "length");
    assert_int_equal(number(r, "tokens"), 0);
    assert_int_equal(s.calls, 0);
    json_decref(r);
    o = options(&s);
    s.stop_after = 3;
    r = generate(m, &o);
    assert_stop(r, "callback");
    assert_int_equal(s.calls, 3);
    json_decref(r);
    novaq_model_close(&m);
}

/* Among many seeds some text ends by the end token, before its length. */
static void test_eos(void **state) {
    sink s;
    int ended = 0;
    (void)state;
    novaq_model *m = open_model(TINY("a.gguf"), 1);
    for (uint64_t seed = 0; seed < 40; seed++) {
        novaq_generate_options o = options(&s);
        o.seed = seed;
        o.ignore_eos = 0;
        o.temperature = 3.0F;
        o.top_k = 0;
        o.min_p = 0.0F;
        o.max_tokens = 40;
        json_t *r = generate(m, &o);
        if (strcmp(json_string_value(json_object_get(r, "stop")), "eos") == 0) {
            assert_true(number(r, "tokens") < 40);
            ended++;
        } else {
            assert_stop(r, "length");
        }
        json_decref(r);
    }
    assert_true(ended > 0);
    novaq_model_close(&m);
}

static void test_refusals(void **state) {
    sink s;
    char *report = NULL;
    char prompt[1024];
    (void)state;
    novaq_model *m = open_model(TINY("a.gguf"), 1);
    novaq_generate_options o = options(&s);
    o.prompt = NULL;
    assert_int_equal(novaq_generate(&report, m, &o, NULL), NOVAQ_E_ARG);
    memset(prompt, 'q', sizeof prompt - 1);
    prompt[sizeof prompt - 1] = '\0';
    o.prompt = prompt;
    assert_int_equal(novaq_generate(&report, m, &o, NULL), NOVAQ_E_ARG);
    o = options(&s);
    o.top_p = 2.0F;
    assert_int_equal(novaq_generate(&report, m, &o, NULL), NOVAQ_E_ARG);
    assert_null(report);
    novaq_model_close(&m);
    assert_int_not_equal(novaq_model_open(&m, TINY("text.txt"), NULL, NULL), NOVAQ_OK);
    assert_null(m);
}

static void test_tokens(void **state) {
    static const char TEXT[] = "the window \xF0\x9F\x98\x80 12";
    int32_t *ids = NULL;
    size_t count = 0;
    char *text = NULL;
    size_t len = 0;
    (void)state;
    novaq_model *m = open_model(TINY("b-hf"), 1);
    assert_int_equal(novaq_tokenize(&ids, &count, m, TEXT, strlen(TEXT), 1, 0, NULL), NOVAQ_OK);
    assert_true(count > 2 && ids[0] == 0);
    assert_int_equal(novaq_detokenize(&text, &len, m, ids, count, 1, NULL), NOVAQ_OK);
    assert_string_equal(text, TEXT);
    novaq_free(ids);
    novaq_free(text);
    novaq_model_close(&m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_seed), cmocka_unit_test(test_stops),  cmocka_unit_test(test_eos),
        cmocka_unit_test(test_refusals),  cmocka_unit_test(test_tokens),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
