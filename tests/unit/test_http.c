/* Documents and sources over HTTP: what is sent to whom, how many requests and
 * connections, threads (pthread_create), stopping, signals. Faults: test_http_faults.c. */
#include "http_util.h"

#include <pthread.h>
#include <stdatomic.h>

#include "base/rng.h"
#include "io/files.h"
#include "io/http_impl.h"

static char url_buf[4][256];

static const char *url_at(unsigned slot, unsigned port, const char *path) {
    url_of(url_buf[slot], sizeof url_buf[slot], port, path);
    return url_buf[slot];
}

static novaq_status get(nq_http_reply *out, const char *path, uint64_t max, bool no_follow,
                        novaq_error *err) {
    nq_http *h = open_http();
    nq_http_request r = {.url = url_at(0, server.plain, path), .max = max, .no_follow = no_follow};
    novaq_status st = nq_http_get(out, h, &r, err);
    nq_http_close(&h);
    return st;
}

static void expect_get(const char *path, uint64_t max, novaq_status want, const char *says) {
    nq_http_reply reply;
    novaq_error err = {0};
    novaq_status st = get(&reply, path, max, false, &err);
    if (st != want || strstr(err.msg, says) == NULL) {
        fail_msg("%s: status %d, \"%s\"", path, (int)st, err.msg);
    }
    if (st != NOVAQ_OK) {
        assert_null(reply.body);
    }
    nq_http_reply_free(&reply);
}

static nq_source *open_source(nq_http *h, const char *path, const char *token) {
    const char *const secret[] = {"X-Secret: 7"};
    nq_http_file f = {.url = url_at(1, server.plain, path),
                      .token = token,
                      .headers = secret,
                      .header_count = token != NULL,
                      .size = NQ_HTTP_ASK};
    nq_source *s = NULL;
    novaq_error err = {0};
    if (nq_http_source(&s, h, &f, &err) != NOVAQ_OK) {
        fail_msg("%s: %s", path, err.msg);
    }
    return s;
}

/* Reads and checks bytes [at, at + n), n up to 64 KiB. */
static void expect_bytes(nq_source *s, uint64_t at, uint64_t n) {
    uint8_t buf[65536];
    novaq_error err = {0};
    if (nq_source_read(s, at, buf, n, &err) != NOVAQ_OK) {
        fail_msg("offset %llu: %s", (unsigned long long)at, err.msg);
    }
    assert_true(content_ok(buf, at, n));
}

static void expect_counts(const char *path, unsigned asked, unsigned connected) {
    unsigned a = 0, c = 0;
    count_of(&a, &c, path);
    if (a != asked || c != connected) {
        fail_msg("%s: %u requests over %u connections, not %u over %u", path, a, c, asked,
                 connected);
    }
}

/* ---- documents ---- */

static void test_document(void **state) {
    (void)state;
    nq_http_reply r;
    char value[32];
    assert_int_equal(get(&r, "document/a", 8, false, NULL), NOVAQ_OK);
    assert_int_equal(r.status, 200);
    assert_int_equal(r.len, 8);
    assert_string_equal(r.body, "{\"a\": 1}");
    assert_string_equal(r.url, url_buf[0]);
    assert_true(nq_http_header(value, sizeof value, &r, "x-repo-commit"));
    assert_string_equal(value, "abc");
    assert_true(nq_http_header(value, sizeof value, &r, "etag"));
    assert_string_equal(value, "W/\"d\"");
    assert_false(nq_http_header(value, sizeof value, &r, "x-repo"));
    assert_string_equal(value, "");
    assert_false(nq_http_header(value, 3, &r, "x-repo-commit"));
    nq_http_reply_free(&r);
    nq_http_reply_free(&r);

    expect_get("document/a", 7, NOVAQ_E_NETWORK, "larger than 7 bytes");
    expect_get("big-document/a", 100000, NOVAQ_E_NETWORK, "larger than 100000 bytes");
    expect_get("big-document/a", 204800, NOVAQ_OK, "");
    expect_get("zipped-document/a", 100000, NOVAQ_E_NETWORK, "compressed (gzip)");
    expect_get("half-headers/get", 100000, NOVAQ_E_NETWORK, "within the headers");
    expect_get("silent/get", 100000, NOVAQ_E_NETWORK, "stalled");
    expect_get("loop/x", 100000, NOVAQ_E_NETWORK, "a loop");
    expect_get("to-file/get", 100000, NOVAQ_E_NETWORK, "not http or https");
    expect_get("nowhere/get", 100000, NOVAQ_E_NETWORK, "leads nowhere");
}

