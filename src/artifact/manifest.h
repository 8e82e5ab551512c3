/* manifest.h - the JSON text that describes an artifact.
 *
 * Owns: schema 1.0.0 in both directions, the manifest's own hash, the summary's
 * figures. Refuses: believing any member that does not follow from the others.
 * docs/FORMAT.md, section 3.
 */
#ifndef NQ_ARTIFACT_MANIFEST_H
#define NQ_ARTIFACT_MANIFEST_H

#include "artifact/layout.h"

#define NQ_SCHEMA_VERSION "1.0.0"

typedef struct nq_manifest_text {
    char *text; /* the manifest, spaces at the end included; nq_free() */
    size_t len;
    char *head; /* single-file form: everything before the data; nq_free() */
    size_t head_len;
    json_t *summary; /* quantization.summary; json_decref() */
} nq_manifest_text;

/* The manifest of finished contents (at least one chunk). config and model may
 * be NULL (empty objects); model's "tokenizer" is replaced by the position of
 * the tokenizer piece when there is one. */
NOVAQ_CHECK novaq_status nq_manifest_write(nq_manifest_text *out, const nq_contents *c,
                                           const char *source_locator, const json_t *config,
                                           const json_t *model, novaq_error *err);
void nq_manifest_text_free(nq_manifest_text *m);

/* Parses and checks everything that can be checked without the data: version,
 * own hash, types, sizes, placement. c's names and diagnostics are borrowed from
 * *root (json_decref); its arrays are released by nq_contents_free(). where: the
 * file's name, for messages. */
NOVAQ_CHECK novaq_status nq_manifest_read(nq_contents *c, json_t **root, const char *where,
                                          const char *text, size_t len, novaq_error *err);
void nq_contents_free(nq_contents *c);

/* SHA-256 of the manifest text with the 64 digits of its own "manifest_sha256"
 * read as zeros. *at: where those digits are. NOVAQ_E_FORMAT if there are none. */
NOVAQ_CHECK novaq_status nq_manifest_digest(char hex[NQ_SHA256_HEX + 1], size_t *at,
                                            const char *where, const char *text, size_t len,
                                            novaq_error *err);

#endif
