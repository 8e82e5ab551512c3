/* test_metric.c - second moments in the coded basis, their factor, the coding
 * order, the correction: each against the formula written out in double. */
#include "metric_util.h"

#include <cblas.h>

typedef struct setting {
    uint64_t cols, samples;
    nq_metric_options opt;
} setting;

static const setting SETTINGS[] = {
    {48, 1000, {.seed = 3, .rotation_block = 512, .damping = 0.01}},
    {64,
     1000,
     {.seed = 3, .rotation_block = 16, .column_scales = 0.5, .damping = 0.02, .ridge = 0.1}},
    {48,
     30,
     {.seed = 4, .rotation_block = 512, .column_scales = 1.0, .damping = 0.01, .ridge = 1.0}},
    {47, 1000, {.seed = 4, .rotation_block = 512, .column_scales = 0.25, .damping = 0.01}},
    {48,
     1000,
     {.rotation_block = 0, .damping = 0.01, .by_energy = true, .order_block = 5, .ridge = 0.02}},
    {64,
     1000,
     {.rotation_block = 32, .damping = 0.01, .by_energy = true, .order_block = 4, .ridge = 0.3}},
    {47, 40, {.column_scales = 0.5, .damping = 0.01, .by_energy = true, .order_block = 3}},
    {16, 1000, {.damping = 0.01, .by_energy = true, .order_block = 0}},
    {16, 1000, {.damping = 0.01, .by_energy = true, .order_block = 17}},
    {1, 10, {.rotation_block = 512, .column_scales = 0.5, .damping = 0.01}},
};
#define SETTING_COUNT (sizeof SETTINGS / sizeof SETTINGS[0])

/* Moments of correlated inputs: as floats (h, cross) for the code under test, in
 * double with the shrinking done for the reference. */
typedef struct sample {
    float *h, *cross;
    double *h_exact, *cross_exact;
    nq_moments in;
} sample;

static sample take_sample(const setting *s) {
    uint64_t n = s->cols;
    sample out;
    float *x = correlated(200, n, 11);
    float *x0 = correlated(200, n, 11);
    for (uint64_t i = 0; i < 200 * n; i++) {
        x0[i] += 0.3F * (float)nq_normal(12, 1, i) - 0.2F * x[i];
    }
    out.h_exact = naive_moment(NULL, x, x, 200, n, n);
    out.cross_exact = naive_moment(x0, x, x, 200, n, n);
    out.h = as_floats(out.h_exact, n * n);
    out.cross = as_floats(out.cross_exact, n * n);
    double keep = s->samples < 4 * n ? (double)s->samples / (double)(4 * n) : 1;
    for (uint64_t i = 0; i < n * n; i++) {
        out.h_exact[i] *= i / n == i % n ? 1 : keep;
    }
    out.in = (nq_moments){.cols = n, .samples = s->samples, .h = out.h, .cross = out.cross};
    nq_free(x);
    nq_free(x0);
    return out;
}

static void free_sample(sample *s) {
    nq_free(s->h);
    nq_free(s->cross);
    nq_free(s->h_exact);
    nq_free(s->cross_exact);
}

static void open_metric(nq_metric *m, const sample *s, const nq_metric_options *opt,
                        nq_pool *pool) {
    novaq_error err = {0};
    if (nq_metric_open(m, &s->in, opt, pool, &err) != NOVAQ_OK) {
        fail_msg("%s", err.msg);
    }
}

static uint64_t at_position(const nq_metric *m, uint64_t p) {
    return m->order != NULL ? m->order[p] : p;
}

static double mean_diagonal(const double *h, uint64_t n) {
    double sum = 0;
    for (uint64_t i = 0; i < n; i++) {
        sum += h[i * n + i] / (double)n;
    }
    return sum;
}

static void expect(double got, double want, double tolerance, const char *what, size_t setting_no) {
    if (!(fabs(got - want) <= tolerance)) {
        fail_msg("%s of setting %zu: %.9g, want %.9g", what, setting_no, got, want);
    }
}

