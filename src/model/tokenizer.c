/* tokenizer.c - see tokenizer.h.
 *
 * Owns: putting the parts together in the order of Hugging Face's `tokenizers`:
 * special tokens, normalizer, special tokens that look at normalized text,
 * pre-tokenizer, model, begin and end tokens; and the way back.
 */
#include "model/tokenizer.h"

#include <string.h>

#include "model/tokenizer_impl.h"

typedef enum model_type { MODEL_BYTES, MODEL_CHARACTERS, MODEL_UNIGRAM } model_type;

/* What decoding does to the beginning of a text. */
typedef enum strip_type { STRIP_NOTHING, STRIP_SPACE, STRIP_TOKEN } strip_type;

struct nq_tokenizer {
    model_type type;
    nq_vocab vocab;
    nq_bpe bpe;
    nq_unigram unigram;
    nq_norm *norm;
    nq_pretok *pretok;
    uint8_t *flags;        /* NQ_ADDED_*, by id */
    nq_specials raw;       /* matched in the text as it is */
    nq_specials late;      /* matched after normalization */
    uint8_t *late_bytes;   /* behind their vocab.bytes */
    bool *ends;            /* by id */
    int32_t bos, eos, unk; /* -1: none */
    bool add_bos, add_eos;
    strip_type strip;
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

/* An optional boolean. */
static novaq_status get_bool_or(bool *out, const json_t *desc, const char *key, bool absent,
                                novaq_error *err) {
    const json_t *v = json_object_get(desc, key);
    *out = v == NULL ? absent : json_is_true(v);
    if (v != NULL && !json_is_boolean(v)) {
        return nq_fail(err, NOVAQ_E_FORMAT, "%s: \"%s\" is not true or false", where, key);
    }
    return NOVAQ_OK;
}

static novaq_status get_bool(bool *out, const json_t *desc, const char *key, novaq_error *err) {
    return get_bool_or(out, desc, key, false, err);
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

static novaq_status open_model(nq_tokenizer *t, const json_t *desc, novaq_error *err) {
    static const char *const names[] = {"gpt2", "llama", "t5"};
    const char *model = NULL;
    NQ_TRY(nq_json_get_string(&model, desc, "model", where, err));
    for (int i = 0; i < 3; i++) {
        if (strcmp(model, names[i]) == 0) {
            t->type = (model_type)i;
            return NOVAQ_OK;
        }
    }
    return nq_fail(err, NOVAQ_E_UNSUPPORTED,
                   "%s: model \"%.64s\" (byte-level BPE, SentencePiece BPE and Unigram are "
                   "supported)",
                   where, model);
}

/* SentencePiece's: a space becomes U+2581, and one is put before the text. */
static novaq_status open_sentencepiece(nq_tokenizer *t, bool space, novaq_error *err) {
    json_t *replace = json_pack("{s:s, s:{s:s}, s:s}", "type", "Replace", "pattern", "String", " ",
                                "content", NQ_META);
    json_t *desc = !space ? replace
                          : json_pack("{s:s, s:[{s:s, s:s}, o]}", "type", "Sequence", "normalizers",
                                      "type", "Prepend", "prepend", NQ_META, replace);
    novaq_status st = desc == NULL ? nq_fail(err, NOVAQ_E_MEMORY, "no memory for the normalizer")
                                   : nq_norm_open(&t->norm, desc, err);
    json_decref(desc);
    t->strip = space ? STRIP_SPACE : STRIP_NOTHING;
    return st;
}

static novaq_status check_stages(const nq_tokenizer *t, const nq_stage *stages, novaq_error *err) {
    unsigned levels = nq_stages_count(stages, NQ_STAGE_BYTE_LEVEL);
    if (levels != (t->type == MODEL_BYTES ? 1U : 0U) ||
        (levels > 0 && nq_stages_count(stages, NQ_STAGE_METASPACE) > 0)) {
        return nq_fail(err, NOVAQ_E_UNSUPPORTED,
                       "%s: a pre-tokenizer with %u ByteLevel stages does not go with its model",
                       where, levels);
    }
    return NOVAQ_OK;
}

static novaq_status open_pretok(nq_tokenizer *t, const json_t *desc, novaq_error *err) {
    const char *pre = NULL;
    nq_stage stages[NQ_STAGES_MAX] = {{.type = NQ_STAGE_END}};
    const json_t *given = json_object_get(desc, "pre_tokenizer");
    bool space = false;
    NQ_TRY(nq_json_get_string(&pre, desc, "pre", where, err));
    NQ_TRY(get_bool(&space, desc, "add_space_prefix", err));
    if (strcmp(pre, "custom") == 0) {
        NQ_TRY(nq_stages_read(stages, given, err));
        NQ_TRY(check_stages(t, stages, err));
    } else if (t->type == MODEL_BYTES) {
        const nq_pretok_kind *kind = nq_pretok_find(pre, strlen(pre));
        if (kind == NULL) {
            return nq_fail(err, NOVAQ_E_UNSUPPORTED, "%s: pre-tokenizer \"%.64s\" is not supported",
                           where, pre);
        }
        memcpy(stages, kind->stages, sizeof stages);
        /* The reference adds the space to every piece of the stages before; only the
         * plain ByteLevel pre-tokenizer has none. */
        if (space && (stages[0].type != NQ_STAGE_BYTE_LEVEL || stages[1].type != NQ_STAGE_END)) {
            return nq_fail(err, NOVAQ_E_UNSUPPORTED,
                           "%s: pre-tokenizer \"%.64s\" with a space prefix is not supported",
                           where, pre);
        }
        stages[0].prefix_space = space;
    } else if (strcmp(pre, "default") != 0) {
        return nq_fail(err, NOVAQ_E_UNSUPPORTED, "%s: pre-tokenizer \"%.64s\" is not supported",
                       where, pre);
    }
    if (t->type != MODEL_BYTES && strcmp(pre, "default") == 0) {
        NQ_TRY(open_sentencepiece(t, space, err));
    } else {
        NQ_TRY(nq_norm_open(&t->norm, json_object_get(desc, "normalizer"), err));
    }
    return nq_pretok_open(&t->pretok, stages, err);
}

/* "strip": what a decoder from tokenizer.json takes away. */
static novaq_status open_strip(nq_tokenizer *t, const json_t *desc, novaq_error *err) {
    static const char *const names[] = {"nothing", "space", "token"};
    const json_t *v = json_object_get(desc, "strip");
    const char *name = json_string_value(v);
    for (int i = 0; v != NULL && i < 3; i++) {
        if (name != NULL && strcmp(name, names[i]) == 0) {
            t->strip = (strip_type)i;
            return NOVAQ_OK;
        }
    }
    return v == NULL ? NOVAQ_OK : nq_fail(err, NOVAQ_E_FORMAT, "%s: \"strip\" is not known", where);
}

static novaq_status open_flags(nq_tokenizer *t, const json_t *desc, novaq_error *err) {
    static const struct {
        const char *key;
        uint8_t flag;
    } lists[] = {{"lstrip_ids", NQ_ADDED_LSTRIP},
                 {"rstrip_ids", NQ_ADDED_RSTRIP},
                 {"normalized_ids", NQ_ADDED_NORMALIZED}};
    NQ_TRY(nq_alloc(&t->flags, t->vocab.count, 1, err));
    for (size_t k = 0; k < sizeof lists / sizeof lists[0]; k++) {
        const json_t *list = json_object_get(desc, lists[k].key);
        if (list != NULL && !json_is_array(list)) {
            return nq_fail(err, NOVAQ_E_FORMAT, "%s: \"%s\" is not an array", where, lists[k].key);
        }
        for (size_t i = 0; i < json_array_size(list); i++) {
            const json_t *v = json_array_get(list, i);
            json_int_t id = json_integer_value(v);
            if (!json_is_integer(v) || id < 0 || (uint64_t)id >= t->vocab.count) {
                return nq_fail(err, NOVAQ_E_FORMAT, "%s: %s[%zu] is not a token id", where,
                               lists[k].key, i);
            }
            t->flags[id] |= lists[k].flag;
        }
    }
    return NOVAQ_OK;
}

static novaq_status open_unknown(nq_unknown *u, const nq_tokenizer *t, const json_t *desc,
                                 novaq_error *err) {
    u->id = t->unk;
    unsigned bytes = nq_vocab_byte_tokens(u->byte_ids, &t->vocab);
    NQ_TRY(get_bool_or(&u->bytes, desc, "byte_fallback",
                       t->type == MODEL_CHARACTERS && bytes == 256, err));
    NQ_TRY(get_bool_or(&u->fuse, desc, "fuse_unk", true, err));
    if (u->bytes && bytes != 256) {
        return nq_fail(err, NOVAQ_E_UNSUPPORTED, "%s: byte fallback with %u byte tokens of 256",
                       where, bytes);
    }
    return NOVAQ_OK;
}

static novaq_status open_bpe(nq_tokenizer *t, const json_t *desc, novaq_error *err) {
    const json_t *merges = NULL;
    t->bpe.vocab = &t->vocab;
    t->bpe.byte_level = t->type == MODEL_BYTES;
    if (t->type == MODEL_BYTES || json_object_get(desc, "merges") != NULL) {
        NQ_TRY(nq_json_get_array(&merges, desc, "merges", where, err));
    }
    NQ_TRY(get_bool(&t->bpe.ignore_merges, desc, "ignore_merges", err));
    if (t->type == MODEL_CHARACTERS) {
        NQ_TRY(open_unknown(&t->bpe.unknown, t, desc, err));
    }
    return nq_bpe_init(&t->bpe, merges, json_object_get(desc, "scores"), err);
}

/* Tokens that are matched after normalization stand for their normalized text. */
static novaq_status open_late_bytes(nq_tokenizer *t, novaq_error *err) {
    const nq_specials *s = &t->late;
    uint64_t total = 0;
    for (size_t i = 0; i < s->count; i++) {
        total += s->text[i].len;
    }
    if (t->type == MODEL_BYTES || total == 0) {
        return NOVAQ_OK;
    }
    NQ_TRY(nq_alloc_raw(&t->late_bytes, total, 1, err));
    uint8_t *p = t->late_bytes;
    for (size_t i = 0; i < s->count; i++) {
        uint32_t n = nq_meta_decode(p, s->text[i].data, s->text[i].len);
        t->vocab.bytes[s->ids[i]] = (nq_span){p, n};
        p += n;
    }
    return NOVAQ_OK;
}

static novaq_status open_vocab(nq_tokenizer *t, const json_t *desc, novaq_error *err) {
    const json_t *tokens = NULL;
    const json_t *types = NULL;
    NQ_TRY(nq_json_get_array(&tokens, desc, "tokens", where, err));
    NQ_TRY(nq_json_get_array(&types, desc, "token_types", where, err));
    NQ_TRY(nq_vocab_init(&t->vocab, tokens, types, t->type == MODEL_BYTES, err));
    NQ_TRY(get_id(&t->unk, desc, "unk_id", t->vocab.count, err));
    if (t->type == MODEL_UNIGRAM) {
        t->unigram.vocab = &t->vocab;
        NQ_TRY(get_bool(&t->unigram.literal_bytes, desc, "literal_bytes", err));
        NQ_TRY(open_unknown(&t->unigram.unknown, t, desc, err));
        NQ_TRY(nq_unigram_init(&t->unigram, json_object_get(desc, "scores"), err));
    } else {
        NQ_TRY(open_bpe(t, desc, err));
    }
    NQ_TRY(open_flags(t, desc, err));
    NQ_TRY(nq_specials_init(&t->raw, &t->vocab, t->flags, t->norm, false, t->unk, err));
    NQ_TRY(nq_specials_init(&t->late, &t->vocab, t->flags, t->norm, true, t->unk, err));
    return open_late_bytes(t, err);
}

novaq_status nq_tokenizer_open(nq_tokenizer **out, const json_t *desc, novaq_error *err) {
    *out = NULL;
    if (!json_is_object(desc)) {
        return nq_fail(err, NOVAQ_E_FORMAT, "%s: the description is not an object", where);
    }
    nq_tokenizer *t = NULL;
    NQ_TRY(nq_alloc(&t, 1, sizeof *t, err));
    novaq_status st = open_model(t, desc, err);
    st = st == NOVAQ_OK ? open_pretok(t, desc, err) : st;
    st = st == NOVAQ_OK ? open_strip(t, desc, err) : st;
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
    nq_specials_free(&(*t)->late);
    nq_specials_free(&(*t)->raw);
    nq_unigram_free(&(*t)->unigram);
    nq_bpe_free(&(*t)->bpe);
    nq_pretok_close(&(*t)->pretok);
    nq_norm_close(&(*t)->norm);
    nq_free((*t)->late_bytes);
    nq_free((*t)->flags);
    nq_vocab_free(&(*t)->vocab);
    nq_free((*t)->ends);
    nq_free(*t);
    *t = NULL;
}

/* One encode call. */
typedef struct job {
    const nq_tokenizer *t;
    bool control; /* control tokens are recognised */
    nq_ids ids;
    nq_bpe_work bpe;
    nq_unigram_work unigram;
    nq_pretok_work *pretok;
} job;

static novaq_status encode_piece(void *ctx, const uint8_t *piece, size_t len, novaq_error *err) {
    job *j = ctx;
    return j->t->type == MODEL_UNIGRAM
               ? nq_unigram_encode(&j->ids, &j->unigram, &j->t->unigram, piece, len, err)
               : nq_bpe_encode(&j->ids, &j->bpe, &j->t->bpe, piece, len, err);
}

/* Text between special tokens: what to do with it. */
typedef novaq_status (*plain_fn)(job *j, const uint8_t *text, size_t len, bool at_start,
                                 novaq_error *err);

static novaq_status encode_pieces(job *j, const uint8_t *text, size_t len, bool at_start,
                                  novaq_error *err) {
    return nq_pretok_run(j->t->pretok, &j->pretok, text, len, at_start, encode_piece, j, err);
}

/* Takes out the tokens of a set and gives what is between them to plain. A token
 * that is not to be recognised still hides those that overlap it. */
static novaq_status split(job *j, const nq_specials *s, const uint8_t *text, size_t len,
                          bool at_start, plain_fn plain, novaq_error *err) {
    const nq_tokenizer *t = j->t;
    size_t done = 0;
    size_t from = 0;
    size_t at = 0;
    size_t end = 0;
    uint32_t id = 0;
    for (; nq_specials_next(s, text, from, len, &at, &end, &id); from = end) {
        if (t->vocab.types[id] != NQ_TOK_USER && !j->control) {
            continue;
        }
        size_t start = at;
        size_t stop = end;
        if ((t->flags[id] & NQ_ADDED_LSTRIP) != 0) {
            start -= nq_space_before(text, at);
        }
        if ((t->flags[id] & NQ_ADDED_RSTRIP) != 0) {
            stop += nq_space_after(text + end, len - end);
        }
        if (start > done) {
            NQ_TRY(plain(j, text + done, start - done, at_start && done == 0, err));
        }
        NQ_TRY(nq_ids_push(&j->ids, (int32_t)id, err));
        done = stop;
    }
    return done < len ? plain(j, text + done, len - done, at_start && done == 0, err) : NOVAQ_OK;
}

static novaq_status encode_plain(job *j, const uint8_t *text, size_t len, bool at_start,
                                 novaq_error *err) {
    const nq_tokenizer *t = j->t;
    if (nq_norm_is_identity(t->norm)) {
        return split(j, &t->late, text, len, at_start, encode_pieces, err);
    }
    nq_buf b = nq_buf_init(4 * NQ_TOK_TEXT_MAX); /* NFC and U+2581 at most triple UTF-8 */
    novaq_status st = nq_norm_run(&b, t->norm, text, len, err);
    if (st == NOVAQ_OK) {
        st = split(j, &t->late, b.data, b.len, at_start, encode_pieces, err);
    }
    nq_buf_free(&b);
    return st;
}

static novaq_status encode_all(job *j, const uint8_t *text, size_t len, int add_special,
                               novaq_error *err) {
    const nq_tokenizer *t = j->t;
    if (add_special && t->add_bos) {
        NQ_TRY(nq_ids_push(&j->ids, t->bos, err));
    }
    NQ_TRY(split(j, &t->raw, text, len, true, encode_plain, err));
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
    job j = {.t = t, .control = parse_special != 0};
    const uint8_t *bytes = len > 0 ? (const uint8_t *)text : (const uint8_t *)"";
    novaq_status st = encode_all(&j, bytes, len, add_special, err);
    nq_bpe_work_free(&j.bpe);
    nq_unigram_work_free(&j.unigram);
    nq_pretok_work_free(&j.pretok);
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

static bool is_skipped(const nq_tokenizer *t, int32_t id) {
    return t->vocab.types[id] == NQ_TOK_CONTROL ||
           (t->vocab.types[id] == NQ_TOK_UNKNOWN && id == t->unk);
}

const uint8_t *nq_tokenizer_piece(size_t *len, const nq_tokenizer *t, int32_t id,
                                  int skip_special) {
    *len = 0;
    if (id < 0 || (size_t)id >= t->vocab.count || (skip_special && is_skipped(t, id))) {
        return (const uint8_t *)"";
    }
    *len = t->vocab.bytes[id].len;
    return t->vocab.bytes[id].data;
}

/* One token of a text; `first` says that none came before it. */
static novaq_status decode_one(nq_buf *b, const nq_tokenizer *t, int32_t id, bool first,
                               novaq_error *err) {
    const nq_span *s = &t->vocab.bytes[id];
    if (!first || t->strip == STRIP_NOTHING) {
        return nq_buf_append(b, s->data, s->len, err);
    }
    if (t->strip == STRIP_SPACE) {
        uint32_t skip = s->len > 0 && s->data[0] == ' ';
        return nq_buf_append(b, s->data + skip, s->len - skip, err);
    }
    /* The reference's Metaspace drops every U+2581 of the first token. */
    static const uint32_t mark = sizeof NQ_META - 1;
    const nq_span *text = &t->vocab.text[id];
    for (uint32_t i = 0; i < text->len;) {
        bool skip = text->len - i >= mark && memcmp(text->data + i, NQ_META, mark) == 0;
        if (!skip) {
            NQ_TRY(nq_buf_append(b, text->data + i, 1, err));
        }
        i += skip ? mark : 1;
    }
    return NOVAQ_OK;
}

novaq_status nq_tokenizer_decode(char **text, size_t *len, const nq_tokenizer *t,
                                 const int32_t *ids, size_t count, int skip_special,
                                 novaq_error *err) {
    *text = NULL;
    *len = 0;
    nq_buf b = nq_buf_init((size_t)NQ_ALLOC_MAX);
    novaq_status st = NOVAQ_OK;
    bool first = true;
    for (size_t i = 0; st == NOVAQ_OK && i < count; i++) {
        if (ids[i] < 0 || (size_t)ids[i] >= t->vocab.count) {
            st = nq_fail(err, NOVAQ_E_ARG, "token %zu: id %d is not in the vocabulary of %zu", i,
                         (int)ids[i], t->vocab.count);
        } else if (!skip_special || !is_skipped(t, ids[i])) {
            st = decode_one(&b, t, ids[i], first, err);
            first = false;
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
