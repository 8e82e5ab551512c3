/* test_quant.c - schemes, packing, rotation, the search, training, encoding and
 * planning, each against brute force or its definition. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/half.h"
#include "base/mem.h"
#include "base/rng.h"
#include "quant/codebook.h"
#include "quant/encode.h"
#include "quant/planner.h"
#include "quant/stats.h"
#include "quant/trellis.h"

static novaq_error err;

static nq_scheme scheme(const char *name) {
    nq_scheme s;
    assert_int_equal(nq_scheme_parse(&s, name, &err), NOVAQ_OK);
    return s;
}

static void names_round_trip(void **state) {
    (void)state;
    static const char *const good[] = {"k16d2l3",      "k4d8l1",   "k256d8l1", "pq16x8d4",
                                       "pq256x256d64", "pq10x3d5", "q8",       "f16",
                                       "bf16",         "f32",      "raw"};
    static const char *const bad[] = {"",        "k16",      "k1d2",      "k17d2l2", "k16d2l4",
                                      "k16d65",  "pq16x",    "pq257x2d4", "pq1x2d4", "k16d2l3x",
                                      "K16d2l3", "k016d2l1", "q4_k",      "k16d0l1", "k6d3l9"};
    char name[NQ_SCHEME_NAME];
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        nq_scheme s = scheme(good[i]);
        assert_string_equal(nq_scheme_name(name, &s), good[i]);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        nq_scheme s;
        assert_int_equal(nq_scheme_parse(&s, bad[i], &err), NOVAQ_E_ARG);
    }
    nq_scheme s = scheme("k16d2l2");
    assert_true(nq_scheme_bits(&s) == 2.0);
    assert_int_equal(nq_scheme_row_bytes(&s, 576), 144);
    s = scheme("pq16x8d4");
    assert_true(nq_scheme_bits(&s) == 1.75);
}

/* Every field width 1..8, one and two fields, every tail length. */
static void packing_round_trips(void **state) {
    (void)state;
    for (unsigned bits = 1; bits <= 8; bits++) {
        for (unsigned second = 0; second <= 8; second += 3) {
            nq_scheme s = nq_scheme_pq(1U << bits, second == 0 ? 1 : 1U << second, 3);
            for (uint64_t cols = 1; cols <= 330; cols += 17) {
                uint64_t stride = nq_scheme_row_symbols(&s, cols);
                uint64_t bytes = nq_scheme_row_bytes(&s, cols);
                uint8_t in[2 * 128], out[2 * 128], row[2 * 128 + 1];
                memset(out, 0xEE, sizeof out);
                memset(row, 0xAA, sizeof row);
                for (uint64_t i = 0; i < stride * s.fields; i++) {
                    in[i] = (uint8_t)(nq_hash3(bits, second, i) % s.k[i / stride]);
                }
                nq_symbols_pack(row, &s, in, cols);
                assert_int_equal(row[bytes], 0xAA); /* wrote no byte too many */
                nq_symbols_unpack(out, &s, row, cols);
                assert_memory_equal(in, out, stride * s.fields);
            }
        }
    }
}

/* The documented layout, spelt out for one 4-bit and one 3-bit unit. */
static void packing_layout(void **state) {
    (void)state;
    uint8_t in[32], row[16];
    for (uint8_t i = 0; i < 32; i++) {
        in[i] = i % 16;
    }
    nq_scheme s = scheme("k16d1l1");
    nq_symbols_pack(row, &s, in, 32);
    for (uint8_t t = 0; t < 16; t++) {
        assert_int_equal(row[t], in[t] | in[t + 16] << 4);
    }
    for (uint8_t i = 0; i < 32; i++) {
        in[i] = (uint8_t)(i * 5 % 8);
    }
    s = scheme("k8d1l1");
    nq_symbols_pack(row, &s, in, 32);
    for (uint8_t t = 0; t < 8; t++) {
        unsigned low = 0;
        for (unsigned k = 0; k < 4; k++) {
            low |= (in[t + 8 * k] & 3U) << (2 * k);
        }
        assert_int_equal(row[t], low);
    }
    for (uint8_t t = 0; t < 4; t++) {
        unsigned high = 0;
        for (unsigned k = 0; k < 8; k++) {
            high |= (in[t + 4 * k] >> 2 & 1U) << k;
        }
        assert_int_equal(row[8 + t], high);
    }
}

