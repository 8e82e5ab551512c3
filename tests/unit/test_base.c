/* test_base.c - the base layer: status, memory, buffers, cursor, half floats,
 * random numbers, strict JSON. Half conversions are compared with a definition
 * written here from ldexp() and nearest-even in binary64, not with themselves. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "base/cpu.h"
#include "base/cursor.h"
#include "base/half.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/rng.h"

/* ---- status ------------------------------------------------------------- */

static novaq_status fail_then_more(novaq_error *err, int *went_on) {
    NQ_TRY(nq_fail(err, NOVAQ_E_ARG, "first"));
    *went_on = 1;
    return NOVAQ_OK;
}

static void test_status_messages(void **state) {
    (void)state;
    novaq_error err;
    assert_int_equal(nq_fail(&err, NOVAQ_E_FORMAT, "%s: at %d", "a.gguf", 24), NOVAQ_E_FORMAT);
    assert_int_equal(err.code, NOVAQ_E_FORMAT);
    assert_string_equal(err.msg, "a.gguf: at 24");
    assert_int_equal(nq_fail_context(&err, err.code, "layer %d", 3), NOVAQ_E_FORMAT);
    assert_string_equal(err.msg, "layer 3: a.gguf: at 24");
    assert_int_equal(nq_fail(NULL, NOVAQ_E_IO, "nobody listens"), NOVAQ_E_IO);

    int went_on = 0;
    assert_int_equal(fail_then_more(&err, &went_on), NOVAQ_E_ARG);
    assert_int_equal(went_on, 0);
}

static void test_status_one_line(void **state) {
    (void)state;
    novaq_error err;
    (void)nq_fail(&err, NOVAQ_E_FORMAT, "name \"%s\"", "a\nb\x1b[2J\x7f");
    assert_string_equal(err.msg, "name \"a?b?[2J?\"");

    char longer[2000];
    memset(longer, 'x', sizeof longer - 1);
    longer[sizeof longer - 1] = '\0';
    (void)nq_fail(&err, NOVAQ_E_ARG, "%s", longer);
    assert_int_equal(strlen(err.msg), sizeof err.msg - 1);
    (void)nq_fail_context(&err, NOVAQ_E_ARG, "context");
    assert_memory_equal(err.msg, "context: xxx", 12);
    assert_int_equal(strlen(err.msg), sizeof err.msg - 1);
}

static void test_status_errno(void **state) {
    (void)state;
    novaq_error err;
    assert_int_equal(nq_fail_errno(&err, NOVAQ_E_IO, ENOENT, "open %s", "x"), NOVAQ_E_IO);
    assert_string_equal(err.msg, "open x: No such file or directory");
    assert_int_equal(nq_fail_errno(&err, NOVAQ_E_IO, ENOSPC, "write"), NOVAQ_E_NOSPACE);
    assert_int_equal(nq_fail_errno(&err, NOVAQ_E_IO, EDQUOT, "write"), NOVAQ_E_NOSPACE);
    assert_int_equal(err.code, NOVAQ_E_NOSPACE);
}

static void test_status_names(void **state) {
    (void)state;
    for (int s = NOVAQ_E_NOSPACE; s <= NOVAQ_OK; s++) {
        for (int t = NOVAQ_E_NOSPACE; t < s; t++) {
            assert_string_not_equal(novaq_status_name((novaq_status)s),
                                    novaq_status_name((novaq_status)t));
        }
    }
    assert_string_equal(novaq_status_name((novaq_status)77), "unknown status");
}

/* ---- memory ------------------------------------------------------------- */

static void test_mem_arithmetic(void **state) {
    (void)state;
    uint64_t v = 1;
    assert_true(nq_mul_u64(UINT64_C(1) << 32, (UINT64_C(1) << 32) - 1, &v));
    assert_true(v == UINT64_MAX - UINT32_MAX);
    assert_false(nq_mul_u64(UINT64_C(1) << 32, UINT64_C(1) << 32, &v));
    assert_true(v == 0);
    assert_true(nq_add_u64(UINT64_MAX - 1, 1, &v));
    assert_true(v == UINT64_MAX);
    assert_false(nq_add_u64(UINT64_MAX, 1, &v));
    assert_true(v == 0);
}

