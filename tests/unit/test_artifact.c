/* test_artifact.c - writing artifacts and reading them back: both forms, figures
 * against the disk, determinism, atomic appearance, refusals of the writer.
 * With arguments "DIR FILE" it only writes the sample model in both forms, for
 * tests/python/test_artifact.py. */
#include "sample_artifact.h"

#include <math.h>
#include <signal.h>
#include <sys/wait.h>

static nq_artifact *open_ok(const char *path) {
    novaq_error err = {0};
    nq_artifact *a = NULL;
    must(nq_artifact_open(&a, path, &err), &err);
    return a;
}

static double summary_number(const nq_artifact *a, const char *key) {
    const json_t *q = json_object_get(nq_artifact_manifest(a), "quantization");
    const json_t *v = json_object_get(json_object_get(q, "summary"), key);
    assert_true(json_is_number(v));
    return json_number_value(v);
}

/* ---- round trip ------------------------------------------------------------- */

static void same_decode(const nq_qmat *a, const nq_qmat *b) {
    uint64_t n = a->rows * a->cols;
    float *x = take(n, sizeof *x);
    float *y = take(n, sizeof *y);
    void *scratch_a = take(nq_qmat_scratch(a), 1);
    nq_qmat_decode_plain(x, a, 0, a->rows, scratch_a);
    nq_qmat_decode_plain(y, b, 0, b->rows, scratch_a);
    assert_memory_equal(x, y, n * sizeof *x);
    nq_free(x);
    nq_free(y);
    nq_free(scratch_a);
}

static void same_layer(const nq_layer *want, const nq_layer *got) {
    char a[NQ_SCHEME_NAME];
    char b[NQ_SCHEME_NAME];
    assert_string_equal(got->name, want->name);
    assert_int_equal(got->rank, want->rank);
    assert_memory_equal(got->shape, want->shape, sizeof want->shape);
    assert_int_equal(got->elements, want->elements);
    assert_int_equal(got->role, want->role);
    assert_int_equal(got->source_dtype, want->source_dtype);
    assert_string_equal(nq_scheme_name(a, &got->scheme), nq_scheme_name(b, &want->scheme));
    assert_memory_equal(&got->error, &want->error, sizeof want->error);
    assert_true(want->diagnostics == NULL ? got->diagnostics == NULL
                                          : json_equal(got->diagnostics, want->diagnostics));
    if (want->scheme.kind == NQ_SCHEME_CODE || want->scheme.kind == NQ_SCHEME_Q8) {
        assert_int_equal(got->q.rotation.block, want->q.rotation.block);
        assert_true(got->q.rotation.seed == want->q.rotation.seed);
        assert_int_equal(got->q.exponent, want->q.exponent);
        assert_int_equal((uintptr_t)got->q.symbols % 64, 0);
        assert_int_equal((uintptr_t)got->q.row_scale % 64, 0);
        assert_true((got->q.row_mean == NULL) == (want->q.row_mean == NULL));
        assert_true((got->q.col_exponent == NULL) == (want->q.col_exponent == NULL));
        if (want->q.col_exponent != NULL) {
            assert_int_equal((uintptr_t)got->q.col_exponent % 64, 0);
            assert_memory_equal(got->q.col_exponent, want->q.col_exponent, want->q.cols);
        }
        same_decode(&want->q, &got->q);
    } else {
        assert_int_equal(got->data_bytes, want->data_bytes);
        assert_memory_equal(got->data, want->data, (size_t)want->data_bytes);
    }
}

static void check_figures(const nq_artifact *a, const char *path) {
    double bytes = (double)disk_bytes(path);
    double parameters = 0;
    for (size_t i = 0; i < nq_artifact_count(a); i++) {
        parameters += (double)nq_artifact_at(a, i)->elements;
    }
    double bits = 8.0 * bytes / parameters;
    assert_true(summary_number(a, "total_bytes") == bytes);
    assert_true((double)nq_artifact_bytes(a) == bytes);
    assert_true(summary_number(a, "total_parameters") == parameters);
    assert_true(fabs(summary_number(a, "bits_per_weight") / bits - 1) < 1e-8);
    assert_true(fabs(summary_number(a, "compression_ratio") * bits / 32 - 1) < 1e-8);
    assert_true(fabs(summary_number(a, "ratio_fp16") * bits / 16 - 1) < 1e-8);
    /* 4 code layers of error 0.25, 5 of 2.0 exact, ...: recomputed from layers. */
    double error = 0;
    for (size_t i = 0; i < nq_artifact_count(a); i++) {
        error += nq_artifact_at(a, i)->error.sq_error;
    }
    assert_true(fabs(summary_number(a, "global_mse") - error / parameters) < 1e-9);
}

