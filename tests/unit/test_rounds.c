/* test_rounds.c - refinement in rounds with new symbols in between, of a tiny model: never
 * worse from one to the next, told and reported, the same bytes for any number of threads
 * and however often it is stopped, nothing left behind.
 * Threads: test_net and test_reencode run the same loops under TSan. */
#include "model_util.h"

#include "artifact/artifact.h"
#include "novaq.h"

typedef struct job {
    char *dir, *text, *made, *output;
    novaq_refine_options o;
    unsigned stages, stages_kept; /* told */
    unsigned stop_at;             /* calls of progress in `stop_in` before it says stop */
    const char *stop_in;
    unsigned calls;
} job;

static int on_progress(void *ctx, const novaq_progress *p) {
    job *j = ctx;
    return j->stop_in != NULL && strcmp(p->phase, j->stop_in) == 0 && ++j->calls >= j->stop_at;
}

static void on_step(void *ctx, const char *line) {
    job *j = ctx;
    json_t *o = NULL;
    assert_int_equal(nq_json_parse_object(&o, "line", line, strlen(line), NULL), NOVAQ_OK);
    assert_true(number(o, "round") >= 1 && number(o, "rounds") == 3);
    if (strcmp(json_string_value(json_object_get(o, "event")), "reassign") == 0) {
        const json_t *kl = json_object_get(o, "held_out_kl");
        bool kept = strcmp(json_string_value(json_object_get(o, "kept")), "old") != 0;
        j->stages++;
        j->stages_kept += kept;
        assert_true(kept ? number(kl, "after") < number(kl, "before") && number(o, "changed") > 0
                         : number(kl, "after") == number(kl, "before"));
    }
    json_decref(o);
}

static job open_job(void) {
    job j = {.dir = scratch_dir(), .o = NOVAQ_REFINE_OPTIONS_INIT};
    novaq_compress_options c = NOVAQ_COMPRESS_OPTIONS_INIT;
    novaq_error err = {0};
    j.text = text_file(j.dir, 120);
    assert_int_equal(nq_path_join(&j.made, j.dir, "made.bin", NULL), NOVAQ_OK);
    assert_int_equal(nq_path_join(&j.output, j.dir, "out.bin", NULL), NOVAQ_OK);
    c.input = TINY("a.gguf");
    c.output = j.made;
    c.single_file = 1;
    c.scheme = "k16d2l2";
    c.calibration = j.text;
    c.threads = 1;
    c.segment_rows = 48;
    c.max_iterations = 5;
    if (novaq_compress(NULL, &c, &err) != NOVAQ_OK) {
        fail_msg("%s", err.msg);
    }
    j.o.artifact = j.made;
    j.o.teacher = TINY("a.gguf");
    j.o.output = j.output;
    j.o.single_file = 1;
    j.o.steps = 14;
    j.o.rounds = 3;
    j.o.calibration = j.text;
    j.o.sequence = 32;
    j.o.batch = 4;
    j.o.rate = 0.01;
    j.o.codebook_columns = 16;
    j.o.threads = 1;
    return j;
}

static void close_job(job *j) {
    remove_dir(j->dir);
    nq_free(j->dir);
    nq_free(j->text);
    nq_free(j->made);
    nq_free(j->output);
}

static novaq_status run(job *j, json_t **report) {
    char *text = NULL;
    novaq_error err = {0};
    j->stages = j->stages_kept = j->calls = 0;
    j->o.progress = on_progress;
    j->o.progress_ctx = j;
    j->o.step = on_step;
    j->o.step_ctx = j;
    novaq_status st = novaq_refine(&text, &j->o, &err);
    if (st == NOVAQ_OK && report != NULL) {
        assert_int_equal(nq_json_parse(report, "report", text, strlen(text), NULL), NOVAQ_OK);
    } else if (st != NOVAQ_OK && st != NOVAQ_E_INTERRUPTED) {
        fail_msg("%s", err.msg);
    }
    novaq_free(text);
    return st;
}

static char *bytes_of(const char *path, size_t *len) {
    char *data = NULL;
    assert_int_equal(nq_read_file(&data, len, path, (size_t)1 << 24, NULL), NOVAQ_OK);
    return data;
}

