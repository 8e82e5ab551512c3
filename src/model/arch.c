/* arch.c - see arch.h. */
#include "model/arch.h"

#include <stdio.h>
#include <string.h>

/* Mistral without a sliding window is llama in all but name; GGUF files call it
 * llama themselves. */
static const nq_arch ARCHS[] = {
    {"llama", "llama"},
    {"llama", "mistral"},
};

#define ARCH_COUNT (sizeof ARCHS / sizeof ARCHS[0])

/* What follows "blk.N." and "model.layers.N." for the tensors of a block. */
static const char *const NAMES[NQ_T_COUNT][2] = {
    [NQ_T_EMBED] = {"token_embd.weight", "model.embed_tokens.weight"},
    [NQ_T_OUTPUT_NORM] = {"output_norm.weight", "model.norm.weight"},
    [NQ_T_HEAD] = {"output.weight", "lm_head.weight"},
    [NQ_T_ATTN_NORM] = {"attn_norm.weight", "input_layernorm.weight"},
    [NQ_T_ATTN_Q] = {"attn_q.weight", "self_attn.q_proj.weight"},
    [NQ_T_ATTN_K] = {"attn_k.weight", "self_attn.k_proj.weight"},
    [NQ_T_ATTN_V] = {"attn_v.weight", "self_attn.v_proj.weight"},
    [NQ_T_ATTN_OUT] = {"attn_output.weight", "self_attn.o_proj.weight"},
    [NQ_T_FFN_NORM] = {"ffn_norm.weight", "post_attention_layernorm.weight"},
    [NQ_T_FFN_GATE] = {"ffn_gate.weight", "mlp.gate_proj.weight"},
    [NQ_T_FFN_UP] = {"ffn_up.weight", "mlp.up_proj.weight"},
    [NQ_T_FFN_DOWN] = {"ffn_down.weight", "mlp.down_proj.weight"},
};

const nq_arch *nq_arch_find(const char *name) {
    for (size_t i = 0; i < ARCH_COUNT; i++) {
        if (strcmp(ARCHS[i].name, name) == 0) {
            return &ARCHS[i];
        }
    }
    return NULL;
}

const nq_arch *nq_arch_find_hf(const char *model_type) {
    for (size_t i = 0; i < ARCH_COUNT; i++) {
        if (strcmp(ARCHS[i].hf_type, model_type) == 0) {
            return &ARCHS[i];
        }
    }
    return NULL;
}

const char *nq_arch_tensor_name(char *buf, nq_spelling spelling, nq_tensor_id id, unsigned block) {
    const char *name = NAMES[id][spelling];
    if (id < NQ_T_ATTN_NORM) {
        snprintf(buf, NQ_TENSOR_NAME, "%s", name);
    } else if (spelling == NQ_SPELL_GGUF) {
        snprintf(buf, NQ_TENSOR_NAME, "blk.%u.%s", block, name);
    } else {
        snprintf(buf, NQ_TENSOR_NAME, "model.layers.%u.%s", block, name);
    }
    return buf;
}

bool nq_arch_ignores(const char *tensor_name) {
    static const char suffix[] = ".rotary_emb.inv_freq";
    size_t len = strlen(tensor_name);
    size_t n = sizeof suffix - 1;
    return (len >= n && strcmp(tensor_name + len - n, suffix) == 0) ||
           strcmp(tensor_name, "rope_freqs.weight") == 0;
}
