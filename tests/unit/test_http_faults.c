/* Sources over a network that misbehaves: each fault has a verdict, a message and a
 * number of requests. */
#include "http_util.h"

#include <pthread.h>
#include <stdatomic.h>

/* ---- the table ---- */

typedef enum where { PLAIN, TLS, TLS_KNOWN, TLS_NAME, CLOSED, NO_HOST } where;

typedef struct fault {
    const char *path; /* of the server: its first part says what happens */
    novaq_status want;
    const char *says;  /* part of the message */
    unsigned requests; /* for this path; 0: not counted */
    where at;
    uint64_t size; /* told beforehand; 0: asked */
    const char *token;
} fault;

#define OK   NOVAQ_OK
#define NET  NOVAQ_E_NETWORK
#define VER  NOVAQ_E_VERIFY
#define UNS  NOVAQ_E_UNSUPPORTED
#define SIZE FAULT_SIZE

/* The first request asks for the size; one more brings the rest. A failure that is worth
 * it is tried once more. */
static const fault faults[] = {
    /* breaks that are survived */
    {"plain/base", OK, "", 2, PLAIN, 0, NULL},
    {"plain/known", OK, "", 1, PLAIN, SIZE, NULL},
    {"http10/a", OK, "", 2, PLAIN, 0, NULL},
    {"reset-once/a", OK, "", 3, PLAIN, 0, NULL},
    {"short-once/a", OK, "", 3, PLAIN, 0, NULL},
    {"breaks/a", OK, "", 11, PLAIN, 0, NULL},
    {"smaller/a", OK, "", 8, PLAIN, 0, NULL},
    {"early-once/a", OK, "", 0, PLAIN, 0, NULL},
    {"headers-only-once/a", OK, "", 3, PLAIN, 0, NULL},
    {"stall-once/a", OK, "", 3, PLAIN, 0, NULL},
    {"garbage-once/a", OK, "", 3, PLAIN, 0, NULL},
    {"chunked/a", OK, "", 2, PLAIN, 0, NULL},
    {"hints/a", OK, "", 2, PLAIN, 0, NULL},
    {"no-head/a", OK, "", 2, PLAIN, 0, NULL},
    {"weak-etag/a", OK, "", 2, PLAIN, 0, NULL},
    {"date-only/a", OK, "", 2, PLAIN, 0, NULL},
    {"busy-once/a", OK, "", 3, PLAIN, 0, NULL},
    {"busy-first/a", OK, "", 3, PLAIN, 0, NULL},
    {"wait-1/a", OK, "", 3, PLAIN, 0, NULL},
    {"wait-limit/a", OK, "", 3, PLAIN, 0, NULL},
    {"wait-date/a", OK, "", 3, PLAIN, 0, NULL},
    {"relative/a", OK, "", 1, PLAIN, 0, NULL},
    {"cross/a", OK, "", 1, PLAIN, 0, NULL},
    {"host/a", OK, "", 1, PLAIN, 0, NULL},
    {"expiring/a", OK, "", 2, PLAIN, 0, NULL},
    {"expiring-400/a", OK, "", 2, PLAIN, 0, NULL},
    {"no-ranges/b", OK, "", 1, PLAIN, SIZE, NULL},
    {"plain/tls", OK, "", 2, TLS_KNOWN, 0, NULL},
    /* breaks that are not */
    {"reset-always/a", NET, "broke off after", 2, PLAIN, 0, NULL},
    {"short-always/a", NET, "broke off after 100 bytes (2 attempts)", 2, PLAIN, 0, NULL},
    {"early-always/a", NET, "no usable reply", 0, PLAIN, 0, NULL},
    {"half-headers/a", NET, "broke off within the headers (2 attempts)", 2, PLAIN, 0, NULL},
    {"stall-always/a", NET, "stalled", 2, PLAIN, 0, NULL},
    {"silent/a", NET, "stalled", 2, PLAIN, 0, NULL},
    {"drip/a", NET, "stalled", 2, PLAIN, 0, NULL},
    {"x", NET, "refused or unreachable", 0, CLOSED, 0, NULL},
    {"x", NET, "address cannot be found", 0, NO_HOST, 0, NULL},
    {"plain/tls", NET, "certificate cannot be trusted", 0, TLS, 0, NULL},
    {"plain/tls", NET, "certificate cannot be trusted", 0, TLS_NAME, 0, NULL},
    /* replies that lie */
    {"wrong-start/a", NET, "another range", 2, PLAIN, 0, NULL},
    {"wrong-end/a", NET, "another range", 2, PLAIN, 0, NULL},
    {"no-content-range/a", NET, "no proper Content-Range", 2, PLAIN, 0, NULL},
    {"garbage-content-range/a", NET, "no proper Content-Range", 2, PLAIN, 0, NULL},
    {"wrong-length/a", NET, "Content-Length and Content-Range differ", 2, PLAIN, 0, NULL},
    {"too-much/a", NET, "more bytes than announced", 2, PLAIN, 0, NULL},
    {"chunked-broken/a", NET, "broke off", 2, PLAIN, 0, NULL},
    {"unknown-total/a", UNS, "does not tell the size", 1, PLAIN, 0, NULL},
    {"no-ranges/a", UNS, "does not answer range requests", 1, PLAIN, 0, NULL},
    {"no-ranges/c", VER, "1000000 bytes instead of 999999", 1, PLAIN, SIZE - 1, NULL},
    {"gzip/a", NET, "compressed (gzip)", 1, PLAIN, 0, NULL},
    {"garbage/a", NET, "no usable reply", 0, PLAIN, 0, NULL},
    {"big-header/a", NET, "headers of the reply have no end", 2, PLAIN, 0, NULL},
    {"many-headers/a", NET, "headers of the reply have no end", 2, PLAIN, 0, NULL},
    {"endless-hints/a", NET, "headers of the reply have no end", 2, PLAIN, 0, NULL},
    /* another version */
    {"etag-changes/a", VER, "ETag", 2, PLAIN, 0, NULL},
    {"etag-vanishes/a", VER, "ETag", 2, PLAIN, 0, NULL},
    {"date-changes/a", VER, "date", 2, PLAIN, 0, NULL},
    {"if-range/a", VER, "run the same command again", 3, PLAIN, 0, NULL},
    {"other-total/a", VER, "1000001 bytes instead of 1000000", 2, PLAIN, 0, NULL},
    {"shrunk-416/a", VER, "70000 bytes instead of 1000000", 2, PLAIN, 0, NULL},
    {"plain/promised", VER, "1000000 bytes instead of 999999", 1, PLAIN, SIZE - 1, NULL},
    {"gone-416/a", NET, "HTTP 416", 2, PLAIN, 0, NULL},
    /* statuses */
    {"wait-hour/a", NET, "3600 s", 1, PLAIN, 0, NULL},
    {"status/400/a", NET, "(HTTP 400)", 1, PLAIN, 0, NULL},
    {"status/401/a", NET, "refuses it: get a new link", 1, PLAIN, 0, NULL},
    {"status/401/login", NET, "login required (HTTP 401): set a token", 1, PLAIN, 0, NULL},
    {"status/401/login-b", NET, "wrong or has expired", 1, PLAIN, 0, "token-123"},
    {"status/403/login", NET, "set a token that may", 1, PLAIN, 0, NULL},
    {"status/403/login-b", NET, "token's owner may not", 1, PLAIN, 0, "token-123"},
    {"to-denied/a", NET, "get a new link (\"AccessDenied\")", 1, PLAIN, 0, NULL},
    {"to-denied/login", NET, "run the same command again (\"Acc", 1, PLAIN, 0, "token-123"},
    {"big-404/a", NET, "not found (HTTP 404)", 1, PLAIN, 0, NULL},
    {"status/403/a", NET, "(\"Access to model x is restricted\")", 1, PLAIN, 0, NULL},
    {"status/404/a", NET, "not found (HTTP 404)", 1, PLAIN, 0, NULL},
    {"status/410/a", NET, "gone (HTTP 410)", 1, PLAIN, 0, NULL},
    {"status/418/a", NET, "unexpected reply (HTTP 418)", 1, PLAIN, 0, NULL},
    {"status/429/a", NET, "too many requests (HTTP 429)", 2, PLAIN, 0, NULL},
    {"status/500/a", NET, "the server failed (HTTP 500)", 2, PLAIN, 0, NULL},
    {"status/503/a", NET, "(2 attempts)", 2, PLAIN, 0, NULL},
    {"status/204/a", NET, "unexpected reply (HTTP 204)", 1, PLAIN, 0, NULL},
    {"big-error/a", NET, "HTTP 500", 2, PLAIN, 0, NULL},
    /* redirects */
    {"loop/x", NET, "a loop", 11, PLAIN, 0, NULL},
    {"nowhere/a", NET, "leads nowhere", 1, PLAIN, 0, NULL},
    {"to-file/a", NET, "not http or https", 1, PLAIN, 0, NULL},
    {"to-ftp/a", NET, "not http or https", 1, PLAIN, 0, NULL},
    {"to-garbage/a", NET, "malformed URL", 1, PLAIN, 0, NULL},
    {"to-stranger/a", NET, "http://192.0.2.1:80, another host without TLS", 1, PLAIN, 0, NULL},
    {"to-pretender/a", NET, "another host without TLS", 1, PLAIN, 0, NULL},
    {"to-plain/a", NET, "from https to http", 1, TLS_KNOWN, 0, NULL},
    {"expired/a", NET, "access denied (HTTP 403)", 1, PLAIN, 0, NULL},
};

