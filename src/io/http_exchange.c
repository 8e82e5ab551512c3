/* http_exchange.c - see http_impl.h. Owns: how libcurl is set up, the headers of a reply,
 * the stall timeout, signals. Refuses: redirects and retries (its callers'), unverified TLS,
 * headers without end. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "io/http_impl.h"

#define HEAD_MAX   ((size_t)64 << 10) /* headers of one reply, 1xx ones before it included */
#define POLL_MS    50
#define SLOW_RATE  1024.0 /* bytes/s; below it for the stall time is a stall */
#define USER_AGENT "novaq/" NOVAQ_VERSION

/* ---- signals ---- */

static sigset_t only_sigpipe(void) {
    sigset_t set;
    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGPIPE);
    return set;
}

nq_quiet nq_quiet_begin(void) {
    nq_quiet q;
    sigset_t waiting;
    sigset_t pipe = only_sigpipe();
    (void)sigemptyset(&waiting);
    (void)sigpending(&waiting);
    q.pending = sigismember(&waiting, SIGPIPE) == 1;
    (void)pthread_sigmask(SIG_BLOCK, &pipe, &q.before);
    return q;
}

void nq_quiet_end(const nq_quiet *q) {
    sigset_t pipe = only_sigpipe();
    struct timespec now = {0, 0};
    /* It is raised in the thread that writes, so ours would be pending here. */
    while (!q->pending && sigtimedwait(&pipe, NULL, &now) < 0 && errno == EINTR) {
    }
    (void)pthread_sigmask(SIG_SETMASK, &q->before, NULL);
}

/* ---- callbacks ---- */

/* "Name: value\r\n" as "name: value\n". */
static bool keep_line(nq_exchange *x, const char *line, size_t n) {
    const char *colon = memchr(line, ':', n);
    if (colon == NULL || line[0] == ' ' || line[0] == '\t') {
        return true; /* a folded or malformed line means nothing to us */
    }
    size_t at = x->head.len;
    while (n > 0 && (line[n - 1] == '\r' || line[n - 1] == '\n' || line[n - 1] == ' ')) {
        n--;
    }
    size_t name = (size_t)(colon - line);
    const char *value = colon + 1;
    while (value < line + n && (*value == ' ' || *value == '\t')) {
        value++;
    }
    size_t rest = value < line + n ? (size_t)(line + n - value) : 0;
    if (nq_buf_append(&x->head, line, name, NULL) != NOVAQ_OK ||
        nq_buf_puts(&x->head, ": ", NULL) != NOVAQ_OK ||
        nq_buf_append(&x->head, value, rest, NULL) != NOVAQ_OK ||
        nq_buf_puts(&x->head, "\n", NULL) != NOVAQ_OK) {
        return false;
    }
    for (size_t i = at; i < at + name; i++) {
        uint8_t *c = &x->head.data[i];
        if (*c >= 'A' && *c <= 'Z') {
            *c = (uint8_t)(*c - 'A' + 'a');
        }
    }
    return true;
}

/* Of "HTTP/1.1 206 ...": libcurl has checked the form. */
static int status_of(const char *line, size_t n) {
    const char *p = memchr(line, ' ', n);
    int status = 0;
    for (; p != NULL && p < line + n && *p == ' '; p++) {
    }
    for (size_t i = 0; p != NULL && i < 3 && p + i < line + n; i++) {
        status = p[i] >= '0' && p[i] <= '9' ? status * 10 + (p[i] - '0') : 0;
    }
    return status;
}

static size_t on_header(char *line, size_t one, size_t n, void *ctx) {
    nq_exchange *x = ctx;
    n *= one;
    x->moved += n;
    x->head_bytes += n;
    if (x->head_bytes > HEAD_MAX) {
        x->big_head = true;
        return 0;
    }
    if (x->head_done) {
        return n; /* trailers of a chunked body */
    }
    if (n >= 5 && memcmp(line, "HTTP/", 5) == 0) {
        x->head.len = 0;
        x->status = status_of(line, n);
        return n;
    }
    if (line[0] != '\r' && line[0] != '\n') {
        return keep_line(x, line, n) ? n : 0;
    }
    if (x->status >= 100 && x->status < 200) {
        return n;
    }
    x->head_done = true;
    atomic_store(&x->h->reached, true);
    if (x->ask.on_head != NULL && !x->ask.on_head(x->ask.ctx, x)) {
        x->ended = true;
        return 0;
    }
    return n;
}

static size_t on_body(char *data, size_t one, size_t n, void *ctx) {
    nq_exchange *x = ctx;
    n *= one;
    size_t took = x->ask.on_body(x->ask.ctx, x, (const uint8_t *)data, n);
    if (took == CURL_WRITEFUNC_PAUSE) {
        x->paused = true;
        return took;
    }
    x->moved += n;
    x->body += n;
    atomic_fetch_add(&x->h->received, (uint64_t)n);
    x->ended = x->ended || took != n;
    return took == n ? n : 0;
}

/* ---- setting up ---- */

