/* test_rope.c - rotary embedding against what `transformers` computes
 * (fixtures/rope/make_rope.py) and against the definition in double. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "model/rope.h"

#define MAX_DIM 256

/* ---- the fixture ------------------------------------------------------------- */

static FILE *open_fixture(void) {
    FILE *f = fopen(FIXTURES "/rope/rope.txt", "r");
    assert_non_null(f);
    return f;
}

static double number(FILE *f) {
    double v = 0;
    assert_int_equal(fscanf(f, "%lf", &v), 1);
    return v;
}

static void expect_word(FILE *f, const char *word) {
    char got[32] = "";
    assert_int_equal(fscanf(f, "%31s", got), 1);
    assert_string_equal(got, word);
}

static nq_rope_scaling scaling_named(const char *name) {
    static const char *const names[] = {"default", "linear", "llama3", "yarn", "longrope"};
    static const nq_rope_scaling kinds[] = {NQ_ROPE_PLAIN, NQ_ROPE_LINEAR, NQ_ROPE_LLAMA3,
                                            NQ_ROPE_YARN, NQ_ROPE_LONG};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (strcmp(names[i], name) == 0) {
            return kinds[i];
        }
    }
    fail_msg("scaling %s", name);
    return NQ_ROPE_PLAIN;
}

/* The head of a case; false after the last one. */
static bool read_case(FILE *f, nq_rope_spec *s, float *divisors, uint32_t *n_ctx, char *name) {
    char kind[32] = "";
    if (fscanf(f, " case %31s %31s", name, kind) != 2) {
        assert_true(feof(f));
        return false;
    }
    *s = (nq_rope_spec){.half = true, .scaling = scaling_named(kind)};
    s->dim = (uint32_t)number(f);
    s->theta = number(f);
    s->factor = number(f);
    s->low_freq_factor = number(f);
    s->high_freq_factor = number(f);
    s->old_context = number(f);
    s->beta_fast = number(f);
    s->beta_slow = number(f);
    s->attention_factor = number(f);
    *n_ctx = (uint32_t)number(f);
    assert_in_range(s->dim, 2, MAX_DIM);
    expect_word(f, "divisors");
    uint32_t n = (uint32_t)number(f);
    assert_true(n == 0 || n == s->dim / 2);
    for (uint32_t i = 0; i < n; i++) {
        divisors[i] = (float)number(f);
    }
    bool is_short = s->scaling == NQ_ROPE_LONG && (double)*n_ctx <= s->old_context;
    s->divisors = n > 0 && !is_short ? divisors : NULL;
    s->short_divisors = n > 0 && is_short ? divisors : NULL;
    return true;
}

/* transformers computes angles in float: positions times a rounded frequency. */
static void check_turns(FILE *f, const nq_rope_spec *s, uint32_t n_ctx, const char *name) {
    float head[MAX_DIM];
    float turned[MAX_DIM];
    nq_rope rope;
    assert_int_equal(nq_rope_open(&rope, s, n_ctx, NULL), NOVAQ_OK);
    expect_word(f, "head");
    for (uint32_t i = 0; i < s->dim; i++) {
        head[i] = (float)number(f);
    }
    unsigned positions = 0;
    int p = 0;
    while (fscanf(f, " turned %d", &p) == 1) {
        memcpy(turned, head, sizeof turned);
        nq_rope_turn(&rope, turned, (uint32_t)p);
        for (uint32_t i = 0; i < s->dim; i++) {
            double want = number(f);
            if (!(fabs((double)turned[i] - want) < 1e-6 + 2e-7 * p)) {
                fail_msg("%s, position %d, component %u: %.9g, not %.9g", name, p, i,
                         (double)turned[i], want);
            }
        }
        positions++;
    }
    assert_int_equal(positions, 6);
    nq_rope_close(&rope);
}

