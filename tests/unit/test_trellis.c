/* test_trellis.c - the search for symbols: the best path of all, in the metric
 * asked for, the same with every kernel, one chain or many. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "base/cpu.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/rng.h"
#include "quant/codebook.h"
#include "quant/trellis.h"

static novaq_error err;

static nq_scheme scheme(const char *name) {
    nq_scheme s;
    assert_int_equal(nq_scheme_parse(&s, name, &err), NOVAQ_OK);
    return s;
}

static void open_random(nq_trellis *t, const nq_scheme *s, uint64_t seed) {
    float *values = NULL;
    uint64_t count = nq_level_offset(s, s->levels);
    assert_int_equal(nq_alloc(&values, count, sizeof(float), &err), NOVAQ_OK);
    nq_gaussian_fill(values, count, seed, 1);
    assert_int_equal(nq_trellis_open(t, s, values, &err), NOVAQ_OK);
    nq_free(values);
}

/* Upper triangular, far from the identity. */
static void random_metric(float *r, unsigned d, uint64_t seed) {
    for (unsigned i = 0; i < d; i++) {
        for (unsigned j = 0; j < d; j++) {
            float diagonal = 0.2F + 2.0F * (float)nq_uniform(seed, 31, i);
            r[i * d + j] = j < i    ? 0.0F
                           : j == i ? diagonal
                                    : (float)nq_normal(seed, 32, (uint64_t)i * d + j);
        }
    }
}

/* Sum over rows of weight * |R (x - decoded)|^2 in double; with size what rounding
 * errors are measured against. */
static double path_cost(double *size, const nq_trellis *t, const uint8_t *symbols, const float *x,
                        uint64_t len, const float *weight, const float *r) {
    float out[64];
    unsigned d = t->scheme.d;
    double sum = 0;
    nq_trellis_decode(out, t, symbols, len);
    *size = 0;
    for (uint64_t row = 0; row < len; row++) {
        for (unsigned i = 0; i < d; i++) {
            double e = 0;
            double all = 0;
            for (unsigned j = 0; j < d; j++) {
                double m = r == NULL ? (i == j ? 1 : 0) : (double)r[i * d + j];
                double a = (double)x[row * d + j];
                double b = (double)out[row * d + j];
                e += m * (a - b);
                all += fabs(m) * (fabs(a) + fabs(b));
            }
            sum += (double)weight[row] * e * e;
            *size += (double)weight[row] * all * all;
        }
    }
    return sum;
}

/* Symbols numbered code: digits in base K of every row and field. */
static void symbols_of(uint8_t *symbols, const nq_scheme *s, uint64_t len, uint64_t code) {
    for (uint64_t i = 0; i < len; i++) {
        for (unsigned f = 0; f < s->fields; f++) {
            symbols[f * len + i] = (uint8_t)(code % s->k[f]);
            code /= s->k[f];
        }
    }
}

static void expect_optimal(const nq_scheme *s, uint64_t trial, bool metric, float spread,
                           float outlier) {
    float x[64], weight[8], ratio[8], r[64];
    uint8_t symbols[16], other[16];
    const float *rp = metric && s->d > 1 ? r : NULL;
    uint64_t count = s->fields == 2 ? (uint64_t)s->k[0] * s->k[1] : s->k[0];
    uint64_t len = 1;
    for (uint64_t all = count; all * count <= 20000 && len < 8; all *= count) {
        len++;
    }
    nq_gaussian_fill(x, len * s->d, trial, 2);
    for (uint64_t i = 0; i < len; i++) {
        weight[i] = powf(10.0F, spread * (2.0F * (float)nq_uniform(trial, 3, i) - 1.0F));
        ratio[i] = i > 0 ? weight[i - 1] / weight[i] : 1.0F;
        x[i * s->d] *= nq_hash3(trial, 4, i) % 3 == 0 ? outlier : 1.0F;
    }
    random_metric(r, s->d, trial);
    nq_trellis t;
    open_random(&t, s, trial);
    nq_trellis_metric(&t, rp);
    void *scratch = NULL;
    assert_int_equal(nq_alloc(&scratch, nq_trellis_scratch(&t, len), 1, &err), NOVAQ_OK);
    nq_trellis_encode(symbols, &t, x, len, s->fields == 1 ? ratio : NULL, scratch);
    double size;
    double got = path_cost(&size, &t, symbols, x, len, weight, rp);
    uint64_t all = 1;
    for (uint64_t i = 0; i < len; i++) {
        all *= count;
    }
    for (uint64_t code = 0; code < all; code++) {
        double ignored;
        symbols_of(other, s, len, code);
        double cost = path_cost(&ignored, &t, other, x, len, weight, rp);
        assert_true(got <= cost + 2e-6 * size);
    }
    nq_free(scratch);
    nq_trellis_close(&t);
}

static const char *const small[] = {
    "k2d1l2",  "k3d2l2",  "k4d1l2",  "k4d2l3", "k3d1l3",  "k5d2l1",  "k6d3l2",   "k8d2l3",
    "k11d1l3", "k16d2l3", "k16d1l2", "k7d8l3", "k16d8l2", "pq4x3d2", "pq16x4d4", "pq8d3"};
