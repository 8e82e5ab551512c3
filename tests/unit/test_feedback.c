/* test_feedback.c - coding with errors fed forward, against the recursion written
 * straight from its definition in double: t_J = w_J + sum over K < J of
 * (w_K - q_K) M_KJ, with h = M D MT, M unit upper triangular in blocks of d. */
#include "metric_util.h"

#include <cblas.h>

#include "quant/feedback.h"

typedef struct problem {
    const char *scheme;
    uint64_t rows, cols;
    uint32_t segment_rows;
    bool by_energy;
} problem;

static const problem PROBLEMS[] = {
    {"k16d1l2", 40, 24, 64, false}, {"k16d2l3", 40, 48, 64, false}, {"k8d3l2", 33, 47, 16, false},
    {"k16d2l2", 50, 23, 16, true},  {"k4d3l3", 20, 61, 7, true},    {"pq16x4d2", 37, 31, 16, false},
    {"pq8x8d3", 20, 32, 64, true},  {"k16d4l1", 24, 50, 10, false}, {"k16d64l2", 12, 150, 8, false},
    {"k4d1l3", 3, 100, 1, false},   {"pq8d1", 1, 1, 4, false},      {"k8d2l3", 2, 1, 64, true},
};
#define PROBLEM_COUNT (sizeof PROBLEMS / sizeof PROBLEMS[0])

/* One coded matrix: what went in and what came out. */
typedef struct coding {
    const problem *p;
    nq_scheme s;
    nq_metric metric;
    nq_codebook book;
    nq_trellis trellis;
    float *w, *weight;
    nq_feedback f;
    uint64_t segments;
} coding;

static void open_coding(coding *c, const problem *p, bool identity) {
    *c = (coding){.p = p, .s = scheme_named(p->scheme)};
    nq_metric_options o = {
        .damping = identity ? 0 : 0.01, .by_energy = p->by_energy, .order_block = c->s.d};
    float *x = correlated(300, p->cols, 21);
    metric_of(&c->metric, identity ? NULL : x, 300, p->cols, &o);
    nq_free(x);
    c->w = floats(p->rows * p->cols);
    c->weight = floats(p->rows);
    nq_gaussian_fill(c->w, p->rows * p->cols, 31, p->cols);
    for (uint64_t r = 0; r < p->rows; r++) {
        c->weight[r] = (float)(0.05 + 3 * nq_uniform(32, r, 1) * nq_uniform(32, r, 2));
    }
    float *data = floats(64 * 32 * c->s.d);
    nq_gaussian_fill(data, 64 * 32 * c->s.d, 33, 1);
    nq_chains chains = {.x = data, .count = 64, .len = 32};
    nq_train_options train = {.rounds = 3, .tolerance = 1e-3, .seed = 1};
    assert_int_equal(nq_codebook_train(&c->book, &c->s, &chains, &train, NULL, NULL), NOVAQ_OK);
    nq_free(data);
    assert_int_equal(nq_trellis_open(&c->trellis, &c->s, c->book.values, NULL), NOVAQ_OK);
    c->segments = (p->rows + p->segment_rows - 1) / p->segment_rows;
    uint64_t stride = nq_scheme_row_symbols(&c->s, p->cols);
    c->f = (nq_feedback){.metric = &c->metric,
                         .trellis = &c->trellis,
                         .w = c->w,
                         .weight = c->weight,
                         .factor = floats(p->rows),
                         .symbols = take_zeroed(p->rows * c->s.fields, stride),
                         .output = doubles(c->segments * 2),
                         .rows = p->rows,
                         .stride = stride,
                         .segment_rows = p->segment_rows};
}

static void close_coding(coding *c) {
    nq_free(c->w);
    nq_free(c->weight);
    nq_free(c->f.factor);
    nq_free(c->f.symbols);
    nq_free(c->f.output);
    nq_trellis_close(&c->trellis);
    nq_codebook_close(&c->book);
    nq_metric_close(&c->metric);
}

static void code(coding *c, bool feed, bool fit, unsigned sweeps) {
    c->f.feed = feed;
    c->f.fit_scales = fit;
    c->f.sweeps = sweeps;
    uint64_t bytes = nq_feedback_scratch(&c->f);
    void *scratch = aligned_alloc(64, (bytes + 63) / 64 * 64);
    assert_non_null(scratch);
    memset(scratch, 0xFF, (bytes + 63) / 64 * 64); /* NaN: nothing is read before written */
    for (uint64_t g = c->segments; g-- > 0;) {
        nq_feedback_segment(&c->f, g, 0, scratch);
    }
    free(scratch);
}

