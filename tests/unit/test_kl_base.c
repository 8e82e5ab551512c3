/* test_kl_base.c - the file of a model's predictions: rows there and back, a
 * whole evaluation through a file, a file and figures made by llama-perplexity
 * (tests/fixtures/eval), and files that lie. */
#include "model_util.h"

#include <math.h>
#include <sys/stat.h>

#include "base/rng.h"
#include "eval/kl_base.h"

#define LLAMA_BASE FIXTURES "/eval/llama.kld"

static novaq_eval_options options(const char *model) {
    novaq_eval_options o = NOVAQ_EVAL_OPTIONS_INIT;
    o.model = model;
    o.text_file = TINY("text.txt");
    o.n_ctx = 16;
    o.threads = 2;
    return o;
}

static json_t *evaluate(const novaq_eval_options *o) {
    novaq_error err = {0};
    char *report = NULL;
    json_t *got = NULL;
    if (novaq_eval(&report, o, &err) != NOVAQ_OK) {
        fail_msg("%s", err.msg);
    }
    assert_int_equal(nq_json_parse_object(&got, "report", report, strlen(report), NULL), NOVAQ_OK);
    novaq_free(report);
    return got;
}

static json_t *compare(const char *model, const char *base) {
    novaq_eval_options o = options(model);
    o.text_file = NULL;
    o.n_ctx = 512; /* the file's counts */
    o.kl_base = base;
    o.kl_divergence = 1;
    return evaluate(&o);
}

/* A folder, and a path in it. */
typedef struct place {
    char *dir;
    char *path;
} place;

static place make_place(const char *name) {
    place p = {.dir = scratch_dir()};
    assert_int_equal(nq_path_join(&p.path, p.dir, name, NULL), NOVAQ_OK);
    return p;
}

static void drop_place(place *p) {
    remove_dir(p->dir);
    nq_free(p->path);
    nq_free(p->dir);
}

static size_t entries(const char *dir) {
    char **names = NULL;
    size_t count = 0;
    assert_int_equal(nq_list_dir(&names, &count, dir, NULL), NOVAQ_OK);
    nq_free_names(names, count);
    return count;
}

/* ---- rows ----------------------------------------------------------------- */

#define VOCAB 37

static void test_row(void **state) {
    (void)state;
    float logits[VOCAB];
    float scratch[VOCAB];
    float logp[VOCAB];
    uint16_t row[64];
    assert_int_equal(nq_kl_row_words(VOCAB), 42); /* 4 + 37 + a blank one */
    assert_int_equal(nq_kl_row_words(VOCAB + 1), 42);
    for (uint32_t i = 0; i < VOCAB; i++) {
        logits[i] = 3.0F * (float)nq_normal(1, 2, i);
    }
    logits[5] = -100;
    memset(row, 0xff, sizeof row);
    nq_kl_row_encode(row, logits, scratch, VOCAB);
    assert_int_equal(row[4 + VOCAB], 0);
    assert_int_equal(row[42], 0xffff);
    assert_true(nq_kl_row_decode(logp, row, VOCAB));
    double sum = 0;
    float max = logits[0];
    for (uint32_t i = 0; i < VOCAB; i++) {
        sum += exp((double)logits[i]);
        max = logits[i] > max ? logits[i] : max;
    }
    for (uint32_t i = 0; i < VOCAB; i++) {
        double want = fmax((double)logits[i], (double)max - 16.0) - log(sum);
        assert_near((double)logp[i], want, 0.51 * 16.0 / 65535.0 + 2e-6, "log-probability");
    }
    assert_int_equal(row[4 + 5], 0);
}

