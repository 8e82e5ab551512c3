/* describe_gguf.c - a model's description from GGUF metadata keys. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "model/arch.h"
#include "model/describe_parts.h"
#include "model/hyper.h"

typedef struct keys {
    const nq_gguf_kv *kvs;
    size_t count;
    char arch[64];
    json_t *hp;
    json_t *why;
    novaq_error *err;
} keys;

static const nq_gguf_kv *arch_key(const keys *k, const char *suffix) {
    char name[192];
    snprintf(name, sizeof name, "%s.%s", k->arch, suffix);
    return nq_gguf_find(k->kvs, k->count, name);
}

static bool integer(int64_t *out, const keys *k, const char *suffix) {
    const nq_gguf_kv *kv = arch_key(k, suffix);
    return kv != NULL && kv->type != NQ_GGUF_ARRAY && nq_gguf_integer(out, kv, 0);
}

/* Finite numbers only: JSON has no others, and nothing means them. */
static bool number(double *out, const keys *k, const char *suffix) {
    const nq_gguf_kv *kv = arch_key(k, suffix);
    return kv != NULL && kv->type != NQ_GGUF_ARRAY && nq_gguf_number(out, kv, 0) && isfinite(*out);
}

static json_t *text_value(const nq_gguf_kv *kv) {
    nq_gguf_string s;
    return kv != NULL && nq_gguf_text(&s, kv, 0) ? json_stringn(s.data, (size_t)s.len) : NULL;
}

/* A string key of the file, when present and UTF-8. */
static novaq_status copy_text(json_t *model, const char *as, const keys *k, const char *key) {
    json_t *s = text_value(nq_gguf_find(k->kvs, k->count, key));
    return s == NULL ? NOVAQ_OK : nq_describe_set(model, as, s, k->err);
}

static novaq_status set(const keys *k, const char *key, json_t *value) {
    return nq_describe_set(k->hp, key, value, k->err);
}

static json_int_t known_integer(const keys *k, const char *key) {
    return json_integer_value(json_object_get(k->hp, key));
}

static double number_or(const keys *k, const char *suffix, double otherwise) {
    double v = otherwise;
    return number(&v, k, suffix) ? v : otherwise;
}

/* ---- counts --------------------------------------------------------------------- */

static novaq_status copy_counts(const keys *k) {
    static const struct {
        const char *as, *key;
    } COUNTS[] = {
        {"block_count", "block_count"},
        {"context_length", "context_length"},
        {"embedding_length", "embedding_length"},
        {"feed_forward_length", "feed_forward_length"},
        {"head_count", "attention.head_count"},
        {"head_count_kv", "attention.head_count_kv"},
        {"head_dim", "attention.key_length"},
        {"rope_dim", "rope.dimension_count"},
        {"vocab_size", "vocab_size"},
        {"expert_count", "expert_count"},
        {"expert_used_count", "expert_used_count"},
        {"expert_feed_forward_length", "expert_feed_forward_length"},
    };
    int64_t v = 0;
    for (size_t i = 0; i < sizeof COUNTS / sizeof COUNTS[0]; i++) {
        if (integer(&v, k, COUNTS[i].key)) {
            NQ_TRY(set(k, COUNTS[i].as, json_integer(v)));
        } else if (arch_key(k, COUNTS[i].key) != NULL) {
            NQ_TRY(nq_describe_why(k->why, k->err, "%s differs between layers", COUNTS[i].as));
        }
    }
    return NOVAQ_OK;
}

static novaq_status set_if_absent(const keys *k, const char *key, int64_t value) {
    return json_object_get(k->hp, key) != NULL ? NOVAQ_OK : set(k, key, json_integer(value));
}

