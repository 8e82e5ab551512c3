/* test_arch.c - every architecture against the logits transformers computed: from
 * Hugging Face files, from GGUF, from artifacts, fed in pieces; and hyperparameters
 * that are hostile. */
#include "model_util.h"

#include <math.h>

#include "model/model.h"
#include "novaq.h"

#define ARCH(name) FIXTURES "/arch/" name
#define N          40
#define VOCAB      272
#define ROWS       6
#define CLOSE      2e-5

/* A model's files and what it must compute. */
typedef struct subject {
    const char *name, *path, *logits;
    uint32_t n;   /* tokens */
    uint32_t ctx; /* of the run */
} subject;

static const subject SUBJECTS[] = {
    {"llama hf", ARCH("llama-hf"), ARCH("llama.logits"), N, N},
    {"llama gguf", ARCH("llama.gguf"), ARCH("llama.logits"), N, N},
    {"mistral hf", ARCH("mistral-hf"), ARCH("mistral.logits"), N, N},
    {"qwen2 hf", ARCH("qwen2-hf"), ARCH("qwen2.logits"), N, N},
    {"qwen2 gguf", ARCH("qwen2.gguf"), ARCH("qwen2-full.logits"), N, N},
    {"qwen3 hf", ARCH("qwen3-hf"), ARCH("qwen3.logits"), N, N},
    {"qwen3 gguf", ARCH("qwen3.gguf"), ARCH("qwen3.logits"), N, N},
    {"gemma2 hf", ARCH("gemma2-hf"), ARCH("gemma2.logits"), N, N},
    {"gemma2 gguf", ARCH("gemma2.gguf"), ARCH("gemma2.logits"), N, N},
    {"gemma3 hf", ARCH("gemma3-hf"), ARCH("gemma3.logits"), N, N},
    {"gemma3 gguf", ARCH("gemma3.gguf"), ARCH("gemma3.logits"), N, N},
    {"gemma3 with images", ARCH("gemma3-images-hf"), ARCH("gemma3-images.logits"), N, N},
    {"phi3 hf", ARCH("phi3-hf"), ARCH("phi3.logits"), N, N},
    {"phi3 gguf", ARCH("phi3.gguf"), ARCH("phi3.logits"), N, N},
    {"phi3 hf, short", ARCH("phi3-hf"), ARCH("phi3-short.logits"), 24, 32},
    {"phi3 gguf, short", ARCH("phi3.gguf"), ARCH("phi3-short.logits"), 24, 32},
    {"gpt2 hf", ARCH("gpt2-hf"), ARCH("gpt2.logits"), N, N},
    {"gpt2 gguf", ARCH("gpt2.gguf"), ARCH("gpt2.logits"), N, N},
    {"mixtral hf", ARCH("mixtral-hf"), ARCH("mixtral.logits"), N, N},
    {"mixtral gguf", ARCH("mixtral.gguf"), ARCH("mixtral.logits"), N, N},
    {"mixtral gguf, old", ARCH("mixtral-old.gguf"), ARCH("mixtral.logits"), N, N},
    {"qwen3moe hf", ARCH("qwen3moe-hf"), ARCH("qwen3moe.logits"), N, N},
    {"qwen3moe gguf", ARCH("qwen3moe.gguf"), ARCH("qwen3moe.logits"), N, N},
};
#define SUBJECT_COUNT (sizeof SUBJECTS / sizeof SUBJECTS[0])
/* Threads do the same whatever the architecture: some of them will do where each takes long. */
#ifdef __SANITIZE_THREAD__
#define SUBJECT_STEP 3
#else
#define SUBJECT_STEP 1
#endif

static const uint32_t POSITIONS[ROWS] = {0, 1, 11, 12, 23, 39};
static int32_t tokens[N];

static int setup(void **state) {
    json_t *index = load_json(ARCH("index.json"));
    (void)state;
    for (size_t i = 0; i < N; i++) {
        tokens[i] =
            (int32_t)json_integer_value(json_array_get(json_object_get(index, "tokens"), i));
    }
    for (size_t i = 0; i < ROWS; i++) {
        assert_int_equal(json_integer_value(json_array_get(json_object_get(index, "positions"), i)),
                         POSITIONS[i]);
    }
    json_decref(index);
    return 0;
}

static nq_model *open_model(const char *path, nq_pool *pool) {
    nq_model *m = NULL;
    novaq_error err = {0};
    if (nq_model_open(&m, path, pool, &err) != NOVAQ_OK) {
        fail_msg("%s", err.msg);
    }
    assert_int_equal(m->hyper.vocab, VOCAB);
    return m;
}

