/* test_files_hub.c - Hugging Face locators, tokens and cache; Ollama names, manifests and
 * store. All without a network. */
#include "files_util.h"

#include "io/hf_impl.h"
#include "io/ollama_impl.h"

#define COMMIT "0123456789abcdef0123456789abcdef01234567"

static const char *text_or(const char *s) { return s == NULL ? "(null)" : s; }

/* ---- Hugging Face: locators --------------------------------------------------- */

static void test_hf_locators(void **state) {
    (void)state;
    static const struct {
        const char *text, *repo, *revision, *file;
    } cases[] = {
        {"hf://org/name", "org/name", "main", NULL},
        {"hf://org/name/", "org/name", "main", NULL},
        {"HF://Org/Na.me_1-2", "Org/Na.me_1-2", "main", NULL},
        {"hf://gpt2", "gpt2", "main", NULL},
        {"hf://gpt2@v1", "gpt2", "v1", NULL},
        {"hf://gpt2@main/a/b.json", "gpt2", "main", "a/b.json"},
        {"hf://org/name@v1.0", "org/name", "v1.0", NULL},
        {"hf://org/name@refs%2Fpr%2F1", "org/name", "refs/pr/1", NULL},
        {"hf://org/name@refs/pr/12/sub/x.gguf", "org/name", "refs/pr/12", "sub/x.gguf"},
        {"hf://org/name@" COMMIT "/x y+%.gguf", "org/name", COMMIT, "x y+%.gguf"},
        {"hf://org/name/sub/x@y.gguf", "org/name", "main", "sub/x@y.gguf"},
        {"hf://models/org/name/x.gguf", "org/name", "main", "x.gguf"},
        {"https://huggingface.co/org/name", "org/name", "main", NULL},
        {"https://huggingface.co/org/name/tree/v2", "org/name", "v2", NULL},
        {"https://hf.co/org/name/blob/main/a%20b.gguf?download=true", "org/name", "main",
         "a b.gguf"},
        {"https://huggingface.co/org/name/resolve/refs%2Fpr%2F3/x.gguf", "org/name", "refs/pr/3",
         "x.gguf"},
        {"https://huggingface.co/gpt2/resolve/main/config.json", "gpt2", "main", "config.json"},
        {"http://127.0.0.1:8/base/org/name/blob/main/x", "org/name", "main", "x"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        nq_hf_locator l;
        novaq_error err = {NOVAQ_OK, ""};
        if (nq_hf_locator_parse(&l, cases[i].text, "http://127.0.0.1:8/base", &err) != NOVAQ_OK) {
            fail_msg("%s: %s", cases[i].text, err.msg);
        }
        assert_string_equal(l.repo, cases[i].repo);
        assert_string_equal(l.revision, cases[i].revision);
        assert_string_equal(text_or(l.file), text_or(cases[i].file));
        nq_hf_locator_free(&l);
    }
}

static void test_hf_bad_locators(void **state) {
    (void)state;
    static const char *const bad[] = {
        "hf://",
        "hf:///x",
        "hf://a b/c",
        "hf://../x",
        "hf://org/..",
        "hf://-org/name",
        "hf://org/name-",
        "hf://org/na--me",
        "hf://org/na..me",
        "hf://org/n%61me",
        "hf://org/name@",
        "hf://org/name@/x",
        "hf://org/name@..",
        "hf://org/name@%2e%2e",
        "hf://org/name@a%2F..%2Fb",
        "hf://org/name@a%0ab",
        "hf://org/name@%",
        "hf://org/name/../x",
        "hf://org/name//x",
        "hf://org/name/a\\b",
        "hf://org/name/a\nb",
        "hf://org/n\xc3\xa4me",
        "hf://@main",
        "hf://org/.name",
        "hf://org/"
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
        "aaaaaaaaaaaaaaaaaa"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        nq_hf_locator l;
        novaq_status st = nq_hf_locator_parse(&l, bad[i], "https://huggingface.co", NULL);
        nq_hf_locator_free(&l);
        if (st != NOVAQ_E_ARG) {
            fail_msg("%s: %d", bad[i], (int)st);
        }
    }
}

static void test_hf_pages(void **state) {
    (void)state;
    static const char *const yes[] = {
        "https://huggingface.co/org/name", "https://huggingface.co/org/name/",
        "https://hf.co/org/name/tree/main", "https://huggingface.co/org/name/blob/main/x.gguf",
        "https://huggingface.co/gpt2/resolve/main/x.bin?a=b"};
    static const char *const no[] = {"https://huggingface.co/datasets/a/b",
                                     "https://huggingface.co/datasets/a/resolve/main/x",
                                     "https://huggingface.co/org",
                                     "https://huggingface.co/",
                                     "https://huggingface.co",
                                     "https://huggingface.co.evil.org/a/b",
                                     "https://evil.org/huggingface.co/a/b",
                                     "http://huggingface.co/a/b",
                                     "https://huggingface.co/org/name/discussions/1",
                                     "https://huggingface.co/org/name/blob",
                                     "https://huggingface.co/org/name/blob/",
                                     "http://h/a/b/resolve/main/x"};
    for (size_t i = 0; i < sizeof yes / sizeof yes[0]; i++) {
        assert_true(nq_hf_is_web_address(yes[i]));
    }
    for (size_t i = 0; i < sizeof no / sizeof no[0]; i++) {
        assert_false(nq_hf_is_web_address(no[i]));
    }
    (void)setenv("HF_ENDPOINT", "http://h/", 1);
    assert_true(nq_hf_is_web_address("http://h/a/b/resolve/main/x"));
    (void)unsetenv("HF_ENDPOINT");
}

/* ---- Hugging Face: environment ------------------------------------------------ */

static void expect_token(const char *want) {
    nq_hf_env e;
    novaq_error err = {NOVAQ_OK, ""};
    if (nq_hf_env_read(&e, &err) != NOVAQ_OK) {
        fail_msg("%s", err.msg);
    }
    assert_string_equal(text_or(e.token), text_or(want));
    nq_hf_env_free(&e);
}

/* From the last resort to the first choice, each set on top of the others. */
static void test_hf_tokens(void **state) {
    (void)state;
    expect_token(NULL);
    make_file("home/.cache/huggingface/token", "hf_home\n");
    expect_token("hf_home");
    make_file("xdg/huggingface/token", "hf_xdg");
    (void)setenv("XDG_CACHE_HOME", at("xdg"), 1);
    expect_token("hf_xdg");
    make_file("home/elsewhere/token", " hf_elsewhere \n");
    (void)setenv("HF_HOME", "~/elsewhere", 1);
    expect_token("hf_elsewhere");
    make_file("tok", "hf_path");
    (void)setenv("HF_TOKEN_PATH", at("tok"), 1);
    expect_token("hf_path");
    (void)setenv("HUGGING_FACE_HUB_TOKEN", "hf_4", 1);
    expect_token("hf_4");
    (void)setenv("HUGGINGFACE_TOKEN", "hf_3", 1);
    expect_token("hf_3");
    (void)setenv("HUGGINGFACE_HUB_TOKEN", "hf_2", 1);
    expect_token("hf_2");
    (void)setenv("HF_TOKEN", "hf_1", 1);
    expect_token("hf_1");
    (void)setenv("HF_TOKEN", " \n", 1);
    expect_token("hf_2");
    (void)setenv("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1", 1);
    expect_token(NULL);
    (void)setenv("HF_HUB_DISABLE_IMPLICIT_TOKEN", "0", 1);
    expect_token("hf_2");
    (void)setenv("HF_HUB_OFFLINE", "1", 1);
    expect_token(NULL);
}

static void test_hf_bad_environment(void **state) {
    (void)state;
    nq_hf_env e;
    novaq_error err;
    (void)setenv("HF_TOKEN", "hf_sec\r\nX-Evil: 1", 1);
    assert_int_equal(nq_hf_env_read(&e, &err), NOVAQ_E_ARG);
    assert_non_null(strstr(err.msg, "HF_TOKEN"));
    assert_null(strstr(err.msg, "hf_sec"));
    nq_hf_env_free(&e);
    (void)unsetenv("HF_TOKEN");
    static const char *const bad[] = {"ftp://h", "huggingface.co", "https://u@h", "https://h?x",
                                      "https://h/ x"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        (void)setenv("HF_ENDPOINT", bad[i], 1);
        assert_int_equal(nq_hf_env_read(&e, &err), NOVAQ_E_ARG);
        nq_hf_env_free(&e);
    }
    (void)setenv("HF_ENDPOINT", "https://mirror.example//", 1);
    (void)setenv("HUGGINGFACE_HUB_CACHE", "/b", 1);
    assert_int_equal(nq_hf_env_read(&e, &err), NOVAQ_OK);
    assert_string_equal(e.endpoint, "https://mirror.example");
    assert_string_equal(e.cache, "/b");
    nq_hf_env_free(&e);
    (void)setenv("HF_HUB_CACHE", "/a", 1);
    assert_int_equal(nq_hf_env_read(&e, &err), NOVAQ_OK);
    assert_string_equal(e.cache, "/a");
    nq_hf_env_free(&e);
}

/* ---- Hugging Face: cache ------------------------------------------------------ */

#define CACHED "home/.cache/huggingface/hub/models--org--name/"

static void make_cache(void) {
    make_file(CACHED "refs/main", COMMIT);
    make_file(CACHED "refs/refs/pr/1", COMMIT "\n");
    make_file(CACHED "refs/damaged", "../../../etc");
    make_file(CACHED "refs/gone", "ffffffffffffffffffffffffffffffffffffffff");
    make_file(CACHED "blobs/aaa", "{\"a\": 1}");
    make_file(CACHED "blobs/bbb", "weights");
    make_link(CACHED "snapshots/" COMMIT "/config.json", "../../blobs/aaa");
    make_link(CACHED "snapshots/" COMMIT "/sub/model.gguf", "../../../blobs/bbb");
    make_link(CACHED "snapshots/" COMMIT "/gone.bin", "../../blobs/gone");
}

static void test_hf_offline(void **state) {
    (void)state;
    make_cache();
    (void)setenv("HF_HUB_OFFLINE", "YES", 1);
    static const char *const names[] = {"hf://org/name", "hf://org/name@refs%2Fpr%2F1",
                                        "hf://org/name@" COMMIT};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        nq_files *f = open_ok(names[i]);
        assert_string_equal(nq_files_locator(f), "hf://org/name@" COMMIT);
        assert_null(nq_files_chosen(f));
        assert_null(nq_files_dir(f));
        assert_int_equal(nq_files_count(f), 2);
        assert_string_equal(nq_files_at(f, 0)->name, "config.json");
        assert_string_equal(nq_files_at(f, 1)->name, "sub/model.gguf");
        expect_text(f, "config.json", "{\"a\": 1}");
        bool verified = true;
        assert_int_equal(read_all_of(f, "sub/model.gguf", "weights", &verified, NULL), NOVAQ_OK);
        assert_false(verified); /* nothing was promised */
        nq_source *s = NULL;
        assert_int_equal(nq_files_source(&s, f, "../blobs/aaa", NULL), NOVAQ_E_FORMAT);
        assert_int_equal(nq_files_source(&s, f, "gone.bin", NULL), NOVAQ_E_NETWORK);
        nq_files_close(&f);
    }
    nq_files *f = open_ok("hf://org/name/sub/model.gguf");
    assert_string_equal(nq_files_chosen(f), "sub/model.gguf");
    assert_string_equal(nq_files_locator(f), "hf://org/name@" COMMIT "/sub/model.gguf");
    nq_files_close(&f);
    (void)unsetenv("HF_HUB_OFFLINE");
    (void)setenv("TRANSFORMERS_OFFLINE", "1", 1);
    open_bad("hf://org/name@damaged", NOVAQ_E_NETWORK, "not in the cache");
    open_bad("hf://org/name@gone", NOVAQ_E_NETWORK, "not in the cache");
    open_bad("hf://org/name@none", NOVAQ_E_NETWORK, "not in the cache");
    open_bad("hf://org/other", NOVAQ_E_NETWORK, "offline");
    open_bad("hf://org/name/modl.gguf", NOVAQ_E_NETWORK, "sub/model.gguf");
    open_bad("hf://org/name/sub", NOVAQ_E_NETWORK, "folder");
}

