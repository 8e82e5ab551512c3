/* test_tensors.c - whole models: files by the formats' own writers against what
 * those say is in them, shards, splits, directories and refusals.
 *
 * test_tensors --fixtures FOLDER   checks another run of make_readers.py
 * test_tensors --verdicts LIST     prints "STATUS PATH" for each path in LIST
 * (both for tests/python/test_readers.py).
 */
#include "reader_util.h"

#include <sys/stat.h>

#include "base/mem.h"
#include "base/pool.h"
#include "base/sha256.h"
#include "io/files_impl.h"

static const char *fixtures = FIXTURES "/readers";

/* ---- fixtures ------------------------------------------------------------- */

static void unhex(char *out, size_t cap, size_t *len, const char *hex) {
    *len = strlen(hex) / 2;
    assert_true(*len < cap);
    for (size_t i = 0; i < *len; i++) {
        unsigned v = 0;
        assert_int_equal(sscanf(hex + 2 * i, "%2x", &v), 1);
        out[i] = (char)v;
    }
    out[*len] = '\0';
}

static void expect_tensor(nq_tensors *ts, char *rest, const float *values, size_t value_count) {
    char name[256];
    size_t len = 0;
    unhex(name, sizeof name, &len, strsep(&rest, "\t"));
    const nq_tensor_info *t = nq_tensors_find(ts, name);
    assert_non_null(t);
    assert_string_equal(t->name, name);
    assert_string_equal(nq_dtype_get(t->dtype)->name, strsep(&rest, "\t"));
    char *shape = strsep(&rest, "\t");
    uint64_t elements = 1;
    uint32_t rank = 0;
    for (char *d = shape[0] == '\0' ? NULL : strsep(&shape, ","); d != NULL;
         d = strsep(&shape, ",")) {
        assert_true(rank < t->rank);
        assert_int_equal(t->shape[rank], strtoull(d, NULL, 10));
        elements *= t->shape[rank++];
    }
    assert_int_equal(t->rank, rank);
    assert_int_equal(t->elements, elements);
    assert_int_equal(t->bytes, strtoull(strsep(&rest, "\t"), NULL, 10));
    size_t first = (size_t)strtoull(strsep(&rest, "\t"), NULL, 10);
    assert_int_equal(strtoull(strsep(&rest, "\t"), NULL, 10), elements);
    assert_true(first + elements <= value_count);
    float *got = malloc((size_t)elements * sizeof *got + 1);
    novaq_error err;
    assert_int_equal(nq_tensors_read_f32(got, ts, t, &err), NOVAQ_OK);
    assert_memory_equal(got, values + first, (size_t)elements * sizeof *got);
    free(got);
}

static void expect_kv(nq_tensors *ts, char *rest) {
    char key[256];
    size_t len = 0;
    unhex(key, sizeof key, &len, strsep(&rest, "\t"));
    size_t n = 0;
    const nq_gguf_kv *kvs = nq_tensors_kv(ts, &n);
    const nq_gguf_kv *kv = nq_gguf_find(kvs, n, key);
    assert_non_null(kv);
    assert_int_equal(kv->type, strtoul(strsep(&rest, "\t"), NULL, 10));
    unsigned long elem = strtoul(strsep(&rest, "\t"), NULL, 10);
    assert_int_equal(kv->elem, elem);
    assert_int_equal(kv->count, strtoull(strsep(&rest, "\t"), NULL, 10));
    for (uint64_t i = 0; i < kv->count; i++) {
        const char *want = strsep(&rest, "\t");
        assert_non_null(want);
        nq_gguf_string s;
        double d = 0;
        int64_t v = 0;
        assert_int_equal(nq_gguf_text(&s, kv, i), elem == NQ_GGUF_STRING);
        if (elem == NQ_GGUF_STRING) {
            char text[256];
            unhex(text, sizeof text, &len, want);
            assert_int_equal(s.len, len);
            assert_memory_equal(s.data, text, len);
        } else if (elem == NQ_GGUF_F32 || elem == NQ_GGUF_F64) {
            assert_true(nq_gguf_number(&d, kv, i) && !nq_gguf_integer(&v, kv, i));
            assert_true(d == strtod(want, NULL));
        } else {
            assert_true(nq_gguf_integer(&v, kv, i) && nq_gguf_number(&d, kv, i));
            assert_int_equal(v, strtoll(want, NULL, 10));
            assert_true(d == (double)v);
        }
    }
    assert_null(rest); /* every value of the line was compared */
}