/* Logits (n, vocab) of the first n tokens fed in pieces; to be freed. */
static float *logits_of(const nq_model *m, uint32_t n, uint32_t ctx, uint32_t piece,
                        nq_kv_type kv) {
    nq_run *r = NULL;
    float *out = NULL;
    uint32_t rows[N];
    novaq_error err = {0};
    nq_run_options o = {.sequences = 1, .n_ctx = ctx, .block = piece, .kv = kv};
    for (uint32_t i = 0; i < N; i++) {
        rows[i] = i;
    }
    assert_int_equal(nq_alloc(&out, (uint64_t)n * VOCAB, sizeof *out, NULL), NOVAQ_OK);
    if (nq_run_open_with(&r, m, &o, &err) != NOVAQ_OK) {
        fail_msg("%s", err.msg);
    }
    for (uint32_t at = 0; at < n;) {
        uint32_t count = n - at < piece ? n - at : piece;
        assert_int_equal(nq_run_feed(r, tokens + at, 1, count, NULL), NOVAQ_OK);
        assert_int_equal(nq_run_logits(out + (uint64_t)at * VOCAB, r, rows, count, NULL), NOVAQ_OK);
        at += count;
    }
    nq_run_close(&r);
    return out;
}

/* The largest difference to the expected logits over their standard deviation. */
static double error_of(const float *logits, const subject *s) {
    char *data = NULL;
    size_t len = 0;
    double worst = 0;
    double sum = 0;
    double squares = 0;
    uint32_t rows = 0;
    assert_int_equal(nq_read_file(&data, &len, s->logits, (size_t)1 << 20, NULL), NOVAQ_OK);
    while (rows < ROWS && POSITIONS[rows] < s->n) {
        rows++;
    }
    assert_int_equal(len, rows * VOCAB * sizeof(float));
    for (uint32_t i = 0; i < rows * VOCAB; i++) {
        float want;
        memcpy(&want, data + i * sizeof want, sizeof want);
        double got = (double)logits[POSITIONS[i / VOCAB] * VOCAB + i % VOCAB];
        worst = fmax(worst, isnan(got) ? INFINITY : fabs(got - (double)want));
        sum += (double)want;
        squares += (double)want * (double)want;
    }
    double count = rows * (double)VOCAB;
    nq_free(data);
    return worst / sqrt(squares / count - (sum / count) * (sum / count));
}

static void check(const nq_model *m, const subject *s, uint32_t piece, nq_kv_type kv,
                  double tolerance) {
    float *logits = logits_of(m, s->n, s->ctx, piece, kv);
    double error = error_of(logits, s);
    if (!(error <= tolerance)) {
        fail_msg("%s, %u at a time, cache %d: off by %g of the deviation", s->name, piece, (int)kv,
                 error);
    }
    nq_free(logits);
}

/* At once, in pieces, token by token. */
static void test_logits(void **state) {
    (void)state;
    for (size_t i = 0; i < SUBJECT_COUNT; i += SUBJECT_STEP) {
        const subject *s = &SUBJECTS[i];
        nq_model *m = open_model(s->path, NULL);
        check(m, s, s->n, NQ_KV_F32, CLOSE);
        check(m, s, 13, NQ_KV_F32, CLOSE);
        check(m, s, 1, NQ_KV_F32, CLOSE);
        check(m, s, s->n, NQ_KV_F16, 1e-2);
        check(m, s, 7, NQ_KV_Q8, 0.12);
        nq_model_close(&m);
    }
}

/* Matrices read when they are used, and several threads. */
static void test_lean(void **state) {
    nq_pool *pool = NULL;
    (void)state;
    assert_int_equal(nq_pool_open(&pool, 3, NULL), NOVAQ_OK);
    for (size_t i = 0; i < SUBJECT_COUNT; i += SUBJECT_STEP) {
        nq_model *m = NULL;
        assert_int_equal(nq_model_open_lean(&m, SUBJECTS[i].path, pool, NULL), NOVAQ_OK);
        check(m, &SUBJECTS[i], 20, NQ_KV_F32, CLOSE);
        nq_model_close(&m);
    }
    nq_pool_close(&pool);
}

/* Two sequences side by side are what each is alone. */
static void test_sequences(void **state) {
    (void)state;
    for (size_t i = 0; i < SUBJECT_COUNT; i += SUBJECT_STEP) {
        const subject *s = &SUBJECTS[i];
        nq_model *m = open_model(s->path, NULL);
        float *alone = logits_of(m, s->n, s->ctx, s->n, NQ_KV_F32);
        float both[2 * VOCAB];
        int32_t two[2 * N];
        uint32_t rows[2] = {s->n - 1, 2 * s->n - 1};
        nq_run *r = NULL;
        for (uint32_t k = 0; k < s->n; k++) {
            two[k] = tokens[s->n - 1 - k];
            two[s->n + k] = tokens[k];
        }
        assert_int_equal(nq_run_open(&r, m, 2, s->ctx, s->n, NULL), NOVAQ_OK);
        assert_int_equal(nq_run_feed(r, two, 2, s->n, NULL), NOVAQ_OK);
        assert_int_equal(nq_run_logits(both, r, rows, 2, NULL), NOVAQ_OK);
        for (uint32_t k = 0; k < VOCAB; k++) {
            assert_near((double)both[VOCAB + k], (double)alone[(s->n - 1) * VOCAB + k], 1e-3,
                        s->name);
        }
        nq_run_close(&r);
        nq_free(alone);
        nq_model_close(&m);
    }
}

