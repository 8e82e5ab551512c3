/* test_refine.c - refinement of tiny models from artifact to artifact: it gets better,
 * symbols stay, the same bytes for any thread count and however often it is stopped,
 * divergence is taken back, what brings nothing changes nothing, refusals.
 * Threads: test_net runs the same loops under TSan, and these take minutes there. */
#include "refine_util.h"

#include <math.h>
#include <sys/stat.h>

#include "artifact/artifact.h"
#include "refine/checkpoint.h"
#include "refine/round.h"

/* ---- what it does ------------------------------------------------------------------ */

/* Without column scales subspaces in the coded basis add up to the layer. */
static void check_subspaces(const nq_layer *l) {
    const json_t *s = json_object_get(l->diagnostics, "subspaces");
    double mse = l->error.sq_error / (double)l->elements;
    assert_near(number(s, "mse_mean"), mse, 1e-3 * mse, "mse");
    assert_true(number(s, "mse_min") <= mse && number(s, "mse_max") >= mse);
    assert_true(number(s, "worst") < number(s, "count"));
    assert_null(json_object_get(l->diagnostics, "relative_output_error"));
}

static void check_layers(const char *before, const char *after, uint64_t columns, bool changed) {
    nq_artifact *a = NULL;
    nq_artifact *b = NULL;
    assert_int_equal(nq_artifact_open(&a, before, NULL), NOVAQ_OK);
    assert_int_equal(nq_artifact_open(&b, after, NULL), NOVAQ_OK);
    assert_int_equal(nq_artifact_count(a), nq_artifact_count(b));
    for (size_t i = 0; i < nq_artifact_count(a); i++) {
        const nq_layer *x = nq_artifact_at(a, i);
        const nq_layer *y = nq_artifact_at(b, i);
        assert_string_equal(x->name, y->name);
        if (x->scheme.kind != NQ_SCHEME_CODE) {
            continue;
        }
        assert_memory_equal(x->q.symbols, y->q.symbols, nq_qmat_symbol_bytes(&x->q));
        bool scales = memcmp(x->q.row_scale, y->q.row_scale, x->q.rows * 2) != 0;
        assert_true(scales == changed);
        if (changed) {
            uint64_t lane = (nq_scheme_field_bits(&y->q.scheme, 0) == 4 ? 32 : 64) * y->q.scheme.d;
            uint64_t each = (columns + lane - 1) / lane * lane;
            assert_int_equal(y->q.groups, (y->q.cols + each - 1) / each);
            assert_true(y->error.sq_error != x->error.sq_error);
            assert_near(y->error.sq_source, x->error.sq_source, 1e-4 * x->error.sq_source, "sum");
            check_subspaces(y);
        } else {
            assert_int_equal(y->q.groups, x->q.groups);
        }
    }
    nq_artifact_close(&a);
    nq_artifact_close(&b);
}

static void test_improves(void **state) {
    (void)state;
    static const char *const schemes[] = {"k16d2l3", "k8d1l2", "pq16x8d4", "q8"};
    for (size_t i = 0; i < 4; i++) {
        job j = open_job(schemes[i]);
        j.o.rate = 0.01; /* of q8, whose error is small, a twentieth */
        json_t *report = refine(&j);
        const json_t *kl = json_object_get(report, "held_out_kl");
        assert_true(number(kl, "after") < number(kl, "before") * (i < 3 ? 0.9 : 1.0));
        assert_near(number(kl, "before"), j.first_kl, 1e-12, "first measurement");
        assert_true(number(report, "best_step") > 0);
        assert_int_equal(j.lines, 2 + j.o.steps);
        assert_true(number(report, "seconds") > 0);
        assert_int_equal(json_array_size(json_object_get(report, "warnings")), 0);
        assert_int_equal(novaq_verify(NULL, j.output, 1, NULL, NULL, &j.err), NOVAQ_OK);
        if (i < 3) {
            check_layers(j.made, j.output, 16, true);
        }
        json_decref(report);
        close_job(&j);
    }
}