static void test_statuses(void **state) {
    (void)state;
    const struct {
        const char *path;
        int status;
        unsigned asked;
    } rows[] = {{"status/404/get", 404, 1}, {"status/401/get", 401, 1}, {"status/503/get", 503, 2},
                {"status/429/get", 429, 2}, {"wait-hour/get", 429, 1},  {"busy-first/get", 206, 2}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        nq_http_reply r;
        unsigned asked = 0, connected = 0;
        assert_int_equal(get(&r, rows[i].path, 1 << 20, false, NULL), NOVAQ_OK);
        assert_int_equal(r.status, rows[i].status);
        nq_http_reply_free(&r);
        count_of(&asked, &connected, rows[i].path);
        assert_int_equal(asked, rows[i].asked);
    }
}

/* Whether something is there, and what of a refusal is of use. */
static void test_peek(void **state) {
    (void)state;
    const struct {
        const char *path;
        int status;
        size_t len;
    } rows[] = {{"plain/peek", 206, 1},
                {"no-ranges/peek", 200, 0},
                {"big-404/peek", 404, 0},
                {"empty/peek", 416, 0}};
    nq_http *h = open_http();
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        nq_http_request q = {.url = url_at(0, server.plain, rows[i].path), .peek = true, .max = 1};
        nq_http_reply r;
        assert_int_equal(nq_http_get(&r, h, &q, NULL), NOVAQ_OK);
        assert_int_equal(r.status, rows[i].status);
        assert_int_equal(r.len, rows[i].len);
        nq_http_reply_free(&r);
        expect_counts(rows[i].path, 1, 1);
    }
    assert_true(nq_http_received(h) < 4 << 20);
    nq_http_request q = {.url = url_at(0, server.plain, "status/503/once"), .once = true};
    nq_http_reply r;
    assert_int_equal(nq_http_get(&r, h, &q, NULL), NOVAQ_OK);
    assert_int_equal(r.status, 503);
    nq_http_reply_free(&r);
    expect_counts("status/503/once", 1, 1);
    expect_get("big-404/get", 1000, NOVAQ_OK, "");
    nq_http_close(&h);
}

/* Accept goes where a redirect leads, secrets do not. */
static void test_accept(void **state) {
    (void)state;
    nq_http *h = open_http();
    const char *const paths[] = {"accept/here", "to-accept/x"};
    const char *const said[] = {"text/x, text/y 7", "text/x, text/y None"};
    for (size_t i = 0; i < 2; i++) {
        nq_http_request q = {.url = url_at(0, server.plain, paths[i]),
                             .headers = (const char *const[]){"X-Secret: 7"},
                             .header_count = 1,
                             .accept = "text/x, text/y",
                             .max = 100};
        nq_http_reply r;
        assert_int_equal(nq_http_get(&r, h, &q, NULL), NOVAQ_OK);
        assert_string_equal(r.body, said[i]);
        nq_http_reply_free(&r);
    }
    nq_http_close(&h);
}

static void test_no_follow(void **state) {
    (void)state;
    nq_http_reply r;
    char value[256], want[256];
    assert_int_equal(get(&r, "cross/get", 1000, true, NULL), NOVAQ_OK);
    assert_int_equal(r.status, 302);
    assert_true(nq_http_header(value, sizeof value, &r, "location"));
    (void)snprintf(want, sizeof want, "http://127.0.0.1:%u/signed/cross?signature=abc",
                   server.other);
    assert_string_equal(value, want);
    nq_http_reply_free(&r);
    assert_int_equal(get(&r, "relative/get", 1 << 20, true, NULL), NOVAQ_OK);
    assert_int_equal(r.status, 206);
    assert_non_null(strstr(r.url, "/plain/get"));
    nq_http_reply_free(&r);
    assert_int_equal(get(&r, "nowhere/get2", 1000, true, NULL), NOVAQ_OK);
    assert_int_equal(r.status, 302);
    nq_http_reply_free(&r);
}

