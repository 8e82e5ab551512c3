/* test_blockwise.c - one block learns what the original block gives: the error on
 * sequences it does not learn from falls and is what the stored pieces have, it never
 * rises, the same bits from any number of threads, interruption, refusals; nets of one
 * block; compressing with it, killed and continued.
 * Threads: test_net runs the same loops under TSan, and these take a minute there. */
#include "model_util.h"

#include <math.h>
#include <sys/wait.h>

#include "artifact/artifact.h"
#include "novaq.h"
#include "refine/blockwise.h"

#define ARCH(name) FIXTURES "/arch/" name
#define LENGTH     12
#define SEQUENCES  17
#define BATCH      2

static const char *const SUBJECTS[] = {ARCH("llama-hf"), ARCH("gemma2-hf"), ARCH("phi3-hf"),
                                       ARCH("gpt2-hf"), ARCH("qwen3-hf")};
#define SUBJECT_COUNT (sizeof SUBJECTS / sizeof SUBJECTS[0])

/* A coded model beside the one it was made of, and streams through one of its blocks. */
typedef struct stage {
    char *dir, *path;
    nq_pool *pool;
    nq_model *coded, *original;
    uint32_t block;
    float *x, *y; /* (SEQUENCES, LENGTH, dim) */
    nq_blockwise_data data;
    nq_blockwise_options opt;
    unsigned ticks, stop_at;
} stage;

static float *floats(uint64_t n) {
    float *p = NULL;
    assert_int_equal(nq_alloc(&p, n, sizeof *p, NULL), NOVAQ_OK);
    return p;
}

/* A number in (-1, 1) for element i. */
static float noise(uint64_t i) {
    uint64_t x = (i + 1) * 0x9E3779B97F4A7C15U;
    x ^= x >> 29;
    x *= 0xBF58476D1CE4E5B9U;
    x ^= x >> 32;
    return (float)(int32_t)(x >> 32) / 2147483648.0F;
}

static nq_store_kind store(void *ctx, const nq_param *p) { return nq_store_of(ctx, p); }

static nq_net *open_net(nq_model *m, uint32_t block, uint64_t group_cols, bool frozen) {
    nq_net_options o = {.sequences = BATCH,
                        .length = LENGTH,
                        .group_cols = group_cols,
                        .frozen = frozen,
                        .single = true,
                        .block = block};
    nq_net *n = NULL;
    novaq_error err = {0};
    if (nq_net_open(&n, m, &o, &err) != NOVAQ_OK) {
        fail_msg("%s", err.msg);
    }
    return n;
}

/* y of all sequences. */
static void pass(float *y, nq_net *n, uint32_t block, const float *x, uint64_t dim) {
    for (uint32_t s = 0; s < SEQUENCES; s += BATCH) {
        uint32_t count = SEQUENCES - s < BATCH ? SEQUENCES - s : BATCH;
        uint64_t at = (uint64_t)s * LENGTH * dim;
        assert_int_equal(nq_net_block(y + at, n, block, x + at, count, LENGTH, NULL), NOVAQ_OK);
    }
}

/* The coded stream differs a little from the original one. */
static void make_streams(stage *s) {
    uint64_t dim = s->coded->hyper.dim;
    uint64_t n = (uint64_t)SEQUENCES * LENGTH * dim;
    nq_net *teacher = open_net(s->original, s->block, 0, true);
    s->x = floats(n);
    s->y = floats(n);
    for (uint64_t i = 0; i < n; i++) {
        s->x[i] = 2.0F * noise(i);
    }
    pass(s->y, teacher, s->block, s->x, dim);
    for (uint64_t i = 0; i < n; i++) {
        s->x[i] += 0.01F * noise(n + i);
    }
    nq_net_close(&teacher);
    s->data = (nq_blockwise_data){.x = s->x,
                                  .y = s->y,
                                  .sequences = SEQUENCES,
                                  .length = LENGTH,
                                  .dim = (uint32_t)dim,
                                  .train = SEQUENCES - nq_blockwise_held_out(SEQUENCES)};
}

