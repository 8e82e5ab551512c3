/* describe.c - see describe.h: dispatch, roles of tensors, matrix views. */
#include "model/describe.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/text.h"
#include "model/arch.h"
#include "model/describe_parts.h"

/* A suffix of at least this many elements makes the columns of a matrix: enough
 * for a rotation and whole subvectors. */
#define MIN_COLUMNS 32

novaq_status nq_describe_set(json_t *object, const char *key, json_t *value, novaq_error *err) {
    if (json_object_set_new(object, key, value) != 0) {
        return nq_fail(err, NOVAQ_E_MEMORY, "cannot describe \"%s\"", key);
    }
    return NOVAQ_OK;
}

novaq_status nq_describe_why(json_t *why, novaq_error *err, const char *fmt, ...) {
    char text[256];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    json_t *s = json_string(text);
    if (s == NULL) { /* a name in it is not UTF-8, or was cut inside a character */
        s = json_string("a name in the file is not valid UTF-8");
    }
    if (s == NULL || json_array_append_new(why, s) != 0) {
        return nq_fail(err, NOVAQ_E_MEMORY, "cannot describe a model");
    }
    return NOVAQ_OK;
}

static const char *format_name(const nq_tensors *ts) {
    switch (nq_tensors_format(ts)) {
    case NQ_FORMAT_SAFETENSORS: return "safetensors";
    case NQ_FORMAT_GGUF: return "gguf";
    case NQ_FORMAT_ONNX: return "onnx";
    case NQ_FORMAT_PYTORCH: return "pytorch";
    }
    return "unknown";
}

static novaq_status describe_into(json_t *model, json_t *why, const nq_tensors *ts,
                                  novaq_error *err) {
    bool gguf = nq_tensors_format(ts) == NQ_FORMAT_GGUF;
    NQ_TRY(nq_describe_set(model, "architecture", json_string("unknown"), err));
    NQ_TRY(nq_describe_set(model, "source_format", json_string(format_name(ts)), err));
    NQ_TRY(gguf ? nq_describe_gguf(model, why, ts, err) : nq_describe_hf(model, why, ts, err));
    const char *arch = json_string_value(json_object_get(model, "architecture"));
    if (arch != NULL && nq_arch_find(arch) == NULL) {
        NQ_TRY(nq_describe_why(why, err, "architecture '%s' can be compressed but not run", arch));
    }
    return NOVAQ_OK;
}

novaq_status nq_describe(json_t **out, const nq_tensors *ts, novaq_error *err) {
    *out = NULL;
    json_t *model = json_object();
    json_t *why = json_array();
    novaq_status st = model == NULL || why == NULL
                          ? nq_fail(err, NOVAQ_E_MEMORY, "cannot describe a model")
                          : describe_into(model, why, ts, err);
    if (st == NOVAQ_OK && json_array_size(why) > 0) {
        st = nq_describe_set(model, "unsupported", json_incref(why), err);
    }
    json_decref(why);
    if (st != NOVAQ_OK) {
        json_decref(model);
        return st;
    }
    *out = model;
    return NOVAQ_OK;
}

/* True when the last dotted components of name are exactly `suffix`. */
static bool is_named(const char *name, const char *suffix) {
    if (!nq_ends_with(name, suffix)) {
        return false;
    }
    size_t at = strlen(name) - strlen(suffix);
    return at == 0 || name[at - 1] == '.';
}

static bool any_named(const char *name, const char *const *list, size_t count) {
    for (size_t i = 0; i < count; i++) {
        if (is_named(name, list[i])) {
            return true;
        }
    }
    return false;
}

nq_role nq_tensor_role(const char *name, uint32_t rank) {
    static const char *const embeddings[] = {
        "token_embd.weight",     "embed_tokens.weight",    "wte.weight",
        "tok_embeddings.weight", "word_embeddings.weight", "embed_in.weight"};
    static const char *const heads[] = {"lm_head.weight", "embed_out.weight"};
    /* Tables that are looked up, masks, and the choice of experts, in which a small
     * error changes everything after it. */
    static const char *const others[] = {"wpe.weight",
                                         "position_embd.weight",
                                         "position_embeddings.weight",
                                         "ffn_gate_inp.weight",
                                         "mlp.gate.weight",
                                         "token_type_embeddings.weight",
                                         "attn.bias",
                                         "attn.masked_bias",
                                         "block_sparse_moe.gate.weight",
                                         "ffn_gate_inp_shexp.weight",
                                         "mlp.shared_expert_gate.weight"};
    if (rank < 2 || any_named(name, others, sizeof others / sizeof others[0])) {
        return NQ_ROLE_OTHER;
    }
    if (any_named(name, embeddings, sizeof embeddings / sizeof embeddings[0])) {
        return NQ_ROLE_EMBEDDING;
    }
    if (strcmp(name, "output.weight") == 0 ||
        any_named(name, heads, sizeof heads / sizeof heads[0])) {
        return NQ_ROLE_HEAD;
    }
    return NQ_ROLE_LINEAR; /* whatever its name: every other matrix multiplies */
}

void nq_matrix_view(uint64_t *rows, uint64_t *cols, uint32_t rank, const uint64_t *shape) {
    uint32_t split = rank; /* first dimension of the columns */
    *rows = 1;
    *cols = 1;
    while (split > 1 && (*cols < MIN_COLUMNS || split == rank)) {
        *cols *= shape[--split];
    }
    for (uint32_t i = 0; i < split; i++) {
        *rows *= shape[i];
    }
}