static void round_trip(int single, const char *name) {
    sample s = sample_make();
    const char *path = in_scratch(name);
    write_layers(path, single, s.layer, SAMPLE_LAYERS, s.config, s.model);
    assert_true(nq_artifact_probe(path));
    nq_artifact *a = open_ok(path);
    assert_int_equal(nq_artifact_count(a), SAMPLE_LAYERS);
    for (size_t i = 0; i < SAMPLE_LAYERS; i++) {
        same_layer(&s.layer[i], nq_artifact_at(a, i));
        assert_ptr_equal(nq_artifact_find(a, s.layer[i].name), nq_artifact_at(a, i));
    }
    assert_null(nq_artifact_find(a, "blk.0"));
    check_figures(a, path);
    novaq_error err = {0};
    json_t *model = NULL;
    must(nq_artifact_model(&model, a, &err), &err);
    assert_true(json_equal(model, s.model));
    json_decref(model);
    nq_artifact_close(&a);
    assert_null(a);
    sample_free(&s);
}

static void directory_round_trip(void **state) {
    (void)state;
    round_trip(0, "dir");
    assert_int_equal(entries(in_scratch("dir")), 2); /* manifest.json and one chunk */
    remove_tree(in_scratch("dir"));
}

static void single_file_round_trip(void **state) {
    (void)state;
    round_trip(1, "one.bin");
    assert_int_equal(entries(scratch), 1);
    remove_tree(in_scratch("one.bin"));
}

static void reports_say_what_was_checked(void **state) {
    (void)state;
    novaq_error err = {0};
    sample_write(in_scratch("dir"), 0);
    char *text = NULL;
    must(novaq_validate(&text, in_scratch("dir"), &err), &err);
    assert_non_null(strstr(text, "\"verified\": false"));
    novaq_free(text);
    must(novaq_verify(&text, in_scratch("dir"), 2, NULL, NULL, &err), &err);
    assert_non_null(strstr(text, "\"verified\": true"));
    assert_non_null(strstr(text, "\"quantized_layers\": 5"));
    novaq_free(text);
    remove_tree(in_scratch("dir"));
}

static int stop_at_once(void *ctx, const novaq_progress *p) {
    ++*(int *)ctx;
    return p->total > 0;
}

static void verify_can_be_interrupted(void **state) {
    (void)state;
    novaq_error err = {0};
    int calls = 0;
    sample_write(in_scratch("dir"), 0);
    assert_int_equal(novaq_verify(NULL, in_scratch("dir"), 2, stop_at_once, &calls, &err),
                     NOVAQ_E_INTERRUPTED);
    assert_int_equal(calls, 1);
    remove_tree(in_scratch("dir"));
}

/* ---- determinism -------------------------------------------------------------- */

static void same_file(const char *a, const char *b) {
    char *x = NULL;
    char *y = NULL;
    size_t nx = 0;
    size_t ny = 0;
    assert_int_equal(nq_read_file(&x, &nx, a, 1 << 24, NULL), NOVAQ_OK);
    assert_int_equal(nq_read_file(&y, &ny, b, 1 << 24, NULL), NOVAQ_OK);
    assert_int_equal(nx, ny);
    assert_memory_equal(x, y, nx);
    nq_free(x);
    nq_free(y);
}

