/* describe_tokenizer_hf.c - the "tokenizer" object of describe.h from
 * tokenizer.json and tokenizer_config.json.
 *
 * Owns: recognising the one structure of normalizer, pre-tokenizer, model,
 * post-processor and decoder that tokenizer.c reproduces. Refuses: everything
 * else; *why names the part.
 */
#include <string.h>

#include "model/describe.h"
#include "model/tokenizer_impl.h"

typedef struct hf {
    const json_t *root;
    const json_t *config; /* or NULL */
    json_t *desc;
    char **why;
} hf;

static bool absent(const json_t *v) { return v == NULL || json_is_null(v); }

static const char *type_of(const json_t *part) {
    const char *s = json_string_value(json_object_get(part, "type"));
    return s == NULL ? "?" : s;
}

static bool is_type(const json_t *part, const char *type) {
    return strcmp(type_of(part), type) == 0;
}

/* A boolean member that equals `want`, or is absent while that is the default. */
static bool flag_is(const json_t *part, const char *key, bool want, bool by_default) {
    const json_t *v = json_object_get(part, key);
    return v == NULL ? want == by_default : json_is_boolean(v) && json_is_true(v) == want;
}

/* The i-th element of a component that may be a Sequence of them: `list` is the
 * member's name. NULL past the end. */
static const json_t *element(const json_t *part, const char *list, size_t i) {
    if (absent(part)) {
        return NULL;
    }
    if (is_type(part, "Sequence")) {
        return json_array_get(json_object_get(part, list), i);
    }
    return i == 0 ? part : NULL;
}

/* ---- vocabulary ----------------------------------------------------------- */

static novaq_status max_id(json_int_t *count, const hf *h, const json_t *vocab, const json_t *added,
                           novaq_error *err) {
    *count = 0;
    const char *key = NULL;
    json_t *v = NULL;
    json_object_foreach((json_t *)vocab, key, v) {
        json_int_t id = json_integer_value(v);
        if (!json_is_integer(v) || id < 0 || (size_t)id >= NQ_TOK_VOCAB_MAX) {
            return nq_tokdesc_why(h->why, err, "tokenizer.json: a token has no id below %zu",
                                  NQ_TOK_VOCAB_MAX);
        }
        *count = id >= *count ? id + 1 : *count;
    }
    for (size_t i = 0; i < json_array_size(added); i++) {
        const json_t *a = json_object_get(json_array_get(added, i), "id");
        json_int_t id = json_integer_value(a);
        if (!json_is_integer(a) || id < 0 || (size_t)id >= NQ_TOK_VOCAB_MAX) {
            return nq_tokdesc_why(h->why, err,
                                  "tokenizer.json: added token %zu has no id below %zu", i,
                                  NQ_TOK_VOCAB_MAX);
        }
        *count = id >= *count ? id + 1 : *count;
    }
    return NOVAQ_OK;
}

typedef struct slot {
    const char *text; /* borrowed from the tokenizer.json */
    uint8_t type;
} slot;

static novaq_status fill_vocab(slot *slots, const hf *h, const json_t *vocab, novaq_error *err) {
    const char *key = NULL;
    json_t *v = NULL;
    json_object_foreach((json_t *)vocab, key, v) {
        json_int_t id = json_integer_value(v);
        if (slots[id].text != NULL) {
            return nq_tokdesc_why(h->why, err, "tokenizer.json: two tokens have id %lld",
                                  (long long)id);
        }
        slots[id] = (slot){key, NQ_TOK_NORMAL};
    }
    return NOVAQ_OK;
}

/* Added tokens are matched before normalization and without trimming; tokens
 * matched after it behave the same only if there is no normalizer and no other
 * kind that would be matched first. */
