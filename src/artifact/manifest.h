/* manifest.h - the JSON text that describes an artifact.
 *
 * Owns: schema 1.1.0 in both directions, the manifest's own hash, the summary's
 * figures. Refuses: believing any member that does not follow from the others.
 * docs/FORMAT.md, section 3.
 */
#ifndef NQ_ARTIFACT_MANIFEST_H
#define NQ_ARTIFACT_MANIFEST_H

#include "artifact/layout.h"

#define NQ_SCHEMA_VERSION "1.1.0"
#define NQ_SOURCE_PREFIX  "tensors:blake3:" /* of source_locator, where there is a "source" */

typedef struct nq_manifest_text {
    char *text; /* the manifest, spaces at the end included; nq_free() */
    size_t len;
    char *head; /* single-file form: everything before the data; nq_free() */
    size_t head_len;
    json_t *summary; /* quantization.summary; json_decref() */
} nq_manifest_text;

/* What the manifest says besides the contents; members but source_locator may be NULL. */
typedef struct nq_manifest_head {
    const char *source_locator;
    const json_t *source; /* the tensors the model was made of */
    const json_t *config; /* quantization.config */
    const json_t *model;  /* "tokenizer" is replaced by the position of the tokenizer piece when
                             there is one */
} nq_manifest_head;

/* The manifest of finished contents (at least one chunk). */
NOVAQ_CHECK novaq_status nq_manifest_write(nq_manifest_text *out, const nq_contents *c,
                                           const nq_manifest_head *head, novaq_error *err);
void nq_manifest_text_free(nq_manifest_text *m);

/* Parses and checks everything that can be checked without the data: version,
 * own hash, types, sizes, placement. c's names and diagnostics are borrowed from
 * *root (json_decref); its arrays are released by nq_contents_free(). where: the
 * file's name, for messages. */
NOVAQ_CHECK novaq_status nq_manifest_read(nq_contents *c, json_t **root, const char *where,
                                          const char *text, size_t len, novaq_error *err);
void nq_contents_free(nq_contents *c);

/* One layer's description, in both directions. *out: a new object. */
NOVAQ_CHECK novaq_status nq_manifest_layer(json_t **out, const nq_stored_layer *s,
                                           novaq_error *err);
/* Names and diagnostics are borrowed; where the pieces lie is not compared with anything. */
NOVAQ_CHECK novaq_status nq_manifest_read_layer(nq_stored_layer *s, const char *name,
                                                const json_t *o, const char *where,
                                                novaq_error *err);

/* SHA-256 of the manifest text with the 64 digits of its own "manifest_sha256"
 * read as zeros. *at: where those digits are. NOVAQ_E_FORMAT if there are none. */
NOVAQ_CHECK novaq_status nq_manifest_digest(char hex[NQ_SHA256_HEX + 1], size_t *at,
                                            const char *where, const char *text, size_t len,
                                            novaq_error *err);

#endif
