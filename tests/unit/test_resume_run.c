/* test_resume_run.c - novaq_compress() interrupted and called again: with and without
 * calibration, in both forms, stopped wherever it asks; sources that changed in between;
 * what names a source; telemetry; too little space. */
#include "model_util.h"

#include "artifact/artifact.h"
#include "base/blake3.h"
#include "novaq.h"

typedef struct job {
    char *dir, *text, *output;
    novaq_compress_options o;
    novaq_error err;
    unsigned calls, stop; /* progress: asked so often, stops then */
    unsigned lines, resumed;
} job;

static int stop_later(void *ctx, const novaq_progress *p) {
    job *j = ctx;
    assert_non_null(p->item);
    return ++j->calls > j->stop;
}

static void count_line(void *ctx, const char *line) {
    job *j = ctx;
    json_t *o = NULL;
    assert_int_equal(nq_json_parse_object(&o, "line", line, strlen(line), NULL), NOVAQ_OK);
    assert_non_null(json_object_get(o, "name"));
    assert_non_null(json_object_get(o, "scheme"));
    assert_true(json_is_number(json_object_get(o, "relative_error")));
    assert_true(json_integer_value(json_object_get(o, "bytes")) > 0);
    j->lines++;
    j->resumed += json_is_true(json_object_get(o, "resumed"));
    json_decref(o);
}

static void open_job(job *j, const char *model, int single) {
    *j = (job){.dir = scratch_dir(), .o = NOVAQ_COMPRESS_OPTIONS_INIT, .stop = UINT32_MAX};
    j->text = text_file(j->dir, 120);
    assert_int_equal(nq_path_join(&j->output, j->dir, single ? "out.bin" : "out", NULL), NOVAQ_OK);
    j->o.input = model;
    j->o.output = j->output;
    j->o.single_file = single;
    j->o.scheme = "k16d2l2";
    j->o.calibration = "none";
    j->o.calibration_tokens = 512;
    j->o.threads = 1;
    j->o.max_iterations = 10;
    j->o.progress = stop_later;
    j->o.progress_ctx = j;
    j->o.tensor = count_line;
    j->o.tensor_ctx = j;
}

static void close_job(job *j) {
    remove_dir(j->dir);
    nq_free(j->dir);
    nq_free(j->text);
    nq_free(j->output);
}

/* The content of the artifact; what lies beside it is left out. */
static void digest(char hex[NQ_BLAKE3_HEX + 1], const job *j) {
    nq_blake3 h;
    nq_blake3_init(&h);
    char **names = NULL;
    size_t count = 0;
    const char *dir = j->o.single_file ? j->dir : j->output;
    assert_int_equal(nq_list_dir(&names, &count, dir, NULL), NOVAQ_OK);
    for (size_t i = 0; i < count; i++) {
        char *path = NULL;
        char *data = NULL;
        size_t len = 0;
        bool part = !j->o.single_file || strcmp(names[i], "out.bin") == 0;
        if (part) {
            assert_int_equal(nq_path_join(&path, dir, names[i], NULL), NOVAQ_OK);
            assert_int_equal(nq_read_file(&data, &len, path, (size_t)1 << 26, NULL), NOVAQ_OK);
            nq_blake3_update(&h, names[i], strlen(names[i]) + 1);
            nq_blake3_update(&h, data, len);
            nq_free(data);
            nq_free(path);
        }
    }
    nq_free_names(names, count);
    nq_blake3_finish(hex, &h);
}

static json_t *finish(job *j) {
    char *report = NULL;
    json_t *o = NULL;
    j->stop = UINT32_MAX;
    j->lines = 0;
    j->resumed = 0;
    if (novaq_compress(&report, &j->o, &j->err) != NOVAQ_OK) {
        fail_msg("%s", j->err.msg);
    }
    assert_int_equal(nq_json_parse(&o, "report", report, strlen(report), NULL), NOVAQ_OK);
    novaq_free(report);
    return o;
}

static void remove_output(const job *j) {
    if (j->o.single_file) {
        (void)unlink(j->output);
    } else {
        remove_dir(j->output);
    }
}

static size_t warnings_with(const json_t *report, const char *text) {
    size_t i;
    size_t count = 0;
    json_t *line;
    json_array_foreach(json_object_get(report, "warnings"), i, line) {
        count += strstr(json_string_value(line), text) != NULL;
    }
    return count;
}

/* ---- stopped anywhere ----------------------------------------------------------------------- */

typedef struct variant {
    const char *model, *calibration, *scheme; /* "text": the job's text */
    int single;
    unsigned step; /* between two stops */
} variant;

