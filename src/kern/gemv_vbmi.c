/* gemv_vbmi.c - products with coded weights on AVX-512 with VNNI and VBMI.
 * Compiled with those flags; reached only through the table.
 *
 * vpermb looks at six bits of an index only: with the 16 entries of a table four
 * times in a register, what lies above a nibble needs no mask; and two levels of
 * 8 entries are one table of 64. Matrices with a table per unit have no such
 * registers: they go to gemv_vnni.c. */
#if defined(__x86_64__)
#include <immintrin.h>

#include "kern/gemv_x86.h"

#define a_dot(acc, w, x)      _mm512_dpbusd_epi32(acc, w, x)
#define a_dot_wide(acc, w, x) a_dot(acc, w, x)
#define G_ROWS                4
#define G_TOKENS              4
#define PAIRS
#define v_pair_lookup(t, i) _mm512_permutexvar_epi8(i, t)

#undef v_low4
#undef v_high4
#undef v_lookup
#define v_low4(v)      (v)
#define v_high4(v)     _mm512_srli_epi16(v, 4)
#define v_lookup(t, i) _mm512_permutexvar_epi8(i, t)

#include "kern/gemv_body.h"

#include "kern/gemm_body.h"
#include "kern/gemv_fields.h"

PRODUCTS(4)
PRODUCTS(2)
PRODUCTS(5)

static bool one_table(const nq_codes *c) {
    return c->table_plane == NQ_PLANE_ALIGN && (c->bits != 3 || c->pairs != NULL);
}

static void gemv(int32_t *y, const nq_codes *c, uint64_t row0, uint64_t count, const int8_t *x) {
    product_fn fn = !one_table(c)  ? nq_gemv_vnni.gemv
                    : c->bits == 4 ? choose4(c)
                    : c->bits == 3 ? choose5(c)
                                   : choose2(c);
    fn(y, c, row0, count, x);
}

static void decode(uint8_t *out, const nq_codes *c, uint64_t row0, uint64_t count) {
    (!one_table(c)  ? nq_gemv_vnni.decode
     : c->bits == 4 ? decode4
     : c->bits == 3 ? decode5
                    : decode2)(out, c, row0, count);
}

const nq_gemv_kern nq_gemv_vbmi = {"avx512vbmi", false,      false,   gemv,     decode,  gemm_bytes,
                                   gemv_i8,      dot_fields, dot_f16, dot_bf16, dot_q8_0};
#else
typedef int nq_gemv_vbmi_is_for_x86;
#endif
