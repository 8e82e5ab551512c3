/* test_flow.c - one block at a time is the same as all at once, and the moments
 * collected on the way are those of what the model computes, summed naively. */
#include "metric_util.h"
#include "model_util.h"

#include <cblas.h>

#include "compress/flow.h"

/* More tokens than go through a stage at once, and a rest. */
#define SEQUENCES 33
#define LENGTH    64
#define TOKENS    (SEQUENCES * LENGTH)

static const char *const MODELS[] = {TINY("a.gguf"), TINY("b.gguf"), TINY("a-hf"), TINY("b-hf")};

static int32_t *some_tokens(uint32_t vocab) {
    int32_t *t = take_zeroed(TOKENS, sizeof *t);
    for (uint64_t i = 0; i < TOKENS; i++) {
        t[i] = (int32_t)(nq_hash3(7, 1, i) % vocab);
    }
    return t;
}

static nq_model *open_model(const char *path, bool lean, nq_pool *pool) {
    nq_model *m = NULL;
    novaq_error err = {0};
    if ((lean ? nq_model_open_lean(&m, path, pool, &err) : nq_model_open(&m, path, pool, &err)) !=
        NOVAQ_OK) {
        fail_msg("%s", err.msg);
    }
    return m;
}

/* ---- stages --------------------------------------------------------------------- */

/* What passes through a model: the residual stream before each stage and its
 * input, of every block; at the end what the head reads. */
typedef struct trace {
    const nq_model *m;
    float **x;  /* (blocks * NQ_STAGES) (TOKENS, dim) */
    float **in; /* (blocks * NQ_STAGES) (TOKENS, cols) */
    float *out; /* (TOKENS, dim) */
} trace;

/* A matrix that takes the place of another one. */
typedef struct change_of {
    const nq_linear *place, *with;
} change_of;

static void put(const nq_linear **l, unsigned count, const change_of *change) {
    for (unsigned i = 0; change != NULL && i < count; i++) {
        l[i] = l[i] == change->place ? change->with : l[i];
    }
}

static float *copy(const float *a, uint64_t n) {
    float *out = floats(n);
    memcpy(out, a, n * sizeof(float));
    return out;
}

/* By the stages of model.h, all tokens at once. */
static trace run_stages(nq_model *m, const int32_t *tokens, const change_of *change) {
    uint64_t dim = m->hyper.dim;
    uint64_t stages = (uint64_t)m->hyper.blocks * NQ_STAGES;
    trace t = {.m = m, .out = floats(TOKENS * dim)};
    t.x = take_zeroed(stages, sizeof *t.x);
    t.in = take_zeroed(stages, sizeof *t.in);
    nq_run *run = NULL;
    float *x = floats(TOKENS * dim);
    assert_int_equal(nq_run_open_staged(&run, m, SEQUENCES, LENGTH, NULL), NOVAQ_OK);
    assert_int_equal(nq_run_embed(x, run, tokens, SEQUENCES, LENGTH, NULL), NOVAQ_OK);
    for (uint32_t b = 0; b < m->hyper.blocks; b++) {
        float **in = t.in + (uint64_t)b * NQ_STAGES;
        in[0] = floats(TOKENS * dim);
        assert_int_equal(nq_run_enter(in[0], run, b, x, SEQUENCES, LENGTH, NULL), NOVAQ_OK);
        for (unsigned stage = 0; stage < NQ_STAGES; stage++) {
            const nq_linear *l[NQ_GROUP_MAX];
            unsigned count = nq_block_linears(l, &m->blocks[b], stage);
            bool last = stage + 1 == NQ_STAGES;
            put(l, count, change);
            t.x[(uint64_t)b * NQ_STAGES + stage] = copy(x, TOKENS * dim);
            if (!last) {
                in[stage + 1] = floats(TOKENS * nq_stage_cols(m, stage + 1));
            }
            assert_int_equal(nq_run_stage(last ? NULL : in[stage + 1], x, run, b, stage, l,
                                          in[stage], SEQUENCES, LENGTH, NULL),
                             NOVAQ_OK);
        }
    }
    nq_run_output(t.out, run, x, TOKENS);
    nq_run_close(&run);
    nq_free(x);
    return t;
}

