/* arch.c - see arch.h. Names and facts are those of the GGUF specification,
 * llama.cpp and transformers. */
#include "model/arch.h"
#include "base/text.h"

#include <stdio.h>
#include <string.h>

#define BIT(id) ((uint64_t)1 << NQ_T_##id)

/* ---- names ------------------------------------------------------------------- */

static const nq_tensor_name USUAL[] = {
    {NQ_T_EMBED, "token_embd.weight", "model.embed_tokens.weight"},
    {NQ_T_POSITIONS, "position_embd.weight", NULL},
    {NQ_T_OUTPUT_NORM, "output_norm.weight", "model.norm.weight"},
    {NQ_T_OUTPUT_NORM_BIAS, "output_norm.bias", NULL},
    {NQ_T_HEAD, "output.weight", "lm_head.weight"},
    {NQ_T_ATTN_NORM, "blk.#.attn_norm.weight", "model.layers.#.input_layernorm.weight"},
    {NQ_T_ATTN_NORM_BIAS, "blk.#.attn_norm.bias", NULL},
    {NQ_T_ATTN_Q, "blk.#.attn_q.weight", "model.layers.#.self_attn.q_proj.weight"},
    {NQ_T_ATTN_K, "blk.#.attn_k.weight", "model.layers.#.self_attn.k_proj.weight"},
    {NQ_T_ATTN_V, "blk.#.attn_v.weight", "model.layers.#.self_attn.v_proj.weight"},
    {NQ_T_ATTN_QKV, "blk.#.attn_qkv.weight", "model.layers.#.self_attn.qkv_proj.weight"},
    {NQ_T_ATTN_Q_BIAS, "blk.#.attn_q.bias", "model.layers.#.self_attn.q_proj.bias"},
    {NQ_T_ATTN_K_BIAS, "blk.#.attn_k.bias", "model.layers.#.self_attn.k_proj.bias"},
    {NQ_T_ATTN_V_BIAS, "blk.#.attn_v.bias", "model.layers.#.self_attn.v_proj.bias"},
    {NQ_T_ATTN_QKV_BIAS, "blk.#.attn_qkv.bias", "model.layers.#.self_attn.qkv_proj.bias"},
    {NQ_T_ATTN_Q_NORM, "blk.#.attn_q_norm.weight", "model.layers.#.self_attn.q_norm.weight"},
    {NQ_T_ATTN_K_NORM, "blk.#.attn_k_norm.weight", "model.layers.#.self_attn.k_norm.weight"},
    {NQ_T_ATTN_OUT, "blk.#.attn_output.weight", "model.layers.#.self_attn.o_proj.weight"},
    {NQ_T_ATTN_OUT_BIAS, "blk.#.attn_output.bias", "model.layers.#.self_attn.o_proj.bias"},
    {NQ_T_ATTN_POST_NORM, "blk.#.post_attention_norm.weight", NULL},
    {NQ_T_FFN_NORM, "blk.#.ffn_norm.weight", "model.layers.#.post_attention_layernorm.weight"},
    {NQ_T_FFN_NORM_BIAS, "blk.#.ffn_norm.bias", NULL},
    {NQ_T_FFN_GATE, "blk.#.ffn_gate.weight", "model.layers.#.mlp.gate_proj.weight"},
    {NQ_T_FFN_UP, "blk.#.ffn_up.weight", "model.layers.#.mlp.up_proj.weight"},
    {NQ_T_FFN_DOWN, "blk.#.ffn_down.weight", "model.layers.#.mlp.down_proj.weight"},
    {NQ_T_FFN_GATE_BIAS, "blk.#.ffn_gate.bias", "model.layers.#.mlp.gate_proj.bias"},
    {NQ_T_FFN_UP_BIAS, "blk.#.ffn_up.bias", "model.layers.#.mlp.up_proj.bias"},
    {NQ_T_FFN_DOWN_BIAS, "blk.#.ffn_down.bias", "model.layers.#.mlp.down_proj.bias"},
    {NQ_T_FFN_POST_NORM, "blk.#.post_ffw_norm.weight", NULL},
    {NQ_T_ROUTER, "blk.#.ffn_gate_inp.weight", "model.layers.#.mlp.gate.weight"},
    {NQ_T_ROUTER, NULL, "model.layers.#.block_sparse_moe.gate.weight"},
    {NQ_T_EXPERTS_GATE, "blk.#.ffn_gate_exps.weight", NULL},
    {NQ_T_EXPERTS_UP, "blk.#.ffn_up_exps.weight", NULL},
    {NQ_T_EXPERTS_GATE_UP, "blk.#.ffn_gate_up_exps.weight",
     "model.layers.#.mlp.experts.gate_up_proj"},
    {NQ_T_EXPERTS_DOWN, "blk.#.ffn_down_exps.weight", "model.layers.#.mlp.experts.down_proj"},
    {NQ_T_EXPERT_GATE, "blk.#.ffn_gate.@.weight", "model.layers.#.mlp.experts.@.gate_proj.weight"},
    {NQ_T_EXPERT_GATE, NULL, "model.layers.#.block_sparse_moe.experts.@.w1.weight"},
    {NQ_T_EXPERT_UP, "blk.#.ffn_up.@.weight", "model.layers.#.mlp.experts.@.up_proj.weight"},
    {NQ_T_EXPERT_UP, NULL, "model.layers.#.block_sparse_moe.experts.@.w3.weight"},
    {NQ_T_EXPERT_DOWN, "blk.#.ffn_down.@.weight", "model.layers.#.mlp.experts.@.down_proj.weight"},
    {NQ_T_EXPERT_DOWN, NULL, "model.layers.#.block_sparse_moe.experts.@.w2.weight"},
    {NQ_T_COUNT, NULL, NULL},
};

