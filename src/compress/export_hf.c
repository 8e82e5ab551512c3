/* export_hf.c - the JSON files beside exported SafeTensors weights. See
 * export.h. The keys are those of transformers' LlamaConfig. */
#include "compress/export.h"

static const json_t *member(const json_t *o, const char *key) { return json_object_get(o, key); }

/* Sets o[key]; value is stolen, a NULL one is an error. */
static novaq_status set(json_t *o, const char *key, json_t *value, novaq_error *err) {
    return json_object_set_new(o, key, value) == 0
               ? NOVAQ_OK
               : nq_fail(err, NOVAQ_E_MEMORY, "cannot write \"%s\"", key);
}

static const char *torch_dtype(nq_dtype t) {
    return t == NQ_F32 ? "float32" : t == NQ_BF16 ? "bfloat16" : "float16";
}

static json_t *scaling_json(const nq_rope_spec *r) {
    switch (r->scaling) {
    case NQ_ROPE_LINEAR: return json_pack("{s:s, s:f}", "rope_type", "linear", "factor", r->factor);
    case NQ_ROPE_LLAMA3:
        return json_pack("{s:s, s:f, s:f, s:f, s:I}", "rope_type", "llama3", "factor", r->factor,
                         "low_freq_factor", r->low_freq_factor, "high_freq_factor",
                         r->high_freq_factor, "original_max_position_embeddings",
                         (json_int_t)r->old_context);
    case NQ_ROPE_YARN: /* refused by the plan */
    case NQ_ROPE_LONG:
    case NQ_ROPE_PLAIN: break;
    }
    return json_null();
}

static novaq_status set_counts(json_t *o, const nq_hyper *h, novaq_error *err) {
    const struct {
        const char *key;
        uint32_t value;
    } counts[] = {
        {"hidden_size", h->dim},
        {"intermediate_size", h->ff},
        {"num_hidden_layers", h->blocks},
        {"num_attention_heads", h->heads},
        {"num_key_value_heads", h->heads_kv},
        {"head_dim", h->head_dim},
        {"vocab_size", h->vocab},
        {"max_position_embeddings", h->context},
    };
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        NQ_TRY(set(o, counts[i].key, json_integer(counts[i].value), err));
    }
    return NOVAQ_OK;
}

/* Optional ids that config.json and generation_config.json share. */
static novaq_status set_id(json_t *o, const char *key, const json_t *id, novaq_error *err) {
    return json_is_integer(id) ? set(o, key, json_integer(json_integer_value(id)), err) : NOVAQ_OK;
}

static novaq_status fill_config(json_t *o, const nq_export_plan *p, novaq_error *err) {
    const nq_hyper *h = &p->h;
    const json_t *t = member(p->model, "tokenizer");
    NQ_TRY(set(o, "architectures", json_pack("[s]", "LlamaForCausalLM"), err));
    NQ_TRY(set(o, "model_type", json_string("llama"), err));
    NQ_TRY(set_counts(o, h, err));
    NQ_TRY(set(o, "hidden_act", json_string("silu"), err));
    NQ_TRY(set(o, "rms_norm_eps", json_real(h->norm_eps), err));
    NQ_TRY(set(o, "rope_theta", json_real(h->rope[NQ_GLOBAL].theta), err));
    NQ_TRY(set(o, "rope_scaling", scaling_json(&h->rope[NQ_GLOBAL]), err));
    NQ_TRY(set(o, "attention_bias", json_false(), err));
    NQ_TRY(set(o, "mlp_bias", json_false(), err));
    NQ_TRY(set(o, "tie_word_embeddings", json_boolean(h->tied), err));
    NQ_TRY(set(o, "torch_dtype", json_string(torch_dtype(p->dtype)), err));
    NQ_TRY(set(o, "use_cache", json_true(), err));
    NQ_TRY(set_id(o, "bos_token_id", member(t, "bos_id"), err));
    NQ_TRY(set_id(o, "eos_token_id", member(t, "eos_id"), err));
    return set_id(o, "pad_token_id", member(t, "pad_id"), err);
}

/* Every id that ends a generation, the model's own eos first. */
static novaq_status set_ends(json_t *o, const json_t *t, novaq_error *err) {
    json_t *all = json_array();
    const json_t *eos = member(t, "eos_id");
    const json_t *more = member(t, "eot_ids");
    int failed = all == NULL;
    if (failed == 0 && json_is_integer(eos)) {
        failed = json_array_append(all, (json_t *)(uintptr_t)eos);
    }
    for (size_t i = 0; failed == 0 && i < json_array_size(more); i++) {
        if (!json_equal(json_array_get(more, i), eos)) {
            failed = json_array_append(all, json_array_get(more, i));
        }
    }
    if (failed != 0) {
        json_decref(all);
        return nq_fail(err, NOVAQ_E_MEMORY, "cannot write \"eos_token_id\"");
    }
    if (json_array_size(all) == 0) {
        json_decref(all);
        return NOVAQ_OK;
    }
    return set(o, "eos_token_id", all, err);
}

static novaq_status fill_generation(json_t *o, const nq_export_plan *p, novaq_error *err) {
    const json_t *t = member(p->model, "tokenizer");
    NQ_TRY(set(o, "_from_model_config", json_true(), err));
    NQ_TRY(set_id(o, "bos_token_id", member(t, "bos_id"), err));
    NQ_TRY(set_ends(o, t, err));
    return set_id(o, "pad_token_id", member(t, "pad_id"), err);
}

static novaq_status add_tokenizer(json_t *files, const nq_export_plan *p, novaq_error *err) {
    json_t *tokenizer = NULL;
    json_t *config = NULL;
    const json_t *chat = member(p->model, "chat_template");
    if (!json_is_object(member(p->model, "tokenizer"))) {
        return NOVAQ_OK;
    }
    NQ_TRY(nq_tokenizer_to_hf(&tokenizer, &config, p->model, err));
    novaq_status st = NOVAQ_OK;
    if (json_is_string(chat) && member(config, "chat_template") == NULL) {
        st = set(config, "chat_template", json_deep_copy(chat), err);
    }
    if (st == NOVAQ_OK) {
        st = set(files, "tokenizer.json", json_incref(tokenizer), err);
    }
    if (st == NOVAQ_OK) {
        st = set(files, "tokenizer_config.json", json_incref(config), err);
    }
    json_decref(tokenizer);
    json_decref(config);
    return st;
}

static novaq_status fill_files(json_t *files, const nq_export_plan *p, novaq_error *err) {
    json_t *config = json_object();
    NQ_TRY(set(files, "config.json", config, err));
    NQ_TRY(fill_config(config, p, err));
    json_t *generation = json_object();
    NQ_TRY(set(files, "generation_config.json", generation, err));
    NQ_TRY(fill_generation(generation, p, err));
    return add_tokenizer(files, p, err);
}

novaq_status nq_export_hf_files(json_t **files, const nq_export_plan *p, novaq_error *err) {
    *files = json_object();
    if (*files == NULL) {
        return nq_fail(err, NOVAQ_E_MEMORY, "out of memory");
    }
    novaq_status st = p->known ? fill_files(*files, p, err) : NOVAQ_OK;
    if (st != NOVAQ_OK) {
        json_decref(*files);
        *files = NULL;
    }
    return st;
}