#define SMALL (sizeof small / sizeof small[0])

static void paths_are_optimal(void **state) {
    (void)state;
    for (uint64_t trial = 0; trial < 3 * SMALL; trial++) {
        nq_scheme s = scheme(small[trial % SMALL]);
        expect_optimal(&s, trial, false, 0.3F, 1.0F);
    }
}

static void metric_is_honoured(void **state) {
    (void)state;
    for (uint64_t trial = 0; trial < 3 * SMALL; trial++) {
        nq_scheme s = scheme(small[trial % SMALL]);
        expect_optimal(&s, 100 + trial, true, 0.3F, 1.0F);
    }
}

/* Rows that weigh up to 1e4 times their neighbours, values a million times the
 * codebook's: still the best path, to the accuracy of floats. */
static void extremes_stay_optimal(void **state) {
    (void)state;
    for (uint64_t trial = 0; trial < 2 * SMALL; trial++) {
        nq_scheme s = scheme(small[trial % SMALL]);
        expect_optimal(&s, 200 + trial, trial % 2 == 0, 2.0F, 1.0F);
        expect_optimal(&s, 300 + trial, trial % 2 == 0, 0.3F, 1e6F);
    }
}

/* Alone, far outliers end at the entry that is farthest in their direction. */
static void outliers_take_the_last_entry(void **state) {
    (void)state;
    static const float values[] = {-1, 0.5F, 2, 3, 0, 0.25F, -0.25F, 0.125F};
    nq_scheme s = scheme("k4d1l2");
    nq_trellis t;
    assert_int_equal(nq_trellis_open(&t, &s, values, &err), NOVAQ_OK);
    static const float x[] = {3e6F, -1e6F, 1e6F, 0.5F};
    uint8_t symbols[4];
    uint8_t scratch[1024];
    assert_true(nq_trellis_scratch(&t, 4) <= sizeof scratch);
    nq_trellis_encode(symbols, &t, x, 4, NULL, scratch);
    assert_int_equal(symbols[0], 3);
    assert_int_equal(symbols[1], 0);
    assert_int_equal(symbols[2], 3);
    nq_trellis_close(&t);
}

static unsigned variants(const nq_kern *out[4]) {
    static const unsigned masks[] = {NQ_CPU_NEON, NQ_CPU_AVX2, NQ_CPU_AVX2 | NQ_CPU_AVX512};
    unsigned n = 0;
    for (size_t i = 0; i < sizeof masks / sizeof masks[0]; i++) {
        if ((nq_cpu_features() & masks[i]) == masks[i]) {
            out[n++] = nq_kern_for(masks[i]);
        }
    }
    return n;
}

#define CHAINS 5
#define LEN    256

typedef struct batch {
    float *x; /* (CHAINS, LEN, d) */
    float ratio[LEN];
    uint8_t want[CHAINS][2 * LEN];
    uint8_t got[CHAINS][2 * LEN];
    uint8_t *symbols[CHAINS];
    const float *rows[CHAINS];
    const float *ratios[CHAINS];
} batch;

static void fill_batch(batch *b, const nq_scheme *s, uint64_t len, uint64_t seed) {
    uint64_t n = CHAINS * len * s->d;
    assert_int_equal(nq_alloc(&b->x, n, sizeof(float), &err), NOVAQ_OK);
    nq_gaussian_fill(b->x, n, seed, 5);
    for (uint64_t i = 0; i < n; i++) { /* zeros in the first chain, outliers in the second */
        b->x[i] *= i < len * s->d ? 0.0F : i < 2 * len * s->d && i % 9 == 0 ? 1e6F : 1.0F;
    }
    for (uint64_t t = 0; t < len; t++) {
        b->ratio[t] = powf(10.0F, 8.0F * (float)nq_uniform(seed, 6, t) - 4.0F);
    }
    for (unsigned c = 0; c < CHAINS; c++) {
        b->symbols[c] = b->got[c];
        b->rows[c] = b->x + c * len * s->d;
        b->ratios[c] = c % 2 == 0 ? b->ratio : NULL;
    }
}

