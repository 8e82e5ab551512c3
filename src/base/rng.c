/* rng.c - see rng.h. */
#include "base/rng.h"

#include <math.h>

static uint64_t mix(uint64_t z) {
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9U;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBU;
    return z ^ (z >> 31);
}

uint64_t nq_hash3(uint64_t seed, uint64_t stream, uint64_t index) {
    uint64_t z = mix(seed + 0x9E3779B97F4A7C15U);
    z = mix(z ^ (stream + 0xD1B54A32D192ED03U));
    return mix(z + (index + 1) * 0x9E3779B97F4A7C15U);
}

double nq_uniform(uint64_t seed, uint64_t stream, uint64_t index) {
    return (double)(nq_hash3(seed, stream, index) >> 11) * 0x1p-53;
}

double nq_normal(uint64_t seed, uint64_t stream, uint64_t index) {
    double u = 1.0 - nq_uniform(seed, stream, 2 * index); /* (0, 1]: log stays finite */
    double v = nq_uniform(seed, stream, 2 * index + 1);
    return sqrt(-2.0 * log(u)) * cos(6.283185307179586 * v);
}

uint64_t nq_stream(const char *name) {
    uint64_t h = 0xCBF29CE484222325U;
    for (const char *p = name; *p != '\0'; p++) {
        h = (h ^ (uint8_t)*p) * 0x100000001B3U;
    }
    return h;
}