/* Stage by stage, as calibrated compression runs a model. */
static void test_stages(void **state) {
    (void)state;
    for (size_t i = 0; i < SUBJECT_COUNT; i += SUBJECT_STEP) {
        const subject *s = &SUBJECTS[i];
        nq_model *m = open_model(s->path, NULL);
        nq_run *r = NULL;
        uint64_t dim = m->hyper.dim;
        uint64_t widest = nq_stage_widest(m);
        float *x = NULL;
        float *in = NULL;
        float *logits = NULL;
        assert_int_equal(nq_alloc(&x, s->n * dim, sizeof *x, NULL), NOVAQ_OK);
        assert_int_equal(nq_alloc(&in, s->n * widest, sizeof *in, NULL), NOVAQ_OK);
        assert_int_equal(nq_alloc(&logits, (uint64_t)s->n * VOCAB, sizeof *in, NULL), NOVAQ_OK);
        assert_int_equal(nq_run_open_staged(&r, m, 1, s->ctx, NULL), NOVAQ_OK);
        assert_int_equal(nq_run_embed(x, r, tokens, 1, s->n, NULL), NOVAQ_OK);
        for (uint32_t b = 0; b < m->hyper.blocks; b++) {
            assert_int_equal(nq_run_enter(in, r, b, x, 1, s->n, NULL), NOVAQ_OK);
            for (unsigned stage = 0; stage < NQ_STAGES; stage++) {
                const nq_linear *l[NQ_GROUP_MAX];
                unsigned count = nq_block_linears(l, &m->blocks[b], stage);
                if (count > 0) {
                    assert_int_equal(l[0]->w->cols, nq_stage_cols(m, stage));
                }
                assert_int_equal(nq_run_stage(in, x, r, b, stage, l, in, 1, s->n, NULL), NOVAQ_OK);
            }
        }
        nq_run_output(x, r, x, s->n);
        assert_int_equal(nq_run_head(logits, r, x, s->n, NULL), NOVAQ_OK);
        double error = error_of(logits, s);
        if (!(error <= CLOSE)) {
            fail_msg("%s, by stages: off by %g", s->name, error);
        }
        nq_run_close(&r);
        nq_free(x);
        nq_free(in);
        nq_free(logits);
        nq_model_close(&m);
    }
}

/* ---- artifacts ---------------------------------------------------------------- */

static char *make_artifact(const char *dir, const char *input, const char *scheme,
                           const char *calibration) {
    char *path = NULL;
    novaq_error err = {0};
    novaq_compress_options o = NOVAQ_COMPRESS_OPTIONS_INIT;
    assert_int_equal(nq_path_join(&path, dir, "art", NULL), NOVAQ_OK);
    o.input = input;
    o.output = path;
    o.scheme = scheme;
    o.threads = 1;
    o.calibration = calibration;
    o.calibration_tokens = calibration != NULL ? 512 : o.calibration_tokens;
    if (novaq_compress(NULL, &o, &err) != NOVAQ_OK) {
        fail_msg("%s: %s", input, err.msg);
    }
    return path;
}

static void check_artifact(const subject *s, const char *scheme, const char *calibration,
                           double tolerance) {
    char *dir = scratch_dir();
    char *path = make_artifact(dir, s->path, scheme, calibration);
    nq_model *m = open_model(path, NULL);
    check(m, s, s->n, NQ_KV_F32, tolerance);
    check(m, s, 1, NQ_KV_F32, tolerance);
    nq_model_close(&m);
    remove_dir(dir);
    nq_free(path);
    nq_free(dir);
}

static void test_artifacts(void **state) {
    (void)state;
    for (size_t i = 0; i < SUBJECT_COUNT; i += SUBJECT_STEP) {
        check_artifact(&SUBJECTS[i], "f16", NULL, CLOSE);
        check_artifact(&SUBJECTS[i], "q8", NULL, 0.3);
    }
}

/* Products of integers: near those in float32, whatever the matrix is a part of. */
static void test_fast(void **state) {
    (void)state;
    for (size_t i = 0; i < SUBJECT_COUNT; i += SUBJECT_STEP) {
        const subject *s = &SUBJECTS[i];
        char *dir = scratch_dir();
        char *path = make_artifact(dir, s->path, "pq16x16d1", NULL);
        nq_model *m = open_model(path, NULL);
        novaq_error err = {0};
        if (nq_model_prepare_fast(m, &err) != NOVAQ_OK) {
            fail_msg("%s: %s", s->name, err.msg);
        }
        check(m, s, s->n, NQ_KV_F32, 0.8);
        check(m, s, 1, NQ_KV_F32, 0.8);
        nq_model_close(&m);
        remove_dir(dir);
        nq_free(path);
        nq_free(dir);
    }
}

/* Codes of 8 bits with knowledge of the inputs: whatever is wrong with stages,
 * views or fused matrices is far from the right logits. */
static void test_calibrated(void **state) {
    char *dir = scratch_dir();
    char *text = text_file(dir, 200);
    (void)state;
    for (size_t i = 0; i < SUBJECT_COUNT; i += SUBJECT_STEP) {
        check_artifact(&SUBJECTS[i], "pq16x16d1", text, 0.8);
    }
    remove_dir(dir);
    nq_free(text);
    nq_free(dir);
}

