/* describe_hf.c - a model's description from a Hugging Face directory:
 * config.json, tokenizer.json, tokenizer_config.json, chat_template.jinja. */
#include <string.h>

#include "base/mem.h"
#include "io/fs.h"
#include "model/arch.h"
#include "model/describe_parts.h"

#define MAX_CONFIG    ((size_t)16 << 20)
#define MAX_TOKENIZER ((size_t)256 << 20)

typedef struct hf {
    const nq_tensors *ts;
    const json_t *config;
    json_t *model;
    json_t *hp;
    json_t *why;
    novaq_error *err;
} hf;

/* The file's text, or NULL when there is none. */
static novaq_status read_text(char **text, size_t *len, const char *dir, const char *file,
                              size_t max, novaq_error *err) {
    char *path = NULL;
    *text = NULL;
    NQ_TRY(nq_path_join(&path, dir, file, err));
    novaq_status st = nq_is_file(path) ? nq_read_file(text, len, path, max, err) : NOVAQ_OK;
    nq_free(path);
    return st;
}

static novaq_status read_json(json_t **out, const char *dir, const char *file, size_t max,
                              novaq_error *err) {
    char *text = NULL;
    size_t len = 0;
    *out = NULL;
    NQ_TRY(read_text(&text, &len, dir, file, max, err));
    novaq_status st = NOVAQ_OK;
    if (text != NULL) {
        st = nq_json_parse_object(out, file, text, len, err);
    }
    nq_free(text);
    return st;
}

static const json_t *integer_of(const json_t *config, const char *a, const char *b) {
    const json_t *v = json_object_get(config, a);
    if (!json_is_integer(v) && b != NULL) {
        v = json_object_get(config, b);
    }
    return json_is_integer(v) ? v : NULL;
}

static novaq_status copy_counts(const hf *h) {
    static const struct {
        const char *as, *key, *other; /* other: GPT-2's spelling */
    } COUNTS[] = {
        {"block_count", "num_hidden_layers", "n_layer"},
        {"context_length", "max_position_embeddings", "n_positions"},
        {"embedding_length", "hidden_size", "n_embd"},
        {"feed_forward_length", "intermediate_size", "n_inner"},
        {"head_count", "num_attention_heads", "n_head"},
        {"head_count_kv", "num_key_value_heads", NULL},
        {"head_dim", "head_dim", NULL},
        {"vocab_size", "vocab_size", NULL},
    };
    for (size_t i = 0; i < sizeof COUNTS / sizeof COUNTS[0]; i++) {
        const json_t *v = integer_of(h->config, COUNTS[i].key, COUNTS[i].other);
        if (v != NULL) {
            NQ_TRY(
                nq_describe_set(h->hp, COUNTS[i].as, json_integer(json_integer_value(v)), h->err));
        }
    }
    return NOVAQ_OK;
}

static novaq_status set_if_absent(const hf *h, const char *key, json_t *value) {
    if (json_object_get(h->hp, key) != NULL) {
        json_decref(value);
        return NOVAQ_OK;
    }
    return nq_describe_set(h->hp, key, value, h->err);
}

/* What config.json means where it is silent (LlamaConfig's definition). */
static novaq_status derive_llama(const hf *h) {
    json_int_t heads = json_integer_value(json_object_get(h->hp, "head_count"));
    json_int_t dim = json_integer_value(json_object_get(h->hp, "embedding_length"));
    const json_t *tie = json_object_get(h->config, "tie_word_embeddings");
    bool tied =
        json_is_boolean(tie) ? json_is_true(tie) : nq_tensors_find(h->ts, "lm_head.weight") == NULL;
    const json_t *eps = json_object_get(h->config, "rms_norm_eps");
    if (heads > 0) {
        NQ_TRY(set_if_absent(h, "head_count_kv", json_integer(heads)));
    }
    if (heads > 0 && dim > 0 && dim % heads == 0) {
        NQ_TRY(set_if_absent(h, "head_dim", json_integer(dim / heads)));
    }
    json_int_t head_dim = json_integer_value(json_object_get(h->hp, "head_dim"));
    NQ_TRY(set_if_absent(h, "rope_dim", json_integer(head_dim)));
    NQ_TRY(set_if_absent(h, "context_length", json_integer(2048)));
    NQ_TRY(nq_describe_set(h->hp, "rope_style", json_string("half"), h->err));
    NQ_TRY(nq_describe_set(h->hp, "rms_eps",
                           json_real(json_is_number(eps) ? json_number_value(eps) : 1e-6), h->err));
    return nq_describe_set(h->hp, "tie_embeddings", json_boolean(tied), h->err);
}

