/* trellis.c - see trellis.h. */
#include "quant/trellis.h"

#include <string.h>

#include "base/mem.h"

/* Chains coded together: enough to hide the latency of one another's minima. Where
 * the history of two is beyond any cache, one alone. */
#define TOGETHER    2
#define TWO_AT_MOST ((uint64_t)4 << 20) /* bytes of history */

uint64_t nq_level_offset(const nq_scheme *s, unsigned level) {
    uint64_t entries = 0;
    for (unsigned l = 0; l < level; l++) {
        entries += s->k[s->field[l]];
    }
    return entries * s->d;
}

static bool is_sliding(const nq_scheme *s) { return s->fields == 1 && s->levels > 1; }

/* ---- tables ------------------------------------------------------------------- */

/* Entries of level l by component: entry i, component c at [c * stride + i]. */
static unsigned stride_of(const nq_trellis *t, unsigned l) {
    return is_sliding(&t->scheme) ? t->lanes : t->scheme.k[t->scheme.field[l]];
}

static uint64_t offset_of(const nq_trellis *t, unsigned l) {
    return is_sliding(&t->scheme) ? (uint64_t)l * t->scheme.d * t->lanes
                                  : nq_level_offset(&t->scheme, l);
}

static uint64_t pair_count(const nq_trellis *t) {
    const nq_scheme *s = &t->scheme;
    if (is_sliding(s)) {
        return (uint64_t)t->lanes * t->lanes * (s->levels == 3 ? t->lanes : 1);
    }
    return s->fields == 2 ? (uint64_t)s->k[0] * s->k[1] : s->k[0];
}

/* seen = R values, dual = -2 R^T seen. */
static void apply_metric(nq_trellis *t, unsigned l, const float *r) {
    unsigned d = t->scheme.d;
    unsigned stride = stride_of(t, l);
    const float *entry = t->values + nq_level_offset(&t->scheme, l);
    float *seen = t->seen + offset_of(t, l);
    float *dual = t->dual + offset_of(t, l);
    for (unsigned e = 0; e < t->scheme.k[t->scheme.field[l]]; e++, entry += d) {
        for (unsigned i = 0; i < d; i++) {
            float sum = r == NULL ? entry[i] : 0;
            for (unsigned j = i; r != NULL && j < d; j++) {
                sum += r[i * d + j] * entry[j];
            }
            seen[i * stride + e] = sum;
        }
        for (unsigned j = 0; j < d; j++) {
            float sum = r == NULL ? entry[j] : 0;
            for (unsigned i = 0; r != NULL && i <= j; i++) {
                sum += r[i * d + j] * seen[i * stride + e];
            }
            dual[j * stride + e] = -2.0F * sum;
        }
    }
}

/* norm[i] = |first + row_i + last|^2; row by component. Plain loops over i, which
 * the compiler turns into vectors. */
static void norms(float *norm, const float *first, const float *row, const float *last, unsigned d,
                  unsigned n) {
    memset(norm, 0, n * sizeof(float));
    for (unsigned c = 0; c < d; c++) {
        float a = first[c];
        float z = last[c];
        for (unsigned i = 0; i < n; i++) {
            float r = (a + row[(size_t)c * n + i]) + z;
            norm[i] += r * r;
        }
    }
}

/* out (d) = entry e of level l, plus what out was if add. */
static void take(float *out, const nq_trellis *t, unsigned l, unsigned e, bool add) {
    const float *seen = t->seen + offset_of(t, l);
    unsigned stride = stride_of(t, l);
    for (unsigned c = 0; c < t->scheme.d; c++) {
        out[c] = seen[(size_t)c * stride + e] + (add ? out[c] : 0.0F);
    }
}

/* One line of lanes norms, padding far away. */
static void line(float *out, const nq_trellis *t, const float *first, unsigned row_level,
                 const float *last) {
    norms(out, first, t->seen + offset_of(t, row_level), last, t->scheme.d, t->lanes);
    for (unsigned i = t->scheme.k[0]; i < t->lanes; i++) {
        out[i] = NQ_PATH_FAR;
    }
}

static void line_far(float *out, unsigned lanes) {
    for (unsigned i = 0; i < lanes; i++) {
        out[i] = NQ_PATH_FAR;
    }
}

