/* codebook.c - see codebook.h. Everything here is plain arithmetic in a fixed
 * order (no BLAS, no libm transcendental), so that artifacts are the same on
 * every CPU. */
#include "quant/codebook.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "base/half.h"
#include "base/mem.h"
#include "base/rng.h"
#include "quant/gaussian_codebooks.h"
#include "quant/gaussian_table.h"
#include "quant/trellis.h"

/* Pulls entries towards their last value: decides directions the data leave
 * open (unused entries, a constant moved between levels). In counts. */
#define RIDGE 1e-2

static uint64_t value_count(const nq_scheme *s) { return nq_level_offset(s, s->levels); }

static novaq_status codebook_alloc(nq_codebook *cb, const nq_scheme *s, novaq_error *err) {
    *cb = (nq_codebook){.scheme = *s};
    novaq_status st = nq_alloc(&cb->entries, value_count(s), 1, err);
    if (st == NOVAQ_OK) {
        st = nq_alloc(&cb->values, value_count(s), sizeof(float), err);
    }
    if (st != NOVAQ_OK) {
        nq_codebook_close(cb);
    }
    return st;
}

void nq_codebook_close(nq_codebook *cb) {
    nq_free(cb->entries);
    nq_free(cb->values);
    *cb = (nq_codebook){0};
}

void nq_gaussian_fill(float *x, uint64_t n, uint64_t seed, uint64_t stream) {
    for (uint64_t i = 0; i < n; i++) {
        x[i] = (float)nq_normal(seed, stream, i);
    }
}

float nq_level_peak(const float *values, const nq_scheme *s, unsigned l) {
    float peak = 0;
    for (uint64_t i = nq_level_offset(s, l); i < nq_level_offset(s, l + 1); i++) {
        float a = fabsf(values[i]);
        peak = a > peak ? a : peak;
    }
    return peak;
}

/* Rounds values to int8 * scale such that any sum over levels stays within
 * +-127, and writes the rounded values back. */
static void round_codebook(nq_codebook *cb) {
    const nq_scheme *s = &cb->scheme;
    float peak = 0;
    for (unsigned l = 0; l < s->levels; l++) {
        peak += nq_level_peak(cb->values, s, l);
    }
    /* Half a step a level is lost to rounding up; binary16 rounds the step. */
    float step = peak > 0 ? peak / (127.0F - (float)s->levels) : 1.0F;
    cb->scale = nq_f32_to_f16(step);
    float scale = nq_f16_to_f32(cb->scale);
    if (!(scale > 0)) {
        scale = 1.0F;
        cb->scale = nq_f32_to_f16(scale);
    }
    for (uint64_t i = 0; i < value_count(s); i++) {
        float q = rintf(cb->values[i] / scale);
        q = q > 127 ? 127 : q < -127 ? -127 : q;
        cb->entries[i] = (int8_t)q;
        cb->values[i] = q * scale;
    }
}

/* ---- seeding ------------------------------------------------------------- */

static double sq_distance(const float *a, const float *b, unsigned d) {
    double sum = 0;
    for (unsigned v = 0; v < d; v++) {
        double r = (double)a[v] - (double)b[v];
        sum += r * r;
    }
    return sum;
}

/* k-means++ (Arthur & Vassilvitskii 2007) over the subvectors of `x` (n, d). */
static novaq_status seed_level(float *entries, unsigned k, unsigned d, const float *x, uint64_t n,
                               uint64_t seed, novaq_error *err) {
    double *nearest = NULL;
    NQ_TRY(nq_alloc(&nearest, n, sizeof *nearest, err));
    for (unsigned b = 0; b < k; b++) {
        double total = 0;
        for (uint64_t i = 0; i < n; i++) {
            double dist = b == 0 ? 1.0 : sq_distance(x + i * d, entries + (size_t)(b - 1) * d, d);
            nearest[i] = b <= 1 || dist < nearest[i] ? dist : nearest[i];
            total += nearest[i];
        }
        double target = nq_uniform(seed, 7, b) * total;
        uint64_t pick = n - 1;
        for (uint64_t i = 0; i < n; i++) {
            target -= nearest[i];
            if (target < 0) {
                pick = i;
                break;
            }
        }
        memcpy(entries + (size_t)b * d, x + pick * d, d * sizeof(float));
    }
    nq_free(nearest);
    return NOVAQ_OK;
}