static void test_mem_alloc(void **state) {
    (void)state;
    novaq_error err;
    uint8_t *p = NULL;
    assert_int_equal(nq_alloc(&p, 1000, 3, &err), NOVAQ_OK);
    assert_int_equal((uintptr_t)p % 64, 0);
    for (size_t i = 0; i < 3000; i++) {
        assert_int_equal(p[i], 0);
    }
    nq_free(p);
    assert_int_equal(nq_alloc(&p, 0, 8, &err), NOVAQ_OK);
    assert_non_null(p);
    nq_free(p);
    nq_free(NULL);
}

static void test_mem_refuses(void **state) {
    (void)state;
    novaq_error err;
    void *p = &err;
    assert_int_equal(nq_alloc(&p, UINT64_MAX / 2, 3, &err), NOVAQ_E_MEMORY);
    assert_null(p);
    p = &err;
    assert_int_equal(nq_alloc_raw(&p, NQ_ALLOC_MAX + 1, 1, &err), NOVAQ_E_MEMORY);
    assert_null(p);
    assert_non_null(strstr(err.msg, "refusing"));
}

static void test_mem_grow(void **state) {
    (void)state;
    novaq_error err;
    uint32_t *p = NULL;
    assert_int_equal(nq_grow(&p, 0, 4, sizeof *p, &err), NOVAQ_OK);
    for (uint32_t i = 0; i < 4; i++) {
        p[i] = i + 1;
    }
    assert_int_equal(nq_grow(&p, 4, 100, sizeof *p, &err), NOVAQ_OK);
    for (uint32_t i = 0; i < 100; i++) {
        assert_int_equal(p[i], i < 4 ? i + 1 : 0);
    }
    uint32_t *before = p;
    assert_int_equal(nq_grow(&p, 100, UINT64_MAX / 4 + 2, sizeof *p, &err), NOVAQ_E_MEMORY);
    assert_ptr_equal(p, before);
    assert_int_equal(p[3], 4);
    nq_free(p);
}

static void test_mem_strings(void **state) {
    (void)state;
    novaq_error err;
    char *s = NULL;
    assert_int_equal(nq_strndup(&s, "abcdef", 3, &err), NOVAQ_OK);
    assert_string_equal(s, "abc");
    nq_free(s);
    assert_int_equal(nq_strdup(&s, "", &err), NOVAQ_OK);
    assert_string_equal(s, "");
    nq_free(s);
    assert_int_equal(nq_asprintf(&s, &err, "%s-%05d.bin", "chunk", 7), NOVAQ_OK);
    assert_string_equal(s, "chunk-00007.bin");
    novaq_free(s);
}

/* ---- buffer ------------------------------------------------------------- */

static void test_buf_grows(void **state) {
    (void)state;
    novaq_error err;
    nq_buf b = nq_buf_init(1 << 20);
    for (int i = 0; i < 10000; i++) {
        assert_int_equal(nq_buf_printf(&b, &err, "%04d,", i), NOVAQ_OK);
    }
    assert_int_equal(b.len, 50000);
    assert_int_equal(b.data[b.len], 0);
    assert_memory_equal(b.data + 5 * 1234, "1234,", 5);
    assert_int_equal(nq_buf_zeros(&b, 3, &err), NOVAQ_OK);
    assert_memory_equal(b.data + 49999, ",\0\0\0", 4);

    char *taken = NULL;
    size_t len = 0;
    assert_int_equal(nq_buf_take(&b, &taken, &len, &err), NOVAQ_OK);
    assert_int_equal(len, 50003);
    assert_int_equal(b.len, 0);
    assert_int_equal(nq_buf_puts(&b, "again", &err), NOVAQ_OK);
    assert_string_equal((char *)b.data, "again");
    nq_free(taken);
    nq_buf_free(&b);
    nq_buf_free(&b);
}