/* model and stem: relative to the fixtures. */
static void check_fixture(const char *model, const char *stem, size_t want_kvs) {
    char path[1024];
    (void)snprintf(path, sizeof path, "%s/%s", fixtures, model);
    nq_tensors *ts = NULL;
    novaq_error err = {.msg = ""};
    if (nq_tensors_open(&ts, path, &err) != NOVAQ_OK) {
        fail_msg("%s", err.msg);
    }
    assert_string_equal(nq_tensors_path(ts), path);
    char *text = NULL;
    char *raw = NULL;
    size_t text_len = 0;
    size_t raw_len = 0;
    (void)snprintf(path, sizeof path, "%s/%s.expect.txt", fixtures, stem);
    assert_int_equal(nq_read_file(&text, &text_len, path, 1 << 20, &err), NOVAQ_OK);
    (void)snprintf(path, sizeof path, "%s/%s.expect.f32", fixtures, stem);
    assert_int_equal(nq_read_file(&raw, &raw_len, path, 1 << 20, &err), NOVAQ_OK);
    size_t tensors = 0;
    size_t kvs = 0;
    char *walk = text;
    for (char *line = strsep(&walk, "\n"); line != NULL; line = strsep(&walk, "\n")) {
        char *rest = line;
        const char *what = strsep(&rest, "\t");
        if (strcmp(what, "tensor") == 0) {
            expect_tensor(ts, rest, (const float *)(const void *)raw, raw_len / sizeof(float));
            tensors++;
        } else if (strcmp(what, "kv") == 0) {
            expect_kv(ts, rest);
            kvs++;
        } else {
            assert_string_equal(what, "");
        }
    }
    assert_true(tensors > 0);
    assert_int_equal(kvs, want_kvs);
    assert_int_equal(nq_tensors_count(ts), tensors);
    for (size_t i = 1; i < tensors; i++) {
        const nq_tensor_info *a = nq_tensors_at(ts, i - 1);
        const nq_tensor_info *b = nq_tensors_at(ts, i);
        assert_true(a->file < b->file || (a->file == b->file && a->offset <= b->offset));
    }
    nq_free(text);
    nq_free(raw);
    nq_tensors_close(&ts);
}

static void test_safetensors_types(void **state) {
    (void)state;
    check_fixture("types.safetensors", "types", 0);
}

static void test_sharded(void **state) {
    (void)state;
    check_fixture("sharded/model.safetensors.index.json", "sharded/model", 0);
    check_fixture("sharded", "sharded/model", 0);
}

static void test_gguf_versions(void **state) {
    (void)state;
    check_fixture("v3.gguf", "v3", 27);
    check_fixture("v2.gguf", "v3", 27);
    check_fixture("v1.gguf", "v3", 27);
}

static void test_gguf_split(void **state) {
    (void)state;
    check_fixture("split/parts-00001-of-00003.gguf", "split/parts", 27);
}

/* ---- looking and reading -------------------------------------------------- */

static nq_tensors *open_fixture(const char *name) {
    char path[1024];
    (void)snprintf(path, sizeof path, "%s/%s", fixtures, name);
    nq_tensors *ts = NULL;
    assert_int_equal(nq_tensors_open(&ts, path, NULL), NOVAQ_OK);
    return ts;
}

static bool pick_floats(char *out, const char *name) {
    if (name[0] != 'f') {
        return false;
    }
    memcpy(out, name + 1, strlen(name));
    return true;
}

static bool pick_alike(char *out, const char *name) {
    out[0] = '\0';
    return strlen(name) > 0;
}

/* Some of the tensors, under other names, with their own bytes. */
static void test_pick(void **state) {
    (void)state;
    nq_tensors *all = open_fixture("types.safetensors");
    nq_tensors *ts = open_fixture("types.safetensors");
    novaq_error err = {0};
    float want[15];
    float got[15];
    uint64_t left = 7;
    assert_int_equal(nq_tensors_left_out(ts, &left), 0);
    assert_int_equal(left, 0);
    assert_int_equal(nq_tensors_pick(ts, pick_floats, NULL), NOVAQ_OK);
    assert_int_equal(nq_tensors_count(ts), 5); /* f16, f32, f64, f8_e4m3, f8_e5m2 */
    assert_int_equal(nq_tensors_left_out(ts, &left), nq_tensors_count(all) - 5);
    assert_null(nq_tensors_find(ts, "f32"));
    for (size_t i = 0; i < nq_tensors_count(ts); i++) {
        left += nq_tensors_at(ts, i)->bytes;
    }
    for (size_t i = 0; i < nq_tensors_count(all); i++) {
        left -= nq_tensors_at(all, i)->bytes;
    }
    assert_int_equal(left, 0); /* all is kept or left out */
    assert_int_equal(nq_tensors_read_f32(want, all, nq_tensors_find(all, "f32"), NULL), NOVAQ_OK);
    assert_int_equal(nq_tensors_read_f32(got, ts, nq_tensors_find(ts, "32"), NULL), NOVAQ_OK);
    assert_memory_equal(got, want, sizeof got);
    assert_int_equal(nq_tensors_pick(ts, pick_floats, NULL), NOVAQ_E_ARG);
    assert_int_equal(nq_tensors_pick(all, pick_alike, &err), NOVAQ_E_FORMAT);
    assert_non_null(strstr(err.msg, "there twice"));
    nq_tensors_close(&all);
    nq_tensors_close(&ts);
}