static void test_odd_rows(void **state) {
    (void)state;
    float logits[VOCAB];
    float scratch[VOCAB];
    float logp[VOCAB];
    uint16_t row[64];
    for (uint32_t i = 0; i < VOCAB; i++) {
        logits[i] = 7;
    }
    nq_kl_row_encode(row, logits, scratch, VOCAB);
    assert_true(nq_kl_row_decode(logp, row, VOCAB));
    assert_near((double)logp[3], -log(VOCAB), 1e-6, "all alike");
    logits[0] = 7.0000005F; /* one step of the last bit */
    nq_kl_row_encode(row, logits, scratch, VOCAB);
    assert_true(nq_kl_row_decode(logp, row, VOCAB));
    assert_near((double)logp[0], -log(VOCAB), 1e-5, "nearly alike");
    /* No numbers: any bytes, but no trap, and none that decode to a probability
     * above 1. */
    static const float odd[] = {NAN, INFINITY, -INFINITY, 3e38F, -3e38F};
    for (size_t i = 0; i < sizeof odd / sizeof odd[0]; i++) {
        logits[1] = odd[i];
        nq_kl_row_encode(row, logits, scratch, VOCAB);
        if (nq_kl_row_decode(logp, row, VOCAB)) {
            for (uint32_t k = 0; k < VOCAB; k++) {
                assert_true(logp[k] <= 0.01F);
            }
        }
    }
}

static void test_refused_rows(void **state) {
    (void)state;
    static const float heads[][2] = {{NAN, -1},      {1e-4F, NAN},       {-1e-4F, -1},
                                     {INFINITY, -1}, {1e-4F, -INFINITY}, {1e-4F, 0.5F},
                                     {1e-3F, -16},   {1e-4F, -2000},     {3e38F, -1}};
    float logp[VOCAB];
    uint16_t row[64];
    for (size_t i = 0; i < sizeof heads / sizeof heads[0]; i++) {
        memset(row, 0xff, sizeof row);
        memcpy(row, heads[i], sizeof heads[i]);
        assert_false(nq_kl_row_decode(logp, row, VOCAB));
    }
    memset(row, 0, sizeof row);
    assert_true(nq_kl_row_decode(logp, row, VOCAB)); /* one certain token is possible */
}

/* ---- whole evaluations ---------------------------------------------------- */

static void test_against_file(void **state) {
    (void)state;
    static const char *const keys[] = {"mean_kld", "kld_99",   "kld_max", "kld_median",
                                       "rms_dp",   "same_top", "ln_ratio"};
    place p = make_place("base.kld");
    novaq_eval_options o = options(TINY("a.gguf"));
    o.kl_base = p.path;
    json_t *source = evaluate(&o);
    assert_null(json_object_get(source, "mean_kld"));
    assert_int_equal(entries(p.dir), 1);
    /* 9 windows of 16 tokens, 7 positions scored, 272 tokens in the vocabulary. */
    struct stat s;
    assert_int_equal(stat(p.path, &s), 0);
    assert_int_equal(s.st_size, 20 + 9 * 16 * 4 + 9 * 7 * (272 + 4) * 2);
    json_t *file = compare(TINY("aq.gguf"), p.path);
    novaq_eval_options direct = options(TINY("aq.gguf"));
    direct.against = TINY("a.gguf");
    json_t *model = evaluate(&direct);
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        double want = number(model, keys[i]);
        assert_near(number(file, keys[i]), want, 2e-5 + 0.01 * fabs(want), keys[i]);
    }
    assert_near(number(file, "perplexity"), number(model, "perplexity"), 0, "perplexity");
    assert_near(number(file, "perplexity_against") / number(source, "perplexity"), 1, 1e-4,
                "perplexity of the reference");
    assert_int_equal(number(file, "chunks"), 9);
    assert_int_equal(number(file, "n_ctx"), 16);
    json_decref(model);
    json_decref(file);
    /* Against itself nothing but the rounding of the file is left. */
    file = compare(TINY("a.gguf"), p.path);
    assert_near(number(file, "mean_kld"), 0, 1e-6, "mean_kld");
    assert_near(number(file, "perplexity"), number(source, "perplexity"), 0, "perplexity");
    assert_near(number(file, "same_top"), 1, 0, "same_top");
    json_decref(file);
    json_decref(source);
    drop_place(&p);
}