static uint64_t segment_length(const coding *c, uint64_t g) {
    uint64_t left = c->p->rows - g * c->p->segment_rows;
    return left < c->p->segment_rows ? left : c->p->segment_rows;
}

static uint64_t column_at(const nq_metric *m, uint64_t k) {
    return m->order != NULL ? m->order[k] : k;
}

/* q (rows, cols) as symbols decode, columns in coding order, without factors. */
static double *decoded(const coding *c, const uint8_t *symbols) {
    uint64_t n = c->p->cols;
    unsigned d = c->s.d;
    double *q = doubles(c->p->rows * n);
    double *plain = doubles(c->p->rows * n);
    for (uint64_t g = 0; g < c->segments; g++) {
        uint64_t len = segment_length(c, g);
        uint64_t r0 = g * c->p->segment_rows;
        uint8_t *chain = take_zeroed(len, c->s.fields);
        float *out = floats(len * d);
        for (uint64_t sub = 0; sub < (n + d - 1) / d; sub++) {
            for (uint64_t i = 0; i < len * c->s.fields; i++) {
                chain[i] = symbols[((r0 + i % len) * c->s.fields + i / len) * c->f.stride + sub];
                assert_true(chain[i] < c->s.k[i / len]);
            }
            nq_trellis_decode(out, &c->trellis, chain, len);
            for (uint64_t i = 0; i < len * d; i++) {
                uint64_t col = sub * d + i % d;
                if (col < n) {
                    plain[(r0 + i / d) * n + col] = (double)out[i];
                }
            }
        }
        nq_free(chain);
        nq_free(out);
    }
    for (uint64_t i = 0; i < c->p->rows * n; i++) {
        q[i] = plain[i / n * n + column_at(&c->metric, i % n)];
    }
    nq_free(plain);
    return q;
}

/* (rows, cols) in coding order. */
static double *sorted_weights(const coding *c) {
    uint64_t n = c->p->cols;
    double *w = doubles(c->p->rows * n);
    for (uint64_t i = 0; i < c->p->rows * n; i++) {
        w[i] = (double)c->w[i / n * n + column_at(&c->metric, i % n)];
    }
    return w;
}

/* sum of weight (w - factor q) h (w - factor q)T over the rows of one segment; with
 * q NULL of weight w h wT. */
static double true_loss(const coding *c, uint64_t g, const double *q, const float *factor) {
    uint64_t n = c->p->cols;
    double *w = sorted_weights(c);
    double sum = 0;
    for (uint64_t t = 0; t < segment_length(c, g); t++) {
        uint64_t r = g * c->p->segment_rows + t;
        double *e = w + r * n;
        for (uint64_t k = 0; q != NULL && k < n; k++) {
            e[k] -= (factor != NULL ? (double)factor[r] : 1.0) * q[r * n + k];
        }
        sum += (double)c->weight[r] * energy(e, c->metric.h, e, n);
    }
    nq_free(w);
    return sum;
}

static double total_loss(const coding *c, const double *q, const float *factor) {
    double sum = 0;
    for (uint64_t g = 0; g < c->segments; g++) {
        sum += true_loss(c, g, q, factor);
    }
    return sum;
}

static void check_telemetry(const coding *c, const char *what) {
    double *q = decoded(c, c->f.symbols);
    for (uint64_t g = 0; g < c->segments; g++) {
        double error = true_loss(c, g, q, c->f.factor);
        double size = true_loss(c, g, NULL, NULL);
        if (!(fabs(c->f.output[g * 2] - error) <= 1e-3 * error + 1e-6 * size) ||
            !(fabs(c->f.output[g * 2 + 1] - size) <= 1e-4 * size)) {
            fail_msg("%s, %s, segment %llu: %g of %g, truly %g of %g", c->p->scheme, what,
                     (unsigned long long)g, c->f.output[g * 2], c->f.output[g * 2 + 1], error,
                     size);
        }
    }
    nq_free(q);
}

/* ---- the reference -------------------------------------------------------------- */

