/* describe_tokenizer.c - the "tokenizer" object of describe.h from GGUF keys.
 *
 * Owns: reading tokenizer.ggml.*, which tokens end a generation, and the trial
 * that every description passes before it is believed. Refuses: keys of the
 * wrong type, tokenizers other than BPE and SentencePiece, and SentencePiece's own
 * Unicode normalization; the reason goes to *why.
 */
#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "model/describe.h"
#include "model/tokenizer.h"
#include "model/tokenizer_impl.h"

novaq_status nq_tokdesc_put(json_t *obj, const char *key, json_t *value, novaq_error *err) {
    if (value == NULL || json_object_set_new(obj, key, value) != 0) {
        return nq_fail(err, NOVAQ_E_MEMORY, "no memory for the tokenizer's %s", key);
    }
    return NOVAQ_OK;
}

novaq_status nq_tokdesc_why(char **why, novaq_error *err, const char *fmt, ...) {
    if (*why != NULL) {
        return NOVAQ_OK;
    }
    char text[256];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return nq_strdup(why, text, err);
}

/* Control tokens by which model families end a turn or a text. */
static bool ends_generation(const char *text) {
    static const char *const names[] = {"<|eot_id|>",
                                        "<|im_end|>",
                                        "<|end|>",
                                        "<|return|>",
                                        "<|call|>",
                                        "<|flush|>",
                                        "<|calls|>",
                                        "<end_of_turn>",
                                        "<|endoftext|>",
                                        "</s>",
                                        "<|eom_id|>",
                                        "<EOT>",
                                        "_<EOT>",
                                        "[EOT]",
                                        "[EOS]",
                                        "<|end_of_text|>",
                                        "<end_of_utterance>",
                                        "<eos>",
                                        "<turn|>",
                                        "<|tool_response>",
                                        "<｜end▁of▁sentence｜>",
                                        "[e~["};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (strcmp(text, names[i]) == 0) {
            return true;
        }
    }
    return false;
}

static bool lists_id(const json_t *ids, json_int_t id) {
    for (size_t i = 0; i < json_array_size(ids); i++) {
        if (json_integer_value(json_array_get(ids, i)) == id) {
            return true;
        }
    }
    return false;
}

static int add_id(json_t *ids, json_int_t id) {
    return lists_id(ids, id) ? 0 : json_array_append_new(ids, json_integer(id));
}

/* Keeps the ids already in "eot_ids" and appends eos and the known names. */
static novaq_status add_eot_ids(json_t *desc, novaq_error *err) {
    const json_t *tokens = json_object_get(desc, "tokens");
    const json_t *types = json_object_get(desc, "token_types");
    json_t *ids = json_object_get(desc, "eot_ids");
    if (ids == NULL) {
        ids = json_array();
        NQ_TRY(nq_tokdesc_put(desc, "eot_ids", ids, err));
    }
    int bad = 0;
    const json_t *eos = json_object_get(desc, "eos_id");
    if (json_is_integer(eos)) {
        bad |= add_id(ids, json_integer_value(eos));
    }
    for (size_t i = 0; i < json_array_size(tokens); i++) {
        json_int_t type = json_integer_value(json_array_get(types, i));
        const char *text = json_string_value(json_array_get(tokens, i));
        if ((type == NQ_TOK_CONTROL || type == NQ_TOK_USER) && text != NULL &&
            ends_generation(text)) {
            bad |= add_id(ids, (json_int_t)i);
        }
    }
    return bad == 0 ? NOVAQ_OK : nq_fail(err, NOVAQ_E_MEMORY, "no memory for eot_ids");
}

