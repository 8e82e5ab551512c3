/* test_tokenizer_refuse.c - descriptions and tokenizer.json files that are damaged,
 * hostile, or of a kind that novaq does not reproduce: each is refused by name.
 *
 * Owns: the ways to break a fixture. Refuses: what GGUF keys say; test_tokenizer.c
 * has them.
 */
#include "tokenizer_util.h"

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
    refuse_open("model", json_string("wordpiece"), not, "\"wordpiece\"");
    refuse_open("model", json_string("llama"), not, "\"smollm\"");
    refuse_open("model", json_string("t5"), not, "\"smollm\"");
    refuse_open("pre", json_integer(1), bad, "pre");
    refuse_open("pre", json_string("jais-2"), not, "jais-2");
    refuse_open("normalizer", json_string("nfkc"), not, "nfkc");
    refuse_open("normalizer", json_integer(0), bad, "normalizer");
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

/* The same for a description with characters for symbols. */
static void refuse_spm(const char *kind, const char *key, json_t *value, const char *says) {
    json_t *desc = describe(kind);
    if (value == NULL) {
        (void)json_object_del(desc, key);
    } else {
        (void)json_object_set_new(desc, key, value);
    }
    nq_tokenizer *t = NULL;
    novaq_error err = {0};
    if (nq_tokenizer_open(&t, desc, &err) == NOVAQ_OK || strstr(err.msg, says) == NULL) {
        fail_msg("%s: %s: \"%s\"", kind, key, err.msg);
    }
    assert_null(t);
    json_decref(desc);
}

static void malformed_sentencepiece(void **state) {
    (void)state;
    refuse_spm("spm-llama", "merges", NULL, "0 scores");
    refuse_spm("spm-llama", "pre", json_string("smollm"), "smollm");
    refuse_spm("spm-llama", "pre", NULL, "pre");
    refuse_spm("spm-llama", "strip", json_string("all"), "strip");
    refuse_spm("spm-llama", "rstrip_ids", json_pack("[i]", 99999), "rstrip_ids[0]");
    refuse_spm("spm-llama", "lstrip_ids", json_integer(1), "lstrip_ids");
    refuse_spm("spm-llama", "normalized_ids", json_pack("[s]", "x"), "normalized_ids[0]");
    refuse_spm("spm-llama", "unk_id", json_integer(99999), "unk_id");
    refuse_spm("spm-unknown", "byte_fallback", json_true(), "byte tokens of 256");
    refuse_spm("spm-unknown", "normalizer", json_pack("{s:s}", "type", "NFKC"), "NFKC");
    refuse_spm("spm-first", "pre_tokenizer", json_pack("{s:s}", "type", "ByteLevel"), "ByteLevel");
    refuse_spm("spm-unigram", "unk_id", NULL, "unknown token");
    refuse_spm("spm-unigram", "scores", json_pack("[f]", 1.0), "1 scores");
    refuse_spm("spm-unigram", "scores", json_true(), "0 scores");
    refuse_spm("custom", "pre_tokenizer", json_null(), "0 ByteLevel");
    json_t *desc = describe("spm-unigram");
    json_array_set_new(json_object_get(desc, "scores"), 5, json_null());
    nq_tokenizer *t = NULL;
    novaq_error err = {0};
    assert_int_equal(nq_tokenizer_open(&t, desc, &err), NOVAQ_E_FORMAT);
    assert_non_null(strstr(err.msg, "score 5"));
    json_decref(desc);
}

/* Patterns that PCRE2 would read another way than the reference. */
static void refused_patterns(void **state) {
    (void)state;
    static const char *const patterns[] = {
        "\\d+",          "\\w",         "\\h",     "\\bx",    "\\p{Han}+", "\\p{Nd}",
        "\\x41",         "[[:alpha:]]", "[a[b]]",  "[a&&b]",  "a{2}+",     "a{2}?",
        "a{,3}",         "{",           "(?<=a)b", "(?<n>a)", "(?m:a)",    "(?i:ss)",
        "(?i:\xC3\xA9)", "(?i:i)",      "(a",      "a)",      "[]a]",      "[a",
        "[z-a]",         "\\",          "[a-\\s]", "\xFF",    "(a)\\1",    "a\\Kb",
        "[\\w]"};
    for (size_t i = 0; i < sizeof patterns / sizeof patterns[0]; i++) {
        json_t *pattern = json_stringn_nocheck(patterns[i], strlen(patterns[i]));
        json_t *desc = describe("custom");
        json_t *pre = json_pack("{s:s, s:[{s:s, s:s, s:{s:o}}, {s:s}]}", "type", "Sequence",
                                "pretokenizers", "type", "Split", "behavior", "Isolated", "pattern",
                                "Regex", pattern, "type", "ByteLevel");
        assert_non_null(pre);
        (void)json_object_set_new(desc, "pre_tokenizer", pre);
        nq_tokenizer *t = NULL;
        novaq_error err = {0};
        if (nq_tokenizer_open(&t, desc, &err) != NOVAQ_E_UNSUPPORTED) {
            fail_msg("%s: \"%s\"", patterns[i], err.msg);
        }
        json_decref(desc);
    }
}

/* A pattern that backtracks without end is given up, not waited for. */
static void hostile_pattern(void **state) {
    (void)state;
    json_t *desc = describe("custom");
    json_t *pre = json_pack("{s:s, s:[{s:s, s:s, s:{s:s}}, {s:s}]}", "type", "Sequence",
                            "pretokenizers", "type", "Split", "behavior", "Isolated", "pattern",
                            "Regex", "(?:a|a|aa)+[bc]", "type", "ByteLevel");
    (void)json_object_set_new(desc, "pre_tokenizer", pre);
    nq_tokenizer *t = open_desc(desc);
    char text[400];
    memset(text, 'a', sizeof text);
    int32_t *ids = NULL;
    size_t count = 0;
    novaq_error err = {0};
    double start = seconds();
    assert_int_equal(nq_tokenizer_encode(&ids, &count, t, text, sizeof text, 0, 0, &err),
                     NOVAQ_E_UNSUPPORTED);
    assert_true(seconds() - start < 30);
    assert_null(ids);
    nq_tokenizer_close(&t);
    json_decref(desc);
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
    refuse_hf(false, "pre_tokenizer", json_null(), "ByteLevel"); /* as decoder */
    refuse_hf(false, "pre_tokenizer", parse("{\"type\":\"Whitespace\"}"), "Whitespace");
    refuse_hf(false, "normalizer", parse("{\"type\":\"NFKC\"}"), "NFKC");
    refuse_hf(
        false, "normalizer",
        parse("{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFC\"},{\"type\":\"Strip\"}]}"),
        "Strip");
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
              parse("[{\"id\":0,\"content\":\"<|begin|>\",\"single_word\":true}]"), "single_word");
    refuse_hf(false, "added_tokens", parse("[{\"id\":0,\"content\":\"other\"}]"), "contradicts");
    refuse_hf(false, "added_tokens", parse("[{\"id\":-4,\"content\":\"other\"}]"), "no id");
    refuse_hf(true, "type", json_string("Unigram"), "Unigram");
    refuse_hf(true, "type", json_string("WordPiece"), "WordPiece");
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

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(malformed_descriptions),
        cmocka_unit_test(malformed_vocabulary),
        cmocka_unit_test(malformed_sentencepiece),
        cmocka_unit_test(refused_patterns),
        cmocka_unit_test(hostile_pattern),
        cmocka_unit_test(unknown_parts_of_tokenizer_json),
    };
    return cmocka_run_group_tests_name("tokenizer_refuse", tests, NULL, NULL);
}
