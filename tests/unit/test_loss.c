/* test_loss.c - losses against plain sums and finite differences, the optimiser on a
 * bowl, its schedule, and what it refuses. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "base/rng.h"
#include "refine/adam.h"
#include "refine/loss.h"

#define ROWS  5
#define VOCAB 37

static void fill(float *x, uint64_t n, uint64_t stream) {
    for (uint64_t i = 0; i < n; i++) {
        x[i] = 2.0F * (float)nq_normal(3, stream, i);
    }
}

/* ---- divergence ------------------------------------------------------------------- */

static double plain_kl(const float *t, const float *s, double temperature) {
    double zt = 0;
    double zs = 0;
    double sum = 0;
    for (uint64_t i = 0; i < VOCAB; i++) {
        zt += exp((double)t[i] / temperature);
        zs += exp((double)s[i] / temperature);
    }
    for (uint64_t i = 0; i < VOCAB; i++) {
        double p = exp((double)t[i] / temperature) / zt;
        double q = exp((double)s[i] / temperature) / zs;
        sum += p * log(p / q);
    }
    return sum * temperature * temperature;
}

static nq_loss_sums kl(float *gradient, const float *teacher, const float *student,
                       const int32_t *next, float temperature, nq_pool *pool) {
    float copy[ROWS * VOCAB];
    float scratch_rows[ROWS * VOCAB];
    double scratch[2 * ROWS];
    memcpy(copy, teacher, sizeof copy);
    nq_loss_rows rows = {.student = student,
                         .teacher = copy,
                         .next = next,
                         .n = ROWS,
                         .vocab = VOCAB,
                         .temperature = temperature,
                         .weight = 0.5F};
    nq_loss_sums sums = {0};
    nq_loss_kl(&sums, gradient, &rows, scratch, scratch_rows, pool);
    return sums;
}

static void test_kl(void **state) {
    (void)state;
    float t[ROWS * VOCAB];
    float s[ROWS * VOCAB];
    float g[ROWS * VOCAB];
    int32_t next[ROWS] = {3, 36, -1, 0, 12};
    fill(t, ROWS * VOCAB, 1);
    fill(s, ROWS * VOCAB, 2);
    for (float temperature = 0.5F; temperature < 3; temperature *= 2) {
        nq_loss_sums sums = kl(g, t, s, next, temperature, NULL);
        double want = 0;
        double nll = 0;
        for (uint64_t r = 0; r < ROWS; r++) {
            want += plain_kl(t + r * VOCAB, s + r * VOCAB, (double)temperature);
            double z = 0;
            for (uint64_t i = 0; i < VOCAB; i++) {
                z += exp((double)s[r * VOCAB + i]);
            }
            nll += next[r] >= 0 ? log(z) - (double)s[r * VOCAB + (uint64_t)next[r]] : 0;
        }
        assert_true(fabs(sums.kl - want) < 1e-4 * want);
        assert_true(fabs(sums.nll - nll) < 1e-4 * nll);
        assert_int_equal(sums.rows, ROWS);
        assert_int_equal(sums.scored, ROWS - 1);
        for (uint64_t i = 0; i < ROWS * VOCAB; i += 7) {
            float keep = s[i];
            double side[2];
            for (int k = 0; k < 2; k++) {
                s[i] = keep + (k == 0 ? -0.01F : 0.01F);
                side[k] =
                    plain_kl(t + i / VOCAB * VOCAB, s + i / VOCAB * VOCAB, (double)temperature);
            }
            s[i] = keep;
            assert_true(fabs((side[1] - side[0]) / 0.02 * 0.5 - (double)g[i]) < 1e-4);
        }
    }
}

/* No gradient asked for, more threads: the same sums; equal predictions: none. */
static void test_kl_same(void **state) {
    (void)state;
    float t[ROWS * VOCAB];
    float s[ROWS * VOCAB];
    float g[ROWS * VOCAB];
    nq_pool *pool = NULL;
    fill(t, ROWS * VOCAB, 1);
    fill(s, ROWS * VOCAB, 2);
    assert_int_equal(nq_pool_open(&pool, 3, NULL), NOVAQ_OK);
    nq_loss_sums a = kl(g, t, s, NULL, 1, NULL);
    nq_loss_sums b = kl(NULL, t, s, NULL, 1, pool);
    assert_true(a.kl == b.kl);
    assert_int_equal(b.scored, 0);
    a = kl(g, t, t, NULL, 1, pool);
    assert_true(fabs(a.kl) < 1e-5);
    for (uint64_t i = 0; i < ROWS * VOCAB; i++) {
        assert_true(fabsf(g[i]) < 1e-6F);
    }
    nq_pool_close(&pool);
}

