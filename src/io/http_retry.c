/* http_retry.c - see http_impl.h. Owns: which failures are worth another attempt, how long
 * to wait before it, what to tell the user. Refuses: waits of more than a few minutes,
 * clocks and random numbers in results (jitter is a hash). */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/rng.h"
#include "io/http_impl.h"

#define FIRST_S   0.2   /* before the second attempt; then three times as long each */
#define LAST_S    30.0  /* longest wait of our own */
#define ASKED_MAX 330.0 /* longest wait a server may ask for; the Hub counts 300 s windows */
#define NO_SERVER 2     /* attempts to find one at all, before any was reached */
#define SLICE_NS  20000000L

novaq_status nq_http_interrupted(const nq_http *h, novaq_error *err) {
    (void)h;
    return nq_fail(err, NOVAQ_E_INTERRUPTED, "interrupted while waiting for the network");
}

nq_retry nq_retry_init(nq_http *h, const char *name) {
    /* Programs that were turned away together should not come back together. */
    return (nq_retry){.h = h, .seed = nq_stream(name) ^ (uint64_t)getpid()};
}

/* ---- waiting ---- */

static double pause_of(const nq_retry *r) {
    if (r->ask_s > 0) {
        return r->ask_s;
    }
    double s = FIRST_S;
    for (unsigned i = 1; i < r->attempt && s < LAST_S; i++) {
        s *= 3;
    }
    s = s < LAST_S ? s : LAST_S;
    return s * (0.75 + 0.5 * nq_uniform(r->seed, 0x4a17, r->attempt));
}

static novaq_status sleep_for(const nq_http *h, double seconds, novaq_error *err) {
    double until = nq_seconds() + seconds;
    for (;;) {
        if (nq_http_stopped(h)) {
            return nq_http_interrupted(h, err);
        }
        if (nq_seconds() >= until) {
            return NOVAQ_OK;
        }
        struct timespec slice = {0, SLICE_NS};
        (void)nanosleep(&slice, NULL);
    }
}

static void add_note(novaq_error *err, const char *fmt, double value) {
    if (err != NULL) {
        size_t used = strlen(err->msg);
        (void)snprintf(err->msg + used, sizeof err->msg - used, fmt, value);
    }
}

novaq_status nq_retry_next(nq_retry *r, novaq_status st, novaq_error *err) {
    if (!r->again) {
        return st;
    }
    unsigned limit = r->h->retries;
    if (r->absent && !atomic_load(&r->h->reached) && limit > NO_SERVER) {
        limit = NO_SERVER;
    }
    r->attempt++;
    if (r->attempt > limit) {
        if (r->attempt > 1) {
            add_note(err, " (%.0f attempts)", (double)r->attempt);
        }
        return st;
    }
    if (r->ask_s > ASKED_MAX) {
        add_note(err, "; it asks to come back in %.0f s: run the same command then", r->ask_s);
        return st;
    }
    NQ_TRY(sleep_for(r->h, pause_of(r), err));
    r->again = false;
    r->absent = false;
    r->ask_s = 0;
    return NOVAQ_OK;
}

/* ---- what servers ask for ---- */

static double date_of(const char *text) {
    time_t t = curl_getdate(text, NULL);
    return t < 0 ? -1 : (double)t;
}

/* Seconds, or a date: against the server's own clock where it tells it. */
static double retry_after(const nq_exchange *x) {
    char text[128];
    if (!nq_exchange_header(text, sizeof text, x, "retry-after") || text[0] == '\0') {
        return 0;
    }
    if (text[strspn(text, "0123456789")] == '\0') {
        return strlen(text) > 9 ? 1e9 : (double)strtoul(text, NULL, 10);
    }
    double at = date_of(text);
    char date[128];
    double now = nq_exchange_header(date, sizeof date, x, "date") ? date_of(date) : -1;
    if (now < 0) {
        now = (double)time(NULL);
    }
    return at > now ? at - now : 0;
}

/* RateLimit: "api";r=0;t=55, "other";r=9;t=55 : the longest t of those used up, and one
 * second more. */
static double rate_limit(const nq_exchange *x) {
    char text[512];
    double wait = 0;
    if (!nq_exchange_header(text, sizeof text, x, "ratelimit")) {
        return 0;
    }
    char *rest = text;
    for (char *item; (item = strsep(&rest, ",")) != NULL;) {
        unsigned long left = 1;
        unsigned long t = 0;
        char *more = item;
        for (char *part; (part = strsep(&more, ";")) != NULL;) {
            part += strspn(part, " \t");
            if (strncmp(part, "r=", 2) == 0) {
                left = strtoul(part + 2, NULL, 10);
            } else if (strncmp(part, "t=", 2) == 0) {
                t = strtoul(part + 2, NULL, 10);
            }
        }
        if (left == 0 && (double)t + 1 > wait) {
            wait = (double)t + 1;
        }
    }
    return wait;
}

bool nq_retry_status(nq_retry *r, const nq_exchange *x) {
    static const int passing[] = {408, 429, 500, 502, 503, 504, 522, 524};
    r->again = false;
    r->absent = false;
    r->ask_s = 0;
    for (size_t i = 0; i < sizeof passing / sizeof passing[0]; i++) {
        r->again = r->again || x->status == passing[i];
    }
    if (r->again) {
        double limit = x->status == 429 ? rate_limit(x) : 0;
        r->ask_s = limit > 0 ? limit : retry_after(x);
    }
    return r->again;
}