/* What was there when it was listed. */
static void test_hf_vanished(void **state) {
    (void)state;
    make_cache();
    (void)setenv("HF_HUB_OFFLINE", "1", 1);
    nq_files *f = open_ok("hf://org/name");
    assert_int_equal(unlink(at(CACHED "blobs/aaa")), 0);
    make_file(CACHED "blobs/bbb", "weight");
    nq_source *s = NULL;
    novaq_error err = {NOVAQ_OK, ""};
    assert_int_equal(nq_files_source(&s, f, "sub/model.gguf", &err), NOVAQ_E_NETWORK);
    assert_null(s);
    assert_non_null(strstr(err.msg, "no longer in the cache"));
    char *text = NULL;
    size_t len = 0;
    assert_int_equal(nq_files_text(&text, &len, f, "config.json", 100, &err), NOVAQ_E_NETWORK);
    assert_null(text);
    assert_non_null(strstr(err.msg, "\"config.json\" is no longer in the cache"));
    nq_files_close(&f);
}

/* A server that repeats our token does not get it into a message. */
static void test_hf_echoed_token(void **state) {
    (void)state;
    char endpoint[] = "https://h";
    char token[] = "hf_very_secret";
    nq_hf_env env = {.endpoint = endpoint, .token = token};
    static const char *const headers[] = {
        "x-error-message: bad hf_very_secret\n",
        "x-error-code: hf_very_secret\nx-error-message: no\n",
        "x-error-code: x\nx-error-message: credentials hf_very_secret disabled\n"};
    static const int statuses[] = {401, 403, 404, 451, 500};
    for (size_t i = 0; i < sizeof headers / sizeof headers[0]; i++) {
        for (size_t k = 0; k < sizeof statuses / sizeof statuses[0]; k++) {
            char copy[128];
            (void)snprintf(copy, sizeof copy, "%s", headers[i]);
            nq_http_reply reply = {.status = statuses[k], .headers = copy};
            novaq_error err = {NOVAQ_OK, ""};
            assert_int_equal(nq_hf_refused(&reply, &env, "a/b", NULL, &err), NOVAQ_E_NETWORK);
            assert_null(strstr(err.msg, "secret"));
        }
    }
}

