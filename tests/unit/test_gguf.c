/* test_gguf.c - the GGUF reader on well-formed, malformed, truncated and
 * mutated files. */
#include "reader_util.h"

#include "format/gguf_parse.h"

/* ---- builders ------------------------------------------------------------- */

static void header(bytes *b, uint32_t version, uint64_t tensors, uint64_t keys) {
    unsigned w = version == 1 ? 4 : 8;
    put(b, "GGUF", 4);
    put_int(b, version, 4);
    put_int(b, tensors, w);
    put_int(b, keys, w);
}

static void text(bytes *b, const char *s) {
    put_int(b, strlen(s), 8);
    put(b, s, strlen(s));
}

static void key(bytes *b, const char *name, uint32_t type) {
    text(b, name);
    put_int(b, type, 4);
}

static void key_u32(bytes *b, const char *name, uint32_t v) {
    key(b, name, NQ_GGUF_U32);
    put_int(b, v, 4);
}

static void array(bytes *b, const char *name, uint32_t elem, uint64_t count) {
    key(b, name, NQ_GGUF_ARRAY);
    put_int(b, elem, 4);
    put_int(b, count, 8);
}

/* dims: fastest first, as stored. */
static void tensor(bytes *b, const char *name, uint32_t rank, const uint64_t *dims, uint32_t type,
                   uint64_t offset) {
    text(b, name);
    put_int(b, rank, 4);
    for (uint32_t i = 0; i < rank; i++) {
        put_int(b, dims[i], 8);
    }
    put_int(b, type, 4);
    put_int(b, offset, 8);
}

#define DIMS(...)                                                                                  \
    (const uint64_t[]) { __VA_ARGS__ }
enum { F32 = 0, F16 = 1, Q4_0 = 2, Q8_0 = 8, I8 = 24 };

/* A file with one tensor "t" and its data. */
static void one_tensor(bytes *b, uint32_t rank, const uint64_t *dims, uint32_t type,
                       uint64_t offset, size_t data) {
    header(b, 3, 1, 0);
    tensor(b, "t", rank, dims, type, offset);
    put_pad(b, 32);
    put_fill(b, 1, data);
}

/* Two tensors of 8 F32 each, with the given alignment key (0: none) while the
 * offsets follow `used`. */
static void two_tensors(bytes *b, uint32_t align, uint32_t used, size_t cut) {
    header(b, 3, 2, align == 0 ? 0 : 1);
    if (align != 0) {
        key_u32(b, "general.alignment", align);
    }
    tensor(b, "a", 1, DIMS(6), F32, 0);
    tensor(b, "b", 1, DIMS(8), F32, (24 + used - 1) / used * used);
    put_pad(b, used);
    put_fill(b, 1, 24);
    put_pad(b, used);
    put_fill(b, 2, 32);
    b->len -= cut;
}

/* ---- cases: header -------------------------------------------------------- */

static void c_empty_file(bytes *b) { put(b, "", 0); }
static void c_three_bytes(bytes *b) { put(b, "GGU", 3); }
static void c_bad_magic(bytes *b) {
    header(b, 3, 0, 0);
    b->data[0] = 'g';
}
static void c_version0(bytes *b) { header(b, 0, 0, 0); }
static void c_version4(bytes *b) { header(b, 4, 0, 0); }
static void c_swapped(bytes *b) { header(b, 0x03000000, 0, 0); }
static void c_version_max(bytes *b) { header(b, 0xFFFFFFFF, 0, 0); }
static void c_tensors_minus1(bytes *b) { header(b, 3, UINT64_MAX, 0); }
static void c_keys_minus1(bytes *b) { header(b, 3, 0, UINT64_MAX); }
static void c_tensors_billion(bytes *b) {
    header(b, 3, 1000000000, 0);
    put_fill(b, 0, 100);
}
static void c_keys_billion(bytes *b) {
    header(b, 3, 0, 1000000000);
    put_fill(b, 0, 100);
}
static void c_v1_counts(bytes *b) {
    header(b, 1, 0xFFFFFFFF, 0);
    put_fill(b, 0, 64);
}
static void c_header_cut(bytes *b) {
    header(b, 3, 0, 0);
    b->len -= 1;
}
static void c_empty_v1(bytes *b) { header(b, 1, 0, 0); }
static void c_empty_v2(bytes *b) { header(b, 2, 0, 0); }
static void c_empty_v3(bytes *b) { header(b, 3, 0, 0); }
static void c_garbage_behind(bytes *b) {
    header(b, 3, 0, 0);
    put_fill(b, 0xEE, 100);
}

