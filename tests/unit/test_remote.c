/* What opening a model that is far away costs: requests and bytes for the header of each
 * format, and that what was assumed to save requests is proved before it is used. */
#include "base/mem.h"
#include "format/tensors_impl.h"
#include "io/cached.h"
#include "onnx_util.h"

/* ---- a source that counts ----------------------------------------------------- */

typedef struct counted {
    nq_source base;
    const uint8_t *data;
    size_t have; /* bytes in data; zeros are behind them */
    uint64_t *requests;
    uint64_t *bytes;
} counted;

static novaq_status counted_read(nq_source *s, uint64_t offset, void *dst, uint64_t len,
                                 novaq_error *err) {
    const counted *c = (const counted *)s;
    (void)err;
    ++*c->requests;
    *c->bytes += len;
    memset(dst, 0, len);
    if (offset < c->have) {
        memcpy(dst, c->data + offset, c->have - offset < len ? c->have - offset : len);
    }
    return NOVAQ_OK;
}

static void counted_close(nq_source *s) { free(s); }

static const nq_source_vtable counted_vtable = {counted_read, counted_close, NULL};

typedef struct cost {
    uint64_t requests;
    uint64_t bytes;
} cost;

/* size: of the file, of which b has the beginning. */
static nq_source *far_away(const bytes *b, uint64_t size, cost *c) {
    static char name[] = "far";
    counted *s = malloc(sizeof *s);
    assert_non_null(s);
    *c = (cost){0, 0};
    *s = (counted){.base = {.vt = &counted_vtable, .name = name, .size = size, .remote = true},
                   .data = b->data,
                   .have = b->len,
                   .requests = &c->requests,
                   .bytes = &c->bytes};
    return &s->base;
}

static nq_tensors *open_far(const bytes *b, uint64_t size, cost *c, size_t count) {
    nq_source *src = far_away(b, size, c);
    nq_tensors *ts = NULL;
    novaq_error err = {.msg = ""};
    if (nq_tensors_open_source(&ts, &src, &err) != NOVAQ_OK) {
        fail_msg("%s", err.msg);
    }
    assert_int_equal(nq_tensors_count(ts), count);
    return ts;
}

static void at_most(const cost *c, uint64_t requests, uint64_t most) {
    if (c->requests > requests || c->bytes > most) {
        fail_msg("%llu requests for %llu bytes, at most %llu for %llu",
                 (unsigned long long)c->requests, (unsigned long long)c->bytes,
                 (unsigned long long)requests, (unsigned long long)most);
    }
}

#define KIB    ((uint64_t)1024)
#define COUNT  300U
#define TENSOR ((uint64_t)10000 * 64) /* bytes of each: most of the file is no header */

/* ---- SafeTensors ---------------------------------------------------------------- */

static uint64_t build_safetensors(bytes *b, unsigned count) {
    bytes json = {0};
    put(&json, "{", 1);
    for (unsigned i = 0; i < count; i++) {
        char text[300];
        int n = snprintf(text, sizeof text,
                         "%s\"model.layers.%u.mlp.up_proj.weight\":{\"dtype\":\"BF16\",\"shape\":"
                         "[%llu],\"data_offsets\":[%llu,%llu]}",
                         i == 0 ? "" : ",", i, (unsigned long long)(TENSOR / 2),
                         (unsigned long long)(i * TENSOR), (unsigned long long)((i + 1) * TENSOR));
        put(&json, text, (size_t)n);
    }
    put(&json, "}", 1);
    put_int(b, json.len, 8);
    put(b, json.data, json.len);
    bytes_free(&json);
    return b->len + count * TENSOR;
}

static void test_safetensors(void **state) {
    (void)state;
    for (unsigned count = COUNT; count <= 10 * COUNT; count += 9 * COUNT) {
        bytes b = {0};
        cost c;
        uint64_t size = build_safetensors(&b, count);
        nq_tensors *ts = open_far(&b, size, &c, count);
        at_most(&c, count == COUNT ? 1 : 3, b.len + 64 * KIB);
        nq_tensors_close(&ts);
        bytes_free(&b);
    }
}

