/* test_torch.c - PyTorch files: what torch.save() wrote against SafeTensors of the
 * same values. test_torch_hostile.c has the malformed ones.
 */
#include "reader_util.h"

#include "base/mem.h"
#include "base/rng.h"

#define TORCH(name) FIXTURES "/torch/" name

/* ---- files by torch --------------------------------------------------------------- */

static nq_tensors *open_ok(const char *path) {
    nq_tensors *ts = NULL;
    novaq_error err = {.msg = ""};
    if (nq_tensors_open(&ts, path, &err) != NOVAQ_OK) {
        fail_msg("%s", err.msg);
    }
    return ts;
}

/* Any part of a tensor, by bytes. */
static void check_parts(nq_tensors *ts, const nq_tensor_info *t, const uint8_t *whole) {
    uint8_t *part = malloc((size_t)t->bytes + 1);
    for (uint64_t i = 0; i < 40 && t->bytes > 0; i++) {
        uint64_t at = nq_hash3(1, i, 0) % t->bytes;
        uint64_t len = nq_hash3(1, i, 1) % (t->bytes - at + 1);
        assert_int_equal(nq_tensors_read(part, ts, t, at, len, NULL), NOVAQ_OK);
        assert_memory_equal(part, whole + at, len);
    }
    assert_int_equal(nq_tensors_read(part, ts, t, t->bytes, 0, NULL), NOVAQ_OK);
    assert_int_equal(nq_tensors_read(part, ts, t, t->bytes, 1, NULL), NOVAQ_E_ARG);
    free(part);
}

static void check_same(nq_tensors *ts, const nq_tensor_info *t, nq_tensors *twin,
                       const nq_tensor_info *u) {
    assert_string_equal(t->name, u->name);
    assert_string_equal(nq_dtype_get(t->dtype)->name, nq_dtype_get(u->dtype)->name);
    assert_int_equal(t->rank, u->rank);
    assert_memory_equal(t->shape, u->shape, t->rank * sizeof t->shape[0]);
    assert_int_equal(t->elements, u->elements);
    assert_int_equal(t->bytes, u->bytes);
    uint8_t *a = malloc((size_t)t->bytes + 1);
    uint8_t *b = malloc((size_t)t->bytes + 1);
    float *x = malloc((size_t)t->elements * sizeof *x + 1);
    float *y = malloc((size_t)t->elements * sizeof *y + 1);
    assert_int_equal(nq_tensors_read(a, ts, t, 0, t->bytes, NULL), NOVAQ_OK);
    assert_int_equal(nq_tensors_read(b, twin, u, 0, u->bytes, NULL), NOVAQ_OK);
    assert_memory_equal(a, b, t->bytes);
    check_parts(ts, t, b);
    assert_int_equal(nq_tensors_read_f32(x, ts, t, NULL), NOVAQ_OK);
    assert_int_equal(nq_tensors_read_f32(y, twin, u, NULL), NOVAQ_OK);
    assert_memory_equal(x, y, t->elements * sizeof *x);
    free(a);
    free(b);
    free(x);
    free(y);
}

/* Returns how many of the tensors have strides. */
static size_t check_twin(const char *path, const char *twin_path) {
    nq_tensors *ts = open_ok(path);
    nq_tensors *twin = open_ok(twin_path);
    size_t strided = 0;
    assert_int_equal(nq_tensors_format(ts), NQ_FORMAT_PYTORCH);
    if (nq_tensors_count(ts) != nq_tensors_count(twin)) {
        for (size_t i = 0; i < nq_tensors_count(ts); i++) {
            print_message("%s\n", nq_tensors_at(ts, i)->name);
        }
    }
    assert_int_equal(nq_tensors_count(ts), nq_tensors_count(twin));
    for (size_t i = 0; i < nq_tensors_count(twin); i++) {
        const nq_tensor_info *u = nq_tensors_at(twin, i);
        const nq_tensor_info *t = nq_tensors_find(ts, u->name);
        if (t == NULL) {
            fail_msg("%s: no tensor %s", path, u->name);
        }
        check_same(ts, t, twin, u);
        strided += t->strides != NULL ? 1 : 0;
    }
    nq_tensors_close(&twin);
    nq_tensors_close(&ts);
    return strided;
}

