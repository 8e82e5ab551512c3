/* files_name.c - names, addresses and environment variables of places.
 *
 * Owns: which names stay inside a place, percent-encoding, what of a server's text may
 * be shown. Refuses: names that could mean another file than they seem to.
 */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "io/files_impl.h"
#include "io/fs.h"

static bool is_control(char c) { return (unsigned char)c < 0x20 || c == 0x7f; }

bool nq_name_ok(const char *name) {
    size_t n = strlen(name);
    if (n == 0 || n > NQ_NAME_MAX) {
        return false;
    }
    size_t start = 0;
    for (size_t i = 0; i <= n; i++) {
        if (i < n && (is_control(name[i]) || name[i] == '\\')) {
            return false;
        }
        if (i == n || name[i] == '/') {
            size_t part = i - start;
            bool dots = (part == 1 && name[start] == '.') ||
                        (part == 2 && name[start] == '.' && name[start + 1] == '.');
            if (part == 0 || dots) {
                return false;
            }
            start = i + 1;
        }
    }
    return true;
}

void nq_printable(char *out, size_t size, const char *s) {
    size_t i = 0;
    for (; i + 1 < size && s[i] != '\0'; i++) {
        /* Bytes beyond ASCII only where nothing cuts a sequence in two. */
        out[i] = is_control(s[i]) || (unsigned char)s[i] >= 0x80 ? '?' : s[i];
    }
    out[i] = '\0';
}

void nq_printable_url(char *out, size_t size, const char *url) {
    const char *scheme = strstr(url, "://");
    size_t host = scheme == NULL ? 0 : (size_t)(scheme - url) + 3;
    size_t authority = strcspn(url + host, "/?#\\");
    size_t skip = authority;
    while (skip > 0 && url[host + skip - 1] != '@') {
        skip--;
    }
    size_t end = host + authority + strcspn(url + host + authority, "?#");
    char text[NQ_NAME_MAX];
    size_t n = 0;
    for (size_t i = 0; i < end && n + 1 < sizeof text; i++) {
        if (i < host || i >= host + skip) {
            text[n++] = url[i];
        }
    }
    text[n] = '\0';
    nq_printable(out, size, text);
}

const char *nq_env(const char *name) {
    const char *value = getenv(name);
    return value != NULL && value[0] != '\0' ? value : NULL;
}

novaq_status nq_env_path(char **out, const char *name, novaq_error *err) {
    *out = NULL;
    const char *value = nq_env(name);
    const char *home = nq_env("HOME");
    if (value == NULL) {
        return NOVAQ_OK;
    }
    return value[0] == '~' && value[1] == '/' && home != NULL
               ? nq_path_join(out, home, value + 2, err)
               : nq_strdup(out, value, err);
}

/* ---- percent-encoding ------------------------------------------------------- */

static bool is_unreserved(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '.' || c == '_' || c == '~';
}

novaq_status nq_url_encode(nq_buf *b, const char *s, size_t len, const char *keep,
                           novaq_error *err) {
    for (size_t i = 0; i < len; i++) {
        if (is_unreserved(s[i]) || (s[i] != '\0' && strchr(keep, s[i]) != NULL)) {
            NQ_TRY(nq_buf_append(b, &s[i], 1, err));
        } else {
            NQ_TRY(nq_buf_printf(b, err, "%%%02X", (unsigned)(unsigned char)s[i]));
        }
    }
    return NOVAQ_OK;
}

novaq_status nq_url_join(char **out, const char *prefix, const char *name, novaq_error *err) {
    *out = NULL;
    size_t len = 0;
    nq_buf b = nq_buf_init((size_t)64 << 10);
    novaq_status st = nq_buf_puts(&b, prefix, err);
    if (st == NOVAQ_OK) {
        st = nq_url_encode(&b, name, strlen(name), "/", err);
    }
    if (st == NOVAQ_OK) {
        st = nq_buf_take(&b, out, &len, err);
    }
    nq_buf_free(&b);
    return st;
}

static int hex_digit(char c) {
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

novaq_status nq_url_decode(char **out, const char *s, size_t len, novaq_error *err) {
    *out = NULL;
    char *d = NULL;
    NQ_TRY(nq_alloc(&d, (uint64_t)len + 1, 1, err));
    size_t n = 0;
    bool ok = true;
    for (size_t i = 0; ok && i < len; i++) {
        char c = s[i];
        if (c == '%') {
            int high = len - i > 2 ? hex_digit(s[i + 1]) : -1;
            int low = high >= 0 ? hex_digit(s[i + 2]) : -1;
            ok = low >= 0;
            c = ok ? (char)(unsigned char)(high * 16 + low) : c;
            i += 2;
        }
        ok = ok && !is_control(c);
        d[n++] = c;
    }
    if (!ok) {
        nq_free(d);
        return nq_fail(err, NOVAQ_E_ARG,
                       "\"%.*s\": bad percent-encoding (a %% itself is written %%25)",
                       (int)(len < 200 ? len : 200), s);
    }
    *out = d;
    return NOVAQ_OK;
}
