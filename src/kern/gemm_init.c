/* gemm_init.c - chooses a function of gemm.h at run time. */
#include "kern/gemm.h"

#include <stddef.h>

#include "base/cpu.h"

const nq_gemm16 *nq_gemm16_for(unsigned features) {
#if defined(__x86_64__)
    if ((features & NQ_CPU_BF16) != 0) {
        return &nq_gemm16_avx512bf16;
    }
#else
    (void)features;
#endif
    return NULL;
}