novaq_status nq_tokdesc_finish(json_t **out, char **why, json_t **desc, novaq_error *err) {
    novaq_status st = *why == NULL ? add_eot_ids(*desc, err) : NOVAQ_OK;
    if (*why == NULL && st == NOVAQ_OK) {
        nq_tokenizer *t = NULL;
        novaq_error e = {0};
        st = nq_tokenizer_open(&t, *desc, &e);
        nq_tokenizer_close(&t);
        if (st == NOVAQ_E_MEMORY) {
            st = nq_fail(err, st, "%s", e.msg);
        } else if (st != NOVAQ_OK) {
            /* Callers of both say "tokenizer: " themselves. */
            static const char prefix[] = "tokenizer: ";
            size_t skip = strncmp(e.msg, prefix, sizeof prefix - 1) == 0 ? sizeof prefix - 1 : 0;
            st = nq_tokdesc_why(why, err, "%s", e.msg + skip);
        }
    }
    if (*why == NULL && st == NOVAQ_OK) {
        *out = *desc;
    } else {
        json_decref(*desc);
    }
    *desc = NULL;
    return st;
}

/* ---- GGUF ---------------------------------------------------------------- */

typedef struct keys {
    const nq_gguf_kv *kvs;
    size_t count;
    char **why;
} keys;

static const nq_gguf_kv *find(const keys *k, const char *name) {
    char key[96];
    (void)snprintf(key, sizeof key, "tokenizer.ggml.%s", name);
    return nq_gguf_find(k->kvs, k->count, key);
}

/* One string into a JSON array; text that JSON cannot hold goes to *why. */
static novaq_status append_text(json_t *list, const keys *k, const nq_gguf_kv *kv, uint64_t i,
                                const char *name, novaq_error *err) {
    nq_gguf_string s = {0};
    if (!nq_gguf_text(&s, kv, i)) {
        return nq_tokdesc_why(k->why, err, "tokenizer.ggml.%s is not an array of strings", name);
    }
    if (s.len > 2 * NQ_TOK_TOKEN_MAX || (s.len > 0 && memchr(s.data, 0, (size_t)s.len) != NULL)) {
        return nq_tokdesc_why(k->why, err, "tokenizer.ggml.%s[%llu] is too long or contains NUL",
                              name, (unsigned long long)i);
    }
    json_t *text = json_stringn(s.len > 0 ? s.data : "", (size_t)s.len);
    if (text == NULL) {
        return nq_tokdesc_why(k->why, err, "tokenizer.ggml.%s[%llu] is not UTF-8", name,
                              (unsigned long long)i);
    }
    return json_array_append_new(list, text) == 0
               ? NOVAQ_OK
               : nq_fail(err, NOVAQ_E_MEMORY, "no memory for tokenizer.ggml.%s", name);
}

static novaq_status copy_texts(json_t *desc, const keys *k, const char *name, novaq_error *err) {
    const nq_gguf_kv *kv = find(k, name);
    if (kv == NULL || kv->type != NQ_GGUF_ARRAY || kv->count > NQ_TOK_VOCAB_MAX) {
        return nq_tokdesc_why(k->why, err,
                              "tokenizer.ggml.%s is not an array of at most %zu strings", name,
                              NQ_TOK_VOCAB_MAX);
    }
    json_t *list = json_array();
    NQ_TRY(nq_tokdesc_put(desc, name, list, err));
    for (uint64_t i = 0; i < kv->count && *k->why == NULL; i++) {
        NQ_TRY(append_text(list, k, kv, i, name, err));
    }
    return NOVAQ_OK;
}

static novaq_status copy_types(json_t *desc, const keys *k, novaq_error *err) {
    const nq_gguf_kv *kv = find(k, "token_type");
    size_t count = json_array_size(json_object_get(desc, "tokens"));
    if (kv != NULL && (kv->type != NQ_GGUF_ARRAY || kv->count != count)) {
        return nq_tokdesc_why(k->why, err, "tokenizer.ggml.token_type has not one entry per token");
    }
    json_t *list = json_array();
    NQ_TRY(nq_tokdesc_put(desc, "token_types", list, err));
    for (size_t i = 0; i < count; i++) {
        int64_t type = NQ_TOK_NORMAL;
        if (kv != NULL && !nq_gguf_integer(&type, kv, i)) {
            return nq_tokdesc_why(k->why, err, "tokenizer.ggml.token_type is not of integers");
        }
        if (json_array_append_new(list, json_integer(type)) != 0) {
            return nq_fail(err, NOVAQ_E_MEMORY, "no memory for token types");
        }
    }
    return NOVAQ_OK;
}

