/* tokenizer_util.h - what the tests of tokenizers share: fixtures, and opening and
 * encoding that must not fail.
 *
 * Owns: paths of the fixtures. Refuses: checks of their own.
 */
#ifndef NQ_TESTS_TOKENIZER_UTIL_H
#define NQ_TESTS_TOKENIZER_UTIL_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "base/mem.h"
#include "model/describe.h"
#include "model/tokenizer.h"

#define TOKENIZER_UNUSED __attribute__((unused))

TOKENIZER_UNUSED static json_t *load(const char *name) {
    char path[512];
    (void)snprintf(path, sizeof path, FIXTURES "/tokenizer/%s.json", name);
    json_error_t e;
    json_t *v = json_load_file(path, JSON_REJECT_DUPLICATES, &e);
    assert_non_null(v);
    return v;
}

/* The description of a fixture, by way of its tokenizer.json. */
TOKENIZER_UNUSED static json_t *describe(const char *kind) {
    json_t *fixture = load(kind);
    json_t *desc = NULL;
    char *why = NULL;
    novaq_error err = {0};
    assert_int_equal(nq_describe_tokenizer_hf(&desc, &why, json_object_get(fixture, "tokenizer"),
                                              json_object_get(fixture, "config"), &err),
                     NOVAQ_OK);
    if (why != NULL) {
        fail_msg("%s: %s", kind, why);
    }
    json_decref(fixture);
    return desc;
}

TOKENIZER_UNUSED static nq_tokenizer *open_desc(const json_t *desc) {
    nq_tokenizer *t = NULL;
    novaq_error err = {0};
    if (nq_tokenizer_open(&t, desc, &err) != NOVAQ_OK) {
        fail_msg("%s", err.msg);
    }
    return t;
}

TOKENIZER_UNUSED static nq_tokenizer *open_kind(const char *kind) {
    json_t *desc = describe(kind);
    nq_tokenizer *t = open_desc(desc);
    json_decref(desc);
    return t;
}

TOKENIZER_UNUSED static size_t encode(int32_t **ids, const nq_tokenizer *t, const char *text,
                                      size_t len, int parse_special) {
    size_t count = 0;
    novaq_error err = {0};
    if (nq_tokenizer_encode(ids, &count, t, text, len, 0, parse_special, &err) != NOVAQ_OK) {
        fail_msg("%s", err.msg);
    }
    return count;
}

TOKENIZER_UNUSED static double seconds(void) {
    struct timespec ts;
    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + 1e-9 * (double)ts.tv_nsec;
}

#endif
