/* files.c - see files.h. Owns: which kind of place a locator names, the list, what was
 * opened. The places themselves: files_local.c, files_http.c, hf.c, ollama.c. */
#include "io/files.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/blake3.h"
#include "base/mem.h"
#include "base/sha256.h"
#include "io/digest.h"
#include "io/files_impl.h"
#include "io/fs.h"

#define FETCH_MIN ((uint64_t)1 << 20) /* bytes any reply may have */
#define QUERY_HEX 16                  /* digits of the digest of a query */

/* ---- opening -------------------------------------------------------------- */

bool nq_has_prefix(const char *s, const char *prefix) {
    return strncasecmp(s, prefix, strlen(prefix)) == 0;
}

static bool is_web(const char *locator) {
    return nq_has_prefix(locator, "http://") || nq_has_prefix(locator, "https://");
}

bool nq_is_remote(const char *locator) {
    return nq_has_prefix(locator, "hf://") || nq_has_prefix(locator, "ollama://") ||
           is_web(locator);
}

static novaq_status open_place(nq_files *f, const char *locator, novaq_error *err) {
    if (nq_has_prefix(locator, "hf://") || (is_web(locator) && nq_hf_is_web_address(locator))) {
        return nq_hf_open(f, locator, err);
    }
    if (nq_has_prefix(locator, "ollama://")) {
        return nq_ollama_open(f, locator, err);
    }
    return is_web(locator) ? nq_url_open(f, locator, err) : nq_local_open(f, locator, err);
}

novaq_status nq_files_open(nq_files **out, const char *locator, novaq_error *err) {
    return nq_files_open_with(out, locator, NULL, NULL, err);
}

novaq_status nq_files_network(nq_files *f, novaq_error *err) {
    if (f->http != NULL) {
        return NOVAQ_OK;
    }
    NQ_TRY(nq_http_open(&f->http, err));
    nq_http_stop_when(f->http, f->stop, f->stop_ctx);
    return NOVAQ_OK;
}

novaq_status nq_files_open_with(nq_files **out, const char *locator, bool (*stop)(void *ctx),
                                void *ctx, novaq_error *err) {
    *out = NULL;
    if (locator[0] == '\0') {
        return nq_fail(err, NOVAQ_E_ARG, "the name of a model is empty");
    }
    nq_files *f = NULL;
    NQ_TRY(nq_alloc(&f, 1, sizeof *f, err));
    f->stop = stop;
    f->stop_ctx = ctx;
    f->opened = json_object();
    novaq_status st = f->opened == NULL ? nq_fail(err, NOVAQ_E_MEMORY, "out of memory") : NOVAQ_OK;
    if (st == NOVAQ_OK) {
        st = open_place(f, locator, err);
    }
    if (st == NOVAQ_OK) {
        st = nq_list_sort(f, err);
    }
    if (st != NOVAQ_OK) {
        nq_files_close(&f);
        return st;
    }
    *out = f;
    return NOVAQ_OK;
}

void nq_files_close(nq_files **files) {
    nq_files *f = *files;
    *files = NULL;
    if (f == NULL) {
        return;
    }
    if (f->state != NULL) {
        f->place->close(f->state);
    }
    if (f->http != NULL) {
        nq_http_close(&f->http);
    }
    for (size_t i = 0; i < f->count; i++) {
        nq_free((void *)(uintptr_t)f->list[i].name);
        nq_free((void *)(uintptr_t)f->list[i].sha256);
    }
    nq_free(f->list);
    json_decref(f->opened);
    nq_free(f->locator);
    nq_free(f->chosen);
    nq_free(f->dir);
    nq_free(f->revision);
    nq_free(f->query);
    nq_free(f);
}

/* ---- the list ------------------------------------------------------------- */

novaq_status nq_list_add(nq_files *f, const char *name, uint64_t size, const char *sha256,
                         novaq_error *err) {
    if (f->count == NQ_LIST_MAX) {
        return nq_fail(err, NOVAQ_E_FORMAT, "%s: more than %d files", f->locator, NQ_LIST_MAX);
    }
    if (f->count == f->cap) {
        size_t fresh = f->cap == 0 ? 32 : f->cap * 2;
        NQ_TRY(nq_grow(&f->list, f->cap, fresh, sizeof *f->list, err));
        f->cap = fresh;
    }
    char *n = NULL;
    char *h = NULL;
    NQ_TRY(nq_strdup(&n, name, err));
    novaq_status st = sha256 == NULL ? NOVAQ_OK : nq_strdup(&h, sha256, err);
    if (st != NOVAQ_OK) {
        nq_free(n);
        return st;
    }
    f->list[f->count++] = (nq_file){.name = n, .size = size, .sha256 = h};
    return NOVAQ_OK;
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const nq_file *)a)->name, ((const nq_file *)b)->name);
}

