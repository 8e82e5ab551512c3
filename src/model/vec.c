/* vec.c - see vec.h. */
#include "model/vec.h"

#include <math.h>
#include <string.h>

#include "base/cpu.h"

#define LANES 16

/* exp by 2^n * p(r), |r| <= ln2/2, p the Taylor polynomial of degree 7 (its
 * error there, 5e-9, is below a float's). Adding and taking away 1.5 * 2^23
 * rounds to an integer without a branch or a call. */
static inline float exp_lane(float x) {
    const float magic = 12582912.0F;
    float keep = x < -87.0F ? 0.0F : 1.0F;
    float c = x < -87.0F ? -87.0F : x;
    c = c > 88.0F ? 88.0F : c;
    float shifted = c * 1.44269504F + magic;
    float n = shifted - magic;
    float r = c - n * 0.693359375F;
    r = r + n * 2.12194440e-4F;
    float p = 1.0F / 5040.0F;
    p = p * r + 1.0F / 720.0F;
    p = p * r + 1.0F / 120.0F;
    p = p * r + 1.0F / 24.0F;
    p = p * r + 1.0F / 6.0F;
    p = p * r + 0.5F;
    p = p * r + 1.0F;
    p = p * r + 1.0F;
    uint32_t bits; /* unsigned: of a NaN they mean nothing, and p is NaN already */
    memcpy(&bits, &shifted, sizeof bits);
    bits = (bits - 0x4B400000U + 127U) << 23;
    float scale;
    memcpy(&scale, &bits, sizeof scale);
    return p * scale * keep;
}

/* The loops that run in wider registers are static: what is chosen when the program
 * is loaded would be visible outside of the library. */
NQ_CPU_CLONES static void exp_all(float *x, uint64_t n, float shift) {
    for (uint64_t i = 0; i < n; i++) {
        x[i] = exp_lane(x[i] - shift);
    }
}

void nq_vec_exp(float *x, uint64_t n, float shift) { exp_all(x, n, shift); }

float nq_vec_max(const float *x, uint64_t n) {
    float lane[LANES];
    float max = x[0];
    uint64_t i = 0;
    for (int l = 0; l < LANES; l++) {
        lane[l] = max;
    }
    for (; i + LANES <= n; i += LANES) {
        for (int l = 0; l < LANES; l++) {
            lane[l] = x[i + (uint64_t)l] > lane[l] ? x[i + (uint64_t)l] : lane[l];
        }
    }
    for (; i < n; i++) {
        max = x[i] > max ? x[i] : max;
    }
    for (int l = 0; l < LANES; l++) {
        max = lane[l] > max ? lane[l] : max;
    }
    return max;
}

uint64_t nq_vec_argmax(const float *x, uint64_t n) {
    float max = nq_vec_max(x, n);
    uint64_t i = 0;
    while (i + 1 < n && x[i] != max) {
        i++;
    }
    return x[i] == max ? i : 0;
}

/* Blocks of 4096 in float lanes, blocks in double: fast, and the error does not
 * grow with the vocabulary. */
double nq_vec_sum(const float *x, uint64_t n) {
    double total = 0;
    uint64_t i = 0;
    while (i + LANES <= n) {
        float lane[LANES] = {0};
        uint64_t end = n - i < 4096 ? n : i + 4096;
        for (; i + LANES <= end; i += LANES) {
            for (int l = 0; l < LANES; l++) {
                lane[l] += x[i + (uint64_t)l];
            }
        }
        for (int l = 0; l < LANES; l++) {
            total += (double)lane[l];
        }
    }
    for (; i < n; i++) {
        total += (double)x[i];
    }
    return total;
}

NQ_CPU_CLONES static double dot(const float *a, const float *b, uint64_t n) {
    float lane[LANES] = {0};
    double total = 0;
    uint64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        for (int l = 0; l < LANES; l++) {
            lane[l] += a[i + (uint64_t)l] * b[i + (uint64_t)l];
        }
    }
    for (; i < n; i++) {
        total += (double)a[i] * (double)b[i];
    }
    for (int l = 0; l < LANES; l++) {
        total += (double)lane[l];
    }
    return total;
}

double nq_vec_dot(const float *a, const float *b, uint64_t n) { return dot(a, b, n); }