#define FAULTS (sizeof faults / sizeof faults[0])

/* ---- running one ---- */

static void fault_url(char *buf, size_t size, const fault *f) {
    switch (f->at) {
    case PLAIN: url_of(buf, size, server.plain, f->path); break;
    case CLOSED: url_of(buf, size, server.closed, f->path); break;
    case NO_HOST: /* a label that no name server needs to be asked about */
        (void)snprintf(buf, size, "http://%064d.invalid/%s", 0, f->path);
        break;
    case TLS_NAME: (void)snprintf(buf, size, "https://localhost:%u/%s", server.tls, f->path); break;
    default: (void)snprintf(buf, size, "https://127.0.0.1:%u/%s", server.tls, f->path); break;
    }
}

/* All of it in order, in pieces of an odd size; *same: what came is right. */
static novaq_status read_all(nq_source *s, bool *same, novaq_error *err) {
    uint8_t buf[77777];
    nq_source_expect(s, 0, s->size);
    for (uint64_t at = 0; at < s->size;) {
        uint64_t n = s->size - at < sizeof buf ? s->size - at : sizeof buf;
        novaq_status st = nq_source_read(s, at, buf, n, err);
        if (st != NOVAQ_OK) {
            return st;
        }
        *same = *same && content_ok(buf, at, n);
        at += n;
    }
    *same = *same && s->size == SIZE;
    return NOVAQ_OK;
}