static void basis_and_damping(void **state) {
    (void)state;
    for (size_t i = 0; i < SETTING_COUNT; i++) {
        const setting *set = &SETTINGS[i];
        uint64_t n = set->cols;
        sample s = take_sample(set);
        nq_metric m;
        open_metric(&m, &s, &set->opt, NULL);
        assert_int_equal(m.cols, n);
        bool turns = set->opt.rotation_block != 0 && n % 16 == 0;
        assert_int_equal(m.rotation.block != 0, turns);
        assert_true(m.rotation.block <= set->opt.rotation_block);
        assert_int_equal(m.rotation.seed, turns ? set->opt.seed : m.rotation.seed);
        double *b = input_basis(&m);
        double *h = change(s.h_exact, b, n);
        double *cross = change(s.cross_exact, b, n);
        double mean = mean_diagonal(h, n);
        expect(m.floor, set->opt.damping * mean, 1e-4 * mean, "damping", i);
        for (uint64_t r = 0; r < n; r++) {
            for (uint64_t c = 0; c < n; c++) {
                double want = h[at_position(&m, r) * n + at_position(&m, c)];
                want += r == c ? set->opt.damping * mean : 0;
                expect((double)m.h[r * n + c], want, 1e-5 * mean * 8, "h", i);
                expect((double)m.cross[r * n + c], cross[r * n + c], 1e-5 * mean * 8, "cross", i);
            }
        }
        nq_free(b);
        nq_free(h);
        nq_free(cross);
        nq_metric_close(&m);
        free_sample(&s);
    }
}

/* r is upper triangular with a positive diagonal, and r rT = h. */
static void check_factor(const nq_metric *m, size_t what) {
    uint64_t n = m->cols;
    double largest = 0;
    for (uint64_t i = 0; i < n; i++) {
        assert_true(isfinite(m->r[i * n + i]) && m->r[i * n + i] > 0);
        largest = fmax(largest, (double)m->h[i * n + i]);
    }
    for (uint64_t i = 0; i < n; i++) {
        for (uint64_t k = 0; k < n; k++) {
            double sum = 0;
            for (uint64_t l = 0; l < n; l++) {
                sum += (double)m->r[i * n + l] * (double)m->r[k * n + l];
            }
            expect(sum, (double)m->h[i * n + k], 4e-6 * largest, "r rT", what);
            assert_true(k >= i || m->r[i * n + k] == 0.0F);
        }
    }
}

static void factor_gives_h(void **state) {
    (void)state;
    for (size_t i = 0; i < SETTING_COUNT; i++) {
        sample s = take_sample(&SETTINGS[i]);
        nq_metric m;
        open_metric(&m, &s, &SETTINGS[i].opt, NULL);
        check_factor(&m, i);
        nq_metric_close(&m);
        free_sample(&s);
    }
}

static void column_scales(void **state) {
    (void)state;
    for (size_t i = 0; i < SETTING_COUNT; i++) {
        const setting *set = &SETTINGS[i];
        uint64_t n = set->cols;
        double a = set->opt.column_scales;
        sample s = take_sample(set);
        nq_metric m;
        open_metric(&m, &s, &set->opt, NULL);
        assert_int_equal(m.col_exponent != NULL, a > 0);
        double mean = mean_diagonal(s.h_exact, n);
        for (uint64_t c = 0; c < n && a > 0; c++) {
            double relative = s.h_exact[c * n + c] / mean;
            double e = m.col_exponent[c]; /* c_j^2 = 2^e */
            assert_true(e <= a * log2(relative + 0.1) + 0.5);
            assert_true(e >= a * log2(relative) - 0.5 - 1e-6);
        }
        nq_metric_close(&m);
        free_sample(&s);
    }
}

static void order_keeps_blocks(void **state) {
    (void)state;
    for (size_t i = 0; i < SETTING_COUNT; i++) {
        const setting *set = &SETTINGS[i];
        uint64_t n = set->cols;
        uint64_t block = set->opt.order_block > 0 ? set->opt.order_block : 1;
        sample s = take_sample(set);
        nq_metric m;
        open_metric(&m, &s, &set->opt, NULL);
        assert_int_equal(m.order != NULL, set->opt.by_energy);
        bool seen[64] = {false};
        double last = INFINITY;
        for (uint64_t p = 0; p < n && m.order != NULL; p++) {
            assert_true(m.order[p] < n && !seen[m.order[p]]);
            seen[m.order[p]] = true;
            if (p >= n / block * block) {
                assert_int_equal(m.order[p], p); /* the short block stays last */
            } else if (p % block != 0) {
                assert_int_equal(m.order[p], m.order[p - 1] + 1);
            } else {
                double sum = 0;
                assert_int_equal(m.order[p] % block, 0);
                for (uint64_t k = p; k < p + block; k++) {
                    sum += (double)m.h[k * n + k];
                }
                assert_true(sum <= last * (1 + 1e-6));
                last = sum;
            }
        }
        nq_metric_close(&m);
        free_sample(&s);
    }
}

