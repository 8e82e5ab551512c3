/* http_range.c - see http_impl.h. Owns: that bytes handed out are bytes of one version of
 * the file: what replies to range requests must say, going on after a break, expired
 * links. Refuses: replies that start elsewhere, are longer than announced, compressed, or
 * of another version. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/http_impl.h"

#define DROP_MAX   ((uint64_t)64 << 10) /* unwanted body worth reading to keep a connection */
#define FRESH      ((uint64_t)64 << 10) /* bytes received after which patience starts anew */
#define FINISH_S   0.2                  /* for the end of a body after its last byte */
#define VALUE_SIZE 512                  /* of a header */

typedef unsigned long long ull;

/* ---- judging the head of a reply ---- */

/* Digits at *p, which moves behind them. */
static bool take_number(const char **p, uint64_t *out) {
    uint64_t v = 0;
    const char *start = *p;
    for (; **p >= '0' && **p <= '9'; (*p)++) {
        uint64_t digit = (uint64_t)(**p - '0');
        if (v > (UINT64_MAX - digit) / 10) {
            return false;
        }
        v = v * 10 + digit;
    }
    *out = v;
    return *p > start;
}

static bool take_char(const char **p, char c) {
    bool there = **p == c;
    *p += there;
    return there;
}

/* "bytes A-B/T", also with a star for T or A-B; what is not said stays. */
static bool parse_content_range(const char *text, uint64_t *a, uint64_t *b, uint64_t *total) {
    const char *p = text;
    if (strncmp(p, "bytes ", 6) != 0) {
        return false;
    }
    p += 6;
    if (!take_char(&p, '*') && !(take_number(&p, a) && take_char(&p, '-') && take_number(&p, b))) {
        return false;
    }
    return take_char(&p, '/') && (take_char(&p, '*') || take_number(&p, total)) && *p == '\0';
}

static bool judge(nq_range *g, novaq_status st) {
    g->verdict = st;
    return st == NOVAQ_OK;
}

static bool changed(nq_range *g, const char *what) {
    return judge(g, nq_fail(&g->why, NOVAQ_E_VERIFY,
                            "%s: the file on the server changed while it was being read (%s): run "
                            "the same command again",
                            g->f->name, what));
}

/* A reply that contradicts itself; another attempt may bring a better one. */
static bool malformed(nq_range *g, const char *what) {
    g->retry.again = true;
    return judge(g, nq_fail(&g->why, NOVAQ_E_NETWORK,
                            "%s: offset %llu: the server's reply makes no sense: %s", g->f->name,
                            (ull)g->recv, what));
}

