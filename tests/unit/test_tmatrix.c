/* test_tmatrix.c - matrices in training: products and look-ups against plain decoding,
 * every gradient against finite differences, for every kind of scheme; the same bits
 * for any number of threads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <cblas.h>
#include <math.h>
#include <string.h>

#include "base/cpu.h"
#include "base/half.h"
#include "base/mem.h"
#include "base/rng.h"
#include "refine/matrix_impl.h"

#define ROWS   100 /* more than a chunk of the smallest work */
#define TOKENS 21
#define IDS    19

typedef struct kind {
    const char *scheme; /* NULL: floats in memory */
    uint64_t cols;
    uint32_t block;
    uint64_t stored_cols; /* of a codebook group as stored; 0: one group */
    uint64_t train_cols;
    bool means, scales;
} kind;

static const kind kinds[] = {
    {"k16d2l3", 192, 64, 0, 32, false, false}, {"k16d2l2", 256, 32, 128, 32, true, true},
    {"k16d2l1", 64, 0, 0, 0, false, true},     {"k8d1l3", 160, 32, 0, 32, false, false},
    {"k16d1l2", 75, 0, 0, 20, true, false},    {"k16d4l3", 166, 0, 0, 16, false, false},
    {"k4d3l2", 208, 16, 0, 16, true, false},   {"pq16x8d4", 64, 64, 0, 0, false, true},
    {"pq6x3d2", 34, 0, 0, 8, false, false},    {"pq256x256d8", 1040, 0, 0, 128, true, false},
    {"q8", 64, 64, 0, 0, true, true},          {NULL, 48, 0, 0, 0, false, false},
};
#define KINDS (sizeof kinds / sizeof kinds[0])

/* A matrix with its pieces, and what training makes of it. */
typedef struct fixture {
    nq_qmat q;
    uint8_t *symbols;
    int8_t *codebooks;
    uint16_t scale[8], row_scale[ROWS], row_mean[ROWS];
    int8_t exponent[1100];
    float *plain; /* (ROWS, cols): W itself */
    nq_weight weight;
    nq_tmatrix m;
    nq_pool *pool;
    nq_tmatrix_work *work;
    float *x, *dy, *y, *dx, *looked; /* inputs, a random functional of the outputs, ... */
    int32_t ids[IDS];
} fixture;

static void *take(uint64_t count, uint64_t size) {
    void *p = NULL;
    assert_int_equal(nq_alloc(&p, count, size, NULL), NOVAQ_OK);
    return p;
}

static float *noise(uint64_t n, uint64_t stream) {
    float *x = take(n, sizeof *x);
    for (uint64_t i = 0; i < n; i++) {
        x[i] = (float)nq_normal(11, stream, i);
    }
    return x;
}

static void fill_symbols(fixture *f) {
    const nq_scheme *s = &f->q.scheme;
    uint64_t row_bytes = nq_scheme_row_bytes(s, f->q.cols);
    uint64_t stride = nq_scheme_row_symbols(s, f->q.cols);
    f->symbols = take(ROWS, row_bytes);
    uint8_t *row = take(stride, s->fields);
    for (uint64_t i = 0; i < ROWS; i++) {
        for (uint64_t j = 0; j < (f->q.cols + s->d - 1) / s->d; j++) {
            for (unsigned k = 0; k < s->fields; k++) {
                row[k * stride + j] = (uint8_t)(nq_hash3(k + 1, i, j) % s->k[k]);
            }
        }
        nq_symbols_pack(f->symbols + i * row_bytes, s, row, f->q.cols);
    }
    nq_free(row);
}

