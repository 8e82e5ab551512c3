/* test_export.c - writing SafeTensors and GGUF, and novaq_export() over them.
 *
 * The model is made here: a llama of one block with two query heads and one key
 * head, in GGUF, whose values are functions of tensor, row and column. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "artifact/write_gguf.h"
#include "artifact/write_safetensors.h"
#include "base/half.h"
#include "base/json.h"
#include "base/mem.h"
#include "format/tensors.h"
#include "novaq.h"

enum { DIM = 64, HEADS = 2, HEADS_KV = 1, HEAD_DIM = 32, FF = 96, VOCAB = 260, CONTEXT = 128 };

/* ---- the source ---------------------------------------------------------- */

typedef struct made {
    const char *name;
    uint64_t rows, cols; /* rows 0: a vector */
} made;

static const made TENSORS[] = {
    {"token_embd.weight", VOCAB, DIM},
    {"blk.0.attn_norm.weight", 0, DIM},
    {"blk.0.attn_q.weight", HEADS *HEAD_DIM, DIM},
    {"blk.0.attn_k.weight", HEADS_KV *HEAD_DIM, DIM},
    {"blk.0.attn_v.weight", HEADS_KV *HEAD_DIM, DIM},
    {"blk.0.attn_output.weight", DIM, HEADS *HEAD_DIM},
    {"blk.0.ffn_norm.weight", 0, DIM},
    {"blk.0.ffn_gate.weight", FF, DIM},
    {"blk.0.ffn_up.weight", FF, DIM},
    {"blk.0.ffn_down.weight", DIM, FF},
    {"output_norm.weight", 0, DIM},
};
#define TENSOR_COUNT (sizeof TENSORS / sizeof TENSORS[0])

static const char *const HF_NAMES[TENSOR_COUNT] = {
    "model.embed_tokens.weight",
    "model.layers.0.input_layernorm.weight",
    "model.layers.0.self_attn.q_proj.weight",
    "model.layers.0.self_attn.k_proj.weight",
    "model.layers.0.self_attn.v_proj.weight",
    "model.layers.0.self_attn.o_proj.weight",
    "model.layers.0.post_attention_layernorm.weight",
    "model.layers.0.mlp.gate_proj.weight",
    "model.layers.0.mlp.up_proj.weight",
    "model.layers.0.mlp.down_proj.weight",
    "model.norm.weight",
};

/* Exact in binary16 and bfloat16. */
static float value_of(size_t tensor, uint64_t row, uint64_t col) {
    return (float)((int)((tensor * 31 + row * 7 + col * 3) % 255) - 127) / 128.0F;
}

typedef struct filler {
    size_t tensor;
    float extra; /* added to element (0, 0) */
} filler;

static novaq_status fill_rows(const nq_tensor_out *t, void *dst, uint64_t row0, uint64_t count,
                              novaq_error *err) {
    const filler *f = t->ctx;
    float *out = dst;
    (void)err;
    for (uint64_t i = 0; i < count; i++) {
        for (uint64_t j = 0; j < t->cols; j++) {
            out[i * t->cols + j] = value_of(f->tensor, row0 + i, j);
        }
    }
    if (row0 == 0 && count > 0) {
        out[0] += f->extra;
    }
    return NOVAQ_OK;
}

static nq_tensor_out tensor_out(const char *name, uint64_t rows, uint64_t cols, nq_dtype dtype,
                                filler *f) {
    nq_tensor_out t = {.name = name, .dtype = dtype, .read = fill_rows, .ctx = f};
    t.rank = rows == 0 ? 1 : 2;
    t.shape[0] = rows == 0 ? cols : rows;
    t.shape[1] = rows == 0 ? 0 : cols;
    t.rows = rows == 0 ? 1 : rows;
    t.cols = cols;
    return t;
}

static void put_code(char *out, unsigned code) {
    if (code < 0x80) {
        out[0] = (char)code;
        out[1] = '\0';
    } else {
        out[0] = (char)(0xC0 | code >> 6);
        out[1] = (char)(0x80 | (code & 0x3F));
        out[2] = '\0';
    }
}

