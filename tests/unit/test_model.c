/* test_model.c - the forward pass against an independent float64 reference, and
 * what the runtime refuses. */
#include "base/rng.h"
#include "model_util.h"

#include "model/model.h"

#define N 40

typedef struct fixture {
    json_t *expected;
    int32_t tokens[N];
} fixture;

static int setup(void **state) {
    static fixture f;
    f.expected = load_json(TINY("expected.json"));
    for (size_t i = 0; i < N; i++) {
        f.tokens[i] =
            (int32_t)json_integer_value(json_array_get(json_object_get(f.expected, "tokens"), i));
    }
    *state = &f;
    return 0;
}

static int teardown(void **state) {
    json_decref(((fixture *)*state)->expected);
    return 0;
}

static nq_model *open_model(const char *path, nq_pool *pool) {
    nq_model *m = NULL;
    novaq_error err = {0};
    if (nq_model_open(&m, path, pool, &err) != NOVAQ_OK) {
        fail_msg("%s", err.msg);
    }
    return m;
}

/* logits (N, vocab) of the first N tokens fed in pieces of `piece`. */
static float *logits_of(const nq_model *m, const int32_t *tokens, uint32_t piece) {
    nq_run *r = NULL;
    float *out = NULL;
    uint32_t rows[N];
    for (uint32_t i = 0; i < N; i++) {
        rows[i] = i;
    }
    assert_int_equal(nq_alloc(&out, (uint64_t)N * m->hyper.vocab, sizeof *out, NULL), NOVAQ_OK);
    assert_int_equal(nq_run_open(&r, m, 1, N, N, NULL), NOVAQ_OK);
    for (uint32_t at = 0; at < N;) {
        uint32_t n = N - at < piece ? N - at : piece;
        assert_int_equal(nq_run_feed(r, tokens + at, 1, n, NULL), NOVAQ_OK);
        assert_int_equal(nq_run_logits(out + (uint64_t)at * m->hyper.vocab, r, rows, n, NULL),
                         NOVAQ_OK);
        at += n;
        assert_int_equal(nq_run_position(r), at);
    }
    nq_run_close(&r);
    return out;
}

static void check_logits(const float *logits, const json_t *expected, uint32_t vocab,
                         const char *what) {
    const char *row = NULL;
    json_t *values = NULL;
    size_t checked = 0;
    json_object_foreach((json_t *)(uintptr_t)expected, row, values) {
        uint64_t at = strtoull(row, NULL, 10) * vocab;
        assert_int_equal(json_array_size(values), vocab);
        for (uint32_t i = 0; i < vocab; i++, checked++) {
            assert_near((double)logits[at + i], json_number_value(json_array_get(values, i)), 1e-4,
                        what);
        }
    }
    assert_int_equal(checked, 4 * vocab);
}

static void test_logits(void **state) {
    static const char *const PATHS[] = {TINY("a.gguf"), TINY("a-hf"), TINY("b.gguf"), TINY("b-hf")};
    const fixture *f = *state;
    for (size_t i = 0; i < 4; i++) {
        const json_t *want = json_object_get(f->expected, i < 2 ? "logits_a" : "logits_b");
        nq_model *m = open_model(PATHS[i], NULL);
        for (uint32_t piece = 1; piece <= N; piece += 13) { /* single tokens, blocks, all */
            float *logits = logits_of(m, f->tokens, piece);
            check_logits(logits, want, m->hyper.vocab, PATHS[i]);
            nq_free(logits);
        }
        nq_model_close(&m);
    }
}

