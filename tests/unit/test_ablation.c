/* test_ablation.c - the ablation of a tiny model: which rows there are, that they
 * are what compress and eval give, and that nothing stays behind.
 * Threads: test_calibrated runs the same loops under TSan, and these take long there. */
#include "base/buf.h"
#include "model_util.h"

static novaq_ablation_options options(const novaq_compress_options *c, const char *folder) {
    novaq_ablation_options o = NOVAQ_ABLATION_OPTIONS_INIT;
    o.model = TINY("a.gguf");
    o.text_file = TINY("text.txt");
    o.n_ctx = 16;
    o.threads = 2;
    o.folder = folder;
    o.compress = c;
    return o;
}

static novaq_compress_options k16(void) {
    novaq_compress_options c = NOVAQ_COMPRESS_OPTIONS_INIT;
    c.scheme = "k16d2l3";
    c.keep_embedding = 1;
    return c;
}

static json_t *ablate(const novaq_ablation_options *o) {
    novaq_error err = {0};
    char *report = NULL;
    json_t *got = NULL;
    if (novaq_ablation(&report, o, &err) != NOVAQ_OK) {
        fail_msg("%s", err.msg);
    }
    assert_int_equal(nq_json_parse_object(&got, "report", report, strlen(report), NULL), NOVAQ_OK);
    novaq_free(report);
    return got;
}

static size_t entries(const char *dir) {
    char **names = NULL;
    size_t count = 0;
    assert_int_equal(nq_list_dir(&names, &count, dir, NULL), NOVAQ_OK);
    nq_free_names(names, count);
    return count;
}

static const json_t *row_of(const json_t *report, const char *name) {
    size_t i = 0;
    json_t *row = NULL;
    json_array_foreach(json_object_get(report, "rows"), i, row) {
        if (strcmp(json_string_value(json_object_get(row, "variant")), name) == 0) {
            return row;
        }
    }
    return NULL;
}

/* The report's rows are exactly these, all of them measured. */
static void check_rows(const json_t *report, const char *const *names) {
    const json_t *rows = json_object_get(report, "rows");
    size_t n = 0;
    for (; names[n] != NULL; n++) {
        const json_t *row = json_array_get(rows, n);
        const char *failed = json_string_value(json_object_get(row, "failed"));
        assert_non_null(row);
        assert_string_equal(json_string_value(json_object_get(row, "variant")), names[n]);
        if (failed != NULL) {
            fail_msg("%s: %s", names[n], failed);
        }
        assert_true(number(row, "perplexity") > 1);
        assert_true(number(row, "bits_per_weight") > 0);
        if (n > 0) {
            assert_true(number(row, "mean_kld") > 0);
            assert_true(number(row, "kld_99") > number(row, "mean_kld"));
        }
    }
    assert_int_equal(json_array_size(rows), n);
}

static void test_all_rows(void **state) {
    static const char *const names[] = {"source",
                                        "full",
                                        "no-normalization",
                                        "no-residual",
                                        "no-rotation",
                                        "no-feedback",
                                        "no-feedback-no-scales",
                                        "no-propagation",
                                        "no-calibration",
                                        "no-sliding",
                                        "paper",
                                        NULL};
    (void)state;
    char *dir = scratch_dir();
    novaq_compress_options c = k16();
    c.calibration = "self";
    novaq_ablation_options o = options(&c, dir);
    json_t *got = ablate(&o);
    check_rows(got, names);
    assert_int_equal(entries(dir), 0);
    assert_null(json_object_get(row_of(got, "source"), "mean_kld"));
    assert_null(json_object_get(row_of(got, "full"), "refined"));
    assert_null(json_object_get(got, "refinement"));
    assert_near(number(row_of(got, "source"), "bits_per_weight_linear"), 16, 0, "source");
    /* The rate is the same but for what a variant stores besides symbols. */
    for (size_t i = 1; names[i] != NULL; i++) {
        double bits = number(row_of(got, names[i]), "bits_per_weight_linear");
        assert_near(bits, 2.5, 0.5, names[i]);
    }
    json_decref(got);
    remove_dir(dir);
    nq_free(dir);
}

