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

/* ln(x) for x in (0, 1) by plain arithmetic: libm's last bit differs between
 * CPUs, and codebooks trained on these samples must not. */
static double natural_log(double x) {
    int e = 0;
    double m = frexp(x, &e); /* x = m * 2^e, m in [0.5, 1) */
    double z = (m - 0.75) / (m + 0.75);
    double zz = z * z;
    double sum = 0;
    for (int k = 25; k >= 1; k -= 2) {
        sum = sum * zz + 1.0 / k;
    }
    const double ln2 = 0.69314718055994531;
    const double ln075 = -0.28768207245178093;
    return 2.0 * z * sum + ln075 + (double)e * ln2;
}

double nq_normal(uint64_t seed, uint64_t stream, uint64_t index) {
    /* Marsaglia's polar method; a rejected pair draws from the next stream. */
    for (uint64_t attempt = 0;; attempt++) {
        uint64_t s = stream + attempt * 0xA24BAED4963EE407U;
        double u = 2.0 * nq_uniform(seed, s, 2 * index) - 1.0;
        double v = 2.0 * nq_uniform(seed, s, 2 * index + 1) - 1.0;
        double q = u * u + v * v;
        if (q > 0 && q < 1) {
            return u * sqrt(-2.0 * natural_log(q) / q);
        }
    }
}

uint64_t nq_stream(const char *name) {
    uint64_t h = 0xCBF29CE484222325U;
    for (const char *p = name; *p != '\0'; p++) {
        h = (h ^ (uint8_t)*p) * 0x100000001B3U;
    }
    return h;
}