static void test_lookup(void **state) {
    (void)state;
    nq_tensors *ts = open_fixture("sharded");
    assert_int_equal(nq_tensors_format(ts), NQ_FORMAT_SAFETENSORS);
    assert_true(strstr(nq_tensors_dir(ts), "/sharded") != NULL);
    size_t n = 7;
    assert_null(nq_tensors_kv(ts, &n));
    assert_int_equal(n, 0);
    assert_int_equal(nq_tensors_file_bytes(ts), 344 + 344); /* the index holds no tensors */
    assert_null(nq_tensors_find(ts, "head.remnant"));       /* stored, not mapped */
    assert_null(nq_tensors_find(ts, ""));
    assert_int_equal(nq_tensors_find(ts, "embed.weight")->file, 0);
    assert_int_equal(nq_tensors_find(ts, "norm.weight")->file, 1);
    for (size_t i = 0; i < nq_tensors_count(ts); i++) {
        const nq_tensor_info *t = nq_tensors_at(ts, i);
        assert_ptr_equal(nq_tensors_find(ts, t->name), t);
    }
    nq_tensors_close(&ts);
    ts = open_fixture("v1.gguf");
    assert_int_equal(nq_tensors_format(ts), NQ_FORMAT_GGUF);
    assert_string_equal(nq_tensors_dir(ts), fixtures);
    nq_tensors_close(&ts);
    nq_tensors_close(&ts); /* NULL is fine */
}

static void test_read_bounds(void **state) {
    (void)state;
    nq_tensors *ts = open_fixture("v3.gguf");
    const nq_tensor_info *t = nq_tensors_find(ts, "vector");
    uint8_t whole[20];
    uint8_t part[7];
    novaq_error err;
    assert_int_equal(nq_tensors_read(whole, ts, t, 0, 20, &err), NOVAQ_OK);
    assert_int_equal(nq_tensors_read(part, ts, t, 13, 7, &err), NOVAQ_OK);
    assert_memory_equal(part, whole + 13, 7);
    assert_int_equal(nq_tensors_read(part, ts, t, 20, 0, &err), NOVAQ_OK);
    assert_int_equal(nq_tensors_read(part, ts, t, 20, 1, &err), NOVAQ_E_ARG);
    assert_int_equal(nq_tensors_read(part, ts, t, 21, 0, &err), NOVAQ_E_ARG);
    assert_int_equal(nq_tensors_read(part, ts, t, UINT64_MAX, 7, &err), NOVAQ_E_ARG);
    assert_int_equal(nq_tensors_read(part, ts, t, 7, UINT64_MAX, &err), NOVAQ_E_ARG);
    nq_tensors_close(&ts);
}

typedef struct parallel {
    nq_tensors *ts;
    const nq_tensor_info *t;
    const float *want;
    unsigned good[64];
} parallel;

static void read_one(void *ctx, uint64_t task, unsigned worker) {
    (void)worker;
    parallel *p = ctx;
    float *got = malloc((size_t)p->t->elements * sizeof *got);
    if (got != NULL && nq_tensors_read_f32(got, p->ts, p->t, NULL) == NOVAQ_OK) {
        p->good[task] = memcmp(got, p->want, (size_t)p->t->elements * sizeof *got) == 0;
    }
    free(got);
}

/* More than one chunk of conversion, and from several threads at once. */
static void test_large_and_parallel(void **state) {
    (void)state;
    char dir[512];
    temp_dir(dir, sizeof dir);
    enum { N = 700001 };
    static const char json[] =
        "{\"big\":{\"dtype\":\"F32\",\"shape\":[700001],\"data_offsets\":[0,2800004]}}";
    float *want = malloc(N * sizeof *want);
    for (unsigned i = 0; i < N; i++) {
        want[i] = (float)i * 0.5F - 1000.0F;
    }
    bytes b = {0};
    put_int(&b, sizeof json - 1, 8);
    put(&b, json, sizeof json - 1);
    put(&b, want, N * sizeof *want);
    write_plain(dir, "blob", b.data, b.len); /* recognised without a suffix */
    char path[600];
    (void)snprintf(path, sizeof path, "%s/blob", dir);
    parallel p = {.want = want};
    assert_int_equal(nq_tensors_open(&p.ts, path, NULL), NOVAQ_OK);
    p.t = nq_tensors_find(p.ts, "big");
    nq_pool *pool = NULL;
    assert_int_equal(nq_pool_open(&pool, 4, NULL), NOVAQ_OK);
    nq_pool_run(pool, read_one, &p, 64);
    nq_pool_close(&pool);
    for (unsigned i = 0; i < 64; i++) {
        assert_int_equal(p.good[i], 1);
    }
    nq_tensors_close(&p.ts);
    remove_dir(dir);
    bytes_free(&b);
    free(want);
}

/* ---- small models built here ---------------------------------------------- */

static void put_safetensors(bytes *b, const char *json, size_t data) {
    put_int(b, strlen(json), 8);
    put(b, json, strlen(json));
    put_fill(b, 1, data);
}

static void write_text(const char *dir, const char *name, const char *text) {
    write_plain(dir, name, text, strlen(text));
}