static const nq_tensor_name GEMMA[] = {
    {NQ_T_ATTN_POST_NORM, "blk.#.post_attention_norm.weight",
     "model.layers.#.post_attention_layernorm.weight"},
    {NQ_T_FFN_NORM, "blk.#.ffn_norm.weight", "model.layers.#.pre_feedforward_layernorm.weight"},
    {NQ_T_FFN_POST_NORM, "blk.#.post_ffw_norm.weight",
     "model.layers.#.post_feedforward_layernorm.weight"},
    {NQ_T_COUNT, NULL, NULL},
};

/* GGUF files call the fused gate and up projection just "up". */
static const nq_tensor_name PHI3[] = {
    {NQ_T_FFN_GATE_UP, "blk.#.ffn_up.weight", "model.layers.#.mlp.gate_up_proj.weight"},
    {NQ_T_FFN_UP, NULL, NULL},
    {NQ_T_COUNT, NULL, NULL},
};

/* Files of the first release have no "transformer." in front. */
#define GPT2_NAME(id, gguf, hf)                                                                    \
    {id, gguf, "transformer." hf}, { id, NULL, hf }
static const nq_tensor_name GPT2[] = {
    GPT2_NAME(NQ_T_EMBED, "token_embd.weight", "wte.weight"),
    GPT2_NAME(NQ_T_POSITIONS, "position_embd.weight", "wpe.weight"),
    GPT2_NAME(NQ_T_OUTPUT_NORM, "output_norm.weight", "ln_f.weight"),
    GPT2_NAME(NQ_T_OUTPUT_NORM_BIAS, "output_norm.bias", "ln_f.bias"),
    GPT2_NAME(NQ_T_ATTN_NORM, "blk.#.attn_norm.weight", "h.#.ln_1.weight"),
    GPT2_NAME(NQ_T_ATTN_NORM_BIAS, "blk.#.attn_norm.bias", "h.#.ln_1.bias"),
    GPT2_NAME(NQ_T_ATTN_QKV, "blk.#.attn_qkv.weight", "h.#.attn.c_attn.weight"),
    GPT2_NAME(NQ_T_ATTN_QKV_BIAS, "blk.#.attn_qkv.bias", "h.#.attn.c_attn.bias"),
    GPT2_NAME(NQ_T_ATTN_OUT, "blk.#.attn_output.weight", "h.#.attn.c_proj.weight"),
    GPT2_NAME(NQ_T_ATTN_OUT_BIAS, "blk.#.attn_output.bias", "h.#.attn.c_proj.bias"),
    GPT2_NAME(NQ_T_FFN_NORM, "blk.#.ffn_norm.weight", "h.#.ln_2.weight"),
    GPT2_NAME(NQ_T_FFN_NORM_BIAS, "blk.#.ffn_norm.bias", "h.#.ln_2.bias"),
    GPT2_NAME(NQ_T_FFN_UP, "blk.#.ffn_up.weight", "h.#.mlp.c_fc.weight"),
    GPT2_NAME(NQ_T_FFN_UP_BIAS, "blk.#.ffn_up.bias", "h.#.mlp.c_fc.bias"),
    GPT2_NAME(NQ_T_FFN_DOWN, "blk.#.ffn_down.weight", "h.#.mlp.c_proj.weight"),
    GPT2_NAME(NQ_T_FFN_DOWN_BIAS, "blk.#.ffn_down.bias", "h.#.mlp.c_proj.bias"),
    {NQ_T_COUNT, NULL, NULL},
};

