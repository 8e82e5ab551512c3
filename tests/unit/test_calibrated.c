/* test_calibrated.c - compression with knowledge of the inputs, from model to
 * artifact: the same bytes for any thread count and any memory, every kind of
 * tensor inside a group, tensors that are broken, models that do not run. */
#include "model_util.h"

#include <math.h>

#include "artifact/artifact.h"
#include "model/weights.h"
#include "novaq.h"

typedef struct job {
    char *dir, *text, *output;
    novaq_compress_options o;
    novaq_error err;
} job;

/* model a, on three windows of text, by one scheme, in one file. */
static job open_job(const char *model) {
    job j = {.dir = scratch_dir(), .o = NOVAQ_COMPRESS_OPTIONS_INIT};
    j.text = text_file(j.dir, 120);
    assert_int_equal(nq_path_join(&j.output, j.dir, "out.bin", NULL), NOVAQ_OK);
    j.o.input = model;
    j.o.output = j.output;
    j.o.single_file = 1;
    j.o.scheme = "k16d2l2";
    j.o.calibration = j.text;
    j.o.calibration_tokens = 1024;
    j.o.threads = 1;
    j.o.segment_rows = 48;
    j.o.max_iterations = 10;
    return j;
}

static void close_job(job *j) {
    remove_dir(j->dir);
    nq_free(j->dir);
    nq_free(j->text);
    nq_free(j->output);
}

/* Compresses; the report, parsed. */
static json_t *compress(job *j) {
    char *report = NULL;
    json_t *o = NULL;
    unlink(j->output);
    if (novaq_compress(&report, &j->o, &j->err) != NOVAQ_OK) {
        fail_msg("%s", j->err.msg);
    }
    assert_int_equal(nq_json_parse(&o, "report", report, strlen(report), NULL), NOVAQ_OK);
    novaq_free(report);
    return o;
}

/* How many warnings hold all of the text. */
static size_t warnings_with(const json_t *report, const char *text) {
    size_t i;
    size_t count = 0;
    json_t *line;
    json_array_foreach(json_object_get(report, "warnings"), i, line) {
        count += strstr(json_string_value(line), text) != NULL;
    }
    return count;
}

static char *bytes_of(const char *path, size_t *len) {
    char *data = NULL;
    assert_int_equal(nq_read_file(&data, len, path, (size_t)1 << 24, NULL), NOVAQ_OK);
    return data;
}

/* |decoded - source|^2 / |source|^2 of a tensor, and its scheme's name. */
static double relative_error(char *scheme, const char *artifact, const char *source,
                             const char *name) {
    nq_weights *a = NULL;
    nq_weights *b = NULL;
    float *x[2] = {NULL, NULL};
    assert_int_equal(nq_weights_open(&a, artifact, NULL), NOVAQ_OK);
    assert_int_equal(nq_weights_open(&b, source, NULL), NOVAQ_OK);
    nq_weights *const of[2] = {a, b};
    uint64_t n = 0;
    for (int i = 0; i < 2; i++) {
        const nq_weight *w = nq_weights_find(of[i], name);
        assert_non_null(w);
        n = w->elements;
        assert_int_equal(nq_alloc(&x[i], n, sizeof(float), NULL), NOVAQ_OK);
        assert_int_equal(nq_weights_read_rows(x[i], of[i], w, 0, w->rows, NULL), NOVAQ_OK);
        if (i == 0) {
            (void)nq_scheme_name(scheme, &w->layer->scheme);
        }
    }
    double sq = 0;
    double all = 0;
    for (uint64_t i = 0; i < n; i++) {
        double e = (double)x[0][i] - (double)x[1][i];
        sq += e * e;
        all += (double)x[1][i] * (double)x[1][i];
    }
    nq_free(x[0]);
    nq_free(x[1]);
    nq_weights_close(&a);
    nq_weights_close(&b);
    return sq / all;
}

/* Every matrix decodes to something near the source, and the artifact verifies. */
static void check_artifact(const job *j) {
    nq_weights *w = NULL;
    novaq_error err = {0};
    char *report = NULL;
    if (novaq_verify(&report, j->output, 1, NULL, NULL, &err) != NOVAQ_OK) {
        fail_msg("%s", err.msg);
    }
    novaq_free(report);
    assert_int_equal(nq_weights_open(&w, j->output, NULL), NOVAQ_OK);
    size_t coded = 0;
    for (size_t i = 0; i < nq_weights_count(w); i++) {
        char scheme[NQ_SCHEME_NAME];
        const nq_weight *t = nq_weights_at(w, i);
        double e = relative_error(scheme, j->output, j->o.input, t->name);
        coded += t->q != NULL;
        if (!(e < 0.95)) { /* at one bit, weights give way to outputs */
            fail_msg("%s as %s: relative error %g", t->name, scheme, e);
        }
    }
    assert_true(coded >= 8);
    nq_weights_close(&w);
}