/* The full row is what the two commands would have said. */
static void test_full_row(void **state) {
    static const char *const keys[] = {"perplexity", "mean_kld", "kld_99", "same_top"};
    (void)state;
    char *dir = scratch_dir();
    char *base = NULL;
    char *path = NULL;
    char *report = NULL;
    json_t *want = NULL;
    novaq_compress_options c = k16();
    c.calibration = "none";
    novaq_ablation_options o = options(&c, dir);
    o.variants = "full";
    json_t *got = ablate(&o);
    assert_int_equal(json_array_size(json_object_get(got, "rows")), 2);
    assert_int_equal(nq_path_join(&base, dir, "base.kld", NULL), NOVAQ_OK);
    assert_int_equal(nq_path_join(&path, dir, "a.novaq", NULL), NOVAQ_OK);
    c.input = TINY("a.gguf");
    c.output = path;
    c.single_file = 1;
    assert_int_equal(novaq_compress(NULL, &c, NULL), NOVAQ_OK);
    novaq_eval_options e = NOVAQ_EVAL_OPTIONS_INIT;
    e.model = TINY("a.gguf");
    e.text_file = TINY("text.txt");
    e.n_ctx = 16;
    e.kl_base = base;
    assert_int_equal(novaq_eval(NULL, &e, NULL), NOVAQ_OK);
    e.model = path;
    e.text_file = NULL;
    e.kl_divergence = 1;
    assert_int_equal(novaq_eval(&report, &e, NULL), NOVAQ_OK);
    assert_int_equal(nq_json_parse_object(&want, "report", report, strlen(report), NULL), NOVAQ_OK);
    novaq_free(report);
    for (size_t i = 0; i < 4; i++) {
        assert_near(number(row_of(got, "full"), keys[i]), number(want, keys[i]), 0, keys[i]);
    }
    json_decref(want);
    assert_int_equal(novaq_stats(&report, path, NULL), NOVAQ_OK);
    assert_int_equal(nq_json_parse_object(&want, "report", report, strlen(report), NULL), NOVAQ_OK);
    novaq_free(report);
    assert_near(number(row_of(got, "full"), "bits_per_weight_linear"),
                number(want, "bits_per_weight_linear"), 0, "bits");
    json_decref(want);
    json_decref(got);
    remove_dir(dir);
    nq_free(base);
    nq_free(path);
    nq_free(dir);
}

/* What eval says of an artifact on the text of the table. */
static void check_measured(const json_t *row, const char *artifact, const char *base) {
    static const char *const keys[] = {"perplexity", "mean_kld", "kld_99", "same_top"};
    char *report = NULL;
    json_t *want = NULL;
    novaq_eval_options e = NOVAQ_EVAL_OPTIONS_INIT;
    e.model = artifact;
    e.kl_base = base;
    e.kl_divergence = 1;
    assert_int_equal(novaq_eval(&report, &e, NULL), NOVAQ_OK);
    assert_int_equal(nq_json_parse_object(&want, "report", report, strlen(report), NULL), NOVAQ_OK);
    novaq_free(report);
    for (size_t i = 0; i < 4; i++) {
        assert_near(number(row, keys[i]), number(want, keys[i]), 0, keys[i]);
    }
    json_decref(want);
    assert_int_equal(novaq_stats(&report, artifact, NULL), NOVAQ_OK);
    assert_int_equal(nq_json_parse_object(&want, "report", report, strlen(report), NULL), NOVAQ_OK);
    novaq_free(report);
    assert_near(number(row, "bytes"), number(want, "bytes"), 0, artifact);
    assert_near(number(row, "bits_per_weight_linear"), number(want, "bits_per_weight_linear"), 0,
                artifact);
    json_decref(want);
}

static void write_text(const char *path) {
    nq_buf b = nq_buf_init(1 << 20);
    for (unsigned i = 0; i < 200; i++) {
        assert_int_equal(nq_buf_printf(&b, NULL, "line %u of a text, %u times.\n", i, i * 7 % 31),
                         NOVAQ_OK);
    }
    assert_int_equal(nq_write_file(path, b.data, b.len, NULL), NOVAQ_OK);
    nq_buf_free(&b);
}

/* The refined row is what compress with refine gives, the one below it what compress gives
 * without; all others are not refined and say so. */