/* ---- cases: keys ---------------------------------------------------------- */

static void c_key_len_minus1(bytes *b) {
    header(b, 3, 0, 1);
    put_int(b, UINT64_MAX, 8);
    put_fill(b, 'x', 64);
}
static void c_key_past_end(bytes *b) {
    header(b, 3, 0, 1);
    put_int(b, 1000, 8);
    put_fill(b, 'x', 64);
}
static void c_empty_key(bytes *b) {
    header(b, 3, 0, 1);
    key_u32(b, "", 1);
}
static void c_nul_key(bytes *b) {
    header(b, 3, 0, 1);
    key_u32(b, "abc", 1);
    b->data[24 + 8 + 1] = 0;
}
static void c_bad_value_type(bytes *b) {
    header(b, 3, 0, 1);
    key(b, "k", 13);
    put_fill(b, 0, 64);
}
static void c_value_type_max(bytes *b) {
    header(b, 3, 0, 1);
    key(b, "k", 0xFFFFFFFF);
    put_fill(b, 0, 64);
}
static void c_duplicate_key(bytes *b) {
    header(b, 3, 0, 3);
    key_u32(b, "same", 1);
    key_u32(b, "other", 1);
    key_u32(b, "same", 1);
}
static void c_value_cut(bytes *b) {
    header(b, 3, 0, 1);
    key_u32(b, "k", 1);
    b->len -= 1;
}
static void c_string_minus1(bytes *b) {
    header(b, 3, 0, 1);
    key(b, "k", NQ_GGUF_STRING);
    put_int(b, UINT64_MAX, 8);
    put_fill(b, 'x', 16);
}
static void c_string_past_end(bytes *b) {
    header(b, 3, 0, 1);
    key(b, "k", NQ_GGUF_STRING);
    put_int(b, 17, 8);
    put_fill(b, 'x', 16);
}
static void c_nested_array(bytes *b) {
    header(b, 3, 0, 1);
    array(b, "k", NQ_GGUF_ARRAY, 1);
    put_int(b, NQ_GGUF_U8, 4);
    put_int(b, 1, 8);
    put_fill(b, 0, 16);
}
static void c_bad_array_type(bytes *b) {
    header(b, 3, 0, 1);
    array(b, "k", 99, 1);
    put_fill(b, 0, 16);
}
static void c_array_billion(bytes *b) {
    header(b, 3, 0, 1);
    array(b, "k", NQ_GGUF_U8, 1000000000);
    put_fill(b, 0, 3);
}
static void c_array_wraps(bytes *b) {
    header(b, 3, 0, 1);
    array(b, "k", NQ_GGUF_U64, (uint64_t)1 << 61); /* 8 * 2^61 = 0 mod 2^64 */
    put_fill(b, 0, 64);
}
static void c_string_array_billion(bytes *b) {
    header(b, 3, 0, 1);
    array(b, "k", NQ_GGUF_STRING, 1000000000);
    put_fill(b, 0, 64);
}
static void c_string_array_cut(bytes *b) {
    header(b, 3, 0, 1);
    array(b, "k", NQ_GGUF_STRING, 2);
    text(b, "first");
    put_int(b, 100, 8);
}
static void c_align13(bytes *b) { two_tensors(b, 13, 32, 0); }
static void c_align0(bytes *b) {
    header(b, 3, 0, 1);
    key_u32(b, "general.alignment", 0);
}
static void c_align_i32(bytes *b) {
    header(b, 3, 0, 1);
    key(b, "general.alignment", NQ_GGUF_I32);
    put_int(b, 32, 4);
}
static void c_align_u64(bytes *b) {
    header(b, 3, 0, 1);
    key(b, "general.alignment", NQ_GGUF_U64);
    put_int(b, 32, 8);
}
static void c_align_array(bytes *b) {
    header(b, 3, 0, 1);
    array(b, "general.alignment", NQ_GGUF_U32, 1);
    put_int(b, 32, 4);
}
static void c_all_keys(bytes *b) {
    header(b, 3, 0, 15);
    for (uint32_t t = 0; t <= 12; t++) {
        char name[8];
        (void)snprintf(name, sizeof name, "k%u", t);
        if (t == NQ_GGUF_ARRAY) {
            array(b, name, NQ_GGUF_STRING, 3);
            text(b, "");
            text(b, "b");
            text(b, "\xFF\xFE not UTF-8");
        } else if (t == NQ_GGUF_STRING) {
            key(b, name, t);
            text(b, "value");
        } else {
            static const uint8_t sizes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
            key(b, name, t);
            put_fill(b, 2, sizes[t]);
        }
    }
    array(b, "none", NQ_GGUF_F64, 0);
    key(b, "UPPER case.\xC3\xA9", NQ_GGUF_BOOL);
    put_int(b, 2, 1);
}
static void c_long_key(bytes *b) {
    header(b, 3, 0, 1);
    put_int(b, 70000, 8);
    put_fill(b, 'k', 70000);
    put_int(b, NQ_GGUF_U8, 4);
    put_int(b, 7, 1);
}
static void c_huge_alignment(bytes *b) {
    header(b, 3, 0, 1);
    key_u32(b, "general.alignment", 0x80000000U);
}
static void c_many_keys(bytes *b, bool twice) {
    uint64_t n = 100000;
    header(b, 3, 0, n);
    for (uint64_t i = 0; i < n; i++) {
        char name[16];
        (void)snprintf(name, sizeof name, "%x", (unsigned)(twice && i == n - 1 ? 0 : i));
        key(b, name, NQ_GGUF_U8);
        put_int(b, 0, 1);
    }
}
static void c_100k_keys(bytes *b) { c_many_keys(b, false); }
static void c_100k_keys_one_twice(bytes *b) { c_many_keys(b, true); }
static void c_big_vocabulary(bytes *b) { /* the header spans several reads */
    uint64_t n = 200000;
    header(b, 3, 0, 1);
    array(b, "tokens", NQ_GGUF_STRING, n);
    for (uint64_t i = 0; i < n; i++) {
        text(b, "token-text");
    }
}