static bool add_line(nq_exchange *x, const char *line) {
    struct curl_slist *more = curl_slist_append(x->list, line);
    x->list = more != NULL ? more : x->list;
    return more != NULL;
}

static bool add_pair(nq_exchange *x, const char *name, const char *value) {
    char *line = NULL;
    bool ok = nq_asprintf(&line, NULL, "%s: %s", name, value) == NOVAQ_OK && add_line(x, line);
    nq_free(line);
    return ok;
}

static bool add_headers(nq_exchange *x) {
    const nq_ask *a = &x->ask;
    bool ok = add_line(x, "Accept-Encoding: identity");
    for (size_t i = 0; i < a->header_count; i++) {
        ok = ok && add_line(x, a->headers[i]);
    }
    if (a->accept != NULL) {
        ok = ok && add_pair(x, "Accept", a->accept);
    }
    if (a->token != NULL) {
        char *bearer = NULL;
        ok = ok && nq_asprintf(&bearer, NULL, "Bearer %s", a->token) == NOVAQ_OK &&
             add_pair(x, "Authorization", bearer);
        nq_free(bearer);
    }
    if (a->ranged) {
        char range[64];
        (void)snprintf(range, sizeof range, "bytes=%llu-%llu", (unsigned long long)a->first,
                       (unsigned long long)a->last);
        ok = ok && add_pair(x, "Range", range);
    }
    if (a->if_range != NULL) {
        ok = ok && add_pair(x, "If-Range", a->if_range);
    }
    return ok;
}

/* What holds for every exchange. */
static bool set_rules(CURL *e) {
    bool ok = curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L) == CURLE_OK;
#if LIBCURL_VERSION_NUM >= 0x075500
    ok = ok && curl_easy_setopt(e, CURLOPT_PROTOCOLS_STR, "http,https") == CURLE_OK;
#else
    ok = ok && curl_easy_setopt(e, CURLOPT_PROTOCOLS, CURLPROTO_HTTP | CURLPROTO_HTTPS) == CURLE_OK;
#endif
#if LIBCURL_VERSION_NUM >= 0x075700
    /* A stop does not wait for a name server. */
    (void)curl_easy_setopt(e, CURLOPT_QUICK_EXIT, 1L);
#endif
    ok = ok && curl_easy_setopt(e, CURLOPT_FOLLOWLOCATION, 0L) == CURLE_OK;
    ok = ok && curl_easy_setopt(e, CURLOPT_SSL_VERIFYPEER, 1L) == CURLE_OK;
    ok = ok && curl_easy_setopt(e, CURLOPT_SSL_VERIFYHOST, 2L) == CURLE_OK;
    /* Not HTTP/2: what it buffers for a reader that pauses is far more than a stash. */
    ok = ok && curl_easy_setopt(e, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1) == CURLE_OK;
    ok = ok && curl_easy_setopt(e, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L) == CURLE_OK;
    (void)curl_easy_setopt(e, CURLOPT_TCP_KEEPALIVE, 1L);
    (void)curl_easy_setopt(e, CURLOPT_BUFFERSIZE, 131072L);
    return ok && curl_easy_setopt(e, CURLOPT_USERAGENT, USER_AGENT) == CURLE_OK;
}

static bool set_up(nq_exchange *x) {
    CURL *e = x->lane->easy;
    curl_easy_reset(e); /* keeps connections */
    bool ok = set_rules(e) && add_headers(x);
    ok = ok && curl_easy_setopt(e, CURLOPT_URL, x->ask.url) == CURLE_OK;
    ok = ok && curl_easy_setopt(e, CURLOPT_HTTPHEADER, x->list) == CURLE_OK;
    ok = ok && curl_easy_setopt(e, CURLOPT_NOBODY, x->ask.head ? 1L : 0L) == CURLE_OK;
    ok = ok &&
         curl_easy_setopt(e, CURLOPT_CONNECTTIMEOUT_MS, (long)(x->h->connect_s * 1e3)) == CURLE_OK;
    ok = ok && curl_easy_setopt(e, CURLOPT_ERRORBUFFER, x->detail) == CURLE_OK;
    ok = ok && curl_easy_setopt(e, CURLOPT_HEADERFUNCTION, on_header) == CURLE_OK;
    ok = ok && curl_easy_setopt(e, CURLOPT_HEADERDATA, x) == CURLE_OK;
    ok = ok && curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, on_body) == CURLE_OK;
    ok = ok && curl_easy_setopt(e, CURLOPT_WRITEDATA, x) == CURLE_OK;
    if (x->h->ca_file != NULL) {
        ok = ok && curl_easy_setopt(e, CURLOPT_CAINFO, x->h->ca_file) == CURLE_OK;
    }
    return ok && curl_multi_add_handle(x->lane->multi, e) == CURLM_OK;
}

novaq_status nq_exchange_start(nq_exchange *x, nq_http *h, const nq_ask *ask, novaq_error *err) {
    *x = (nq_exchange){.h = h, .ask = *ask, .head = nq_buf_init(HEAD_MAX + 1024)};
    char origin[NQ_ORIGIN_MAX];
    NQ_TRY(nq_url_origin(origin, ask->url, err));
    NQ_TRY(nq_lane_take(&x->lane, h, origin, err));
    if (!set_up(x)) {
        nq_exchange_end(x);
        return nq_fail(err, NOVAQ_E_MEMORY, "libcurl: cannot set up a request");
    }
    return NOVAQ_OK;
}