static bool same(const char *a, const char *b) {
    return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

static novaq_status keep_value(char **out, const char *text) {
    return text[0] == '\0' ? NOVAQ_OK : nq_strdup(out, text, NULL);
}

/* The first reply pins the version, the others must be of the same. The ETag decides
 * where there is one, else Last-Modified. Under the lock. */
static bool check_version(nq_range *g, const nq_exchange *x) {
    nq_remote *f = g->f;
    char etag[VALUE_SIZE];
    char modified[VALUE_SIZE];
    (void)nq_exchange_header(etag, sizeof etag, x, "etag");
    (void)nq_exchange_header(modified, sizeof modified, x, "last-modified");
    if (!f->pinned) {
        f->pinned = true;
        if (keep_value(&f->etag, etag) != NOVAQ_OK ||
            keep_value(&f->modified, modified) != NOVAQ_OK) {
            return judge(g, nq_fail(&g->why, NOVAQ_E_MEMORY, "%s: out of memory", f->name));
        }
        return true;
    }
    if (f->etag != NULL) {
        return same(f->etag, etag) || changed(g, "its ETag is another one");
    }
    return f->modified == NULL || same(f->modified, modified) ||
           changed(g, "its date is another one");
}

static bool is_pinned_version(nq_range *g, const nq_exchange *x) {
    (void)pthread_mutex_lock(&g->f->lock);
    bool ok = check_version(g, x);
    (void)pthread_mutex_unlock(&g->f->lock);
    return ok;
}

/* Content-Length, where it is said, must agree. */
static bool length_agrees(const nq_exchange *x, uint64_t expected) {
    char text[VALUE_SIZE];
    if (!nq_exchange_header(text, sizeof text, x, "content-length")) {
        return text[0] == '\0';
    }
    return strtoull(text, NULL, 10) == expected;
}

static bool judge_range(nq_range *g, const nq_exchange *x) {
    nq_remote *f = g->f;
    char text[VALUE_SIZE];
    uint64_t a = UINT64_MAX, b = 0, total = f->size;
    (void)nq_exchange_header(text, sizeof text, x, "content-range");
    if (!parse_content_range(text, &a, &b, &total) || a == UINT64_MAX) {
        return malformed(g, "no proper Content-Range");
    }
    if (f->size != NQ_HTTP_ASK && total != f->size) {
        (void)snprintf(text, sizeof text, "%llu bytes instead of %llu", (ull)total, (ull)f->size);
        return changed(g, text);
    }
    if (a != g->recv || b < a || b >= g->end || b >= total) {
        return malformed(g, "another range than was asked for");
    }
    if (!length_agrees(x, b - a + 1)) {
        return malformed(g, "Content-Length and Content-Range differ");
    }
    if (total == NQ_HTTP_ASK) {
        return judge(g, nq_fail(&g->why, NOVAQ_E_UNSUPPORTED,
                                "%s: the server does not tell the size of the file: download it "
                                "and give its path instead",
                                f->name));
    }
    if (!is_pinned_version(g, x)) {
        return false;
    }
    if (f->size == NQ_HTTP_ASK) { /* nobody else has the source yet */
        f->size = total;
    }
    g->reply_end = b + 1;
    return judge(g, NOVAQ_OK);
}

/* The whole file instead of a range of it: good where all of it was wanted. While the size
 * is asked for, a small one is as good as its first bytes. */
static bool judge_whole(nq_range *g, const nq_exchange *x) {
    nq_remote *f = g->f;
    if (!is_pinned_version(g, x)) {
        return false;
    }
    char text[VALUE_SIZE];
    bool said = nq_exchange_header(text, sizeof text, x, "content-length");
    uint64_t n = said ? strtoull(text, NULL, 10) : UINT64_MAX;
    bool asked = f->size == NQ_HTTP_ASK;
    if (said && !asked && n != f->size) {
        (void)snprintf(text, sizeof text, "%llu bytes instead of %llu", (ull)n, (ull)f->size);
        return changed(g, text);
    }
    if (asked ? n <= g->end : said && g->recv == 0 && g->end == f->size) {
        if (asked) { /* nobody else has the source yet */
            f->size = n;
        }
        g->reply_end = n;
        return judge(g, NOVAQ_OK);
    }
    return judge(g, nq_fail(&g->why, NOVAQ_E_UNSUPPORTED,
                            "%s: the server does not answer range requests: download the file and "
                            "give its path instead",
                            f->name));
}

/* 416: nothing at this offset. */
static bool judge_beyond(nq_range *g, const nq_exchange *x) {
    nq_remote *f = g->f;
    char text[VALUE_SIZE];
    uint64_t a = 0, b = 0, total = UINT64_MAX;
    (void)nq_exchange_header(text, sizeof text, x, "content-range");
    bool told = parse_content_range(text, &a, &b, &total) && total != UINT64_MAX;
    if (told && total == 0 && f->size == NQ_HTTP_ASK) {
        f->size = 0;
        g->reply_end = 0;
        return judge(g, NOVAQ_OK);
    }
    if (told && f->size != NQ_HTTP_ASK && total != f->size) {
        (void)snprintf(text, sizeof text, "%llu bytes instead of %llu", (ull)total, (ull)f->size);
        return changed(g, text);
    }
    return judge(g, nq_fail(&g->why, NOVAQ_E_NETWORK,
                            "%s: offset %llu: the server says the file ends before (HTTP 416)",
                            f->name, (ull)g->recv));
}

static bool on_head(void *ctx, nq_exchange *x) {
    nq_range *g = ctx;
    char text[64];
    g->judged = true;
    bool known = x->status == 200 || x->status == 206;
    bool has = nq_exchange_header(text, sizeof text, x, "content-encoding");
    if (known && has && text[0] != '\0' && strcmp(text, "identity") != 0) {
        return judge(g, nq_fail(&g->why, NOVAQ_E_NETWORK,
                                "%s: the reply is compressed (%s), which was not asked for",
                                g->f->name, text));
    }
    switch (x->status) {
    case 206: return judge_range(g, x);
    case 200: return judge_whole(g, x);
    case 416: return judge_beyond(g, x);
    default: g->verdict = NOVAQ_E_NETWORK; return true; /* redirects, refusals: range_open() */
    }
}

/* ---- bodies ---- */

static size_t on_body(void *ctx, nq_exchange *x, const uint8_t *p, size_t n) {
    nq_range *g = ctx;
    if (g->verdict != NOVAQ_OK || x->status == 416) {
        size_t room = sizeof g->said - 1 - g->said_len;
        size_t heard = n < room ? n : room;
        memcpy(g->said + g->said_len, p, heard);
        g->said_len += heard;
        g->said[g->said_len] = '\0';
        g->dropped += n;
        return g->dropped > DROP_MAX ? 0 : n;
    }
    if (n > g->reply_end - g->recv) {
        (void)malformed(g, "more bytes than announced");
        return 0;
    }
    size_t direct = n < g->room ? n : (size_t)g->room;
    size_t rest = n - direct;
    if (rest > 0 && (g->stash == NULL || rest > NQ_STASH_BYTES - g->stash_len)) {
        return CURL_WRITEFUNC_PAUSE;
    }
    if (g->dst != NULL && direct > 0) {
        memcpy(g->dst, p, direct);
        g->dst += direct;
    }
    g->room -= direct;
    g->pos += direct;
    if (rest > 0) {
        memcpy(g->stash + g->stash_len, p + direct, rest);
        g->stash_len += rest;
    }
    g->recv += n;
    g->since += n;
    return n;
}

/* What arrived before anyone asked. The stash is only filled from empty or onwards, so
 * taking moves a start mark until all is gone. */
static void unstash(nq_range *g) {
    size_t have = g->stash_len - g->stash_from;
    size_t n = have < g->room ? have : (size_t)g->room;
    if (n == 0) {
        return;
    }
    if (g->dst != NULL) {
        memcpy(g->dst, g->stash + g->stash_from, n);
        g->dst += n;
    }
    g->stash_from += n;
    g->room -= n;
    g->pos += n;
    if (g->stash_from == g->stash_len) {
        g->stash_from = g->stash_len = 0;
    }
}

/* ---- opening, going on ---- */

static void range_close(nq_range *g) {
    /* The end of a chunked body comes after its last byte; without it the connection
     * could not be used again. */
    if (g->open && g->recv == g->reply_end) {
        double until = nq_seconds() + FINISH_S;
        while (!g->x.done && nq_seconds() < until && nq_exchange_step(&g->x, NULL) == NOVAQ_OK) {
        }
    }
    nq_exchange_end(&g->x);
    g->open = false;
}

/* What is sent along at present: the token, and the ETag if it is a strong one. */
static novaq_status take_present(nq_range *g, char strong[VALUE_SIZE], novaq_error *err) {
    nq_remote *f = g->f;
    nq_free(g->token);
    g->token = NULL;
    strong[0] = '\0';
    (void)pthread_mutex_lock(&f->lock);
    if (f->etag != NULL && f->etag[0] == '"') {
        (void)snprintf(strong, VALUE_SIZE, "%s", f->etag);
    }
    g->renewed = f->renewed;
    novaq_status st = f->token == NULL ? NOVAQ_OK : nq_strdup(&g->token, f->token, err);
    (void)pthread_mutex_unlock(&f->lock);
    return st;
}

/* One exchange up to the verdict on its head; to the end of its body unless that is
 * what was asked for. */
static novaq_status ask_once(nq_range *g, const nq_chain *c, novaq_error *err) {
    nq_remote *f = g->f;
    char strong[VALUE_SIZE];
    nq_exchange_end(&g->x);
    NQ_TRY(take_present(g, strong, err));
    nq_ask ask = {.url = c->url,
                  .token = c->own ? g->token : NULL,
                  .headers = (const char *const *)f->headers,
                  .header_count = c->own ? f->header_count : 0,
                  .ranged = true,
                  .first = g->recv,
                  .last = g->end - 1,
                  .if_range = strong[0] != '\0' ? strong : NULL,
                  .on_head = on_head,
                  .on_body = on_body,
                  .ctx = g};
    g->judged = false;
    g->said_len = 0;
    g->verdict = NOVAQ_E_NETWORK;
    g->why = (novaq_error){0};
    g->dropped = 0;
    NQ_TRY(nq_exchange_start(&g->x, f->h, &ask, err));
    while (!g->x.done && !(g->judged && g->verdict == NOVAQ_OK)) {
        NQ_TRY(nq_exchange_step(&g->x, err));
    }
    return NOVAQ_OK;
}

static novaq_status tell(const nq_range *g, novaq_error *err) {
    if (err != NULL) {
        *err = g->why;
    }
    return g->why.code;
}

/* Why an exchange that is over brought less than it should. */
static novaq_status range_broken(nq_range *g, novaq_error *err) {
    if (g->why.code != NOVAQ_OK) {
        return tell(g, err);
    }
    if (g->x.code == CURLE_OK) { /* ended in good order, but short */
        g->retry.again = true;
        return nq_fail(err, NOVAQ_E_NETWORK, "%s: offset %llu: the reply is %llu bytes short",
                       g->f->name, (ull)g->recv, (ull)(g->reply_end - g->recv));
    }
    return nq_retry_broken(&g->retry, &g->x, g->f->name, err);
}

/* Where to ask: what redirects led to, while that works. */
static novaq_status chain_of(nq_chain *c, bool *cached, nq_remote *f, novaq_error *err) {
    (void)pthread_mutex_lock(&f->lock);
    *cached = f->target != NULL;
    novaq_status st =
        nq_chain_start(c, *cached ? f->target : f->url, !*cached || f->target_own, err);
    (void)pthread_mutex_unlock(&f->lock);
    return st;
}

static void remember(nq_remote *f, const nq_chain *c) {
    (void)pthread_mutex_lock(&f->lock);
    nq_free(f->target);
    f->target = NULL;
    if (c != NULL && nq_strdup(&f->target, c->url, NULL) == NOVAQ_OK) {
        f->target_own = c->own;
    }
    (void)pthread_mutex_unlock(&f->lock);
}

/* "<Code>AccessDenied</Code>": how storage servers explain themselves. */
static void word_of_store(char *out, size_t size, const nq_range *g) {
    const char *code = g->said_len > 0 ? strstr(g->said, "<Code>") : NULL;
    size_t n = 0;
    for (; code != NULL && n + 1 < size; n++) {
        char c = code[6 + n];
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9'))) {
            break;
        }
        out[n] = c;
    }
    out[n] = '\0';
}