/* Over tensors that are open already, which stay the caller's: the same model. */
static void test_over_tensors(void **state) {
    static const char *const PATHS[] = {TINY("a.gguf"), TINY("a-hf")};
    const fixture *f = *state;
    for (size_t i = 0; i < 2; i++) {
        nq_tensors *ts = NULL;
        nq_model *lean = NULL;
        nq_model *full = NULL;
        novaq_error err = {.msg = ""};
        assert_int_equal(nq_model_tensors_open(&ts, PATHS[i], &err), NOVAQ_OK);
        assert_int_equal(nq_model_open_lean_over(&lean, ts, NULL, &err), NOVAQ_OK);
        assert_int_equal(nq_model_open_over(&full, ts, NULL, &err), NOVAQ_OK);
        assert_ptr_equal(nq_weights_tensors(lean->weights), ts);
        nq_model *const models[] = {lean, full};
        for (size_t k = 0; k < 2; k++) {
            float *logits = logits_of(models[k], f->tokens, N);
            check_logits(logits, json_object_get(f->expected, "logits_a"), lean->hyper.vocab,
                         PATHS[i]);
            nq_free(logits);
        }
        nq_model_close(&lean);
        nq_model_close(&full);
        assert_true(nq_tensors_count(ts) > 0);
        nq_tensors_close(&ts);
    }
}

/* Two sequences side by side are what each is alone. */
static void test_batch(void **state) {
    const fixture *f = *state;
    nq_model *m = open_model(TINY("a.gguf"), NULL);
    uint32_t vocab = m->hyper.vocab;
    int32_t both[2 * N];
    uint32_t rows[2] = {N - 1, 2 * N - 1};
    float *two = NULL;
    nq_run *r = NULL;
    memcpy(both, f->tokens, sizeof f->tokens);
    for (int i = 0; i < N; i++) {
        both[N + i] = f->tokens[N - 1 - i];
    }
    assert_int_equal(nq_alloc(&two, (uint64_t)2 * vocab, sizeof *two, NULL), NOVAQ_OK);
    assert_int_equal(nq_run_open(&r, m, 2, N, N, NULL), NOVAQ_OK);
    assert_int_equal(nq_run_feed(r, both, 2, N, NULL), NOVAQ_OK);
    assert_int_equal(nq_run_logits(two, r, rows, 2, NULL), NOVAQ_OK);
    for (int s = 0; s < 2; s++) {
        float *alone = logits_of(m, both + s * N, N);
        for (uint32_t i = 0; i < vocab; i++) {
            assert_near((double)two[(uint32_t)s * vocab + i], (double)alone[(N - 1) * vocab + i],
                        1e-5, "batch");
        }
        nq_free(alone);
    }
    nq_free(two);
    nq_run_close(&r);
    nq_model_close(&m);
}

static char *make_artifact_of(const char *input, const char *dir, const char *scheme) {
    char *path = NULL;
    novaq_error err = {0};
    novaq_compress_options o = NOVAQ_COMPRESS_OPTIONS_INIT;
    assert_int_equal(nq_path_join(&path, dir, "art", NULL), NOVAQ_OK);
    o.input = input;
    o.output = path;
    o.scheme = scheme;
    o.threads = 1;
    if (novaq_compress(NULL, &o, &err) != NOVAQ_OK) {
        fail_msg("%s", err.msg);
    }
    return path;
}

/* An artifact with coded matrices: a's, at 4 bits, rotated. */
static char *make_artifact(const char *dir, const char *scheme) {
    return make_artifact_of(TINY("a.gguf"), dir, scheme);
}

/* Replaces every coded matrix by its decoded rows, rotation undone; the caller
 * frees what is returned: a list that ends with NULL. */
static float **decode_all(nq_model *m) {
    float **copies = NULL;
    size_t count = nq_weights_count(m->weights);
    size_t used = 0;
    assert_int_equal(nq_alloc(&copies, count + 1, sizeof *copies, NULL), NOVAQ_OK);
    for (size_t i = 0; i < count; i++) {
        const nq_weight *t = nq_weights_at(m->weights, i);
        nq_linear *place = t->q == NULL ? NULL : nq_model_linear(m, t->name);
        if (place != NULL) {
            assert_int_equal(nq_alloc(&copies[used], t->elements, sizeof(float), NULL), NOVAQ_OK);
            assert_int_equal(nq_weights_read_rows(copies[used], m->weights, t, 0, t->rows, NULL),
                             NOVAQ_OK);
            place->dense = copies[used++];
        }
    }
    assert_true(used >= 10); /* all but the narrow ones of k and v, which stay raw */
    return copies;
}

