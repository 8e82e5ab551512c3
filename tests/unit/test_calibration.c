/* test_calibration.c - the tokens a model is calibrated on: windows of a file, and
 * text the model samples, which must be the same for any number of threads and
 * follow the model's own predictions. */
#include "model_util.h"

#include <math.h>
#include <sys/stat.h>

#include "compress/calibration.h"
#include "model/model.h"
#include "model/tokenizer.h"

#define WINDOW 512

static novaq_error err;

/* What the model's tokenizer makes of the file, without BOS. */
static int32_t *tokens_of(size_t *count, int32_t *bos, const char *model, const char *path) {
    nq_weights *w = NULL;
    nq_tokenizer *tok = NULL;
    char *text = NULL;
    size_t len = 0;
    int32_t *ids = NULL;
    assert_int_equal(nq_weights_open(&w, model, NULL), NOVAQ_OK);
    assert_int_equal(
        nq_tokenizer_open(&tok, json_object_get(nq_weights_model(w), "tokenizer"), NULL), NOVAQ_OK);
    assert_int_equal(nq_read_file(&text, &len, path, 1U << 24, NULL), NOVAQ_OK);
    assert_int_equal(nq_tokenizer_encode(&ids, count, tok, text, len, 0, 0, NULL), NOVAQ_OK);
    *bos = nq_tokenizer_adds_bos(tok) ? nq_tokenizer_bos(tok) : -1;
    nq_free(text);
    nq_tokenizer_close(&tok);
    nq_weights_close(&w);
    return ids;
}

typedef struct request {
    const char *model, *calibration;
    uint32_t wanted;
    uint64_t seed;
    unsigned threads;
    novaq_progress_fn progress;
} request;

static novaq_status open_text(nq_calibration *c, char **why, const request *q) {
    nq_tensors *ts = NULL;
    nq_pool *pool = NULL;
    memset(&err, 0, sizeof err);
    assert_int_equal(nq_tensors_open(&ts, q->model, &err), NOVAQ_OK);
    assert_int_equal(nq_pool_open(&pool, q->threads, NULL), NOVAQ_OK);
    novaq_status st = nq_calibration_open(c, why, q->model, ts, q->calibration, q->wanted, q->seed,
                                          pool, q->progress, NULL, &err);
    nq_pool_close(&pool);
    nq_tensors_close(&ts);
    return st;
}

static void check_windows(const char *model, const char *path, uint32_t wanted,
                          uint32_t sequences) {
    nq_calibration c;
    char *why = NULL;
    size_t count = 0;
    int32_t bos = -1;
    request q = {model, path, wanted, 1, 1, NULL};
    int32_t *ids = tokens_of(&count, &bos, model, path);
    assert_int_equal(open_text(&c, &why, &q), NOVAQ_OK);
    assert_null(why);
    assert_int_equal(c.length, WINDOW);
    assert_int_equal(c.sequences, sequences);
    for (uint32_t s = 0; s < sequences; s++) {
        size_t start = sequences > 1 ? (count - WINDOW) * s / (sequences - 1) : 0;
        const int32_t *got = c.tokens + (size_t)s * WINDOW;
        assert_int_equal(got[0], bos >= 0 ? bos : ids[start]);
        assert_memory_equal(got + 1, ids + start + 1, (WINDOW - 1) * sizeof *ids);
    }
    nq_free(ids);
    nq_calibration_close(&c);
}

static void windows_of_a_file(void **state) {
    (void)state;
    char *dir = scratch_dir();
    char *path = text_file(dir, 120);
    size_t count = 0;
    int32_t bos = -1;
    nq_free(tokens_of(&count, &bos, TINY("a.gguf"), path));
    uint32_t most = (uint32_t)(count / WINDOW);
    assert_true(most >= 3 && count % WINDOW != 0);
    static const char *const MODELS[] = {TINY("a.gguf"), TINY("a-hf"), TINY("b.gguf")};
    for (size_t i = 0; i < 3; i++) {
        check_windows(MODELS[i], path, 1, 1);
        check_windows(MODELS[i], path, WINDOW, 1);
        check_windows(MODELS[i], path, WINDOW + 1, 2);
        check_windows(MODELS[i], path, 3 * WINDOW, 3);
        check_windows(MODELS[i], path, 0, most);
        check_windows(MODELS[i], path, 1U << 22, most);
    }
    remove_dir(dir);
    nq_free(path);
    nq_free(dir);
}

