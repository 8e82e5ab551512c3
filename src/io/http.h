/* http.h - getting bytes by HTTP(S), over libcurl.
 *
 * Owns: connection reuse, redirects, retries with back-off (Retry-After and RateLimit
 * replies are obeyed), stall and connect timeouts, TLS that is always verified, range
 * reads that go on where they broke off only if the content is still the same. Refuses:
 * sending a token to another scheme, host or port than the one it was given for; other
 * protocols than http and https, also in redirects; redirects from https to http, and
 * without TLS to another host; replies larger than was asked for; compressed replies.
 *
 * Environment: what libcurl reads of proxies; NOVAQ_HTTP_RETRIES, NOVAQ_HTTP_STALL and
 * NOVAQ_HTTP_CONNECT (seconds) for patience; SSL_CERT_FILE. Read once, at open.
 *
 * Threads: nq_http_stop(), nq_http_received() from any; requests and reads of sources from
 * any thread, each uses a connection of its own from the pool.
 */
#ifndef NQ_IO_HTTP_H
#define NQ_IO_HTTP_H

#include "io/source.h"

typedef struct nq_http nq_http;

NOVAQ_CHECK novaq_status nq_http_open(nq_http **out, novaq_error *err);
/* All sources must be closed before. */
void nq_http_close(nq_http **h);
/* Ends running and later transfers with NOVAQ_E_INTERRUPTED. */
void nq_http_stop(nq_http *h);
/* So does this, once it is true; asked by any thread that waits for the network. To be set
 * before the first transfer. */
void nq_http_stop_when(nq_http *h, bool (*stop)(void *ctx), void *ctx);
/* Bytes of bodies received so far. */
uint64_t nq_http_received(const nq_http *h);

typedef struct nq_http_request {
    const char *url;
    const char *token;          /* "Authorization: Bearer ..." for url's own origin, or NULL */
    const char *const *headers; /* further ones, "Name: value"; for url's origin only */
    size_t header_count;
    const char *accept; /* a media type or several, or NULL; no secret: goes along redirects */
    uint64_t max;       /* a larger body is an error, of a refusal is cut there */
    bool head;          /* HEAD: headers only */
    bool peek;          /* the first byte only, by GET; a server may send more, which is cut */
    bool once;          /* a status that may pass is a reply like another */
    bool no_follow;     /* a redirect is a reply like another; relative ones to the same origin
                           are followed all the same */
} nq_http_request;

typedef struct nq_http_reply {
    int status; /* of the last reply; 4xx and 5xx that remain after retries are no error
                   of the transfer */
    char *body; /* NUL-terminated beyond len */
    size_t len;
    char *url;     /* the last one asked */
    char *headers; /* of the last reply, "name: value\n", names in lower case */
} nq_http_reply;

NOVAQ_CHECK novaq_status nq_http_get(nq_http_reply *out, nq_http *h, const nq_http_request *r,
                                     novaq_error *err);
void nq_http_reply_free(nq_http_reply *r);
/* The value of a header (name in lower case) into buf, "" when absent; whether it was
 * there and fitted. */
bool nq_http_header(char *buf, size_t size, const nq_http_reply *r, const char *name);

typedef struct nq_http_file {
    const char *url;
    const char *name; /* for messages; NULL: url without query */
    const char *token;
    const char *const *headers;
    size_t header_count;
    uint64_t size; /* NQ_HTTP_ASK: the server is asked */
    bool login;    /* the user could have set a token: refusals say so */
    /* A new token (nq_free()) where url's origin does not accept the one there is (401), or
     * NULL: there is none. From any thread, one at a time. May be NULL. */
    novaq_status (*renew)(char **token, void *ctx, novaq_error *err);
    void *renew_ctx;
} nq_http_file;
#define NQ_HTTP_ASK UINT64_MAX

/* A source over one file. Servers must answer range requests; one that does not is
 * NOVAQ_E_UNSUPPORTED with advice. The first reply's ETag (else Last-Modified) pins the
 * content: should it change later, NOVAQ_E_VERIFY. Redirects are resolved again from url
 * when a link has expired (4xx from where it led). 404 is NOVAQ_E_NETWORK. */
NOVAQ_CHECK novaq_status nq_http_source(nq_source **out, nq_http *h, const nq_http_file *f,
                                        novaq_error *err);
/* ETag of the content ("" if none); borrowed. */
const char *nq_http_etag(const nq_source *s);
/* Its Last-Modified, likewise. */
const char *nq_http_modified(const nq_source *s);

#endif