static void fill_coded(fixture *f, const kind *k) {
    f->q.groups = 1;
    if (k->stored_cols != 0) {
        f->q.groups = (uint32_t)((k->cols + k->stored_cols - 1) / k->stored_cols);
        f->q.group_cols = k->stored_cols;
    }
    if (f->q.scheme.kind == NQ_SCHEME_CODE) {
        fill_symbols(f);
        uint64_t n = nq_qmat_codebook_bytes(&f->q);
        f->codebooks = take(n, 1);
        for (uint64_t i = 0; i < n; i++) {
            f->codebooks[i] = (int8_t)((int)(nq_hash3(5, 6, i) % 81) - 40);
        }
    } else {
        f->symbols = take(ROWS, k->cols);
        for (uint64_t i = 0; i < ROWS * k->cols; i++) {
            f->symbols[i] = (uint8_t)nq_hash3(7, ROWS, i);
        }
    }
    for (unsigned g = 0; g < 8; g++) {
        f->scale[g] = nq_f32_to_f16(0.02F + 0.003F * (float)g);
    }
    for (uint64_t i = 0; i < ROWS; i++) {
        f->row_scale[i] = nq_f32_to_f16(0.2F + 0.3F * (float)nq_uniform(8, 0, i));
        f->row_mean[i] = nq_f32_to_f16(0.1F * (float)nq_normal(8, 1, i));
    }
    for (uint64_t c = 0; c < k->cols; c++) {
        f->exponent[c] = (int8_t)((int)(nq_hash3(9, 0, c) % 7) - 3);
    }
}

static void open_plain(fixture *f, const kind *k) {
    f->plain = noise(ROWS * k->cols, 99);
    if (k->scheme == NULL) {
        return;
    }
    assert_int_equal(nq_scheme_parse(&f->q.scheme, k->scheme, NULL), NOVAQ_OK);
    f->q.rows = ROWS;
    f->q.cols = k->cols;
    f->q.segment_rows = 33;
    f->q.exponent = -1;
    f->q.rotation = (nq_rotation){.block = k->block, .seed = 3};
    fill_coded(f, k);
    f->q.symbols = f->symbols;
    f->q.codebooks = f->codebooks;
    f->q.codebook_scale = f->scale;
    f->q.row_scale = f->row_scale;
    f->q.row_mean = k->means ? f->row_mean : NULL;
    f->q.col_exponent = k->scales ? f->exponent : NULL;
    assert_int_equal(nq_qmat_check(&f->q, "q", NULL), NOVAQ_OK);
    void *scratch = take(nq_qmat_scratch(&f->q), 1);
    nq_qmat_decode_plain(f->plain, &f->q, 0, ROWS, scratch);
    nq_free(scratch);
}

static fixture *open_fixture(const kind *k, unsigned threads, uint64_t elements) {
    fixture *f = take(1, sizeof *f);
    open_plain(f, k);
    f->weight = (nq_weight){.name = "w", .rows = ROWS, .cols = k->cols};
    nq_linear l = {.w = &f->weight};
    if (k->scheme != NULL) {
        f->weight.q = &f->q;
    } else {
        l.dense = f->plain;
    }
    novaq_error err = {0};
    assert_int_equal(nq_tmatrix_open(&f->m, &l, k->train_cols, false, &err), NOVAQ_OK);
    assert_int_equal(nq_pool_open(&f->pool, threads, &err), NOVAQ_OK);
    assert_int_equal(nq_tmatrix_work_open(&f->work, f->pool, elements, ROWS, k->cols, TOKENS, &err),
                     NOVAQ_OK);
    f->x = noise(TOKENS * k->cols, 1);
    f->dy = noise(TOKENS * ROWS, 2);
    f->y = take(TOKENS * ROWS, sizeof(float));
    f->dx = take(TOKENS * k->cols, sizeof(float));
    f->looked = take(IDS * k->cols, sizeof(float));
    for (uint64_t i = 0; i < IDS; i++) {
        f->ids[i] = (int32_t)(nq_hash3(4, 4, i) % 30); /* some twice */
    }
    return f;
}

static void close_fixture(fixture *f) {
    nq_tmatrix_close(&f->m);
    nq_tmatrix_work_close(&f->work);
    assert_null(f->work);
    nq_pool_close(&f->pool);
    nq_free(f->symbols);
    nq_free(f->codebooks);
    nq_free(f->plain);
    nq_free(f->x);
    nq_free(f->dy);
    nq_free(f->y);
    nq_free(f->dx);
    nq_free(f->looked);
    nq_free(f);
}

static void forward(fixture *f) {
    assert_int_equal(nq_tmatrix_forward(f->y, &f->m, f->x, TOKENS, f->work, NULL), NOVAQ_OK);
}

static void lookup(fixture *f) {
    assert_int_equal(nq_tmatrix_lookup(f->looked, &f->m, f->ids, IDS, f->work, NULL), NOVAQ_OK);
}