static void test_buf_limit(void **state) {
    (void)state;
    novaq_error err;
    nq_buf b = nq_buf_init(8);
    assert_int_equal(nq_buf_puts(&b, "1234", &err), NOVAQ_OK);
    assert_int_equal(nq_buf_puts(&b, "56789", &err), NOVAQ_E_MEMORY);
    assert_int_equal(b.len, 4);
    assert_int_equal(nq_buf_printf(&b, &err, "%s", "56789"), NOVAQ_E_MEMORY);
    assert_int_equal(nq_buf_zeros(&b, SIZE_MAX, &err), NOVAQ_E_MEMORY);
    assert_int_equal(nq_buf_puts(&b, "5678", &err), NOVAQ_OK);
    assert_string_equal((char *)b.data, "12345678");
    assert_int_equal(nq_buf_append(&b, "", 0, &err), NOVAQ_OK);
    nq_buf_free(&b);
}

static void test_buf_take_empty(void **state) {
    (void)state;
    novaq_error err;
    nq_buf b = nq_buf_init(16);
    char *s = NULL;
    assert_int_equal(nq_buf_take(&b, &s, NULL, &err), NOVAQ_OK);
    assert_string_equal(s, "");
    nq_free(s);
}

/* ---- cursor ------------------------------------------------------------- */

static void test_cursor_reads(void **state) {
    (void)state;
    static const uint8_t bytes[] = {0x01, 0x34, 0x12, 0x78, 0x56, 0x34, 0x12, 0xEF, 0xCD,
                                    0xAB, 0x89, 0x67, 0x45, 0x23, 0x01, 0x00, 0x00, 0xC0,
                                    0x3F, 0,    0,    0,    0,    0,    0,    0x04, 0xC0};
    nq_cursor c = nq_cursor_init("t", bytes, sizeof bytes, 100);
    assert_int_equal(nq_cursor_u8(&c), 1);
    assert_int_equal(nq_cursor_u16(&c), 0x1234);
    assert_int_equal(nq_cursor_u32(&c), 0x12345678);
    assert_true(nq_cursor_u64(&c) == UINT64_C(0x0123456789ABCDEF));
    assert_true(nq_cursor_f32(&c) == 1.5F);
    assert_true(nq_cursor_f64(&c) == -2.5);
    assert_int_equal(nq_cursor_left(&c), 0);
    assert_true(nq_cursor_has(&c, 0));
    assert_false(c.failed);
}

static void test_cursor_stays_failed(void **state) {
    (void)state;
    static const uint8_t bytes[] = {1, 2, 3, 4, 5};
    nq_cursor c = nq_cursor_init("t", bytes, sizeof bytes, 0);
    assert_int_equal(nq_cursor_u32(&c), 0x04030201);
    assert_int_equal(nq_cursor_u32(&c), 0); /* one byte is left: nothing is read of it */
    assert_true(c.failed);
    assert_int_equal(nq_cursor_u8(&c), 0);
    assert_int_equal(nq_cursor_left(&c), 0);
    assert_null(nq_cursor_bytes(&c, 1));

    c = nq_cursor_init("t", bytes, sizeof bytes, 0);
    (void)nq_cursor_u8(&c);
    assert_null(nq_cursor_bytes(&c, UINT64_MAX)); /* pos + n would wrap */
    assert_true(c.failed);
}

/* ---- half floats -------------------------------------------------------- */

/* The value of a small float with e exponent bits and m mantissa bits, from the
 * definition; infinities and NaNs as IEEE 754 has them. */
static double small_float(unsigned bits, int e, int m) {
    int exp = (int)(bits >> m) & ((1 << e) - 1);
    int man = (int)bits & ((1 << m) - 1);
    int bias = (1 << (e - 1)) - 1;
    double v;
    if (exp == (1 << e) - 1) {
        v = man == 0 ? INFINITY : NAN;
    } else if (exp == 0) {
        v = ldexp(man, 1 - bias - m);
    } else {
        v = ldexp((1 << m) + man, exp - bias - m);
    }
    return ((bits >> (e + m)) & 1U) != 0 ? -v : v;
}

/* Nearest-even rounding of v to that format, by scaling to units in the last
 * place and rint() in binary64 (exact for every float). */
