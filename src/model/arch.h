/* arch.h - the architectures the runtime runs, as a table.
 *
 * Owns: which tensors a runnable architecture has, how GGUF and Hugging Face
 * spell their names, and what about its arithmetic is fixed by its name.
 * Refuses: opening anything; numbers (see hyper.h). A new architecture made of
 * the same parts is a new row here.
 */
#ifndef NQ_MODEL_ARCH_H
#define NQ_MODEL_ARCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Canonical roles of tensors. Those from NQ_T_ATTN_NORM on exist once a block,
 * those from NQ_T_EXPERT_GATE on once an expert of a block. "wide" is
 * heads*head_dim, "kv" heads_kv*head_dim. */
typedef enum nq_tensor_id {
    NQ_T_EMBED,            /* (vocab, dim) */
    NQ_T_POSITIONS,        /* (context, dim): added to the embedding */
    NQ_T_OUTPUT_NORM,      /* (dim) */
    NQ_T_OUTPUT_NORM_BIAS, /* (dim) */
    NQ_T_HEAD,             /* (vocab, dim); absent when tied to the embedding */
    NQ_T_ATTN_NORM,        /* (dim) */
    NQ_T_ATTN_NORM_BIAS,   /* (dim) */
    NQ_T_ATTN_Q,           /* (wide, dim) */
    NQ_T_ATTN_K,           /* (kv, dim) */
    NQ_T_ATTN_V,           /* (kv, dim) */
    NQ_T_ATTN_QKV,         /* (wide + 2 kv, dim): instead of the three */
    NQ_T_ATTN_Q_BIAS,      /* (wide) */
    NQ_T_ATTN_K_BIAS,      /* (kv) */
    NQ_T_ATTN_V_BIAS,      /* (kv) */
    NQ_T_ATTN_QKV_BIAS,    /* (wide + 2 kv): instead of the three */
    NQ_T_ATTN_Q_NORM,      /* (head_dim) */
    NQ_T_ATTN_K_NORM,      /* (head_dim) */
    NQ_T_ATTN_OUT,         /* (dim, wide) */
    NQ_T_ATTN_OUT_BIAS,    /* (dim) */
    NQ_T_ATTN_POST_NORM,   /* (dim): of the attention's output, before it is added */
    NQ_T_FFN_NORM,         /* (dim) */
    NQ_T_FFN_NORM_BIAS,    /* (dim) */
    NQ_T_FFN_GATE,         /* (ff, dim) */
    NQ_T_FFN_UP,           /* (ff, dim) */
    NQ_T_FFN_GATE_UP,      /* (2 ff, dim): instead of the two */
    NQ_T_FFN_DOWN,         /* (dim, ff) */
    NQ_T_FFN_GATE_BIAS,    /* (ff) */
    NQ_T_FFN_UP_BIAS,      /* (ff) */
    NQ_T_FFN_DOWN_BIAS,    /* (dim) */
    NQ_T_FFN_POST_NORM,    /* (dim): of the feed-forward's output, before it is added */
    NQ_T_ROUTER,           /* (experts, dim) */
    NQ_T_EXPERTS_GATE,     /* (experts, ff, dim) */
    NQ_T_EXPERTS_UP,       /* (experts, ff, dim) */
    NQ_T_EXPERTS_GATE_UP,  /* (experts, 2 ff, dim): instead of the two */
    NQ_T_EXPERTS_DOWN,     /* (experts, dim, ff) */
    NQ_T_EXPERT_GATE,      /* (ff, dim) */
    NQ_T_EXPERT_UP,        /* (ff, dim) */
    NQ_T_EXPERT_DOWN,      /* (dim, ff) */
    NQ_T_COUNT
} nq_tensor_id;

typedef enum nq_spelling { NQ_SPELL_GGUF, NQ_SPELL_HF } nq_spelling;
typedef enum nq_norm_kind { NQ_NORM_RMS, NQ_NORM_LAYER } nq_norm_kind;
typedef enum nq_activation { NQ_ACT_SILU, NQ_ACT_GELU_TANH } nq_activation;

/* A name in both spellings; '#' stands for the block, '@' for the expert. */
typedef struct nq_tensor_name {
    nq_tensor_id id;
    const char *gguf, *hf; /* NULL where a format has none */
} nq_tensor_name;

typedef struct nq_arch {
    const char *name; /* GGUF's general.architecture */
    nq_norm_kind norm;
    nq_activation activation;
    bool gated;                  /* activation(gate) * up; else activation(up) */
    bool interleaved;            /* GGUF orders query and key rows for pairs (2i, 2i+1) */
    bool rotary;                 /* heads are turned; else positions are learned */
    bool scaled_embedding;       /* embeddings are multiplied by sqrt(dim) */
    bool gains_from_one;         /* Hugging Face stores the gains of norms minus one */
    uint64_t needs;              /* bit per nq_tensor_id beyond those all have */
    uint64_t may;                /* used where present */
    const nq_tensor_name *names; /* that differ from the usual; ends with gguf and hf NULL */
} nq_arch;

/* Which blocks of a Hugging Face model attend within a window only. */
typedef enum nq_window_rule {
    NQ_WINDOW_NONE,
    NQ_WINDOW_ALL,
    NQ_WINDOW_EVERY_2ND,  /* all but each second block */
    NQ_WINDOW_EVERY_NTH,  /* all but each sliding_window_pattern-th */
    NQ_WINDOW_SWITCHED,   /* all, when use_sliding_window says so */
    NQ_WINDOW_SWITCHED_UP /* those from max_window_layers on, when it says so */
} nq_window_rule;

typedef struct nq_hf_type {
    const char *model_type; /* of config.json */
    const nq_arch *arch;
    nq_window_rule window;
} nq_hf_type;

static inline uint64_t nq_tensor_bit(nq_tensor_id id) { return (uint64_t)1 << id; }

/* NULL when the runtime does not run it. */
const nq_arch *nq_arch_find(const char *name);
/* By Hugging Face model_type; NULL when unknown. */
const nq_hf_type *nq_arch_find_hf(const char *model_type);

/* Longest tensor name the table makes, NUL included. */
#define NQ_TENSOR_NAME 96
/* Writes the name of tensor id of block `block` and expert `expert` (ignored where
 * there are none) into buf of NQ_TENSOR_NAME bytes; which: 0 for the first of the
 * names it may have. Returns buf, or NULL when there are no more. */
const char *nq_arch_tensor_name(char *buf, const nq_arch *arch, nq_spelling spelling,
                                nq_tensor_id id, unsigned block, unsigned expert, unsigned which);
/* Tensors outside the table that a model may have: precomputed rotary tables,
 * causal masks, divisors of angles. */
bool nq_arch_ignores(const char *tensor_name);
/* Matrices that Hugging Face stores as (inputs, outputs): GPT-2's Conv1D. */
bool nq_arch_transposed(const char *model_type, const char *tensor_name);

#endif
