/* test_files.c - places: names and addresses, the file system, addresses of the web taken
 * apart. What needs a network is in tests/python/test_hub.py and test_ollama.py. */
#include "files_util.h"

#include "io/files_impl.h"

/* ---- names ---------------------------------------------------------------- */

static void test_names(void **state) {
    (void)state;
    static const char *const good[] = {"a",        "a/b/c.gguf",   "..a",   "a..", ".gitattributes",
                                       "a b.gguf", "\xc3\xbc.bin", "a/...", "c:x", "%2e%2e"};
    static const char *const bad[] = {"",     ".",     "..",    "/a",   "a/",
                                      "a//b", "a/./b", "a/..",  "../a", "a/../b",
                                      "a\\b", "a\nb",  "a\x7f", "\x01", "a/../../b"};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        assert_true(nq_name_ok(good[i]));
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_false(nq_name_ok(bad[i]));
    }
    char longest[NQ_NAME_MAX + 2];
    memset(longest, 'x', sizeof longest);
    longest[NQ_NAME_MAX + 1] = '\0';
    assert_false(nq_name_ok(longest));
    longest[NQ_NAME_MAX] = '\0';
    assert_true(nq_name_ok(longest));
}

static void test_printable(void **state) {
    (void)state;
    char out[8];
    nq_printable(out, sizeof out, "a\nb\x1b\xff");
    assert_string_equal(out, "a?b??");
    nq_printable(out, sizeof out, "0123456789");
    assert_string_equal(out, "0123456");
}