static void check_artifact(const fixture *f, const char *path) {
    nq_model *coded = open_model(path, NULL);
    nq_model *dense = open_model(path, NULL);
    float **copies = decode_all(dense);
    for (uint32_t piece = 1; piece <= N; piece += 39) { /* vector products, tiles */
        float *a = logits_of(coded, f->tokens, piece);
        float *b = logits_of(dense, f->tokens, piece);
        for (uint64_t i = 0; i < (uint64_t)N * coded->hyper.vocab; i++) {
            assert_near((double)a[i], (double)b[i], 2e-4, path);
        }
        nq_free(a);
        nq_free(b);
    }
    for (float **c = copies; *c != NULL; c++) {
        nq_free(*c);
    }
    nq_free(copies);
    nq_model_close(&coded);
    nq_model_close(&dense);
}

static void test_artifact(void **state) {
    static const char *const SCHEMES[] = {"k16d1l2", "k16d2l3", "q8", "pq16x4d4"};
    for (size_t i = 0; i < sizeof SCHEMES / sizeof SCHEMES[0]; i++) {
        char *dir = scratch_dir();
        char *path = make_artifact(dir, SCHEMES[i]);
        check_artifact(*state, path);
        remove_dir(dir);
        nq_free(path);
        nq_free(dir);
    }
}

/* Some rows of a matrix, for one input and for two: the first as it is stored, the others
 * decoded. */
static void check_part(const nq_linear *whole) {
    nq_linear_work *work = NULL;
    nq_linear part = *whole;
    uint64_t cols = part.w->cols;
    float y[2][16], x[2][512];
    assert_true(cols <= 512 && part.w->rows >= 16);
    part.row0 = part.w->rows - 11;
    part.rows = 8;
    part.dense = whole->dense != NULL ? whole->dense + part.row0 * cols : NULL;
    for (uint64_t c = 0; c < cols; c++) {
        x[0][c] = (float)nq_normal(1, 2, c);
    }
    memcpy(x[0] + cols, x[0], cols * sizeof(float)); /* (2, cols) */
    assert_int_equal(nq_linear_work_open(&work, NULL, cols, 64, 2, NULL), NOVAQ_OK);
    const nq_linear *l = &part;
    float *out = y[0];
    assert_int_equal(nq_linear_apply(&out, &l, 1, x[0], 1, work, NULL), NOVAQ_OK);
    out = y[1];
    assert_int_equal(nq_linear_apply(&out, &l, 1, x[0], 2, work, NULL), NOVAQ_OK);
    for (unsigned i = 0; i < 8; i++) {
        assert_near((double)y[0][i], (double)y[1][i], 1e-5, part.w->name);
    }
    nq_linear_work_close(&work);
}

/* Weights kept as they are give what the source gives, and where products read them in
 * place there is no copy. */
static void check_stored(const fixture *f, const char *input, const char *scheme, nq_dtype type) {
    char *dir = scratch_dir();
    char *path = make_artifact_of(input, dir, scheme);
    nq_model *kept = open_model(path, NULL);
    nq_model *source = open_model(input, NULL);
    unsigned found = 0;
    for (size_t i = 0; i < nq_weights_count(kept->weights); i++) {
        const nq_weight *t = nq_weights_at(kept->weights, i);
        nq_dtype stored;
        const void *data = nq_weight_in_place(&stored, t, 0);
        nq_linear *place = data == NULL || stored != type ? NULL : nq_model_linear(kept, t->name);
        if (place != NULL) {
            assert_ptr_equal(place->dense, type == NQ_F32 ? data : NULL);
            check_part(place);
            found++;
        }
    }
    assert_true(found > 0);
    for (uint32_t piece = 1; piece <= N; piece += N - 1) {
        float *a = logits_of(kept, f->tokens, piece);
        float *b = logits_of(source, f->tokens, piece);
        for (uint64_t i = 0; i < (uint64_t)N * kept->hyper.vocab; i++) {
            assert_near((double)a[i], (double)b[i], type == NQ_BF16 ? 0.2 : 2e-3, scheme);
        }
        nq_free(a);
        nq_free(b);
    }
    nq_model_close(&kept);
    nq_model_close(&source);
    remove_dir(dir);
    nq_free(path);
    nq_free(dir);
}

