/* describe_hf_config.c - the hyperparameters of a Hugging Face config.json.
 *
 * Owns: what config.json means where it is silent, by transformers' definitions of
 * the architectures in arch.h; both spellings of rotary settings (rope_theta,
 * rope_scaling; rope_parameters). */
#include <math.h>
#include <string.h>

#include "model/arch.h"
#include "model/describe_parts.h"
#include "model/hyper.h"

typedef struct config {
    const nq_tensors *ts;
    const json_t *o;        /* config.json */
    const nq_hf_type *type; /* NULL: not one the runtime runs */
    json_t *hp;
    json_t *why;
    novaq_error *err;
} config;

/* ---- members -------------------------------------------------------------------- */

static const json_t *integer_of(const config *c, const char *a, const char *b) {
    const json_t *v = json_object_get(c->o, a);
    if (!json_is_integer(v) && b != NULL) {
        v = json_object_get(c->o, b);
    }
    return json_is_integer(v) ? v : NULL;
}

static double real_or(const json_t *o, const char *key, double otherwise) {
    const json_t *v = json_object_get(o, key);
    return json_is_number(v) ? json_number_value(v) : otherwise;
}

static json_int_t integer_or(const config *c, const char *key, json_int_t otherwise) {
    const json_t *v = integer_of(c, key, NULL);
    return v == NULL ? otherwise : json_integer_value(v);
}

/* JSON has no infinity; what becomes 0 here is refused where it is read. */
static double finite_or_0(double v) { return isfinite(v) ? v : 0; }

static json_int_t known_integer(const config *c, const char *key) {
    return json_integer_value(json_object_get(c->hp, key));
}

static novaq_status set(const config *c, const char *key, json_t *value) {
    return nq_describe_set(c->hp, key, value, c->err);
}

static novaq_status set_if_absent(const config *c, const char *key, json_t *value) {
    if (json_object_get(c->hp, key) != NULL) {
        json_decref(value);
        return NOVAQ_OK;
    }
    return set(c, key, value);
}

/* ---- counts ----------------------------------------------------------------------- */

static novaq_status copy_counts(const config *c) {
    static const struct {
        const char *as, *key, *other; /* other: GPT-2's spelling, or Qwen3-MoE's */
    } COUNTS[] = {
        {"block_count", "num_hidden_layers", "n_layer"},
        {"context_length", "max_position_embeddings", "n_positions"},
        {"embedding_length", "hidden_size", "n_embd"},
        {"feed_forward_length", "intermediate_size", "n_inner"},
        {"head_count", "num_attention_heads", "n_head"},
        {"head_count_kv", "num_key_value_heads", NULL},
        {"head_dim", "head_dim", NULL},
        {"vocab_size", "vocab_size", NULL},
        {"expert_count", "num_local_experts", "num_experts"},
        {"expert_used_count", "num_experts_per_tok", NULL},
        {"expert_feed_forward_length", "moe_intermediate_size", NULL},
    };
    for (size_t i = 0; i < sizeof COUNTS / sizeof COUNTS[0]; i++) {
        const json_t *v = integer_of(c, COUNTS[i].key, COUNTS[i].other);
        if (v != NULL) {
            NQ_TRY(set(c, COUNTS[i].as, json_integer(json_integer_value(v))));
        }
    }
    return NOVAQ_OK;
}

static bool has_head(const config *c) { return nq_tensors_find(c->ts, "lm_head.weight") != NULL; }

static novaq_status derive_counts(const config *c) {
    json_int_t heads = known_integer(c, "head_count");
    json_int_t dim = known_integer(c, "embedding_length");
    const json_t *tie = json_object_get(c->o, "tie_word_embeddings");
    bool tied = json_is_boolean(tie) ? json_is_true(tie) : !has_head(c);
    if (heads > 0) {
        NQ_TRY(set_if_absent(c, "head_count_kv", json_integer(heads)));
    }
    if (heads > 0 && dim > 0 && dim % heads == 0) {
        NQ_TRY(set_if_absent(c, "head_dim", json_integer(dim / heads)));
    }
    if (!c->type->arch->rotary && dim > 0 && dim <= INT32_MAX) { /* GPT-2's n_inner */
        NQ_TRY(set_if_absent(c, "feed_forward_length", json_integer(4 * dim)));
    }
    NQ_TRY(set_if_absent(c, "context_length", json_integer(2048)));
    return set(c, "tie_embeddings", json_boolean(tied));
}

