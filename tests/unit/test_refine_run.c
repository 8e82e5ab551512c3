/* test_refine_run.c - refinement from its options: what it must not overwrite, checkpoints
 * of other runs, teachers that are another model, telemetry that cannot be measured, short
 * texts, the two halves of compressing with refinement as one, every architecture.
 * Threads: see test_refine.c. */
#include "refine_util.h"

#include <fcntl.h>

#include "artifact/artifact.h"
#include "refine/checkpoint.h"

#define ARCH(name) FIXTURES "/arch/" name

static void refused(job *j, const char *says) {
    assert_int_equal(run(j, NULL), NOVAQ_E_ARG);
    if (strstr(j->err.msg, says) == NULL) {
        fail_msg("'%s' does not say '%s'", j->err.msg, says);
    }
}

static char *beside(const job *j, const char *name) {
    char *path = NULL;
    assert_int_equal(nq_path_join(&path, j->dir, name, NULL), NOVAQ_OK);
    return path;
}

static void copy_file(const char *to, const char *from) {
    size_t len = 0;
    char *data = bytes_of(from, &len);
    assert_int_equal(nq_write_file(to, data, len, NULL), NOVAQ_OK);
    nq_free(data);
}

/* ---- what must stay -------------------------------------------------------------------- */

static void refused_checkpoint(job *j, char *path, const char *says) {
    j->o.checkpoint = path;
    for (int restart = 0; restart < 2; restart++) {
        j->o.restart = restart;
        refused(j, says);
    }
    j->o.restart = 0;
    j->o.checkpoint = NULL;
    nq_free(path);
}

static void test_checkpoint_places(void **state) {
    (void)state;
    job j = open_job("k16d2l2");
    size_t len = 0;
    size_t made_len = 0;
    char *text = bytes_of(j.text, &len);
    char *made = bytes_of(j.made, &made_len);
    char *copy = beside(&j, "model.gguf");
    copy_file(copy, TINY("a.gguf"));
    j.o.steps = 2;
    refused_checkpoint(&j, beside(&j, "text.txt"), "is not a checkpoint");
    refused_checkpoint(&j, beside(&j, "."), "is not a checkpoint");
    refused_checkpoint(&j, beside(&j, "out.bin"), "checkpoint and output");
    refused_checkpoint(&j, beside(&j, "./made.bin"), "checkpoint and artifact");
    j.o.teacher = copy;
    refused_checkpoint(&j, beside(&j, "model.gguf"), "checkpoint and teacher");
    j.o.single_file = 0;
    refused_checkpoint(&j, beside(&j, "out.bin/point"), "no place in an artifact");
    assert_int_equal(mkdir(j.output, 0700), 0);
    refused_checkpoint(&j, beside(&j, "out.bin/point"), "no place in an artifact");
    /* A file of the default name that is something else. */
    char *usual = beside(&j, "out.bin.refine");
    copy_file(usual, j.text);
    refused(&j, "is not a checkpoint");
    j.o.restart = 1;
    refused(&j, "is not a checkpoint");
    assert_same_file(usual, text, len);
    assert_same_file(j.text, text, len);
    assert_same_file(j.made, made, made_len);
    nq_free(usual);
    nq_free(copy);
    nq_free(text);
    nq_free(made);
    close_job(&j);
}

/* The artifact by another name is the artifact. */
static void test_never_changed(void **state) {
    (void)state;
    job j = open_job("k16d2l2");
    size_t len = 0;
    char *made = bytes_of(j.made, &len);
    char *other = beside(&j, "other.bin");
    char *dotted = beside(&j, "./made.bin");
    assert_int_equal(link(j.made, other), 0);
    j.o.output = other;
    refused(&j, "both artifact and output");
    j.o.output = dotted;
    refused(&j, "both artifact and output");
    assert_same_file(j.made, made, len);
    nq_free(other);
    nq_free(dotted);
    nq_free(made);
    close_job(&j);
}

/* ---- checkpoints ------------------------------------------------------------------------- */