/* What the format defines when a key is absent (GGUF specification). */
static novaq_status derive_counts(const keys *k, const nq_tensors *ts) {
    json_int_t heads = known_integer(k, "head_count");
    json_int_t dim = known_integer(k, "embedding_length");
    const nq_tensor_info *embed = nq_tensors_find(ts, "token_embd.weight");
    const nq_gguf_kv *tokens = nq_gguf_find(k->kvs, k->count, "tokenizer.ggml.tokens");
    if (heads > 0) {
        NQ_TRY(set_if_absent(k, "head_count_kv", heads));
        if (dim > 0 && dim % heads == 0) {
            NQ_TRY(set_if_absent(k, "head_dim", dim / heads));
        }
    }
    json_int_t head_dim = known_integer(k, "head_dim");
    if (head_dim > 0) {
        NQ_TRY(set_if_absent(k, "rope_dim", head_dim));
    }
    if (embed != NULL && embed->rank == 2) { /* padded vocabularies: the matrix decides */
        NQ_TRY(set(k, "vocab_size", json_integer((json_int_t)embed->shape[0])));
    } else if (tokens != NULL && tokens->type == NQ_GGUF_ARRAY) {
        NQ_TRY(set_if_absent(k, "vocab_size", (int64_t)tokens->count));
    }
    return set(k, "tie_embeddings", json_boolean(nq_tensors_find(ts, "output.weight") == NULL));
}

/* Weights of experts always add up to 1 in llama.cpp's graphs of these. */
static novaq_status describe_experts(const keys *k) {
    int64_t normed = 1;
    json_int_t ff = known_integer(k, "feed_forward_length");
    if (known_integer(k, "expert_count") == 0) {
        (void)json_object_del(k->hp, "expert_count");
        return NOVAQ_OK;
    }
    (void)integer(&normed, k, "expert_weights_norm");
    if (ff > 0) {
        NQ_TRY(set_if_absent(k, "expert_feed_forward_length", ff));
    }
    return set(k, "expert_weights_norm", json_boolean(normed != 0));
}

/* ---- rotary embedding -------------------------------------------------------------- */

static bool is_text(const nq_gguf_string *s, const char *text) {
    return s->len == strlen(text) && memcmp(s->data, text, strlen(text)) == 0;
}

static novaq_status describe_long(const keys *k, double original) {
    double context = (double)known_integer(k, "context_length");
    double factor = original >= 1 ? context / original : 0;
    return set(k, "rope_scaling",
               json_pack("{s:s, s:f, s:f, s:f}", "type", "longrope", "factor",
                         factor > 1 ? factor : 1, "original_context_length", original,
                         "attention_factor", number_or(k, "rope.scaling.attn_factor", 1)));
}

/* llama.cpp multiplies what the file says by YaRN's own factor. */
static novaq_status describe_yarn(const keys *k, double factor, double original) {
    double own = factor > 1 ? 0.1 * log(factor) + 1 : 1;
    double given = number_or(k, "rope.scaling.yarn_attn_factor", 1);
    return set(k, "rope_scaling",
               json_pack("{s:s, s:f, s:f, s:f, s:f, s:f}", "type", "yarn", "factor", factor,
                         "original_context_length", original, "beta_fast",
                         number_or(k, "rope.scaling.yarn_beta_fast", 32), "beta_slow",
                         number_or(k, "rope.scaling.yarn_beta_slow", 1), "attention_factor",
                         own * given));
}

static novaq_status describe_scaling(const keys *k, const nq_tensors *ts) {
    nq_gguf_string type = {0};
    const nq_gguf_kv *kv = arch_key(k, "rope.scaling.type");
    double factor = number_or(k, "rope.scaling.factor", number_or(k, "rope.scale_linear", 0));
    double context = (double)known_integer(k, "context_length");
    double original = number_or(k, "rope.scaling.original_context_length", context);
    bool named = kv != NULL && nq_gguf_text(&type, kv, 0);
    if (nq_tensors_find(ts, "rope_factors_long.weight") != NULL) { /* named or not */
        return describe_long(k, original);
    }
    if (named && is_text(&type, "yarn")) {
        return describe_yarn(k, factor, original);
    }
    bool linear = named ? is_text(&type, "linear") : factor > 0;
    if (named && !linear && !is_text(&type, "none")) {
        return nq_describe_why(k->why, k->err, "rope scaling \"%.*s\" is not supported",
                               (int)(type.len < 32 ? type.len : 32), type.data);
    }
    if (!linear || factor == 1.0 || factor == 0.0) {
        return NOVAQ_OK;
    }
    return set(k, "rope_scaling", json_pack("{s:s, s:f}", "type", "linear", "factor", factor));
}