/* Routers, learned positions, norms and biases are never coded; experts are. */
static void test_roles(void **state) {
    static const struct {
        const char *path, *scheme;
    } CASES[] = {{ARCH("mixtral-hf"), "k16d1l1"},
                 {ARCH("mixtral.gguf"), "k16d1l1"},
                 {ARCH("qwen3moe.gguf"), "k16d1l1"},
                 {ARCH("gpt2-hf"), "k16d1l1"},
                 {ARCH("gpt2.gguf"), "k16d1l1"}};
    (void)state;
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        char *dir = scratch_dir();
        char *path = make_artifact(dir, CASES[i].path, CASES[i].scheme, NULL);
        nq_model *m = open_model(path, NULL);
        size_t coded = 0;
        for (size_t k = 0; k < nq_weights_count(m->weights); k++) {
            const nq_weight *t = nq_weights_at(m->weights, k);
            bool matrix = t->role != NQ_ROLE_OTHER;
            if (matrix != (t->q != NULL)) {
                fail_msg("%s: %s", path, t->name);
            }
            coded += matrix ? 1 : 0;
        }
        for (uint32_t b = 0; b < m->hyper.blocks; b++) {
            const nq_linear *router = &m->blocks[b].experts.router;
            assert_true(router->w == NULL || router->w->q == NULL);
        }
        assert_true(coded >= 9);
        nq_model_close(&m);
        remove_dir(dir);
        nq_free(path);
        nq_free(dir);
    }
}

/* What another format's readers would get wrong is refused by name; weights alone, as
 * the source names them, are always to be had. */
static void test_export(void **state) {
    static const struct {
        const char *input, *format, *says; /* NULL: works */
    } CASES[] = {
        {ARCH("gemma2-hf"), "gguf", "gemma2"},          {ARCH("mixtral.gguf"), "gguf", "experts"},
        {ARCH("mistral-hf"), "gguf", "sliding window"}, {ARCH("llama-hf"), "gguf", "biases"},
        {ARCH("gpt2-hf"), "safetensors", "gpt2"},       {ARCH("gemma2-hf"), "safetensors", NULL},
        {ARCH("qwen3moe.gguf"), "safetensors", NULL},
    };
    (void)state;
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        char *dir = scratch_dir();
        char *out = NULL;
        novaq_error err = {0};
        novaq_export_options o = NOVAQ_EXPORT_OPTIONS_INIT;
        assert_int_equal(nq_path_join(&out, dir, "out", NULL), NOVAQ_OK);
        o.input = CASES[i].input;
        o.output = out;
        o.format = CASES[i].format;
        o.threads = 1;
        novaq_status st = novaq_export(NULL, &o, &err);
        bool wanted = CASES[i].says == NULL ? st == NOVAQ_OK : st == NOVAQ_E_UNSUPPORTED;
        if (!wanted || (st != NOVAQ_OK && strstr(err.msg, CASES[i].says) == NULL)) {
            fail_msg("%s to %s: %d %s", o.input, o.format, st, err.msg);
        }
        remove_dir(dir);
        nq_free(out);
        nq_free(dir);
    }
}

/* ---- hostile hyperparameters ------------------------------------------------------- */

/* A scratch copy of a Hugging Face model with `key` set to JSON text, or removed. */
static char *altered(const char *of, const char *key, const char *value) {
    static const char *const FILES[] = {"model.safetensors", "tokenizer.json"};
    char *dir = scratch_dir();
    char *path = NULL;
    for (size_t i = 0; i < sizeof FILES / sizeof FILES[0]; i++) {
        char *from = NULL;
        char *to = NULL;
        assert_int_equal(nq_path_join(&from, of, FILES[i], NULL), NOVAQ_OK);
        assert_int_equal(nq_path_join(&to, dir, FILES[i], NULL), NOVAQ_OK);
        assert_int_equal(symlink(from, to), 0);
        nq_free(from);
        nq_free(to);
    }
    assert_int_equal(nq_path_join(&path, of, "config.json", NULL), NOVAQ_OK);
    json_t *config = load_json(path);
    nq_free(path);
    if (value == NULL) {
        json_object_del(config, key);
    } else {
        json_t *v = NULL;
        assert_int_equal(nq_json_parse(&v, "value", value, strlen(value), NULL), NOVAQ_OK);
        json_object_set_new(config, key, v);
    }
    write_json(dir, "config.json", config);
    json_decref(config);
    return dir;
}

/* Qwen3-MoE whose experts' weights do not add up to 1: the same matrices. */
static void test_raw_weights(void **state) {
    char *dir = altered(ARCH("qwen3moe-hf"), "norm_topk_prob", "false");
    subject s = {"qwen3moe hf, raw weights", dir, ARCH("qwen3moe-raw.logits"), N, N};
    nq_model *m = open_model(dir, NULL);
    (void)state;
    check(m, &s, N, NQ_KV_F32, CLOSE);
    nq_model_close(&m);
    remove_dir(dir);
    nq_free(dir);
}

/* ---- models of images and text ------------------------------------------------------ */

/* A scratch copy of Gemma 3 with images whose text tensors are called as transformers 4.52
 * and later call them in memory. */