typedef struct blocks {
    double *m; /* (n, n): unit upper in blocks */
    double *d; /* (n, n): its diagonal blocks */
} blocks;

static uint64_t width_at(uint64_t k, uint64_t n, unsigned d) { return n - k < d ? n - k : d; }

/* h = M D MT, blocks from the last to the first: D_J what is left of h_JJ, M_KJ =
 * h_KJ D_J^-1, h_KL -= M_KJ D_J M_LJT. */
static blocks factorise(const nq_metric *metric, unsigned d) {
    uint64_t n = metric->cols;
    blocks b = {doubles(n * n), doubles(n * n)};
    double *h = doubles(n * n);
    for (uint64_t i = 0; i < n * n; i++) {
        h[i] = (double)metric->h[i];
    }
    for (uint64_t j = (n - 1) / d + 1; j-- > 0;) {
        uint64_t k = j * d;
        uint64_t width = width_at(k, n, d);
        double *own = doubles(width * width);
        double *column = doubles((k + 1) * width);
        for (uint64_t i = 0; i < width * width; i++) {
            own[i] = h[(k + i / width) * n + k + i % width];
            b.d[(k + i / width) * n + k + i % width] = own[i];
        }
        for (uint64_t i = 0; i < k * width; i++) {
            column[i] = h[i / width * n + k + i % width];
        }
        solve_rows(column, own, k, width);
        for (uint64_t i = 0; i < k * width; i++) {
            b.m[i / width * n + k + i % width] = column[i];
        }
        for (uint64_t r = 0; r < k; r++) {
            for (uint64_t s = 0; s < k; s++) {
                for (uint64_t v = 0; v < width; v++) {
                    h[r * n + s] -= column[r * width + v] * h[s * n + k + v];
                }
            }
        }
        nq_free(own);
        nq_free(column);
    }
    nq_free(h);
    return b;
}

/* r (d, d) upper with rT r = block (width, width) of m (n, n) at k, of mean
 * diagonal 1. */
static void root(float *r, const double *m, uint64_t n, uint64_t k, uint64_t width, unsigned d) {
    double a[64 * 64] = {0};
    double trace = 0;
    for (uint64_t i = 0; i < width; i++) {
        trace += m[(k + i) * n + k + i] / (double)width;
    }
    for (uint64_t i = 0; i < width; i++) {
        for (uint64_t j = i; j < width; j++) {
            double s = m[(k + i) * n + k + j] / trace;
            for (uint64_t l = 0; l < i; l++) {
                s -= a[l * d + i] * a[l * d + j];
            }
            a[i * d + j] = i == j ? sqrt(s) : s / a[i * d + i];
        }
    }
    for (uint64_t i = 0; i < (uint64_t)d * d; i++) {
        r[i] = (float)a[i];
    }
}

/* Codes block k of one segment for the targets t (len, width) of rows divided by
 * factor (NULL: as they are). */
static void code_chain(coding *c, nq_trellis *trellis, uint8_t *symbols, double *q, const double *t,
                       const float *factor, uint64_t g, uint64_t k, uint64_t width) {
    uint64_t len = segment_length(c, g);
    uint64_t r0 = g * c->p->segment_rows;
    uint64_t n = c->p->cols;
    unsigned d = c->s.d;
    float *x = floats(len * d);
    float *ratio = floats(len);
    uint8_t *chain = take_zeroed(len, c->s.fields);
    void *scratch = take_zeroed(nq_trellis_scratch(trellis, len), 1);
    for (uint64_t i = 0; i < len; i++) {
        double size[2] = {0, 0}; /* what an error counts in the row above and in this one */
        for (uint64_t up = 0; up < 2 && i > 0; up++) {
            double f = factor != NULL ? (double)factor[r0 + i - up] : 1;
            size[up] = (double)c->weight[r0 + i - up] * f * f;
        }
        ratio[i] = i > 0 ? (float)(size[1] / size[0]) : 1.0F;
        for (uint64_t v = 0; v < width; v++) {
            x[i * d + v] = (float)t[i * width + v];
        }
    }
    nq_trellis_encode(chain, trellis, x, len, ratio, scratch);
    nq_trellis_decode(x, trellis, chain, len);
    uint64_t sub = column_at(&c->metric, k) / d;
    for (uint64_t i = 0; i < len; i++) {
        for (uint64_t v = 0; v < width; v++) {
            q[(r0 + i) * n + k + v] = (double)x[i * d + v];
        }
        for (unsigned f = 0; f < c->s.fields; f++) {
            symbols[((r0 + i) * c->s.fields + f) * c->f.stride + sub] = chain[f * len + i];
        }
    }
    nq_free(x);
    nq_free(ratio);
    nq_free(chain);
    nq_free(scratch);
}

