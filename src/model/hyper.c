/* hyper.c - see hyper.h. */
#include "model/hyper.h"

#include <math.h>
#include <string.h>

#define MAX_BLOCKS  4096
#define MAX_CONTEXT (1U << 24)
#define MAX_WIDTH   (1U << 20)
#define MAX_HEADS   (1U << 14)
#define MAX_VOCAB   (1U << 23)

static novaq_status get_count(uint32_t *out, const json_t *hp, const char *key, uint32_t max,
                              const char *where, novaq_error *err) {
    uint64_t v = 0;
    *out = 0;
    NQ_TRY(nq_json_get_u64(&v, hp, key, where, err));
    if (v == 0 || v > max) {
        return nq_fail(err, NOVAQ_E_FORMAT, "%s: %s is %llu, must be 1 to %u", where, key,
                       (unsigned long long)v, max);
    }
    *out = (uint32_t)v;
    return NOVAQ_OK;
}

static novaq_status get_real(double *out, const json_t *hp, const char *key, double min, double max,
                             const char *where, novaq_error *err) {
    NQ_TRY(nq_json_get_f64(out, hp, key, where, err));
    if (!(*out >= min && *out <= max)) {
        return nq_fail(err, NOVAQ_E_FORMAT, "%s: %s is %g, must be %g to %g", where, key, *out, min,
                       max);
    }
    return NOVAQ_OK;
}

static novaq_status read_scaling(nq_hyper *h, const json_t *hp, const char *where,
                                 novaq_error *err) {
    const json_t *s = json_object_get(hp, "rope_scaling");
    h->scaling = NQ_ROPE_PLAIN;
    if (s == NULL) {
        return NOVAQ_OK;
    }
    const char *type = NULL;
    NQ_TRY(nq_json_get_string(&type, s, "type", where, err));
    NQ_TRY(get_real(&h->scale_factor, s, "factor", 1.0, 1e6, where, err));
    if (strcmp(type, "linear") == 0) {
        h->scaling = NQ_ROPE_LINEAR;
        return NOVAQ_OK;
    }
    if (strcmp(type, "llama3") != 0) {
        return nq_fail(err, NOVAQ_E_UNSUPPORTED, "%s: rope scaling \"%s\" is not supported", where,
                       type);
    }
    h->scaling = NQ_ROPE_LLAMA3;
    NQ_TRY(get_real(&h->low_freq_factor, s, "low_freq_factor", 1e-3, 1e6, where, err));
    NQ_TRY(get_real(&h->high_freq_factor, s, "high_freq_factor", 1e-3, 1e6, where, err));
    NQ_TRY(get_real(&h->scale_old_context, s, "original_context_length", 1, 1e9, where, err));
    if (h->high_freq_factor <= h->low_freq_factor) {
        return nq_fail(err, NOVAQ_E_FORMAT, "%s: rope scaling: high_freq_factor must be above low",
                       where);
    }
    return NOVAQ_OK;
}

static novaq_status read_rope(nq_hyper *h, const json_t *hp, const char *where, novaq_error *err) {
    const char *style = NULL;
    NQ_TRY(get_count(&h->rope_dim, hp, "rope_dim", MAX_WIDTH, where, err));
    NQ_TRY(get_real(&h->rope_theta, hp, "rope_theta", 1.0, 1e12, where, err));
    NQ_TRY(nq_json_get_string(&style, hp, "rope_style", where, err));
    h->rope_half = strcmp(style, "half") == 0;
    if (!h->rope_half && strcmp(style, "interleaved") != 0) {
        return nq_fail(err, NOVAQ_E_FORMAT, "%s: rope_style \"%s\" is neither interleaved nor half",
                       where, style);
    }
    if (h->rope_dim % 2 != 0 || h->rope_dim > h->head_dim) {
        return nq_fail(err, NOVAQ_E_FORMAT, "%s: rope_dim %u must be even and at most head_dim %u",
                       where, h->rope_dim, h->head_dim);
    }
    return read_scaling(h, hp, where, err);
}

