/* test_dequant.c - the dtype table and every dequantizer against values that
 * the Python package `gguf` and numpy computed (fixtures/dequant/). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/cursor.h"
#include "base/dtype.h"
#include "base/half.h"
#include "format/dequant.h"

#define GUARD      8           /* floats behind the output that must stay as they are */
#define GUARD_BITS 0xA5A5A5A5U /* no type yields this */
#define NAN_BITS   0x7FC00000U

typedef struct entry {
    char name[17];
    int32_t ggml;
    uint32_t block;
    uint32_t bytes;
    uint32_t elements;
    uint32_t stored;
    uint64_t hash;
    const uint8_t *source;   /* elements / block * bytes */
    const uint8_t *expected; /* stored x u32, little-endian */
} entry;

static uint8_t *file_data;
static uint64_t file_size;

static int load_fixture(void **state) {
    (void)state;
    FILE *f = fopen(FIXTURES "/dequant/dequant.bin", "rb");
    if (f == NULL || fseek(f, 0, SEEK_END) != 0) {
        return -1;
    }
    long size = ftell(f);
    rewind(f);
    file_data = malloc((size_t)size);
    file_size = (uint64_t)size;
    size_t got = fread(file_data, 1, (size_t)size, f);
    (void)fclose(f);
    return got == (size_t)size ? 0 : -1;
}

static int drop_fixture(void **state) {
    (void)state;
    free(file_data);
    return 0;
}

static entry next_entry(nq_cursor *c) {
    entry e = {.name = ""};
    const uint8_t *name = nq_cursor_bytes(c, 16);
    assert_non_null(name);
    memcpy(e.name, name, 16);
    e.ggml = (int32_t)nq_cursor_u32(c);
    e.block = nq_cursor_u32(c);
    e.bytes = nq_cursor_u32(c);
    e.elements = nq_cursor_u32(c);
    e.stored = nq_cursor_u32(c);
    e.hash = nq_cursor_u64(c);
    e.source = nq_cursor_bytes(c, (uint64_t)e.elements / e.block * e.bytes);
    e.expected = nq_cursor_bytes(c, (uint64_t)e.stored * 4);
    assert_false(c->failed);
    return e;
}

/* Calls fn for every type in the fixture; returns how many there are. */
static unsigned for_each_entry(void (*fn)(const entry *e, nq_dtype t)) {
    nq_cursor c = nq_cursor_init("dequant.bin", file_data, file_size, 0);
    assert_memory_equal(nq_cursor_bytes(&c, 8), "NQDEQ1\0", 8);
    uint32_t count = nq_cursor_u32(&c);
    for (uint32_t i = 0; i < count; i++) {
        entry e = next_entry(&c);
        nq_dtype t = NQ_DTYPE_COUNT;
        if (!nq_dtype_from_name(&t, e.name)) {
            fail_msg("unknown type %s", e.name);
        }
        fn(&e, t);
    }
    assert_int_equal(nq_cursor_left(&c), 0);
    return count;
}

/* Bits of a float; every NaN alike, since only its being one is promised. */
static uint32_t bits_of(float f) {
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return (u & 0x7FFFFFFFU) > 0x7F800000U ? NAN_BITS : u;
}

static uint32_t expected_at(const entry *e, uint32_t i) {
    nq_cursor c = nq_cursor_init("expected", e->expected + 4 * (size_t)i, 4, 0);
    return nq_cursor_u32(&c);
}

static uint64_t hash_of(const float *y, uint64_t n) {
    uint64_t h = 0xCBF29CE484222325U;
    for (uint64_t i = 0; i < n; i++) {
        uint32_t u = bits_of(y[i]);
        for (unsigned shift = 0; shift < 32; shift += 8) {
            h = (h ^ (u >> shift & 0xFFU)) * 0x100000001B3U;
        }
    }
    return h;
}

/* The elements of e followed by GUARD floats of GUARD_BITS; free() it. */
static float *new_output(const entry *e) {
    float *y = malloc(((size_t)e->elements + GUARD) * sizeof *y);
    assert_non_null(y);
    uint32_t guard = GUARD_BITS;
    for (size_t i = 0; i < (size_t)e->elements + GUARD; i++) {
        memcpy(&y[i], &guard, sizeof guard);
    }
    return y;
}

/* The source bytes in a block of exactly their size, starting at an odd
 * address: sanitizers then catch overruns and misaligned loads. */
static uint8_t *odd_copy(const entry *e) {
    size_t size = (size_t)(e->elements / e->block) * e->bytes;
    uint8_t *p = malloc(size + 1);
    assert_non_null(p);
    memcpy(p + 1, e->source, size);
    return p;
}

