/* tokenizer.c - see tokenizer.h.
 *
 * Owns: putting the parts together in the order of Hugging Face's `tokenizers`:
 * special tokens, normalizer, pre-tokenizer, BPE, begin and end tokens.
 */
#include "model/tokenizer.h"

#include <string.h>

#include "model/tokenizer_impl.h"

struct nq_tokenizer {
    nq_vocab vocab;
    nq_bpe bpe;
    nq_pretok *pretok;
    nq_specials user; /* always matched */
    nq_specials all;  /* matched with parse_special */
    bool *ends;       /* by id */
    int32_t bos, eos; /* -1: none */
    bool add_bos, add_eos, add_space, nfc;
};

static const char where[] = "tokenizer";

/* An optional id; -1 when absent or null. */
static novaq_status get_id(int32_t *out, const json_t *desc, const char *key, size_t vocab,
                           novaq_error *err) {
    const json_t *v = json_object_get(desc, key);
    *out = -1;
    if (v == NULL || json_is_null(v)) {
        return NOVAQ_OK;
    }
    json_int_t id = json_integer_value(v);
    if (!json_is_integer(v) || id < 0 || (uint64_t)id >= vocab) {
        return nq_fail(err, NOVAQ_E_FORMAT, "%s: \"%s\" is not a token id", where, key);
    }
    *out = (int32_t)id;
    return NOVAQ_OK;
}

/* An optional boolean; false when absent. */
static novaq_status get_bool(bool *out, const json_t *desc, const char *key, novaq_error *err) {
    const json_t *v = json_object_get(desc, key);
    *out = json_is_true(v);
    if (v != NULL && !json_is_boolean(v)) {
        return nq_fail(err, NOVAQ_E_FORMAT, "%s: \"%s\" is not true or false", where, key);
    }
    return NOVAQ_OK;
}

static novaq_status open_ends(nq_tokenizer *t, const json_t *desc, novaq_error *err) {
    NQ_TRY(nq_alloc(&t->ends, t->vocab.count, sizeof *t->ends, err));
    if (t->eos >= 0) {
        t->ends[t->eos] = true;
    }
    const json_t *list = json_object_get(desc, "eot_ids");
    if (list != NULL && !json_is_array(list)) {
        return nq_fail(err, NOVAQ_E_FORMAT, "%s: \"eot_ids\" is not an array", where);
    }
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *v = json_array_get(list, i);
        json_int_t id = json_integer_value(v);
        if (!json_is_integer(v) || id < 0 || (uint64_t)id >= t->vocab.count) {
            return nq_fail(err, NOVAQ_E_FORMAT, "%s: eot_ids[%zu] is not a token id", where, i);
        }
        t->ends[id] = true;
    }
    return NOVAQ_OK;
}

static novaq_status open_ids(nq_tokenizer *t, const json_t *desc, novaq_error *err) {
    NQ_TRY(get_id(&t->bos, desc, "bos_id", t->vocab.count, err));
    NQ_TRY(get_id(&t->eos, desc, "eos_id", t->vocab.count, err));
    NQ_TRY(get_bool(&t->add_bos, desc, "add_bos", err));
    NQ_TRY(get_bool(&t->add_eos, desc, "add_eos", err));
    if ((t->add_bos && t->bos < 0) || (t->add_eos && t->eos < 0)) {
        return nq_fail(err, NOVAQ_E_FORMAT, "%s: adds a %s token but names none", where,
                       t->add_bos && t->bos < 0 ? "begin" : "end");
    }
    return open_ends(t, desc, err);
}

static novaq_status open_normalizer(nq_tokenizer *t, const json_t *desc, novaq_error *err) {
    const json_t *v = json_object_get(desc, "normalizer");
    const char *name = v == NULL ? "none" : json_string_value(v);
    if (name == NULL || (strcmp(name, "none") != 0 && strcmp(name, "nfc") != 0)) {
        return nq_fail(err, NOVAQ_E_UNSUPPORTED, "%s: normalizer \"%.64s\" is not known", where,
                       name == NULL ? "?" : name);
    }
    t->nfc = strcmp(name, "nfc") == 0;
    return NOVAQ_OK;
}

