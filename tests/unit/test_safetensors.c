/* test_safetensors.c - the SafeTensors reader on well-formed, malformed,
 * truncated and mutated files. */
#include "reader_util.h"

#include "format/safetensors.h"

/* ---- builders ------------------------------------------------------------- */

/* A header as text and that many bytes of data. */
static void file_of(bytes *b, const char *json, size_t json_len, size_t data) {
    put_int(b, json_len, 8);
    put(b, json, json_len);
    put_fill(b, 1, data);
}

typedef struct json_case {
    const char *name;
    const char *json;
    size_t data; /* bytes behind the header */
    novaq_status want;
    const char *says;
} json_case;

#define OK_          NOVAQ_OK
#define FORMAT       NOVAQ_E_FORMAT
#define UNSUP        NOVAQ_E_UNSUPPORTED
#define T(d, s, o)   "{\"dtype\":\"" d "\",\"shape\":[" s "],\"data_offsets\":[" o "]}"
#define ONE(d, s, o) "{\"a\":" T(d, s, o) "}"
#define HUGE_        "9223372036854775807"
#define REST         "\"shape\":[1],\"data_offsets\":[0,1]"
#define U8_1         "\"dtype\":\"U8\"," REST

static const json_case json_cases[] = {
    /* JSON itself */
    {"not JSON", "not json", 0, FORMAT, "object"},
    {"an array", "[]", 0, FORMAT, "object"},
    {"a number", "1", 0, FORMAT, "object"},
    {"only white space", "   ", 0, FORMAT, "object"},
    {"unclosed", "{\"a\":", 0, FORMAT, NULL},
    {"trailing comma", "{\"a\":{" U8_1 "},}", 1, FORMAT, "string"},
    {"trailing garbage", "{}x", 0, FORMAT, "after the JSON"},
    {"two values", "{} {}", 0, FORMAT, "after the JSON"},
    {"not UTF-8", "{\"\xFF\":{" U8_1 "}}", 1, FORMAT, "UTF-8"},
    {"overlong UTF-8", "{\"\xC0\x80\":{" U8_1 "}}", 1, FORMAT, "UTF-8"},
    {"surrogate in UTF-8", "{\"\xED\xA0\x80\":{" U8_1 "}}", 1, FORMAT, "UTF-8"},
    {"byte order mark", "\xEF\xBB\xBF{}", 0, FORMAT, "object"},
    {"lone high surrogate", "{\"\\ud800\":{" U8_1 "}}", 1, FORMAT, "surrogate"},
    {"lone low surrogate", "{\"\\udc00\":{" U8_1 "}}", 1, FORMAT, "surrogate"},
    {"high surrogate twice", "{\"\\ud800\\ud800\":{" U8_1 "}}", 1, FORMAT, "surrogate"},
    {"NUL in a name", "{\"\\u0000\":{" U8_1 "}}", 1, FORMAT, "NUL"},
    {"NUL in metadata", "{\"__metadata__\":{\"k\":\"\\u0000\"}}", 0, FORMAT, "NUL"},
    {"control character", "{\"a\nb\":{" U8_1 "}}", 1, FORMAT, "control"},
    {"bad escape", "{\"\\x41\":{" U8_1 "}}", 1, FORMAT, "escape"},
    {"bad \\u escape", "{\"\\u12g4\":{" U8_1 "}}", 1, FORMAT, "escape"},
    {"unterminated string", "{\"abc", 0, FORMAT, "unterminated"},
    {"bad word", "{\"a\":{" U8_1 ",\"x\":nul}}", 1, FORMAT, NULL},
    {"bad number", "{\"a\":{" U8_1 ",\"x\":01}}", 1, FORMAT, NULL},
    {"number without digits", "{\"a\":{" U8_1 ",\"x\":-}}", 1, FORMAT, "number"},
    {"single quotes", "{'a':{" U8_1 "}}", 1, FORMAT, "string"},
    /* metadata */
    {"metadata value a number", "{\"__metadata__\":{\"k\":1}}", 0, FORMAT, "string"},
    {"metadata value null", "{\"__metadata__\":{\"k\":null}}", 0, FORMAT, "string"},
    {"metadata value an object", "{\"__metadata__\":{\"k\":{}}}", 0, FORMAT, "string"},
    {"metadata an array", "{\"__metadata__\":[]}", 0, FORMAT, "object"},
    {"metadata twice", "{\"__metadata__\":{},\"__metadata__\":{}}", 0, FORMAT, "twice"},
    {"metadata key twice", "{\"__metadata__\":{\"k\":\"1\",\"k\":\"2\"}}", 0, FORMAT,
     "\"k\" twice"},
    /* entries */
    {"no dtype", "{\"a\":{" REST "}}", 1, FORMAT, "no dtype"},
    {"no shape", "{\"a\":{\"dtype\":\"U8\",\"data_offsets\":[0,1]}}", 1, FORMAT, "no shape"},
    {"no offsets", "{\"a\":{\"dtype\":\"U8\",\"shape\":[1]}}", 1, FORMAT, "no data_offsets"},
    {"dtype twice", "{\"a\":{" U8_1 ",\"dtype\":\"U8\"}}", 1, FORMAT, "\"dtype\" twice"},
    {"shape twice", "{\"a\":{" U8_1 ",\"shape\":[1]}}", 1, FORMAT, "\"shape\" twice"},
    {"offsets twice", "{\"a\":{" U8_1 ",\"data_offsets\":[0,1]}}", 1, FORMAT,
     "\"data_offsets\" twice"},
    {"unknown field twice", "{\"a\":{" U8_1 ",\"x\":1,\"x\":2}}", 1, FORMAT, "\"x\" twice"},
    {"twice deep in an unknown field", "{\"a\":{" U8_1 ",\"x\":[{\"y\":1,\"y\":2}]}}", 1, FORMAT,
     "\"y\" twice"},
    {"escaped duplicate", "{\"a\":" T("U8", "1", "0,1") ",\"\\u0061\":" T("U8", "1", "1,2") "}", 2,
     FORMAT, "\"a\" twice"},
    {"tensor twice", "{\"a\":" T("U8", "4", "0,4") ",\"a\":" T("F32", "1", "0,4") "}", 4, FORMAT,
     "\"a\" twice"},
    {"entry null", "{\"a\":null}", 0, FORMAT, "object"},
    {"entry an array", "{\"a\":[\"U8\",[1],[0,1]]}", 1, FORMAT, "object"},
    {"unknown dtype", ONE("X9", "1", "0,1"), 1, FORMAT, "\"X9\""},
    {"lower-case dtype", ONE("f32", "1", "0,4"), 4, FORMAT, "\"f32\""},
    {"dtype a number", "{\"a\":{\"dtype\":1," REST "}}", 1, FORMAT, "string"},
    {"dtype null", "{\"a\":{\"dtype\":null," REST "}}", 1, FORMAT, "string"},
    {"shape null", "{\"a\":{\"dtype\":\"U8\",\"shape\":null,\"data_offsets\":[0,1]}}", 1, FORMAT,
     "array"},
    {"negative dimension", ONE("U8", "-1", "0,1"), 1, FORMAT, "integer"},
    {"dimension -0", ONE("U8", "-0", "0,0"), 0, FORMAT, "integer"},
    {"float dimension", ONE("U8", "1.0", "0,1"), 1, FORMAT, "integer"},
    {"dimension 1e0", ONE("U8", "1e0", "0,1"), 1, FORMAT, "integer"},
    {"dimension a string", ONE("U8", "\"1\"", "0,1"), 1, FORMAT, "integer"},
    {"dimension 2^64", ONE("U8", "18446744073709551616", "0,1"), 1, FORMAT, "64 bits"},
    {"one offset", ONE("U8", "1", "1"), 1, FORMAT, "two numbers"},
    {"three offsets", ONE("U8", "1", "0,1,1"), 1, FORMAT, "two numbers"},
    {"no offset numbers", ONE("U8", "1", ""), 1, FORMAT, "two numbers"},
    {"negative offset", ONE("U8", "1", "-1,0"), 1, FORMAT, "integer"},
    {"float offset", ONE("U8", "1", "0,1.0"), 1, FORMAT, "integer"},
    /* layout */
    {"end before begin", ONE("U8", "1", "1,0"), 1, FORMAT, "end before they begin"},
    {"first begin not 0", ONE("U8", "1", "1,2"), 2, FORMAT, "hole"},
    {"hole", "{\"a\":" T("U8", "1", "0,1") ",\"b\":" T("U8", "1", "2,3") "}", 3, FORMAT, "hole"},
    {"overlap", "{\"a\":" T("U8", "2", "0,2") ",\"b\":" T("U8", "2", "1,3") "}", 3, FORMAT,
     "overlaps"},
    {"same range", "{\"a\":" T("U8", "2", "0,2") ",\"b\":" T("U8", "2", "0,2") "}", 2, FORMAT,
     "overlaps"},
    {"nested range", "{\"a\":" T("U8", "4", "0,4") ",\"b\":" T("U8", "1", "1,2") "}", 4, FORMAT,
     "overlaps"},
    {"data too short", ONE("F32", "2", "0,8"), 7, FORMAT, "beyond the end"},
    {"no data", ONE("F32", "2", "0,8"), 0, FORMAT, "beyond the end"},
    {"data too long", ONE("F32", "2", "0,8"), 9, FORMAT, "no tensor"},
    {"data but no tensor", "{}", 1, FORMAT, "no tensor"},
    {"end far beyond", ONE("U8", HUGE_, "0," HUGE_), 1, FORMAT, "beyond the end"},
    {"range too small", ONE("F32", "2", "0,4"), 4, FORMAT, "take 8 bytes"},
    {"range too large", ONE("F32", "2", "0,12"), 12, FORMAT, "take 8 bytes"},
    {"rank 0 without data", ONE("F32", "", "0,0"), 0, FORMAT, "take 4 bytes"},
    {"elements overflow", ONE("U8", HUGE_ "," HUGE_, "0,1"), 1, FORMAT, "overflows"},
    {"elements overflow before a 0", ONE("U8", HUGE_ "," HUGE_ ",0", "0,0"), 0, FORMAT,
     "overflows"},
    {"elements wrap to the size", ONE("U8", "4294967296,4294967296", "0,0"), 0, FORMAT,
     "overflows"},
    {"bytes overflow", ONE("F64", "2305843009213693952", "0,0"), 0, FORMAT, "overflows"},
    /* well-formed, but not for novaq */
    {"F4", ONE("F4", "2", "0,1"), 1, UNSUP, "F4"},
    {"F4 misaligned", ONE("F4", "1", "0,1"), 1, UNSUP, "F4"},
    {"F6_E2M3", ONE("F6_E2M3", "4", "0,3"), 3, UNSUP, "F6_E2M3"},
    {"F6_E3M2", ONE("F6_E3M2", "4", "0,3"), 3, UNSUP, "F6_E3M2"},
    {"F8_E8M0", ONE("F8_E8M0", "1", "0,1"), 1, UNSUP, "F8_E8M0"},
    {"C64", ONE("C64", "1", "0,8"), 8, UNSUP, "C64"},
    {"9 dimensions", ONE("U8", "1,1,1,1,1,1,1,1,1", "0,1"), 1, UNSUP, "9 dimensions"},
    /* accepted */
    {"no tensors", "{}", 0, OK_, NULL},
    {"metadata only", "{\"__metadata__\":{\"format\":\"pt\"}}", 0, OK_, NULL},
    {"metadata null", "{\"__metadata__\":null}", 0, OK_, NULL},
    {"trailing white space", "{} \t\r\n   ", 0, OK_, NULL},
    {"leading white space", " \n {}", 0, OK_, NULL},
    {"rank 0", ONE("F32", "", "0,4"), 4, OK_, NULL},
    {"8 dimensions", ONE("U8", "1,1,1,1,1,1,1,1", "0,1"), 1, OK_, NULL},
    {"empty tensor", ONE("F32", "0", "0,0"), 0, OK_, NULL},
    {"[0, huge, huge]", ONE("F32", "0," HUGE_ "," HUGE_, "0,0"), 0, OK_, NULL},
    {"dimension 2^64-1 times 0", ONE("U8", "0,18446744073709551615", "0,0"), 0, OK_, NULL},
    {"empty tensors at one offset",
     "{\"z\":" T("U8", "0", "2,2") ",\"b\":" T("U8", "2", "0,2") ",\"y\":" T(
         "U8", "0", "2,2") ",\"c\":" T("U8", "1", "2,3") ",\"x\":" T("U8", "0", "0,0") "}",
     3, OK_, NULL},
    {"any order of entries",
     "{\"c\":" T("U8", "1", "2,3") ",\"a\":" T("U8", "1", "0,1") ",\"b\":" T("U8", "1", "1,2") "}",
     3, OK_, NULL},
    {"any order of fields", "{\"a\":{\"data_offsets\":[0,2],\"shape\":[1],\"dtype\":\"F16\"}}", 2,
     OK_, NULL},
    {"unknown field", "{\"a\":{" U8_1 ",\"x\":{\"y\":[1,-2.5e3,true,false,null,\"s\"]}}}", 1, OK_,
     NULL},
    {"unknown huge number", "{\"a\":{" U8_1 ",\"x\":123456789012345678901234567890}}", 1, OK_,
     NULL},
    {"empty name", "{\"\":{" U8_1 "}}", 1, OK_, NULL},
    {"escapes and Unicode", "{\"\\u00e9\\ud83d\\ude00\\n\\/\xC3\xA9\":{" U8_1 "}}", 1, OK_, NULL},
    {"white space everywhere",
     "{ \"a\" : { \"dtype\" : \"U8\" , \"shape\" : [ 1 , 1 ] ,\n\"data_offsets\" : [ 0 , 1 ] } }",
     1, OK_, NULL},
    {"all plain types",
     "{\"a\":" T("F64", "1", "0,8") ",\"b\":" T("F32", "1", "8,12") ",\"c\":" T("F16", "1", "12,14") ",\"d\":" T("BF16", "1", "14,16") ",\"e\":" T("F8_E4M3", "1", "16,17") ",\"f\":" T(
         "F8_E5M2", "1",
         "17,18") ",\"g\":" T("I64", "1",
                              "18,26") ",\"h\":" T("I32", "1",
                                                   "26,30") ",\"i\":" T("I16", "1",
                                                                        "30,32") ",\"j\":" T("I8",
                                                                                             "1",
                                                                                             "32,"
                                                                                             "33") ",\"k\":" T("U64",
                                                                                                               "1",
                                                                                                               "33,41") ",\"l\":" T("U32",
                                                                                                                                    "1",
                                                                                                                                    "41,45") ",\"m\":" T("U16",
                                                                                                                                                         "1",
                                                                                                                                                         "45,47") ",\"n\":" T("U8",
                                                                                                                                                                              "1",
                                                                                                                                                                              "47,48") ",\"o\":" T("BOOL",
                                                                                                                                                                                                   "1",
                                                                                                                                                                                                   "48,49") "}",
     49, OK_, NULL},
};