/* forward (lo, b), back (b, lo). */
static void fill_two(nq_trellis *t) {
    static const float zero[NQ_MAX_D];
    float first[NQ_MAX_D];
    for (unsigned i = 0; i < t->lanes; i++) {
        size_t at = (size_t)i * t->lanes;
        if (i >= t->scheme.k[0]) {
            line_far(t->forward + at, t->lanes);
            line_far(t->back + at, t->lanes);
            continue;
        }
        take(first, t, 1, i, false);
        line(t->forward + at, t, first, 0, zero);
        take(first, t, 0, i, false);
        line(t->back + at, t, first, 1, zero);
    }
}

/* What the norms |a + h + c|^2 of three levels are made of, entries a of b, h of hi,
 * c of lo: three tables of two entries each, so that a new metric costs two
 * additions a norm, whatever d. */
typedef struct norm_parts {
    float ah[16 * 16]; /* (b, hi) |a + h|^2 */
    float ac[16 * 16]; /* (b, lo) |c|^2 + 2 <a, c> */
    float hc[16 * 16]; /* (hi, lo) 2 <h, c> */
    float ch[16 * 16]; /* (lo, hi) the same */
} norm_parts;

/* out[i] += 2 <first, row_i>; row by component. */
static void add_products(float *restrict out, const float *restrict first,
                         const float *restrict row, unsigned d, unsigned n) {
    for (unsigned c = 0; c < d; c++) {
        float twice = 2.0F * first[c];
        for (unsigned i = 0; i < n; i++) {
            out[i] += twice * row[(size_t)c * n + i];
        }
    }
}

static void make_parts(norm_parts *p, const nq_trellis *t) {
    static const float zero[NQ_MAX_D];
    float first[NQ_MAX_D];
    unsigned n = t->lanes;
    unsigned k = t->scheme.k[0];
    unsigned d = t->scheme.d;
    memset(p, 0, sizeof *p);
    for (unsigned i = 0; i < n; i++) {
        take(first, t, 0, i, false);
        line(p->ah + (size_t)i * n, t, first, 1, zero);
        line(p->ac + (size_t)i * n, t, zero, 2, zero);
        add_products(p->ac + (size_t)i * n, first, t->seen + offset_of(t, 2), d, n);
        take(first, t, 1, i, false);
        add_products(p->hc + (size_t)i * n, first, t->seen + offset_of(t, 2), d, n);
        take(first, t, 2, i, false);
        add_products(p->ch + (size_t)i * n, first, t->seen + offset_of(t, 1), d, n);
    }
    for (unsigned i = k * n; i < n * n; i++) {
        p->ah[i] = NQ_PATH_FAR;
    }
}

/* out[i] = (row[i] + each) + part[i], of rounding errors below 0 none. */
static void sum_line(float *restrict out, const float *restrict row, float each,
                     const float *restrict part, unsigned n) {
    for (unsigned i = 0; i < n; i++) {
        float norm = (row[i] + each) + part[i];
        out[i] = norm > 0.0F ? norm : 0.0F;
    }
}

/* forward (b, lo, hi), back (hi, b, lo), in the same arithmetic. */
static void fill_three(nq_trellis *t) {
    norm_parts p;
    unsigned n = t->lanes;
    make_parts(&p, t);
    for (unsigned b = 0; b < n; b++) {
        const float *ah = p.ah + (size_t)b * n;
        const float *ac = p.ac + (size_t)b * n;
        for (unsigned i = 0; i < n; i++) {
            sum_line(t->forward + ((size_t)b * n + i) * n, ah, ac[i], p.ch + (size_t)i * n, n);
            sum_line(t->back + ((size_t)i * n + b) * n, ac, ah[i], p.hc + (size_t)i * n, n);
        }
    }
}

/* (K1, K2), or (1, K) of one level. */
static void fill_product(nq_trellis *t) {
    static const float zero[NQ_MAX_D];
    const nq_scheme *s = &t->scheme;
    unsigned row_level = s->levels - 1;
    unsigned n = s->k[s->field[row_level]];
    float first[NQ_MAX_D] = {0};
    for (unsigned a = 0; a < (s->levels == 2 ? s->k[0] : 1); a++) {
        if (s->levels == 2) {
            take(first, t, 0, a, false);
        }
        norms(t->forward + (size_t)a * n, first, t->seen + offset_of(t, row_level), zero, s->d, n);
    }
}

