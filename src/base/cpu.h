/* cpu.h - what this CPU and operating system can run.
 *
 * Owns: detection (including that the OS saves the registers) and the mask in
 * the environment variable NOVAQ_CPU ("scalar", "avx2", "avx512", "neon"; the
 * named level is the highest one used). Refuses: choosing kernels; see kern/.
 */
#ifndef NQ_BASE_CPU_H
#define NQ_BASE_CPU_H

enum {
    NQ_CPU_AVX2 = 1 << 0,   /* with FMA and F16C */
    NQ_CPU_AVX512 = 1 << 1, /* F, BW, VL, DQ */
    NQ_CPU_VNNI = 1 << 2,   /* AVX-512 VNNI */
    NQ_CPU_NEON = 1 << 3
};

/* Bits of NQ_CPU_*, after the NOVAQ_CPU mask. */
unsigned nq_cpu_features(void);
/* The highest level in use: "avx512", "avx2", "neon" or "scalar". */
const char *nq_cpu_level_name(unsigned features);
/* Online processors, at least 1. */
unsigned nq_cpu_count(void);

#endif