static novaq_status refused(nq_range *g, const nq_chain *c, novaq_error *err) {
    char code[64];
    word_of_store(code, sizeof code, g);
    nq_refusal why = {.name = g->f->name,
                      .origin = c->origin,
                      .own = c->own,
                      .login = g->f->login,
                      .token = g->token,
                      .code = code};
    (void)nq_retry_status(&g->retry, &g->x);
    return nq_retry_refused(&g->retry, &g->x, &why, err);
}

/* Along the redirects to a verdict. */
static novaq_status ask_chain(nq_range *g, nq_chain *c, novaq_error *err) {
    for (bool go = true; go;) {
        NQ_TRY(ask_once(g, c, err));
        if (g->why.code != NOVAQ_OK) {
            return tell(g, err);
        }
        if (g->judged && g->verdict == NOVAQ_OK) {
            return NOVAQ_OK;
        }
        if (!g->judged || (g->x.code != CURLE_OK && !g->x.ended)) {
            return nq_retry_broken(&g->retry, &g->x, g->f->name, err);
        }
        NQ_TRY(nq_chain_follow(&go, c, &g->x, false, g->f->name, err));
    }
    return refused(g, c, err);
}

/* Stores say it in many ways. */
static bool link_expired(const nq_range *g) {
    int s = g->x.status;
    return g->judged && s >= 400 && s < 500 && s != 408 && s != 416 && s != 429;
}