static void free_trace(trace *t) {
    for (uint64_t i = 0; i < (uint64_t)t->m->hyper.blocks * NQ_STAGES; i++) {
        nq_free(t->x[i]);
        nq_free(t->in[i]);
    }
    nq_free(t->x);
    nq_free(t->in);
    nq_free(t->out);
}

typedef struct watch {
    const trace *t;
    uint64_t seen;
    double worst;
} watch;

static novaq_status compare_input(void *ctx, const nq_linear *const *l, unsigned count,
                                  const float *x, uint64_t n, novaq_error *err) {
    watch *w = ctx;
    const nq_model *m = w->t->m;
    const nq_linear *own[NQ_GROUP_MAX];
    (void)err;
    assert_int_equal(n, TOKENS);
    assert_true(w->seen < (uint64_t)m->hyper.blocks * NQ_STAGES);
    unsigned stage = (unsigned)(w->seen % NQ_STAGES);
    assert_int_equal(nq_block_linears(own, &m->blocks[w->seen / NQ_STAGES], stage), count);
    assert_string_equal(own[0]->w->name, l[0]->w->name);
    assert_int_equal(nq_stage_cols(m, stage), l[0]->w->cols);
    const float *want = w->t->in[w->seen++];
    for (uint64_t i = 0; i < n * l[0]->w->cols; i++) {
        w->worst = fmax(w->worst, fabs((double)x[i] - (double)want[i]));
    }
    return NOVAQ_OK;
}

/* The inputs of all products and the logits, by stages and by nq_run_feed(). */
static void stages_are_the_model(void **state) {
    (void)state;
    for (size_t i = 0; i < 4; i++) {
        nq_pool *pool = open_pool(1 + (unsigned)i % 2);
        nq_model *lean = open_model(MODELS[i], true, pool);
        nq_model *full = open_model(MODELS[i], false, pool);
        int32_t *tokens = some_tokens(full->hyper.vocab);
        trace t = run_stages(lean, tokens, NULL);
        watch w = {.t = &t};
        nq_run *run = NULL;
        assert_int_equal(nq_run_open(&run, full, SEQUENCES, LENGTH, LENGTH, NULL), NOVAQ_OK);
        nq_run_observe(run, compare_input, &w);
        assert_int_equal(nq_run_feed(run, tokens, SEQUENCES, LENGTH, NULL), NOVAQ_OK);
        assert_int_equal(w.seen, full->hyper.blocks * NQ_STAGES);
        assert_near(w.worst, 0, 1e-4, MODELS[i]);
        uint32_t row = TOKENS - 5;
        uint64_t dim = full->hyper.dim;
        float *logits = floats(full->hyper.vocab);
        float *head = floats(full->hyper.vocab * dim);
        assert_int_equal(nq_run_logits(logits, run, &row, 1, NULL), NOVAQ_OK);
        assert_int_equal(
            nq_weights_read_rows(head, full->weights, full->head.w, 0, full->hyper.vocab, NULL),
            NOVAQ_OK);
        float *same = floats(full->hyper.vocab);
        assert_int_equal(nq_run_head(same, run, t.out + row * dim, 1, NULL), NOVAQ_OK);
        for (uint64_t v = 0; v < full->hyper.vocab; v++) {
            double want = 0;
            for (uint64_t c = 0; c < dim; c++) {
                want += (double)head[v * dim + c] * (double)t.out[row * dim + c];
            }
            assert_near((double)logits[v], want, 2e-4, MODELS[i]);
            assert_near((double)same[v], want, 2e-4, "logits of h");
        }
        nq_free(same);
        nq_free(logits);
        nq_free(head);
        nq_run_close(&run);
        free_trace(&t);
        nq_free(tokens);
        nq_model_close(&lean);
        nq_model_close(&full);
        nq_pool_close(&pool);
    }
}