/* GPT-2's alphabet of bytes, one merge, two control tokens; one row of the
 * embedding has no token. */
static json_t *make_tokens(json_t *types) {
    json_t *tokens = json_array();
    unsigned next = 256;
    for (unsigned b = 0; b < 256; b++) {
        bool plain = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b != 0xAD);
        char text[3];
        put_code(text, plain ? b : next++);
        (void)json_array_append_new(tokens, json_string(text));
        (void)json_array_append_new(types, json_integer(1));
    }
    (void)json_array_append_new(tokens, json_string("ab"));
    (void)json_array_append_new(types, json_integer(1));
    (void)json_array_append_new(tokens, json_string("<s>"));
    (void)json_array_append_new(types, json_integer(3));
    (void)json_array_append_new(tokens, json_string("</s>"));
    (void)json_array_append_new(types, json_integer(3));
    return tokens;
}

static void put_keys(nq_gguf_keys *k) {
    json_t *types = json_array();
    json_t *tokens = make_tokens(types);
    json_t *merges = json_pack("[s]", "a b");
    static const struct {
        const char *key;
        uint32_t value;
    } counts[] = {
        {"llama.block_count", 1},
        {"llama.context_length", CONTEXT},
        {"llama.embedding_length", DIM},
        {"llama.feed_forward_length", FF},
        {"llama.attention.head_count", HEADS},
        {"llama.attention.head_count_kv", HEADS_KV},
        {"llama.rope.dimension_count", HEAD_DIM},
        {"tokenizer.ggml.bos_token_id", 257},
        {"tokenizer.ggml.eos_token_id", 258},
    };
    assert_int_equal(nq_gguf_put_string(k, "general.architecture", "llama", NULL), NOVAQ_OK);
    assert_int_equal(nq_gguf_put_string(k, "general.name", "made", NULL), NOVAQ_OK);
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        assert_int_equal(nq_gguf_put_u32(k, counts[i].key, counts[i].value, NULL), NOVAQ_OK);
    }
    assert_int_equal(nq_gguf_put_f32(k, "llama.rope.freq_base", 10000.0F, NULL), NOVAQ_OK);
    assert_int_equal(nq_gguf_put_f32(k, "llama.attention.layer_norm_rms_epsilon", 1e-5F, NULL),
                     NOVAQ_OK);
    assert_int_equal(nq_gguf_put_string(k, "tokenizer.ggml.model", "gpt2", NULL), NOVAQ_OK);
    assert_int_equal(nq_gguf_put_string(k, "tokenizer.ggml.pre", "smollm", NULL), NOVAQ_OK);
    assert_int_equal(nq_gguf_put_strings(k, "tokenizer.ggml.tokens", tokens, NULL), NOVAQ_OK);
    assert_int_equal(nq_gguf_put_i32s(k, "tokenizer.ggml.token_type", types, NULL), NOVAQ_OK);
    assert_int_equal(nq_gguf_put_strings(k, "tokenizer.ggml.merges", merges, NULL), NOVAQ_OK);
    assert_int_equal(nq_gguf_put_bool(k, "tokenizer.ggml.add_bos_token", true, NULL), NOVAQ_OK);
    assert_int_equal(nq_gguf_put_string(k, "tokenizer.chat_template", "{{ x }}", NULL), NOVAQ_OK);
    json_decref(tokens);
    json_decref(types);
    json_decref(merges);
}

static void make_source(const char *path, float extra) {
    filler fillers[TENSOR_COUNT];
    nq_tensor_out tensors[TENSOR_COUNT];
    for (size_t i = 0; i < TENSOR_COUNT; i++) {
        fillers[i] = (filler){.tensor = i, .extra = i == 2 ? extra : 0};
        tensors[i] =
            tensor_out(TENSORS[i].name, TENSORS[i].rows, TENSORS[i].cols, NQ_F32, &fillers[i]);
    }
    nq_gguf_keys keys = nq_gguf_keys_init();
    put_keys(&keys);
    nq_outfile *f = NULL;
    nq_out_progress progress = {0};
    assert_int_equal(nq_outfile_open(&f, path, NULL), NOVAQ_OK);
    assert_int_equal(nq_write_gguf(f, &keys, tensors, TENSOR_COUNT, NULL, &progress, NULL),
                     NOVAQ_OK);
    assert_true(progress.total > 0 && progress.done == progress.total);
    assert_int_equal(nq_outfile_commit(&f, NULL, NULL), NOVAQ_OK);
    nq_gguf_keys_free(&keys);
}