static void agrees_with_transformers(void **state) {
    (void)state;
    float divisors[MAX_DIM];
    char name[32] = "";
    nq_rope_spec s;
    uint32_t n_ctx = 0;
    unsigned cases = 0;
    FILE *f = open_fixture();
    while (read_case(f, &s, divisors, &n_ctx, name)) {
        expect_word(f, "magnitude");
        double magnitude = number(f);
        if (!(fabs(nq_rope_magnitude(&s) - magnitude) < 1e-7)) {
            fail_msg("%s: magnitude %.9g, not %.9g", name, nq_rope_magnitude(&s), magnitude);
        }
        expect_word(f, "angles");
        for (uint32_t i = 0; i < s.dim / 2; i++) {
            double want = number(f);
            double got = nq_rope_angle(&s, i, n_ctx);
            if (!(fabs(got - want) <= 2e-6 * want)) {
                fail_msg("%s, pair %u: angle %.9g, not %.9g", name, i, got, want);
            }
        }
        check_turns(f, &s, n_ctx, name);
        cases++;
    }
    assert_int_equal(fclose(f), 0);
    assert_int_equal(cases, 11);
}

/* ---- definitions --------------------------------------------------------------- */

/* The table is made of products of turns; far positions must be as exact as near ones. */
static void far_positions_are_exact(void **state) {
    (void)state;
    nq_rope_spec s = {.dim = 64, .half = true, .theta = 10000.0};
    nq_rope rope;
    assert_int_equal(nq_rope_open(&rope, &s, 100001, NULL), NOVAQ_OK);
    static const uint32_t positions[] = {0, 63, 64, 65, 4095, 65535, 99999, 100000};
    for (size_t k = 0; k < sizeof positions / sizeof positions[0]; k++) {
        for (uint32_t i = 0; i < 32; i++) {
            double angle = nq_rope_angle(&s, i, 100001) * positions[k];
            float head[64] = {0};
            head[i] = 1.0F;
            nq_rope_turn(&rope, head, positions[k]);
            assert_true(fabs((double)head[i] - cos(angle)) < 1e-7);
            assert_true(fabs((double)head[i + 32] - sin(angle)) < 1e-7);
        }
    }
    nq_rope_close(&rope);
}

/* Interleaved pairs are the half style with components in another order; what is
 * beyond dim stays. */
static void styles_differ_by_order(void **state) {
    (void)state;
    nq_rope_spec s = {.dim = 48, .half = true, .theta = 10000.0};
    nq_rope half;
    nq_rope pairs;
    float a[64];
    float b[64];
    assert_int_equal(nq_rope_open(&half, &s, 70, NULL), NOVAQ_OK);
    s.half = false;
    assert_int_equal(nq_rope_open(&pairs, &s, 70, NULL), NOVAQ_OK);
    for (uint32_t i = 0; i < 64; i++) {
        a[i] = (float)i * 0.25F - 3.0F;
    }
    for (uint32_t i = 0; i < 24; i++) {
        b[2 * i] = a[i];
        b[2 * i + 1] = a[i + 24];
    }
    memcpy(b + 48, a + 48, 16 * sizeof(float));
    nq_rope_turn(&half, a, 69);
    nq_rope_turn(&pairs, b, 69);
    for (uint32_t i = 0; i < 24; i++) {
        assert_true(b[2 * i] == a[i] && b[2 * i + 1] == a[i + 24]);
    }
    for (uint32_t i = 48; i < 64; i++) {
        assert_true(a[i] == (float)i * 0.25F - 3.0F && b[i] == a[i]);
    }
    nq_rope_close(&half);
    nq_rope_close(&pairs);
}

/* A GGUF keeps Llama 3.1's stretching as divisors of plain angles. */
static void divisors_apply_to_any_scaling(void **state) {
    (void)state;
    float divisors[32];
    nq_rope_spec llama = {.dim = 64,
                          .theta = 500000.0,
                          .scaling = NQ_ROPE_LLAMA3,
                          .factor = 8.0,
                          .low_freq_factor = 1.0,
                          .high_freq_factor = 4.0,
                          .old_context = 8192};
    nq_rope_spec plain = {.dim = 64, .theta = 500000.0};
    for (uint32_t i = 0; i < 32; i++) {
        divisors[i] = (float)(nq_rope_angle(&plain, i, 1) / nq_rope_angle(&llama, i, 1));
    }
    plain.divisors = divisors;
    for (uint32_t i = 0; i < 32; i++) {
        double want = nq_rope_angle(&llama, i, 1);
        assert_true(fabs(nq_rope_angle(&plain, i, 1) - want) < 1e-6 * want);
    }
    assert_true(divisors[31] > 7.9F && divisors[0] < 1.001F);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(agrees_with_transformers),
        cmocka_unit_test(far_positions_are_exact),
        cmocka_unit_test(styles_differ_by_order),
        cmocka_unit_test(divisors_apply_to_any_scaling),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
