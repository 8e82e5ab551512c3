/* test_refine_cache.c - refinement by a teacher's predictions in a file: made once, used
 * again, to the same bytes for any thread count and however often it is stopped; all
 * predictions kept teach what the teacher beside its student teaches; whose checkpoint is
 * whose; refusals. Threads: test_teacher runs the same loops under TSan. */
#include "model_util.h"

#include <math.h>

#include "novaq.h"

typedef struct job {
    char *dir, *text, *made, *output, *cache;
    novaq_refine_options o;
    novaq_error err;
    const char *phase; /* whose calls are counted */
    unsigned calls, stop_at;
    unsigned reused, made_anew; /* lines that say so */
    double teacher_memory, memory;
} job;

static int on_progress(void *ctx, const novaq_progress *p) {
    job *j = ctx;
    j->calls += strcmp(p->phase, j->phase) == 0;
    return j->stop_at != 0 && j->calls >= j->stop_at;
}

static void on_step(void *ctx, const char *line) {
    job *j = ctx;
    json_t *o = NULL;
    assert_int_equal(nq_json_parse_object(&o, "line", line, strlen(line), NULL), NOVAQ_OK);
    const char *event = json_string_value(json_object_get(o, "event"));
    if (strcmp(event, "begin") == 0) {
        j->memory = number(o, "memory_bytes");
    }
    if (strcmp(event, "teacher") == 0) {
        bool reused = json_is_true(json_object_get(o, "reused"));
        j->reused += reused;
        j->made_anew += !reused;
        j->teacher_memory = reused ? 0 : number(o, "memory_bytes");
        assert_string_equal(json_string_value(json_object_get(o, "file")), j->cache);
        assert_true(number(o, "bytes") > 0);
    }
    json_decref(o);
}

static job open_job(void) {
    job j = {.dir = scratch_dir(), .o = NOVAQ_REFINE_OPTIONS_INIT, .phase = "refine"};
    novaq_compress_options c = NOVAQ_COMPRESS_OPTIONS_INIT;
    j.text = text_file(j.dir, 120);
    assert_int_equal(nq_path_join(&j.made, j.dir, "made.bin", NULL), NOVAQ_OK);
    assert_int_equal(nq_path_join(&j.output, j.dir, "out.bin", NULL), NOVAQ_OK);
    assert_int_equal(nq_path_join(&j.cache, j.dir, "cache", NULL), NOVAQ_OK);
    c.input = TINY("a.gguf");
    c.output = j.made;
    c.single_file = 1;
    c.scheme = "k16d2l2";
    c.calibration = "none";
    c.threads = 1;
    if (novaq_compress(NULL, &c, &j.err) != NOVAQ_OK) {
        fail_msg("%s", j.err.msg);
    }
    j.o.artifact = j.made;
    j.o.teacher = TINY("a.gguf");
    j.o.output = j.output;
    j.o.single_file = 1;
    j.o.steps = 24;
    j.o.calibration = j.text;
    j.o.sequence = 32;
    j.o.batch = 4;
    j.o.rate = 0.01;
    j.o.codebook_columns = 16;
    j.o.threads = 1;
    j.o.teacher_cache = j.cache;
    return j;
}

static void close_job(job *j) {
    remove_dir(j->dir);
    nq_free(j->dir);
    nq_free(j->text);
    nq_free(j->made);
    nq_free(j->output);
    nq_free(j->cache);
}

static novaq_status run(job *j, json_t **report) {
    char *text = NULL;
    j->calls = j->reused = j->made_anew = 0;
    j->o.progress = on_progress;
    j->o.progress_ctx = j;
    j->o.step = on_step;
    j->o.step_ctx = j;
    novaq_status st = novaq_refine(&text, &j->o, &j->err);
    if (st == NOVAQ_OK && report != NULL) {
        assert_int_equal(nq_json_parse(report, "report", text, strlen(text), NULL), NOVAQ_OK);
    }
    novaq_free(text);
    return st;
}

