/* test_encode.c - matrices coded under a metric, alone and in groups: what is
 * reported is true of what the decoder gives back, threads and company change
 * nothing, corrections reach the output. */
#include "metric_util.h"

#include <cblas.h>

#include "quant/encode.h"

#define COLS_MOST 2048

static nq_encode_options options(nq_normalize normalize, const nq_metric *metric) {
    return (nq_encode_options){.normalize = normalize,
                               .outlier_percentile = 0.05,
                               .segment_rows = 32,
                               .seed = 9,
                               .max_iterations = 6,
                               .tolerance = 1e-4,
                               .metric = metric,
                               .feedback = true,
                               .sweeps = 1};
}

/* Rows of different sizes, not centred. */
static float *weights(uint64_t rows, uint64_t cols, uint64_t seed) {
    float *w = floats(rows * cols);
    for (uint64_t i = 0; i < rows * cols; i++) {
        double size = 0.01 * (1 + (double)(i / cols % 7));
        w[i] = (float)(size * nq_normal(seed, 1, i) + 0.004);
    }
    return w;
}

static void open_metric(nq_metric *m, uint64_t cols, const nq_metric_options *o) {
    float *x = correlated(200, cols, 3);
    metric_of(m, x, 200, cols, o);
    nq_free(x);
}

static float *decode(const nq_encoded *e, bool plain) {
    float *out = floats(e->q.rows * e->q.cols);
    void *scratch = take_zeroed(nq_qmat_scratch(&e->q), 1);
    if (plain) {
        nq_qmat_decode_plain(out, &e->q, 0, e->q.rows, scratch);
    } else {
        nq_qmat_decode(out, &e->q, 0, e->q.rows, scratch);
    }
    nq_free(scratch);
    return out;
}

static void near(double got, double want, double tolerance, const char *what, const char *name) {
    if (!(fabs(got - want) <= tolerance)) {
        fail_msg("%s of %s: reported %.9g, truly %.9g", what, name, got, want);
    }
}

/* Decodes and compares with what was reported. */
static void check_report(const nq_encoded *e, const float *w, const char *name) {
    float *q = decode(e, true);
    double sq = 0, source = 0, dec = 0, dot = 0;
    for (uint64_t i = 0; i < e->q.rows * e->q.cols; i++) {
        double a = (double)w[i];
        double b = (double)q[i];
        sq += (a - b) * (a - b);
        source += a * a;
        dec += b * b;
        dot += a * b;
    }
    near(e->sq_error, sq, 1e-3 * sq + 1e-9 * source, "error", name);
    near(e->sq_source, source, 1e-4 * source, "size", name);
    near(e->sq_decoded, dec, 1e-3 * dec, "decoded size", name);
    near(e->dot, dot, 1e-3 * source, "product", name);
    nq_free(q);
}

/* tr(E h ET) over tr(W h WT), from decoded weights, in the coded basis. */
static double output_error(const nq_encoded *e, const float *w, const nq_metric *m) {
    uint64_t n = e->q.cols;
    float *q = decode(e, false);
    double *a = coded_weights(w, e->q.rows, m);
    double *left = doubles(n);
    double *size = doubles(n);
    double sums[2] = {0, 0};
    for (uint64_t r = 0; r < e->q.rows; r++) {
        for (uint64_t k = 0; k < n; k++) {
            uint64_t at = r * n + (m->order != NULL ? m->order[k] : k);
            left[k] = a[at] - (double)q[at];
            size[k] = a[at];
        }
        sums[0] += energy(left, m->h, left, n);
        sums[1] += energy(size, m->h, size, n);
    }
    nq_free(q);
    nq_free(a);
    nq_free(left);
    nq_free(size);
    return sums[0] / sums[1];
}

static const nq_metric_options METRICS[] = {
    {.seed = 9, .rotation_block = 512, .column_scales = 0.5, .damping = 0.01},
    {.seed = 9, .rotation_block = 16, .damping = 0.01, .by_energy = true, .order_block = 12},
    {.damping = 0.01, .column_scales = 0.25, .by_energy = true, .order_block = 24},
};