/* ---- the same bytes --------------------------------------------------------------- */

typedef struct variant {
    const char *model, *order, *normalize, *calibration, *scheme;
    int feedback, propagate, row_means, single_file;
    unsigned sweeps, rotation_block;
    double column_scales;
} variant;

static const variant VARIANTS[] = {
    {TINY("a.gguf"), "natural", "rotate", NULL, "k16d2l2", 1, 1, 0, 1, 0, 0, 0.5},
    {TINY("b.gguf"), "energy", "rotate", NULL, "k8d2l3", 1, 1, 1, 1, 1, 16, 0},
    {TINY("a-hf"), NULL, "row", NULL, "pq16x4d3", 1, 0, 1, 1, 0, 0, 0},
    {TINY("b-hf"), "energy", "none", "self", "k16d1l2", 0, 1, 0, 1, 1, 0, -1},
    {TINY("a.gguf"), "energy", "paper", NULL, "k16d2l3", 1, 1, 0, 1, 0, 0, -1},
    {TINY("b.gguf"), "natural", "rotate", "auto", NULL, 0, 0, 0, 1, 0, 0, 0.25},
};

static job open_variant(const variant *v) {
    job j = open_job(v->model);
    j.o.column_order = v->order;
    j.o.normalize = v->normalize;
    j.o.calibration = v->calibration != NULL ? v->calibration : j.text;
    j.o.calibration_tokens = v->calibration != NULL ? 512 : 1024;
    j.o.scheme = v->scheme;
    j.o.target_bits = v->scheme != NULL ? j.o.target_bits : 3;
    j.o.feedback = v->feedback;
    j.o.propagate = v->propagate;
    j.o.row_means = v->row_means;
    j.o.sweeps = v->sweeps;
    j.o.rotation_block = v->rotation_block;
    j.o.column_scales = v->column_scales;
    return j;
}

/* Threads, and activations in a file, change no byte. */
static void same_bytes(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof VARIANTS / sizeof VARIANTS[0]; i++) {
        job j = open_variant(&VARIANTS[i]);
        json_t *report = compress(&j);
        assert_int_equal(warnings_with(report, "without knowledge"), 0);
        json_decref(report);
        check_artifact(&j);
        size_t want_len = 0;
        char *want = bytes_of(j.output, &want_len);
        for (unsigned threads = 2; threads <= 3; threads++) {
            size_t len = 0;
            j.o.threads = threads;
            j.o.max_memory = threads == 3 ? 1 : 0;
            json_decref(compress(&j));
            char *got = bytes_of(j.output, &len);
            assert_int_equal(len, want_len);
            assert_memory_equal(got, want, len);
            nq_free(got);
        }
        nq_free(want);
        close_job(&j);
    }
}

/* ---- it helps ------------------------------------------------------------------------ */

static double divergence(const job *j) {
    novaq_eval_options e = NOVAQ_EVAL_OPTIONS_INIT;
    novaq_error err = {0};
    char *report = NULL;
    json_t *o = NULL;
    e.model = j->output;
    e.against = j->o.input;
    e.text_file = j->text;
    e.n_ctx = 64;
    e.chunks = 8;
    e.threads = 1;
    if (novaq_eval(&report, &e, &err) != NOVAQ_OK) {
        fail_msg("%s", err.msg);
    }
    assert_int_equal(nq_json_parse(&o, "report", report, strlen(report), NULL), NOVAQ_OK);
    double kl = number(o, "mean_kld");
    novaq_free(report);
    json_decref(o);
    return kl;
}

static void knowledge_helps(void **state) {
    (void)state;
    static const char *const MODELS[] = {TINY("a.gguf"), TINY("b.gguf")};
    for (int i = 0; i < 2; i++) {
        double kl[2];
        for (int known = 0; known < 2; known++) {
            job j = open_job(MODELS[i]);
            j.o.calibration = known ? j.text : "none";
            j.o.scheme = "k8d1l2";
            json_decref(compress(&j));
            kl[known] = divergence(&j);
            close_job(&j);
        }
        if (!(kl[1] < 0.8 * kl[0])) {
            fail_msg("%s: divergence %g with, %g without", MODELS[i], kl[1], kl[0]);
        }
    }
}