void nq_exchange_end(nq_exchange *x) {
    if (x->lane != NULL) {
        nq_quiet quiet = nq_quiet_begin();
        (void)curl_multi_remove_handle(x->lane->multi, x->lane->easy);
        nq_quiet_end(&quiet);
        if (!x->done || x->code != CURLE_OK) {
            x->lane->origin[0] = '\0'; /* its connection is gone */
        }
        nq_lane_give(x->h, x->lane);
        x->lane = NULL;
    }
    curl_slist_free_all(x->list);
    x->list = NULL;
    nq_buf_free(&x->head);
}

/* ---- moving on ---- */

static void collect_result(nq_exchange *x) {
    int left = 0;
    for (CURLMsg *m; (m = curl_multi_info_read(x->lane->multi, &left)) != NULL;) {
        if (m->msg == CURLMSG_DONE) {
            x->done = true;
            x->code = m->data.result;
        }
    }
}

/* Until then, libcurl's own timeout for connecting holds. */
static bool is_connected(nq_exchange *x) {
    curl_off_t t = 0;
    x->connected =
        x->connected ||
        (curl_easy_getinfo(x->lane->easy, CURLINFO_PRETRANSFER_TIME_T, &t) == CURLE_OK && t > 0);
    return x->connected;
}

/* Gives up on what is slower than SLOW_RATE for the stall time. */
static void watch_speed(nq_exchange *x) {
    double now = nq_seconds();
    if (!is_connected(x)) {
        return;
    }
    if (x->mark_s == 0 || (double)(x->moved - x->marked) >= SLOW_RATE * x->h->stall_s) {
        x->mark_s = now;
        x->marked = x->moved;
    } else if (now - x->mark_s > x->h->stall_s) {
        x->stalled = true;
        x->done = true;
        x->code = CURLE_OPERATION_TIMEDOUT;
    }
}

static void resume(nq_exchange *x) {
    if (x->paused) {
        x->paused = false;
        CURLcode rc = curl_easy_pause(x->lane->easy, CURLPAUSE_CONT);
        if (rc != CURLE_OK) {
            x->done = true;
            x->code = rc;
        }
    }
}

novaq_status nq_exchange_step(nq_exchange *x, novaq_error *err) {
    if (nq_http_stopped(x->h)) {
        return nq_http_interrupted(x->h, err);
    }
    uint64_t before = x->moved;
    int running = 0;
    nq_quiet quiet = nq_quiet_begin();
    resume(x);
    CURLMcode rc = x->done ? CURLM_OK : curl_multi_perform(x->lane->multi, &running);
    nq_quiet_end(&quiet);
    if (rc != CURLM_OK) {
        return nq_fail(err, NOVAQ_E_NETWORK, "libcurl: %s", curl_multi_strerror(rc));
    }
    collect_result(x);
    if (x->done) {
        return NOVAQ_OK;
    }
    if (x->moved == before && !x->paused) {
        rc = curl_multi_poll(x->lane->multi, NULL, 0, POLL_MS, NULL);
        if (rc != CURLM_OK) {
            return nq_fail(err, NOVAQ_E_NETWORK, "libcurl: %s", curl_multi_strerror(rc));
        }
    }
    watch_speed(x);
    return NOVAQ_OK;
}

void nq_exchange_rest(nq_exchange *x) { x->mark_s = 0; }

/* ---- headers ---- */

bool nq_header_find(char *buf, size_t size, const char *lines, const char *name) {
    size_t n = strlen(name);
    buf[0] = '\0';
    for (const char *line = lines; line != NULL && *line != '\0';) {
        const char *end = strchr(line, '\n');
        if (strncmp(line, name, n) == 0 && strncmp(line + n, ": ", 2) == 0 && end != NULL) {
            size_t len = (size_t)(end - line) - n - 2;
            if (len >= size) {
                return false;
            }
            memcpy(buf, line + n + 2, len);
            buf[len] = '\0';
            return true;
        }
        line = end != NULL ? end + 1 : NULL;
    }
    return false;
}

bool nq_exchange_header(char *buf, size_t size, const nq_exchange *x, const char *name) {
    return nq_header_find(buf, size, (const char *)x->head.data, name);
}

static bool is_header_text(const char *text) {
    for (const char *p = text; *p != '\0'; p++) {
        if ((unsigned char)*p < 0x20 || *p == 0x7f) {
            return false;
        }
    }
    return true;
}

novaq_status nq_header_check(const char *token, const char *const *headers, size_t count,
                             novaq_error *err) {
    bool ok = token == NULL || is_header_text(token);
    for (size_t i = 0; i < count; i++) {
        ok = ok && is_header_text(headers[i]);
    }
    return ok ? NOVAQ_OK
              : nq_fail(err, NOVAQ_E_ARG, "a token or header has control characters in it");
}