/* ---- of the largest alone ---------------------------------------------------------- */

#define KEPT 6

/* Row r of t: ids (k) of every so many tokens, logarithms of their probabilities, and the
 * sum of exp(logarithm / temperature) of all others. */
static float keep(uint32_t *ids, float *logs, const float *t, uint64_t k, double temperature) {
    bool kept[VOCAB] = {false};
    double z = 0;
    double rest = 0;
    for (uint64_t i = 0; i < VOCAB; i++) {
        z += exp((double)t[i]);
    }
    for (uint64_t i = 0; i < k; i++) {
        ids[i] = (uint32_t)(i * VOCAB / k);
        logs[i] = (float)((double)t[ids[i]] - log(z));
        kept[ids[i]] = true;
    }
    for (uint64_t i = 0; i < VOCAB; i++) {
        rest += kept[i] ? 0 : exp(((double)t[i] - log(z)) / temperature);
    }
    return (float)rest;
}

static nq_loss_sums kl_top(float *gradient, const float *teacher, const float *student,
                           const int32_t *next, uint64_t k, float temperature, nq_pool *pool) {
    uint32_t ids[ROWS * VOCAB];
    float logs[ROWS * VOCAB];
    float kept[ROWS * VOCAB];
    float rest[ROWS];
    float scratch_rows[ROWS * VOCAB];
    double scratch[2 * ROWS];
    for (uint64_t r = 0; r < ROWS; r++) {
        rest[r] = keep(ids + r * k, logs + r * k, teacher + r * VOCAB, k, (double)temperature);
    }
    nq_loss_top rows = {.student = student,
                        .ids = ids,
                        .logs = logs,
                        .rest = rest,
                        .kept = kept,
                        .next = next,
                        .n = ROWS,
                        .k = k,
                        .vocab = VOCAB,
                        .temperature = temperature,
                        .weight = 0.5F};
    nq_loss_sums sums = {0};
    nq_loss_kl_top(&sums, gradient, &rows, scratch, scratch_rows, pool);
    return sums;
}

/* The same by the letter: k + 1 outcomes. */
static double plain_top(const float *t, const float *s, uint64_t k, double temperature) {
    double zt = 0;
    double zs = 0;
    double rest[2] = {1, 1};
    double sum = 0;
    for (uint64_t i = 0; i < VOCAB; i++) {
        zt += exp((double)t[i] / temperature);
        zs += exp((double)s[i] / temperature);
    }
    for (uint64_t i = 0; i < k; i++) {
        uint64_t id = i * VOCAB / k;
        double p = exp((double)t[id] / temperature) / zt;
        double q = exp((double)s[id] / temperature) / zs;
        sum += p * log(p / q);
        rest[0] -= p;
        rest[1] -= q;
    }
    sum += rest[0] * log(rest[0] / rest[1]);
    return sum * temperature * temperature;
}

static void test_kl_top(void **state) {
    (void)state;
    float t[ROWS * VOCAB];
    float s[ROWS * VOCAB];
    float g[ROWS * VOCAB];
    int32_t next[ROWS] = {3, 36, -1, 0, 12};
    fill(t, ROWS * VOCAB, 1);
    fill(s, ROWS * VOCAB, 2);
    for (float temperature = 0.5F; temperature < 3; temperature *= 2) {
        nq_loss_sums sums = kl_top(g, t, s, next, KEPT, temperature, NULL);
        nq_loss_sums all = kl(NULL, t, s, next, temperature, NULL);
        double want = 0;
        for (uint64_t r = 0; r < ROWS; r++) {
            want += plain_top(t + r * VOCAB, s + r * VOCAB, KEPT, (double)temperature);
        }
        assert_true(fabs(sums.kl - want) < 1e-5 * want);
        assert_true(sums.kl < all.kl);
        assert_true(sums.nll == all.nll);
        assert_int_equal(sums.rows, ROWS);
        assert_int_equal(sums.scored, ROWS - 1);
        for (uint64_t i = 0; i < ROWS * VOCAB; i++) {
            const float *row = s + i / VOCAB * VOCAB;
            float middle = s[i];
            double side[2];
            for (int k = 0; k < 2; k++) {
                s[i] = middle + (k == 0 ? -0.01F : 0.01F);
                side[k] = plain_top(t + i / VOCAB * VOCAB, row, KEPT, (double)temperature);
            }
            s[i] = middle;
            assert_true(fabs((side[1] - side[0]) / 0.02 * 0.5 - (double)g[i]) < 1e-4);
        }
    }
}

