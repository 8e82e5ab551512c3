/* hf_locator.c - hf://ORG/NAME[@REV][/FILE] and pasted addresses of the Hub's pages.
 *
 * Owns: taking them apart. A name without organisation needs its revision when a file
 * follows (hf://gpt2@main/config.json), since hf://gpt2/config.json names a repository.
 * A revision with slashes is percent-encoded (refs%2Fpr%2F1); refs/pr/1 itself is
 * understood, too. Refuses: what cannot be the name of a repository.
 */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "io/hf_impl.h"

#define REPO_NAME_MAX 96  /* characters of an organisation or a name */
#define REVISION_MAX  255 /* characters */

/* [A-Za-z0-9._-], no '-' or '.' at either end, no "--" and "..". */
static bool is_repo_part(const char *s, size_t n) {
    if (n == 0 || n > REPO_NAME_MAX) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        char c = s[i];
        bool word =
            (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
        bool mark = c == '-' || c == '.';
        if (!word && (!mark || i == 0 || i + 1 == n || s[i - 1] == c)) {
            return false;
        }
    }
    return true;
}

static novaq_status bad(const char *text, const char *why, novaq_error *err) {
    char shown[201];
    if (nq_has_prefix(text, "hf://")) {
        nq_printable(shown, sizeof shown, text);
    } else {
        nq_printable_url(shown, sizeof shown, text);
    }
    return nq_fail(err, NOVAQ_E_ARG, "%s: %s; expected hf://ORG/NAME[@REVISION][/FILE]", shown,
                   why);
}

/* refs/pr/1 and the like are three parts, anything else one. */
static size_t revision_length(const char *s) {
    size_t n = strcspn(s, "/");
    if (strncmp(s, "refs/", 5) == 0) {
        for (unsigned i = 0; i < 2 && s[n] == '/'; i++) {
            n += 1 + strcspn(s + n + 1, "/");
        }
    }
    return n;
}

/* rest: "", "@REV", "/FILE" or "@REV/FILE". */
static novaq_status parse_rest(nq_hf_locator *out, const char *rest, const char *text,
                               novaq_error *err) {
    if (rest[0] == '@') {
        size_t n = revision_length(rest + 1);
        NQ_TRY(nq_url_decode(&out->revision, rest + 1, n, err));
        rest += 1 + n;
    } else {
        NQ_TRY(nq_strdup(&out->revision, "main", err));
    }
    if (!nq_name_ok(out->revision) || strlen(out->revision) > REVISION_MAX) {
        return bad(text, "the revision cannot be one", err);
    }
    if (rest[0] == '\0' || rest[1] == '\0') {
        return NOVAQ_OK; /* a '/' at the end means nothing */
    }
    NQ_TRY(nq_strdup(&out->file, rest + 1, err));
    return nq_name_ok(out->file) ? NOVAQ_OK : bad(text, "the file cannot be one", err);
}

static novaq_status parse_uri(nq_hf_locator *out, const char *text, novaq_error *err) {
    const char *s = text + strlen("hf://");
    if (strncmp(s, "models/", 7) == 0 && strchr(s + 7, '/') != NULL) {
        s += 7;
    }
    size_t first = strcspn(s, "/@");
    size_t n = first;
    if (s[first] == '/' && s[first + 1] != '\0') {
        n = first + 1 + strcspn(s + first + 1, "/@");
    }
    bool alone = n == first;
    if (!is_repo_part(s, first) || (!alone && !is_repo_part(s + first + 1, n - first - 1))) {
        return bad(text, "not the name of a repository", err);
    }
    NQ_TRY(nq_strndup(&out->repo, s, n, err));
    return parse_rest(out, s + n, text, err);
}

/* ---- pages ------------------------------------------------------------------ */

/* What follows the address of the Hub, or NULL. */
static const char *after_hub(const char *url, const char *endpoint) {
    const char *const hubs[] = {endpoint, "https://huggingface.co", "https://hf.co"};
    for (size_t i = 0; i < sizeof hubs / sizeof hubs[0]; i++) {
        size_t n = strlen(hubs[i]);
        if (nq_has_prefix(url, hubs[i]) && url[n] == '/') {
            return url + n + 1;
        }
    }
    return NULL;
}