static uint8_t *reference(coding *c) {
    uint64_t n = c->p->cols;
    unsigned d = c->s.d;
    blocks b = factorise(&c->metric, d);
    double *w = sorted_weights(c);
    double *q = doubles(c->p->rows * n);
    double *t = doubles(c->p->segment_rows * (uint64_t)d);
    uint8_t *symbols = take_zeroed(c->p->rows * c->s.fields, c->f.stride);
    nq_trellis trellis;
    assert_int_equal(nq_trellis_clone(&trellis, &c->trellis, NULL), NOVAQ_OK);
    for (uint64_t g = 0; g < c->segments; g++) {
        for (uint64_t k = 0; k < n; k += d) {
            uint64_t width = width_at(k, n, d);
            float r[64 * 64];
            for (uint64_t i = 0; i < segment_length(c, g) * width; i++) {
                uint64_t row = g * c->p->segment_rows + i / width;
                t[i] = w[row * n + k + i % width];
                for (uint64_t from = 0; from < k; from++) {
                    t[i] += (w[row * n + from] - q[row * n + from]) * b.m[from * n + k + i % width];
                }
            }
            root(r, b.d, n, k, width, d);
            nq_trellis_metric(&trellis, r);
            code_chain(c, &trellis, symbols, q, t, NULL, g, k, width);
        }
    }
    nq_trellis_close(&trellis);
    nq_free(b.m);
    nq_free(b.d);
    nq_free(w);
    nq_free(q);
    nq_free(t);
    return symbols;
}

/* One more sweep over what c holds, with its factors: each block moved to where it is
 * best beside all others, q_J + (e H)_J H_JJ^-1, in order. */
static uint8_t *reference_sweep(coding *c) {
    uint64_t n = c->p->cols;
    unsigned d = c->s.d;
    double *w = sorted_weights(c);
    double *q = decoded(c, c->f.symbols);
    double *t = doubles(c->p->segment_rows * (uint64_t)d);
    uint8_t *symbols = take_zeroed(c->p->rows * c->s.fields, c->f.stride);
    double *h = doubles(n * n);
    nq_trellis trellis;
    assert_int_equal(nq_trellis_clone(&trellis, &c->trellis, NULL), NOVAQ_OK);
    for (uint64_t i = 0; i < n * n; i++) {
        h[i] = (double)c->metric.h[i];
    }
    for (uint64_t g = 0; g < c->segments; g++) {
        for (uint64_t k = 0; k < n; k += d) {
            uint64_t width = width_at(k, n, d);
            uint64_t len = segment_length(c, g);
            double *own = doubles(width * width);
            float r[64 * 64];
            for (uint64_t i = 0; i < width * width; i++) {
                own[i] = h[(k + i / width) * n + k + i % width];
            }
            for (uint64_t i = 0; i < len * width; i++) {
                uint64_t row = g * c->p->segment_rows + i / width;
                t[i] = 0;
                for (uint64_t from = 0; from < n; from++) {
                    double e = w[row * n + from] / (double)c->f.factor[row] - q[row * n + from];
                    t[i] += e * h[from * n + k + i % width];
                }
            }
            solve_rows(t, own, len, width);
            for (uint64_t i = 0; i < len * width; i++) {
                t[i] += q[(g * c->p->segment_rows + i / width) * n + k + i % width];
            }
            root(r, h, n, k, width, d);
            nq_trellis_metric(&trellis, r);
            code_chain(c, &trellis, symbols, q, t, c->f.factor, g, k, width);
            nq_free(own);
        }
    }
    nq_trellis_close(&trellis);
    nq_free(w);
    nq_free(q);
    nq_free(t);
    nq_free(h);
    return symbols;
}

