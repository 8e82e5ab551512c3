/* dequant.c - see dequant.h. Owns the table from type to decoder. */
#include "format/dequant.h"

#include <stddef.h>

#include "format/dequant_impl.h"

/* Exactly one of the two is set. */
typedef struct decoder {
    nq_plain_fn *plain;
    nq_block_fn *block;
} decoder;

static const decoder decoders[NQ_DTYPE_COUNT] = {
    [NQ_F64] = {.plain = nq_deq_f64},         [NQ_F32] = {.plain = nq_deq_f32},
    [NQ_F16] = {.plain = nq_deq_f16},         [NQ_BF16] = {.plain = nq_deq_bf16},
    [NQ_F8_E4M3] = {.plain = nq_deq_f8_e4m3}, [NQ_F8_E5M2] = {.plain = nq_deq_f8_e5m2},
    [NQ_I64] = {.plain = nq_deq_i64},         [NQ_I32] = {.plain = nq_deq_i32},
    [NQ_I16] = {.plain = nq_deq_i16},         [NQ_I8] = {.plain = nq_deq_i8},
    [NQ_U64] = {.plain = nq_deq_u64},         [NQ_U32] = {.plain = nq_deq_u32},
    [NQ_U16] = {.plain = nq_deq_u16},         [NQ_U8] = {.plain = nq_deq_u8},
    [NQ_BOOL] = {.plain = nq_deq_bool},       [NQ_Q4_0] = {.block = nq_deq_q4_0},
    [NQ_Q4_1] = {.block = nq_deq_q4_1},       [NQ_Q5_0] = {.block = nq_deq_q5_0},
    [NQ_Q5_1] = {.block = nq_deq_q5_1},       [NQ_Q8_0] = {.block = nq_deq_q8_0},
    [NQ_Q8_1] = {.block = nq_deq_q8_1},       [NQ_Q2_K] = {.block = nq_deq_q2_k},
    [NQ_Q3_K] = {.block = nq_deq_q3_k},       [NQ_Q4_K] = {.block = nq_deq_q4_k},
    [NQ_Q5_K] = {.block = nq_deq_q5_k},       [NQ_Q6_K] = {.block = nq_deq_q6_k},
    [NQ_Q8_K] = {.block = nq_deq_q8_k},       [NQ_IQ2_XXS] = {.block = nq_deq_iq2_xxs},
    [NQ_IQ2_XS] = {.block = nq_deq_iq2_xs},   [NQ_IQ3_XXS] = {.block = nq_deq_iq3_xxs},
    [NQ_IQ1_S] = {.block = nq_deq_iq1_s},     [NQ_IQ4_NL] = {.block = nq_deq_iq4_nl},
    [NQ_IQ3_S] = {.block = nq_deq_iq3_s},     [NQ_IQ2_S] = {.block = nq_deq_iq2_s},
    [NQ_IQ4_XS] = {.block = nq_deq_iq4_xs},   [NQ_IQ1_M] = {.block = nq_deq_iq1_m},
    [NQ_TQ1_0] = {.block = nq_deq_tq1_0},     [NQ_TQ2_0] = {.block = nq_deq_tq2_0},
    [NQ_MXFP4] = {.block = nq_deq_mxfp4},     [NQ_NVFP4] = {.block = nq_deq_nvfp4},
    [NQ_Q1_0] = {.block = nq_deq_q1_0},       [NQ_Q2_0] = {.block = nq_deq_q2_0},
};

void nq_dequantize(float *out, nq_dtype type, const void *src, uint64_t n) {
    const decoder *d = &decoders[type];
    if (d->plain != NULL) {
        d->plain(out, src, n);
        return;
    }
    const nq_dtype_info *info = nq_dtype_get(type);
    const uint8_t *b = src;
    for (uint64_t i = 0; i < n; i += info->block, b += info->bytes) {
        d->block(out + i, b);
    }
}