/* ---- values ------------------------------------------------------------------------ */

static void test_forward(void **state) {
    (void)state;
    for (size_t i = 0; i < KINDS; i++) {
        fixture *f = open_fixture(&kinds[i], 2, 1);
        uint64_t cols = kinds[i].cols;
        forward(f);
        for (uint64_t t = 0; t < TOKENS; t++) {
            for (uint64_t r = 0; r < ROWS; r++) {
                double want = 0;
                for (uint64_t c = 0; c < cols; c++) {
                    want += (double)f->plain[r * cols + c] * (double)f->x[t * cols + c];
                }
                assert_true(fabs((double)f->y[t * ROWS + r] - want) < 1e-4 * (1 + fabs(want)));
            }
        }
        lookup(f);
        for (uint64_t t = 0; t < IDS; t++) {
            for (uint64_t c = 0; c < cols; c++) {
                double want = (double)f->plain[(uint64_t)f->ids[t] * cols + c];
                assert_true(fabs((double)f->looked[t * cols + c] - want) < 1e-5);
            }
        }
        close_fixture(f);
    }
}

/* ---- gradients ----------------------------------------------------------------------- */

/* The functional whose gradient is taken: of products or of looked-up rows. */
static double functional(fixture *f, bool rows) {
    double sum = 0;
    if (rows) {
        lookup(f);
        for (uint64_t i = 0; i < IDS * f->m.cols; i++) {
            sum += (double)f->looked[i] * (double)f->x[i];
        }
        return sum;
    }
    forward(f);
    for (uint64_t i = 0; i < TOKENS * ROWS; i++) {
        sum += (double)f->y[i] * (double)f->dy[i];
    }
    return sum;
}

static void backward(fixture *f, bool rows, bool frozen) {
    if (rows) {
        assert_int_equal(nq_tmatrix_lookup_backward(&f->m, f->x, f->ids, IDS, f->work, NULL),
                         NOVAQ_OK);
        return;
    }
    assert_int_equal(nq_tmatrix_backward(f->dx, &f->m, f->dy, f->x, TOKENS, frozen, f->work, NULL),
                     NOVAQ_OK);
}

/* Along direction u: (count) in place of value. */
static double slope(fixture *f, bool rows, float *value, const float *u, uint64_t n, double h) {
    double side[2];
    float *keep = take(n, sizeof *keep);
    memcpy(keep, value, n * sizeof *keep);
    for (unsigned s = 0; s < 2; s++) {
        for (uint64_t i = 0; i < n; i++) {
            value[i] = (float)((double)keep[i] + (s == 0 ? -h : h) * (double)u[i]);
        }
        side[s] = functional(f, rows);
    }
    memcpy(value, keep, n * sizeof *keep);
    nq_free(keep);
    return (side[1] - side[0]) / (2 * h);
}

static void check_slope(fixture *f, bool rows, float *value, const float *grad, uint64_t n) {
    float *u = noise(n, 77);
    double want = 0;
    double size = 0;
    for (uint64_t i = 0; i < n; i++) {
        want += (double)u[i] * (double)grad[i];
        size += fabs((double)u[i] * (double)grad[i]);
    }
    assert_true(size > 0);
    double got = slope(f, rows, value, u, n, 2e-3);
    assert_true(fabs(got - want) < 2e-3 * (size / sqrt((double)n) + fabs(want)));
    /* And one of them alone. */
    uint64_t one = nq_hash3(1, 2, n) % n;
    memset(u, 0, n * sizeof *u);
    u[one] = 1;
    got = slope(f, rows, value, u, n, 1e-2);
    assert_true(fabs(got - (double)grad[one]) <
                1e-2 * (size / (double)n + fabs((double)grad[one])) + 1e-3);
    nq_free(u);
}

/* Away from where training starts, so that nothing is at zero by chance. */
static void disturb(nq_param *p) {
    for (uint64_t i = 0; i < p->count; i++) {
        p->value[i] += 0.05F * (float)nq_normal(21, p->kind, i);
    }
}

