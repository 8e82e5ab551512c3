/* test_reencode.c - other symbols under given codebooks: the same ones where nothing has
 * changed, less error where codebooks have, the same for any number of threads. */
#include "metric_util.h"

#include "base/half.h"
#include "quant/reencode.h"

#define ROWS 70
#define COLS 96

typedef struct coded {
    float *w; /* (ROWS, COLS) */
    nq_metric metric;
    nq_encoded e;
} coded;

static coded open_coded(const char *scheme, nq_normalize normalize) {
    coded c = {.w = floats(ROWS * COLS)};
    bool rotate = normalize == NQ_NORMALIZE_ROTATE;
    nq_metric_options o = {.seed = 5,
                           .damping = 0.01,
                           .rotation_block = rotate ? 32 : 0,
                           .column_scales = rotate ? 0.5 : 0};
    float *x = correlated(400, COLS, 3);
    metric_of(&c.metric, x, 400, COLS, &o);
    nq_free(x);
    nq_gaussian_fill(c.w, ROWS * COLS, 9, 1);
    nq_scheme s = scheme_named(scheme);
    nq_encode_options how = {.normalize = normalize,
                             .segment_rows = 32,
                             .seed = 5,
                             .max_iterations = 5,
                             .tolerance = 1e-3,
                             .row_means = rotate,
                             .metric = &c.metric,
                             .feedback = true};
    float *copy = floats(ROWS * COLS);
    memcpy(copy, c.w, ROWS * COLS * sizeof *copy);
    novaq_error err = {0};
    if (nq_encode(&c.e, copy, ROWS, COLS, &s, &how, "w", NULL, &err) != NOVAQ_OK) {
        fail_msg("%s", err.msg);
    }
    nq_free(copy);
    return c;
}

static void close_coded(coded *c) {
    nq_free(c->w);
    nq_encoded_close(&c->e);
    nq_metric_close(&c->metric);
}

static nq_reencoded reencode(const coded *c, const nq_qmat *q, nq_reencode_options o,
                             nq_pool *pool) {
    nq_reencoded out;
    novaq_error err = {0};
    float *copy = floats(ROWS * COLS);
    memcpy(copy, c->w, ROWS * COLS * sizeof *copy);
    o.metric = &c->metric;
    if (nq_reencode(&out, q, copy, &o, pool, &err) != NOVAQ_OK) {
        fail_msg("%s", err.msg);
    }
    nq_free(copy);
    return out;
}

/* E|Wx - Qx|^2 / E|Wx|^2 by its definition. */
static double error_of(const coded *c, const nq_qmat *q) {
    double *w = coded_weights(c->w, ROWS, &c->metric);
    float *decoded = floats(ROWS * COLS);
    void *scratch = take_zeroed(nq_qmat_scratch(q), 1);
    double error = 0;
    double size = 0;
    nq_qmat_decode(decoded, q, 0, ROWS, scratch);
    for (uint64_t r = 0; r < ROWS; r++) {
        double e[COLS];
        double t[COLS];
        for (uint64_t k = 0; k < COLS; k++) {
            double mean = q->row_mean != NULL ? (double)nq_f16_to_f32(q->row_mean[r]) : 0;
            t[k] = w[r * COLS + k] - mean;
            e[k] = w[r * COLS + k] - (double)decoded[r * COLS + k];
        }
        error += energy(e, c->metric.h, e, COLS);
        size += energy(t, c->metric.h, t, COLS);
    }
    nq_free(scratch);
    nq_free(decoded);
    nq_free(w);
    return error / size;
}

/* A matrix whose scale is stored as it was used is coded as it was. */
static void test_nothing_changed(void **state) {
    (void)state;
    static const char *const schemes[] = {"k16d2l3", "k8d1l2", "pq16x4d2"};
    for (size_t i = 0; i < sizeof schemes / sizeof schemes[0]; i++) {
        coded c = open_coded(schemes[i], NQ_NORMALIZE_NONE);
        nq_qmat q = c.e.q;
        nq_reencoded a = reencode(&c, &q, (nq_reencode_options){.anew = true, .step = 1}, NULL);
        if (i == 0) { /* the rounding of the one scale may turn a choice, and what follows it */
            assert_int_equal(a.changed, 0);
        }
        assert_true(fabs(a.after - a.before) < 0.05 * a.before);
        assert_true(fabs(a.before - c.e.output_error) < 1e-3 * c.e.output_error);
        q.symbols = a.symbols;
        nq_reencoded b = reencode(&c, &q, (nq_reencode_options){.anew = true, .step = 1}, NULL);
        assert_int_equal(b.changed, 0);
        assert_memory_equal(a.symbols, b.symbols, nq_qmat_symbol_bytes(&q));
        assert_true(b.before == b.after);
        nq_free(a.symbols);
        nq_free(b.symbols);
        close_coded(&c);
    }
}