typedef struct outcome {
    novaq_status st;
    novaq_error err;
    bool same;
    double took;
} outcome;

static novaq_status read_fault(outcome *o, const fault *f) {
    char url[256];
    fault_url(url, sizeof url, f);
    (void)strncat(url, "?secret=query", sizeof url - strlen(url) - 1);
    nq_http *h = NULL;
    NQ_TRY(nq_http_open(&h, &o->err));
    nq_http_file file = {.url = url,
                         .token = f->token,
                         .size = f->size != 0 ? f->size : NQ_HTTP_ASK,
                         .login = strstr(f->path, "login") != NULL};
    nq_source *s = NULL;
    novaq_status st = nq_http_source(&s, h, &file, &o->err);
    o->same = true;
    if (st == NOVAQ_OK) {
        st = read_all(s, &o->same, &o->err);
    } else {
        o->same = s == NULL;
    }
    nq_source_close(&s);
    nq_http_close(&h);
    return st;
}

static void run_fault(outcome *o, const fault *f) {
    double start = seconds();
    o->st = read_fault(o, f);
    o->took = seconds() - start;
}

static void check_fault(const fault *f, const outcome *o) {
    const char *msg = o->err.msg;
    if (getenv("HTTP_VERBOSE") != NULL) {
        print_error("%-26s %.2f s  %s\n", f->path, o->took, msg);
    }
    if (o->st != f->want || strstr(msg, f->says) == NULL || !o->same) {
        fail_msg("%s: status %d (%d wanted), \"%s\" (\"%s\" wanted), content %s", f->path,
                 (int)o->st, (int)f->want, msg, f->says, o->same ? "right" : "wrong");
    }
    if (o->st != NOVAQ_OK && (strstr(msg, f->path) == NULL || strchr(msg, '\n') != NULL ||
                              strstr(msg, "secret") != NULL || strstr(msg, "token-123") != NULL)) {
        fail_msg("%s: \"%s\" does not name the URL, or tells a secret", f->path, msg);
    }
    unsigned asked = f->requests, connected = 0;
    if (f->requests != 0) {
        count_of(&asked, &connected, f->path);
    }
    if (asked != f->requests) {
        fail_msg("%s: %u requests instead of %u", f->path, asked, f->requests);
    }
    if (o->took > 100) { /* 2 to 10 on an idle machine */
        fail_msg("%s: took %.1f s", f->path, o->took);
    }
}

static bool is_tls(const fault *f) {
    return f->at == TLS || f->at == TLS_KNOWN || f->at == TLS_NAME;
}

/* Most of the time is spent waiting: many at once. */
static outcome outcomes[FAULTS];
static atomic_size_t next_fault;

static void *work(void *arg) {
    (void)arg;
    for (size_t i; (i = atomic_fetch_add(&next_fault, 1)) < FAULTS;) {
        if (!is_tls(&faults[i])) {
            run_fault(&outcomes[i], &faults[i]);
        }
    }
    return NULL;
}

static void test_plain(void **state) {
    (void)state;
    pthread_t thread[8];
    for (size_t i = 0; i < 8; i++) {
        assert_int_equal(pthread_create(&thread[i], NULL, work, NULL), 0);
    }
    for (size_t i = 0; i < 8; i++) {
        (void)pthread_join(thread[i], NULL);
    }
    for (size_t i = 0; i < FAULTS; i++) {
        if (!is_tls(&faults[i])) {
            check_fault(&faults[i], &outcomes[i]);
        }
    }
}

static void test_tls(void **state) {
    (void)state;
    if (server.tls == 0) {
        skip(); /* no openssl program to make a certificate */
    }
    char ca[128];
    (void)snprintf(ca, sizeof ca, "%s/cert.pem", server.folder);
    for (size_t i = 0; i < FAULTS; i++) {
        const fault *f = &faults[i];
        if (!is_tls(f)) {
            continue;
        }
        if (f->at != TLS) {
            (void)setenv("SSL_CERT_FILE", ca, 1);
        }
        run_fault(&outcomes[i], f);
        check_fault(f, &outcomes[i]);
        (void)unsetenv("SSL_CERT_FILE");
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain),
        cmocka_unit_test(test_tls),
    };
    return cmocka_run_group_tests(tests, server_start, server_stop);
}