static void same_input_same_bytes(void **state) {
    (void)state;
    sample_write(in_scratch("a.bin"), 1);
    sample_write(in_scratch("b.bin"), 1);
    same_file(in_scratch("a.bin"), in_scratch("b.bin"));
    sample_write(in_scratch("a"), 0);
    sample_write(in_scratch("b"), 0);
    same_file(in_scratch("a/manifest.json"), in_scratch("b/manifest.json"));
    /* The chunks, and so their hashes, do not depend on the form. */
    nq_artifact *one = open_ok(in_scratch("a.bin"));
    nq_artifact *dir = open_ok(in_scratch("a"));
    const json_t *x = json_object_get(nq_artifact_manifest(one), "chunks");
    const json_t *y = json_object_get(nq_artifact_manifest(dir), "chunks");
    assert_int_equal(json_array_size(x), json_array_size(y));
    for (size_t i = 0; i < json_array_size(x); i++) {
        static const char *const keys[] = {"bytes", "sha256", "blake3"};
        for (int k = 0; k < 3; k++) {
            assert_true(json_equal(json_object_get(json_array_get(x, i), keys[k]),
                                   json_object_get(json_array_get(y, i), keys[k])));
        }
    }
    nq_artifact_close(&one);
    nq_artifact_close(&dir);
    remove_tree(in_scratch("a"));
    remove_tree(in_scratch("b"));
    remove_tree(in_scratch("a.bin"));
    remove_tree(in_scratch("b.bin"));
}

static void created_at_follows_the_environment(void **state) {
    (void)state;
    assert_int_equal(setenv("SOURCE_DATE_EPOCH", "1700000000", 1), 0);
    sample_write(in_scratch("dir"), 0);
    nq_artifact *a = open_ok(in_scratch("dir"));
    assert_string_equal(json_string_value(json_object_get(nq_artifact_manifest(a), "created_at")),
                        "2023-11-14T22:13:20Z");
    nq_artifact_close(&a);
    assert_int_equal(setenv("SOURCE_DATE_EPOCH", "yesterday", 1), 0);
    sample s = sample_make();
    nq_writer *w = NULL;
    assert_int_equal(nq_writer_open(&w, in_scratch("new"), 0, NULL), NOVAQ_OK);
    assert_int_equal(nq_writer_add(w, &s.layer[0], NULL), NOVAQ_OK);
    assert_int_equal(nq_writer_finish(&w, "x", NULL, NULL, NULL, NULL), NOVAQ_E_ARG);
    assert_false(nq_is_dir(in_scratch("new")));
    assert_int_equal(unsetenv("SOURCE_DATE_EPOCH"), 0);
    sample_free(&s);
    sample_write(in_scratch("dir"), 0);
    a = open_ok(in_scratch("dir"));
    assert_string_equal(json_string_value(json_object_get(nq_artifact_manifest(a), "created_at")),
                        "1970-01-01T00:00:00Z");
    nq_artifact_close(&a);
    remove_tree(in_scratch("dir"));
}

/* ---- several chunks -------------------------------------------------------------- */

#define BIG_LAYERS 9

/* Nine layers of 5 MiB, an empty one after the fourth, where a chunk is full. */
static void write_big(const char *path, int single) {
    nq_layer layers[BIG_LAYERS + 1];
    char names[BIG_LAYERS][16];
    uint64_t bytes = (uint64_t)5 << 20;
    for (int i = 0; i < BIG_LAYERS; i++) {
        (void)snprintf(names[i], sizeof names[i], "layer%d", i);
        make_plain(&layers[i < 4 ? i : i + 1], names[i], "raw", NQ_U8, 1, bytes, 0, bytes);
        ((uint8_t *)(uintptr_t)layers[i < 4 ? i : i + 1].data)[7] = (uint8_t)i;
    }
    make_plain(&layers[4], "empty", "raw", NQ_F32, 1, 0, 0, 0);
    write_layers(path, single, layers, BIG_LAYERS + 1, NULL, NULL);
    for (int i = 0; i < BIG_LAYERS + 1; i++) {
        layer_free(&layers[i]);
    }
}

static void chunks_are_cut_between_layers(void **state) {
    (void)state;
    novaq_error err = {0};
    for (int single = 0; single < 2; single++) {
        const char *path = in_scratch(single ? "big.bin" : "big");
        write_big(path, single);
        nq_artifact *a = open_ok(path);
        const json_t *chunks = json_object_get(nq_artifact_manifest(a), "chunks");
        assert_int_equal(json_array_size(chunks), 3);
        for (size_t i = 0; i < 3; i++) {
            uint64_t bytes = 0;
            must(nq_json_get_u64(&bytes, json_array_get(chunks, i), "bytes", "chunk", &err), &err);
            assert_int_equal(bytes, i < 2 ? 20 << 20 : 5 << 20);
        }
        check_figures(a, path);
        for (size_t i = 5; i < 10; i++) {
            assert_int_equal(nq_artifact_at(a, i)->data[7], i - 1);
        }
        nq_artifact_close(&a);
        must(verify_quietly(path, &err), &err);
        remove_tree(path);
    }
}

