/* test_tokenizer.c - ids against those of Hugging Face `tokenizers` (fixtures
 * written by make_tokenizer.py), both description paths, hostile descriptions,
 * bytes that are not UTF-8, and time on long runs.
 *
 * Owns: the small vocabularies. Refuses: real models; the Python oracle has one.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "base/mem.h"
#include "base/rng.h"
#include "model/describe.h"
#include "model/tokenizer.h"

static const char *const kinds[] = {"gpt-2", "gpt-2-space", "smollm",     "llama-bpe",
                                    "qwen2", "tekken",      "deepseek-v3"};
#define KINDS (sizeof kinds / sizeof kinds[0])

static json_t *load(const char *name) {
    char path[512];
    (void)snprintf(path, sizeof path, FIXTURES "/tokenizer/%s.json", name);
    json_error_t e;
    json_t *v = json_load_file(path, JSON_REJECT_DUPLICATES, &e);
    assert_non_null(v);
    return v;
}

/* The description of a fixture, by way of its tokenizer.json. */
static json_t *describe(const char *kind) {
    json_t *fixture = load(kind);
    json_t *desc = NULL;
    char *why = NULL;
    novaq_error err = {0};
    assert_int_equal(nq_describe_tokenizer_hf(&desc, &why, json_object_get(fixture, "tokenizer"),
                                              json_object_get(fixture, "config"), &err),
                     NOVAQ_OK);
    if (why != NULL) {
        fail_msg("%s: %s", kind, why);
    }
    json_decref(fixture);
    return desc;
}

static nq_tokenizer *open_desc(const json_t *desc) {
    nq_tokenizer *t = NULL;
    novaq_error err = {0};
    if (nq_tokenizer_open(&t, desc, &err) != NOVAQ_OK) {
        fail_msg("%s", err.msg);
    }
    return t;
}

static nq_tokenizer *open_kind(const char *kind) {
    json_t *desc = describe(kind);
    nq_tokenizer *t = open_desc(desc);
    json_decref(desc);
    return t;
}

static size_t encode(int32_t **ids, const nq_tokenizer *t, const char *text, size_t len,
                     int parse_special) {
    size_t count = 0;
    novaq_error err = {0};
    if (nq_tokenizer_encode(ids, &count, t, text, len, 0, parse_special, &err) != NOVAQ_OK) {
        fail_msg("%s", err.msg);
    }
    return count;
}

static void check_line(const nq_tokenizer *t, const char *kind, size_t line, const json_t *text,
                       const json_t *expected) {
    int32_t *ids = NULL;
    size_t count = 0;
    novaq_error err = {0};
    assert_int_equal(nq_tokenizer_encode(&ids, &count, t, json_string_value(text),
                                         json_string_length(text), 1, 1, &err),
                     NOVAQ_OK);
    if (count != json_array_size(expected)) {
        fail_msg("%s line %zu: %zu ids, not %zu", kind, line, count, json_array_size(expected));
    }
    for (size_t i = 0; i < count; i++) {
        if (ids[i] != json_integer_value(json_array_get(expected, i))) {
            fail_msg("%s line %zu: id %zu is %d", kind, line, i, (int)ids[i]);
        }
    }
    nq_free(ids);
}

static void check_lines(const nq_tokenizer *t, const char *kind) {
    json_t *lines = load("lines");
    json_t *fixture = load(kind);
    const json_t *ids = json_object_get(fixture, "ids");
    assert_true(json_array_size(lines) > 300);
    assert_int_equal(json_array_size(lines), json_array_size(ids));
    for (size_t i = 0; i < json_array_size(lines); i++) {
        check_line(t, kind, i, json_array_get(lines, i), json_array_get(ids, i));
    }
    json_decref(fixture);
    json_decref(lines);
}

static void ids_equal_the_reference(void **state) {
    (void)state;
    for (size_t k = 0; k < KINDS; k++) {
        nq_tokenizer *t = open_kind(kinds[k]);
        check_lines(t, kinds[k]);
        nq_tokenizer_close(&t);
        assert_null(t);
    }
}