static void test_gradients(void **state) {
    (void)state;
    for (size_t i = 0; i < KINDS; i++) {
        for (int rows = 0; rows < 2; rows++) {
            fixture *f = open_fixture(&kinds[i], 2, 1);
            nq_param list[4];
            unsigned n = nq_tmatrix_params(list, &f->m);
            const kind *k = &kinds[i];
            bool coded = k->scheme != NULL;
            bool books = coded && strcmp(k->scheme, "q8") != 0;
            assert_int_equal(n, books + coded + k->means + k->scales);
            for (unsigned p = 0; p < n; p++) {
                disturb(&list[p]);
            }
            backward(f, rows != 0, false);
            for (unsigned p = 0; p < n; p++) {
                check_slope(f, rows != 0, list[p].value, list[p].grad, list[p].count);
            }
            if (rows == 0) {
                check_slope(f, false, f->x, f->dx, TOKENS * k->cols);
            }
            close_fixture(f);
        }
    }
}

/* Gradients are added to what is there; frozen ones are left alone. */
static void test_adds(void **state) {
    (void)state;
    fixture *f = open_fixture(&kinds[1], 1, 1);
    nq_param list[4];
    unsigned n = nq_tmatrix_params(list, &f->m);
    backward(f, false, false);
    float first = list[0].grad[3];
    float dx = f->dx[5];
    backward(f, false, true);
    assert_true(list[0].grad[3] == first);
    assert_true(f->dx[5] == dx + dx);
    backward(f, false, false);
    assert_true(fabsf(list[0].grad[3] - 2 * first) < 1e-4F * fabsf(first));
    assert_int_equal(n, 4);
    close_fixture(f);
}

static void test_threads(void **state) {
    (void)state;
    for (size_t i = 0; i < KINDS; i++) {
        fixture *a = open_fixture(&kinds[i], 1, 1);
        fixture *b = open_fixture(&kinds[i], 3, 1);
        nq_param pa[4];
        nq_param pb[4];
        unsigned n = nq_tmatrix_params(pa, &a->m);
        assert_int_equal(nq_tmatrix_params(pb, &b->m), n);
        for (int rows = 0; rows < 2; rows++) {
            forward(a);
            forward(b);
            backward(a, rows != 0, false);
            backward(b, rows != 0, false);
        }
        assert_memory_equal(a->y, b->y, TOKENS * ROWS * sizeof(float));
        assert_memory_equal(a->dx, b->dx, TOKENS * kinds[i].cols * sizeof(float));
        for (unsigned p = 0; p < n; p++) {
            assert_memory_equal(pa[p].grad, pb[p].grad, pa[p].count * sizeof(float));
        }
        close_fixture(a);
        close_fixture(b);
    }
}

/* ---- parts and refusals ---------------------------------------------------------------- */

static void test_part(void **state) {
    (void)state;
    fixture *f = open_fixture(&kinds[0], 2, 1 << 20);
    nq_linear l = {.w = &f->weight, .row0 = 40, .rows = 35};
    nq_tmatrix part;
    assert_int_equal(nq_tmatrix_open(&part, &l, 16, false, NULL), NOVAQ_OK);
    nq_param list[4];
    assert_int_equal(nq_tmatrix_params(list, &part), 1);
    assert_int_equal(list[0].kind, NQ_PARAM_LOG_SCALE);
    assert_int_equal(list[0].count, 35);
    float *y = take(TOKENS * 35, sizeof *y);
    forward(f);
    assert_int_equal(nq_tmatrix_forward(y, &part, f->x, TOKENS, f->work, NULL), NOVAQ_OK);
    for (uint64_t t = 0; t < TOKENS; t++) {
        for (uint64_t r = 0; r < 35; r++) {
            assert_true(fabsf(y[t * 35 + r] - f->y[t * ROWS + 40 + r]) < 1e-4F);
        }
    }
    assert_int_equal(nq_tmatrix_backward(NULL, &part, y, f->x, TOKENS, false, f->work, NULL),
                     NOVAQ_OK);
    assert_true(list[0].grad[34] != 0.0F);
    nq_free(y);
    nq_tmatrix_close(&part);
    close_fixture(f);
}