static void test_types(void **state) {
    (void)state;
    assert_int_equal(check_twin(TORCH("types.pt"), TORCH("types.safetensors")), 0);
    assert_int_equal(check_twin(TORCH("types-legacy.pt"), TORCH("types.safetensors")), 0);
    assert_int_equal(check_twin(TORCH("new.pt"), TORCH("new.safetensors")), 0);
    assert_int_equal(check_twin(TORCH("no-crc.pt"), TORCH("new.safetensors")), 0);
}

static void test_views(void **state) {
    (void)state;
    /* All but whole, tied, rows, corner, row, last and odd_strides. */
    assert_int_equal(check_twin(TORCH("views.pt"), TORCH("views.safetensors")), 11);
    assert_int_equal(check_twin(TORCH("views-legacy.pt"), TORCH("views.safetensors")), 11);
    nq_tensors *ts = open_ok(TORCH("views.pt"));
    const nq_tensor_info *whole = nq_tensors_find(ts, "whole");
    assert_int_equal(whole->offset, nq_tensors_find(ts, "tied")->offset);
    assert_int_equal(whole->offset + 120, nq_tensors_find(ts, "rows")->offset);
    nq_tensors_close(&ts);
}

static void test_nesting(void **state) {
    (void)state;
    (void)check_twin(TORCH("wrapped.pt"), TORCH("wrapped.safetensors"));
    (void)check_twin(TORCH("wrapped-legacy.pt"), TORCH("wrapped.safetensors"));
    (void)check_twin(TORCH("protocol4.pt"), TORCH("wrapped.safetensors"));
    (void)check_twin(TORCH("protocol5.pt"), TORCH("wrapped.safetensors"));
    (void)check_twin(TORCH("nested.pt"), TORCH("nested.safetensors"));
    nq_tensors *ts = open_ok(TORCH("bare.pt"));
    assert_int_equal(nq_tensors_count(ts), 1);
    assert_string_equal(nq_tensors_at(ts, 0)->name, "tensor");
    nq_tensors_close(&ts);
}

static void test_directories(void **state) {
    (void)state;
    (void)check_twin(TORCH("sharded/pytorch_model.bin.index.json"), TORCH("sharded.safetensors"));
    (void)check_twin(TORCH("sharded"), TORCH("sharded.safetensors"));
    assert_int_equal(check_twin(TORCH("llama"), TORCH("llama-twin")), 1);
    nq_tensors *ts = open_ok(TORCH("sharded"));
    assert_null(nq_tensors_find(ts, "remnant")); /* stored, not in the index */
    assert_int_equal(nq_tensors_find(ts, "norm.weight")->file, 1);
    nq_tensors_close(&ts);
}

static void refuses(const char *path, novaq_status want, const char *says) {
    nq_tensors *ts = NULL;
    novaq_error err = {.msg = ""};
    novaq_status got = nq_tensors_open(&ts, path, &err);
    assert_null(ts);
    if (got != want || strstr(err.msg, says) == NULL || strstr(err.msg, path) == NULL) {
        fail_msg("%s: %s: %s", path, novaq_status_name(got), err.msg);
    }
}

static void test_refused_by_torch(void **state) {
    (void)state;
    refuses(TORCH("odd-complex.pt"), NOVAQ_E_UNSUPPORTED, "torch.ComplexFloatStorage");
    refuses(TORCH("odd-sparse.pt"), NOVAQ_E_UNSUPPORTED, "_rebuild_sparse_tensor");
    refuses(TORCH("odd-negated.pt"), NOVAQ_E_UNSUPPORTED, "negated");
    refuses(TORCH("odd-unfolded.pt"), NOVAQ_E_UNSUPPORTED, "overlap");
    refuses(TORCH("odd-expanded.pt"), NOVAQ_E_UNSUPPORTED, "repeat");
    refuses(TORCH("odd-module.pt"), NOVAQ_E_UNSUPPORTED, "torch.nn.modules.linear.Linear");
    refuses(TORCH("odd-no-tensors.pt"), NOVAQ_E_FORMAT, "no tensors");
    refuses(TORCH("odd-rank.pt"), NOVAQ_E_UNSUPPORTED, "9 dimensions");
    refuses(TORCH("odd-script.pt"), NOVAQ_E_UNSUPPORTED, "TorchScript");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_types),
        cmocka_unit_test(test_views),
        cmocka_unit_test(test_nesting),
        cmocka_unit_test(test_directories),
        cmocka_unit_test(test_refused_by_torch),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