static void check_values(const entry *e, nq_dtype t) {
    float *y = new_output(e);
    uint8_t *source = odd_copy(e);
    nq_dequantize(y, t, source + 1, e->elements);
    for (uint32_t i = 0; i < e->stored; i++) {
        if (bits_of(y[i]) != expected_at(e, i)) {
            fail_msg("%s: element %u is %08x, expected %08x", e->name, i, bits_of(y[i]),
                     expected_at(e, i));
        }
    }
    if (hash_of(y, e->elements) != e->hash) {
        fail_msg("%s: an element behind the first %u is wrong", e->name, e->stored);
    }
    for (size_t i = e->elements; i < (size_t)e->elements + GUARD; i++) {
        assert_int_equal(bits_of(y[i]), GUARD_BITS);
    }
    free(source);
    free(y);
}

static void values_match_bit_for_bit(void **state) {
    (void)state;
    assert_int_equal(for_each_entry(check_values), NQ_DTYPE_COUNT);
}

static void check_pieces(const entry *e, nq_dtype t) {
    float *y = new_output(e);
    uint64_t blocks = e->elements / e->block;
    uint64_t first = blocks / 3;
    nq_dequantize(y, t, e->source, first * e->block);
    assert_int_equal(bits_of(y[first * e->block]), GUARD_BITS);
    nq_dequantize(y + first * e->block, t, e->source + first * e->bytes,
                  (blocks - first) * e->block);
    assert_int_equal(hash_of(y, e->elements), e->hash);
    free(y);
}

static void pieces_equal_the_whole(void **state) {
    (void)state;
    (void)for_each_entry(check_pieces);
}

/* The 16-bit loops have their own arithmetic: all patterns against base/half. */
static void halves_equal_the_base_layer(void **state) {
    (void)state;
    for (uint32_t h = 0; h <= 0xFFFF; h++) {
        uint8_t source[2] = {(uint8_t)h, (uint8_t)(h >> 8)};
        float y = 0;
        nq_dequantize(&y, NQ_F16, source, 1);
        float f16 = nq_f16_to_f32((uint16_t)h);
        assert_memory_equal(&y, &f16, sizeof y);
        nq_dequantize(&y, NQ_BF16, source, 1);
        float bf16 = nq_bf16_to_f32((uint16_t)h);
        assert_memory_equal(&y, &bf16, sizeof y);
    }
}

static void nothing_is_written_for_no_elements(void **state) {
    (void)state;
    for (unsigned t = 0; t < NQ_DTYPE_COUNT; t++) {
        float y = 42.0F;
        uint8_t source = 0;
        nq_dequantize(&y, (nq_dtype)t, &source, 0);
        assert_true(y == 42.0F);
    }
}

/* ---- the table --------------------------------------------------------- */

static unsigned seen[NQ_DTYPE_COUNT];

static void check_sizes(const entry *e, nq_dtype t) {
    const nq_dtype_info *info = nq_dtype_get(t);
    seen[t]++;
    if (info->ggml != e->ggml || info->block != e->block || info->bytes != e->bytes) {
        fail_msg("%s: ggml %d, %u elements in %u bytes; expected %d, %u, %u", e->name, info->ggml,
                 info->block, info->bytes, e->ggml, e->block, e->bytes);
    }
    uint64_t bytes = 0;
    assert_true(nq_dtype_bytes(t, e->elements, e->elements, &bytes));
    assert_int_equal(bytes, (uint64_t)(e->elements / e->block) * e->bytes);
}

static void sizes_are_those_of_ggml(void **state) {
    (void)state;
    (void)for_each_entry(check_sizes);
    for (unsigned t = 0; t < NQ_DTYPE_COUNT; t++) {
        assert_int_equal(seen[t], 1);
    }
}

static void every_name_leads_back(void **state) {
    (void)state;
    for (unsigned i = 0; i < NQ_DTYPE_COUNT; i++) {
        const nq_dtype_info *info = nq_dtype_get((nq_dtype)i);
        assert_non_null(info);
        nq_dtype t = NQ_DTYPE_COUNT;
        assert_true(nq_dtype_from_name(&t, info->name));
        assert_int_equal(t, i);
        if (info->safetensors != NULL) {
            assert_true(nq_dtype_from_safetensors(&t, info->safetensors));
            assert_int_equal(t, i);
            assert_int_equal(info->block, 1);
        }
        if (info->ggml >= 0) {
            assert_true(nq_dtype_from_ggml(&t, (uint32_t)info->ggml));
            assert_int_equal(t, i);
        }
        assert_true(info->safetensors != NULL || info->ggml >= 0);
    }
    assert_null(nq_dtype_get(NQ_DTYPE_COUNT));
}