/* Subtracts from each subvector of rest (n, d) its nearest entry. */
static void subtract_nearest(float *rest, uint64_t n, const float *entries, unsigned k,
                             unsigned d) {
    for (uint64_t i = 0; i < n; i++) {
        unsigned best = 0;
        double smallest = DBL_MAX;
        for (unsigned b = 0; b < k; b++) {
            double dist = sq_distance(rest + i * d, entries + (size_t)b * d, d);
            if (dist < smallest) {
                smallest = dist;
                best = b;
            }
        }
        for (unsigned v = 0; v < d; v++) {
            rest[i * d + v] -= entries[(size_t)best * d + v];
        }
    }
}

/* How a start is made, by nq_train_options.start or seed % START_KINDS; tools/train_codebooks.c
 * tries all and keeps the best (k16d1l2 on unit Gaussian data: 0.0082 from a residual start, 0.0067
 * from shared ones). */
enum { START_RESIDUAL, START_SHARED, START_DRAWN, START_KINDS };

/* Entries of one level for a start of the given kind. */
static novaq_status seed_entries(float *entries, unsigned k, unsigned d, const float *x, uint64_t n,
                                 uint64_t seed, int kind, novaq_error *err) {
    if (kind != START_DRAWN) {
        return seed_level(entries, k, d, x, n, seed, err);
    }
    for (unsigned b = 0; b < k; b++) {
        uint64_t pick = nq_hash3(seed, 11, b) % n;
        memcpy(entries + (size_t)b * d, x + pick * d, d * sizeof(float));
    }
    return NOVAQ_OK;
}

/* RESIDUAL: level 1 by k-means++, each further level by k-means++ on what nearest
 * coding leaves (the paper's order). SHARED and DRAWN: every level comes from the
 * data itself (by k-means++ or at random), scaled so that their sum has the
 * data's variance. */
static novaq_status seed_codebook(nq_codebook *cb, const nq_chains *chains,
                                  const nq_train_options *opt, novaq_error *err) {
    uint64_t seed = opt->seed;
    const nq_scheme *s = &cb->scheme;
    uint64_t n = chains->count * chains->len;
    uint64_t use = n < 16384 ? n : 16384;
    uint64_t stride = n / use;
    bool sliding = s->fields == 1 && s->levels > 1;
    int kind = sliding ? (int)(seed % START_KINDS) : START_RESIDUAL;
    if (opt->start != 0) {
        kind = (int)((opt->start - 1) % START_KINDS);
    }
    float share = kind == START_RESIDUAL ? 1.0F : 1.0F / sqrtf((float)s->levels);
    float *rest = NULL;
    NQ_TRY(nq_alloc(&rest, use * s->d, sizeof(float), err));
    for (uint64_t i = 0; i < use; i++) {
        memcpy(rest + i * s->d, chains->x + i * stride * s->d, s->d * sizeof(float));
    }
    novaq_status st = NOVAQ_OK;
    for (unsigned l = 0; st == NOVAQ_OK && l < s->levels; l++) {
        float *entries = cb->values + nq_level_offset(s, l);
        unsigned k = s->k[s->field[l]];
        st = seed_entries(entries, k, s->d, rest, use, seed + 977 * (l + 1), kind, err);
        if (st == NOVAQ_OK && kind == START_RESIDUAL) {
            subtract_nearest(rest, use, entries, k, s->d);
        }
        for (uint64_t v = 0; v < (uint64_t)k * s->d; v++) {
            entries[v] *= share;
        }
    }
    nq_free(rest);
    return st;
}