/* Nothing but text, artifacts and where they came from. */
static void assert_clean(const job *j) {
    char **names = NULL;
    size_t count = 0;
    assert_int_equal(nq_list_dir(&names, &count, j->dir, NULL), NOVAQ_OK);
    for (size_t i = 0; i < count; i++) {
        assert_null(strstr(names[i], ".round"));
        assert_null(strstr(names[i], ".symbols"));
        assert_null(strstr(names[i], ".refine"));
    }
    nq_free_names(names, count);
}

static void check_report(const job *j, const json_t *report) {
    const json_t *list = json_object_get(report, "rounds");
    unsigned stages = 0;
    unsigned kept = 0;
    assert_int_equal(json_array_size(list), 3);
    for (size_t i = 0; i < 3; i++) {
        const json_t *round = json_array_get(list, i);
        const json_t *kl = json_object_get(round, "held_out_kl");
        const json_t *symbols = json_object_get(round, "reassigned");
        assert_true(number(kl, "after") <= number(kl, "before"));
        assert_true((symbols != NULL) == (i < 2));
        if (symbols == NULL) {
            continue;
        }
        const json_t *moved = json_object_get(symbols, "held_out_kl");
        const json_t *next = json_object_get(json_array_get(list, i + 1), "held_out_kl");
        double after = number(moved, "after");
        assert_near(number(moved, "before"), number(kl, "after"), 1e-3 * after, "before");
        assert_near(number(next, "before"), after, 1e-3 * after, "next");
        assert_true(number(next, "before") <= number(kl, "after") * (1 + 1e-3));
        assert_true((number(symbols, "kept") > 0) == (number(symbols, "changed") > 0));
        assert_int_equal(json_array_size(json_object_get(symbols, "blocks")), 2);
        stages += (unsigned)number(symbols, "stages");
        kept += (unsigned)number(symbols, "kept");
    }
    assert_int_equal(stages, j->stages);
    assert_int_equal(kept, j->stages_kept);
    assert_int_equal(stages, 2 * 2 * 4);
    const json_t *all = json_object_get(report, "held_out_kl");
    const json_t *first = json_object_get(json_array_get(list, 0), "held_out_kl");
    const json_t *last = json_object_get(json_array_get(list, 2), "held_out_kl");
    assert_true(number(all, "before") == number(first, "before"));
    assert_true(number(all, "after") == number(last, "after"));
    assert_true(number(all, "after") < number(all, "before"));
    assert_int_equal((int)number(report, "steps"), 14);
}

static void test_rounds(void **state) {
    (void)state;
    job j = open_job();
    json_t *report = NULL;
    assert_int_equal(run(&j, &report), NOVAQ_OK);
    check_report(&j, report);
    assert_true(j.stages_kept > 0);
    json_decref(report);
    assert_clean(&j);
    size_t len = 0;
    char *whole = bytes_of(j.output, &len);
    size_t n = 0;

    j.o.threads = 3;
    assert_int_equal(run(&j, NULL), NOVAQ_OK);
    char *other = bytes_of(j.output, &n);
    assert_int_equal(n, len);
    assert_memory_equal(other, whole, len);
    nq_free(other);

    /* Stopped within a round, within new symbols, and again. */
    unlink(j.output);
    j.o.threads = 1;
    j.stop_in = "refine";
    j.stop_at = 30;
    assert_int_equal(run(&j, NULL), NOVAQ_E_INTERRUPTED);
    j.stop_in = "reassign";
    j.stop_at = 25;
    assert_int_equal(run(&j, NULL), NOVAQ_E_INTERRUPTED);
    assert_true(access(j.output, F_OK) != 0);
    j.stop_at = 150;
    (void)run(&j, NULL);
    j.stop_in = NULL;
    assert_int_equal(run(&j, &report), NOVAQ_OK);
    assert_int_equal(json_array_size(json_object_get(report, "rounds")), 3);
    json_decref(report);
    other = bytes_of(j.output, &n);
    assert_int_equal(n, len);
    assert_memory_equal(other, whole, len);
    nq_free(other);
    nq_free(whole);
    assert_clean(&j);
    close_job(&j);
}

static void test_refusals(void **state) {
    (void)state;
    job j = open_job();
    novaq_error err = {0};
    j.o.rounds = 17;
    assert_int_equal(novaq_refine(NULL, &j.o, &err), NOVAQ_E_ARG);
    j.o.rounds = 15; /* of 14 steps */
    assert_int_equal(novaq_refine(NULL, &j.o, &err), NOVAQ_E_ARG);
    assert_true(access(j.output, F_OK) != 0);
    close_job(&j);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_rounds),
                                       cmocka_unit_test(test_refusals)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