static void test_head(void **state) {
    (void)state;
    nq_http *h = open_http();
    nq_http_request q = {.url = url_at(0, server.plain, "status/200/head"), .head = true};
    nq_http_reply r;
    char value[32];
    assert_int_equal(nq_http_get(&r, h, &q, NULL), NOVAQ_OK);
    assert_int_equal(r.len, 0);
    assert_true(nq_http_header(value, sizeof value, &r, "content-length"));
    assert_string_equal(value, "2");
    assert_int_equal(nq_http_received(h), 0);
    nq_http_reply_free(&r);
    nq_http_close(&h);
}

static void test_arguments(void **state) {
    (void)state;
    const char *const bad_urls[] = {"",
                                    "x",
                                    "/x",
                                    "ftp://h/x",
                                    "file:///etc/passwd",
                                    "http://",
                                    "http://a b/",
                                    "http://h:99999/"};
    nq_http *h = open_http();
    for (size_t i = 0; i < sizeof bad_urls / sizeof bad_urls[0]; i++) {
        nq_http_request q = {.url = bad_urls[i], .max = 10};
        nq_http_reply r;
        assert_int_equal(nq_http_get(&r, h, &q, NULL), NOVAQ_E_ARG);
        nq_http_file f = {.url = bad_urls[i], .size = NQ_HTTP_ASK};
        nq_source *s = NULL;
        assert_int_equal(nq_http_source(&s, h, &f, NULL), NOVAQ_E_ARG);
        assert_null(s);
    }
    const char *url = url_at(0, server.plain, "plain/arg");
    nq_http_request q = {.url = url, .token = "a\r\nX: y", .max = 10};
    nq_http_reply r;
    assert_int_equal(nq_http_get(&r, h, &q, NULL), NOVAQ_E_ARG);
    nq_http_file f = {.url = url, .token = "a\nX: y", .size = NQ_HTTP_ASK};
    nq_source *s = NULL;
    assert_int_equal(nq_http_source(&s, h, &f, NULL), NOVAQ_E_ARG);
    expect_counts("plain/arg", 0, 0);
    nq_http_close(&h);
}

static void test_environment(void **state) {
    (void)state;
    const char *const rows[][2] = {{"NOVAQ_HTTP_RETRIES", "many"}, {"NOVAQ_HTTP_RETRIES", "-1"},
                                   {"NOVAQ_HTTP_RETRIES", "101"},  {"NOVAQ_HTTP_RETRIES", "1.5"},
                                   {"NOVAQ_HTTP_STALL", "0"},      {"NOVAQ_HTTP_STALL", "1s"},
                                   {"NOVAQ_HTTP_CONNECT", "nan"}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char old[32];
        (void)snprintf(old, sizeof old, "%s", getenv(rows[i][0]));
        (void)setenv(rows[i][0], rows[i][1], 1);
        nq_http *h = NULL;
        novaq_error err = {0};
        assert_int_equal(nq_http_open(&h, &err), NOVAQ_E_ARG);
        assert_null(h);
        assert_non_null(strstr(err.msg, rows[i][0]));
        (void)setenv(rows[i][0], old, 1);
    }
}

/* ---- secrets ---- */

/* What came with the requests for a path: its last two words. */
static void expect_secrets(unsigned port, const char *path, const char *want) {
    char *text = log_of(port, path);
    const char *line = strchr(text, '\n') + 1;
    if (*line == '\0') {
        fail_msg("%s was never asked for", path);
    }
    for (; *line != '\0'; line = strchr(line, '\n') + 1) {
        size_t len = strcspn(line, "\n");
        size_t n = strlen(want);
        if (len < n || strncmp(line + len - n, want, n) != 0) {
            fail_msg("%s: not \"%s\" but: %.*s", path, want, (int)len, line);
        }
    }
    nq_free(text);
}

/* A token and a header for one origin: none of it may reach another host, port or a
 * place others lead to. */