/* ---- messages ---- */

/* The Hub explains itself in a header, stores in a word; never with our token in it. */
static void server_says(char *buf, size_t size, const nq_exchange *x, const nq_refusal *why) {
    char text[200];
    const char *one = text;
    bool explained = nq_exchange_header(text, sizeof text, x, "x-error-message") &&
                     text[0] != '\0' && nq_header_check(NULL, &one, 1, NULL) == NOVAQ_OK;
    if (!explained) {
        (void)snprintf(text, sizeof text, "%s", why->code);
    }
    buf[0] = '\0';
    if (text[0] != '\0' && (why->token == NULL || strstr(text, why->token) == NULL)) {
        (void)snprintf(buf, size, " (\"%s\")", text);
    }
}

/* What to do about a 400, 401 or 403. */
static void denied_advice(char *buf, size_t size, int status, const nq_refusal *why) {
    if (!why->own || !why->login) {
        (void)snprintf(buf, size, ": the link has expired or %s refuses it: %s", why->origin,
                       why->login ? "run the same command again" : "get a new link");
    } else if (status == 401) {
        (void)snprintf(buf, size, "%s",
                       why->token != NULL ? ": the token is wrong or has expired"
                                          : ": set a token that may read it, or check the name");
    } else {
        (void)snprintf(buf, size, "%s",
                       why->token != NULL ? ": the token's owner may not read this"
                                          : ": set a token that may read it");
    }
}

novaq_status nq_retry_refused(const nq_retry *r, const nq_exchange *x, const nq_refusal *why,
                              novaq_error *err) {
    char says[240];
    char denied[NQ_ORIGIN_MAX + 128];
    server_says(says, sizeof says, x, why);
    denied_advice(denied, sizeof denied, x->status, why);
    const char *what = "unexpected reply";
    const char *advice = "";
    switch (x->status) {
    case 400:
        what = "not a proper request";
        advice = why->own ? "" : denied;
        break;
    case 401:
        what = "login required";
        advice = denied;
        break;
    case 403:
        what = "access denied";
        advice = denied;
        break;
    case 404: what = "not found"; break;
    case 410: what = "gone"; break;
    case 429:
        what = "too many requests";
        advice = r->ask_s > ASKED_MAX ? "" : ": wait some minutes, then run the same command again";
        break;
    default:
        if (x->status >= 500) {
            what = "the server failed";
            advice = ": run the same command again later";
        } else if (r->again) {
            what = "the server was busy";
        }
        break;
    }
    return nq_fail(err, NOVAQ_E_NETWORK, "%s: %s (HTTP %d)%s%s", why->name, what, x->status, advice,
                   says);
}

static novaq_status tls_failed(const nq_exchange *x, const char *name, novaq_error *err) {
    return nq_fail(err, NOVAQ_E_NETWORK,
                   "%s: the server's certificate cannot be trusted (%s); if it is your own "
                   "server, set SSL_CERT_FILE to its certificate",
                   name, x->detail[0] != '\0' ? x->detail : curl_easy_strerror(x->code));
}

static novaq_status cut_off(const nq_exchange *x, const char *name, novaq_error *err) {
    if (x->stalled) {
        return nq_fail(err, NOVAQ_E_NETWORK,
                       "%s: the transfer stalled: less than 1 KiB/s for %g s (NOVAQ_HTTP_STALL)",
                       name, x->h->stall_s);
    }
    if (x->code == CURLE_OPERATION_TIMEDOUT) {
        return nq_fail(err, NOVAQ_E_NETWORK, "%s: no connection within %g s (NOVAQ_HTTP_CONNECT)",
                       name, x->h->connect_s);
    }
    if (x->big_head) {
        return nq_fail(err, NOVAQ_E_NETWORK, "%s: the headers of the reply have no end", name);
    }
    if (!x->head_done && x->head_bytes > 0) {
        return nq_fail(err, NOVAQ_E_NETWORK, "%s: the connection broke off within the headers",
                       name);
    }
    if (x->head_done || x->code == CURLE_PARTIAL_FILE) {
        return nq_fail(err, NOVAQ_E_NETWORK, "%s: the connection broke off after %llu bytes", name,
                       (unsigned long long)x->body);
    }
    return nq_fail(err, NOVAQ_E_NETWORK, "%s: no usable reply (%s)", name,
                   curl_easy_strerror(x->code));
}

novaq_status nq_retry_broken(nq_retry *r, const nq_exchange *x, const char *name,
                             novaq_error *err) {
    r->again = true;
    r->absent = false;
    r->ask_s = 0;
    switch (x->code) {
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_RESOLVE_PROXY:
        r->absent = true;
        return nq_fail(err, NOVAQ_E_NETWORK,
                       "%s: the host's address cannot be found: check its name and the network",
                       name);
    case CURLE_COULDNT_CONNECT:
        r->absent = true;
        return nq_fail(err, NOVAQ_E_NETWORK,
                       "%s: no connection to the server (refused or unreachable)", name);
    case CURLE_OUT_OF_MEMORY:
        r->again = false;
        return nq_fail(err, NOVAQ_E_MEMORY, "%s: out of memory", name);
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_ISSUER_ERROR: r->again = false; return tls_failed(x, name, err);
    case CURLE_URL_MALFORMAT:
        r->again = false;
        return nq_fail(err, NOVAQ_E_ARG, "%s: not a usable URL", name);
    default: return cut_off(x, name, err);
    }
}