static void test_json_table(void **state) {
    (void)state;
    char dir[512];
    temp_dir(dir, sizeof dir);
    for (size_t i = 0; i < sizeof json_cases / sizeof json_cases[0]; i++) {
        const json_case *c = &json_cases[i];
        bytes b = {0};
        file_of(&b, c->json, strlen(c->json), c->data);
        check_bytes(dir, "case.safetensors", &b, &(bad_case){c->name, NULL, c->want, c->says});
        bytes_free(&b);
    }
    remove_dir(dir);
}

/* ---- cases that need more than text --------------------------------------- */

static void c_empty_file(bytes *b) { put(b, "", 0); }
static void c_seven_bytes(bytes *b) { put_fill(b, 0, 7); }
static void c_n0(bytes *b) { put_int(b, 0, 8); }
static void c_n0_with_data(bytes *b) {
    put_int(b, 0, 8);
    put(b, "{}", 2);
}
static void c_n_past_end(bytes *b) {
    put_int(b, 3, 8);
    put(b, "{}", 2);
}
static void c_n_huge(bytes *b) {
    put_int(b, 100000001, 8);
    put(b, "{}", 2);
}
static void c_n_max_past_end(bytes *b) {
    put_int(b, 100000000, 8);
    put(b, "{}", 2);
}
static void c_n_minus1(bytes *b) {
    put_int(b, UINT64_MAX, 8);
    put(b, "{}", 2);
}
static void c_n_wraps(bytes *b) { /* 8 + N = 2^64 */
    put_int(b, UINT64_MAX - 7, 8);
    put(b, "{}", 2);
}
static void c_trailing_nul(bytes *b) { file_of(b, "{}\0\0", 4, 0); }
static void c_leading_nul(bytes *b) { file_of(b, "\0{}", 3, 0); }
static void c_nul_in_string(bytes *b) {
    static const char json[] = "{\"__metadata__\":{\"a\0b\":\"\"}}";
    file_of(b, json, sizeof json - 1, 0);
}
static void c_nul_in_name(bytes *b) {
    static const char json[] = "{\"a\0b\":{" U8_1 "}}";
    file_of(b, json, sizeof json - 1, 1);
}
static void repeat(bytes *b, const char *s, size_t n) {
    for (size_t i = 0; i < n; i++) {
        put(b, s, strlen(s));
    }
}
static void deep(bytes *b, size_t levels) {
    bytes json = {0};
    repeat(&json, "{\"a\":{" U8_1 ",\"x\":", 1);
    repeat(&json, "[", levels);
    repeat(&json, "]", levels);
    repeat(&json, "}}", 1);
    file_of(b, (const char *)json.data, json.len, 1);
    bytes_free(&json);
}
static void c_deep_125(bytes *b) { deep(b, 125); }
static void c_deep_126(bytes *b) { deep(b, 126); }
static void c_deep_million(bytes *b) { deep(b, 1000000); }
static void c_open_million(bytes *b) {
    bytes json = {0};
    repeat(&json, "[", 1000000);
    file_of(b, (const char *)json.data, json.len, 0);
    bytes_free(&json);
}
static void c_rank_200(bytes *b) {
    bytes json = {0};
    repeat(&json, "{\"a\":{\"dtype\":\"U8\",\"shape\":[1", 1);
    repeat(&json, ",1", 199);
    repeat(&json, "],\"data_offsets\":[0,1]}}", 1);
    file_of(b, (const char *)json.data, json.len, 1);
    bytes_free(&json);
}
/* The attack of the reference's own tests: very many tensors over one range. */
static void c_100k_overlaps(bytes *b) {
    bytes json = {0};
    put(&json, "{", 1);
    for (unsigned i = 0; i < 100000; i++) {
        char entry[128];
        int n = snprintf(entry, sizeof entry, "%s\"w%u\":" T("F32", "64", "0,256"),
                         i == 0 ? "" : ",", i);
        put(&json, entry, (size_t)n);
    }
    put(&json, "}", 1);
    file_of(b, (const char *)json.data, json.len, 256);
    bytes_free(&json);
}
static void c_long_metadata(bytes *b) {
    bytes json = {0};
    repeat(&json, "{\"__metadata__\":{\"k\":\"", 1);
    put_fill(&json, 'v', 3000000);
    repeat(&json, "\"}}", 1);
    file_of(b, (const char *)json.data, json.len, 0);
    bytes_free(&json);
}

