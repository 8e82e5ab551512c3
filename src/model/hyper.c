/* hyper.c - see hyper.h. */
#include "model/hyper.h"

#include <math.h>
#include <string.h>

#define MAX_CONTEXT (1U << 24)
#define MAX_WIDTH   (1U << 20)
#define MAX_HEADS   (1U << 14)
#define MAX_VOCAB   (1U << 23)
#define MAX_EXPERTS 4096

/* What is being read. */
typedef struct reader {
    nq_hyper *h;
    const json_t *hp;
    const char *where; /* for messages */
    novaq_error *err;
} reader;

/* ---- numbers ------------------------------------------------------------------ */

static novaq_status get_count(uint32_t *out, const reader *r, const char *key, uint32_t max) {
    uint64_t v = 0;
    *out = 0;
    NQ_TRY(nq_json_get_u64(&v, r->hp, key, r->where, r->err));
    if (v == 0 || v > max) {
        return nq_fail(r->err, NOVAQ_E_FORMAT, "%s: %s is %llu, must be 1 to %u", r->where, key,
                       (unsigned long long)v, max);
    }
    *out = (uint32_t)v;
    return NOVAQ_OK;
}

static novaq_status get_real_of(double *out, const reader *r, const json_t *o, const char *key,
                                double min, double max) {
    NQ_TRY(nq_json_get_f64(out, o, key, r->where, r->err));
    if (!(*out >= min && *out <= max)) {
        return nq_fail(r->err, NOVAQ_E_FORMAT, "%s: %s is %g, must be %g to %g", r->where, key,
                       *out, min, max);
    }
    return NOVAQ_OK;
}

static novaq_status get_real(double *out, const reader *r, const char *key, double min,
                             double max) {
    return get_real_of(out, r, r->hp, key, min, max);
}

/* Like get_real(), but may be absent: *out then stays. */
static novaq_status may_real(double *out, const reader *r, const char *key, double min,
                             double max) {
    return json_object_get(r->hp, key) == NULL ? NOVAQ_OK : get_real(out, r, key, min, max);
}

static novaq_status get_bool(bool *out, const reader *r, const char *key) {
    const json_t *v = json_object_get(r->hp, key);
    if (!json_is_boolean(v)) {
        return nq_fail(r->err, NOVAQ_E_FORMAT, "%s: \"%s\" is missing or not a boolean", r->where,
                       key);
    }
    *out = json_is_true(v);
    return NOVAQ_OK;
}

/* ---- rotary embedding ---------------------------------------------------------- */

static novaq_status read_divisors(float *out, const reader *r, const json_t *s, const char *key) {
    const json_t *list = json_object_get(s, key);
    uint32_t n = r->h->rope[NQ_GLOBAL].dim / 2;
    if (!json_is_array(list) || json_array_size(list) != n || n > NQ_MAX_DIVISORS) {
        return nq_fail(r->err, NOVAQ_E_FORMAT, "%s: %s must be a list of %u numbers, at most %d",
                       r->where, key, n, NQ_MAX_DIVISORS);
    }
    for (uint32_t i = 0; i < n; i++) {
        double v = json_number_value(json_array_get(list, i));
        if (!(v >= 1e-6 && v <= 1e9)) {
            return nq_fail(r->err, NOVAQ_E_FORMAT, "%s: %s[%u] is %g, must be positive", r->where,
                           key, i, v);
        }
        out[i] = (float)v;
    }
    r->h->divisors = n;
    return NOVAQ_OK;
}

static novaq_status read_llama3(nq_rope_spec *p, const reader *r, const json_t *s) {
    p->scaling = NQ_ROPE_LLAMA3;
    NQ_TRY(get_real_of(&p->low_freq_factor, r, s, "low_freq_factor", 1e-3, 1e6));
    NQ_TRY(get_real_of(&p->high_freq_factor, r, s, "high_freq_factor", 1e-3, 1e6));
    NQ_TRY(get_real_of(&p->old_context, r, s, "original_context_length", 1, 1e9));
    if (p->high_freq_factor <= p->low_freq_factor) {
        return nq_fail(r->err, NOVAQ_E_FORMAT,
                       "%s: rope scaling: high_freq_factor must be above low", r->where);
    }
    return NOVAQ_OK;
}

static novaq_status read_yarn(nq_rope_spec *p, const reader *r, const json_t *s) {
    p->scaling = NQ_ROPE_YARN;
    NQ_TRY(get_real_of(&p->old_context, r, s, "original_context_length", 2, 1e9));
    NQ_TRY(get_real_of(&p->beta_fast, r, s, "beta_fast", 1e-3, 1e6));
    NQ_TRY(get_real_of(&p->beta_slow, r, s, "beta_slow", 1e-3, 1e6));
    NQ_TRY(get_real_of(&p->attention_factor, r, s, "attention_factor", 1e-3, 1e3));
    if (p->beta_fast <= p->beta_slow || !(p->theta >= 1.001)) {
        return nq_fail(r->err, NOVAQ_E_FORMAT,
                       "%s: rope scaling: beta_fast must be above slow, rope_theta above 1",
                       r->where);
    }
    return NOVAQ_OK;
}