/* ---- cases: tensors ------------------------------------------------------- */

static void c_name_65(bytes *b) {
    char name[66];
    memset(name, 'n', 65);
    name[65] = '\0';
    header(b, 3, 1, 0);
    tensor(b, name, 1, DIMS(8), F32, 0);
    put_pad(b, 32);
    put_fill(b, 0, 32);
}
static void c_name_64(bytes *b) {
    char name[65];
    memset(name, 'n', 64);
    name[64] = '\0';
    header(b, 3, 1, 0);
    tensor(b, name, 1, DIMS(8), F32, 0);
    put_pad(b, 32);
    put_fill(b, 0, 32);
}
static void c_name_minus1(bytes *b) {
    header(b, 3, 1, 0);
    put_int(b, UINT64_MAX, 8);
    put_fill(b, 'n', 64);
}
static void c_name_nul(bytes *b) {
    one_tensor(b, 1, DIMS(8), F32, 0, 32);
    b->data[24 + 8] = 0;
}
static void c_name_not_utf8(bytes *b) {
    one_tensor(b, 1, DIMS(8), F32, 0, 32);
    b->data[24 + 8] = 0xC3;
}
static void c_five_dims(bytes *b) { one_tensor(b, 5, DIMS(1, 1, 1, 1, 1), F32, 0, 32); }
static void c_rank_max(bytes *b) {
    header(b, 3, 1, 0);
    text(b, "t");
    put_int(b, 0xFFFFFFFF, 4);
    put_fill(b, 1, 64);
}
static void c_dim_minus1(bytes *b) { one_tensor(b, 1, DIMS(UINT64_MAX), F32, 0, 32); }
static void c_ne_too_big(bytes *b) {
    one_tensor(b, 2, DIMS((uint64_t)1 << 32, (uint64_t)1 << 31), I8, 0, 32);
}
static void c_ne_wraps(bytes *b) {
    one_tensor(b, 4, DIMS((uint64_t)1 << 32, (uint64_t)1 << 32, 1, 1), F32, 0, 32);
}
static void c_ne_wraps_empty(bytes *b) {
    one_tensor(b, 3, DIMS(0, (uint64_t)1 << 62, 4), F32, 0, 0);
}
static void c_bytes_too_big(bytes *b) { one_tensor(b, 1, DIMS((uint64_t)1 << 62), F32, 0, 32); }
static void c_pad_wraps(bytes *b) { /* 2^64 - 16 bytes */
    one_tensor(b, 1, DIMS(0x3FFFFFFFFFFFFFFCU), F32, 0, 32);
}
static void c_sum_overflow(bytes *b) {
    header(b, 3, 2, 0);
    tensor(b, "a", 1, DIMS(0x7FFFFFFFFFFFFFC0U), I8, 0);
    tensor(b, "b", 1, DIMS(0x7FFFFFFFFFFFFFC0U), I8, 0x7FFFFFFFFFFFFFC0U);
    put_pad(b, 32);
    put_fill(b, 0, 32);
}
static void c_three_sum_overflow(bytes *b) {
    header(b, 3, 3, 0);
    tensor(b, "a", 1, DIMS(0x7FFFFFFFFFFFFFE0U), I8, 0);
    tensor(b, "b", 1, DIMS(0x7FFFFFFFFFFFFFE0U), I8, 0x7FFFFFFFFFFFFFE0U);
    tensor(b, "c", 1, DIMS(128), I8, 0xFFFFFFFFFFFFFFC0U);
    put_pad(b, 32);
    put_fill(b, 0, 32);
}
static void c_bad_type(bytes *b) { one_tensor(b, 1, DIMS(8), 999, 0, 32); }
static void c_type_minus1(bytes *b) { one_tensor(b, 1, DIMS(8), 0xFFFFFFFF, 0, 32); }
static void c_removed_type(bytes *b) { one_tensor(b, 1, DIMS(32), 4, 0, 32); }
static void c_part_block(bytes *b) { one_tensor(b, 2, DIMS(16, 2), Q4_0, 0, 32); }
static void c_offset_minus1(bytes *b) { one_tensor(b, 1, DIMS(8), F32, UINT64_MAX, 32); }
static void c_offset_not_0(bytes *b) { one_tensor(b, 1, DIMS(8), F32, 32, 64); }
static void c_duplicate_tensor(bytes *b) {
    header(b, 3, 2, 0);
    tensor(b, "same", 1, DIMS(8), F32, 0);
    tensor(b, "same", 1, DIMS(8), F32, 32);
    put_pad(b, 32);
    put_fill(b, 0, 64);
}
static void c_overlap(bytes *b) {
    header(b, 3, 2, 0);
    tensor(b, "a", 1, DIMS(8), F32, 0);
    tensor(b, "b", 1, DIMS(8), F32, 0);
    put_pad(b, 32);
    put_fill(b, 0, 64);
}
static void c_hole(bytes *b) {
    header(b, 3, 2, 0);
    tensor(b, "a", 1, DIMS(8), F32, 0);
    tensor(b, "b", 1, DIMS(8), F32, 64);
    put_pad(b, 32);
    put_fill(b, 0, 128);
}
static void c_inconsistent_align(bytes *b) { two_tensors(b, 64, 32, 0); }
static void c_tensor_info_cut(bytes *b) {
    header(b, 3, 1, 0);
    tensor(b, "t", 1, DIMS(8), F32, 0);
    b->len -= 1;
}
static void c_zero_dim(bytes *b) { one_tensor(b, 2, DIMS(4, 0), F32, 0, 0); }
static void c_rank0(bytes *b) { one_tensor(b, 0, NULL, F32, 0, 4); }
static void c_two_ok(bytes *b) { two_tensors(b, 0, 32, 0); }
static void c_align1(bytes *b) { two_tensors(b, 1, 1, 0); }
static void c_align4(bytes *b) { two_tensors(b, 4, 4, 0); }
static void c_align64(bytes *b) { two_tensors(b, 64, 64, 0); }
static void c_q8_0(bytes *b) { one_tensor(b, 2, DIMS(32, 3), Q8_0, 0, 3 * 34); }
static void c_f16(bytes *b) { one_tensor(b, 3, DIMS(3, 2, 1), F16, 0, 12); }
static void c_data_missing(bytes *b) { one_tensor(b, 1, DIMS(8), F32, 0, 0); }
static void c_data_one_short(bytes *b) { two_tensors(b, 0, 32, 1); }
static void c_data_one_short_align1(bytes *b) { two_tensors(b, 1, 1, 1); }
static void c_tail(bytes *b) {
    two_tensors(b, 0, 32, 0);
    put_fill(b, 9, 5);
}