/* ---- tensors of every kind ------------------------------------------------------------ */

static void mixed_groups(void **state) {
    (void)state;
    static const char *const TYPES[] = {
        "blk\\.0\\.attn_q=raw",      "blk\\.0\\.attn_k=f16",       "blk\\.0\\.attn_v=q8",
        "blk\\.0\\.attn_output=f32", "blk\\.0\\.ffn_gate=k16d2l2", "blk\\.0\\.ffn_up=k8d3l2",
        "blk\\.0\\.ffn_down=q8",     "blk\\.1\\.attn_q=k16d4l1",   "blk\\.1\\.attn_k=pq16x16d3",
        "blk\\.1\\.attn_v=k16d1l2",  "blk\\.1\\.ffn_gate=q8",      "blk\\.1\\.ffn_up=bf16",
        "token_embd=k8d3l2",         "output\\.weight=q8"};
    static const struct {
        const char *name, *scheme;
        double most;
    } WANT[] = {{"blk.0.attn_q.weight", "raw", 0},         {"blk.0.attn_k.weight", "f16", 1e-12},
                {"blk.0.attn_v.weight", "q8", 1e-3},       {"blk.0.attn_output.weight", "f32", 0},
                {"blk.0.ffn_gate.weight", "k16d2l2", 0.3}, {"blk.0.ffn_up.weight", "k8d3l2", 0.8},
                {"blk.0.ffn_down.weight", "q8", 1e-3},     {"blk.1.attn_q.weight", "k16d4l1", 0.8},
                {"blk.1.attn_k.weight", "pq16x16d3", 0.3}, {"blk.1.attn_v.weight", "k16d1l2", 0.05},
                {"blk.1.ffn_gate.weight", "q8", 1e-3},     {"blk.1.ffn_up.weight", "bf16", 1e-4},
                {"token_embd.weight", "k8d3l2", 0.8}};
    for (int energy = 0; energy < 2; energy++) {
        for (int model = 0; model < 2; model++) {
            job j = open_job(model == 0 ? TINY("a.gguf") : TINY("b.gguf"));
            j.o.tensor_types = TYPES;
            j.o.tensor_type_count = sizeof TYPES / sizeof TYPES[0] - (model == 0 ? 0 : 1);
            j.o.column_order = energy ? "energy" : "natural";
            j.o.propagate = 0; /* so that what is coded is the source itself */
            json_t *report = compress(&j);
            assert_int_equal(warnings_with(report, "without knowledge"), 0);
            json_decref(report);
            for (size_t i = 0; i < sizeof WANT / sizeof WANT[0]; i++) {
                char scheme[NQ_SCHEME_NAME];
                double e = relative_error(scheme, j.output, j.o.input, WANT[i].name);
                if (strcmp(scheme, WANT[i].scheme) != 0 || !(e <= WANT[i].most)) {
                    fail_msg("%s: %s, relative error %g", WANT[i].name, scheme, e);
                }
            }
            close_job(&j);
        }
    }
}

/* ---- what is broken --------------------------------------------------------------------- */

/* Model a with a NaN in the middle of one tensor, beside the job's other files. */
static char *broken_model(const char *dir, const char *tensor) {
    nq_tensors *ts = NULL;
    char *path = NULL;
    size_t len = 0;
    char *data = bytes_of(TINY("a.gguf"), &len);
    assert_int_equal(nq_tensors_open(&ts, TINY("a.gguf"), NULL), NOVAQ_OK);
    const nq_tensor_info *t = nq_tensors_find(ts, tensor);
    assert_non_null(t);
    assert_int_equal(t->dtype, NQ_F16);
    memcpy(data + t->offset + t->bytes / 2, "\x00\x7e", 2);
    assert_int_equal(nq_path_join(&path, dir, "broken.gguf", NULL), NOVAQ_OK);
    assert_int_equal(nq_write_file(path, data, len, NULL), NOVAQ_OK);
    nq_tensors_close(&ts);
    nq_free(data);
    return path;
}

/* It stays as in the source; all else is coded, with knowledge as far as the model
 * computes numbers. */
