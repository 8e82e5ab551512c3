/* kv.c - see kv.h: opening, closing and filling the cache. */
#include "model/kv.h"

#include <string.h>

#include "base/mem.h"

static uint64_t pitch_of(const nq_kv_shape *s) {
    return ((uint64_t)s->head_dim + NQ_ATTN_ALIGN - 1) / NQ_ATTN_ALIGN * NQ_ATTN_ALIGN;
}

/* Rows of keys, as many as of values. */
static bool rows_of(const nq_kv_shape *s, uint64_t *rows) {
    return nq_mul_u64(s->layers, s->sequences, rows) && nq_mul_u64(*rows, s->heads_kv, rows) &&
           nq_mul_u64(*rows, s->n_ctx, rows);
}

uint64_t nq_kv_bytes(const nq_kv_shape *s) {
    uint64_t rows = 0;
    uint64_t bytes = 0;
    uint64_t row = pitch_of(s) * nq_kv_element(s->type) + (s->type == NQ_KV_Q8 ? 4 : 0);
    if (!rows_of(s, &rows) || !nq_mul_u64(rows, 2 * row, &bytes)) {
        return UINT64_MAX;
    }
    return bytes;
}

/* ---- scratch ---------------------------------------------------------------- */

static uint64_t lines(uint64_t floats) { return (floats + 15) / 16 * 16; }

nq_kv_work nq_kv_work_of(const nq_kv *kv, unsigned worker) {
    nq_kv_work w;
    uint64_t square = lines((uint64_t)kv->rows * kv->pitch);
    w.q = kv->scratch + worker * kv->scratch_floats;
    w.o = w.q + square;
    w.most = w.o + square;
    w.sum = w.most + lines(kv->rows);
    w.scores = w.sum + lines(kv->rows);
    w.panel = w.scores + (uint64_t)kv->rows * NQ_KV_BLOCK;
    return w;
}

static uint64_t scratch_of(const nq_kv *kv) {
    uint64_t panel = (uint64_t)kv->pitch * NQ_ATTN_PANEL;
    return 2 * lines((uint64_t)kv->rows * kv->pitch) + 2 * lines(kv->rows) +
           (uint64_t)kv->rows * NQ_KV_BLOCK + panel;
}

/* ---- opening ---------------------------------------------------------------- */

/* Raw memory: the system maps pages when they are first written. */
static novaq_status alloc_rows(nq_kv *kv, novaq_error *err) {
    uint64_t rows = 0;
    if (!rows_of(&kv->s, &rows)) {
        return nq_fail(err, NOVAQ_E_MEMORY, "a cache of %u layers, %u x %u positions is too large",
                       kv->s.layers, kv->s.sequences, kv->s.n_ctx);
    }
    uint64_t row = (uint64_t)kv->pitch * nq_kv_element(kv->s.type);
    NQ_TRY(nq_alloc_raw(&kv->keys, rows, row, err));
    NQ_TRY(nq_alloc_raw(&kv->values, rows, row, err));
    if (kv->s.type == NQ_KV_Q8) {
        NQ_TRY(nq_alloc_raw(&kv->key_scales, rows, sizeof(float), err));
        NQ_TRY(nq_alloc_raw(&kv->value_scales, rows, sizeof(float), err));
    }
    return NOVAQ_OK;
}

static novaq_status alloc_work(nq_kv *kv, novaq_error *err) {
    uint64_t heads = (uint64_t)kv->s.sequences * kv->s.heads;
    uint64_t parts = 0;
    if (!nq_mul_u64(heads, kv->spans, &parts)) {
        return nq_fail(err, NOVAQ_E_MEMORY, "%u x %u heads of %u positions are too many",
                       kv->s.sequences, kv->s.heads, kv->s.n_ctx);
    }
    kv->scratch_floats = scratch_of(kv);
    NQ_TRY(
        nq_alloc(&kv->scratch, nq_pool_threads(kv->pool), kv->scratch_floats * sizeof(float), err));
    NQ_TRY(nq_alloc_raw(&kv->parts, parts, (uint64_t)kv->pitch * sizeof(float), err));
    NQ_TRY(nq_alloc_raw(&kv->part_most, parts, sizeof(float), err));
    return nq_alloc_raw(&kv->part_sum, parts, sizeof(float), err);
}

novaq_status nq_kv_open(nq_kv **out, const nq_kv_shape *s, nq_pool *pool, novaq_error *err) {
    *out = NULL;
    if (s->heads_kv == 0 || s->heads % s->heads_kv != 0 || s->head_dim == 0 || s->n_ctx == 0 ||
        s->head_dim > 1U << 20) {
        return nq_fail(err, NOVAQ_E_ARG, "a cache of %u/%u heads of width %u, %u positions",
                       s->heads, s->heads_kv, s->head_dim, s->n_ctx);
    }
    nq_kv *kv = NULL;
    NQ_TRY(nq_alloc(&kv, 1, sizeof *kv, err));
    kv->s = *s;
    kv->pool = pool;
    kv->kern = nq_attn_best();
    kv->pitch = (uint32_t)pitch_of(s);
    kv->group = s->heads / s->heads_kv;
    kv->tokens = kv->group < NQ_KV_ROWS ? NQ_KV_ROWS / kv->group : 1;
    kv->tokens = kv->tokens < s->block ? kv->tokens : s->block;
    kv->tokens = kv->tokens > 0 ? kv->tokens : 1;
    kv->rows = kv->tokens * kv->group;
    kv->spans = (s->n_ctx - 1) / NQ_KV_BLOCK + 1;
    novaq_status st = alloc_rows(kv, err);
    st = st == NOVAQ_OK ? alloc_work(kv, err) : st;
    if (st != NOVAQ_OK) {
        nq_kv_close(&kv);
        return st;
    }
    *out = kv;
    return NOVAQ_OK;
}

void nq_kv_close(nq_kv **pkv) {
    nq_kv *kv = *pkv;
    *pkv = NULL;
    if (kv == NULL) {
        return;
    }
    void *owned[] = {kv->keys,    kv->values, kv->key_scales, kv->value_scales,
                     kv->scratch, kv->parts,  kv->part_most,  kv->part_sum};
    for (size_t i = 0; i < sizeof owned / sizeof owned[0]; i++) {
        nq_free(owned[i]);
    }
    nq_free(kv);
}

/* ---- filling ---------------------------------------------------------------- */

static void store(const nq_kv *kv, uint8_t *rows, float *scales, uint64_t row, const float *x,
                  float *padded) {
    uint64_t at = row * kv->pitch;
    memcpy(padded, x, kv->s.head_dim * sizeof *x);
    switch (kv->s.type) {
    case NQ_KV_F32: memcpy((float *)(void *)rows + at, padded, kv->pitch * sizeof(float)); break;
    case NQ_KV_F16: kv->kern->to_f16((uint16_t *)(void *)rows + at, padded, kv->pitch); break;
    case NQ_KV_Q8: scales[row] = kv->kern->to_i8((int8_t *)rows + at, padded, kv->pitch); break;
    }
}

void nq_kv_store(nq_kv *kv, uint64_t row, const float *k, const float *v, float *padded) {
    store(kv, kv->keys, kv->key_scales, row, k, padded);
    store(kv, kv->values, kv->value_scales, row, v, padded);
}