/* description -> tokenizer.json -> description gives the same tokenizer. */
static void export_round_trip(void **state) {
    (void)state;
    for (size_t k = 0; k < KINDS; k++) {
        json_t *model =
            json_pack("{s:o, s:s, s:{s:i}}", "tokenizer", describe(kinds[k]), "chat_template",
                      "{{ x }}", "hyperparameters", "context_length", 77);
        json_t *tokenizer = NULL;
        json_t *config = NULL;
        json_t *desc = NULL;
        char *why = NULL;
        novaq_error err = {0};
        assert_int_equal(nq_tokenizer_to_hf(&tokenizer, &config, model, &err), NOVAQ_OK);
        assert_string_equal(json_string_value(json_object_get(config, "chat_template")), "{{ x }}");
        assert_string_equal(json_string_value(json_object_get(config, "eos_token")), "<|im_end|>");
        assert_int_equal(json_integer_value(json_object_get(config, "model_max_length")), 77);
        assert_int_equal(nq_describe_tokenizer_hf(&desc, &why, tokenizer, config, &err), NOVAQ_OK);
        assert_null(why);
        assert_true(json_equal(desc, json_object_get(model, "tokenizer")));
        nq_tokenizer *t = open_desc(desc);
        check_lines(t, kinds[k]);
        nq_tokenizer_close(&t);
        json_decref(desc);
        json_decref(config);
        json_decref(tokenizer);
        json_decref(model);
    }
}

static void export_needs_a_tokenizer(void **state) {
    (void)state;
    json_t *model = json_object();
    json_t *tokenizer = NULL;
    json_t *config = NULL;
    novaq_error err = {0};
    assert_int_equal(nq_tokenizer_to_hf(&tokenizer, &config, model, &err), NOVAQ_E_UNSUPPORTED);
    assert_null(tokenizer);
    assert_null(config);
    json_decref(model);
}

static void decode_gives_the_text_back(void **state) {
    (void)state;
    json_t *lines = load("lines");
    nq_tokenizer *t = open_kind("tekken"); /* no normalizer, all bytes */
    for (size_t i = 0; i < json_array_size(lines); i++) {
        const json_t *line = json_array_get(lines, i);
        int32_t *ids = NULL;
        size_t count = encode(&ids, t, json_string_value(line), json_string_length(line), 1);
        char *text = NULL;
        size_t len = 0;
        novaq_error err = {0};
        assert_int_equal(nq_tokenizer_decode(&text, &len, t, ids, count, 0, &err), NOVAQ_OK);
        assert_int_equal(len, json_string_length(line));
        assert_string_equal(text, json_string_value(line));
        nq_free(text);
        nq_free(ids);
    }
    nq_tokenizer_close(&t);
    json_decref(lines);
}

static void special_tokens(void **state) {
    (void)state;
    static const char text[] = "<|im_end|>ba<|im_";
    nq_tokenizer *t = open_kind("smollm");
    int32_t *ids = NULL;
    size_t n = encode(&ids, t, text, sizeof text - 1, 1);
    assert_int_equal(ids[0], 1);
    assert_int_equal(ids[n - 1], 3);
    assert_true(nq_tokenizer_is_end(t, 1));
    assert_false(nq_tokenizer_is_end(t, 0));
    assert_false(nq_tokenizer_is_end(t, -1));
    assert_false(nq_tokenizer_is_end(t, 1 << 20));
    char *back = NULL;
    size_t len = 0;
    novaq_error err = {0};
    assert_int_equal(nq_tokenizer_decode(&back, &len, t, ids, n, 1, &err), NOVAQ_OK);
    assert_string_equal(back, "ba");
    nq_free(back);
    nq_free(ids);
    /* Not parsed: spelled out, and no control token among the ids. */
    n = encode(&ids, t, text, sizeof text - 1, 0);
    for (size_t i = 0; i < n; i++) {
        assert_true(ids[i] > 4);
    }
    assert_int_equal(nq_tokenizer_decode(&back, &len, t, ids, n, 1, &err), NOVAQ_OK);
    assert_string_equal(back, text);
    nq_free(back);
    nq_free(ids);
    nq_tokenizer_close(&t);
}

static void user_tokens_always_match(void **state) {
    (void)state;
    nq_tokenizer *t = open_kind("qwen2");
    int32_t *ids = NULL;
    size_t n = encode(&ids, t, "<tool><tool>x", 13, 0);
    assert_int_equal(n, 2);
    assert_int_equal(ids[1], ids[0] + 1);
    nq_free(ids);
    nq_tokenizer_close(&t);
}

