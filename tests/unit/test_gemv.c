/* test_gemv.c - integer products with coded weights: every variant this machine can
 * run against the scalar reference, bit for bit, and prepared matrices against
 * decoded ones. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/cpu.h"
#include "base/half.h"
#include "gemv_check.h"
#include "quant/fast.h"

static unsigned variants(const nq_gemv_kern *out[NQ_CPU_LEVELS]) {
    unsigned levels[NQ_CPU_LEVELS];
    unsigned have = nq_cpu_levels(levels);
    unsigned n = 0;
    for (unsigned i = 0; i < have; i++) {
        const nq_gemv_kern *kern = nq_gemv_for(levels[i]);
        if (n == 0 || out[n - 1] != kern) { /* a level may add nothing here */
            out[n++] = kern;
        }
    }
    return n;
}

static void expect_none(unsigned (*check)(const nq_gemv_kern *)) {
    const nq_gemv_kern *v[NQ_CPU_LEVELS];
    unsigned n = variants(v);
    for (unsigned i = 0; i < n; i++) {
        unsigned failed = check(v[i]);
        if (failed != 0) {
            print_error("%s: %u comparisons failed\n", v[i]->name, failed);
        }
        assert_int_equal(failed, 0);
    }
}

static void products_agree(void **state) {
    (void)state;
    expect_none(check_products);
    expect_none(check_i8);
    expect_none(check_fields);
}

static void stored_dots_agree(void **state) {
    (void)state;
    expect_none(check_half_dots);
    expect_none(check_q8_0_dots);
}

/* ---- prepared matrices --------------------------------------------------------- */

#define ROWS   150
#define TOKENS 5

/* A random matrix of a scheme. */
typedef struct sample {
    nq_qmat q;
    uint8_t *symbols;
    int8_t books[4 * 65536];
    uint16_t book_scale[64];
    uint16_t row_scale[ROWS];
    uint16_t row_mean[ROWS];
    int8_t exponents[2048];
} sample;

typedef struct variant {
    const char *scheme;
    uint64_t cols;
    uint32_t group_cols; /* 0: one group */
    uint32_t rotation;
    bool means;
    bool exponents;
    int largest; /* entries of a codebook */
} variant;

static void fill(sample *s, const variant *v) {
    memset(s, 0, sizeof *s);
    nq_qmat *q = &s->q;
    assert_int_equal(nq_scheme_parse(&q->scheme, v->scheme, NULL), NOVAQ_OK);
    q->rows = ROWS;
    q->cols = v->cols;
    q->segment_rows = 64;
    q->group_cols = v->group_cols;
    q->groups = v->group_cols == 0 ? 1 : (uint32_t)((v->cols + v->group_cols - 1) / v->group_cols);
    q->exponent = -3;
    q->rotation = (nq_rotation){v->rotation, 9};
    s->symbols = gemv_bytes(nq_qmat_symbol_bytes(q), 11);
    q->symbols = s->symbols;
    for (uint64_t i = 0; i < nq_qmat_codebook_bytes(q); i++) {
        s->books[i] =
            (int8_t)((int)(gemv_random(12, i) % (uint64_t)(2 * v->largest + 1)) - v->largest);
    }
    for (unsigned i = 0; i < 64; i++) {
        s->book_scale[i] = nq_f32_to_f16(0.01F + 0.001F * (float)i);
    }
    for (unsigned i = 0; i < ROWS; i++) {
        s->row_scale[i] = nq_f32_to_f16(0.5F + 0.01F * (float)i);
        s->row_mean[i] = nq_f32_to_f16(0.01F * (float)((int)i - 70));
    }
    for (uint64_t i = 0; i < v->cols; i++) {
        s->exponents[i] = (int8_t)(gemv_random(13, i) % 9) - 4;
    }
    bool code = q->scheme.kind == NQ_SCHEME_CODE;
    q->codebooks = code ? s->books : NULL;
    q->codebook_scale = code ? s->book_scale : NULL;
    q->row_scale = s->row_scale;
    q->row_mean = v->means ? s->row_mean : NULL;
    q->col_exponent = v->exponents ? s->exponents : NULL;
}

/* What rounding the activations to `limit` steps may change at most, a row of w
 * (cols) with activations whose largest is most: half a step everywhere. */
static double bound(const float *w, uint64_t cols, double most, double limit) {
    double sum = 0;
    for (uint64_t c = 0; c < cols; c++) {
        sum += fabs((double)w[c]);
    }
    return sum * most / limit * 0.5 + 1e-4;
}

/* One matrix by one table of kernels against its decoded rows: near, and a block of
 * tokens equal to single tokens, bit for bit. */