/* The lists are absent where the divisors are tensors of the model (GGUF). */
static novaq_status read_long(nq_rope_spec *p, const reader *r, const json_t *s) {
    p->scaling = NQ_ROPE_LONG;
    NQ_TRY(get_real_of(&p->old_context, r, s, "original_context_length", 2, 1e9));
    NQ_TRY(get_real_of(&p->attention_factor, r, s, "attention_factor", 1e-3, 1e3));
    if (json_object_get(s, "long_factor") == NULL) {
        return NOVAQ_OK;
    }
    NQ_TRY(read_divisors(r->h->long_divisors, r, s, "long_factor"));
    return read_divisors(r->h->short_divisors, r, s, "short_factor");
}

static novaq_status read_scaling(nq_rope_spec *p, const reader *r) {
    const json_t *s = json_object_get(r->hp, "rope_scaling");
    p->scaling = NQ_ROPE_PLAIN;
    if (s == NULL) {
        return NOVAQ_OK;
    }
    const char *type = NULL;
    NQ_TRY(nq_json_get_string(&type, s, "type", r->where, r->err));
    NQ_TRY(get_real_of(&p->factor, r, s, "factor", 1.0, 1e6));
    if (strcmp(type, "linear") == 0) {
        p->scaling = NQ_ROPE_LINEAR;
        return NOVAQ_OK;
    }
    if (strcmp(type, "llama3") == 0) {
        return read_llama3(p, r, s);
    }
    if (strcmp(type, "yarn") == 0) {
        return read_yarn(p, r, s);
    }
    if (strcmp(type, "longrope") == 0) {
        return read_long(p, r, s);
    }
    return nq_fail(r->err, NOVAQ_E_UNSUPPORTED, "%s: rope scaling \"%s\" is not supported",
                   r->where, type);
}

/* Local layers turn like the others unless they have a theta of their own, which is
 * then never scaled. */
static novaq_status read_rope(const reader *r) {
    nq_hyper *h = r->h;
    nq_rope_spec *p = &h->rope[NQ_GLOBAL];
    const char *style = NULL;
    if (!h->arch->rotary) {
        return NOVAQ_OK;
    }
    *p = (nq_rope_spec){.factor = 1, .attention_factor = 1};
    NQ_TRY(get_count(&p->dim, r, "rope_dim", MAX_WIDTH));
    NQ_TRY(get_real(&p->theta, r, "rope_theta", 1.0, 1e12));
    NQ_TRY(nq_json_get_string(&style, r->hp, "rope_style", r->where, r->err));
    p->half = strcmp(style, "half") == 0;
    if (!p->half && strcmp(style, "interleaved") != 0) {
        return nq_fail(r->err, NOVAQ_E_FORMAT,
                       "%s: rope_style \"%s\" is neither interleaved nor half", r->where, style);
    }
    if (p->dim % 2 != 0 || p->dim > h->head_dim) {
        return nq_fail(r->err, NOVAQ_E_FORMAT,
                       "%s: rope_dim %u must be even and at most head_dim %u", r->where, p->dim,
                       h->head_dim);
    }
    NQ_TRY(read_scaling(p, r));
    h->rope[NQ_LOCAL] = *p;
    if (json_object_get(r->hp, "rope_theta_local") != NULL) {
        h->rope[NQ_LOCAL] =
            (nq_rope_spec){.dim = p->dim, .half = p->half, .factor = 1, .attention_factor = 1};
        NQ_TRY(get_real(&h->rope[NQ_LOCAL].theta, r, "rope_theta_local", 1.0, 1e12));
    }
    return NOVAQ_OK;
}

/* ---- the rest -------------------------------------------------------------------- */

static novaq_status read_counts(const reader *r) {
    nq_hyper *h = r->h;
    NQ_TRY(get_count(&h->blocks, r, "block_count", NQ_MAX_BLOCKS));
    NQ_TRY(get_count(&h->context, r, "context_length", MAX_CONTEXT));
    NQ_TRY(get_count(&h->dim, r, "embedding_length", MAX_WIDTH));
    NQ_TRY(get_count(&h->heads, r, "head_count", MAX_HEADS));
    NQ_TRY(get_count(&h->heads_kv, r, "head_count_kv", MAX_HEADS));
    NQ_TRY(get_count(&h->head_dim, r, "head_dim", MAX_WIDTH));
    NQ_TRY(get_count(&h->vocab, r, "vocab_size", MAX_VOCAB));
    if (h->heads % h->heads_kv != 0) {
        return nq_fail(r->err, NOVAQ_E_FORMAT,
                       "%s: head_count %u is not a multiple of %u key heads", r->where, h->heads,
                       h->heads_kv);
    }
    if (h->head_dim % 2 != 0 || (uint64_t)h->head_dim * h->heads > MAX_WIDTH) {
        return nq_fail(r->err, NOVAQ_E_FORMAT, "%s: %u heads of width %u are out of range",
                       r->where, h->heads, h->head_dim);
    }
    return NOVAQ_OK;
}