/* A file with U8 tensors of one byte; names separated by spaces. */
static void write_u8(const char *dir, const char *name, const char *tensors) {
    char json[1024] = "{";
    char list[256];
    (void)snprintf(list, sizeof list, "%s", tensors);
    char *walk = list;
    size_t n = 0;
    for (const char *t = strsep(&walk, " "); t != NULL; t = strsep(&walk, " ")) {
        size_t used = strlen(json);
        (void)snprintf(json + used, sizeof json - used,
                       "%s\"%s\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[%zu,%zu]}",
                       n == 0 ? "" : ",", t, n, n + 1);
        n++;
    }
    size_t used = strlen(json);
    (void)snprintf(json + used, sizeof json - used, "}");
    bytes b = {0};
    put_safetensors(&b, json, n);
    write_plain(dir, name, b.data, b.len);
    bytes_free(&b);
}

static void key_int(bytes *b, const char *key, uint32_t type, uint64_t v, unsigned size) {
    put_int(b, strlen(key), 8);
    put(b, key, strlen(key));
    put_int(b, type, 4);
    put_int(b, v, size);
}

/* Part `no` of a split model with one tensor of 8 floats. */
static void write_part(const char *dir, const char *name, unsigned no, unsigned count,
                       unsigned tensors, const char *tensor) {
    bytes b = {0};
    put(&b, "GGUF", 4);
    put_int(&b, 3, 4);
    put_int(&b, 1, 8);
    put_int(&b, 3, 8);
    key_int(&b, "split.no", NQ_GGUF_U16, no, 2);
    key_int(&b, "split.count", NQ_GGUF_U16, count, 2);
    key_int(&b, "split.tensors.count", NQ_GGUF_I32, tensors, 4);
    put_int(&b, strlen(tensor), 8);
    put(&b, tensor, strlen(tensor));
    put_int(&b, 1, 4);
    put_int(&b, 8, 8);
    put_int(&b, 0, 4);
    put_int(&b, 0, 8);
    put_pad(&b, 32);
    put_fill(&b, 0, 32);
    write_plain(dir, name, b.data, b.len);
    bytes_free(&b);
}

/* Opens dir/name (dir itself for "") and checks the verdict. */
static void expect_open(const char *dir, const char *name, novaq_status want, const char *says) {
    char path[1024];
    (void)snprintf(path, sizeof path, "%s%s%s", dir, name[0] == '\0' ? "" : "/", name);
    nq_tensors *ts = NULL;
    novaq_error err = {.code = NOVAQ_OK, .msg = ""};
    novaq_status got = nq_tensors_open(&ts, path, &err);
    if (got != want || (says != NULL && strstr(err.msg, says) == NULL)) {
        fail_msg("%s: %s (%s), wanted %s (%s)", path, novaq_status_name(got), err.msg,
                 novaq_status_name(want), says == NULL ? "" : says);
    }
    if (got == NOVAQ_OK) {
        read_everything(ts);
        nq_tensors_close(&ts);
    }
    assert_null(ts);
}

#define INDEX "model.safetensors.index.json"

static void test_index_refusals(void **state) {
    (void)state;
    static const struct {
        const char *json;
        novaq_status want;
        const char *says;
    } rows[] = {
        {"{\"weight_map\":{\"a\":\"one.st\",\"b\":\"two.st\"}}", NOVAQ_OK, NULL},
        {" \n{\"weight_map\":{\"a\":\"one.st\"}}", NOVAQ_OK, NULL},
        {"{\"metadata\":{},\"weight_map\":{\"b\":\"two.st\"},\"more\":1}", NOVAQ_OK, NULL},
        {"{\"weight_map\":{\"a\":\"two.st\"}}", NOVAQ_E_FORMAT, "tensor \"a\" is not in"},
        {"{\"weight_map\":{\"a\":\"one.st\",\"z\":\"one.st\"}}", NOVAQ_E_FORMAT, "\"z\""},
        {"{\"weight_map\":{\"a\":\"none.st\"}}", NOVAQ_E_IO, "none.st"},
        {"{\"weight_map\":{\"a\":\"../one.st\"}}", NOVAQ_E_FORMAT, "plain file name"},
        {"{\"weight_map\":{\"a\":\"/etc/passwd\"}}", NOVAQ_E_FORMAT, "plain file name"},
        {"{\"weight_map\":{\"a\":\"x/../one.st\"}}", NOVAQ_E_FORMAT, "plain file name"},
        {"{\"weight_map\":{\"a\":\"x\\\\one.st\"}}", NOVAQ_E_FORMAT, "plain file name"},
        {"{\"weight_map\":{\"a\":\"..\"}}", NOVAQ_E_FORMAT, "plain file name"},
        {"{\"weight_map\":{\"a\":\".\"}}", NOVAQ_E_FORMAT, "plain file name"},
        {"{\"weight_map\":{\"a\":\"\"}}", NOVAQ_E_FORMAT, "plain file name"},
        {"{\"weight_map\":{\"a\":1}}", NOVAQ_E_FORMAT, "plain file name"},
        {"{\"weight_map\":{\"a\":\"one.st\\u0000\"}}", NOVAQ_E_FORMAT, NULL},
        {"{\"weight_map\":{\"a\":\"one.st\",\"a\":\"two.st\"}}", NOVAQ_E_FORMAT, NULL},
        {"{\"weight_map\":{}}", NOVAQ_E_FORMAT, "0 files"},
        {"{\"weight_map\":[]}", NOVAQ_E_FORMAT, "weight_map"},
        {"{}", NOVAQ_E_FORMAT, "weight_map"},
        {"{\"weight_map\":{\"a\":\"bad.st\"}}", NOVAQ_E_FORMAT, "bad.st"},
        {"{\"weight_map\":{\"a\":\"one.st\"", NOVAQ_E_FORMAT, "JSON"},
        {"[1]", NOVAQ_E_FORMAT, "not a JSON object"},
        {"{\"schema_version\":1,\"chunks\":[]}", NOVAQ_E_ARG, "novaq artifact"},
    };
    char dir[512];
    temp_dir(dir, sizeof dir);
    write_u8(dir, "one.st", "a x");
    write_u8(dir, "two.st", "b x");
    write_text(dir, "bad.st", "not SafeTensors");
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        write_text(dir, INDEX, rows[i].json);
        expect_open(dir, INDEX, rows[i].want, rows[i].says);
        expect_open(dir, "", rows[i].want, rows[i].says);
    }
    remove_dir(dir);
}

