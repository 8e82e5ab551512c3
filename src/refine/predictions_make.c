/* predictions_make.c - see predictions.h: from a teacher's net to a file. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/half.h"
#include "base/mem.h"
#include "io/fs.h"
#include "model/vec.h"
#include "refine/predictions_impl.h"

/* Of a pass; a teacher whose matrices do not fit memory is read once for each. */
#define PASS_TOKENS 2048U
/* Lowest logarithm that is written; binary16 ends at -65504. */
#define LOG_LEAST (-60000.0F)

typedef struct maker {
    const nq_predictions_spec *spec;
    const nq_predictions_making *m;
    nq_outfile *file;
    nq_blake3 hash;
    uint32_t window; /* first of the pass at work */
    uint32_t room;   /* rows of the buffers below */
    float *scratch;  /* (room, vocab) */
    uint32_t *ids;   /* (room, top) */
    uint8_t *bytes;  /* (room, row) as they are written */
    uint8_t *bad;    /* (room) predictions that are no numbers */
} maker;

typedef struct chunk {
    const maker *mk;
    const float *logits; /* (n, vocab) */
} chunk;

uint32_t nq_predictions_sequences(uint32_t windows, uint32_t length) {
    uint32_t n = PASS_TOKENS / length;
    n = n < windows ? n : windows;
    return n > 0 ? n : 1;
}

uint64_t nq_predictions_making_bytes(const nq_predictions_spec *s) {
    uint64_t rows = (uint64_t)nq_predictions_sequences(s->windows, s->length) * s->length;
    uint64_t most = NQ_NET_CHUNK_FLOATS / s->vocab;
    most = most > NQ_NET_CHUNK_ROWS ? most : NQ_NET_CHUNK_ROWS;
    rows = rows < most ? rows : most;
    /* The net's logits come with the first pass. */
    return rows *
           (2 * sizeof(float) * s->vocab + s->top * sizeof(uint32_t) + nq_predictions_row(s) + 1);
}

/* ---- one row ------------------------------------------------------------------------------ */

/* Whether token a is the less probable; of equals the later one is. */
static bool worse(const float *x, uint32_t a, uint32_t b) {
    return x[a] < x[b] || (x[a] <= x[b] && a > b);
}

/* Restores a heap of n ids, whose worst is the first, below place i. */
static void sink(uint32_t *heap, uint32_t n, uint32_t i, const float *x) {
    uint32_t id = heap[i];
    for (uint64_t child = 2 * (uint64_t)i + 1; child < n; child = 2 * child + 1) {
        child += child + 1 < n && worse(x, heap[child + 1], heap[child]);
        if (!worse(x, heap[child], id)) {
            break;
        }
        heap[i] = heap[child];
        i = (uint32_t)child;
    }
    heap[i] = id;
}