static void test_slash(void **state) {
    (void)state;
    job j = open_job("k16d2l2");
    char *folder = beside(&j, "out//");
    char *point = beside(&j, "out.refine");
    j.o.output = folder;
    j.o.single_file = 0;
    j.stop_at = 60;
    assert_int_equal(run(&j, NULL), NOVAQ_E_INTERRUPTED);
    assert_true(nq_is_file(point));
    j.stop_at = 0;
    json_t *report = refine(&j);
    assert_true(number(report, "resumed_at") > 0);
    assert_false(nq_is_file(point));
    assert_int_equal(novaq_verify(NULL, folder, 1, NULL, NULL, &j.err), NOVAQ_OK);
    json_decref(report);
    nq_free(folder);
    nq_free(point);
    close_job(&j);
}

/* A model that was copied or touched is the same; another one of the same shape is not. */
static void test_same_teacher(void **state) {
    (void)state;
    job j = open_job("k16d2l2");
    char *model = beside(&j, "model.gguf");
    char *moved = beside(&j, "moved.gguf");
    const struct timespec past[2] = {{.tv_sec = 1000}, {.tv_sec = 1000}};
    copy_file(model, TINY("a.gguf"));
    copy_file(moved, TINY("a.gguf"));
    j.o.teacher = model;
    j.stop_at = 60;
    assert_int_equal(run(&j, NULL), NOVAQ_E_INTERRUPTED);
    assert_int_equal(utimensat(AT_FDCWD, moved, past, 0), 0);
    assert_int_equal(rename(moved, model), 0);
    j.stop_at = 0;
    json_t *report = refine(&j);
    assert_true(number(report, "resumed_at") > 0);
    json_decref(report);
    j.stop_at = 60;
    assert_int_equal(run(&j, NULL), NOVAQ_E_INTERRUPTED);
    size_t len = 0;
    char *data = bytes_of(model, &len);
    for (size_t i = len / 2; i < len; i += 64) {
        data[i] ^= 1;
    }
    assert_int_equal(nq_write_file(model, data, len, NULL), NOVAQ_OK);
    refused(&j, "another refinement");
    nq_free(data);
    nq_free(model);
    nq_free(moved);
    close_job(&j);
}

/* Ctrl-C is seen at every block of every pass. */
static void test_asks(void **state) {
    (void)state;
    job j = open_job("k16d2l2");
    const unsigned blocks = 2;
    j.o.steps = 1;
    json_decref(refine(&j));
    /* Measured: teacher, student; a step: teacher, student and back; then twice rounded. */
    assert_true(j.calls >= (2 + 3 + 2) * blocks);
    close_job(&j);
}

/* ---- teachers ---------------------------------------------------------------------------------
 */

/* A copy of model a whose tokens stand for each other's text. */
static char *shifted_model(void) {
    char *dir = altered_model("bos_token_id", "0");
    json_t *tokenizer = load_json(TINY("a-hf/tokenizer.json"));
    json_t *vocab = json_object_get(json_object_get(tokenizer, "model"), "vocab");
    json_int_t n = (json_int_t)json_object_size(vocab) - 2;
    const char *token;
    json_t *id;
    json_object_foreach(vocab, token, id) {
        json_int_t old = json_integer_value(id);
        assert_int_equal(json_integer_set(id, old < 2 ? old : 2 + (old - 2 + 7) % n), 0);
    }
    char *path = NULL;
    assert_int_equal(nq_path_join(&path, dir, "tokenizer.json", NULL), NOVAQ_OK);
    assert_int_equal(unlink(path), 0);
    write_json(dir, "tokenizer.json", tokenizer);
    json_decref(tokenizer);
    nq_free(path);
    return dir;
}

static void test_other_tokens(void **state) {
    (void)state;
    job j = open_job("k16d2l2");
    char *dir = shifted_model();
    j.o.teacher = dir;
    j.o.steps = 2;
    refused(&j, "stand for other text than the teacher's");
    remove_dir(dir);
    nq_free(dir);
    close_job(&j);
}

static void test_other_size(void **state) {
    (void)state;
    job j = open_job("k16d2l2");
    j.o.teacher = TINY("b.gguf");
    j.o.steps = 2;
    json_t *report = refine(&j);
    assert_non_null(warning(report, "the teacher is another model (llama, 2 blocks of width 32)"));
    assert_int_equal(j.notes, 1);
    json_decref(report);
    j.o.lambda = 0.1;
    refused(&j, "lambda must be 0");
    close_job(&j);
}