static const variant VARIANTS[] = {
    {TINY("a.gguf"), "none", "k16d2l2", 0, 5}, {TINY("b-hf"), "none", NULL, 1, 7},
    {TINY("a-hf"), "text", "k16d2l2", 1, 23},  {TINY("b.gguf"), "text", NULL, 0, 29},
    {TINY("b.gguf"), "self", "k8d2l3", 1, 29},
};

/* Stopped a little later each time until it comes to the end; and from scratch. */
static void stopped_anywhere(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof VARIANTS / sizeof VARIANTS[0]; i++) {
        const variant *v = &VARIANTS[i];
        char want[NQ_BLAKE3_HEX + 1];
        char got[NQ_BLAKE3_HEX + 1];
        unsigned kept = 0;
        job j;
        open_job(&j, v->model, v->single);
        j.o.scheme = v->scheme;
        j.o.target_bits = 3;
        j.o.calibration = strcmp(v->calibration, "text") == 0 ? j.text : v->calibration;
        json_decref(finish(&j));
        unsigned all = j.lines;
        digest(want, &j);
        remove_output(&j);
        for (unsigned stop = v->step;; stop += v->step) {
            j.calls = 0;
            j.stop = stop;
            novaq_status st = novaq_compress(NULL, &j.o, &j.err);
            if (st == NOVAQ_OK) {
                break;
            }
            assert_int_equal(st, NOVAQ_E_INTERRUPTED);
            assert_int_not_equal(novaq_verify(NULL, j.output, 1, NULL, NULL, NULL), NOVAQ_OK);
            kept += strstr(j.err.msg, "the same command continues") != NULL;
            if (kept == 2) { /* another thread count takes over */
                j.o.threads = 2;
            }
        }
        digest(got, &j);
        assert_string_equal(got, want);
        if (kept == 0) {
            fail_msg("variant %zu: never left anything: %s", i, j.err.msg);
        }
        remove_output(&j);
        /* Stopped once, late: what was finished is not done again. */
        j.calls = 0;
        j.stop = UINT32_MAX;
        assert_int_equal(novaq_compress(NULL, &j.o, &j.err), NOVAQ_OK);
        remove_output(&j);
        j.stop = j.calls - 3;
        j.calls = 0;
        assert_int_equal(novaq_compress(NULL, &j.o, &j.err), NOVAQ_E_INTERRUPTED);
        json_t *report = finish(&j);
        digest(got, &j);
        assert_string_equal(got, want);
        assert_int_equal(j.lines, all);
        assert_true(j.resumed > 0);
        assert_int_equal(number(json_object_get(report, "resumed"), "tensors"), j.resumed);
        json_decref(report);
        close_job(&j);
    }
}

/* A fresh start, on request or because the options are others. */
static void other_options(void **state) {
    (void)state;
    job j;
    open_job(&j, TINY("a.gguf"), 0);
    for (int i = 0; i < 2; i++) {
        j.calls = 0;
        j.stop = 12;
        assert_int_equal(novaq_compress(NULL, &j.o, &j.err), NOVAQ_E_INTERRUPTED);
        j.o.restart = i == 0;
        j.o.scheme = i == 0 ? j.o.scheme : "k16d1l1";
        json_t *report = finish(&j);
        assert_int_equal(j.resumed, 0);
        assert_null(json_object_get(report, "resumed"));
        assert_int_equal(warnings_with(report, "started afresh"), i == 0 ? 0 : 1);
        json_decref(report);
        remove_output(&j);
        j.o.restart = 0;
    }
    close_job(&j);
}

/* ---- the source ---------------------------------------------------------------------------- */

static char *copy_of(const char *model, const char *dir) {
    char *path = NULL;
    char *data = NULL;
    size_t len = 0;
    assert_int_equal(nq_path_join(&path, dir, "model.gguf", NULL), NOVAQ_OK);
    assert_int_equal(nq_read_file(&data, &len, model, (size_t)1 << 26, NULL), NOVAQ_OK);
    assert_int_equal(nq_write_file(path, data, len, NULL), NOVAQ_OK);
    nq_free(data);
    return path;
}

/* Another byte `back` bytes from the end; 0: a new time only. */
static void touch(const char *path, size_t back) {
    char *data = NULL;
    size_t len = 0;
    assert_int_equal(nq_read_file(&data, &len, path, (size_t)1 << 26, NULL), NOVAQ_OK);
    if (back > 0) {
        data[len - back] = (char)(data[len - back] ^ 0x10);
    }
    assert_int_equal(nq_write_file(path, data, len, NULL), NOVAQ_OK);
    nq_free(data);
}

/* The source is touched, or changed near its end or beginning, after an interruption:
 * the artifact is that of the source as it is now. */