/* Rows of what multiplies inputs change with them. */
static void inputs_change_basis(void **state) {
    (void)state;
    for (size_t i = 0; i < SETTING_COUNT; i++) {
        uint64_t n = SETTINGS[i].cols;
        sample s = take_sample(&SETTINGS[i]);
        nq_metric m;
        open_metric(&m, &s, &SETTINGS[i].opt, NULL);
        float *x = correlated(130, n, 5);
        double *b = input_basis(&m);
        nq_pool *pool = open_pool(2);
        float *got = floats(130 * n);
        memcpy(got, x, 130 * n * sizeof(float));
        nq_metric_input(got, &m, 130, pool);
        for (uint64_t t = 0; t < 130; t++) {
            for (uint64_t k = 0; k < n; k++) {
                double want = 0;
                for (uint64_t l = 0; l < n; l++) {
                    want += (double)x[t * n + l] * b[l * n + k];
                }
                expect((double)got[t * n + k], want, 1e-4, "input", i);
            }
        }
        nq_pool_close(&pool);
        nq_free(x);
        nq_free(got);
        nq_free(b);
        nq_metric_close(&m);
        free_sample(&s);
    }
}

/* w + share (w cross + residual) (h + ridge)^-1, everything in the coded basis. */
static double *corrected(const float *w, uint64_t rows, const sample *s, const nq_metric *m,
                         double ridge, const float *residual, double share) {
    uint64_t n = m->cols;
    double *b = input_basis(m);
    double *h = change(s->h_exact, b, n);
    double more = m->floor + ridge * mean_diagonal(h, n);
    for (uint64_t c = 0; c < n; c++) {
        h[c * n + c] += more;
    }
    double *cross = change(s->cross_exact, b, n);
    double *in = doubles(rows * n);
    for (uint64_t i = 0; i < rows * n; i++) {
        in[i] = (double)w[i];
    }
    double *add =
        m->cross != NULL ? multiply(in, false, cross, false, rows, n, n) : doubles(rows * n);
    for (uint64_t i = 0; residual != NULL && i < rows * n; i++) {
        add[i] += (double)residual[i];
    }
    solve_rows(add, h, rows, n);
    for (uint64_t i = 0; i < rows * n; i++) {
        in[i] += share * add[i];
    }
    nq_free(b);
    nq_free(h);
    nq_free(cross);
    nq_free(add);
    return in;
}

static void correction_is_least_squares(void **state) {
    (void)state;
    const uint64_t rows = 70; /* more than a task takes */
    for (size_t i = 0; i < SETTING_COUNT; i++) {
        uint64_t n = SETTINGS[i].cols;
        sample s = take_sample(&SETTINGS[i]);
        float *w = floats(rows * n);
        float *residual = floats(rows * n);
        float *got = floats(rows * n);
        nq_gaussian_fill(w, rows * n, 1, i);
        nq_gaussian_fill(residual, rows * n, 2, i);
        for (unsigned variant = 0; variant < 4; variant++) {
            sample used = s;
            used.in.cross = variant & 1 ? s.cross : NULL;
            const float *left = variant & 2 ? residual : NULL;
            double share = i % 2 == 0 ? 1.0 : 0.5;
            double ridge = variant & 1 ? SETTINGS[i].opt.ridge : 0; /* with a cross moment */
            nq_metric m;
            nq_pool *pool = open_pool(1 + variant % 3);
            open_metric(&m, &used, &SETTINGS[i].opt, pool);
            memcpy(got, w, rows * n * sizeof(float));
            assert_int_equal(nq_metric_correct(got, rows, &m, left, share, pool, NULL), NOVAQ_OK);
            double *want = corrected(w, rows, &used, &m, ridge, left, share);
            for (uint64_t k = 0; k < rows * n; k++) {
                expect((double)got[k], want[k], 2e-3 + 1e-3 * fabs(want[k]), "correction", i);
                assert_true(variant != 0 || got[k] == w[k]);
            }
            nq_free(want);
            nq_metric_close(&m);
            nq_pool_close(&pool);
        }
        nq_free(w);
        nq_free(residual);
        nq_free(got);
        free_sample(&s);
    }
}