/* ---- telemetry ----------------------------------------------------------------------------- */

static unsigned unknown_layers(const char *path) {
    nq_artifact *a = NULL;
    unsigned n = 0;
    assert_int_equal(nq_artifact_open(&a, path, NULL), NOVAQ_OK);
    for (size_t i = 0; i < nq_artifact_count(a); i++) {
        const nq_layer *l = nq_artifact_at(a, i);
        assert_true(!l->error_unknown || (l->error.sq_source <= 0 && l->error.sq_error <= 0));
        n += l->error_unknown;
    }
    nq_artifact_close(&a);
    return n;
}

static json_t *stats_of(const char *path) {
    char *text = NULL;
    json_t *o = NULL;
    assert_int_equal(novaq_stats(&text, path, NULL), NOVAQ_OK);
    assert_int_equal(nq_json_parse(&o, "stats", text, strlen(text), NULL), NOVAQ_OK);
    novaq_free(text);
    return o;
}

/* The same model with other names of its tensors: nothing to compare with. */
static void test_unknown_error(void **state) {
    (void)state;
    job j = open_job("k16d2l2");
    j.o.teacher = TINY("a-hf");
    json_t *report = refine(&j);
    assert_int_equal(json_array_size(json_object_get(report, "warnings")), 0);
    assert_true(number(report, "best_step") > 0);
    assert_true(json_is_null(json_object_get(json_object_get(report, "summary"), "global_mse")));
    assert_true(unknown_layers(j.output) > 0);
    assert_int_equal(novaq_verify(NULL, j.output, 1, NULL, NULL, &j.err), NOVAQ_OK);
    json_decref(report);
    json_t *stats = stats_of(j.output);
    json_t *layer = json_object_get(json_object_get(stats, "layers"), "blk.0.attn_q.weight");
    assert_non_null(layer);
    assert_null(json_object_get(layer, "mse"));
    assert_null(json_object_get(stats, "global_mse"));
    json_decref(stats);
    /* Known again, once its own source is the teacher. */
    char *again = beside(&j, "again.bin");
    j.o.artifact = j.output;
    j.o.output = again;
    j.o.teacher = TINY("a.gguf");
    report = refine(&j);
    if (number(report, "best_step") > 0) {
        assert_true(unknown_layers(again) < unknown_layers(j.output));
    }
    json_decref(report);
    nq_free(again);
    close_job(&j);
}

/* ---- texts -------------------------------------------------------------------------------------
 */

static void test_short_text(void **state) {
    (void)state;
    job j = open_job("k16d2l2");
    j.o.steps = 1;
    j.o.calibration_tokens = 50;
    json_t *report = refine(&j); /* of 32 tokens there is one sequence only */
    assert_int_equal(number(report, "sequence"), 25);
    json_decref(report);
    j.o.calibration_tokens = 16;
    report = refine(&j);
    assert_int_equal(number(report, "sequence"), 8);
    json_decref(report);
    j.o.calibration_tokens = 8;
    refused(&j, "8 tokens are too few");
    close_job(&j);
}

/* ---- compressing and refining ------------------------------------------------------------------
 */

typedef struct compression {
    novaq_compress_options o;
    bool stop; /* when it refines */
    unsigned tensors;
    char note[512];
    novaq_error err;
} compression;

static int stop_refining(void *ctx, const novaq_progress *p) {
    const compression *c = ctx;
    return c->stop && strcmp(p->phase, "refine") == 0 && p->done > 0;
}

static void on_note(void *ctx, const char *text) {
    compression *c = ctx;
    (void)snprintf(c->note, sizeof c->note, "%s", text);
}

static void on_tensor(void *ctx, const char *line) {
    (void)line;
    ((compression *)ctx)->tensors++;
}

static compression *open_compression(const job *j, const char *source) {
    compression *c = NULL;
    novaq_compress_options init = NOVAQ_COMPRESS_OPTIONS_INIT;
    assert_int_equal(nq_alloc(&c, 1, sizeof *c, NULL), NOVAQ_OK);
    c->o = init;
    c->o.input = source;
    c->o.output = j->output;
    c->o.single_file = 1;
    c->o.scheme = "k16d2l2";
    c->o.calibration = j->text;
    c->o.calibration_tokens = 512;
    c->o.threads = 1;
    c->o.refine = 1;
    c->o.refine_steps = 3;
    c->o.progress = stop_refining;
    c->o.note = on_note;
    c->o.tensor = on_tensor;
    c->o.progress_ctx = c->o.note_ctx = c->o.tensor_ctx = c;
    return c;
}

