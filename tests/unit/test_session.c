/* test_session.c - conversations through the public interface: templates of a
 * model, sessions that keep what they have computed, stop texts. */
#include "model_util.h"

#include "novaq.h"

#define TEMPLATE                                                                                   \
    "{{ bos_token }}{% for m in messages %}{{ m.role[0] }}{{ m.content }}{% if m.role == "         \
    "'assistant' %}{{ eos_token }}{% endif %}{% endfor %}{% if add_generation_prompt %}:{% endif " \
    "%}{{ extra }}{% if tools %}{{ tools|length }}{% endif %}"

static novaq_model *open_model(void) {
    novaq_model *m = NULL;
    novaq_error err = {0};
    novaq_model_options o = NOVAQ_MODEL_OPTIONS_INIT;
    o.threads = 1;
    if (novaq_model_open(&m, TINY("a.gguf"), &o, &err) != NOVAQ_OK) {
        fail_msg("%s", err.msg);
    }
    return m;
}

static novaq_session *open_session(novaq_model *m, unsigned n_ctx, const char *kv) {
    novaq_session *s = NULL;
    novaq_error err = {0};
    novaq_session_options o = NOVAQ_SESSION_OPTIONS_INIT;
    o.n_ctx = n_ctx;
    o.kv_type = kv;
    if (novaq_session_open(&s, m, &o, &err) != NOVAQ_OK) {
        fail_msg("%s", err.msg);
    }
    return s;
}

static novaq_generate_options options(const char *prompt) {
    novaq_generate_options o = NOVAQ_GENERATE_OPTIONS_INIT;
    o.prompt = prompt;
    o.max_tokens = 8;
    o.temperature = 0;
    o.ignore_eos = 1;
    return o;
}

static json_t *parse(char *report) {
    json_t *r = json_loads(report, JSON_ALLOW_NUL, NULL);
    assert_non_null(r);
    novaq_free(report);
    return r;
}

static json_t *generate(novaq_session *s, const novaq_generate_options *o) {
    char *report = NULL;
    novaq_error err = {0};
    if (novaq_session_generate(&report, s, o, &err) != NOVAQ_OK) {
        fail_msg("%s", err.msg);
    }
    return parse(report);
}

static json_t *generate_alone(novaq_model *m, const novaq_generate_options *o) {
    char *report = NULL;
    novaq_error err = {0};
    if (novaq_generate(&report, m, o, &err) != NOVAQ_OK) {
        fail_msg("%s", err.msg);
    }
    return parse(report);
}

static const json_t *text_of(const json_t *r) { return json_object_get(r, "text"); }

static void assert_stop(const json_t *r, const char *why) {
    assert_string_equal(json_string_value(json_object_get(r, "stop")), why);
}

/* ---- the template ----------------------------------------------------------------- */

static void test_render(void **state) {
    (void)state;
    novaq_model *m = open_model();
    novaq_error err = {0};
    novaq_chat_options o = NOVAQ_CHAT_OPTIONS_INIT;
    char *text = NULL;
    size_t len = 0;
    o.messages =
        "[{\"role\":\"user\",\"content\":\"h\\u00e9\"},{\"role\":\"assistant\",\"content\":"
        "\"x\"}]";
    assert_int_equal(novaq_chat_render(&text, &len, m, &o, &err), NOVAQ_E_UNSUPPORTED);
    assert_non_null(strstr(err.msg, "no chat template"));
    assert_null(text);
    o.chat_template = TEMPLATE;
    o.variables = "{\"extra\": \"E\"}";
    assert_int_equal(novaq_chat_render(&text, &len, m, &o, &err), NOVAQ_OK);
    assert_string_equal(text, "<s>uh\xC3\xA9"
                              "ax</s>:E");
    assert_int_equal(len, strlen(text));
    novaq_free(text);
    o.no_generation_prompt = 1;
    o.tools = "[{}, {}]";
    assert_int_equal(novaq_chat_render(&text, &len, m, &o, &err), NOVAQ_OK);
    assert_string_equal(text, "<s>uh\xC3\xA9"
                              "ax</s>E2");
    novaq_free(text);
    o.chat_template = "{{ raise_exception('no such role') }}";
    assert_int_equal(novaq_chat_render(&text, &len, m, &o, &err), NOVAQ_E_ARG);
    assert_non_null(strstr(err.msg, "no such role"));
    o.chat_template = "{{ strftime_now('%Y-%m-%d') }}";
    assert_int_equal(novaq_chat_render(&text, &len, m, &o, &err), NOVAQ_E_FORMAT);
    o.now = 86400;
    assert_int_equal(novaq_chat_render(&text, &len, m, &o, &err), NOVAQ_OK);
    assert_string_equal(text, "1970-01-02");
    novaq_free(text);
    novaq_model_close(&m);
}