novaq_status nq_list_sort(nq_files *f, novaq_error *err) {
    if (f->count > 1) {
        qsort(f->list, f->count, sizeof *f->list, by_name);
    }
    for (size_t i = 1; i < f->count; i++) {
        if (by_name(&f->list[i - 1], &f->list[i]) == 0) {
            return nq_fail(err, NOVAQ_E_FORMAT, "%s: \"%.200s\" is listed twice", f->locator,
                           f->list[i].name);
        }
    }
    return NOVAQ_OK;
}

const nq_file *nq_list_find(const nq_files *f, const char *name) {
    nq_file key = {.name = name};
    return f->count == 0 ? NULL : bsearch(&key, f->list, f->count, sizeof *f->list, by_name);
}

const char *nq_files_locator(const nq_files *f) { return f->locator; }
const char *nq_files_chosen(const nq_files *f) { return f->chosen; }
const char *nq_files_dir(const nq_files *f) { return f->dir; }
size_t nq_files_count(const nq_files *f) { return f->count; }
const nq_file *nq_files_at(const nq_files *f, size_t i) { return &f->list[i]; }

/* ---- files ---------------------------------------------------------------- */

/* What the user named may be called as it likes. */
static bool may_open(const nq_files *f, const char *name) {
    return nq_name_ok(name) || (f->chosen != NULL && strcmp(name, f->chosen) == 0);
}

static novaq_status check_name(const nq_files *f, const char *name, novaq_error *err) {
    char shown[201];
    nq_printable(shown, sizeof shown, name);
    return may_open(f, name) ? NOVAQ_OK
                             : nq_fail(err, NOVAQ_E_FORMAT,
                                       "%s: \"%s\" is not the name of a file inside the model's "
                                       "folder",
                                       f->locator, shown);
}

novaq_status nq_files_has(bool *has, nq_files *f, const char *name, novaq_error *err) {
    *has = false;
    return may_open(f, name) ? f->place->has(has, f, name, err) : NOVAQ_OK;
}

novaq_status nq_fetch(nq_http_reply *reply, nq_files *f, const char *url, const char *token,
                      uint64_t max, novaq_error *err) {
    /* Room for a file that is longer than was promised: who checks that says so better. */
    nq_http_request r = {.url = url, .token = token, .max = max > FETCH_MIN ? max : FETCH_MIN};
    return nq_http_get(reply, f->http, &r, err);
}

/* Any name or text of a server as JSON: what is not UTF-8 is shown as far as it goes. */
static json_t *text_value(const char *s) {
    json_t *v = json_string(s);
    if (v == NULL) {
        char shown[NQ_NAME_MAX + 1];
        nq_printable(shown, sizeof shown, s);
        v = json_string(shown);
    }
    return v;
}

static novaq_status set_member(json_t *obj, const char *key, json_t *value, novaq_error *err) {
    return value != NULL && json_object_set_new(obj, key, value) == 0
               ? NOVAQ_OK
               : nq_fail(err, NOVAQ_E_MEMORY, "out of memory");
}

/* What tells the content behind an address from another, where nothing is promised: its
 * ETag, else its date and the query it was had by. Queries hold secrets and change with
 * each signed link, so they stay out of it where there is an ETag, and are hashed. */
static novaq_status note_version(json_t *o, const nq_files *f, const char *name, const nq_source *s,
                                 novaq_error *err) {
    const char *etag = nq_http_etag(s);
    if (etag[0] != '\0') {
        return set_member(o, "etag", text_value(etag), err);
    }
    const char *modified = nq_http_modified(s);
    if (modified[0] != '\0') {
        NQ_TRY(set_member(o, "modified", text_value(modified), err));
    }
    if (f->query == NULL || f->chosen == NULL || strcmp(name, f->chosen) != 0) {
        return NOVAQ_OK;
    }
    char hex[NQ_BLAKE3_HEX + 1];
    nq_blake3_of(hex, f->query, strlen(f->query));
    hex[QUERY_HEX] = '\0';
    return set_member(o, "query_blake3", json_string(hex), err);
}

