/* http_url.c - see http_impl.h. Owns: what two URLs having the same origin means, which
 * redirects are followed. Refuses: protocols other than http and https, a step from https
 * down to http, one without TLS to another host, credentials in redirects, long chains. */
#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#include "io/http_impl.h"

#define MAX_HOPS 10

static novaq_status bad_url(novaq_error *err, const char *why) {
    return nq_fail(err, NOVAQ_E_ARG, "not a usable http or https URL: %s", why);
}

/* One part of a URL, "" when absent; false when it does not fit. */
static bool url_part(char *buf, size_t size, CURLU *u, CURLUPart what, unsigned flags) {
    char *text = NULL;
    buf[0] = '\0';
    if (curl_url_get(u, what, &text, flags) != CURLUE_OK) {
        return true;
    }
    size_t n = strlen(text);
    bool fits = n < size;
    if (fits) {
        memcpy(buf, text, n + 1);
    }
    curl_free(text);
    return fits;
}

static novaq_status origin_of(char origin[NQ_ORIGIN_MAX], CURLU *u, novaq_error *err) {
    char scheme[16];
    char host[264];
    char port[16];
    if (!url_part(scheme, sizeof scheme, u, CURLUPART_SCHEME, 0) ||
        (strcmp(scheme, "http") != 0 && strcmp(scheme, "https") != 0)) {
        return bad_url(err, "another protocol");
    }
    if (!url_part(host, sizeof host, u, CURLUPART_HOST, 0) || host[0] == '\0') {
        return bad_url(err, "its host");
    }
    if (!url_part(port, sizeof port, u, CURLUPART_PORT, CURLU_DEFAULT_PORT)) {
        return bad_url(err, "its port");
    }
    for (char *p = host; *p != '\0'; p++) {
        if (*p >= 'A' && *p <= 'Z') {
            *p = (char)(*p - 'A' + 'a');
        }
    }
    (void)snprintf(origin, NQ_ORIGIN_MAX, "%s://%s:%s", scheme, host, port);
    return NOVAQ_OK;
}

static novaq_status parse_url(CURLU **out, const char *url, novaq_error *err) {
    *out = curl_url();
    if (*out == NULL) {
        return nq_fail(err, NOVAQ_E_MEMORY, "out of memory");
    }
    CURLUcode rc = curl_url_set(*out, CURLUPART_URL, url, CURLU_NON_SUPPORT_SCHEME);
    if (rc == CURLUE_OK) {
        return NOVAQ_OK;
    }
    curl_url_cleanup(*out);
    *out = NULL;
    return bad_url(err, curl_url_strerror(rc));
}

novaq_status nq_url_origin(char origin[NQ_ORIGIN_MAX], const char *url, novaq_error *err) {
    CURLU *u = NULL;
    NQ_TRY(parse_url(&u, url, err));
    novaq_status st = origin_of(origin, u, err);
    curl_url_cleanup(u);
    return st;
}

static novaq_status whole_url(char **out, CURLU *u, novaq_error *err) {
    char *text = NULL;
    CURLUcode rc = curl_url_get(u, CURLUPART_URL, &text, 0);
    if (rc != CURLUE_OK) {
        *out = NULL;
        return bad_url(err, curl_url_strerror(rc));
    }
    novaq_status st = nq_strdup(out, text, err);
    curl_free(text);
    return st;
}

novaq_status nq_url_show(char **out, const char *url, novaq_error *err) {
    *out = NULL;
    CURLU *u = NULL;
    NQ_TRY(parse_url(&u, url, err));
    const CURLUPart secret[] = {CURLUPART_USER, CURLUPART_PASSWORD, CURLUPART_OPTIONS,
                                CURLUPART_QUERY, CURLUPART_FRAGMENT};
    for (size_t i = 0; i < sizeof secret / sizeof secret[0]; i++) {
        (void)curl_url_set(u, secret[i], NULL, 0);
    }
    novaq_status st = whole_url(out, u, err);
    curl_url_cleanup(u);
    return st;
}

novaq_status nq_chain_start(nq_chain *c, const char *url, bool own, novaq_error *err) {
    *c = (nq_chain){.own = own};
    NQ_TRY(nq_url_origin(c->origin, url, err));
    return nq_strdup(&c->url, url, err);
}

void nq_chain_free(nq_chain *c) {
    nq_free(c->url);
    c->url = NULL;
}

static bool is_redirect(int status) {
    return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
}

static bool has_scheme(const char *location) {
    const char *colon = strchr(location, ':');
    return colon != NULL && strcspn(location, "/?#") > (size_t)(colon - location);
}