#define OK_    NOVAQ_OK
#define FORMAT NOVAQ_E_FORMAT
#define UNSUP  NOVAQ_E_UNSUPPORTED

static const bad_case cases[] = {
    {"empty file", c_empty_file, FORMAT, "the magic"},
    {"three bytes", c_three_bytes, FORMAT, "the magic"},
    {"bad magic", c_bad_magic, FORMAT, "not a GGUF file"},
    {"version 0", c_version0, FORMAT, "version 0"},
    {"version 4", c_version4, UNSUP, "version 4"},
    {"byte-swapped", c_swapped, UNSUP, "big-endian"},
    {"version 2^32-1", c_version_max, UNSUP, "version 4294967295"},
    {"n_tensors -1", c_tensors_minus1, FORMAT, "a tensor count"},
    {"n_kv -1", c_keys_minus1, FORMAT, "a key count"},
    {"n_tensors 10^9", c_tensors_billion, FORMAT, "a tensor count"},
    {"n_kv 10^9", c_keys_billion, FORMAT, "a key count"},
    {"v1 n_tensors 2^32-1", c_v1_counts, FORMAT, "a tensor count"},
    {"header cut", c_header_cut, FORMAT, "a key count"},
    {"empty v1", c_empty_v1, OK_, NULL},
    {"empty v2", c_empty_v2, OK_, NULL},
    {"empty v3", c_empty_v3, OK_, NULL},
    {"garbage behind", c_garbage_behind, OK_, NULL},

    {"key length -1", c_key_len_minus1, FORMAT, "a key"},
    {"key past the end", c_key_past_end, FORMAT, "a key"},
    {"empty key", c_empty_key, FORMAT, "empty key"},
    {"NUL in key", c_nul_key, FORMAT, "NUL"},
    {"bad value type", c_bad_value_type, FORMAT, "value type 13"},
    {"value type 2^32-1", c_value_type_max, FORMAT, "value type"},
    {"duplicate key", c_duplicate_key, FORMAT, "\"same\" twice"},
    {"value cut", c_value_cut, FORMAT, "a value"},
    {"string length -1", c_string_minus1, FORMAT, "a string"},
    {"string past the end", c_string_past_end, FORMAT, "a string"},
    {"nested array", c_nested_array, FORMAT, "arrays of arrays"},
    {"bad array type", c_bad_array_type, FORMAT, "type 99"},
    {"array of 10^9 on few bytes", c_array_billion, FORMAT, "an array length"},
    {"array size wraps", c_array_wraps, FORMAT, "an array length"},
    {"10^9 strings on few bytes", c_string_array_billion, FORMAT, "an array length"},
    {"string array cut", c_string_array_cut, FORMAT, "a string"},
    {"alignment 13", c_align13, FORMAT, "general.alignment"},
    {"alignment 0", c_align0, FORMAT, "general.alignment"},
    {"alignment typed i32", c_align_i32, FORMAT, "general.alignment"},
    {"alignment typed u64", c_align_u64, FORMAT, "general.alignment"},
    {"alignment an array", c_align_array, FORMAT, "general.alignment"},
    {"every kind of key", c_all_keys, OK_, NULL},
    {"key of 70,000 bytes", c_long_key, OK_, NULL},
    {"alignment 2^31, no tensors", c_huge_alignment, OK_, NULL},
    {"100,000 keys", c_100k_keys, OK_, NULL},
    {"100,000 keys, one twice", c_100k_keys_one_twice, FORMAT, "\"0\" twice"},
    {"vocabulary of 200,000", c_big_vocabulary, OK_, NULL},

    {"tensor name of 65 bytes", c_name_65, FORMAT, "longer than 64"},
    {"tensor name of 64 bytes", c_name_64, OK_, NULL},
    {"tensor name length -1", c_name_minus1, FORMAT, "a tensor name"},
    {"NUL in tensor name", c_name_nul, FORMAT, "NUL"},
    {"tensor name not UTF-8", c_name_not_utf8, FORMAT, "UTF-8"},
    {"5 dimensions", c_five_dims, FORMAT, "4 dimensions"},
    {"2^32-1 dimensions", c_rank_max, FORMAT, "4 dimensions"},
    {"dimension -1", c_dim_minus1, FORMAT, "negative"},
    {"2^63 elements", c_ne_too_big, FORMAT, "elements overflow"},
    {"elements wrap to 0", c_ne_wraps, FORMAT, "elements overflow"},
    {"elements wrap, one dimension 0", c_ne_wraps_empty, FORMAT, "elements overflow"},
    {"2^64 bytes", c_bytes_too_big, FORMAT, "bytes overflow"},
    {"padding wraps", c_pad_wraps, FORMAT, "all tensors overflow"},
    {"two tensors of 2^63-64 bytes", c_sum_overflow, FORMAT, "tensor \"a\""},
    {"sum of sizes wraps", c_three_sum_overflow, FORMAT, "tensor \"c\""},
    {"bad tensor type", c_bad_type, FORMAT, "type 999"},
    {"tensor type -1", c_type_minus1, FORMAT, "unknown"},
    {"removed tensor type", c_removed_type, UNSUP, "no longer defined"},
    {"row of half a block", c_part_block, FORMAT, "whole blocks"},
    {"offset -1", c_offset_minus1, FORMAT, "is due"},
    {"first offset not 0", c_offset_not_0, FORMAT, "is due"},
    {"duplicate tensor", c_duplicate_tensor, FORMAT, "\"same\" twice"},
    {"overlap", c_overlap, FORMAT, "offset 0 where 32 is due"},
    {"hole", c_hole, FORMAT, "offset 64 where 32 is due"},
    {"inconsistent alignment", c_inconsistent_align, FORMAT, "offset 32 where 64 is due"},
    {"tensor info cut", c_tensor_info_cut, FORMAT, NULL},
    {"data missing", c_data_missing, FORMAT, "truncated"},
    {"data one byte short", c_data_one_short, FORMAT, "tensor \"b\""},
    {"data one byte short, alignment 1", c_data_one_short_align1, FORMAT, "tensor \"b\""},
    {"zero dimension", c_zero_dim, OK_, NULL},
    {"rank 0", c_rank0, OK_, NULL},
    {"two tensors", c_two_ok, OK_, NULL},
    {"alignment 1", c_align1, OK_, NULL},
    {"alignment 4", c_align4, OK_, NULL},
    {"alignment 64", c_align64, OK_, NULL},
    {"Q8_0", c_q8_0, OK_, NULL},
    {"F16 of rank 3", c_f16, OK_, NULL},
    {"bytes behind the last tensor", c_tail, OK_, NULL},
};

