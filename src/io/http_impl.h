/* http_impl.h - what the files of the HTTP transport share; see http.h for its promises.
 *
 * Owns: lanes (a libcurl handle with its connections), one exchange (request and reply,
 * no redirects), chains of redirects, patience, ranges of a remote file.
 *   http.c           opening, lanes, documents
 *   http_exchange.c  one request and its reply
 *   http_url.c       origins, redirects, URLs fit for messages
 *   http_retry.c     what is worth another attempt, and when
 *   http_range.c     bytes [from, end) of a file, through breaks and expired links
 *   http_source.c    the nq_source over ranges
 */
#ifndef NQ_IO_HTTP_IMPL_H
#define NQ_IO_HTTP_IMPL_H

#include <curl/curl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>

#include "base/buf.h"
#include "base/clock.h"
#include "io/http.h"

#define NQ_ORIGIN_MAX 320 /* scheme, host and port of a URL, NUL included */

typedef struct nq_lane {
    struct nq_lane *next;
    CURLM *multi;
    CURL *easy;
    char origin[NQ_ORIGIN_MAX]; /* of the last exchange: its connection is still there */
} nq_lane;

struct nq_http {
    unsigned retries;
    double stall_s;
    double connect_s;
    char *ca_file; /* SSL_CERT_FILE or NULL */
    atomic_bool stopped;
    bool (*stop)(void *ctx); /* or NULL */
    void *stop_ctx;
    atomic_bool reached; /* some server has replied: the network works */
    atomic_uint_fast64_t received;
    pthread_mutex_t lock; /* of the idle lanes */
    nq_lane *idle;
    unsigned idle_count;
};

/* ---- one exchange ---- */

typedef struct nq_exchange nq_exchange;

typedef struct nq_ask {
    const char *url;
    const char *token; /* or NULL */
    const char *const *headers;
    size_t header_count;
    const char *accept; /* or NULL */
    bool head;
    bool ranged; /* Range: bytes=first-last */
    uint64_t first, last;
    const char *if_range; /* or NULL */
    /* After the headers of the reply; false: not wanted, the transfer ends. */
    bool (*on_head)(void *ctx, nq_exchange *x);
    /* Takes all n bytes (n), none now (CURL_WRITEFUNC_PAUSE) or ends the transfer (0). */
    size_t (*on_body)(void *ctx, nq_exchange *x, const uint8_t *p, size_t n);
    void *ctx;
} nq_ask;

struct nq_exchange { /* must not move while it runs */
    nq_http *h;
    nq_lane *lane;
    nq_ask ask;
    struct curl_slist *list;
    nq_buf head; /* headers of the reply, "name: value\n", names in lower case */
    size_t head_bytes;
    int status;
    bool head_done; /* of the final reply, not of a 1xx */
    bool connected;
    bool paused;
    bool done;
    bool ended;   /* by on_head or on_body, not by the network */
    bool stalled; /* given up as too slow */
    bool big_head;
    CURLcode code;
    uint64_t body;   /* bytes received */
    uint64_t moved;  /* headers and body: any sign of life */
    uint64_t marked; /* moved at the time of mark_s */
    double mark_s;   /* when speed was last seen to be enough; 0: not waiting */
    char detail[CURL_ERROR_SIZE];
};

/* Takes a lane; on failure nothing is left open. */
NOVAQ_CHECK novaq_status nq_exchange_start(nq_exchange *x, nq_http *h, const nq_ask *ask,
                                           novaq_error *err);
/* Moves it on, waiting a moment for the network if nothing is there. */
NOVAQ_CHECK novaq_status nq_exchange_step(nq_exchange *x, novaq_error *err);
/* Nobody waits from now on until the next step: time does not count. */
void nq_exchange_rest(nq_exchange *x);
/* Gives the lane back; a transfer that still runs is cut off. NULL lane is fine. */
void nq_exchange_end(nq_exchange *x);
bool nq_exchange_header(char *buf, size_t size, const nq_exchange *x, const char *name);
/* The value of `name` in "name: value\n" lines. */
bool nq_header_find(char *buf, size_t size, const char *lines, const char *name);
/* Whether all of it is fit for header lines; token may be NULL. */
NOVAQ_CHECK novaq_status nq_header_check(const char *token, const char *const *headers,
                                         size_t count, novaq_error *err);

/* Writing to a connection that the other end has closed raises SIGPIPE, within TLS even
 * where libcurl does what it can. Between these two none gets out of libcurl. */
typedef struct nq_quiet {
    sigset_t before; /* the thread's mask */
    bool pending;    /* one was there already: not ours */
} nq_quiet;
nq_quiet nq_quiet_begin(void);
void nq_quiet_end(const nq_quiet *q);

NOVAQ_CHECK novaq_status nq_lane_take(nq_lane **out, nq_http *h, const char *origin,
                                      novaq_error *err);
void nq_lane_give(nq_http *h, nq_lane *lane);

/* ---- URLs ---- */

/* "https://host:port" of an http or https URL. */
NOVAQ_CHECK novaq_status nq_url_origin(char origin[NQ_ORIGIN_MAX], const char *url,
                                       novaq_error *err);