static stage open_stage(const char *source, unsigned threads) {
    stage s = {.dir = scratch_dir(), .block = 1};
    novaq_error err = {0};
    novaq_compress_options o = NOVAQ_COMPRESS_OPTIONS_INIT;
    assert_int_equal(nq_path_join(&s.path, s.dir, "art", NULL), NOVAQ_OK);
    o.input = source;
    o.output = s.path;
    o.scheme = "k16d2l2";
    o.calibration = "none";
    o.threads = 1;
    o.row_means = 1;
    if (novaq_compress(NULL, &o, &err) != NOVAQ_OK) {
        fail_msg("%s", err.msg);
    }
    assert_int_equal(nq_pool_open(&s.pool, threads, NULL), NOVAQ_OK);
    assert_int_equal(nq_model_open(&s.coded, s.path, s.pool, NULL), NOVAQ_OK);
    assert_int_equal(nq_model_open(&s.original, source, s.pool, NULL), NOVAQ_OK);
    make_streams(&s);
    s.opt = (nq_blockwise_options){.adam = NQ_ADAM_OPTIONS_INIT,
                                   .batch = BATCH,
                                   .seed = 3,
                                   .store = store,
                                   .store_ctx = s.coded->weights};
    s.opt.adam.steps = 40;
    s.opt.adam.rate[NQ_PARAM_CODEBOOK] = 1e-2;
    return s;
}

static void close_stage(stage *s) {
    nq_model_close(&s->coded);
    nq_model_close(&s->original);
    nq_pool_close(&s->pool);
    nq_free(s->x);
    nq_free(s->y);
    remove_dir(s->dir);
    nq_free(s->dir);
    nq_free(s->path);
}

static nq_blockwise_result run(stage *s, nq_net *n) {
    nq_blockwise_result r;
    novaq_error err = {0};
    if (nq_blockwise_run(&r, n, s->block, &s->data, &s->opt, &err) != NOVAQ_OK) {
        fail_msg("%s", err.msg);
    }
    return r;
}

/* ---- what is stored -------------------------------------------------------------------- */

static void *copy_of(const void *from, size_t bytes) {
    char *to = NULL;
    if (from != NULL) {
        assert_int_equal(nq_alloc(&to, bytes, 1, NULL), NOVAQ_OK);
        memcpy(to, from, bytes);
    }
    return to;
}

/* The pieces a matrix came with. */
static nq_encoded encoded_of(const nq_qmat *q) {
    nq_encoded e = {.q = *q};
    e.codebooks = copy_of(q->codebooks, nq_qmat_codebook_bytes(q));
    e.codebook_scale = copy_of(q->codebook_scale, q->groups * sizeof(uint16_t));
    e.row_scale = copy_of(q->row_scale, q->rows * sizeof(uint16_t));
    e.row_mean = copy_of(q->row_mean, q->rows * sizeof(uint16_t));
    e.q.codebooks = e.codebooks;
    e.q.codebook_scale = e.codebook_scale;
    e.q.row_scale = e.row_scale;
    e.q.row_mean = e.row_mean;
    return e;
}

/* The error held out of a block whose matrices are what n learnt, as stored, and whose
 * vectors are what n has, rounded. */
static double stored_error(stage *s, nq_net *n) {
    nq_encoded made[16];
    nq_weight w[16];
    size_t count = nq_net_matrix_count(n);
    assert_in_range(count, 1, 16);
    for (size_t i = 0; i < count; i++) {
        const nq_tmatrix *m = nq_net_matrix(n, i);
        made[i] = encoded_of(m->q);
        assert_int_equal(nq_blockwise_take(&made[i], m, NULL), NOVAQ_OK);
        assert_ptr_equal(made[i].q.symbols, m->q->symbols);
        assert_int_equal(nq_qmat_check(&made[i].q, "taken", NULL), NOVAQ_OK);
        w[i] = *m->source.w;
        w[i].q = &made[i].q;
        nq_model_linear(s->coded, w[i].name)->w = &w[i];
    }
    nq_net *again = open_net(s->coded, s->block, 0, false);
    for (size_t i = 0; i < nq_net_param_count(n); i++) {
        const nq_param *p = nq_net_param(n, i);
        for (size_t k = 0; k < nq_net_param_count(again); k++) {
            const nq_param *to = nq_net_param(again, k);
            bool vector = p->kind == NQ_PARAM_GAIN || p->kind == NQ_PARAM_BIAS;
            for (uint64_t e = 0; vector && strcmp(to->name, p->name) == 0 && e < p->count; e++) {
                nq_store_kind kind = nq_store_of(s->coded->weights, p);
                to->value[e] = nq_store_round(kind, p->value[e] - p->offset) + p->offset;
            }
        }
    }
    nq_blockwise_options kept = s->opt;
    s->opt.adam.steps = 0;
    double error = run(s, again).before;
    s->opt = kept;
    nq_net_close(&again);
    for (size_t i = 0; i < count; i++) {
        nq_linear *place = nq_model_linear(s->coded, w[i].name);
        place->w = nq_net_matrix(n, i)->source.w;
        nq_encoded_close(&made[i]);
    }
    return error;
}

