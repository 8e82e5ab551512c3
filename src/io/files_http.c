/* files_http.c - a place behind a web address.
 *
 * Owns: taking an address apart; the files of the same folder by name. The query belongs
 * to the file that was named, other files are asked for without; it is left out of the
 * locator, since signed links carry secrets there. Refuses: names and passwords in
 * addresses, listing.
 */
#include <string.h>

#include "base/mem.h"
#include "io/files_impl.h"

typedef struct web {
    char *url;  /* of the file that was named, or of the folder */
    char *base; /* of the folder, with the '/' at its end */
} web;

static bool is_chosen(const nq_files *f, const char *name) {
    return f->chosen != NULL && strcmp(name, f->chosen) == 0;
}

static novaq_status url_of(char **out, const nq_files *f, const char *name, novaq_error *err) {
    const web *w = f->state;
    if (is_chosen(f, name)) {
        return nq_strdup(out, w->url, err);
    }
    return nq_url_join(out, w->base, name, err);
}

/* Of a file that nobody has named. Stores answer 403 to what is not there, and other things
 * to requests without the signature that the link of the named file has. */
static bool is_absent(int status) {
    return status == 400 || (status >= 401 && status <= 406) || status == 410 || status == 501;
}

static novaq_status refused(const nq_files *f, const char *name, int status, novaq_error *err) {
    return nq_fail(err, NOVAQ_E_NETWORK, "%s: %s: the server answers HTTP %d", f->locator, name,
                   status);
}

/* The status of the reply to this request. */
static novaq_status status_of(int *status, nq_files *f, const nq_http_request *r,
                              novaq_error *err) {
    nq_http_reply reply = {0};
    novaq_status st = nq_http_get(&reply, f->http, r, err);
    *status = reply.status;
    nq_http_reply_free(&reply);
    return st;
}

/* By HEAD; where that fails as if the server knew none, by a GET of the first byte. */
static novaq_status ask_for(int *status, nq_files *f, const char *url, novaq_error *err) {
    nq_http_request head = {.url = url, .head = true, .once = true};
    nq_http_request peek = {.url = url, .peek = true, .max = 1};
    NQ_TRY(status_of(status, f, &head, err));
    bool unclear = *status >= 500 || *status == 405 || *status == 408 || *status == 429;
    return unclear ? status_of(status, f, &peek, err) : NOVAQ_OK;
}

static novaq_status web_has(bool *has, nq_files *f, const char *name, novaq_error *err) {
    if (is_chosen(f, name)) {
        *has = true; /* opening it will tell */
        return NOVAQ_OK;
    }
    char *url = NULL;
    int status = 0;
    NQ_TRY(url_of(&url, f, name, err));
    novaq_status st = ask_for(&status, f, url, err);
    if (st == NOVAQ_OK) {
        *has = (status >= 200 && status < 300) || status == 416; /* 416: it is empty */
        if (!*has && !is_absent(status)) {
            st = refused(f, name, status, err);
        }
    }
    nq_free(url);
    return st;
}

static novaq_status web_source(nq_source **out, nq_files *f, const char *name, novaq_error *err) {
    char *url = NULL;
    NQ_TRY(url_of(&url, f, name, err));
    nq_http_file file = {.url = url, .size = NQ_HTTP_ASK};
    novaq_status st = nq_http_source(out, f->http, &file, err);
    nq_free(url);
    return st;
}

static novaq_status web_text(char **text, size_t *len, nq_files *f, const char *name, size_t max,
                             novaq_error *err) {
    char *url = NULL;
    NQ_TRY(url_of(&url, f, name, err));
    nq_http_reply reply = {0};
    novaq_status st = nq_fetch(&reply, f, url, NULL, max, err);
    if (st == NOVAQ_OK && reply.status == 200 && reply.len > max) {
        st = nq_fail(err, NOVAQ_E_FORMAT, "%s: %s: larger than %zu bytes, the limit here",
                     f->locator, name, max);
    } else if (st == NOVAQ_OK && reply.status == 200) {
        *text = reply.body;
        *len = reply.len;
        reply.body = NULL;
    } else if (st == NOVAQ_OK && (is_chosen(f, name) || !is_absent(reply.status))) {
        st = refused(f, name, reply.status, err);
    }
    nq_http_reply_free(&reply);
    nq_free(url);
    return st;
}

static void web_close(void *state) {
    web *w = state;
    nq_free(w->url);
    nq_free(w->base);
    nq_free(w);
}

static const nq_place web_place = {web_has, web_source, web_text, web_close};

/* ---- addresses ------------------------------------------------------------ */

static novaq_status check_address(const char *url, size_t authority, novaq_error *err) {
    if (memchr(strstr(url, "://") + 3, '@', authority) != NULL) { /* a password: not shown */
        return nq_fail(err, NOVAQ_E_ARG,
                       "an address with a name or password before the host is refused: it would "
                       "end up in logs and in the artifact");
    }
    char shown[201];
    nq_printable_url(shown, sizeof shown, url);
    for (const char *p = url; *p != '\0'; p++) {
        if ((unsigned char)*p <= 0x20 || *p == 0x7f || *p == '\\') {
            return nq_fail(err, NOVAQ_E_ARG,
                           "%s: spaces, backslashes and control characters in an address must be "
                           "percent-encoded (a space is %%20)",
                           shown);
        }
    }
    return authority > 0 ? NOVAQ_OK
                         : nq_fail(err, NOVAQ_E_ARG, "%s: an address without a host", shown);
}

/* Sets the file that was named, if there is one: url[start..end). */
static novaq_status choose(nq_files *f, const char *url, size_t start, size_t end,
                           novaq_error *err) {
    if (start == end) {
        return NOVAQ_OK;
    }
    NQ_TRY(nq_url_decode(&f->chosen, url + start, end - start, err));
    return nq_name_ok(f->chosen) && strchr(f->chosen, '/') == NULL
               ? NOVAQ_OK
               : nq_fail(err, NOVAQ_E_ARG, "%.*s: does not end in the name of a file", (int)end,
                         url);
}

novaq_status nq_url_open(nq_files *f, const char *url, novaq_error *err) {
    size_t host = (size_t)(strstr(url, "://") + 3 - url);
    size_t authority = strcspn(url + host, "/?#");
    NQ_TRY(check_address(url, authority, err));
    size_t path = host + authority;
    size_t end = path + strcspn(url + path, "?#");
    size_t query_end = end + strcspn(url + end, "#");
    size_t folder = end;
    while (folder > path && url[folder - 1] != '/') {
        folder--;
    }
    web *w = NULL;
    NQ_TRY(nq_alloc(&w, 1, sizeof *w, err));
    f->place = &web_place;
    f->state = w;
    NQ_TRY(nq_strndup(&f->locator, url, end, err));
    NQ_TRY(nq_strndup(&w->url, url, query_end, err));
    NQ_TRY(nq_asprintf(&w->base, err, "%.*s%s", (int)folder, url, folder == path ? "/" : ""));
    NQ_TRY(choose(f, url, folder, end, err));
    if (query_end > end) {
        NQ_TRY(nq_strndup(&f->query, url + end, query_end - end, err));
    }
    return nq_files_network(f, err);
}