/* *fresh: there is another token than the one that was sent. */
static novaq_status renew_token(bool *fresh, nq_range *g, novaq_error *err) {
    nq_remote *f = g->f;
    char *token = NULL;
    novaq_status st = NOVAQ_OK;
    (void)pthread_mutex_lock(&f->lock); /* who waits for it would need the new one, too */
    if (f->renew != NULL && f->renewed == g->renewed) {
        st = f->renew(&token, f->renew_ctx, err);
        if (st == NOVAQ_OK && token != NULL) {
            nq_free(f->token);
            f->token = token;
            f->renewed++;
        }
    }
    *fresh = f->renewed != g->renewed;
    (void)pthread_mutex_unlock(&f->lock);
    return st;
}

static novaq_status ask_anew(nq_range *g, nq_chain *c, bool *cached, novaq_error *err) {
    nq_chain_free(c);
    NQ_TRY(chain_of(c, cached, g->f, err));
    return ask_chain(g, c, err);
}

static novaq_status range_open(nq_range *g, novaq_error *err) {
    nq_chain c = {0};
    bool cached = false;
    novaq_status st = ask_anew(g, &c, &cached, err);
    if (st != NOVAQ_OK && cached) {
        remember(g->f, NULL);
        if (link_expired(g)) {
            st = ask_anew(g, &c, &cached, err);
        }
    }
    if (st == NOVAQ_E_NETWORK && c.own && g->judged && g->x.status == 401) {
        bool fresh = false;
        novaq_status renewed = renew_token(&fresh, g, err);
        st = renewed != NOVAQ_OK ? renewed : fresh ? ask_anew(g, &c, &cached, err) : st;
    }
    g->open = st == NOVAQ_OK;
    if (g->open && c.hops > 0) {
        remember(g->f, &c);
    }
    nq_chain_free(&c);
    return st;
}

