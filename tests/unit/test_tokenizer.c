/* test_tokenizer.c - ids against those of Hugging Face `tokenizers` (fixtures
 * written by make_tokenizer.py), both description paths, hostile descriptions,
 * bytes that are not UTF-8, and time on long runs.
 *
 * Owns: the small vocabularies. Refuses: real models; the Python oracle has one.
 */
#include "tokenizer_util.h"

#include "base/rng.h"

static const char *const kinds[] = {"gpt-2",       "gpt-2-space",      "smollm",      "llama-bpe",
                                    "qwen2",       "tekken",           "deepseek-v3", "qwen35",
                                    "gpt-4o",      "deepseek-coder",   "falcon",      "custom",
                                    "spm-llama",   "spm-first",        "spm-gemma",   "spm-unknown",
                                    "spm-unigram", "spm-unigram-bytes"};
#define KINDS (sizeof kinds / sizeof kinds[0])

static bool is_spm(const char *kind) { return strncmp(kind, "spm-", 4) == 0; }

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
        assert_string_equal(json_string_value(json_object_get(config, "eos_token")),
                            is_spm(kinds[k]) ? "</s>" : "<|im_end|>");
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

/* Decoding drops the special tokens as the reference does; where that writes
 * U+FFFD for bytes that are not UTF-8, novaq gives the bytes. */
static void decode_equals_the_reference(void **state) {
    (void)state;
    size_t compared = 0;
    for (size_t k = 0; k < KINDS; k++) {
        json_t *fixture = load(kinds[k]);
        const json_t *texts = json_object_get(fixture, "text");
        nq_tokenizer *t = open_kind(kinds[k]);
        for (size_t i = 0; i < json_array_size(texts); i++) {
            const json_t *list = json_array_get(json_object_get(fixture, "ids"), i);
            const char *want = json_string_value(json_array_get(texts, i));
            int32_t ids[2048];
            size_t count = json_array_size(list);
            assert_true(count <= 2048);
            for (size_t n = 0; n < count; n++) {
                ids[n] = (int32_t)json_integer_value(json_array_get(list, n));
            }
            char *text = NULL;
            size_t len = 0;
            novaq_error err = {0};
            assert_int_equal(nq_tokenizer_decode(&text, &len, t, ids, count, 1, &err), NOVAQ_OK);
            if (strstr(want, "\xEF\xBF\xBD") == NULL && strcmp(text, want) != 0) {
                fail_msg("%s line %zu: \"%s\", not \"%s\"", kinds[k], i, text, want);
            }
            compared++;
            nq_free(text);
        }
        nq_tokenizer_close(&t);
        json_decref(fixture);
    }
    assert_true(compared > 2000);
}

/* Token by token the bytes are those of the whole, without what a text loses at
 * its beginning. */
static void pieces_make_the_text(void **state) {
    (void)state;
    static const char text[] = "Hello  w\xC3\xB6rld \xF0\x9F\x98\x80 12";
    for (size_t k = 0; k < KINDS; k++) {
        if (strcmp(kinds[k], "spm-unknown") == 0 || strcmp(kinds[k], "spm-unigram") == 0 ||
            strcmp(kinds[k], "custom") == 0 || strcmp(kinds[k], "smollm") == 0) {
            continue; /* these lose characters */
        }
        nq_tokenizer *t = open_kind(kinds[k]);
        int32_t *ids = NULL;
        size_t count = encode(&ids, t, text, sizeof text - 1, 1);
        char all[128] = {0};
        size_t len = 0;
        for (size_t i = 0; i < count; i++) {
            size_t n = 0;
            const uint8_t *piece = nq_tokenizer_piece(&n, t, ids[i], 1);
            assert_true(len + n < sizeof all);
            memcpy(all + len, piece, n);
            len += n;
        }
        assert_string_equal(all[0] == ' ' ? all + 1 : all, text);
        size_t n = 1;
        (void)nq_tokenizer_piece(&n, t, -1, 0);
        assert_int_equal(n, 0);
        nq_free(ids);
        nq_tokenizer_close(&t);
    }
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

/* SentencePiece: byte tokens carry what is not UTF-8, or the unknown token does. */
static void bad_bytes_become_byte_tokens(void **state) {
    (void)state;
    static const char text[] = "a\xFF\xE4\xB8z";
    nq_tokenizer *t = open_kind("spm-gemma");
    int32_t *ids = NULL;
    size_t count = encode(&ids, t, text, 5, 1);
    char *back = NULL;
    size_t len = 0;
    novaq_error err = {0};
    assert_int_equal(count, 5);
    assert_int_equal(ids[1], 3 + 0xFF);
    assert_int_equal(ids[2], 3 + 0xE4);
    assert_int_equal(nq_tokenizer_decode(&back, &len, t, ids, count, 0, &err), NOVAQ_OK);
    assert_int_equal(len, 5);
    assert_memory_equal(back, text, 5);
    nq_free(back);
    nq_free(ids);
    nq_tokenizer_close(&t);
    t = open_kind("spm-unigram");
    count = encode(&ids, t, "\xFF\xFE", 2, 1);
    assert_true(count > 0);
    assert_int_equal(ids[count - 1], 0);
    nq_free(ids);
    nq_tokenizer_close(&t);
}

/* A quarter of a mebibyte of one short pattern. A quadratic step would take minutes;
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
    const size_t size = (size_t)1 << 18;
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
            assert_true(count > 0 || strcmp(kinds[k], "custom") == 0); /* which removes */
            assert_true(seconds() - start < 30);
            nq_free(ids);
        }
        nq_tokenizer_close(&t);
    }
    nq_free(text);
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
    static const char *const names[] = {"gpt-2",  "smollm", "llama-bpe",      "qwen2", "tekken",
                                        "qwen35", "gpt-4o", "deepseek-coder", "falcon"};
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