static void test_secrets(void **state) {
    (void)state;
    const char *const from[] = {"cross/s", "cross-back/s", "host/s", "userinfo/s", "relative/s"};
    const char *const sent = " Bearer_token-123 7";
    const char *const nothing = " - -";
    nq_http *h = open_http();
    for (size_t i = 0; i < sizeof from / sizeof from[0]; i++) {
        nq_source *s = open_source(h, from[i], "token-123");
        expect_bytes(s, 500000, 1000); /* by the remembered target */
        nq_source_close(&s);
        nq_http_request q = {.url = url_at(0, server.plain, from[i]),
                             .token = "token-123",
                             .headers = (const char *const[]){"X-Secret: 7"},
                             .header_count = 1,
                             .max = 1 << 20};
        nq_http_reply r;
        assert_int_equal(nq_http_get(&r, h, &q, NULL), NOVAQ_OK);
        nq_http_reply_free(&r);
        expect_secrets(server.plain, from[i], sent);
    }
    expect_secrets(server.other, "signed/cross", nothing);
    expect_secrets(server.other, "back/x", nothing);
    expect_secrets(server.plain, "plain/back", nothing);
    expect_secrets(server.plain, "plain/host", nothing);
    expect_secrets(server.other, "plain/userinfo", nothing);
    expect_secrets(server.plain, "plain/s", sent);
    nq_http_close(&h);
}

/* A name and password in the URL are for its origin, too, and never in messages. */
static void test_userinfo(void **state) {
    (void)state;
    const char *const basic = " Basic_bWU6aHVudGVyMg== -"; /* me:hunter2 */
    const char *const paths[] = {"plain/u", "signed/u", "relative/u", "cross/u"};
    nq_http *h = open_http();
    for (size_t i = 0; i < 4; i++) {
        char url[256];
        (void)snprintf(url, sizeof url, "http://me:hunter2@127.0.0.1:%u/%s", server.plain,
                       paths[i]);
        nq_http_file f = {.url = url, .size = NQ_HTTP_ASK};
        nq_source *s = NULL;
        assert_int_equal(nq_http_source(&s, h, &f, NULL), NOVAQ_OK);
        assert_null(strstr(s->name, "hunter2"));
        assert_non_null(strstr(s->name, paths[i]));
        expect_bytes(s, 500000, 1000);
        nq_source_close(&s);
        expect_secrets(server.plain, paths[i], basic);
    }
    expect_secrets(server.plain, "plain/u", basic);
    expect_secrets(server.other, "signed/cross", " - -");
    nq_http_close(&h);
}

/* ---- tokens that expire ---- */

typedef struct desk {
    unsigned given;
    unsigned limit; /* then there are no more */
    novaq_status st;
} desk;

static novaq_status give_token(char **token, void *ctx, novaq_error *err) {
    desk *d = ctx;
    if (d->st != NOVAQ_OK) {
        return nq_fail(err, d->st, "the desk is closed");
    }
    return d->given < d->limit ? nq_asprintf(token, err, "fresh-%u", ++d->given) : NOVAQ_OK;
}

/* Reads all of it with a request per piece; how many bytes came. */
static uint64_t read_with(desk *d, const char *path, novaq_status want, const char *says) {
    nq_http *h = open_http();
    nq_http_file f = {.url = url_at(2, server.plain, path),
                      .token = "stale",
                      .size = FAULT_SIZE,
                      .renew = give_token,
                      .renew_ctx = d};
    nq_source *s = NULL;
    uint8_t buf[50000];
    novaq_error err = {0};
    uint64_t at = 0;
    assert_int_equal(nq_http_source(&s, h, &f, NULL), NOVAQ_OK);
    novaq_status st = NOVAQ_OK;
    for (; at < FAULT_SIZE; at += sizeof buf) {
        if ((st = nq_source_read(s, at, buf, sizeof buf, &err)) != NOVAQ_OK) {
            break;
        }
        assert_true(content_ok(buf, at, sizeof buf));
    }
    if (st != want || strstr(err.msg, says) == NULL) {
        fail_msg("%s: %d, \"%s\"", path, (int)st, err.msg);
    }
    nq_source_close(&s);
    nq_http_close(&h);
    return at;
}

static void test_renew(void **state) {
    (void)state;
    desk d = {.limit = 100};
    assert_int_equal(read_with(&d, "wants-fresh/a", NOVAQ_OK, ""), FAULT_SIZE);
    assert_int_equal(d.given, 10);
    unsigned asked = 0, connected = 0;
    count_of(&asked, &connected, "wants-fresh/a");
    assert_int_equal(asked, 20 + 10);
    d = (desk){.limit = 2};
    assert_true(read_with(&d, "wants-fresh/b", NOVAQ_E_NETWORK, "HTTP 401") < FAULT_SIZE / 2);
    d = (desk){.limit = 1};
    (void)read_with(&d, "status/401/renew", NOVAQ_E_NETWORK, "HTTP 401");
    assert_int_equal(d.given, 1);
    d = (desk){.st = NOVAQ_E_INTERRUPTED};
    (void)read_with(&d, "wants-fresh/c", NOVAQ_E_INTERRUPTED, "the desk is closed");
}