/* A store that the Hub led to is not impressed by tokens. */
static void test_hf_refused_elsewhere(void **state) {
    (void)state;
    char endpoint[] = "https://h";
    char there[] = "https://store/x?sig=secret";
    char here[] = "https://h/x";
    char none[] = "";
    nq_hf_env env = {.endpoint = endpoint};
    nq_http_reply reply = {.status = 401, .headers = none, .url = there};
    novaq_error err = {NOVAQ_OK, ""};
    assert_int_equal(nq_hf_refused(&reply, &env, "a/b", NULL, &err), NOVAQ_E_NETWORK);
    assert_non_null(strstr(err.msg, "https://store/x"));
    assert_null(strstr(err.msg, "secret"));
    assert_null(strstr(err.msg, "HF_TOKEN"));
    reply.url = here;
    assert_int_equal(nq_hf_refused(&reply, &env, "a/b", NULL, &err), NOVAQ_E_NETWORK);
    assert_non_null(strstr(err.msg, "HF_TOKEN"));
}

/* A snapshot of the cache is also a folder like another. */
static void test_hf_snapshot_as_folder(void **state) {
    (void)state;
    make_cache();
    nq_files *f = open_ok(at(CACHED "snapshots/" COMMIT));
    assert_int_equal(nq_files_count(f), 1);
    expect_text(f, "sub/model.gguf", "weights");
    nq_files_close(&f);
}

