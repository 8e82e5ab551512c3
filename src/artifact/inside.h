/* inside.h - what artifact.c and verify.c share: the inside of nq_artifact. */
#ifndef NQ_ARTIFACT_INSIDE_H
#define NQ_ARTIFACT_INSIDE_H

#include "artifact/manifest.h"
#include "io/fs.h"

struct nq_artifact {
    char *path;
    json_t *root;  /* the manifest */
    nq_contents c; /* names and diagnostics borrowed from root */
    nq_map *maps;  /* one per chunk, or the single file */
    size_t map_count;
    const uint8_t **chunk_data; /* c.chunk_count starts, inside the maps */
    nq_layer **sorted;          /* by name */
    uint64_t bytes;             /* on disk */
};

#endif