static novaq_status fill_added(slot *slots, const hf *h, const json_t *vocab, const json_t *added,
                               novaq_error *err) {
    size_t after = 0;
    size_t count = json_array_size(added);
    for (size_t i = 0; i < count && *h->why == NULL; i++) {
        const json_t *a = json_array_get(added, i);
        const char *text = json_string_value(json_object_get(a, "content"));
        json_int_t id = json_integer_value(json_object_get(a, "id"));
        if (text == NULL || !flag_is(a, "single_word", false, false) ||
            !flag_is(a, "lstrip", false, false) || !flag_is(a, "rstrip", false, false)) {
            return nq_tokdesc_why(h->why, err,
                                  "tokenizer.json: added token %lld is not matched literally "
                                  "(single_word, lstrip or rstrip)",
                                  (long long)id);
        }
        bool special = json_is_true(json_object_get(a, "special"));
        after += flag_is(a, "normalized", true, !special);
        const json_t *twin = json_object_get(vocab, text);
        if ((twin != NULL && json_integer_value(twin) != id) ||
            (slots[id].text != NULL && strcmp(slots[id].text, text) != 0)) {
            return nq_tokdesc_why(h->why, err,
                                  "tokenizer.json: added token %lld contradicts the vocabulary",
                                  (long long)id);
        }
        slots[id] = (slot){text, special ? NQ_TOK_CONTROL : NQ_TOK_USER};
    }
    const char *normalizer = json_string_value(json_object_get(h->desc, "normalizer"));
    if (after > 0 && (after < count || normalizer == NULL || strcmp(normalizer, "none") != 0)) {
        return nq_tokdesc_why(h->why, err,
                              "tokenizer.json: added tokens matched after normalization");
    }
    return NOVAQ_OK;
}

/* Holes in the numbering become unused tokens that text never gives. */
static novaq_status put_slots(const hf *h, const slot *slots, size_t count, novaq_error *err) {
    json_t *tokens = json_array();
    NQ_TRY(nq_tokdesc_put(h->desc, "tokens", tokens, err));
    json_t *types = json_array();
    NQ_TRY(nq_tokdesc_put(h->desc, "token_types", types, err));
    for (size_t i = 0; i < count; i++) {
        json_t *text =
            slots[i].text != NULL ? json_string(slots[i].text) : json_sprintf("[PAD%zu]", i);
        int type = slots[i].text != NULL ? slots[i].type : NQ_TOK_UNUSED;
        if (json_array_append_new(tokens, text) != 0 ||
            json_array_append_new(types, json_integer(type)) != 0) {
            return nq_fail(err, NOVAQ_E_MEMORY, "no memory for the vocabulary");
        }
    }
    return NOVAQ_OK;
}

static novaq_status read_vocab(const hf *h, const json_t *vocab, novaq_error *err) {
    const json_t *added = json_object_get(h->root, "added_tokens");
    json_int_t count = 0;
    NQ_TRY(max_id(&count, h, vocab, added, err));
    if (*h->why != NULL) {
        return NOVAQ_OK;
    }
    slot *slots = NULL;
    NQ_TRY(nq_alloc(&slots, (uint64_t)count, sizeof *slots, err));
    novaq_status st = fill_vocab(slots, h, vocab, err);
    if (st == NOVAQ_OK && *h->why == NULL) {
        st = fill_added(slots, h, vocab, added, err);
    }
    if (st == NOVAQ_OK && *h->why == NULL) {
        st = put_slots(h, slots, (size_t)count, err);
    }
    nq_free(slots);
    return st;
}

/* ---- model ---------------------------------------------------------------- */

/* Both spellings: "left right" and ["left", "right"]. */
static json_t *merge_text(const json_t *m) {
    if (json_is_string(m)) {
        return json_string(json_string_value(m));
    }
    const char *left = json_string_value(json_array_get(m, 0));
    const char *right = json_string_value(json_array_get(m, 1));
    if (json_array_size(m) != 2 || left == NULL || right == NULL || strchr(left, ' ') != NULL ||
        strchr(right, ' ') != NULL) {
        return NULL;
    }
    return json_sprintf("%s %s", left, right);
}