static void test_table(void **state) {
    (void)state;
    run_cases(cases, sizeof cases / sizeof cases[0], "case.gguf");
}

/* ---- values --------------------------------------------------------------- */

static void test_values(void **state) {
    (void)state;
    bytes b = {0};
    c_all_keys(&b);
    mem_source src = mem_open(b.data, b.len);
    nq_gguf g;
    novaq_error err;
    assert_int_equal(nq_gguf_parse(&g, &src.base, &err), NOVAQ_OK);
    assert_int_equal(g.kv_count, 15);
    assert_int_equal(g.version, 3);
    static const int64_t ints[] = {2,  2, 0x0202, 0x0202, 0x02020202,         0x02020202,
                                   -1, 1, -1,     -1,     0x0202020202020202, 0x0202020202020202};
    for (unsigned t = 0; t < 12; t++) {
        char name[8];
        (void)snprintf(name, sizeof name, "k%u", t);
        const nq_gguf_kv *kv = nq_gguf_find(g.kvs, g.kv_count, name);
        assert_non_null(kv);
        assert_int_equal(kv->type, t);
        int64_t v = 0;
        assert_int_equal(nq_gguf_integer(&v, kv, 0), ints[t] >= 0);
        assert_true(ints[t] < 0 || v == ints[t]);
        double d = 0;
        assert_int_equal(nq_gguf_number(&d, kv, 0), t != NQ_GGUF_STRING && t != NQ_GGUF_ARRAY);
        assert_false(nq_gguf_number(&d, kv, 1));
    }
    double d = 0;
    assert_true(nq_gguf_number(&d, nq_gguf_find(g.kvs, g.kv_count, "k12"), 0));
    assert_true(d > 0 && d < 1e-290);
    nq_gguf_string s;
    assert_true(nq_gguf_text(&s, nq_gguf_find(g.kvs, g.kv_count, "k8"), 0));
    assert_true(s.len == 5 && memcmp(s.data, "value", 5) == 0);
    const nq_gguf_kv *list = nq_gguf_find(g.kvs, g.kv_count, "k9");
    assert_true(nq_gguf_text(&s, list, 0) && s.len == 0);
    assert_true(nq_gguf_text(&s, list, 2) && s.len == 12 && (uint8_t)s.data[0] == 0xFF);
    assert_false(nq_gguf_text(&s, list, 3));
    assert_false(nq_gguf_text(&s, nq_gguf_find(g.kvs, g.kv_count, "none"), 0));
    assert_null(nq_gguf_find(g.kvs, g.kv_count, "absent"));
    assert_false(nq_gguf_text(&s, NULL, 0));
    nq_gguf_free(&g);
    bytes_free(&b);
}