static const bad_case cases[] = {
    {"empty file", c_empty_file, FORMAT, "too few"},
    {"seven bytes", c_seven_bytes, FORMAT, "too few"},
    {"N = 0", c_n0, FORMAT, "does not fit"},
    {"N = 0 with data", c_n0_with_data, FORMAT, "does not fit"},
    {"N past the end", c_n_past_end, FORMAT, "does not fit"},
    {"N above the limit", c_n_huge, FORMAT, "above the limit"},
    {"N at the limit, past the end", c_n_max_past_end, FORMAT, "does not fit"},
    {"N = 2^64-1", c_n_minus1, FORMAT, "above the limit"},
    {"8 + N wraps", c_n_wraps, FORMAT, "above the limit"},
    {"trailing NULs", c_trailing_nul, FORMAT, "after the JSON"},
    {"leading NUL", c_leading_nul, FORMAT, "object"},
    {"raw NUL in a string", c_nul_in_string, FORMAT, "control"},
    {"raw NUL in a name", c_nul_in_name, FORMAT, "control"},
    {"nested 127 deep", c_deep_125, OK_, NULL},
    {"nested 128 deep", c_deep_126, FORMAT, "too deeply"},
    {"nested a million deep", c_deep_million, FORMAT, "too deeply"},
    {"a million brackets", c_open_million, FORMAT, "object"},
    {"200 dimensions", c_rank_200, UNSUP, "200 dimensions"},
    {"100,000 tensors over one range", c_100k_overlaps, FORMAT, "overlaps"},
    {"metadata of 3 MB", c_long_metadata, OK_, NULL},
};