static novaq_status read_counts(nq_hyper *h, const json_t *hp, const char *where,
                                novaq_error *err) {
    NQ_TRY(get_count(&h->blocks, hp, "block_count", MAX_BLOCKS, where, err));
    NQ_TRY(get_count(&h->context, hp, "context_length", MAX_CONTEXT, where, err));
    NQ_TRY(get_count(&h->dim, hp, "embedding_length", MAX_WIDTH, where, err));
    NQ_TRY(get_count(&h->ff, hp, "feed_forward_length", MAX_WIDTH, where, err));
    NQ_TRY(get_count(&h->heads, hp, "head_count", MAX_HEADS, where, err));
    NQ_TRY(get_count(&h->heads_kv, hp, "head_count_kv", MAX_HEADS, where, err));
    NQ_TRY(get_count(&h->head_dim, hp, "head_dim", MAX_WIDTH, where, err));
    NQ_TRY(get_count(&h->vocab, hp, "vocab_size", MAX_VOCAB, where, err));
    if (h->heads % h->heads_kv != 0) {
        return nq_fail(err, NOVAQ_E_FORMAT, "%s: head_count %u is not a multiple of %u key heads",
                       where, h->heads, h->heads_kv);
    }
    if (h->head_dim % 2 != 0 || (uint64_t)h->head_dim * h->heads > MAX_WIDTH) {
        return nq_fail(err, NOVAQ_E_FORMAT, "%s: %u heads of width %u are out of range", where,
                       h->heads, h->head_dim);
    }
    return NOVAQ_OK;
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
    nq_hyper h = {0};
    const char *arch = NULL;
    const char *format = NULL;
    const json_t *hp = NULL;
    *out = h;
    NQ_TRY(nq_json_get_string(&arch, model, "architecture", name, err));
    h.arch = nq_arch_find(arch);
    if (h.arch == NULL) {
        return nq_fail(err, NOVAQ_E_UNSUPPORTED,
                       "%s: architecture '%s' can be compressed but not run", name, arch);
    }
    NQ_TRY(check_runnable(model, name, err));
    NQ_TRY(nq_json_get_string(&format, model, "source_format", name, err));
    h.spelling = strcmp(format, "gguf") == 0 ? NQ_SPELL_GGUF : NQ_SPELL_HF;
    NQ_TRY(nq_json_get_object(&hp, model, "hyperparameters", name, err));
    NQ_TRY(read_counts(&h, hp, name, err));
    NQ_TRY(read_rope(&h, hp, name, err));
    NQ_TRY(get_real(&h.rms_eps, hp, "rms_eps", 0.0, 1.0, name, err));
    const json_t *tied = json_object_get(hp, "tie_embeddings");
    if (!json_is_boolean(tied)) {
        return nq_fail(err, NOVAQ_E_FORMAT, "%s: \"tie_embeddings\" is missing or not a boolean",
                       name);
    }
    h.tied = json_is_true(tied);
    *out = h;
    return NOVAQ_OK;
}

double nq_rope_frequency(const nq_hyper *h, uint32_t i) {
    double f = pow(h->rope_theta, -2.0 * (double)i / (double)h->rope_dim);
    if (h->scaling == NQ_ROPE_PLAIN) {
        return f;
    }
    if (h->scaling == NQ_ROPE_LINEAR) {
        return f / h->scale_factor;
    }
    /* Llama 3.1: long waves are stretched, short ones kept, those between
     * blended by where the wavelength falls in the original context. */
    double waves = h->scale_old_context * f / 6.283185307179586;
    double blend = (waves - h->low_freq_factor) / (h->high_freq_factor - h->low_freq_factor);
    blend = blend < 0 ? 0 : blend > 1 ? 1 : blend;
    return (1.0 - blend) * f / h->scale_factor + blend * f;
}