static void safetensors_names(void **state) {
    (void)state;
    static const struct {
        const char *name;
        nq_dtype type;
        bool is_float;
    } known[] = {
        {"F64", NQ_F64, true},   {"F32", NQ_F32, true},         {"F16", NQ_F16, true},
        {"BF16", NQ_BF16, true}, {"F8_E4M3", NQ_F8_E4M3, true}, {"F8_E5M2", NQ_F8_E5M2, true},
        {"I64", NQ_I64, false},  {"I32", NQ_I32, false},        {"I16", NQ_I16, false},
        {"I8", NQ_I8, false},    {"U64", NQ_U64, false},        {"U32", NQ_U32, false},
        {"U16", NQ_U16, false},  {"U8", NQ_U8, false},          {"BOOL", NQ_BOOL, false},
    };
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        nq_dtype t = NQ_DTYPE_COUNT;
        assert_true(nq_dtype_from_safetensors(&t, known[i].name));
        assert_int_equal(t, known[i].type);
        assert_int_equal(nq_dtype_get(t)->is_float, known[i].is_float);
    }
}

static void unknown_names_are_refused(void **state) {
    (void)state;
    static const char *const names[] = {"", "f31", "F32", "q4_0 ", "q4", "Q4_0", "complex64"};
    static const char *const dtypes[] = {"", "f32", "F3", "F320", "F8", "Q4_0", "C64"};
    static const uint32_t numbers[] = {4,  5,  31, 32,  33,         36,
                                       37, 38, 43, 255, 0x7FFFFFFF, 0xFFFFFFFF};
    nq_dtype t = NQ_DTYPE_COUNT;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        assert_false(nq_dtype_from_name(&t, names[i]));
    }
    for (size_t i = 0; i < sizeof dtypes / sizeof dtypes[0]; i++) {
        assert_false(nq_dtype_from_safetensors(&t, dtypes[i]));
    }
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        assert_false(nq_dtype_from_ggml(&t, numbers[i]));
    }
    assert_int_equal(t, NQ_DTYPE_COUNT);
}

/* ---- nq_dtype_bytes ---------------------------------------------------- */

static void byte_counts(void **state) {
    (void)state;
    static const struct {
        nq_dtype type;
        uint64_t elements, row;
        bool ok;
        uint64_t bytes;
    } cases[] = {
        {NQ_F32, 6, 3, true, 24},
        {NQ_F32, 1, 1, true, 4},
        {NQ_F32, 0, 0, true, 0},
        {NQ_F32, 0, 7, true, 0},
        {NQ_F32, 1, 0, false, 0},
        {NQ_F32, 7, 3, false, 0},
        {NQ_Q4_0, 64, 32, true, 36},
        {NQ_Q4_0, 64, 64, true, 36},
        {NQ_Q4_0, 64, 16, false, 0}, /* whole blocks in all, but not per row */
        {NQ_Q4_0, 48, 48, false, 0},
        {NQ_Q6_K, 512, 256, true, 420},
        {NQ_Q6_K, 512, 128, false, 0},
        /* The largest counts that fit, and the next ones. */
        {NQ_U8, UINT64_MAX, UINT64_MAX, true, UINT64_MAX},
        {NQ_F16, UINT64_MAX / 2, 1, true, UINT64_MAX - 1},
        {NQ_F16, UINT64_MAX / 2 + 1, 1, false, 0},
        {NQ_F32, UINT64_MAX, 1, false, 0},
        {NQ_F32, (uint64_t)1 << 62, 1, false, 0},
        {NQ_F64, ((uint64_t)1 << 61) - 1, 1, true, UINT64_MAX - 7},
        {NQ_F64, (uint64_t)1 << 61, 1, false, 0},
        {NQ_Q8_K, UINT64_MAX / 292 * 256, 256, true, UINT64_MAX / 292 * 292},
        {NQ_Q8_K, (UINT64_MAX / 292 + 1) * 256, 256, false, 0},
        {NQ_DTYPE_COUNT, 1, 1, false, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint64_t bytes = 12345;
        bool ok = nq_dtype_bytes(cases[i].type, cases[i].elements, cases[i].row, &bytes);
        if (ok != cases[i].ok || bytes != cases[i].bytes) {
            fail_msg("case %zu: %d, %llu bytes", i, ok, (unsigned long long)bytes);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_match_bit_for_bit),
        cmocka_unit_test(pieces_equal_the_whole),
        cmocka_unit_test(halves_equal_the_base_layer),
        cmocka_unit_test(nothing_is_written_for_no_elements),
        cmocka_unit_test(sizes_are_those_of_ggml),
        cmocka_unit_test(every_name_leads_back),
        cmocka_unit_test(safetensors_names),
        cmocka_unit_test(unknown_names_are_refused),
        cmocka_unit_test(byte_counts),
    };
    return cmocka_run_group_tests(tests, load_fixture, drop_fixture);
}