static json_t *compress(compression *c) {
    char *text = NULL;
    json_t *report = NULL;
    c->tensors = 0;
    c->note[0] = '\0';
    if (novaq_compress(&text, &c->o, &c->err) != NOVAQ_OK) {
        fail_msg("%s", c->err.msg);
    }
    assert_int_equal(nq_json_parse(&report, "report", text, strlen(text), NULL), NOVAQ_OK);
    novaq_free(text);
    return report;
}

/* Figures of the artifact, warnings of both halves, also when the first was done by a call
 * that was interrupted. */
static void test_whole_report(void **state) {
    (void)state;
    job j = open_job("k16d2l2");
    compression *c = open_compression(&j, TINY("b.gguf"));
    c->o.calibration_tokens = 100000; /* more than there are */
    for (int interrupted = 0; interrupted < 2; interrupted++) {
        if (interrupted) {
            c->stop = true;
            assert_int_equal(novaq_compress(NULL, &c->o, &c->err), NOVAQ_E_INTERRUPTED);
            c->stop = false;
        }
        json_t *report = compress(c);
        struct stat st;
        assert_int_equal(stat(j.output, &st), 0);
        assert_int_equal(number(report, "bytes"), st.st_size);
        assert_true(number(report, "bits_per_weight_quantized") > 2);
        assert_true(number(report, "bits_per_weight_quantized") <
                    number(report, "bits_per_weight"));
        assert_true(number(report, "parameters") > 0);
        assert_int_equal(number(report, "received_bytes"), 0);
        assert_int_equal(number(report, "verified_files"), 0);
        assert_string_equal(json_string_value(json_object_get(report, "output")), j.output);
        assert_non_null(warning(report, "of the 100000 tokens asked for"));
        assert_null(json_object_get(json_object_get(report, "refinement"), "warnings"));
        assert_true(interrupted ? c->tensors == 0 : c->tensors > 0);
        json_decref(report);
        assert_int_equal(unlink(j.output), 0);
    }
    nq_free(c);
    close_job(&j);
}

/* Other options are another refinement: the checkpoint is put aside, and gone in the end. */
static void test_put_aside(void **state) {
    (void)state;
    job j = open_job("k16d2l2");
    compression *c = open_compression(&j, TINY("a.gguf"));
    char *old = beside(&j, "out.bin.refine.old");
    c->stop = true;
    assert_int_equal(novaq_compress(NULL, &c->o, &c->err), NOVAQ_E_INTERRUPTED);
    c->o.refine_steps = 4;
    assert_int_equal(novaq_compress(NULL, &c->o, &c->err), NOVAQ_E_INTERRUPTED);
    assert_non_null(strstr(c->note, "starts afresh"));
    assert_true(nq_is_file(old));
    c->stop = false;
    json_t *report = compress(c); /* and goes on from there */
    const json_t *refinement = json_object_get(report, "refinement");
    assert_int_equal(c->tensors, 0);
    assert_string_equal(c->note, "");
    assert_true(number(refinement, "resumed_at") > 0);
    assert_int_equal(number(refinement, "steps"), 4);
    assert_false(nq_is_file(old));
    json_decref(report);
    nq_free(old);
    nq_free(c);
    close_job(&j);
}

/* Known before anything is done. */
static void test_cannot_be_taught(void **state) {
    (void)state;
    job j = open_job("k16d2l2");
    char *dir = altered_model("model_type", "\"nobody\"");
    compression *c = open_compression(&j, dir);
    char *made = beside(&j, "out.bin.unrefined");
    char *plan = NULL;
    c->o.calibration = "auto";
    assert_int_equal(novaq_compress(NULL, &c->o, &c->err), NOVAQ_E_UNSUPPORTED);
    assert_non_null(strstr(c->err.msg, "refining: "));
    assert_int_equal(c->tensors, 0);
    assert_false(nq_is_file(made));
    assert_int_equal(novaq_plan(&plan, &c->o, &c->err), NOVAQ_E_UNSUPPORTED);
    c->o.refine = 0;
    json_decref(compress(c));
    nq_free(made);
    nq_free(c);
    remove_dir(dir);
    nq_free(dir);
    close_job(&j);
}

