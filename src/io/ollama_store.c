/* ollama_store.c - the models that Ollama has on this machine.
 *
 * Layout: manifests/HOST/NAMESPACE/MODEL/TAG and blobs/sha256-DIGEST, under
 * OLLAMA_MODELS, else ~/.ollama/models, else the folder of the system's service. Owns:
 * finding both. OLLAMA_HOST is the address of a running server, which is not asked.
 * Refuses: writing there; blobs of another size than the manifest says (unfinished ones).
 */
#include <sys/stat.h>

#include "base/mem.h"
#include "io/fs.h"
#include "io/ollama_impl.h"

#define MANIFEST_MAX ((size_t)4 << 20) /* bytes */

/* Frees *store and leaves *text NULL unless this store has the model. */
static novaq_status look_in(char **text, size_t *len, char **store, const nq_ollama_name *n,
                            novaq_error *err) {
    char *path = NULL;
    novaq_status st = nq_asprintf(&path, err, "%s/manifests/%s/%s/%s/%s", *store, n->host, n->space,
                                  n->model, n->tag);
    if (st == NOVAQ_OK && nq_is_file(path)) {
        st = nq_read_file(text, len, path, MANIFEST_MAX, err);
    }
    nq_free(path);
    if (*text == NULL) {
        nq_free(*store);
        *store = NULL;
    }
    return st;
}

novaq_status nq_ollama_store_find(char **text, size_t *len, char **store, const nq_ollama_name *n,
                                  novaq_error *err) {
    *text = NULL;
    *len = 0;
    NQ_TRY(nq_env_path(store, "OLLAMA_MODELS", err));
    if (*store != NULL) {
        return look_in(text, len, store, n, err);
    }
    if (nq_env("HOME") != NULL) {
        NQ_TRY(nq_path_join(store, nq_env("HOME"), ".ollama/models", err));
        NQ_TRY(look_in(text, len, store, n, err));
    }
    if (*text == NULL) {
        NQ_TRY(nq_strdup(store, "/usr/share/ollama/.ollama/models", err));
        NQ_TRY(look_in(text, len, store, n, err));
    }
    return NOVAQ_OK;
}

novaq_status nq_ollama_store_blob(char **path, const char *store, const nq_ollama_layer *layer,
                                  novaq_error *err) {
    *path = NULL;
    if (store == NULL) {
        return NOVAQ_OK;
    }
    struct stat s;
    NQ_TRY(nq_asprintf(path, err, "%s/blobs/sha256-%s", store, layer->digest));
    if (stat(*path, &s) != 0 || !S_ISREG(s.st_mode) || (uint64_t)s.st_size != layer->size) {
        nq_free(*path);
        *path = NULL;
    }
    return NOVAQ_OK;
}