/* ---- GGUF ------------------------------------------------------------------------- */

static void put_string(bytes *b, const char *s) {
    put_int(b, strlen(s), 8);
    put(b, s, strlen(s));
}

static void test_gguf(void **state) {
    (void)state;
    const unsigned tokens = 128000;
    bytes b = {0};
    cost c;
    put(&b, "GGUF", 4);
    put_int(&b, 3, 4);
    put_int(&b, COUNT, 8);
    put_int(&b, 2, 8);
    put_string(&b, "general.architecture");
    put_int(&b, 8, 4);
    put_string(&b, "llama");
    put_string(&b, "tokenizer.ggml.tokens");
    put_int(&b, 9, 4);
    put_int(&b, 8, 4);
    put_int(&b, tokens, 8);
    for (unsigned i = 0; i < tokens; i++) {
        char text[40];
        (void)snprintf(text, sizeof text, "a token with the number %u", i);
        put_string(&b, text);
    }
    for (unsigned i = 0; i < COUNT; i++) {
        char name[40];
        (void)snprintf(name, sizeof name, "blk.%u.ffn_up.weight", i);
        put_string(&b, name);
        put_int(&b, 1, 4);
        put_int(&b, TENSOR / 4, 8);
        put_int(&b, 0, 4); /* F32 */
        put_int(&b, i * TENSOR, 8);
    }
    put_pad(&b, 32);
    nq_tensors *ts = open_far(&b, b.len + COUNT * TENSOR, &c, COUNT);
    assert_true(b.len > 4000 * KIB);
    at_most(&c, 10, b.len + b.len / 4 + 1024 * KIB);
    nq_tensors_close(&ts);
    bytes_free(&b);
}

/* ---- PyTorch ------------------------------------------------------------------------ */

#define ELEMENTS ((uint64_t)3000) /* float32 of each storage */

/* A dict of COUNT vectors, each with a storage of its own called by its number. */
static void put_objects(bytes *b) {
    put(b, "\x80\2}(", 4);
    for (unsigned i = 0; i < COUNT; i++) {
        char text[300];
        char name[60];
        int n = snprintf(name, sizeof name, "model.layers.%u.weight", i);
        put(b, "X", 1);
        put_int(b, (uint64_t)n, 4);
        put(b, name, (size_t)n);
        n = snprintf(text, sizeof text, "ctorch._utils\n_rebuild_tensor_v2\n((X%c%c%c%cstorage", 7,
                     0, 0, 0);
        put(b, text, (size_t)n);
        put(b, "ctorch\nFloatStorage\nX", 21);
        n = snprintf(name, sizeof name, "%u", i);
        put_int(b, (uint64_t)n, 4);
        put(b, name, (size_t)n);
        put(b, "X\3\0\0\0cpuJ", 9);
        put_int(b, ELEMENTS, 4);
        put(b, "tQK\0(J", 6);
        put_int(b, ELEMENTS, 4);
        put(b,
            "t(K\1t\x89"
            "ccollections\nOrderedDict\n)RtR",
            35);
    }
    put(b, "u.", 2);
}

static void put_value(bytes *b, unsigned i) {
    for (uint64_t k = 0; k < ELEMENTS; k++) {
        put_int(b, (uint64_t)i * 100003 + k * 7, 4);
    }
}

typedef struct zipped {
    char name[40];
    uint64_t header;
    uint64_t size;
} zipped;

/* As torch.save() writes: stored, 64-byte aligned by an extra field, sizes behind. */
static void put_record(bytes *b, zipped *z, const char *name, const bytes *content) {
    (void)snprintf(z->name, sizeof z->name, "%s", name);
    z->header = b->len;
    z->size = content->len;
    size_t at = b->len + 30 + strlen(name) + 4;
    size_t pad = (64 - at % 64) % 64;
    put_int(b, 0x04034b50, 4);
    put_int(b, 0, 2);
    put_int(b, 8, 2); /* flags: a descriptor follows */
    put_int(b, 0, 2);
    put_int(b, 0, 4);
    put_fill(b, 0, 12); /* CRC, sizes */
    put_int(b, strlen(name), 2);
    put_int(b, 4 + pad, 2);
    put(b, name, strlen(name));
    put(b, "FB", 2);
    put_int(b, pad, 2);
    put_fill(b, 'Z', pad);
    assert_int_equal(b->len % 64, 0);
    put(b, content->data, content->len);
    put_int(b, 0x08074b50, 4);
    put_int(b, 0, 4);
    put_int(b, content->len, 4);
    put_int(b, content->len, 4);
}

