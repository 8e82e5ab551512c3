/* http.c - see http.h. Owns: the environment, lanes between requests, whole documents. */
#include "io/http.h"

#include <stdlib.h>
#include <string.h>

#include "io/http_impl.h"

#define IDLE_MAX 8 /* lanes kept for reuse */

/* ---- opening ---- */

static pthread_once_t curl_once = PTHREAD_ONCE_INIT;

/* Should it fail, so will curl_multi_init(). */
static void init_curl(void) { (void)curl_global_init(CURL_GLOBAL_DEFAULT); }

/* A number of the environment, in [low, high]. */
static novaq_status env_number(double *out, const char *name, double low, double high,
                               novaq_error *err) {
    const char *text = getenv(name);
    if (text == NULL || text[0] == '\0') {
        return NOVAQ_OK;
    }
    char *end = NULL;
    double v = strtod(text, &end);
    if (*end != '\0' || !(v >= low && v <= high)) {
        return nq_fail(err, NOVAQ_E_ARG, "%s=%.40s: must be a number from %g to %g", name, text,
                       low, high);
    }
    *out = v;
    return NOVAQ_OK;
}

static novaq_status read_environment(nq_http *h, novaq_error *err) {
    double retries = 6;
    h->stall_s = 30;
    h->connect_s = 15;
    NQ_TRY(env_number(&retries, "NOVAQ_HTTP_RETRIES", 0, 100, err));
    NQ_TRY(env_number(&h->stall_s, "NOVAQ_HTTP_STALL", 0.1, 86400, err));
    NQ_TRY(env_number(&h->connect_s, "NOVAQ_HTTP_CONNECT", 0.1, 86400, err));
    h->retries = (unsigned)retries;
    if ((double)h->retries != retries) {
        return nq_fail(err, NOVAQ_E_ARG, "NOVAQ_HTTP_RETRIES must be a whole number");
    }
    const char *ca = getenv("SSL_CERT_FILE");
    return ca != NULL && ca[0] != '\0' ? nq_strdup(&h->ca_file, ca, err) : NOVAQ_OK;
}

novaq_status nq_http_open(nq_http **out, novaq_error *err) {
    *out = NULL;
    nq_http *h = NULL;
    (void)pthread_once(&curl_once, init_curl);
    NQ_TRY(nq_alloc(&h, 1, sizeof *h, err));
    novaq_status st = read_environment(h, err);
    if (st == NOVAQ_OK && pthread_mutex_init(&h->lock, NULL) != 0) {
        st = nq_fail(err, NOVAQ_E_MEMORY, "cannot make a lock");
    }
    if (st != NOVAQ_OK) {
        nq_free(h->ca_file);
        nq_free(h);
        return st;
    }
    *out = h;
    return NOVAQ_OK;
}

static void lane_free(nq_lane *lane) {
    nq_quiet quiet = nq_quiet_begin(); /* TLS says goodbye */
    if (lane->easy != NULL) {
        curl_easy_cleanup(lane->easy);
    }
    if (lane->multi != NULL) {
        (void)curl_multi_cleanup(lane->multi);
    }
    nq_quiet_end(&quiet);
    nq_free(lane);
}

void nq_http_close(nq_http **h) {
    if (*h == NULL) {
        return;
    }
    while ((*h)->idle != NULL) {
        nq_lane *lane = (*h)->idle;
        (*h)->idle = lane->next;
        lane_free(lane);
    }
    (void)pthread_mutex_destroy(&(*h)->lock);
    nq_free((*h)->ca_file);
    nq_free(*h);
    *h = NULL;
}

void nq_http_stop(nq_http *h) { atomic_store(&h->stopped, true); }

void nq_http_stop_when(nq_http *h, bool (*stop)(void *ctx), void *ctx) {
    h->stop = stop;
    h->stop_ctx = ctx;
}

bool nq_http_stopped(const nq_http *h) {
    return atomic_load(&h->stopped) || (h->stop != NULL && h->stop(h->stop_ctx));
}