static double agreement(const coding *c, const uint8_t *a, const uint8_t *b) {
    uint64_t subs = (c->p->cols + c->s.d - 1) / c->s.d;
    uint64_t all = c->p->rows * c->s.fields * subs;
    uint64_t equal = 0;
    for (uint64_t k = 0; k < all; k++) {
        uint64_t at = k / subs * c->f.stride + k % subs;
        equal += a[at] == b[at];
    }
    return (double)equal / (double)all;
}

/* ---- tests ------------------------------------------------------------------------ */

static void is_the_recursion(void **state) {
    (void)state;
    for (size_t i = 0; i < PROBLEM_COUNT; i++) {
        coding c;
        open_coding(&c, &PROBLEMS[i], false);
        code(&c, true, false, 0);
        uint8_t *want = reference(&c);
        double equal = agreement(&c, c.f.symbols, want);
        double *q = decoded(&c, c.f.symbols);
        double *best = decoded(&c, want);
        double got = total_loss(&c, q, NULL);
        double loss = total_loss(&c, best, NULL);
        /* Rounding may turn a near tie. */
        if (equal < 0.99 || !(fabs(got - loss) <= 1e-3 * loss)) {
            fail_msg("%s: %g of the symbols, loss %g, reference %g", c.p->scheme, equal, got, loss);
        }
        for (uint64_t r = 0; r < c.p->rows; r++) {
            assert_true(c.f.factor[r] == 1.0F);
        }
        check_telemetry(&c, "first pass");
        nq_free(q);
        nq_free(best);
        nq_free(want);
        close_coding(&c);
    }
}

/* Rows whose size is not what the codebook is for: their factors differ. */
static void scale_rows(coding *c) {
    for (uint64_t k = 0; k < c->p->rows * c->p->cols; k++) {
        c->w[k] *= k / c->p->cols % 3 == 0 ? 1.6F : k / c->p->cols % 3 == 1 ? 0.3F : 1.0F;
    }
}

/* <w, q> / <q, q> under h, row by row, within the bounds of a refit. */
static void factor_is_the_fit(void **state) {
    (void)state;
    for (size_t i = 0; i < PROBLEM_COUNT; i++) {
        for (int feed = 0; feed < 2; feed++) {
            coding c;
            open_coding(&c, &PROBLEMS[i], false);
            scale_rows(&c);
            code(&c, feed, true, 0);
            uint64_t n = c.p->cols;
            double *w = sorted_weights(&c);
            double *q = decoded(&c, c.f.symbols);
            for (uint64_t r = 0; r < c.p->rows; r++) {
                double wq = energy(w + r * n, c.metric.h, q + r * n, n);
                double qq = energy(q + r * n, c.metric.h, q + r * n, n);
                double a = qq > 0 && wq > 0 ? wq / qq : 1;
                a = a < 0.5 ? 0.5 : a > 2 ? 2 : a;
                if (!(fabs((double)c.f.factor[r] - a) <= 1e-3 * a)) {
                    fail_msg("%s row %llu: factor %g, best is %g", c.p->scheme,
                             (unsigned long long)r, (double)c.f.factor[r], a);
                }
            }
            check_telemetry(&c, "with factors");
            nq_free(w);
            nq_free(q);
            close_coding(&c);
        }
    }
}

static void sweep_is_coordinate_descent(void **state) {
    (void)state;
    for (size_t i = 0; i < PROBLEM_COUNT; i++) {
        coding c;
        open_coding(&c, &PROBLEMS[i], false);
        scale_rows(&c);
        code(&c, true, true, 0);
        uint8_t *want = reference_sweep(&c);
        code(&c, true, true, 1);
        double equal = agreement(&c, c.f.symbols, want);
        if (equal < 0.99) {
            fail_msg("%s: %g of the symbols", c.p->scheme, equal);
        }
        nq_free(want);
        close_coding(&c);
    }
}