void nq_vec_softmax(float *x, uint64_t n) {
    nq_vec_exp(x, n, nq_vec_max(x, n));
    float inverse = (float)(1.0 / nq_vec_sum(x, n));
    for (uint64_t i = 0; i < n; i++) {
        x[i] *= inverse;
    }
}

double nq_vec_logsumexp(const float *x, float *scratch, uint64_t n) {
    float max = nq_vec_max(x, n);
    memcpy(scratch, x, n * sizeof *x);
    nq_vec_exp(scratch, n, max);
    return (double)max + log(nq_vec_sum(scratch, n));
}

void nq_vec_rmsnorm(float *out, const float *x, const float *gain, uint64_t n, double eps) {
    float scale = (float)(1.0 / sqrt(nq_vec_dot(x, x, n) / (double)n + eps));
    for (uint64_t i = 0; i < n; i++) {
        out[i] = x[i] * scale * gain[i];
    }
}

void nq_vec_layernorm(float *out, const float *x, const float *gain, const float *bias, uint64_t n,
                      double eps) {
    float mean = (float)(nq_vec_sum(x, n) / (double)n);
    for (uint64_t i = 0; i < n; i++) {
        out[i] = x[i] - mean;
    }
    float scale = (float)(1.0 / sqrt(nq_vec_dot(out, out, n) / (double)n + eps));
    for (uint64_t i = 0; i < n; i++) {
        out[i] = out[i] * scale * gain[i];
    }
    if (bias != NULL) {
        nq_vec_add(out, bias, n);
    }
}

/* Elements of one piece: GCC vectorises each pass over it, but not their fusion. */
#define PIECE 256

/* out = x / (1 + exp(u)) * up for one piece. */
NQ_CPU_CLONES static void gate_piece(float *out, const float *x, float *u, const float *up,
                                     uint64_t n) {
    nq_vec_exp(u, n, 0.0F);
    for (uint64_t i = 0; i < n; i++) {
        u[i] = x[i] / (1.0F + u[i]);
    }
    for (uint64_t i = 0; i < n; i++) {
        out[i] = up != NULL ? u[i] * up[i] : u[i];
    }
}

void nq_vec_silu(float *out, const float *gate, const float *up, uint64_t n) {
    float u[PIECE];
    for (uint64_t at = 0; at < n; at += PIECE) {
        uint64_t len = n - at < PIECE ? n - at : PIECE;
        for (uint64_t i = 0; i < len; i++) {
            u[i] = -gate[at + i];
        }
        gate_piece(out + at, gate + at, u, up != NULL ? up + at : NULL, len);
    }
}

/* (1 + tanh(t)) / 2 = 1 / (1 + exp(-2 t)), t = sqrt(2 / pi) (x + 0.044715 x^3). */
void nq_vec_gelu_tanh(float *out, const float *gate, const float *up, uint64_t n) {
    const float a = -1.5957691216F;
    const float b = -0.0713548163F; /* a * 0.044715 */
    float u[PIECE];
    for (uint64_t at = 0; at < n; at += PIECE) {
        uint64_t len = n - at < PIECE ? n - at : PIECE;
        for (uint64_t i = 0; i < len; i++) {
            float x = gate[at + i];
            u[i] = x * (a + b * x * x);
        }
        gate_piece(out + at, gate + at, u, up != NULL ? up + at : NULL, len);
    }
}

void nq_vec_softcap(float *x, uint64_t n, float cap) {
    float u[PIECE];
    float by = 2.0F / cap;
    for (uint64_t at = 0; at < n; at += PIECE) {
        uint64_t len = n - at < PIECE ? n - at : PIECE;
        for (uint64_t i = 0; i < len; i++) {
            u[i] = by * x[at + i];
        }
        nq_vec_exp(u, len, 0.0F);
        for (uint64_t i = 0; i < len; i++) {
            x[at + i] = cap * (u[i] - 1.0F) / (u[i] + 1.0F);
        }
    }
}

void nq_vec_scale(float *x, float by, uint64_t n) {
    for (uint64_t i = 0; i < n; i++) {
        x[i] *= by;
    }
}

void nq_vec_add_scaled(float *x, const float *y, float by, uint64_t n) {
    for (uint64_t i = 0; i < n; i++) {
        x[i] += by * y[i];
    }
}

void nq_vec_add(float *x, const float *y, uint64_t n) {
    for (uint64_t i = 0; i < n; i++) {
        x[i] += y[i];
    }
}