static void test_gain(void **state) {
    (void)state;
    for (size_t i = 0; i < SUBJECT_COUNT; i++) {
        stage s = open_stage(SUBJECTS[i], 1);
        nq_net *n = open_net(s.coded, s.block, i % 2 == 0 ? 16 : 0, false);
        nq_blockwise_result r = run(&s, n);
        if (!(r.after < 0.985 * r.before)) {
            fail_msg("%s: %g became %g", SUBJECTS[i], r.before, r.after);
        }
        assert_in_range(r.step, 1, s.opt.adam.steps);
        assert_near(stored_error(&s, n), r.after, 1e-6 * r.after, SUBJECTS[i]);
        nq_net_close(&n);
        close_stage(&s);
    }
}

/* ---- never worse ------------------------------------------------------------------------- */

static uint64_t total_of(nq_net *n) {
    uint64_t total = 0;
    for (size_t i = 0; i < nq_net_param_count(n); i++) {
        total += nq_net_param(n, i)->count;
    }
    return total;
}

static float *values_of(nq_net *n) {
    float *all = floats(total_of(n));
    float *to = all;
    for (size_t i = 0; i < nq_net_param_count(n); i++) {
        const nq_param *p = nq_net_param(n, i);
        memcpy(to, p->value, p->count * sizeof *to);
        to += p->count;
    }
    return all;
}

static void test_never_worse(void **state) {
    stage s = open_stage(SUBJECTS[0], 1);
    nq_net *n = open_net(s.coded, s.block, 0, false);
    float *before = values_of(n);
    (void)state;
    for (int kind = 0; kind < NQ_PARAM_KINDS; kind++) {
        s.opt.adam.rate[kind] = 3;
    }
    nq_blockwise_result r = run(&s, n);
    float *after = values_of(n);
    assert_int_equal(r.step, 0);
    assert_true(r.after == r.before);
    assert_memory_equal(before, after, total_of(n) * sizeof *before);
    nq_free(before);
    nq_free(after);
    nq_net_close(&n);
    close_stage(&s);
}

/* A token that is no number takes nothing with it. */
static void test_not_finite(void **state) {
    stage s = open_stage(SUBJECTS[0], 1);
    nq_net *n = open_net(s.coded, s.block, 0, false);
    float *before = values_of(n);
    (void)state;
    for (int place = 0; place < 2; place++) {
        uint64_t at = place == 0 ? 5 : ((uint64_t)SEQUENCES * LENGTH - 1) * s.data.dim;
        float kept = s.x[at];
        s.x[at] = (float)NAN;
        nq_blockwise_result r = run(&s, n);
        if (place == 1) {
            float *after = values_of(n);
            assert_int_equal(r.step, 0);
            assert_memory_equal(before, after, total_of(n) * sizeof *before);
            nq_free(after);
        } else {
            assert_true(r.after <= r.before);
        }
        s.x[at] = kept;
        float *now = values_of(n);
        for (uint64_t i = 0; i < total_of(n); i++) {
            assert_true(isfinite(now[i]));
        }
        nq_free(now);
        nq_net_close(&n);
        n = open_net(s.coded, s.block, 0, false);
    }
    nq_free(before);
    nq_net_close(&n);
    close_stage(&s);
}

/* ---- threads, interruption ------------------------------------------------------------------ */