static void test_printable_url(void **state) {
    (void)state;
    static const char *const cases[][2] = {
        {"https://u:p@h:1/a@b/c?q#f", "https://h:1/a@b/c"},
        {"https://u@v@h", "https://h"},
        {"https://h#f", "https://h"},
        {"u:p@h/x", "h/x"},
        {"http://h/a\nb", "http://h/a?b"},
        {"", ""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char out[64];
        nq_printable_url(out, sizeof out, cases[i][0]);
        assert_string_equal(out, cases[i][1]);
    }
}

static void test_percent(void **state) {
    (void)state;
    char *s = NULL;
    assert_int_equal(nq_url_join(&s, "http://h/", "a b/\xc3\xbc+%?#.gguf", NULL), NOVAQ_OK);
    assert_string_equal(s, "http://h/a%20b/%C3%BC%2B%25%3F%23.gguf");
    nq_free(s);
    assert_int_equal(nq_url_decode(&s, "refs%2Fpr%2f1%25+xx", 17, NULL), NOVAQ_OK);
    assert_string_equal(s, "refs/pr/1%+");
    nq_free(s);
    static const char *const bad[] = {"%", "%2", "%zz", "a%0", "%00", "%0a", "a%1fb", "x%7f"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(nq_url_decode(&s, bad[i], strlen(bad[i]), NULL), NOVAQ_E_ARG);
        assert_null(s);
    }
}

static void test_is_remote(void **state) {
    (void)state;
    static const char *const yes[] = {"hf://a/b", "ollama://x", "http://h/x", "https://h/x",
                                      "HTTPS://h/x"};
    static const char *const no[] = {"a/b", "/hf://x", "hf:/x", "hf", "", "file://x", "./http://x"};
    for (size_t i = 0; i < sizeof yes / sizeof yes[0]; i++) {
        assert_true(nq_is_remote(yes[i]));
    }
    for (size_t i = 0; i < sizeof no / sizeof no[0]; i++) {
        assert_false(nq_is_remote(no[i]));
    }
}

/* ---- the file system ------------------------------------------------------ */

static void test_folder(void **state) {
    (void)state;
    make_file("m/b.gguf", "bbbb");
    make_file("m/a.json", "{}");
    make_file("m/sub/c.bin", "ccc");
    make_file("m/odd\nname", "x");
    make_link("m/z.link", "a.json");
    make_link("m/broken", "nowhere");
    nq_files *f = open_ok(at("m"));
    assert_string_equal(nq_files_locator(f), at("m"));
    assert_string_equal(nq_files_dir(f), at("m"));
    assert_null(nq_files_chosen(f));
    /* Files of the folder itself, sorted; not the folder, the broken link, the odd name. */
    assert_int_equal(nq_files_count(f), 3);
    assert_string_equal(nq_files_at(f, 0)->name, "a.json");
    assert_int_equal(nq_files_at(f, 0)->size, 2);
    assert_null(nq_files_at(f, 0)->sha256);
    assert_string_equal(nq_files_at(f, 1)->name, "b.gguf");
    assert_string_equal(nq_files_at(f, 2)->name, "z.link");
    bool has = false;
    assert_int_equal(nq_files_has(&has, f, "sub/c.bin", NULL), NOVAQ_OK);
    assert_true(has);
    assert_int_equal(nq_files_has(&has, f, "sub", NULL), NOVAQ_OK);
    assert_false(has);
    assert_int_equal(nq_files_has(&has, f, "../m/a.json", NULL), NOVAQ_OK);
    assert_false(has);
    expect_text(f, "a.json", "{}");
    expect_text(f, "sub/c.bin", "ccc");
    expect_text(f, "none", NULL);
    expect_text(f, "sub", NULL);
    expect_text(f, "../m/a.json", NULL);
    bool verified = true;
    assert_int_equal(read_all_of(f, "sub/c.bin", "ccc", &verified, NULL), NOVAQ_OK);
    assert_false(verified);
    nq_files_stop(f);
    assert_int_equal(nq_files_received(f), 0);
    nq_files_close(&f);
    assert_null(f);
    nq_files_close(&f);
}

static void test_hostile_names(void **state) {
    (void)state;
    make_file("m/a.json", "{}");
    make_file("secret", "x");
    nq_files *f = open_ok(at("m"));
    static const char *const names[] = {"../secret", "/etc/passwd", "a/../../secret", "",
                                        ".",         "..\\secret",  "a.json\n"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        nq_source *s = NULL;
        novaq_error err;
        assert_int_equal(nq_files_source(&s, f, names[i], &err), NOVAQ_E_FORMAT);
        assert_null(s);
        assert_non_null(strstr(err.msg, "not the name of a file inside"));
    }
    nq_source *s = NULL;
    assert_int_equal(nq_files_source(&s, f, "none", NULL), NOVAQ_E_IO);
    assert_null(s);
    char *text = NULL;
    size_t len = 0;
    assert_int_equal(nq_files_text(&text, &len, f, "a.json", 1, NULL), NOVAQ_E_FORMAT);
    assert_null(text);
    nq_files_close(&f);
}

static void test_single_file(void **state) {
    (void)state;
    make_file("m/model.gguf", "GGUF");
    make_file("m/config.json", "{}");
    nq_files *f = open_ok(at("m/model.gguf"));
    assert_string_equal(nq_files_chosen(f), "model.gguf");
    assert_string_equal(nq_files_dir(f), at("m"));
    assert_int_equal(nq_files_count(f), 2);
    expect_text(f, "config.json", "{}");
    nq_source *s = NULL;
    assert_int_equal(nq_files_source(&s, f, "model.gguf", NULL), NOVAQ_OK);
    assert_string_equal(s->name, at("m/model.gguf"));
    assert_false(s->remote);
    assert_int_equal(s->size, 4);
    nq_source_close(&s);
    json_t *o = NULL;
    assert_int_equal(nq_files_origin(&o, f, NULL), NOVAQ_OK);
    assert_string_equal(json_string_value(json_object_get(o, "locator")), at("m/model.gguf"));
    assert_null(json_object_get(o, "revision"));
    const json_t *files = json_object_get(o, "files");
    assert_int_equal(json_object_size(files), 1);
    assert_int_equal(
        json_integer_value(json_object_get(json_object_get(files, "model.gguf"), "size")), 4);
    json_decref(o);
    nq_files_close(&f);
}

/* Without a folder in its path a file is called what the user calls it. */
static void test_bare_name(void **state) {
    (void)state;
    char before[1024];
    assert_non_null(getcwd(before, sizeof before));
    make_file("x.gguf", "GGUF");
    assert_int_equal(chdir(root), 0);
    nq_files *f = open_ok("x.gguf");
    assert_string_equal(nq_files_dir(f), ".");
    nq_source *s = NULL;
    assert_int_equal(nq_files_source(&s, f, "x.gguf", NULL), NOVAQ_OK);
    assert_string_equal(s->name, "x.gguf");
    nq_source_close(&s);
    nq_files_close(&f);
    assert_int_equal(chdir(before), 0);
}

/* What the user named may be called as it likes; what a model names may not. */
static void test_odd_chosen(void **state) {
    (void)state;
    make_file("m/odd\\name.gguf", "GGUF");
    make_file("m/other\\name.gguf", "GGUF");
    nq_files *f = open_ok(at("m/odd\\name.gguf"));
    bool verified = false;
    assert_int_equal(read_all_of(f, "odd\\name.gguf", "GGUF", &verified, NULL), NOVAQ_OK);
    nq_source *s = NULL;
    assert_int_equal(nq_files_source(&s, f, "other\\name.gguf", NULL), NOVAQ_E_FORMAT);
    nq_files_close(&f);
}

static void test_absent_paths(void **state) {
    (void)state;
    open_bad("", NOVAQ_E_ARG, "empty");
    open_bad(at("none"), NOVAQ_E_IO, "No such file");
    open_bad("no-such-org/no-such-model", NOVAQ_E_IO, "hf://no-such-org/no-such-model");
    make_file("m/a", "x");
    open_bad(at("m/a/b"), NOVAQ_E_IO, "Not a directory");
    assert_int_equal(mkfifo(at("pipe"), 0600), 0);
    nq_files *f = open_ok(at("pipe"));
    nq_source *s = NULL;
    novaq_error err;
    assert_int_equal(nq_files_source(&s, f, "pipe", &err), NOVAQ_E_IO);
    assert_non_null(strstr(err.msg, "not a regular file"));
    char *text = NULL;
    size_t len = 0;
    assert_int_equal(nq_files_text(&text, &len, f, "pipe", 10, &err), NOVAQ_E_IO);
    nq_files_close(&f);
}

/* ---- addresses ------------------------------------------------------------ */

static void test_addresses(void **state) {
    (void)state;
    static const struct {
        const char *url;
        const char *locator;
        const char *chosen;
    } cases[] = {
        {"http://127.0.0.1:9/m/x.gguf", "http://127.0.0.1:9/m/x.gguf", "x.gguf"},
        {"http://127.0.0.1:9/m/x%20y.gguf?sig=abc&e=1#frag", "http://127.0.0.1:9/m/x%20y.gguf",
         "x y.gguf"},
        {"https://h/m/", "https://h/m/", NULL},
        {"https://h", "https://h", NULL},
        {"https://h?x=1", "https://h", NULL},
        {"https://h/download?file=a/b.bin", "https://h/download", "download"},
        {"https://huggingface.co/datasets/a/b", "https://huggingface.co/datasets/a/b", "b"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        nq_files *f = open_ok(cases[i].url);
        assert_string_equal(nq_files_locator(f), cases[i].locator);
        if (cases[i].chosen == NULL) {
            assert_null(nq_files_chosen(f));
        } else {
            assert_string_equal(nq_files_chosen(f), cases[i].chosen);
        }
        assert_null(nq_files_dir(f));
        assert_int_equal(nq_files_count(f), 0);
        nq_files_close(&f);
    }
    open_bad("http://", NOVAQ_E_ARG, "without a host");
    open_bad("http:///x", NOVAQ_E_ARG, "without a host");
    open_bad("https://h/a b", NOVAQ_E_ARG, "percent-encoded");
    open_bad("https://h/a\\b", NOVAQ_E_ARG, "percent-encoded");
    open_bad("https://h/a\r\nX: y", NOVAQ_E_ARG, "percent-encoded");
    open_bad("https://h/a%2", NOVAQ_E_ARG, "percent-encoding");
    open_bad("https://h/a%2Fb", NOVAQ_E_ARG, "name of a file");
    open_bad("https://h/%2e%2e", NOVAQ_E_ARG, "name of a file");
    open_bad("https://user:secret@h/x", NOVAQ_E_ARG, "name or password");
    static const char *const secrets[] = {
        "https://user:secret@h/x",
        "https://user:secret@h/a b",
        "https://user:secret@/x",
        "https://user:secret\\@h/x",
        "https://h/a b?sig=secret",
        "https://h/%2e%2e?sig=secret",
        "https://h/a%2?sig=secret",
        "https://?sig=secret",
        "https://huggingface.co/a/b/blob/%2e%2e/x?sig=secret",
        "ollama://user:secret@h/a/b",
        "ollama://http://user:secret@h/a/b",
    };
    for (size_t i = 0; i < sizeof secrets / sizeof secrets[0]; i++) {
        nq_files *f = NULL;
        novaq_error err = {NOVAQ_OK, ""};
        assert_int_equal(nq_files_open(&f, secrets[i], &err), NOVAQ_E_ARG);
        if (strstr(err.msg, "secret") != NULL || err.msg[0] == '\0') {
            fail_msg("%s: %s", secrets[i], err.msg);
        }
    }
}

int main(void) {
#define IN_TREE(test) cmocka_unit_test_setup_teardown(test, make_root, drop_root)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_printable),
        cmocka_unit_test(test_printable_url),
        cmocka_unit_test(test_percent),
        cmocka_unit_test(test_is_remote),
        IN_TREE(test_folder),
        IN_TREE(test_hostile_names),
        IN_TREE(test_single_file),
        IN_TREE(test_bare_name),
        IN_TREE(test_odd_chosen),
        IN_TREE(test_absent_paths),
        IN_TREE(test_addresses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