static void test_refined(void **state) {
    static const char *const names[] = {"source", "full", "no-distillation", "no-rotation", NULL};
    (void)state;
    char *dir = scratch_dir();
    char *base = NULL;
    char *path = NULL;
    char *text = NULL;
    assert_int_equal(nq_path_join(&base, dir, "base.kld", NULL), NOVAQ_OK);
    assert_int_equal(nq_path_join(&path, dir, "a.novaq", NULL), NOVAQ_OK);
    assert_int_equal(nq_path_join(&text, dir, "other.txt", NULL), NOVAQ_OK);
    write_text(text);
    novaq_compress_options c = k16();
    c.calibration = text;
    c.calibration_tokens = 2048;
    c.threads = 2;
    c.refine = 1;
    c.refine_steps = 6;
    novaq_ablation_options o = options(&c, dir);
    o.variants = "no-rotation";
    json_t *got = ablate(&o);
    check_rows(got, names);
    assert_int_equal(entries(dir), 1); /* the text */
    assert_null(json_object_get(row_of(got, "source"), "refined"));
    assert_true(json_is_true(json_object_get(row_of(got, "full"), "refined")));
    assert_true(json_is_false(json_object_get(row_of(got, "no-distillation"), "refined")));
    assert_true(json_is_false(json_object_get(row_of(got, "no-rotation"), "refined")));
    assert_non_null(strstr(
        json_string_value(json_object_get(row_of(got, "no-rotation"), "changed")), "not refined"));
    assert_int_equal(number(json_object_get(got, "refinement"), "steps"), 6);
    assert_true(number(json_object_get(got, "refinement"), "best_step") > 0);
    novaq_eval_options e = NOVAQ_EVAL_OPTIONS_INIT;
    e.model = TINY("a.gguf");
    e.text_file = TINY("text.txt");
    e.n_ctx = 16;
    e.kl_base = base;
    assert_int_equal(novaq_eval(NULL, &e, NULL), NOVAQ_OK);
    c.input = TINY("a.gguf");
    c.output = path;
    c.single_file = 1;
    assert_int_equal(novaq_compress(NULL, &c, NULL), NOVAQ_OK);
    check_measured(row_of(got, "full"), path, base);
    c.refine = 0;
    assert_int_equal(novaq_compress(NULL, &c, NULL), NOVAQ_OK);
    check_measured(row_of(got, "no-distillation"), path, base);
    assert_true(number(row_of(got, "full"), "mean_kld") !=
                number(row_of(got, "no-distillation"), "mean_kld"));
    json_decref(got);
    remove_dir(dir);
    nq_free(base);
    nq_free(path);
    nq_free(text);
    nq_free(dir);
}

/* What is not there cannot be left out. */
static void test_rows_that_do_not_apply(void **state) {
    static const char *const names[] = {
        "source", "full", "no-normalization", "no-residual", "no-sliding", "paper", NULL};
    static const char *const fewer[] = {"source", "full", "no-rotation", NULL};
    (void)state;
    char *dir = scratch_dir();
    novaq_compress_options c = k16();
    c.calibration = "none";
    c.normalize = "row";
    novaq_ablation_options o = options(&c, dir);
    json_t *got = ablate(&o);
    check_rows(got, names);
    json_decref(got);
    c = k16();
    c.calibration = "none";
    c.scheme = "k16d2l1"; /* one level already */
    o.variants = "no-residual,no-rotation,no-sliding";
    got = ablate(&o);
    check_rows(got, fewer);
    json_decref(got);
    assert_int_equal(entries(dir), 0);
    remove_dir(dir);
    nq_free(dir);
}

/* Without a calibration text there is none, as for compress; and pieces that only the
 * rotation has go with it. */
static void test_pieces_of_a_rotation(void **state) {
    static const char *const names[] = {"source",      "full",        "no-normalization",
                                        "no-residual", "no-rotation", "no-sliding",
                                        "paper",       NULL};
    (void)state;
    char *dir = scratch_dir();
    novaq_compress_options c = k16();
    c.calibration = NULL;
    c.rotation_block = 16;
    c.column_scales = 0.5;
    c.row_means = 1;
    novaq_ablation_options o = options(&c, dir);
    json_t *got = ablate(&o);
    check_rows(got, names);
    assert_string_equal(json_string_value(json_object_get(got, "calibration")), "none");
    json_decref(got);
    remove_dir(dir);
    nq_free(dir);
}

