/* cpu.c - see cpu.h. */
#include "base/cpu.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static unsigned detect(void) {
    unsigned f = 0;
#if defined(__x86_64__)
    /* __builtin_cpu_supports() includes the XGETBV check of the OS. */
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        f |= NQ_CPU_AVX2;
        if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
            __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq")) {
            f |= NQ_CPU_AVX512;
            if (__builtin_cpu_supports("avx512vnni")) {
                f |= NQ_CPU_VNNI;
            }
        }
    }
#elif defined(__aarch64__)
    f |= NQ_CPU_NEON; /* mandatory in AArch64 */
#endif
    return f;
}

unsigned nq_cpu_features(void) {
    unsigned f = detect();
    const char *mask = getenv("NOVAQ_CPU");
    if (mask == NULL || mask[0] == '\0') {
        return f;
    }
    if (strcmp(mask, "scalar") == 0) {
        return 0;
    }
    if (strcmp(mask, "avx2") == 0) {
        return f & NQ_CPU_AVX2;
    }
    return f;
}

const char *nq_cpu_level_name(unsigned features) {
    if ((features & NQ_CPU_AVX512) != 0) {
        return "avx512";
    }
    if ((features & NQ_CPU_AVX2) != 0) {
        return "avx2";
    }
    return (features & NQ_CPU_NEON) != 0 ? "neon" : "scalar";
}

unsigned nq_cpu_count(void) {
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n < 1 ? 1 : (unsigned)n;
}