/* ---- a folder of its own ------------------------------------------------- */

typedef struct place {
    char dir[64];
    char source[96], hf[96], gguf[96];
} place;

static int set_up(void **state) {
    place *p = calloc(1, sizeof *p);
    if (p == NULL) {
        return -1;
    }
    (void)snprintf(p->dir, sizeof p->dir, "/tmp/novaq_test_export_XXXXXX");
    if (mkdtemp(p->dir) == NULL) {
        free(p);
        return -1;
    }
    (void)snprintf(p->source, sizeof p->source, "%s/source.gguf", p->dir);
    (void)snprintf(p->hf, sizeof p->hf, "%s/hf", p->dir);
    (void)snprintf(p->gguf, sizeof p->gguf, "%s/out.gguf", p->dir);
    *state = p;
    return 0;
}

static void remove_all(const char *path) {
    char **names = NULL;
    size_t count = 0;
    if (nq_is_dir(path) && nq_list_dir(&names, &count, path, NULL) == NOVAQ_OK) {
        for (size_t i = 0; i < count; i++) {
            char *child = NULL;
            if (nq_path_join(&child, path, names[i], NULL) == NOVAQ_OK) {
                remove_all(child);
            }
            nq_free(child);
        }
        nq_free_names(names, count);
    }
    (void)remove(path);
}

static int tear_down(void **state) {
    place *p = *state;
    remove_all(p->dir);
    free(p);
    return 0;
}

static size_t entries(const char *dir) {
    char **names = NULL;
    size_t count = 0;
    assert_int_equal(nq_list_dir(&names, &count, dir, NULL), NOVAQ_OK);
    nq_free_names(names, count);
    return count;
}

static novaq_status export_to(const char *input, const char *output, const char *format,
                              const char *dtype, unsigned threads, novaq_error *err) {
    novaq_export_options o = NOVAQ_EXPORT_OPTIONS_INIT;
    o.input = input;
    o.output = output;
    o.format = format;
    o.dtype = dtype;
    o.threads = threads;
    char *report = NULL;
    novaq_status st = novaq_export(&report, &o, err);
    if (st == NOVAQ_OK) {
        json_t *r = NULL;
        assert_int_equal(nq_json_parse_object(&r, "report", report, strlen(report), NULL),
                         NOVAQ_OK);
        assert_true(json_integer_value(json_object_get(r, "bytes")) > 0);
        json_decref(r);
    } else {
        assert_null(report);
    }
    novaq_free(report);
    return st;
}

static void must_export(const char *input, const char *output, const char *format,
                        const char *dtype, unsigned threads) {
    novaq_error err = {.code = NOVAQ_OK};
    if (export_to(input, output, format, dtype, threads, &err) != NOVAQ_OK) {
        fail_msg("%s -> %s: %s", input, format, err.msg);
    }
}

static nq_tensors *open_tensors(const char *path) {
    nq_tensors *ts = NULL;
    novaq_error err = {.code = NOVAQ_OK};
    if (nq_tensors_open(&ts, path, &err) != NOVAQ_OK) {
        fail_msg("%s: %s", path, err.msg);
    }
    return ts;
}

static float *read_tensor(nq_tensors *ts, const char *name, uint64_t elements) {
    const nq_tensor_info *t = nq_tensors_find(ts, name);
    if (t == NULL) {
        fail_msg("no tensor %s", name);
    }
    assert_int_equal(t->elements, elements);
    float *values = NULL;
    assert_int_equal(nq_alloc(&values, elements, sizeof *values, NULL), NOVAQ_OK);
    assert_int_equal(nq_tensors_read_f32(values, ts, t, NULL), NOVAQ_OK);
    return values;
}

/* ---- the writers alone --------------------------------------------------- */