/* The host of an origin. */
static void host_of(char host[NQ_ORIGIN_MAX], const char *origin) {
    const char *from = strstr(origin, "://") + 3;
    size_t n = (size_t)(strrchr(origin, ':') - from);
    memcpy(host, from, n);
    host[n] = '\0';
}

static bool is_loopback(const char *host) {
    struct in_addr a;
    return strcmp(host, "localhost") == 0 || strcmp(host, "[::1]") == 0 ||
           (inet_pton(AF_INET, host, &a) == 1 && ntohl(a.s_addr) >> 24 == 127);
}

/* Whether a redirect may lead there. Without TLS whoever is on the way could have written
 * it, and send us into networks that only this machine can reach. */
static bool may_lead(const char *from, const char *to) {
    char a[NQ_ORIGIN_MAX];
    char b[NQ_ORIGIN_MAX];
    host_of(a, from);
    host_of(b, to);
    return strncmp(to, "https:", 6) == 0 || strcmp(a, b) == 0 || (is_loopback(a) && is_loopback(b));
}

/* The step to u, whose Location was absolute or not. */
static novaq_status take_step(bool *go, nq_chain *c, CURLU *u, bool stay, const char *name,
                              novaq_error *err) {
    char origin[NQ_ORIGIN_MAX];
    if (origin_of(origin, u, NULL) != NOVAQ_OK) {
        return nq_fail(err, NOVAQ_E_NETWORK,
                       "%s: redirects to something that is not http or https: not followed", name);
    }
    bool same = strcmp(origin, c->origin) == 0;
    if (stay && !same) {
        *go = false;
        return NOVAQ_OK;
    }
    if (strncmp(c->origin, "https:", 6) == 0 && strncmp(origin, "https:", 6) != 0) {
        return nq_fail(err, NOVAQ_E_NETWORK, "%s: redirects from https to http: not followed",
                       name);
    }
    if (!may_lead(c->origin, origin)) {
        return nq_fail(err, NOVAQ_E_NETWORK,
                       "%s: redirects to %s, another host without TLS: not followed; if you trust "
                       "it, give that address itself",
                       name, origin);
    }
    if (!same) { /* "//user:password@host/" */
        (void)curl_url_set(u, CURLUPART_USER, NULL, 0);
        (void)curl_url_set(u, CURLUPART_PASSWORD, NULL, 0);
    }
    char *url = NULL;
    NQ_TRY(whole_url(&url, u, err));
    nq_free(c->url);
    c->url = url;
    c->own = c->own && same;
    memcpy(c->origin, origin, sizeof origin);
    *go = true;
    return NOVAQ_OK;
}

static novaq_status follow_to(bool *go, nq_chain *c, const char *location, bool stay,
                              const char *name, novaq_error *err) {
    CURLU *u = NULL;
    NQ_TRY(parse_url(&u, c->url, err));
    bool absolute = has_scheme(location);
    novaq_status st = NOVAQ_OK;
    CURLUcode rc =
        curl_url_set(u, CURLUPART_URL, location, CURLU_NON_SUPPORT_SCHEME | CURLU_URLENCODE);
    if (rc != CURLUE_OK) {
        st = nq_fail(err, NOVAQ_E_NETWORK, "%s: redirects to a malformed URL", name);
    } else if (stay && absolute) {
        *go = false;
    } else {
        if (absolute) { /* a relative one keeps the user's own credentials */
            (void)curl_url_set(u, CURLUPART_USER, NULL, 0);
            (void)curl_url_set(u, CURLUPART_PASSWORD, NULL, 0);
        }
        st = take_step(go, c, u, stay, name, err);
    }
    curl_url_cleanup(u);
    return st;
}

novaq_status nq_chain_follow(bool *go, nq_chain *c, const nq_exchange *x, bool stay,
                             const char *name, novaq_error *err) {
    char location[8192];
    *go = false;
    if (!is_redirect(x->status)) {
        return NOVAQ_OK;
    }
    if (!nq_exchange_header(location, sizeof location, x, "location") || location[0] == '\0') {
        return stay ? NOVAQ_OK
                    : nq_fail(err, NOVAQ_E_NETWORK, "%s: a redirect (%d) that leads nowhere", name,
                              x->status);
    }
    if (c->hops >= MAX_HOPS) {
        return nq_fail(err, NOVAQ_E_NETWORK, "%s: more than %d redirects in a row: a loop", name,
                       MAX_HOPS);
    }
    c->hops++;
    return follow_to(go, c, location, stay, name, err);
}