/* Gemma 3's local layers turn by their own theta. */
static novaq_status describe_rope(const keys *k, const nq_arch *arch, const nq_tensors *ts) {
    NQ_TRY(set(k, "rope_theta", json_real(number_or(k, "rope.freq_base", 10000))));
    NQ_TRY(set(k, "rope_style", json_string(arch->interleaved ? "interleaved" : "half")));
    if (strcmp(arch->name, "gemma3") == 0) {
        double theta = number_or(k, "rope.freq_base_swa", 10000);
        NQ_TRY(set(k, "rope_theta_local", json_real(theta)));
    }
    return describe_scaling(k, ts);
}

/* ---- windows ---------------------------------------------------------------------------- */

/* Which blocks are local: a list of booleans, or a period with the last of each
 * global; Gemma 2's is 2 and Gemma 3's 6 when the file does not say. */
static bool is_local(const keys *k, json_int_t block) {
    const nq_gguf_kv *kv = arch_key(k, "attention.sliding_window_pattern");
    int64_t period = strcmp(k->arch, "gemma2") == 0 ? 2 : strcmp(k->arch, "gemma3") == 0 ? 6 : 0;
    int64_t listed = 0;
    if (kv != NULL && kv->type == NQ_GGUF_ARRAY) {
        return (uint64_t)block < kv->count && nq_gguf_integer(&listed, kv, (uint64_t)block) &&
               listed != 0;
    }
    (void)integer(&period, k, "attention.sliding_window_pattern");
    return period < 1 || (block + 1) % period != 0;
}

static novaq_status describe_window(const keys *k) {
    int64_t window = strcmp(k->arch, "gemma2") == 0 ? 4096 : 0;
    json_int_t blocks = known_integer(k, "block_count");
    (void)integer(&window, k, "attention.sliding_window");
    if (window == 0 || blocks < 1 || blocks > NQ_MAX_BLOCKS) {
        return NOVAQ_OK;
    }
    json_t *layers = json_array();
    for (json_int_t i = 0; i < blocks; i++) {
        (void)json_array_append_new(layers, json_boolean(is_local(k, i)));
    }
    NQ_TRY(set(k, "sliding_window", json_integer(window)));
    return set(k, "sliding_layers", layers);
}

/* ---- arithmetic -------------------------------------------------------------------------- */

/* Gemma 2 and 3 of 27 billion parameters scale scores by the width a head would have
 * if heads made up the residual stream; files do not say, llama.cpp knows them by
 * their number of blocks. */
static novaq_status describe_attention_scale(const keys *k) {
    json_int_t blocks = known_integer(k, "block_count");
    json_int_t heads = known_integer(k, "head_count");
    json_int_t dim = known_integer(k, "embedding_length");
    bool wide = (strcmp(k->arch, "gemma2") == 0 && blocks == 46) ||
                (strcmp(k->arch, "gemma3") == 0 && blocks == 62);
    double scale = 0;
    if (number(&scale, k, "attention.scale") && scale != 0) {
        return set(k, "attention_scale", json_real(scale));
    }
    if (!wide || heads < 1 || dim < heads) {
        return NOVAQ_OK;
    }
    json_int_t width = dim / heads; /* whole, as llama.cpp has it */
    return set(k, "attention_scale", json_real(1.0 / sqrt((double)width)));
}