static void changed_source(void **state) {
    (void)state;
    static const size_t BACK[] = {0, 2, 100000};
    for (int calibrated = 0; calibrated < 2; calibrated++) {
        for (size_t i = 0; i < 3; i++) {
            char want[NQ_BLAKE3_HEX + 1];
            char got[NQ_BLAKE3_HEX + 1];
            job j;
            open_job(&j, NULL, (int)(i % 2));
            char *model = copy_of(TINY("a.gguf"), j.dir);
            j.o.input = model;
            j.o.calibration = calibrated ? j.text : "none";
            j.stop = UINT32_MAX;
            json_decref(finish(&j)); /* how often it asks */
            remove_output(&j);
            j.stop = j.calls - 2;
            j.calls = 0;
            assert_int_equal(novaq_compress(NULL, &j.o, &j.err), NOVAQ_E_INTERRUPTED);
            touch(model, BACK[i]);
            json_t *report = finish(&j);
            digest(got, &j);
            assert_int_equal(warnings_with(report, "the source may have changed"), 1);
            assert_true(calibrated ? j.resumed == 0 : i == 2 || j.resumed > 0);
            json_decref(report);
            remove_output(&j);
            json_decref(finish(&j));
            digest(want, &j);
            assert_string_equal(got, want);
            nq_free(model);
            close_job(&j);
        }
    }
}

/* Where the bytes lie does not show in the artifact, what they are does. */
static void named_by_content(void **state) {
    (void)state;
    char hex[3][NQ_BLAKE3_HEX + 1];
    for (int i = 0; i < 3; i++) {
        job j;
        nq_artifact *a = NULL;
        char *from = NULL;
        open_job(&j, TINY("a.gguf"), 0);
        char *model = i > 0 ? copy_of(TINY("a.gguf"), j.dir) : NULL;
        if (i == 2) {
            touch(model, 2);
        }
        j.o.input = model != NULL ? model : j.o.input;
        json_decref(finish(&j));
        digest(hex[i], &j);
        assert_int_equal(nq_artifact_open(&a, j.output, NULL), NOVAQ_OK);
        const json_t *source = json_object_get(nq_artifact_manifest(a), "source");
        const char *locator =
            json_string_value(json_object_get(nq_artifact_manifest(a), "source_locator"));
        assert_string_equal(json_string_value(json_object_get(source, "format")), "gguf");
        assert_int_equal(strncmp(locator, "tensors:blake3:", 15), 0);
        assert_string_equal(locator + 15, json_string_value(json_object_get(source, "blake3")));
        assert_int_equal(number(source, "tensors"), nq_artifact_count(a));
        assert_int_equal(nq_artifact_origin(&from, a, NULL), NOVAQ_OK);
        assert_string_equal(from, j.o.input);
        nq_free(from);
        nq_artifact_close(&a);
        nq_free(model);
        close_job(&j);
    }
    assert_string_equal(hex[0], hex[1]);
    assert_string_not_equal(hex[0], hex[2]);
}

/* ---- failures ----------------------------------------------------------------------------------
 */

/* A tensor larger than any disk, of which only the header is there. */
static void too_little_space(void **state) {
    (void)state;
    static const char header[] = "{\"a.weight\":{\"dtype\":\"F32\",\"shape\":[4194304,262144],"
                                 "\"data_offsets\":[0,4398046511104]}}";
    job j;
    char *model = NULL;
    open_job(&j, NULL, 1);
    assert_int_equal(nq_path_join(&model, j.dir, "huge.safetensors", NULL), NOVAQ_OK);
    FILE *f = fopen(model, "wb");
    assert_non_null(f);
    uint8_t size[8] = {sizeof header - 1};
    assert_int_equal(fwrite(size, 1, 8, f), 8);
    assert_int_equal(fwrite(header, 1, sizeof header - 1, f), sizeof header - 1);
    assert_int_equal(fclose(f), 0);
    if (truncate(model, 4398046511104 + 8 + (off_t)sizeof header - 1) != 0) {
        unlink(model); /* a file system without files of that size */
    } else {
        j.o.input = model;
        j.o.scheme = "f32";
        assert_int_equal(novaq_compress(NULL, &j.o, &j.err), NOVAQ_E_NOSPACE);
        assert_non_null(strstr(j.err.msg, "make room"));
        assert_int_equal(j.lines, 0);
        char **names = NULL;
        size_t count = 0;
        assert_int_equal(nq_list_dir(&names, &count, j.dir, NULL), NOVAQ_OK);
        assert_int_equal(count, 2); /* the model and the text */
        nq_free_names(names, count);
    }
    nq_free(model);
    close_job(&j);
}

static int fixed_time(void **state) {
    (void)state;
    return setenv("SOURCE_DATE_EPOCH", "1700000000", 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stopped_anywhere), cmocka_unit_test(other_options),
        cmocka_unit_test(changed_source),   cmocka_unit_test(named_by_content),
        cmocka_unit_test(too_little_space),
    };
    return cmocka_run_group_tests(tests, fixed_time, NULL);
}