static void test_fewer_windows(void **state) {
    (void)state;
    place p = make_place("base.kld");
    novaq_eval_options o = options(TINY("a.gguf"));
    o.kl_base = p.path;
    o.chunks = 5;
    json_decref(evaluate(&o));
    o = options(TINY("aq.gguf"));
    o.text_file = NULL;
    o.kl_base = p.path;
    o.kl_divergence = 1;
    o.chunks = 2;
    json_t *file = evaluate(&o);
    assert_int_equal(number(file, "chunks"), 2);
    assert_int_equal(number(file, "chunks_available"), 5);
    novaq_eval_options direct = options(TINY("aq.gguf"));
    direct.chunks = 2;
    json_t *want = evaluate(&direct);
    assert_near(number(file, "perplexity"), number(want, "perplexity"), 0, "perplexity");
    json_decref(want);
    json_decref(file);
    drop_place(&p);
}

/* Whatever the number of threads. */
static void test_same_bytes(void **state) {
    (void)state;
    char *text[2] = {NULL, NULL};
    size_t len[2] = {0, 0};
    for (unsigned i = 0; i < 2; i++) {
        place p = make_place("base.kld");
        novaq_eval_options o = options(TINY("b.gguf"));
        o.kl_base = p.path;
        o.threads = i == 0 ? 1 : 3;
        json_decref(evaluate(&o));
        assert_int_equal(nq_read_file(&text[i], &len[i], p.path, (size_t)1 << 24, NULL), NOVAQ_OK);
        drop_place(&p);
    }
    assert_int_equal(len[0], len[1]);
    assert_memory_equal(text[0], text[1], len[0]);
    nq_free(text[0]);
    nq_free(text[1]);
}

/* What llama-perplexity wrote and printed. Its key/value cache is binary16, so
 * its predictions differ in the fourth digit. */
static void test_llama(void **state) {
    (void)state;
    json_t *want = load_json(FIXTURES "/eval/llama.json");
    json_t *got = compare(TINY("aq.gguf"), LLAMA_BASE);
    assert_int_equal(number(got, "chunks"), number(want, "chunks"));
    assert_near(number(got, "perplexity") / number(want, "perplexity"), 1, 3e-4, "perplexity");
    assert_near(number(got, "perplexity_stderr") / number(want, "perplexity_stderr"), 1, 1e-3,
                "perplexity_stderr");
    assert_near(number(got, "ln_ratio"), number(want, "ln_ratio"), 2e-4, "ln_ratio");
    assert_near(number(got, "mean_kld"), number(want, "mean_kld"), 1e-5, "mean_kld");
    assert_near(number(got, "mean_kld_stderr"), number(want, "mean_kld_stderr"), 1e-5,
                "mean_kld_stderr");
    assert_near(number(got, "rms_dp"), number(want, "rms_dp"), 1e-4, "rms_dp");
    assert_near(number(got, "same_top"), number(want, "same_top"), 1e-5, "same_top");
    assert_near(number(got, "same_top_stderr"), number(want, "same_top_stderr"), 1e-5,
                "same_top_stderr");
    json_decref(got);
    json_decref(want);
}

