/* arch.h - the architectures the runtime runs, as a table.
 *
 * Owns: which tensors a runnable architecture has, and how GGUF and Hugging Face
 * spell their names. Refuses: opening anything. A new architecture of the same
 * shape is a new row here.
 */
#ifndef NQ_MODEL_ARCH_H
#define NQ_MODEL_ARCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Canonical roles of tensors. Those from NQ_T_ATTN_NORM on exist once a block. */
typedef enum nq_tensor_id {
    NQ_T_EMBED,       /* (vocab, dim) */
    NQ_T_OUTPUT_NORM, /* (dim) */
    NQ_T_HEAD,        /* (vocab, dim); absent when tied to the embedding */
    NQ_T_ATTN_NORM,   /* (dim) */
    NQ_T_ATTN_Q,      /* (heads*head_dim, dim) */
    NQ_T_ATTN_K,      /* (heads_kv*head_dim, dim) */
    NQ_T_ATTN_V,      /* (heads_kv*head_dim, dim) */
    NQ_T_ATTN_OUT,    /* (dim, heads*head_dim) */
    NQ_T_FFN_NORM,    /* (dim) */
    NQ_T_FFN_GATE,    /* (ff, dim) */
    NQ_T_FFN_UP,      /* (ff, dim) */
    NQ_T_FFN_DOWN,    /* (dim, ff) */
    NQ_T_COUNT
} nq_tensor_id;

typedef enum nq_spelling { NQ_SPELL_GGUF, NQ_SPELL_HF } nq_spelling;

typedef struct nq_arch {
    const char *name;    /* GGUF's general.architecture */
    const char *hf_type; /* config.json's model_type */
} nq_arch;

/* NULL when the runtime does not run it. */
const nq_arch *nq_arch_find(const char *name);
/* By Hugging Face model_type; NULL when unknown. */
const nq_arch *nq_arch_find_hf(const char *model_type);

/* Longest tensor name the table makes, NUL included. */
#define NQ_TENSOR_NAME 96
/* Writes the name of tensor id of block `block` (ignored for the global ones)
 * into buf of NQ_TENSOR_NAME bytes. Returns buf. */
const char *nq_arch_tensor_name(char *buf, nq_spelling spelling, nq_tensor_id id, unsigned block);
/* Tensors that carry nothing the runtime needs (precomputed rotary tables). */
bool nq_arch_ignores(const char *tensor_name);

#endif