static void rotation_is_orthonormal(void **state) {
    (void)state;
    static const uint64_t widths[] = {16, 48, 576, 1536, 2048};
    for (size_t i = 0; i < 5; i++) {
        uint64_t n = widths[i];
        nq_rotation r = {.block = nq_rotation_block(n), .seed = 42};
        float *x = NULL;
        float *y = NULL;
        assert_int_equal(nq_alloc(&x, n, sizeof(float), &err), NOVAQ_OK);
        assert_int_equal(nq_alloc(&y, n, sizeof(float), &err), NOVAQ_OK);
        nq_gaussian_fill(x, n, 1, n);
        memcpy(y, x, n * sizeof(float));
        nq_rotate_forward(y, &r, 1, n);
        double before = 0;
        double after = 0;
        double moved = 0;
        for (uint64_t c = 0; c < n; c++) {
            before += (double)x[c] * (double)x[c];
            after += (double)y[c] * (double)y[c];
            moved += fabs((double)x[c] - (double)y[c]);
        }
        assert_true(fabs(before - after) < 1e-4 * before);
        assert_true(moved > 0.1 * (double)n);
        nq_rotate_inverse(y, &r, 1, n);
        for (uint64_t c = 0; c < n; c++) {
            assert_true(fabsf(x[c] - y[c]) < 1e-5F);
        }
        nq_free(x);
        nq_free(y);
    }
    assert_int_equal(nq_rotation_block(576), 64);
    assert_int_equal(nq_rotation_block(1536), 512);
    assert_int_equal(nq_rotation_block(24), 0);
}

static double path_error(const nq_trellis *t, const uint8_t *symbols, const float *x, uint64_t len,
                         const float *weight) {
    float out[64];
    nq_trellis_decode(out, t, symbols, len);
    double sum = 0;
    for (uint64_t r = 0; r < len; r++) {
        for (unsigned v = 0; v < t->scheme.d; v++) {
            double e = (double)x[r * t->scheme.d + v] - (double)out[r * t->scheme.d + v];
            sum += (double)weight[r] * e * e;
        }
    }
    return sum;
}

/* The shortest path against all K^len symbol strings. */
static void viterbi_is_optimal(void **state) {
    (void)state;
    static const char *const names[] = {"k4d1l2", "k4d2l3", "k3d2l2", "k3d1l3", "k5d2l1"};
    for (uint64_t trial = 0; trial < 25; trial++) {
        nq_scheme s = scheme(names[trial % 5]);
        const uint64_t len = 6;
        float values[64], x[16], weight[6], ratio[6];
        nq_gaussian_fill(values, nq_level_offset(&s, s.levels), trial, 1);
        nq_gaussian_fill(x, len * s.d, trial, 2);
        for (uint64_t r = 0; r < len; r++) {
            weight[r] = 0.2F + (float)nq_uniform(trial, 3, r);
            ratio[r] = r > 0 ? weight[r - 1] / weight[r] : 1.0F;
        }
        nq_trellis t;
        assert_int_equal(nq_trellis_open(&t, &s, values, &err), NOVAQ_OK);
        uint8_t symbols[6], scratch[6 * 256];
        nq_trellis_encode(symbols, &t, x, len, ratio, scratch);
        double got = path_error(&t, symbols, x, len, weight);
        uint64_t all = 1;
        for (uint64_t r = 0; r < len; r++) {
            all *= s.k[0];
        }
        for (uint64_t code = 0; code < all; code++) {
            uint64_t rest = code;
            for (uint64_t r = 0; r < len; r++, rest /= s.k[0]) {
                symbols[r] = (uint8_t)(rest % s.k[0]);
            }
            assert_true(got <= path_error(&t, symbols, x, len, weight) + 1e-4);
        }
        nq_trellis_close(&t);
    }
}