static void test_table(void **state) {
    (void)state;
    run_cases(cases, sizeof cases / sizeof cases[0], "case.safetensors");
}

/* ---- values --------------------------------------------------------------- */

static void test_values(void **state) {
    (void)state;
    static const char json[] =
        "{\"b\":" T("F16", "2,3", "8,20") ","
                                          "\"__metadata__\":{\"x\":\"y\"},"
                                          "\"\\u00e9\\ud83d\\ude00\":" T(
                                              "F32", "2", "0,8") ","
                                                                 "\"s\":" T("I64", "", "20,28") "}";
    bytes b = {0};
    file_of(&b, json, sizeof json - 1, 28);
    mem_source src = mem_open(b.data, b.len);
    nq_safetensors st;
    novaq_error err;
    assert_int_equal(nq_safetensors_parse(&st, &src.base, &err), NOVAQ_OK);
    assert_int_equal(st.count, 3);
    assert_false(st.is_artifact);
    assert_string_equal(st.tensors[0].name, "\xC3\xA9\xF0\x9F\x98\x80");
    assert_int_equal(st.tensors[0].dtype, NQ_F32);
    assert_int_equal(st.tensors[0].offset, 8 + sizeof json - 1);
    assert_string_equal(st.tensors[1].name, "b");
    assert_int_equal(st.tensors[1].rank, 2);
    assert_int_equal(st.tensors[1].shape[0], 2);
    assert_int_equal(st.tensors[1].shape[1], 3);
    assert_int_equal(st.tensors[1].elements, 6);
    assert_int_equal(st.tensors[1].bytes, 12);
    assert_int_equal(st.tensors[1].offset, 8 + sizeof json - 1 + 8);
    assert_int_equal(st.tensors[2].rank, 0);
    assert_int_equal(st.tensors[2].elements, 1);
    nq_safetensors_free(&st);
    bytes_free(&b);
}

