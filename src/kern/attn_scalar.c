/* attn_scalar.c - the reference: four floats by the compiler's portable vectors,
 * which the baseline of every machine has in some form; no fused operations. */
#include <stdint.h>
#include <string.h>

#include "base/half.h"

typedef float lanes __attribute__((vector_size(16)));
typedef int32_t masks __attribute__((vector_size(16)));
typedef uint16_t halves __attribute__((vector_size(8)));
typedef int8_t bytes __attribute__((vector_size(4)));

static inline lanes set1(float x) { return (lanes){x, x, x, x}; }

static inline lanes load(const float *p) {
    lanes v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline void store(float *p, lanes v) { memcpy(p, &v, sizeof v); }

static inline lanes load_some(const float *p, uint32_t n, lanes fill) {
    float lane[4];
    store(lane, fill);
    memcpy(lane, p, n * sizeof *p);
    return load(lane);
}

static inline void store_some(float *p, lanes v, uint32_t n) {
    float lane[4];
    store(lane, v);
    memcpy(p, lane, n * sizeof *p);
}

/* a where mask, else b. */
static inline lanes pick(masks mask, lanes a, lanes b) {
    return (lanes)(((masks)a & mask) | ((masks)b & ~mask));
}

/* The exponent moves from a bias of 15 to one of 127 by a product, which also
 * makes subnormal numbers normal. */
static inline lanes load_f16(const uint16_t *p) {
    halves v;
    memcpy(&v, p, sizeof v);
    masks bits = __builtin_convertvector(v, masks);
    masks size = (bits & 0x7FFF) << 13;
    masks special = (size >= 0x0F800000) & 0x7F800000;
    masks sign = (bits & 0x8000) << 16;
    return (lanes)((masks)((lanes)size * set1(0x1p112F)) | special | sign);
}

static inline lanes load_i8(const int8_t *p) {
    bytes v;
    memcpy(&v, p, sizeof v);
    return __builtin_convertvector(v, lanes);
}

static inline void store_f16(uint16_t *p, lanes v) {
    for (int l = 0; l < 4; l++) {
        p[l] = nq_f32_to_f16(v[l]);
    }
}

static inline float sum(lanes v) { return (v[0] + v[2]) + (v[1] + v[3]); }

static inline void sums4(float *p, lanes a, lanes b, lanes c, lanes d) {
    p[0] = sum(a);
    p[1] = sum(b);
    p[2] = sum(c);
    p[3] = sum(d);
}

static inline lanes pow2(lanes shifted) {
    masks bits = (masks)shifted - (0x4B400000 - 127);
    return (lanes)(bits << 23);
}

#define V                       lanes
#define W                       4U
#define QUERIES                 2U
#define MIX_QUERIES             2U
#define V_ZERO()                set1(0)
#define V_SET1(x)               set1(x)
#define V_LOAD(p)               load(p)
#define V_STORE(p, v)           store(p, v)
#define V_LOAD_SOME(p, n, fill) load_some(p, n, fill)
#define V_STORE_SOME(p, v, n)   store_some(p, v, n)
#define V_ADD(a, b)             ((a) + (b))
#define V_SUB(a, b)             ((a) - (b))
#define V_MUL(a, b)             ((a) * (b))
#define V_DIV(a, b)             ((a) / (b))
#define V_FMA(a, b, c)          ((a) * (b) + (c))
#define V_MAX(a, b)             pick((masks)((a) > (b)), a, b)
#define V_MIN(a, b)             pick((masks)((a) < (b)), a, b)
#define V_F16(p)                load_f16(p)
#define V_I8(p)                 load_i8(p)
#define V_TO_F16(p, v)          store_f16(p, v)
#define V_SUMS4(p, a, b, c, d)  sums4(p, a, b, c, d)
#define V_POW2(v)               pow2(v)
#define V_KEEP(x, low, v)       ((lanes)((masks)(v) & ~(masks)((x) < (low))))
#include "kern/attn_body.h"

const nq_attn_kern nq_attn_scalar = ATTN_TABLE("scalar");
