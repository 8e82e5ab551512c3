/* refine_util.h - what the tests of refinement share: an artifact of a tiny model, options
 * that refine it in a second, stopping it anywhere. */
#ifndef NQ_TESTS_REFINE_UTIL_H
#define NQ_TESTS_REFINE_UTIL_H

#include "model_util.h"

#include <sys/stat.h>

#include "novaq.h"

typedef struct job {
    char *dir, *text, *made, *output;
    novaq_refine_options o;
    novaq_error err;
    unsigned lines; /* of step() but notes */
    unsigned notes;
    unsigned stop_at; /* calls of progress before it says stop; 0: never */
    unsigned calls;
    double first_kl, last_kl; /* measured */
    unsigned tokens;          /* of the text */
    bool spoil;               /* puts a folder where the output goes, after the first step */
} job;

UNUSED static int on_progress(void *ctx, const novaq_progress *p) {
    job *j = ctx;
    if (strcmp(p->phase, "refine") != 0) {
        return 0;
    }
    j->calls++;
    if (j->spoil && p->done == 1) {
        (void)mkdir(j->output, 0700);
    }
    return j->stop_at != 0 && j->calls >= j->stop_at;
}

UNUSED static void on_step(void *ctx, const char *line) {
    job *j = ctx;
    json_t *o = NULL;
    assert_int_equal(nq_json_parse_object(&o, "line", line, strlen(line), NULL), NOVAQ_OK);
    if (j->lines == 0) {
        assert_string_equal(json_string_value(json_object_get(o, "event")), "begin");
        assert_true(number(o, "memory_bytes") > 0);
        j->tokens = (unsigned)number(o, "tokens");
    } else if (strcmp(json_string_value(json_object_get(o, "event")), "note") == 0) {
        j->notes++;
        json_decref(o);
        return;
    } else if (json_object_get(o, "held_out_kl") != NULL) {
        j->last_kl = number(o, "held_out_kl");
        j->first_kl = j->first_kl > 0 ? j->first_kl : j->last_kl;
    }
    j->lines++;
    json_decref(o);
}

/* An artifact of a model, and options that refine it in a second. */
UNUSED static job open_job_of(const char *source, const char *scheme) {
    job j = {.dir = scratch_dir(), .o = NOVAQ_REFINE_OPTIONS_INIT};
    novaq_compress_options c = NOVAQ_COMPRESS_OPTIONS_INIT;
    j.text = text_file(j.dir, 120);
    assert_int_equal(nq_path_join(&j.made, j.dir, "made.bin", NULL), NOVAQ_OK);
    assert_int_equal(nq_path_join(&j.output, j.dir, "out.bin", NULL), NOVAQ_OK);
    c.input = source;
    c.output = j.made;
    c.single_file = 1;
    c.scheme = scheme;
    c.calibration = j.text;
    c.threads = 1;
    c.segment_rows = 48;
    c.max_iterations = 5;
    if (novaq_compress(NULL, &c, &j.err) != NOVAQ_OK) {
        fail_msg("%s", j.err.msg);
    }
    j.o.artifact = j.made;
    j.o.teacher = source;
    j.o.output = j.output;
    j.o.single_file = 1;
    j.o.steps = 24;
    j.o.calibration = j.text;
    j.o.sequence = 32;
    j.o.batch = 4;
    j.o.rate = 0.01;
    j.o.codebook_columns = 16;
    j.o.threads = 1;
    return j;
}

UNUSED static job open_job(const char *scheme) { return open_job_of(TINY("a.gguf"), scheme); }

UNUSED static void close_job(job *j) {
    remove_dir(j->dir);
    nq_free(j->dir);
    nq_free(j->text);
    nq_free(j->made);
    nq_free(j->output);
}

UNUSED static novaq_status run(job *j, json_t **report) {
    char *text = NULL;
    j->lines = j->calls = j->notes = 0;
    j->first_kl = j->last_kl = 0;
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

UNUSED static json_t *refine(job *j) {
    json_t *report = NULL;
    if (run(j, &report) != NOVAQ_OK) {
        fail_msg("%s", j->err.msg);
    }
    return report;
}

UNUSED static char *bytes_of(const char *path, size_t *len) {
    char *data = NULL;
    assert_int_equal(nq_read_file(&data, len, path, (size_t)1 << 24, NULL), NOVAQ_OK);
    return data;
}

UNUSED static void assert_same_file(const char *path, const char *data, size_t len) {
    size_t n = 0;
    char *other = bytes_of(path, &n);
    assert_int_equal(n, len);
    assert_memory_equal(other, data, len);
    nq_free(other);
}

/* The report's warning that says so, or NULL. */
UNUSED static const char *warning(const json_t *report, const char *says) {
    const json_t *list = json_object_get(report, "warnings");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *text = json_string_value(json_array_get(list, i));
        if (text != NULL && strstr(text, says) != NULL) {
            return text;
        }
    }
    return NULL;
}

#endif
