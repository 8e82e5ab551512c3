/* test_net.c - whole models with derivatives: the forward pass against the runtime's, the
 * gradients of every kind of parameter of every architecture against finite differences
 * and against PyTorch, one block alone, and the same bits from any number of threads. */
#include "model_util.h"

#include <math.h>

#include "novaq.h"
#include "refine/net.h"

#define ARCH(name) FIXTURES "/arch/" name
#define GRAD(name) FIXTURES "/grad/" name ".json"
#define N          40
#define VOCAB      272
#define SEQUENCES  2

typedef struct subject {
    const char *name, *path;
    const char *grad; /* what PyTorch computes, or NULL */
} subject;

static const subject SUBJECTS[] = {
    {"llama hf", ARCH("llama-hf"), GRAD("llama")},
    {"mistral hf", ARCH("mistral-hf"), GRAD("mistral")},
    {"qwen2 hf", ARCH("qwen2-hf"), GRAD("qwen2")},
    {"qwen3 hf", ARCH("qwen3-hf"), GRAD("qwen3")},
    {"gemma2 hf", ARCH("gemma2-hf"), GRAD("gemma2")},
    {"gemma3 hf", ARCH("gemma3-hf"), GRAD("gemma3")},
    {"phi3 hf", ARCH("phi3-hf"), GRAD("phi3")},
    {"gpt2 hf", ARCH("gpt2-hf"), GRAD("gpt2")},
    {"mixtral hf", ARCH("mixtral-hf"), GRAD("mixtral")},
    {"qwen3moe hf", ARCH("qwen3moe-hf"), GRAD("qwen3moe")},
    {"llama gguf", ARCH("llama.gguf"), NULL},
    {"gemma3 gguf", ARCH("gemma3.gguf"), NULL},
    {"phi3 gguf", ARCH("phi3.gguf"), NULL},
    {"gpt2 gguf", ARCH("gpt2.gguf"), NULL},
    {"mixtral gguf", ARCH("mixtral.gguf"), NULL},
    {"mixtral gguf, old", ARCH("mixtral-old.gguf"), NULL},
};
#define SUBJECT_COUNT (sizeof SUBJECTS / sizeof SUBJECTS[0])

static int32_t tokens[SEQUENCES * N]; /* the second sequence is the first backwards */