/* Ids beyond the vocabulary mean "none", as converters write them. */
static novaq_status copy_id(json_t *desc, const keys *k, const char *name, const char *as,
                            novaq_error *err) {
    const nq_gguf_kv *kv = find(k, name);
    int64_t id = -1;
    if (kv == NULL) {
        return NOVAQ_OK;
    }
    if (!nq_gguf_integer(&id, kv, 0)) {
        return nq_tokdesc_why(k->why, err, "tokenizer.ggml.%s is not an integer", name);
    }
    if (id < 0 || (uint64_t)id >= json_array_size(json_object_get(desc, "tokens"))) {
        return NOVAQ_OK;
    }
    if (strcmp(as, "eot_ids") != 0) {
        return nq_tokdesc_put(desc, as, json_integer(id), err);
    }
    return add_id(json_object_get(desc, as), id) == 0
               ? NOVAQ_OK
               : nq_fail(err, NOVAQ_E_MEMORY, "no memory for eot_ids");
}

static novaq_status copy_flag(json_t *desc, const keys *k, const char *name, const char *as,
                              bool absent, novaq_error *err) {
    const nq_gguf_kv *kv = find(k, name);
    bool on = absent;
    if (kv != NULL) {
        if (kv->type != NQ_GGUF_BOOL || kv->values == NULL) {
            return nq_tokdesc_why(k->why, err, "tokenizer.ggml.%s is not a boolean", name);
        }
        on = kv->values[0] != 0;
    }
    return nq_tokdesc_put(desc, as, json_boolean(on), err);
}

static novaq_status copy_ids(json_t *desc, const keys *k, novaq_error *err) {
    static const char *const ids[][2] = {
        {"bos_token_id", "bos_id"},     {"eos_token_id", "eos_id"},  {"unknown_token_id", "unk_id"},
        {"padding_token_id", "pad_id"}, {"eot_token_id", "eot_ids"}, {"eom_token_id", "eot_ids"}};
    NQ_TRY(nq_tokdesc_put(desc, "eot_ids", json_array(), err));
    for (size_t i = 0; i < sizeof ids / sizeof ids[0]; i++) {
        NQ_TRY(copy_id(desc, k, ids[i][0], ids[i][1], err));
    }
    return NOVAQ_OK;
}

/* What tokenizer.ggml.model says, and what is true where a key is absent. */
typedef struct family {
    const char *model; /* in the file */
    const char *as;    /* in the description */
    bool scores;       /* decide what merges, not "merges" */
    bool add_space;
    bool add_bos, add_eos;
    int bos, eos, unk; /* ids, -1: none */
} family;

static const family families[] = {
    {"gpt2", "gpt2", false, false, false, false, -1, -1, -1},
    {"llama", "llama", true, true, true, false, 1, 2, 0},
    {"gemma4", "llama", false, false, true, false, -1, -1, -1},
    {"t5", "t5", true, true, false, true, -1, 1, 2},
};

static novaq_status copy_scores(json_t *desc, const keys *k, novaq_error *err) {
    const nq_gguf_kv *kv = find(k, "scores");
    size_t count = json_array_size(json_object_get(desc, "tokens"));
    if (kv == NULL || kv->type != NQ_GGUF_ARRAY || kv->elem != NQ_GGUF_F32 || kv->count != count) {
        return nq_tokdesc_why(k->why, err, "tokenizer.ggml.scores is not one number per token");
    }
    json_t *list = json_array();
    NQ_TRY(nq_tokdesc_put(desc, "scores", list, err));
    for (size_t i = 0; i < count; i++) {
        float f = 0;
        memcpy(&f, kv->values + 4 * i, sizeof f);
        json_t *v = json_real((double)f);
        if (v == NULL) {
            return nq_tokdesc_why(k->why, err, "tokenizer.ggml.scores[%zu] is not finite", i);
        }
        if (json_array_append_new(list, v) != 0) {
            return nq_fail(err, NOVAQ_E_MEMORY, "no memory for the scores");
        }
    }
    return NOVAQ_OK;
}