static void test_threads(void **state) {
    float *first = NULL;
    nq_blockwise_result one = {0};
    (void)state;
    for (unsigned threads = 1; threads <= 3; threads++) {
        stage s = open_stage(SUBJECTS[1], threads);
        nq_net *n = open_net(s.coded, s.block, 16, false);
        s.opt.adam.steps = 10;
        nq_blockwise_result r = run(&s, n);
        float *values = values_of(n);
        if (first == NULL) {
            first = values;
            one = r;
            assert_true(r.step > 0);
        } else {
            assert_memory_equal(values, first, total_of(n) * sizeof *values);
            assert_true(r.before == one.before && r.after == one.after && r.step == one.step);
            nq_free(values);
        }
        nq_net_close(&n);
        close_stage(&s);
    }
    nq_free(first);
}

static novaq_status count_ticks(void *ctx, novaq_error *err) {
    stage *s = ctx;
    s->ticks++;
    return s->ticks == s->stop_at ? nq_fail(err, NOVAQ_E_INTERRUPTED, "stopped") : NOVAQ_OK;
}

static void test_interrupted(void **state) {
    stage s = open_stage(SUBJECTS[0], 1);
    nq_net *n = open_net(s.coded, s.block, 0, false);
    nq_blockwise_result r;
    (void)state;
    s.opt.tick = count_ticks;
    s.opt.tick_ctx = &s;
    s.stop_at = 9;
    assert_int_equal(nq_blockwise_run(&r, n, s.block, &s.data, &s.opt, NULL), NOVAQ_E_INTERRUPTED);
    assert_int_equal(s.ticks, 9);
    s.data.train = SEQUENCES;
    assert_int_equal(nq_blockwise_run(&r, n, s.block, &s.data, &s.opt, NULL), NOVAQ_E_ARG);
    s.data.train = 0;
    assert_int_equal(nq_blockwise_run(&r, n, s.block, &s.data, &s.opt, NULL), NOVAQ_E_ARG);
    assert_int_equal(nq_blockwise_held_out(1), 1);
    assert_int_equal(nq_blockwise_held_out(128), 16);
    nq_net_close(&n);
    close_stage(&s);
}

/* ---- nets of one block ------------------------------------------------------------------------
 */

/* The way back right after the way there is the way back. */
static void test_learn(void **state) {
    (void)state;
    for (size_t i = 0; i < SUBJECT_COUNT; i++) {
        stage s = open_stage(SUBJECTS[i], 1);
        nq_net *n = open_net(s.coded, s.block, 0, false);
        uint64_t count = (uint64_t)BATCH * LENGTH * s.data.dim;
        float *y = floats(count);
        float *dx[2] = {floats(count), floats(count)};
        float *grads[2] = {floats(total_of(n)), floats(total_of(n))};
        for (int k = 0; k < 2; k++) {
            nq_net_zero_gradients(n);
            if (k == 0) {
                assert_int_equal(
                    nq_net_block_backward(dx[k], n, s.block, s.x, s.y, BATCH, LENGTH, NULL),
                    NOVAQ_OK);
            } else {
                assert_int_equal(nq_net_block(y, n, s.block, s.x, BATCH, LENGTH, NULL), NOVAQ_OK);
                assert_int_equal(
                    nq_net_block_learn(dx[k], n, s.block, s.x, s.y, BATCH, LENGTH, NULL), NOVAQ_OK);
            }
            float *to = grads[k];
            for (size_t p = 0; p < nq_net_param_count(n); p++) {
                const nq_param *q = nq_net_param(n, p);
                memcpy(to, q->grad, q->count * sizeof *to);
                to += q->count;
            }
        }
        assert_memory_equal(dx[0], dx[1], count * sizeof(float));
        assert_memory_equal(grads[0], grads[1], total_of(n) * sizeof(float));
        for (int k = 0; k < 2; k++) {
            nq_free(dx[k]);
            nq_free(grads[k]);
        }
        nq_free(y);
        nq_net_close(&n);
        close_stage(&s);
    }
}