static novaq_status read_experts(const reader *r) {
    nq_hyper *h = r->h;
    if (json_object_get(r->hp, "expert_count") == NULL) {
        return get_count(&h->ff, r, "feed_forward_length", MAX_WIDTH);
    }
    NQ_TRY(get_count(&h->experts, r, "expert_count", MAX_EXPERTS));
    NQ_TRY(get_count(&h->experts_used, r, "expert_used_count", MAX_EXPERTS));
    NQ_TRY(get_count(&h->ff, r, "expert_feed_forward_length", MAX_WIDTH));
    if (h->experts_used > h->experts) {
        return nq_fail(r->err, NOVAQ_E_FORMAT, "%s: %u experts used of %u", r->where,
                       h->experts_used, h->experts);
    }
    return get_bool(&h->experts_normed, r, "expert_weights_norm");
}

static novaq_status read_window(const reader *r) {
    nq_hyper *h = r->h;
    const json_t *layers = json_object_get(r->hp, "sliding_layers");
    if (json_object_get(r->hp, "sliding_window") == NULL) {
        return NOVAQ_OK;
    }
    NQ_TRY(get_count(&h->window, r, "sliding_window", UINT32_MAX));
    if (layers != NULL && json_array_size(layers) != h->blocks) {
        return nq_fail(r->err, NOVAQ_E_FORMAT, "%s: sliding_layers must be a list of %u booleans",
                       r->where, h->blocks);
    }
    for (uint32_t i = 0; i < h->blocks; i++) {
        if (layers == NULL || json_is_true(json_array_get(layers, i))) {
            h->local[i / 64] |= (uint64_t)1 << (i % 64);
        }
    }
    return NOVAQ_OK;
}

static novaq_status read_arithmetic(const reader *r) {
    nq_hyper *h = r->h;
    const char *eps = h->arch->norm == NQ_NORM_RMS ? "rms_eps" : "layer_norm_eps";
    NQ_TRY(get_real(&h->norm_eps, r, eps, 0.0, 1.0));
    NQ_TRY(may_real(&h->attention_softcap, r, "attention_softcap", 1e-3, 1e6));
    NQ_TRY(may_real(&h->logit_softcap, r, "logit_softcap", 1e-3, 1e6));
    h->attention_scale = 1.0 / sqrt((double)h->head_dim);
    NQ_TRY(may_real(&h->attention_scale, r, "attention_scale", 1e-6, 1e3));
    h->embedding_scale = h->arch->scaled_embedding ? sqrt((double)h->dim) : 1.0;
    if (json_object_get(r->hp, "attention_bias") != NULL) {
        NQ_TRY(get_bool(&h->biases, r, "attention_bias"));
    }
    h->needs = h->arch->needs;
    if (h->biases) {
        h->needs |= nq_tensor_bit(NQ_T_ATTN_Q_BIAS) | nq_tensor_bit(NQ_T_ATTN_K_BIAS) |
                    nq_tensor_bit(NQ_T_ATTN_V_BIAS) | nq_tensor_bit(NQ_T_ATTN_OUT_BIAS);
    }
    return get_bool(&h->tied, r, "tie_embeddings");
}

/* The reasons a description gives for not being runnable, as one error. */
static novaq_status check_runnable(const json_t *model, const char *where, novaq_error *err) {
    const json_t *why = json_object_get(model, "unsupported");
    if (json_is_array(why) && json_array_size(why) > 0) {
        const char *first = json_string_value(json_array_get(why, 0));
        return nq_fail(err, NOVAQ_E_UNSUPPORTED, "%s: cannot be run: %s", where,
                       first == NULL ? "unsupported" : first);
    }
    return NOVAQ_OK;
}

novaq_status nq_hyper_read(nq_hyper *out, const json_t *model, const char *name, novaq_error *err) {
    reader r = {.h = out, .where = name, .err = err};
    const char *arch = NULL;
    const char *format = NULL;
    memset(out, 0, sizeof *out);
    NQ_TRY(nq_json_get_string(&arch, model, "architecture", name, err));
    out->arch = nq_arch_find(arch);
    if (out->arch == NULL) {
        return nq_fail(err, NOVAQ_E_UNSUPPORTED,
                       "%s: architecture '%s' can be compressed but not run", name, arch);
    }
    NQ_TRY(check_runnable(model, name, err));
    NQ_TRY(nq_json_get_string(&format, model, "source_format", name, err));
    out->spelling = strcmp(format, "gguf") == 0 ? NQ_SPELL_GGUF : NQ_SPELL_HF;
    NQ_TRY(nq_json_get_object(&r.hp, model, "hyperparameters", name, err));
    NQ_TRY(read_counts(&r));
    NQ_TRY(read_experts(&r));
    NQ_TRY(read_rope(&r));
    NQ_TRY(read_window(&r));
    return read_arithmetic(&r);
}