/* q with three groups of columns whose codebooks are other ones; entries owned. */
static nq_qmat disturbed(const coded *c, int8_t *entries, uint16_t *scales) {
    nq_qmat q = c->e.q;
    uint64_t book = nq_scheme_codebook_bytes(&q.scheme);
    for (uint64_t i = 0; i < 3 * book; i++) {
        int v = c->e.codebooks[i % book] + (int)(nq_hash3(8, i / book, i) % 13) - 6;
        entries[i] = (int8_t)(v > 60 ? 60 : v < -60 ? -60 : v);
        scales[i / book] = c->e.codebook_scale[0];
    }
    q.codebooks = entries;
    q.codebook_scale = scales;
    q.groups = 3;
    q.group_cols = 32;
    return q;
}

static void test_changed_codebooks(void **state) {
    (void)state;
    static const char *const schemes[] = {"k16d2l3", "k8d1l2", "pq16x4d2", "k16d4l1"};
    for (size_t i = 0; i < sizeof schemes / sizeof schemes[0]; i++) {
        coded c = open_coded(schemes[i], NQ_NORMALIZE_ROTATE);
        int8_t *entries = take_zeroed(3 * nq_scheme_codebook_bytes(&c.e.q.scheme), 1);
        uint16_t scales[3];
        nq_qmat q = disturbed(&c, entries, scales);
        double before = error_of(&c, &q);
        for (unsigned anew = 0; anew < 2; anew++) {
            nq_reencode_options o = {.anew = anew != 0, .step = 1, .sweeps = anew != 0 ? 0 : 2};
            nq_reencoded r = reencode(&c, &q, o, NULL);
            assert_true(r.changed > 0 && r.after < r.before);
            assert_true(fabs(r.before - before) < 2e-3 * before);
            nq_qmat now = q;
            now.symbols = r.symbols;
            double after = error_of(&c, &now);
            assert_true(fabs(r.after - after) < 2e-3 * after);
            assert_true(after < before);
            nq_free(r.symbols);
        }
        nq_free(entries);
        close_coded(&c);
    }
}

/* A smaller step moves fewer symbols; none at all is worth no change. */
static void test_steps(void **state) {
    (void)state;
    coded c = open_coded("k16d2l3", NQ_NORMALIZE_ROTATE);
    int8_t *entries = take_zeroed(3 * nq_scheme_codebook_bytes(&c.e.q.scheme), 1);
    uint16_t scales[3];
    nq_qmat q = disturbed(&c, entries, scales);
    uint64_t last = UINT64_MAX;
    static const float steps[] = {1, 0.3F, 0.05F, 1e-6F};
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        nq_reencoded r =
            reencode(&c, &q, (nq_reencode_options){.step = steps[i], .sweeps = 1}, NULL);
        assert_true(i == 0 || r.changed <= last);
        last = r.changed;
        nq_free(r.symbols);
    }
    assert_int_equal(last, 0);
    nq_free(entries);
    close_coded(&c);
}

static void test_threads(void **state) {
    (void)state;
    coded c = open_coded("k16d2l3", NQ_NORMALIZE_ROTATE);
    int8_t *entries = take_zeroed(3 * nq_scheme_codebook_bytes(&c.e.q.scheme), 1);
    uint16_t scales[3];
    nq_qmat q = disturbed(&c, entries, scales);
    nq_reencode_options o = {.before = &c.e.q, .step = 0.5F, .sweeps = 2};
    nq_reencoded one = reencode(&c, &q, o, NULL);
    nq_pool *pool = open_pool(3);
    nq_reencoded three = reencode(&c, &q, o, pool);
    assert_memory_equal(one.symbols, three.symbols, nq_qmat_symbol_bytes(&q));
    assert_true(one.after == three.after && one.changed == three.changed);
    nq_free(one.symbols);
    nq_free(three.symbols);
    nq_pool_close(&pool);
    nq_free(entries);
    close_coded(&c);
}

static void test_refusals(void **state) {
    (void)state;
    coded c = open_coded("k16d2l3", NQ_NORMALIZE_ROTATE);
    nq_qmat q = c.e.q;
    nq_reencoded out;
    nq_reencode_options o = {.metric = &c.metric, .step = 1, .anew = true};
    q.rotation.seed++;
    assert_int_equal(nq_reencode(&out, &q, c.w, &o, NULL, NULL), NOVAQ_E_ARG);
    q = c.e.q;
    q.col_exponent = NULL;
    assert_int_equal(nq_reencode(&out, &q, c.w, &o, NULL, NULL), NOVAQ_E_ARG);
    close_coded(&c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_changed), cmocka_unit_test(test_changed_codebooks),
        cmocka_unit_test(test_steps),           cmocka_unit_test(test_threads),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