static int setup(void **state) {
    json_t *index = load_json(ARCH("index.json"));
    (void)state;
    for (size_t i = 0; i < N; i++) {
        tokens[i] =
            (int32_t)json_integer_value(json_array_get(json_object_get(index, "tokens"), i));
        tokens[2 * N - 1 - i] = tokens[i];
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

static nq_net *open_net(nq_model *m, nq_net_options o) {
    nq_net *n = NULL;
    novaq_error err = {0};
    if (nq_net_open(&n, m, &o, &err) != NOVAQ_OK) {
        fail_msg("%s", err.msg);
    }
    return n;
}

static float *floats(uint64_t n) {
    float *p = NULL;
    assert_int_equal(nq_alloc(&p, n, sizeof *p, NULL), NOVAQ_OK);
    return p;
}

/* A number in (-1, 1) for element i of stream `salt`. */
static float noise(uint64_t salt, uint64_t i) {
    uint64_t x = (salt + 1) * 0x9E3779B97F4A7C15U + (i + 1) * 0xD1B54A32D192ED03U;
    x ^= x >> 29;
    x *= 0xBF58476D1CE4E5B9U;
    x ^= x >> 32;
    x *= 0x94D049BB133111EBU;
    x ^= x >> 31;
    return (float)(int32_t)(x >> 32) / 2147483648.0F;
}

/* ---- forward ------------------------------------------------------------------- */

typedef struct taken {
    float *logits; /* (rows, vocab) */
    uint32_t next; /* row */
    uint32_t hidden;
} taken;

static novaq_status take_logits(void *ctx, uint32_t row0, uint32_t n, const float *logits,
                                float *dlogits, novaq_error *err) {
    taken *t = ctx;
    (void)err;
    assert_null(dlogits);
    assert_int_equal(row0, t->next);
    memcpy(t->logits + (uint64_t)row0 * VOCAB, logits, (uint64_t)n * VOCAB * sizeof *logits);
    t->next += n;
    return NOVAQ_OK;
}

static novaq_status take_hidden(void *ctx, uint32_t block, const float *h, float *dh,
                                novaq_error *err) {
    taken *t = ctx;
    (void)err;
    assert_non_null(h);
    assert_null(dh);
    assert_int_equal(block, t->hidden++);
    return NOVAQ_OK;
}

/* The runtime's logits of both sequences. */
static float *run_logits(const nq_model *m) {
    nq_run *r = NULL;
    uint32_t rows[SEQUENCES * N];
    float *out = floats(SEQUENCES * N * VOCAB);
    for (uint32_t i = 0; i < SEQUENCES * N; i++) {
        rows[i] = i;
    }
    assert_int_equal(nq_run_open(&r, m, SEQUENCES, N, N, NULL), NOVAQ_OK);
    assert_int_equal(nq_run_feed(r, tokens, SEQUENCES, N, NULL), NOVAQ_OK);
    assert_int_equal(nq_run_logits(out, r, rows, SEQUENCES * N, NULL), NOVAQ_OK);
    nq_run_close(&r);
    return out;
}

/* Largest difference over the deviation of `want`. */
static double off_by(const float *got, const float *want, uint64_t n) {
    double worst = 0;
    double sum = 0;
    double squares = 0;
    for (uint64_t i = 0; i < n; i++) {
        double d = fabs((double)got[i] - (double)want[i]);
        worst = isnan(d) ? INFINITY : fmax(worst, d);
        sum += (double)want[i];
        squares += (double)want[i] * (double)want[i];
    }
    double mean = sum / (double)n;
    return worst / sqrt(squares / (double)n - mean * mean);
}

static void check_forward(nq_model *m, const char *name, bool frozen) {
    nq_net *n =
        open_net(m, (nq_net_options){.sequences = SEQUENCES, .length = N, .frozen = frozen});
    taken t = {.logits = floats(SEQUENCES * N * VOCAB)};
    float *want = run_logits(m);
    nq_net_pass p = {.tokens = tokens,
                     .sequences = SEQUENCES,
                     .length = N,
                     .logits = take_logits,
                     .logits_ctx = &t,
                     .hidden = take_hidden,
                     .hidden_ctx = &t};
    assert_int_equal(nq_net_run(n, &p, NULL), NOVAQ_OK);
    assert_int_equal(t.next, SEQUENCES * N);
    assert_int_equal(t.hidden, m->hyper.blocks);
    double error = off_by(t.logits, want, (uint64_t)SEQUENCES * N * VOCAB);
    if (!(error <= 1e-5)) {
        fail_msg("%s: logits off by %g of the deviation", name, error);
    }
    float some[3 * VOCAB];
    assert_non_null(nq_net_output(n));
    assert_int_equal(nq_net_logits(some, n, 17, 3, NULL), NOVAQ_OK);
    assert_true(off_by(some, want + 17 * VOCAB, 3 * VOCAB) <= 1e-5);
    assert_int_equal(nq_net_logits(some, n, SEQUENCES * N - 2, 3, NULL), NOVAQ_E_ARG);
    assert_int_equal(nq_net_param_count(n) == 0, frozen);
    nq_free(want);
    nq_free(t.logits);
    nq_net_close(&n);
}

static void test_forward(void **state) {
    (void)state;
    for (size_t i = 0; i < SUBJECT_COUNT; i++) {
        nq_model *m = open_model(SUBJECTS[i].path, NULL);
        check_forward(m, SUBJECTS[i].name, false);
        check_forward(m, SUBJECTS[i].name, true);
        nq_model_close(&m);
    }
}

/* ---- a loss ------------------------------------------------------------------------ */

/* Mean cross entropy of the following token, plus SLOPE times <noise, h> of each block,
 * over the rows. */
#define SLOPE 0.02F

typedef struct objective {
    double sum;
    uint32_t length, rows, dim;
    bool hidden;
    const int32_t *tokens;
} objective;

/* The last token of a sequence is followed by nothing. */
static novaq_status cross_entropy(void *ctx, uint32_t row0, uint32_t n, const float *logits,
                                  float *dlogits, novaq_error *err) {
    objective *l = ctx;
    double share = 1.0 / (l->rows - l->rows / l->length);
    (void)err;
    for (uint32_t i = 0; i < n; i++) {
        const float *x = logits + (uint64_t)i * VOCAB;
        bool last = (row0 + i) % l->length == l->length - 1;
        int32_t next = last ? 0 : l->tokens[row0 + i + 1];
        double sum = 0;
        for (int v = 0; v < VOCAB; v++) {
            sum += exp((double)x[v]);
        }
        l->sum += last ? 0 : share * (log(sum) - (double)x[next]);
        for (int v = 0; dlogits != NULL && v < VOCAB; v++) {
            double p = exp((double)x[v]) / sum - (v == next ? 1.0 : 0.0);
            dlogits[(uint64_t)i * VOCAB + (uint64_t)v] = last ? 0.0F : (float)(share * p);
        }
    }
    return NOVAQ_OK;
}

static novaq_status lean(void *ctx, uint32_t block, const float *h, float *dh, novaq_error *err) {
    objective *l = ctx;
    uint64_t n = (uint64_t)l->rows * l->dim;
    float by = SLOPE / (float)l->rows;
    (void)err;
    for (uint64_t i = 0; i < n; i++) {
        float c = by * noise(block, i);
        l->sum += (double)c * (double)h[i];
        if (dh != NULL) {
            dh[i] += c;
        }
    }
    return NOVAQ_OK;
}

static double loss_of(nq_net *n, const nq_model *m, uint32_t sequences, uint32_t length,
                      bool hidden, bool gradients) {
    objective l = {.length = length,
                   .rows = sequences * length,
                   .dim = m->hyper.dim,
                   .tokens = tokens,
                   .hidden = hidden};
    nq_net_pass p = {.tokens = tokens,
                     .sequences = sequences,
                     .length = length,
                     .logits = cross_entropy,
                     .logits_ctx = &l,
                     .hidden = hidden ? lean : NULL,
                     .hidden_ctx = &l,
                     .gradients = gradients};
    novaq_error err = {0};
    if (nq_net_run(n, &p, &err) != NOVAQ_OK) {
        fail_msg("%s", err.msg);
    }
    return l.sum;
}

/* ---- finite differences ------------------------------------------------------------- */

/* means, columns: with the means of rows, the scales of columns. */
static char *make_artifact(const char *dir, const char *input, const char *scheme, bool means,
                           bool columns) {
    char *path = NULL;
    novaq_error err = {0};
    novaq_compress_options o = NOVAQ_COMPRESS_OPTIONS_INIT;
    assert_int_equal(nq_path_join(&path, dir, "art", NULL), NOVAQ_OK);
    o.input = input;
    o.output = path;
    o.scheme = scheme;
    o.threads = 1;
    o.calibration = columns ? "self" : "none";
    o.calibration_tokens = 256;
    o.column_scales = columns ? 0.5 : 0;
    o.feedback = 0;
    o.row_means = means ? 1 : 0;
    if (novaq_compress(NULL, &o, &err) != NOVAQ_OK) {
        fail_msg("%s: %s", input, err.msg);
    }
    return path;
}

/* The most an error may be, over the gradient's length; and what rounding makes of a
 * difference. */
#define CLOSE 5e-3
#define NOISE 5e-6

/* What is changed a little, and the loss that follows it. */
typedef struct probe {
    const char *name;
    nq_net *n;
    const nq_model *m;
    double (*loss)(const struct probe *p);
    const float *x, *c; /* of a block: its input, the slopes by its output */
    uint32_t block;
} probe;

static double whole_loss(const probe *p) { return loss_of(p->n, p->m, 1, 24, true, false); }

/* Along +-1 in every element of value (count). */
static double difference(const probe *p, float *value, const float *kept, uint64_t count,
                         uint64_t salt, float step) {
    double at[2];
    for (int side = 0; side < 2; side++) {
        for (uint64_t i = 0; i < count; i++) {
            float s = noise(salt, i) > 0 ? step : -step;
            value[i] = kept[i] + (side == 0 ? s : -s);
        }
        at[side] = p->loss(p);
    }
    memcpy(value, kept, count * sizeof *value);
    return (at[0] - at[1]) / (2.0 * (double)step);
}

/* Checks the gradient (count) of value, with differences of two widths. Returns the
 * error over the gradient's length. */
static double gradient_error(const probe *p, float *value, const float *grad, uint64_t count,
                             uint64_t salt, float step) {
    float *kept = floats(count);
    double along = 0;
    double squares = 0;
    memcpy(kept, value, count * sizeof *kept);
    for (uint64_t i = 0; i < count; i++) {
        along += (noise(salt, i) > 0 ? 1.0 : -1.0) * (double)grad[i];
        squares += (double)grad[i] * (double)grad[i];
    }
    double narrow = difference(p, value, kept, count, salt, step);
    double wide = difference(p, value, kept, count, salt, 2 * step);
    nq_free(kept);
    double error = fabs((4.0 * narrow - wide) / 3.0 - along);
    return error <= NOISE ? 0 : error / sqrt(squares);
}

/* Along one direction; with experts along one of several, as a step may change which
 * are chosen, and there the loss jumps. */
static void check_gradient(const probe *p, const char *what, float *value, const float *grad,
                           uint64_t count, uint64_t salt, float step) {
    unsigned tries = p->m->hyper.experts > 0 ? 6 : 1;
    double error = INFINITY;
    for (unsigned i = 0; i < tries && !(error <= CLOSE); i++) {
        error = gradient_error(p, value, grad, count, salt + 1000 * i, step / (float)(1 + i));
    }
    if (!(error <= CLOSE)) {
        fail_msg("%s, %s: off by %g of the gradient", p->name, what, error);
    }
}

static void check_params(const probe *p) {
    static const float STEPS[NQ_PARAM_KINDS] = {
        [NQ_PARAM_CODEBOOK] = 1e-3F,  [NQ_PARAM_LOG_SCALE] = 2e-3F, [NQ_PARAM_ROW_MEAN] = 5e-4F,
        [NQ_PARAM_COL_SCALE] = 2e-3F, [NQ_PARAM_GAIN] = 2e-3F,      [NQ_PARAM_BIAS] = 2e-3F};
    for (size_t i = 0; i < nq_net_param_count(p->n); i++) {
        nq_param *q = nq_net_param(p->n, i);
        char what[160];
        snprintf(what, sizeof what, "kind %d of %s", (int)q->kind, q->name);
        check_gradient(p, what, q->value, q->grad, q->count, i, STEPS[q->kind]);
    }
}

static void test_differences(void **state) {
    unsigned seen = 0; /* bit per kind */
    (void)state;
    for (size_t i = 0; i < SUBJECT_COUNT; i++) {
        char *dir = scratch_dir();
        char *path = make_artifact(dir, SUBJECTS[i].path, i % 2 == 0 ? "k16d2l2" : "pq16x4d2", true,
                                   i % 3 == 1);
        nq_model *m = open_model(path, NULL);
        nq_net *n = open_net(
            m, (nq_net_options){.sequences = 1, .length = 24, .group_cols = i % 3 == 0 ? 16 : 0});
        probe p = {.name = SUBJECTS[i].name, .n = n, .m = m, .loss = whole_loss};
        nq_net_zero_gradients(n);
        loss_of(n, m, 1, 24, true, true);
        check_params(&p);
        for (size_t k = 0; k < nq_net_param_count(n); k++) {
            seen |= 1U << nq_net_param(n, k)->kind;
        }
        nq_net_close(&n);
        nq_model_close(&m);
        remove_dir(dir);
        nq_free(path);
        nq_free(dir);
    }
    assert_int_equal(seen, (1U << NQ_PARAM_KINDS) - 1);
}

/* ---- PyTorch --------------------------------------------------------------------------- */

/* |got - want| / |want|, of vectors. */
static double distance(const float *got, const json_t *want, uint64_t count) {
    double difference = 0;
    double squares = 0;
    assert_int_equal(json_array_size(want), count);
    for (uint64_t i = 0; i < count; i++) {
        double w = json_number_value(json_array_get(want, i));
        difference += ((double)got[i] - w) * ((double)got[i] - w);
        squares += w * w;
    }
    return sqrt(difference / squares);
}

/* What the fixture has for p, or NULL. */
static const json_t *expected(const json_t *set, const nq_param *p) {
    bool rows = p->kind == NQ_PARAM_LOG_SCALE;
    bool vectors = p->kind == NQ_PARAM_GAIN || p->kind == NQ_PARAM_BIAS;
    const char *list = rows ? "rows" : vectors ? "vectors" : "";
    return json_object_get(json_object_get(set, list), p->name);
}

/* The loss and all gradients of m with those of a set of the fixture. */
static void compare(nq_model *m, const subject *s, const char *set) {
    nq_net *n = open_net(m, (nq_net_options){.sequences = 1, .length = N});
    json_t *all = load_json(s->grad);
    const json_t *want = json_object_get(all, set);
    assert_near(loss_of(n, m, 1, N, false, true), number(want, "loss"), 2e-5, s->name);
    size_t found = 0;
    for (size_t i = 0; i < nq_net_param_count(n); i++) {
        const nq_param *p = nq_net_param(n, i);
        if (expected(want, p) != NULL) {
            double error = distance(p->grad, expected(want, p), p->count);
            if (!(error <= 2e-5)) {
                fail_msg("%s, %s, %s: %g from PyTorch's", s->name, set, p->name, error);
            }
            found++;
        }
    }
    assert_int_equal(found, json_object_size(json_object_get(want, "vectors")) +
                                json_object_size(json_object_get(want, "rows")));
    json_decref(all);
    nq_net_close(&n);
}

/* With the weights as stored norms and biases learn; they see all that flows back. Coded
 * in 8 bits matrices learn too. */
static void test_pytorch(void **state) {
    (void)state;
    for (size_t i = 0; i < SUBJECT_COUNT; i++) {
        if (SUBJECTS[i].grad == NULL) {
            continue;
        }
        char *dir = scratch_dir();
        char *path = make_artifact(dir, SUBJECTS[i].path, "q8", false, false);
        nq_model *m = open_model(SUBJECTS[i].path, NULL);
        nq_model *coded = open_model(path, NULL);
        compare(m, &SUBJECTS[i], "stored");
        compare(coded, &SUBJECTS[i], "coded");
        nq_model_close(&coded);
        nq_model_close(&m);
        remove_dir(dir);
        nq_free(path);
        nq_free(dir);
    }
}

/* A scratch copy of Qwen3-MoE whose experts' weights do not add up to 1. */
static char *raw_copy(void) {
    static const char *const FILES[] = {"model.safetensors", "tokenizer.json"};
    char *dir = scratch_dir();
    for (size_t i = 0; i < sizeof FILES / sizeof FILES[0]; i++) {
        char *from = NULL;
        char *to = NULL;
        assert_int_equal(nq_path_join(&from, ARCH("qwen3moe-hf"), FILES[i], NULL), NOVAQ_OK);
        assert_int_equal(nq_path_join(&to, dir, FILES[i], NULL), NOVAQ_OK);
        assert_int_equal(symlink(from, to), 0);
        nq_free(from);
        nq_free(to);
    }
    json_t *config = load_json(ARCH("qwen3moe-hf/config.json"));
    json_object_set_new(config, "norm_topk_prob", json_false());
    write_json(dir, "config.json", config);
    json_decref(config);
    return dir;
}

static void test_raw_weights(void **state) {
    char *dir = raw_copy();
    subject s = {"qwen3moe hf, raw weights", dir, GRAD("qwen3moe-raw")};
    nq_model *m = open_model(dir, NULL);
    (void)state;
    check_forward(m, s.name, false);
    compare(m, &s, "stored");
    nq_model_close(&m);
    remove_dir(dir);
    nq_free(dir);
}

/* ---- one block ------------------------------------------------------------------------- */

static double block_loss(const probe *p) {
    uint64_t floats_out = (uint64_t)2 * 12 * p->m->hyper.dim;
    float *y = floats(floats_out);
    double sum = 0;
    assert_int_equal(nq_net_block(y, p->n, p->block, p->x, 2, 12, NULL), NOVAQ_OK);
    for (uint64_t i = 0; i < floats_out; i++) {
        sum += (double)p->c[i] * (double)y[i];
    }
    nq_free(y);
    return sum;
}

static void test_block(void **state) {
    (void)state;
    for (size_t i = 0; i < SUBJECT_COUNT; i++) {
        nq_model *m = open_model(SUBJECTS[i].path, NULL);
        nq_net *n = open_net(m, (nq_net_options){.sequences = 2, .length = 12});
        uint64_t count = (uint64_t)2 * 12 * m->hyper.dim;
        float *x = floats(count);
        float *c = floats(count);
        float *dx = floats(count);
        for (uint64_t k = 0; k < count; k++) {
            x[k] = noise(100, k);
            c[k] = noise(101, k) / 8;
        }
        for (uint32_t b = 0; b < m->hyper.blocks; b++) {
            probe p = {.name = SUBJECTS[i].name,
                       .n = n,
                       .m = m,
                       .loss = block_loss,
                       .x = x,
                       .c = c,
                       .block = b};
            nq_net_zero_gradients(n);
            assert_int_equal(nq_net_block_backward(dx, n, b, x, c, 2, 12, NULL), NOVAQ_OK);
            check_gradient(&p, "input of a block", x, dx, count, b, 1e-3F);
            check_params(&p); /* of other blocks: nothing */
        }
        nq_free(x);
        nq_free(c);
        nq_free(dx);
        nq_net_close(&n);
        nq_model_close(&m);
    }
}

/* ---- threads ------------------------------------------------------------------------------- */

/* The loss and all gradients behind each other. */
typedef struct outcome {
    double loss;
    float *grad; /* (count); owned */
    uint64_t count;
} outcome;

static outcome outcome_of(const char *path, unsigned threads, uint64_t keep, bool halves) {
    outcome o = {0};
    nq_pool *pool = NULL;
    assert_int_equal(nq_pool_open(&pool, threads, NULL), NOVAQ_OK);
    nq_model *m = open_model(path, pool);
    nq_net *n = open_net(
        m,
        (nq_net_options){
            .sequences = SEQUENCES, .length = N, .group_cols = 16, .keep = keep, .halves = halves});
    o.loss = loss_of(n, m, SEQUENCES, N, true, true);
    for (size_t i = 0; i < nq_net_param_count(n); i++) {
        const nq_param *p = nq_net_param(n, i);
        uint64_t count = o.count + p->count;
        assert_int_equal(nq_grow(&o.grad, o.count, count, sizeof *o.grad, NULL), NOVAQ_OK);
        memcpy(o.grad + o.count, p->grad, p->count * sizeof *o.grad);
        o.count = count;
    }
    nq_net_close(&n);
    nq_model_close(&m);
    nq_pool_close(&pool);
    return o;
}

static double cosine(const outcome *a, const outcome *b) {
    double ab = 0;
    double aa = 0;
    double bb = 0;
    for (uint64_t i = 0; i < a->count; i++) {
        ab += (double)a->grad[i] * (double)b->grad[i];
        aa += (double)a->grad[i] * (double)a->grad[i];
        bb += (double)b->grad[i] * (double)b->grad[i];
    }
    return ab / sqrt(aa * bb);
}

/* 1 to 3 threads, keeping some, none and all of the blocks' insides. */
static outcome check_threads(const char *path, bool halves) {
    static const uint64_t KEEP[3] = {200000, 0, (uint64_t)1 << 30};
    outcome one = outcome_of(path, 1, 0, halves);
    for (unsigned threads = 1; threads <= 3; threads++) {
        outcome more = outcome_of(path, threads, KEEP[threads - 1], halves);
        assert_int_equal(more.count, one.count);
        assert_true(more.loss == one.loss);
        assert_memory_equal(more.grad, one.grad, one.count * sizeof *one.grad);
        nq_free(more.grad);
    }
    return one;
}

/* With inputs of products rounded to bfloat16 gradients point the same way. */
static void test_threads(void **state) {
    (void)state;
    for (size_t i = 0; i < SUBJECT_COUNT; i++) {
        char *dir = scratch_dir();
        char *path = make_artifact(dir, SUBJECTS[i].path, "k16d2l2", false, true);
        outcome exact = check_threads(path, false);
        outcome rounded = check_threads(path, true);
        double same = cosine(&exact, &rounded);
        if (!(same >= 0.98)) {
            fail_msg("%s: rounded gradients point %g away", SUBJECTS[i].name, same);
        }
        nq_free(rounded.grad);
        nq_free(exact.grad);
        remove_dir(dir);
        nq_free(path);
        nq_free(dir);
    }
}

/* ---- arguments ----------------------------------------------------------------------------- */

static void test_arguments(void **state) {
    nq_model *m = open_model(ARCH("gpt2-hf"), NULL);
    nq_net *n = NULL;
    int32_t wrong[2] = {3, VOCAB};
    float *x = floats((uint64_t)8 * m->hyper.dim);
    (void)state;
    nq_net_options none = {.length = 8};
    nq_net_options beyond = {.sequences = 1, .length = m->hyper.context + 1};
    assert_int_equal(nq_net_open(&n, m, &none, NULL), NOVAQ_E_ARG);
    assert_int_equal(nq_net_open(&n, m, &beyond, NULL), NOVAQ_E_ARG);
    nq_net_options one = {.sequences = 1, .length = 8, .frozen = true};
    nq_net_options learning = {.sequences = 1, .length = 8};
    assert_true(nq_net_bytes(m, &learning) > nq_net_bytes(m, &one));
    n = open_net(m, one);
    nq_net_pass p = {.tokens = tokens, .sequences = 1, .length = 8, .gradients = true};
    assert_int_equal(nq_net_run(n, &p, NULL), NOVAQ_E_ARG);
    p.gradients = false;
    p.length = 9;
    assert_int_equal(nq_net_run(n, &p, NULL), NOVAQ_E_ARG);
    p.tokens = wrong;
    p.length = 2;
    assert_int_equal(nq_net_run(n, &p, NULL), NOVAQ_E_ARG);
    assert_null(nq_net_output(n));
    assert_int_equal(nq_net_block(x, n, m->hyper.blocks, x, 1, 8, NULL), NOVAQ_E_ARG);
    assert_int_equal(nq_net_block_backward(NULL, n, 0, x, x, 1, 8, NULL), NOVAQ_E_ARG);
    nq_net_close(&n);
    nq_free(x);
    nq_model_close(&m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forward),   cmocka_unit_test(test_differences),
        cmocka_unit_test(test_pytorch),   cmocka_unit_test(test_raw_weights),
        cmocka_unit_test(test_block),     cmocka_unit_test(test_threads),
        cmocka_unit_test(test_arguments),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
