/* describe_tokenizer_parts.c - what tokenizer.json has around its model.
 *
 * Owns: normalizer, pre-tokenizer and decoder, and giving the usual combinations
 * the names that GGUF has for them. Refuses: decoders that do not undo what the
 * encoder does, truncation and padding.
 */
#include <string.h>

#include "model/describe.h"
#include "model/describe_tokenizer_parts.h"

bool nq_hf_absent(const json_t *v) { return v == NULL || json_is_null(v); }

const char *nq_hf_type_of(const json_t *part) {
    const char *s = json_string_value(json_object_get(part, "type"));
    return s == NULL ? "?" : s;
}

bool nq_hf_is_type(const json_t *part, const char *type) {
    return strcmp(nq_hf_type_of(part), type) == 0;
}

bool nq_hf_flag_is(const json_t *part, const char *key, bool want, bool by_default) {
    const json_t *v = json_object_get(part, key);
    return v == NULL ? want == by_default : json_is_boolean(v) && json_is_true(v) == want;
}

const json_t *nq_hf_element(const json_t *part, const char *list, size_t i) {
    if (nq_hf_absent(part)) {
        return NULL;
    }
    if (nq_hf_is_type(part, "Sequence")) {
        return json_array_get(json_object_get(part, list), i);
    }
    return i == 0 ? part : NULL;
}

bool nq_hf_has_byte_level(const json_t *root) {
    const json_t *pre = json_object_get(root, "pre_tokenizer");
    const json_t *part = NULL;
    for (size_t i = 0; (part = nq_hf_element(pre, "pretokenizers", i)) != NULL; i++) {
        if (nq_hf_is_type(part, "ByteLevel")) {
            return true;
        }
    }
    return false;
}

/* ---- normalizer and pre-tokenizer ----------------------------------------- */

static bool text_is(const json_t *v, const char *text) {
    const char *s = json_string_value(v);
    return s != NULL && strcmp(s, text) == 0;
}

static bool replaces(const json_t *part, const char *from, const char *to) {
    return nq_hf_is_type(part, "Replace") &&
           text_is(json_object_get(json_object_get(part, "pattern"), "String"), from) &&
           text_is(json_object_get(part, "content"), to);
}

/* Prepend, Replace of spaces and nothing that cuts: SentencePiece's own way.
 * *space: with Prepend. */
static bool is_sentencepiece(bool *space, const json_t *normalizer, const nq_stage *stages) {
    const json_t *first = nq_hf_element(normalizer, "normalizers", 0);
    *space = first != NULL && nq_hf_is_type(first, "Prepend") &&
             text_is(json_object_get(first, "prepend"), NQ_META);
    const json_t *second = nq_hf_element(normalizer, "normalizers", *space ? 1 : 0);
    if (second == NULL || !replaces(second, " ", NQ_META) ||
        nq_hf_element(normalizer, "normalizers", *space ? 2 : 1) != NULL) {
        return false;
    }
    /* After that there are no spaces to cut at. */
    bool idle = stages[0].type == NQ_STAGE_SPLIT && stages[0].literal && !stages[0].invert &&
                strcmp(stages[0].pattern, " ") == 0;
    return stages[idle ? 1 : 0].type == NQ_STAGE_END;
}

static novaq_status put_copy(const nq_hf *h, const char *key, const json_t *value,
                             novaq_error *err) {
    return nq_tokdesc_put(h->desc, key, nq_hf_absent(value) ? json_null() : json_deep_copy(value),
                          err);
}

/* "none", "nfc", or the normalizer itself. */
static novaq_status put_normalizer(const nq_hf *h, const json_t *normalizer, novaq_error *err) {
    const json_t *first = nq_hf_element(normalizer, "normalizers", 0);
    bool one = nq_hf_element(normalizer, "normalizers", 1) == NULL;
    if (one && (first == NULL || nq_hf_is_type(first, "NFC"))) {
        return nq_tokdesc_put(h->desc, "normalizer", json_string(first != NULL ? "nfc" : "none"),
                              err);
    }
    return put_copy(h, "normalizer", normalizer, err);
}

static novaq_status put_pretok(const nq_hf *h, const json_t *pre, nq_stage *stages,
                               novaq_error *err) {
    bool alone = stages[0].type == NQ_STAGE_BYTE_LEVEL && stages[1].type == NQ_STAGE_END;
    bool space = alone && stages[0].prefix_space;
    if (alone) {
        stages[0].prefix_space = false;
    }
    const nq_pretok_kind *kind = h->byte_level ? nq_pretok_same(stages) : NULL;
    NQ_TRY(nq_tokdesc_put(h->desc, "pre", json_string(kind == NULL ? "custom" : kind->name), err));
    if (kind == NULL) {
        return put_copy(h, "pre_tokenizer", pre, err);
    }
    return nq_tokdesc_put(h->desc, "add_space_prefix", json_boolean(space), err);
}

/* Says why unless the call went well; out of memory stays an error. */
static novaq_status say_why(const nq_hf *h, novaq_status st, const novaq_error *e,
                            novaq_error *err) {
    static const char prefix[] = "tokenizer: ";
    if (st == NOVAQ_OK || st == NOVAQ_E_MEMORY) {
        return st == NOVAQ_OK ? NOVAQ_OK : nq_fail(err, st, "%s", e->msg);
    }
    size_t skip = strncmp(e->msg, prefix, sizeof prefix - 1) == 0 ? sizeof prefix - 1 : 0;
    return nq_tokdesc_why(h->why, err, "tokenizer.json: %s", e->msg + skip);
}

