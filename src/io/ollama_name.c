/* ollama_name.c - names of models as Ollama reads them.
 *
 * Owns: defaults (registry.ollama.ai, library, latest), which hosts are spoken to
 * without TLS: those written with http://, and this machine itself. Refuses: parts that
 * could lead out of the store or into another part of an address.
 */
#include <string.h>

#include "base/mem.h"
#include "io/ollama_impl.h"

#define PART_MAX 80
#define HOST_MAX 350

static bool is_word(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

/* Letters, digits, '_', '-' and what `more` has; a word character first; no "..". */
static bool is_part(const char *s, size_t max, const char *more) {
    size_t n = strlen(s);
    if (n == 0 || n > max || !is_word(s[0]) || strstr(s, "..") != NULL) {
        return false;
    }
    for (size_t i = 1; i < n; i++) {
        if (!is_word(s[i]) && s[i] != '-' && strchr(more, s[i]) == NULL) {
            return false;
        }
    }
    return true;
}

/* [::1] needs its own rule; other literal IPv6 addresses are not names of registries. */
static bool is_host(const char *s) {
    if (strncmp(s, "[::1]", 5) == 0) {
        return s[5] == '\0' || (s[5] == ':' && s[6 + strspn(s + 6, "0123456789")] == '\0');
    }
    return is_part(s, HOST_MAX, ".:");
}

static bool is_this_machine(const char *host) {
    size_t n = host[0] == '[' ? strcspn(host, "]") + 1 : strcspn(host, ":");
    return (n == 9 && strncmp(host, "localhost", n) == 0) || strncmp(host, "[::1]", 5) == 0 ||
           (n == 9 && strncmp(host, "127.0.0.1", n) == 0);
}

/* Takes what follows the last '/' out of s: what is left goes on in *rest, NULL when
 * nothing is. */
static novaq_status cut_last(char **out, char **rest, char *s, novaq_error *err) {
    char *slash = strrchr(s, '/');
    *rest = NULL;
    NQ_TRY(nq_strdup(out, slash == NULL ? s : slash + 1, err));
    if (slash != NULL) {
        *slash = '\0';
        *rest = s;
    }
    return NOVAQ_OK;
}

static novaq_status take_apart(nq_ollama_name *out, char *s, novaq_error *err) {
    char *slash = strrchr(s, '/');
    char *colon = strrchr(s, ':');
    char *rest = NULL;
    if (colon != NULL && (slash == NULL || colon > slash)) {
        *colon = '\0';
        NQ_TRY(nq_strdup(&out->tag, colon + 1, err));
    } else {
        NQ_TRY(nq_strdup(&out->tag, "latest", err));
    }
    NQ_TRY(cut_last(&out->model, &rest, s, err));
    if (rest != NULL) {
        NQ_TRY(cut_last(&out->space, &rest, rest, err));
    } else {
        NQ_TRY(nq_strdup(&out->space, "library", err));
    }
    return nq_strdup(&out->host, rest != NULL ? rest : "registry.ollama.ai", err);
}

novaq_status nq_ollama_name_parse(nq_ollama_name *out, const char *text, novaq_error *err) {
    *out = (nq_ollama_name){.scheme = ""};
    const char *s = text;
    bool http = nq_has_prefix(s, "http://");
    bool https = nq_has_prefix(s, "https://");
    s += http ? 7 : https ? 8 : 0;
    char *copy = NULL;
    NQ_TRY(nq_strdup(&copy, s, err));
    novaq_status st = take_apart(out, copy, err);
    nq_free(copy);
    NQ_TRY(st);
    if (!is_host(out->host) || !is_part(out->space, PART_MAX, "") ||
        !is_part(out->model, PART_MAX, ".") || !is_part(out->tag, PART_MAX, ".")) {
        char shown[201];
        nq_printable_url(shown, sizeof shown, text);
        return nq_fail(err, NOVAQ_E_ARG,
                       "ollama://%s: not the name of a model; expected "
                       "ollama://[HOST/][NAMESPACE/]MODEL[:TAG]",
                       shown);
    }
    out->scheme = http ? "http://" : https ? "https://" : "";
    out->http = http || (!https && is_this_machine(out->host));
    return NOVAQ_OK;
}

void nq_ollama_name_free(nq_ollama_name *n) {
    nq_free(n->host);
    nq_free(n->space);
    nq_free(n->model);
    nq_free(n->tag);
    *n = (nq_ollama_name){.scheme = ""};
}
