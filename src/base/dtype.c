/* dtype.c - see dtype.h. Byte sizes are those of ggml's block structs. */
#include "base/dtype.h"

#include <stddef.h>
#include <string.h>

#include "base/mem.h"

#define NO_GGML (-1)

static const nq_dtype_info dtypes[NQ_DTYPE_COUNT] = {
    [NQ_F64] = {"f64", "F64", 28, 1, 8, true},
    [NQ_F32] = {"f32", "F32", 0, 1, 4, true},
    [NQ_F16] = {"f16", "F16", 1, 1, 2, true},
    [NQ_BF16] = {"bf16", "BF16", 30, 1, 2, true},
    [NQ_F8_E4M3] = {"f8_e4m3", "F8_E4M3", NO_GGML, 1, 1, true},
    [NQ_F8_E5M2] = {"f8_e5m2", "F8_E5M2", NO_GGML, 1, 1, true},
    [NQ_I64] = {"i64", "I64", 27, 1, 8, false},
    [NQ_I32] = {"i32", "I32", 26, 1, 4, false},
    [NQ_I16] = {"i16", "I16", 25, 1, 2, false},
    [NQ_I8] = {"i8", "I8", 24, 1, 1, false},
    [NQ_U64] = {"u64", "U64", NO_GGML, 1, 8, false},
    [NQ_U32] = {"u32", "U32", NO_GGML, 1, 4, false},
    [NQ_U16] = {"u16", "U16", NO_GGML, 1, 2, false},
    [NQ_U8] = {"u8", "U8", NO_GGML, 1, 1, false},
    [NQ_BOOL] = {"bool", "BOOL", NO_GGML, 1, 1, false},
    [NQ_Q4_0] = {"q4_0", NULL, 2, 32, 18, true},
    [NQ_Q4_1] = {"q4_1", NULL, 3, 32, 20, true},
    [NQ_Q5_0] = {"q5_0", NULL, 6, 32, 22, true},
    [NQ_Q5_1] = {"q5_1", NULL, 7, 32, 24, true},
    [NQ_Q8_0] = {"q8_0", NULL, 8, 32, 34, true},
    [NQ_Q8_1] = {"q8_1", NULL, 9, 32, 36, true},
    [NQ_Q2_K] = {"q2_k", NULL, 10, 256, 84, true},
    [NQ_Q3_K] = {"q3_k", NULL, 11, 256, 110, true},
    [NQ_Q4_K] = {"q4_k", NULL, 12, 256, 144, true},
    [NQ_Q5_K] = {"q5_k", NULL, 13, 256, 176, true},
    [NQ_Q6_K] = {"q6_k", NULL, 14, 256, 210, true},
    [NQ_Q8_K] = {"q8_k", NULL, 15, 256, 292, true},
    [NQ_IQ2_XXS] = {"iq2_xxs", NULL, 16, 256, 66, true},
    [NQ_IQ2_XS] = {"iq2_xs", NULL, 17, 256, 74, true},
    [NQ_IQ3_XXS] = {"iq3_xxs", NULL, 18, 256, 98, true},
    [NQ_IQ1_S] = {"iq1_s", NULL, 19, 256, 50, true},
    [NQ_IQ4_NL] = {"iq4_nl", NULL, 20, 32, 18, true},
    [NQ_IQ3_S] = {"iq3_s", NULL, 21, 256, 110, true},
    [NQ_IQ2_S] = {"iq2_s", NULL, 22, 256, 82, true},
    [NQ_IQ4_XS] = {"iq4_xs", NULL, 23, 256, 136, true},
    [NQ_IQ1_M] = {"iq1_m", NULL, 29, 256, 56, true},
    [NQ_TQ1_0] = {"tq1_0", NULL, 34, 256, 54, true},
    [NQ_TQ2_0] = {"tq2_0", NULL, 35, 256, 66, true},
    [NQ_MXFP4] = {"mxfp4", NULL, 39, 32, 17, true},
    [NQ_NVFP4] = {"nvfp4", NULL, 40, 64, 36, true},
    [NQ_Q1_0] = {"q1_0", NULL, 41, 128, 18, true},
    [NQ_Q2_0] = {"q2_0", NULL, 42, 64, 18, true},
};

static bool valid(nq_dtype t) { return (unsigned)t < NQ_DTYPE_COUNT; }

const nq_dtype_info *nq_dtype_get(nq_dtype t) { return valid(t) ? &dtypes[t] : NULL; }

bool nq_dtype_from_name(nq_dtype *out, const char *name) {
    for (unsigned i = 0; i < NQ_DTYPE_COUNT; i++) {
        if (strcmp(dtypes[i].name, name) == 0) {
            *out = (nq_dtype)i;
            return true;
        }
    }
    return false;
}

bool nq_dtype_from_safetensors(nq_dtype *out, const char *name) {
    for (unsigned i = 0; i < NQ_DTYPE_COUNT; i++) {
        if (dtypes[i].safetensors != NULL && strcmp(dtypes[i].safetensors, name) == 0) {
            *out = (nq_dtype)i;
            return true;
        }
    }
    return false;
}

bool nq_dtype_from_ggml(nq_dtype *out, uint32_t ggml) {
    for (unsigned i = 0; i < NQ_DTYPE_COUNT; i++) {
        if (dtypes[i].ggml >= 0 && (uint32_t)dtypes[i].ggml == ggml) {
            *out = (nq_dtype)i;
            return true;
        }
    }
    return false;
}

bool nq_dtype_bytes(nq_dtype t, uint64_t elements, uint64_t row, uint64_t *bytes) {
    *bytes = 0;
    if (!valid(t)) {
        return false;
    }
    if (elements == 0) {
        return true;
    }
    if (row == 0 || row % dtypes[t].block != 0 || elements % row != 0) {
        return false;
    }
    return nq_mul_u64(elements / dtypes[t].block, dtypes[t].bytes, bytes);
}
