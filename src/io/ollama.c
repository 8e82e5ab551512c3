/* ollama.c - a model of Ollama.
 *
 * Owns: where the manifest and each blob are had from: the store on disk, else the
 * registry; blobs that are missing or unfinished in the store come from the registry,
 * too. Every file has a promised SHA-256, its digest. Refuses: speaking to a running
 * Ollama.
 */
#include <string.h>

#include "base/mem.h"
#include "io/ollama_impl.h"

typedef struct library {
    nq_ollama_name name;
    nq_ollama_manifest manifest;
    char *store; /* folder, or NULL */
    char *token; /* of the registry, or NULL */
    bool asked;  /* the registry, whether it wants one */
} library;

static const nq_ollama_layer *find(const library *l, const char *file) {
    for (size_t i = 0; i < l->manifest.count; i++) {
        if (strcmp(l->manifest.layers[i].file, file) == 0) {
            return &l->manifest.layers[i];
        }
    }
    return NULL;
}

static novaq_status lib_has(bool *has, nq_files *f, const char *name, novaq_error *err) {
    (void)err;
    *has = find(f->state, name) != NULL;
    return NOVAQ_OK;
}

static novaq_status absent(const nq_files *f, const char *name, novaq_error *err) {
    char shown[161];
    nq_printable(shown, sizeof shown, name);
    return nq_fail(err, NOVAQ_E_NETWORK, "%s: no file \"%s\" in this model", f->locator, shown);
}

/* The registry is spoken to only when something is missing here. */
static novaq_status ask_registry(char **text, size_t *len, nq_files *f, library *l,
                                 novaq_error *err) {
    NQ_TRY(nq_files_network(f, err));
    nq_free(l->token);
    l->token = NULL;
    novaq_status st = nq_ollama_registry_manifest(text, len, &l->token, f, &l->name, err);
    l->asked = st == NOVAQ_OK;
    return st;
}

/* Of a model of the store only the manifest is here: the registry may want a token. */
static novaq_status need_token(nq_files *f, library *l, novaq_error *err) {
    char *text = NULL;
    size_t len = 0;
    if (l->asked) {
        return NOVAQ_OK;
    }
    novaq_status st = ask_registry(&text, &len, f, l, err);
    nq_free(text);
    return st == NOVAQ_OK ? st
                          : nq_fail_context(
                                err, st, "incomplete in %s (`ollama pull` completes it)", l->store);
}

/* Tokens last some minutes, models can take hours. */
static novaq_status renew(char **token, void *ctx, novaq_error *err) {
    nq_files *f = ctx;
    const library *l = f->state;
    return nq_ollama_registry_token(token, f, &l->name, err);
}

static novaq_status remote_source(nq_source **out, nq_files *f, const nq_ollama_layer *layer,
                                  novaq_error *err) {
    library *l = f->state;
    char *url = NULL;
    char *shown = NULL;
    NQ_TRY(need_token(f, l, err));
    NQ_TRY(nq_ollama_blob_url(&url, &l->name, layer->digest, err));
    novaq_status st = nq_asprintf(&shown, err, "%s: %s", f->locator, layer->file);
    if (st == NOVAQ_OK) {
        nq_http_file file = {.url = url,
                             .name = shown,
                             .token = l->token,
                             .size = layer->size,
                             .renew = renew,
                             .renew_ctx = f};
        st = nq_http_source(out, f->http, &file, err);
    }
    nq_free(shown);
    nq_free(url);
    return st;
}

static novaq_status lib_source(nq_source **out, nq_files *f, const char *name, novaq_error *err) {
    const library *l = f->state;
    const nq_ollama_layer *layer = find(l, name);
    if (layer == NULL) {
        return absent(f, name, err);
    }
    char *path = NULL;
    NQ_TRY(nq_ollama_store_blob(&path, l->store, layer, err));
    novaq_status st =
        path != NULL ? nq_source_open_file(out, path, err) : remote_source(out, f, layer, err);
    nq_free(path);
    return st;
}

static novaq_status renew_here(nq_files *f, library *l, novaq_error *err) {
    char *fresh = NULL;
    NQ_TRY(renew(&fresh, f, err));
    nq_free(l->token);
    l->token = fresh;
    return NOVAQ_OK;
}

