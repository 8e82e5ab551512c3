/* describe_tokenizer_spm.c - the "tokenizer" object of describe.h from a
 * SentencePiece file (tokenizer.model), for models without a tokenizer.json.
 *
 * Owns: the scan of that Protocol Buffers message: pieces, and what the trainer's
 * and normalizer's settings say about encoding. Refuses: SentencePiece's Unicode
 * normalization, white space that is squeezed or written behind words, and what
 * this file cannot say about added tokens; the reason goes to *why.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model/describe.h"
#include "model/tokenizer_impl.h"

typedef struct scan {
    const uint8_t *p, *end;
    bool bad;
} scan;

typedef struct field {
    uint32_t number;
    uint64_t value; /* varint, or the bits of a fixed number */
    scan bytes;     /* of a length-delimited field */
} field;

/* Settings as the format's defaults have them. */
typedef struct settings {
    uint64_t model_type; /* 1 Unigram, 2 BPE */
    bool byte_fallback, suffix;
    int64_t unk, bos, eos, pad;
    bool charsmap, dummy_prefix, squeeze, escape;
} settings;

static uint64_t varint(scan *s) {
    uint64_t v = 0;
    for (unsigned shift = 0; shift < 64 && s->p < s->end; shift += 7) {
        uint8_t b = *s->p++;
        v |= (uint64_t)(b & 0x7FU) << shift;
        if (b < 0x80) {
            return v;
        }
    }
    s->bad = true;
    return 0;
}

static uint64_t fixed(scan *s, size_t bytes) {
    uint64_t v = 0;
    if ((size_t)(s->end - s->p) < bytes) {
        s->bad = true;
        return 0;
    }
    for (size_t i = 0; i < bytes; i++) {
        v |= (uint64_t)s->p[i] << (8 * i);
    }
    s->p += bytes;
    return v;
}

/* The next field; false at the end and at damage, which sets s->bad. */
static bool next(scan *s, field *f) {
    *f = (field){0};
    if (s->bad || s->p == s->end) {
        return false;
    }
    uint64_t tag = varint(s);
    f->number = (uint32_t)(tag >> 3);
    switch (tag & 7) {
    case 0: f->value = varint(s); break;
    case 1: f->value = fixed(s, 8); break;
    case 2: {
        uint64_t len = varint(s);
        if (s->bad || len > (uint64_t)(s->end - s->p)) {
            s->bad = true;
            break;
        }
        f->bytes = (scan){s->p, s->p + len, false};
        s->p += len;
        break;
    }
    case 5: f->value = fixed(s, 4); break;
    default: s->bad = true;
    }
    s->bad = s->bad || tag >> 3 == 0 || tag >> 3 > 0x1FFFFFFF;
    return !s->bad;
}

static bool read_trainer(settings *t, scan s) {
    for (field f; next(&s, &f);) {
        switch (f.number) {
        case 3: t->model_type = f.value; break;
        case 24: t->suffix = f.value != 0; break;
        case 35: t->byte_fallback = f.value != 0; break;
        case 40: t->unk = (int32_t)f.value; break;
        case 41: t->bos = (int32_t)f.value; break;
        case 42: t->eos = (int32_t)f.value; break;
        case 43: t->pad = (int32_t)f.value; break;
        default: break;
        }
    }
    return !s.bad;
}

static bool read_normalizer(settings *t, scan s) {
    for (field f; next(&s, &f);) {
        switch (f.number) {
        case 2: t->charsmap = f.bytes.p != f.bytes.end; break;
        case 3: t->dummy_prefix = f.value != 0; break;
        case 4: t->squeeze = f.value != 0; break;
        case 5: t->escape = f.value != 0; break;
        default: break;
        }
    }
    return !s.bad;
}

typedef struct lists {
    json_t *tokens, *types, *scores; /* borrowed from the description */
} lists;

static novaq_status append(json_t *list, json_t *value, novaq_error *err) {
    return json_array_append_new(list, value) == 0
               ? NOVAQ_OK
               : nq_fail(err, NOVAQ_E_MEMORY, "no memory for the pieces");
}

static novaq_status read_piece(const lists *l, scan s, char **why, novaq_error *err) {
    scan text = {0};
    uint64_t type = NQ_TOK_NORMAL;
    uint32_t bits = 0;
    float score = 0;
    for (field f; next(&s, &f);) {
        text = f.number == 1 ? f.bytes : text;
        bits = f.number == 2 ? (uint32_t)f.value : bits;
        type = f.number == 3 ? f.value : type;
    }
    memcpy(&score, &bits, sizeof score);
    size_t len = text.p == NULL ? 0 : (size_t)(text.end - text.p);
    json_t *string = s.bad || (len > 0 && memchr(text.p, 0, len) != NULL)
                         ? NULL
                         : json_stringn(len > 0 ? (const char *)text.p : "", len);
    if (string == NULL || type < 1 || type > 6 || !isfinite(score)) {
        json_decref(string);
        return nq_tokdesc_why(why, err, "tokenizer.model: piece %zu is damaged",
                              json_array_size(l->tokens));
    }
    NQ_TRY(append(l->tokens, string, err));
    NQ_TRY(append(l->types, json_integer((json_int_t)type), err));
    return append(l->scores, json_real((double)score), err);
}

