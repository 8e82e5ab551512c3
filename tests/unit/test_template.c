/* test_template.c - chat templates against jinja2 (tests/fixtures/template), and
 * what hostile ones may not do. */
#include "model_util.h"

#include "model/template.h"

static const char *const long_ago = "22 Nov 2026";

/* The moment of jinja_oracle.py. */
static struct tm moment(void) {
    return (struct tm){.tm_year = 126,
                       .tm_mon = 10,
                       .tm_mday = 22,
                       .tm_hour = 11,
                       .tm_min = 5,
                       .tm_sec = 9,
                       .tm_wday = 0,
                       .tm_yday = 325};
}

typedef struct outcome {
    novaq_status status;
    novaq_error err;
    char *text;
    size_t len;
} outcome;

static outcome render_with(const char *source, size_t len, const json_t *variables, bool dated,
                           const nq_template_limits *limits) {
    outcome o = {.status = NOVAQ_OK};
    struct tm now = moment();
    nq_template *t = NULL;
    o.status = nq_template_open(&t, source, len, &o.err);
    if (o.status == NOVAQ_OK) {
        o.status =
            nq_template_render(&o.text, &o.len, t, variables, dated ? &now : NULL, limits, &o.err);
    }
    nq_template_close(&t);
    assert_null(t);
    if (o.status != NOVAQ_OK) {
        assert_null(o.text);
        assert_int_equal(o.err.code, o.status);
        assert_null(strchr(o.err.msg, '\n'));
    }
    return o;
}

static outcome render(const char *source) {
    json_t *variables = json_object();
    outcome o = render_with(source, strlen(source), variables, true, NULL);
    json_decref(variables);
    return o;
}

static void assert_renders(const char *source, const char *want) {
    outcome o = render(source);
    if (o.status != NOVAQ_OK) {
        fail_msg("%s: %s", source, o.err.msg);
    }
    assert_string_equal(o.text, want);
    nq_free(o.text);
}

static void assert_refused(const char *source, novaq_status status, const char *why) {
    outcome o = render(source);
    nq_free(o.text);
    assert_int_equal(o.status, status);
    if (strstr(o.err.msg, why) == NULL) {
        fail_msg("'%s' is not in '%s'", why, o.err.msg);
    }
}

/* ---- jinja2 --------------------------------------------------------------------- */

static size_t compare(const json_t *group, const json_t *table) {
    const char *source = json_string_value(json_object_get(group, "template"));
    size_t len = json_string_length(json_object_get(group, "template"));
    const char *name = json_string_value(json_object_get(group, "name"));
    const json_t *cases = json_object_get(group, "cases");
    assert_non_null(source);
    for (size_t i = 0; i < json_array_size(cases); i++) {
        const json_t *c = json_array_get(cases, i);
        const json_t *want = json_object_get(c, "text");
        size_t which = (size_t)json_integer_value(json_object_get(c, "variables"));
        outcome o = render_with(source, len, json_array_get(table, which),
                                json_is_true(json_object_get(c, "now")), NULL);
        if ((want != NULL) != (o.status == NOVAQ_OK)) {
            fail_msg("%s, case %zu: jinja2 says %s, here %s", name, i,
                     want != NULL ? json_string_value(want)
                                  : json_string_value(json_object_get(c, "error")),
                     o.status == NOVAQ_OK ? o.text : o.err.msg);
        }
        if (want != NULL && (o.len != json_string_length(want) ||
                             memcmp(o.text, json_string_value(want), o.len) != 0)) {
            fail_msg("%s, case %zu:\n%s\nshould be\n%s", name, i, o.text, json_string_value(want));
        }
        nq_free(o.text);
    }
    return json_array_size(cases);
}

static size_t compare_file(const char *path) {
    size_t n = 0;
    json_t *o = json_load_file(path, 0, NULL);
    const json_t *groups = json_object_get(o, "groups");
    assert_true(json_array_size(groups) > 0);
    for (size_t i = 0; i < json_array_size(groups); i++) {
        n += compare(json_array_get(groups, i), json_object_get(o, "variables"));
    }
    json_decref(o);
    return n;
}