/* ---- sweeps --------------------------------------------------------------- */

static void sample(bytes *b) {
    static const char json[] =
        "{\"__metadata__\":{\"format\":\"pt\",\"\\u00e9\":\"\\ud83d\\ude00\"},\"w\":" T(
            "BF16", "2,3", "0,12") ",\"e\":" T("F32", "0,7",
                                               "12,12") ",\"\xC3\xA9\":" T("U8", "5", "12,17") "}";
    file_of(b, json, sizeof json - 1, 17);
}

/* An exact copy on the heap, so that reading past it is seen. */
static novaq_status parse_copy(const uint8_t *data, size_t len) {
    uint8_t *copy = malloc(len + (len == 0));
    assert_non_null(copy);
    memcpy(copy, data, len);
    mem_source src = mem_open(copy, len);
    nq_safetensors s;
    novaq_error err = {.code = NOVAQ_OK, .msg = ""};
    novaq_status st = nq_safetensors_parse(&s, &src.base, &err);
    if (st == NOVAQ_OK) {
        uint64_t total = 0;
        for (size_t i = 0; i < s.count; i++) {
            assert_true(s.tensors[i].offset <= len &&
                        s.tensors[i].bytes <= len - s.tensors[i].offset);
            total += s.tensors[i].bytes;
        }
        assert_true(total <= len - 8);
        nq_safetensors_free(&s);
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
    put_fill(&b, 0, 1);
    assert_int_equal(parse_copy(b.data, b.len), NOVAQ_E_FORMAT);
    bytes_free(&b);
}

static void test_mutation(void **state) {
    (void)state;
    bytes b = {0};
    sample(&b);
    size_t accepted = 0;
    for (size_t i = 0; i < b.len; i++) {
        uint8_t was = b.data[i];
        for (unsigned v = 0; v < 256; v++) {
            b.data[i] = (uint8_t)v;
            accepted += parse_copy(b.data, b.len) == NOVAQ_OK;
        }
        b.data[i] = was;
    }
    assert_true(accepted > 0); /* names and data may change freely */
    bytes_free(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_json_table), cmocka_unit_test(test_table),
        cmocka_unit_test(test_values),     cmocka_unit_test(test_truncation),
        cmocka_unit_test(test_mutation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
