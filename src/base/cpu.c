/* cpu.c - see cpu.h. */
#include "base/cpu.h"

#include <sched.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#if defined(__x86_64__) && defined(__clang__)
#include <cpuid.h>
#elif defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

/* Named levels, each with all it may use, in rising order on one kind of CPU. */
static const struct {
    const char *name;
    unsigned features;
} LEVELS[] = {
    {"scalar", 0},
    {"avx2", NQ_CPU_AVX2},
    {"avx512", NQ_CPU_AVX2 | NQ_CPU_AVX512},
    {"avx512vnni", NQ_CPU_AVX2 | NQ_CPU_AVX512 | NQ_CPU_VNNI},
    {"avx512vbmi", NQ_CPU_AVX2 | NQ_CPU_AVX512 | NQ_CPU_VNNI | NQ_CPU_VBMI},
    {"neon", NQ_CPU_NEON},
    {"dotprod", NQ_CPU_NEON | NQ_CPU_DOTPROD},
};

#if defined(__x86_64__)
static bool has_f16c(void) {
#if defined(__clang__)
    /* Clang 14 has no name for it. Slow in virtual machines, so only there. */
    unsigned a = 0;
    unsigned b = 0;
    unsigned c = 0;
    unsigned d = 0;
    return __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0;
#else
    return __builtin_cpu_supports("f16c");
#endif
}
#endif

static unsigned detect(void) {
    unsigned f = 0;
#if defined(__x86_64__)
    /* __builtin_cpu_supports() includes the XGETBV check of the OS. */
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c()) {
        f |= NQ_CPU_AVX2;
        if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
            __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq")) {
            f |= NQ_CPU_AVX512;
            if (__builtin_cpu_supports("avx512vnni")) {
                f |= NQ_CPU_VNNI;
            }
            if (__builtin_cpu_supports("avx512vbmi")) {
                f |= NQ_CPU_VBMI;
            }
            if (__builtin_cpu_supports("avx512bf16")) {
                f |= NQ_CPU_BF16;
            }
        }
    }
#elif defined(__aarch64__)
    f |= NQ_CPU_NEON; /* mandatory in AArch64 */
    if ((getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0) {
        f |= NQ_CPU_DOTPROD;
    }
#endif
    return f;
}

bool nq_cpu_is_name(const char *name) {
    for (size_t i = 0; i < sizeof LEVELS / sizeof LEVELS[0]; i++) {
        if (strcmp(name, LEVELS[i].name) == 0) {
            return true;
        }
    }
    return false;
}

unsigned nq_cpu_features(void) {
    unsigned f = detect();
    const char *mask = getenv("NOVAQ_CPU");
    if (mask == NULL || mask[0] == '\0') {
        return f;
    }
    for (size_t i = 0; i < sizeof LEVELS / sizeof LEVELS[0]; i++) {
        if (strcmp(mask, LEVELS[i].name) == 0) {
            return f & LEVELS[i].features;
        }
    }
    return f;
}

_Static_assert(sizeof LEVELS / sizeof LEVELS[0] <= NQ_CPU_LEVELS, "room for all levels");

unsigned nq_cpu_levels(unsigned out[NQ_CPU_LEVELS]) {
    unsigned have = nq_cpu_features();
    unsigned n = 0;
    for (size_t i = 0; i < sizeof LEVELS / sizeof LEVELS[0]; i++) {
        if ((have & LEVELS[i].features) == LEVELS[i].features) {
            out[n++] = LEVELS[i].features;
        }
    }
    return n;
}

const char *nq_cpu_level_name(unsigned features) {
    const char *name = LEVELS[0].name;
    for (size_t i = 0; i < sizeof LEVELS / sizeof LEVELS[0]; i++) {
        if ((features & LEVELS[i].features) == LEVELS[i].features) {
            name = LEVELS[i].name;
        }
    }
    return name;
}

unsigned nq_cpu_count(void) {
    cpu_set_t mine; /* not those of the machine: taskset and containers give fewer */
    if (sched_getaffinity(0, sizeof mine, &mine) == 0 && CPU_COUNT(&mine) > 0) {
        return (unsigned)CPU_COUNT(&mine);
    }
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n < 1 ? 1 : (unsigned)n;
}