static void refuse(const request *q, novaq_status status, const char *says) {
    nq_calibration c;
    char *why = NULL;
    novaq_status st = open_text(&c, &why, q);
    if (st != status || strstr(err.msg, says) == NULL) {
        fail_msg("%s: %d %s", q->calibration, st, err.msg);
    }
    assert_null(why);
    assert_null(c.tokens);
    assert_int_equal(c.sequences, 0);
}

static void files_that_do_not_do(void **state) {
    (void)state;
    char *dir = scratch_dir();
    char *path = text_file(dir, 5);
    request q = {TINY("a.gguf"), path, 0, 1, 1, NULL};
    refuse(&q, NOVAQ_E_ARG, "too few");
    assert_int_equal(nq_write_file(path, "", 0, NULL), NOVAQ_OK);
    refuse(&q, NOVAQ_E_ARG, "too few");
    assert_int_equal(unlink(path), 0);
    refuse(&q, NOVAQ_E_IO, "text.txt");
    q.calibration = dir;
    refuse(&q, NOVAQ_E_IO, dir);
    q.calibration = "self";
    q.wanted = (1U << 22) + 1;
    refuse(&q, NOVAQ_E_ARG, "calibration tokens");
    remove_dir(dir);
    nq_free(path);
    nq_free(dir);
}

/* A text is told by its content, wherever it lies; what can be read once is refused. */
static void hashes_of_texts(void **state) {
    (void)state;
    static const char *const NO_FILES[] = {"none", "self", "auto", NULL};
    char *dir = scratch_dir();
    char *paths[3];
    char hex[3][NQ_BLAKE3_HEX + 1];
    for (size_t i = 0; i < 3; i++) {
        const char *content = i < 2 ? "a text" : "another";
        assert_int_equal(nq_asprintf(&paths[i], NULL, "%s/%zu.txt", dir, i), NOVAQ_OK);
        assert_int_equal(nq_write_file(paths[i], content, strlen(content), NULL), NOVAQ_OK);
        assert_int_equal(nq_calibration_hash(hex[i], paths[i], NULL), NOVAQ_OK);
    }
    assert_string_equal(hex[0], hex[1]);
    assert_string_not_equal(hex[0], hex[2]);
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(nq_calibration_hash(hex[0], NO_FILES[i], NULL), NOVAQ_OK);
        assert_string_equal(hex[0], "");
    }
    assert_int_equal(unlink(paths[0]), 0);
    assert_int_equal(nq_calibration_hash(hex[0], paths[0], &err), NOVAQ_E_IO);
    assert_int_equal(mkfifo(paths[0], 0600), 0);
    assert_int_equal(nq_calibration_hash(hex[0], paths[0], &err), NOVAQ_E_ARG);
    assert_non_null(strstr(err.msg, "write it to a file first"));
    for (size_t i = 0; i < 3; i++) {
        nq_free(paths[i]);
    }
    remove_dir(dir);
    nq_free(dir);
}

/* Nothing is asked for, or nothing can be had: no text, and why. */
static void without_text(void **state) {
    (void)state;
    char *strange = altered_model("model_type", "\"xyz\"");
    nq_calibration c;
    char *why = NULL;
    request q = {TINY("a.gguf"), "none", 0, 1, 1, NULL};
    assert_int_equal(open_text(&c, &why, &q), NOVAQ_OK);
    assert_null(why);
    assert_int_equal(c.sequences, 0);
    q.calibration = NULL;
    assert_int_equal(open_text(&c, &why, &q), NOVAQ_OK);
    assert_null(why);
    assert_int_equal(c.sequences, 0);
    q.model = strange;
    q.calibration = "auto";
    assert_int_equal(open_text(&c, &why, &q), NOVAQ_OK);
    assert_non_null(why);
    assert_non_null(strstr(why, "xyz"));
    assert_int_equal(c.sequences, 0);
    assert_null(c.tokens);
    nq_free(why);
    q.calibration = "self";
    refuse(&q, NOVAQ_E_UNSUPPORTED, "xyz");
    q.calibration = TINY("text.txt");
    refuse(&q, NOVAQ_E_UNSUPPORTED, "xyz");
    remove_dir(strange);
    nq_free(strange);
}