static double member_number(const json_t *o, const char *key) {
    return json_number_value(json_object_get(o, key));
}

/* s: rope_scaling, or rope_parameters of newer files. */
static novaq_status describe_scaling(const hf *h, const json_t *s) {
    const char *type = json_string_value(json_object_get(s, "rope_type"));
    if (type == NULL) {
        type = json_string_value(json_object_get(s, "type"));
    }
    if (!json_is_object(s) || type == NULL || strcmp(type, "default") == 0) {
        return NOVAQ_OK;
    }
    json_t *o = NULL;
    if (strcmp(type, "linear") == 0) {
        o = json_pack("{s:s, s:f}", "type", "linear", "factor", member_number(s, "factor"));
    } else if (strcmp(type, "llama3") == 0) {
        o = json_pack("{s:s, s:f, s:f, s:f, s:f}", "type", "llama3", "factor",
                      member_number(s, "factor"), "low_freq_factor",
                      member_number(s, "low_freq_factor"), "high_freq_factor",
                      member_number(s, "high_freq_factor"), "original_context_length",
                      member_number(s, "original_max_position_embeddings"));
    } else {
        return nq_describe_why(h->why, h->err, "rope scaling \"%.32s\" is not supported", type);
    }
    return nq_describe_set(h->hp, "rope_scaling", o, h->err);
}

static novaq_status describe_rope(const hf *h) {
    const json_t *parameters = json_object_get(h->config, "rope_parameters");
    const json_t *theta = json_object_get(h->config, "rope_theta");
    if (!json_is_number(theta)) {
        theta = json_object_get(parameters, "rope_theta");
    }
    double value = json_is_number(theta) ? json_number_value(theta) : 10000.0;
    NQ_TRY(nq_describe_set(h->hp, "rope_theta", json_real(value), h->err));
    const json_t *scaling = json_object_get(h->config, "rope_scaling");
    return describe_scaling(h, json_is_object(scaling) ? scaling : parameters);
}

/* Settings of a llama or mistral file that the runtime does not follow. */
static novaq_status refuse_variants(const hf *h) {
    const char *act = json_string_value(json_object_get(h->config, "hidden_act"));
    const json_t *window = json_object_get(h->config, "sliding_window");
    const json_t *partial = json_object_get(h->config, "partial_rotary_factor");
    const json_t *positions = json_object_get(h->hp, "context_length");
    if (act != NULL && strcmp(act, "silu") != 0) {
        NQ_TRY(nq_describe_why(h->why, h->err, "activation \"%.32s\" is not supported", act));
    }
    if (json_is_integer(window) && json_integer_value(window) < json_integer_value(positions)) {
        NQ_TRY(nq_describe_why(h->why, h->err, "sliding-window attention is not supported"));
    }
    if (json_is_true(json_object_get(h->config, "attention_bias")) ||
        json_is_true(json_object_get(h->config, "mlp_bias"))) {
        NQ_TRY(nq_describe_why(h->why, h->err, "biases on linear layers are not supported"));
    }
    if (json_is_number(partial) && json_number_value(partial) != 1.0) {
        NQ_TRY(nq_describe_why(h->why, h->err, "partial rotary embedding is not supported"));
    }
    if (json_is_object(json_object_get(h->config, "quantization_config"))) {
        NQ_TRY(nq_describe_why(h->why, h->err, "weights quantized by another tool"));
    }
    return NOVAQ_OK;
}