uint64_t nq_http_received(const nq_http *h) { return atomic_load(&h->received); }

/* ---- lanes ---- */

static nq_lane *take_idle(nq_http *h, const char *origin) {
    nq_lane **best = h->idle != NULL ? &h->idle : NULL;
    for (nq_lane **l = &h->idle; *l != NULL; l = &(*l)->next) {
        if (strcmp((*l)->origin, origin) == 0) {
            best = l;
            break;
        }
    }
    if (best == NULL) {
        return NULL;
    }
    nq_lane *lane = *best;
    *best = lane->next;
    h->idle_count--;
    return lane;
}

novaq_status nq_lane_take(nq_lane **out, nq_http *h, const char *origin, novaq_error *err) {
    (void)pthread_mutex_lock(&h->lock);
    *out = take_idle(h, origin);
    (void)pthread_mutex_unlock(&h->lock);
    nq_lane *lane = *out;
    if (lane == NULL) {
        NQ_TRY(nq_alloc(&lane, 1, sizeof *lane, err));
        lane->multi = curl_multi_init();
        lane->easy = curl_easy_init();
        if (lane->multi == NULL || lane->easy == NULL) {
            lane_free(lane);
            return nq_fail(err, NOVAQ_E_MEMORY, "libcurl: cannot start");
        }
    }
    memcpy(lane->origin, origin, strlen(origin) + 1);
    lane->next = NULL;
    *out = lane;
    return NOVAQ_OK;
}

void nq_lane_give(nq_http *h, nq_lane *lane) {
    (void)pthread_mutex_lock(&h->lock);
    bool keep = h->idle_count < IDLE_MAX;
    if (keep) {
        lane->next = h->idle;
        h->idle = lane;
        h->idle_count++;
    }
    (void)pthread_mutex_unlock(&h->lock);
    if (!keep) {
        lane_free(lane);
    }
}

/* ---- documents ---- */

typedef struct get_state {
    nq_http *h;
    const nq_http_request *r;
    char *name; /* for messages */
    nq_retry retry;
    nq_chain chain;
    nq_exchange x;
    nq_buf body;
    bool too_large;
    bool no_memory;
} get_state;

/* What a server has to say beyond max to a refusal is of no use, nor is more of a file than
 * its first byte to who only wants to know whether it is there. */
static bool may_cut(const get_state *g) { return g->r->peek || g->x.status >= 300; }

static size_t take_body(void *ctx, nq_exchange *x, const uint8_t *p, size_t n) {
    get_state *g = ctx;
    (void)x;
    uint64_t left = g->r->max - g->body.len;
    if (n > left) {
        g->too_large = !may_cut(g);
        return 0;
    }
    g->no_memory = nq_buf_append(&g->body, p, n, NULL) != NOVAQ_OK;
    return g->no_memory ? 0 : n;
}

static bool look_at_head(void *ctx, nq_exchange *x) {
    get_state *g = ctx;
    char text[64];
    if (!g->r->head && !may_cut(g) && nq_exchange_header(text, sizeof text, x, "content-length")) {
        g->too_large = strtoull(text, NULL, 10) > g->r->max;
    }
    return !g->too_large;
}

static novaq_status check_encoding(const get_state *g, novaq_error *err) {
    char text[64];
    bool has = nq_exchange_header(text, sizeof text, &g->x, "content-encoding");
    if (!has || text[0] == '\0' || strcmp(text, "identity") == 0 || g->r->head || may_cut(g)) {
        return NOVAQ_OK;
    }
    return nq_fail(err, NOVAQ_E_NETWORK,
                   "%s: the reply is compressed (%s), which was not asked for", g->name, text);
}

