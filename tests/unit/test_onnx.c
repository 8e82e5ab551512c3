/* test_onnx.c - models by onnx and torch against what those say is in them, and by
 * hand what they do not write: other encodings, large files, broken reads, folders.
 * test_onnx_hostile.c has the malformed files, test_onnx_twin.c the codec. */
#include "onnx_util.h"

#include <sys/stat.h>

#include "base/mem.h"
#include "format/dequant.h"
#include "format/onnx.h"

static const char *fixtures = FIXTURES "/onnx";

/* ---- fixtures ------------------------------------------------------------- */

/* Reads [offset, offset + len) in steps and compares it with the same of raw. */
static void check_range(nq_tensors *ts, const nq_tensor_info *t, const uint8_t *raw,
                        uint64_t offset, uint64_t len, uint64_t step) {
    uint8_t *got = malloc((size_t)len + 1);
    novaq_error err;
    assert_non_null(got);
    got[len] = 0xA5;
    for (uint64_t at = 0; at < len; at += step) {
        uint64_t n = len - at < step ? len - at : step;
        assert_int_equal(nq_tensors_read(got + at, ts, t, offset + at, n, &err), NOVAQ_OK);
    }
    assert_memory_equal(got, raw + offset, (size_t)len);
    assert_int_equal(got[len], 0xA5);
    free(got);
}

static void check_values(nq_tensors *ts, const nq_tensor_info *t, const uint8_t *raw) {
    float *got = malloc((size_t)t->elements * sizeof *got + 1);
    float *want = malloc((size_t)t->elements * sizeof *want + 1);
    novaq_error err;
    nq_dequantize(want, t->dtype, raw, t->elements);
    assert_int_equal(nq_tensors_read_f32(got, ts, t, &err), NOVAQ_OK);
    assert_memory_equal(got, want, (size_t)t->elements * sizeof *got);
    free(got);
    free(want);
}

static void expect_tensor(nq_tensors *ts, char *line, const uint8_t *raw, size_t raw_len) {
    const char *name = strsep(&line, "\t");
    const nq_tensor_info *t = nq_tensors_find(ts, name);
    if (t == NULL) {
        fail_msg("no tensor \"%s\"", name);
        return;
    }
    assert_string_equal(nq_dtype_get(t->dtype)->name, strsep(&line, "\t"));
    char *shape = strsep(&line, "\t");
    uint32_t rank = 0;
    for (char *d = shape[0] == '\0' ? NULL : strsep(&shape, ","); d != NULL;
         d = strsep(&shape, ",")) {
        assert_true(rank < t->rank);
        if (t->shape[rank] != strtoull(d, NULL, 10)) {
            fail_msg("%s: dimension %u is %llu", name, rank, (unsigned long long)t->shape[rank]);
        }
        rank++;
    }
    assert_int_equal(t->rank, rank);
    size_t first = (size_t)strtoull(strsep(&line, "\t"), NULL, 10);
    uint64_t len = strtoull(strsep(&line, "\t"), NULL, 10);
    assert_int_equal(t->bytes, len);
    assert_true(first + len <= raw_len);
    raw += first;
    check_range(ts, t, raw, 0, len, len + 1);
    check_range(ts, t, raw, 0, len, 1);
    check_range(ts, t, raw, 0, len, 7);
    check_range(ts, t, raw, len / 3, len - len / 3, 13);
    if (t->rank == 2 && t->shape[0] > 1) { /* rows, as a model reads them */
        uint64_t row = len / t->shape[0];
        check_range(ts, t, raw, row, len - row, row == 0 ? 1 : row);
    }
    check_values(ts, t, raw);
}