static bool is_page_kind(const char *s, size_t n) {
    return (n == 4 && (memcmp(s, "tree", n) == 0 || memcmp(s, "blob", n) == 0)) ||
           (n == 7 && memcmp(s, "resolve", n) == 0);
}

/* The length of "ORG/NAME", or of "NAME" where the kind of page follows; 0: neither. */
static size_t after_repo(const char *path) {
    static const char *const other[] = {"api",  "datasets", "spaces",      "docs",
                                        "blog", "models",   "collections", "papers"};
    size_t org = strcspn(path, "/?#");
    size_t n = path[org] == '/' ? strcspn(path + org + 1, "/?#") : 0;
    for (size_t i = 0; i < sizeof other / sizeof other[0]; i++) {
        if (strlen(other[i]) == org && memcmp(path, other[i], org) == 0) {
            return 0;
        }
    }
    if (n > 0 && is_page_kind(path + org + 1, n) && path[org + 1 + n] == '/') {
        return is_repo_part(path, org) ? org : 0;
    }
    return is_repo_part(path, org) && is_repo_part(path + org + 1, n) ? org + 1 + n : 0;
}

bool nq_hf_is_web_address(const char *url) {
    const char *endpoint = nq_env("HF_ENDPOINT");
    char hub[512] = "";
    size_t n = endpoint == NULL ? 0 : strlen(endpoint);
    while (n > 0 && endpoint[n - 1] == '/') {
        n--;
    }
    if (n > 0 && n < sizeof hub) {
        (void)snprintf(hub, sizeof hub, "%.*s", (int)n, endpoint);
    }
    const char *path = after_hub(url, n == 0 ? "https://huggingface.co" : hub);
    size_t repo = path == NULL ? 0 : after_repo(path);
    if (repo == 0) {
        return false;
    }
    const char *rest = path + repo;
    size_t kind = rest[0] == '/' ? strcspn(rest + 1, "/") : 0;
    return strcmp(rest, "") == 0 || strcmp(rest, "/") == 0 ||
           (is_page_kind(rest + 1, kind) && rest[1 + kind] == '/' && rest[2 + kind] != '\0');
}

/* ORG/NAME/{tree,blob,resolve}/REV[/FILE][?...]; all parts percent-encoded. */
static novaq_status parse_page(nq_hf_locator *out, const char *path, const char *text,
                               novaq_error *err) {
    size_t repo = after_repo(path);
    NQ_TRY(nq_strndup(&out->repo, path, repo, err));
    const char *rest = path + repo;
    size_t kind = rest[0] == '/' ? 1 + strcspn(rest + 1, "/") : 0;
    if (rest[kind] == '\0') {
        return nq_strdup(&out->revision, "main", err);
    }
    rest += kind + 1;
    size_t n = revision_length(rest);
    size_t end = strcspn(rest, "?#");
    n = n < end ? n : end;
    NQ_TRY(nq_url_decode(&out->revision, rest, n, err));
    if (n + 1 < end) {
        NQ_TRY(nq_url_decode(&out->file, rest + n + 1, end - n - 1, err));
    }
    if (!nq_name_ok(out->revision) || strlen(out->revision) > REVISION_MAX ||
        (out->file != NULL && !nq_name_ok(out->file))) {
        return bad(text, "neither a page nor a file of a model", err);
    }
    return NOVAQ_OK;
}

novaq_status nq_hf_locator_parse(nq_hf_locator *out, const char *text, const char *endpoint,
                                 novaq_error *err) {
    *out = (nq_hf_locator){.repo = NULL};
    const char *path = nq_has_prefix(text, "hf://") ? NULL : after_hub(text, endpoint);
    return path == NULL ? parse_uri(out, text, err) : parse_page(out, path, text, err);
}

void nq_hf_locator_free(nq_hf_locator *l) {
    nq_free(l->repo);
    nq_free(l->revision);
    nq_free(l->file);
    *l = (nq_hf_locator){.repo = NULL};
}
