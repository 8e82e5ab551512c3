/* metric_util.h - what the tests of calibrated coding share: correlated inputs,
 * their moments summed naively, the coded basis written out, small dense algebra
 * in double. */
#ifndef NQ_TESTS_METRIC_UTIL_H
#define NQ_TESTS_METRIC_UTIL_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "base/rng.h"
#include "quant/codebook.h"
#include "quant/metric.h"

#define UNUSED __attribute__((unused))

UNUSED static void *take_zeroed(uint64_t count, uint64_t size) {
    void *p = NULL;
    assert_int_equal(nq_alloc(&p, count, size, NULL), NOVAQ_OK);
    return p;
}

UNUSED static double *doubles(uint64_t n) { return take_zeroed(n, sizeof(double)); }
UNUSED static float *floats(uint64_t n) { return take_zeroed(n, sizeof(float)); }

UNUSED static nq_pool *open_pool(unsigned threads) {
    nq_pool *pool = NULL;
    assert_int_equal(nq_pool_open(&pool, threads, NULL), NOVAQ_OK);
    return pool;
}

UNUSED static nq_scheme scheme_named(const char *name) {
    nq_scheme s;
    assert_int_equal(nq_scheme_parse(&s, name, NULL), NOVAQ_OK);
    return s;
}

/* Inputs x (count, n) whose columns depend on their neighbours and differ in size. */
UNUSED static float *correlated(uint64_t count, uint64_t n, uint64_t seed) {
    float *x = floats(count * n);
    for (uint64_t t = 0; t < count; t++) {
        double last = 0;
        for (uint64_t c = 0; c < n; c++) {
            last = 0.85 * last + 0.5 * nq_normal(seed, t, c);
            double size = 0.3 + 3.0 * nq_uniform(seed, 1U << 20, c);
            x[t * n + c] = (float)(size * last + 0.2);
        }
    }
    return x;
}

/* out (rows, cols) = mean over t of (a0 - a)T b, or aT b where a0 is NULL. */
UNUSED static double *naive_moment(const float *a0, const float *a, const float *b, uint64_t count,
                                   uint64_t rows, uint64_t cols) {
    double *out = doubles(rows * cols);
    for (uint64_t t = 0; t < count; t++) {
        for (uint64_t i = 0; i < rows; i++) {
            double left = (double)a[t * rows + i];
            left = a0 != NULL ? (double)a0[t * rows + i] - left : left;
            for (uint64_t k = 0; k < cols; k++) {
                out[i * cols + k] += left * (double)b[t * cols + k] / (double)count;
            }
        }
    }
    return out;
}

UNUSED static float *as_floats(const double *a, uint64_t n) {
    float *out = floats(n);
    for (uint64_t i = 0; i < n; i++) {
        out[i] = (float)a[i];
    }
    return out;
}

/* a (m, k) b (k, n), either transposed as stored. */
UNUSED static double *multiply(const double *a, bool at, const double *b, bool bt, uint64_t m,
                               uint64_t k, uint64_t n) {
    double *out = doubles(m * n);
    for (uint64_t i = 0; i < m; i++) {
        for (uint64_t j = 0; j < n; j++) {
            double s = 0;
            for (uint64_t l = 0; l < k; l++) {
                s += (at ? a[l * m + i] : a[i * k + l]) * (bt ? b[j * k + l] : b[l * n + j]);
            }
            out[i * n + j] = s;
        }
    }
    return out;
}

/* b (n, n), inputs x to x b: column scales undone, signs, Hadamard blocks, each as
 * its definition says. */
UNUSED static double *input_basis(const nq_metric *m) {
    uint64_t n = m->cols;
    uint64_t block = m->rotation.block;
    double *b = doubles(n * n);
    for (uint64_t i = 0; i < n; i++) {
        double scale = m->col_exponent != NULL ? pow(2, -0.5 * m->col_exponent[i]) : 1;
        if (block == 0) {
            b[i * n + i] = scale;
            continue;
        }
        scale *= (double)nq_rotation_sign(&m->rotation, n, i) / sqrt((double)block);
        for (uint64_t k = i / block * block; k < (i / block + 1) * block; k++) {
            bool odd = __builtin_parityll((i % block) & (k % block)) != 0;
            b[i * n + k] = odd ? -scale : scale;
        }
    }
    return b;
}