void nq_trellis_metric(nq_trellis *t, const float *r) {
    for (unsigned l = 0; l < t->scheme.levels; l++) {
        apply_metric(t, l, t->scheme.d == 1 ? NULL : r);
    }
    if (!is_sliding(&t->scheme)) {
        fill_product(t);
    } else if (t->scheme.levels == 3) {
        fill_three(t);
    } else {
        fill_two(t);
    }
}

novaq_status nq_trellis_open(nq_trellis *out, const nq_scheme *s, const float *values,
                             novaq_error *err) {
    *out = (nq_trellis){.scheme = *s};
    if (is_sliding(s) && s->k[0] > 16) {
        return nq_fail(err, NOVAQ_E_UNSUPPORTED, "sliding codes have at most 16 symbols, not %u",
                       s->k[0]);
    }
    out->lanes = s->k[0] <= 4 ? 4 : s->k[0] <= 8 ? 8 : s->k[0] <= 16 ? 16 : 256;
    uint64_t count = nq_level_offset(s, s->levels);
    uint64_t shown = offset_of(out, s->levels);
    uint64_t pairs = pair_count(out);
    novaq_status st = nq_alloc(&out->values, count, sizeof(float), err);
    st = st != NOVAQ_OK ? st : nq_alloc(&out->seen, shown, sizeof(float), err);
    st = st != NOVAQ_OK ? st : nq_alloc(&out->dual, shown, sizeof(float), err);
    st = st != NOVAQ_OK ? st : nq_alloc(&out->forward, pairs, sizeof(float), err);
    st = st != NOVAQ_OK ? st : nq_alloc(&out->back, is_sliding(s) ? pairs : 0, sizeof(float), err);
    if (st != NOVAQ_OK) {
        nq_trellis_close(out);
        return st;
    }
    memcpy(out->values, values, count * sizeof(float));
    nq_trellis_metric(out, NULL);
    return NOVAQ_OK;
}

novaq_status nq_trellis_clone(nq_trellis *out, const nq_trellis *t, novaq_error *err) {
    NQ_TRY(nq_trellis_open(out, &t->scheme, t->values, err));
    uint64_t shown = offset_of(t, t->scheme.levels);
    uint64_t pairs = pair_count(t);
    memcpy(out->seen, t->seen, shown * sizeof(float));
    memcpy(out->dual, t->dual, shown * sizeof(float));
    memcpy(out->forward, t->forward, pairs * sizeof(float));
    memcpy(out->back, t->back, (is_sliding(&t->scheme) ? pairs : 0) * sizeof(float));
    return NOVAQ_OK;
}

void nq_trellis_close(nq_trellis *t) {
    nq_free(t->values);
    nq_free(t->seen);
    nq_free(t->dual);
    nq_free(t->forward);
    nq_free(t->back);
    *t = (nq_trellis){0};
}

/* ---- coding ------------------------------------------------------------------- */

/* Floats of history of one chain. */
static uint64_t history_floats(const nq_trellis *t, uint64_t len) {
    return len * t->lanes * (t->scheme.levels == 3 ? t->lanes : 1);
}

static unsigned chains_together(const nq_trellis *t, uint64_t len) {
    return TOGETHER * history_floats(t, len) * sizeof(float) <= TWO_AT_MOST ? TOGETHER : 1;
}

uint64_t nq_trellis_scratch(const nq_trellis *t, uint64_t len) {
    uint64_t floats = chains_together(t, len) * history_floats(t, len);
    return is_sliding(&t->scheme) ? floats * sizeof(float) + 64 : 0;
}