/* ---- least squares --------------------------------------------------------- */

typedef struct normal_equations {
    unsigned n; /* entries of all levels */
    unsigned d;
    double *a;     /* (n, n) weighted co-occurrence counts */
    double *b;     /* (n, d) weighted sums of data */
    double weight; /* sum of weights */
    double sq;     /* weighted squared error of the coding that filled it */
} normal_equations;

static novaq_status equations_open(normal_equations *e, const nq_scheme *s, novaq_error *err) {
    *e = (normal_equations){.n = (unsigned)(value_count(s) / s->d), .d = s->d};
    NQ_TRY(nq_alloc(&e->a, (uint64_t)e->n * e->n, sizeof(double), err));
    novaq_status st = nq_alloc(&e->b, (uint64_t)e->n * e->d, sizeof(double), err);
    if (st != NOVAQ_OK) {
        nq_free(e->a);
    }
    return st;
}

static void equations_close(normal_equations *e) {
    nq_free(e->a);
    nq_free(e->b);
}

static void add_chain(normal_equations *e, const nq_trellis *t, const uint8_t *symbols,
                      const float *x, const float *weight, uint64_t len) {
    const nq_scheme *s = &t->scheme;
    unsigned first[NQ_MAX_LEVELS];
    for (unsigned l = 0; l < s->levels; l++) {
        first[l] = (unsigned)(nq_level_offset(s, l) / s->d);
    }
    for (uint64_t row = 0; row < len; row++) {
        double w = weight == NULL ? 1.0 : (double)weight[row];
        unsigned at[NQ_MAX_LEVELS];
        for (unsigned l = 0; l < s->levels; l++) {
            const uint8_t *field = symbols + s->field[l] * len;
            at[l] = first[l] + (row >= s->lag[l] ? field[row - s->lag[l]] : 0);
        }
        for (unsigned l = 0; l < s->levels; l++) {
            for (unsigned m = 0; m < s->levels; m++) {
                e->a[(size_t)at[l] * e->n + at[m]] += w;
            }
        }
        for (unsigned v = 0; v < s->d; v++) {
            double xv = (double)x[row * s->d + v];
            double r = xv;
            for (unsigned l = 0; l < s->levels; l++) {
                e->b[(size_t)at[l] * e->d + v] += w * xv;
                r -= (double)t->values[(size_t)at[l] * s->d + v];
            }
            e->sq += w * r * r;
        }
        e->weight += w;
    }
}

/* In-place Cholesky of the lower triangle of a (n, n), positive definite. */
static void cholesky(double *a, unsigned n) {
    for (unsigned j = 0; j < n; j++) {
        for (unsigned i = j; i < n; i++) {
            double sum = a[(size_t)i * n + j];
            for (unsigned k = 0; k < j; k++) {
                sum -= a[(size_t)i * n + k] * a[(size_t)j * n + k];
            }
            a[(size_t)i * n + j] =
                i == j ? sqrt(sum > 1e-300 ? sum : 1e-300) : sum / a[(size_t)j * n + j];
        }
    }
}

static void cholesky_solve(const double *a, unsigned n, double *b, unsigned d, unsigned column) {
    for (unsigned i = 0; i < n; i++) {
        double sum = b[(size_t)i * d + column];
        for (unsigned k = 0; k < i; k++) {
            sum -= a[(size_t)i * n + k] * b[(size_t)k * d + column];
        }
        b[(size_t)i * d + column] = sum / a[(size_t)i * n + i];
    }
    for (unsigned i = n; i-- > 0;) {
        double sum = b[(size_t)i * d + column];
        for (unsigned k = i + 1; k < n; k++) {
            sum -= a[(size_t)k * n + i] * b[(size_t)k * d + column];
        }
        b[(size_t)i * d + column] = sum / a[(size_t)i * n + i];
    }
}