static void begin_token(void **state) {
    (void)state;
    nq_tokenizer *t = open_kind("llama-bpe");
    assert_int_equal(nq_tokenizer_bos(t), 0);
    assert_true(nq_tokenizer_adds_bos(t));
    int32_t *ids = NULL;
    size_t count = 0;
    assert_int_equal(nq_tokenizer_encode(&ids, &count, t, NULL, 0, 1, 0, NULL), NOVAQ_OK);
    assert_int_equal(count, 1);
    assert_int_equal(ids[0], 0);
    nq_free(ids);
    nq_tokenizer_close(&t);
    t = open_kind("qwen2");
    assert_false(nq_tokenizer_adds_bos(t));
    nq_tokenizer_close(&t);
}

static void bad_ids_are_refused(void **state) {
    (void)state;
    nq_tokenizer *t = open_kind("gpt-2");
    char *text = NULL;
    size_t len = 0;
    novaq_error err = {0};
    int32_t ids[] = {5, (int32_t)nq_tokenizer_vocab(t)};
    assert_int_equal(nq_tokenizer_decode(&text, &len, t, ids, 2, 0, &err), NOVAQ_E_ARG);
    assert_null(text);
    ids[1] = -1;
    assert_int_equal(nq_tokenizer_decode(&text, &len, t, ids, 2, 0, &err), NOVAQ_E_ARG);
    nq_tokenizer_close(&t);
}

/* Any bytes at all encode and come back (tekken, which has every byte; qwen2
 * normalizes what is well-formed between them, so only ASCII mixes in there). */
static void random_bytes_survive(void **state) {
    (void)state;
    nq_tokenizer *plain = open_kind("tekken");
    nq_tokenizer *nfc = open_kind("qwen2");
    for (uint64_t round = 0; round < 2000; round++) {
        char bytes[48];
        for (size_t i = 0; i < sizeof bytes; i++) {
            bytes[i] = (char)nq_hash3(3, round, i);
        }
        const nq_tokenizer *t = (round & 1) != 0 ? nfc : plain;
        if (t == nfc) {
            for (size_t i = 0; i < sizeof bytes; i++) { /* lone continuation bytes */
                bytes[i] = (char)((unsigned char)bytes[i] < 0xC0 ? bytes[i] : 'x');
            }
        }
        int32_t *ids = NULL;
        size_t n = encode(&ids, t, bytes, sizeof bytes, 1);
        char *text = NULL;
        size_t len = 0;
        novaq_error err = {0};
        assert_int_equal(nq_tokenizer_decode(&text, &len, t, ids, n, 0, &err), NOVAQ_OK);
        assert_int_equal(len, sizeof bytes);
        assert_memory_equal(text, bytes, len);
        nq_free(text);
        nq_free(ids);
    }
    nq_tokenizer_close(&nfc);
    nq_tokenizer_close(&plain);
}

static double seconds(void) {
    struct timespec ts;
    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + 1e-9 * (double)ts.tv_nsec;
}

/* One mebibyte of one short pattern. A quadratic step anywhere would take hours;
 * the limit leaves room for sanitizers and a busy machine. */
static void long_runs_take_linear_time(void **state) {
    (void)state;
    static const char *const patterns[] = {" ",
                                           "a",
                                           "\n",
                                           "A",
                                           "1",
                                           "'",
                                           "<",
                                           "\xFF",
                                           "\xCC\x81",
                                           "\xE4\xB8\xAD",
                                           " \n",
                                           "<|im_",
                                           "\xCC\x81\xCC\xA3"};
    const size_t size = (size_t)1 << 20;
    char *text = NULL;
    assert_int_equal(nq_alloc(&text, size, 1, NULL), NOVAQ_OK);
    for (size_t k = 0; k < KINDS; k++) {
        nq_tokenizer *t = open_kind(kinds[k]);
        for (size_t p = 0; p < sizeof patterns / sizeof patterns[0]; p++) {
            size_t n = strlen(patterns[p]);
            for (size_t i = 0; i < size; i++) {
                text[i] = patterns[p][i % n];
            }
            int32_t *ids = NULL;
            double start = seconds();
            size_t count = encode(&ids, t, text, size - size % n, 1);
            assert_true(count > 0);
            assert_true(seconds() - start < 30);
            nq_free(ids);
        }
        nq_tokenizer_close(&t);
    }
    nq_free(text);
}