/* One request and its reply, or why there is none. */
static novaq_status get_reply(get_state *g, novaq_error *err) {
    const nq_http_request *r = g->r;
    nq_ask ask = {.url = g->chain.url,
                  .token = g->chain.own ? r->token : NULL,
                  .headers = r->headers,
                  .header_count = g->chain.own ? r->header_count : 0,
                  .accept = r->accept,
                  .head = r->head,
                  .ranged = r->peek,
                  .on_head = look_at_head,
                  .on_body = take_body,
                  .ctx = g};
    nq_exchange_end(&g->x);
    g->body.len = 0;
    g->too_large = false;
    NQ_TRY(nq_exchange_start(&g->x, g->h, &ask, err));
    while (!g->x.done) {
        NQ_TRY(nq_exchange_step(&g->x, err));
    }
    if (g->too_large) {
        return nq_fail(err, NOVAQ_E_NETWORK, "%s: the reply is larger than %llu bytes", g->name,
                       (unsigned long long)r->max);
    }
    if (g->no_memory) {
        return nq_fail(err, NOVAQ_E_MEMORY, "%s: out of memory", g->name);
    }
    if ((g->x.code != CURLE_OK && !g->x.ended) || !g->x.head_done) {
        return nq_retry_broken(&g->retry, &g->x, g->name, err);
    }
    return check_encoding(g, err);
}

/* One attempt: the chain of redirects from the start. */
static novaq_status get_once(get_state *g, novaq_error *err) {
    nq_chain_free(&g->chain);
    NQ_TRY(nq_chain_start(&g->chain, g->r->url, true, err));
    for (bool go = true; go;) {
        NQ_TRY(get_reply(g, err));
        NQ_TRY(nq_chain_follow(&go, &g->chain, &g->x, g->r->no_follow, g->name, err));
    }
    return NOVAQ_OK;
}

static novaq_status fill_reply(nq_http_reply *out, get_state *g, novaq_error *err) {
    out->status = g->x.status;
    NQ_TRY(nq_buf_take(&g->body, &out->body, &out->len, err));
    NQ_TRY(nq_buf_take(&g->x.head, &out->headers, NULL, err));
    return nq_strdup(&out->url, g->chain.url, err);
}

/* Attempts until there is a reply that waiting would not change. */
static novaq_status get_patiently(get_state *g, novaq_error *err) {
    for (;;) {
        novaq_status st = get_once(g, err);
        bool replied = st == NOVAQ_OK;
        if (replied && (!nq_retry_status(&g->retry, &g->x) || g->r->once)) {
            return NOVAQ_OK;
        }
        st = nq_retry_next(&g->retry, replied ? NOVAQ_E_NETWORK : st, replied ? NULL : err);
        if (st == NOVAQ_E_INTERRUPTED) {
            return nq_http_interrupted(g->h, err);
        }
        if (st != NOVAQ_OK) {
            return replied ? NOVAQ_OK : st; /* the last reply stands */
        }
    }
}

novaq_status nq_http_get(nq_http_reply *out, nq_http *h, const nq_http_request *r,
                         novaq_error *err) {
    *out = (nq_http_reply){0};
    NQ_TRY(nq_header_check(r->token, r->headers, r->header_count, err));
    size_t max = r->max < SIZE_MAX / 4 ? (size_t)r->max : SIZE_MAX / 4;
    get_state g = {.h = h, .r = r, .body = nq_buf_init(max)};
    novaq_status st = nq_url_show(&g.name, r->url, err);
    if (st == NOVAQ_OK) {
        g.retry = nq_retry_init(h, g.name);
        st = get_patiently(&g, err);
    }
    if (st == NOVAQ_OK) {
        st = fill_reply(out, &g, err);
    }
    if (st != NOVAQ_OK) {
        nq_http_reply_free(out);
    }
    nq_exchange_end(&g.x);
    nq_chain_free(&g.chain);
    nq_buf_free(&g.body);
    nq_free(g.name);
    return st;
}

void nq_http_reply_free(nq_http_reply *r) {
    nq_free(r->body);
    nq_free(r->url);
    nq_free(r->headers);
    *r = (nq_http_reply){0};
}

bool nq_http_header(char *buf, size_t size, const nq_http_reply *r, const char *name) {
    return nq_header_find(buf, size, r->headers, name);
}