/* Held-out divergence of the artifact that refine() wrote, as it is read back. */
static double stored_kl(job *j) {
    const novaq_refine_options kept = j->o;
    char *again = NULL;
    assert_int_equal(nq_path_join(&again, j->dir, "again.bin", NULL), NOVAQ_OK);
    j->o.artifact = j->output;
    j->o.output = again;
    j->o.steps = 1;
    json_t *second = refine(j);
    double kl = number(json_object_get(second, "held_out_kl"), "before");
    json_decref(second);
    nq_free(again);
    j->o = kept;
    return kl;
}

/* What was measured is what is read back. */
static void test_measured_as_stored(void **state) {
    (void)state;
    static const char *const schemes[] = {"k16d2l2", "k16d2l3"};
    for (size_t i = 0; i < 2; i++) {
        job j = open_job(schemes[i]);
        j.o.exact = 1; /* otherwise roundings to bfloat16 differ by what float32 does not see */
        json_t *report = refine(&j);
        double after = number(json_object_get(report, "held_out_kl"), "after");
        assert_true(number(report, "best_step") > 0);
        assert_near(stored_kl(&j), after, 1e-5, "stored");
        json_decref(report);
        close_job(&j);
    }
}

static void test_threads(void **state) {
    (void)state;
    job j = open_job("k16d2l2");
    size_t len = 0;
    j.o.lambda = 0.1;
    json_decref(refine(&j));
    char *one = bytes_of(j.output, &len);
    j.o.threads = 3;
    json_decref(refine(&j));
    assert_same_file(j.output, one, len);
    nq_free(one);
    close_job(&j);
}

/* ---- stopping ------------------------------------------------------------------------ */

static void test_resume(void **state) {
    (void)state;
    job j = open_job("k16d2l2");
    size_t len = 0;
    json_decref(refine(&j));
    unsigned calls = j.calls;
    char *whole = bytes_of(j.output, &len);
    char *checkpoint = NULL;
    assert_int_equal(nq_asprintf(&checkpoint, NULL, "%s.refine", j.output), NOVAQ_OK);
    assert_false(nq_is_file(checkpoint));
    /* Within steps, between them, within measurements. */
    for (unsigned stop = calls / 8; stop < calls; stop += calls / 6) {
        assert_int_equal(unlink(j.output), 0);
        j.stop_at = stop;
        assert_int_equal(run(&j, NULL), NOVAQ_E_INTERRUPTED);
        assert_false(nq_is_file(j.output));
        assert_true(nq_is_file(checkpoint));
        j.stop_at = 1;
        assert_int_equal(run(&j, NULL), NOVAQ_E_INTERRUPTED);
        j.stop_at = 0;
        json_t *report = refine(&j);
        assert_true(number(report, "resumed_at") > 0);
        json_decref(report);
        assert_same_file(j.output, whole, len);
        assert_false(nq_is_file(checkpoint));
    }
    /* Another run's checkpoint is not taken, and not lost. */
    j.stop_at = 60;
    assert_int_equal(run(&j, NULL), NOVAQ_E_INTERRUPTED);
    size_t kept = 0;
    char *point = bytes_of(checkpoint, &kept);
    j.stop_at = 0;
    j.o.seed++;
    assert_int_equal(run(&j, NULL), NOVAQ_E_ARG);
    assert_non_null(strstr(j.err.msg, "another refinement"));
    assert_same_file(checkpoint, point, kept);
    nq_free(point);
    j.o.restart = 1;
    json_t *report = refine(&j);
    assert_int_equal(number(report, "resumed_at"), 0);
    json_decref(report);
    nq_free(checkpoint);
    nq_free(whole);
    close_job(&j);
}

