/* export_gguf.c - the keys of an exported GGUF file. See export.h.
 *
 * Key names are those of the GGUF specification and of llama.cpp. */
#include <stdio.h>
#include <string.h>

#include "compress/export.h"

#define TOKEN_UNUSED 5 /* llama.cpp's type of padding tokens */

static const json_t *member(const json_t *o, const char *key) { return json_object_get(o, key); }

static novaq_status put_arch_u32(nq_gguf_keys *k, const char *arch, const char *suffix, uint32_t v,
                                 novaq_error *err) {
    char key[128];
    (void)snprintf(key, sizeof key, "%s.%s", arch, suffix);
    return nq_gguf_put_u32(k, key, v, err);
}

static novaq_status put_arch_f32(nq_gguf_keys *k, const char *arch, const char *suffix, double v,
                                 novaq_error *err) {
    char key[128];
    (void)snprintf(key, sizeof key, "%s.%s", arch, suffix);
    return nq_gguf_put_f32(k, key, (float)v, err);
}

static novaq_status put_hyper(nq_gguf_keys *k, const nq_hyper *h, novaq_error *err) {
    const char *arch = h->arch->name;
    const struct {
        const char *suffix;
        uint32_t value;
    } counts[] = {
        {"block_count", h->blocks},
        {"context_length", h->context},
        {"embedding_length", h->dim},
        {"feed_forward_length", h->ff},
        {"attention.head_count", h->heads},
        {"attention.head_count_kv", h->heads_kv},
        {"attention.key_length", h->head_dim},
        {"attention.value_length", h->head_dim},
        {"rope.dimension_count", h->rope[NQ_GLOBAL].dim},
        {"vocab_size", h->vocab},
    };
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        NQ_TRY(put_arch_u32(k, arch, counts[i].suffix, counts[i].value, err));
    }
    NQ_TRY(put_arch_f32(k, arch, "rope.freq_base", h->rope[NQ_GLOBAL].theta, err));
    NQ_TRY(put_arch_f32(k, arch, "attention.layer_norm_rms_epsilon", h->norm_eps, err));
    if (h->rope[NQ_GLOBAL].scaling == NQ_ROPE_LINEAR) {
        char key[128];
        (void)snprintf(key, sizeof key, "%s.rope.scaling.type", arch);
        NQ_TRY(nq_gguf_put_string(k, key, "linear", err));
        NQ_TRY(put_arch_f32(k, arch, "rope.scaling.factor", h->rope[NQ_GLOBAL].factor, err));
    }
    return NOVAQ_OK;
}

static novaq_status put_general(nq_gguf_keys *k, const nq_export_plan *p, novaq_error *err) {
    const char *name = json_string_value(member(p->model, "name"));
    uint32_t file_type = p->dtype == NQ_F32 ? 0 : p->dtype == NQ_F16 ? 1 : 32;
    NQ_TRY(nq_gguf_put_string(k, "general.architecture", p->h.arch->name, err));
    NQ_TRY(nq_gguf_put_string(k, "general.type", "model", err));
    if (name != NULL) {
        NQ_TRY(nq_gguf_put_string(k, "general.name", name, err));
    }
    NQ_TRY(nq_gguf_put_u32(k, "general.file_type", file_type, err));
    return nq_gguf_put_u32(k, "general.quantization_version", 2, err);
}

/* A copy of list filled up to n elements: "[PAD7]" for names, else filler. */
static novaq_status padded(json_t **out, const json_t *list, size_t n, const json_t *filler,
                           novaq_error *err) {
    *out = json_array();
    int failed = *out == NULL || json_array_extend(*out, (json_t *)(uintptr_t)list) != 0;
    for (size_t i = json_array_size(list); failed == 0 && i < n; i++) {
        json_t *v = filler != NULL ? json_deep_copy(filler) : json_sprintf("[PAD%zu]", i);
        failed = json_array_append_new(*out, v);
    }
    if (failed != 0) {
        json_decref(*out);
        *out = NULL;
        return nq_fail(err, NOVAQ_E_MEMORY, "cannot build the list of tokens");
    }
    return NOVAQ_OK;
}

typedef novaq_status (*put_list_fn)(nq_gguf_keys *k, const char *key, const json_t *v,
                                    novaq_error *err);

/* Writes a list of the tokenizer with one entry per row of the embedding. */
static novaq_status put_padded(nq_gguf_keys *k, const char *key, const json_t *list, size_t n,
                               json_t *filler, put_list_fn put, novaq_error *err) {
    json_t *full = NULL;
    novaq_status st = NOVAQ_OK;
    if (json_is_array(list)) {
        st = padded(&full, list, n, filler, err);
        if (st == NOVAQ_OK) {
            st = put(k, key, full, err);
        }
        json_decref(full);
    }
    json_decref(filler);
    return st;
}