static novaq_status describe_reals(const keys *k) {
    static const struct {
        const char *as, *key;
        bool zero_is_none;
    } REALS[] = {
        {"rms_eps", "attention.layer_norm_rms_epsilon", false},
        {"layer_norm_eps", "attention.layer_norm_epsilon", false},
        {"attention_softcap", "attn_logit_softcapping", true},
        {"logit_softcap", "final_logit_softcapping", true},
    };
    double v = 0;
    for (size_t i = 0; i < sizeof REALS / sizeof REALS[0]; i++) {
        if (number(&v, k, REALS[i].key) && !(REALS[i].zero_is_none && v == 0)) {
            NQ_TRY(set(k, REALS[i].as, json_real(v)));
        }
    }
    return describe_attention_scale(k);
}

/* Variants of a graph that share its name. */
static novaq_status refuse_variants(const keys *k) {
    static const char *const VARIANTS[] = {"expert_shared_count",
                                           "expert_shared_feed_forward_length", "embedding_scale",
                                           "residual_scale", "logit_scale"};
    double v = 0;
    for (size_t i = 0; i < sizeof VARIANTS / sizeof VARIANTS[0]; i++) {
        if (number(&v, k, VARIANTS[i]) && v != 0 && !(i > 1 && v == 1)) {
            NQ_TRY(nq_describe_why(k->why, k->err, "%s %g is not supported", VARIANTS[i], v));
        }
    }
    int64_t value_length = 0;
    if (integer(&value_length, k, "attention.value_length") &&
        value_length != known_integer(k, "head_dim")) {
        NQ_TRY(nq_describe_why(k->why, k->err, "values wider or narrower than keys"));
    }
    return NOVAQ_OK;
}

/* What a runnable architecture needs beside its counts. */
static novaq_status describe_graph(const keys *k, const nq_tensors *ts) {
    const nq_arch *arch = nq_arch_find(k->arch);
    NQ_TRY(describe_reals(k));
    if (arch == NULL) {
        return NOVAQ_OK;
    }
    NQ_TRY(describe_experts(k));
    if (arch->rotary) {
        NQ_TRY(describe_rope(k, arch, ts));
    }
    NQ_TRY(describe_window(k));
    return refuse_variants(k);
}

static novaq_status describe_tokenizer(json_t *model, const keys *k) {
    json_t *tokenizer = NULL;
    char *reason = NULL;
    NQ_TRY(nq_describe_tokenizer_gguf(&tokenizer, &reason, k->kvs, k->count, k->err));
    novaq_status st = NOVAQ_OK;
    if (tokenizer != NULL) {
        st = nq_describe_set(model, "tokenizer", tokenizer, k->err);
    } else {
        st = nq_describe_why(k->why, k->err, "tokenizer: %s",
                             reason == NULL ? "not described by the file" : reason);
    }
    nq_free(reason);
    return st;
}

novaq_status nq_describe_gguf(json_t *model, json_t *why, const nq_tensors *ts, novaq_error *err) {
    keys k = {.why = why, .err = err};
    nq_gguf_string arch;
    k.kvs = nq_tensors_kv(ts, &k.count);
    const nq_gguf_kv *kv = nq_gguf_find(k.kvs, k.count, "general.architecture");
    if (kv == NULL || !nq_gguf_text(&arch, kv, 0) || arch.len == 0 || arch.len >= sizeof k.arch) {
        return NOVAQ_OK; /* architecture stays "unknown" */
    }
    memcpy(k.arch, arch.data, (size_t)arch.len);
    json_t *name = json_stringn(k.arch, (size_t)arch.len);
    if (name == NULL) {
        return nq_describe_why(why, err, "the architecture's name is not UTF-8");
    }
    NQ_TRY(nq_describe_set(model, "architecture", name, err));
    NQ_TRY(copy_text(model, "name", &k, "general.name"));
    k.hp = json_object();
    NQ_TRY(nq_describe_set(model, "hyperparameters", k.hp, err));
    NQ_TRY(copy_counts(&k));
    NQ_TRY(derive_counts(&k, ts));
    NQ_TRY(describe_graph(&k, ts));
    NQ_TRY(describe_tokenizer(model, &k));
    return copy_text(model, "chat_template", &k, "tokenizer.chat_template");
}
