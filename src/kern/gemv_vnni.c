/* gemv_vnni.c - products with coded weights on AVX-512 with VNNI. Compiled with
 * those flags; reached only through the table. */
#if defined(__x86_64__)
#include <immintrin.h>

#include "kern/gemv_x86.h"

#define a_dot(acc, w, x)      _mm512_dpbusd_epi32(acc, w, x)
#define a_dot_wide(acc, w, x) a_dot(acc, w, x)
#define G_ROWS                4
#define G_TOKENS              4

#include "kern/gemv_body.h"

#include "kern/gemm_body.h"
#include "kern/gemv_fields.h"

PRODUCTS(4)
PRODUCTS(3)
PRODUCTS(2)
ENTRIES

const nq_gemv_kern nq_gemv_vnni = {"avx512vnni", false,      false,   gemv,     decode,  gemm_bytes,
                                   gemv_i8,      dot_fields, dot_f16, dot_bf16, dot_q8_0};
#else
typedef int nq_gemv_vnni_is_for_x86;
#endif