/* values = argmin sum w |x - sum_k C_k|^2 + ridge |C - C_old|^2 */
static void solve_codebook(float *values, normal_equations *e, uint64_t samples) {
    double ridge = RIDGE * e->weight / (double)(samples > 0 ? samples : 1);
    ridge = ridge > 0 ? ridge : RIDGE;
    for (unsigned i = 0; i < e->n; i++) {
        e->a[(size_t)i * e->n + i] += ridge;
        for (unsigned v = 0; v < e->d; v++) {
            e->b[(size_t)i * e->d + v] += ridge * (double)values[(size_t)i * e->d + v];
        }
    }
    cholesky(e->a, e->n);
    for (unsigned v = 0; v < e->d; v++) {
        cholesky_solve(e->a, e->n, e->b, e->d, v);
    }
    for (uint64_t i = 0; i < (uint64_t)e->n * e->d; i++) {
        values[i] = (float)e->b[i];
    }
}

/* Codes all chains with `values`; fills the equations and the mean error. */
static novaq_status code_chains(double *mse, normal_equations *e, const nq_scheme *s,
                                const float *values, const nq_chains *c, novaq_error *err) {
    nq_trellis t;
    NQ_TRY(nq_trellis_open(&t, s, values, err));
    uint8_t *symbols = NULL;
    uint8_t *scratch = NULL;
    float *ratio = NULL;
    novaq_status st = nq_alloc(&symbols, c->len, s->fields, err);
    if (st == NOVAQ_OK) {
        st = nq_alloc(&scratch, nq_trellis_scratch(&t, c->len) + 1, 1, err);
    }
    if (st == NOVAQ_OK) {
        st = nq_alloc(&ratio, c->len, sizeof(float), err);
    }
    memset(e->a, 0, (size_t)e->n * e->n * sizeof(double));
    memset(e->b, 0, (size_t)e->n * e->d * sizeof(double));
    e->sq = 0;
    e->weight = 0;
    for (uint64_t i = 0; st == NOVAQ_OK && i < c->count; i++) {
        const float *x = c->x + i * c->len * s->d;
        const float *w = c->weight == NULL ? NULL : c->weight + i * c->len;
        for (uint64_t row = 1; w != NULL && row < c->len; row++) {
            ratio[row] = w[row - 1] / w[row];
        }
        nq_trellis_encode(symbols, &t, x, c->len, w == NULL ? NULL : ratio, scratch);
        add_chain(e, &t, symbols, x, w, c->len);
    }
    if (st == NOVAQ_OK) {
        *mse = e->weight > 0 ? e->sq / e->weight / s->d : 0;
    }
    nq_free(symbols);
    nq_free(scratch);
    nq_free(ratio);
    nq_trellis_close(&t);
    return st;
}

novaq_status nq_codebook_mse(double *mse, const nq_codebook *cb, const nq_chains *chains,
                             novaq_error *err) {
    normal_equations e;
    NQ_TRY(equations_open(&e, &cb->scheme, err));
    novaq_status st = code_chains(mse, &e, &cb->scheme, cb->values, chains, err);
    equations_close(&e);
    return st;
}

static void copy_codebook(nq_codebook *to, const nq_codebook *from) {
    uint64_t n = value_count(&from->scheme);
    memcpy(to->entries, from->entries, n);
    memcpy(to->values, from->values, n * sizeof(float));
    to->scale = from->scale;
}

/* The rounds proper, on unrounded values: rounding inside the loop would stop it
 * at the size of a step. cb goes from start values to trained, rounded ones. */
