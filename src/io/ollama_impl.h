/* ollama_impl.h - what the files of the Ollama client share. Private to io/ollama*.
 *
 * Owns: names of models, manifests, the store on disk, the registry's protocol.
 */
#ifndef NQ_IO_OLLAMA_IMPL_H
#define NQ_IO_OLLAMA_IMPL_H

#include "base/sha256.h"
#include "io/files_impl.h"

typedef struct nq_ollama_name {
    const char *scheme; /* as it was written: "http://", "https://" or "" */
    bool http;          /* not https */
    char *host;         /* "registry.ollama.ai", "localhost:5000" */
    char *space;
    char *model;
    char *tag;
} nq_ollama_name;

/* text: [http[s]://][HOST/][NS/]MODEL[:TAG]. */
NOVAQ_CHECK novaq_status nq_ollama_name_parse(nq_ollama_name *out, const char *text,
                                              novaq_error *err);
void nq_ollama_name_free(nq_ollama_name *n);

/* A file of a model and the blob that holds it. */
typedef struct nq_ollama_layer {
    char *file;
    char digest[NQ_SHA256_HEX + 1];
    uint64_t size; /* bytes */
} nq_ollama_layer;

typedef struct nq_ollama_manifest {
    nq_ollama_layer *layers;
    size_t count;
} nq_ollama_manifest;

/* where: for messages. NOVAQ_E_UNSUPPORTED: no model in it, or more than one is. */
NOVAQ_CHECK novaq_status nq_ollama_manifest_parse(nq_ollama_manifest *out, const char *text,
                                                  size_t len, const char *where, novaq_error *err);
void nq_ollama_manifest_free(nq_ollama_manifest *m);

/* The manifest of a model of the store on disk and the folder of that store; *text NULL
 * where no store has it. */
NOVAQ_CHECK novaq_status nq_ollama_store_find(char **text, size_t *len, char **store,
                                              const nq_ollama_name *n, novaq_error *err);
/* A complete blob of the store, or NULL. */
NOVAQ_CHECK novaq_status nq_ollama_store_blob(char **path, const char *store,
                                              const nq_ollama_layer *layer, novaq_error *err);

/* The manifest as the registry has it. *token: what blobs must be asked for with, or
 * NULL. */
NOVAQ_CHECK novaq_status nq_ollama_registry_manifest(char **text, size_t *len, char **token,
                                                     nq_files *f, const nq_ollama_name *n,
                                                     novaq_error *err);
/* A new token, or NULL where the registry gives none to anybody. Thread-safe. */
NOVAQ_CHECK novaq_status nq_ollama_registry_token(char **token, nq_files *f,
                                                  const nq_ollama_name *n, novaq_error *err);
/* Where the registry has a blob. */
NOVAQ_CHECK novaq_status nq_ollama_blob_url(char **out, const nq_ollama_name *n, const char *digest,
                                            novaq_error *err);

#endif