/* Ids that a file without the keys means. */
static novaq_status default_ids(json_t *desc, const keys *k, const family *f, novaq_error *err) {
    const struct {
        const char *key, *as;
        int id;
    } ids[] = {{"bos_token_id", "bos_id", f->bos},
               {"eos_token_id", "eos_id", f->eos},
               {"unknown_token_id", "unk_id", f->unk}};
    for (size_t i = 0; i < sizeof ids / sizeof ids[0]; i++) {
        size_t count = json_array_size(json_object_get(desc, "tokens"));
        if (ids[i].id >= 0 && (size_t)ids[i].id < count && find(k, ids[i].key) == NULL) {
            NQ_TRY(nq_tokdesc_put(desc, ids[i].as, json_integer(ids[i].id), err));
        }
    }
    return NOVAQ_OK;
}

static novaq_status copy_settings(json_t *desc, const keys *k, const nq_pretok_kind *kind,
                                  const family *f, novaq_error *err) {
    bool add_bos =
        (f->add_bos || (kind != NULL && kind->add_bos)) && json_object_get(desc, "bos_id") != NULL;
    bool add_eos = f->add_eos && json_object_get(desc, "eos_id") != NULL;
    NQ_TRY(copy_flag(desc, k, "add_bos_token", "add_bos", add_bos, err));
    NQ_TRY(copy_flag(desc, k, "add_eos_token", "add_eos", add_eos, err));
    NQ_TRY(copy_flag(desc, k, "add_space_prefix", "add_space_prefix", f->add_space, err));
    if (kind == NULL) {
        return NOVAQ_OK;
    }
    NQ_TRY(nq_tokdesc_put(desc, "ignore_merges", json_boolean(kind->ignore_merges), err));
    return nq_tokdesc_put(desc, "normalizer", json_string(kind->nfc ? "nfc" : "none"), err);
}

/* Phi-3's special tokens take the white space after them along, which GGUF has no
 * key for; the name of the model tells, as it does for llama.cpp. */
static novaq_status copy_strips(json_t *desc, const keys *k, novaq_error *err) {
    static const char *const never[] = {"<unk>", "<s>", "<|endoftext|>"};
    const nq_gguf_kv *kv = nq_gguf_find(k->kvs, k->count, "general.name");
    nq_gguf_string name = {0};
    char lower[64] = {0};
    if (kv == NULL || !nq_gguf_text(&name, kv, 0)) {
        return NOVAQ_OK;
    }
    for (size_t i = 0; i < name.len && i + 1 < sizeof lower; i++) {
        lower[i] = (char)tolower((unsigned char)name.data[i]);
    }
    if (strstr(lower, "phi-3") == NULL && strstr(lower, "phi3") == NULL) {
        return NOVAQ_OK;
    }
    json_t *list = json_array();
    NQ_TRY(nq_tokdesc_put(desc, "rstrip_ids", list, err));
    const json_t *tokens = json_object_get(desc, "tokens");
    for (size_t i = 0; i < json_array_size(tokens); i++) {
        json_int_t type =
            json_integer_value(json_array_get(json_object_get(desc, "token_types"), i));
        const char *text = json_string_value(json_array_get(tokens, i));
        bool takes = type == NQ_TOK_CONTROL || type == NQ_TOK_USER;
        for (size_t n = 0; n < sizeof never / sizeof never[0]; n++) {
            takes = takes && strcmp(text, never[n]) != 0;
        }
        if (takes && json_array_append_new(list, json_integer((json_int_t)i)) != 0) {
            return nq_fail(err, NOVAQ_E_MEMORY, "no memory for rstrip_ids");
        }
    }
    return NOVAQ_OK;
}

static bool text_is(const nq_gguf_kv *kv, const char *text) {
    nq_gguf_string s = {0};
    return kv != NULL && nq_gguf_text(&s, kv, 0) && s.len == strlen(text) &&
           memcmp(s.data, text, s.len) == 0;
}