/* ---- architectures ------------------------------------------------------------ */

#define QKV_BIASES (BIT(ATTN_Q_BIAS) | BIT(ATTN_K_BIAS) | BIT(ATTN_V_BIAS))
#define ALL_BIASES                                                                                 \
    (QKV_BIASES | BIT(ATTN_OUT_BIAS) | BIT(FFN_GATE_BIAS) | BIT(FFN_UP_BIAS) | BIT(FFN_DOWN_BIAS))
#define QK_NORMS          (BIT(ATTN_Q_NORM) | BIT(ATTN_K_NORM))
#define POST_NORMS        (BIT(ATTN_POST_NORM) | BIT(FFN_POST_NORM))
#define LAYER_NORM_BIASES (BIT(ATTN_NORM_BIAS) | BIT(FFN_NORM_BIAS) | BIT(OUTPUT_NORM_BIAS))

enum { LLAMA, QWEN2, QWEN3, QWEN3MOE, GEMMA2, GEMMA3, PHI3_, GPT2_, ARCHS };

static const nq_arch TABLE[ARCHS] = {
    [LLAMA] =
        {.name = "llama", .gated = true, .interleaved = true, .rotary = true, .may = ALL_BIASES},
    [QWEN2] = {.name = "qwen2", .gated = true, .rotary = true, .needs = QKV_BIASES},
    [QWEN3] = {.name = "qwen3",
               .gated = true,
               .rotary = true,
               .needs = QK_NORMS,
               .may = QKV_BIASES | BIT(ATTN_OUT_BIAS)},
    [QWEN3MOE] = {.name = "qwen3moe",
                  .gated = true,
                  .rotary = true,
                  .needs = QK_NORMS,
                  .may = QKV_BIASES | BIT(ATTN_OUT_BIAS)},
    [GEMMA2] = {.name = "gemma2",
                .activation = NQ_ACT_GELU_TANH,
                .gated = true,
                .rotary = true,
                .scaled_embedding = true,
                .gains_from_one = true,
                .needs = POST_NORMS,
                .names = GEMMA},
    [GEMMA3] = {.name = "gemma3",
                .activation = NQ_ACT_GELU_TANH,
                .gated = true,
                .rotary = true,
                .scaled_embedding = true,
                .gains_from_one = true,
                .needs = POST_NORMS | QK_NORMS,
                .names = GEMMA},
    [PHI3_] = {.name = "phi3", .gated = true, .rotary = true, .names = PHI3},
    [GPT2_] = {.name = "gpt2",
               .norm = NQ_NORM_LAYER,
               .activation = NQ_ACT_GELU_TANH,
               .needs = LAYER_NORM_BIASES | BIT(POSITIONS) | QKV_BIASES | BIT(ATTN_OUT_BIAS) |
                        BIT(FFN_UP_BIAS) | BIT(FFN_DOWN_BIAS),
               .names = GPT2},
};