/* The same numbers as the block of a whole net gives, in less memory; nothing else. */
static void test_single(void **state) {
    stage s = open_stage(SUBJECTS[2], 1);
    nq_net *one = open_net(s.coded, s.block, 0, false);
    nq_net *all = NULL;
    nq_net_options o = {.sequences = BATCH, .length = LENGTH};
    uint64_t n = (uint64_t)SEQUENCES * LENGTH * s.data.dim;
    float *y[2] = {floats(n), floats(n)};
    int32_t tokens[LENGTH] = {0};
    nq_net_pass p = {.tokens = tokens, .sequences = 1, .length = LENGTH};
    (void)state;
    assert_int_equal(nq_net_open(&all, s.coded, &o, NULL), NOVAQ_OK);
    pass(y[0], one, s.block, s.x, s.data.dim);
    pass(y[1], all, s.block, s.x, s.data.dim);
    assert_memory_equal(y[0], y[1], n * sizeof(float));
    uint64_t whole = nq_net_bytes(s.coded, &o);
    o.single = true;
    assert_true(nq_net_bytes(s.coded, &o) < whole);
    assert_true(nq_net_matrix_count(one) < nq_net_matrix_count(all));
    assert_int_equal(nq_net_run(one, &p, NULL), NOVAQ_E_ARG);
    assert_int_equal(nq_net_block(y[0], one, 0, s.x, BATCH, LENGTH, NULL), NOVAQ_E_ARG);
    nq_net_close(&one);
    o.block = s.coded->hyper.blocks;
    assert_int_equal(nq_net_open(&one, s.coded, &o, NULL), NOVAQ_E_ARG);
    nq_net_close(&all);
    nq_free(y[0]);
    nq_free(y[1]);
    close_stage(&s);
}

/* ---- inside a calibrated compression -----------------------------------------------------------
 */

#define STEPS 6

typedef struct compression {
    char *dir, *text, *output;
    novaq_compress_options o;
    unsigned left; /* tensors until the process dies; 0: it lives */
} compression;

static void die_after(void *ctx, const char *line) {
    compression *c = ctx;
    (void)line;
    if (c->left > 0 && --c->left == 0) {
        _exit(7);
    }
}

static compression open_compression(const char *source) {
    compression c = {.dir = scratch_dir(), .o = NOVAQ_COMPRESS_OPTIONS_INIT};
    c.text = text_file(c.dir, 120);
    assert_int_equal(nq_path_join(&c.output, c.dir, "out.bin", NULL), NOVAQ_OK);
    c.o.input = source;
    c.o.output = c.output;
    c.o.single_file = 1;
    c.o.scheme = "k16d2l2";
    c.o.calibration = c.text;
    c.o.calibration_tokens = 1024;
    c.o.threads = 1;
    c.o.refine_blocks = STEPS;
    return c;
}

static void close_compression(compression *c) {
    remove_dir(c->dir);
    nq_free(c->dir);
    nq_free(c->text);
    nq_free(c->output);
}

static json_t *compress(compression *c) {
    char *report = NULL;
    json_t *o = NULL;
    novaq_error err = {0};
    if (novaq_compress(&report, &c->o, &err) != NOVAQ_OK) {
        fail_msg("%s", err.msg);
    }
    assert_int_equal(nq_json_parse(&o, "report", report, strlen(report), NULL), NOVAQ_OK);
    novaq_free(report);
    return o;
}

static char *made(compression *c, size_t *len) {
    char *data = NULL;
    json_decref(compress(c));
    assert_int_equal(nq_read_file(&data, len, c->output, (size_t)1 << 26, NULL), NOVAQ_OK);
    return data;
}

/* Whether the pieces of every layer are the same; what manifests say is not looked at. */
static bool same_layers(const char *one, const char *two) {
    nq_artifact *a = NULL;
    nq_artifact *b = NULL;
    bool same = true;
    assert_int_equal(nq_artifact_open(&a, one, NULL), NOVAQ_OK);
    assert_int_equal(nq_artifact_open(&b, two, NULL), NOVAQ_OK);
    assert_int_equal(nq_artifact_count(a), nq_artifact_count(b));
    for (size_t i = 0; i < nq_artifact_count(a); i++) {
        const nq_qmat *x = &nq_artifact_at(a, i)->q;
        const nq_qmat *y = &nq_artifact_at(b, i)->q;
        if (nq_artifact_at(a, i)->scheme.kind != NQ_SCHEME_CODE) {
            continue;
        }
        same = same && memcmp(x->row_scale, y->row_scale, x->rows * 2) == 0 &&
               memcmp(x->codebooks, y->codebooks, nq_scheme_codebook_bytes(&x->scheme)) == 0 &&
               memcmp(x->symbols, y->symbols, nq_qmat_symbol_bytes(x)) == 0;
    }
    nq_artifact_close(&a);
    nq_artifact_close(&b);
    return same;
}