/* Ours has the same header and tokens; the rows nearly the same numbers. */
static void test_llama_bytes(void **state) {
    (void)state;
    place p = make_place("base.kld");
    novaq_eval_options o = options(TINY("a.gguf"));
    o.kl_base = p.path;
    json_decref(evaluate(&o));
    nq_kl_base ours;
    nq_kl_base theirs;
    uint16_t row[2][276];
    float logp[2][272];
    assert_int_equal(nq_kl_base_open(&ours, p.path, NULL), NOVAQ_OK);
    assert_int_equal(nq_kl_base_open(&theirs, LLAMA_BASE, NULL), NOVAQ_OK);
    assert_int_equal(ours.source->size, theirs.source->size);
    assert_int_equal(ours.rows_at, theirs.rows_at);
    assert_int_equal(nq_kl_base_tokens(&ours, 9, NULL), NOVAQ_OK);
    assert_int_equal(nq_kl_base_tokens(&theirs, 9, NULL), NOVAQ_OK);
    assert_memory_equal(ours.tokens, theirs.tokens, sizeof(int32_t) * 9 * 16);
    for (uint64_t i = 0; i < 63; i++) {
        assert_int_equal(nq_kl_base_rows(row[0], &ours, i, 1, NULL), NOVAQ_OK);
        assert_int_equal(nq_kl_base_rows(row[1], &theirs, i, 1, NULL), NOVAQ_OK);
        assert_true(nq_kl_row_decode(logp[0], row[0], 272));
        assert_true(nq_kl_row_decode(logp[1], row[1], 272));
        for (uint32_t k = 0; k < 272; k++) {
            assert_near((double)logp[0][k], (double)logp[1][k], 0.02, "log-probability");
        }
    }
    assert_int_equal(nq_kl_base_rows(row[0], &ours, 63, 1, NULL), NOVAQ_E_FORMAT);
    nq_kl_base_close(&ours);
    nq_kl_base_close(&theirs);
    drop_place(&p);
}

/* ---- files that lie ------------------------------------------------------- */

static char *llama_bytes(size_t *len) {
    char *text = NULL;
    assert_int_equal(nq_read_file(&text, len, LLAMA_BASE, (size_t)1 << 24, NULL), NOVAQ_OK);
    return text;
}

/* Measuring against these bytes fails with `want`, in one line naming the file. */
static void refuse_bytes(const char *path, const void *data, size_t len, novaq_status want,
                         const char *says) {
    novaq_error err = {0};
    char *report = (char *)&err;
    novaq_eval_options o = options(TINY("aq.gguf"));
    o.text_file = NULL;
    o.kl_base = path;
    o.kl_divergence = 1;
    assert_int_equal(nq_write_file(path, data, len, NULL), NOVAQ_OK);
    assert_int_equal(novaq_eval(&report, &o, &err), want);
    assert_null(report);
    assert_non_null(strstr(err.msg, "base.kld"));
    assert_null(strchr(err.msg, '\n'));
    if (strstr(err.msg, says) == NULL) {
        fail_msg("'%s' is not in: %s", says, err.msg);
    }
}

static void test_lengths(void **state) {
    (void)state;
    place p = make_place("base.kld");
    size_t len = 0;
    char *good = llama_bytes(&len);
    char *longer = NULL;
    static const size_t lengths[] = {0, 1, 7};
    for (size_t i = 0; i < 3; i++) {
        refuse_bytes(p.path, good, lengths[i], NOVAQ_E_FORMAT, "no base");
    }
    for (size_t at = 8; at < 20; at++) {
        refuse_bytes(p.path, good, at, NOVAQ_E_FORMAT, "the file ends at");
    }
    for (size_t at = 20; at < len; at += 1 + len / 50) {
        refuse_bytes(p.path, good, at, NOVAQ_E_FORMAT, "written to its end");
    }
    assert_int_equal(nq_alloc(&longer, len + 1, 1, NULL), NOVAQ_OK);
    memcpy(longer, good, len);
    refuse_bytes(p.path, longer, len + 1, NOVAQ_E_FORMAT, "written to its end");
    nq_free(longer);
    nq_free(good);
    drop_place(&p);
}

