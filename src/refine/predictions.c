/* predictions.c - see predictions.h: the format, and reading it. */
#include <math.h>
#include <string.h>
#include <unistd.h>

#include "base/half.h"
#include "base/mem.h"
#include "io/source.h"
#include "refine/predictions_impl.h"

#define VERSION 1U
/* Read at once while a file is gone through, at least one row. */
#define BLOCK_BYTES ((uint64_t)1 << 20)
/* What rounding may leave above a probability of 1. */
#define LOG_MAX  0.01F
#define MASS_MAX 1.001F

struct nq_predictions {
    nq_predictions_spec spec;
    nq_source *file;
    double rest; /* mean of the first sums */
    char digest[NQ_BLAKE3_HEX + 1];
};

/* ---- format --------------------------------------------------------------------------- */

/* All factors are below 2^32: with rows of at most 6 * 2^32 + 8 bytes the product may leave
 * 64 bits. */
uint64_t nq_predictions_bytes(const nq_predictions_spec *s) {
    uint64_t bytes = 0;
    bool fits = nq_mul_u64(nq_predictions_rows(s), nq_predictions_row(s), &bytes) &&
                nq_add_u64(bytes, NQ_PREDICTIONS_HEAD + NQ_PREDICTIONS_TAIL, &bytes);
    return fits ? bytes : UINT64_MAX;
}

void nq_predictions_header(uint8_t head[NQ_PREDICTIONS_HEAD], const nq_predictions_spec *s) {
    uint64_t bytes = nq_predictions_bytes(s);
    uint32_t temperature;
    memcpy(&temperature, &s->temperature, sizeof temperature);
    const uint32_t words[] = {VERSION,
                              s->vocab,
                              s->top,
                              s->windows,
                              s->length,
                              (uint32_t)nq_predictions_id_bytes(s),
                              temperature,
                              0,
                              (uint32_t)(bytes & UINT32_MAX),
                              (uint32_t)(bytes >> 32)};
    memcpy(head, NQ_PREDICTIONS_MAGIC, sizeof NQ_PREDICTIONS_MAGIC - 1);
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        nq_put_u32(head + 8 + 4 * i, words[i]);
    }
    memcpy(head + 48, s->identity, NQ_SHA256_HEX);
}

static float float_at(const uint8_t *at) {
    uint32_t bits = nq_take_u32(at);
    float v;
    memcpy(&v, &bits, sizeof v);
    return v;
}

/* One row, into ids and logs (top) and the two sums; false when it cannot be one. Written so
 * that NaN fails. */
static bool decode(uint32_t *ids, float *logs, float sums[2], const uint8_t *row,
                   const nq_predictions_spec *s) {
    uint64_t wide = nq_predictions_id_bytes(s);
    const uint8_t *at = row + NQ_PREDICTIONS_SUMS;
    const uint8_t *values = at + s->top * wide;
    uint64_t least = 0; /* the next id, so that none comes twice */
    bool good = true;
    sums[0] = float_at(row);
    sums[1] = float_at(row + 4);
    good = sums[0] >= 0 && sums[0] <= MASS_MAX && sums[1] >= 0 && sums[1] <= (float)s->vocab;
    for (uint32_t i = 0; i < s->top; i++) {
        ids[i] = wide == 2 ? nq_take_u16(at + 2 * (size_t)i) : nq_take_u32(at + 4 * (size_t)i);
        logs[i] = nq_f16_to_f32((uint16_t)nq_take_u16(values + 2 * (size_t)i));
        good = good && ids[i] >= least && ids[i] < s->vocab && logs[i] <= LOG_MAX &&
               logs[i] > -INFINITY;
        least = (uint64_t)ids[i] + 1;
    }
    return good;
}

/* ---- opening ----------------------------------------------------------------------------- */

/* All rows, and the digest behind them. *good: whether they are what was written. */
static novaq_status go_through(bool *good, nq_predictions *p, uint8_t *block, uint32_t *ids,
                               float *logs, novaq_error *err) {
    const nq_predictions_spec *s = &p->spec;
    uint64_t row = nq_predictions_row(s);
    uint64_t at_once = BLOCK_BYTES > row ? BLOCK_BYTES / row : 1;
    uint64_t rows = nq_predictions_rows(s);
    double rest = 0;
    char tail[NQ_PREDICTIONS_TAIL];
    uint8_t head[NQ_PREDICTIONS_HEAD];
    nq_blake3 h;
    nq_blake3_init(&h);
    nq_predictions_header(head, s);
    nq_blake3_update(&h, head, sizeof head);
    *good = true;
    for (uint64_t r = 0; *good && r < rows; r += at_once) {
        uint64_t n = rows - r < at_once ? rows - r : at_once;
        NQ_TRY(nq_source_read(p->file, NQ_PREDICTIONS_HEAD + r * row, block, n * row, err));
        nq_blake3_update(&h, block, n * row);
        for (uint64_t i = 0; *good && i < n; i++) {
            float sums[2];
            *good = decode(ids, logs, sums, block + i * row, s);
            rest += (double)sums[0];
        }
    }
    NQ_TRY(nq_source_read(p->file, p->file->size - sizeof tail, tail, sizeof tail, err));
    nq_blake3_finish(p->digest, &h);
    *good = *good && memcmp(tail, p->digest, sizeof tail) == 0;
    p->rest = rest / (double)rows;
    return NOVAQ_OK;
}