static novaq_status read_merges(const hf *h, const json_t *merges, novaq_error *err) {
    json_t *list = json_array();
    NQ_TRY(nq_tokdesc_put(h->desc, "merges", list, err));
    for (size_t i = 0; i < json_array_size(merges); i++) {
        json_t *text = merge_text(json_array_get(merges, i));
        if (text == NULL) {
            return nq_tokdesc_why(h->why, err, "tokenizer.json: merge %zu is not a pair of tokens",
                                  i);
        }
        if (json_array_append_new(list, text) != 0) {
            return nq_fail(err, NOVAQ_E_MEMORY, "no memory for the merges");
        }
    }
    return NOVAQ_OK;
}

static bool has_all_bytes(const json_t *vocab) {
    for (unsigned i = 0; i < 256; i++) {
        char text[5] = {0};
        (void)nq_utf8_put((uint8_t *)text, nq_byte_to_code((uint8_t)i));
        if (json_object_get(vocab, text) == NULL) {
            return false;
        }
    }
    return true;
}

static bool empty_text(const json_t *v) { return absent(v) || json_string_length(v) == 0; }

static novaq_status read_model(const hf *h, novaq_error *err) {
    const json_t *m = json_object_get(h->root, "model");
    const json_t *vocab = json_object_get(m, "vocab");
    const json_t *merges = json_object_get(m, "merges");
    if ((json_object_get(m, "type") != NULL && !is_type(m, "BPE")) || !json_is_object(vocab) ||
        !json_is_array(merges)) {
        return nq_tokdesc_why(
            h->why, err, "tokenizer.json: model \"%.64s\" (only BPE is supported)", type_of(m));
    }
    const json_t *dropout = json_object_get(m, "dropout");
    if ((!absent(dropout) && json_number_value(dropout) != 0) ||
        !empty_text(json_object_get(m, "continuing_subword_prefix")) ||
        !empty_text(json_object_get(m, "end_of_word_suffix"))) {
        return nq_tokdesc_why(h->why, err,
                              "tokenizer.json: BPE with dropout, subword prefix or word suffix");
    }
    bool fallback = !absent(json_object_get(m, "unk_token")) ||
                    json_is_true(json_object_get(m, "byte_fallback"));
    if (fallback && !has_all_bytes(vocab)) {
        return nq_tokdesc_why(h->why, err,
                              "tokenizer.json: BPE with unknown-token or byte fallback");
    }
    NQ_TRY(nq_tokdesc_put(h->desc, "ignore_merges",
                          json_boolean(json_is_true(json_object_get(m, "ignore_merges"))), err));
    NQ_TRY(read_vocab(h, vocab, err));
    return *h->why == NULL ? read_merges(h, merges, err) : NOVAQ_OK;
}

/* ---- normalizer and pre-tokenizer ----------------------------------------- */

static novaq_status read_normalizer(const hf *h, novaq_error *err) {
    const json_t *n = json_object_get(h->root, "normalizer");
    const json_t *first = element(n, "normalizers", 0);
    if ((first != NULL && !is_type(first, "NFC")) || element(n, "normalizers", 1) != NULL) {
        return nq_tokdesc_why(h->why, err, "tokenizer.json: normalizer \"%.64s\"",
                              type_of(first != NULL && !is_type(first, "NFC") ? first : n));
    }
    return nq_tokdesc_put(h->desc, "normalizer", json_string(first != NULL ? "nfc" : "none"), err);
}

static const char *split_pattern(const json_t *part) {
    if (!is_type(part, "Split") || !flag_is(part, "invert", false, false)) {
        return NULL;
    }
    const char *behavior = json_string_value(json_object_get(part, "behavior"));
    if (behavior == NULL || strcmp(behavior, "Isolated") != 0) {
        return NULL;
    }
    return json_string_value(json_object_get(json_object_get(part, "pattern"), "Regex"));
}

static bool is_byte_level(const json_t *part, bool regex, bool alone) {
    return is_type(part, "ByteLevel") && flag_is(part, "use_regex", regex, true) &&
           (alone || flag_is(part, "add_prefix_space", false, true));
}