/* One 32-bit word of the header changed. */
static void test_headers(void **state) {
    static const struct {
        size_t at;
        uint32_t value;
        novaq_status want;
        const char *says;
    } cases[] = {
        {0, 0x6c6f675e, NOVAQ_E_FORMAT, "offset 0: no base"},
        {8, 0, NOVAQ_E_FORMAT, "offset 8: a window of 0"},
        {8, 3, NOVAQ_E_FORMAT, "a window of 3"},
        {8, 17, NOVAQ_E_FORMAT, "written to its end"},
        {8, 0xffffffff, NOVAQ_E_FORMAT, "a window of 4294967295"},
        {12, 0, NOVAQ_E_FORMAT, "offset 12: a vocabulary of 0"},
        {12, 271, NOVAQ_E_ARG, "a vocabulary of 271 tokens, the model has 272"}, /* same size */
        {12, 0x7fffffff, NOVAQ_E_FORMAT, "written to its end"},
        {12, 0xffffffff, NOVAQ_E_FORMAT, "a vocabulary of 4294967295"},
        {16, 0, NOVAQ_E_FORMAT, "offset 16: 0 windows"},
        {16, 10, NOVAQ_E_FORMAT, "written to its end"},
        {16, 0x7fffffff, NOVAQ_E_FORMAT, "written to its end"},
        {16, 0x80000000, NOVAQ_E_FORMAT, "2147483648 windows"},
        {20, 272, NOVAQ_E_FORMAT, "offset 20: token 272 of a vocabulary of 272"},
        {20 + 4 * 100, 0xffffffff, NOVAQ_E_FORMAT, "offset 420: token -1"},
    };
    (void)state;
    place p = make_place("base.kld");
    size_t len = 0;
    char *bytes = llama_bytes(&len);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint32_t was;
        memcpy(&was, bytes + cases[i].at, sizeof was);
        memcpy(bytes + cases[i].at, &cases[i].value, sizeof was);
        refuse_bytes(p.path, bytes, len, cases[i].want, cases[i].says);
        memcpy(bytes + cases[i].at, &was, sizeof was);
    }
    /* All three at once, as large as they may be: beyond 64 bits. */
    static const uint32_t most[3] = {1U << 20, 0x7fffffff, 0x7fffffff};
    memcpy(bytes + 8, most, sizeof most);
    refuse_bytes(p.path, bytes, len, NOVAQ_E_FORMAT, "beyond 64 bits");
    nq_free(bytes);
    drop_place(&p);
}

static void test_rows_that_lie(void **state) {
    static const float heads[][2] = {{NAN, -9}, {2e-4F, 1}, {-1, -9}, {2e-4F, -INFINITY}};
    (void)state;
    place p = make_place("base.kld");
    size_t len = 0;
    char *bytes = llama_bytes(&len);
    size_t at = 20 + 9 * 16 * 4 + 40 * (272 + 4) * 2; /* the 41st row */
    char says[64];
    (void)snprintf(says, sizeof says, "offset %zu: no log-probabilities", at);
    for (size_t i = 0; i < sizeof heads / sizeof heads[0]; i++) {
        memcpy(bytes + at, heads[i], sizeof heads[i]);
        refuse_bytes(p.path, bytes, len, NOVAQ_E_FORMAT, says);
    }
    nq_free(bytes);
    drop_place(&p);
}

/* A window that the file may have but the model cannot. */
static void test_long_window(void **state) {
    (void)state;
    place p = make_place("base.kld");
    static const char magic[8] = {'_', 'l', 'o', 'g', 'i', 't', 's', '_'};
    const uint32_t head[3] = {128, 272, 1};
    size_t len = 20 + 128 * 4 + 63 * 276 * 2;
    char *bytes = NULL;
    assert_int_equal(nq_alloc(&bytes, len, 1, NULL), NOVAQ_OK);
    memcpy(bytes, magic, sizeof magic);
    memcpy(bytes + 8, head, sizeof head);
    refuse_bytes(p.path, bytes, len, NOVAQ_E_ARG, "context of 64");
    nq_free(bytes);
    drop_place(&p);
}

/* ---- what is written ------------------------------------------------------ */

static int stop_at_once(void *ctx, const novaq_progress *p) {
    (void)ctx;
    (void)p;
    return 1;
}