static void test_split_refusals(void **state) {
    (void)state;
    char dir[512];
    temp_dir(dir, sizeof dir);
    write_part(dir, "m-00001-of-00002.gguf", 0, 2, 2, "a");
    expect_open(dir, "m-00001-of-00002.gguf", NOVAQ_E_IO, "m-00002-of-00002.gguf");
    write_part(dir, "m-00002-of-00002.gguf", 1, 2, 2, "b");
    expect_open(dir, "m-00001-of-00002.gguf", NOVAQ_OK, NULL);
    expect_open(dir, "", NOVAQ_OK, NULL); /* the only model of the directory */
    expect_open(dir, "m-00002-of-00002.gguf", NOVAQ_E_ARG, "part 1");
    write_part(dir, "m-00002-of-00002.gguf", 1, 2, 2, "a");
    expect_open(dir, "m-00001-of-00002.gguf", NOVAQ_E_FORMAT, "\"a\" is there twice");
    write_part(dir, "m-00002-of-00002.gguf", 1, 3, 2, "b");
    expect_open(dir, "m-00001-of-00002.gguf", NOVAQ_E_FORMAT, "part 2 of 2 is due");
    write_part(dir, "m-00002-of-00002.gguf", 0, 2, 2, "b");
    expect_open(dir, "m-00001-of-00002.gguf", NOVAQ_E_FORMAT, "part 2 of 2 is due");
    write_part(dir, "m-00001-of-00002.gguf", 0, 2, 3, "a");
    write_part(dir, "m-00002-of-00002.gguf", 1, 2, 3, "b");
    expect_open(dir, "m-00001-of-00002.gguf", NOVAQ_E_FORMAT, "split.tensors.count is 3");
    write_part(dir, "other.gguf", 0, 2, 2, "a");
    expect_open(dir, "other.gguf", NOVAQ_E_ARG, "must be named");
    write_part(dir, "other.gguf", 5, 2, 2, "a");
    expect_open(dir, "other.gguf", NOVAQ_E_FORMAT, "part 6 of 2");
    remove_dir(dir);
}

/* ---- names that only the place knows ------------------------------------------ */

/* Adds a file as a layer of weights to a store of Ollama in the same folder, in which
 * blobs are named by their digests. wrong: its digest is that of other bytes. */
static void put_layer(char *layers, size_t cap, const char *dir, const char *file, bool wrong) {
    char path[1024];
    char digest[NQ_SHA256_HEX + 1];
    char *text = NULL;
    size_t len = 0;
    (void)snprintf(path, sizeof path, "%s/%s", dir, file);
    assert_int_equal(nq_read_file(&text, &len, path, 1 << 20, NULL), NOVAQ_OK);
    assert_int_equal(nq_sha256_of(digest, text, wrong ? len - 1 : len, NULL), NOVAQ_OK);
    (void)snprintf(path, sizeof path, "%s/blobs/sha256-%s", dir, digest);
    assert_int_equal(nq_write_file(path, text, len, NULL), NOVAQ_OK);
    nq_free(text);
    size_t used = strlen(layers);
    (void)snprintf(layers + used, cap - used,
                   "%s{\"mediaType\":\"application/vnd.ollama.image.model\",\"digest\":"
                   "\"sha256:%s\",\"size\":%zu}",
                   used == 0 ? "" : ",", digest, len);
}

