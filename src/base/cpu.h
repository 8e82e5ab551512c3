/* cpu.h - what this CPU and operating system can run.
 *
 * Owns: detection (including that the OS saves the registers) and the mask in
 * the environment variable NOVAQ_CPU ("scalar", "avx2", "avx512", "avx512vnni",
 * "avx512vbmi", "neon", "dotprod"; the named level is the highest one used). Refuses: choosing
 * kernels; see kern/.
 */
#ifndef NQ_BASE_CPU_H
#define NQ_BASE_CPU_H

#include <stdbool.h>

enum {
    NQ_CPU_AVX2 = 1 << 0,   /* with FMA and F16C */
    NQ_CPU_AVX512 = 1 << 1, /* F, BW, VL, DQ */
    NQ_CPU_VNNI = 1 << 2,   /* AVX-512 VNNI */
    NQ_CPU_NEON = 1 << 3,
    NQ_CPU_VBMI = 1 << 4,    /* AVX-512 VBMI */
    NQ_CPU_DOTPROD = 1 << 5, /* Armv8.2 dot products */
    NQ_CPU_BF16 = 1 << 6     /* AVX-512 BF16; of no named level: only without NOVAQ_CPU */
};

/* Loops compiled for wider registers besides, chosen when the program is loaded. As
 * nothing is contracted the results are the same bit for bit, so that NOVAQ_CPU need
 * not matter. Sanitizers do not bear functions that are chosen that early. */
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) &&                             \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define NQ_CPU_CLONES __attribute__((target_clones("default", "avx2", "avx512f")))
#else
#define NQ_CPU_CLONES
#endif

/* What NOVAQ_CPU may be. Anything else changes nothing, but the program says so. */
#define NQ_CPU_NAMES "scalar, avx2, avx512, avx512vnni, avx512vbmi, neon, dotprod"
bool nq_cpu_is_name(const char *name);
/* Bits of NQ_CPU_*, after the NOVAQ_CPU mask. */
unsigned nq_cpu_features(void);
/* The bits of each named level that nq_cpu_features() allows, rising, nothing first;
 * returns how many. For what tries every variant of something. */
#define NQ_CPU_LEVELS 8
unsigned nq_cpu_levels(unsigned out[NQ_CPU_LEVELS]);
/* The highest level in use, by the names of NOVAQ_CPU. */
const char *nq_cpu_level_name(unsigned features);
/* Processors this process may run on, at least 1. */
unsigned nq_cpu_count(void);

#endif