/* An optional token id. */
static novaq_status put_id(nq_gguf_keys *k, const char *key, const json_t *id, novaq_error *err) {
    if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) > INT32_MAX) {
        return NOVAQ_OK;
    }
    return nq_gguf_put_u32(k, key, (uint32_t)json_integer_value(id), err);
}

static novaq_status put_flag(nq_gguf_keys *k, const char *key, const json_t *flag,
                             novaq_error *err) {
    return json_is_boolean(flag) ? nq_gguf_put_bool(k, key, json_is_true(flag), err) : NOVAQ_OK;
}

static novaq_status put_ids(nq_gguf_keys *k, const json_t *t, novaq_error *err) {
    const json_t *eos = member(t, "eos_id");
    const json_t *ends = member(t, "eot_ids");
    NQ_TRY(put_id(k, "tokenizer.ggml.bos_token_id", member(t, "bos_id"), err));
    NQ_TRY(put_id(k, "tokenizer.ggml.eos_token_id", eos, err));
    NQ_TRY(put_id(k, "tokenizer.ggml.unknown_token_id", member(t, "unk_id"), err));
    NQ_TRY(put_id(k, "tokenizer.ggml.padding_token_id", member(t, "pad_id"), err));
    for (size_t i = 0; i < json_array_size(ends); i++) {
        const json_t *id = json_array_get(ends, i); /* GGUF has room for one besides eos */
        if (!json_equal(id, eos)) {
            return put_id(k, "tokenizer.ggml.eot_token_id", id, err);
        }
    }
    return NOVAQ_OK;
}

static novaq_status put_description(nq_gguf_keys *k, const nq_export_plan *p, const json_t *t,
                                    novaq_error *err) {
    const json_t *tokens = member(t, "tokens");
    const char *model = json_string_value(member(t, "model"));
    const char *pre = json_string_value(member(t, "pre"));
    if (model == NULL || !json_is_array(tokens) || json_array_size(tokens) > p->h.vocab) {
        return nq_fail(err, NOVAQ_E_FORMAT,
                       "the tokenizer has %zu tokens, the embedding %u rows; export with --to "
                       "safetensors",
                       json_array_size(tokens), p->h.vocab);
    }
    NQ_TRY(nq_gguf_put_string(k, "tokenizer.ggml.model", model, err));
    if (pre != NULL) {
        NQ_TRY(nq_gguf_put_string(k, "tokenizer.ggml.pre", pre, err));
    }
    NQ_TRY(
        put_padded(k, "tokenizer.ggml.tokens", tokens, p->h.vocab, NULL, nq_gguf_put_strings, err));
    NQ_TRY(put_padded(k, "tokenizer.ggml.token_type", member(t, "token_types"), p->h.vocab,
                      json_integer(TOKEN_UNUSED), nq_gguf_put_i32s, err));
    NQ_TRY(put_padded(k, "tokenizer.ggml.scores", member(t, "scores"), p->h.vocab,
                      json_real(-1000.0), nq_gguf_put_f32s, err));
    if (json_is_array(member(t, "merges"))) {
        NQ_TRY(nq_gguf_put_strings(k, "tokenizer.ggml.merges", member(t, "merges"), err));
    }
    NQ_TRY(put_ids(k, t, err));
    NQ_TRY(put_flag(k, "tokenizer.ggml.add_bos_token", member(t, "add_bos"), err));
    NQ_TRY(put_flag(k, "tokenizer.ggml.add_eos_token", member(t, "add_eos"), err));
    return put_flag(k, "tokenizer.ggml.add_space_prefix", member(t, "add_space_prefix"), err);
}

static novaq_status put_tokenizer(nq_gguf_keys *k, const nq_export_plan *p, novaq_error *err) {
    const json_t *t = member(p->model, "tokenizer");
    json_t *said = NULL;
    if (!json_is_object(t)) {
        return nq_gguf_put_string(k, "tokenizer.ggml.model", "no_vocab", err);
    }
    NQ_TRY(nq_tokenizer_to_gguf(&said, t, err));
    novaq_status st = put_description(k, p, said, err);
    json_decref(said);
    return st;
}

novaq_status nq_export_gguf_keys(nq_gguf_keys *k, const nq_export_plan *p, novaq_error *err) {
    const char *chat = json_string_value(member(p->model, "chat_template"));
    NQ_TRY(put_general(k, p, err));
    NQ_TRY(put_hyper(k, &p->h, err));
    NQ_TRY(put_tokenizer(k, p, err));
    return chat != NULL ? nq_gguf_put_string(k, "tokenizer.chat_template", chat, err) : NOVAQ_OK;
}