static unsigned round_to_small(double v, int e, int m) {
    unsigned sign = signbit(v) ? 1U << (e + m) : 0;
    unsigned infinite = (unsigned)((1 << e) - 1) << m;
    double a = fabs(v);
    int bias = (1 << (e - 1)) - 1;
    if (isinf(v)) {
        return sign | infinite;
    }
    int exp = 0;
    (void)frexp(a, &exp); /* a = f * 2^exp, f in [0.5, 1) */
    int unit = exp - 1 < 1 - bias ? 1 - bias - m : exp - 1 - m;
    double q = rint(ldexp(a, -unit)); /* multiples of 2^unit */
    double rounded = ldexp(q, unit);
    if (rounded >= ldexp(1, bias + 1)) {
        return sign | infinite;
    }
    if (rounded < ldexp(1, 1 - bias)) {
        return sign | (unsigned)ldexp(rounded, bias - 1 + m);
    }
    (void)frexp(rounded, &exp);
    unsigned man = (unsigned)ldexp(rounded, m - (exp - 1)) - (1U << m);
    return sign | (unsigned)(exp - 1 + bias) << m | man;
}

static void check_to_f16(float f) {
    unsigned want = round_to_small((double)f, 5, 10);
    if (nq_f32_to_f16(f) != want) {
        fail_msg("%a: got %04x, want %04x", (double)f, nq_f32_to_f16(f), want);
    }
    want = round_to_small((double)f, 8, 7);
    if (nq_f32_to_bf16(f) != want) {
        fail_msg("%a: bf16 got %04x, want %04x", (double)f, nq_f32_to_bf16(f), want);
    }
}

static void test_f16_every_value(void **state) {
    (void)state;
    for (unsigned h = 0; h < 65536; h++) {
        double want = small_float(h, 5, 10);
        float got = nq_f16_to_f32((uint16_t)h);
        if (isnan(want)) {
            assert_true(isnan(got));
            assert_true(isnan(nq_f16_to_f32(nq_f32_to_f16(got))));
            continue;
        }
        assert_true((double)got == want);
        assert_int_equal(signbit(got) != 0, h >> 15);
        assert_int_equal(nq_f32_to_f16(got), h);
    }
}

static void test_bf16_every_value(void **state) {
    (void)state;
    for (unsigned h = 0; h < 65536; h++) {
        double want = small_float(h, 8, 7);
        float got = nq_bf16_to_f32((uint16_t)h);
        if (isnan(want)) {
            assert_true(isnan(got));
            assert_true(isnan(nq_bf16_to_f32(nq_f32_to_bf16(got))));
            continue;
        }
        assert_true((double)got == want);
        assert_int_equal(nq_f32_to_bf16(got), h);
    }
}

/* Every f16 value, the midpoint to its successor, and one float to either side
 * of both: all places where rounding can go wrong. */
static void test_f16_rounding_edges(void **state) {
    (void)state;
    for (unsigned h = 0; h < 0x7C00; h++) {
        float lo = nq_f16_to_f32((uint16_t)h);
        float hi = h + 1 == 0x7C00 ? 65536.0F : nq_f16_to_f32((uint16_t)(h + 1));
        float mid = (lo + hi) / 2; /* exact: one bit more than f16 */
        const float base[] = {lo, mid};
        for (size_t i = 0; i < 2; i++) {
            check_to_f16(base[i]);
            check_to_f16(-base[i]);
            check_to_f16(nextafterf(base[i], INFINITY));
            check_to_f16(nextafterf(base[i], -INFINITY));
        }
    }
    check_to_f16(INFINITY);
    check_to_f16(-INFINITY);
    check_to_f16(3.4e38F);
    check_to_f16(-0.0F);
}

static void test_f16_random_floats(void **state) {
    (void)state;
    for (uint64_t i = 0; i < 2000000; i++) {
        uint32_t u = (uint32_t)(nq_hash3(7, 0, i) >> 32);
        float f;
        memcpy(&f, &u, sizeof f);
        if (!isnan(f)) {
            check_to_f16(f);
        }
    }
}

static void test_f8_every_value(void **state) {
    (void)state;
    for (unsigned b = 0; b < 256; b++) {
        double want = small_float(b, 5, 2);
        float got = nq_f8_e5m2_to_f32((uint8_t)b);
        assert_true(isnan(want) ? isnan(got) : (double)got == want);

        /* E4M3FN: exponent 15 is ordinary, only S.1111.111 is NaN. */
        int exp = (int)(b >> 3) & 15;
        int man = (int)b & 7;
        want = exp == 0 ? ldexp(man, -9) : ldexp(8 + man, exp - 10);
        want = b >= 128 ? -want : want;
        got = nq_f8_e4m3_to_f32((uint8_t)b);
        assert_true((b & 127) == 127 ? isnan(got) : (double)got == want);
    }
    assert_true(nq_f8_e4m3_to_f32(0x7E) == 448.0F);
}