static void swapped_and_missing_chunks_are_noticed(void **state) {
    (void)state;
    novaq_error err = {0};
    write_big(in_scratch("big"), 0);
    char **names = NULL;
    size_t count = 0;
    assert_int_equal(nq_list_dir(&names, &count, in_scratch("big"), NULL), NOVAQ_OK);
    assert_int_equal(count, 4);
    char *a = NULL;
    char *b = NULL;
    assert_int_equal(nq_path_join(&a, in_scratch("big"), names[0], NULL), NOVAQ_OK);
    assert_int_equal(nq_path_join(&b, in_scratch("big"), names[1], NULL), NOVAQ_OK);
    const char *spare = in_scratch("spare");
    assert_int_equal(rename(a, spare), 0);
    assert_int_equal(verify_quietly(in_scratch("big"), &err), NOVAQ_E_VERIFY);
    assert_non_null(strstr(err.msg, "missing"));
    assert_int_equal(rename(b, a), 0);
    assert_int_equal(rename(spare, b), 0);
    assert_int_equal(verify_quietly(in_scratch("big"), &err), NOVAQ_E_VERIFY);
    assert_non_null(strstr(err.msg, "SHA-256"));
    assert_int_equal(novaq_validate(NULL, in_scratch("big"), &err), NOVAQ_OK); /* equal sizes */
    nq_free(a);
    nq_free(b);
    nq_free_names(names, count);
    remove_tree(in_scratch("big"));
}

/* ---- appearing whole or not at all ------------------------------------------------ */

static void abort_leaves_nothing(void **state) {
    (void)state;
    sample s = sample_make();
    for (int single = 0; single < 2; single++) {
        nq_writer *w = NULL;
        assert_int_equal(nq_writer_open(&w, in_scratch("new"), single, NULL), NOVAQ_OK);
        for (int i = 0; i < SAMPLE_LAYERS; i++) {
            assert_int_equal(nq_writer_add(w, &s.layer[i], NULL), NOVAQ_OK);
        }
        nq_writer_abort(&w);
        assert_null(w);
        assert_int_equal(entries(scratch), 0);
    }
    nq_writer *none = NULL;
    nq_writer_abort(&none);
    sample_free(&s);
}

/* Adds enough to complete a chunk file, then dies without a chance to clean up. */
static void killed_while_writing(const char *path, int single) {
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        nq_writer *w = NULL;
        nq_layer big;
        uint64_t bytes = (uint64_t)17 << 20;
        make_plain(&big, "big", "raw", NQ_U8, 1, bytes, 0, bytes);
        bool ok = nq_writer_open(&w, path, single, NULL) == NOVAQ_OK &&
                  nq_writer_add(w, &big, NULL) == NOVAQ_OK;
        big.name = "second";
        ok = ok && nq_writer_add(w, &big, NULL) == NOVAQ_OK;
        (void)raise(ok ? SIGKILL : SIGTERM);
        _exit(1);
    }
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static void kill_leaves_nothing_that_verifies(void **state) {
    (void)state;
    novaq_error err = {0};
    for (int single = 0; single < 2; single++) {
        const char *path = in_scratch("new");
        killed_while_writing(path, single);
        assert_true(verify_quietly(path, &err) != NOVAQ_OK);
        assert_true(novaq_validate(NULL, path, &err) != NOVAQ_OK);
        sample_write(path, single); /* the next run sweeps up */
        must(verify_quietly(path, &err), &err);
        assert_int_equal(entries(scratch), 1);
        nq_artifact *a = open_ok(path);
        check_figures(a, path);
        nq_artifact_close(&a);

        /* Killed while replacing: the old artifact is still the artifact. */
        killed_while_writing(path, single);
        must(verify_quietly(path, &err), &err);
        sample_write(path, single);
        must(verify_quietly(path, &err), &err);
        assert_int_equal(entries(scratch), 1);
        if (!single) {
            assert_int_equal(entries(path), 2);
        }
        remove_tree(path);
    }
}