static void test_stored(void **state) {
    check_stored(*state, TINY("aq.gguf"), "raw", NQ_Q8_0);
    check_stored(*state, TINY("a.gguf"), "f32", NQ_F32);
    check_stored(*state, TINY("a.gguf"), "f16", NQ_F16);
    check_stored(*state, TINY("a.gguf"), "bf16", NQ_BF16);
}

static void check_threads(const fixture *f, const char *path) {
    float *first = NULL;
    for (unsigned threads = 1; threads <= 3; threads++) {
        nq_pool *pool = NULL;
        assert_int_equal(nq_pool_open(&pool, threads, NULL), NOVAQ_OK);
        nq_model *m = open_model(path, pool);
        float *logits = logits_of(m, f->tokens, N - 3); /* a block, then a smaller one */
        size_t bytes = (size_t)N * m->hyper.vocab * sizeof *logits;
        if (first == NULL) {
            first = logits;
        } else {
            assert_memory_equal(first, logits, bytes);
            nq_free(logits);
        }
        nq_model_close(&m);
        nq_pool_close(&pool);
    }
    nq_free(first);
}

static void test_threads(void **state) {
    char *dir = scratch_dir();
    char *path = make_artifact(dir, "k16d2l3");
    check_threads(*state, TINY("b-hf"));
    check_threads(*state, path);
    remove_dir(dir);
    nq_free(path);
    nq_free(dir);
}

/* Exchanging a matrix changes the logits, exchanging it back restores them. */
static void test_swap(void **state) {
    const fixture *f = *state;
    nq_model *m = open_model(TINY("b.gguf"), NULL);
    size_t bytes = (size_t)N * m->hyper.vocab * sizeof(float);
    float *before = logits_of(m, f->tokens, N);
    nq_linear *place = nq_model_linear(m, "blk.1.ffn_up.weight");
    nq_linear *gate = nq_model_linear(m, "blk.1.ffn_gate.weight");
    assert_non_null(place);
    assert_non_null(gate);
    assert_null(nq_model_linear(m, "blk.2.ffn_up.weight"));
    nq_linear with = *gate;
    nq_model_swap(m, place, &with);
    float *during = logits_of(m, f->tokens, N);
    nq_model_swap(m, place, &with);
    float *after = logits_of(m, f->tokens, N);
    assert_memory_not_equal(before, during, bytes);
    assert_memory_equal(before, after, bytes);
    nq_free(before);
    nq_free(during);
    nq_free(after);
    nq_model_close(&m);
}

static void test_feed_limits(void **state) {
    const fixture *f = *state;
    nq_model *m = open_model(TINY("a.gguf"), NULL);
    nq_run *r = NULL;
    int32_t bad = (int32_t)m->hyper.vocab;
    assert_int_equal(nq_run_open(&r, m, 0, 8, 8, NULL), NOVAQ_E_ARG);
    assert_int_equal(nq_run_open(&r, m, 1, 8, 8, NULL), NOVAQ_OK);
    assert_int_equal(nq_run_feed(r, &bad, 1, 1, NULL), NOVAQ_E_ARG);
    bad = -1;
    assert_int_equal(nq_run_feed(r, &bad, 1, 1, NULL), NOVAQ_E_ARG);
    assert_int_equal(nq_run_feed(r, f->tokens, 1, 9, NULL), NOVAQ_E_ARG);
    assert_int_equal(nq_run_feed(r, f->tokens, 2, 4, NULL), NOVAQ_E_ARG);
    assert_int_equal(nq_run_feed(r, f->tokens, 1, 8, NULL), NOVAQ_OK);
    assert_int_equal(nq_run_feed(r, f->tokens, 1, 1, NULL), NOVAQ_E_ARG);
    nq_run_reset(r);
    assert_int_equal(nq_run_feed(r, f->tokens, 1, 1, NULL), NOVAQ_OK);
    nq_run_close(&r);
    nq_model_close(&m);
}