/* What is known of a source that is about to be given out. */
static novaq_status note(nq_files *f, const char *name, const nq_source *s, const char *sha256,
                         novaq_error *err) {
    json_t *o = json_object();
    if (o == NULL) {
        return nq_fail(err, NOVAQ_E_MEMORY, "out of memory");
    }
    novaq_status st = set_member(o, "size", json_integer((json_int_t)s->size), err);
    if (st == NOVAQ_OK && sha256 != NULL) {
        st = set_member(o, "sha256", json_string(sha256), err);
    }
    if (st == NOVAQ_OK && sha256 == NULL && s->remote) {
        st = note_version(o, f, name, s, err);
    }
    json_t *key = text_value(name);
    if (st == NOVAQ_OK && key != NULL) {
        st = set_member(f->opened, json_string_value(key), json_incref(o), err);
    }
    json_decref(o);
    json_decref(key);
    return st;
}

novaq_status nq_files_source(nq_source **out, nq_files *f, const char *name, novaq_error *err) {
    *out = NULL;
    NQ_TRY(check_name(f, name, err));
    nq_source *s = NULL;
    NQ_TRY(f->place->source(&s, f, name, err));
    const nq_file *file = nq_list_find(f, name);
    const char *sha256 = file != NULL ? file->sha256 : NULL;
    novaq_status st = note(f, name, s, sha256, err);
    if (st == NOVAQ_OK && sha256 != NULL) {
        return nq_digest_open(out, &s, sha256, err);
    }
    if (st != NOVAQ_OK) {
        nq_source_close(&s);
        return st;
    }
    *out = s;
    return NOVAQ_OK;
}

novaq_status nq_files_text(char **text, size_t *len, nq_files *f, const char *name, size_t max,
                           novaq_error *err) {
    *text = NULL;
    *len = 0;
    return may_open(f, name) ? f->place->text(text, len, f, name, max, err) : NOVAQ_OK;
}

novaq_status nq_check_text(const nq_files *f, const nq_file *file, const char *text, size_t len,
                           novaq_error *err) {
    if (file->size != NQ_SIZE_UNKNOWN && file->size != len) {
        return nq_fail(err, NOVAQ_E_VERIFY, "%s: %s: %zu bytes, but %llu were promised", f->locator,
                       file->name, len, (unsigned long long)file->size);
    }
    if (file->sha256 == NULL) {
        return NOVAQ_OK;
    }
    char got[NQ_SHA256_HEX + 1];
    NQ_TRY(nq_sha256_of(got, text, len, err));
    return strcmp(got, file->sha256) == 0
               ? NOVAQ_OK
               : nq_fail(err, NOVAQ_E_VERIFY,
                         "%s: %s: SHA-256 is %.16s..., but %.16s... was promised", f->locator,
                         file->name, got, file->sha256);
}

novaq_status nq_fetch_text(char **text, size_t *len, nq_http_reply *reply, nq_files *f,
                           const nq_file *file, const char *url, const char *token,
                           novaq_error *err) {
    *text = NULL;
    NQ_TRY(nq_fetch(reply, f, url, token, file->size, err));
    if (reply->status != 200) {
        return NOVAQ_OK;
    }
    NQ_TRY(nq_check_text(f, file, reply->body, reply->len, err));
    *text = reply->body;
    *len = reply->len;
    reply->body = NULL;
    return NOVAQ_OK;
}

novaq_status nq_read_copy(char **text, size_t *len, const nq_files *f, const nq_file *file,
                          const char *path, novaq_error *err) {
    NQ_TRY(nq_read_file(text, len, path, (size_t)file->size, err));
    novaq_status st = nq_check_text(f, file, *text, *len, err);
    if (st != NOVAQ_OK) {
        nq_free(*text);
        *text = NULL;
        *len = 0;
    }
    return st;
}

/* ---- the whole ------------------------------------------------------------ */

void nq_files_stop(nq_files *f) {
    if (f->http != NULL) {
        nq_http_stop(f->http);
    }
}

uint64_t nq_files_received(const nq_files *f) {
    return f->http == NULL ? 0 : nq_http_received(f->http);
}

novaq_status nq_files_origin(json_t **out, const nq_files *f, novaq_error *err) {
    *out = NULL;
    json_t *o = json_object();
    if (o == NULL) {
        return nq_fail(err, NOVAQ_E_MEMORY, "out of memory");
    }
    novaq_status st = set_member(o, "locator", text_value(f->locator), err);
    if (st == NOVAQ_OK && f->revision != NULL) {
        st = set_member(o, "revision", json_string(f->revision), err);
    }
    if (st == NOVAQ_OK) {
        st = set_member(o, "files", json_deep_copy(f->opened), err);
    }
    if (st != NOVAQ_OK) {
        json_decref(o);
        return st;
    }
    *out = o;
    return NOVAQ_OK;
}