/* A SentencePiece model as GGUF holds it: scores, and no merges. */
static void gguf_scores_give_the_same_ids(void **state) {
    (void)state;
    json_t *want = describe("spm-llama");
    json_t *fixture = load("spm-llama");
    const json_t *scores = json_object_get(fixture, "scores");
    size_t count = json_array_size(scores);
    float *values = NULL;
    gguf_keys g;
    make_keys(&g, want, "default");
    g.texts[0] = (nq_gguf_string){"llama", 5};
    assert_int_equal(nq_alloc(&values, count, sizeof *values, NULL), NOVAQ_OK);
    for (size_t i = 0; i < count; i++) {
        values[i] = (float)json_number_value(json_array_get(scores, i));
    }
    g.flag = 1;
    g.ids[0][0] = 1;
    g.ids[1][0] = 2;
    g.kv[3] = (nq_gguf_kv){.key = "tokenizer.ggml.scores",
                           .type = NQ_GGUF_ARRAY,
                           .elem = NQ_GGUF_F32,
                           .count = count,
                           .values = (const uint8_t *)values};
    json_t *desc = NULL;
    char *why = NULL;
    novaq_error err = {0};
    assert_int_equal(nq_describe_tokenizer_gguf(&desc, &why, g.kv, g.count, &err), NOVAQ_OK);
    if (why != NULL) {
        fail_msg("%s", why);
    }
    nq_tokenizer *t = open_desc(desc);
    check_lines(t, "spm-llama");
    nq_tokenizer_close(&t);
    /* The merges that export makes of the scores are those of the reference. */
    json_t *model = json_pack("{s:O}", "tokenizer", desc);
    json_t *tokenizer = NULL;
    json_t *config = NULL;
    assert_int_equal(nq_tokenizer_to_hf(&tokenizer, &config, model, &err), NOVAQ_OK);
    json_t *made = json_object_get(json_object_get(tokenizer, "model"), "merges");
    /* All but the first, which makes the user-defined token of two line breaks. */
    assert_string_equal(json_string_value(json_array_get(made, 0)), "\n \n");
    assert_int_equal(json_array_remove(made, 0), 0);
    assert_true(json_equal(made, json_object_get(want, "merges")));
    json_decref(tokenizer);
    json_decref(config);
    json_decref(model);
    json_decref(desc);
    values[7] = 0.0F / 0.0F;
    assert_int_equal(nq_describe_tokenizer_gguf(&desc, &why, g.kv, g.count, &err), NOVAQ_OK);
    assert_null(desc);
    assert_non_null(strstr(why, "scores[7]"));
    nq_free(why);
    nq_free(values);
    free_keys(&g);
    json_decref(fixture);
    json_decref(want);
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
    expect_gguf_why(&g, "tokenizer.ggml.scores");
    g = good;
    g.texts[0] = (nq_gguf_string){"bert", 4};
    g.kv[0].strings = &g.texts[0];
    expect_gguf_why(&g, "\"bert\"");
    g = good;
    g.texts[1] = (nq_gguf_string){"bloom", 5};
    g.kv[1].strings = &g.texts[1];
    expect_gguf_why(&g, "\"bloom\"");
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

/* What GGUF's keys say of a description is the same tokenizer. */
static void gguf_export_keeps_the_ids(void **state) {
    (void)state;
    json_t *desc = describe("spm-llama");
    json_t *said = NULL;
    novaq_error err = {0};
    assert_int_equal(nq_tokenizer_to_gguf(&said, desc, &err), NOVAQ_E_UNSUPPORTED);
    assert_null(said);
    /* A user-defined token that two others make would merge by scores. */
    json_t *types = json_object_get(desc, "token_types");
    (void)json_array_set_new(types, json_array_size(types) - 2, json_integer(3));
    if (nq_tokenizer_to_gguf(&said, desc, &err) != NOVAQ_OK) {
        fail_msg("%s", err.msg);
    }
    assert_null(json_object_get(said, "merges"));
    nq_tokenizer *t = open_desc(said);
    check_lines(t, "spm-llama");
    nq_tokenizer_close(&t);
    json_decref(said);
    json_decref(desc);
    desc = describe("custom");
    assert_int_equal(nq_tokenizer_to_gguf(&said, desc, &err), NOVAQ_E_UNSUPPORTED);
    json_decref(desc);
    desc = describe("smollm");
    assert_int_equal(nq_tokenizer_to_gguf(&said, desc, &err), NOVAQ_OK);
    assert_true(json_equal(said, desc));
    json_decref(said);
    json_decref(desc);
}

/* ---- tokenizer.model ------------------------------------------------------- */

static uint8_t *read_pieces(size_t *len, const char *kind) {
    char path[512];
    (void)snprintf(path, sizeof path, FIXTURES "/tokenizer/pieces-%s.model", kind);
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    uint8_t *data = NULL;
    assert_int_equal(nq_alloc(&data, 65536, 1, NULL), NOVAQ_OK);
    *len = fread(data, 1, 65536, f);
    (void)fclose(f);
    assert_true(*len > 1000 && *len < 65536);
    return data;
}

static json_t *describe_pieces(const uint8_t *data, size_t len) {
    json_t *desc = NULL;
    char *why = NULL;
    novaq_error err = {0};
    assert_int_equal(nq_describe_tokenizer_spm(&desc, &why, data, len, NULL, &err), NOVAQ_OK);
    assert_true((desc == NULL) == (why != NULL));
    nq_free(why);
    return desc;
}

/* Ids are those of the sentencepiece package itself. */
static void sentencepiece_files(void **state) {
    (void)state;
    static const char *const names[] = {"bpe", "unigram"};
    json_t *lines = load("lines");
    json_t *all = load("pieces");
    for (size_t k = 0; k < 2; k++) {
        size_t len = 0;
        uint8_t *data = read_pieces(&len, names[k]);
        json_t *desc = describe_pieces(data, len);
        assert_non_null(desc);
        nq_tokenizer *t = open_desc(desc);
        const json_t *ids = json_object_get(all, names[k]);
        assert_int_equal(json_array_size(ids), json_array_size(lines));
        for (size_t i = 0; i < json_array_size(lines); i++) {
            const json_t *line = json_array_get(lines, i);
            const json_t *want = json_array_get(ids, i);
            int32_t *got = NULL;
            size_t n = encode(&got, t, json_string_value(line), json_string_length(line), 0);
            if (n != json_array_size(want)) {
                fail_msg("%s line %zu: %zu ids, not %zu", names[k], i, n, json_array_size(want));
            }
            for (size_t j = 0; j < n; j++) {
                assert_int_equal(got[j], json_integer_value(json_array_get(want, j)));
            }
            nq_free(got);
        }
        nq_tokenizer_close(&t);
        json_decref(desc);
        nq_free(data);
    }
    json_decref(all);
    json_decref(lines);
}

/* Cut short or with a byte changed: described or refused, never more. */
static void damaged_sentencepiece_files(void **state) {
    (void)state;
    size_t len = 0;
    uint8_t *data = read_pieces(&len, "bpe");
    size_t refused = 0;
    for (size_t i = 0; i < 300; i++) {
        uint8_t *copy = NULL;
        size_t n = (size_t)(nq_hash3(1, 2, i) % len);
        assert_int_equal(nq_alloc(&copy, n + 1, 1, NULL), NOVAQ_OK);
        memcpy(copy, data, n);
        json_t *desc = describe_pieces(copy, n);
        refused += desc == NULL;
        json_decref(desc);
        nq_free(copy);
        uint8_t keep = data[n];
        data[n] = (uint8_t)nq_hash3(3, 4, i);
        json_decref(describe_pieces(data, len));
        data[n] = keep;
    }
    assert_true(refused > 200);
    assert_null(describe_pieces((const uint8_t *)"", 0));
    nq_free(data);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids_equal_the_reference),
        cmocka_unit_test(export_round_trip),
        cmocka_unit_test(export_needs_a_tokenizer),
        cmocka_unit_test(decode_equals_the_reference),
        cmocka_unit_test(pieces_make_the_text),
        cmocka_unit_test(decode_gives_the_text_back),
        cmocka_unit_test(special_tokens),
        cmocka_unit_test(user_tokens_always_match),
        cmocka_unit_test(begin_token),
        cmocka_unit_test(bad_ids_are_refused),
        cmocka_unit_test(random_bytes_survive),
        cmocka_unit_test(bad_bytes_become_byte_tokens),
        cmocka_unit_test(long_runs_take_linear_time),
        cmocka_unit_test(gguf_keys_give_the_same_ids),
        cmocka_unit_test(gguf_scores_give_the_same_ids),
        cmocka_unit_test(bad_gguf_keys),
        cmocka_unit_test(gguf_export_keeps_the_ids),
        cmocka_unit_test(sentencepiece_files),
        cmocka_unit_test(damaged_sentencepiece_files),
    };
    return cmocka_run_group_tests_name("tokenizer", tests, NULL, NULL);
}