static void same_bits_for_any_thread_count(void **state) {
    (void)state;
    const setting set = {
        128, 1000, {.seed = 3, .rotation_block = 64, .column_scales = 0.5, .damping = 0.01}};
    sample s = take_sample(&set);
    const uint64_t size = 128 * 128;
    nq_metric want;
    open_metric(&want, &s, &set.opt, NULL);
    float *first = floats(size);
    nq_gaussian_fill(first, size, 7, 7);
    assert_int_equal(nq_metric_correct(first, 128, &want, NULL, 1, NULL, NULL), NOVAQ_OK);
    for (unsigned threads = 2; threads <= 3; threads++) {
        nq_pool *pool = open_pool(threads);
        nq_metric m;
        float *w = floats(size);
        open_metric(&m, &s, &set.opt, pool);
        assert_memory_equal(m.h, want.h, size * sizeof(float));
        assert_memory_equal(m.r, want.r, size * sizeof(float));
        assert_memory_equal(m.cross, want.cross, size * sizeof(float));
        nq_gaussian_fill(w, size, 7, 7);
        assert_int_equal(nq_metric_correct(w, 128, &m, NULL, 1, pool, NULL), NOVAQ_OK);
        assert_memory_equal(w, first, size * sizeof(float));
        nq_free(w);
        nq_metric_close(&m);
        nq_pool_close(&pool);
    }
    nq_free(first);
    nq_metric_close(&want);
    free_sample(&s);
}

static void refuses_what_is_not_finite(void **state) {
    (void)state;
    const nq_metric_options opt = {.rotation_block = 512, .damping = 0.01};
    float h[16 * 16] = {0};
    float cross[16 * 16] = {0};
    for (int i = 0; i < 16; i++) {
        h[17 * i] = 1.0F;
    }
    nq_moments in = {.cols = 16, .samples = 100, .h = h, .cross = cross};
    nq_metric m;
    assert_int_equal(nq_metric_open(&m, &in, &opt, NULL, NULL), NOVAQ_OK);
    nq_metric_close(&m);
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    for (int i = 0; i < 3; i++) {
        h[37] = bad[i];
        assert_int_equal(nq_metric_open(&m, &in, &opt, NULL, NULL), NOVAQ_E_NUMERIC);
        nq_metric_close(&m);
        h[37] = 0;
        cross[255] = bad[i];
        assert_int_equal(nq_metric_open(&m, &in, &opt, NULL, NULL), NOVAQ_E_NUMERIC);
        nq_metric_close(&m);
        cross[255] = 0;
    }
    in.samples = 0;
    assert_int_equal(nq_metric_open(&m, &in, &opt, NULL, NULL), NOVAQ_E_ARG);
    nq_metric_close(&m);
    in.samples = 1;
    in.cols = 0;
    assert_int_equal(nq_metric_open(&m, &in, &opt, NULL, NULL), NOVAQ_E_ARG);
    nq_metric_close(&m);
}

/* Inputs that are constant, span few directions, or never come: the factor is
 * still that of h. */
static void rank_deficient(void **state) {
    (void)state;
    enum { N = 32 };
    static float h[N * N];
    static const double damping[] = {0.01, 1e-5, 0};
    for (int kind = 0; kind < 4; kind++) {
        for (int i = 0; i < N * N; i++) {
            int r = i / N;
            int c = i % N;
            double v = kind == 0   ? 25.0                                           /* all equal */
                       : kind == 1 ? (double)((r + 1) * (c + 1)) * (r % 2 == c % 2) /* rank 2 */
                       : kind == 2 ? (double)(r == c && r < 4)                      /* silent */
                                   : 0.0;                                           /* nothing */
            h[i] = (float)v;
        }
        for (size_t d = 0; d < 3; d++) {
            nq_moments in = {.cols = N, .samples = 10000, .h = h};
            nq_metric_options opt = {.rotation_block = kind % 2 == 0 ? 512 : 0,
                                     .column_scales = 0.5,
                                     .damping = damping[d]};
            nq_metric m;
            assert_int_equal(nq_metric_open(&m, &in, &opt, NULL, NULL), NOVAQ_OK);
            check_factor(&m, (size_t)kind * 10 + d);
            nq_metric_close(&m);
        }
    }
}

static int one_blas_thread(void **state) {
    (void)state;
    openblas_set_num_threads(1);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(basis_and_damping),
        cmocka_unit_test(factor_gives_h),
        cmocka_unit_test(column_scales),
        cmocka_unit_test(order_keeps_blocks),
        cmocka_unit_test(inputs_change_basis),
        cmocka_unit_test(correction_is_least_squares),
        cmocka_unit_test(same_bits_for_any_thread_count),
        cmocka_unit_test(refuses_what_is_not_finite),
        cmocka_unit_test(rank_deficient),
    };
    return cmocka_run_group_tests(tests, one_blas_thread, NULL);
}