static novaq_status open_pretok(nq_tokenizer *t, const json_t *desc, novaq_error *err) {
    const char *model = NULL;
    const char *pre = NULL;
    NQ_TRY(nq_json_get_string(&model, desc, "model", where, err));
    if (strcmp(model, "gpt2") != 0) {
        return nq_fail(err, NOVAQ_E_UNSUPPORTED,
                       "%s: model \"%.64s\" (only byte-level BPE, \"gpt2\", is supported)", where,
                       model);
    }
    NQ_TRY(nq_json_get_string(&pre, desc, "pre", where, err));
    const nq_pretok_kind *kind = nq_pretok_find(pre, strlen(pre));
    if (kind == NULL) {
        return nq_fail(err, NOVAQ_E_UNSUPPORTED, "%s: pre-tokenizer \"%.64s\" is not supported",
                       where, pre);
    }
    NQ_TRY(open_normalizer(t, desc, err));
    NQ_TRY(get_bool(&t->add_space, desc, "add_space_prefix", err));
    /* The reference adds the space to every piece of the splits before; only the
     * plain ByteLevel pre-tokenizer has none. */
    if (t->add_space && (kind->digits || kind->splits[0] != NULL)) {
        return nq_fail(err, NOVAQ_E_UNSUPPORTED,
                       "%s: pre-tokenizer \"%.64s\" with a space prefix is not supported", where,
                       pre);
    }
    return nq_pretok_open(&t->pretok, kind, err);
}

static novaq_status open_vocab(nq_tokenizer *t, const json_t *desc, novaq_error *err) {
    const json_t *tokens = NULL;
    const json_t *types = NULL;
    const json_t *merges = NULL;
    bool ignore_merges = false;
    NQ_TRY(nq_json_get_array(&tokens, desc, "tokens", where, err));
    NQ_TRY(nq_json_get_array(&types, desc, "token_types", where, err));
    NQ_TRY(nq_json_get_array(&merges, desc, "merges", where, err));
    NQ_TRY(get_bool(&ignore_merges, desc, "ignore_merges", err));
    NQ_TRY(nq_vocab_init(&t->vocab, tokens, types, err));
    NQ_TRY(nq_bpe_init(&t->bpe, &t->vocab, merges, ignore_merges, err));
    NQ_TRY(nq_specials_init(&t->user, &t->vocab, false, err));
    return nq_specials_init(&t->all, &t->vocab, true, err);
}

novaq_status nq_tokenizer_open(nq_tokenizer **out, const json_t *desc, novaq_error *err) {
    *out = NULL;
    if (!json_is_object(desc)) {
        return nq_fail(err, NOVAQ_E_FORMAT, "%s: the description is not an object", where);
    }
    nq_tokenizer *t = NULL;
    NQ_TRY(nq_alloc(&t, 1, sizeof *t, err));
    novaq_status st = open_pretok(t, desc, err);
    st = st == NOVAQ_OK ? open_vocab(t, desc, err) : st;
    st = st == NOVAQ_OK ? open_ids(t, desc, err) : st;
    if (st != NOVAQ_OK) {
        nq_tokenizer_close(&t);
    }
    *out = t;
    return st;
}

void nq_tokenizer_close(nq_tokenizer **t) {
    if (*t == NULL) {
        return;
    }
    nq_specials_free(&(*t)->all);
    nq_specials_free(&(*t)->user);
    nq_bpe_free(&(*t)->bpe);
    nq_pretok_close(&(*t)->pretok);
    nq_vocab_free(&(*t)->vocab);
    nq_free((*t)->ends);
    nq_free(*t);
    *t = NULL;
}

/* One encode call. */
typedef struct job {
    const nq_tokenizer *t;
    nq_ids ids;
    nq_bpe_work work;
} job;

static novaq_status encode_piece(void *ctx, const uint8_t *piece, size_t len, novaq_error *err) {
    job *j = ctx;
    return nq_bpe_encode(&j->ids, &j->work, &j->t->bpe, piece, len, err);
}

