/* artifact.h - a finished NOVAQ artifact, opened for reading.
 *
 * Owns: recognising both forms (directory with manifest.json and chunk files;
 * one SafeTensors-compatible file with the manifest in its metadata), strict
 * checking of the untrusted manifest, mapping, and views of the layers.
 * Refuses: reading a weight before every bound was checked. docs/FORMAT.md.
 */
#ifndef NQ_ARTIFACT_ARTIFACT_H
#define NQ_ARTIFACT_ARTIFACT_H

#include "base/dtype.h"
#include "base/json.h"
#include "quant/qmat.h"

#define NQ_LAYER_RANK 8

/* What a tensor is to the model; decides what size figures count it as. */
typedef enum nq_role { NQ_ROLE_LINEAR, NQ_ROLE_EMBEDDING, NQ_ROLE_HEAD, NQ_ROLE_OTHER } nq_role;
const char *nq_role_name(nq_role r); /* "linear", "embedding", "head", "other" */

/* Sums over one tensor, source w against decoded q; means are derived. */
typedef struct nq_layer_error {
    double sq_error;   /* sum (w-q)^2 */
    double sq_source;  /* sum w^2 */
    double sq_decoded; /* sum q^2 */
    double dot;        /* sum w*q */
} nq_layer_error;

typedef struct nq_layer {
    const char *name;
    uint32_t rank;
    uint64_t shape[NQ_LAYER_RANK];
    uint64_t elements;
    nq_role role;
    nq_dtype source_dtype;
    nq_scheme scheme;    /* RAW, F32, F16, BF16: data; CODE, Q8: q */
    nq_qmat q;           /* pieces point into the mapping */
    const uint8_t *data; /* RAW: elements of source_dtype; F32/F16/BF16: elements */
    uint64_t data_bytes;
    uint64_t stored_bytes; /* all pieces of this layer, padding excluded */
    nq_layer_error error;
    bool error_unknown;        /* it was not measured since the layer changed: all sums are 0 */
    const json_t *diagnostics; /* object or NULL; borrowed (writer: incref'd) */
} nq_layer;

typedef struct nq_artifact nq_artifact;

/* True when path looks like an artifact of either form (cheap; no checking). */
bool nq_artifact_probe(const char *path);
/* Opens and validates structure: schema version, bounds, sizes, counts, the
 * manifest's own hash, chunk sizes on disk. Hashes of chunks: verify.h. */
NOVAQ_CHECK novaq_status nq_artifact_open(nq_artifact **out, const char *path, novaq_error *err);
void nq_artifact_close(nq_artifact **a);

size_t nq_artifact_count(const nq_artifact *a);
const nq_layer *nq_artifact_at(const nq_artifact *a, size_t i);
const nq_layer *nq_artifact_find(const nq_artifact *a, const char *name);
const json_t *nq_artifact_manifest(const nq_artifact *a);
/* Bytes on disk: every file of the artifact, manifest included. */
uint64_t nq_artifact_bytes(const nq_artifact *a);
/* Where the model came from, as far as is known (nq_free; NULL where nothing tells):
 * what NAME.origin.json beside the artifact says, or an older manifest's source_locator. For
 * people and as a default; nothing vouches for it. */
NOVAQ_CHECK novaq_status nq_artifact_origin(char **locator, const nq_artifact *a, novaq_error *err);
/* The model description with the tokenizer object put back (see
 * model/describe.h). *out is the caller's. */
NOVAQ_CHECK novaq_status nq_artifact_model(json_t **out, const nq_artifact *a, novaq_error *err);

#endif