static void check_prepared(const sample *s, const nq_gemv_kern *kern) {
    const nq_qmat *q = &s->q;
    nq_fast_set *set = NULL;
    const nq_fast *f = NULL;
    assert_int_equal(nq_fast_set_open(&set, kern, NULL), NOVAQ_OK);
    assert_int_equal(nq_fast_add(&f, set, q, NULL), NOVAQ_OK);
    assert_non_null(f);
    uint64_t bytes = nq_fast_row_bytes(f);
    nq_fast_input in = {.x = malloc(TOKENS * bytes),
                        .scale = malloc(TOKENS * sizeof(float)),
                        .sum = malloc(TOKENS * sizeof(int32_t)),
                        .total = malloc(TOKENS * sizeof(float))};
    float *x = malloc(TOKENS * q->cols * sizeof *x);
    float *xr = malloc(TOKENS * q->cols * sizeof *xr);
    float *work = malloc(2 * bytes * sizeof *work);
    float *w = malloc((uint64_t)ROWS * q->cols * sizeof *w);
    float *y = malloc((size_t)TOKENS * ROWS * sizeof *y);
    float *one = malloc(sizeof(float) * ROWS);
    void *scratch = malloc(nq_fast_scratch(f, ROWS, TOKENS));
    void *decoding = malloc(nq_qmat_scratch(q));
    for (uint64_t i = 0; i < TOKENS * q->cols; i++) {
        x[i] = i < q->cols ? 0.0F : (float)nq_normal(1, 14, i); /* the first token is zero */
    }
    memcpy(xr, x, TOKENS * q->cols * sizeof *x);
    nq_qmat_input(xr, q, TOKENS);
    nq_qmat_decode(w, q, 0, ROWS, decoding);
    for (uint64_t t = 0; t < TOKENS; t++) {
        nq_fast_prepare(&in, t, f, x + t * q->cols, work);
    }
    nq_fast_apply(y, ROWS, f, 0, ROWS, &in, TOKENS, scratch);
    for (uint64_t t = 0; t < TOKENS; t++) {
        nq_fast_input single = {in.x + t * bytes, in.scale + t, in.sum + t, in.total + t};
        nq_fast_apply(one, ROWS, f, 0, 70, &single, 1, scratch);
        nq_fast_apply(one + 70, ROWS, f, 70, ROWS - 70, &single, 1, scratch);
        assert_memory_equal(one, y + t * ROWS, ROWS * sizeof *one);
        double most = 0;
        for (uint64_t c = 0; c < q->cols; c++) {
            /* In groups the activations are rounded after scaling. */
            double a = fabs((double)xr[t * q->cols + c]);
            most = a > most ? a : most;
        }
        double spread = q->groups > 1 ? 2.0 : 1.0;
        for (uint64_t i = 0; i < ROWS; i++) {
            double want = 0;
            for (uint64_t c = 0; c < q->cols; c++) {
                want += (double)w[i * q->cols + c] * (double)xr[t * q->cols + c];
            }
            double limit = kern->narrow ? 63.0 : 127.0;
            double error = fabs((double)y[t * ROWS + i] - want);
            assert_true(error <= spread * bound(w + i * q->cols, q->cols, most, limit));
        }
    }
    free(in.x);
    free(in.scale);
    free(in.sum);
    free(in.total);
    free(x);
    free(xr);
    free(work);
    free(w);
    free(y);
    free(one);
    free(scratch);
    free(decoding);
    nq_fast_set_close(&set);
}

static const variant VARIANTS[] = {
    {"k16d2l2", 576, 0, 64, false, false, 60},
    {"k16d2l3", 512, 64, 512, false, false, 40},
    {"k16d2l2", 592, 96, 16, true, true, 60},
    {"k16d1l2", 320, 0, 64, false, true, 60},
    {"k16d1l3", 256, 32, 256, false, false, 40},
    {"k8d2l3", 832, 0, 64, false, false, 40},
    {"k8d1l2", 560, 64, 16, true, false, 60},
    {"k4d1l2", 1024, 0, 512, false, false, 60},
    {"k4d2l3", 624, 128, 16, false, true, 40},
    {"k16d4l1", 576, 0, 64, false, false, 127},
    {"k16d8l2", 1536, 512, 512, true, false, 60},
    {"k16d3l2", 576, 0, 64, false, false, 60},
    {"k5d2l2", 320, 0, 64, false, false, 60},
    {"pq16x8d4", 576, 0, 64, false, false, 60},
    {"pq256x16d2", 288, 0, 32, false, true, 60},
    {"q8", 600, 0, 0, true, false, 0},
    {"k16d2l3", 576, 0, 64, false, false, 127}, /* sums beyond a byte: they wrap */
    {"k2d1l2", 320, 0, 64, false, false, 60},
    {"pq16x2d1", 592, 0, 16, true, false, 60},
    {"pq5x3d3", 288, 0, 32, false, true, 60},
    {"pq9d6", 600, 0, 0, false, false, 127},
    {"pq16x4d4", 576, 64, 64, false, false, 60},
    {"pq64x20d2", 560, 0, 16, false, false, 60},
    {"pq256x256d8", 1024, 0, 64, true, false, 60},
    {"pq200d12", 600, 0, 0, false, false, 127},
    {"q8", 577, 0, 0, false, false, 0},
    {"pq16x16d2", 576, 0, 64, false, false, 127},
};