static void check_fixture(const char *model, const char *stem) {
    char path[1024];
    (void)snprintf(path, sizeof path, "%s/%s", fixtures, model);
    nq_tensors *ts = NULL;
    novaq_error err = {.msg = ""};
    if (nq_tensors_open(&ts, path, &err) != NOVAQ_OK) {
        fail_msg("%s", err.msg);
    }
    assert_int_equal(nq_tensors_format(ts), NQ_FORMAT_ONNX);
    char *text = NULL;
    char *raw = NULL;
    size_t text_len = 0;
    size_t raw_len = 0;
    (void)snprintf(path, sizeof path, "%s/%s.expect.txt", fixtures, stem);
    assert_int_equal(nq_read_file(&text, &text_len, path, 1 << 20, &err), NOVAQ_OK);
    (void)snprintf(path, sizeof path, "%s/%s.expect.bin", fixtures, stem);
    assert_int_equal(nq_read_file(&raw, &raw_len, path, 1 << 20, &err), NOVAQ_OK);
    size_t tensors = 0;
    char *walk = text;
    for (char *line = strsep(&walk, "\n"); line != NULL; line = strsep(&walk, "\n")) {
        if (line[0] != '\0') {
            expect_tensor(ts, line, (const uint8_t *)raw, raw_len);
            tensors++;
        }
    }
    assert_true(tensors > 0);
    for (size_t i = 0; tensors != nq_tensors_count(ts) && i < nq_tensors_count(ts); i++) {
        print_message("has %s\n", nq_tensors_at(ts, i)->name);
    }
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

static void test_types(void **state) {
    (void)state;
    check_fixture("types.onnx", "types");
}

static void test_external(void **state) {
    (void)state;
    check_fixture("external/model.onnx", "external");
    check_fixture("external", "external"); /* the folder */
}

static void test_graph(void **state) {
    (void)state;
    check_fixture("graph.onnx", "graph");
}

static void test_torch(void **state) {
    (void)state;
    check_fixture("linear.onnx", "linear");
    check_fixture("dynamo.onnx", "dynamo");
}

static void test_merged(void **state) {
    (void)state;
    check_fixture("merged.onnx", "merged");
}

/* ---- encodings that Python does not write ----------------------------------- */

/* Opens a model with one tensor "w" and compares it. */
static void check_one(bytes *tensor, const void *want, size_t len) {
    char dir[512];
    char path[600];
    bytes b = {0};
    put_one(&b, tensor);
    temp_dir(dir, sizeof dir);
    (void)snprintf(path, sizeof path, "%s/m", dir); /* known by its content */
    write_plain(dir, "m", b.data, b.len);
    nq_tensors *ts = NULL;
    novaq_error err = {.msg = ""};
    if (nq_tensors_open(&ts, path, &err) != NOVAQ_OK) {
        fail_msg("%s", err.msg);
    }
    assert_int_equal(nq_tensors_count(ts), 1);
    const nq_tensor_info *t = nq_tensors_at(ts, 0);
    assert_string_equal(t->name, "w");
    assert_int_equal(t->bytes, len);
    check_range(ts, t, want, 0, len, len);
    check_range(ts, t, want, 0, len, 3);
    check_values(ts, t, want);
    nq_tensors_close(&ts);
    bytes_free(&b);
    remove_dir(dir);
}

/* Each element with a tag of its own, as proto2 wrote them, and runs of both
 * kinds in one tensor. */
static void test_unpacked(void **state) {
    (void)state;
    enum { N = 5000 };
    static float floats[N];
    static double doubles[N];
    static int32_t ints[N];
    bytes f = {0};
    bytes d = {0};
    bytes i = {0};
    put_head(&f, "w", 1, N / 50, 50);
    put_head(&d, "w", 11, N, -1);
    put_head(&i, "w", 6, N, -1);
    for (unsigned k = 0; k < N; k++) {
        floats[k] = (float)k * 0.25F - 7.0F;
        doubles[k] = (double)k * -0.125;
        ints[k] = (int32_t)(k * 2654435761U);
        bool packed = k / 100 % 3 == 1;
        uint64_t wide = (uint64_t)(int64_t)ints[k]; /* ten bytes when negative */
        if (packed) {
            bytes v = {0};
            put_varint(&v, wide);
            put_data(&f, 4, &floats[k], 4);
            put_data(&d, 10, &doubles[k], 8);
            put_message(&i, 5, &v);
        } else {
            put_tag(&f, 4, FIXED32);
            put(&f, &floats[k], 4);
            put_tag(&d, 10, FIXED64);
            put(&d, &doubles[k], 8);
            put_number(&i, 5, wide);
        }
    }
    check_one(&f, floats, sizeof floats);
    check_one(&d, doubles, sizeof doubles);
    check_one(&i, ints, sizeof ints);
}

/* ---- turning, at sizes where tiles and slices matter ------------------------ */

static void check_turned(uint64_t rows, uint64_t cols, unsigned type, unsigned width) {
    size_t n = (size_t)(rows * cols);
    uint8_t *stored = malloc(n * width);
    uint8_t *want = malloc(n * width);
    assert_non_null(stored);
    assert_non_null(want);
    for (size_t k = 0; k < n * width; k++) {
        stored[k] = (uint8_t)(k * 2654435761U >> 13 & 0x3F); /* no NaN */
    }
    for (size_t r = 0; r < rows; r++) {
        for (size_t c = 0; c < cols; c++) {
            memcpy(want + (c * rows + r) * width, stored + (r * cols + c) * width, width);
        }
    }
    bytes t = {0};
    bytes g = {0};
    bytes b = {0};
    put_head(&t, "w", type, (int64_t)rows, (int64_t)cols);
    put_data(&t, 9, stored, n * width);
    put_node(&g, "MatMul", "/w/MatMul", "x", "w");
    put_message(&g, 5, &t);
    put_model(&b, &g);
    char dir[512];
    char path[600];
    temp_dir(dir, sizeof dir);
    write_plain(dir, "m", b.data, b.len);
    (void)snprintf(path, sizeof path, "%s/m", dir);
    nq_tensors *ts = NULL;
    assert_int_equal(nq_tensors_open(&ts, path, NULL), NOVAQ_OK);
    const nq_tensor_info *w = nq_tensors_at(ts, 0);
    assert_int_equal(w->shape[0], cols);
    assert_int_equal(w->shape[1], rows);
    check_values(ts, w, want);
    check_range(ts, w, want, 0, w->bytes, w->bytes);
    check_range(ts, w, want, 0, w->bytes, w->bytes / 3 + 1);
    uint64_t row = rows * width;
    uint64_t some = w->bytes / 2 / row * row;
    uint64_t len = w->bytes - some < 20 * row ? w->bytes - some : 20 * row;
    check_range(ts, w, want, some, len, row);
    check_range(ts, w, want, some, len, 2 * row + 3);
    nq_tensors_close(&ts);
    remove_dir(dir);
    bytes_free(&b);
    free(stored);
    free(want);
}

static void test_turned(void **state) {
    (void)state;
    check_turned(700, 611, 1, 4);
    check_turned(2, 150000, 10, 2); /* a stored row is more than a tile */
    check_turned(150000, 2, 10, 2);
    check_turned(1, 1, 1, 4);
    check_turned(33, 5000, 11, 8);
    check_turned(300, 500, 3, 1);
}

/* nq_tensors_transpose() of what the reader turned or decodes itself. */
static void test_transpose(void **state) {
    (void)state;
    nq_tensors *ts = NULL;
    novaq_error err;
    assert_int_equal(nq_tensors_open(&ts, FIXTURES "/onnx/graph.onnx", &err), NOVAQ_OK);
    const nq_tensor_info *t = nq_tensors_find(ts, "a.kernel");
    float before[60];
    float after[60];
    assert_int_equal(t->shape[0], 10);
    assert_int_equal(nq_tensors_read_f32(before, ts, t, &err), NOVAQ_OK);
    size_t i = 0;
    while (nq_tensors_at(ts, i) != t) {
        i++;
    }
    assert_int_equal(nq_tensors_transpose(ts, i, &err), NOVAQ_OK);
    assert_int_equal(t->shape[0], 6);
    assert_int_equal(t->shape[1], 10);
    assert_int_equal(nq_tensors_read_f32(after, ts, t, &err), NOVAQ_OK);
    for (unsigned k = 0; k < 60; k++) {
        assert_memory_equal(&after[k], &before[k % 10 * 6 + k / 10], sizeof(float));
    }
    nq_tensors_close(&ts);
}

/* ---- what is read, and when ------------------------------------------------- */

typedef struct counting_source {
    nq_source base;
    nq_source *file;
    uint64_t bytes;
    uint64_t calls;
    uint64_t fail_at; /* which call fails; 0: none */
} counting_source;

static novaq_status counting_read(nq_source *s, uint64_t offset, void *dst, uint64_t len,
                                  novaq_error *err) {
    counting_source *c = (counting_source *)(void *)s;
    c->bytes += len;
    if (++c->calls == c->fail_at) {
        return nq_fail(err, NOVAQ_E_IO, "%s: offset %llu: broken", s->name,
                       (unsigned long long)offset);
    }
    return nq_source_read(c->file, offset, dst, len, err);
}

static const nq_source_vtable counting_vtable = {counting_read, mem_close, NULL};

static novaq_status open_nothing(void *ctx, nq_source **out, uint32_t *file, const char *location,
                                 novaq_error *err) {
    (void)ctx;
    (void)out;
    (void)file;
    return nq_fail(err, NOVAQ_E_IO, "%s: not here", location);
}

static counting_source counting_open(const char *path) {
    static char name[] = "counted";
    counting_source c = {.base = {.vt = &counting_vtable, .name = name}};
    novaq_error err;
    assert_int_equal(nq_source_open_file(&c.file, path, &err), NOVAQ_OK);
    c.base.size = c.file->size;
    return c;
}

/* Files beyond 2 and 4 GB, mostly holes: found, read at the right place, and
 * opened by reading some kilobytes. */
static void test_large(void **state) {
    (void)state;
    const uint64_t n = ((uint64_t)5 << 30) + 3;
    char dir[512];
    char path[600];
    bytes b = {0};
    bytes tail = {0};
    put_head(&b, "w", 2, (int64_t)n, -1);
    put_tag(&b, 9, BYTES);
    put_varint(&b, n);
    put_str(&tail, 12, "documented"); /* of the tensor, behind its data */
    bytes head = {0};
    put_tag(&head, 5, BYTES);
    put_varint(&head, b.len + n + tail.len);
    put(&head, b.data, b.len);
    bytes file = {0};
    put_number(&file, 1, 8);
    put_tag(&file, 7, BYTES);
    put_varint(&file, head.len + n + tail.len);
    put(&file, head.data, head.len);
    temp_dir(dir, sizeof dir);
    write_plain(dir, "m.onnx", file.data, file.len);
    (void)snprintf(path, sizeof path, "%s/m.onnx", dir);
    assert_int_equal(truncate(path, (off_t)(file.len + n)), 0);
    FILE *f = fopen(path, "r+b");
    assert_non_null(f);
    assert_int_equal(fseeko(f, (off_t)(file.len + n - 2), SEEK_SET), 0);
    assert_int_equal(fwrite("yz", 1, 2, f), 2);
    assert_int_equal(fwrite(tail.data, 1, tail.len, f), tail.len);
    assert_int_equal(fclose(f), 0);

    counting_source c = counting_open(path);
    nq_onnx o;
    novaq_error err = {.msg = ""};
    if (nq_onnx_parse(&o, &c.base, open_nothing, NULL, &err) != NOVAQ_OK) {
        fail_msg("%s", err.msg);
    }
    assert_true(c.bytes < 32768);
    nq_onnx_free(&o);
    nq_source_close(&c.file);

    nq_tensors *ts = NULL;
    uint8_t last[3];
    assert_int_equal(nq_tensors_open(&ts, path, &err), NOVAQ_OK);
    const nq_tensor_info *t = nq_tensors_at(ts, 0);
    assert_int_equal(t->elements, n);
    assert_int_equal(nq_tensors_read(last, ts, t, n - 3, 3, &err), NOVAQ_OK);
    assert_memory_equal(last, "\0yz", 3);
    assert_int_not_equal(nq_tensors_read(last, ts, t, n - 2, 3, &err), NOVAQ_OK);
    nq_tensors_close(&ts);
    remove_dir(dir);
    bytes_free(&b);
    bytes_free(&tail);
    bytes_free(&head);
    bytes_free(&file);
}

/* Every single read of a parse fails once: reported as such, nothing leaks. */
static void test_broken_reads(void **state) {
    (void)state;
    uint64_t calls = 1;
    for (uint64_t k = 0; k <= calls; k++) {
        counting_source c = counting_open(FIXTURES "/onnx/merged.onnx");
        c.fail_at = k;
        nq_onnx o;
        bool yes = false;
        novaq_error err = {.msg = ""};
        novaq_status st = nq_onnx_is_model(&yes, &c.base, &err);
        if (st == NOVAQ_OK) {
            assert_true(yes);
            st = nq_onnx_parse(&o, &c.base, open_nothing, NULL, &err);
        }
        assert_int_equal(st, k == 0 ? NOVAQ_OK : NOVAQ_E_IO);
        if (st == NOVAQ_OK) {
            calls = c.calls;
            nq_onnx_free(&o);
        }
        nq_source_close(&c.file);
    }
    assert_true(calls > 4);
}

/* ---- folders ---------------------------------------------------------------- */

static void copy_file(const char *from, const char *dir, const char *name) {
    char *text = NULL;
    size_t len = 0;
    assert_int_equal(nq_read_file(&text, &len, from, 1 << 20, NULL), NOVAQ_OK);
    write_plain(dir, name, text, len);
    nq_free(text);
}

static void open_expecting(const char *path, novaq_status want, const char *says) {
    nq_tensors *ts = NULL;
    novaq_error err = {.msg = ""};
    assert_int_equal(nq_tensors_open(&ts, path, &err), want);
    if (want == NOVAQ_OK) {
        read_everything(ts);
    } else {
        assert_non_null(strstr(err.msg, says));
    }
    nq_tensors_close(&ts);
}

/* A folder stands for its model; config.json lies beside onnx/. */
static void test_folders(void **state) {
    (void)state;
    nq_tensors *ts = NULL;
    novaq_error err;
    assert_int_equal(nq_tensors_open(&ts, FIXTURES "/onnx/llama", &err), NOVAQ_OK);
    assert_string_equal(nq_tensors_dir(ts), FIXTURES "/onnx/llama");
    nq_tensors_close(&ts);
    assert_int_equal(nq_tensors_open(&ts, FIXTURES "/onnx/llama/onnx/model.onnx", &err), NOVAQ_OK);
    assert_string_equal(nq_tensors_dir(ts), FIXTURES "/onnx/llama");
    nq_tensors_close(&ts);
    char dir[512];
    temp_dir(dir, sizeof dir);
    copy_file(FIXTURES "/onnx/merged.onnx", dir, "one.onnx");
    open_expecting(dir, NOVAQ_OK, NULL);
    copy_file(FIXTURES "/onnx/merged.onnx", dir, "two.onnx");
    open_expecting(dir, NOVAQ_E_ARG, "several models (one.onnx, two.onnx)");
    copy_file(FIXTURES "/onnx/merged.onnx", dir, "model.onnx");
    open_expecting(dir, NOVAQ_OK, NULL);
    remove_dir(dir);
}

/* The cache of Hugging Face: model and data are links into one folder. */
static void test_cache(void **state) {
    (void)state;
    char dir[512];
    char blobs[600];
    char snapshot[600];
    char link[700];
    temp_dir(dir, sizeof dir);
    (void)snprintf(blobs, sizeof blobs, "%s/blobs", dir);
    (void)snprintf(snapshot, sizeof snapshot, "%s/snapshot", dir);
    assert_int_equal(mkdir(blobs, 0777), 0);
    assert_int_equal(mkdir(snapshot, 0777), 0);
    bytes t = {0};
    bytes b = {0};
    put_head(&t, "w", 1, 2, -1);
    put_entry(&t, "location", "model.onnx_data");
    put_number(&t, 14, 1);
    put_one(&b, &t);
    write_plain(blobs, "0123", b.data, b.len);
    write_plain(blobs, "4567", "\0\0\200\77\0\0\0\100", 8);
    (void)snprintf(link, sizeof link, "%s/model.onnx", snapshot);
    assert_int_equal(symlink("../blobs/0123", link), 0);
    open_expecting(snapshot, NOVAQ_E_IO, "model.onnx_data: cannot open");
    (void)snprintf(link, sizeof link, "%s/model.onnx_data", snapshot);
    assert_int_equal(symlink("../blobs/4567", link), 0);
    open_expecting(snapshot, NOVAQ_OK, NULL);
    remove_dir(blobs);
    remove_dir(snapshot);
    remove_dir(dir);
    bytes_free(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_types),   cmocka_unit_test(test_external),
        cmocka_unit_test(test_graph),   cmocka_unit_test(test_torch),
        cmocka_unit_test(test_merged),  cmocka_unit_test(test_unpacked),
        cmocka_unit_test(test_turned),  cmocka_unit_test(test_transpose),
        cmocka_unit_test(test_large),   cmocka_unit_test(test_broken_reads),
        cmocka_unit_test(test_folders), cmocka_unit_test(test_cache),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