static bool matches_kind(const nq_pretok_kind *kind, const json_t *pre) {
    size_t i = 0;
    if (kind->digits) {
        const json_t *d = element(pre, "pretokenizers", i++);
        if (!is_type(d, "Digits") || !flag_is(d, "individual_digits", true, false)) {
            return false;
        }
    }
    for (size_t s = 0; kind->splits[s] != NULL; s++) {
        const char *pattern = split_pattern(element(pre, "pretokenizers", i++));
        if (pattern == NULL || strcmp(pattern, kind->splits[s]) != 0) {
            return false;
        }
    }
    return is_byte_level(element(pre, "pretokenizers", i), kind->byte_level_regex, i == 0) &&
           element(pre, "pretokenizers", i + 1) == NULL;
}

static novaq_status read_pretok(const hf *h, novaq_error *err) {
    const json_t *pre = json_object_get(h->root, "pre_tokenizer");
    const nq_pretok_kind *kind = NULL;
    for (size_t i = 0; (kind = nq_pretok_at(i)) != NULL && !matches_kind(kind, pre); i++) {
    }
    if (kind == NULL) {
        char *text = NULL;
        NQ_TRY(nq_json_dump(&text, absent(pre) ? json_null() : pre, 0, err));
        novaq_status st = nq_tokdesc_why(h->why, err, "tokenizer.json: pre_tokenizer %.180s", text);
        nq_free(text);
        return st;
    }
    const json_t *first = element(pre, "pretokenizers", 0);
    bool space = is_type(first, "ByteLevel") && flag_is(first, "add_prefix_space", true, true);
    NQ_TRY(nq_tokdesc_put(h->desc, "model", json_string("gpt2"), err));
    NQ_TRY(nq_tokdesc_put(h->desc, "pre", json_string(kind->name), err));
    return nq_tokdesc_put(h->desc, "add_space_prefix", json_boolean(space), err);
}

/* ---- begin and end tokens ------------------------------------------------- */

static json_int_t id_of(const hf *h, const char *text) {
    const json_t *tokens = json_object_get(h->desc, "tokens");
    for (size_t i = 0; text != NULL && i < json_array_size(tokens); i++) {
        if (strcmp(json_string_value(json_array_get(tokens, i)), text) == 0) {
            return (json_int_t)i;
        }
    }
    return -1;
}

static novaq_status read_config_ids(const hf *h, novaq_error *err) {
    static const char *const names[][2] = {{"bos_token", "bos_id"},
                                           {"eos_token", "eos_id"},
                                           {"unk_token", "unk_id"},
                                           {"pad_token", "pad_id"}};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const json_t *v = json_object_get(h->config, names[i][0]);
        if (json_is_object(v)) {
            v = json_object_get(v, "content");
        }
        json_int_t id = id_of(h, json_string_value(v));
        if (id >= 0) {
            NQ_TRY(nq_tokdesc_put(h->desc, names[i][1], json_integer(id), err));
        }
    }
    return NOVAQ_OK;
}

/* The id of a template's special token, -1 when it is not exactly one. */
static json_int_t template_id(const json_t *tp, const json_t *item) {
    const char *name =
        json_string_value(json_object_get(json_object_get(item, "SpecialToken"), "id"));
    if (name == NULL) {
        return -1;
    }
    const json_t *ids =
        json_object_get(json_object_get(json_object_get(tp, "special_tokens"), name), "ids");
    const json_t *id = json_array_get(ids, 0);
    return json_array_size(ids) == 1 && json_is_integer(id) ? json_integer_value(id) : -1;
}

/* One token at an end of the template: it must be the one the config names. */
static novaq_status put_end(const hf *h, const char *key, const char *flag, json_int_t id,
                            novaq_error *err) {
    const json_t *known = json_object_get(h->desc, key);
    if (id < 0 || (known != NULL && json_integer_value(known) != id)) {
        return nq_tokdesc_why(h->why, err,
                              "tokenizer.json: post_processor adds a token other than "
                              "the %s token",
                              key);
    }
    NQ_TRY(nq_tokdesc_put(h->desc, key, json_integer(id), err));
    return nq_tokdesc_put(h->desc, flag, json_true(), err);
}