/* DESIGN 2.2: same or better (within 3 %) on unit Gaussian data. */
static void gaussian_errors(void **state) {
    (void)state;
    static const struct {
        const char *name;
        double design;
    } table[] = {{"k16d2l1", 0.1095}, {"k16d2l2", 0.0910}, {"k16d2l3", 0.0837}, {"k8d2l2", 0.1792},
                 {"k8d2l3", 0.1698},  {"k16d4l1", 0.347},  {"k16d4l2", 0.328},  {"k16d4l3", 0.318},
                 {"k8d1l2", 0.0265},  {"k16d1l2", 0.0067}, {"k16d1l1", 0.0116}};
    float *x = NULL;
    assert_int_equal(nq_alloc(&x, 64 * 256 * 4, sizeof(float), &err), NOVAQ_OK);
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        nq_scheme s = scheme(table[i].name);
        nq_gaussian_fill(x, 64 * 256 * s.d, 77, i);
        nq_chains c = {.x = x, .count = 64, .len = 256};
        nq_codebook cb = {0};
        double mse = 0;
        assert_int_equal(nq_codebook_gaussian(&cb, &s, &err), NOVAQ_OK);
        assert_int_equal(nq_codebook_mse(&mse, &cb, &c, &err), NOVAQ_OK);
        if (mse > 1.03 * table[i].design) {
            fail_msg("%s: %.5f against %.5f", table[i].name, mse, table[i].design);
        }
        nq_codebook_close(&cb);
    }
    nq_free(x);
}

static void training_helps_and_fits_int8(void **state) {
    (void)state;
    nq_scheme s = scheme("pq12x5d3");
    float *x = NULL;
    uint64_t n = 40 * 64 * 3;
    assert_int_equal(nq_alloc(&x, n, sizeof(float), &err), NOVAQ_OK);
    for (uint64_t i = 0; i < n; i++) { /* skewed, clustered data */
        x[i] = (float)(nq_normal(1, 1, i) * 0.1 + (double)(nq_hash3(1, 2, i / 3) % 4));
    }
    nq_chains c = {.x = x, .count = 40, .len = 64};
    nq_codebook cb = {0};
    double first = 0;
    double more = 0;
    nq_train_options one = {.rounds = 1, .tolerance = 1e-6, .seed = 1};
    nq_train_options many = {.rounds = 40, .tolerance = 1e-6, .seed = 1};
    assert_int_equal(nq_codebook_train(&cb, &s, &c, &one, &first, &err), NOVAQ_OK);
    assert_int_equal(nq_codebook_train(&cb, &s, &c, &many, &more, &err), NOVAQ_OK);
    assert_true(more <= first && more < 0.05);
    int peak = 0;
    for (unsigned l = 0; l < s.levels; l++) {
        int level = 0;
        for (uint64_t i = nq_level_offset(&s, l); i < nq_level_offset(&s, l + 1); i++) {
            level = abs(cb.entries[i]) > level ? abs(cb.entries[i]) : level;
        }
        peak += level;
    }
    assert_in_range(peak, 60, 127);
    nq_codebook_close(&cb);
    nq_free(x);
}

static nq_encode_options options(nq_normalize normalize) {
    return (nq_encode_options){.normalize = normalize,
                               .outlier_percentile = 0.05,
                               .segment_rows = 64,
                               .seed = 9,
                               .max_iterations = 10,
                               .tolerance = 1e-4,
                               .feedback = true};
}

static void encode(nq_encoded *e, const char *name, nq_normalize normalize, uint64_t rows,
                   uint64_t cols, unsigned threads, const nq_metric *metric, float *source) {
    nq_encode_options o = options(normalize);
    nq_scheme s = scheme(name);
    o.metric = metric;
    float *w = NULL;
    assert_int_equal(nq_alloc(&w, rows * cols, sizeof(float), &err), NOVAQ_OK);
    for (uint64_t i = 0; i < rows * cols; i++) {
        double size = 0.02 * (1 + (double)(i / cols % 5));
        w[i] = (float)(size * nq_normal(4, 4, i) + 0.004);
    }
    if (source != NULL) {
        memcpy(source, w, rows * cols * sizeof(float));
    }
    nq_pool *pool = NULL;
    assert_int_equal(nq_pool_open(&pool, threads, &err), NOVAQ_OK);
    assert_int_equal(nq_encode(e, w, rows, cols, &s, &o, "test", pool, &err), NOVAQ_OK);
    nq_pool_close(&pool);
    nq_free(w);
}