static json_t *refine(job *j) {
    json_t *report = NULL;
    if (run(j, &report) != NOVAQ_OK) {
        fail_msg("%s", j->err.msg);
    }
    return report;
}

static double held_out(const json_t *report, const char *when) {
    return number(json_object_get(report, "held_out_kl"), when);
}

static char *bytes_of(const char *path, size_t *len) {
    char *data = NULL;
    assert_int_equal(nq_read_file(&data, len, path, (size_t)1 << 24, NULL), NOVAQ_OK);
    return data;
}

static void assert_same_file(const char *path, const char *data, size_t len) {
    size_t n = 0;
    char *other = bytes_of(path, &n);
    assert_int_equal(n, len);
    assert_memory_equal(other, data, len);
    nq_free(other);
}

/* Made, then used, also by other options; with more threads; after it was lost. */
static void test_used_again(void **state) {
    (void)state;
    job j = open_job();
    size_t len = 0;
    json_t *report = refine(&j);
    const json_t *told = json_object_get(report, "teacher_cache");
    char *whole = bytes_of(j.output, &len);
    assert_int_equal(j.made_anew, 1);
    assert_true(j.teacher_memory > 0);
    assert_true(held_out(report, "after") < 0.9 * held_out(report, "before"));
    assert_int_equal(number(report, "teacher_top"), 64);
    assert_int_equal(number(told, "top"), 64);
    assert_true(number(told, "rest") > 0 && number(told, "rest") < 1);
    json_decref(report);
    for (unsigned again = 0; again < 3; again++) {
        j.o.threads = again == 1 ? 3 : 1;
        if (again == 2) {
            assert_int_equal(unlink(j.cache), 0);
        }
        json_decref(refine(&j));
        assert_int_equal(j.reused, again == 2 ? 0 : 1);
        assert_int_equal(j.made_anew, again == 2 ? 1 : 0);
        assert_same_file(j.output, whole, len);
    }
    j.o.rate = 0.005;
    j.o.batch = 3;
    json_decref(refine(&j));
    assert_int_equal(j.reused, 1);
    nq_free(whole);
    close_job(&j);
}

/* Of another text, or damaged: made anew, and said so. */
static void test_made_anew(void **state) {
    (void)state;
    job j = open_job();
    size_t len = 0;
    j.o.steps = 1;
    json_decref(refine(&j));
    char *cache = bytes_of(j.cache, &len);
    const novaq_refine_options good = j.o;
    for (unsigned i = 0; i < 4; i++) {
        j.o = good;
        j.o.calibration_tokens = i == 0 ? 512 : 0;
        j.o.temperature = i == 1 ? 2 : 1;
        j.o.exact = i == 2;
        if (i == 3) {
            assert_int_equal(nq_write_file(j.cache, cache, len - 1, NULL), NOVAQ_OK);
        }
        json_t *report = refine(&j);
        const json_t *warnings = json_object_get(report, "warnings");
        const char *note = json_string_value(json_array_get(warnings, 0));
        assert_int_equal(j.made_anew, 1);
        assert_non_null(note);
        assert_non_null(strstr(note, i == 3 ? "damaged" : "another"));
        json_decref(report);
        j.o = good;
        json_decref(refine(&j));
    }
    assert_same_file(j.cache, cache, len);
    nq_free(cache);
    close_job(&j);
}