/* ---- random numbers ----------------------------------------------------- */

/* Golden values, computed from the definition in rng.h with Python integers:
 * an artifact's bytes depend on them, so they may never change. */
static void test_rng_golden(void **state) {
    (void)state;
    assert_true(nq_hash3(0, 0, 0) == UINT64_C(0xD37690236F2CBF70));
    assert_true(nq_hash3(42, 0, 0) == UINT64_C(0x817355F179400CCC));
    assert_true(nq_hash3(42, 7, 123456789) == UINT64_C(0x20D75DC23E500983));
    assert_true(nq_hash3(UINT64_MAX, UINT64_MAX, UINT64_MAX) == UINT64_C(0x74B735A75566E3A1));
    assert_true(nq_stream("") == UINT64_C(0xCBF29CE484222325));
    assert_true(nq_stream("a") == UINT64_C(0xAF63DC4C8601EC8C)); /* FNV-1a's own test vector */
    assert_true(nq_stream("blk.0.attn_q.weight") == UINT64_C(0xB2D88A5454E26C3B));
    assert_true(nq_uniform(42, 7, 0) == 0x1.1758a35b99ae0p-4);
}

static void test_rng_moments(void **state) {
    (void)state;
    const uint64_t n = 200000;
    double sum = 0, sq = 0, fourth = 0, uniform = 0;
    for (uint64_t i = 0; i < n; i++) {
        double x = nq_normal(1, 2, i);
        double u = nq_uniform(3, 4, i);
        assert_true(isfinite(x));
        assert_true(u >= 0 && u < 1);
        sum += x;
        sq += x * x;
        fourth += x * x * x * x;
        uniform += u;
    }
    double count = (double)n;
    assert_true(fabs(sum / count) < 0.01); /* over four standard errors each */
    assert_true(fabs(sq / count - 1) < 0.015);
    assert_true(fabs(fourth / count - 3) < 0.1);
    assert_true(fabs(uniform / count - 0.5) < 0.003);
}

/* ---- JSON --------------------------------------------------------------- */

static novaq_status parse(json_t **out, const char *text, size_t len, novaq_error *err) {
    return nq_json_parse(out, "t.json", text, len, err);
}

static void test_json_refuses(void **state) {
    (void)state;
    static const char *const bad[] = {"",
                                      "{",
                                      "{}x",
                                      "{} {}",
                                      "[1,]",
                                      "{\"a\":1,\"a\":2}",
                                      "{a:1}",
                                      "{'a':1}",
                                      "[01]",
                                      "[1.]",
                                      "[.5]",
                                      "[+1]",
                                      "[NaN]",
                                      "[Infinity]",
                                      "\"\xff\"",
                                      "\"\\x\"",
                                      "\"\\ud800\"",
                                      "\"a\nb\"",
                                      "[1e999]",
                                      "nul",
                                      "// c\n[1]",
                                      "[\"\\u0000\"]",
                                      "{\"\\u0000\":1}",
                                      "\xef\xbb\xbf{}",
                                      "{\"a\":{\"b\":1,\"b\":1}}"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        json_t *v = NULL;
        novaq_error err;
        if (parse(&v, bad[i], strlen(bad[i]), &err) != NOVAQ_E_FORMAT) {
            fail_msg("accepted: %s", bad[i]);
        }
        assert_null(v);
        assert_non_null(strstr(err.msg, "t.json"));
    }
    json_t *v = NULL;
    assert_int_equal(parse(&v, "[1]\0", 4, NULL), NOVAQ_E_FORMAT);
}