/* Mistral and Mixtral are llama in all but name; GGUF files call them so. */
static const nq_hf_type HF_TYPES[] = {
    {"llama", &TABLE[LLAMA], NQ_WINDOW_NONE},
    {"mistral", &TABLE[LLAMA], NQ_WINDOW_ALL},
    {"mixtral", &TABLE[LLAMA], NQ_WINDOW_ALL},
    {"qwen2", &TABLE[QWEN2], NQ_WINDOW_SWITCHED_UP},
    {"qwen3", &TABLE[QWEN3], NQ_WINDOW_SWITCHED_UP},
    {"qwen3_moe", &TABLE[QWEN3MOE], NQ_WINDOW_SWITCHED},
    {"gemma2", &TABLE[GEMMA2], NQ_WINDOW_EVERY_2ND},
    {"gemma3_text", &TABLE[GEMMA3], NQ_WINDOW_EVERY_NTH},
    {"phi3", &TABLE[PHI3_], NQ_WINDOW_ALL},
    {"gpt2", &TABLE[GPT2_], NQ_WINDOW_NONE},
};

const nq_arch *nq_arch_find(const char *name) {
    for (size_t i = 0; i < ARCHS; i++) {
        if (strcmp(TABLE[i].name, name) == 0) {
            return &TABLE[i];
        }
    }
    return NULL;
}

const nq_hf_type *nq_arch_find_hf(const char *model_type) {
    for (size_t i = 0; i < sizeof HF_TYPES / sizeof HF_TYPES[0]; i++) {
        if (strcmp(HF_TYPES[i].model_type, model_type) == 0) {
            return &HF_TYPES[i];
        }
    }
    return NULL;
}

/* ---- spelling ------------------------------------------------------------------ */

/* pattern with '#' and '@' replaced; what does not fit is cut. */
static const char *expand(char *buf, const char *pattern, unsigned block, unsigned expert) {
    size_t at = 0;
    for (const char *p = pattern; *p != '\0' && at + 1 < NQ_TENSOR_NAME; p++) {
        if (*p == '#' || *p == '@') {
            int n = snprintf(buf + at, NQ_TENSOR_NAME - at, "%u", *p == '#' ? block : expert);
            at += (size_t)n < NQ_TENSOR_NAME - at ? (size_t)n : NQ_TENSOR_NAME - at - 1;
        } else {
            buf[at++] = *p;
        }
    }
    buf[at] = '\0';
    return buf;
}

static bool lists(const nq_tensor_name *names, nq_tensor_id id) {
    for (; names != NULL && names->id != NQ_T_COUNT; names++) {
        if (names->id == id) {
            return true;
        }
    }
    return false;
}

const char *nq_arch_tensor_name(char *buf, const nq_arch *arch, nq_spelling spelling,
                                nq_tensor_id id, unsigned block, unsigned expert, unsigned which) {
    const nq_tensor_name *n = lists(arch->names, id) ? arch->names : USUAL;
    for (; n->id != NQ_T_COUNT; n++) {
        const char *pattern = spelling == NQ_SPELL_GGUF ? n->gguf : n->hf;
        if (n->id == id && pattern != NULL && which-- == 0) {
            return expand(buf, pattern, block, expert);
        }
    }
    return NULL;
}

bool nq_arch_ignores(const char *tensor_name) {
    static const char *const WHOLE[] = {"rope_freqs.weight", "rope_factors_long.weight",
                                        "rope_factors_short.weight"};
    for (size_t i = 0; i < sizeof WHOLE / sizeof WHOLE[0]; i++) {
        if (strcmp(tensor_name, WHOLE[i]) == 0) {
            return true;
        }
    }
    return nq_ends_with(tensor_name, ".rotary_emb.inv_freq") ||
           nq_ends_with(tensor_name, ".attn.masked_bias") ||
           nq_ends_with(tensor_name, ".attn.bias");
}

bool nq_arch_transposed(const char *model_type, const char *tensor_name) {
    static const char *const CONV1D[] = {".attn.c_attn.weight", ".attn.c_proj.weight",
                                         ".mlp.c_fc.weight", ".mlp.c_proj.weight"};
    bool is = false;
    for (size_t i = 0; i < sizeof CONV1D / sizeof CONV1D[0]; i++) {
        is = is || nq_ends_with(tensor_name, CONV1D[i]);
    }
    return is && strcmp(model_type, "gpt2") == 0;
}