/* Text between special tokens. */
static novaq_status encode_plain(job *j, const uint8_t *text, size_t len, novaq_error *err) {
    const nq_tokenizer *t = j->t;
    if (len == 0) {
        return NOVAQ_OK;
    }
    if (!t->nfc && !t->add_space) {
        return nq_pretok_run(t->pretok, text, len, encode_piece, j, err);
    }
    nq_buf b = nq_buf_init(4 * NQ_TOK_TEXT_MAX); /* NFC at most triples UTF-8 */
    novaq_status st = NOVAQ_OK;
    if (t->add_space && text[0] != ' ') {
        st = nq_buf_append(&b, " ", 1, err);
    }
    if (st == NOVAQ_OK) {
        st = t->nfc ? nq_nfc(&b, text, len, err) : nq_buf_append(&b, text, len, err);
    }
    if (st == NOVAQ_OK) {
        st = nq_pretok_run(t->pretok, b.data, b.len, encode_piece, j, err);
    }
    nq_buf_free(&b);
    return st;
}

static novaq_status encode_text(job *j, const nq_specials *specials, const uint8_t *text,
                                size_t len, novaq_error *err) {
    size_t done = 0;
    size_t at = 0;
    uint32_t id = 0;
    while (nq_specials_next(specials, text, done, len, &at, &id)) {
        NQ_TRY(encode_plain(j, text + done, at - done, err));
        NQ_TRY(nq_ids_push(&j->ids, (int32_t)id, err));
        done = at + j->t->vocab.text[id].len;
    }
    return encode_plain(j, text + done, len - done, err);
}

static novaq_status encode_all(job *j, const uint8_t *text, size_t len, int add_special,
                               int parse_special, novaq_error *err) {
    const nq_tokenizer *t = j->t;
    if (add_special && t->add_bos) {
        NQ_TRY(nq_ids_push(&j->ids, t->bos, err));
    }
    NQ_TRY(encode_text(j, parse_special ? &t->all : &t->user, text, len, err));
    return add_special && t->add_eos ? nq_ids_push(&j->ids, t->eos, err) : NOVAQ_OK;
}

novaq_status nq_tokenizer_encode(int32_t **ids, size_t *count, const nq_tokenizer *t,
                                 const char *text, size_t len, int add_special, int parse_special,
                                 novaq_error *err) {
    *ids = NULL;
    *count = 0;
    if (len > NQ_TOK_TEXT_MAX) {
        return nq_fail(err, NOVAQ_E_ARG, "text of %zu bytes is too long to tokenize at once", len);
    }
    job j = {.t = t};
    const uint8_t *bytes = len > 0 ? (const uint8_t *)text : (const uint8_t *)"";
    novaq_status st = encode_all(&j, bytes, len, add_special, parse_special, err);
    nq_bpe_work_free(&j.work);
    if (st == NOVAQ_OK && j.ids.data == NULL) {
        st = nq_alloc(&j.ids.data, 1, sizeof *j.ids.data, err);
    }
    if (st != NOVAQ_OK) {
        nq_free(j.ids.data);
        return st;
    }
    *ids = j.ids.data;
    *count = j.ids.count;
    return NOVAQ_OK;
}

novaq_status nq_tokenizer_decode(char **text, size_t *len, const nq_tokenizer *t,
                                 const int32_t *ids, size_t count, int skip_special,
                                 novaq_error *err) {
    *text = NULL;
    *len = 0;
    nq_buf b = nq_buf_init((size_t)NQ_ALLOC_MAX);
    novaq_status st = NOVAQ_OK;
    for (size_t i = 0; st == NOVAQ_OK && i < count; i++) {
        if (ids[i] < 0 || (size_t)ids[i] >= t->vocab.count) {
            st = nq_fail(err, NOVAQ_E_ARG, "token %zu: id %d is not in the vocabulary of %zu", i,
                         (int)ids[i], t->vocab.count);
        } else if (!skip_special || t->vocab.types[ids[i]] != NQ_TOK_CONTROL) {
            const nq_span *s = &t->vocab.bytes[ids[i]];
            st = nq_buf_append(&b, s->data, s->len, err);
        }
    }
    st = st == NOVAQ_OK ? nq_buf_take(&b, text, len, err) : st;
    nq_buf_free(&b);
    return st;
}

size_t nq_tokenizer_vocab(const nq_tokenizer *t) { return t->vocab.count; }

int32_t nq_tokenizer_bos(const nq_tokenizer *t) { return t->bos; }

int nq_tokenizer_adds_bos(const nq_tokenizer *t) { return t->add_bos; }

int nq_tokenizer_is_end(const nq_tokenizer *t, int32_t id) {
    return id >= 0 && (size_t)id < t->vocab.count && t->ends[id];
}