static void put_directory(bytes *b, const zipped *records, unsigned count) {
    uint64_t start = b->len;
    for (unsigned i = 0; i < count; i++) {
        const zipped *z = &records[i];
        put_int(b, 0x02014b50, 4);
        put_int(b, 0, 4);
        put_int(b, 8, 2);
        put_int(b, 0, 2);
        put_int(b, 0, 4);
        put_int(b, 0, 4); /* CRC: none was computed */
        put_int(b, z->size, 4);
        put_int(b, z->size, 4);
        put_int(b, strlen(z->name), 2);
        put_fill(b, 0, 12); /* extra, comment, disk, attributes */
        put_int(b, z->header, 4);
        put(b, z->name, strlen(z->name));
    }
    uint64_t size = b->len - start;
    put_int(b, 0x06054b50, 4);
    put_int(b, 0, 4);
    put_int(b, count, 2);
    put_int(b, count, 2);
    put_int(b, size, 4);
    put_int(b, start, 4);
    put_int(b, 0, 2);
}

/* headers[i]: where the local header of storage i is. */
static void build_zip(bytes *b, uint64_t headers[COUNT]) {
    zipped *records = calloc(COUNT + 2, sizeof *records);
    bytes content = {0};
    assert_non_null(records);
    put_objects(&content);
    put_record(b, &records[0], "m/data.pkl", &content);
    content.len = 0;
    put(&content, "little", 6);
    put_record(b, &records[1], "m/byteorder", &content);
    for (unsigned i = 0; i < COUNT; i++) {
        char name[40];
        (void)snprintf(name, sizeof name, "m/data/%u", i);
        content.len = 0;
        put_value(&content, i);
        headers[i] = b->len;
        put_record(b, &records[2 + i], name, &content);
    }
    put_directory(b, records, COUNT + 2);
    bytes_free(&content);
    free(records);
}

static void build_legacy(bytes *b, uint64_t headers[COUNT]) {
    put(b, "\x80\2\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.", 15);
    put(b, "\x80\2M\xe9\3.", 6);
    put(b, "\x80\2}X\x0d\0\0\0little_endian\x88s.", 24);
    put_objects(b);
    put(b, "\x80\2](", 4);
    for (unsigned i = 0; i < COUNT; i++) {
        char key[20];
        int n = snprintf(key, sizeof key, "%u", i);
        put(b, "X", 1);
        put_int(b, (uint64_t)n, 4);
        put(b, key, (size_t)n);
    }
    put(b, "e.", 2);
    for (unsigned i = 0; i < COUNT; i++) {
        headers[i] = b->len;
        put_int(b, ELEMENTS, 8);
        put_value(b, i);
    }
}

/* Every tensor, read directly or ahead: want for number `bad`, right for the others. */
static void read_all(nq_tensors *ts, bool ahead, unsigned bad, novaq_status want) {
    novaq_error err = {.msg = ""};
    const nq_tensor_info *order[COUNT];
    uint8_t *raw = malloc(ELEMENTS * 4);
    bytes value = {0};
    assert_non_null(raw);
    for (unsigned i = 0; i < COUNT; i++) {
        char name[60];
        (void)snprintf(name, sizeof name, "model.layers.%u.weight", i);
        order[i] = nq_tensors_find(ts, name);
        assert_non_null(order[i]);
    }
    if (ahead) {
        assert_int_equal(nq_tensors_ahead(ts, order, COUNT, 5 * ELEMENTS * 4, &err), NOVAQ_OK);
    }
    for (unsigned i = 0; i < COUNT; i++) {
        novaq_status st = nq_tensors_read(raw, ts, order[i], 0, ELEMENTS * 4, &err);
        assert_int_equal(st, i == bad ? want : NOVAQ_OK);
        value.len = 0;
        put_value(&value, i);
        if (st == NOVAQ_OK) {
            assert_memory_equal(raw, value.data, value.len);
        } else {
            assert_non_null(strstr(err.msg, "far: offset"));
        }
        nq_tensors_release(ts, order[i]);
    }
    bytes_free(&value);
    free(raw);
}