static void stages_refuse(void **state) {
    (void)state;
    nq_model *m = open_model(MODELS[1], true, NULL);
    nq_run *run = NULL;
    float *x = floats(64 * 128);
    int32_t tokens[16] = {0};
    const nq_linear *l[NQ_GROUP_MAX];
    assert_int_equal(nq_block_linears(l, &m->blocks[0], 0), 3);
    assert_int_equal(nq_run_open_staged(&run, m, 2, 8, NULL), NOVAQ_OK);
    assert_int_equal(nq_run_embed(x, run, tokens, 3, 4, NULL), NOVAQ_E_ARG);
    assert_int_equal(nq_run_embed(x, run, tokens, 1, 9, NULL), NOVAQ_E_ARG);
    tokens[3] = (int32_t)m->hyper.vocab;
    assert_int_equal(nq_run_embed(x, run, tokens, 1, 4, NULL), NOVAQ_E_ARG);
    assert_int_equal(nq_run_enter(x, run, m->hyper.blocks, x, 1, 4, NULL), NOVAQ_E_ARG);
    assert_int_equal(nq_run_stage(NULL, x, run, 0, 0, l, x, 0, 4, NULL), NOVAQ_E_ARG);
    assert_int_equal(nq_run_embed(x, run, tokens, 1, 3, NULL), NOVAQ_OK);
    nq_run_close(&run);
    nq_free(x);
    nq_model_close(&m);
}

/* ---- moments ---------------------------------------------------------------------- */

static void check_matrix(const float *got, const double *want, uint64_t rows, uint64_t cols,
                         const char *what) {
    double largest = 0;
    for (uint64_t i = 0; i < rows * cols; i++) {
        largest = fmax(largest, fabs(want[i]));
    }
    for (uint64_t i = 0; i < rows * cols; i++) {
        assert_near((double)got[i], want[i], 2e-5 * largest + 1e-12, what);
    }
}

/* Moments of one stage against sums over the traces of both streams; the residual
 * only where the stage adds to it. */
static void check_moments(const nq_moments *m, const float *residual, const trace *original,
                          const trace *coded, uint64_t at, bool two) {
    uint64_t cols = nq_stage_cols(original->m, (unsigned)(at % NQ_STAGES));
    uint64_t dim = original->m->hyper.dim;
    const float *x = coded->in[at];
    double *h = naive_moment(NULL, x, x, TOKENS, cols, cols);
    assert_int_equal(m->cols, cols);
    assert_int_equal(m->samples, TOKENS);
    check_matrix(m->h, h, cols, cols, "h");
    for (uint64_t i = 0; i < cols * cols; i++) {
        assert_true(m->h[i] == m->h[i % cols * cols + i / cols]);
    }
    assert_int_equal(m->cross != NULL, two);
    if (two) {
        double *cross = naive_moment(original->in[at], x, x, TOKENS, cols, cols);
        check_matrix(m->cross, cross, cols, cols, "cross");
        nq_free(cross);
    }
    assert_int_equal(residual != NULL, two && nq_stage_adds((unsigned)(at % NQ_STAGES)));
    if (residual != NULL) {
        double *r = naive_moment(original->x[at], coded->x[at], x, TOKENS, dim, cols);
        check_matrix(residual, r, dim, cols, "residual");
        nq_free(r);
    }
    nq_free(h);
}

typedef struct flow_case {
    const char *path;
    bool two;
    uint64_t memory;
    unsigned threads;
} flow_case;

static nq_flow *open_flow(const flow_case *c, const nq_calibration *text, nq_pool *pool) {
    nq_flow *f = NULL;
    novaq_error err = {0};
    nq_flow_options o = {.path = c->path, .two_streams = c->two, .memory = c->memory, .pool = pool};
    if (nq_flow_open(&f, text, &o, &err) != NOVAQ_OK) {
        fail_msg("%s", err.msg);
    }
    return f;
}

/* The matrices of a stage of the flow's own model, and the same with a changed one
 * where its name is met. */