static void test_render_refuses(void **state) {
    static const char *const bad[][3] = {
        {"{}", NULL, NULL}, {"[", NULL, NULL}, {"[1, 1,]", NULL, NULL}, {"[]", "[", NULL},
        {"[]", NULL, "[]"}, {"[]", NULL, "{"}, {"\"text\"", NULL, NULL}};
    (void)state;
    novaq_model *m = open_model();
    novaq_chat_options o = NOVAQ_CHAT_OPTIONS_INIT;
    o.chat_template = TEMPLATE;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        novaq_error err = {0};
        char *text = NULL;
        size_t len = 0;
        o.messages = bad[i][0];
        o.tools = bad[i][1];
        o.variables = bad[i][2];
        assert_int_not_equal(novaq_chat_render(&text, &len, m, &o, &err), NOVAQ_OK);
        assert_true(err.msg[0] != '\0');
        assert_null(text);
    }
    novaq_model_close(&m);
}

/* A conversation is its text, without the tokens a plain prompt would get. */
static void test_chat_prompt(void **state) {
    (void)state;
    novaq_model *m = open_model();
    novaq_session *s = open_session(m, 0, "f32");
    novaq_chat_options c = NOVAQ_CHAT_OPTIONS_INIT;
    novaq_generate_options o = options(NULL);
    c.messages = "[{\"role\":\"user\",\"content\":\"ab\"}]";
    c.chat_template = TEMPLATE;
    o.chat = &c;
    json_t *r = generate(s, &o);
    int32_t *ids = NULL;
    size_t count = 0;
    assert_int_equal(novaq_tokenize(&ids, &count, m, "<s>uab:", 7, 0, 1, NULL), NOVAQ_OK);
    assert_int_equal(number(r, "prompt_tokens"), count);
    novaq_free(ids);
    json_decref(r);
    o.prompt = "both";
    novaq_error err = {0};
    assert_int_equal(novaq_session_generate(NULL, s, &o, &err), NOVAQ_E_ARG);
    novaq_session_close(&s);
    novaq_model_close(&m);
}

/* ---- sessions ------------------------------------------------------------------------ */

/* What the cache still has from before changes no text. */
static void test_reuse(void **state) {
    static const char *const prompts[] = {"the small",       "the small model",
                                          "the small model", "the",
                                          "a model",         "the small model talks on"};
    static const char *const types[] = {"f32", "f16", "q8", NULL};
    (void)state;
    novaq_model *m = open_model();
    for (size_t k = 0; k < sizeof types / sizeof types[0]; k++) {
        novaq_session *s = open_session(m, 48, types[k]);
        assert_int_equal(novaq_session_n_ctx(s), 48);
        for (size_t i = 0; i < sizeof prompts / sizeof prompts[0]; i++) {
            novaq_generate_options o = options(prompts[i]);
            o.kv_type = types[k];
            json_t *kept = generate(s, &o);
            json_t *fresh = generate_alone(m, &o);
            assert_true(json_equal(text_of(kept), text_of(fresh)));
            assert_int_equal(number(fresh, "reused_tokens"), 0);
            assert_int_equal(number(kept, "prompt_tokens"), number(fresh, "prompt_tokens"));
            assert_true(number(kept, "reused_tokens") < number(kept, "prompt_tokens"));
            if (i == 1 || i == 2) {
                assert_true(number(kept, "reused_tokens") > 1);
            }
            json_decref(kept);
            json_decref(fresh);
        }
        novaq_session_close(&s);
        assert_null(s);
    }
    novaq_model_close(&m);
}

static int after_two(void *ctx, const char *text, size_t len) {
    int *calls = ctx;
    (void)text;
    return len > 0 && ++*calls == 2;
}