/* ---- requests and connections ---- */

/* After a break only what is missing, of the same version. */
static void test_resume(void **state) {
    (void)state;
    nq_http *h = open_http();
    const char *const paths[] = {"short-once/r", "weak-etag/r"};
    for (size_t i = 0; i < 2; i++) {
        nq_source *s = open_source(h, paths[i], NULL);
        nq_source_expect(s, 0, s->size);
        for (uint64_t at = 0; at < FAULT_SIZE; at += 50000) {
            expect_bytes(s, at, 50000);
        }
        nq_source_close(&s);
    }
    char *text = log_of(server.plain, paths[0]);
    assert_non_null(strstr(text, "\nGET bytes=0-65535 - - -\n"
                                 "GET bytes=65536-999999 \"version-1\" - -\n"
                                 "GET bytes=465536-999999 \"version-1\" - -\n"));
    nq_free(text);
    text = log_of(server.plain, paths[1]);
    assert_non_null(strstr(text, "\nGET bytes=65536-999999 - - -\n"));
    nq_free(text);
    assert_int_equal(nq_http_received(h), 2 * FAULT_SIZE);
    nq_http_close(&h);
}

static void test_one_request(void **state) {
    (void)state;
    nq_http *h = open_http();
    nq_source *s = open_source(h, "plain/one", NULL);
    assert_string_equal(nq_http_etag(s), "\"version-1\"");
    assert_string_equal(nq_http_modified(s), "");
    nq_source_expect(s, 0, s->size);
    for (uint64_t at = 0; at < FAULT_SIZE; at += 3333) {
        uint64_t n = FAULT_SIZE - at < 3333 ? FAULT_SIZE - at : 3333;
        expect_bytes(s, at + n / 10, n - n / 10); /* with gaps between */
    }
    expect_counts("plain/one", 2, 1);
    assert_int_equal(nq_http_received(h), FAULT_SIZE);
    expect_bytes(s, 3, 60000); /* known from the beginning */
    assert_int_equal(nq_http_received(h), FAULT_SIZE);
    expect_bytes(s, 200000, 10); /* behind the window */
    expect_counts("plain/one", 3, 1);
    nq_source_close(&s);
    nq_http_close(&h);
}

static void test_reuse(void **state) {
    (void)state;
    nq_http *h = open_http();
    nq_source *s = open_source(h, "plain/reuse", NULL);
    for (uint64_t i = 0; i < 50; i++) {
        expect_bytes(s, 70000 + nq_hash3(1, 2, i) % 900000, 1 + i * 7);
    }
    nq_source_close(&s);
    s = open_source(h, "plain/reuse", NULL);
    expect_bytes(s, 999999, 1);
    nq_source_close(&s);
    nq_http_close(&h);
    expect_counts("plain/reuse", 53, 1);
}

/* Hints that turn out wrong cost requests, never bytes. The file is too large for the
 * window's request to end meanwhile. */
static void test_hints(void **state) {
    (void)state;
    nq_http *h = open_http();
    nq_source *s = open_source(h, "huge/hints", NULL);
    const uint64_t mib = 1 << 20;
    nq_source_expect(s, s->size, 1);
    nq_source_expect(s, 5, UINT64_MAX);
    nq_source_expect(s, 0, 0);
    nq_source_expect(s, mib, 900 * mib);
    expect_bytes(s, mib, 50000);
    nq_source_expect(s, mib + 50000, 10000); /* already under way */
    expect_bytes(s, mib + 50000, 10000);
    expect_counts("huge/hints", 2, 1);
    expect_bytes(s, 600 * mib, 1000);   /* far: by itself */
    expect_bytes(s, mib + 60000, 1000); /* the window goes on */
    expect_bytes(s, 700 * mib, 1000);   /* far again, but not in order */
    expect_bytes(s, mib + 61000, 1000);
    expect_counts("huge/hints", 4, 2);
    expect_bytes(s, 800 * mib, 1000);
    expect_bytes(s, 800 * mib + 1000, 1000); /* reading has moved there */
    expect_bytes(s, 800 * mib + 2000, 65000);
    expect_counts("huge/hints", 6, 2);
    nq_source_expect(s, 300 * mib, 100000); /* another window instead */
    expect_bytes(s, 300 * mib, 60000);
    expect_bytes(s, 300 * mib + 60000, 60000); /* beyond its end */
    expect_bytes(s, 70000, 100);
    unsigned asked = 0, connected = 0;
    count_of(&asked, &connected, "huge/hints");
    assert_int_equal(asked, 9);
    assert_true(connected <= 5);
    nq_source_close(&s);
    nq_http_close(&h);
}