static void test_damaged_checkpoint(void **state) {
    (void)state;
    float value[4] = {1, 2, 3, 4};
    float grad[4] = {0};
    nq_param p = {.name = "p", .kind = NQ_PARAM_GAIN, .value = value, .grad = grad, .count = 4};
    nq_adam_options o = NQ_ADAM_OPTIONS_INIT;
    nq_refine_state s;
    char identity[NQ_SHA256_HEX + 1];
    memset(identity, 'a', sizeof identity);
    char *dir = scratch_dir();
    char *path = NULL;
    bool found = false;
    assert_int_equal(nq_path_join(&path, dir, "c", NULL), NOVAQ_OK);
    assert_int_equal(nq_refine_state_open(&s, &p, 1, &o, NULL), NOVAQ_OK);
    s.adam.step = 7;
    assert_int_equal(nq_checkpoint_write(path, &s, identity, NULL), NOVAQ_OK);
    value[2] = 0;
    s.adam.step = 0;
    assert_int_equal(nq_checkpoint_read(&found, path, &s, identity, NULL), NOVAQ_OK);
    assert_true(found && value[2] == 3.0F && s.adam.step == 7);
    size_t len = 0;
    char *data = bytes_of(path, &len);
    for (size_t i = 0; i < len; i += 13) {
        data[i] ^= 1;
        assert_int_equal(nq_write_file(path, data, len, NULL), NOVAQ_OK);
        assert_int_equal(nq_checkpoint_read(&found, path, &s, identity, NULL), NOVAQ_OK);
        assert_false(found);
        data[i] ^= 1;
    }
    assert_int_equal(nq_write_file(path, data, len - 1, NULL), NOVAQ_OK);
    assert_int_equal(nq_checkpoint_read(&found, path, &s, identity, NULL), NOVAQ_OK);
    assert_false(found);
    nq_refine_state_close(&s);
    nq_free(data);
    nq_free(path);
    remove_dir(dir);
    nq_free(dir);
}

/* ---- going wrong ------------------------------------------------------------------------ */

/* Steps as large as what they change ruin a model: nothing is better than what came in,
 * so that is what is written. */
static void test_never_worse(void **state) {
    (void)state;
    job j = open_job("k16d2l2");
    j.o.rate = 1;
    j.o.steps = 40;
    j.o.exact = 1;
    json_t *report = refine(&j);
    const json_t *kl = json_object_get(report, "held_out_kl");
    assert_true(number(report, "rolled_back") > 0);
    assert_true(number(kl, "after") <= number(kl, "before"));
    if (number(report, "best_step") <= 0) {
        check_layers(j.made, j.output, 16, false);
    }
    assert_true(stored_kl(&j) <= number(kl, "before") + 1e-5);
    assert_int_equal(novaq_verify(NULL, j.output, 1, NULL, NULL, &j.err), NOVAQ_OK);
    json_decref(report);
    close_job(&j);
}

static void test_rounding(void **state) {
    (void)state;
    float books[2 * 3 * 16 * 2];
    nq_qmat q = {.scheme = nq_scheme_sliding(16, 2, 3)};
    nq_tmatrix m = {.q = &q, .groups = 2, .codebooks = books};
    for (size_t i = 0; i < sizeof books / sizeof books[0]; i++) {
        books[i] = (float)((int)(i * 37 % 101) - 50) * 0.013F;
    }
    for (uint32_t g = 0; g < 2; g++) {
        int8_t e[3 * 16 * 2];
        uint16_t scale = 0;
        int peak = 0;
        nq_round_group(e, &scale, &m, g);
        for (unsigned l = 0; l < 3; l++) {
            int most = 0;
            for (unsigned i = 0; i < 32; i++) {
                int v = e[l * 32 + i] < 0 ? -e[l * 32 + i] : e[l * 32 + i];
                most = v > most ? v : most;
            }
            peak += most;
        }
        assert_true(peak <= 127 && peak > 100);
    }
    assert_true(isfinite(nq_store_round(NQ_STORE_F16, 1e9F)));
    assert_true(nq_store_round(NQ_STORE_F32, 0.1F) == 0.1F);
    assert_true(nq_store_round(NQ_STORE_BF16, 0.1F) != 0.1F);
}