static void expect_ollama(const char *dir, const char *layers, novaq_status want,
                          const char *says) {
    char path[1024];
    char text[2000];
    (void)snprintf(text, sizeof text, "{\"schemaVersion\":2,\"layers\":[%s]}", layers);
    (void)snprintf(path, sizeof path, "%s/manifests/registry.ollama.ai/library/m/latest", dir);
    assert_int_equal(nq_write_file(path, text, strlen(text), NULL), NOVAQ_OK);
    nq_tensors *ts = NULL;
    novaq_error err = {.msg = ""};
    novaq_status st = nq_tensors_open(&ts, "ollama://m", &err);
    if (st != want || strstr(err.msg, says) == NULL) {
        fail_msg("%s (%s), wanted %s (%s)", novaq_status_name(st), err.msg, novaq_status_name(want),
                 says);
    }
    if (st == NOVAQ_OK) {
        size_t verified = 0;
        size_t promised = 0;
        read_everything(ts);
        assert_int_equal(nq_tensors_verified(&verified, &promised, ts, &err), NOVAQ_OK);
        assert_int_equal(verified, 2);
        assert_int_equal(promised, 2);
        assert_int_equal(nq_tensors_count(ts), 2);
    }
    nq_tensors_close(&ts);
}

static void drop_store(const char *dir) {
    static const char *const names[] = {
        "manifests/registry.ollama.ai/library/m/latest", "manifests/registry.ollama.ai/library/m",
        "manifests/registry.ollama.ai/library", "manifests/registry.ollama.ai", "manifests"};
    char path[1024];
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        (void)snprintf(path, sizeof path, "%s/%s", dir, names[i]);
        assert_int_equal(remove(path), 0);
    }
    (void)snprintf(path, sizeof path, "%s/blobs", dir);
    remove_dir(path);
    remove_dir(dir);
}

static void test_ollama(void **state) {
    (void)state;
    char dir[512];
    char path[1024];
    char layers[1000] = "";
    temp_dir(dir, sizeof dir);
    assert_int_equal(setenv("OLLAMA_MODELS", dir, 1), 0);
    (void)snprintf(path, sizeof path, "%s/manifests/registry.ollama.ai/library/m", dir);
    assert_int_equal(nq_make_dir(path, NULL), NOVAQ_OK);
    (void)snprintf(path, sizeof path, "%s/blobs", dir);
    assert_int_equal(nq_make_dir(path, NULL), NOVAQ_OK);
    write_part(dir, "one", 0, 2, 2, "a");
    write_part(dir, "two", 1, 2, 2, "b");
    put_layer(layers, sizeof layers, dir, "two", false);
    put_layer(layers, sizeof layers, dir, "one", false);
    expect_ollama(dir, layers, NOVAQ_E_ARG, "part 1 (NAME-00001-of-00002.gguf)");
    layers[0] = '\0';
    put_layer(layers, sizeof layers, dir, "one", false);
    put_layer(layers, sizeof layers, dir, "two", false);
    expect_ollama(dir, layers, NOVAQ_OK, "");
    /* An index decides what else is read: it must be the one that was promised. */
    write_text(dir, "index", "{\"weight_map\":{\"a\":\"one.st\"}}");
    layers[0] = '\0';
    put_layer(layers, sizeof layers, dir, "index", false);
    expect_ollama(dir, layers, NOVAQ_E_NETWORK, "one.st");
    layers[0] = '\0';
    put_layer(layers, sizeof layers, dir, "index", true);
    expect_ollama(dir, layers, NOVAQ_E_VERIFY, "SHA-256");
    assert_int_equal(unsetenv("OLLAMA_MODELS"), 0);
    drop_store(dir);
}

/* A web server's files: addresses, where names have spaces. */
static novaq_status web_source(nq_source **out, nq_files *f, const char *name, novaq_error *err) {
    char *path = NULL;
    NQ_TRY(nq_path_join(&path, f->state, name, err));
    novaq_status st = nq_source_open_file(out, path, err);
    nq_free(path);
    if (st == NOVAQ_OK) {
        nq_free((*out)->name);
        st = nq_asprintf(&(*out)->name, err, "https://host/my%%20%s", name + strlen("my "));
    }
    return st;
}

static novaq_status web_has(bool *has, nq_files *f, const char *name, novaq_error *err) {
    (void)f;
    (void)name;
    (void)err;
    *has = false;
    return NOVAQ_OK;
}

static void web_close(void *state) { (void)state; }