static void check_torch(const bytes *b, const uint64_t *headers, uint64_t parse_bytes) {
    cost c;
    for (unsigned ahead = 0; ahead < 2; ahead++) {
        nq_tensors *ts = open_far(b, b->len, &c, COUNT);
        at_most(&c, 10, parse_bytes);
        read_all(ts, ahead == 1, COUNT, NOVAQ_OK);
        /* The proof comes along; directly it costs one more request for each. */
        at_most(&c, ahead == 1 ? 10 + COUNT : 10 + 2 * COUNT, b->len + parse_bytes + 200 * COUNT);
        nq_tensors_close(&ts);
    }
    /* A storage that says something else of itself is refused before it is used. */
    for (unsigned turn = 0; turn < 8; turn++) {
        unsigned bad = turn * 37 + 2;
        uint8_t *at = b->data + headers[bad] + (turn % 4 == 1 ? 6 : turn % 4 == 2 ? 1 : 0);
        uint8_t old = *at;
        *at ^= 0x40;
        nq_tensors *ts = open_far(b, b->len, &c, COUNT);
        read_all(ts, turn % 2 == 0, bad, NOVAQ_E_FORMAT);
        nq_tensors_close(&ts);
        *at = old;
    }
}

static void test_torch_zip(void **state) {
    (void)state;
    bytes b = {0};
    uint64_t headers[COUNT];
    build_zip(&b, headers);
    check_torch(&b, headers, 256 * KIB);
    /* An extra field that is shorter than the space for it. */
    cost c;
    b.data[headers[5] + 28]--;
    nq_tensors *ts = open_far(&b, b.len, &c, COUNT);
    read_all(ts, true, 5, NOVAQ_E_FORMAT);
    nq_tensors_close(&ts);
    bytes_free(&b);
}

static void test_torch_legacy(void **state) {
    (void)state;
    bytes b = {0};
    uint64_t headers[COUNT];
    build_legacy(&b, headers);
    check_torch(&b, headers, 320 * KIB);
    bytes_free(&b);
}

/* ---- ONNX ----------------------------------------------------------------------------- */

/* Weights in the file itself: to find each, the head of the one before is needed. */
static void test_onnx(void **state) {
    (void)state;
    bytes graph = {0};
    bytes b = {0};
    bytes zeros = {0};
    cost c;
    put_fill(&zeros, 0, (size_t)(ELEMENTS * 16));
    for (unsigned i = 0; i < COUNT; i++) {
        char name[60];
        char input[80];
        (void)snprintf(name, sizeof name, "/model/layers.%u/mlp/up_proj/MatMul", i);
        (void)snprintf(input, sizeof input, "onnx::MatMul_%u", i);
        put_node(&graph, "MatMul", name, "x", input);
    }
    for (unsigned i = 0; i < COUNT; i++) {
        bytes tensor = {0};
        char name[80];
        (void)snprintf(name, sizeof name, "onnx::MatMul_%u", i);
        put_head(&tensor, name, 1, (int64_t)ELEMENTS, 4);
        put_data(&tensor, 9, zeros.data, zeros.len);
        put_message(&graph, 5, &tensor);
    }
    put_model(&b, &graph);
    nq_tensors *ts = open_far(&b, b.len, &c, COUNT);
    at_most(&c, COUNT + 20, 3000 * KIB);
    assert_non_null(nq_tensors_find(ts, "model.layers.7.mlp.up_proj.weight"));
    nq_tensors_close(&ts);
    bytes_free(&b);
    bytes_free(&zeros);
}