static uint64_t planned_bytes(compression *c) {
    char *text = NULL;
    json_t *plan = NULL;
    if (novaq_plan(&text, &c->o, &c->err) != NOVAQ_OK) {
        fail_msg("%s", c->err.msg);
    }
    assert_int_equal(nq_json_parse(&plan, "plan", text, strlen(text), NULL), NOVAQ_OK);
    uint64_t bytes = (uint64_t)number(plan, "bytes");
    novaq_free(text);
    json_decref(plan);
    return bytes;
}

/* A plan with refinement has room for what it adds, and a target size holds after it. */
static void test_room(void **state) {
    (void)state;
    job j = open_job("k16d2l2");
    compression *c = open_compression(&j, TINY("b.gguf")); /* 96 columns: two groups */
    c->o.calibration = "none";
    c->o.scheme = NULL;
    c->o.refine = 0;
    c->o.target_bits = 2;
    uint64_t plain = planned_bytes(c);
    c->o.refine = 1;
    c->o.scheme = "k16d2l2";
    uint64_t room = planned_bytes(c);
    c->o.refine = 0;
    assert_true(room > planned_bytes(c));
    c->o.scheme = NULL;
    c->o.refine = 1;
    c->o.target_size = plain + 4096;
    assert_true(planned_bytes(c) <= c->o.target_size);
    c->o.calibration = j.text;
    json_t *report = compress(c);
    assert_true(number(report, "bytes") <= (double)c->o.target_size);
    json_decref(report);
    c->o.target_size = 1234;
    assert_int_equal(novaq_compress(NULL, &c->o, &c->err), NOVAQ_E_ARG);
    assert_non_null(strstr(c->err.msg, "target size 1234"));
    nq_free(c);
    close_job(&j);
}

/* ---- every architecture ------------------------------------------------------------------------
 */

/* What was measured after is what is measured before the next time. */
static void test_architectures(void **state) {
    (void)state;
    static const char *const sources[] = {
        ARCH("llama-hf"),   ARCH("mistral-hf"),  ARCH("qwen2-hf"),    ARCH("qwen3-hf"),
        ARCH("gemma2-hf"),  ARCH("gemma3-hf"),   ARCH("phi3-hf"),     ARCH("gpt2-hf"),
        ARCH("mixtral-hf"), ARCH("qwen3moe-hf"), ARCH("gemma3.gguf"), ARCH("mixtral.gguf")};
    for (size_t i = 0; i < sizeof sources / sizeof sources[0]; i++) {
        job j = open_job_of(sources[i], "k16d2l2");
        char *again = beside(&j, "again.bin");
        j.o.steps = 6;
        j.o.exact = 1;
        json_t *first = refine(&j);
        double after = number(json_object_get(first, "held_out_kl"), "after");
        if (!(number(first, "best_step") > 0 &&
              after < number(json_object_get(first, "held_out_kl"), "before"))) {
            fail_msg("%s: nothing was learnt", sources[i]);
        }
        assert_int_equal(json_array_size(json_object_get(first, "warnings")), 0);
        j.o.artifact = j.output;
        j.o.output = again;
        j.o.steps = 1;
        json_t *second = refine(&j);
        assert_near(number(json_object_get(second, "held_out_kl"), "before"), after, 1e-5,
                    sources[i]);
        json_decref(first);
        json_decref(second);
        nq_free(again);
        close_job(&j);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_checkpoint_places),
        cmocka_unit_test(test_never_changed),
        cmocka_unit_test(test_slash),
        cmocka_unit_test(test_same_teacher),
        cmocka_unit_test(test_asks),
        cmocka_unit_test(test_other_tokens),
        cmocka_unit_test(test_other_size),
        cmocka_unit_test(test_unknown_error),
        cmocka_unit_test(test_short_text),
        cmocka_unit_test(test_whole_report),
        cmocka_unit_test(test_put_aside),
        cmocka_unit_test(test_cannot_be_taught),
        cmocka_unit_test(test_room),
        cmocka_unit_test(test_architectures),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
