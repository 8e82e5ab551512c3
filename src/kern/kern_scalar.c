/* kern_scalar.c - the reference: the shared bodies, compiled for the baseline. */
#include "kern/kern_body.h"

static float trellis_step(float *out, uint8_t *back, const float *in, const float *pair,
                          const float *p0, unsigned nhi, unsigned k) {
    return body_trellis_step(out, back, in, pair, p0, nhi, k);
}

static void nearest_pair(unsigned *best, const float *pa, const float *pb, const float *pair,
                         unsigned ka, unsigned kb) {
    body_nearest_pair(best, pa, pb, pair, ka, kb);
}

static void hadamard(float *x, uint32_t n, float scale) { body_hadamard(x, n, scale); }

static void unpack4(uint8_t *dst, const uint8_t *src, uint64_t units) {
    body_unpack4(dst, src, units);
}

static void lut16(int8_t *dst, const uint8_t *symbols, const int8_t *table, uint64_t n, int add) {
    body_lut16(dst, symbols, table, n, add);
}

static float dot_i8(const int8_t *a, const float *x, uint64_t n) { return body_dot_i8(a, x, n); }

static float dot_f32(const float *a, const float *x, uint64_t n) { return body_dot_f32(a, x, n); }

const nq_kern nq_kern_scalar = {"scalar", trellis_step, nearest_pair, hadamard,
                                unpack4,  lut16,        dot_i8,       dot_f32};