/* All of them kept: the whole divergence and its gradient. More threads: the same bits. */
static void test_kl_top_all(void **state) {
    (void)state;
    float t[ROWS * VOCAB];
    float s[ROWS * VOCAB];
    float g[2][ROWS * VOCAB];
    nq_pool *pool = NULL;
    fill(t, ROWS * VOCAB, 1);
    fill(s, ROWS * VOCAB, 2);
    nq_loss_sums top = kl_top(g[0], t, s, NULL, VOCAB, 2, NULL);
    nq_loss_sums all = kl(g[1], t, s, NULL, 2, NULL);
    assert_true(fabs(top.kl - all.kl) < 1e-5 * all.kl);
    for (uint64_t i = 0; i < ROWS * VOCAB; i++) {
        assert_true(fabsf(g[0][i] - g[1][i]) < 1e-6F);
    }
    assert_int_equal(nq_pool_open(&pool, 3, NULL), NOVAQ_OK);
    top = kl_top(g[0], t, s, NULL, KEPT, 2, NULL);
    assert_true(kl_top(NULL, t, s, NULL, KEPT, 2, pool).kl == top.kl);
    assert_true(kl_top(g[1], t, s, NULL, KEPT, 2, pool).kl == top.kl);
    assert_memory_equal(g[0], g[1], sizeof g[0]);
    nq_pool_close(&pool);
}

/* What teacher (side 0), student (1) or both (2) hold for impossible: numbers all the same. */
static void test_kl_top_extremes(void **state) {
    (void)state;
    float t[ROWS * VOCAB];
    float s[ROWS * VOCAB];
    float g[ROWS * VOCAB];
    for (unsigned side = 0; side < 3; side++) {
        fill(t, ROWS * VOCAB, 1);
        fill(s, ROWS * VOCAB, 2);
        for (uint64_t i = 0; i < ROWS * VOCAB; i += VOCAB) {
            t[i] += side == 1 ? 0 : 300;
            s[i] += side == 0 ? 0 : 300;
        }
        double sum = kl_top(g, t, s, NULL, KEPT, 1, NULL).kl;
        assert_true(isfinite(sum) && sum > -1e-4);
        assert_true(side == 2 ? sum < 1e-4 : sum > ROWS);
        for (uint64_t i = 0; i < ROWS * VOCAB; i++) {
            assert_true(isfinite(g[i]));
        }
    }
}

static void test_cosine(void **state) {
    (void)state;
    float t[ROWS * VOCAB];
    float s[ROWS * VOCAB];
    float g[ROWS * VOCAB] = {0};
    double scratch[ROWS];
    fill(t, ROWS * VOCAB, 4);
    fill(s, ROWS * VOCAB, 5);
    memset(s + VOCAB, 0, VOCAB * sizeof *s); /* a row of zeros */
    double base = nq_loss_cosine(g, t, s, ROWS, VOCAB, 2.0F, scratch, NULL);
    assert_true(base > 0 && base < 2 * ROWS);
    for (uint64_t i = 0; i < ROWS * VOCAB; i += 5) {
        double side[2];
        float keep = s[i];
        if (i / VOCAB == 1) {
            assert_true(g[i] == 0.0F);
            continue;
        }
        for (int k = 0; k < 2; k++) {
            s[i] = keep + (k == 0 ? -0.02F : 0.02F);
            side[k] = nq_loss_cosine(NULL, t, s, ROWS, VOCAB, 0, scratch, NULL);
        }
        s[i] = keep;
        assert_true(fabs((side[1] - side[0]) / 0.04 * 2 - (double)g[i]) < 1e-4);
    }
    assert_true(fabs(nq_loss_cosine(NULL, t, t, ROWS, VOCAB, 0, scratch, NULL)) < 1e-6);
}

static void test_square(void **state) {
    (void)state;
    const float t[3] = {1, 2, 3};
    const float s[3] = {2, 2, 1};
    float g[3];
    assert_true(nq_loss_square(g, t, s, 3, 0.5F) == 5.0);
    assert_true(g[0] == 1.0F && g[1] == 0.0F && g[2] == -2.0F);
}

/* ---- the optimiser ------------------------------------------------------------------- */

#define N 8

typedef struct bowl {
    float value[2][N], grad[2][N];
    nq_param list[2];
    nq_adam adam;
} bowl;

static void open_bowl(bowl *b, const nq_adam_options *o) {
    *b = (bowl){0};
    for (unsigned p = 0; p < 2; p++) {
        fill(b->value[p], N, p);
        b->list[p] = (nq_param){.name = "p",
                                .kind = p == 0 ? NQ_PARAM_CODEBOOK : NQ_PARAM_GAIN,
                                .value = b->value[p],
                                .grad = b->grad[p],
                                .count = N};
    }
    assert_int_equal(nq_adam_open(&b->adam, b->list, 2, o, NULL), NOVAQ_OK);
    assert_int_equal(b->adam.total, 2 * N);
}