static novaq_status fill_bytes(const nq_tensor_out *t, void *dst, uint64_t row0, uint64_t count,
                               novaq_error *err) {
    (void)err;
    for (uint64_t i = 0; i < count * t->cols; i++) {
        int64_t v = -1000 - (int64_t)(row0 * t->cols + i);
        memcpy((uint8_t *)dst + i * sizeof v, &v, sizeof v);
    }
    return NOVAQ_OK;
}

/* Odd sizes, every type, a scalar, an empty tensor, integers; several threads. */
static void test_safetensors_round_trip(void **state) {
    const place *p = *state;
    char path[128];
    (void)snprintf(path, sizeof path, "%s/model.safetensors", p->dir);
    filler f = {.tensor = 5};
    nq_tensor_out tensors[] = {
        tensor_out("half", 7, 33, NQ_F16, &f),
        tensor_out("full", 5, 3, NQ_F32, &f),
        tensor_out("brain", 1200, 1031, NQ_BF16, &f),
        tensor_out("ids", 3, 5, NQ_I64, &f),
        tensor_out("empty", 4, 0, NQ_F32, &f),
        {.name = "scalar", .dtype = NQ_F32, .rows = 1, .cols = 1, .read = fill_rows, .ctx = &f},
    };
    size_t count = sizeof tensors / sizeof tensors[0];
    tensors[3].raw = true;
    tensors[3].read = fill_bytes;
    nq_pool *pool = NULL;
    nq_outfile *out = NULL;
    nq_out_progress progress = {0};
    json_t *metadata = json_pack("{s:s}", "format", "pt");
    assert_int_equal(nq_pool_open(&pool, 3, NULL), NOVAQ_OK);
    assert_int_equal(nq_outfile_open(&out, path, NULL), NOVAQ_OK);
    assert_int_equal(nq_write_safetensors(out, tensors, count, metadata, pool, &progress, NULL),
                     NOVAQ_OK);
    assert_int_equal(nq_outfile_commit(&out, NULL, NULL), NOVAQ_OK);
    json_decref(metadata);
    nq_pool_close(&pool);

    nq_tensors *ts = open_tensors(path);
    assert_int_equal(nq_tensors_count(ts), count);
    for (size_t i = 0; i < count; i++) {
        const nq_tensor_info *t = nq_tensors_find(ts, tensors[i].name);
        assert_non_null(t);
        assert_int_equal(t->dtype, tensors[i].dtype);
        assert_int_equal(t->rank, tensors[i].rank);
        assert_memory_equal(t->shape, tensors[i].shape, t->rank * sizeof t->shape[0]);
        assert_int_equal(t->offset % nq_dtype_get(t->dtype)->bytes, 0);
        float *values = read_tensor(ts, t->name, tensors[i].rows * tensors[i].cols);
        for (uint64_t j = 0; j < t->elements; j++) {
            uint64_t row = j / tensors[i].cols;
            float want =
                tensors[i].raw ? -1000.0F - (float)j : value_of(f.tensor, row, j % tensors[i].cols);
            assert_true(values[j] == want);
        }
        nq_free(values);
    }
    nq_tensors_close(&ts);
}

static void test_gguf_keys_round_trip(void **state) {
    const place *p = *state;
    make_source(p->source, 0);
    nq_tensors *ts = open_tensors(p->source);
    size_t count = 0;
    const nq_gguf_kv *kv = nq_tensors_kv(ts, &count);
    int64_t n = 0;
    double x = 0;
    nq_gguf_string s = {0};
    assert_true(nq_gguf_integer(&n, nq_gguf_find(kv, count, "llama.embedding_length"), 0));
    assert_int_equal(n, DIM);
    assert_true(
        nq_gguf_number(&x, nq_gguf_find(kv, count, "llama.attention.layer_norm_rms_epsilon"), 0));
    assert_true((float)x == 1e-5F);
    const nq_gguf_kv *tokens = nq_gguf_find(kv, count, "tokenizer.ggml.tokens");
    assert_int_equal(tokens->count, VOCAB - 1);
    assert_true(nq_gguf_text(&s, tokens, 256));
    assert_int_equal(s.len, 2);
    assert_memory_equal(s.data, "ab", 2);
    assert_true(nq_gguf_integer(&n, nq_gguf_find(kv, count, "tokenizer.ggml.token_type"), 257));
    assert_int_equal(n, 3);
    nq_tensors_close(&ts);
}