/* Leftovers of runs killed at other moments than the test above can choose. */
static void leftovers_are_swept_up(void **state) {
    (void)state;
    novaq_error err = {0};
    put_file(in_scratch(".one.bin.partial"), "x", 1);
    put_file(in_scratch("..one.bin.data.partial"), "x", 1);
    sample_write(in_scratch("one.bin"), 1);
    assert_int_equal(entries(scratch), 1);
    must(verify_quietly(in_scratch("one.bin"), &err), &err);
    remove_tree(in_scratch("one.bin"));
    assert_int_equal(nq_make_dir(in_scratch("dir"), NULL), NOVAQ_OK);
    put_file(in_scratch("dir/chunk-00001-01234567.bin"), "x", 1);
    put_file(in_scratch("dir/.chunk-00002.bin.partial"), "x", 1);
    put_file(in_scratch("dir/.manifest.json.partial"), "x", 1);
    sample_write(in_scratch("dir"), 0);
    assert_int_equal(entries(in_scratch("dir")), 2);
    /* Beside a complete artifact they do no harm, and go when it is replaced. */
    put_file(in_scratch("dir/chunk-00001-01234567.bin"), "x", 1);
    put_file(in_scratch("dir/.chunk-00001.bin.partial"), "x", 1);
    must(verify_quietly(in_scratch("dir"), &err), &err);
    sample_write(in_scratch("dir"), 0);
    assert_int_equal(entries(in_scratch("dir")), 2);
    remove_tree(in_scratch("dir"));
}

static void replacing_removes_the_old_chunks(void **state) {
    (void)state;
    novaq_error err = {0};
    const char *path = in_scratch("dir");
    write_big(path, 0);
    assert_int_equal(entries(path), 4);
    sample_write(path, 0);
    assert_int_equal(entries(path), 2);
    must(verify_quietly(path, &err), &err);
    /* An aborted replacement changes nothing, even one with the same chunks. */
    sample s = sample_make();
    nq_writer *w = NULL;
    must(nq_writer_open(&w, path, 0, &err), &err);
    must(nq_writer_add(w, &s.layer[0], &err), &err);
    nq_writer_abort(&w);
    must(verify_quietly(path, &err), &err);
    assert_int_equal(entries(path), 2);
    sample_free(&s);
    remove_tree(path);
}

static void two_writers_never_share_a_target(void **state) {
    (void)state;
    for (int single = 0; single < 2; single++) {
        nq_writer *a = NULL;
        nq_writer *b = NULL;
        novaq_error err = {0};
        must(nq_writer_open(&a, in_scratch("new"), single, &err), &err);
        assert_int_equal(nq_writer_open(&b, in_scratch("new"), single, &err), NOVAQ_E_IO);
        assert_null(b);
        nq_writer_abort(&a);
        assert_int_equal(entries(scratch), 0);
    }
}

/* ---- refusals ------------------------------------------------------------------- */

static void refuse(const char *path, int single, const char *why) {
    novaq_error err = {0};
    nq_writer *w = NULL;
    assert_int_equal(nq_writer_open(&w, path, single, &err), NOVAQ_E_ARG);
    assert_null(w);
    assert_non_null(strstr(err.msg, why));
}

static void foreign_targets_are_refused(void **state) {
    (void)state;
    const char *dir = in_scratch("dir");
    assert_int_equal(nq_make_dir(dir, NULL), NOVAQ_OK);
    assert_int_equal(nq_write_file(in_scratch("dir/thesis.tex"), "x", 1, NULL), NOVAQ_OK);
    refuse(dir, 0, "thesis.tex");
    refuse(dir, 1, "not a single-file artifact");
    assert_int_equal(entries(dir), 1);
    assert_int_equal(unlink(in_scratch("dir/thesis.tex")), 0);
    assert_int_equal(nq_write_file(in_scratch("dir/manifest.json"), "{}", 2, NULL), NOVAQ_OK);
    refuse(dir, 0, "not novaq's");
    assert_int_equal(entries(dir), 1);
    remove_tree(dir);
    assert_int_equal(nq_write_file(in_scratch("model.gguf"), "GGUF", 4, NULL), NOVAQ_OK);
    refuse(in_scratch("model.gguf"), 0, "is a file");
    refuse(in_scratch("model.gguf"), 1, "not a single-file artifact");
    assert_int_equal(disk_bytes(in_scratch("model.gguf")), 4);
    refuse("", 0, "no output path");
    remove_tree(in_scratch("model.gguf"));
}

