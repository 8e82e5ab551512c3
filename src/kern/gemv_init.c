/* gemv_init.c - chooses the table of products at run time. */
#include "base/cpu.h"
#include "kern/gemv.h"

const nq_gemv_kern *nq_gemv_for(unsigned features) {
#if defined(__x86_64__)
    const unsigned vnni = NQ_CPU_AVX512 | NQ_CPU_VNNI;
    if ((features & (vnni | NQ_CPU_VBMI)) == (vnni | NQ_CPU_VBMI)) {
        return &nq_gemv_vbmi;
    }
    if ((features & vnni) == vnni) {
        return &nq_gemv_vnni;
    }
    if ((features & NQ_CPU_AVX512) != 0) {
        return &nq_gemv_avx512;
    }
    if ((features & NQ_CPU_AVX2) != 0) {
        return &nq_gemv_avx2;
    }
#elif defined(__aarch64__)
    if ((features & NQ_CPU_DOTPROD) != 0) {
        return &nq_gemv_dotprod;
    }
    if ((features & NQ_CPU_NEON) != 0) {
        return &nq_gemv_neon;
    }
#else
    (void)features;
#endif
    return &nq_gemv_scalar;
}
