/* test_colscale.c - column scales of coded matrices: their factors, decoding,
 * products, and groups of matrices that share their input but not its basis. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <string.h>

#include "base/half.h"
#include "base/mem.h"
#include "base/rng.h"
#include "model/linear.h"
#include "quant/qmat.h"

#define ROWS    100 /* more than a tile of the products */
#define COLS    64
#define TOKENS  40 /* more than one task prepares */
#define MEMBERS 9

/* A matrix with its pieces. */
typedef struct matrix {
    nq_qmat q;
    uint8_t *symbols;
    int8_t *codebooks;
    uint16_t codebook_scale;
    uint16_t row_scale[ROWS];
    uint16_t row_mean[ROWS];
    int8_t exponent[COLS];
    float plain[ROWS * COLS]; /* decoded, as float32 */
} matrix;

static void *take(uint64_t count, uint64_t size) {
    void *p = NULL;
    assert_int_equal(nq_alloc(&p, count, size, NULL), NOVAQ_OK);
    return p;
}

static void fill_code(matrix *m, uint64_t seed) {
    const nq_scheme *s = &m->q.scheme;
    uint64_t row_bytes = nq_scheme_row_bytes(s, COLS);
    uint64_t stride = nq_scheme_row_symbols(s, COLS);
    uint8_t *symbols = take(stride, s->fields);
    m->symbols = take(ROWS, row_bytes);
    for (uint64_t i = 0; i < ROWS; i++) {
        for (uint64_t j = 0; j < (COLS + s->d - 1) / s->d; j++) {
            symbols[j] = (uint8_t)(nq_hash3(seed, i, j) % s->k[0]);
        }
        nq_symbols_pack(m->symbols + i * row_bytes, s, symbols, COLS);
    }
    nq_free(symbols);
    uint64_t n = nq_qmat_codebook_bytes(&m->q);
    m->codebooks = take(n, 1);
    for (uint64_t i = 0; i < n; i++) {
        m->codebooks[i] = (int8_t)((int)(nq_hash3(seed, ROWS, i) % 81) - 40);
    }
}

/* Values of about 0.05. exponents: the seed of the column scales, 0 for none. */
static matrix *make_matrix(const char *scheme, uint32_t block, uint64_t rotation_seed,
                           uint64_t exponents, bool means) {
    matrix *m = take(1, sizeof *m);
    nq_qmat *q = &m->q;
    assert_int_equal(nq_scheme_parse(&q->scheme, scheme, NULL), NOVAQ_OK);
    *q = (nq_qmat){.scheme = q->scheme, .rows = ROWS, .cols = COLS, .segment_rows = 33};
    q->groups = 1;
    q->group_cols = COLS;
    q->rotation = (nq_rotation){.block = block, .seed = rotation_seed};
    if (q->scheme.kind == NQ_SCHEME_CODE) {
        fill_code(m, rotation_seed + exponents);
    } else {
        m->symbols = take(ROWS, COLS);
        for (uint64_t i = 0; i < ROWS * COLS; i++) {
            m->symbols[i] = (uint8_t)nq_hash3(rotation_seed, ROWS, i);
        }
    }
    m->codebook_scale = nq_f32_to_f16(0.03125F);
    for (uint64_t i = 0; i < ROWS; i++) {
        m->row_scale[i] = nq_f32_to_f16(q->scheme.kind == NQ_SCHEME_CODE ? 0.0625F : 0.001F);
        m->row_mean[i] = nq_f32_to_f16(0.01F * (float)(i % 5));
    }
    for (uint64_t c = 0; c < COLS; c++) {
        m->exponent[c] = (int8_t)((int)(nq_hash3(exponents, 3, c) % 7) - 3);
    }
    q->symbols = m->symbols;
    q->codebooks = m->codebooks;
    q->codebook_scale = &m->codebook_scale;
    q->row_scale = m->row_scale;
    q->row_mean = means ? m->row_mean : NULL;
    q->col_exponent = exponents != 0 ? m->exponent : NULL;
    void *scratch = take(nq_qmat_scratch(q), 1);
    nq_qmat_decode_plain(m->plain, q, 0, ROWS, scratch);
    nq_free(scratch);
    return m;
}

static void matrix_free(matrix *m) {
    nq_free(m->symbols);
    nq_free(m->codebooks);
    nq_free(m);
}

static void make_inputs(float *x, uint64_t n) {
    for (uint64_t i = 0; i < n * COLS; i++) {
        x[i] = (float)nq_normal(11, 0, i);
    }
}