static void same_text_for_any_thread_count(void **state) {
    (void)state;
    static const char *const MODELS[] = {TINY("a.gguf"), TINY("b-hf")};
    for (size_t i = 0; i < 2; i++) {
        nq_calibration want, got;
        char *why = NULL;
        request q = {MODELS[i], "self", 700, 5, 1, NULL};
        assert_int_equal(open_text(&want, &why, &q), NOVAQ_OK);
        assert_int_equal(want.length, 256);
        assert_int_equal(want.sequences, 3); /* whole sequences */
        size_t bytes = (size_t)want.sequences * want.length * sizeof(int32_t);
        for (unsigned threads = 2; threads <= 3; threads++) {
            q.threads = threads;
            q.calibration = threads == 2 ? "self" : "auto";
            assert_int_equal(open_text(&got, &why, &q), NOVAQ_OK);
            assert_null(why);
            assert_int_equal(got.sequences, want.sequences);
            assert_memory_equal(got.tokens, want.tokens, bytes);
            nq_calibration_close(&got);
        }
        q.seed = 6;
        assert_int_equal(open_text(&got, &why, &q), NOVAQ_OK);
        assert_memory_not_equal(got.tokens, want.tokens, bytes);
        /* Sequences are different texts. */
        assert_memory_not_equal(want.tokens, want.tokens + 256, 256 * sizeof(int32_t));
        nq_calibration_close(&got);
        nq_calibration_close(&want);
    }
}

/* The mean of -log p of the tokens that followed is the mean entropy of the
 * predictions: what was sampled has the model's own distribution. */
static void samples_follow_the_model(void **state) {
    (void)state;
    enum { SEQUENCES = 6, LENGTH = 256 };
    nq_calibration c;
    char *why = NULL;
    request q = {TINY("a.gguf"), "self", SEQUENCES * LENGTH, 11, 1, NULL};
    assert_int_equal(open_text(&c, &why, &q), NOVAQ_OK);
    nq_model *m = NULL;
    nq_run *r = NULL;
    float *logits = NULL;
    assert_int_equal(nq_model_open(&m, q.model, NULL, NULL), NOVAQ_OK);
    assert_int_equal(nq_run_open(&r, m, 1, LENGTH, LENGTH, NULL), NOVAQ_OK);
    uint32_t vocab = m->hyper.vocab;
    assert_int_equal(nq_alloc(&logits, (uint64_t)LENGTH * vocab, sizeof *logits, NULL), NOVAQ_OK);
    uint32_t rows[LENGTH];
    double surprise = 0;
    double entropy = 0;
    for (uint32_t i = 0; i < LENGTH; i++) {
        rows[i] = i;
    }
    for (uint32_t s = 0; s < SEQUENCES; s++) {
        const int32_t *tokens = c.tokens + (size_t)s * LENGTH;
        nq_run_reset(r);
        assert_int_equal(nq_run_feed(r, tokens, 1, LENGTH, NULL), NOVAQ_OK);
        assert_int_equal(nq_run_logits(logits, r, rows, LENGTH, NULL), NOVAQ_OK);
        for (uint32_t t = 0; t + 1 < LENGTH; t++) {
            const float *l = logits + (size_t)t * vocab;
            double sum = 0;
            for (uint32_t v = 0; v < vocab; v++) {
                sum += exp((double)l[v]);
            }
            for (uint32_t v = 0; v < vocab; v++) {
                double p = exp((double)l[v]) / sum;
                entropy -= p > 0 ? p * log(p) / (SEQUENCES * (LENGTH - 1.0)) : 0;
            }
            assert_in_range(tokens[t + 1], 0, vocab - 1);
            surprise -= ((double)l[tokens[t + 1]] - log(sum)) / (SEQUENCES * (LENGTH - 1.0));
        }
    }
    /* Some 1500 samples of a standard deviation of about 1. */
    assert_near(surprise, entropy, 0.12, "surprise");
    assert_true(entropy < 0.95 * log((double)vocab)); /* so it is not uniform either */
    nq_free(logits);
    nq_run_close(&r);
    nq_model_close(&m);
    nq_calibration_close(&c);
}

static int stop_at_ten(void *ctx, const novaq_progress *p) {
    (void)ctx;
    assert_string_equal(p->phase, "sample");
    assert_true(p->done < p->total);
    return p->done >= 10;
}

static void can_be_stopped(void **state) {
    (void)state;
    request q = {TINY("a.gguf"), "self", 256, 1, 1, stop_at_ten};
    refuse(&q, NOVAQ_E_INTERRUPTED, "interrupted");
    q.calibration = "auto";
    refuse(&q, NOVAQ_E_INTERRUPTED, "interrupted");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(windows_of_a_file),
        cmocka_unit_test(files_that_do_not_do),
        cmocka_unit_test(hashes_of_texts),
        cmocka_unit_test(without_text),
        cmocka_unit_test(same_text_for_any_thread_count),
        cmocka_unit_test(samples_follow_the_model),
        cmocka_unit_test(can_be_stopped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