static novaq_status remote_text(char **text, size_t *len, nq_files *f, const nq_ollama_layer *layer,
                                const nq_file *file, novaq_error *err) {
    library *l = f->state;
    char *url = NULL;
    nq_http_reply reply = {0};
    NQ_TRY(need_token(f, l, err));
    NQ_TRY(nq_ollama_blob_url(&url, &l->name, layer->digest, err));
    novaq_status st = nq_fetch_text(text, len, &reply, f, file, url, l->token, err);
    if (st == NOVAQ_OK && reply.status == 401) {
        nq_http_reply_free(&reply);
        st = renew_here(f, l, err);
        if (st == NOVAQ_OK) {
            st = nq_fetch_text(text, len, &reply, f, file, url, l->token, err);
        }
    }
    if (st == NOVAQ_OK && *text == NULL) {
        st = nq_fail(err, NOVAQ_E_NETWORK, "%s: %s: the registry answers HTTP %d", f->locator,
                     layer->file, reply.status);
    }
    nq_http_reply_free(&reply);
    nq_free(url);
    return st;
}

static novaq_status lib_text(char **text, size_t *len, nq_files *f, const char *name, size_t max,
                             novaq_error *err) {
    const library *l = f->state;
    const nq_ollama_layer *layer = find(l, name);
    const nq_file *file = nq_list_find(f, name);
    if (layer == NULL || file == NULL) {
        return NOVAQ_OK;
    }
    if (layer->size > max) {
        return nq_fail(err, NOVAQ_E_FORMAT, "%s: %s: larger than %zu bytes, the limit here",
                       f->locator, name, max);
    }
    char *path = NULL;
    NQ_TRY(nq_ollama_store_blob(&path, l->store, layer, err));
    novaq_status st = path != NULL ? nq_read_copy(text, len, f, file, path, err)
                                   : remote_text(text, len, f, layer, file, err);
    nq_free(path);
    return st;
}

static void lib_close(void *state) {
    library *l = state;
    nq_ollama_name_free(&l->name);
    nq_ollama_manifest_free(&l->manifest);
    nq_free(l->store);
    nq_free(l->token);
    nq_free(l);
}

static const nq_place lib_place = {lib_has, lib_source, lib_text, lib_close};

/* ---- opening ------------------------------------------------------------------ */

static novaq_status pin(nq_files *f, const char *text, size_t len, novaq_error *err) {
    char digest[NQ_SHA256_HEX + 1];
    NQ_TRY(nq_sha256_of(digest, text, len, err));
    return nq_asprintf(&f->revision, err, "sha256:%s", digest);
}

/* The manifest of the store, else of the registry. */
static novaq_status find_manifest(char **text, size_t *len, nq_files *f, library *l,
                                  novaq_error *err) {
    NQ_TRY(nq_ollama_store_find(text, len, &l->store, &l->name, err));
    if (*text != NULL) {
        return NOVAQ_OK;
    }
    return ask_registry(text, len, f, l, err);
}

static novaq_status take_manifest(nq_files *f, library *l, const char *text, size_t len,
                                  novaq_error *err) {
    NQ_TRY(pin(f, text, len, err));
    NQ_TRY(nq_ollama_manifest_parse(&l->manifest, text, len, f->locator, err));
    for (size_t i = 0; i < l->manifest.count; i++) {
        const nq_ollama_layer *y = &l->manifest.layers[i];
        NQ_TRY(nq_list_add(f, y->file, y->size, y->digest, err));
    }
    return nq_strdup(&f->chosen, l->manifest.layers[0].file, err);
}

novaq_status nq_ollama_open(nq_files *f, const char *locator, novaq_error *err) {
    library *l = NULL;
    NQ_TRY(nq_alloc(&l, 1, sizeof *l, err));
    f->place = &lib_place;
    f->state = l;
    NQ_TRY(nq_ollama_name_parse(&l->name, locator + strlen("ollama://"), err));
    NQ_TRY(nq_asprintf(&f->locator, err, "ollama://%s%s/%s/%s:%s", l->name.scheme, l->name.host,
                       l->name.space, l->name.model, l->name.tag));
    char *text = NULL;
    size_t len = 0;
    novaq_status st = find_manifest(&text, &len, f, l, err);
    if (st == NOVAQ_OK) {
        st = take_manifest(f, l, text, len, err);
    }
    nq_free(text);
    return st;
}