/* ---- holding -------------------------------------------------------------------------- */

/* What cannot be held is refused before anything is fetched. */
static void test_hold_too_much(void **state) {
    (void)state;
    char json[200];
    bytes b = {0};
    cost c;
    uint64_t most = nq_physical_memory() / 2 + 1;
    int n = snprintf(json, sizeof json, "{");
    for (unsigned i = 0; i < 2; i++) {
        n += snprintf(json + n, sizeof json - (size_t)n,
                      "%s\"t%u\":{\"dtype\":\"U8\",\"shape\":[%llu],\"data_offsets\":[%llu,%llu]}",
                      i == 0 ? "" : ",", i, (unsigned long long)most,
                      (unsigned long long)(i * most), (unsigned long long)((i + 1) * most));
    }
    n += snprintf(json + n, sizeof json - (size_t)n, "}");
    put_int(&b, (uint64_t)n, 8);
    put(&b, json, (size_t)n);
    nq_tensors *ts = open_far(&b, b.len + 2 * most, &c, 2);
    uint64_t before = c.requests;
    novaq_error err = {.msg = ""};
    assert_int_equal(nq_tensors_hold(ts, &err), NOVAQ_E_MEMORY);
    assert_non_null(strstr(err.msg, "larger than the memory"));
    assert_null(ts->ahead);
    assert_int_equal(c.requests, before);
    nq_tensors_close(&ts);
    bytes_free(&b);
}

/* ---- the cache --------------------------------------------------------------------------- */

static void test_cache(void **state) {
    (void)state;
    bytes b = {0};
    cost c;
    for (unsigned i = 0; i < 3000000; i++) {
        put_int(&b, (uint64_t)i * 2654435761U >> 9, 4);
    }
    uint64_t size = b.len - 3; /* not whole blocks */
    nq_source *src = far_away(&b, size, &c);
    nq_source *cache = NULL;
    novaq_error err;
    uint8_t *out = malloc(b.len);
    assert_non_null(out);
    assert_int_equal(nq_cached_open(&cache, src, &err), NOVAQ_OK);
    uint64_t seed = 5;
    for (unsigned i = 0; i < 3000; i++) { /* anywhere, small and large */
        seed = seed * 6364136223846793005U + 1442695040888963407U;
        uint64_t at = (seed >> 20) % size;
        uint64_t n = i % 50 == 0 ? (seed >> 33) % 2000000 : (seed >> 33) % 9000;
        n = n < size - at ? n : size - at;
        if (i % 7 == 0) {
            nq_source_expect(cache, at, n);
        }
        assert_int_equal(nq_source_read(cache, at, out, n, &err), NOVAQ_OK);
        assert_memory_equal(out, b.data + at, n);
    }
    assert_int_equal(nq_source_read(cache, size - 1, out, 2, &err), NOVAQ_E_FORMAT);
    nq_source_close(&cache);
    c = (cost){0, 0};
    assert_int_equal(nq_cached_open(&cache, src, &err), NOVAQ_OK);
    for (uint64_t at = 0; at + 4 <= 4000000; at += 4) { /* straight on: few requests */
        assert_int_equal(nq_source_read(cache, at, out, 4, &err), NOVAQ_OK);
    }
    at_most(&c, 15, 6 * 1000000);
    for (uint64_t at = 0; at + 4 <= 4000000; at += 400) { /* and all of it is still there */
        assert_int_equal(nq_source_read(cache, at, out, 4, &err), NOVAQ_OK);
    }
    at_most(&c, 15, 6 * 1000000);
    nq_source_close(&cache);
    nq_source_close(&src);
    free(out);
    bytes_free(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_safetensors),   cmocka_unit_test(test_gguf),
        cmocka_unit_test(test_torch_zip),     cmocka_unit_test(test_torch_legacy),
        cmocka_unit_test(test_onnx),          cmocka_unit_test(test_cache),
        cmocka_unit_test(test_hold_too_much),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