typedef struct other_reader {
    nq_source *s;
    bool ok;
} other_reader;

static void *read_elsewhere(void *arg) {
    other_reader *r = arg;
    const uint64_t begin = 500 << 20;
    uint8_t buf[20000];
    nq_source_expect(r->s, begin, 40 * sizeof buf);
    r->ok = true;
    for (uint64_t i = 0; r->ok && i < 40; i++) {
        uint64_t at = begin + i * sizeof buf;
        r->ok = nq_source_read(r->s, at, buf, sizeof buf, NULL) == NOVAQ_OK &&
                content_ok(buf, at, sizeof buf);
    }
    return NULL;
}

/* What one thread expects does not spoil what another one does. */
static void test_two_windows(void **state) {
    (void)state;
    nq_http *h = open_http();
    nq_source *s = open_source(h, "huge/two", NULL);
    const uint64_t mib = 1 << 20;
    nq_source_expect(s, mib, 900 * mib);
    for (uint64_t i = 0; i < 3; i++) {
        expect_bytes(s, mib + i * 30000, 30000);
        if (i < 2) {
            other_reader r = {s, false};
            pthread_t thread;
            assert_int_equal(pthread_create(&thread, NULL, read_elsewhere, &r), 0);
            assert_int_equal(pthread_join(thread, NULL), 0);
            assert_true(r.ok);
        }
    }
    unsigned asked = 0, connected = 0;
    count_of(&asked, &connected, "huge/two");
    assert_int_equal(asked, 4); /* opening, the first window, and one for each thread */
    nq_source_close(&s);
    nq_http_close(&h);
}

static void test_small(void **state) {
    (void)state;
    nq_http *h = open_http();
    nq_source *s = open_source(h, "small-whole/a", NULL);
    assert_int_equal(s->size, 1000);
    nq_source_expect(s, 0, 1000);
    expect_bytes(s, 0, 1000);
    expect_bytes(s, 999, 1);
    uint8_t c = 0;
    assert_int_equal(nq_source_read(s, 1000, &c, 1, NULL), NOVAQ_E_FORMAT);
    nq_source_close(&s);
    expect_counts("small-whole/a", 1, 1);
    s = open_source(h, "empty/a", NULL);
    assert_int_equal(s->size, 0);
    nq_source_close(&s);
    nq_http_close(&h);
}

static void rest(double s) {
    struct timespec t = {(time_t)s, (long)((s - (double)(time_t)s) * 1e9)};
    (void)nanosleep(&t, NULL);
}

/* A reader that rests holds back the server; time it rests is no stall. */
static void test_slow_reader(void **state) {
    (void)state;
    nq_http *h = open_http();
    nq_source *s = open_source(h, "huge/a", NULL);
    assert_int_equal(s->size, 1 << 30);
    nq_source_expect(s, 0, s->size);
    uint64_t read = 65536;
    for (unsigned i = 0; i < 40; i++) {
        expect_bytes(s, read, 4000);
        read += 4000;
        if (i == 20) {
            rest(1.9);
        }
    }
    assert_true(nq_http_received(h) < read + (3 << 20));
    unsigned asked = 0, connected = 0;
    count_of(&asked, &connected, "huge/a");
    assert_int_equal(asked, 2);
    nq_source_close(&s);
    nq_http_close(&h);
}

/* ---- threads ---- */

typedef struct reader {
    nq_source *s;
    uint64_t seed;
    bool in_order;
    bool ok;
} reader;