static void test_web_names(void **state) {
    (void)state;
    static const nq_place place = {web_has, web_source, NULL, web_close};
    char dir[512];
    temp_dir(dir, sizeof dir);
    write_part(dir, "my model-00001-of-00002.gguf", 0, 2, 2, "a");
    write_part(dir, "my model-00002-of-00002.gguf", 1, 2, 2, "b");
    for (unsigned first = 1; first <= 2; first++) {
        nq_files *f = NULL;
        nq_tensors *ts = NULL;
        novaq_error err = {.msg = ""};
        assert_int_equal(nq_alloc(&f, 1, sizeof *f, NULL), NOVAQ_OK);
        *f = (nq_files){.place = &place, .state = dir, .opened = json_object()};
        assert_int_equal(nq_strdup(&f->locator, "https://host/", NULL), NOVAQ_OK);
        assert_int_equal(nq_asprintf(&f->chosen, NULL, "my model-0000%u-of-00002.gguf", first),
                         NOVAQ_OK);
        assert_int_equal(nq_tensors_open_files(&ts, &f, &err), first == 1 ? NOVAQ_OK : NOVAQ_E_ARG);
        if (first == 1) {
            read_everything(ts);
        } else {
            assert_non_null(strstr(err.msg, "part 1 (my model-00001-of-00002.gguf)"));
        }
        nq_tensors_close(&ts);
    }
    remove_dir(dir);
}

static void test_directories(void **state) {
    (void)state;
    char dir[512];
    temp_dir(dir, sizeof dir);
    expect_open(dir, "", NOVAQ_E_ARG, "no .safetensors");
    write_text(dir, "config.json", "{}");
    write_u8(dir, ".hidden.safetensors", "h");
    expect_open(dir, "", NOVAQ_E_ARG, "no .safetensors");
    write_u8(dir, "lora.safetensors", "l");
    expect_open(dir, "", NOVAQ_OK, NULL);
    write_u8(dir, "lora-00001-of-00002.safetensors", "l"); /* needs an index to count */
    expect_open(dir, "", NOVAQ_OK, NULL);
    write_u8(dir, "other.safetensors", "o");
    expect_open(dir, "", NOVAQ_E_ARG, "lora.safetensors, other.safetensors");
    write_u8(dir, "model.safetensors", "m");
    expect_open(dir, "", NOVAQ_OK, NULL); /* the usual name wins */
    char path[600];
    (void)snprintf(path, sizeof path, "%s/sub", dir);
    assert_int_equal(mkdir(path, 0777), 0);
    write_text(path, "manifest.json", "{}");
    expect_open(path, "", NOVAQ_E_ARG, "novaq artifact");
    remove_dir(path);
    expect_open(dir, "absent", NOVAQ_E_IO, "absent");
    remove_dir(dir);
}

/* Which of several formats a folder stands for; several of one are named. */
static void test_preference(void **state) {
    (void)state;
    char dir[512];
    temp_dir(dir, sizeof dir);
    write_text(dir, "m.onnx", "no model");
    expect_open(dir, "", NOVAQ_E_FORMAT, "m.onnx");
    write_text(dir, "m.pt", "no model");
    expect_open(dir, "", NOVAQ_E_FORMAT, "m.pt");
    write_part(dir, "m-Q4_K_M.gguf", 0, 1, 1, "a");
    write_part(dir, "mmproj-f16.gguf", 0, 1, 1, "b"); /* of images, beside a model */
    expect_open(dir, "", NOVAQ_OK, NULL);
    for (unsigned i = 0; i < 9; i++) {
        char name[40];
        (void)snprintf(name, sizeof name, "m-Q%u.gguf", i);
        write_part(dir, name, 0, 1, 1, "a");
    }
    expect_open(dir, "", NOVAQ_E_ARG, "several models (m-Q0.gguf, m-Q1.gguf, ");
    expect_open(dir, "", NOVAQ_E_ARG, "m-Q6.gguf and 2 more): name one");
    expect_open(dir, "m-Q3.gguf", NOVAQ_OK, NULL);
    write_u8(dir, "m.safetensors", "m");
    expect_open(dir, "", NOVAQ_OK, NULL);
    remove_dir(dir);
}

/* A place that is open already becomes the set's; files beside the model by name. */
static void test_over_files(void **state) {
    (void)state;
    char path[1024];
    nq_files *files = NULL;
    nq_tensors *ts = NULL;
    char *name = NULL;
    novaq_error err = {.msg = ""};
    (void)snprintf(path, sizeof path, "%s/sharded", fixtures);
    assert_int_equal(nq_files_open(&files, path, &err), NOVAQ_OK);
    nq_files *same = files;
    assert_int_equal(nq_tensors_open_files(&ts, &files, &err), NOVAQ_OK);
    assert_null(files);
    assert_ptr_equal(nq_tensors_files(ts), same);
    assert_string_equal(nq_tensors_path(ts), path);
    assert_int_equal(nq_tensors_beside(&name, ts, "config.json", &err), NOVAQ_OK);
    assert_string_equal(name, "config.json");
    nq_free(name);
    nq_tensors_close(&ts);
    char dir[512];
    temp_dir(dir, sizeof dir);
    assert_int_equal(nq_files_open(&files, dir, &err), NOVAQ_OK);
    assert_int_equal(nq_tensors_open_files(&ts, &files, &err), NOVAQ_E_ARG);
    assert_true(files == NULL && ts == NULL);
    remove_dir(dir);
}