/* Mixtral's weights always add up to 1; Qwen3-MoE says, and does not by default. */
static novaq_status describe_experts(const config *c) {
    if (json_object_get(c->hp, "expert_count") == NULL) {
        return NOVAQ_OK;
    }
    const json_t *ff = json_object_get(c->hp, "feed_forward_length");
    const json_t *only = json_object_get(c->o, "mlp_only_layers");
    const json_t *step = json_object_get(c->o, "decoder_sparse_step");
    bool mixtral = strcmp(c->type->model_type, "mixtral") == 0;
    if (ff != NULL) {
        NQ_TRY(set_if_absent(c, "expert_feed_forward_length", json_deep_copy(ff)));
    }
    if (json_array_size(only) > 0 || (json_is_integer(step) && json_integer_value(step) != 1)) {
        NQ_TRY(nq_describe_why(c->why, c->err, "blocks without experts among others with them"));
    }
    bool normed = mixtral || json_is_true(json_object_get(c->o, "norm_topk_prob"));
    return set(c, "expert_weights_norm", json_boolean(normed));
}

/* ---- rotary embedding --------------------------------------------------------------- */

static double yarn_magnitude(double factor, double mscale) {
    return factor <= 1 ? 1 : 0.1 * mscale * log(factor) + 1;
}

/* s: the settings; original: the length the model was first trained for. */
static novaq_status describe_yarn(const config *c, const json_t *s, double factor,
                                  double original) {
    double mscale = real_or(s, "mscale", 0);
    double all = real_or(s, "mscale_all_dim", 0);
    double magnitude = mscale != 0 && all != 0
                           ? yarn_magnitude(factor, mscale) / yarn_magnitude(factor, all)
                           : yarn_magnitude(factor, 1);
    if (json_is_false(json_object_get(s, "truncate"))) {
        return nq_describe_why(c->why, c->err, "yarn without truncation is not supported");
    }
    return set(c, "rope_scaling",
               json_pack("{s:s, s:f, s:f, s:f, s:f, s:f}", "type", "yarn", "factor", factor,
                         "original_context_length", original, "beta_fast",
                         real_or(s, "beta_fast", 32), "beta_slow", real_or(s, "beta_slow", 1),
                         "attention_factor",
                         real_or(s, "attention_factor", finite_or_0(magnitude))));
}

static novaq_status describe_longrope(const config *c, const json_t *s, double factor,
                                      double original) {
    json_t *longer = json_object_get(s, "long_factor");
    json_t *shorter = json_object_get(s, "short_factor");
    double magnitude = factor > 1 && original > 1 ? sqrt(1 + log(factor) / log(original)) : 1;
    if (!json_is_array(longer) || !json_is_array(shorter)) {
        return nq_describe_why(c->why, c->err, "longrope without its factors");
    }
    return set(c, "rope_scaling",
               json_pack("{s:s, s:f, s:f, s:f, s:O, s:O}", "type", "longrope", "factor",
                         factor > 1 ? factor : 1, "original_context_length", original,
                         "attention_factor", real_or(s, "attention_factor", finite_or_0(magnitude)),
                         "long_factor", longer, "short_factor", shorter));
}

/* s: rope_scaling, or rope_parameters of newer files. */
static novaq_status describe_scaling(const config *c, const json_t *s) {
    const char *type = json_string_value(json_object_get(s, "rope_type"));
    if (type == NULL) {
        type = json_string_value(json_object_get(s, "type"));
    }
    if (!json_is_object(s) || type == NULL || strcmp(type, "default") == 0) {
        return NOVAQ_OK;
    }
    double context = (double)known_integer(c, "context_length");
    double original = real_or(c->o, "original_max_position_embeddings", context);
    original = real_or(s, "original_max_position_embeddings", original);
    double ratio = finite_or_0(original > 0 ? context / original : 0);
    double factor = real_or(s, "factor", 0);
    if (strcmp(type, "linear") == 0) {
        return set(c, "rope_scaling", json_pack("{s:s, s:f}", "type", "linear", "factor", factor));
    }
    if (strcmp(type, "llama3") == 0) {
        return set(c, "rope_scaling",
                   json_pack("{s:s, s:f, s:f, s:f, s:f}", "type", "llama3", "factor", factor,
                             "low_freq_factor", real_or(s, "low_freq_factor", 0),
                             "high_freq_factor", real_or(s, "high_freq_factor", 0),
                             "original_context_length",
                             real_or(s, "original_max_position_embeddings", 0)));
    }
    if (strcmp(type, "yarn") == 0) {
        return describe_yarn(c, s, factor != 0 ? factor : ratio, original);
    }
    if (strcmp(type, "longrope") == 0 || strcmp(type, "su") == 0) {
        return describe_longrope(c, s, ratio, original);
    }
    return nq_describe_why(c->why, c->err, "rope scaling \"%.32s\" is not supported", type);
}