/* Inputs whose energies differ from column to column. */
static void open_metric(nq_metric *m, uint64_t cols) {
    float *h = NULL;
    assert_int_equal(nq_alloc(&h, cols * cols, sizeof(float), &err), NOVAQ_OK);
    for (uint64_t c = 0; c < cols; c++) {
        h[c * cols + c] = c % 11 == 0 ? 40.0F : 0.5F;
    }
    nq_moments in = {.cols = cols, .samples = 4 * cols, .h = h};
    nq_metric_options o = {.seed = 9, .rotation_block = 512, .column_scales = 0.5, .damping = 0.01};
    assert_int_equal(nq_metric_open(m, &in, &o, NULL, &err), NOVAQ_OK);
    assert_non_null(m->col_exponent);
    nq_free(h);
}

/* The reported error is the error of what the decoder gives back. */
static void reported_error_is_true(void **state) {
    (void)state;
    static const char *const names[] = {"k16d2l3", "k16d1l2", "k8d2l2",   "pq16x8d4",
                                        "k16d4l1", "q8",      "pq20x6d5", "k4d3l3"};
    nq_metric metric;
    open_metric(&metric, 192);
    for (int variant = 0; variant < 5; variant++) {
        for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
            const uint64_t rows = 150;
            const uint64_t cols = 192;
            nq_encoded e;
            static float source[150 * 192], decoded[150 * 192];
            nq_normalize how = variant == 4 ? NQ_NORMALIZE_ROTATE : (nq_normalize)variant;
            encode(&e, names[i], how, rows, cols, 2, variant == 4 ? &metric : NULL, source);
            void *scratch = NULL;
            assert_int_equal(nq_alloc(&scratch, nq_qmat_scratch(&e.q), 1, &err), NOVAQ_OK);
            nq_qmat_decode_plain(decoded, &e.q, 0, rows, scratch);
            double sq = 0;
            double ref = 0;
            for (uint64_t k = 0; k < rows * cols; k++) {
                double d = (double)source[k] - (double)decoded[k];
                sq += d * d;
                ref += (double)source[k] * (double)source[k];
            }
            assert_true(fabs(sq - e.sq_error) < 1e-3 * sq + 1e-9 * ref);
            assert_true(fabs(ref - e.sq_source) < 1e-4 * ref);
            assert_true(sq < 0.9 * ref);
            /* Rows decoded alone equal rows decoded together. */
            float row[192];
            nq_qmat_decode_plain(row, &e.q, 97, 1, scratch);
            assert_memory_equal(row, decoded + 97 * cols, sizeof row);
            nq_free(scratch);
            nq_encoded_close(&e);
        }
    }
    nq_metric_close(&metric);
}

/* Same bytes for any thread count and any instruction set. */
static void encoding_is_deterministic(void **state) {
    (void)state;
    static const char *const names[] = {"k16d2l3", "k8d1l2", "pq16x8d4"};
    static const char *const levels[] = {"scalar", "avx2", "avx512"};
    for (size_t i = 0; i < 3; i++) {
        nq_encoded want;
        assert_int_equal(unsetenv("NOVAQ_CPU"), 0);
        encode(&want, names[i], NQ_NORMALIZE_ROTATE, 200, 320, 1, NULL, NULL);
        for (size_t l = 0; l < 3; l++) {
            nq_encoded got;
            assert_int_equal(setenv("NOVAQ_CPU", levels[l], 1), 0);
            encode(&got, names[i], NQ_NORMALIZE_ROTATE, 200, 320, (unsigned)l + 2, NULL, NULL);
            assert_memory_equal(got.symbols, want.symbols, nq_qmat_symbol_bytes(&want.q));
            assert_memory_equal(got.codebooks, want.codebooks, nq_qmat_codebook_bytes(&want.q));
            assert_memory_equal(got.row_scale, want.row_scale, 200 * 2);
            assert_true(got.sq_error == want.sq_error);
            nq_encoded_close(&got);
        }
        assert_int_equal(unsetenv("NOVAQ_CPU"), 0);
        nq_encoded_close(&want);
    }
}