/* bT a b. */
UNUSED static double *change(const double *a, const double *b, uint64_t n) {
    double *half = multiply(b, true, a, false, n, n, n);
    double *out = multiply(half, false, b, false, n, n, n);
    nq_free(half);
    return out;
}

/* w (rows, n) in the basis of the coded matrix: w times the inverse of b, transposed. */
UNUSED static double *coded_weights(const float *w, uint64_t rows, const nq_metric *m) {
    uint64_t n = m->cols;
    double *b = input_basis(m);
    for (uint64_t i = 0; i < n && m->col_exponent != NULL; i++) {
        for (uint64_t k = 0; k < n; k++) { /* C^-1 Dt Ht to C Dt Ht */
            b[i * n + k] *= pow(2, m->col_exponent[i]);
        }
    }
    double *out = doubles(rows * n);
    for (uint64_t i = 0; i < rows; i++) {
        for (uint64_t l = 0; l < n; l++) {
            for (uint64_t k = 0; k < n; k++) {
                out[i * n + k] += (double)w[i * n + l] * b[l * n + k];
            }
        }
    }
    nq_free(b);
    return out;
}

/* e h eT of one row e (n). */
UNUSED static double energy(const double *a, const float *h, const double *b, uint64_t n) {
    double sum = 0;
    for (uint64_t i = 0; i < n; i++) {
        for (uint64_t k = 0; k < n; k++) {
            sum += a[i] * (double)h[i * n + k] * b[k];
        }
    }
    return sum;
}

/* b (rows, n) in place: the solution x of x a = b for symmetric a (n, n), by
 * elimination with pivots. */
UNUSED static void solve_rows(double *b, const double *a, uint64_t rows, uint64_t n) {
    double *m = doubles(n * n);
    memcpy(m, a, n * n * sizeof *m);
    for (uint64_t p = 0; p < n; p++) {
        uint64_t best = p;
        for (uint64_t i = p; i < n; i++) {
            best = fabs(m[i * n + p]) > fabs(m[best * n + p]) ? i : best;
        }
        for (uint64_t k = 0; k < n; k++) {
            double t = m[p * n + k];
            m[p * n + k] = m[best * n + k];
            m[best * n + k] = t;
        }
        for (uint64_t r = 0; r < rows; r++) {
            double t = b[r * n + p];
            b[r * n + p] = b[r * n + best];
            b[r * n + best] = t;
        }
        for (uint64_t i = 0; i < n; i++) {
            double f = i != p ? m[i * n + p] / m[p * n + p] : 0;
            for (uint64_t k = p; k < n && f != 0; k++) {
                m[i * n + k] -= f * m[p * n + k];
            }
            for (uint64_t r = 0; r < rows; r++) {
                b[r * n + i] -= f * b[r * n + p];
            }
        }
    }
    for (uint64_t p = 0; p < n; p++) {
        for (uint64_t r = 0; r < rows; r++) {
            b[r * n + p] /= m[p * n + p];
        }
    }
    nq_free(m);
}

/* A metric of inputs x (count, n), or of x x^T = identity where x is NULL. */
UNUSED static void metric_of(nq_metric *m, const float *x, uint64_t count, uint64_t n,
                             const nq_metric_options *opt) {
    double *h = x != NULL ? naive_moment(NULL, x, x, count, n, n) : doubles(n * n);
    for (uint64_t i = 0; x == NULL && i < n; i++) {
        h[i * n + i] = 1;
    }
    float *f = as_floats(h, n * n);
    nq_moments in = {.cols = n, .samples = 1U << 20, .h = f};
    novaq_error err = {0};
    if (nq_metric_open(m, &in, opt, NULL, &err) != NOVAQ_OK) {
        fail_msg("%s", err.msg);
    }
    nq_free(h);
    nq_free(f);
}

#endif