/* ---- descriptions ---------------------------------------------------------- */

static void refuse_open(const char *key, json_t *value, novaq_status status, const char *says) {
    json_t *desc = describe("smollm");
    if (value == NULL) {
        (void)json_object_del(desc, key);
    } else {
        (void)json_object_set_new(desc, key, value);
    }
    nq_tokenizer *t = NULL;
    novaq_error err = {0};
    novaq_status st = nq_tokenizer_open(&t, desc, &err);
    if (st != status || strstr(err.msg, says) == NULL) {
        fail_msg("%s: status %d, \"%s\"", key, (int)st, err.msg);
    }
    assert_null(t);
    json_decref(desc);
}

static void malformed_descriptions(void **state) {
    (void)state;
    const novaq_status bad = NOVAQ_E_FORMAT;
    const novaq_status not = NOVAQ_E_UNSUPPORTED;
    refuse_open("model", NULL, bad, "model");
    refuse_open("model", json_string("llama"), not, "\"llama\"");
    refuse_open("pre", json_integer(1), bad, "pre");
    refuse_open("pre", json_string("falcon"), not, "falcon");
    refuse_open("normalizer", json_string("nfkc"), not, "nfkc");
    refuse_open("normalizer", json_integer(0), not, "normalizer");
    refuse_open("tokens", json_object(), bad, "tokens");
    refuse_open("tokens", json_array(), bad, "0 tokens");
    refuse_open("tokens", json_pack("[s, s]", "a", "b"), bad, "2 tokens");
    refuse_open("token_types", NULL, bad, "token_types");
    refuse_open("token_types", json_pack("[i]", 1), bad, "1 token types");
    refuse_open("merges", json_true(), bad, "merges");
    refuse_open("merges", json_pack("[i]", 1), bad, "merge 0");
    refuse_open("merges", json_pack("[s]", ""), bad, "merge 0");
    refuse_open("merges", json_pack("[s]", "a"), bad, "merge 0");
    refuse_open("merges", json_pack("[s]", "a "), bad, "merge 0");
    refuse_open("merges", json_pack("[s]", " a"), bad, "merge 0");
    refuse_open("merges", json_pack("[s]", "a b c"), bad, "merge 0");
    refuse_open("merges", json_pack("[s]", "qqq b"), bad, "left part");
    refuse_open("merges", json_pack("[s]", "b qqq"), bad, "right part");
    refuse_open("merges", json_pack("[s]", "! \""), bad, "result");
    refuse_open("bos_id", json_integer(99999), bad, "bos_id");
    refuse_open("eos_id", json_integer(-1), bad, "eos_id");
    refuse_open("eos_id", json_real(1.0), bad, "eos_id");
    refuse_open("eot_ids", json_integer(1), bad, "eot_ids");
    refuse_open("eot_ids", json_pack("[i, i]", 1, 99999), bad, "eot_ids[1]");
    refuse_open("add_bos", json_integer(1), bad, "add_bos");
    refuse_open("ignore_merges", json_string("no"), bad, "ignore_merges");
    refuse_open("add_space_prefix", json_true(), not, "space prefix");
}

static void malformed_vocabulary(void **state) {
    (void)state;
    nq_tokenizer *t = NULL;
    novaq_error err = {0};
    json_t *desc = describe("smollm");
    json_t *tokens = json_object_get(desc, "tokens");
    json_t *types = json_object_get(desc, "token_types");
    (void)json_array_set_new(types, 9, json_integer(7));
    assert_int_equal(nq_tokenizer_open(&t, desc, &err), NOVAQ_E_FORMAT);
    assert_non_null(strstr(err.msg, "type of token 9"));
    (void)json_array_set_new(types, 9, json_integer(1));
    (void)json_array_set_new(tokens, 9, json_integer(1));
    assert_int_equal(nq_tokenizer_open(&t, desc, &err), NOVAQ_E_FORMAT);
    assert_non_null(strstr(err.msg, "token 9"));
    (void)json_array_set_new(tokens, 9, json_string(json_string_value(json_array_get(tokens, 7))));
    assert_int_equal(nq_tokenizer_open(&t, desc, &err), NOVAQ_E_UNSUPPORTED);
    assert_non_null(strstr(err.msg, "tokens 7 and 9"));
    json_decref(desc);
    assert_int_equal(nq_tokenizer_open(&t, NULL, &err), NOVAQ_E_FORMAT);
}

