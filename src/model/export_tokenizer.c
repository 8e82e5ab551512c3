/* export_tokenizer.c - tokenizer.json and tokenizer_config.json from the
 * canonical description.
 *
 * Owns: the layout that Hugging Face `tokenizers` loads and that gives the same
 * ids. Refuses: descriptions that tokenizer.c would not open.
 */
#include <string.h>

#include "model/describe.h"
#include "model/tokenizer.h"
#include "model/tokenizer_impl.h"

static const json_t *token_at(const json_t *desc, const char *key) {
    const json_t *id = json_object_get(desc, key);
    if (!json_is_integer(id)) {
        return NULL;
    }
    return json_array_get(json_object_get(desc, "tokens"), (size_t)json_integer_value(id));
}

static novaq_status append(json_t *list, json_t *value, novaq_error *err) {
    return json_array_append_new(list, value) == 0
               ? NOVAQ_OK
               : nq_fail(err, NOVAQ_E_MEMORY, "no memory for tokenizer.json");
}

static bool lists(const json_t *desc, const char *key, size_t id) {
    const json_t *list = json_object_get(desc, key);
    for (size_t i = 0; i < json_array_size(list); i++) {
        if (json_integer_value(json_array_get(list, i)) == (json_int_t)id) {
            return true;
        }
    }
    return false;
}

static novaq_status put_added(json_t *root, const json_t *desc, novaq_error *err) {
    json_t *added = json_array();
    NQ_TRY(nq_tokdesc_put(root, "added_tokens", added, err));
    const json_t *tokens = json_object_get(desc, "tokens");
    const json_t *types = json_object_get(desc, "token_types");
    const json_t *unk = json_object_get(desc, "unk_id");
    for (size_t i = 0; i < json_array_size(tokens); i++) {
        json_int_t type = json_integer_value(json_array_get(types, i));
        const char *text = json_string_value(json_array_get(tokens, i));
        bool unknown = type == NQ_TOK_UNKNOWN && json_integer_value(unk) == (json_int_t)i &&
                       json_is_integer(unk);
        if ((type == NQ_TOK_CONTROL || type == NQ_TOK_USER || unknown) && text[0] != '\0') {
            NQ_TRY(append(
                added,
                json_pack("{s:I, s:s, s:b, s:b, s:b, s:b, s:b}", "id", (json_int_t)i, "content",
                          text, "single_word", 0, "lstrip", lists(desc, "lstrip_ids", i), "rstrip",
                          lists(desc, "rstrip_ids", i), "normalized",
                          lists(desc, "normalized_ids", i), "special", type != NQ_TOK_USER),
                err));
        }
    }
    return NOVAQ_OK;
}

static json_t *byte_level(void) {
    return json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel", "add_prefix_space", 1,
                     "trim_offsets", 1, "use_regex", 1);
}

static bool is_model(const json_t *desc, const char *name) {
    return strcmp(json_string_value(json_object_get(desc, "model")), name) == 0;
}

static novaq_status put_pretok(json_t *root, const json_t *desc, novaq_error *err) {
    const char *pre = json_string_value(json_object_get(desc, "pre"));
    if (strcmp(pre, "custom") == 0) {
        const json_t *given = json_object_get(desc, "pre_tokenizer");
        return nq_tokdesc_put(root, "pre_tokenizer",
                              given == NULL ? json_null() : json_deep_copy(given), err);
    }
    if (!is_model(desc, "gpt2")) {
        return nq_tokdesc_put(root, "pre_tokenizer", json_null(), err);
    }
    nq_stage stages[NQ_STAGES_MAX];
    memcpy(stages, nq_pretok_find(pre, strlen(pre))->stages, sizeof stages);
    stages[0].prefix_space = json_is_true(json_object_get(desc, "add_space_prefix"));
    return nq_tokdesc_put(root, "pre_tokenizer", nq_stages_json(stages), err);
}

