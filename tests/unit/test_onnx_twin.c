/* test_onnx_twin.c - a llama as ONNX and as SafeTensors: the same weights under the
 * same names make the same pieces of an artifact, byte for byte. */
#include "model_util.h"

#include "format/safetensors.h"

static char *dir;

/* One file, which is a SafeTensors file of all pieces. */
static char *compress(const char *model, const char *scheme, const char *name) {
    char *path = NULL;
    novaq_error err = {0};
    novaq_compress_options o = NOVAQ_COMPRESS_OPTIONS_INIT;
    assert_int_equal(nq_path_join(&path, dir, name, NULL), NOVAQ_OK);
    o.input = model;
    o.output = path;
    o.single_file = 1;
    o.target_bits = 2.5;
    o.scheme = scheme;
    o.calibration = "none";
    o.threads = 2;
    if (novaq_compress(NULL, &o, &err) != NOVAQ_OK) {
        fail_msg("%s", err.msg);
    }
    return path;
}

static const nq_tensor_info *find(const nq_safetensors *st, const char *name) {
    for (size_t i = 0; i < st->count; i++) {
        if (strcmp(st->tensors[i].name, name) == 0) {
            return &st->tensors[i];
        }
    }
    fail_msg("no piece \"%s\"", name);
    return NULL;
}

static void compare(const char *onnx, const char *twin) {
    const char *paths[2] = {onnx, twin};
    nq_source *src[2];
    nq_safetensors st[2];
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(nq_source_open_file(&src[i], paths[i], NULL), NOVAQ_OK);
        assert_int_equal(nq_safetensors_parse(&st[i], src[i], NULL), NOVAQ_OK);
    }
    assert_int_equal(st[0].count, st[1].count);
    size_t pieces = 0;
    for (size_t i = 0; i < st[1].count; i++) {
        const nq_tensor_info *t = &st[1].tensors[i];
        if (strncmp(t->name, "pad/", 4) == 0) {
            continue; /* follows from the order, which is each file's own */
        }
        pieces++;
        const nq_tensor_info *u = find(&st[0], t->name);
        assert_int_equal(u->bytes, t->bytes);
        assert_int_equal(u->dtype, t->dtype);
        uint8_t *a = malloc((size_t)t->bytes + 1);
        uint8_t *b = malloc((size_t)t->bytes + 1);
        assert_int_equal(nq_source_read(src[0], u->offset, a, u->bytes, NULL), NOVAQ_OK);
        assert_int_equal(nq_source_read(src[1], t->offset, b, t->bytes, NULL), NOVAQ_OK);
        assert_memory_equal(a, b, (size_t)t->bytes);
        free(a);
        free(b);
    }
    assert_true(pieces >= 21); /* the tensors of the model */
    for (unsigned i = 0; i < 2; i++) {
        nq_safetensors_free(&st[i]);
        nq_source_close(&src[i]);
    }
}

static void check(const char *scheme) {
    char *a = compress(FIXTURES "/onnx/llama", scheme, "onnx.bin");
    char *b = compress(FIXTURES "/onnx/llama-hf", scheme, "hf.bin");
    compare(a, b);
    nq_free(a);
    nq_free(b);
}

static void test_planned(void **state) {
    (void)state;
    check(NULL);
}

static void test_schemes(void **state) {
    (void)state;
    check("k16d2l3");
    check("q8");
    check("f16");
}

static int begin(void **state) {
    (void)state;
    dir = scratch_dir();
    return 0;
}

static int end(void **state) {
    (void)state;
    remove_dir(dir);
    nq_free(dir);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_planned, begin, end),
        cmocka_unit_test_setup_teardown(test_schemes, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