static void stage_matrices(const nq_linear **original, const nq_linear **coded, nq_linear *own,
                           const nq_model *m, uint32_t block, unsigned stage, const char *name,
                           const float *with) {
    unsigned count = nq_block_linears(original, &m->blocks[block], stage);
    for (unsigned i = 0; i < count; i++) {
        coded[i] = original[i];
        if (name != NULL && strcmp(original[i]->w->name, name) == 0) {
            *own = *original[i];
            own->dense = with;
            coded[i] = own;
        }
    }
}

/* Runs the flow; compares every moment with the traces. */
static void check_flow(const flow_case *c, const nq_calibration *text, const trace *original,
                       const trace *coded, const char *name, const float *with) {
    nq_pool *pool = open_pool(c->threads);
    nq_flow *f = open_flow(c, text, pool);
    const nq_model *m = nq_flow_model(f);
    nq_moments moments;
    const float *residual = NULL;
    uint64_t dim = m->hyper.dim;
    for (uint32_t b = 0; b < m->hyper.blocks; b++) {
        const float *stream = nq_flow_stream(f);
        for (uint64_t i = 0; i < TOKENS * dim; i++) {
            double want = (double)original->x[(uint64_t)b * NQ_STAGES][i];
            assert_near((double)stream[i], want, 1e-4, "residual stream");
        }
        assert_int_equal(nq_flow_enter(f, b, NULL), NOVAQ_OK);
        for (unsigned stage = 0; stage < NQ_STAGES; stage++) {
            const nq_linear *lo[NQ_GROUP_MAX];
            const nq_linear *lc[NQ_GROUP_MAX];
            nq_linear own;
            stage_matrices(lo, lc, &own, m, b, stage, name, with);
            nq_flow_moments(&moments, &residual, f, stage);
            check_moments(&moments, residual, original, coded, (uint64_t)b * NQ_STAGES + stage,
                          c->two);
            assert_int_equal(nq_flow_advance(f, stage, lo, lc, NULL), NOVAQ_OK);
        }
    }
    nq_flow_head_moments(&moments, f);
    double *h = naive_moment(NULL, coded->out, coded->out, TOKENS, dim, dim);
    assert_int_equal(moments.cols, dim);
    check_matrix(moments.h, h, dim, dim, "h of the head");
    nq_free(h);
    assert_int_equal(moments.cross != NULL, c->two);
    if (c->two) {
        h = naive_moment(original->out, coded->out, coded->out, TOKENS, dim, dim);
        check_matrix(moments.cross, h, dim, dim, "cross of the head");
        nq_free(h);
    }
    nq_flow_close(&f);
    nq_pool_close(&pool);
}

static float *changed_copy(nq_model *m, const char *name) {
    const nq_weight *w = nq_weights_find(m->weights, name);
    assert_non_null(w);
    float *out = floats(w->elements);
    assert_int_equal(nq_weights_read_rows(out, m->weights, w, 0, w->rows, NULL), NOVAQ_OK);
    for (uint64_t i = 0; i < w->elements; i++) {
        out[i] = 0.9F * out[i] + 0.02F * (float)nq_normal(9, 9, i);
    }
    return out;
}

static void moments_are_sums(void **state) {
    (void)state;
    static const char *const CHANGED[] = {NULL, "blk.0.attn_v.weight", "blk.0.ffn_down.weight"};
    for (unsigned i = 0; i < 6; i++) {
        flow_case c = {.path = MODELS[i % 2],
                       .two = i / 2 != 0,
                       .memory = i % 3 == 0 ? 0 : UINT64_MAX,
                       .threads = 1 + i % 2};
        nq_model *m = open_model(c.path, true, NULL);
        const char *name = CHANGED[i / 2];
        int32_t *tokens = some_tokens(m->hyper.vocab);
        nq_calibration text = {.tokens = tokens, .sequences = SEQUENCES, .length = LENGTH};
        float *with = name != NULL ? changed_copy(m, name) : NULL;
        nq_linear own = {0};
        change_of change = {.place = name != NULL ? nq_model_linear(m, name) : NULL, .with = &own};
        if (name != NULL) {
            own = *change.place;
            own.dense = with;
        }
        trace original = run_stages(m, tokens, NULL);
        trace coded = run_stages(m, tokens, &change);
        check_flow(&c, &text, &original, &coded, name, with);
        free_trace(&original);
        free_trace(&coded);
        nq_free(with);
        nq_free(tokens);
        nq_model_close(&m);
    }
}