/* SentencePiece's own as Hugging Face writes it. */
static json_t *usual_normalizer(bool space) {
    json_t *replace = json_pack("{s:s, s:{s:s}, s:s}", "type", "Replace", "pattern", "String", " ",
                                "content", NQ_META);
    return !space ? replace
                  : json_pack("{s:s, s:[{s:s, s:s}, o]}", "type", "Sequence", "normalizers", "type",
                              "Prepend", "prepend", NQ_META, replace);
}

static novaq_status put_normalizer(json_t *root, const json_t *desc, novaq_error *err) {
    const json_t *given = json_object_get(desc, "normalizer");
    const char *name = json_string_value(given);
    const char *pre = json_string_value(json_object_get(desc, "pre"));
    json_t *value = NULL;
    if (!is_model(desc, "gpt2") && strcmp(pre, "default") == 0) {
        value = usual_normalizer(json_is_true(json_object_get(desc, "add_space_prefix")));
    } else if (name != NULL && strcmp(name, "nfc") == 0) {
        value = json_pack("{s:s}", "type", "NFC");
    } else {
        value = given == NULL || name != NULL ? json_null() : json_deep_copy(given);
    }
    return nq_tokdesc_put(root, "normalizer", value, err);
}

/* U+2581 to spaces, byte tokens to bytes, and what comes off the beginning. */
static json_t *piece_decoder(const char *strip, bool bytes) {
    if (strcmp(strip, "token") == 0) {
        return json_pack("{s:s, s:s, s:s, s:b}", "type", "Metaspace", "replacement", NQ_META,
                         "prepend_scheme", "always", "split", 1);
    }
    json_t *list = json_array();
    int bad = json_array_append_new(list, json_pack("{s:s, s:{s:s}, s:s}", "type", "Replace",
                                                    "pattern", "String", NQ_META, "content", " "));
    bad |= bytes ? json_array_append_new(list, json_pack("{s:s}", "type", "ByteFallback")) : 0;
    bad |= json_array_append_new(list, json_pack("{s:s}", "type", "Fuse"));
    if (strcmp(strip, "space") == 0) {
        bad |= json_array_append_new(list, json_pack("{s:s, s:s, s:i, s:i}", "type", "Strip",
                                                     "content", " ", "start", 1, "stop", 0));
    }
    if (bad != 0) {
        json_decref(list);
        return NULL;
    }
    return json_pack("{s:s, s:o}", "type", "Sequence", "decoders", list);
}

static novaq_status put_decoder(json_t *root, const json_t *desc, bool bytes, novaq_error *err) {
    if (is_model(desc, "gpt2")) {
        return nq_tokdesc_put(root, "decoder", byte_level(), err);
    }
    const char *pre = json_string_value(json_object_get(desc, "pre"));
    const char *strip = json_string_value(json_object_get(desc, "strip"));
    if (strip == NULL) {
        bool space =
            strcmp(pre, "default") == 0 && json_is_true(json_object_get(desc, "add_space_prefix"));
        strip = space ? "space" : "nothing";
    }
    return nq_tokdesc_put(root, "decoder", piece_decoder(strip, bytes), err);
}

/* One end of the template: an item of "single" and "pair", and its id. */
static novaq_status put_end(json_t *single, json_t *pair, json_t *special, const json_t *desc,
                            const char *key, int type_id, novaq_error *err) {
    const char *text = json_string_value(token_at(desc, key));
    if (text == NULL) {
        return nq_fail(err, NOVAQ_E_FORMAT, "tokenizer: %s is missing", key);
    }
    if (single != NULL) {
        NQ_TRY(append(single, json_pack("{s:{s:s, s:i}}", "SpecialToken", "id", text, "type_id", 0),
                      err));
    }
    NQ_TRY(append(pair, json_pack("{s:{s:s, s:i}}", "SpecialToken", "id", text, "type_id", type_id),
                  err));
    return nq_tokdesc_put(special, text,
                          json_pack("{s:s, s:[I], s:[s]}", "id", text, "ids",
                                    json_integer_value(json_object_get(desc, key)), "tokens", text),
                          err);
}