/* *f stays NULL when *why was given. */
static novaq_status find_family(const family **f, const keys *k, novaq_error *err) {
    const nq_gguf_kv *model = find(k, "model");
    nq_gguf_string name = {0};
    if (model == NULL || !nq_gguf_text(&name, model, 0)) {
        return nq_tokdesc_why(k->why, err, "the file has no tokenizer.ggml.model");
    }
    for (size_t i = 0; i < sizeof families / sizeof families[0]; i++) {
        if (text_is(model, families[i].model)) {
            *f = &families[i];
            return NOVAQ_OK;
        }
    }
    return nq_tokdesc_why(k->why, err,
                          "model \"%.*s\" (byte-level BPE, \"gpt2\", and SentencePiece, "
                          "\"llama\", are supported)",
                          (int)(name.len < 64 ? name.len : 64), name.data);
}

/* model and pre; *kind stays NULL when *why was given, and without byte level. */
static novaq_status copy_kind(const nq_pretok_kind **kind, json_t *desc, const keys *k,
                              const family *f, novaq_error *err) {
    const nq_gguf_kv *pre = find(k, "pre");
    nq_gguf_string name = {0};
    NQ_TRY(nq_tokdesc_put(desc, "model", json_string(f->as), err));
    if (strcmp(f->as, "gpt2") != 0) {
        return nq_tokdesc_put(desc, "pre", json_string("default"), err);
    }
    if (pre == NULL || !nq_gguf_text(&name, pre, 0)) {
        return nq_tokdesc_why(k->why, err,
                              "tokenizer.ggml.pre is missing; convert the model again "
                              "with a current converter");
    }
    *kind = nq_pretok_find(name.data, (size_t)name.len);
    if (*kind == NULL) {
        return nq_tokdesc_why(k->why, err, "pre-tokenizer \"%.*s\" is not supported",
                              (int)(name.len < 64 ? name.len : 64), name.data);
    }
    return nq_tokdesc_put(desc, "pre", json_stringn(name.data, (size_t)name.len), err);
}

/* Unigram files carry SentencePiece's own normalizer as a table. */
static novaq_status check_charsmap(const keys *k, novaq_error *err) {
    const nq_gguf_kv *map = find(k, "precompiled_charsmap");
    const nq_gguf_kv *spaces = find(k, "remove_extra_whitespaces");
    if (map != NULL && map->count > 0) {
        return nq_tokdesc_why(k->why, err, "tokenizer.ggml.precompiled_charsmap is not supported");
    }
    if (spaces != NULL && spaces->type == NQ_GGUF_BOOL && spaces->values[0] != 0) {
        return nq_tokdesc_why(k->why, err,
                              "tokenizer.ggml.remove_extra_whitespaces is not supported");
    }
    return NOVAQ_OK;
}

static novaq_status copy_gguf(json_t *desc, const keys *k, novaq_error *err) {
    const nq_pretok_kind *kind = NULL;
    const family *f = NULL;
    NQ_TRY(find_family(&f, k, err));
    if (f == NULL) {
        return NOVAQ_OK;
    }
    NQ_TRY(copy_kind(&kind, desc, k, f, err));
    NQ_TRY(check_charsmap(k, err));
    if (*k->why != NULL) {
        return NOVAQ_OK;
    }
    NQ_TRY(copy_texts(desc, k, "tokens", err));
    NQ_TRY(copy_types(desc, k, err));
    NQ_TRY(f->scores ? copy_scores(desc, k, err) : copy_texts(desc, k, "merges", err));
    NQ_TRY(copy_ids(desc, k, err));
    NQ_TRY(default_ids(desc, k, f, err));
    NQ_TRY(copy_settings(desc, k, kind, f, err));
    return copy_strips(desc, k, err);
}

novaq_status nq_describe_tokenizer_gguf(json_t **out, char **why, const nq_gguf_kv *kvs,
                                        size_t count, novaq_error *err) {
    *out = NULL;
    *why = NULL;
    json_t *desc = json_object();
    if (desc == NULL) {
        return nq_fail(err, NOVAQ_E_MEMORY, "no memory for the tokenizer");
    }
    keys k = {kvs, count, why};
    novaq_status st = copy_gguf(desc, &k, err);
    if (st != NOVAQ_OK) {
        json_decref(desc);
        return st;
    }
    return nq_tokdesc_finish(out, why, &desc, err);
}