/* One by one with the reference, against all together with each variant. */
static void variants_code_alike(void **state) {
    (void)state;
    static batch b;
    static const char *const names[] = {"k16d2l3", "k16d1l3",  "k8d2l3",    "k8d1l2",  "k4d2l3",
                                        "k13d3l3", "k16d8l2",  "k2d1l3",    "k5d4l2",  "k16d2l1",
                                        "k16d4l3", "pq16x8d4", "pq200x7d8", "pq256d8", "k6d7l3"};
    static const uint64_t lens[] = {LEN, 1, 2, 77};
    const nq_kern *v[4];
    unsigned n = variants(v);
    for (uint64_t round = 0; round < 2 * sizeof names / sizeof names[0]; round++) {
        nq_scheme s = scheme(names[round / 2]);
        uint64_t len = lens[round % 4];
        nq_trellis t;
        float r[64];
        void *scratch = NULL;
        open_random(&t, &s, round);
        random_metric(r, s.d, round);
        nq_trellis_metric(&t, round % 2 == 0 ? NULL : r);
        fill_batch(&b, &s, len, round);
        assert_int_equal(nq_alloc(&scratch, nq_trellis_scratch(&t, len), 1, &err), NOVAQ_OK);
        for (unsigned c = 0; c < CHAINS; c++) {
            uint8_t *symbols = b.want[c];
            nq_trellis_encode_with(&nq_kern_scalar, &symbols, &t, b.rows + c, len, b.ratios + c, 1,
                                   scratch);
            for (uint64_t i = 0; i < len * s.fields; i++) {
                assert_true(symbols[i] < s.k[i / len]);
            }
        }
        for (unsigned i = 0; i <= n; i++) {
            memset(b.got, 255, sizeof b.got);
            nq_trellis_encode_with(i < n ? v[i] : &nq_kern_scalar, b.symbols, &t, b.rows, len,
                                   b.ratios, CHAINS, scratch);
            for (unsigned c = 0; c < CHAINS; c++) {
                assert_memory_equal(b.got[c], b.want[c], len * s.fields);
            }
        }
        nq_free(scratch);
        nq_free(b.x);
        nq_trellis_close(&t);
    }
}

static void clones_have_their_own_metric(void **state) {
    (void)state;
    nq_scheme s = scheme("k8d2l3");
    nq_trellis t;
    nq_trellis c;
    float r[4];
    open_random(&t, &s, 9);
    random_metric(r, 2, 9);
    assert_int_equal(nq_trellis_clone(&c, &t, &err), NOVAQ_OK);
    size_t pairs = (size_t)8 * 8 * 8 * sizeof(float);
    assert_memory_equal(c.forward, t.forward, pairs);
    nq_trellis_metric(&c, r);
    assert_memory_not_equal(c.forward, t.forward, pairs);
    assert_memory_equal(c.values, t.values, (size_t)3 * 8 * 2 * sizeof(float));
    nq_trellis second; /* a clone of a changed one starts from its metric */
    assert_int_equal(nq_trellis_clone(&second, &c, &err), NOVAQ_OK);
    assert_memory_equal(second.forward, c.forward, pairs);
    assert_memory_equal(second.back, c.back, pairs);
    nq_trellis_close(&second);
    nq_trellis_metric(&c, NULL);
    assert_memory_equal(c.forward, t.forward, pairs);
    assert_memory_equal(c.back, t.back, pairs);
    nq_trellis_close(&t);
    nq_trellis_close(&c);
}

static void wide_sliding_codes_are_refused(void **state) {
    (void)state;
    nq_scheme s = nq_scheme_sliding(17, 2, 2);
    static const float values[2 * 17 * 2];
    nq_trellis t;
    assert_int_equal(nq_trellis_open(&t, &s, values, &err), NOVAQ_E_UNSUPPORTED);
    nq_trellis_close(&t);
}

/* One row for each scheme and kernel, with figures that can be; what has no symbols
 * is refused. */
static void speed_is_reported(void **state) {
    (void)state;
    const nq_kern *v[4];
    char *report = NULL;
    assert_int_equal(novaq_bench_encoder(&report, "k4d2l2,pq4x4d2", 1, &err), NOVAQ_OK);
    json_t *o = NULL;
    assert_int_equal(nq_json_parse_object(&o, "report", report, strlen(report), &err), NOVAQ_OK);
    const json_t *rows = json_object_get(o, "schemes");
    size_t kernels = 1 + variants(v);
    assert_int_equal(json_array_size(rows), 2 * kernels);
    for (size_t i = 0; i < json_array_size(rows); i++) {
        const json_t *row = json_array_get(rows, i);
        const json_t *first = json_array_get(rows, i / kernels * kernels);
        double mse = json_number_value(json_object_get(row, "mse"));
        assert_true(mse > 0.01 && mse < 1);
        assert_true(mse == json_number_value(json_object_get(first, "mse")));
        assert_true(json_number_value(json_object_get(row, "weights_per_second_per_core")) > 1e4);
        assert_non_null(json_string_value(json_object_get(row, "kernel")));
    }
    json_decref(o);
    novaq_free(report);
    assert_int_equal(novaq_bench_encoder(&report, "q8", 1, &err), NOVAQ_E_ARG);
    assert_int_equal(novaq_bench_encoder(&report, "k16", 1, &err), NOVAQ_E_ARG);
    assert_null(report);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(paths_are_optimal),
        cmocka_unit_test(metric_is_honoured),
        cmocka_unit_test(extremes_stay_optimal),
        cmocka_unit_test(outliers_take_the_last_entry),
        cmocka_unit_test(variants_code_alike),
        cmocka_unit_test(clones_have_their_own_metric),
        cmocka_unit_test(wide_sliding_codes_are_refused),
        cmocka_unit_test(speed_is_reported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