static novaq_status put_sequence(json_t *list, const char *name, int type_id, novaq_error *err) {
    return append(list, json_pack("{s:{s:s, s:i}}", "Sequence", "id", name, "type_id", type_id),
                  err);
}

static novaq_status put_post(json_t *root, const json_t *desc, novaq_error *err) {
    bool bos = json_is_true(json_object_get(desc, "add_bos"));
    bool eos = json_is_true(json_object_get(desc, "add_eos"));
    if (!bos && !eos) {
        return nq_tokdesc_put(root, "post_processor", json_null(), err);
    }
    json_t *tp = json_pack("{s:s, s:[], s:[], s:{}}", "type", "TemplateProcessing", "single",
                           "pair", "special_tokens");
    NQ_TRY(nq_tokdesc_put(root, "post_processor", tp, err));
    json_t *single = json_object_get(tp, "single");
    json_t *pair = json_object_get(tp, "pair");
    json_t *special = json_object_get(tp, "special_tokens");
    if (bos) {
        NQ_TRY(put_end(single, pair, special, desc, "bos_id", 0, err));
    }
    NQ_TRY(put_sequence(single, "A", 0, err));
    NQ_TRY(put_sequence(pair, "A", 0, err));
    if (eos) {
        NQ_TRY(put_end(single, pair, special, desc, "eos_id", 0, err));
    }
    if (bos) {
        NQ_TRY(put_end(NULL, pair, special, desc, "bos_id", 1, err));
    }
    NQ_TRY(put_sequence(pair, "B", 1, err));
    return eos ? put_end(NULL, pair, special, desc, "eos_id", 1, err) : NOVAQ_OK;
}

static novaq_status put_vocab(json_t *model, const json_t *desc, novaq_error *err) {
    json_t *vocab = json_object();
    NQ_TRY(nq_tokdesc_put(model, "vocab", vocab, err));
    const json_t *tokens = json_object_get(desc, "tokens");
    for (size_t i = 0; i < json_array_size(tokens); i++) {
        NQ_TRY(nq_tokdesc_put(vocab, json_string_value(json_array_get(tokens, i)),
                              json_integer((json_int_t)i), err));
    }
    return NOVAQ_OK;
}

static novaq_status put_pieces(json_t *model, const json_t *desc, novaq_error *err) {
    json_t *vocab = json_array();
    NQ_TRY(nq_tokdesc_put(model, "vocab", vocab, err));
    const json_t *tokens = json_object_get(desc, "tokens");
    const json_t *scores = json_object_get(desc, "scores");
    for (size_t i = 0; i < json_array_size(tokens); i++) {
        NQ_TRY(append(
            vocab, json_pack("[O, O]", json_array_get(tokens, i), json_array_get(scores, i)), err));
    }
    return NOVAQ_OK;
}

static json_t *unknown_text(const json_t *desc) {
    const json_t *text = token_at(desc, "unk_id");
    return text == NULL ? json_null() : json_string(json_string_value(text));
}

static novaq_status put_model(json_t *root, const json_t *desc, bool bytes, novaq_error *err) {
    bool unigram = is_model(desc, "t5");
    bool level = is_model(desc, "gpt2");
    const json_t *fuse = json_object_get(desc, "fuse_unk");
    json_t *model =
        unigram ? json_pack("{s:s, s:O, s:b}", "type", "Unigram", "unk_id",
                            json_object_get(desc, "unk_id"), "byte_fallback", bytes)
                : json_pack("{s:s, s:n, s:o, s:n, s:n, s:b, s:b, s:b}", "type", "BPE", "dropout",
                            "unk_token", level ? json_null() : unknown_text(desc),
                            "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk",
                            level ? 0 : fuse == NULL || json_is_true(fuse), "byte_fallback", bytes,
                            "ignore_merges", json_is_true(json_object_get(desc, "ignore_merges")));
    NQ_TRY(nq_tokdesc_put(root, "model", model, err));
    if (unigram) {
        return put_pieces(model, desc, err);
    }
    NQ_TRY(put_vocab(model, desc, err));
    json_t *merges = json_object_get(desc, "merges");
    if (merges != NULL) {
        return nq_tokdesc_put(model, "merges", json_incref(merges), err);
    }
    NQ_TRY(nq_merges_from_scores(&merges, desc, err));
    return nq_tokdesc_put(model, "merges", merges, err);
}