/* A plan is kept: every tensor has the scheme that the full variant gave it. */
static void test_planned(void **state) {
    static const char *const names[] = {"source",      "full",       "no-residual",
                                        "no-rotation", "no-sliding", NULL};
    (void)state;
    char *dir = scratch_dir();
    novaq_compress_options c = NOVAQ_COMPRESS_OPTIONS_INIT;
    c.calibration = "none";
    c.target_bits = 2;
    novaq_ablation_options o = options(&c, dir);
    o.variants = "no-residual,no-rotation,no-sliding";
    json_t *got = ablate(&o);
    check_rows(got, names);
    /* Each tensor keeps its rate, as near as the codes of a variant come to it. */
    double bits = number(row_of(got, "full"), "bits_per_weight");
    for (unsigned i = 2; names[i] != NULL; i++) {
        assert_near(number(row_of(got, names[i]), "bits_per_weight"), bits, 0.2 * bits, names[i]);
    }
    json_decref(got);
    remove_dir(dir);
    nq_free(dir);
}

typedef struct counter {
    int calls;
    int stop_at;
    int named; /* calls whose phase names a variant */
} counter;

static int count(void *ctx, const novaq_progress *p) {
    counter *c = ctx;
    c->named += strncmp(p->phase, "source: ", 8) == 0 || strncmp(p->phase, "full: ", 6) == 0;
    return ++c->calls == c->stop_at;
}

static void test_interruption(void **state) {
    (void)state;
    char *dir = scratch_dir();
    novaq_compress_options c = k16();
    novaq_error err = {0};
    c.calibration = "none";
    novaq_ablation_options o = options(&c, dir);
    counter n = {0};
    o.variants = "full";
    o.progress = count;
    o.progress_ctx = &n;
    json_decref(ablate(&o));
    assert_true(n.calls > 3);
    assert_int_equal(n.named, n.calls);
    for (int stop = 1; stop <= n.calls; stop += 1 + n.calls / 7) {
        counter m = {.stop_at = stop};
        char *report = (char *)&err;
        o.progress_ctx = &m;
        assert_int_equal(novaq_ablation(&report, &o, &err), NOVAQ_E_INTERRUPTED);
        assert_null(report);
        assert_int_equal(entries(dir), 0);
    }
    remove_dir(dir);
    nq_free(dir);
}

static void refuse(const novaq_ablation_options *o, novaq_status want, const char *says) {
    novaq_error err = {0};
    char *report = (char *)&err;
    assert_int_equal(novaq_ablation(&report, o, &err), want);
    assert_null(report);
    if (strstr(err.msg, says) == NULL) {
        fail_msg("'%s' is not in: %s", says, err.msg);
    }
}

static void test_refusals(void **state) {
    (void)state;
    char *dir = scratch_dir();
    novaq_compress_options c = k16();
    novaq_ablation_options o = options(&c, dir);
    o.variants = "full,no-luck";
    refuse(&o, NOVAQ_E_ARG, "no variant 'no-luck': use full, ");
    refuse(&o, NOVAQ_E_ARG,
           "no-normalization, no-residual, no-rotation, no-feedback, no-feedback-no-scales, "
           "no-propagation, no-calibration, no-sliding, paper");
    o = options(&c, dir);
    o.model = NULL;
    refuse(&o, NOVAQ_E_ARG, "no model or text");
    o = options(&c, dir);
    c.calibration = o.text_file;
    refuse(&o, NOVAQ_E_ARG, "proves nothing");
    c = k16();
    o = options(&c, "/nonexistent-folder");
    refuse(&o, NOVAQ_E_IO, "/nonexistent-folder");
    o = options(&c, dir);
    o.text_file = TINY("missing.txt");
    refuse(&o, NOVAQ_E_IO, "missing.txt");
    o = options(&c, dir);
    c.scheme = "nonsense";
    refuse(&o, NOVAQ_E_ARG, "nonsense");
    assert_int_equal(entries(dir), 0);
    remove_dir(dir);
    nq_free(dir);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_rows),
        cmocka_unit_test(test_full_row),
        cmocka_unit_test(test_refined),
        cmocka_unit_test(test_rows_that_do_not_apply),
        cmocka_unit_test(test_pieces_of_a_rotation),
        cmocka_unit_test(test_planned),
        cmocka_unit_test(test_interruption),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