/* Row `row` of the matrix times x, in float64. */
static double product_of(const float *plain, uint64_t row, const float *x) {
    double sum = 0;
    for (uint64_t c = 0; c < COLS; c++) {
        sum += (double)plain[row * COLS + c] * (double)x[c];
    }
    return sum;
}

static void assert_close(float got, double want, double tolerance) {
    if (!(fabs((double)got - want) <= tolerance)) {
        fail_msg("got %.9g, want %.9g", (double)got, want);
    }
}

static void factors_are_powers_of_the_root(void **state) {
    (void)state;
    for (int e = -128; e < 128; e++) {
        double want = exp2(-(double)e / 2);
        double got = (double)nq_col_factor((int8_t)e);
        assert_true(fabs(got / want - 1) < 3e-8);
        assert_true(e % 2 != 0 || got == want);
    }
    assert_true(nq_col_factor(0) == 1.0F);
    assert_true(nq_col_factor(-1) == 1.41421354F);
    assert_true(nq_col_factor(1) == 0.70710677F);
    assert_true(nq_col_factor(3) == 0.35355338F);
    assert_true(nq_col_factor(-64) == 4294967296.0F);
}

/* A matrix that is scaled, rotated and rounded here comes back. */
static void decoding_undoes_scale_then_rotation(void **state) {
    (void)state;
    matrix *m = make_matrix("q8", 32, 77, 5, false);
    float *w = take(ROWS * COLS, sizeof *w);
    float *coded = take(ROWS * COLS, sizeof *coded);
    for (uint64_t i = 0; i < ROWS * COLS; i++) {
        uint64_t c = i % COLS;
        m->exponent[c] = (int8_t)(c == 0 ? 64 : c == 1 ? -64 : m->exponent[c]);
        /* Columns whose size is the inverse of their scale: large and tiny ones. */
        w[i] = (float)nq_normal(3, 3, i) * nq_col_factor(m->exponent[c]);
        coded[i] = w[i] * (float)exp2((double)m->exponent[c] / 2);
    }
    nq_rotate_forward(coded, &m->q.rotation, ROWS, COLS);
    for (uint64_t i = 0; i < ROWS * COLS; i++) {
        int v = (int)lrintf(coded[i] * 16);
        assert_true(v >= -127 && v <= 127);
        m->symbols[i] = (uint8_t)v;
        m->row_scale[i / COLS] = nq_f32_to_f16(0.0625F);
    }
    nq_qmat_decode_plain(m->plain, &m->q, 0, ROWS, NULL);
    for (uint64_t i = 0; i < ROWS * COLS; i++) {
        double size = (double)nq_col_factor(m->exponent[i % COLS]);
        assert_close(m->plain[i], (double)w[i], 0.2 * size);
    }
    nq_free(w);
    nq_free(coded);
    matrix_free(m);
}

/* Column for column the factor times what is decoded without scales, in any
 * block of rows. */
static void decoded_columns_have_their_factors(void **state) {
    (void)state;
    static const char *const SCHEMES[] = {"k16d2l3", "k5d3l2", "q8"};
    for (int i = 0; i < 6; i++) {
        matrix *m = make_matrix(SCHEMES[i / 2], i % 2 == 0 ? 0 : 16, 9, 5, i % 2 == 0);
        nq_qmat bare = m->q;
        bare.col_exponent = NULL;
        float *x = take(ROWS * COLS, sizeof *x);
        void *scratch = take(nq_qmat_scratch(&bare), 1);
        nq_qmat_decode_plain(x, &bare, 0, ROWS, scratch);
        for (uint64_t k = 0; k < ROWS * COLS; k++) {
            x[k] *= nq_col_factor(m->exponent[k % COLS]);
        }
        assert_memory_equal(x, m->plain, ROWS * COLS * sizeof *x);
        nq_qmat_decode_plain(x, &m->q, 41, 17, scratch);
        assert_memory_equal(x, m->plain + 41 * COLS, 17 * COLS * sizeof *x);
        nq_free(scratch);
        nq_free(x);
        matrix_free(m);
    }
}

static void vector_products_use_prepared_inputs(void **state) {
    (void)state;
    static const char *const SCHEMES[] = {"k16d2l3", "k5d3l2", "q8"};
    float x[COLS];
    float xr[COLS];
    float y[ROWS];
    make_inputs(x, 1);
    for (int i = 0; i < 12; i++) {
        matrix *m = make_matrix(SCHEMES[i / 4], i & 1 ? 64 : 0, 4, i & 2 ? 8 : 0, i & 1);
        void *scratch = take(nq_qmat_scratch(&m->q), 1);
        memcpy(xr, x, sizeof x);
        nq_qmat_input(xr, &m->q, 1);
        assert_true((memcmp(xr, x, sizeof x) == 0) == ((i & 3) == 0));
        nq_qmat_gemv(y, &m->q, 0, ROWS, xr, scratch);
        for (uint64_t r = 0; r < ROWS; r++) {
            assert_close(y[r], product_of(m->plain, r, x), 1e-4);
        }
        nq_free(scratch);
        matrix_free(m);
    }
}