/* Rates are relative to the squared error of a matrix; units of scales are just that share. */
static void check_units(const char *scheme, double least, double most) {
    job j = open_job(scheme);
    nq_model *m = NULL;
    nq_net *net = NULL;
    float *unit = NULL;
    uint64_t at = 0;
    unsigned seen = 0;
    nq_net_options o = {.sequences = 1, .length = 8};
    assert_int_equal(nq_model_open(&m, j.made, NULL, NULL), NOVAQ_OK);
    assert_int_equal(nq_net_open(&net, m, &o, NULL), NOVAQ_OK);
    for (size_t i = 0; i < nq_net_param_count(net); i++) {
        at += nq_net_param(net, i)->count;
    }
    assert_int_equal(nq_alloc(&unit, at, sizeof *unit, NULL), NOVAQ_OK);
    nq_round_units(unit, net, m->weights);
    at = 0;
    for (size_t i = 0; i < nq_net_param_count(net); i++) {
        const nq_param *p = nq_net_param(net, i);
        const nq_weight *w = nq_weights_find(m->weights, p->name);
        if (p->kind == NQ_PARAM_LOG_SCALE && w != NULL) {
            double e = w->layer->error.sq_error / w->layer->error.sq_source / 0.09;
            e = e < 0.05 ? 0.05 : e > 3 ? 3 : e;
            assert_near(unit[at], e, 1e-5, p->name);
            assert_true(e >= least && e <= most);
            seen++;
        }
        at += p->count;
    }
    assert_true(seen > 0);
    nq_free(unit);
    nq_net_close(&net);
    nq_model_close(&m);
    close_job(&j);
}

static void test_units(void **state) {
    (void)state;
    check_units("k16d2l2", 0.3, 2.9);
    check_units("q8", 0.05, 0.06);
}

/* ---- other ways in -------------------------------------------------------------------------- */

static void test_compress_refined(void **state) {
    (void)state;
    job j = open_job("k16d2l2");
    novaq_compress_options c = NOVAQ_COMPRESS_OPTIONS_INIT;
    char *text = NULL;
    json_t *report = NULL;
    c.input = TINY("a.gguf");
    c.output = j.output;
    c.single_file = 1;
    c.scheme = "k16d2l2";
    c.calibration = "self";
    c.calibration_tokens = 512;
    c.threads = 1;
    c.refine = 1;
    c.refine_steps = 2;
    if (novaq_compress(&text, &c, &j.err) != NOVAQ_OK) {
        fail_msg("%s", j.err.msg);
    }
    assert_int_equal(nq_json_parse(&report, "report", text, strlen(text), NULL), NOVAQ_OK);
    assert_int_equal(number(json_object_get(report, "refinement"), "steps"), 2);
    assert_true(number(report, "bits_per_weight_linear") > 2);
    novaq_free(text);
    json_decref(report);
    assert_int_equal(novaq_verify(NULL, j.output, 1, NULL, NULL, &j.err), NOVAQ_OK);
    char *first = NULL;
    assert_int_equal(nq_asprintf(&first, NULL, "%s.unrefined", j.output), NOVAQ_OK);
    assert_false(nq_is_file(first));
    nq_free(first);
    close_job(&j);
}

static void on_refine_step(void *ctx, const char *line) {
    (void)line;
    ++*(unsigned *)ctx;
}

static int stop_refining(void *ctx, const novaq_progress *p) {
    unsigned *compressing = ctx;
    *compressing += strcmp(p->phase, "compress") == 0;
    return strcmp(p->phase, "refine") == 0 && p->done > 0;
}

/* A call after one that was interrupted in its refinement does not compress again, unless
 * it would make something else. */