static char *newer_names(void) {
    static const char was[] = "language_model.model.";
    static const char is[] = "model.language_model.";
    char *dir = altered(ARCH("gemma3-images-hf"), "x", "0");
    char *path = NULL;
    char *data = NULL;
    size_t len = 0;
    unsigned renamed = 0;
    assert_int_equal(nq_path_join(&path, dir, "model.safetensors", NULL), NOVAQ_OK);
    assert_int_equal(nq_read_file(&data, &len, path, (size_t)1 << 20, NULL), NOVAQ_OK);
    assert_int_equal(unlink(path), 0); /* a link to the original */
    for (char *at = data; (at = memmem(at, len - (size_t)(at - data), was, sizeof was - 1)) != NULL;
         renamed++) {
        memcpy(at, is, sizeof is - 1);
    }
    assert_int_equal(renamed, 7 * 13 + 2);
    assert_int_equal(nq_write_file(path, data, len, NULL), NOVAQ_OK);
    nq_free(data);
    nq_free(path);
    return dir;
}

/* Both ways to call the text model's tensors; those of images are told of, not kept. */
static void test_images(void **state) {
    char *dir = newer_names();
    subject s = {"gemma3 with images, newer names", dir, ARCH("gemma3-images.logits"), N, N};
    char *out = scratch_dir();
    char *report = NULL;
    novaq_compress_options o = NOVAQ_COMPRESS_OPTIONS_INIT;
    json_t *r = NULL;
    json_t *chat = json_pack("{s:s}", "chat_template", "{{ 1 }}");
    (void)state;
    check_artifact(&s, "f16", NULL, CLOSE);
    write_json(dir, "chat_template.json", chat);
    json_decref(chat);
    nq_model *m = open_model(dir, NULL);
    const json_t *said = json_object_get(nq_weights_model(m->weights), "chat_template");
    assert_string_equal(json_string_value(said), "{{ 1 }}");
    nq_model_close(&m);
    o.input = dir;
    o.output = out;
    o.scheme = "q8";
    assert_int_equal(novaq_plan(&report, &o, NULL), NOVAQ_OK);
    assert_int_equal(nq_json_parse_object(&r, "report", report, strlen(report), NULL), NOVAQ_OK);
    const json_t *left = json_object_get(r, "left_out");
    assert_int_equal(json_integer_value(json_object_get(left, "tensors")), 34);
    assert_int_equal(json_integer_value(json_object_get(left, "bytes")), 3248);
    assert_int_equal(json_integer_value(json_object_get(r, "parameters")), 79632);
    json_decref(r);
    novaq_free(report);
    remove_dir(out);
    remove_dir(dir);
    nq_free(out);
    nq_free(dir);
}

#define TEXT_CONFIG(more)                                                                          \
    "{\"hidden_size\":32,\"intermediate_size\":40,\"num_hidden_layers\":7,\"head_dim\":8,"         \
    "\"vocab_size\":272,\"sliding_window\":10" more "}"

#define ANY_BUT_OK ((novaq_status)-100)

/* A setting and what becomes of the model with it. */
typedef struct setting {
    const char *of, *key, *value;
    novaq_status status;
} setting;

static void check_settings(const setting *cases, size_t count) {
    for (size_t i = 0; i < count; i++) {
        char *dir = altered(cases[i].of, cases[i].key, cases[i].value);
        nq_model *m = NULL;
        nq_run *r = NULL;
        novaq_error err = {0};
        novaq_status st = nq_model_open(&m, dir, NULL, &err);
        bool as_wanted = cases[i].status == ANY_BUT_OK ? st != NOVAQ_OK : st == cases[i].status;
        if (!as_wanted || (st != NOVAQ_OK && err.msg[0] == '\0')) {
            fail_msg("%s of %s = %s: %d %s", cases[i].key, cases[i].of, cases[i].value, st,
                     err.msg);
        }
        if (st == NOVAQ_OK) { /* what is taken also runs */
            if (nq_run_open(&r, m, 1, N, N, &err) != NOVAQ_OK ||
                nq_run_feed(r, tokens, 1, N, &err) != NOVAQ_OK) {
                fail_msg("%s of %s = %s: %s", cases[i].key, cases[i].of, cases[i].value, err.msg);
            }
            nq_run_close(&r);
        }
        nq_model_close(&m);
        remove_dir(dir);
        nq_free(dir);
    }
}

