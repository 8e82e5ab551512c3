/* describe_tokenizer_hf.c - the "tokenizer" object of describe.h from
 * tokenizer.json and tokenizer_config.json.
 *
 * Owns: vocabulary, added tokens, model, begin and end tokens; the parts around
 * them are describe_tokenizer_parts.c. Refuses: what tokenizer.c does not
 * reproduce; *why names the part.
 */
#include <string.h>

#include "model/describe.h"
#include "model/describe_tokenizer_parts.h"
#include "model/tokenizer_impl.h"

/* ---- vocabulary ----------------------------------------------------------- */

static novaq_status max_id(json_int_t *count, const nq_hf *h, const json_t *vocab,
                           const json_t *added, novaq_error *err) {
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

static novaq_status fill_vocab(slot *slots, const nq_hf *h, const json_t *vocab, novaq_error *err) {
    const char *key = NULL;
    json_t *v = NULL;
    json_object_foreach((json_t *)vocab, key, v) {
        json_int_t id = json_integer_value(v);
        if (slots[id].text != NULL) {
            return nq_tokdesc_why(h->why, err, "tokenizer.json: two tokens have id %lld",
                                  (long long)id);
        }
        bool byte =
            h->bytes && nq_byte_token((nq_span){(const uint8_t *)key, (uint32_t)strlen(key)}) >= 0;
        slots[id] = (slot){key, byte ? NQ_TOK_BYTE : NQ_TOK_NORMAL};
    }
    return NOVAQ_OK;
}

/* Notes the id where the token has the flag. */
static novaq_status note_flag(const nq_hf *h, const char *key, json_int_t id, bool has,
                              novaq_error *err) {
    if (!has) {
        return NOVAQ_OK;
    }
    json_t *list = json_object_get(h->desc, key);
    if (list == NULL) {
        list = json_array();
        NQ_TRY(nq_tokdesc_put(h->desc, key, list, err));
    }
    return json_array_append_new(list, json_integer(id)) == 0
               ? NOVAQ_OK
               : nq_fail(err, NOVAQ_E_MEMORY, "no memory for %s", key);
}

static novaq_status fill_added(slot *slots, const nq_hf *h, const json_t *vocab,
                               const json_t *added, novaq_error *err) {
    size_t count = json_array_size(added);
    for (size_t i = 0; i < count && *h->why == NULL; i++) {
        const json_t *a = json_array_get(added, i);
        const char *text = json_string_value(json_object_get(a, "content"));
        json_int_t id = json_integer_value(json_object_get(a, "id"));
        if (text == NULL || !nq_hf_flag_is(a, "single_word", false, false)) {
            return nq_tokdesc_why(h->why, err,
                                  "tokenizer.json: added token %lld is a whole word only "
                                  "(single_word)",
                                  (long long)id);
        }
        bool special = json_is_true(json_object_get(a, "special"));
        const json_t *twin = json_object_get(vocab, text);
        if ((twin != NULL && json_integer_value(twin) != id) ||
            (slots[id].text != NULL && strcmp(slots[id].text, text) != 0)) {
            return nq_tokdesc_why(h->why, err,
                                  "tokenizer.json: added token %lld contradicts the vocabulary",
                                  (long long)id);
        }
        NQ_TRY(note_flag(h, "lstrip_ids", id, nq_hf_flag_is(a, "lstrip", true, false), err));
        NQ_TRY(note_flag(h, "rstrip_ids", id, nq_hf_flag_is(a, "rstrip", true, false), err));
        NQ_TRY(note_flag(h, "normalized_ids", id, nq_hf_flag_is(a, "normalized", true, !special),
                         err));
        slots[id] = (slot){text, special ? NQ_TOK_CONTROL : NQ_TOK_USER};
    }
    return NOVAQ_OK;
}

/* Holes in the numbering become unused tokens that text never gives. */
static novaq_status put_slots(const nq_hf *h, const slot *slots, size_t count, novaq_error *err) {
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

static novaq_status read_vocab(const nq_hf *h, const json_t *vocab, novaq_error *err) {
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

static novaq_status read_merges(const nq_hf *h, const json_t *merges, novaq_error *err) {
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

static bool empty_text(const json_t *v) { return nq_hf_absent(v) || json_string_length(v) == 0; }

static novaq_status put_flag(const nq_hf *h, const char *key, const json_t *m, novaq_error *err) {
    return nq_tokdesc_put(h->desc, key, json_boolean(json_is_true(json_object_get(m, key))), err);
}

static novaq_status put_unknown(const nq_hf *h, const json_t *id, novaq_error *err) {
    return json_is_integer(id)
               ? nq_tokdesc_put(h->desc, "unk_id", json_integer(json_integer_value(id)), err)
               : NOVAQ_OK;
}

static novaq_status read_bpe(const nq_hf *h, const json_t *m, novaq_error *err) {
    const json_t *vocab = json_object_get(m, "vocab");
    const json_t *merges = json_object_get(m, "merges");
    const json_t *dropout = json_object_get(m, "dropout");
    const char *unk = json_string_value(json_object_get(m, "unk_token"));
    if (!json_is_object(vocab) || !json_is_array(merges)) {
        return nq_tokdesc_why(h->why, err, "tokenizer.json: BPE without vocabulary or merges");
    }
    if ((!nq_hf_absent(dropout) && json_number_value(dropout) != 0) ||
        !empty_text(json_object_get(m, "continuing_subword_prefix")) ||
        !empty_text(json_object_get(m, "end_of_word_suffix"))) {
        return nq_tokdesc_why(h->why, err,
                              "tokenizer.json: BPE with dropout, subword prefix or word suffix");
    }
    if (h->byte_level) {
        bool fallback = unk != NULL || json_is_true(json_object_get(m, "byte_fallback"));
        if (fallback && !has_all_bytes(vocab)) {
            return nq_tokdesc_why(h->why, err,
                                  "tokenizer.json: BPE with unknown-token or byte fallback");
        }
    } else {
        NQ_TRY(put_flag(h, "byte_fallback", m, err));
        NQ_TRY(put_flag(h, "fuse_unk", m, err));
        NQ_TRY(put_unknown(h, unk == NULL ? NULL : json_object_get(vocab, unk), err));
    }
    NQ_TRY(put_flag(h, "ignore_merges", m, err));
    NQ_TRY(read_vocab(h, vocab, err));
    return *h->why == NULL ? read_merges(h, merges, err) : NOVAQ_OK;
}

/* [[text, score], ...] as {text: id}. */
static novaq_status index_pieces(json_t *vocab, const nq_hf *h, const json_t *pieces,
                                 novaq_error *err) {
    for (size_t i = 0; i < json_array_size(pieces); i++) {
        const json_t *piece = json_array_get(pieces, i);
        const char *text = json_string_value(json_array_get(piece, 0));
        if (text == NULL || !json_is_number(json_array_get(piece, 1)) ||
            json_object_get(vocab, text) != NULL) {
            return nq_tokdesc_why(
                h->why, err, "tokenizer.json: piece %zu is not a text of its own and a score", i);
        }
        NQ_TRY(nq_tokdesc_put(vocab, text, json_integer((json_int_t)i), err));
    }
    return NOVAQ_OK;
}

/* Tokens beyond the pieces are found as added tokens only; their score is no one's. */
static novaq_status put_scores(const nq_hf *h, const json_t *pieces, novaq_error *err) {
    json_t *scores = json_array();
    NQ_TRY(nq_tokdesc_put(h->desc, "scores", scores, err));
    size_t count = json_array_size(json_object_get(h->desc, "tokens"));
    for (size_t i = 0; i < count; i++) {
        double v = json_number_value(json_array_get(json_array_get(pieces, i), 1));
        if (json_array_append_new(scores, json_real(v)) != 0) {
            return nq_fail(err, NOVAQ_E_MEMORY, "no memory for the scores");
        }
    }
    return NOVAQ_OK;
}

static novaq_status read_unigram(const nq_hf *h, const json_t *m, novaq_error *err) {
    const json_t *pieces = json_object_get(m, "vocab");
    if (!json_is_array(pieces) || h->byte_level) {
        return nq_tokdesc_why(h->why, err,
                              "tokenizer.json: Unigram without a list of pieces, or "
                              "after ByteLevel");
    }
    json_t *vocab = json_object();
    if (vocab == NULL) {
        return nq_fail(err, NOVAQ_E_MEMORY, "no memory for the vocabulary");
    }
    novaq_status st = index_pieces(vocab, h, pieces, err);
    if (st == NOVAQ_OK && *h->why == NULL) {
        st = read_vocab(h, vocab, err);
    }
    json_decref(vocab);
    if (st != NOVAQ_OK || *h->why != NULL) {
        return st;
    }
    NQ_TRY(put_flag(h, "byte_fallback", m, err));
    NQ_TRY(nq_tokdesc_put(h->desc, "fuse_unk", json_true(), err));
    NQ_TRY(nq_tokdesc_put(h->desc, "literal_bytes", json_true(), err));
    NQ_TRY(put_unknown(h, json_object_get(m, "unk_id"), err));
    return put_scores(h, pieces, err);
}

static novaq_status read_model(const nq_hf *h, novaq_error *err) {
    const json_t *m = json_object_get(h->root, "model");
    bool unnamed = json_object_get(m, "type") == NULL;
    if (nq_hf_is_type(m, "Unigram")) {
        return read_unigram(h, m, err);
    }
    if (unnamed || nq_hf_is_type(m, "BPE")) {
        return read_bpe(h, m, err);
    }
    return nq_tokdesc_why(h->why, err,
                          "tokenizer.json: model \"%.64s\" (BPE and Unigram are supported)",
                          nq_hf_type_of(m));
}

/* ---- begin and end tokens ------------------------------------------------- */

static json_int_t id_of(const nq_hf *h, const char *text) {
    const json_t *tokens = json_object_get(h->desc, "tokens");
    for (size_t i = 0; text != NULL && i < json_array_size(tokens); i++) {
        if (strcmp(json_string_value(json_array_get(tokens, i)), text) == 0) {
            return (json_int_t)i;
        }
    }
    return -1;
}

static novaq_status read_config_ids(const nq_hf *h, novaq_error *err) {
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
        bool models = !h->byte_level && strcmp(names[i][1], "unk_id") == 0; /* its own */
        if (id >= 0 && !models) {
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
static novaq_status put_end(const nq_hf *h, const char *key, const char *flag, json_int_t id,
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

static novaq_status read_template(const nq_hf *h, const json_t *tp, novaq_error *err) {
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

static novaq_status read_post(const nq_hf *h, novaq_error *err) {
    NQ_TRY(nq_tokdesc_put(h->desc, "add_bos", json_false(), err));
    NQ_TRY(nq_tokdesc_put(h->desc, "add_eos", json_false(), err));
    const json_t *post = json_object_get(h->root, "post_processor");
    const json_t *part = NULL;
    size_t templates = 0;
    for (size_t i = 0; (part = nq_hf_element(post, "processors", i)) != NULL; i++) {
        if (nq_hf_is_type(part, "TemplateProcessing") && templates++ == 0) {
            NQ_TRY(read_template(h, part, err));
        } else if (!nq_hf_is_type(part, "ByteLevel")) { /* which only moves offsets */
            return nq_tokdesc_why(h->why, err, "tokenizer.json: post_processor \"%.64s\"",
                                  nq_hf_type_of(part));
        }
    }
    return NOVAQ_OK;
}

/* ---- all of it ------------------------------------------------------------ */

static novaq_status read_all(const nq_hf *h, novaq_error *err) {
    typedef novaq_status (*step)(const nq_hf *, novaq_error *);
    static const step steps[] = {nq_hf_read_around, read_model, read_config_ids, read_post};
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
    nq_hf h = {.root = tokenizer, .config = tokenizer_config, .desc = desc, .why = why};
    h.byte_level = nq_hf_has_byte_level(tokenizer);
    h.bytes = !h.byte_level &&
              json_is_true(json_object_get(json_object_get(tokenizer, "model"), "byte_fallback"));
    novaq_status st = read_all(&h, err);
    if (st != NOVAQ_OK) {
        json_decref(desc);
        return st;
    }
    return nq_tokdesc_finish(out, why, &desc, err);
}