/* Scheme, host and path: no credentials, no query (signatures live there). */
NOVAQ_CHECK novaq_status nq_url_show(char **out, const char *url, novaq_error *err);

typedef struct nq_chain { /* of redirects */
    char *url;
    char origin[NQ_ORIGIN_MAX];
    bool own; /* never left the origin it started from: credentials may be sent */
    unsigned hops;
} nq_chain;

NOVAQ_CHECK novaq_status nq_chain_start(nq_chain *c, const char *url, bool own, novaq_error *err);
/* Whether x is a redirect to follow; *go, and c is at the next URL. stay: only relative
 * ones that stay at the origin. name: for messages. */
NOVAQ_CHECK novaq_status nq_chain_follow(bool *go, nq_chain *c, const nq_exchange *x, bool stay,
                                         const char *name, novaq_error *err);
void nq_chain_free(nq_chain *c);

/* ---- patience ---- */

typedef struct nq_retry {
    nq_http *h;
    uint64_t seed;    /* of the jitter */
    unsigned attempt; /* failed ones in a row */
    bool again;       /* the last failure is worth another attempt */
    bool absent;      /* no server was reached */
    double ask_s;     /* the server asks for this pause; 0: none */
} nq_retry;

nq_retry nq_retry_init(nq_http *h, const char *name);
/* Describes why the exchange brought no reply or broke off, and whether it is worth
 * another attempt. */
novaq_status nq_retry_broken(nq_retry *r, const nq_exchange *x, const char *name, novaq_error *err);
/* Whether the status of x may be another one later; fills r. */
bool nq_retry_status(nq_retry *r, const nq_exchange *x);
/* After a failed attempt (st, *err): waits and gives NOVAQ_OK to try again, or st when it
 * is over, or NOVAQ_E_INTERRUPTED. */
NOVAQ_CHECK novaq_status nq_retry_next(nq_retry *r, novaq_status st, novaq_error *err);
typedef struct nq_refusal {
    const char *name;
    const char *origin; /* whose it is */
    bool own;           /* of where the file was asked for, not of where that led */
    bool login;         /* the user could have set a token for the file */
    const char *token;  /* or NULL; never shown */
    const char *code;   /* the server's own word for it, or "" */
} nq_refusal;
/* A 4xx, 5xx or otherwise unwanted status as a message with advice. */
novaq_status nq_retry_refused(const nq_retry *r, const nq_exchange *x, const nq_refusal *why,
                              novaq_error *err);
bool nq_http_stopped(const nq_http *h);
novaq_status nq_http_interrupted(const nq_http *h, novaq_error *err);

/* ---- ranges of one remote file ---- */

typedef struct nq_remote { /* shared by all ranges; lock guards what follows it */
    nq_http *h;
    const char *name;
    char *url;
    char **headers;
    size_t header_count;
    bool login;
    novaq_status (*renew)(char **token, void *ctx, novaq_error *err); /* or NULL */
    void *renew_ctx;
    uint64_t size; /* NQ_HTTP_ASK only while it is asked for */
    pthread_mutex_t lock;
    char *token;      /* or NULL */
    unsigned renewed; /* how often it was */
    bool pinned;
    char *etag; /* or NULL */
    char *modified;
    char *target; /* where redirects led; NULL: not known or expired */
    bool target_own;
} nq_remote;

typedef struct nq_range {
    nq_remote *f;
    uint64_t pos; /* next byte to be handed out */
    uint64_t end; /* of what is wanted */
    bool open;    /* x runs and its reply was accepted */
    nq_exchange x;
    nq_retry retry;
    uint64_t since;     /* bytes received since the last failure */
    uint64_t recv;      /* next byte to be received; recv - pos are in the stash */
    uint64_t reply_end; /* of the current reply */
    uint64_t dropped;   /* bytes of bodies nobody wants */
    uint8_t *dst;       /* a reader's, NULL: skip */
    uint64_t room;
    uint8_t *stash;
    size_t stash_from, stash_len;
    bool judged;
    char *token;      /* what was sent where it may be, or NULL */
    unsigned renewed; /* how often it had been then */
    char said[256];   /* how the body of a refusal starts */
    size_t said_len;
    novaq_status verdict;
    novaq_error why;
} nq_range;

#define NQ_STASH_BYTES ((size_t)1 << 20)

/* For bytes [from, end); ahead: read in pieces, so that some may arrive early. */
NOVAQ_CHECK novaq_status nq_range_init(nq_range *g, nq_remote *f, uint64_t from, uint64_t end,
                                       bool ahead, novaq_error *err);
/* The next len bytes (dst NULL: passed over). */
NOVAQ_CHECK novaq_status nq_range_read(nq_range *g, void *dst, uint64_t len, novaq_error *err);
void nq_range_free(nq_range *g);
/* Asks for the first `len` bytes and learns f->size; *got of them into dst. */
NOVAQ_CHECK novaq_status nq_range_ask(nq_remote *f, void *dst, uint64_t len, uint64_t *got,
                                      novaq_error *err);

#endif