static void test_hostile(void **state) {
    static const setting CASES[] = {
        {ARCH("gemma2-hf"), "head_dim", "1000", NOVAQ_E_FORMAT},
        {ARCH("gemma2-hf"), "head_dim", "9223372036854775807", NOVAQ_E_UNSUPPORTED},
        {ARCH("gemma2-hf"), "attn_logit_softcapping", "-1.0", NOVAQ_E_FORMAT},
        {ARCH("gemma2-hf"), "attn_logit_softcapping", "1e300", NOVAQ_E_FORMAT},
        {ARCH("gemma2-hf"), "final_logit_softcapping", "0", NOVAQ_E_FORMAT},
        {ARCH("gemma2-hf"), "query_pre_attn_scalar", "-16", NOVAQ_E_FORMAT},
        {ARCH("gemma2-hf"), "query_pre_attn_scalar", "1e-300", NOVAQ_E_FORMAT},
        {ARCH("gemma2-hf"), "sliding_window", "-3", NOVAQ_E_FORMAT},
        {ARCH("gemma2-hf"), "sliding_window", "9223372036854775807", NOVAQ_E_FORMAT},
        {ARCH("gemma2-hf"), "sliding_window", "4000000000", NOVAQ_OK},
        {ARCH("gemma2-hf"), "num_hidden_layers", "4096", NOVAQ_E_FORMAT},
        {ARCH("gemma2-hf"), "num_hidden_layers", "9000000000000", NOVAQ_E_FORMAT},
        {ARCH("gemma2-hf"), "hidden_activation", "\"relu\"", NOVAQ_E_UNSUPPORTED},
        {ARCH("gemma2-hf"), "layer_types", "[\"chunked_attention\"]", NOVAQ_E_UNSUPPORTED},
        {ARCH("gemma2-hf"), "layer_types", "[3, null]", NOVAQ_OK},
        {ARCH("gemma2-hf"), "model_type", "\"gemma3_text\"", NOVAQ_E_FORMAT},
        {ARCH("gemma2-hf"), "model_type", "\"llama\"", NOVAQ_E_UNSUPPORTED},
        {ARCH("gemma2-hf"), "model_type", "\"gpt2\"", NOVAQ_E_FORMAT},
        {ARCH("gemma3-hf"), "model_type", "\"gemma3\"", NOVAQ_E_UNSUPPORTED},
        {ARCH("gemma3-hf"), "rope_local_base_freq", "-1", NOVAQ_E_FORMAT},
        {ARCH("gemma3-hf"), "rope_scaling", "{\"rope_type\":\"linear\"}", NOVAQ_E_FORMAT},
        {ARCH("gemma3-hf"), "sliding_window_pattern", "-9223372036854775808", NOVAQ_OK},
        {ARCH("gemma3-hf"), "sliding_window_pattern", "0", NOVAQ_OK},
        {ARCH("gemma3-hf"), "use_bidirectional_attention", "true", NOVAQ_E_UNSUPPORTED},
        {ARCH("gemma3-hf"), "head_dim", NULL, NOVAQ_E_FORMAT}, /* 256 */
        {ARCH("phi3-hf"), "partial_rotary_factor", "-0.5", NOVAQ_E_UNSUPPORTED},
        {ARCH("phi3-hf"), "partial_rotary_factor", "1e-9", NOVAQ_E_FORMAT},
        {ARCH("phi3-hf"), "partial_rotary_factor", "1.0", NOVAQ_E_FORMAT},
        {ARCH("phi3-hf"), "original_max_position_embeddings", "0", NOVAQ_E_FORMAT},
        {ARCH("phi3-hf"), "original_max_position_embeddings", "-4", NOVAQ_E_FORMAT},
        {ARCH("phi3-hf"), "rope_scaling", "{\"type\":\"longrope\"}", NOVAQ_E_UNSUPPORTED},
        {ARCH("phi3-hf"), "rope_scaling",
         "{\"type\":\"longrope\",\"long_factor\":[1,2],\"short_factor\":[1,2]}", NOVAQ_E_FORMAT},
        {ARCH("phi3-hf"), "rope_scaling",
         "{\"type\":\"su\",\"long_factor\":[1,2,3,0],\"short_factor\":[1,2,3,4]}", NOVAQ_E_FORMAT},
        {ARCH("phi3-hf"), "rope_scaling",
         "{\"type\":\"su\",\"long_factor\":[1,2,3,null],\"short_factor\":[1,2,3,4]}",
         NOVAQ_E_FORMAT},
        {ARCH("phi3-hf"), "rope_scaling", "{\"type\":\"dynamic\",\"factor\":2}",
         NOVAQ_E_UNSUPPORTED},
        {ARCH("llama-hf"), "attention_bias", "3", NOVAQ_OK},
        {ARCH("llama-hf"), "rope_theta", "1.0", NOVAQ_E_FORMAT},
        {ARCH("llama-hf"), "rope_theta", "1e300", NOVAQ_E_FORMAT},
        {ARCH("llama-hf"), "rope_scaling", "{\"rope_type\":\"yarn\",\"factor\":0.5}",
         NOVAQ_E_FORMAT},
        {ARCH("llama-hf"), "rope_scaling",
         "{\"rope_type\":\"yarn\",\"factor\":4,\"beta_fast\":1,\"beta_slow\":32}", NOVAQ_E_FORMAT},
        {ARCH("llama-hf"), "rope_scaling",
         "{\"rope_type\":\"yarn\",\"factor\":4,\"original_max_position_embeddings\":1e-308}",
         NOVAQ_E_FORMAT},
        {ARCH("gpt2-hf"), "n_positions", "65", NOVAQ_E_FORMAT},
        {ARCH("gpt2-hf"), "n_positions", "-1", NOVAQ_E_FORMAT},
        {ARCH("gpt2-hf"), "n_inner", "127", NOVAQ_E_FORMAT},
        {ARCH("gpt2-hf"), "n_embd", "9223372036854775807", NOVAQ_E_FORMAT},
        {ARCH("gpt2-hf"), "n_head", "0", NOVAQ_E_FORMAT},
        {ARCH("gpt2-hf"), "layer_norm_epsilon", "-1", NOVAQ_E_FORMAT},
        {ARCH("gpt2-hf"), "activation_function", "\"gelu\"", NOVAQ_E_UNSUPPORTED},
        {ARCH("gpt2-hf"), "scale_attn_by_inverse_layer_idx", "true", NOVAQ_E_UNSUPPORTED},
        {ARCH("gpt2-hf"), "scale_attn_weights", "false", NOVAQ_E_UNSUPPORTED},
        {ARCH("gpt2-hf"), "model_type", "\"llama\"", ANY_BUT_OK},
        {ARCH("mixtral-hf"), "num_local_experts", "4", NOVAQ_E_FORMAT},
        {ARCH("mixtral-hf"), "num_local_experts", "0", NOVAQ_E_FORMAT},
        {ARCH("mixtral-hf"), "num_local_experts", "4096", NOVAQ_E_FORMAT},
        {ARCH("mixtral-hf"), "num_local_experts", "1e18", ANY_BUT_OK},
        {ARCH("mixtral-hf"), "num_experts_per_tok", "5", NOVAQ_E_FORMAT},
        {ARCH("mixtral-hf"), "num_experts_per_tok", NULL, NOVAQ_E_FORMAT},
        {ARCH("mixtral-hf"), "intermediate_size", NULL, NOVAQ_E_FORMAT},
        {ARCH("qwen3moe-hf"), "mlp_only_layers", "[0]", NOVAQ_E_UNSUPPORTED},
        {ARCH("qwen3moe-hf"), "decoder_sparse_step", "2", NOVAQ_E_UNSUPPORTED},
        {ARCH("qwen2-hf"), "max_window_layers", "-9223372036854775808", NOVAQ_OK},
        {ARCH("qwen2-hf"), "model_type", "\"qwen3\"", NOVAQ_E_FORMAT},
    };
    (void)state;
    check_settings(CASES, sizeof CASES / sizeof CASES[0]);
}