static void gemv_matches_decode(void **state) {
    (void)state;
    static const char *const names[] = {"k16d2l3", "k16d1l2", "pq16x8d4", "q8", "k4d8l2"};
    for (size_t i = 0; i < 5; i++) {
        nq_encoded e;
        encode(&e, names[i], NQ_NORMALIZE_PAPER, 130, 200, 1, NULL, NULL);
        void *scratch = NULL;
        assert_int_equal(nq_alloc(&scratch, nq_qmat_scratch(&e.q), 1, &err), NOVAQ_OK);
        float x[200], y[130], row[200];
        nq_gaussian_fill(x, 200, 8, 8);
        nq_qmat_gemv(y, &e.q, 60, 70, x, scratch);
        for (uint64_t r = 60; r < 130; r++) {
            nq_qmat_decode(row, &e.q, r, 1, scratch);
            double want = 0;
            for (int c = 0; c < 200; c++) {
                want += (double)row[c] * (double)x[c];
            }
            assert_true(fabs(want - (double)y[r - 60]) < 1e-4);
        }
        nq_free(scratch);
        nq_encoded_close(&e);
    }
}

/* Paper, section 4: rows below the threshold keep s = 1 (one common factor), the
 * top ones come down to the threshold. */
static void paper_normalization(void **state) {
    (void)state;
    enum { ROWS = 100, COLS = 64 };
    static float w[ROWS * COLS];
    float scale[ROWS], mean[ROWS];
    for (int r = 0; r < ROWS; r++) {
        for (int c = 0; c < COLS; c++) {
            double size = r == 17 ? 30 : r == 50 ? 20 : 1;
            w[r * COLS + c] = (float)(0.5 + size * nq_normal(1, 1, (uint64_t)(r * COLS + c)));
        }
    }
    nq_encode_options o = options(NQ_NORMALIZE_PAPER);
    o.outlier_percentile = 0.02;
    assert_int_equal(nq_normalize_rows(w, scale, mean, ROWS, COLS, &o, NULL, &err), NOVAQ_OK);
    for (int r = 0; r < ROWS; r++) {
        bool outlier = r == 17 || r == 50;
        assert_true(outlier ? scale[r] > 5 * scale[0] : scale[r] == scale[0]);
        double sum = 0;
        double sq = 0;
        for (int c = 0; c < COLS; c++) {
            sum += (double)w[r * COLS + c];
            sq += (double)w[r * COLS + c] * (double)w[r * COLS + c];
        }
        assert_true(fabs(sum / COLS) < 1e-2);
        assert_true(sqrt(sq / COLS) < 1.6);
    }
}

static void nonfinite_is_refused(void **state) {
    (void)state;
    static float w[64 * 64];
    nq_gaussian_fill(w, 64 * 64, 1, 1);
    w[100] = NAN;
    nq_encode_options o = options(NQ_NORMALIZE_ROTATE);
    nq_scheme s = scheme("k16d2l2");
    nq_encoded e;
    assert_int_equal(nq_encode(&e, w, 64, 64, &s, &o, "bad", NULL, &err), NOVAQ_E_NUMERIC);
    nq_matrix_stats st;
    assert_int_equal(nq_matrix_stats_compute(&st, w, 64, 64, NULL, &err), NOVAQ_OK);
}

static void zero_and_constant_matrices(void **state) {
    (void)state;
    static float w[64 * 64], out[64 * 64];
    for (int constant = 0; constant < 2; constant++) {
        for (int i = 0; i < 64 * 64; i++) {
            w[i] = constant ? 0.125F : 0.0F;
        }
        nq_encode_options o = options(NQ_NORMALIZE_ROTATE);
        nq_scheme s = scheme("k16d2l2");
        nq_encoded e;
        assert_int_equal(nq_encode(&e, w, 64, 64, &s, &o, "flat", NULL, &err), NOVAQ_OK);
        void *scratch = NULL;
        assert_int_equal(nq_alloc(&scratch, nq_qmat_scratch(&e.q), 1, &err), NOVAQ_OK);
        nq_qmat_decode_plain(out, &e.q, 0, 64, scratch);
        double sq = 0;
        for (int i = 0; i < 64 * 64; i++) {
            double d = (double)out[i] - (constant ? 0.125 : 0.0);
            sq += d * d;
        }
        /* 2 bits: about a tenth of the energy is lost; nothing of nothing. */
        assert_true(sqrt(sq / (64 * 64)) <= (constant ? 0.06 : 0.0));
        nq_free(scratch);
        nq_encoded_close(&e);
    }
}