static novaq_status check_rows(bool *good, nq_predictions *p, novaq_error *err) {
    uint8_t *block = NULL;
    uint32_t *ids = NULL;
    float *logs = NULL;
    uint64_t row = nq_predictions_row(&p->spec);
    novaq_status st = nq_alloc_raw(&block, BLOCK_BYTES > row ? BLOCK_BYTES : row, 1, err);
    if (st == NOVAQ_OK) {
        st = nq_alloc_raw(&ids, p->spec.top, sizeof *ids, err);
    }
    if (st == NOVAQ_OK) {
        st = nq_alloc_raw(&logs, p->spec.top, sizeof *logs, err);
    }
    if (st == NOVAQ_OK) {
        st = go_through(good, p, block, ids, logs, err);
    }
    nq_free(block);
    nq_free(ids);
    nq_free(logs);
    return st;
}

/* *why: NULL when the file is the one that is wanted. An empty one, or the first bytes of
 * one, may be made anew like any other of ours. */
static novaq_status examine(const char **why, nq_predictions *p, novaq_error *err) {
    uint8_t head[NQ_PREDICTIONS_HEAD];
    uint8_t want[NQ_PREDICTIONS_HEAD];
    uint64_t size = p->file->size;
    uint64_t have = size < sizeof head ? size : sizeof head;
    bool good = false;
    NQ_TRY(nq_source_read(p->file, 0, head, have, err));
    nq_predictions_header(want, &p->spec);
    if (memcmp(head, want, have < 8 ? have : 8) != 0) {
        return nq_fail(err, NOVAQ_E_ARG,
                       "%s: is there and holds no predictions of a teacher; it is not "
                       "overwritten: choose another name for them, or remove it",
                       p->spec.path);
    }
    if (have < sizeof head || memcmp(head, want, sizeof head) != 0) {
        *why = "is of another teacher, text or way to make it";
        return NOVAQ_OK;
    }
    if (size == nq_predictions_bytes(&p->spec)) {
        NQ_TRY(check_rows(&good, p, err));
    }
    *why = good ? NULL : "is damaged";
    return NOVAQ_OK;
}

novaq_status nq_predictions_open(nq_predictions **out, const char **why,
                                 const nq_predictions_spec *s, novaq_error *err) {
    nq_predictions *p = NULL;
    *out = NULL;
    *why = NULL;
    if (access(s->path, F_OK) != 0) {
        return NOVAQ_OK;
    }
    NQ_TRY(nq_alloc(&p, 1, sizeof *p, err));
    p->spec = *s;
    novaq_status st = nq_source_open_file(&p->file, s->path, err);
    if (st == NOVAQ_OK) {
        st = examine(why, p, err);
    }
    if (st != NOVAQ_OK || *why != NULL) {
        nq_predictions_close(&p);
        return st;
    }
    *out = p;
    return NOVAQ_OK;
}

void nq_predictions_close(nq_predictions **pp) {
    nq_predictions *p = *pp;
    *pp = NULL;
    if (p != NULL) {
        nq_source_close(&p->file);
        nq_free(p);
    }
}

uint32_t nq_predictions_top(const nq_predictions *p) { return p->spec.top; }

double nq_predictions_rest(const nq_predictions *p) { return p->rest; }

const char *nq_predictions_digest(const nq_predictions *p) { return p->digest; }

/* ---- reading -------------------------------------------------------------------------------- */

uint64_t nq_predictions_row_bytes(const nq_predictions *p) { return nq_predictions_row(&p->spec); }

novaq_status nq_predictions_read(uint32_t *ids, float *logs, float *rest, nq_predictions *p,
                                 bool plain, uint64_t row0, uint32_t n, uint8_t *bytes,
                                 novaq_error *err) {
    const nq_predictions_spec *s = &p->spec;
    uint64_t row = nq_predictions_row(s);
    uint64_t rows = nq_predictions_rows(s);
    if (row0 > rows || n > rows - row0) {
        return nq_fail(err, NOVAQ_E_ARG, "%s: rows %llu to %llu of %llu", s->path,
                       (unsigned long long)row0, (unsigned long long)row0 + n,
                       (unsigned long long)rows);
    }
    uint64_t offset = NQ_PREDICTIONS_HEAD + row0 * row;
    NQ_TRY(nq_source_read(p->file, offset, bytes, n * row, err));
    for (uint64_t i = 0; i < n; i++) {
        float sums[2];
        if (!decode(ids + i * s->top, logs + i * s->top, sums, bytes + i * row, s)) {
            return nq_fail(err, NOVAQ_E_VERIFY,
                           "%s: offset %llu: changed while it was read; remove the file to have "
                           "it made anew",
                           s->path, (unsigned long long)(offset + i * row));
        }
        rest[i] = plain ? sums[0] : sums[1];
    }
    return NOVAQ_OK;
}