static void reports_are_true(void **state) {
    (void)state;
    static const char *const NAMES[] = {"k16d2l3", "pq16x4d3", "q8", "k8d1l2", "k16d4l1"};
    static const nq_normalize HOW[] = {NQ_NORMALIZE_ROTATE, NQ_NORMALIZE_ROW, NQ_NORMALIZE_NONE,
                                       NQ_NORMALIZE_PAPER};
    static const uint64_t SHAPES[][2] = {{70, 48}, {33, 47}, {5, 64}};
    for (unsigned i = 0; i < 5 * 4 * 3; i++) {
        const char *name = NAMES[i % 5];
        uint64_t rows = SHAPES[i / 5 % 3][0];
        uint64_t cols = SHAPES[i / 5 % 3][1];
        nq_normalize how = HOW[i / 15];
        nq_scheme s = scheme_named(name);
        nq_metric m;
        open_metric(&m, cols, &METRICS[(i + i / 15) % 3]);
        nq_encode_options o = options(how, &m);
        o.row_means = i % 2 == 0;
        o.feedback = i % 3 != 0;
        o.sweeps = i % 3;
        float *w = weights(rows, cols, 1);
        float *source = weights(rows, cols, 1);
        nq_encoded e;
        assert_int_equal(nq_encode(&e, w, rows, cols, &s, &o, name, NULL, NULL), NOVAQ_OK);
        check_report(&e, source, name);
        assert_int_equal(e.q.rotation.block, m.rotation.block);
        assert_int_equal(e.col_exponent != NULL, m.col_exponent != NULL);
        bool fitted = how == NQ_NORMALIZE_ROW || how == NQ_NORMALIZE_ROTATE;
        assert_int_equal(e.row_mean != NULL, how == NQ_NORMALIZE_PAPER || (fitted && o.row_means));
        if (e.row_mean == NULL && s.kind == NQ_SCHEME_CODE) {
            double truth = output_error(&e, source, &m);
            near(e.output_error, truth, 5e-3 * truth, "output error", name);
            assert_true(truth < 1);
        } else if (s.kind == NQ_SCHEME_CODE) {
            assert_true(e.output_error > 0 && e.output_error < 1);
        }
        nq_encoded_close(&e);
        nq_metric_close(&m);
        nq_free(w);
        nq_free(source);
    }
}

/* ---- groups and threads -------------------------------------------------------- */

static void assert_same(const nq_encoded *a, const nq_encoded *b) {
    uint64_t rows = a->q.rows;
    bool code = a->q.scheme.kind == NQ_SCHEME_CODE;
    assert_int_equal(b->q.rows, rows);
    assert_int_equal(a->q.exponent, b->q.exponent);
    assert_memory_equal(a->symbols, b->symbols, nq_qmat_symbol_bytes(&a->q));
    assert_memory_equal(a->row_scale, b->row_scale, rows * sizeof(uint16_t));
    assert_int_equal(a->row_mean != NULL, b->row_mean != NULL);
    if (a->row_mean != NULL) {
        assert_memory_equal(a->row_mean, b->row_mean, rows * sizeof(uint16_t));
    }
    if (a->col_exponent != NULL) {
        assert_memory_equal(a->col_exponent, b->col_exponent, a->q.cols);
    }
    if (code) {
        assert_memory_equal(a->codebooks, b->codebooks, nq_qmat_codebook_bytes(&a->q));
        assert_int_equal(a->codebook_scale[0], b->codebook_scale[0]);
        assert_memory_equal(&a->output_error, &b->output_error, sizeof(double));
    }
    assert_memory_equal(&a->sq_error, &b->sq_error, sizeof(double));
    assert_memory_equal(&a->dot, &b->dot, sizeof(double));
}

#define MEMBERS 4
static const uint64_t MEMBER_ROWS[MEMBERS] = {70, 33, 20, 96};
static const char *const MEMBER_SCHEMES[MEMBERS] = {"k16d2l3", "k8d3l2", "q8", "pq16x4d2"};

