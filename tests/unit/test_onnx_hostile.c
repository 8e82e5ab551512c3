/* test_onnx_hostile.c - malformed and malicious ONNX files: the right verdict, one
 * line that names file and place, no byte read that is not there. */
#include "io/files_impl.h"
#include "onnx_util.h"

#include <sys/stat.h>

#define FORMAT      NOVAQ_E_FORMAT
#define UNSUPPORTED NOVAQ_E_UNSUPPORTED
#define IO          NOVAQ_E_IO

static char dir[512];

/* ---- the wire ------------------------------------------------------------- */

static void put_text(bytes *b, const char *s) { put(b, s, strlen(s)); }

static void no_bytes(bytes *b) { put(b, "", 0); }

static void no_graph(bytes *b) { put_number(b, 1, 8); }

static void cut_tag(bytes *b) { put(b, "\10\10\272", 3); }

static void cut_length(bytes *b) { put(b, "\10\10\72\377", 4); }

static void past_end(bytes *b) { put(b, "\10\10\72\5abc", 7); }

static void far_past_end(bytes *b) {
    put(b, "\10\10\72", 3);
    put_varint(b, UINT64_MAX);
}

static void long_varint(bytes *b) {
    put(b, "\10", 1);
    put_fill(b, 0x80, 11);
    put(b, "\1", 1);
}

static void wide_varint(bytes *b) {
    put(b, "\10", 1);
    put_fill(b, 0xFF, 9);
    put(b, "\2", 1);
}

static void group(bytes *b) {
    put_number(b, 1, 8);
    put_tag(b, 7, GROUP);
    put_tag(b, 7, GROUP_END);
}

static void many_groups(bytes *b) {
    put_number(b, 1, 8);
    put_fill(b, 7 << 3 | GROUP, 100000);
}

static void group_end(bytes *b) {
    put_number(b, 1, 8);
    put_tag(b, 7, GROUP_END);
}

static void wire_6(bytes *b) { put(b, "\10\10\76", 3); }

static void wire_7(bytes *b) { put(b, "\10\10\77", 3); }

static void field_0(bytes *b) { put(b, "\10\10\2\0", 4); }

static void huge_tag(bytes *b) {
    put_number(b, 1, 8);
    put_varint(b, ((uint64_t)1 << 32) | 2);
}

static void two_graphs(bytes *b) {
    bytes g = {0};
    put_str(&g, 2, "g");
    put_data(b, 7, g.data, g.len);
    put_message(b, 7, &g);
}

static void graph_a_number(bytes *b) {
    put_number(b, 1, 8);
    put_number(b, 7, 3);
}

static void cut_fixed(bytes *b) {
    put_number(b, 1, 8);
    put_tag(b, 9, FIXED64);
    put_fill(b, 0, 7);
}