/* ---- two streams, scratch, threads --------------------------------------------------- */

/* All moments of a flow through unchanged matrices, one after the other. */
static float *all_moments(const flow_case *c, const nq_calibration *text, uint64_t *count) {
    nq_pool *pool = open_pool(c->threads);
    nq_flow *f = open_flow(c, text, pool);
    const nq_model *m = nq_flow_model(f);
    float *all = floats((uint64_t)m->hyper.blocks * NQ_STAGES * 128 * 128);
    *count = 0;
    for (uint32_t b = 0; b < m->hyper.blocks; b++) {
        assert_int_equal(nq_flow_enter(f, b, NULL), NOVAQ_OK);
        for (unsigned stage = 0; stage < NQ_STAGES; stage++) {
            const nq_linear *l[NQ_GROUP_MAX];
            nq_moments moments;
            const float *residual = NULL;
            (void)nq_block_linears(l, &m->blocks[b], stage);
            nq_flow_moments(&moments, &residual, f, stage);
            uint64_t n = moments.cols;
            memcpy(all + *count, moments.h, n * n * sizeof(float));
            *count += n * n;
            for (uint64_t i = 0; moments.cross != NULL && i < n * n; i++) {
                assert_true(moments.cross[i] == 0.0F);
            }
            for (uint64_t i = 0; residual != NULL && i < m->hyper.dim * n; i++) {
                assert_true(residual[i] == 0.0F);
            }
            assert_int_equal(nq_flow_advance(f, stage, l, l, NULL), NOVAQ_OK);
        }
    }
    nq_flow_close(&f);
    nq_pool_close(&pool);
    return all;
}

/* Streams that compute the same differ by nothing at all; where the state lies and
 * how many threads there are changes no bit. */
static void same_bits(void **state) {
    (void)state;
    static const flow_case VARIANTS[] = {
        {NULL, false, 0, 1}, {NULL, false, UINT64_MAX, 2}, {NULL, true, UINT64_MAX, 1},
        {NULL, true, 0, 2},  {NULL, true, 100000, 3},
    };
    for (size_t i = 0; i < 2; i++) {
        int32_t *tokens = some_tokens(272);
        nq_calibration text = {.tokens = tokens, .sequences = SEQUENCES, .length = LENGTH};
        flow_case c = {MODELS[i], false, UINT64_MAX, 1};
        uint64_t count = 0;
        float *want = all_moments(&c, &text, &count);
        assert_true(count > 0);
        for (size_t v = 0; v < sizeof VARIANTS / sizeof VARIANTS[0]; v++) {
            uint64_t n = 0;
            c = VARIANTS[v];
            c.path = MODELS[i];
            float *got = all_moments(&c, &text, &n);
            assert_int_equal(n, count);
            assert_memory_equal(got, want, count * sizeof(float));
            nq_free(got);
        }
        nq_free(want);
        nq_free(tokens);
    }
}

static novaq_status tick_down(void *ctx, novaq_error *err) {
    unsigned *left = ctx;
    if (*left == 0) {
        return nq_fail(err, NOVAQ_E_INTERRUPTED, "enough");
    }
    --*left;
    return NOVAQ_OK;
}

