/* attn_check.h - one table of attention kernels against the scalar reference and
 * against definitions in double. As kern_check.h: a check returns how many
 * comparisons failed and needs no test library. */
#ifndef ATTN_CHECK_H
#define ATTN_CHECK_H

#include <math.h>
#include <string.h>

#include "base/half.h"
#include "base/rng.h"
#include "kern/attn.h"

#define ATTN_KEYS    150
#define ATTN_PITCH   144
#define ATTN_QUERIES 13
#define ATTN_STRIDE  160

/* Stored rows of every type and the floats they stand for. */
typedef struct attn_rows {
    float f32[ATTN_KEYS * ATTN_PITCH];
    uint16_t f16[ATTN_KEYS * ATTN_PITCH];
    int8_t i8[ATTN_KEYS * ATTN_PITCH];
} attn_rows;

static const void *attn_rows_of(const attn_rows *s, nq_attn_type type) {
    return type == NQ_ATTN_F32   ? (const void *)s->f32
           : type == NQ_ATTN_F16 ? (const void *)s->f16
                                 : (const void *)s->i8;
}

static double attn_value(const attn_rows *s, nq_attn_type type, size_t i) {
    return type == NQ_ATTN_F32   ? (double)s->f32[i]
           : type == NQ_ATTN_F16 ? (double)nq_f16_to_f32(s->f16[i])
                                 : (double)s->i8[i];
}

static void attn_fill(attn_rows *s) {
    for (uint64_t i = 0; i < (uint64_t)ATTN_KEYS * ATTN_PITCH; i++) {
        s->f32[i] = (float)nq_normal(21, 1, i);
        s->f16[i] = nq_f32_to_f16((float)nq_normal(21, 2, i) * (i % 7 == 0 ? 1e-6F : 1.0F));
        s->i8[i] = (int8_t)(nq_hash3(21, 3, i) % 255 - 127);
    }
}

/* Both products of n queries and `keys` rows against sums in double. */
static unsigned attn_products(const nq_attn_kern *kern, const attn_rows *s, nq_attn_type type,
                              unsigned n, uint32_t keys, uint32_t pitch) {
    static float q[ATTN_QUERIES * ATTN_PITCH], out[ATTN_QUERIES * ATTN_PITCH];
    static float scores[ATTN_QUERIES * ATTN_STRIDE];
    nq_attn_tile t = {.rows = attn_rows_of(s, type),
                      .scores = scores,
                      .scores_stride = ATTN_STRIDE,
                      .x = q,
                      .x_stride = pitch,
                      .n = n,
                      .keys = keys,
                      .pitch = pitch};
    unsigned failed = 0;
    for (uint64_t i = 0; i < ATTN_QUERIES * ATTN_PITCH; i++) {
        q[i] = (float)nq_normal(22, keys, i);
        out[i] = (float)i;
    }
    for (size_t i = 0; i < sizeof scores / sizeof scores[0]; i++) {
        scores[i] = 77.0F;
    }
    kern->scores[type](&t);
    for (unsigned i = 0; i < n; i++) {
        for (uint32_t j = 0; j < keys; j++) {
            double exact = 0;
            double size = 1e-3;
            for (uint32_t c = 0; c < pitch; c++) {
                double product = (double)q[i * pitch + c] * attn_value(s, type, j * pitch + c);
                exact += product;
                size += fabs(product);
            }
            failed += !(fabs((double)scores[i * ATTN_STRIDE + j] - exact) < 2e-6 * size);
        }
        failed += scores[i * ATTN_STRIDE + keys] != 77.0F; /* nothing beyond the keys */
    }
    t.x = out;
    kern->mix[type](&t);
    for (unsigned i = 0; i < n; i++) {
        for (uint32_t c = 0; c < pitch; c++) {
            double exact = (double)(i * pitch + c);
            double size = exact;
            for (uint32_t j = 0; j < keys; j++) {
                double product =
                    (double)scores[i * ATTN_STRIDE + j] * attn_value(s, type, j * pitch + c);
                exact += product;
                size += fabs(product);
            }
            failed += !(fabs((double)out[i * pitch + c] - exact) <= 2e-6 * size + 1e-5);
        }
    }
    failed += n < ATTN_QUERIES && out[n * pitch] != (float)(n * pitch);
    memset(out, 0, sizeof out);
    kern->mix[type](&t);
    t.x = q;
    t.fresh = true;
    kern->mix[type](&t);
    failed += memcmp(q, out, n * pitch * sizeof(float)) != 0;
    return failed;
}