/* Gemma 3's local layers have their own theta, and no scaling. */
static novaq_status describe_local_rope(const config *c, const json_t *parameters) {
    const json_t *local = json_object_get(parameters, "sliding_attention");
    const char *type = json_string_value(json_object_get(local, "rope_type"));
    if (c->type->window != NQ_WINDOW_EVERY_NTH) {
        return NOVAQ_OK;
    }
    if (type != NULL && strcmp(type, "default") != 0) {
        return nq_describe_why(c->why, c->err, "rope scaling of local layers");
    }
    double theta = real_or(c->o, "rope_local_base_freq", 10000);
    return set(c, "rope_theta_local", json_real(real_or(local, "rope_theta", theta)));
}

static novaq_status describe_rope(const config *c) {
    const json_t *parameters = json_object_get(c->o, "rope_parameters");
    const json_t *full = json_object_get(parameters, "full_attention");
    const json_t *scaling = json_object_get(c->o, "rope_scaling");
    const json_t *s = json_is_object(full) ? full : parameters;
    double usual = c->type->window == NQ_WINDOW_EVERY_NTH ? 1e6 : 10000.0;
    double theta = real_or(c->o, "rope_theta", real_or(s, "rope_theta", usual));
    double part = real_or(c->o, "partial_rotary_factor", real_or(s, "partial_rotary_factor", 1));
    json_int_t head_dim = known_integer(c, "head_dim");
    if (!(part > 0 && part <= 1) || head_dim < 0 || head_dim > INT32_MAX) {
        return nq_describe_why(c->why, c->err, "partial_rotary_factor %g of %lld", part,
                               (long long)head_dim);
    }
    NQ_TRY(set(c, "rope_dim", json_integer((json_int_t)((double)head_dim * part))));
    NQ_TRY(set(c, "rope_theta", json_real(theta)));
    NQ_TRY(set(c, "rope_style", json_string("half")));
    NQ_TRY(describe_local_rope(c, parameters));
    return describe_scaling(c, json_is_object(scaling) ? scaling : s);
}

/* ---- windows -------------------------------------------------------------------------- */

static bool is_local(const config *c, json_int_t block) {
    const json_t *kinds = json_object_get(c->o, "layer_types");
    const char *kind = json_string_value(json_array_get(kinds, (size_t)block));
    if (kind != NULL) {
        return strcmp(kind, "sliding_attention") == 0;
    }
    switch (c->type->window) {
    case NQ_WINDOW_EVERY_2ND: return block % 2 == 0;
    case NQ_WINDOW_EVERY_NTH: {
        json_int_t n = integer_or(c, "sliding_window_pattern", 6);
        return n < 1 || (block + 1) % n != 0;
    }
    default: return block >= integer_or(c, "max_window_layers", 28);
    }
}

static novaq_status describe_kinds(const config *c) {
    const json_t *kinds = json_object_get(c->o, "layer_types");
    for (size_t i = 0; i < json_array_size(kinds); i++) {
        const char *kind = json_string_value(json_array_get(kinds, i));
        if (kind != NULL && strcmp(kind, "sliding_attention") != 0 &&
            strcmp(kind, "full_attention") != 0) {
            return nq_describe_why(c->why, c->err, "layers of type \"%.32s\"", kind);
        }
    }
    return NOVAQ_OK;
}

static novaq_status describe_window(const config *c) {
    const json_t *window = integer_of(c, "sliding_window", NULL);
    nq_window_rule rule = c->type->window;
    bool switched = rule == NQ_WINDOW_SWITCHED || rule == NQ_WINDOW_SWITCHED_UP;
    json_int_t blocks = known_integer(c, "block_count");
    NQ_TRY(describe_kinds(c));
    if (rule == NQ_WINDOW_NONE || window == NULL || json_integer_value(window) == 0 || blocks < 1 ||
        blocks > NQ_MAX_BLOCKS ||
        (switched && !json_is_true(json_object_get(c->o, "use_sliding_window")))) {
        return NOVAQ_OK;
    }
    NQ_TRY(set(c, "sliding_window", json_integer(json_integer_value(window))));
    if (rule == NQ_WINDOW_ALL || rule == NQ_WINDOW_SWITCHED) {
        return NOVAQ_OK;
    }
    json_t *layers = json_array();
    for (json_int_t i = 0; i < blocks; i++) {
        (void)json_array_append_new(layers, json_boolean(is_local(c, i)));
    }
    return set(c, "sliding_layers", layers);
}

/* ---- arithmetic ------------------------------------------------------------------------ */

static bool same_activation(const char *name, nq_activation wanted) {
    if (wanted == NQ_ACT_SILU) {
        return strcmp(name, "silu") == 0 || strcmp(name, "swish") == 0;
    }
    return strcmp(name, "gelu_new") == 0 || strcmp(name, "gelu_pytorch_tanh") == 0;
}