static void fill_items(nq_encode_item *items, uint64_t cols) {
    for (unsigned i = 0; i < MEMBERS; i++) {
        items[i] = (nq_encode_item){.name = MEMBER_SCHEMES[i],
                                    .scheme = scheme_named(MEMBER_SCHEMES[i]),
                                    .w = weights(MEMBER_ROWS[i], cols, 20 + i),
                                    .rows = MEMBER_ROWS[i]};
    }
}

static void encode_members(nq_encoded *out, uint64_t cols, const nq_encode_options *o,
                           unsigned threads) {
    nq_encode_item items[MEMBERS];
    nq_pool *pool = open_pool(threads);
    fill_items(items, cols);
    assert_int_equal(nq_encode_group(out, items, MEMBERS, cols, o, pool, NULL), NOVAQ_OK);
    for (unsigned i = 0; i < MEMBERS; i++) {
        nq_free(items[i].w);
    }
    nq_pool_close(&pool);
}

static void groups_and_threads_change_nothing(void **state) {
    (void)state;
    static const uint64_t COLS[] = {48, 47};
    for (unsigned v = 0; v < 6; v++) {
        uint64_t cols = COLS[v % 2];
        nq_metric m;
        open_metric(&m, cols, &METRICS[v % 3]);
        nq_encode_options o = options(NQ_NORMALIZE_ROTATE, v < 4 ? &m : NULL);
        o.row_means = v % 2 == 1;
        nq_encoded want[MEMBERS];
        encode_members(want, cols, &o, 1);
        for (unsigned threads = 2; threads <= 3; threads++) {
            nq_encoded got[MEMBERS];
            encode_members(got, cols, &o, threads);
            for (unsigned i = 0; i < MEMBERS; i++) {
                assert_same(&want[i], &got[i]);
                nq_encoded_close(&got[i]);
            }
        }
        nq_encode_item items[MEMBERS];
        fill_items(items, cols);
        for (unsigned i = 0; i < MEMBERS; i++) {
            nq_encoded alone;
            float *source = weights(MEMBER_ROWS[i], cols, 20 + i);
            assert_int_equal(nq_encode(&alone, items[i].w, items[i].rows, cols, &items[i].scheme,
                                       &o, items[i].name, NULL, NULL),
                             NOVAQ_OK);
            assert_same(&want[i], &alone);
            check_report(&want[i], source, items[i].name);
            nq_encoded_close(&alone);
            nq_encoded_close(&want[i]);
            nq_free(items[i].w);
            nq_free(source);
        }
        nq_metric_close(&m);
    }
}

/* One bad member fails the group; all of it can still be released. */
static void bad_member(void **state) {
    (void)state;
    for (unsigned bad = 0; bad < MEMBERS; bad++) {
        nq_encode_item items[MEMBERS];
        nq_encoded out[MEMBERS];
        nq_metric m;
        novaq_error err = {0};
        open_metric(&m, 48, &METRICS[0]);
        nq_encode_options o = options(NQ_NORMALIZE_ROTATE, &m);
        fill_items(items, 48);
        items[bad].w[100] = bad % 2 == 0 ? NAN : INFINITY;
        assert_int_equal(nq_encode_group(out, items, MEMBERS, 48, &o, NULL, &err), NOVAQ_E_NUMERIC);
        assert_non_null(strstr(err.msg, items[bad].name));
        for (unsigned i = 0; i < MEMBERS; i++) {
            nq_encoded_close(&out[i]);
            nq_free(items[i].w);
        }
        nq_metric_close(&m);
    }
}

