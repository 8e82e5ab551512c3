/* trellis.c - see trellis.h. */
#include "quant/trellis.h"

#include <float.h>
#include <string.h>

#include "base/mem.h"
#include "kern/kern.h"

/* Cost of a state that cannot occur at the start of a segment: larger than any
 * real path, small enough that adding to it stays finite. */
#define UNREACHABLE 1e30F

uint64_t nq_level_offset(const nq_scheme *s, unsigned level) {
    uint64_t entries = 0;
    for (unsigned l = 0; l < level; l++) {
        entries += s->k[s->field[l]];
    }
    return entries * s->d;
}

static const float *level(const nq_trellis *t, unsigned l) {
    return t->values + nq_level_offset(&t->scheme, l);
}

static bool is_sliding(const nq_scheme *s) { return s->fields == 1 && s->levels > 1; }

/* Squared norm of the sum of up to three entries; c may be NULL. */
static float sum_norm(const float *a, const float *b, const float *c, unsigned d) {
    float norm = 0;
    for (unsigned v = 0; v < d; v++) {
        float r = a[v] + (b != NULL ? b[v] : 0.0F) + (c != NULL ? c[v] : 0.0F);
        norm += r * r;
    }
    return norm;
}

static void fill_sliding(nq_trellis *t) {
    unsigned k = t->scheme.k[0];
    unsigned d = t->scheme.d;
    bool three = t->scheme.levels == 3;
    unsigned nhi = three ? k : 1;
    float *out = t->pair;
    for (unsigned hi = 0; hi < nhi; hi++) {
        for (unsigned lo = 0; lo < k; lo++) {
            const float *newest =
                three ? level(t, 1) + (size_t)hi * d : level(t, 1) + (size_t)lo * d;
            const float *older = three ? level(t, 2) + (size_t)lo * d : NULL;
            for (unsigned b = 0; b < k; b++) {
                *out++ = sum_norm(level(t, 0) + (size_t)b * d, newest, older, d);
            }
        }
    }
}

static void fill_pairs(nq_trellis *t) {
    unsigned d = t->scheme.d;
    unsigned kb = t->scheme.levels == 2 ? t->scheme.k[1] : 1;
    for (unsigned a = 0; a < t->scheme.k[0]; a++) {
        for (unsigned b = 0; b < kb; b++) {
            const float *second = t->scheme.levels == 2 ? level(t, 1) + (size_t)b * d : NULL;
            t->pair[(size_t)a * kb + b] = sum_norm(level(t, 0) + (size_t)a * d, second, NULL, d);
        }
    }
}

novaq_status nq_trellis_open(nq_trellis *out, const nq_scheme *s, const float *values,
                             novaq_error *err) {
    *out = (nq_trellis){.scheme = *s};
    uint64_t count = nq_level_offset(s, s->levels);
    uint64_t pairs = s->fields == 2 ? (uint64_t)s->k[0] * s->k[1] : s->k[0];
    for (unsigned l = 1; is_sliding(s) && l < s->levels; l++) {
        pairs *= s->k[0];
    }
    NQ_TRY(nq_alloc(&out->values, count, sizeof(float), err));
    novaq_status st = nq_alloc(&out->pair, pairs, sizeof(float), err);
    if (st != NOVAQ_OK) {
        nq_trellis_close(out);
        return st;
    }
    memcpy(out->values, values, count * sizeof(float));
    if (is_sliding(s)) {
        fill_sliding(out);
    } else {
        fill_pairs(out);
    }
    return NOVAQ_OK;
}

void nq_trellis_close(nq_trellis *t) {
    nq_free(t->values);
    nq_free(t->pair);
    *t = (nq_trellis){0};
}

static unsigned state_count(const nq_scheme *s) {
    return s->levels == 3 ? s->k[0] * s->k[0] : s->k[0];
}

uint64_t nq_trellis_scratch(const nq_trellis *t, uint64_t len) {
    return is_sliding(&t->scheme) ? len * state_count(&t->scheme) : 0;
}

/* p[b] = -2 <x, C[b]> */
static void inner_products(float *p, const float *x, const float *entries, unsigned k, unsigned d) {
    if (d == 2) { /* the ladder's favourite, worth straight-line code */
        float x0 = -2.0F * x[0];
        float x1 = -2.0F * x[1];
        for (unsigned b = 0; b < k; b++) {
            p[b] = x0 * entries[2 * b] + x1 * entries[2 * b + 1];
        }
        return;
    }
    for (unsigned b = 0; b < k; b++) {
        float dot = 0;
        for (unsigned v = 0; v < d; v++) {
            dot += x[v] * entries[(size_t)b * d + v];
        }
        p[b] = -2.0F * dot;
    }
}