static void test_gguf_refusals(void **state) {
    const place *p = *state;
    filler f = {0};
    nq_tensor_out deep = tensor_out("deep", 2, 3, NQ_F32, &f);
    deep.rank = 5;
    deep.shape[2] = deep.shape[3] = deep.shape[4] = 1;
    nq_tensor_out odd = tensor_out("odd", 2, 3, NQ_U8, &f);
    odd.raw = true;
    nq_tensor_out wrong = tensor_out("wrong", 2, 3, NQ_F32, &f);
    wrong.cols = 4;
    nq_tensor_out *const all[] = {&deep, &odd, &wrong};
    for (size_t i = 0; i < 3; i++) {
        nq_gguf_keys keys = nq_gguf_keys_init();
        nq_outfile *out = NULL;
        nq_out_progress progress = {0};
        novaq_error err = {.code = NOVAQ_OK};
        assert_int_equal(nq_outfile_open(&out, p->gguf, NULL), NOVAQ_OK);
        assert_int_not_equal(nq_write_gguf(out, &keys, all[i], 1, NULL, &progress, &err), NOVAQ_OK);
        assert_non_null(strstr(err.msg, all[i]->name));
        nq_outfile_abort(&out);
        nq_gguf_keys_free(&keys);
    }
    assert_int_equal(entries(p->dir), 0);
}

/* ---- novaq_export() ------------------------------------------------------ */

/* Row of the interleaved (GGUF) head that is row r of the half-split head. */
static uint64_t interleaved_row(uint64_t r) {
    return r / HEAD_DIM * HEAD_DIM + (r % HEAD_DIM) % (HEAD_DIM / 2) * 2 +
           (r % HEAD_DIM) / (HEAD_DIM / 2);
}

static void check_config(const char *dir) {
    char *path = NULL;
    char *text = NULL;
    size_t len = 0;
    json_t *c = NULL;
    assert_int_equal(nq_path_join(&path, dir, "config.json", NULL), NOVAQ_OK);
    assert_int_equal(nq_read_file(&text, &len, path, 1 << 20, NULL), NOVAQ_OK);
    assert_int_equal(nq_json_parse_object(&c, path, text, len, NULL), NOVAQ_OK);
    assert_string_equal(json_string_value(json_array_get(json_object_get(c, "architectures"), 0)),
                        "LlamaForCausalLM");
    assert_int_equal(json_integer_value(json_object_get(c, "hidden_size")), DIM);
    assert_int_equal(json_integer_value(json_object_get(c, "num_key_value_heads")), HEADS_KV);
    assert_int_equal(json_integer_value(json_object_get(c, "head_dim")), HEAD_DIM);
    assert_int_equal(json_integer_value(json_object_get(c, "eos_token_id")), 258);
    assert_true(json_is_true(json_object_get(c, "tie_word_embeddings")));
    assert_true(fabs(json_real_value(json_object_get(c, "rms_norm_eps")) - 1e-5) < 1e-11);
    json_decref(c);
    nq_free(text);
    nq_free(path);
}

static void test_gguf_to_hf(void **state) {
    static const char *const dtypes[] = {"f16", "bf16", "f32"};
    static const nq_dtype types[] = {NQ_F16, NQ_BF16, NQ_F32};
    const place *p = *state;
    make_source(p->source, 0);
    for (size_t d = 0; d < 3; d++) {
        must_export(p->source, p->hf, "safetensors", dtypes[d], (unsigned)d + 1);
        nq_tensors *ts = open_tensors(p->hf);
        assert_int_equal(nq_tensors_count(ts), TENSOR_COUNT);
        for (size_t i = 0; i < TENSOR_COUNT; i++) {
            uint64_t rows = TENSORS[i].rows == 0 ? 1 : TENSORS[i].rows;
            uint64_t cols = TENSORS[i].cols;
            float *values = read_tensor(ts, HF_NAMES[i], rows * cols);
            nq_dtype want = TENSORS[i].rows == 0 ? NQ_F32 : types[d];
            assert_int_equal(nq_tensors_find(ts, HF_NAMES[i])->dtype, want);
            for (uint64_t j = 0; j < rows * cols; j++) {
                uint64_t row = i == 2 || i == 3 ? interleaved_row(j / cols) : j / cols;
                assert_true(values[j] == value_of(i, row, j % cols));
            }
            nq_free(values);
        }
        nq_tensors_close(&ts);
        check_config(p->hf);
    }
}

