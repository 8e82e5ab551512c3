/* rope.c - see rope.h. */
#include "model/rope.h"

#include <math.h>

#include "base/mem.h"

#define TWO_PI 6.283185307179586

/* Positions are a * FINE + b: their angles are products of two turns. */
#define FINE 64U

/* ---- angles --------------------------------------------------------------- */

/* Llama 3.1: long waves are stretched, short ones kept, those between blended by
 * how often the wave fits into the original context. */
static double llama3_angle(const nq_rope_spec *s, double f) {
    double waves = s->old_context * f / TWO_PI;
    double blend = (waves - s->low_freq_factor) / (s->high_freq_factor - s->low_freq_factor);
    blend = blend < 0 ? 0 : blend > 1 ? 1 : blend;
    return (1.0 - blend) * f / s->factor + blend * f;
}

/* The pair, as a real number, whose wave turns `turns` times in the original context. */
static double yarn_pair(const nq_rope_spec *s, double turns) {
    return s->dim * log(s->old_context / (turns * TWO_PI)) / (2.0 * log(s->theta));
}

/* YaRN: kept below the pair of beta_fast turns, stretched above that of beta_slow,
 * a ramp over whole pairs between them. */
static double yarn_angle(const nq_rope_spec *s, uint32_t i, double f) {
    double low = floor(yarn_pair(s, s->beta_fast));
    double high = ceil(yarn_pair(s, s->beta_slow));
    low = low > 0 ? low : 0;
    high = high < s->dim - 1.0 ? high : s->dim - 1.0;
    high = high == low ? high + 0.001 : high;
    double ramp = ((double)i - low) / (high - low);
    ramp = ramp < 0 ? 0 : ramp > 1 ? 1 : ramp;
    return ramp * f / s->factor + (1.0 - ramp) * f;
}

static const float *divisors_of(const nq_rope_spec *s, uint32_t n_ctx) {
    if (s->scaling == NQ_ROPE_LONG && (double)n_ctx <= s->old_context) {
        return s->short_divisors;
    }
    return s->divisors;
}

double nq_rope_angle(const nq_rope_spec *s, uint32_t i, uint32_t n_ctx) {
    const float *divisors = divisors_of(s, n_ctx);
    double f = pow(s->theta, -2.0 * (double)i / (double)s->dim);
    f = divisors == NULL ? f : f / (double)divisors[i];
    switch (s->scaling) {
    case NQ_ROPE_LINEAR: return f / s->factor;
    case NQ_ROPE_LLAMA3: return llama3_angle(s, f);
    case NQ_ROPE_YARN: return yarn_angle(s, i, f);
    case NQ_ROPE_LONG:
    case NQ_ROPE_PLAIN: break;
    }
    return f;
}

double nq_rope_magnitude(const nq_rope_spec *s) {
    if (s->scaling != NQ_ROPE_YARN && s->scaling != NQ_ROPE_LONG) {
        return 1.0;
    }
    if (s->attention_factor > 0) {
        return s->attention_factor;
    }
    if (s->factor <= 1.0) {
        return 1.0;
    }
    return s->scaling == NQ_ROPE_YARN ? 0.1 * log(s->factor) + 1.0
                                      : sqrt(1.0 + log(s->factor) / log(s->old_context));
}

/* ---- the table -------------------------------------------------------------- */

/* Turns by 0..FINE-1 positions, (dim/2, FINE) each, the magnitude in them. */
typedef struct fine_turns {
    double *cosine;
    double *sine;
} fine_turns;

/* Sines and cosines of FINE positions cost one of each: a long context opens in
 * milliseconds. Products in double, so that rounding to float hides their error. */
static void fill_positions(nq_rope *r, const fine_turns *t, const double *angles, uint32_t p) {
    uint32_t half = r->dim / 2;
    uint32_t n = r->n_ctx - p < FINE ? r->n_ctx - p : FINE;
    for (uint32_t i = 0; i < half; i++) {
        double c0 = cos(angles[i] * p);
        double s0 = sin(angles[i] * p);
        const double *c = t->cosine + (uint64_t)i * FINE;
        const double *s = t->sine + (uint64_t)i * FINE;
        for (uint32_t b = 0; b < n; b++) {
            uint64_t at = ((uint64_t)p + b) * half + i;
            r->cosine[at] = (float)(c0 * c[b] - s0 * s[b]);
            r->sine[at] = (float)(s0 * c[b] + c0 * s[b]);
        }
    }
}

static novaq_status fill(nq_rope *r, const nq_rope_spec *s, novaq_error *err) {
    uint64_t half = r->dim / 2;
    double magnitude = nq_rope_magnitude(s);
    double *angles = NULL; /* (half), then the fine turns */
    NQ_TRY(nq_alloc_raw(&angles, half * (1 + 2 * FINE), sizeof *angles, err));
    fine_turns t = {.cosine = angles + half, .sine = angles + half + half * FINE};
    for (uint32_t i = 0; i < half; i++) {
        angles[i] = nq_rope_angle(s, i, r->n_ctx);
        for (uint32_t b = 0; b < FINE; b++) {
            t.cosine[(uint64_t)i * FINE + b] = magnitude * cos(angles[i] * b);
            t.sine[(uint64_t)i * FINE + b] = magnitude * sin(angles[i] * b);
        }
    }
    for (uint64_t p = 0; p < r->n_ctx; p += FINE) {
        fill_positions(r, &t, angles, (uint32_t)p);
    }
    nq_free(angles);
    return NOVAQ_OK;
}

novaq_status nq_rope_open(nq_rope *out, const nq_rope_spec *s, uint32_t n_ctx, novaq_error *err) {
    nq_rope r = {.dim = s->dim, .n_ctx = n_ctx, .half = s->half};
    uint64_t cells = (uint64_t)n_ctx * (s->dim / 2);
    *out = (nq_rope){0};
    NQ_TRY(nq_alloc_raw(&r.cosine, cells, sizeof(float), err));
    novaq_status st = nq_alloc_raw(&r.sine, cells, sizeof(float), err);
    st = st == NOVAQ_OK ? fill(&r, s, err) : st;
    if (st != NOVAQ_OK) {
        nq_rope_close(&r);
        return st;
    }
    *out = r;
    return NOVAQ_OK;
}

void nq_rope_close(nq_rope *r) {
    nq_free(r->cosine);
    nq_free(r->sine);
    *r = (nq_rope){0};
}

/* ---- turning ---------------------------------------------------------------- */

static void turn_halves(float *restrict a, float *restrict b, const float *restrict c,
                        const float *restrict s, uint32_t half) {
    for (uint32_t i = 0; i < half; i++) {
        float x = a[i];
        float y = b[i];
        a[i] = x * c[i] - y * s[i];
        b[i] = x * s[i] + y * c[i];
    }
}

static void turn_neighbours(float *restrict head, const float *restrict c, const float *restrict s,
                            uint32_t half) {
    for (uint32_t i = 0; i < half; i++) {
        float x = head[2 * i];
        float y = head[2 * i + 1];
        head[2 * i] = x * c[i] - y * s[i];
        head[2 * i + 1] = x * s[i] + y * c[i];
    }
}

void nq_rope_turn(const nq_rope *r, float *head, uint32_t p) {
    uint32_t half = r->dim / 2;
    const float *c = r->cosine + (uint64_t)p * half;
    const float *s = r->sine + (uint64_t)p * half;
    if (r->half) {
        turn_halves(head, head + half, c, s, half);
    } else {
        turn_neighbours(head, c, s, half);
    }
}
