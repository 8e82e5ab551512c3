/* dtype.h - every element type a source file may hold.
 *
 * Owns: names, block sizes and byte sizes of the SafeTensors dtypes and of all
 * ggml tensor types (ggml.h, enum ggml_type). Refuses: converting; half.h and
 * format/dequant.h do.
 */
#ifndef NQ_BASE_DTYPE_H
#define NQ_BASE_DTYPE_H

#include <stdbool.h>
#include <stdint.h>

typedef enum nq_dtype {
    NQ_F64,
    NQ_F32,
    NQ_F16,
    NQ_BF16,
    NQ_F8_E4M3,
    NQ_F8_E5M2,
    NQ_I64,
    NQ_I32,
    NQ_I16,
    NQ_I8,
    NQ_U64,
    NQ_U32,
    NQ_U16,
    NQ_U8,
    NQ_BOOL,
    NQ_Q4_0,
    NQ_Q4_1,
    NQ_Q5_0,
    NQ_Q5_1,
    NQ_Q8_0,
    NQ_Q8_1,
    NQ_Q2_K,
    NQ_Q3_K,
    NQ_Q4_K,
    NQ_Q5_K,
    NQ_Q6_K,
    NQ_Q8_K,
    NQ_IQ2_XXS,
    NQ_IQ2_XS,
    NQ_IQ3_XXS,
    NQ_IQ1_S,
    NQ_IQ4_NL,
    NQ_IQ3_S,
    NQ_IQ2_S,
    NQ_IQ4_XS,
    NQ_IQ1_M,
    NQ_TQ1_0,
    NQ_TQ2_0,
    NQ_MXFP4,
    NQ_NVFP4,
    NQ_Q1_0,
    NQ_Q2_0,
    NQ_DTYPE_COUNT
} nq_dtype;

typedef struct nq_dtype_info {
    const char *name;        /* lower case, as manifests write it: "bf16", "q4_k" */
    const char *safetensors; /* "BF16", or NULL */
    int ggml;                /* ggml_type number, or -1 */
    uint32_t block;          /* elements per block, 1 for plain types */
    uint32_t bytes;          /* bytes per block */
    bool is_float;           /* real-valued weights (quantized ggml types included) */
} nq_dtype_info;

/* Never NULL for a valid dtype. */
const nq_dtype_info *nq_dtype_get(nq_dtype t);
/* false when unknown. */
bool nq_dtype_from_name(nq_dtype *out, const char *name);
bool nq_dtype_from_safetensors(nq_dtype *out, const char *name);
bool nq_dtype_from_ggml(nq_dtype *out, uint32_t ggml);
/* Bytes of `elements` elements in rows of `row` elements; false (and 0) on
 * overflow, when a row is not a whole number of blocks or the elements are not a
 * whole number of rows. No elements take no bytes, whatever the row. */
bool nq_dtype_bytes(nq_dtype t, uint64_t elements, uint64_t row, uint64_t *bytes);

#endif
