/* describe_gguf.c - a model's description from GGUF metadata keys. */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "model/arch.h"
#include "model/describe_parts.h"

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

static bool number(double *out, const keys *k, const char *suffix) {
    const nq_gguf_kv *kv = arch_key(k, suffix);
    return kv != NULL && kv->type != NQ_GGUF_ARRAY && nq_gguf_number(out, kv, 0);
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
    };
    int64_t v = 0;
    for (size_t i = 0; i < sizeof COUNTS / sizeof COUNTS[0]; i++) {
        if (integer(&v, k, COUNTS[i].key)) {
            NQ_TRY(nq_describe_set(k->hp, COUNTS[i].as, json_integer(v), k->err));
        } else if (arch_key(k, COUNTS[i].key) != NULL) {
            NQ_TRY(nq_describe_why(k->why, k->err, "%s differs between layers", COUNTS[i].as));
        }
    }
    return NOVAQ_OK;
}

static novaq_status set_if_absent(const keys *k, const char *key, int64_t value) {
    return json_object_get(k->hp, key) != NULL
               ? NOVAQ_OK
               : nq_describe_set(k->hp, key, json_integer(value), k->err);
}

/* What the format defines when a key is absent (GGUF specification). */
static novaq_status derive_counts(const keys *k, const nq_tensors *ts) {
    json_int_t heads = json_integer_value(json_object_get(k->hp, "head_count"));
    json_int_t dim = json_integer_value(json_object_get(k->hp, "embedding_length"));
    const nq_tensor_info *embed = nq_tensors_find(ts, "token_embd.weight");
    const nq_gguf_kv *tokens = nq_gguf_find(k->kvs, k->count, "tokenizer.ggml.tokens");
    if (heads > 0) {
        NQ_TRY(set_if_absent(k, "head_count_kv", heads));
        if (dim > 0 && dim % heads == 0) {
            NQ_TRY(set_if_absent(k, "head_dim", dim / heads));
        }
    }
    json_int_t head_dim = json_integer_value(json_object_get(k->hp, "head_dim"));
    if (head_dim > 0) {
        NQ_TRY(set_if_absent(k, "rope_dim", head_dim));
    }
    if (embed != NULL && embed->rank == 2) { /* padded vocabularies: the matrix decides */
        NQ_TRY(nq_describe_set(k->hp, "vocab_size", json_integer((json_int_t)embed->shape[0]),
                               k->err));
    } else if (tokens != NULL && tokens->type == NQ_GGUF_ARRAY) {
        NQ_TRY(set_if_absent(k, "vocab_size", (int64_t)tokens->count));
    }
    return nq_describe_set(k->hp, "tie_embeddings",
                           json_boolean(nq_tensors_find(ts, "output.weight") == NULL), k->err);
}

static novaq_status describe_scaling(const keys *k) {
    nq_gguf_string type = {0};
    double factor = 0;
    const nq_gguf_kv *kv = arch_key(k, "rope.scaling.type");
    if (!number(&factor, k, "rope.scaling.factor")) {
        (void)number(&factor, k, "rope.scale_linear");
    }
    bool named = kv != NULL && nq_gguf_text(&type, kv, 0);
    bool linear = named ? type.len == 6 && memcmp(type.data, "linear", 6) == 0 : factor > 0;
    if (named && type.len == 4 && memcmp(type.data, "none", 4) == 0) {
        return NOVAQ_OK;
    }
    if (named && !linear) {
        return nq_describe_why(k->why, k->err, "rope scaling \"%.*s\" is not supported",
                               (int)(type.len < 32 ? type.len : 32), type.data);
    }
    if (!linear || factor == 1.0 || factor == 0.0) {
        return NOVAQ_OK;
    }
    json_t *s = json_pack("{s:s, s:f}", "type", "linear", "factor", factor);
    return nq_describe_set(k->hp, "rope_scaling", s, k->err);
}

static novaq_status describe_reals(const keys *k) {
    double v = 0;
    bool runs = nq_arch_find(k->arch) != NULL;
    if (number(&v, k, "rope.freq_base")) {
        NQ_TRY(nq_describe_set(k->hp, "rope_theta", json_real(v), k->err));
    } else if (runs) { /* the format's default */
        NQ_TRY(nq_describe_set(k->hp, "rope_theta", json_real(10000.0), k->err));
    }
    if (number(&v, k, "attention.layer_norm_rms_epsilon")) {
        NQ_TRY(nq_describe_set(k->hp, "rms_eps", json_real(v), k->err));
    }
    if (runs) {
        NQ_TRY(nq_describe_set(k->hp, "rope_style", json_string("interleaved"), k->err));
    }
    return describe_scaling(k);
}

/* Variants of the llama graph that share its name. */
static novaq_status refuse_variants(const keys *k) {
    static const char *const VARIANTS[] = {"expert_count", "attention.sliding_window"};
    int64_t v = 0;
    for (size_t i = 0; i < sizeof VARIANTS / sizeof VARIANTS[0]; i++) {
        if (integer(&v, k, VARIANTS[i]) && v > 0) {
            NQ_TRY(nq_describe_why(k->why, k->err, "%s %lld is not supported", VARIANTS[i],
                                   (long long)v));
        }
    }
    int64_t value_length = 0;
    if (integer(&value_length, k, "attention.value_length") &&
        value_length != json_integer_value(json_object_get(k->hp, "head_dim"))) {
        NQ_TRY(nq_describe_why(k->why, k->err, "values wider or narrower than keys"));
    }
    return NOVAQ_OK;
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
    NQ_TRY(describe_reals(&k));
    NQ_TRY(refuse_variants(&k));
    NQ_TRY(describe_tokenizer(model, &k));
    return copy_text(model, "chat_template", &k, "tokenizer.chat_template");
}