static void *read_much(void *arg) {
    reader *r = arg;
    uint8_t buf[20000];
    r->ok = true;
    for (uint64_t i = 0; r->ok && i < 40; i++) {
        uint64_t n = 1 + nq_hash3(r->seed, 1, i) % sizeof buf;
        uint64_t at = nq_hash3(r->seed, 2, i) % (FAULT_SIZE - n);
        if (r->in_order) {
            n = sizeof buf;
            at = 100000 + i * n;
        }
        r->ok = nq_source_read(r->s, at, buf, n, NULL) == NOVAQ_OK && content_ok(buf, at, n);
        if (i % 16 == 5 && !r->in_order) {
            nq_source_expect(r->s, at, FAULT_SIZE - at);
        }
    }
    return NULL;
}

static void test_threads(void **state) {
    (void)state;
    nq_http *h = open_http();
    const char *const paths[] = {"plain/threads", "breaks/threads"};
    for (size_t p = 0; p < 2; p++) {
        nq_source *s = open_source(h, paths[p], NULL);
        nq_source_expect(s, 0, s->size);
        pthread_t thread[6];
        reader r[6];
        for (size_t i = 0; i < 6; i++) {
            r[i] = (reader){.s = s, .seed = i, .in_order = i < 2};
            assert_int_equal(pthread_create(&thread[i], NULL, read_much, &r[i]), 0);
        }
        for (size_t i = 0; i < 6; i++) {
            (void)pthread_join(thread[i], NULL);
            assert_true(r[i].ok);
        }
        nq_source_close(&s);
    }
    assert_true(nq_http_received(h) > 6 * 40 * 1000);
    nq_http_close(&h);
}

/* ---- signals ---- */

static atomic_uint pipes;

static void count_pipe(int signal) {
    (void)signal;
    (void)atomic_fetch_add(&pipes, 1);
}

static void write_to_nobody(void) {
    int fd[2];
    assert_int_equal(pipe(fd), 0);
    (void)close(fd[0]);
    assert_int_equal(write(fd[1], "x", 1), -1);
    (void)close(fd[1]);
}

/* None comes out of the quiet, others do. */
static void test_sigpipe(void **state) {
    (void)state;
    void (*before)(int) = signal(SIGPIPE, count_pipe);
    nq_quiet q = nq_quiet_begin();
    write_to_nobody();
    write_to_nobody();
    nq_quiet_end(&q);
    assert_int_equal(atomic_load(&pipes), 0);
    write_to_nobody();
    assert_int_equal(atomic_load(&pipes), 1);
    /* One that was there before is not swallowed. */
    sigset_t set, old;
    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGPIPE);
    (void)pthread_sigmask(SIG_BLOCK, &set, &old);
    write_to_nobody();
    q = nq_quiet_begin();
    nq_quiet_end(&q);
    assert_int_equal(atomic_load(&pipes), 1);
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    assert_int_equal(atomic_load(&pipes), 2);
    (void)signal(SIGPIPE, before);
}

/* ---- stopping ---- */

typedef struct waiter {
    nq_http *h;
    const char *url;
    novaq_status st;
    double ended;
} waiter;

static void *wait_for_it(void *arg) {
    waiter *w = arg;
    nq_http_file f = {.url = w->url, .size = NQ_HTTP_ASK};
    nq_source *s = NULL;
    w->st = nq_http_source(&s, w->h, &f, NULL);
    uint8_t c = 0;
    if (w->st == NOVAQ_OK) {
        w->st = nq_source_read(s, s->size - 1, &c, 1, NULL);
    }
    w->ended = seconds();
    nq_source_close(&s);
    return NULL;
}