static novaq_status read_template(const hf *h, const json_t *tp, novaq_error *err) {
    const json_t *single = json_object_get(tp, "single");
    size_t n = json_array_size(single);
    size_t at = 0;
    while (at < n && json_object_get(json_array_get(single, at), "Sequence") == NULL) {
        at++;
    }
    if (at == n || at > 1 || n - at > 2) {
        return nq_tokdesc_why(h->why, err,
                              "tokenizer.json: post_processor is not [begin] text [end]");
    }
    if (at == 1) {
        NQ_TRY(put_end(h, "bos_id", "add_bos", template_id(tp, json_array_get(single, 0)), err));
    }
    if (n - at == 2) {
        NQ_TRY(
            put_end(h, "eos_id", "add_eos", template_id(tp, json_array_get(single, n - 1)), err));
    }
    return NOVAQ_OK;
}

static novaq_status read_post(const hf *h, novaq_error *err) {
    NQ_TRY(nq_tokdesc_put(h->desc, "add_bos", json_false(), err));
    NQ_TRY(nq_tokdesc_put(h->desc, "add_eos", json_false(), err));
    const json_t *post = json_object_get(h->root, "post_processor");
    const json_t *part = NULL;
    size_t templates = 0;
    for (size_t i = 0; (part = element(post, "processors", i)) != NULL; i++) {
        if (is_type(part, "TemplateProcessing") && templates++ == 0) {
            NQ_TRY(read_template(h, part, err));
        } else if (!is_type(part, "ByteLevel")) { /* which only moves offsets */
            return nq_tokdesc_why(h->why, err, "tokenizer.json: post_processor \"%.64s\"",
                                  type_of(part));
        }
    }
    return NOVAQ_OK;
}

/* ---- the rest ------------------------------------------------------------- */

static novaq_status check_rest(const hf *h, novaq_error *err) {
    const json_t *decoder = json_object_get(h->root, "decoder");
    const json_t *first = element(decoder, "decoders", 0);
    if (first == NULL || !is_type(first, "ByteLevel") || element(decoder, "decoders", 1) != NULL) {
        return nq_tokdesc_why(h->why, err, "tokenizer.json: decoder \"%.64s\"", type_of(decoder));
    }
    const json_t *padding = json_object_get(h->root, "padding");
    const char *strategy = json_string_value(json_object_get(padding, "strategy"));
    if (!absent(json_object_get(h->root, "truncation")) ||
        (!absent(padding) && (strategy == NULL || strcmp(strategy, "BatchLongest") != 0))) {
        return nq_tokdesc_why(h->why, err, "tokenizer.json: truncation or padding");
    }
    return NOVAQ_OK;
}

static novaq_status read_all(const hf *h, novaq_error *err) {
    typedef novaq_status (*step)(const hf *, novaq_error *);
    static const step steps[] = {read_pretok, read_normalizer, check_rest,
                                 read_model,  read_config_ids, read_post};
    for (size_t i = 0; i < sizeof steps / sizeof steps[0] && *h->why == NULL; i++) {
        NQ_TRY(steps[i](h, err));
    }
    return NOVAQ_OK;
}

novaq_status nq_describe_tokenizer_hf(json_t **out, char **why, const json_t *tokenizer,
                                      const json_t *tokenizer_config, novaq_error *err) {
    *out = NULL;
    *why = NULL;
    if (!json_is_object(tokenizer)) {
        return nq_tokdesc_why(why, err, "tokenizer.json is missing or not an object");
    }
    json_t *desc = json_object();
    if (desc == NULL) {
        return nq_fail(err, NOVAQ_E_MEMORY, "no memory for the tokenizer");
    }
    hf h = {tokenizer, tokenizer_config, desc, why};
    novaq_status st = read_all(&h, err);
    if (st != NOVAQ_OK) {
        json_decref(desc);
        return st;
    }
    return nq_tokdesc_finish(out, why, &desc, err);
}