static novaq_status read_cutting(const nq_hf *h, novaq_error *err) {
    const json_t *normalizer = json_object_get(h->root, "normalizer");
    const json_t *pre = json_object_get(h->root, "pre_tokenizer");
    const json_t *model = json_object_get(h->root, "model");
    nq_stage stages[NQ_STAGES_MAX];
    novaq_error e = {0};
    nq_norm *norm = NULL; /* on trial */
    novaq_status st = nq_stages_read(stages, pre, &e);
    st = st == NOVAQ_OK ? nq_norm_open(&norm, normalizer, &e) : st;
    nq_norm_close(&norm);
    if (st != NOVAQ_OK) {
        return say_why(h, st, &e, err);
    }
    bool unigram = nq_hf_is_type(model, "Unigram");
    bool space = false;
    NQ_TRY(nq_tokdesc_put(h->desc, "model",
                          json_string(h->byte_level ? "gpt2"
                                      : unigram     ? "t5"
                                                    : "llama"),
                          err));
    if (!h->byte_level && is_sentencepiece(&space, normalizer, stages)) {
        NQ_TRY(nq_tokdesc_put(h->desc, "pre", json_string("default"), err));
        return nq_tokdesc_put(h->desc, "add_space_prefix", json_boolean(space), err);
    }
    NQ_TRY(put_pretok(h, pre, stages, err));
    return put_normalizer(h, normalizer, err);
}

/* ---- decoder ---------------------------------------------------------------- */

static bool strips_one_space(const json_t *part) {
    return nq_hf_is_type(part, "Strip") && text_is(json_object_get(part, "content"), " ") &&
           json_integer_value(json_object_get(part, "start")) == 1 &&
           json_integer_value(json_object_get(part, "stop")) == 0;
}

/* Replace, ByteFallback, Fuse and perhaps Strip, or Metaspace: NULL when it is
 * neither, else what it takes from the beginning of a text. */
static const char *strip_of(const nq_hf *h, const json_t *decoder) {
    const json_t *first = nq_hf_element(decoder, "decoders", 0);
    if (nq_hf_is_type(first, "Metaspace") && !h->bytes &&
        text_is(json_object_get(first, "replacement"), NQ_META) &&
        nq_hf_element(decoder, "decoders", 1) == NULL) {
        bool never = text_is(json_object_get(first, "prepend_scheme"), "never") ||
                     nq_hf_flag_is(first, "add_prefix_space", false, true);
        return never ? "nothing" : "token";
    }
    size_t i = 0;
    const json_t *part = NULL;
    if (first == NULL || !replaces(first, NQ_META, " ")) {
        return NULL;
    }
    i++;
    part = nq_hf_element(decoder, "decoders", i);
    bool bytes = part != NULL && nq_hf_is_type(part, "ByteFallback");
    i += bytes;
    part = nq_hf_element(decoder, "decoders", i);
    bool fuses = part != NULL && nq_hf_is_type(part, "Fuse");
    i += fuses;
    part = nq_hf_element(decoder, "decoders", i);
    bool strips = part != NULL && fuses && strips_one_space(part);
    i += strips;
    if (nq_hf_element(decoder, "decoders", i) != NULL || bytes != h->bytes) {
        return NULL;
    }
    return strips ? "space" : "nothing";
}

static novaq_status read_decoder(const nq_hf *h, novaq_error *err) {
    const json_t *decoder = json_object_get(h->root, "decoder");
    const json_t *first = nq_hf_element(decoder, "decoders", 0);
    if (h->byte_level) {
        bool known = first != NULL && nq_hf_is_type(first, "ByteLevel") &&
                     nq_hf_element(decoder, "decoders", 1) == NULL;
        return known ? NOVAQ_OK
                     : nq_tokdesc_why(h->why, err, "tokenizer.json: decoder \"%.64s\"",
                                      nq_hf_type_of(decoder));
    }
    const char *strip = strip_of(h, decoder);
    if (strip == NULL) {
        return nq_tokdesc_why(h->why, err,
                              "tokenizer.json: decoder \"%.64s\" beginning with "
                              "\"%.64s\"",
                              nq_hf_type_of(decoder), nq_hf_type_of(first));
    }
    bool space = json_is_true(json_object_get(h->desc, "add_space_prefix"));
    bool usual = text_is(json_object_get(h->desc, "pre"), "default") &&
                 strcmp(strip, space ? "space" : "nothing") == 0;
    return usual ? NOVAQ_OK : nq_tokdesc_put(h->desc, "strip", json_string(strip), err);
}

static novaq_status check_limits(const nq_hf *h, novaq_error *err) {
    const json_t *padding = json_object_get(h->root, "padding");
    const char *strategy = json_string_value(json_object_get(padding, "strategy"));
    if (!nq_hf_absent(json_object_get(h->root, "truncation")) ||
        (!nq_hf_absent(padding) && (strategy == NULL || strcmp(strategy, "BatchLongest") != 0))) {
        return nq_tokdesc_why(h->why, err, "tokenizer.json: truncation or padding");
    }
    return NOVAQ_OK;
}

novaq_status nq_hf_read_around(const nq_hf *h, novaq_error *err) {
    NQ_TRY(read_cutting(h, err));
    if (*h->why == NULL) {
        NQ_TRY(read_decoder(h, err));
    }
    return *h->why == NULL ? check_limits(h, err) : NOVAQ_OK;
}