static void test_hf_cache_file(void **state) {
    (void)state;
    make_cache();
    const char *cache = at("home/.cache/huggingface/hub");
    const char *sha = "1111111111111111111111111111111111111111111111111111111111111111";
    char name[300];
    (void)snprintf(name, sizeof name, CACHED "blobs/%s", sha);
    make_file(name, "from another commit");
    const nq_file files[] = {
        {"config.json", 8, NULL}, {"config.json", 9, NULL}, /* of another size: incomplete */
        {"config.json", 19, sha}, {"other.gguf", 19, sha},
        {"other.gguf", 20, sha},  {"gone.bin", 4, NULL}};
    static const bool there[] = {true, false, true, true, false, false};
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        char *path = NULL;
        assert_int_equal(nq_hf_cache_file(&path, cache, "org/name", COMMIT, &files[i], NULL),
                         NOVAQ_OK);
        assert_true((path != NULL) == there[i]);
        nq_free(path);
        assert_int_equal(nq_hf_cache_file(&path, NULL, "org/name", COMMIT, &files[i], NULL),
                         NOVAQ_OK);
        assert_null(path);
    }
}

/* ---- Ollama: names ------------------------------------------------------------ */

static void test_ollama_names(void **state) {
    (void)state;
    static const struct {
        const char *text, *host, *space, *model, *tag;
        bool http;
    } cases[] = {
        {"llama3", "registry.ollama.ai", "library", "llama3", "latest", false},
        {"llama3:8b", "registry.ollama.ai", "library", "llama3", "8b", false},
        {"me/mine:v1.0-q4_K_M", "registry.ollama.ai", "me", "mine", "v1.0-q4_K_M", false},
        {"hf.co/user/Repo-1.5.GGUF:Q4", "hf.co", "user", "Repo-1.5.GGUF", "Q4", false},
        {"localhost:5000/a/b", "localhost:5000", "a", "b", "latest", true},
        {"127.0.0.1:5000/a/b:c", "127.0.0.1:5000", "a", "b", "c", true},
        {"[::1]:5000/a/b:c", "[::1]:5000", "a", "b", "c", true},
        {"https://localhost:5000/a/b", "localhost:5000", "a", "b", "latest", false},
        {"http://reg.example:80/a/b", "reg.example:80", "a", "b", "latest", true},
        {"localhost.evil.org/a/b", "localhost.evil.org", "a", "b", "latest", false},
        {"127.0.0.1.evil.org/a/b", "127.0.0.1.evil.org", "a", "b", "latest", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        nq_ollama_name n;
        novaq_error err = {NOVAQ_OK, ""};
        if (nq_ollama_name_parse(&n, cases[i].text, &err) != NOVAQ_OK) {
            fail_msg("%s: %s", cases[i].text, err.msg);
        }
        assert_string_equal(n.host, cases[i].host);
        assert_string_equal(n.space, cases[i].space);
        assert_string_equal(n.model, cases[i].model);
        assert_string_equal(n.tag, cases[i].tag);
        assert_true(n.http == cases[i].http);
        nq_ollama_name_free(&n);
    }
}

static void test_ollama_bad_names(void **state) {
    (void)state;
    static const char *const bad[] = {
        "",
        ":",
        "a:",
        ":b",
        "/a",
        "a/",
        "a//b",
        "../a",
        "a/..",
        "a:..",
        "a:../b",
        "a b",
        "a:b c",
        "a.b/c",
        "-a",
        "h/../a/b",
        "a/b/c/d",
        "h/a/b/c:d",
        "h?x/a/b",
        "u@h/a/b",
        "h#/a/b",
        "a%2fb",
        "a\nb",
        "h/a/b@sha256:00",
        "ftp://h/a/b",
        "[::2]:1/a/b",
        "[::1]x/a/b",
        "h/a/b:\xc3\xa4",
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        nq_ollama_name n;
        novaq_status st = nq_ollama_name_parse(&n, bad[i], NULL);
        nq_ollama_name_free(&n);
        if (st != NOVAQ_E_ARG) {
            fail_msg("\"%s\": %d", bad[i], (int)st);
        }
    }
}

/* ---- Ollama: manifests -------------------------------------------------------- */

#define D0 "0000000000000000000000000000000000000000000000000000000000000000"
#define LAYER(kind, digest, size)                                                                  \
    "{\"mediaType\": \"application/vnd.ollama.image." kind "\", \"digest\": \"" digest             \
    "\", \"size\": " size "}"
#define MANIFEST(layers) "{\"schemaVersion\": 2, \"layers\": [" layers "]}"

static void test_ollama_manifests(void **state) {
    (void)state;
    static const struct {
        const char *text;
        novaq_status want;
        const char *says; /* words of the message, or names of the files */
    } cases[] = {
        {MANIFEST(LAYER("template", "sha256:" D0, "3") "," LAYER("model", "sha256:" D0, "7")),
         NOVAQ_OK, "model.gguf template "},
        {MANIFEST(LAYER("model", "sha256:" D0, "7") "," LAYER("model", "sha256:" D0, "7") "," LAYER(
             "license", "sha256:" D0,
             "1") "," LAYER("license", "sha256:" D0,
                            "1") "," LAYER("projector", "sha256:" D0,
                                           "1") "," LAYER("strange", "sha256:" D0, "1")),
         NOVAQ_OK,
         "model-00001-of-00002.gguf model-00002-of-00002.gguf projector.gguf license license-2 "},
        {MANIFEST(LAYER("template", "sha256:" D0, "3")), NOVAQ_E_UNSUPPORTED, "no model in it"},
        {MANIFEST(""), NOVAQ_E_UNSUPPORTED, "no model in it"},
        {MANIFEST(LAYER("tensor", "sha256:" D0, "3")), NOVAQ_E_UNSUPPORTED, "tensor by tensor"},
        {MANIFEST(LAYER("model", "sha256:" D0, "7") "," LAYER("adapter", "sha256:" D0, "7")),
         NOVAQ_E_UNSUPPORTED, "adapter"},
        {MANIFEST(LAYER("model", "sha256:" D0 "0", "7")), NOVAQ_E_FORMAT, "digest"},
        {MANIFEST(LAYER("model", "sha256:../../etc/passwd", "7")), NOVAQ_E_FORMAT, "digest"},
        {MANIFEST(LAYER("model", "sha512:" D0, "7")), NOVAQ_E_FORMAT, "digest"},
        {MANIFEST(LAYER("model", "sha256:" D0, "-7")), NOVAQ_E_FORMAT, "size"},
        {MANIFEST(LAYER("model", "sha256:" D0, "7.5")), NOVAQ_E_FORMAT, "size"},
        {MANIFEST(LAYER("model", "sha256:" D0, "9007199254740993")), NOVAQ_E_FORMAT, "larger"},
        {"{\"schemaVersion\": 1}", NOVAQ_E_UNSUPPORTED, "version 1"},
        {"{\"schemaVersion\": 2}", NOVAQ_E_FORMAT, "layers"},
        {"{\"schemaVersion\": 2, \"layers\": [1]}", NOVAQ_E_FORMAT, "mediaType"},
        {"{\"schemaVersion\": 2, \"layers\": [{}]}", NOVAQ_E_FORMAT, "mediaType"},
        {"[]", NOVAQ_E_FORMAT, "object"},
        {"{", NOVAQ_E_FORMAT, "JSON"},
        {"", NOVAQ_E_FORMAT, "JSON"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        nq_ollama_manifest m;
        novaq_error err = {NOVAQ_OK, ""};
        novaq_status st =
            nq_ollama_manifest_parse(&m, cases[i].text, strlen(cases[i].text), "m", &err);
        char names[256] = "";
        size_t n = 0;
        for (size_t k = 0; k < m.count; k++) {
            n += (size_t)snprintf(names + n, sizeof names - n, "%s ", m.layers[k].file);
        }
        const char *said = st == NOVAQ_OK ? names : err.msg;
        bool right =
            st == NOVAQ_OK ? strcmp(said, cases[i].says) == 0 : strstr(said, cases[i].says) != NULL;
        nq_ollama_manifest_free(&m);
        if (st != cases[i].want || !right) {
            fail_msg("case %zu: %d, \"%s\"", i, (int)st, said);
        }
    }
}

/* ---- Ollama: the store -------------------------------------------------------- */

/* A model of two layers at HOME's store or another; content is what the blob holds. */
static void make_store(const char *store, const char *promised, const char *content) {
    char digest[NQ_SHA256_HEX + 1];
    char params[NQ_SHA256_HEX + 1];
    char name[400];
    char text[1024];
    assert_int_equal(nq_sha256_of(digest, promised, strlen(promised), NULL), NOVAQ_OK);
    assert_int_equal(nq_sha256_of(params, "{}", 2, NULL), NOVAQ_OK);
    (void)snprintf(
        text, sizeof text,
        MANIFEST(LAYER("model", "sha256:%s", "%zu") "," LAYER("params", "sha256:%s", "2")), digest,
        strlen(promised), params);
    (void)snprintf(name, sizeof name, "%s/manifests/localhost:1/library/tiny/latest", store);
    make_file(name, text);
    (void)snprintf(name, sizeof name, "%s/blobs/sha256-%s", store, digest);
    make_file(name, content);
    (void)snprintf(name, sizeof name, "%s/blobs/sha256-%s", store, params);
    make_file(name, "{}");
}

static void test_ollama_store(void **state) {
    (void)state;
    make_store("home/.ollama/models", "GGUF and so on", "GGUF and so on");
    nq_files *f = open_ok("ollama://localhost:1/library/tiny");
    assert_string_equal(nq_files_locator(f), "ollama://localhost:1/library/tiny:latest");
    assert_string_equal(nq_files_chosen(f), "model.gguf");
    assert_int_equal(nq_files_count(f), 2);
    assert_string_equal(nq_files_at(f, 0)->name, "model.gguf");
    assert_non_null(nq_files_at(f, 0)->sha256);
    expect_text(f, "params", "{}");
    expect_text(f, "template", NULL);
    bool verified = false;
    assert_int_equal(read_all_of(f, "model.gguf", "GGUF and so on", &verified, NULL), NOVAQ_OK);
    assert_true(verified);
    json_t *o = NULL;
    assert_int_equal(nq_files_origin(&o, f, NULL), NOVAQ_OK);
    assert_int_equal(strncmp(json_string_value(json_object_get(o, "revision")), "sha256:", 7), 0);
    assert_non_null(
        json_object_get(json_object_get(json_object_get(o, "files"), "model.gguf"), "sha256"));
    json_decref(o);
    nq_source *s = NULL;
    assert_int_equal(nq_files_source(&s, f, "system", NULL), NOVAQ_E_NETWORK);
    nq_files_close(&f);
}

static void test_ollama_damaged_blob(void **state) {
    (void)state;
    (void)setenv("OLLAMA_MODELS", at("elsewhere"), 1);
    make_store("elsewhere", "GGUF and so on", "GGUF and so no");
    nq_files *f = open_ok("ollama://localhost:1/library/tiny:latest");
    bool verified = true;
    novaq_error err;
    assert_int_equal(read_all_of(f, "model.gguf", "GGUF and so no", &verified, &err),
                     NOVAQ_E_VERIFY);
    assert_false(verified);
    assert_non_null(strstr(err.msg, "damaged"));
    nq_files_close(&f);
    /* As text it is not given out at all. */
    f = open_ok("ollama://localhost:1/library/tiny:latest");
    char *text = NULL;
    size_t len = 0;
    assert_int_equal(nq_files_text(&text, &len, f, "model.gguf", 1000, &err), NOVAQ_E_VERIFY);
    assert_null(text);
    assert_int_equal(nq_files_text(&text, &len, f, "model.gguf", 3, &err), NOVAQ_E_FORMAT);
    nq_files_close(&f);
}

int main(void) {
#define IN_TREE(test) cmocka_unit_test_setup_teardown(test, make_root, drop_root)
    const struct CMUnitTest tests[] = {
        IN_TREE(test_hf_locators),
        IN_TREE(test_hf_bad_locators),
        IN_TREE(test_hf_pages),
        IN_TREE(test_hf_tokens),
        IN_TREE(test_hf_bad_environment),
        IN_TREE(test_hf_offline),
        IN_TREE(test_hf_vanished),
        IN_TREE(test_hf_echoed_token),
        IN_TREE(test_hf_refused_elsewhere),
        IN_TREE(test_hf_snapshot_as_folder),
        IN_TREE(test_hf_cache_file),
        IN_TREE(test_ollama_names),
        IN_TREE(test_ollama_bad_names),
        IN_TREE(test_ollama_manifests),
        IN_TREE(test_ollama_store),
        IN_TREE(test_ollama_damaged_blob),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