static novaq_status range_more(nq_range *g, novaq_error *err) {
    if (!g->x.done) {
        NQ_TRY(nq_exchange_step(&g->x, err));
    }
    if (!g->x.done) {
        return NOVAQ_OK;
    }
    if (g->recv < g->reply_end || (g->x.code != CURLE_OK && g->x.ended)) {
        return range_broken(g, err);
    }
    range_close(g); /* all that was announced is here; the next request brings what follows */
    return NOVAQ_OK;
}

/* ---- reading ---- */

novaq_status nq_range_init(nq_range *g, nq_remote *f, uint64_t from, uint64_t end, bool ahead,
                           novaq_error *err) {
    *g = (nq_range){.f = f, .pos = from, .recv = from, .end = end};
    g->retry = nq_retry_init(f->h, f->name);
    return ahead ? nq_alloc_raw(&g->stash, 1, NQ_STASH_BYTES, err) : NOVAQ_OK;
}

void nq_range_free(nq_range *g) {
    range_close(g);
    nq_free(g->stash);
    nq_free(g->token);
    g->stash = NULL;
    g->token = NULL;
}

/* After a failure: waits, or says that it is over. */
static novaq_status recover(nq_range *g, novaq_status st, novaq_error *err) {
    nq_exchange_end(&g->x);
    g->open = false;
    if (g->since >= FRESH) {
        g->retry.attempt = 0;
    }
    g->since = 0;
    return nq_retry_next(&g->retry, st, err);
}

novaq_status nq_range_read(nq_range *g, void *dst, uint64_t len, novaq_error *err) {
    g->dst = dst;
    g->room = len;
    novaq_status st = NOVAQ_OK;
    for (;;) {
        unstash(g);
        if (g->room == 0) {
            break;
        }
        st = g->open ? range_more(g, err) : range_open(g, err);
        if (st != NOVAQ_OK && (st = recover(g, st, err)) != NOVAQ_OK) {
            break;
        }
    }
    g->dst = NULL;
    g->room = 0;
    if (g->open && g->recv == g->reply_end) {
        range_close(g);
    } else if (g->open) {
        nq_exchange_rest(&g->x);
    }
    if (g->pos == g->end) {
        nq_free(g->stash);
        g->stash = NULL;
    }
    return st;
}

/* One attempt at the first bytes, from the start. */
static novaq_status ask_attempt(nq_range *g, void *dst, uint64_t len, novaq_error *err) {
    g->f->size = NQ_HTTP_ASK;
    g->dst = dst;
    g->room = len;
    g->pos = g->recv = 0;
    novaq_status st = range_open(g, err);
    while (st == NOVAQ_OK && g->open && g->recv < g->reply_end) {
        st = range_more(g, err);
    }
    return st;
}

novaq_status nq_range_ask(nq_remote *f, void *dst, uint64_t len, uint64_t *got, novaq_error *err) {
    nq_range g;
    *got = 0;
    NQ_TRY(nq_range_init(&g, f, 0, len, false, err));
    novaq_status st = NOVAQ_OK;
    do {
        st = ask_attempt(&g, dst, len, err);
        *got = g.recv;
        g.since = 0; /* what is asked for again from the start is no progress */
    } while (st != NOVAQ_OK && (st = recover(&g, st, err)) == NOVAQ_OK);
    nq_range_free(&g);
    return st;
}