static novaq_status read_message(const lists *l, settings *t, scan s, char **why,
                                 novaq_error *err) {
    for (field f; *why == NULL && next(&s, &f);) {
        bool good = true;
        if (f.number == 1 && json_array_size(l->tokens) < NQ_TOK_VOCAB_MAX) {
            NQ_TRY(read_piece(l, f.bytes, why, err));
        } else if (f.number == 2) {
            good = read_trainer(t, f.bytes);
        } else if (f.number == 3) {
            good = read_normalizer(t, f.bytes);
        }
        if (!good) {
            return nq_tokdesc_why(why, err, "tokenizer.model: its settings are damaged");
        }
    }
    return s.bad || json_array_size(l->tokens) == 0
               ? nq_tokdesc_why(why, err, "tokenizer.model is damaged or no SentencePiece file")
               : NOVAQ_OK;
}

/* Ids beyond the pieces are known only to tokenizer_config.json. */
static bool has_added_tokens(const json_t *config, size_t pieces) {
    const char *key = NULL;
    json_t *v = NULL;
    json_object_foreach(json_object_get(config, "added_tokens_decoder"), key, v) {
        if (strspn(key, "0123456789") != strlen(key) || strlen(key) > 9 ||
            (size_t)strtoul(key, NULL, 10) >= pieces) {
            return true;
        }
    }
    return false;
}

static novaq_status check(const lists *l, const settings *t, const json_t *config, char **why,
                          novaq_error *err) {
    bool user = false;
    for (size_t i = 0; i < json_array_size(l->types); i++) {
        user = user || json_integer_value(json_array_get(l->types, i)) == NQ_TOK_USER;
    }
    const char *what = t->model_type != 1 && t->model_type != 2
                           ? "a model that is not BPE or Unigram"
                       : t->charsmap             ? "Unicode normalization"
                       : t->squeeze              ? "white space that is squeezed"
                       : !t->escape              ? "white space that is not escaped"
                       : t->suffix               ? "white space behind words"
                       : user && t->dummy_prefix ? "user-defined pieces with a space prefix"
                       : has_added_tokens(config, json_array_size(l->tokens))
                           ? "added tokens that only tokenizer_config.json knows"
                           : NULL;
    return what == NULL ? NOVAQ_OK
                        : nq_tokdesc_why(why, err,
                                         "tokenizer.model: %s; only a tokenizer.json "
                                         "would do",
                                         what);
}

static novaq_status put_id(json_t *desc, const char *key, int64_t id, novaq_error *err) {
    size_t count = json_array_size(json_object_get(desc, "tokens"));
    return id < 0 || (uint64_t)id >= count ? NOVAQ_OK
                                           : nq_tokdesc_put(desc, key, json_integer(id), err);
}

static novaq_status put_flag(json_t *desc, const char *key, const json_t *config, const char *as,
                             const char *needs, bool absent, novaq_error *err) {
    const json_t *v = json_object_get(config, as);
    bool on = json_is_boolean(v) ? json_is_true(v) : absent;
    return nq_tokdesc_put(desc, key, json_boolean(on && json_object_get(desc, needs) != NULL), err);
}

static novaq_status put_settings(json_t *desc, const settings *t, const json_t *config,
                                 novaq_error *err) {
    bool bpe = t->model_type == 2;
    NQ_TRY(nq_tokdesc_put(desc, "model", json_string(bpe ? "llama" : "t5"), err));
    NQ_TRY(nq_tokdesc_put(desc, "pre", json_string("default"), err));
    NQ_TRY(put_id(desc, "unk_id", t->unk, err));
    NQ_TRY(put_id(desc, "bos_id", t->bos, err));
    NQ_TRY(put_id(desc, "eos_id", t->eos, err));
    NQ_TRY(put_id(desc, "pad_id", t->pad, err));
    NQ_TRY(put_flag(desc, "add_bos", config, "add_bos_token", "bos_id", bpe, err));
    NQ_TRY(put_flag(desc, "add_eos", config, "add_eos_token", "eos_id", !bpe, err));
    NQ_TRY(nq_tokdesc_put(desc, "add_space_prefix", json_boolean(t->dummy_prefix), err));
    return nq_tokdesc_put(desc, "byte_fallback", json_boolean(t->byte_fallback), err);
}

static novaq_status describe(json_t *desc, char **why, scan s, const json_t *config,
                             novaq_error *err) {
    lists l = {json_array(), json_array(), json_array()};
    settings t = {.model_type = 1,
                  .bos = 1,
                  .eos = 2,
                  .pad = -1,
                  .dummy_prefix = true,
                  .squeeze = true,
                  .escape = true};
    novaq_status st = nq_tokdesc_put(desc, "tokens", l.tokens, err);
    novaq_status st2 = nq_tokdesc_put(desc, "token_types", l.types, err);
    novaq_status st3 = nq_tokdesc_put(desc, "scores", l.scores, err);
    NQ_TRY(st);
    NQ_TRY(st2);
    NQ_TRY(st3);
    NQ_TRY(read_message(&l, &t, s, why, err));
    if (*why == NULL) {
        NQ_TRY(check(&l, &t, config, why, err));
    }
    return *why == NULL ? put_settings(desc, &t, config, err) : NOVAQ_OK;
}

novaq_status nq_describe_tokenizer_spm(json_t **out, char **why, const void *data, size_t len,
                                       const json_t *config, novaq_error *err) {
    *out = NULL;
    *why = NULL;
    json_t *desc = json_object();
    if (desc == NULL) {
        return nq_fail(err, NOVAQ_E_MEMORY, "no memory for the tokenizer");
    }
    const uint8_t *p = data;
    novaq_status st = describe(desc, why, (scan){p, p + len, false}, config, err);
    if (st != NOVAQ_OK) {
        json_decref(desc);
        return st;
    }
    return nq_tokdesc_finish(out, why, &desc, err);
}