static void test_refusals(void **state) {
    static const struct {
        const char *key, *value;
        novaq_status status;
        const char *says;
    } CASES[] = {
        {"model_type", "\"xyz\"", NOVAQ_E_UNSUPPORTED,
         "architecture 'xyz' can be compressed but not run"},
        {"hidden_act", "\"gelu\"", NOVAQ_E_UNSUPPORTED, "gelu"},
        {"attention_bias", "true", NOVAQ_E_FORMAT, "q_proj.bias is missing"},
        {"sliding_window", "16", NOVAQ_OK, NULL}, /* means nothing in a llama */
        {"rope_scaling", "{\"rope_type\":\"dynamic\",\"factor\":4.0}", NOVAQ_E_UNSUPPORTED,
         "dynamic"},
        {"rope_scaling", "{\"rope_type\":\"yarn\",\"factor\":0.5}", NOVAQ_E_FORMAT, "factor"},
        {"rope_scaling", "{\"rope_type\":\"llama3\",\"factor\":4.0}", NOVAQ_E_FORMAT,
         "low_freq_factor"},
        {"rope_theta", "-1.0", NOVAQ_E_FORMAT, "rope_theta"},
        {"rms_norm_eps", "2", NOVAQ_E_FORMAT, "rms_eps"},
        {"num_hidden_layers", "0", NOVAQ_E_FORMAT, "block_count"},
        {"num_hidden_layers", "3", NOVAQ_E_FORMAT, "model.layers.2."},
        {"num_hidden_layers", "1", NOVAQ_E_UNSUPPORTED, "model.layers.1."},
        {"num_hidden_layers", "9000000000", NOVAQ_E_FORMAT, "block_count"},
        {"num_hidden_layers", "4096", NOVAQ_E_FORMAT, "block"},
        {"num_hidden_layers", NULL, NOVAQ_E_FORMAT, "block_count"},
        {"hidden_size", "-64", NOVAQ_E_FORMAT, "embedding_length"},
        {"hidden_size", "96", NOVAQ_E_FORMAT, "shape"},
        {"intermediate_size", "65", NOVAQ_E_FORMAT, "shape"},
        {"vocab_size", "271", NOVAQ_E_FORMAT, "shape"},
        {"num_attention_heads", "3", NOVAQ_E_FORMAT, "multiple"},
        {"num_attention_heads", "6", NOVAQ_E_FORMAT, "shape"},
        {"num_key_value_heads", "1", NOVAQ_E_FORMAT, "shape"},
        {"head_dim", "7", NOVAQ_E_FORMAT, "width 7"},
        {"tie_word_embeddings", "3", NOVAQ_OK, NULL}, /* not a boolean: the head decides */
        {"tie_word_embeddings", "true", NOVAQ_OK, NULL},
        {"model_type", "\"mistral\"", NOVAQ_OK, NULL},
        {"sliding_window", "null", NOVAQ_OK, NULL},
        {"rope_theta", NULL, NOVAQ_OK, NULL},
    };
    (void)state;
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        char *dir = altered_model(CASES[i].key, CASES[i].value);
        nq_model *m = NULL;
        novaq_error err = {0};
        novaq_status st = nq_model_open(&m, dir, NULL, &err);
        if (st != CASES[i].status || (st != NOVAQ_OK && strstr(err.msg, CASES[i].says) == NULL)) {
            fail_msg("%s = %s: %d %s", CASES[i].key, CASES[i].value, st, err.msg);
        }
        assert_int_equal(m == NULL, st != NOVAQ_OK);
        nq_model_close(&m);
        remove_dir(dir);
        nq_free(dir);
    }
}