static void nan_tensor(void **state) {
    (void)state;
    static const char *const BROKEN[] = {"blk.1.ffn_up.weight", "blk.0.attn_q.weight",
                                         "blk.1.ffn_down.weight", "output.weight"};
    static const size_t BLIND[] = {2, 8, 1, 0}; /* groups behind the NaN, with the head */
    for (size_t i = 0; i < 4; i++) {
        job j = open_job(TINY("a.gguf"));
        char *model = broken_model(j.dir, BROKEN[i]);
        j.o.input = model;
        json_t *report = compress(&j);
        assert_int_equal(warnings_with(report, BROKEN[i]), 1);
        assert_int_equal(warnings_with(report, "NaN"), 1);
        assert_int_equal(warnings_with(report, "without knowledge"), BLIND[i]);
        char scheme[NQ_SCHEME_NAME];
        assert_true(isnan(relative_error(scheme, j.output, model, BROKEN[i])));
        assert_string_equal(scheme, "raw");
        assert_true(relative_error(scheme, j.output, model, "blk.1.attn_q.weight") < 0.3);
        assert_string_equal(scheme, "k16d2l2");
        json_decref(report);
        nq_free(model);
        close_job(&j);
    }
}

static void models_that_do_not_run(void **state) {
    (void)state;
    char *strange = altered_model("model_type", "\"xyz\"");
    job j = open_job(strange);
    static const char *const ASKED[] = {NULL, "self"};
    for (int i = 0; i < 2; i++) {
        j.o.calibration = ASKED[i] != NULL ? ASKED[i] : j.text;
        assert_int_equal(novaq_compress(NULL, &j.o, &j.err), NOVAQ_E_UNSUPPORTED);
        assert_non_null(strstr(j.err.msg, "xyz"));
        assert_non_null(strstr(j.err.msg, "--calibration none"));
        assert_false(nq_is_file(j.output));
    }
    j.o.calibration = "auto";
    json_t *report = compress(&j);
    assert_int_equal(warnings_with(report, "xyz"), 1);
    assert_true(nq_is_file(j.output));
    json_decref(report);
    close_job(&j);
    remove_dir(strange);
    nq_free(strange);
}

static void text_that_does_not_do(void **state) {
    (void)state;
    job j = open_job(TINY("a.gguf"));
    assert_int_equal(nq_write_file(j.text, "too short", 9, NULL), NOVAQ_OK);
    assert_int_equal(novaq_compress(NULL, &j.o, &j.err), NOVAQ_E_ARG);
    assert_non_null(strstr(j.err.msg, "too few"));
    assert_null(strstr(j.err.msg, "can be run")); /* the model is not what is wrong */
    assert_false(nq_is_file(j.output));
    close_job(&j);
}

/* ---- stopping ------------------------------------------------------------------------------ */

typedef struct stopper {
    unsigned calls, stop;
} stopper;

static int stop_later(void *ctx, const novaq_progress *p) {
    stopper *s = ctx;
    assert_non_null(p->item);
    assert_true(p->total == 0 || p->done <= p->total);
    return ++s->calls > s->stop;
}

/* Wherever it is stopped there is no artifact; and it is asked often. What can be gone on
 * from is hidden: test_resume_run.c. */
static void can_be_stopped(void **state) {
    (void)state;
    for (unsigned i = 0; i < 12; i++) {
        job j = open_job(TINY("b.gguf"));
        stopper s = {.stop = i * i};
        j.o.progress = stop_later;
        j.o.progress_ctx = &s;
        novaq_status st = novaq_compress(NULL, &j.o, &j.err);
        if (i < 5) {
            assert_int_equal(st, NOVAQ_E_INTERRUPTED);
        }
        if (st != NOVAQ_OK) {
            char **names = NULL;
            size_t count = 0;
            assert_int_equal(st, NOVAQ_E_INTERRUPTED);
            assert_int_equal(nq_list_dir(&names, &count, j.dir, NULL), NOVAQ_OK);
            assert_true(count > 0);
            assert_string_equal(names[count - 1], "text.txt");
            for (size_t k = 0; k + 1 < count; k++) {
                assert_int_equal(names[k][0], '.');
            }
            nq_free_names(names, count);
        }
        close_job(&j);
    }
}

static int fixed_time(void **state) {
    (void)state;
    return setenv("SOURCE_DATE_EPOCH", "1700000000", 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_bytes),
        cmocka_unit_test(knowledge_helps),
        cmocka_unit_test(mixed_groups),
        cmocka_unit_test(nan_tensor),
        cmocka_unit_test(models_that_do_not_run),
        cmocka_unit_test(text_that_does_not_do),
        cmocka_unit_test(can_be_stopped),
    };
    return cmocka_run_group_tests(tests, fixed_time, NULL);
}