/* ---- groups -------------------------------------------------------------------- */

typedef struct members {
    matrix *m[MEMBERS];
    nq_weight w[MEMBERS];
    nq_linear l[MEMBERS];
    float x[TOKENS * COLS];
    float *y[3];
} members;

static members *members_make(void) {
    members *g = take(1, sizeof *g);
    g->m[0] = make_matrix("k16d2l2", 32, 5, 0, false);
    g->m[1] = make_matrix("k16d2l2", 32, 5, 1, true);
    g->m[2] = make_matrix("k16d1l2", 32, 5, 1, false); /* equal scales, another array */
    g->m[3] = make_matrix("k16d2l2", 32, 5, 2, false); /* other scales */
    g->m[4] = make_matrix("k16d2l2", 32, 6, 1, false); /* other signs */
    g->m[5] = make_matrix("q8", 0, 5, 1, false);       /* scales alone */
    g->m[6] = make_matrix("q8", 0, 6, 1, true);        /* a seed without a rotation */
    g->m[7] = make_matrix("q8", 0, 5, 0, false);       /* neither */
    g->m[8] = make_matrix("q8", 32, 5, 2, false);      /* held decoded: dense wins over q */
    for (int i = 0; i < MEMBERS; i++) {
        g->w[i] = (nq_weight){.name = "m", .rows = ROWS, .cols = COLS, .q = &g->m[i]->q};
        g->l[i] = (nq_linear){.w = &g->w[i], .dense = i == 8 ? g->m[i]->plain : NULL};
    }
    make_inputs(g->x, TOKENS);
    for (int i = 0; i < 3; i++) {
        g->y[i] = take((uint64_t)TOKENS * ROWS, sizeof(float));
    }
    return g;
}

static void members_free(members *g) {
    for (int i = 0; i < MEMBERS; i++) {
        matrix_free(g->m[i]);
    }
    for (int i = 0; i < 3; i++) {
        nq_free(g->y[i]);
    }
    nq_free(g);
}

static nq_linear_work *open_work(const members *g, nq_pool *pool) {
    nq_linear_work *work = NULL;
    uint64_t scratch = 0;
    for (int i = 0; i < MEMBERS; i++) {
        uint64_t n = nq_qmat_scratch(&g->m[i]->q);
        scratch = n > scratch ? n : scratch;
    }
    assert_int_equal(nq_linear_work_open(&work, pool, COLS, scratch, TOKENS, NULL), NOVAQ_OK);
    return work;
}

static void check_group(const members *g, const int *which, uint64_t n, nq_linear_work *work) {
    const nq_linear *l[3] = {&g->l[which[0]], &g->l[which[1]], &g->l[which[2]]};
    assert_int_equal(nq_linear_apply(g->y, l, 3, g->x, n, work, NULL), NOVAQ_OK);
    for (int k = 0; k < 3; k++) {
        for (uint64_t t = 0; t < n; t += 13) {
            for (uint64_t r = 0; r < ROWS; r += 9) {
                double want = product_of(g->m[which[k]]->plain, r, g->x + t * COLS);
                assert_close(g->y[k][t * ROWS + r], want, 1e-4);
            }
        }
    }
}

/* Every ordered choice of three matrices that share their input. */
static void groups_share_only_what_is_equal(void **state) {
    (void)state;
    members *g = members_make();
    nq_pool *pool = NULL;
    assert_int_equal(nq_pool_open(&pool, 2, NULL), NOVAQ_OK);
    nq_linear_work *work = open_work(g, pool);
    for (int i = 0; i < MEMBERS * MEMBERS * MEMBERS; i++) {
        int which[3] = {i / (MEMBERS * MEMBERS), i / MEMBERS % MEMBERS, i % MEMBERS};
        check_group(g, which, 1, work);
        check_group(g, which, TOKENS, work);
    }
    nq_linear_work_close(&work);
    nq_pool_close(&pool);
    members_free(g);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(factors_are_powers_of_the_root),
        cmocka_unit_test(decoding_undoes_scale_then_rotation),
        cmocka_unit_test(decoded_columns_have_their_factors),
        cmocka_unit_test(vector_products_use_prepared_inputs),
        cmocka_unit_test(groups_share_only_what_is_equal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