static void expect_why(const json_t *tokenizer, const json_t *config, const char *says) {
    json_t *desc = NULL;
    char *why = NULL;
    novaq_error err = {0};
    assert_int_equal(nq_describe_tokenizer_hf(&desc, &why, tokenizer, config, &err), NOVAQ_OK);
    assert_null(desc);
    if (why == NULL || strstr(why, says) == NULL) {
        fail_msg("\"%s\" instead of \"%s\"", why == NULL ? "" : why, says);
    }
    nq_free(why);
}

/* tokenizer.json with the member at path (in_model: of "model") replaced. */
static void refuse_hf(bool in_model, const char *key, json_t *value, const char *says) {
    json_t *fixture = load("llama-bpe");
    json_t *tokenizer = json_object_get(fixture, "tokenizer");
    (void)json_object_set_new(in_model ? json_object_get(tokenizer, "model") : tokenizer, key,
                              value);
    expect_why(tokenizer, json_object_get(fixture, "config"), says);
    json_decref(fixture);
}

static json_t *parse(const char *text) {
    json_t *v = json_loads(text, JSON_DECODE_ANY, NULL);
    assert_non_null(v);
    return v;
}

static void unknown_parts_of_tokenizer_json(void **state) {
    (void)state;
    expect_why(NULL, NULL, "missing");
    refuse_hf(false, "pre_tokenizer", json_null(), "pre_tokenizer null");
    refuse_hf(false, "pre_tokenizer", parse("{\"type\":\"Whitespace\"}"), "Whitespace");
    refuse_hf(false, "normalizer", parse("{\"type\":\"NFKC\"}"), "NFKC");
    refuse_hf(
        false, "normalizer",
        parse("{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFC\"},{\"type\":\"Strip\"}]}"),
        "Sequence");
    refuse_hf(false, "decoder", parse("{\"type\":\"Metaspace\"}"), "Metaspace");
    refuse_hf(false, "truncation", json_object(), "truncation");
    refuse_hf(false, "padding", parse("{\"strategy\":{\"Fixed\":8}}"), "padding");
    refuse_hf(false, "post_processor", parse("{\"type\":\"BertProcessing\"}"), "BertProcessing");
    refuse_hf(false, "post_processor", parse("{\"type\":\"TemplateProcessing\",\"single\":[]}"),
              "[begin] text [end]");
    refuse_hf(
        false, "post_processor",
        parse("{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"x\"}},"
              "{\"Sequence\":{\"id\":\"A\"}}],\"special_tokens\":{\"x\":{\"ids\":[1]}}}"),
        "bos_id");
    refuse_hf(false, "added_tokens",
              parse("[{\"id\":0,\"content\":\"<|begin|>\",\"lstrip\":true,\"special\":true}]"),
              "literally");
    refuse_hf(false, "added_tokens", parse("[{\"id\":0,\"content\":\"other\"}]"), "contradicts");
    refuse_hf(false, "added_tokens", parse("[{\"id\":-4,\"content\":\"other\"}]"), "no id");
    refuse_hf(false, "added_tokens",
              parse("[{\"id\":0,\"content\":\"<|begin|>\",\"special\":true,\"normalized\":true},"
                    "{\"id\":1,\"content\":\"<|im_end|>\",\"special\":true}]"),
              "after normalization");
    refuse_hf(true, "type", json_string("Unigram"), "Unigram");
    refuse_hf(true, "dropout", json_real(0.5), "dropout");
    refuse_hf(true, "end_of_word_suffix", json_string("</w>"), "suffix");
    refuse_hf(true, "vocab", parse("{\"a\":0,\"b\":0}"), "two tokens have id 0");
    refuse_hf(true, "vocab", parse("{\"a\":4294967296}"), "no id");
    refuse_hf(true, "merges", parse("[[\"a\",\"b\",\"c\"]]"), "merge 0");
    refuse_hf(true, "merges", parse("[[\"a\",\"qqq\"]]"), "right part");
    json_t *fixture = load("smollm"); /* lacks bytes: an unknown token would show */
    json_t *model = json_object_get(json_object_get(fixture, "tokenizer"), "model");
    (void)json_object_set_new(model, "unk_token", json_string("<|begin|>"));
    expect_why(json_object_get(fixture, "tokenizer"), NULL, "unknown-token");
    json_decref(fixture);
}