static void impossible_layers_are_refused(void **state) {
    (void)state;
    sample s = sample_make();
    nq_writer *w = NULL;
    novaq_error err = {0};
    must(nq_writer_open(&w, in_scratch("new"), 0, &err), &err);
    must(nq_writer_add(w, &s.layer[0], &err), &err);
    assert_int_equal(nq_writer_add(w, &s.layer[0], &err), NOVAQ_E_ARG); /* twice */
    nq_layer l = s.layer[1];
    l.error.sq_error = NAN;
    assert_int_equal(nq_writer_add(w, &l, &err), NOVAQ_E_NUMERIC);
    l = s.layer[1];
    l.shape[0]++;
    assert_int_equal(nq_writer_add(w, &l, &err), NOVAQ_E_FORMAT);
    l = s.layer[1];
    l.q.symbols = NULL;
    assert_int_equal(nq_writer_add(w, &l, &err), NOVAQ_E_ARG);
    l = s.layer[4];
    l.data_bytes--;
    assert_int_equal(nq_writer_add(w, &l, &err), NOVAQ_E_ARG);
    l = s.layer[4];
    l.name = "\xFF\xFE";
    assert_int_equal(nq_writer_add(w, &l, &err), NOVAQ_E_ARG);
    l = s.layer[7];
    l.shape[0] = 32; /* rows of two elements are not whole blocks */
    l.shape[1] = 2;
    assert_int_equal(nq_writer_add(w, &l, &err), NOVAQ_E_FORMAT);
    /* None of these left a trace: the rest can still be written. */
    must(nq_writer_add(w, &s.layer[1], &err), &err);
    must(nq_writer_finish(&w, "x", NULL, NULL, NULL, &err), &err);
    must(verify_quietly(in_scratch("new"), &err), &err);
    remove_tree(in_scratch("new"));
    must(nq_writer_open(&w, in_scratch("new"), 0, &err), &err);
    must(nq_writer_add(w, &s.layer[8], &err), &err);
    assert_int_equal(nq_writer_finish(&w, "x", NULL, NULL, NULL, &err), NOVAQ_E_ARG);
    assert_int_equal(entries(scratch), 0);
    sample_free(&s);
}

static void planned_sizes_are_the_real_ones(void **state) {
    (void)state;
    sample s = sample_make();
    uint64_t planned = 0;
    for (int i = 0; i < SAMPLE_LAYERS; i++) {
        planned += nq_layer_stored_bytes(&s.layer[i]);
    }
    json_object_del(s.model, "tokenizer");
    write_layers(in_scratch("dir"), 0, s.layer, SAMPLE_LAYERS, s.config, s.model);
    assert_int_equal(planned, disk_bytes(only_chunk(in_scratch("dir"))));
    remove_tree(in_scratch("dir"));
    sample_free(&s);
}

int main(int argc, char **argv) {
    if (argc == 3) {
        sample_write(argv[1], 0);
        sample_write(argv[2], 1);
        return 0;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(directory_round_trip),
        cmocka_unit_test(single_file_round_trip),
        cmocka_unit_test(reports_say_what_was_checked),
        cmocka_unit_test(verify_can_be_interrupted),
        cmocka_unit_test(same_input_same_bytes),
        cmocka_unit_test(created_at_follows_the_environment),
        cmocka_unit_test(chunks_are_cut_between_layers),
        cmocka_unit_test(swapped_and_missing_chunks_are_noticed),
        cmocka_unit_test(abort_leaves_nothing),
        cmocka_unit_test(kill_leaves_nothing_that_verifies),
        cmocka_unit_test(leftovers_are_swept_up),
        cmocka_unit_test(replacing_removes_the_old_chunks),
        cmocka_unit_test(two_writers_never_share_a_target),
        cmocka_unit_test(foreign_targets_are_refused),
        cmocka_unit_test(impossible_layers_are_refused),
        cmocka_unit_test(planned_sizes_are_the_real_ones),
    };
    return cmocka_run_group_tests(tests, scratch_open, scratch_close);
}