static unsigned check_attn_products(const nq_attn_kern *kern) {
    static attn_rows s;
    static const uint32_t pitches[] = {16, 32, 48, 64, 80, 96, 112, 128, 144};
    static const uint32_t keys[] = {1, 3, 4, 7, 64, 66, 149, 128, 5};
    unsigned failed = 0;
    attn_fill(&s);
    for (nq_attn_type type = NQ_ATTN_F32; type < NQ_ATTN_TYPES; type++) {
        for (unsigned n = 1; n <= ATTN_QUERIES; n++) {
            for (unsigned i = 0; i < 9; i++) {
                failed += attn_products(kern, &s, type, n, keys[(i + n) % 9], pitches[i]);
            }
        }
    }
    return failed;
}

/* Turned keys are copies: exact. */
static unsigned check_attn_turn(const nq_attn_kern *kern) {
    static attn_rows s;
    static float panel[ATTN_PITCH * NQ_ATTN_PANEL];
    static const uint32_t keys[] = {64, 1, 37, 63, 4};
    float scales[NQ_ATTN_PANEL];
    unsigned failed = 0;
    attn_fill(&s);
    for (uint64_t i = 0; i < NQ_ATTN_PANEL; i++) {
        scales[i] = (float)nq_uniform(25, 1, i);
    }
    for (unsigned round = 0; round < 15; round++) {
        nq_attn_type type = (nq_attn_type)(round % 3);
        const float *scale = type == NQ_ATTN_I8 ? scales : NULL;
        uint32_t n = keys[round % 5];
        uint32_t pitch = 16 * (1 + round % 9);
        memset(panel, 1, sizeof panel);
        kern->turn[type](panel, attn_rows_of(&s, type), scale, n, pitch);
        for (uint32_t c = 0; c < pitch; c++) {
            for (uint32_t j = 0; j < NQ_ATTN_PANEL; j++) {
                float want = j < n ? (float)attn_value(&s, type, j * pitch + c) : 0.0F;
                want = j < n && scale != NULL ? want * scale[j] : want;
                failed += panel[c * NQ_ATTN_PANEL + j] != want;
            }
        }
    }
    return failed;
}

static unsigned check_attn_softmax(const nq_attn_kern *kern) {
    float x[131], y[131];
    unsigned failed = 0;
    for (uint32_t n = 1; n <= 130; n++) {
        float most = -INFINITY;
        double sum = 0;
        for (uint32_t i = 0; i < n; i++) {
            x[i] = (float)nq_normal(23, n, i) * (n % 3 == 0 ? 40.0F : 3.0F);
            most = x[i] > most ? x[i] : most;
        }
        x[n] = 5.0F;
        failed += kern->max(x, n) != most;
        memcpy(y, x, sizeof x);
        float got = kern->exp_sum(y, n, most);
        for (uint32_t i = 0; i < n; i++) {
            double shifted = (double)(x[i] - most);
            double exact = shifted < -87.0 ? 0.0 : exp(shifted);
            sum += exact;
            failed += !(fabs((double)y[i] - exact) <= 3e-7 * exact);
        }
        failed += !(fabs((double)got - sum) < 1e-6 * sum) || y[n] != 5.0F;
        memcpy(y, x, sizeof x);
        kern->softcap(y, n, 30.0F);
        for (uint32_t i = 0; i < n; i++) {
            failed += !(fabs((double)y[i] - 30.0 * tanh((double)x[i] / 30.0)) < 30.0 * 5e-7);
        }
        failed += y[n] != 5.0F;
    }
    x[0] = NAN; /* must not become a number on the way */
    x[1] = 1.0F;
    failed += !isnan(kern->exp_sum(x, 2, 1.0F)) || !isnan(x[0]);
    return failed;
}

/* Storage is the same from every variant, bit for bit. */
static unsigned check_attn_storage(const nq_attn_kern *kern) {
    float x[96];
    uint16_t halves[96];
    int8_t want[96], got[96];
    unsigned failed = 0;
    for (uint64_t round = 0; round < 60; round++) {
        uint32_t n = 16 + 16 * (uint32_t)(round % 6);
        float size = ldexpf(1.0F, (int)(nq_hash3(24, 1, round) % 60) - 30);
        for (uint64_t i = 0; i < 96; i++) {
            x[i] = round == 0 ? 0.0F : (float)nq_normal(24, round, i) * size;
        }
        kern->to_f16(halves, x, n);
        for (uint32_t i = 0; i < n; i++) {
            float kept = x[i] > 65504.0F ? 65504.0F : x[i] < -65504.0F ? -65504.0F : x[i];
            uint16_t half = nq_f32_to_f16(kept);
            failed += halves[i] != half;
        }
        float scale = nq_attn_scalar.to_i8(want, x, n);
        failed += kern->to_i8(got, x, n) != scale || memcmp(want, got, n) != 0;
        for (uint32_t i = 0; i < n; i++) {
            double error = fabs((double)want[i] * (double)scale - (double)x[i]);
            failed += !(error <= 0.50001 * (double)scale);
        }
    }
    return failed;
}

#endif