/* There and back: the same values under the same names, the same meaning. */
static void test_hf_to_gguf(void **state) {
    const place *p = *state;
    make_source(p->source, 0);
    must_export(p->source, p->hf, "safetensors", "f16", 2);
    must_export(p->hf, p->gguf, "gguf", "f16", 2);
    nq_tensors *ts = open_tensors(p->gguf);
    assert_int_equal(nq_tensors_count(ts), TENSOR_COUNT);
    for (size_t i = 0; i < TENSOR_COUNT; i++) {
        uint64_t rows = TENSORS[i].rows == 0 ? 1 : TENSORS[i].rows;
        float *values = read_tensor(ts, TENSORS[i].name, rows * TENSORS[i].cols);
        for (uint64_t j = 0; j < rows * TENSORS[i].cols; j++) {
            assert_true(values[j] == value_of(i, j / TENSORS[i].cols, j % TENSORS[i].cols));
        }
        nq_free(values);
    }
    size_t count = 0;
    int64_t n = 0;
    nq_gguf_string s = {0};
    const nq_gguf_kv *kv = nq_tensors_kv(ts, &count);
    const nq_gguf_kv *tokens = nq_gguf_find(kv, count, "tokenizer.ggml.tokens");
    assert_int_equal(tokens->count, VOCAB); /* the row without a token is padded */
    assert_true(nq_gguf_text(&s, tokens, VOCAB - 1));
    assert_memory_equal(s.data, "[PAD259]", 8);
    assert_true(nq_gguf_integer(&n, nq_gguf_find(kv, count, "tokenizer.ggml.bos_token_id"), 0));
    assert_int_equal(n, 257);
    assert_true(nq_gguf_text(&s, nq_gguf_find(kv, count, "tokenizer.ggml.pre"), 0));
    assert_memory_equal(s.data, "smollm", 6);
    assert_non_null(nq_gguf_find(kv, count, "tokenizer.chat_template"));
    nq_tensors_close(&ts);
}

static void read_whole(char **text, size_t *len, const char *path) {
    assert_int_equal(nq_read_file(text, len, path, 1 << 24, NULL), NOVAQ_OK);
}

static void test_threads_change_nothing(void **state) {
    const place *p = *state;
    char again[128];
    char *a = NULL;
    char *b = NULL;
    size_t la = 0;
    size_t lb = 0;
    (void)snprintf(again, sizeof again, "%s/again.gguf", p->dir);
    make_source(p->source, 0);
    must_export(p->source, p->gguf, "gguf", "f16", 1);
    must_export(p->source, again, "gguf", "f16", 5);
    read_whole(&a, &la, p->gguf);
    read_whole(&b, &lb, again);
    assert_int_equal(la, lb);
    assert_memory_equal(a, b, la);
    nq_free(a);
    nq_free(b);
}

static void test_overflow_is_named(void **state) {
    const place *p = *state;
    novaq_error err = {.code = NOVAQ_OK};
    make_source(p->source, 1e6F);
    assert_int_equal(export_to(p->source, p->gguf, "gguf", "f16", 2, &err), NOVAQ_E_NUMERIC);
    assert_non_null(strstr(err.msg, "blk.0.attn_q.weight"));
    assert_non_null(strstr(err.msg, "--dtype f32"));
    assert_int_equal(export_to(p->source, p->hf, "safetensors", "f16", 2, &err), NOVAQ_E_NUMERIC);
    assert_int_equal(entries(p->dir), 1); /* the source, nothing half-written */
    must_export(p->source, p->gguf, "gguf", "bf16", 2);
    must_export(p->source, p->hf, "safetensors", "f32", 2);
}