static void sweeps_never_lose(void **state) {
    (void)state;
    for (size_t i = 0; i < PROBLEM_COUNT; i++) {
        for (int variant = 0; variant < 4; variant++) {
            double last = INFINITY;
            double first = 0;
            for (unsigned sweeps = 0; sweeps <= 3; sweeps++) {
                coding c;
                open_coding(&c, &PROBLEMS[i], false);
                if (variant & 2) {
                    scale_rows(&c);
                }
                code(&c, variant & 1, variant & 2, sweeps);
                check_telemetry(&c, "after sweeps");
                double *q = decoded(&c, c.f.symbols);
                double loss = total_loss(&c, q, c.f.factor);
                if (!(loss <= last * (1 + 1e-4) + 1e-9 * total_loss(&c, NULL, NULL))) {
                    fail_msg("%s, variant %d, sweep %u: %g after %g", c.p->scheme, variant, sweeps,
                             loss, last);
                }
                first = sweeps == 0 ? loss : first;
                last = loss;
                nq_free(q);
                close_coding(&c);
            }
            /* Without feedback before, there is much to make good. */
            if (!(variant & 1) && i < 6 && !(last < 0.95 * first)) {
                fail_msg("%s: sweeps bring %g to %g only", PROBLEMS[i].scheme, first, last);
            }
        }
    }
}

static void identity_feeds_nothing(void **state) {
    (void)state;
    for (size_t i = 0; i < PROBLEM_COUNT; i++) {
        coding with, without;
        open_coding(&with, &PROBLEMS[i], true);
        open_coding(&without, &PROBLEMS[i], true);
        code(&with, true, true, 0);
        code(&without, false, true, 0);
        assert_memory_equal(with.f.symbols, without.f.symbols,
                            with.p->rows * with.s.fields * with.f.stride);
        assert_memory_equal(with.f.factor, without.f.factor, with.p->rows * sizeof(float));
        check_telemetry(&with, "identity");
        close_coding(&with);
        close_coding(&without);
    }
}

static void feedback_helps(void **state) {
    (void)state;
    static const problem HELPED[] = {{"k16d2l3", 64, 96, 64, false},
                                     {"k16d1l2", 64, 96, 32, true},
                                     {"pq16x4d3", 64, 95, 32, false},
                                     {"k8d2l2", 64, 96, 64, true}};
    for (size_t i = 0; i < 4; i++) {
        coding c;
        open_coding(&c, &HELPED[i], false);
        double loss[2];
        for (int feed = 0; feed < 2; feed++) {
            code(&c, feed, true, 0);
            double *q = decoded(&c, c.f.symbols);
            loss[feed] = total_loss(&c, q, c.f.factor);
            nq_free(q);
        }
        if (!(loss[1] < 0.7 * loss[0])) {
            fail_msg("%s: %g with feedback, %g without", c.p->scheme, loss[1], loss[0]);
        }
        close_coding(&c);
    }
}

/* Nothing is known of inputs that never come; coding them stays sound. */
static void silent_inputs(void **state) {
    (void)state;
    static const problem p = {"k16d2l3", 20, 32, 8, false};
    coding c;
    open_coding(&c, &p, false);
    nq_metric_close(&c.metric);
    float *h = floats(32 * 32);
    for (int kind = 0; kind < 2; kind++) { /* none at all; half of the columns */
        for (uint64_t k = 0; k < 16 && kind == 1; k++) {
            h[k * 33] = 1.0F;
        }
        nq_moments in = {.cols = 32, .samples = 1000, .h = h};
        nq_metric_options o = {.damping = 0.01};
        assert_int_equal(nq_metric_open(&c.metric, &in, &o, NULL, NULL), NOVAQ_OK);
        code(&c, true, true, 2);
        double *q = decoded(&c, c.f.symbols);
        double sq = 0;
        double all = 0;
        for (uint64_t i = 0; i < 20 * 32; i++) {
            double e = (double)c.w[i] - (double)c.f.factor[i / 32] * q[i];
            sq += e * e;
            all += (double)c.w[i] * (double)c.w[i];
        }
        assert_true(sq < 0.3 * all); /* as well as without a metric */
        check_telemetry(&c, "silent inputs");
        nq_free(q);
        nq_metric_close(&c.metric);
    }
    nq_free(h);
    close_coding(&c);
}

static int one_blas_thread(void **state) {
    (void)state;
    openblas_set_num_threads(1);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(is_the_recursion),
        cmocka_unit_test(factor_is_the_fit),
        cmocka_unit_test(sweep_is_coordinate_descent),
        cmocka_unit_test(sweeps_never_lose),
        cmocka_unit_test(identity_feeds_nothing),
        cmocka_unit_test(feedback_helps),
        cmocka_unit_test(silent_inputs),
    };
    return cmocka_run_group_tests(tests, one_blas_thread, NULL);
}
