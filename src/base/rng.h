/* rng.h - random numbers as a hash of (seed, stream, index).
 *
 * Owns: reproducibility. There is no generator state to share between threads:
 * the same triple gives the same bits on every machine. Refuses: the clock.
 */
#ifndef NQ_BASE_RNG_H
#define NQ_BASE_RNG_H

#include <stdint.h>

/* 64 well-mixed bits of the triple (two rounds of the splitmix64 finaliser,
 * Steele, Lea & Flood 2014). */
uint64_t nq_hash3(uint64_t seed, uint64_t stream, uint64_t index);
/* Uniform in [0, 1), 53 bits. */
double nq_uniform(uint64_t seed, uint64_t stream, uint64_t index);
/* Standard normal by the polar method (Marsaglia & Bray 1964), bit-identical on
 * every machine. */
double nq_normal(uint64_t seed, uint64_t stream, uint64_t index);
/* A stream number from a name (FNV-1a), so that each tensor has its own. */
uint64_t nq_stream(const char *name);

#endif