static void test_no_config(void **state) {
    char *dir = altered_model("rope_theta", NULL);
    char *config = NULL;
    nq_model *m = NULL;
    novaq_error err = {0};
    (void)state;
    assert_int_equal(nq_path_join(&config, dir, "config.json", NULL), NOVAQ_OK);
    assert_int_equal(unlink(config), 0);
    assert_int_equal(nq_model_open(&m, dir, NULL, &err), NOVAQ_E_UNSUPPORTED);
    assert_non_null(strstr(err.msg, "architecture 'unknown' can be compressed but not run"));
    remove_dir(dir);
    nq_free(config);
    nq_free(dir);
}

static void test_roles(void **state) {
    static const struct {
        const char *name;
        uint32_t rank;
        nq_role role;
    } CASES[] = {
        {"token_embd.weight", 2, NQ_ROLE_EMBEDDING},
        {"model.embed_tokens.weight", 2, NQ_ROLE_EMBEDDING},
        {"transformer.wte.weight", 2, NQ_ROLE_EMBEDDING},
        {"wte.weight", 2, NQ_ROLE_EMBEDDING},
        {"output.weight", 2, NQ_ROLE_HEAD},
        {"lm_head.weight", 2, NQ_ROLE_HEAD},
        {"transformer.wpe.weight", 2, NQ_ROLE_OTHER},
        {"h.0.attn.bias", 4, NQ_ROLE_OTHER},
        {"blk.3.ffn_gate_inp.weight", 2, NQ_ROLE_OTHER},
        {"model.layers.3.block_sparse_moe.gate.weight", 2, NQ_ROLE_OTHER},
        {"model.layers.3.mlp.gate.weight", 2, NQ_ROLE_OTHER},
        {"model.layers.3.mlp.gate_proj.weight", 2, NQ_ROLE_LINEAR},
        {"blk.3.ffn_gate_exps.weight", 3, NQ_ROLE_LINEAR},
        {"blk.0.attn_output.weight", 2, NQ_ROLE_LINEAR},
        {"encoder.layer.0.output.weight", 2, NQ_ROLE_LINEAR},
        {"blk.0.attn_norm.weight", 1, NQ_ROLE_OTHER},
        {"conv1.weight", 4, NQ_ROLE_LINEAR},
        {"anything", 2, NQ_ROLE_LINEAR},
        {"scalar", 0, NQ_ROLE_OTHER},
    };
    (void)state;
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        if (nq_tensor_role(CASES[i].name, CASES[i].rank) != CASES[i].role) {
            fail_msg("%s", CASES[i].name);
        }
    }
}

static void test_matrix_view(void **state) {
    static const struct {
        uint32_t rank;
        uint64_t shape[4], rows, cols;
    } CASES[] = {
        {2, {10, 64}, 10, 64},       {2, {10, 8}, 10, 8},          {3, {4, 8, 8}, 4, 64},
        {4, {64, 3, 7, 7}, 192, 49}, {4, {2, 16, 32, 5}, 32, 160}, {3, {5, 2, 4}, 5, 8},
        {4, {6, 5, 4, 40}, 120, 40},
    };
    (void)state;
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        uint64_t rows = 0;
        uint64_t cols = 0;
        nq_matrix_view(&rows, &cols, CASES[i].rank, CASES[i].shape);
        assert_int_equal(rows, CASES[i].rows);
        assert_int_equal(cols, CASES[i].cols);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_logits),   cmocka_unit_test(test_over_tensors),
        cmocka_unit_test(test_batch),    cmocka_unit_test(test_artifact),
        cmocka_unit_test(test_stored),   cmocka_unit_test(test_threads),
        cmocka_unit_test(test_swap),     cmocka_unit_test(test_feed_limits),
        cmocka_unit_test(test_refusals), cmocka_unit_test(test_no_config),
        cmocka_unit_test(test_roles),    cmocka_unit_test(test_matrix_view),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