static void prepared_matrices_agree(void **state) {
    (void)state;
    const nq_gemv_kern *v[NQ_CPU_LEVELS];
    unsigned n = variants(v);
    sample *s = malloc(sizeof *s);
    for (size_t i = 0; i < sizeof VARIANTS / sizeof VARIANTS[0]; i++) {
        fill(s, &VARIANTS[i]);
        for (unsigned k = 0; k < n; k++) {
            check_prepared(s, v[k]);
        }
        free(s->symbols);
    }
    free(s);
}

/* NaN and infinity in an activation must not pass for numbers. */
static void no_numbers_stay_none(void **state) {
    (void)state;
    sample *s = malloc(sizeof *s);
    fill(s, &VARIANTS[0]);
    nq_fast_set *set = NULL;
    const nq_fast *f = NULL;
    assert_int_equal(nq_fast_set_open(&set, nq_gemv_for(nq_cpu_features()), NULL), NOVAQ_OK);
    assert_int_equal(nq_fast_add(&f, set, &s->q, NULL), NOVAQ_OK);
    float scale = 0;
    int32_t sum = 0;
    float total = 0;
    nq_fast_input in = {malloc(nq_fast_row_bytes(f)), &scale, &sum, &total};
    float *work = malloc(2 * nq_fast_row_bytes(f) * sizeof *work);
    void *scratch = malloc(nq_fast_scratch(f, ROWS, 1));
    float x[576] = {0};
    float y[ROWS];
    const float bad[] = {NAN, INFINITY, -INFINITY};
    for (unsigned i = 0; i < 3; i++) {
        x[100] = bad[i];
        nq_fast_prepare(&in, 0, f, x, work);
        nq_fast_apply(y, ROWS, f, 0, ROWS, &in, 1, scratch);
        for (unsigned r = 0; r < ROWS; r++) {
            assert_true(!(fabsf(y[r]) <= 3.0e38F));
        }
    }
    free(in.x);
    free(work);
    free(scratch);
    free(s->symbols);
    free(s);
    nq_fast_set_close(&set);
}

/* Matrices share activations only when they need the same of them. */
static void inputs_are_shared_where_equal(void **state) {
    (void)state;
    sample *s[3] = {malloc(sizeof *s[0]), malloc(sizeof *s[1]), malloc(sizeof *s[2])};
    const nq_fast *f[3] = {NULL};
    nq_fast_set *set = NULL;
    assert_int_equal(nq_fast_set_open(&set, nq_gemv_for(nq_cpu_features()), NULL), NOVAQ_OK);
    for (unsigned i = 0; i < 3; i++) {
        fill(s[i], &VARIANTS[0]);
        s[i]->q.row_mean = i == 2 ? s[i]->row_mean : NULL;
        assert_int_equal(nq_fast_add(&f[i], set, &s[i]->q, NULL), NOVAQ_OK);
    }
    assert_true(nq_fast_same_input(f[0], f[1]));
    assert_false(nq_fast_same_input(f[0], f[2])); /* its row means need a sum */
    nq_fast_set_close(&set);
    for (unsigned i = 0; i < 3; i++) {
        free(s[i]->symbols);
        free(s[i]);
    }
}

/* Scales of a damaged file that are no numbers do not become numbers. */
static void scales_stay_infinite(void **state) {
    (void)state;
    sample *s = malloc(sizeof *s);
    nq_fast_set *set = NULL;
    const nq_fast *f = NULL;
    fill(s, &VARIANTS[0]);
    s->row_scale[3] = 0x7C00;
    s->row_scale[4] = 0x7E00;
    assert_int_equal(nq_fast_set_open(&set, nq_gemv_for(nq_cpu_features()), NULL), NOVAQ_OK);
    assert_int_equal(nq_fast_add(&f, set, &s->q, NULL), NOVAQ_OK);
    float scale = 0;
    int32_t sum = 0;
    float total = 0;
    float x[576];
    float y[ROWS];
    nq_fast_input in = {malloc(nq_fast_row_bytes(f)), &scale, &sum, &total};
    float *work = malloc(2 * nq_fast_row_bytes(f) * sizeof *work);
    void *scratch = malloc(nq_fast_scratch(f, ROWS, 1));
    for (unsigned i = 0; i < 576; i++) {
        x[i] = (float)nq_normal(3, 1, i);
    }
    nq_fast_prepare(&in, 0, f, x, work);
    nq_fast_apply(y, ROWS, f, 0, ROWS, &in, 1, scratch);
    for (unsigned r = 0; r < ROWS; r++) {
        assert_int_equal(fabsf(y[r]) <= 3.0e38F, r != 3 && r != 4);
    }
    free(in.x);
    free(work);
    free(scratch);
    free(s->symbols);
    free(s);
    nq_fast_set_close(&set);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_agree),
        cmocka_unit_test(stored_dots_agree),
        cmocka_unit_test(prepared_matrices_agree),
        cmocka_unit_test(no_numbers_stay_none),
        cmocka_unit_test(inputs_are_shared_where_equal),
        cmocka_unit_test(scales_stay_infinite),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