static novaq_status fill_tokenizer(json_t *root, const json_t *desc, novaq_error *err) {
    NQ_TRY(nq_tokdesc_put(root, "version", json_string("1.0"), err));
    NQ_TRY(nq_tokdesc_put(root, "truncation", json_null(), err));
    NQ_TRY(nq_tokdesc_put(root, "padding", json_null(), err));
    NQ_TRY(put_added(root, desc, err));
    bool bytes = false;
    NQ_TRY(nq_has_byte_fallback(&bytes, desc, err));
    NQ_TRY(put_normalizer(root, desc, err));
    NQ_TRY(put_pretok(root, desc, err));
    NQ_TRY(put_post(root, desc, err));
    NQ_TRY(put_decoder(root, desc, bytes, err));
    return put_model(root, desc, bytes, err);
}

static novaq_status fill_config(json_t *config, const json_t *model, const json_t *desc,
                                novaq_error *err) {
    static const char *const names[][2] = {{"bos_token", "bos_id"},
                                           {"eos_token", "eos_id"},
                                           {"unk_token", "unk_id"},
                                           {"pad_token", "pad_id"}};
    NQ_TRY(nq_tokdesc_put(config, "tokenizer_class", json_string("PreTrainedTokenizerFast"), err));
    NQ_TRY(nq_tokdesc_put(config, "clean_up_tokenization_spaces", json_false(), err));
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const char *text = json_string_value(token_at(desc, names[i][1]));
        if (text != NULL) {
            NQ_TRY(nq_tokdesc_put(config, names[i][0], json_string(text), err));
        }
    }
    const json_t *length =
        json_object_get(json_object_get(model, "hyperparameters"), "context_length");
    if (json_is_integer(length)) {
        NQ_TRY(nq_tokdesc_put(config, "model_max_length", json_integer(json_integer_value(length)),
                              err));
    }
    const char *chat = json_string_value(json_object_get(model, "chat_template"));
    return chat == NULL ? NOVAQ_OK
                        : nq_tokdesc_put(config, "chat_template", json_string(chat), err);
}

novaq_status nq_tokenizer_to_hf(json_t **tokenizer, json_t **tokenizer_config, const json_t *model,
                                novaq_error *err) {
    *tokenizer = NULL;
    *tokenizer_config = NULL;
    const json_t *desc = json_object_get(model, "tokenizer");
    if (desc == NULL) {
        return nq_fail(err, NOVAQ_E_UNSUPPORTED, "the model has no tokenizer that can be exported");
    }
    nq_tokenizer *t = NULL;
    NQ_TRY(nq_tokenizer_open(&t, desc, err)); /* what follows relies on its checks */
    nq_tokenizer_close(&t);
    *tokenizer = json_object();
    *tokenizer_config = json_object();
    novaq_status st = *tokenizer != NULL && *tokenizer_config != NULL
                          ? fill_tokenizer(*tokenizer, desc, err)
                          : nq_fail(err, NOVAQ_E_MEMORY, "no memory for tokenizer.json");
    st = st == NOVAQ_OK ? fill_config(*tokenizer_config, model, desc, err) : st;
    if (st != NOVAQ_OK) {
        json_decref(*tokenizer);
        json_decref(*tokenizer_config);
        *tokenizer = NULL;
        *tokenizer_config = NULL;
    }
    return st;
}