/* ---- GGUF keys ------------------------------------------------------------- */

typedef struct gguf_keys {
    nq_gguf_kv kv[16];
    size_t count;
    nq_gguf_string *tokens;
    nq_gguf_string *merges;
    nq_gguf_string texts[2];
    uint8_t *types;
    uint8_t ids[2][4];
    uint8_t flag;
} gguf_keys;

static nq_gguf_string *strings_of(const json_t *list) {
    nq_gguf_string *s = NULL;
    size_t count = json_array_size(list);
    assert_int_equal(nq_alloc(&s, count, sizeof *s, NULL), NOVAQ_OK);
    for (size_t i = 0; i < count; i++) {
        const json_t *v = json_array_get(list, i);
        s[i] = (nq_gguf_string){json_string_value(v), json_string_length(v)};
    }
    return s;
}

/* As the parser does: elem repeats the type of a scalar. */
static void add(gguf_keys *g, nq_gguf_kv kv) {
    kv.elem = kv.type == NQ_GGUF_ARRAY ? kv.elem : kv.type;
    g->kv[g->count++] = kv;
}

static void add_strings(gguf_keys *g, const char *key, nq_gguf_string *s, size_t count) {
    add(g, (nq_gguf_kv){.key = key,
                        .type = count == 1 ? NQ_GGUF_STRING : NQ_GGUF_ARRAY,
                        .elem = NQ_GGUF_STRING,
                        .count = count,
                        .strings = s});
}

/* The keys a converter would write for a description. */
static void make_keys(gguf_keys *g, const json_t *desc, const char *pre) {
    const json_t *tokens = json_object_get(desc, "tokens");
    const json_t *types = json_object_get(desc, "token_types");
    size_t count = json_array_size(tokens);
    *g = (gguf_keys){.flag = 0};
    g->tokens = strings_of(tokens);
    g->merges = strings_of(json_object_get(desc, "merges"));
    g->texts[0] = (nq_gguf_string){"gpt2", 4};
    g->texts[1] = (nq_gguf_string){pre, strlen(pre)};
    assert_int_equal(nq_alloc(&g->types, count, 4, NULL), NOVAQ_OK);
    for (size_t i = 0; i < count; i++) {
        g->types[4 * i] = (uint8_t)json_integer_value(json_array_get(types, i));
    }
    g->ids[1][0] = 1;
    add_strings(g, "tokenizer.ggml.model", &g->texts[0], 1);
    add_strings(g, "tokenizer.ggml.pre", &g->texts[1], 1);
    add_strings(g, "tokenizer.ggml.tokens", g->tokens, count);
    add_strings(g, "tokenizer.ggml.merges", g->merges,
                json_array_size(json_object_get(desc, "merges")));
    add(g, (nq_gguf_kv){.key = "tokenizer.ggml.token_type",
                        .type = NQ_GGUF_ARRAY,
                        .elem = NQ_GGUF_I32,
                        .count = count,
                        .values = g->types});
    add(g, (nq_gguf_kv){.key = "tokenizer.ggml.bos_token_id",
                        .type = NQ_GGUF_U32,
                        .count = 1,
                        .values = g->ids[0]});
    add(g, (nq_gguf_kv){.key = "tokenizer.ggml.eos_token_id",
                        .type = NQ_GGUF_U32,
                        .count = 1,
                        .values = g->ids[1]});
    add(g, (nq_gguf_kv){.key = "tokenizer.ggml.add_space_prefix",
                        .type = NQ_GGUF_BOOL,
                        .count = 1,
                        .values = &g->flag});
}

static void free_keys(gguf_keys *g) {
    nq_free(g->tokens);
    nq_free(g->merges);
    nq_free(g->types);
}