static bool warns(compression *c, const char *says) {
    json_t *report = compress(c);
    char *text = NULL;
    assert_int_equal(nq_json_dump(&text, json_object_get(report, "warnings"), 0, NULL), NOVAQ_OK);
    bool found = strstr(text, says) != NULL;
    nq_free(text);
    json_decref(report);
    return found;
}

static bool records_blocks(const char *path) {
    nq_artifact *a = NULL;
    assert_int_equal(nq_artifact_open(&a, path, NULL), NOVAQ_OK);
    const json_t *q = json_object_get(nq_artifact_manifest(a), "quantization");
    bool told = json_object_get(json_object_get(q, "config"), "refine_blocks") != NULL;
    nq_artifact_close(&a);
    return told;
}

/* Of every architecture: readable, the same for any number of threads, not what comes
 * without; but for experts, whose blocks stay, which is said. */
static void test_compress(void **state) {
    static const char *const sources[] = {ARCH("llama-hf"), ARCH("gemma2-hf"), ARCH("mixtral-hf")};
    (void)state;
    for (size_t i = 0; i < sizeof sources / sizeof sources[0]; i++) {
        compression c = open_compression(sources[i]);
        size_t len[3] = {0};
        char *data[3];
        for (unsigned k = 0; k < 3; k++) {
            c.o.threads = k + 1;
            c.o.refine_blocks = k < 2 ? STEPS : 0;
            data[k] = made(&c, &len[k]);
        }
        assert_int_equal(len[0], len[1]);
        assert_memory_equal(data[0], data[1], len[0]);
        bool experts = i == 2;
        char *with = NULL;
        char *without = c.output;
        assert_int_equal(nq_path_join(&with, c.dir, "with.bin", NULL), NOVAQ_OK);
        c.output = with;
        c.o.output = with;
        c.o.refine_blocks = STEPS;
        assert_true(warns(&c, "have experts") == experts);
        assert_true(same_layers(with, without) == experts);
        assert_true(records_blocks(with) == !experts);
        c.output = without;
        nq_free(with);
        for (unsigned k = 0; k < 3; k++) {
            nq_free(data[k]);
        }
        close_compression(&c);
    }
}

/* Killed between any two tensors, also in the middle of a block that is being written, a
 * run goes on to the same bytes. */
static void test_killed(void **state) {
    compression c = open_compression(ARCH("llama-hf"));
    size_t len = 0;
    char *want = made(&c, &len);
    unsigned killed = 0;
    (void)state;
    for (unsigned tensors = 1; tensors <= 16; tensors += 2) {
        int status = 0;
        unlink(c.output);
        pid_t child = fork();
        if (child == 0) {
            c.left = tensors;
            c.o.tensor = die_after;
            c.o.tensor_ctx = &c;
            char *report = NULL;
            _exit(novaq_compress(&report, &c.o, NULL) == NOVAQ_OK ? 0 : 1);
        }
        assert_true(child > 0);
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), 7);
        json_t *report = compress(&c);
        json_t *resumed = json_object_get(report, "resumed");
        killed += json_integer_value(json_object_get(resumed, "tensors")) > 0;
        json_decref(report);
        size_t n = 0;
        char *data = NULL;
        assert_int_equal(nq_read_file(&data, &n, c.output, (size_t)1 << 26, NULL), NOVAQ_OK);
        assert_int_equal(n, len);
        assert_memory_equal(data, want, len);
        nq_free(data);
    }
    assert_true(killed > 4);
    nq_free(want);
    close_compression(&c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gain),        cmocka_unit_test(test_never_worse),
        cmocka_unit_test(test_not_finite),  cmocka_unit_test(test_threads),
        cmocka_unit_test(test_interrupted), cmocka_unit_test(test_learn),
        cmocka_unit_test(test_single),      cmocka_unit_test(test_compress),
        cmocka_unit_test(test_killed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