static novaq_status describe_config(hf *h) {
    const char *type = json_string_value(json_object_get(h->config, "model_type"));
    const nq_arch *arch = type == NULL ? NULL : nq_arch_find_hf(type);
    if (type != NULL) {
        const char *name = arch == NULL ? type : arch->name;
        NQ_TRY(nq_describe_set(h->model, "architecture", json_string(name), h->err));
    }
    h->hp = json_object();
    NQ_TRY(nq_describe_set(h->model, "hyperparameters", h->hp, h->err));
    NQ_TRY(copy_counts(h));
    if (arch == NULL) {
        return NOVAQ_OK;
    }
    NQ_TRY(derive_llama(h));
    NQ_TRY(describe_rope(h));
    return refuse_variants(h);
}

static novaq_status describe_tokenizer(const hf *h, const char *dir, const json_t *config) {
    json_t *file = NULL;
    json_t *tokenizer = NULL;
    char *reason = NULL;
    NQ_TRY(read_json(&file, dir, "tokenizer.json", MAX_TOKENIZER, h->err));
    if (file == NULL) {
        return nq_describe_why(h->why, h->err, "tokenizer: there is no tokenizer.json");
    }
    novaq_status st = nq_describe_tokenizer_hf(&tokenizer, &reason, file, config, h->err);
    if (st == NOVAQ_OK && tokenizer != NULL) {
        st = nq_describe_set(h->model, "tokenizer", tokenizer, h->err);
    } else if (st == NOVAQ_OK) {
        st = nq_describe_why(h->why, h->err, "tokenizer: %s",
                             reason == NULL ? "not described by the file" : reason);
    }
    nq_free(reason);
    json_decref(file);
    return st;
}

/* "chat_template": one string, or a list of {name, template} with a default. */
static const char *find_template(const json_t *config) {
    const json_t *t = json_object_get(config, "chat_template");
    for (size_t i = 0; i < json_array_size(t); i++) {
        const json_t *entry = json_array_get(t, i);
        const char *name = json_string_value(json_object_get(entry, "name"));
        if (name != NULL && strcmp(name, "default") == 0) {
            return json_string_value(json_object_get(entry, "template"));
        }
    }
    return json_string_value(t);
}

static novaq_status describe_template(const hf *h, const char *dir, const json_t *config) {
    char *text = NULL;
    size_t len = 0;
    NQ_TRY(read_text(&text, &len, dir, "chat_template.jinja", MAX_CONFIG, h->err));
    json_t *s = NULL;
    if (text != NULL) {
        s = json_stringn(text, len);
    } else if (find_template(config) != NULL) {
        s = json_string(find_template(config));
    }
    nq_free(text);
    return s == NULL ? NOVAQ_OK : nq_describe_set(h->model, "chat_template", s, h->err);
}

novaq_status nq_describe_hf(json_t *model, json_t *why, const nq_tensors *ts, novaq_error *err) {
    hf h = {.ts = ts, .model = model, .why = why, .err = err};
    const char *dir = nq_tensors_dir(ts);
    json_t *config = NULL;
    json_t *tokenizer_config = NULL;
    NQ_TRY(read_json(&config, dir, "config.json", MAX_CONFIG, err));
    if (config == NULL) {
        return nq_describe_why(why, err, "there is no config.json beside the weights");
    }
    h.config = config;
    json_t *name = json_string(nq_path_base(dir));
    novaq_status st = name == NULL ? NOVAQ_OK : nq_describe_set(model, "name", name, err);
    if (st == NOVAQ_OK) {
        st = describe_config(&h);
    }
    if (st == NOVAQ_OK) {
        st = read_json(&tokenizer_config, dir, "tokenizer_config.json", MAX_TOKENIZER, err);
    }
    if (st == NOVAQ_OK) {
        st = describe_tokenizer(&h, dir, tokenizer_config);
    }
    if (st == NOVAQ_OK) {
        st = describe_template(&h, dir, tokenizer_config);
    }
    json_decref(tokenizer_config);
    json_decref(config);
    return st;
}
