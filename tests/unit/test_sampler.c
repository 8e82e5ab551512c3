/* test_sampler.c - each setting of the sampler alone, and whole characters. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "model/sampler.h"
#include "model/utf8.h"

#define VOCAB 6
#define DRAWS 20000

static const float LOGITS[VOCAB] = {0.5F, 2.0F, -1.0F, 1.0F, 2.0F, -3.0F};
static const nq_sampling OFF = {.temperature = 1.0F, .top_p = 1.0F, .repeat_penalty = 1.0F};

static nq_sampler *open_sampler(nq_sampling s) {
    nq_sampler *out = NULL;
    assert_int_equal(nq_sampler_open(&out, &s, VOCAB, NULL), NOVAQ_OK);
    return out;
}

static int32_t draw(nq_sampler *s, const float *logits) {
    float copy[VOCAB];
    int32_t token = -1;
    memcpy(copy, logits, sizeof copy);
    assert_int_equal(nq_sampler_draw(&token, s, copy, NULL), NOVAQ_OK);
    assert_in_range(token, 0, VOCAB - 1);
    return token;
}

/* Share of each token in many draws. */
static void shares(double *out, nq_sampling set) {
    nq_sampler *s = open_sampler(set);
    memset(out, 0, VOCAB * sizeof *out);
    for (int i = 0; i < DRAWS; i++) {
        out[draw(s, LOGITS)] += 1.0 / DRAWS;
    }
    nq_sampler_close(&s);
}

/* Expected shares: softmax(logit / t) over the tokens in `kept`. */
static void check_shares(nq_sampling set, const char *kept) {
    double got[VOCAB];
    double want[VOCAB] = {0};
    double sum = 0;
    for (const char *k = kept; *k != '\0'; k++) {
        want[*k - '0'] = exp((double)LOGITS[*k - '0'] / (double)set.temperature);
        sum += want[*k - '0'];
    }
    shares(got, set);
    for (int i = 0; i < VOCAB; i++) {
        if (want[i] == 0.0) {
            assert_true(got[i] == 0.0);
        }
        assert_true(fabs(got[i] - want[i] / sum) < 0.015); /* 4 sigma of 20000 draws */
    }
}

static void test_distribution(void **state) {
    (void)state;
    nq_sampling s = OFF;
    check_shares(s, "012345");
    s.temperature = 2.0F;
    check_shares(s, "012345");
    s.temperature = 0.5F;
    check_shares(s, "012345");
}

static void test_top_k(void **state) {
    (void)state;
    nq_sampling s = OFF;
    s.top_k = 3;
    check_shares(s, "143");
    s.top_k = 1; /* a tie: the lower id */
    check_shares(s, "1");
    s.top_k = 100;
    check_shares(s, "012345");
}

static void test_top_p(void **state) {
    (void)state;
    nq_sampling s = OFF; /* shares at temperature 1: .37 .37 .14 .08 .02 .00 */
    s.top_p = 0.7F;
    check_shares(s, "14");
    s.top_p = 0.8F;
    check_shares(s, "143");
    s.top_p = 1e-6F;
    check_shares(s, "1");
}

static void test_min_p(void **state) {
    (void)state;
    nq_sampling s = OFF; /* against the best: 1, 1, .37, .22, .05, .007 */
    s.min_p = 0.3F;
    check_shares(s, "143");
    s.min_p = 1.0F;
    check_shares(s, "14");
}

static void test_greedy(void **state) {
    (void)state;
    nq_sampling set = OFF;
    set.temperature = 0.0F;
    nq_sampler *s = open_sampler(set);
    for (int i = 0; i < 10; i++) {
        assert_int_equal(draw(s, LOGITS), 1);
    }
    nq_sampler_close(&s);
}

static void test_repeat_penalty(void **state) {
    (void)state;
    nq_sampling set = OFF;
    set.temperature = 0.0F;
    set.repeat_penalty = 1.5F;
    nq_sampler *s = open_sampler(set);
    nq_sampler_accept(s, 1);
    nq_sampler_accept(s, 1); /* twice counts once: 2.0 / 1.5 is above 1.0 still */
    assert_int_equal(draw(s, LOGITS), 4);
    nq_sampler_accept(s, 4);
    assert_int_equal(draw(s, LOGITS), 1);
    for (int i = 0; i < NQ_REPEAT_WINDOW; i++) {
        nq_sampler_accept(s, 5); /* pushes the others out of the window */
    }
    assert_int_equal(draw(s, LOGITS), 1);
    static const float NEGATIVE[VOCAB] = {-9, -1.0F, -9, -1.2F, -9, -9};
    nq_sampler_accept(s, 1); /* -1.5: a negative logit falls, too */
    assert_int_equal(draw(s, NEGATIVE), 3);
    nq_sampler_close(&s);
}

static void test_seed(void **state) {
    (void)state;
    nq_sampling set = OFF;
    set.seed = 7;
    nq_sampler *a = open_sampler(set);
    nq_sampler *b = open_sampler(set);
    set.seed = 8;
    nq_sampler *c = open_sampler(set);
    int differ = 0;
    for (int i = 0; i < 100; i++) {
        int32_t t = draw(a, LOGITS);
        assert_int_equal(draw(b, LOGITS), t);
        differ += draw(c, LOGITS) != t;
    }
    assert_true(differ > 20);
    nq_sampler_close(&a);
    nq_sampler_close(&b);
    nq_sampler_close(&c);
}

static void test_refusals(void **state) {
    (void)state;
    nq_sampler *s = NULL;
    nq_sampling bad[] = {OFF, OFF, OFF, OFF, OFF, OFF};
    bad[0].temperature = -1.0F;
    bad[1].temperature = NAN;
    bad[2].top_p = 0.0F;
    bad[3].top_p = 1.5F;
    bad[4].min_p = -0.1F;
    bad[5].repeat_penalty = 0.0F;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(nq_sampler_open(&s, &bad[i], VOCAB, NULL), NOVAQ_E_ARG);
        assert_null(s);
    }
    float logits[VOCAB] = {0, 1, NAN, 0, 0, 0};
    int32_t token = 0;
    s = open_sampler(OFF);
    assert_int_equal(nq_sampler_draw(&token, s, logits, NULL), NOVAQ_E_NUMERIC);
    nq_sampler_close(&s);
}

static void test_utf8(void **state) {
    static const struct {
        const char *bytes;
        size_t len;
        int want;
    } CASES[] = {
        {"a", 1, 1},
        {"\xC3\xA9", 2, 2},
        {"\xC3", 1, 0},
        {"\xC3(", 2, -1},
        {"\xC0\x80", 2, -1},
        {"\x80", 1, -1},
        {"\xE2\x82\xAC", 3, 3},
        {"\xE2\x82", 2, 0},
        {"\xE0\x80\x80", 3, -1}, /* overlong */
        {"\xED\xA0\x80", 3, -1}, /* surrogate */
        {"\xF0\x9F\x98\x80", 4, 4},
        {"\xF0\x9F\x98", 3, 0},
        {"\xF4\x90\x80\x80", 4, -1}, /* above U+10FFFF */
        {"\xF5", 1, -1},
        {"\xFF", 1, -1},
    };
    (void)state;
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        assert_int_equal(nq_utf8_whole((const uint8_t *)CASES[i].bytes, CASES[i].len),
                         CASES[i].want);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_distribution), cmocka_unit_test(test_top_k),
        cmocka_unit_test(test_top_p),        cmocka_unit_test(test_min_p),
        cmocka_unit_test(test_greedy),       cmocka_unit_test(test_repeat_penalty),
        cmocka_unit_test(test_seed),         cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_utf8),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