static int by_number(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a;
    uint32_t y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

/* ids (top), rising: of the largest of x (vocab). */
static void choose(uint32_t *ids, uint32_t top, const float *x, uint32_t vocab) {
    for (uint32_t i = 0; i < top; i++) {
        ids[i] = i;
    }
    for (uint32_t i = top / 2; i-- > 0;) {
        sink(ids, top, i, x);
    }
    for (uint32_t v = top; v < vocab; v++) {
        if (x[v] > x[ids[0]]) {
            ids[0] = v;
            sink(ids, top, 0, x);
        }
    }
    qsort(ids, top, sizeof *ids, by_number);
}

/* Sum of exp((x - z) by) of all that are not among ids. scratch: (vocab). */
static float sum_of_others(float *scratch, const float *x, float z, float by, const uint32_t *ids,
                           const nq_predictions_spec *s) {
    memcpy(scratch, x, s->vocab * sizeof *scratch);
    nq_vec_scale(scratch, by, s->vocab);
    nq_vec_exp(scratch, s->vocab, z * by);
    for (uint32_t i = 0; i < s->top; i++) {
        scratch[ids[i]] = 0;
    }
    return (float)nq_vec_sum(scratch, s->vocab);
}

static void put_float(uint8_t *at, float v) {
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    nq_put_u32(at, bits);
}

static void encode_row(void *ctx, uint64_t row, unsigned worker) {
    const chunk *c = ctx;
    const maker *mk = c->mk;
    const nq_predictions_spec *s = mk->spec;
    const float *x = c->logits + row * s->vocab;
    float *scratch = mk->scratch + row * s->vocab;
    uint32_t *ids = mk->ids + row * s->top;
    uint8_t *at = mk->bytes + row * nq_predictions_row(s);
    (void)worker;
    double z = nq_vec_logsumexp(x, scratch, s->vocab);
    mk->bad[row] = 0;
    if (!isfinite(z)) {
        mk->bad[row] = 1;
        return;
    }
    choose(ids, s->top, x, s->vocab);
    put_float(at, sum_of_others(scratch, x, (float)z, 1.0F, ids, s));
    put_float(at + 4, sum_of_others(scratch, x, (float)z, 1.0F / s->temperature, ids, s));
    at += NQ_PREDICTIONS_SUMS;
    for (uint32_t i = 0; i < s->top; i++) {
        if (nq_predictions_id_bytes(s) == 2) {
            nq_put_u16(at, ids[i]);
        } else {
            nq_put_u32(at, ids[i]);
        }
        at += nq_predictions_id_bytes(s);
    }
    for (uint32_t i = 0; i < s->top; i++, at += 2) {
        float v = (float)((double)x[ids[i]] - z);
        nq_put_u16(at, nq_f32_to_f16(v > LOG_LEAST ? v : LOG_LEAST));
    }
}

/* ---- the file ---------------------------------------------------------------------------------
 */

static void free_buffers(maker *mk) {
    nq_free(mk->scratch);
    nq_free(mk->ids);
    nq_free(mk->bytes);
    nq_free(mk->bad);
    mk->scratch = NULL;
    mk->ids = NULL;
    mk->bytes = mk->bad = NULL;
    mk->room = 0;
}

static novaq_status need_rows(maker *mk, uint32_t n, novaq_error *err) {
    const nq_predictions_spec *s = mk->spec;
    if (n <= mk->room) {
        return NOVAQ_OK;
    }
    free_buffers(mk);
    NQ_TRY(nq_alloc_raw(&mk->scratch, (uint64_t)n * s->vocab, sizeof(float), err));
    NQ_TRY(nq_alloc_raw(&mk->ids, (uint64_t)n * s->top, sizeof(uint32_t), err));
    NQ_TRY(nq_alloc_raw(&mk->bytes, n, nq_predictions_row(s), err));
    NQ_TRY(nq_alloc(&mk->bad, n, 1, err));
    mk->room = n;
    return NOVAQ_OK;
}

static novaq_status append(maker *mk, const void *data, uint64_t len, novaq_error *err) {
    nq_blake3_update(&mk->hash, data, len);
    return nq_outfile_write(mk->file, data, len, err);
}

static novaq_status on_logits(void *ctx, uint32_t row0, uint32_t n, const float *logits,
                              float *dlogits, novaq_error *err) {
    maker *mk = ctx;
    chunk c = {mk, logits};
    (void)dlogits;
    NQ_TRY(mk->m->tick(mk->m->tick_ctx, mk->window + row0 / mk->spec->length, err));
    NQ_TRY(need_rows(mk, n, err));
    nq_pool_run(mk->m->pool, encode_row, &c, n);
    for (uint32_t i = 0; i < n; i++) {
        if (mk->bad[i] != 0) {
            return nq_fail(err, NOVAQ_E_NUMERIC,
                           "the teacher's predictions are not finite numbers (sequence %u)",
                           mk->window + (row0 + i) / mk->spec->length);
        }
    }
    return append(mk, mk->bytes, n * nq_predictions_row(mk->spec), err);
}

static novaq_status on_block(void *ctx, novaq_error *err) {
    maker *mk = ctx;
    return mk->m->tick(mk->m->tick_ctx, mk->window, err);
}

static novaq_status write_all(maker *mk, novaq_error *err) {
    const nq_predictions_spec *s = mk->spec;
    uint8_t head[NQ_PREDICTIONS_HEAD];
    char digest[NQ_BLAKE3_HEX + 1];
    nq_predictions_header(head, s);
    NQ_TRY(append(mk, head, sizeof head, err));
    for (uint32_t w = 0; w < s->windows;) {
        uint32_t left = s->windows - w;
        uint32_t n = left < mk->m->sequences ? left : mk->m->sequences;
        nq_net_pass pass = {.tokens = mk->m->tokens + (uint64_t)w * s->length,
                            .sequences = n,
                            .length = s->length,
                            .logits = on_logits,
                            .logits_ctx = mk,
                            .tick = on_block,
                            .tick_ctx = mk};
        mk->window = w;
        NQ_TRY(nq_net_run(mk->m->net, &pass, err));
        w += n;
    }
    nq_blake3_finish(digest, &mk->hash);
    return nq_outfile_write(mk->file, digest, NQ_PREDICTIONS_TAIL, err);
}

static novaq_status check_space(const nq_predictions_spec *s, novaq_error *err) {
    uint64_t need = nq_predictions_bytes(s);
    uint64_t left = nq_space_left(s->path);
    return need <= left ? NOVAQ_OK
                        : nq_fail(err, NOVAQ_E_NOSPACE,
                                  "%s: %llu bytes are to be written, its file system has %llu "
                                  "left; keep fewer predictions of each token, or give it another "
                                  "place",
                                  s->path, (unsigned long long)need, (unsigned long long)left);
}

novaq_status nq_predictions_make(const nq_predictions_spec *s, const nq_predictions_making *m,
                                 novaq_error *err) {
    maker mk = {.spec = s, .m = m};
    NQ_TRY(check_space(s, err));
    NQ_TRY(nq_outfile_open(&mk.file, s->path, err));
    nq_blake3_init(&mk.hash);
    novaq_status st = write_all(&mk, err);
    free_buffers(&mk);
    if (st == NOVAQ_OK) {
        return nq_outfile_commit(&mk.file, NULL, err);
    }
    nq_outfile_abort(&mk.file);
    return st;
}