static void test_nothing_half_written(void **state) {
    (void)state;
    place p = make_place("base.kld");
    novaq_error err = {0};
    novaq_eval_options o = options(TINY("a.gguf"));
    o.kl_base = p.path;
    o.progress = stop_at_once;
    assert_int_equal(novaq_eval(NULL, &o, &err), NOVAQ_E_INTERRUPTED);
    assert_int_equal(entries(p.dir), 0);
    /* An older base stays as it is. */
    size_t len = 0;
    char *bytes = llama_bytes(&len);
    assert_int_equal(nq_write_file(p.path, bytes, len, NULL), NOVAQ_OK);
    assert_int_equal(novaq_eval(NULL, &o, &err), NOVAQ_E_INTERRUPTED);
    assert_int_equal(entries(p.dir), 1);
    char *now = NULL;
    size_t now_len = 0;
    assert_int_equal(nq_read_file(&now, &now_len, p.path, (size_t)1 << 24, NULL), NOVAQ_OK);
    assert_int_equal(now_len, len);
    assert_memory_equal(now, bytes, len);
    nq_free(now);
    nq_free(bytes);
    /* And gives way to a new one. */
    o.progress = NULL;
    json_decref(evaluate(&o));
    assert_int_equal(entries(p.dir), 1);
    o.kl_base = "/nonexistent-folder/base.kld";
    assert_int_equal(novaq_eval(NULL, &o, &err), NOVAQ_E_IO);
    drop_place(&p);
}

static void test_other_files_stay(void **state) {
    (void)state;
    place p = make_place("notes.txt");
    novaq_error err = {0};
    novaq_eval_options o = options(TINY("a.gguf"));
    o.kl_base = p.path;
    static const char *const texts[] = {"short", "longer than the magic"};
    for (size_t i = 0; i < 2; i++) {
        char *now = NULL;
        size_t len = 0;
        assert_int_equal(nq_write_file(p.path, texts[i], strlen(texts[i]), NULL), NOVAQ_OK);
        assert_int_equal(novaq_eval(NULL, &o, &err), NOVAQ_E_ARG);
        assert_non_null(strstr(err.msg, "notes.txt: exists and is no base"));
        assert_int_equal(nq_read_file(&now, &len, p.path, 100, NULL), NOVAQ_OK);
        assert_string_equal(now, texts[i]);
        nq_free(now);
    }
    o.kl_base = p.dir;
    assert_int_equal(novaq_eval(NULL, &o, &err), NOVAQ_E_IO);
    assert_int_equal(nq_write_file(p.path, "", 0, NULL), NOVAQ_OK);
    o.kl_base = p.path;
    json_decref(evaluate(&o)); /* an empty file holds nothing to lose */
    drop_place(&p);
}

static void test_contradictions(void **state) {
    (void)state;
    novaq_error err = {0};
    novaq_eval_options o = options(TINY("a.gguf"));
    o.kl_divergence = 1;
    assert_int_equal(novaq_eval(NULL, &o, &err), NOVAQ_E_ARG);
    o.kl_base = LLAMA_BASE;
    assert_int_equal(novaq_eval(NULL, &o, &err), NOVAQ_E_ARG); /* two texts */
    o.text_file = NULL;
    o.against = TINY("a.gguf");
    assert_int_equal(novaq_eval(NULL, &o, &err), NOVAQ_E_ARG);
    o.against = NULL;
    o.kl_base = TINY("missing.kld");
    assert_int_equal(novaq_eval(NULL, &o, &err), NOVAQ_E_IO);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_row),
        cmocka_unit_test(test_odd_rows),
        cmocka_unit_test(test_refused_rows),
        cmocka_unit_test(test_against_file),
        cmocka_unit_test(test_fewer_windows),
        cmocka_unit_test(test_same_bytes),
        cmocka_unit_test(test_llama),
        cmocka_unit_test(test_llama_bytes),
        cmocka_unit_test(test_lengths),
        cmocka_unit_test(test_headers),
        cmocka_unit_test(test_rows_that_lie),
        cmocka_unit_test(test_long_window),
        cmocka_unit_test(test_nothing_half_written),
        cmocka_unit_test(test_other_files_stay),
        cmocka_unit_test(test_contradictions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
