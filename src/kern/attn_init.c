/* attn_init.c - chooses a table of attn.h at run time. */
#include "base/cpu.h"
#include "kern/attn.h"

const nq_attn_kern *nq_attn_for(unsigned features) {
#if defined(__x86_64__)
    if ((features & NQ_CPU_AVX512) != 0) {
        return &nq_attn_avx512;
    }
    if ((features & NQ_CPU_AVX2) != 0) {
        return &nq_attn_avx2;
    }
#elif defined(__aarch64__)
    if ((features & NQ_CPU_NEON) != 0) {
        return &nq_attn_neon;
    }
#else
    (void)features;
#endif
    return &nq_attn_scalar;
}

const nq_attn_kern *nq_attn_best(void) { return nq_attn_for(nq_cpu_features()); }