static void test_recognition(void **state) {
    (void)state;
    char dir[512];
    temp_dir(dir, sizeof dir);
    write_u8(dir, "state-of-art.gguf", "a"); /* no part of a split */
    expect_open(dir, "", NOVAQ_OK, NULL);
    write_u8(dir, "model.gguf", "a"); /* the content decides, not the name */
    expect_open(dir, "model.gguf", NOVAQ_OK, NULL);
    write_part(dir, "model.safetensors", 0, 1, 1, "a");
    expect_open(dir, "model.safetensors", NOVAQ_OK, NULL);
    write_plain(dir, "weights.bin", "PK\3\4 and more", 13);
    expect_open(dir, "weights.bin", NOVAQ_E_FORMAT, "zip");
    write_plain(dir, "weights.zip", "PK\3\4 and more than an end record takes", 38);
    expect_open(dir, "weights.zip", NOVAQ_E_FORMAT, "no end record");
    write_plain(dir, "pickled", "\x80\2\x8a\nl\xfc\x9c\x46\xf9 j", 11);
    expect_open(dir, "pickled", NOVAQ_E_FORMAT, "as torch.save begins a file");
    write_plain(dir, "graph.onnx", "\10\7\22\7pytorch", 11);
    expect_open(dir, "graph.onnx", NOVAQ_E_FORMAT, "no graph: not an ONNX model");
    write_text(dir, "notes.txt", "hello world, this is no model");
    expect_open(dir, "notes.txt", NOVAQ_E_FORMAT, "neither");
    write_text(dir, "none", "");
    expect_open(dir, "none", NOVAQ_E_FORMAT, "neither");
    write_text(dir, "damaged.gguf", "XGUF");
    expect_open(dir, "damaged.gguf", NOVAQ_E_FORMAT, "not a GGUF file");
    bytes b = {0};
    put_safetensors(&b, "{\"__metadata__\":{\"novaq_manifest\":\"{}\"}}", 0);
    write_plain(dir, "x.bin", b.data, b.len);
    bytes_free(&b);
    expect_open(dir, "x.bin", NOVAQ_E_ARG, "novaq artifact");
    char path[600];
    (void)snprintf(path, sizeof path, "%s/pipe.gguf", dir);
    assert_int_equal(mkfifo(path, 0666), 0);
    expect_open(dir, "pipe.gguf", NOVAQ_E_IO, "regular file");
    remove_dir(dir);
}

/* A file that shrinks after it was opened: an error, never a short read. */
static void test_shrinking_file(void **state) {
    (void)state;
    char dir[512];
    temp_dir(dir, sizeof dir);
    write_u8(dir, "s.safetensors", "a b c");
    char path[600];
    (void)snprintf(path, sizeof path, "%s/s.safetensors", dir);
    nq_tensors *ts = NULL;
    assert_int_equal(nq_tensors_open(&ts, path, NULL), NOVAQ_OK);
    assert_int_equal(truncate(path, 20), 0);
    float f = 0;
    novaq_error err;
    assert_int_equal(nq_tensors_read_f32(&f, ts, nq_tensors_find(ts, "c"), &err), NOVAQ_E_IO);
    assert_non_null(strstr(err.msg, "shrank"));
    nq_tensors_close(&ts);
    remove_dir(dir);
}

/* ---- for the Python oracle ------------------------------------------------ */

static int print_verdicts(const char *list) {
    char *text = NULL;
    size_t len = 0;
    novaq_error err;
    if (nq_read_file(&text, &len, list, (size_t)64 << 20, &err) != NOVAQ_OK) {
        (void)fprintf(stderr, "%s\n", err.msg);
        return 1;
    }
    char *walk = text;
    for (const char *path = strsep(&walk, "\n"); path != NULL; path = strsep(&walk, "\n")) {
        if (path[0] == '\0') {
            continue;
        }
        nq_tensors *ts = NULL;
        novaq_status st = nq_tensors_open(&ts, path, &err);
        (void)printf("%d %s %s\n", (int)st, path, st == NOVAQ_OK ? "" : err.msg);
        nq_tensors_close(&ts);
    }
    nq_free(text);
    return 0;
}

int main(int argc, char **argv) {
    if (argc == 3 && strcmp(argv[1], "--verdicts") == 0) {
        return print_verdicts(argv[2]);
    }
    if (argc == 3 && strcmp(argv[1], "--fixtures") == 0) {
        fixtures = argv[2];
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_safetensors_types),
        cmocka_unit_test(test_sharded),
        cmocka_unit_test(test_gguf_versions),
        cmocka_unit_test(test_gguf_split),
        cmocka_unit_test(test_lookup),
        cmocka_unit_test(test_pick),
        cmocka_unit_test(test_read_bounds),
        cmocka_unit_test(test_large_and_parallel),
        cmocka_unit_test(test_index_refusals),
        cmocka_unit_test(test_split_refusals),
        cmocka_unit_test(test_ollama),
        cmocka_unit_test(test_web_names),
        cmocka_unit_test(test_directories),
        cmocka_unit_test(test_preference),
        cmocka_unit_test(test_over_files),
        cmocka_unit_test(test_recognition),
        cmocka_unit_test(test_shrinking_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
