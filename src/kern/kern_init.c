/* kern_init.c - chooses a table at run time. */
#include "base/cpu.h"
#include "kern/kern.h"

const nq_kern *nq_kern_for(unsigned features) {
#if defined(__x86_64__)
    if ((features & NQ_CPU_AVX512) != 0) {
        return &nq_kern_avx512;
    }
    if ((features & NQ_CPU_AVX2) != 0) {
        return &nq_kern_avx2;
    }
#elif defined(__aarch64__)
    if ((features & NQ_CPU_NEON) != 0) {
        return &nq_kern_neon;
    }
#else
    (void)features;
#endif
    return &nq_kern_scalar;
}

const nq_kern *nq_kern_best(void) { return nq_kern_for(nq_cpu_features()); }