static void encode_sliding(const nq_kern *kern, uint8_t *const *symbols, const nq_trellis *t,
                           const float *const *x, uint64_t len, const float *const *ratio,
                           uint64_t chains, void *scratch) {
    nq_path path = {.lanes = t->lanes,
                    .levels = t->scheme.levels,
                    .d = t->scheme.d,
                    .dual = t->dual,
                    .forward = t->forward,
                    .back = t->back};
    /* Rows of history on cache lines of their own. */
    uint8_t *aligned = (uint8_t *)scratch + (64 - (uintptr_t)scratch % 64) % 64;
    float *history = (float *)(void *)aligned;
    unsigned together = chains_together(t, len);
    for (uint64_t c = 0; c < chains; c += together) {
        unsigned n = chains - c < together ? (unsigned)(chains - c) : together;
        nq_path_chain part[TOGETHER];
        for (unsigned i = 0; i < n; i++) {
            part[i] = (nq_path_chain){.symbols = symbols[c + i],
                                      .x = x[c + i],
                                      .ratio = ratio == NULL ? NULL : ratio[c + i],
                                      .history = history + i * history_floats(t, len)};
        }
        kern->shortest_path(&path, part, n, len);
        for (unsigned i = 0; i < n && t->scheme.k[0] < t->lanes; i++) {
            /* Padding is never chosen unless costs overflow; even then every symbol
             * must be one that has entries. */
            for (uint64_t row = 0; row < len; row++) {
                uint8_t *s = symbols[c + i] + row;
                *s = *s < t->scheme.k[0] ? *s : 0;
            }
        }
    }
}

/* p[i] = -2 <x, entry i>. */
static void products(float *p, const float *x, const float *dual, unsigned d, unsigned n) {
    for (unsigned i = 0; i < n; i++) {
        p[i] = x[0] * dual[i];
    }
    for (unsigned c = 1; c < d; c++) {
        for (unsigned i = 0; i < n; i++) {
            p[i] += x[c] * dual[(size_t)c * n + i];
        }
    }
}

static void encode_product(const nq_kern *kern, uint8_t *symbols, const nq_trellis *t,
                           const float *x, uint64_t len) {
    const nq_scheme *s = &t->scheme;
    bool two = s->levels == 2;
    unsigned ka = two ? s->k[0] : 1;
    unsigned kb = two ? s->k[s->field[1]] : s->k[0];
    const float *dual = t->dual + (two ? offset_of(t, 1) : 0);
    float pa[256] = {0};
    float pb[256];
    for (uint64_t row = 0; row < len; row++) {
        unsigned best[2] = {0, 0};
        if (two) {
            products(pa, x + row * s->d, t->dual, s->d, ka);
        }
        products(pb, x + row * s->d, dual, s->d, kb);
        kern->nearest_pair(best, pa, pb, t->forward, ka, kb);
        symbols[row] = (uint8_t)best[two ? 0 : 1];
        if (two) {
            symbols[len + row] = (uint8_t)best[1];
        }
    }
}

void nq_trellis_encode_with(const nq_kern *kern, uint8_t *const *symbols, const nq_trellis *t,
                            const float *const *x, uint64_t len, const float *const *ratio,
                            uint64_t chains, void *scratch) {
    if (is_sliding(&t->scheme)) {
        encode_sliding(kern, symbols, t, x, len, ratio, chains, scratch);
        return;
    }
    for (uint64_t c = 0; c < chains; c++) {
        encode_product(kern, symbols[c], t, x[c], len);
    }
}

void nq_trellis_encode_many(uint8_t *const *symbols, const nq_trellis *t, const float *const *x,
                            uint64_t len, const float *const *ratio, uint64_t chains,
                            void *scratch) {
    nq_trellis_encode_with(nq_kern_best(), symbols, t, x, len, ratio, chains, scratch);
}

void nq_trellis_encode(uint8_t *symbols, const nq_trellis *t, const float *x, uint64_t len,
                       const float *ratio, void *scratch) {
    nq_trellis_encode_many(&symbols, t, &x, len, &ratio, 1, scratch);
}

void nq_trellis_decode(float *out, const nq_trellis *t, const uint8_t *symbols, uint64_t len) {
    const nq_scheme *s = &t->scheme;
    memset(out, 0, len * s->d * sizeof(float));
    for (unsigned l = 0; l < s->levels; l++) {
        const float *entries = t->values + nq_level_offset(s, l);
        const uint8_t *field = symbols + s->field[l] * len;
        for (uint64_t row = 0; row < len; row++) {
            unsigned symbol = row >= s->lag[l] ? field[row - s->lag[l]] : 0;
            for (unsigned v = 0; v < s->d; v++) {
                out[row * s->d + v] += entries[(size_t)symbol * s->d + v];
            }
        }
    }
}
