/* test_vec.c - exp of model/vec.h against libm, and what is not a number. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>

#include "model/vec.h"

static void exp_is_near_libm(void **state) {
    (void)state;
    double worst = 0;
    for (int i = -86000; i <= 88000; i++) {
        float x = (float)i / 1000.0F;
        float got = x;
        nq_vec_exp(&got, 1, 0.0F);
        double want = exp((double)x);
        double off = fabs((double)got - want) / want;
        worst = off > worst ? off : worst;
    }
    assert_true(worst < 2e-7);
}

static void exp_of_no_number(void **state) {
    (void)state;
    float x[4] = {NAN, -NAN, -INFINITY, 1.0F};
    nq_vec_exp(x, 4, 0.0F);
    assert_true(isnan(x[0]) && isnan(x[1]));
    assert_true(x[2] == 0.0F);
    assert_true(fabsf(x[3] - 2.7182818F) < 1e-6F);
    float y[2] = {INFINITY, 0.0F};
    nq_vec_exp(y, 2, INFINITY); /* a softmax row with an infinite logit */
    assert_true(isnan(y[0]) && y[1] == 0.0F);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exp_is_near_libm),
        cmocka_unit_test(exp_of_no_number),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