/* Published tokenizer_config.json files hold 10^30 as an integer. */
static void test_json_large_integers(void **state) {
    static const char text[] =
        "{\"a\": 1000000000000000019884624838656, \"b\": 9223372036854775807,"
        " \"c\": -99999999999999999999, \"d\": \"\\\"99999999999999999999\","
        " \"e\": [99999999999999999999.5, 99999999999999999999e1, 18]}";
    json_t *v = NULL;
    (void)state;
    assert_int_equal(parse(&v, text, sizeof text - 1, NULL), NOVAQ_OK);
    assert_true(json_is_real(json_object_get(v, "a")));
    assert_true(json_real_value(json_object_get(v, "a")) == 1000000000000000019884624838656.0);
    assert_true(json_integer_value(json_object_get(v, "b")) == INT64_MAX);
    assert_true(json_real_value(json_object_get(v, "c")) == -1e20);
    assert_string_equal(json_string_value(json_object_get(v, "d")), "\"99999999999999999999");
    const json_t *e = json_object_get(v, "e");
    assert_true(json_real_value(json_array_get(e, 0)) == 1e20);
    assert_true(json_real_value(json_array_get(e, 1)) == 1e21);
    assert_int_equal(json_integer_value(json_array_get(e, 2)), 18);
    json_decref(v);
    char digits[400];
    memset(digits, '9', sizeof digits); /* of no real number either */
    assert_int_equal(parse(&v, digits, sizeof digits, NULL), NOVAQ_E_FORMAT);
    assert_null(v);
}

static void test_json_depth(void **state) {
    (void)state;
    char text[400];
    json_t *v = NULL;
    memset(text, '[', 64);
    memset(text + 64, ']', 64);
    assert_int_equal(parse(&v, text, 128, NULL), NOVAQ_OK);
    json_decref(v);
    memset(text, '[', 65);
    memset(text + 65, ']', 65);
    assert_int_equal(parse(&v, text, 130, NULL), NOVAQ_E_FORMAT);
    /* Brackets inside strings do not count, escaped quotes do not end them. */
    int n = snprintf(text, sizeof text, "[\"\\\"%.*s\"]", 100,
                     "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[["
                     "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[");
    assert_int_equal(parse(&v, text, (size_t)n, NULL), NOVAQ_OK);
    json_decref(v);
}

static void test_json_getters(void **state) {
    (void)state;
    static const char text[] = "{\"n\":3,\"neg\":-1,\"x\":2.5,\"s\":\"hi\",\"o\":{},\"a\":[]}";
    json_t *v = NULL;
    novaq_error err;
    assert_int_equal(nq_json_parse_object(&v, "t", text, sizeof text - 1, &err), NOVAQ_OK);
    uint64_t n = 9;
    double x = 9;
    const char *s = NULL;
    const json_t *sub = NULL;
    assert_int_equal(nq_json_get_u64(&n, v, "n", "here", &err), NOVAQ_OK);
    assert_int_equal(n, 3);
    assert_int_equal(nq_json_get_u64(&n, v, "neg", "here", &err), NOVAQ_E_FORMAT);
    assert_int_equal(nq_json_get_u64(&n, v, "x", "here", &err), NOVAQ_E_FORMAT);
    assert_non_null(strstr(err.msg, "here: \"x\""));
    assert_int_equal(nq_json_get_f64(&x, v, "x", "here", &err), NOVAQ_OK);
    assert_true(x == 2.5);
    assert_int_equal(nq_json_get_f64(&x, v, "n", "here", &err), NOVAQ_OK);
    assert_int_equal(nq_json_get_f64(&x, v, "s", "here", &err), NOVAQ_E_FORMAT);
    assert_int_equal(nq_json_get_string(&s, v, "s", "here", &err), NOVAQ_OK);
    assert_string_equal(s, "hi");
    assert_int_equal(nq_json_get_string(&s, v, "absent", "here", &err), NOVAQ_E_FORMAT);
    assert_int_equal(nq_json_get_object(&sub, v, "o", "here", &err), NOVAQ_OK);
    assert_int_equal(nq_json_get_object(&sub, v, "a", "here", &err), NOVAQ_E_FORMAT);
    assert_int_equal(nq_json_get_array(&sub, v, "a", "here", &err), NOVAQ_OK);
    assert_int_equal(nq_json_get_array(&sub, v, "o", "here", &err), NOVAQ_E_FORMAT);
    json_decref(v);
    assert_int_equal(nq_json_parse_object(&v, "t", "[1]", 3, &err), NOVAQ_E_FORMAT);
    assert_null(v);
}

