/* test_resume_run.c - novaq_compress() interrupted and called again: with and without
 * calibration, in both forms, stopped wherever it asks; sources that changed in between;
 * what names a source; telemetry; too little space. */
#include "journal_util.h"
#include "model_util.h"

#include <math.h>

#include "artifact/artifact.h"
#include "base/blake3.h"
#include "compress/job.h"
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

/* ---- journals that tell of other tensors ---------------------------------------------------- */

static json_t *about(json_t *record) { return json_object_get(record, "about"); }

static void more_dimensions(json_t *record) {
    json_array_insert_new(json_object_get(about(record), "shape"), 0, json_integer(1));
}

static void turned(json_t *record) {
    json_t *shape = json_object_get(about(record), "shape");
    if (json_array_size(shape) == 2) {
        json_array_append(shape, json_array_get(shape, 0));
        json_array_remove(shape, 0);
    }
}

static void another_role(json_t *record) {
    const char *role = json_string_value(json_object_get(about(record), "role"));
    json_object_set_new(about(record), "role",
                        json_string(strcmp(role, "other") == 0 ? "linear" : "other"));
}

static void another_dtype(json_t *record) {
    json_object_set_new(about(record), "source_dtype", json_string("F64"));
}

/* Taken over, they would be in the artifact: the tensors are made again instead. */
static void other_tensors(void **state) {
    (void)state;
    static void (*const EDITS[])(json_t *) = {more_dimensions, turned, another_role, another_dtype};
    for (size_t i = 0; i < 4; i++) {
        char want[NQ_BLAKE3_HEX + 1];
        char got[NQ_BLAKE3_HEX + 1];
        char *journal = NULL;
        job j;
        open_job(&j, TINY("a.gguf"), 0);
        json_decref(finish(&j));
        unsigned all = j.lines;
        digest(want, &j);
        remove_output(&j);
        j.stop = j.calls - 3;
        j.calls = 0;
        assert_int_equal(novaq_compress(NULL, &j.o, &j.err), NOVAQ_E_INTERRUPTED);
        assert_int_equal(nq_path_join(&journal, j.output, "journal", NULL), NOVAQ_OK);
        edit_journal(journal, "layer", EDITS[i]);
        json_decref(finish(&j));
        assert_int_equal(j.lines, all);
        assert_true(j.resumed < all / 2);
        digest(got, &j);
        assert_string_equal(got, want);
        nq_free(journal);
        close_job(&j);
    }
}

/* What is kept because of NaN is counted as such when it is taken over, too. */
static void not_numbers(void **state) {
    (void)state;
    static const char header[] =
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[64,64],\"data_offsets\":[0,16384]},"
        "\"b\":{\"dtype\":\"F32\",\"shape\":[64,64],\"data_offsets\":[16384,32768]},"
        "\"c\":{\"dtype\":\"F32\",\"shape\":[64,64],\"data_offsets\":[32768,49152]}}";
    static float values[3 * 64 * 64];
    uint8_t size[8] = {(uint8_t)(sizeof header - 1)};
    char *model = NULL;
    nq_buf b = nq_buf_init(1 << 20);
    job j;
    open_job(&j, NULL, 0);
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        values[i] = (float)((i * 37) % 101) / 101.0F - 0.5F;
    }
    values[70] = NAN;
    assert_true(sizeof header - 1 < 256);
    assert_int_equal(nq_buf_append(&b, size, sizeof size, NULL), NOVAQ_OK);
    assert_int_equal(nq_buf_append(&b, header, sizeof header - 1, NULL), NOVAQ_OK);
    assert_int_equal(nq_buf_append(&b, values, sizeof values, NULL), NOVAQ_OK);
    assert_int_equal(nq_path_join(&model, j.dir, "model.safetensors", NULL), NOVAQ_OK);
    assert_int_equal(nq_write_file(model, b.data, b.len, NULL), NOVAQ_OK);
    nq_buf_free(&b);
    j.o.input = model;
    json_t *want = finish(&j);
    assert_int_equal(warnings_with(want, "NaN"), 1);
    remove_output(&j);
    j.stop = j.calls - 2;
    j.calls = 0;
    assert_int_equal(novaq_compress(NULL, &j.o, &j.err), NOVAQ_E_INTERRUPTED);
    json_t *got = finish(&j);
    assert_true(j.resumed > 0);
    assert_int_equal(warnings_with(got, "NaN"), 1);
    assert_near(number(got, "bits_per_weight_quantized"), number(want, "bits_per_weight_quantized"),
                0, "bits");
    assert_int_equal(number(got, "quantized_parameters"), 2 * 64 * 64);
    json_decref(want);
    json_decref(got);
    nq_free(model);
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