static void gguf_keys_give_the_same_ids(void **state) {
    (void)state;
    static const char *const names[] = {"gpt-2", "smollm", "llama-bpe", "qwen2", "tekken"};
    for (size_t k = 0; k < sizeof names / sizeof names[0]; k++) {
        json_t *want = describe(names[k]);
        json_t *desc = NULL;
        char *why = NULL;
        novaq_error err = {0};
        gguf_keys g;
        make_keys(&g, want, names[k]);
        assert_int_equal(nq_describe_tokenizer_gguf(&desc, &why, g.kv, g.count, &err), NOVAQ_OK);
        assert_null(why);
        assert_true(json_equal(desc, want));
        nq_tokenizer *t = open_desc(desc);
        check_lines(t, names[k]);
        nq_tokenizer_close(&t);
        free_keys(&g);
        json_decref(desc);
        json_decref(want);
    }
}

static void expect_gguf_why(const gguf_keys *g, const char *says) {
    json_t *desc = NULL;
    char *why = NULL;
    novaq_error err = {0};
    assert_int_equal(nq_describe_tokenizer_gguf(&desc, &why, g->kv, g->count, &err), NOVAQ_OK);
    assert_null(desc);
    if (why == NULL || strstr(why, says) == NULL) {
        fail_msg("\"%s\" instead of \"%s\"", why == NULL ? "" : why, says);
    }
    nq_free(why);
}

static void bad_gguf_keys(void **state) {
    (void)state;
    json_t *want = describe("smollm");
    gguf_keys g;
    make_keys(&g, want, "smollm");
    const gguf_keys good = g;
    g.count = 0;
    expect_gguf_why(&g, "tokenizer.ggml.model");
    g = good;
    g.texts[0] = (nq_gguf_string){"llama", 5};
    g.kv[0].strings = &g.texts[0];
    expect_gguf_why(&g, "\"llama\"");
    g = good;
    g.texts[1] = (nq_gguf_string){"falcon", 6};
    g.kv[1].strings = &g.texts[1];
    expect_gguf_why(&g, "\"falcon\"");
    g = good;
    g.kv[1].key = "tokenizer.ggml.other";
    expect_gguf_why(&g, "tokenizer.ggml.pre is missing");
    g = good;
    g.kv[2].count = 3;
    expect_gguf_why(&g, "token_type");
    g = good;
    g.kv[3] = g.kv[4];
    g.kv[3].key = "tokenizer.ggml.merges";
    expect_gguf_why(&g, "not an array of strings");
    g = good;
    g.kv[4].elem = NQ_GGUF_F32;
    expect_gguf_why(&g, "token_type");
    g = good;
    g.kv[7].type = NQ_GGUF_U8;
    expect_gguf_why(&g, "add_space_prefix is not a boolean");
    g = good;
    g.kv[6].type = NQ_GGUF_F32;
    g.kv[6].elem = NQ_GGUF_F32;
    expect_gguf_why(&g, "eos_token_id is not an integer");
    g = good;
    nq_gguf_string keep = g.tokens[20];
    g.tokens[20] = (nq_gguf_string){"\xC3", 1};
    expect_gguf_why(&g, "tokens[20] is not UTF-8");
    g.tokens[20] = (nq_gguf_string){"a\0b", 3};
    expect_gguf_why(&g, "tokens[20]");
    g.tokens[20] = g.tokens[21];
    expect_gguf_why(&g, "tokens 20 and 21");
    g.tokens[20] = keep;
    g.merges[2] = (nq_gguf_string){"ab", 2};
    expect_gguf_why(&g, "merge 2");
    free_keys(&g);
    json_decref(want);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids_equal_the_reference),
        cmocka_unit_test(export_round_trip),
        cmocka_unit_test(export_needs_a_tokenizer),
        cmocka_unit_test(decode_gives_the_text_back),
        cmocka_unit_test(special_tokens),
        cmocka_unit_test(user_tokens_always_match),
        cmocka_unit_test(begin_token),
        cmocka_unit_test(bad_ids_are_refused),
        cmocka_unit_test(random_bytes_survive),
        cmocka_unit_test(long_runs_take_linear_time),
        cmocka_unit_test(malformed_descriptions),
        cmocka_unit_test(malformed_vocabulary),
        cmocka_unit_test(unknown_parts_of_tokenizer_json),
        cmocka_unit_test(gguf_keys_give_the_same_ids),
        cmocka_unit_test(bad_gguf_keys),
    };
    return cmocka_run_group_tests_name("tokenizer", tests, NULL, NULL);
}