static void test_as_jinja(void **state) {
    (void)state;
    assert_true(compare_file(FIXTURES "/template/cases.json") >= 150);
    const char *more = getenv("NOVAQ_TEMPLATE_CASES");
    if (more != NULL) {
        print_message("%zu cases of %s\n", compare_file(more), more);
    }
}

/* ---- errors ------------------------------------------------------------------------ */

static void test_errors_say_where(void **state) {
    (void)state;
    assert_refused("a\nb\n{{ 1 + }}", NOVAQ_E_FORMAT, "line 3");
    assert_refused("\n{{ missing.x }}", NOVAQ_E_FORMAT, "line 2: 'missing' is undefined");
    assert_refused("{{ raise_exception('No \nsystem!') }}", NOVAQ_E_ARG, "No ");
    assert_refused("{% include 'x' %}", NOVAQ_E_UNSUPPORTED, "'include'");
    assert_refused("{% for a in b recursive %}{% endfor %}", NOVAQ_E_UNSUPPORTED, "recursive");
    assert_refused("{{ f(*a) }}", NOVAQ_E_UNSUPPORTED, "'*'");
    assert_refused("{{ '\\ud800' }}", NOVAQ_E_FORMAT, "escape");
    assert_refused("{{ 9223372036854775808 }}", NOVAQ_E_FORMAT, "too large");
    assert_refused("{{ 9223372036854775807 + 1 }}", NOVAQ_E_FORMAT, "too large");
    assert_refused("{% break %}", NOVAQ_E_FORMAT, "loop");
    assert_refused("{% for a in [1] %}{% macro m() %}{% break %}{% endmacro %}{% endfor %}",
                   NOVAQ_E_FORMAT, "loop");
}

static void test_bytes(void **state) {
    static const char *const bad[] = {"\xFF", "a\xC3", "{{ '\xED\xA0\x80' }}"};
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_refused(bad[i], NOVAQ_E_FORMAT, "UTF-8");
    }
    json_t *v = json_object();
    outcome o = render_with("a\0b", 3, v, false, NULL);
    assert_int_equal(o.status, NOVAQ_E_FORMAT);
    json_decref(v);
    v = json_array();
    o = render_with("a", 1, v, false, NULL);
    assert_int_equal(o.status, NOVAQ_E_ARG);
    json_decref(v);
}

/* ---- limits -------------------------------------------------------------------------- */

static void test_no_end(void **state) {
    static const char *const endless[] = {
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% set ns = namespace(s='aaaaaaaaaaaaaaaa') %}{% for a in range(99999) %}"
        "{% set ns.s = ns.s + ns.s %}{% endfor %}",
        "{{ 'x' * 9000000000000000000 }}",
        "{{ [0] * 9000000000000 }}",
        "{% set ns = namespace(l=[]) %}{% for a in range(99999) %}{% set ns.l = [ns.l] %}{% endfor "
        "%}{{ ns.l }}",
        "{% set ns = namespace(l=[]) %}{% for a in range(9999) %}{% set ns.l = [ns.l] %}{% endfor "
        "%}{{ ns.l == ns.l[0] }}",
        "{% set ns = namespace(l=[1]) %}{% for a in range(9999) %}{% set ns.l = ns.l + ns.l %}{% "
        "endfor %}",
        "{% for a in range(9999) %}{{ 'long line of text' * 9999 }}{% endfor %}",
    };
    (void)state;
    for (size_t i = 0; i < sizeof endless / sizeof endless[0]; i++) {
        outcome o = render(endless[i]);
        nq_free(o.text);
        if (o.status == NOVAQ_OK) {
            fail_msg("%s came to an end", endless[i]);
        }
    }
}

/* open, n times, then close, n times. */
static outcome nested(const char *open, const char *close, size_t n) {
    char *text = malloc(n * (strlen(open) + strlen(close)) + 1);
    assert_non_null(text);
    char *p = text;
    for (size_t i = 0; i < n; i++, p += strlen(open)) {
        memcpy(p, open, strlen(open) + 1);
    }
    for (size_t i = 0; i < n; i++, p += strlen(close)) {
        memcpy(p, close, strlen(close) + 1);
    }
    outcome o = render(text);
    free(text);
    return o;
}