/* A metric that has other columns, or an order that tears subvectors apart. */
static void metric_must_fit(void **state) {
    (void)state;
    static const struct {
        const char *scheme;
        uint64_t cols;
        unsigned order_block;
        novaq_status status;
    } CASES[] = {
        {"k16d2l3", 48, 4, NOVAQ_OK},    {"k16d4l1", 48, 6, NOVAQ_E_ARG},
        {"k8d3l2", 48, 2, NOVAQ_E_ARG},  {"k16d2l3", 48, 1, NOVAQ_E_ARG},
        {"k8d1l2", 48, 1, NOVAQ_OK},     {"q8", 48, 1, NOVAQ_OK},
        {"k16d2l3", 47, 2, NOVAQ_E_ARG},
    };
    nq_metric m;
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        nq_metric_options mo = {
            .damping = 0.01, .by_energy = true, .order_block = CASES[i].order_block};
        open_metric(&m, 48, &mo);
        nq_encode_options o = options(NQ_NORMALIZE_ROW, &m);
        nq_scheme s = scheme_named(CASES[i].scheme);
        float *w = weights(10, CASES[i].cols, 1);
        nq_encoded e;
        assert_int_equal(nq_encode(&e, w, 10, CASES[i].cols, &s, &o, "fit", NULL, NULL),
                         CASES[i].status);
        if (CASES[i].status == NOVAQ_OK) {
            nq_encoded_close(&e);
        }
        nq_free(w);
        nq_metric_close(&m);
    }
}

/* Short segments of wide rows: scratch is as large as its largest use. */
static void wide_and_short(void **state) {
    (void)state;
    static const char *const NAMES[] = {"k16d2l3", "pq16x4d4", "k16d1l2", "q8"};
    for (size_t i = 0; i < 4; i++) {
        nq_scheme s = scheme_named(NAMES[i]);
        nq_encode_options o = options(NQ_NORMALIZE_ROTATE, NULL);
        o.segment_rows = 3;
        float *w = weights(7, COLS_MOST, 2);
        float *source = weights(7, COLS_MOST, 2);
        nq_encoded e;
        assert_int_equal(nq_encode(&e, w, 7, COLS_MOST, &s, &o, NAMES[i], NULL, NULL), NOVAQ_OK);
        check_report(&e, source, NAMES[i]);
        assert_true(isnan(e.output_error));
        nq_encoded_close(&e);
        nq_free(w);
        nq_free(source);
    }
}

/* ---- options --------------------------------------------------------------------- */

static void rotation_blocks(void **state) {
    (void)state;
    static const uint32_t ASKED[] = {0, 16, 64, 512};
    static const uint32_t GOT[] = {128, 16, 64, 128};
    for (size_t i = 0; i < 4; i++) {
        nq_scheme s = scheme_named("k16d2l3");
        nq_encode_options o = options(NQ_NORMALIZE_ROTATE, NULL);
        o.rotation_block = ASKED[i];
        float *w = weights(20, 128, 2);
        float *source = weights(20, 128, 2);
        nq_encoded e;
        assert_int_equal(nq_encode(&e, w, 20, 128, &s, &o, "block", NULL, NULL), NOVAQ_OK);
        assert_int_equal(e.q.rotation.block, GOT[i]);
        assert_int_equal(e.q.rotation.seed, o.seed);
        check_report(&e, source, "block");
        nq_encoded_close(&e);
        nq_free(w);
        nq_free(source);
    }
}

/* Where rows are far from centred, a stored mean saves most of the error. */
static void row_means(void **state) {
    (void)state;
    nq_scheme s = scheme_named("k16d2l3");
    double error[2];
    for (int means = 0; means < 2; means++) {
        nq_encode_options o = options(NQ_NORMALIZE_ROW, NULL);
        o.row_means = means;
        float *w = weights(40, 64, 2);
        for (int i = 0; i < 40 * 64; i++) {
            w[i] += 0.5F * (float)(i / 64 - 20);
        }
        float *source = floats(40 * 64);
        memcpy(source, w, 40 * 64 * sizeof(float));
        nq_encoded e;
        assert_int_equal(nq_encode(&e, w, 40, 64, &s, &o, "means", NULL, NULL), NOVAQ_OK);
        check_report(&e, source, "means");
        error[means] = e.sq_error;
        nq_encoded_close(&e);
        nq_free(w);
        nq_free(source);
    }
    assert_true(error[1] < 0.1 * error[0]);
}

/* ---- correction ---------------------------------------------------------------------- */

#define SEEN 400