/* Silence, a slow body, a long pause before the next attempt, an absent server. */
static void test_stop(void **state) {
    (void)state;
    (void)setenv("NOVAQ_HTTP_STALL", "20", 1);
    (void)setenv("NOVAQ_HTTP_RETRIES", "9", 1);
    char url[4][256];
    url_of(url[0], sizeof url[0], server.plain, "silent/stop");
    url_of(url[1], sizeof url[1], server.plain, "drip/stop");
    url_of(url[2], sizeof url[2], server.plain, "status/503/stop");
    url_of(url[3], sizeof url[3], server.plain, "stall-always/stop");
    pthread_t thread[4];
    waiter w[4];
    nq_http *h = open_http();
    for (size_t i = 0; i < 4; i++) {
        w[i] = (waiter){.h = h, .url = url[i]};
        assert_int_equal(pthread_create(&thread[i], NULL, wait_for_it, &w[i]), 0);
    }
    rest(0.5);
    double start = seconds();
    nq_http_stop(h);
    for (size_t i = 0; i < 4; i++) {
        (void)pthread_join(thread[i], NULL);
        assert_int_equal(w[i].st, NOVAQ_E_INTERRUPTED);
        if (getenv("HTTP_VERBOSE") != NULL) {
            print_error("stopped after %.3f s: %s\n", w[i].ended - start, w[i].url);
        }
        assert_true(w[i].ended - start < 10); /* 0.05 on an idle machine; a stall is 20 */
    }
    waiter late = {.h = h, .url = url_at(0, server.plain, "plain/late")};
    (void)wait_for_it(&late);
    assert_int_equal(late.st, NOVAQ_E_INTERRUPTED);
    nq_http_close(&h);
    expect_counts("plain/late", 0, 0);
    (void)setenv("NOVAQ_HTTP_STALL", "1.5", 1);
    (void)setenv("NOVAQ_HTTP_RETRIES", "1", 1);
}

typedef struct clock_stop {
    double at;
    atomic_uint asked;
} clock_stop;

static bool is_time(void *ctx) {
    clock_stop *c = ctx;
    /* Not before it was asked again, however long the first time was in coming. */
    return atomic_fetch_add(&c->asked, 1) > 2 && seconds() >= c->at;
}

/* Somebody else's wish to stop: in silence, between attempts, while the Hub is asked. */
static void test_stop_when(void **state) {
    (void)state;
    (void)setenv("NOVAQ_HTTP_STALL", "20", 1);
    (void)setenv("NOVAQ_HTTP_RETRIES", "9", 1);
    (void)setenv("HF_HOME", "/nonexistent", 1);
    const char *const hubs[] = {"silent", "status/503", "drip"};
    for (size_t i = 0; i < 3; i++) {
        clock_stop c = {.at = seconds() + 0.3};
        nq_files *f = NULL;
        (void)setenv("HF_ENDPOINT", url_at(0, server.plain, hubs[i]), 1);
        assert_int_equal(nq_files_open_with(&f, "hf://org/name", is_time, &c, NULL),
                         NOVAQ_E_INTERRUPTED);
        assert_null(f);
        assert_true(seconds() - c.at < 10);
    }
    clock_stop c = {.at = seconds() + 3600};
    nq_files *f = NULL;
    nq_source *s = NULL;
    uint8_t byte = 0;
    const char *url = url_at(0, server.plain, "stall-always/stop-when");
    assert_int_equal(nq_files_open_with(&f, url, is_time, &c, NULL), NOVAQ_OK);
    c.at = seconds() + 0.3;
    novaq_status st = nq_files_source(&s, f, "stop-when", NULL);
    st = st == NOVAQ_OK ? nq_source_read(s, s->size - 1, &byte, 1, NULL) : st;
    assert_int_equal(st, NOVAQ_E_INTERRUPTED);
    assert_true(seconds() - c.at < 10);
    nq_source_close(&s);
    nq_files_close(&f);
    (void)unsetenv("HF_ENDPOINT");
    (void)unsetenv("HF_HOME");
    (void)setenv("NOVAQ_HTTP_STALL", "1.5", 1);
    (void)setenv("NOVAQ_HTTP_RETRIES", "1", 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_document),    cmocka_unit_test(test_statuses),
        cmocka_unit_test(test_no_follow),   cmocka_unit_test(test_head),
        cmocka_unit_test(test_arguments),   cmocka_unit_test(test_environment),
        cmocka_unit_test(test_secrets),     cmocka_unit_test(test_userinfo),
        cmocka_unit_test(test_resume),      cmocka_unit_test(test_one_request),
        cmocka_unit_test(test_reuse),       cmocka_unit_test(test_hints),
        cmocka_unit_test(test_two_windows), cmocka_unit_test(test_small),
        cmocka_unit_test(test_slow_reader), cmocka_unit_test(test_threads),
        cmocka_unit_test(test_stop),        cmocka_unit_test(test_peek),
        cmocka_unit_test(test_accept),      cmocka_unit_test(test_renew),
        cmocka_unit_test(test_sigpipe),     cmocka_unit_test(test_stop_when),
    };
    return cmocka_run_group_tests(tests, server_start, server_stop);
}