/* Gradient of the sum of (value - 1)^2 with unequal weights. */
static double slopes(bowl *b) {
    double sum = 0;
    for (unsigned p = 0; p < 2; p++) {
        for (unsigned i = 0; i < N; i++) {
            float d = b->value[p][i] - 1;
            float weight = 0.01F * (float)(1 + i * i);
            b->grad[p][i] = 2 * weight * d;
            sum += (double)weight * (double)d * (double)d;
        }
    }
    return sum;
}

static void test_adam(void **state) {
    (void)state;
    nq_adam_options o = NQ_ADAM_OPTIONS_INIT;
    bowl b;
    o.steps = 400;
    o.rate[NQ_PARAM_CODEBOOK] = 0.05;
    o.rate[NQ_PARAM_GAIN] = 0;
    open_bowl(&b, &o);
    b.adam.unit[0] = 0; /* this one is not learnt */
    float first = b.value[0][0];
    float gain = b.value[1][3];
    for (unsigned s = 0; s < o.steps; s++) {
        (void)slopes(&b);
        assert_true(nq_adam_step(&b.adam));
    }
    assert_true(b.value[0][0] == first && b.value[1][3] == gain);
    for (unsigned i = 1; i < N; i++) {
        assert_true(fabsf(b.value[0][i] - 1) < 0.02F);
    }
    assert_int_equal(b.adam.step, o.steps);
    nq_adam_close(&b.adam);
}

static void test_adam_refuses(void **state) {
    (void)state;
    nq_adam_options o = NQ_ADAM_OPTIONS_INIT;
    bowl b;
    open_bowl(&b, &o);
    (void)slopes(&b);
    assert_true(nq_adam_step(&b.adam));
    float keep[N];
    memcpy(keep, b.value[0], sizeof keep);
    (void)slopes(&b);
    b.grad[1][2] = NAN;
    assert_false(nq_adam_step(&b.adam));
    assert_memory_equal(keep, b.value[0], sizeof keep);
    assert_int_equal(b.adam.step, 1);
    nq_adam_close(&b.adam);
}

/* A step a thousand times as long as usual moves no further than others. */
static void test_adam_clips(void **state) {
    (void)state;
    nq_adam_options o = NQ_ADAM_OPTIONS_INIT;
    bowl b;
    open_bowl(&b, &o);
    for (unsigned s = 0; s < 20; s++) {
        (void)slopes(&b);
        assert_true(nq_adam_step(&b.adam));
    }
    double usual = b.adam.usual;
    float before[N];
    double moments = 0;
    (void)slopes(&b);
    for (unsigned i = 0; i < N; i++) {
        b.grad[0][i] *= 1000;
        before[i] = b.adam.moment[0][i];
    }
    assert_true(nq_adam_step(&b.adam));
    assert_true(b.adam.norm > 100 * usual);
    assert_true(b.adam.usual < 2 * usual);
    /* What the moments took in is as long as four usual ones at most. */
    for (unsigned i = 0; i < N; i++) {
        double in = ((double)b.adam.moment[0][i] - o.beta1 * (double)before[i]) / (1 - o.beta1);
        moments += in * in;
    }
    assert_true(sqrt(moments) <= 1.001 * o.clip * usual);
    assert_true(sqrt(moments) > 0.1 * usual);
    nq_adam_close(&b.adam);
}

static void test_schedule(void **state) {
    (void)state;
    nq_adam_options o = NQ_ADAM_OPTIONS_INIT;
    o.steps = 100;
    assert_true(fabs(nq_adam_schedule(&o, 0) - 0.2) < 1e-9);
    assert_true(nq_adam_schedule(&o, 5) > 0.98);
    assert_true(fabs(nq_adam_schedule(&o, 50) - 0.525) < 1e-9);
    assert_true(fabs(nq_adam_schedule(&o, 100) - 0.05) < 1e-9);
    for (uint32_t s = 5; s < 120; s++) {
        assert_true(nq_adam_schedule(&o, s + 1) <= nq_adam_schedule(&o, s));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kl),
        cmocka_unit_test(test_kl_same),
        cmocka_unit_test(test_kl_top),
        cmocka_unit_test(test_kl_top_all),
        cmocka_unit_test(test_kl_top_extremes),
        cmocka_unit_test(test_cosine),
        cmocka_unit_test(test_square),
        cmocka_unit_test(test_adam),
        cmocka_unit_test(test_adam_refuses),
        cmocka_unit_test(test_adam_clips),
        cmocka_unit_test(test_schedule),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