static char *origin_of(const char *output) {
    nq_artifact *a = NULL;
    char *from = NULL;
    assert_int_equal(nq_artifact_open(&a, output, NULL), NOVAQ_OK);
    assert_int_equal(nq_artifact_origin(&from, a, NULL), NOVAQ_OK);
    nq_artifact_close(&a);
    return from;
}

/* The file beside an artifact tells of this one, of another, of any, or is not ours. */
static void told_beside(void **state) {
    (void)state;
    static const char *const FOREIGN[] = {"notes", "[]", "{\"locator\": 7}", ""};
    for (int single = 0; single < 2; single++) {
        job j;
        char *beside = NULL;
        char *from = NULL;
        open_job(&j, TINY("a.gguf"), single);
        assert_int_equal(nq_asprintf(&beside, NULL, "%s.origin.json", j.output), NOVAQ_OK);
        json_decref(finish(&j));
        json_t *told = load_json(beside);
        nq_artifact *a = NULL;
        assert_int_equal(nq_artifact_open(&a, j.output, NULL), NOVAQ_OK);
        const json_t *source = json_object_get(nq_artifact_manifest(a), "source");
        assert_true(json_equal(json_object_get(told, "source"), json_object_get(source, "blake3")));
        nq_artifact_close(&a);
        json_object_set_new(told, "source", json_string("0123"));
        assert_int_equal(json_dump_file(told, beside, 0), 0);
        assert_null(origin_of(j.output));
        json_object_del(told, "source");
        assert_int_equal(json_dump_file(told, beside, 0), 0);
        from = origin_of(j.output);
        assert_string_equal(from, j.o.input);
        nq_free(from);
        json_decref(told);
        remove_output(&j);
        for (size_t i = 0; i < 4; i++) {
            char *text = NULL;
            size_t len = 0;
            assert_int_equal(nq_write_file(beside, FOREIGN[i], strlen(FOREIGN[i]), NULL), NOVAQ_OK);
            assert_int_equal(novaq_compress(NULL, &j.o, &j.err), NOVAQ_E_ARG);
            assert_non_null(strstr(j.err.msg, ".origin.json: is not novaq's"));
            assert_false(nq_is_dir(j.output) || nq_is_file(j.output));
            assert_int_equal(nq_read_file(&text, &len, beside, 100, NULL), NOVAQ_OK);
            assert_string_equal(text, FOREIGN[i]);
            nq_free(text);
        }
        nq_free(beside);
        close_job(&j);
    }
}

/* ---- failures ----------------------------------------------------------------------------------
 */

/* A source that changed under the run is compared by the next; one whose content is not
 * what was promised leaves nothing. */
static void changed_meanwhile(void **state) {
    (void)state;
    static const nq_writer_key key = {"recipe", "tensors", "origin"};
    static const uint8_t data[64];
    const nq_layer layer = {.name = "a",
                            .rank = 1,
                            .shape = {64},
                            .elements = 64,
                            .role = NQ_ROLE_OTHER,
                            .source_dtype = NQ_U8,
                            .scheme = {.kind = NQ_SCHEME_RAW, .d = 1},
                            .data = data,
                            .data_bytes = 64};
    for (int refuted = 0; refuted < 2; refuted++) {
        nq_compress_job c = {.refuted = refuted != 0};
        nq_resumption how;
        job j;
        open_job(&j, NULL, 0);
        assert_int_equal(
            nq_writer_open_resumable(&c.writer, &how, j.output, 0, &key, false, &j.err), NOVAQ_OK);
        assert_int_equal(nq_writer_add(c.writer, &layer, &j.err), NOVAQ_OK);
        (void)nq_fail(&j.err, NOVAQ_E_VERIFY, "changed");
        assert_int_equal(nq_job_give_up(&c, NOVAQ_E_VERIFY, &j.err), NOVAQ_E_VERIFY);
        assert_null(c.writer);
        assert_int_equal(strstr(j.err.msg, "the same command continues") != NULL, !refuted);
        assert_int_equal(nq_is_dir(j.output), !refuted);
        close_job(&j);
    }
}

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
        cmocka_unit_test(stopped_anywhere),  cmocka_unit_test(other_options),
        cmocka_unit_test(changed_source),    cmocka_unit_test(named_by_content),
        cmocka_unit_test(too_little_space),  cmocka_unit_test(other_tensors),
        cmocka_unit_test(not_numbers),       cmocka_unit_test(told_beside),
        cmocka_unit_test(changed_meanwhile),
    };
    return cmocka_run_group_tests(tests, fixed_time, NULL);
}