/* Mean over the samples of |w x0 + r0 - (q x + r)|^2. */
static double output_loss(const float *w, const float *q, const float *x0, const float *x,
                          const float *residual, uint64_t rows, uint64_t cols) {
    double sum = 0;
    for (uint64_t t = 0; t < SEEN; t++) {
        for (uint64_t i = 0; i < rows; i++) {
            double y = (double)residual[t * rows + i];
            for (uint64_t k = 0; k < cols; k++) {
                y += (double)w[i * cols + k] * (double)x0[t * cols + k];
                y -= (double)q[i * cols + k] * (double)x[t * cols + k];
            }
            sum += y * y / SEEN;
        }
    }
    return sum;
}

/* Inputs that have changed on the way, and a residual stream that has, too: coded
 * with the correction, the output is much nearer to the original's. */
static void correction_reaches_the_output(void **state) {
    (void)state;
    enum { ROWS = 40, COLS = 48 };
    static const char *const NAMES[] = {"q8", "k16d1l2"};
    float *x0 = correlated(SEEN, COLS, 3);
    float *x = correlated(SEEN, COLS, 3);
    float *r = floats(SEEN * ROWS); /* r0 - r */
    for (uint64_t i = 0; i < SEEN * COLS; i++) {
        x[i] = 0.7F * x[i] + 0.05F * (float)nq_normal(4, 4, i);
    }
    for (uint64_t i = 0; i < SEEN * ROWS; i++) {
        r[i] = 0.02F * x[i / ROWS * COLS + i % ROWS];
    }
    double *h = naive_moment(NULL, x, x, SEEN, COLS, COLS);
    double *cross = naive_moment(x0, x, x, SEEN, COLS, COLS);
    double *left = naive_moment(NULL, r, x, SEEN, ROWS, COLS);
    float *hf = as_floats(h, COLS * COLS);
    float *cf = as_floats(cross, COLS * COLS);
    float *rf = as_floats(left, ROWS * COLS);
    nq_moments in = {.cols = COLS, .samples = SEEN, .h = hf, .cross = cf};
    nq_metric_options mo = METRICS[0];
    mo.damping = 1e-3;
    nq_metric m;
    assert_int_equal(nq_metric_open(&m, &in, &mo, NULL, NULL), NOVAQ_OK);
    nq_metric_input(rf, &m, ROWS, NULL);
    for (int i = 0; i < 2; i++) {
        double loss[2];
        for (int share = 0; share < 2; share++) {
            nq_encode_options o = options(NQ_NORMALIZE_ROTATE, &m);
            o.correct_share = share;
            nq_encode_item item = {.name = NAMES[i],
                                   .scheme = scheme_named(NAMES[i]),
                                   .w = weights(ROWS, COLS, 5),
                                   .rows = ROWS,
                                   .residual = rf};
            float *w = weights(ROWS, COLS, 5);
            nq_encoded e;
            assert_int_equal(nq_encode_group(&e, &item, 1, COLS, &o, NULL, NULL), NOVAQ_OK);
            check_report(&e, w, NAMES[i]); /* against the original, corrected or not */
            float *q = decode(&e, true);
            loss[share] = output_loss(w, q, x0, x, r, ROWS, COLS);
            nq_free(q);
            nq_free(w);
            nq_free(item.w);
            nq_encoded_close(&e);
        }
        if (!(loss[1] < 0.2 * loss[0])) {
            fail_msg("%s: %g corrected, %g as it is", NAMES[i], loss[1], loss[0]);
        }
    }
    nq_metric_close(&m);
    nq_free(x0);
    nq_free(x);
    nq_free(r);
    nq_free(h);
    nq_free(cross);
    nq_free(left);
    nq_free(hf);
    nq_free(cf);
    nq_free(rf);
}

static int one_blas_thread(void **state) {
    (void)state;
    openblas_set_num_threads(1);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reports_are_true), cmocka_unit_test(groups_and_threads_change_nothing),
        cmocka_unit_test(bad_member),       cmocka_unit_test(metric_must_fit),
        cmocka_unit_test(wide_and_short),   cmocka_unit_test(rotation_blocks),
        cmocka_unit_test(row_means),        cmocka_unit_test(correction_reaches_the_output),
    };
    return cmocka_run_group_tests(tests, one_blas_thread, NULL);
}