static void test_depth(void **state) {
    static const char *const pairs[][2] = {{"{% if true %}", "{% endif %}"},
                                           {"{{ (", "1) }}"},
                                           {"{{ not ", ""},
                                           {"{{ [", ""},
                                           {"{{ - ", ""},
                                           {"{% macro m() %}", "{% endmacro %}"},
                                           {"{{ a if ", ""},
                                           {"{{ a", ".b"}};
    (void)state;
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
        outcome o = nested(pairs[i][0], pairs[i][1], 20000);
        assert_int_not_equal(o.status, NOVAQ_OK);
    }
    outcome fine = nested("{% if true %}", "{% endif %}", 50);
    assert_int_equal(fine.status, NOVAQ_OK);
    nq_free(fine.text);
    /* Long chains of operators are deep trees. */
    outcome chain = nested("{{ 1 ", " }}", 1);
    assert_int_equal(chain.status, NOVAQ_OK);
    nq_free(chain.text);
    char *sum = malloc(4 * 20000 + 16);
    assert_non_null(sum);
    memcpy(sum, "{{ 1", 5);
    for (size_t i = 0; i < 20000; i++) {
        memcpy(sum + 4 + 3 * i, " +1", 4);
    }
    memcpy(sum + 4 + 3 * 20000, " }}", 4);
    outcome o = render(sum);
    free(sum);
    assert_int_equal(o.status, NOVAQ_E_FORMAT);
}

static void test_own_limits(void **state) {
    static const char loop[] = "{% for a in range(1000) %}x{% endfor %}";
    static const nq_template_limits few = {.steps = 500, .memory = 1 << 20, .output = 1 << 20};
    static const nq_template_limits small = {.steps = 1 << 20, .memory = 1 << 10, .output = 100};
    static const nq_template_limits brief = {.steps = 1 << 20, .memory = 1 << 20, .output = 100};
    const nq_template_limits *limits[] = {&few, &small, &brief};
    json_t *v = json_object();
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        outcome o = render_with(loop, sizeof loop - 1, v, false, limits[i]);
        assert_int_equal(o.status, NOVAQ_E_MEMORY);
    }
    outcome o = render_with(loop, sizeof loop - 1, v, false, NULL);
    assert_int_equal(o.status, NOVAQ_OK);
    assert_int_equal(o.len, 1000);
    nq_free(o.text);
    json_decref(v);
}

static void test_date(void **state) {
    (void)state;
    assert_renders("{{ strftime_now('%d %b %Y') }}", long_ago);
    json_t *v = json_object();
    outcome o = render_with("{{ strftime_now is defined }}", 29, v, false, NULL);
    assert_int_equal(o.status, NOVAQ_OK);
    assert_string_equal(o.text, "False");
    nq_free(o.text);
    json_decref(v);
}

/* Rendering does not wear a template out. */
static void test_twice(void **state) {
    static const char source[] = "{% set ns = namespace(n=0) %}{% for a in l %}"
                                 "{% set ns.n = ns.n + a %}{% endfor %}{{ ns.n }}";
    (void)state;
    nq_template *t = NULL;
    json_t *v = json_pack("{s:[i,i]}", "l", 1, 2);
    assert_int_equal(nq_template_open(&t, source, sizeof source - 1, NULL), NOVAQ_OK);
    for (int i = 0; i < 3; i++) {
        char *text = NULL;
        size_t len = 0;
        assert_int_equal(nq_template_render(&text, &len, t, v, NULL, NULL, NULL), NOVAQ_OK);
        assert_string_equal(text, "3");
        nq_free(text);
    }
    nq_template_close(&t);
    json_decref(v);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_as_jinja), cmocka_unit_test(test_errors_say_where),
        cmocka_unit_test(test_bytes),    cmocka_unit_test(test_no_end),
        cmocka_unit_test(test_depth),    cmocka_unit_test(test_own_limits),
        cmocka_unit_test(test_date),     cmocka_unit_test(test_twice),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