static void test_compress_once(void **state) {
    (void)state;
    job j = open_job("k16d2l2");
    novaq_compress_options c = NOVAQ_COMPRESS_OPTIONS_INIT;
    unsigned compressing = 0;
    unsigned lines = 0;
    c.input = TINY("a.gguf");
    c.output = j.output;
    c.single_file = 1;
    c.scheme = "k16d2l2";
    c.calibration = j.text;
    c.calibration_tokens = 2048;
    c.threads = 1;
    c.refine = 1;
    c.refine_steps = 3;
    c.progress = stop_refining;
    c.progress_ctx = &compressing;
    c.refine_step = on_refine_step;
    c.refine_step_ctx = &lines;
    assert_int_equal(novaq_compress(NULL, &c, &j.err), NOVAQ_E_INTERRUPTED);
    assert_true(compressing > 0 && lines > 1);
    compressing = 0;
    assert_int_equal(novaq_compress(NULL, &c, &j.err), NOVAQ_E_INTERRUPTED);
    assert_int_equal(compressing, 0);
    c.seed++;
    assert_int_equal(novaq_compress(NULL, &c, &j.err), NOVAQ_E_INTERRUPTED);
    assert_true(compressing > 0);
    c.progress = NULL;
    assert_int_equal(novaq_compress(NULL, &c, &j.err), NOVAQ_OK);
    char **names = NULL;
    size_t count = 0;
    assert_int_equal(nq_list_dir(&names, &count, j.dir, NULL), NOVAQ_OK);
    for (size_t i = 0; i < count; i++) {
        assert_null(strstr(names[i], "unrefined"));
        assert_null(strstr(names[i], ".refine"));
    }
    nq_free_names(names, count);
    close_job(&j);
}

/* What was learnt is not lost when it cannot be written. */
static void test_lost_output(void **state) {
    (void)state;
    job j = open_job("k16d2l2");
    size_t len = 0;
    json_decref(refine(&j));
    char *whole = bytes_of(j.output, &len);
    assert_int_equal(unlink(j.output), 0);
    j.spoil = true;
    assert_int_not_equal(run(&j, NULL), NOVAQ_OK);
    j.spoil = false;
    assert_int_equal(rmdir(j.output), 0);
    json_t *report = refine(&j);
    assert_int_equal(number(report, "resumed_at"), number(report, "steps_done"));
    assert_same_file(j.output, whole, len);
    json_decref(report);
    nq_free(whole);
    close_job(&j);
}

/* A checkpoint that cannot be written is a warning. */
static void test_no_checkpoint(void **state) {
    (void)state;
    job j = open_job("k16d2l2");
    j.o.steps = 2;
    j.o.checkpoint = "no/such/folder/checkpoint";
    json_t *report = refine(&j);
    assert_int_equal(json_array_size(json_object_get(report, "warnings")), 1);
    assert_true(nq_is_file(j.output));
    json_decref(report);
    close_job(&j);
}

/* Several files are one text. */
static void test_texts(void **state) {
    (void)state;
    job j = open_job("k16d2l2");
    const char *more[] = {j.text, j.text};
    unsigned tokens[2] = {0};
    j.o.steps = 1;
    for (unsigned i = 0; i < 2; i++) {
        j.o.more_texts = more;
        j.o.more_text_count = 2 * i;
        json_decref(refine(&j));
        tokens[i] = j.tokens;
    }
    assert_true(tokens[1] > 2 * tokens[0] && tokens[1] < 4 * tokens[0]);
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
    job j = open_job("k16d2l2");
    const novaq_refine_options good = j.o;
    j.o.artifact = TINY("a.gguf");
    refused(&j, "is not an artifact");
    j.o = good;
    j.o.calibration = "none";
    refused(&j, "needs a text");
    const char *more[] = {j.text};
    j.o.calibration = "self";
    j.o.more_texts = more;
    j.o.more_text_count = 1;
    refused(&j, "not both");
    j.o = good;
    j.o.rate = 0;
    refused(&j, "rates");
    j.o = good;
    j.o.temperature = NAN;
    refused(&j, "temperature");
    j.o = good;
    j.o.batch = 0;
    refused(&j, "sequences");
    j.o = good;
    j.o.sequence = 60000;
    j.o.calibration_tokens = 8;
    refused(&j, "too few");
    close_job(&j);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_improves),
        cmocka_unit_test(test_measured_as_stored),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_resume),
        cmocka_unit_test(test_damaged_checkpoint),
        cmocka_unit_test(test_never_worse),
        cmocka_unit_test(test_rounding),
        cmocka_unit_test(test_units),
        cmocka_unit_test(test_compress_refined),
        cmocka_unit_test(test_compress_once),
        cmocka_unit_test(test_lost_output),
        cmocka_unit_test(test_no_checkpoint),
        cmocka_unit_test(test_texts),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