static novaq_status train_rounds(nq_codebook *cb, const nq_chains *chains,
                                 const nq_train_options *opt, double *mse, novaq_error *err) {
    const nq_scheme *s = &cb->scheme;
    normal_equations e;
    NQ_TRY(equations_open(&e, s, err));
    double last = DBL_MAX;
    novaq_status st = NOVAQ_OK;
    for (unsigned round = 0; round < opt->rounds; round++) {
        st = code_chains(mse, &e, s, cb->values, chains, err);
        if (st != NOVAQ_OK || *mse == 0) {
            break;
        }
        solve_codebook(cb->values, &e, chains->count * chains->len);
        if (last - *mse < opt->tolerance * last) {
            break;
        }
        last = *mse;
    }
    round_codebook(cb);
    if (st == NOVAQ_OK) {
        st = code_chains(mse, &e, s, cb->values, chains, err);
    }
    equations_close(&e);
    return st;
}

novaq_status nq_codebook_train(nq_codebook *cb, const nq_scheme *s, const nq_chains *chains,
                               const nq_train_options *opt, double *mse, novaq_error *err) {
    bool fresh = cb->entries == NULL;
    nq_codebook work = {0};
    NQ_TRY(codebook_alloc(&work, s, err));
    double before = DBL_MAX;
    double after = DBL_MAX;
    novaq_status st;
    if (fresh) {
        st = seed_codebook(&work, chains, opt, err);
    } else {
        copy_codebook(&work, cb);
        st = nq_codebook_mse(&before, cb, chains, err);
    }
    if (st == NOVAQ_OK) {
        st = train_rounds(&work, chains, opt, &after, err);
    }
    if (st == NOVAQ_OK && (fresh || after < before)) {
        nq_codebook_close(cb);
        *cb = work;
        work = (nq_codebook){0};
    }
    nq_codebook_close(&work);
    if (mse != NULL) {
        *mse = after < before ? after : before;
    }
    return st;
}

/* ---- unit Gaussian codebooks ----------------------------------------------- */

static const nq_gaussian_codebook *find_gaussian(const char *name) {
    for (size_t i = 0; i < NQ_GAUSSIAN_COUNT; i++) {
        if (strcmp(nq_gaussian_codebooks[i].name, name) == 0) {
            return &nq_gaussian_codebooks[i];
        }
    }
    return NULL;
}

bool nq_gaussian_mse(double *mse, const char *scheme_name) {
    const nq_gaussian_codebook *g = find_gaussian(scheme_name);
    *mse = g != NULL ? (double)g->mse : 0;
    return g != NULL;
}

static void load_gaussian(nq_codebook *out, const nq_gaussian_codebook *g) {
    float scale = nq_f16_to_f32(g->scale);
    out->scale = g->scale;
    for (uint64_t v = 0; v < value_count(&out->scheme); v++) {
        out->entries[v] = nq_gaussian_entries[g->first + v];
        out->values[v] = (float)out->entries[v] * scale;
    }
}

novaq_status nq_codebook_gaussian(nq_codebook *out, const nq_scheme *s, novaq_error *err) {
    char name[NQ_SCHEME_NAME];
    const nq_gaussian_codebook *g = find_gaussian(nq_scheme_name(name, s));
    *out = (nq_codebook){0};
    if (g != NULL) {
        NQ_TRY(codebook_alloc(out, s, err));
        load_gaussian(out, g);
        return NOVAQ_OK;
    }
    /* Enough samples for every entry of every level to be seen often. */
    uint64_t entries = value_count(s) / s->d;
    uint64_t count = entries * 128 / 256 < 64 ? 64 : entries * 128 / 256;
    float *x = NULL;
    NQ_TRY(nq_alloc(&x, count * 256 * s->d, sizeof(float), err));
    nq_gaussian_fill(x, count * 256 * s->d, 1, nq_stream(name));
    nq_chains chains = {.x = x, .count = count, .len = 256};
    nq_train_options opt = {.rounds = 30, .tolerance = 1e-4, .seed = 1};
    novaq_status st = nq_codebook_train(out, s, &chains, &opt, NULL, err);
    nq_free(x);
    return st;
}
