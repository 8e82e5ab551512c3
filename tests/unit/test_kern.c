/* test_kern.c - every kernel variant this machine can run against the scalar
 * reference, on random and edge fills. Encoding kernels must agree bit for bit:
 * artifacts depend on them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/cpu.h"
#include "kern_check.h"

/* The reference is among them: its checks against definitions count too. */
static unsigned variants(const nq_kern *out[NQ_CPU_LEVELS]) {
    unsigned levels[NQ_CPU_LEVELS];
    unsigned have = nq_cpu_levels(levels);
    unsigned n = 0;
    for (unsigned i = 0; i < have; i++) {
        const nq_kern *kern = nq_kern_for(levels[i]);
        if (n == 0 || out[n - 1] != kern) { /* a level may add nothing here */
            out[n++] = kern;
        }
    }
    return n;
}

static void expect_none(unsigned (*check)(const nq_kern *)) {
    const nq_kern *v[NQ_CPU_LEVELS];
    unsigned n = variants(v);
    for (unsigned i = 0; i < n; i++) {
        unsigned failed = check(v[i]);
        if (failed != 0) {
            print_error("%s: %u comparisons failed\n", v[i]->name, failed);
        }
        assert_int_equal(failed, 0);
    }
}

static void paths_agree(void **state) {
    (void)state;
    expect_none(check_paths);
}

static void nearest_pair_agrees(void **state) {
    (void)state;
    expect_none(check_nearest_pair);
}

static void hadamard_agrees(void **state) {
    (void)state;
    expect_none(check_hadamard);
}

static void lookups_agree(void **state) {
    (void)state;
    expect_none(check_lookups);
}

static void dot_products_agree(void **state) {
    (void)state;
    expect_none(check_dot_products);
}

int main(void) {
    const nq_kern *v[NQ_CPU_LEVELS];
    unsigned n = variants(v);
    for (unsigned i = 0; i < n; i++) {
        printf("variant: %s\n", v[i]->name);
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(paths_agree),        cmocka_unit_test(nearest_pair_agrees),
        cmocka_unit_test(hadamard_agrees),    cmocka_unit_test(lookups_agree),
        cmocka_unit_test(dot_products_agree),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