/* What is set in text_config, beside it, and not at all. */
static void test_hostile_nested(void **state) {
    static const setting CASES[] = {
        {ARCH("gemma3-images-hf"), "text_config", TEXT_CONFIG(""), NOVAQ_OK},
        {ARCH("gemma3-images-hf"), "text_config", NULL, NOVAQ_E_UNSUPPORTED},
        {ARCH("gemma3-images-hf"), "text_config", "[]", NOVAQ_E_UNSUPPORTED},
        {ARCH("gemma3-images-hf"), "text_config", "{}", NOVAQ_E_FORMAT},
        {ARCH("gemma3-images-hf"), "text_config", TEXT_CONFIG(",\"model_type\":\"gemma2\""),
         NOVAQ_E_UNSUPPORTED},
        {ARCH("gemma3-images-hf"), "text_config", TEXT_CONFIG(",\"attention_bias\":true"),
         NOVAQ_E_FORMAT},
        {ARCH("gemma3-images-hf"), "tie_word_embeddings", "false", NOVAQ_E_FORMAT},
        {ARCH("gemma3-images-hf"), "quantization_config", "{}", NOVAQ_E_UNSUPPORTED},
        {ARCH("gemma3-images-hf"), "model_type", "\"gemma3_text\"", ANY_BUT_OK},
        {ARCH("gemma3-images-hf"), "model_type", "\"llava\"", NOVAQ_E_UNSUPPORTED},
    };
    (void)state;
    check_settings(CASES, sizeof CASES / sizeof CASES[0]);
}

/* The four bytes of a key's value in a copy of a GGUF file become `value`. */
static char *altered_gguf(const char *dir, const char *of, const char *key, uint32_t value) {
    char *data = NULL;
    char *path = NULL;
    size_t len = 0;
    size_t n = strlen(key);
    assert_int_equal(nq_read_file(&data, &len, of, (size_t)1 << 20, NULL), NOVAQ_OK);
    char *at = memmem(data, len, key, n);
    assert_non_null(at);
    memcpy(at + n + 4, &value, sizeof value); /* after the type */
    assert_int_equal(nq_path_join(&path, dir, "altered.gguf", NULL), NOVAQ_OK);
    assert_int_equal(nq_write_file(path, data, len, NULL), NOVAQ_OK);
    nq_free(data);
    return path;
}

#define F32_NAN 0x7FC00000U
#define F32_INF 0x7F800000U
#define F32_NEG 0xBF800000U