/* A frozen matrix is the same, without memory for gradients. */
static void test_frozen(void **state) {
    (void)state;
    fixture *f = open_fixture(&kinds[0], 2, 1 << 20);
    nq_linear l = {.w = &f->weight};
    nq_tmatrix frozen;
    nq_param list[4];
    float *y = take(TOKENS * ROWS, sizeof *y);
    assert_int_equal(nq_tmatrix_open(&frozen, &l, kinds[0].train_cols, true, NULL), NOVAQ_OK);
    assert_null(frozen.grad_codebooks);
    assert_null(frozen.grad_log_scale);
    assert_int_equal(nq_tmatrix_params(list, &frozen), 0);
    forward(f);
    assert_int_equal(nq_tmatrix_forward(y, &frozen, f->x, TOKENS, f->work, NULL), NOVAQ_OK);
    assert_memory_equal(y, f->y, TOKENS * ROWS * sizeof *y);
    nq_free(y);
    nq_tmatrix_close(&frozen);
    close_fixture(f);
}

static void test_refusals(void **state) {
    (void)state;
    fixture *f = open_fixture(&kinds[0], 1, 1);
    novaq_error err = {0};
    assert_int_equal(nq_tmatrix_forward(f->y, &f->m, f->x, TOKENS + 1, f->work, &err), NOVAQ_E_ARG);
    f->ids[3] = ROWS;
    assert_int_equal(nq_tmatrix_lookup(f->looked, &f->m, f->ids, IDS, f->work, &err), NOVAQ_E_ARG);
    f->ids[3] = -1;
    assert_int_equal(nq_tmatrix_lookup(f->looked, &f->m, f->ids, IDS, f->work, &err), NOVAQ_E_ARG);
    close_fixture(f);
    /* Three bits hold symbols that six entries do not have. */
    f = open_fixture(&kinds[8], 1, 1);
    memset(f->symbols, 0xff, nq_qmat_symbol_bytes(&f->q));
    nq_linear l = {.w = &f->weight};
    nq_tmatrix m;
    assert_int_equal(nq_tmatrix_open(&m, &l, 0, false, &err), NOVAQ_E_FORMAT);
    close_fixture(f);
}

/* ---- products of floats ------------------------------------------------------------------ */

static void test_gemm(void **state) {
    (void)state;
    enum { M = 530, N = 401, K = 7 };
    float *a = noise((uint64_t)M * K, 31);
    float *b = noise((uint64_t)N * K, 32);
    nq_pool *pool = NULL;
    assert_int_equal(nq_pool_open(&pool, 3, NULL), NOVAQ_OK);
    float *c = take((uint64_t)M * N, sizeof *c);
    for (unsigned how = 0; how < 8; how++) {
        bool ta = (how & 1) != 0;
        bool tb = (how & 2) != 0;
        bool add = (how & 4) != 0;
        for (uint64_t i = 0; i < (uint64_t)M * N; i++) {
            c[i] = 1;
        }
        nq_gemm(pool, ta, tb, M, N, K, a, ta ? M : K, b, tb ? K : N, add, c, N);
        for (uint64_t i = 0; i < M; i += 13) {
            for (uint64_t j = 0; j < N; j += 7) {
                double want = add ? 1 : 0;
                for (uint64_t k = 0; k < K; k++) {
                    want += (double)a[ta ? k * M + i : i * K + k] *
                            (double)b[tb ? j * K + k : k * N + j];
                }
                assert_true(fabs((double)c[i * N + j] - want) < 1e-4);
            }
        }
    }
    nq_free(a);
    nq_free(b);
    nq_free(c);
    nq_pool_close(&pool);
}

/* Numbers rounded to bfloat16 as the kernel does; sums are floats. */
static void check_halves(const nq_halves *halves, nq_pool *pool, uint64_t m, uint64_t n, uint64_t k,
                         unsigned how) {
    bool ta = (how & 1) != 0;
    bool tb = (how & 2) != 0;
    bool add = (how & 4) != 0;
    uint64_t lda = (ta ? m : k) + 3;
    uint64_t ldb = (tb ? k : n) + 1;
    uint64_t ldc = n + 2;
    float *a = noise((ta ? k : m) * lda, 41);
    float *b = noise((tb ? n : k) * ldb, 42);
    float *c = noise(m * ldc, 43);
    float *was = noise(m * ldc, 43);
    nq_gemm_with(halves, pool, ta, tb, m, n, k, a, lda, b, ldb, add, c, ldc);
    for (uint64_t i = 0; i < m; i++) {
        for (uint64_t j = 0; j < ldc; j++) {
            double want = (double)was[i * ldc + j];
            double size = 1;
            if (j < n) {
                want = add ? want : 0;
                for (uint64_t l = 0; l < k; l++) {
                    float x = nq_bf16_to_f32(nq_f32_to_bf16(a[ta ? l * lda + i : i * lda + l]));
                    float y = nq_bf16_to_f32(nq_f32_to_bf16(b[tb ? j * ldb + l : l * ldb + j]));
                    want += (double)x * (double)y;
                    size += fabs((double)x * (double)y);
                }
            }
            assert_true(fabs((double)c[i * ldc + j] - want) < 1e-5 * size);
        }
    }
    nq_free(a);
    nq_free(b);
    nq_free(c);
    nq_free(was);
}