static int stop_at_once(void *ctx, const novaq_progress *report) {
    unsigned *calls = ctx;
    assert_true(report->total > 0 && report->done <= report->total);
    ++*calls;
    return 1;
}

static void test_interrupt_leaves_nothing(void **state) {
    const place *p = *state;
    unsigned calls = 0;
    make_source(p->source, 0);
    novaq_export_options o = NOVAQ_EXPORT_OPTIONS_INIT;
    o.input = p->source;
    o.output = p->hf;
    o.format = "safetensors";
    o.progress = stop_at_once;
    o.progress_ctx = &calls;
    assert_int_equal(novaq_export(NULL, &o, NULL), NOVAQ_E_INTERRUPTED);
    assert_int_equal(calls, 1);
    o.output = p->gguf;
    o.format = "gguf";
    assert_int_equal(novaq_export(NULL, &o, NULL), NOVAQ_E_INTERRUPTED);
    assert_int_equal(entries(p->dir), 1);
}

static void test_input_is_not_overwritten(void **state) {
    const place *p = *state;
    novaq_error err = {.code = NOVAQ_OK};
    make_source(p->source, 0);
    assert_int_equal(export_to(p->source, p->source, "gguf", "f16", 1, &err), NOVAQ_E_ARG);
    must_export(p->source, p->hf, "safetensors", "f32", 1);
    assert_int_equal(export_to(p->hf, p->hf, "safetensors", "f16", 1, &err), NOVAQ_E_ARG);
    assert_int_equal(export_to(p->source, p->hf, "gguf", "f16", 1, &err), NOVAQ_E_ARG);
    assert_int_equal(export_to(p->source, p->source, "safetensors", "f16", 1, &err), NOVAQ_E_ARG);
    assert_int_equal(export_to(p->source, p->gguf, "onnx", "f16", 1, &err), NOVAQ_E_ARG);
    assert_int_equal(export_to(p->source, p->gguf, "gguf", "q8_0", 1, &err), NOVAQ_E_ARG);
    assert_int_equal(entries(p->dir), 2);
}

/* An architecture nobody knows: names stay, GGUF is refused by name. */
static void test_unknown_architecture(void **state) {
    const place *p = *state;
    char source[128];
    filler f = {.tensor = 3};
    nq_tensor_out tensors[] = {
        tensor_out("encoder.blocks.0.attn.q_proj.weight", 48, 40, NQ_F32, &f),
        tensor_out("positions", 2, 5, NQ_I64, &f),
    };
    tensors[1].raw = true;
    tensors[1].read = fill_bytes;
    nq_outfile *out = NULL;
    nq_out_progress progress = {0};
    novaq_error err = {.code = NOVAQ_OK};
    (void)snprintf(source, sizeof source, "%s/vision.safetensors", p->dir);
    assert_int_equal(nq_outfile_open(&out, source, NULL), NOVAQ_OK);
    assert_int_equal(nq_write_safetensors(out, tensors, 2, NULL, NULL, &progress, NULL), NOVAQ_OK);
    assert_int_equal(nq_outfile_commit(&out, NULL, NULL), NOVAQ_OK);
    assert_int_equal(export_to(source, p->gguf, "gguf", "f16", 1, &err), NOVAQ_E_UNSUPPORTED);
    assert_non_null(strstr(err.msg, "unknown"));
    must_export(source, p->hf, "safetensors", "f16", 1);
    nq_tensors *ts = open_tensors(p->hf);
    assert_int_equal(nq_tensors_count(ts), 2);
    assert_int_equal(nq_tensors_find(ts, tensors[0].name)->dtype, NQ_F16);
    assert_int_equal(nq_tensors_find(ts, "positions")->dtype, NQ_I64);
    float *ids = read_tensor(ts, "positions", 10);
    assert_true(ids[9] == -1009.0F);
    nq_free(ids);
    nq_tensors_close(&ts);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_safetensors_round_trip, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_gguf_keys_round_trip, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_gguf_refusals, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_gguf_to_hf, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_hf_to_gguf, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_threads_change_nothing, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_overflow_is_named, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_interrupt_leaves_nothing, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_input_is_not_overwritten, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_unknown_architecture, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