static void test_big_vocabulary(void **state) {
    (void)state;
    bytes b = {0};
    c_big_vocabulary(&b);
    mem_source src = mem_open(b.data, b.len);
    nq_gguf g;
    novaq_error err;
    assert_int_equal(nq_gguf_parse(&g, &src.base, &err), NOVAQ_OK);
    assert_string_equal(g.kvs[0].key, "tokens");
    for (uint64_t i = 0; i < g.kvs[0].count; i++) {
        nq_gguf_string s;
        assert_true(nq_gguf_text(&s, &g.kvs[0], i));
        assert_true(s.len == 10 && memcmp(s.data, "token-text", 10) == 0);
    }
    nq_gguf_free(&g);
    bytes_free(&b);
}

static void test_shapes(void **state) {
    (void)state;
    bytes b = {0};
    c_q8_0(&b);
    mem_source src = mem_open(b.data, b.len);
    nq_gguf g;
    novaq_error err;
    assert_int_equal(nq_gguf_parse(&g, &src.base, &err), NOVAQ_OK);
    const nq_tensor_info *t = &g.tensors[0];
    assert_string_equal(t->name, "t");
    assert_int_equal(t->rank, 2);
    assert_int_equal(t->shape[0], 3);
    assert_int_equal(t->shape[1], 32);
    assert_int_equal(t->elements, 96);
    assert_int_equal(t->bytes, 102);
    assert_int_equal(t->offset, g.data_offset);
    assert_int_equal(g.data_offset % 32, 0);
    nq_gguf_free(&g);
    bytes_free(&b);
}