/* in = (cost - smallest) * ratio + what this row adds for the remembered symbols. */
static void state_costs(float *in, const float *cost, float smallest, float ratio, const float *p1,
                        const float *p2, unsigned k) {
    if (p2 == NULL) {
        for (unsigned lo = 0; lo < k; lo++) {
            in[lo] = (cost[lo] - smallest) * ratio + p1[lo];
        }
        return;
    }
    for (unsigned lo = 0; lo < k; lo++) {
        for (unsigned hi = 0; hi < k; hi++) {
            in[lo * k + hi] = (cost[lo * k + hi] - smallest) * ratio + p2[lo] + p1[hi];
        }
    }
}

static void trace_back(uint8_t *symbols, const uint8_t *back, const float *cost, unsigned k,
                       unsigned nhi, uint64_t len) {
    unsigned states = nhi * k;
    unsigned s = 0;
    for (unsigned i = 1; i < states; i++) {
        s = cost[i] < cost[s] ? i : s;
    }
    for (uint64_t t = len; t-- > 0;) {
        symbols[t] = (uint8_t)(s % k);
        unsigned hi = s / k; /* the symbol before; 0 when only one is remembered */
        unsigned lo = back[t * states + s];
        s = nhi == 1 ? lo : lo * k + hi;
    }
}

static void encode_sliding(uint8_t *symbols, const nq_trellis *t, const float *x, uint64_t len,
                           const float *ratio, uint8_t *back) {
    const nq_kern *kern = nq_kern_best();
    unsigned k = t->scheme.k[0];
    unsigned d = t->scheme.d;
    unsigned states = state_count(&t->scheme);
    unsigned nhi = states / k;
    float cost[256];
    float in[256];
    float p[NQ_MAX_LEVELS][16];
    for (unsigned i = 0; i < states; i++) {
        cost[i] = i == 0 ? 0.0F : UNREACHABLE;
    }
    float smallest = 0;
    for (uint64_t row = 0; row < len; row++) {
        for (unsigned l = 0; l < t->scheme.levels; l++) {
            inner_products(p[l], x + row * d, level(t, l), k, d);
        }
        state_costs(in, cost, smallest, ratio == NULL || row == 0 ? 1.0F : ratio[row], p[1],
                    nhi > 1 ? p[2] : NULL, k);
        smallest = kern->trellis_step(cost, back + row * states, in, t->pair, p[0], nhi, k);
    }
    trace_back(symbols, back, cost, k, nhi, len);
}

static void encode_product(uint8_t *symbols, const nq_trellis *t, const float *x, uint64_t len) {
    const nq_kern *kern = nq_kern_best();
    const nq_scheme *s = &t->scheme;
    unsigned kb = s->levels == 2 ? s->k[1] : 1;
    float pa[256];
    float pb[256] = {0};
    for (uint64_t row = 0; row < len; row++) {
        unsigned best[2] = {0, 0};
        inner_products(pa, x + row * s->d, level(t, 0), s->k[0], s->d);
        if (s->levels == 2) {
            inner_products(pb, x + row * s->d, level(t, 1), kb, s->d);
        }
        kern->nearest_pair(best, pa, pb, t->pair, s->k[0], kb);
        symbols[row] = (uint8_t)best[0];
        if (s->fields == 2) {
            symbols[len + row] = (uint8_t)best[1];
        }
    }
}

void nq_trellis_encode(uint8_t *symbols, const nq_trellis *t, const float *x, uint64_t len,
                       const float *ratio, void *scratch) {
    if (is_sliding(&t->scheme)) {
        encode_sliding(symbols, t, x, len, ratio, scratch);
    } else {
        encode_product(symbols, t, x, len);
    }
}

void nq_trellis_decode(float *out, const nq_trellis *t, const uint8_t *symbols, uint64_t len) {
    const nq_scheme *s = &t->scheme;
    memset(out, 0, len * s->d * sizeof(float));
    for (unsigned l = 0; l < s->levels; l++) {
        const float *entries = level(t, l);
        const uint8_t *field = symbols + s->field[l] * len;
        for (uint64_t row = 0; row < len; row++) {
            unsigned symbol = row >= s->lag[l] ? field[row - s->lag[l]] : 0;
            for (unsigned v = 0; v < s->d; v++) {
                out[row * s->d + v] += entries[(size_t)symbol * s->d + v];
            }
        }
    }
}