static void test_stopped(void **state) {
    (void)state;
    job j = open_job();
    size_t len = 0;
    /* While the predictions are made: as if it had never begun. */
    j.phase = "teacher";
    j.stop_at = 2;
    assert_int_equal(run(&j, NULL), NOVAQ_E_INTERRUPTED);
    assert_int_equal(j.calls, 2);
    char **names = NULL;
    size_t count = 0;
    assert_int_equal(nq_list_dir(&names, &count, j.dir, NULL), NOVAQ_OK);
    for (size_t i = 0; i < count; i++) {
        assert_null(strstr(names[i], "cache"));
        assert_null(strstr(names[i], ".refine"));
    }
    nq_free_names(names, count);
    j.phase = "refine";
    j.stop_at = 0;
    json_decref(refine(&j));
    unsigned calls = j.calls;
    char *whole = bytes_of(j.output, &len);
    for (unsigned stop = 20; stop < calls; stop += calls / 4) {
        j.stop_at = stop;
        assert_int_equal(run(&j, NULL), NOVAQ_E_INTERRUPTED);
        j.stop_at = 0;
        json_t *report = refine(&j);
        assert_true(number(report, "resumed_at") > 0);
        json_decref(report);
        assert_same_file(j.output, whole, len);
    }
    nq_free(whole);
    close_job(&j);
}

/* A run with the teacher beside it, or with other predictions, is another run. */
static void test_checkpoint_of(void **state) {
    (void)state;
    job j = open_job();
    const novaq_refine_options good = j.o;
    j.stop_at = 40;
    assert_int_equal(run(&j, NULL), NOVAQ_E_INTERRUPTED);
    j.stop_at = 0;
    for (unsigned i = 0; i < 2; i++) {
        j.o.teacher_cache = i == 0 ? NULL : j.cache;
        j.o.teacher_top = i == 0 ? 0 : 5;
        assert_int_equal(run(&j, NULL), NOVAQ_E_ARG);
        assert_non_null(strstr(j.err.msg, "of another refinement"));
        j.o = good;
    }
    json_t *report = refine(&j);
    assert_true(number(report, "resumed_at") > 0);
    json_decref(report);
    close_job(&j);
}

/* All predictions kept: nearly the same run; a teacher beside its student takes more. */
static void test_all_kept(void **state) {
    (void)state;
    job j = open_job();
    json_t *reports[2];
    double memory[2];
    for (unsigned i = 0; i < 2; i++) {
        j.o.teacher_cache = i == 0 ? NULL : j.cache;
        j.o.teacher_top = i == 0 ? 0 : UINT32_MAX;
        reports[i] = refine(&j);
        memory[i] = j.memory;
    }
    double before = held_out(reports[0], "before");
    double after = held_out(reports[0], "after");
    assert_near(held_out(reports[1], "before"), before, 1e-3 * before, "before");
    assert_near(held_out(reports[1], "after"), after, 0.03 * after, "after");
    assert_true(after < 0.9 * before);
    assert_true(memory[1] < 0.9 * memory[0]);
    assert_null(json_object_get(reports[0], "teacher_cache"));
    json_decref(reports[0]);
    json_decref(reports[1]);
    close_job(&j);
}

static void refused(job *j, const char *says) {
    assert_int_equal(run(j, NULL), NOVAQ_E_ARG);
    if (strstr(j->err.msg, says) == NULL) {
        fail_msg("'%s' does not say '%s'", j->err.msg, says);
    }
    assert_false(nq_is_file(j->output));
}

static void test_refusals(void **state) {
    (void)state;
    job j = open_job();
    const novaq_refine_options good = j.o;
    j.o.lambda = 0.1;
    refused(&j, "lambda");
    j.o = good;
    j.o.teacher_cache = NULL;
    j.o.teacher_top = 8;
    refused(&j, "name the file");
    j.o = good;
    j.o.teacher_cache = j.output;
    refused(&j, "both output");
    size_t len = 0;
    char *text = bytes_of(j.text, &len);
    j.o.teacher_cache = j.text;
    refused(&j, "not overwritten");
    assert_same_file(j.text, text, len);
    nq_free(text);
    close_job(&j);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_used_again), cmocka_unit_test(test_made_anew),
        cmocka_unit_test(test_stopped),    cmocka_unit_test(test_checkpoint_of),
        cmocka_unit_test(test_all_kept),   cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