/* ---- sweeps --------------------------------------------------------------- */

/* Keys of all kinds and two tensors; every byte up to the end matters. */
static void sample(bytes *b) {
    c_all_keys(b);
    b->data[8] = 2; /* two tensors */
    tensor(b, "first", 2, DIMS(32, 2), Q8_0, 0);
    tensor(b, "second", 1, DIMS(3), F32, 96);
    put_pad(b, 32);
    put_fill(b, 3, 68);
    put_pad(b, 32);
    put_fill(b, 4, 12);
}

/* An exact copy on the heap, so that reading past it is seen. */
static novaq_status parse_copy(const uint8_t *data, size_t len) {
    uint8_t *copy = malloc(len + (len == 0));
    assert_non_null(copy);
    memcpy(copy, data, len);
    mem_source src = mem_open(copy, len);
    nq_gguf g;
    novaq_error err = {.code = NOVAQ_OK, .msg = ""};
    novaq_status st = nq_gguf_parse(&g, &src.base, &err);
    if (st == NOVAQ_OK) {
        for (size_t i = 0; i < g.tensor_count; i++) {
            const nq_tensor_info *t = &g.tensors[i];
            assert_true(t->bytes == 0 || (t->offset <= len && t->bytes <= len - t->offset));
        }
        nq_gguf_free(&g);
    } else {
        assert_true(err.code == st && err.msg[0] != '\0');
    }
    free(copy);
    return st;
}

static void test_truncation(void **state) {
    (void)state;
    bytes b = {0};
    sample(&b);
    assert_int_equal(parse_copy(b.data, b.len), NOVAQ_OK);
    for (size_t n = 0; n < b.len; n++) {
        assert_int_equal(parse_copy(b.data, n), NOVAQ_E_FORMAT);
    }
    bytes_free(&b);
}

static void test_mutation(void **state) {
    (void)state;
    bytes b = {0};
    sample(&b);
    size_t accepted = 0;
    for (size_t i = 0; i < b.len; i++) {
        uint8_t was = b.data[i];
        for (unsigned v = 0; v < 256; v += i < 64 ? 1 : 5) {
            b.data[i] = (uint8_t)v;
            accepted += parse_copy(b.data, b.len) == NOVAQ_OK;
        }
        b.data[i] = was;
    }
    assert_true(accepted > 0); /* values may change freely */
    bytes_free(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table),      cmocka_unit_test(test_values),
        cmocka_unit_test(test_shapes),     cmocka_unit_test(test_big_vocabulary),
        cmocka_unit_test(test_truncation), cmocka_unit_test(test_mutation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