static void zip_like(bytes *b) { put(b, "PK\5\6\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 22); }

static void text_file(bytes *b) { put_text(b, "this is not the model you are looking for"); }

static void zeros(bytes *b) { put_fill(b, 0, 4096); }

static void ones(bytes *b) { put_fill(b, 0xFF, 4096); }

static const bad_case wire_cases[] = {
    {"empty file", no_bytes, FORMAT, "no graph"},
    {"no graph", no_graph, FORMAT, "no graph"},
    {"tag cut off", cut_tag, FORMAT, "cut off"},
    {"length cut off", cut_length, FORMAT, "cut off"},
    {"length past the end", past_end, FORMAT, "claims 5 bytes, 3 are left"},
    {"length 2^64-1", far_past_end, FORMAT, "are left"},
    {"varint of 12 bytes", long_varint, FORMAT, "64 bits"},
    {"varint of 70 bits", wide_varint, FORMAT, "64 bits"},
    {"group", group, FORMAT, "group"},
    {"100000 groups", many_groups, FORMAT, "group"},
    {"end of a group", group_end, FORMAT, "group"},
    {"wire type 6", wire_6, FORMAT, "type"},
    {"wire type 7", wire_7, FORMAT, "type"},
    {"field 0", field_0, FORMAT, "number"},
    {"field number of 30 bits", huge_tag, FORMAT, "number"},
    {"two graphs", two_graphs, FORMAT, "second graph"},
    {"graph a number", graph_a_number, FORMAT, "wire type"},
    {"fixed number cut off", cut_fixed, FORMAT, "claims 8 bytes"},
    {"end of a zip", zip_like, FORMAT, NULL},
    {"text", text_file, FORMAT, NULL},
    {"zeros", zeros, FORMAT, "number"},
    {"ones", ones, FORMAT, NULL},
};

/* ---- graphs --------------------------------------------------------------- */

static void put_raw_tensor(bytes *graph, const char *name) {
    bytes t = {0};
    put_head(&t, name, 1, 2, -1);
    put_data(&t, 9, "\0\0\0\0\0\0\200\77", 8);
    put_message(graph, 5, &t);
}

/* graph within an If within a graph ... */
static void nested(bytes *b, unsigned depth) {
    bytes g = {0};
    put_raw_tensor(&g, "w");
    for (unsigned i = 0; i < depth; i++) {
        bytes attribute = {0};
        bytes node = {0};
        put_str(&attribute, 1, "then_branch");
        put_message(&attribute, 6, &g);
        put_str(&node, 4, "If");
        put_message(&node, 5, &attribute);
        put_message(&g, 1, &node);
    }
    put_model(b, &g);
}

static void nested_15(bytes *b) { nested(b, 15); }

static void nested_16(bytes *b) { nested(b, 16); }

static void nested_1000(bytes *b) { nested(b, 1000); }

static void sparse(bytes *b) {
    bytes g = {0};
    put_data(&g, 15, "", 0);
    put_model(b, &g);
}

static void put_attribute(bytes *b, unsigned field, const char *data) {
    bytes a = {0};
    bytes n = {0};
    bytes g = {0};
    put_str(&a, 1, "value");
    put_str(&a, field, data);
    put_str(&n, 2, "c");
    put_str(&n, 4, "Constant");
    put_message(&n, 5, &a);
    put_message(&g, 1, &n);
    put_model(b, &g);
}

static void sparse_constant(bytes *b) { put_attribute(b, 22, ""); }

static void broken_constant(bytes *b) { put_attribute(b, 5, "\10\2\20\1\112\4abcd"); }

static void initializer_a_number(bytes *b) {
    bytes g = {0};
    put_number(&g, 5, 1);
    put_model(b, &g);
}

static void node_a_number(bytes *b) {
    bytes g = {0};
    put_number(&g, 1, 1);
    put_model(b, &g);
}

static void twice(bytes *b) {
    bytes g = {0};
    put_raw_tensor(&g, "w");
    put_raw_tensor(&g, "v");
    put_raw_tensor(&g, "w");
    put_model(b, &g);
}

static void beyond_graph(bytes *b) { /* an initializer longer than its graph */
    put_number(b, 1, 8);
    put_data(b, 7, "\52\20\10\1", 4);
    put_fill(b, 0, 64);
}

static void put_quantized(bytes *b, const char *op) {
    bytes g = {0};
    put_raw_tensor(&g, "w");
    put_node(&g, op, "/q_proj/op", "w", "x");
    put_model(b, &g);
}

static void n_bits(bytes *b) { put_quantized(b, "MatMulNBits"); }

static void integer(bytes *b) { put_quantized(b, "MatMulInteger"); }

static void dequantize(bytes *b) { put_quantized(b, "DequantizeLinear"); }

static void dequantize_activations(bytes *b) {
    bytes g = {0};
    put_raw_tensor(&g, "scale");
    put_node(&g, "DequantizeLinear", "/q_proj/op", "x", "scale");
    put_model(b, &g);
}

/* 300 branches with one name each: only names are compared. */
static void many_branches(bytes *b) {
    bytes g = {0};
    for (unsigned i = 0; i < 300; i++) {
        bytes branch = {0};
        bytes attribute = {0};
        bytes node = {0};
        put_raw_tensor(&branch, "w");
        put_node(&branch, "MatMul", "/a/MatMul", "x", "w");
        put_str(&attribute, 1, "then_branch");
        put_message(&attribute, 6, &branch);
        put_str(&node, 4, "If");
        put_message(&node, 5, &attribute);
        put_message(&g, 1, &node);
    }
    put_model(b, &g);
}

/* Identity nodes in a ring. */
static void alias_ring(bytes *b) {
    bytes g = {0};
    static const char *const names[] = {"a", "b", "c"};
    for (unsigned i = 0; i < 3; i++) {
        bytes n = {0};
        put_str(&n, 1, names[i]);
        put_str(&n, 2, names[(i + 1) % 3]);
        put_str(&n, 4, "Identity");
        put_message(&g, 1, &n);
    }
    put_node(&g, "MatMul", "/m/MatMul", "x", "a");
    put_raw_tensor(&g, "w");
    put_model(b, &g);
}

static const bad_case graph_cases[] = {
    {"graphs 16 deep", nested_15, NOVAQ_OK, NULL},
    {"graphs 17 deep", nested_16, UNSUPPORTED, "nested"},
    {"graphs 1001 deep", nested_1000, UNSUPPORTED, "nested"},
    {"sparse initializer", sparse, UNSUPPORTED, "sparse"},
    {"sparse constant", sparse_constant, UNSUPPORTED, "sparse"},
    {"constant with half its data", broken_constant, FORMAT, "take 8 bytes, the data are 4"},
    {"initializer a number", initializer_a_number, FORMAT, "wire type"},
    {"node a number", node_a_number, FORMAT, "wire type"},
    {"name twice", twice, FORMAT, "\"w\" is there twice"},
    {"initializer past its graph", beyond_graph, FORMAT, "claims 16 bytes"},
    {"MatMulNBits", n_bits, UNSUPPORTED, "node \"/q_proj/op\" is a MatMulNBits"},
    {"MatMulInteger", integer, UNSUPPORTED, "quantized already"},
    {"DequantizeLinear of a weight", dequantize, UNSUPPORTED, "float export"},
    {"DequantizeLinear of activations", dequantize_activations, NOVAQ_OK, NULL},
    {"many branches", many_branches, NOVAQ_OK, NULL},
    {"aliases in a ring", alias_ring, NOVAQ_OK, NULL},
};

/* ---- tensors -------------------------------------------------------------- */

#define FLOATS "\0\0\200\77\0\0\0\100" /* 1, 2 */

/* A float vector [2] with something more or less. */
static void tensor(bytes *b, unsigned type, int64_t rows, int64_t cols, unsigned field,
                   const char *data, size_t len) {
    bytes t = {0};
    put_head(&t, "w", type, rows, cols);
    if (field != 0) {
        put_data(&t, field, data, len);
    }
    put_one(b, &t);
}

#define TENSOR(name, ...)                                                                          \
    static void name(bytes *b) { tensor(b, __VA_ARGS__); }

TENSOR(good, 1, 2, -1, 9, FLOATS, 8)
TENSOR(negative_dim, 1, -1, -1, 9, FLOATS, 8)
TENSOR(dims_overflow, 2, INT64_MAX, 4, 9, FLOATS, 8)
TENSOR(bytes_overflow, 11, INT64_MAX, -1, 9, FLOATS, 8)
TENSOR(huge, 1, (int64_t)1 << 50, -1, 9, FLOATS, 8)
TENSOR(raw_short, 1, 2, -1, 9, FLOATS, 7)
TENSOR(raw_long, 1, 1, -1, 9, FLOATS, 8)
TENSOR(no_data, 1, 2, -1, 0, "", 0)
TENSOR(raw_empty, 1, 2, -1, 9, "", 0)
TENSOR(no_elements, 1, 0, -1, 0, "", 0)
TENSOR(no_elements_data, 1, 0, -1, 9, FLOATS, 8)
TENSOR(type_0, 0, 2, -1, 9, FLOATS, 8)
TENSOR(type_99, 99, 2, -1, 9, FLOATS, 8)
TENSOR(type_string, 8, 2, -1, 6, "abc", 3)
TENSOR(type_int4, 22, 2, -1, 9, "a", 1)
TENSOR(type_float4, 23, 2, -1, 9, "a", 1)
TENSOR(type_complex, 14, 1, -1, 9, FLOATS, 8)
TENSOR(wrong_field, 7, 2, -1, 4, FLOATS, 8)
TENSOR(packed_cut, 1, 2, -1, 4, FLOATS, 7)
TENSOR(packed_short, 1, 3, -1, 4, FLOATS, 8)
TENSOR(packed_long, 1, 1, -1, 4, FLOATS, 8)
TENSOR(varint_cut, 6, 2, -1, 5, "\1\200", 2)
TENSOR(varints_short, 6, 2, -1, 5, "\1", 1)
TENSOR(varints_long, 6, 2, -1, 5, "\1\2\3", 3)
TENSOR(int8_200, 3, 1, -1, 5, "\310\1", 2)
TENSOR(uint8_negative, 2, 1, -1, 5, "\377\377\377\377\377\377\377\377\377\1", 10)
TENSOR(int8_negative, 3, 1, -1, 5, "\377\377\377\377\377\377\377\377\377\1", 10)
TENSOR(bool_2, 9, 1, -1, 5, "\2", 1)
TENSOR(f16_wide, 10, 1, -1, 5, "\200\200\4", 3)
TENSOR(u32_wide, 12, 1, -1, 11, "\200\200\200\200\20", 5)

static void nine_dims(bytes *b) {
    bytes t = {0};
    put_data(&t, 1, "\1\1\1\1\1\1\1\1\1", 9);
    put_head(&t, "w", 1, 1, -1);
    put_data(&t, 9, FLOATS, 4);
    put_one(b, &t);
}

static void packed_dims(bytes *b) {
    bytes t = {0};
    put_data(&t, 1, "\1\2", 2);
    put_number(&t, 2, 1);
    put_str(&t, 8, "w");
    put_data(&t, 9, FLOATS, 8);
    put_one(b, &t);
}

static void dims_cut(bytes *b) {
    bytes t = {0};
    put_data(&t, 1, "\1\202", 2);
    put_one(b, &t);
}

static void named(bytes *b, const char *name, size_t len) {
    bytes t = {0};
    put_number(&t, 1, 2);
    put_number(&t, 2, 1);
    if (name != NULL) {
        put_data(&t, 8, name, len);
    }
    put_data(&t, 9, FLOATS, 8);
    put_one(b, &t);
}

static void no_name(bytes *b) { named(b, NULL, 0); }

static void empty_name(bytes *b) { named(b, "", 0); }

static void nul_name(bytes *b) { named(b, "a\0b", 3); }

static void latin_name(bytes *b) { named(b, "na\357ve", 5); }

static void long_name(bytes *b) {
    static char name[5000];
    memset(name, 'a', sizeof name);
    named(b, name, sizeof name);
}

/* A good tensor with one more field. */
static void with(bytes *b, unsigned field, unsigned wire, uint64_t v, const char *data,
                 size_t len) {
    bytes t = {0};
    put_head(&t, "w", 1, 2, -1);
    put_data(&t, 9, FLOATS, 8);
    if (wire == BYTES) {
        put_data(&t, field, data, len);
    } else {
        put_number(&t, field, v);
    }
    put_one(b, &t);
}

#define WITH(name, ...)                                                                            \
    static void name(bytes *b) { with(b, __VA_ARGS__); }

WITH(raw_twice, 9, BYTES, 0, FLOATS, 8)
WITH(raw_and_floats, 4, BYTES, 0, FLOATS, 8)
WITH(type_twice, 2, VARINT, 1, "", 0)
WITH(name_twice, 8, BYTES, 0, "v", 1)
WITH(segment, 3, BYTES, 0, "", 0)
WITH(raw_and_external, 14, VARINT, 1, "", 0)
WITH(external_unused, 13, BYTES, 0, "\12\10location\22\1x", 12)
WITH(location_2, 14, VARINT, 2, "", 0)
WITH(type_text, 2, BYTES, 0, "\1", 1)
WITH(unknown_field, 100, BYTES, 0, "whatever", 8)

static const bad_case tensor_cases[] = {
    {"good", good, NOVAQ_OK, NULL},
    {"unknown field", unknown_field, NOVAQ_OK, NULL},
    {"packed dims", packed_dims, NOVAQ_OK, NULL},
    {"no elements", no_elements, NOVAQ_OK, NULL},
    {"int8 of a negative varint", int8_negative, NOVAQ_OK, NULL},
    {"negative dimension", negative_dim, FORMAT, "negative"},
    {"product of dimensions", dims_overflow, FORMAT, "overflows"},
    {"size in bytes", bytes_overflow, FORMAT, "overflows"},
    {"2^50 elements", huge, FORMAT, "the data are 8"},
    {"nine dimensions", nine_dims, UNSUPPORTED, "dimensions"},
    {"dimension cut off", dims_cut, FORMAT, "cut off"},
    {"raw data too short", raw_short, FORMAT, "take 8 bytes, the data are 7"},
    {"raw data too long", raw_long, FORMAT, "take 4 bytes, the data are 8"},
    {"no data", no_data, FORMAT, "the data are 0"},
    {"raw data empty", raw_empty, FORMAT, "the data are 0"},
    {"data of no elements", no_elements_data, FORMAT, "take 0 bytes"},
    {"type 0", type_0, FORMAT, "unknown data type 0"},
    {"type 99", type_99, FORMAT, "unknown data type 99"},
    {"strings", type_string, UNSUPPORTED, "STRING"},
    {"4-bit integers", type_int4, UNSUPPORTED, "INT4"},
    {"4-bit floats", type_float4, UNSUPPORTED, "FLOAT4E2M1"},
    {"complex", type_complex, UNSUPPORTED, "COMPLEX64"},
    {"floats for integers", wrong_field, FORMAT, "another type"},
    {"packed floats cut off", packed_cut, FORMAT, "middle of one"},
    {"packed floats too few", packed_short, FORMAT, "3 elements, the data are 2"},
    {"packed floats too many", packed_long, FORMAT, "1 elements, the data are 2"},
    {"varint cut off", varint_cut, FORMAT, "cut off"},
    {"varints too few", varints_short, FORMAT, "the data are 1"},
    {"varints too many", varints_long, FORMAT, "the data are 3"},
    {"int8 of 200", int8_200, FORMAT, "does not fit"},
    {"uint8 of -1", uint8_negative, FORMAT, "does not fit"},
    {"bool of 2", bool_2, FORMAT, "does not fit"},
    {"float16 of 17 bits", f16_wide, FORMAT, "does not fit"},
    {"uint32 of 33 bits", u32_wide, FORMAT, "does not fit"},
    {"no name", no_name, FORMAT, "no name"},
    {"empty name", empty_name, FORMAT, "no name"},
    {"NUL in a name", nul_name, FORMAT, "NUL"},
    {"name not UTF-8", latin_name, FORMAT, "UTF-8"},
    {"name of 5000 bytes", long_name, FORMAT, "4095 at most"},
    {"raw data twice", raw_twice, FORMAT, "data twice"},
    {"raw and float data", raw_and_floats, FORMAT, "data twice"},
    {"type twice", type_twice, FORMAT, "field 2 twice"},
    {"name twice", name_twice, FORMAT, "field 8 twice"},
    {"segment", segment, UNSUPPORTED, "segment"},
    {"raw and external data", raw_and_external, FORMAT, "external data"},
    {"external data not used", external_unused, FORMAT, "not stored there"},
    {"unknown data_location", location_2, FORMAT, "data_location"},
    {"type as text", type_text, FORMAT, "field 2 twice"},
};

/* ---- external data -------------------------------------------------------- */

typedef struct external_case {
    const char *location; /* NULL: left out */
    const char *offset;
    const char *length;
    novaq_status want;
    const char *says;
} external_case;

/* data.bin has 64 bytes; the tensor takes 8. */
static const external_case externals[] = {
    {"data.bin", NULL, NULL, NOVAQ_OK, NULL},
    {"data.bin", "56", "8", NOVAQ_OK, NULL},
    {"./data.bin", "0", "8", NOVAQ_OK, NULL},
    {"below/more.bin", "0", NULL, NOVAQ_OK, NULL},
    {"inside.bin", "0", "8", NOVAQ_OK, NULL}, /* a link to data.bin */
    {NULL, "0", "8", FORMAT, "without a location"},
    {"", "0", "8", FORMAT, "without a location"},
    {"absent.bin", "0", "8", IO, "absent.bin"},
    {"below", "0", "8", IO, "not a regular file"},
    {"/etc/passwd", "0", "8", FORMAT, "not a path inside"},
    {"../data.bin", "0", "8", FORMAT, "not a path inside"},
    {"..", "0", "8", FORMAT, "not a path inside"},
    {"below/../data.bin", "0", "8", FORMAT, "not a path inside"},
    {"below/..", "0", "8", FORMAT, "not a path inside"},
    {"below//more.bin", "0", "8", FORMAT, "not a path inside"},
    {"below\\more.bin", "0", "8", FORMAT, "not a path inside"},
    {"c:data.bin", "0", "8", FORMAT, "not a path inside"},
    {"file:///etc/passwd", "0", "8", FORMAT, "not a path inside"},
    {"outside.bin", "0", "8", FORMAT, "link out of"},
    {"outfolder/passwd", "0", "8", FORMAT, "link out of"},
    {"data.bin", "57", "8", FORMAT, "which has 64"},
    {"data.bin", "64", "8", FORMAT, "which has 64"},
    {"data.bin", "9223372036854775807", "8", FORMAT, "which has 64"},
    {"data.bin", "18446744073709551615", "8", FORMAT, "not a number"},
    {"data.bin", "99999999999999999999999", "8", FORMAT, "not a number"},
    {"data.bin", "-8", "8", FORMAT, "not a number"},
    {"data.bin", " 8", "8", FORMAT, "not a number"},
    {"data.bin", "8x", "8", FORMAT, "not a number"},
    {"data.bin", "", "8", FORMAT, "not a number"},
    {"data.bin", "0", "7", FORMAT, "its external data 7"},
    {"data.bin", "0", "9", FORMAT, "its external data 9"},
    {"data.bin", "0", "-1", FORMAT, "not a number"},
};

static void run(const char *file, const bad_case *cases, size_t count) {
    for (size_t i = 0; i < count; i++) {
        bytes b = {0};
        cases[i].build(&b);
        check_bytes(dir, file, &b, &cases[i]);
        bytes_free(&b);
    }
}

#define RUN(cases) run("m.onnx", cases, sizeof cases / sizeof cases[0])

static void test_wire(void **state) {
    (void)state;
    RUN(wire_cases);
}

static void test_graphs(void **state) {
    (void)state;
    RUN(graph_cases);
}

static void test_tensors(void **state) {
    (void)state;
    RUN(tensor_cases);
}

static void path_in(char *out, size_t cap, const char *name) {
    (void)snprintf(out, cap, "%s/%s", dir, name);
}

static void link_in(const char *name, const char *target) {
    char path[1024];
    path_in(path, sizeof path, name);
    assert_int_equal(symlink(target, path), 0);
}

static void test_external(void **state) {
    (void)state;
    char path[1024];
    uint8_t data[64];
    memset(data, 7, sizeof data);
    write_plain(dir, "data.bin", data, sizeof data);
    path_in(path, sizeof path, "below");
    assert_int_equal(mkdir(path, 0777), 0);
    write_plain(path, "more.bin", data, sizeof data);
    link_in("inside.bin", "data.bin");
    link_in("outside.bin", "/etc/passwd");
    link_in("outfolder", "/etc");
    for (size_t i = 0; i < sizeof externals / sizeof externals[0]; i++) {
        const external_case *c = &externals[i];
        bytes t = {0};
        bytes b = {0};
        char name[64];
        put_head(&t, "w", 1, 2, -1);
        if (c->location != NULL) {
            put_entry(&t, "location", c->location);
        }
        if (c->offset != NULL) {
            put_entry(&t, "offset", c->offset);
        }
        if (c->length != NULL) {
            put_entry(&t, "length", c->length);
        }
        put_number(&t, 14, 1);
        put_one(&b, &t);
        (void)snprintf(name, sizeof name, "external %zu", i);
        check_bytes(dir, "m.onnx", &b, &(bad_case){name, NULL, c->want, c->says});
        bytes_free(&b);
    }
    path_in(path, sizeof path, "below/more.bin");
    assert_int_equal(unlink(path), 0);
}

/* A folder in which another file than the one that was checked gets opened. */
static novaq_status swapping_source(nq_source **out, nq_files *f, const char *name,
                                    novaq_error *err) {
    char path[1024];
    bool swap = strcmp(name, "data.bin") == 0 && f->revision != NULL;
    path_in(path, sizeof path, swap ? "swapped.bin" : name);
    return nq_source_open_file(out, path, err);
}

static novaq_status swapping_has(bool *has, nq_files *f, const char *name, novaq_error *err) {
    (void)f;
    (void)name;
    (void)err;
    *has = false;
    return NOVAQ_OK;
}

static void test_swapped(void **state) {
    (void)state;
    static const nq_place place = {swapping_has, swapping_source, NULL, NULL};
    uint8_t data[64] = {0};
    bytes t = {0};
    bytes b = {0};
    write_plain(dir, "data.bin", data, sizeof data);
    write_plain(dir, "swapped.bin", data, sizeof data);
    put_head(&t, "w", 1, 2, -1);
    put_entry(&t, "location", "data.bin");
    put_number(&t, 14, 1);
    put_one(&b, &t);
    write_plain(dir, "m.onnx", b.data, b.len);
    bytes_free(&b);
    for (unsigned swap = 0; swap < 2; swap++) {
        nq_files *f = NULL;
        nq_tensors *ts = NULL;
        novaq_error err = {.msg = ""};
        assert_int_equal(nq_alloc(&f, 1, sizeof *f, NULL), NOVAQ_OK);
        *f = (nq_files){.place = &place, .opened = json_object()};
        assert_int_equal(nq_strdup(&f->locator, dir, NULL), NOVAQ_OK);
        assert_int_equal(nq_strdup(&f->dir, dir, NULL), NOVAQ_OK);
        assert_int_equal(nq_strdup(&f->chosen, "m.onnx", NULL), NOVAQ_OK);
        if (swap == 1) {
            assert_int_equal(nq_strdup(&f->revision, "swap", NULL), NOVAQ_OK);
        }
        assert_int_equal(nq_tensors_open_files(&ts, &f, &err), swap == 1 ? NOVAQ_E_IO : NOVAQ_OK);
        assert_true(swap == 0 || strstr(err.msg, "was replaced") != NULL);
        nq_tensors_close(&ts);
    }
}

static void external_twice(bytes *b) {
    bytes t = {0};
    put_head(&t, "w", 1, 2, -1);
    put_entry(&t, "location", "data.bin");
    put_entry(&t, "location", "data.bin");
    put_number(&t, 14, 1);
    put_one(b, &t);
}

static void external_key_unknown(bytes *b) {
    bytes t = {0};
    put_head(&t, "w", 1, 2, -1);
    put_entry(&t, "a key of more than sixty-four bytes, which cannot be one of the few", "x");
    put_entry(&t, "basepath", "/etc");
    put_entry(&t, "location", "data.bin");
    put_number(&t, 14, 1);
    put_one(b, &t);
}

static const bad_case entry_cases[] = {
    {"location twice", external_twice, FORMAT, "same key twice"},
    {"unknown keys", external_key_unknown, NOVAQ_OK, NULL},
};

static void test_entries(void **state) {
    (void)state;
    uint8_t data[64] = {0};
    write_plain(dir, "data.bin", data, sizeof data);
    RUN(entry_cases);
}

#define BEHIND_GRAPH 17 /* bytes of the fixture: its opset_import */

/* Every prefix and every file with one bit changed: no harm, and no prefix that
 * ends in the graph is a model. */
static void test_damage(void **state) {
    (void)state;
    char *whole = NULL;
    size_t len = 0;
    assert_int_equal(nq_read_file(&whole, &len, FIXTURES "/onnx/merged.onnx", 1 << 20, NULL),
                     NOVAQ_OK);
    char path[1024];
    path_in(path, sizeof path, "m.onnx");
    for (size_t i = 0; i < 2 * len; i++) {
        size_t at = i / 2;
        char saved = whole[at];
        whole[at] = (char)(i % 2 == 0 ? saved : saved ^ (1 << (at % 8)));
        write_plain(dir, "m.onnx", whole, i % 2 == 0 ? at : len);
        whole[at] = saved;
        nq_tensors *ts = NULL;
        novaq_error err = {.msg = ""};
        novaq_status st = nq_tensors_open(&ts, path, &err);
        assert_true(i % 2 == 1 || at >= len - BEHIND_GRAPH || st != NOVAQ_OK);
        if (st == NOVAQ_OK) {
            read_everything(ts);
        } else {
            assert_non_null(strstr(err.msg, path));
            assert_null(strchr(err.msg, '\n'));
        }
        nq_tensors_close(&ts);
    }
    nq_free(whole);
}

static int begin(void **state) {
    (void)state;
    temp_dir(dir, sizeof dir);
    return 0;
}

static int end(void **state) {
    (void)state;
    remove_dir(dir);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_wire, begin, end),
        cmocka_unit_test_setup_teardown(test_graphs, begin, end),
        cmocka_unit_test_setup_teardown(test_tensors, begin, end),
        cmocka_unit_test_setup_teardown(test_external, begin, end),
        cmocka_unit_test_setup_teardown(test_swapped, begin, end),
        cmocka_unit_test_setup_teardown(test_entries, begin, end),
        cmocka_unit_test_setup_teardown(test_damage, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