/* The same bits for any number of threads, in every way. */
static void test_halves_threads(void **state) {
    (void)state;
    enum { M = 300, N = 433, K = 777 };
    nq_halves halves = {.kernel = nq_gemm16_for(nq_cpu_features())};
    if (halves.kernel == NULL) {
        skip();
    }
    halves.memory = take(NQ_HALVES_WORDS, sizeof *halves.memory);
    float *a = noise((uint64_t)M * K, 51);
    float *b = noise((uint64_t)N * K, 52);
    float *c[2] = {take((uint64_t)M * N, sizeof(float)), take((uint64_t)M * N, sizeof(float))};
    for (unsigned how = 0; how < 4; how++) {
        bool ta = (how & 1) != 0;
        bool tb = (how & 2) != 0;
        for (unsigned i = 0; i < 2; i++) {
            nq_pool *pool = NULL;
            assert_int_equal(nq_pool_open(&pool, 1 + 2 * i, NULL), NOVAQ_OK);
            nq_gemm_with(&halves, pool, ta, tb, M, N, K, a, ta ? M : K, b, tb ? K : N, false, c[i],
                         N);
            nq_pool_close(&pool);
        }
        assert_memory_equal(c[0], c[1], sizeof(float) * M * N);
    }
    nq_free(a);
    nq_free(b);
    nq_free(c[0]);
    nq_free(c[1]);
    nq_free(halves.memory);
}

static void test_halves(void **state) {
    (void)state;
    static const uint64_t shapes[][3] = {{1, 1, 1},
                                         {8, 48, 2},
                                         {9, 50, 33},
                                         {17, 47, 256},
                                         {3, 97, 257},
                                         {300, 390, 5},
                                         {25, 16, 31},
                                         {3, 5, 0},
                                         {257, 1, 600},
                                         /* More than fits the memory: k; lines of each. */
                                         {1, 1, 88000},
                                         {16400, 2, 5},
                                         {2, 16350, 3}};
    nq_halves halves = {.kernel = nq_gemm16_for(nq_cpu_features())};
    nq_pool *pool = NULL;
    if (halves.kernel == NULL) {
        skip();
    }
    halves.memory = take(NQ_HALVES_WORDS, sizeof *halves.memory);
    assert_int_equal(nq_pool_open(&pool, 2, NULL), NOVAQ_OK);
    for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++) {
        for (unsigned how = 0; how < 8; how++) {
            check_halves(&halves, pool, shapes[s][0], shapes[s][1], shapes[s][2], how);
        }
    }
    nq_pool_close(&pool);
    nq_free(halves.memory);
    fixture *f = open_fixture(&kinds[0], 2, 1);
    forward(f);
    float exact = f->y[5];
    assert_int_equal(nq_tmatrix_work_halves(f->work, NULL), NOVAQ_OK);
    forward(f);
    assert_true(f->y[5] != exact && fabsf(f->y[5] - exact) < 0.05F * (1 + fabsf(exact)));
    close_fixture(f);
}

int main(void) {
    openblas_set_num_threads(1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forward),        cmocka_unit_test(test_gradients),
        cmocka_unit_test(test_adds),           cmocka_unit_test(test_threads),
        cmocka_unit_test(test_part),           cmocka_unit_test(test_frozen),
        cmocka_unit_test(test_refusals),       cmocka_unit_test(test_gemm),
        cmocka_unit_test(test_halves_threads), cmocka_unit_test(test_halves),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