/* A session goes on after every kind of end. */
static void test_after_ends(void **state) {
    int calls = 0;
    (void)state;
    novaq_model *m = open_model();
    novaq_session *s = open_session(m, 24, NULL);
    novaq_generate_options o = options("the small");
    o.max_tokens = 1000;
    json_t *r = generate(s, &o);
    assert_stop(r, "context");
    json_decref(r);
    o.text = after_two;
    o.text_ctx = &calls;
    r = generate(s, &o);
    assert_stop(r, "callback");
    assert_true(number(r, "reused_tokens") > 0);
    json_decref(r);
    novaq_error err = {0};
    o.prompt = "a prompt that has more tokens than fit into the little context of this session";
    assert_int_equal(novaq_session_generate(NULL, s, &o, &err), NOVAQ_E_ARG);
    assert_non_null(strstr(err.msg, "context 24"));
    o = options("the small");
    r = generate(s, &o);
    json_t *fresh = generate_alone(m, &o);
    assert_true(json_equal(text_of(r), text_of(fresh)));
    json_decref(r);
    json_decref(fresh);
    novaq_session_close(&s);
    novaq_model_close(&m);
}

static void test_session_refuses(void **state) {
    (void)state;
    novaq_model *m = open_model();
    novaq_session *s = NULL;
    novaq_error err = {0};
    novaq_session_options o = NOVAQ_SESSION_OPTIONS_INIT;
    o.kv_type = "q4";
    assert_int_equal(novaq_session_open(&s, m, &o, &err), NOVAQ_E_ARG);
    assert_non_null(strstr(err.msg, "'q4'"));
    o.kv_type = NULL;
    o.n_ctx = 1U << 30;
    assert_int_equal(novaq_session_open(&s, m, &o, &err), NOVAQ_E_ARG);
    assert_int_equal(novaq_session_open(&s, NULL, &o, &err), NOVAQ_E_ARG);
    assert_null(s);
    novaq_session_close(&s);
    novaq_session_close(NULL);
    novaq_model_close(&m);
}

/* ---- stop texts ------------------------------------------------------------------------- */

typedef struct sink {
    char text[4096];
    size_t len;
} sink;

static int receive(void *ctx, const char *text, size_t len) {
    sink *s = ctx;
    assert_true(s->len + len < sizeof s->text);
    memcpy(s->text + s->len, text, len);
    s->len += len;
    return 0;
}

/* Every stop text ends the text in front of its first place, streamed or reported. */
static void test_stop_texts(void **state) {
    (void)state;
    novaq_model *m = open_model();
    novaq_generate_options o = options("the small model");
    o.max_tokens = 24;
    json_t *whole = generate_alone(m, &o);
    const char *text = json_string_value(text_of(whole));
    size_t len = json_string_length(text_of(whole));
    assert_true(len > 8);
    unsigned tried = 0;
    for (size_t at = 0; at + 3 < len; at++) {
        for (size_t n = 1; n <= 3; n++) {
            char mark[8] = {0};
            sink s = {.len = 0};
            const char *stops[] = {"never seen", "", mark};
            memcpy(mark, text + at, n);
            if (strlen(mark) != n) {
                continue; /* U+0000 cannot be asked for */
            }
            o.stop = stops;
            o.stop_count = 3;
            o.text = receive;
            o.text_ctx = &s;
            json_t *utf8 = json_string(mark);
            json_decref(utf8);
            if (utf8 == NULL) { /* a part of a character */
                assert_int_equal(novaq_generate(NULL, m, &o, NULL), NOVAQ_E_ARG);
                continue;
            }
            json_t *r = generate_alone(m, &o);
            const char *first = memmem(text, len, mark, n);
            assert_stop(r, "stop");
            assert_int_equal(json_string_length(text_of(r)), first - text);
            assert_memory_equal(json_string_value(text_of(r)), text, (size_t)(first - text));
            assert_int_equal(s.len, first - text);
            assert_memory_equal(s.text, text, s.len);
            json_decref(r);
            tried++;
        }
    }
    assert_true(tried > 10);
    const char *none[] = {"never seen"};
    o.stop = none;
    o.stop_count = 1;
    o.text = NULL;
    json_t *r = generate_alone(m, &o);
    assert_true(json_equal(text_of(r), text_of(whole)));
    assert_stop(r, "length");
    json_decref(r);
    json_decref(whole);
    novaq_model_close(&m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_render),      cmocka_unit_test(test_render_refuses),
        cmocka_unit_test(test_chat_prompt), cmocka_unit_test(test_reuse),
        cmocka_unit_test(test_after_ends),  cmocka_unit_test(test_session_refuses),
        cmocka_unit_test(test_stop_texts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
