/* predictions.h - what a teacher predicts, in a file, for where it has no room beside its
 * student.
 *
 * Owns: the format, making such a file, reading it. Refuses: knowing which teacher and text
 * it is of (whoever asks tells an identity); overwriting what is no such file.
 *
 * Of every token of every window the file holds the `top` most probable next tokens with the
 * logarithms of their probabilities, and what all others add up to, at temperature 1 and at
 * another one. Little-endian:
 *
 *   0    8  "NQTEACHR"
 *   8    4  version, 1
 *   12   4  vocab          16   4  top             20   4  windows
 *   24   4  length         28   4  bytes of an id, 2 (vocab up to 65536) or 4
 *   32   4  temperature, binary32                  36   4  0
 *   40   8  bytes of the file
 *   48  64  identity, hexadecimal
 *   112     (windows, length) rows: sum of the probabilities of the others, binary32; sum of
 *           exp(logarithm / temperature) of the others, binary32; ids (top), rising;
 *           logarithms (top), binary16
 *   -64 64  BLAKE3 of all before, hexadecimal
 *
 * Nothing of a file is believed: its header must be the one that is expected, byte for byte,
 * and rows are checked when they are read, too. The bytes do not depend on the number of
 * threads.
 */
#ifndef NQ_REFINE_PREDICTIONS_H
#define NQ_REFINE_PREDICTIONS_H

#include "base/blake3.h"
#include "base/sha256.h"
#include "refine/net.h"

/* Which file it has to be. */
typedef struct nq_predictions_spec {
    const char *path;
    char identity[NQ_SHA256_HEX + 1]; /* of teacher and windows */
    uint32_t windows, length;
    uint32_t vocab, top; /* top: 1 to vocab */
    float temperature;
} nq_predictions_spec;

/* Bytes of the file. */
uint64_t nq_predictions_bytes(const nq_predictions_spec *s);

typedef struct nq_predictions nq_predictions;

/* *out: NULL where there is no such file, or none that will do: *why then says what is
 * wrong with it (a fixed text; NULL: there is none). A file that is something else
 * altogether is NOVAQ_E_ARG. s->path must outlive *out. */
NOVAQ_CHECK novaq_status nq_predictions_open(nq_predictions **out, const char **why,
                                             const nq_predictions_spec *s, novaq_error *err);
void nq_predictions_close(nq_predictions **p);
uint32_t nq_predictions_top(const nq_predictions *p);
/* Probability, mean over tokens, of all that is not kept. */
double nq_predictions_rest(const nq_predictions *p);
/* BLAKE3 of the content. */
const char *nq_predictions_digest(const nq_predictions *p);
/* Rows [row0, row0 + n) of the file: ids and logs (n, top), rest (n) at temperature 1
 * (`plain`) or at the file's. bytes: scratch of n * nq_predictions_row_bytes(). */
NOVAQ_CHECK novaq_status nq_predictions_read(uint32_t *ids, float *logs, float *rest,
                                             nq_predictions *p, bool plain, uint64_t row0,
                                             uint32_t n, uint8_t *bytes, novaq_error *err);
uint64_t nq_predictions_row_bytes(const nq_predictions *p);

typedef struct nq_predictions_making {
    nq_net *net;           /* the teacher's, for `sequences` of s.length at least */
    uint32_t sequences;    /* of a pass */
    const int32_t *tokens; /* (windows, length) */
    nq_pool *pool;
    /* Called between pieces of the work; a status other than OK ends it. */
    novaq_status (*tick)(void *ctx, uint32_t windows_done, novaq_error *err);
    void *tick_ctx;
} nq_predictions_making;

/* Sequences of a pass: by the length alone, so that the bytes do not depend on more. */
uint32_t nq_predictions_sequences(uint32_t windows, uint32_t length);
/* Bytes that making takes beside the net's own, at most. */
uint64_t nq_predictions_making_bytes(const nq_predictions_spec *s);
/* Makes the file; it appears whole or not at all. */
NOVAQ_CHECK novaq_status nq_predictions_make(const nq_predictions_spec *s,
                                             const nq_predictions_making *m, novaq_error *err);

#endif