static novaq_status check_activation(const config *c) {
    static const char *const KEYS[] = {"hidden_activation", "hidden_act", "activation_function"};
    for (size_t i = 0; i < sizeof KEYS / sizeof KEYS[0]; i++) {
        const char *name = json_string_value(json_object_get(c->o, KEYS[i]));
        if (name == NULL) {
            continue;
        }
        return same_activation(name, c->type->arch->activation)
                   ? NOVAQ_OK
                   : nq_describe_why(c->why, c->err, "activation \"%.32s\" is not supported", name);
    }
    return NOVAQ_OK;
}

/* Settings that change the arithmetic in ways the runtime does not follow. */
static novaq_status refuse_variants(const config *c) {
    static const char *const FLAGS[] = {"scale_attn_by_inverse_layer_idx", "add_cross_attention",
                                        "use_bidirectional_attention"};
    NQ_TRY(check_activation(c));
    for (size_t i = 0; i < sizeof FLAGS / sizeof FLAGS[0]; i++) {
        if (json_is_true(json_object_get(c->o, FLAGS[i]))) {
            NQ_TRY(nq_describe_why(c->why, c->err, "%s is not supported", FLAGS[i]));
        }
    }
    if (json_is_false(json_object_get(c->o, "scale_attn_weights"))) {
        NQ_TRY(nq_describe_why(c->why, c->err, "unscaled attention is not supported"));
    }
    if (json_is_object(json_object_get(c->o, "quantization_config"))) {
        NQ_TRY(nq_describe_why(c->why, c->err, "weights quantized by another tool"));
    }
    return NOVAQ_OK;
}

static novaq_status describe_arithmetic(const config *c) {
    static const struct {
        const char *as, *key;
    } CAPS[] = {{"attention_softcap", "attn_logit_softcapping"},
                {"logit_softcap", "final_logit_softcapping"}};
    bool rms = c->type->arch->norm == NQ_NORM_RMS;
    double eps =
        rms ? real_or(c->o, "rms_norm_eps", 1e-6) : real_or(c->o, "layer_norm_epsilon", 1e-5);
    NQ_TRY(set(c, rms ? "rms_eps" : "layer_norm_eps", json_real(eps)));
    for (size_t i = 0; i < sizeof CAPS / sizeof CAPS[0]; i++) {
        const json_t *v = json_object_get(c->o, CAPS[i].key);
        if (json_is_number(v)) {
            NQ_TRY(set(c, CAPS[i].as, json_real(json_number_value(v))));
        }
    }
    double scalar = real_or(c->o, "query_pre_attn_scalar", 0);
    if (c->type->arch->scaled_embedding && scalar != 0) {
        double scale = finite_or_0(scalar > 0 ? 1.0 / sqrt(scalar) : 0);
        NQ_TRY(set(c, "attention_scale", json_real(scale)));
    }
    if (json_is_true(json_object_get(c->o, "attention_bias"))) {
        NQ_TRY(set(c, "attention_bias", json_true()));
    }
    return refuse_variants(c);
}

/* object: config.json of a model of text. */
static novaq_status describe_text(json_t *model, json_t *why, const json_t *object,
                                  const nq_tensors *ts, novaq_error *err) {
    const char *type = json_string_value(json_object_get(object, "model_type"));
    config c = {.ts = ts, .o = object, .hp = json_object(), .why = why, .err = err};
    c.type = type == NULL ? NULL : nq_arch_find_hf(type);
    NQ_TRY(nq_describe_set(model, "hyperparameters", c.hp, err));
    if (type != NULL) {
        const char *name = c.type == NULL ? type : c.type->arch->name;
        NQ_TRY(nq_describe_set(model, "architecture", json_string(name), err));
    }
    NQ_TRY(copy_counts(&c));
    if (c.type == NULL) { /* "gemma3" without a text_config */
        return type != NULL && nq_arch_find(type) != NULL
                   ? nq_describe_why(why, err, "model_type \"%.32s\" is not supported", type)
                   : NOVAQ_OK;
    }
    NQ_TRY(derive_counts(&c));
    NQ_TRY(describe_experts(&c));
    if (c.type->arch->rotary) {
        NQ_TRY(describe_rope(&c));
    }
    NQ_TRY(describe_window(&c));
    return describe_arithmetic(&c);
}

novaq_status nq_describe_hf_config(json_t *model, json_t *why, const json_t *object,
                                   const nq_tensors *ts, novaq_error *err) {
    json_t *text = NULL;
    NQ_TRY(nq_hf_text_config(&text, object, err));
    novaq_status st = describe_text(model, why, text, ts, err);
    json_decref(text);
    return st;
}
