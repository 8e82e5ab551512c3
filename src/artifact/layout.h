/* layout.h - where the pieces of an artifact lie.
 *
 * Owns: the pieces a layer consists of (kind, element type, shape, size), the
 * one canonical placement of pieces in chunks, names of files and of the
 * single-file form's tensors. Writer and reader share it, so that a reader can
 * demand the very bytes a writer makes. Refuses: any other placement.
 * docs/FORMAT.md, sections 2 to 4.
 */
#ifndef NQ_ARTIFACT_LAYOUT_H
#define NQ_ARTIFACT_LAYOUT_H

#include "artifact/artifact.h"
#include "base/blake3.h"
#include "base/buf.h"
#include "base/sha256.h"

#define NQ_PIECE_ALIGN  64U                   /* bytes; chunks are multiples too */
#define NQ_CHUNK_TARGET ((uint64_t)16 << 20)  /* a chunk that reached it is closed */
#define NQ_CHUNK_MAX    100000U               /* five digits in a file name */
#define NQ_ELEMENTS_MAX ((uint64_t)1 << 44)   /* of one tensor: sizes below never wrap */
#define NQ_MANIFEST_MAX ((size_t)64 << 20)    /* bytes of manifest text */
#define NQ_HEADER_MAX   ((uint64_t)100000000) /* SafeTensors' own limit */
#define NQ_INFLATED_MAX ((uint64_t)256 << 20) /* of the tokenizer object */
#define NQ_CHUNK_NAME   32                    /* buffer for a chunk's file name */
#define NQ_ORIGIN_END   ".origin.json"        /* of the name of a file beside the artifact */

typedef enum nq_piece_kind {
    NQ_PIECE_SYMBOLS,        /* U8 (rows, row_bytes); I8 (rows, cols) for q8 */
    NQ_PIECE_CODEBOOKS,      /* I8 (groups, entries of all levels, d) */
    NQ_PIECE_CODEBOOK_SCALE, /* F16 (groups) */
    NQ_PIECE_ROW_SCALE,      /* F16 (rows) */
    NQ_PIECE_ROW_MEAN,       /* F16 (rows), optional */
    NQ_PIECE_COL_EXPONENT,   /* I8 (cols), optional */
    NQ_PIECE_DATA,           /* elements, in the tensor's own shape where possible */
    NQ_PIECE_TOKENIZER,      /* U8 (bytes): zlib; belongs to no layer */
    NQ_PIECE_KINDS
} nq_piece_kind;

#define NQ_LAYER_PIECES 6 /* at most, of one layer */

typedef struct nq_piece {
    nq_piece_kind kind;
    const char *dtype; /* SafeTensors spelling */
    uint32_t rank;
    uint64_t shape[NQ_LAYER_RANK];
    uint64_t bytes;
    uint32_t chunk;
    uint64_t offset; /* in the chunk, a multiple of NQ_PIECE_ALIGN */
} nq_piece;

typedef struct nq_chunk {
    uint64_t bytes;  /* a multiple of NQ_PIECE_ALIGN, at least one */
    uint64_t offset; /* of its first byte, counted over all chunks */
    char sha256[NQ_SHA256_HEX + 1];
    char blake3[NQ_BLAKE3_HEX + 1];
} nq_chunk;

typedef struct nq_stored_layer {
    nq_layer layer;
    unsigned pieces;
    nq_piece piece[NQ_LAYER_PIECES];
} nq_stored_layer;

/* What an artifact holds, on both sides of the disk. Strings inside are owned
 * by whoever built it. */
typedef struct nq_contents {
    bool single_file;
    nq_stored_layer *layers;
    size_t layer_count;
    nq_chunk *chunks;
    size_t chunk_count;
    bool has_tokenizer;
    nq_piece tokenizer;
    uint64_t tokenizer_inflated; /* bytes */
} nq_contents;

/* "symbols", "codebooks", ..., the key in manifests and the end of tensor names. */
const char *nq_piece_name(nq_piece_kind k);
uint64_t nq_align_piece(uint64_t offset);
/* Pieces of a layer in file order, sizes and shapes from its parameters alone;
 * chunk and offset are left 0. Checks every parameter first: shape, elements,
 * scheme against shape, nq_qmat_check. optional: the optional pieces that exist,
 * as bits 1 << kind. */
NOVAQ_CHECK novaq_status nq_layer_pieces(nq_stored_layer *s, unsigned optional, novaq_error *err);
/* Those bits of a layer in memory. */
unsigned nq_layer_optional(const nq_layer *l);
/* Lets the layer's view of piece p point to its bytes. */
void nq_layer_point(nq_layer *l, const nq_piece *p, const void *data);
/* The file beside the artifact at `path` that says where its source lay; NULL where path
 * has no name of its own ("."). *out: nq_free(). */
NOVAQ_CHECK novaq_status nq_origin_path(char **out, const char *path, novaq_error *err);
/* What that file tells. *locator, and *source where asked for: nq_free(); NULL where it says
 * nothing of it. source: the BLAKE3 of what it is about, as in the manifest's "source". */
NOVAQ_CHECK novaq_status nq_origin_read(char **locator, char **source, const char *path,
                                        novaq_error *err);
/* "chunk-00003-0123abcd.bin" into buf of NQ_CHUNK_NAME bytes; returns buf. */
const char *nq_chunk_name(char *buf, size_t index, const char *sha256);
/* True for a name nq_chunk_name() could have made. */
bool nq_is_chunk_name(const char *name);
/* The head of the single-file form, from its first byte to its data: length,
 * SafeTensors header, padding. *head: nq_free(). */
NOVAQ_CHECK novaq_status nq_single_head(char **head, size_t *len, const nq_contents *c,
                                        const char *manifest, size_t manifest_len,
                                        novaq_error *err);

#endif