static void test_hostile_gguf(void **state) {
    static const struct {
        const char *of, *key;
        uint32_t value;
        novaq_status status;
    } CASES[] = {
        {ARCH("gemma2.gguf"), "gemma2.attention.sliding_window", UINT32_MAX, NOVAQ_OK},
        {ARCH("gemma2.gguf"), "gemma2.attn_logit_softcapping", F32_NAN, NOVAQ_OK},
        {ARCH("gemma2.gguf"), "gemma2.attn_logit_softcapping", F32_NEG, NOVAQ_E_FORMAT},
        {ARCH("gemma2.gguf"), "gemma2.block_count", 0, NOVAQ_E_FORMAT},
        {ARCH("gemma2.gguf"), "gemma2.block_count", 4096, NOVAQ_E_FORMAT},
        {ARCH("gemma2.gguf"), "gemma2.block_count", UINT32_MAX, NOVAQ_E_FORMAT},
        {ARCH("gemma2.gguf"), "gemma2.attention.key_length", 7, ANY_BUT_OK},
        {ARCH("gemma2.gguf"), "gemma2.attention.head_count", 0, NOVAQ_E_FORMAT},
        {ARCH("gemma2.gguf"), "gemma2.attention.layer_norm_rms_epsilon", F32_NAN, NOVAQ_E_FORMAT},
        {ARCH("gemma3.gguf"), "gemma3.attention.sliding_window_pattern", 0, NOVAQ_OK},
        {ARCH("gemma3.gguf"), "gemma3.rope.freq_base_swa", F32_INF, NOVAQ_OK},
        {ARCH("gemma3.gguf"), "gemma3.rope.freq_base_swa", F32_NEG, NOVAQ_E_FORMAT},
        {ARCH("gemma3.gguf"), "gemma3.rope.scaling.factor", F32_NEG, NOVAQ_E_FORMAT},
        {ARCH("phi3.gguf"), "phi3.rope.dimension_count", 6, NOVAQ_E_FORMAT},
        {ARCH("phi3.gguf"), "phi3.rope.dimension_count", UINT32_MAX, NOVAQ_E_FORMAT},
        {ARCH("phi3.gguf"), "phi3.rope.scaling.original_context_length", 0, NOVAQ_E_FORMAT},
        {ARCH("phi3.gguf"), "phi3.rope.scaling.attn_factor", F32_NEG, NOVAQ_E_FORMAT},
        {ARCH("phi3.gguf"), "phi3.feed_forward_length", 20, NOVAQ_E_FORMAT},
        {ARCH("llama.gguf"), "llama.rope.scaling.factor", F32_NEG, NOVAQ_E_FORMAT},
        {ARCH("llama.gguf"), "llama.rope.scaling.yarn_beta_fast", F32_NEG, NOVAQ_E_FORMAT},
        {ARCH("gpt2.gguf"), "gpt2.context_length", UINT32_MAX, NOVAQ_E_FORMAT},
        {ARCH("gpt2.gguf"), "gpt2.attention.layer_norm_epsilon", F32_INF, NOVAQ_E_FORMAT},
        {ARCH("mixtral.gguf"), "llama.expert_count", 0, NOVAQ_E_FORMAT},
        {ARCH("mixtral.gguf"), "llama.expert_count", UINT32_MAX, NOVAQ_E_FORMAT},
        {ARCH("mixtral.gguf"), "llama.expert_used_count", 0, NOVAQ_E_FORMAT},
        {ARCH("mixtral.gguf"), "llama.expert_used_count", 4, NOVAQ_E_FORMAT},
        {ARCH("qwen3moe.gguf"), "qwen3moe.expert_feed_forward_length", 41, NOVAQ_E_FORMAT},
    };
    (void)state;
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        char *dir = scratch_dir();
        char *path = altered_gguf(dir, CASES[i].of, CASES[i].key, CASES[i].value);
        nq_model *m = NULL;
        nq_run *r = NULL;
        novaq_error err = {0};
        novaq_status st = nq_model_open(&m, path, NULL, &err);
        bool as_wanted = CASES[i].status == ANY_BUT_OK ? st != NOVAQ_OK : st == CASES[i].status;
        if (!as_wanted || (st != NOVAQ_OK && err.msg[0] == '\0')) {
            fail_msg("%s = %u: %d %s", CASES[i].key, CASES[i].value, st, err.msg);
        }
        if (st == NOVAQ_OK) {
            assert_int_equal(nq_run_open(&r, m, 1, N, N, NULL), NOVAQ_OK);
            assert_int_equal(nq_run_feed(r, tokens, 1, N, NULL), NOVAQ_OK);
            nq_run_close(&r);
        }
        nq_model_close(&m);
        remove_dir(dir);
        nq_free(path);
        nq_free(dir);
    }
}

/* Learned positions end where they end. */
static void test_positions_end(void **state) {
    nq_model *m = open_model(ARCH("gpt2.gguf"), NULL);
    nq_run *r = NULL;
    novaq_error err = {0};
    (void)state;
    assert_int_equal(nq_run_open(&r, m, 1, 64, 8, NULL), NOVAQ_OK);
    nq_run_close(&r);
    assert_int_equal(nq_run_open(&r, m, 1, 65, 8, &err), NOVAQ_E_ARG);
    assert_non_null(strstr(err.msg, "positions"));
    nq_model_close(&m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_logits),         cmocka_unit_test(test_lean),
        cmocka_unit_test(test_sequences),      cmocka_unit_test(test_stages),
        cmocka_unit_test(test_artifacts),      cmocka_unit_test(test_calibrated),
        cmocka_unit_test(test_roles),          cmocka_unit_test(test_fast),
        cmocka_unit_test(test_export),         cmocka_unit_test(test_images),
        cmocka_unit_test(test_raw_weights),    cmocka_unit_test(test_hostile),
        cmocka_unit_test(test_hostile_nested), cmocka_unit_test(test_hostile_gguf),
        cmocka_unit_test(test_positions_end),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
