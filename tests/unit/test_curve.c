/* test_curve.c - what is kept of a refinement's steps, and what is drawn of them: a run
 * that diverged, one that an earlier call began, one that took no step. */
#include "curve.h"

#include <math.h>
#include <sys/stat.h>

#include "model_util.h"

static void add(curve *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void add(curve *c, const char *fmt, ...) {
    char line[300];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    curve_add(c, line);
}

static void begin(curve *c) { add(c, "{\"event\": \"begin\", \"steps\": 60, \"tokens\": 9}"); }

static void step(curve *c, int n, double kl) {
    add(c, "{\"event\": \"step\", \"step\": %d, \"steps\": 60, \"kl\": %g, \"best_step\": 0}", n,
        kl);
}

static void measured(curve *c, int n, double kl, double held, int best, double best_kl) {
    add(c,
        "{\"event\": \"step\", \"step\": %d, \"steps\": 60, \"kl\": %g, \"held_out_kl\": %g, "
        "\"held_out_perplexity\": %g, \"best_step\": %d, \"best_held_out_kl\": %g}",
        n, kl, held, exp(held), best, best_kl);
}

static void test_steps(void **state) {
    curve c = {0};
    (void)state;
    begin(&c);
    add(&c, "{\"event\": \"step\", \"step\": 0, \"steps\": 60, \"held_out_kl\": 0.5, "
            "\"held_out_perplexity\": 40, \"best_step\": 0, \"best_held_out_kl\": 0.5}");
    step(&c, 1, 0.4);
    measured(&c, 2, 0.3, 0.25, 2, 0.25);
    curve_add(&c, "no JSON");
    curve_add(&c, "{\"event\": \"other\", \"step\": 9}");
    assert_int_equal(c.count, 3);
    assert_true(isnan(c.points[0].kl) && isnan(c.points[1].held_kl));
    assert_near(c.points[0].held_ppl, 40, 0, "perplexity");
    assert_near(c.points[2].kl, 0.3, 0, "kl");
    assert_near(c.first, 0, 0, "first");
    assert_near(c.best_step, 2, 0, "best");
    begin(&c); /* another run */
    assert_int_equal(c.count, 0);
    curve_free(&c);
}

/* What was taken back is not there any more, whichever way it is told. */
static void test_taken_back(void **state) {
    curve c = {0};
    (void)state;
    begin(&c);
    measured(&c, 0, 0.5, 0.5, 0, 0.5);
    for (int i = 1; i <= 5; i++) {
        step(&c, i, 0.4);
    }
    /* A step that diverged: the run is at step 2 again. */
    add(&c, "{\"event\": \"step\", \"step\": 2, \"steps\": 60, \"kl\": 9, \"rolled_back\": true}");
    assert_int_equal(c.count, 3);
    step(&c, 3, 0.35);
    assert_int_equal(c.count, 4);
    assert_near(c.points[3].kl, 0.35, 0, "kl");
    /* A measurement that diverged: the next step tells where it went on. */
    step(&c, 4, 0.34);
    add(&c, "{\"event\": \"step\", \"step\": 5, \"steps\": 60, \"kl\": 0.3, \"held_out_kl\": 8, "
            "\"held_out_perplexity\": 3000, \"rolled_back\": true}");
    step(&c, 3, 0.33);
    assert_int_equal(c.count, 4);
    assert_near(c.points[3].kl, 0.33, 0, "kl");
    assert_int_equal(c.mark_count[CURVE_TAKEN_BACK], 2);
    for (int i = 0; i < 20; i++) {
        add(&c, "{\"event\": \"step\", \"step\": 3, \"steps\": 60, \"rolled_back\": true}");
    }
    assert_int_equal(c.count, 4);
    curve_free(&c);
}

/* A later round goes on where the one before ended; what it takes back is its own. */
static void test_rounds(void **state) {
    curve c = {0};
    (void)state;
    add(&c, "{\"event\": \"begin\", \"steps\": 60, \"round\": 1}");
    measured(&c, 0, 0.5, 0.5, 0, 0.5);
    step(&c, 1, 0.4);
    add(&c, "{\"event\": \"begin\", \"steps\": 60, \"round\": 2}");
    measured(&c, 1, 0.35, 0.3, 1, 0.3);
    step(&c, 2, 0.32);
    assert_int_equal(c.count, 4);
    assert_int_equal(c.mark_count[CURVE_NEXT_ROUND], 1);
    assert_near(c.marks[CURVE_NEXT_ROUND][0], 1, 0, "mark");
    add(&c, "{\"event\": \"step\", \"step\": 0, \"steps\": 60, \"rolled_back\": true}");
    assert_int_equal(c.count, 2);
    assert_near(c.points[1].kl, 0.4, 0, "kl");
    curve_free(&c);
    /* A call that begins with a later round. */
    add(&c, "{\"event\": \"begin\", \"steps\": 60, \"round\": 3}");
    step(&c, 40, 0.3);
    assert_near(c.first, 40, 0, "first");
    assert_int_equal(c.mark_count[CURVE_NEXT_ROUND], 0);
    curve_free(&c);
}

static void test_many(void **state) {
    curve c = {0};
    (void)state;
    begin(&c);
    for (int i = 0; i <= 3000; i++) {
        step(&c, i, i);
    }
    assert_int_equal(c.count, 3001);
    assert_near(c.points[3000].kl, 3000, 0, "kl");
    assert_false(c.incomplete);
    curve_free(&c);
}

/* ---- pictures ------------------------------------------------------------------------- */

/* The script that a program of gnuplot's name was given; nq_free(). */
static char *script_of(const curve *c) {
    char *dir = scratch_dir();
    char *program = NULL;
    char *path = NULL;
    char *script = NULL;
    char text[400];
    size_t len = 0;
    assert_int_equal(nq_path_join(&program, dir, "gnuplot", NULL), NOVAQ_OK);
    assert_int_equal(nq_path_join(&path, dir, "curve.svg", NULL), NOVAQ_OK);
    (void)snprintf(text, sizeof text, "#!/bin/sh\n/bin/cat >%s/script\necho drawn\n", dir);
    assert_int_equal(nq_write_file(program, text, strlen(text), NULL), NOVAQ_OK);
    assert_int_equal(chmod(program, 0700), 0);
    assert_int_equal(setenv("PATH", dir, 1), 0);
    assert_int_equal(curve_draw(c, path), 0);
    if (nq_is_file(path)) {
        nq_free(path);
        assert_int_equal(nq_path_join(&path, dir, "script", NULL), NOVAQ_OK);
        assert_int_equal(nq_read_file(&script, &len, path, 1 << 20, NULL), NOVAQ_OK);
    }
    remove_dir(dir);
    nq_free(path);
    nq_free(program);
    nq_free(dir);
    return script;
}

static void need(const char *script, const char *words, bool there) {
    if ((strstr(script, words) != NULL) != there) {
        fail_msg("'%s' is%s in:\n%s", words, there ? " not" : "", script);
    }
}

static void test_resumed(void **state) {
    curve c = {0};
    (void)state;
    begin(&c);
    /* Where it goes on: nothing was measured, the best is known. */
    add(&c, "{\"event\": \"step\", \"step\": 30, \"steps\": 60, \"best_step\": 25, "
            "\"best_held_out_kl\": 0.25}");
    char *script = script_of(&c);
    assert_null(script); /* nothing to draw */
    add(&c, "{\"event\": \"step\", \"step\": 31, \"steps\": 60, \"kl\": 0.2, \"best_step\": 25, "
            "\"best_held_out_kl\": 0.25}");
    script = script_of(&c);
    need(script, "earlier call", true);
    need(script, "rectangle from 0, graph 0 to 30, graph 1", true);
    need(script, "$steps << END\n31 0.2 0.2\nEND\n", true);
    need(script, "$best << END\n25 0.25 nan\nEND\n", true);
    need(script, "plot $held", false); /* no second panel without a figure */
    need(script, "set xrange [0:31]", true);
    nq_free(script);
    curve_free(&c);
}

static void test_picture(void **state) {
    curve c = {0};
    (void)state;
    begin(&c);
    measured(&c, 0, 0.5, 0.5, 0, 0.5);
    step(&c, 1, 0.4);
    add(&c, "{\"event\": \"step\", \"step\": 0, \"steps\": 60, \"kl\": 9, \"rolled_back\": true}");
    measured(&c, 1, 0.3, 0.25, 1, 0.25);
    char *script = script_of(&c);
    need(script, "set terminal svg", true);
    need(script, "$steps << END\n0 0.5 0.5\n1 0.3 0.4\nEND\n", true);
    need(script, "$held << END\n0 0.5 1.6", true);
    need(script, "$best << END\n1 0.25 1.28", true);
    need(script, "went on from here", true);
    need(script, "earlier call", false);
    need(script, "best: step 1, KL 0.2500", true);
    nq_free(script);
    curve_free(&c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_steps),   cmocka_unit_test(test_taken_back),
        cmocka_unit_test(test_rounds),  cmocka_unit_test(test_many),
        cmocka_unit_test(test_resumed), cmocka_unit_test(test_picture),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