static void statistics(void **state) {
    (void)state;
    static float w[200 * 100];
    for (uint64_t i = 0; i < 200 * 100; i++) {
        w[i] = i % 4 == 0 ? 0.0F : (float)nq_normal(2, 2, i);
    }
    nq_matrix_stats s;
    assert_int_equal(nq_matrix_stats_compute(&s, w, 200, 100, NULL, &err), NOVAQ_OK);
    assert_true(fabs(s.sparsity - 0.25) < 1e-12);
    assert_true(fabs(s.variance - 0.75) < 0.03);
    assert_true(fabs(s.kurtosis - 4.0) < 0.25); /* 3 / 0.75 */
    assert_true(s.anisotropy > 0.4);            /* every fourth column is empty */
    assert_int_equal(s.nonfinite, 0);
}

/* The planner against all assignments, where the ladder is convex. */
static void planner_is_optimal(void **state) {
    (void)state;
    nq_scheme *ladder = NULL;
    size_t rungs = 0;
    assert_int_equal(nq_ladder_default(&ladder, &rungs, &err), NOVAQ_OK);
    for (uint64_t trial = 0; trial < 20; trial++) {
        nq_plan_item items[3];
        uint64_t elements = 0;
        for (int i = 0; i < 3; i++) {
            uint64_t at = (uint64_t)i;
            items[i] = (nq_plan_item){.rows = 256 + nq_hash3(trial, 1, at) % 512,
                                      .cols = 256,
                                      .sensitivity = 0.2 + nq_uniform(trial, 2, at)};
            elements += items[i].rows * items[i].cols;
        }
        uint64_t budget = (uint64_t)((1 + 3 * nq_uniform(trial, 3, 0)) * (double)elements / 8);
        assert_int_equal(nq_plan_choose(items, 3, ladder, rungs, budget, &err), NOVAQ_OK);
        uint64_t bytes = 0;
        double cost = 0;
        for (int i = 0; i < 3; i++) {
            bytes += items[i].bytes;
            cost += items[i].sensitivity * items[i].error;
        }
        assert_true(bytes <= budget);
        /* No assignment within the bytes actually used is better. */
        for (size_t code = 0; code < rungs * rungs * rungs; code++) {
            size_t pick[3] = {code % rungs, code / rungs % rungs, code / rungs / rungs};
            uint64_t b = 0;
            double c = 0;
            for (int i = 0; i < 3; i++) {
                b += nq_plan_bytes(&ladder[pick[i]], items[i].rows, items[i].cols, 0);
                c += items[i].sensitivity * nq_plan_damage(&ladder[pick[i]]);
            }
            assert_false(b < bytes && c < cost * (1 - 1e-9) - 0.02 * cost);
        }
    }
    nq_free(ladder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_round_trip),
        cmocka_unit_test(packing_round_trips),
        cmocka_unit_test(packing_layout),
        cmocka_unit_test(rotation_is_orthonormal),
        cmocka_unit_test(viterbi_is_optimal),
        cmocka_unit_test(gaussian_errors),
        cmocka_unit_test(training_helps_and_fits_int8),
        cmocka_unit_test(reported_error_is_true),
        cmocka_unit_test(encoding_is_deterministic),
        cmocka_unit_test(gemv_matches_decode),
        cmocka_unit_test(paper_normalization),
        cmocka_unit_test(nonfinite_is_refused),
        cmocka_unit_test(zero_and_constant_matrices),
        cmocka_unit_test(statistics),
        cmocka_unit_test(planner_is_optimal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
