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

static novaq_status put_added(json_t *root, const json_t *desc, novaq_error *err) {
    json_t *added = json_array();
    NQ_TRY(nq_tokdesc_put(root, "added_tokens", added, err));
    const json_t *tokens = json_object_get(desc, "tokens");
    const json_t *types = json_object_get(desc, "token_types");
    for (size_t i = 0; i < json_array_size(tokens); i++) {
        json_int_t type = json_integer_value(json_array_get(types, i));
        const char *text = json_string_value(json_array_get(tokens, i));
        if ((type == NQ_TOK_CONTROL || type == NQ_TOK_USER) && text[0] != '\0') {
            NQ_TRY(append(added,
                          json_pack("{s:I, s:s, s:b, s:b, s:b, s:b, s:b}", "id", (json_int_t)i,
                                    "content", text, "single_word", 0, "lstrip", 0, "rstrip", 0,
                                    "normalized", 0, "special", type == NQ_TOK_CONTROL),
                          err));
        }
    }
    return NOVAQ_OK;
}

static json_t *byte_level(bool prefix_space, bool regex) {
    return json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel", "add_prefix_space", prefix_space,
                     "trim_offsets", 1, "use_regex", regex);
}

static novaq_status put_pretok(json_t *root, const json_t *desc, novaq_error *err) {
    const char *pre = json_string_value(json_object_get(desc, "pre"));
    const nq_pretok_kind *kind = nq_pretok_find(pre, strlen(pre));
    bool space = json_is_true(json_object_get(desc, "add_space_prefix"));
    if (!kind->digits && kind->splits[0] == NULL) {
        return nq_tokdesc_put(root, "pre_tokenizer", byte_level(space, kind->byte_level_regex),
                              err);
    }
    json_t *list = json_array();
    NQ_TRY(nq_tokdesc_put(root, "pre_tokenizer",
                          json_pack("{s:s, s:o}", "type", "Sequence", "pretokenizers", list), err));
    if (kind->digits) {
        NQ_TRY(
            append(list, json_pack("{s:s, s:b}", "type", "Digits", "individual_digits", 1), err));
    }
    for (size_t i = 0; kind->splits[i] != NULL; i++) {
        NQ_TRY(append(list,
                      json_pack("{s:s, s:{s:s}, s:s, s:b}", "type", "Split", "pattern", "Regex",
                                kind->splits[i], "behavior", "Isolated", "invert", 0),
                      err));
    }
    return append(list, byte_level(false, kind->byte_level_regex), err);
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

static novaq_status put_model(json_t *root, const json_t *desc, novaq_error *err) {
    bool ignore = json_is_true(json_object_get(desc, "ignore_merges"));
    json_t *model =
        json_pack("{s:s, s:n, s:n, s:n, s:n, s:b, s:b, s:b, s:{}, s:O}", "type", "BPE", "dropout",
                  "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk", 0,
                  "byte_fallback", 0, "ignore_merges", ignore, "vocab", "merges",
                  json_object_get(desc, "merges"));
    NQ_TRY(nq_tokdesc_put(root, "model", model, err));
    json_t *vocab = json_object_get(model, "vocab");
    const json_t *tokens = json_object_get(desc, "tokens");
    for (size_t i = 0; i < json_array_size(tokens); i++) {
        NQ_TRY(nq_tokdesc_put(vocab, json_string_value(json_array_get(tokens, i)),
                              json_integer((json_int_t)i), err));
    }
    return NOVAQ_OK;
}

static novaq_status fill_tokenizer(json_t *root, const json_t *desc, novaq_error *err) {
    NQ_TRY(nq_tokdesc_put(root, "version", json_string("1.0"), err));
    NQ_TRY(nq_tokdesc_put(root, "truncation", json_null(), err));
    NQ_TRY(nq_tokdesc_put(root, "padding", json_null(), err));
    NQ_TRY(put_added(root, desc, err));
    const char *normalizer = json_string_value(json_object_get(desc, "normalizer"));
    bool nfc = normalizer != NULL && strcmp(normalizer, "nfc") == 0;
    NQ_TRY(nq_tokdesc_put(root, "normalizer", nfc ? json_pack("{s:s}", "type", "NFC") : json_null(),
                          err));
    NQ_TRY(put_pretok(root, desc, err));
    NQ_TRY(put_post(root, desc, err));
    NQ_TRY(nq_tokdesc_put(root, "decoder", byte_level(true, true), err));
    return put_model(root, desc, err);
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