static void test_json_dump(void **state) {
    (void)state;
    static const char text[] = "{\"z\":1,\"a\":[true,null,\"\\u00e9\"],\"m\":0.5}";
    json_t *v = NULL;
    char *out = NULL;
    assert_int_equal(parse(&v, text, sizeof text - 1, NULL), NOVAQ_OK);
    assert_int_equal(nq_json_dump(&out, v, 0, NULL), NOVAQ_OK);
    assert_string_equal(out, "{\"z\":1,\"a\":[true,null,\"\xc3\xa9\"],\"m\":0.5}");
    nq_free(out);
    json_decref(v);
}

/* ---- CPU ---------------------------------------------------------------- */

static void test_cpu_names(void **state) {
    (void)state;
    assert_string_equal(nq_cpu_level_name(0), "scalar");
    assert_string_equal(nq_cpu_level_name(NQ_CPU_AVX2), "avx2");
    assert_string_equal(nq_cpu_level_name(NQ_CPU_AVX2 | NQ_CPU_AVX512), "avx512");
    assert_string_equal(nq_cpu_level_name(NQ_CPU_NEON), "neon");
    assert_true(nq_cpu_count() >= 1);
}

/* The list that is printed has every level, and nothing else is one. */
static void test_cpu_list(void **state) {
    (void)state;
    char list[] = NQ_CPU_NAMES;
    char *rest = list;
    unsigned count = 0;
    for (char *name; (name = strtok_r(rest, ", ", &rest)) != NULL; count++) {
        assert_true(nq_cpu_is_name(name));
    }
    assert_int_equal(count, 7);
    for (unsigned features = 0; features < 128; features++) {
        char wanted[32];
        (void)snprintf(wanted, sizeof wanted, ", %s,", nq_cpu_level_name(features));
        assert_non_null(strstr(", " NQ_CPU_NAMES ",", wanted));
    }
    assert_false(nq_cpu_is_name("avx"));
    assert_false(nq_cpu_is_name("AVX2"));
    assert_false(nq_cpu_is_name(""));
}

/* What a control group may say, and what it does not say. */
static void test_memory_limit(void **state) {
    (void)state;
    assert_true(nq_memory_limit("max\n") == UINT64_MAX);
    assert_true(nq_memory_limit("1073741824\n") == UINT64_C(1) << 30);
    assert_true(nq_memory_limit("4096") == 4096);
    assert_true(nq_memory_limit("9223372036854771712\n") == UINT64_C(9223372036854771712));
    static const char *const none[] = {
        "", "\n", "0\n", "-1\n", " 5", "5 6", "12k", "0x10", "99999999999999999999999\n"};
    for (size_t i = 0; i < sizeof none / sizeof none[0]; i++) {
        assert_true(nq_memory_limit(none[i]) == UINT64_MAX);
    }
    uint64_t memory = nq_physical_memory();
    assert_true(memory >= UINT64_C(1) << 26 && memory < UINT64_C(1) << 50);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_status_messages),
        cmocka_unit_test(test_status_one_line),
        cmocka_unit_test(test_status_errno),
        cmocka_unit_test(test_status_names),
        cmocka_unit_test(test_memory_limit),
        cmocka_unit_test(test_mem_arithmetic),
        cmocka_unit_test(test_mem_alloc),
        cmocka_unit_test(test_mem_refuses),
        cmocka_unit_test(test_mem_grow),
        cmocka_unit_test(test_mem_strings),
        cmocka_unit_test(test_buf_grows),
        cmocka_unit_test(test_buf_limit),
        cmocka_unit_test(test_buf_take_empty),
        cmocka_unit_test(test_cursor_reads),
        cmocka_unit_test(test_cursor_stays_failed),
        cmocka_unit_test(test_f16_every_value),
        cmocka_unit_test(test_bf16_every_value),
        cmocka_unit_test(test_f16_rounding_edges),
        cmocka_unit_test(test_f16_random_floats),
        cmocka_unit_test(test_f8_every_value),
        cmocka_unit_test(test_rng_golden),
        cmocka_unit_test(test_rng_moments),
        cmocka_unit_test(test_json_refuses),
        cmocka_unit_test(test_json_depth),
        cmocka_unit_test(test_json_large_integers),
        cmocka_unit_test(test_json_getters),
        cmocka_unit_test(test_json_dump),
        cmocka_unit_test(test_cpu_names),
        cmocka_unit_test(test_cpu_list),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