/* The caller is asked between batches, and may end the work at any of them. */
static void can_be_ended(void **state) {
    (void)state;
    int32_t *tokens = some_tokens(272);
    nq_calibration text = {.tokens = tokens, .sequences = SEQUENCES, .length = LENGTH};
    unsigned ended = 0;
    for (unsigned after = 0; after < 40; after++) {
        unsigned left = after;
        novaq_error err = {0};
        nq_flow *f = NULL;
        nq_flow_options o = {.path = MODELS[1],
                             .two_streams = true,
                             .memory = UINT64_MAX,
                             .tick = tick_down,
                             .tick_ctx = &left};
        novaq_status st = nq_flow_open(&f, &text, &o, &err);
        if (st == NOVAQ_OK) {
            st = nq_flow_enter(f, 0, &err);
        }
        for (unsigned stage = 0; st == NOVAQ_OK && stage < NQ_STAGES; stage++) {
            const nq_linear *l[NQ_GROUP_MAX];
            (void)nq_block_linears(l, &nq_flow_model(f)->blocks[0], stage);
            st = nq_flow_advance(f, stage, l, l, &err);
        }
        assert_true(st == NOVAQ_OK || st == NOVAQ_E_INTERRUPTED);
        assert_int_equal(st == NOVAQ_E_INTERRUPTED, strcmp(err.msg, "enough") == 0);
        ended += st == NOVAQ_E_INTERRUPTED;
        nq_flow_close(&f);
    }
    assert_in_range(ended, 2 * 2 * NQ_STAGES, 39); /* streams, batches, stages at least */
    nq_free(tokens);
}

/* One sequence, one token; and a folder for scratch that is not there. */
static void small_and_wrong(void **state) {
    (void)state;
    int32_t token = 5;
    nq_calibration text = {.tokens = &token, .sequences = 1, .length = 1};
    flow_case c = {MODELS[0], true, 0, 1};
    uint64_t count = 0;
    nq_free(all_moments(&c, &text, &count));
    nq_flow *f = NULL;
    novaq_error err = {0};
    nq_flow_options o = {.path = c.path, .two_streams = true, .memory = 0};
    const char *before = getenv("TMPDIR");
    char *kept = before != NULL ? strdup(before) : NULL;
    assert_int_equal(setenv("TMPDIR", "/nowhere/at/all", 1), 0);
    assert_int_equal(nq_flow_open(&f, &text, &o, &err), NOVAQ_E_IO);
    assert_non_null(strstr(err.msg, "/nowhere/at/all"));
    assert_null(f);
    assert_int_equal(kept != NULL ? setenv("TMPDIR", kept, 1) : unsetenv("TMPDIR"), 0);
    free(kept);
    o.path = "/nowhere/model.gguf";
    assert_int_not_equal(nq_flow_open(&f, &text, &o, &err), NOVAQ_OK);
    assert_null(f);
    token = -1;
    o.path = c.path;
    assert_int_equal(nq_flow_open(&f, &text, &o, &err), NOVAQ_E_ARG);
    assert_null(f);
}

/* A coded embedding: the coded stream starts from its rows, the other does not. */
static void coded_embedding(void **state) {
    (void)state;
    int32_t *tokens = some_tokens(272);
    nq_calibration text = {.tokens = tokens, .sequences = SEQUENCES, .length = LENGTH};
    flow_case c = {MODELS[0], true, UINT64_MAX, 2};
    nq_pool *pool = open_pool(2);
    nq_flow *f = open_flow(&c, &text, pool);
    nq_model *m = nq_flow_model(f);
    float *with = changed_copy(m, m->embed.w->name);
    nq_linear coded = m->embed;
    coded.dense = with;
    trace original = run_stages(m, tokens, NULL);
    nq_linear kept = m->embed;
    m->embed = coded;
    trace changed = run_stages(m, tokens, NULL);
    m->embed = kept;
    assert_int_equal(nq_flow_embed_coded(f, &coded, NULL), NOVAQ_OK);
    nq_moments moments;
    const float *residual = NULL;
    assert_int_equal(nq_flow_enter(f, 0, NULL), NOVAQ_OK);
    nq_flow_moments(&moments, &residual, f, 0);
    check_moments(&moments, residual, &original, &changed, 0, true);
    assert_ptr_equal(m->embed.dense, kept.dense);
    free_trace(&original);
    free_trace(&changed);
    nq_free(with);
    nq_free(tokens);
    nq_flow_close(&f);
    nq_pool_close(&pool);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stages_are_the_model), cmocka_unit_test(stages_refuse),
        cmocka_unit_test(moments_are_sums),     cmocka_unit_test(same_bits),
        cmocka_unit_test(small_and_wrong),      cmocka_unit_test(coded_embedding),
        cmocka_unit_test(can_be_ended),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
