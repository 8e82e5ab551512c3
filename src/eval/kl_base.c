/* kl_base.c - see kl_base.h. */
#include "eval/kl_base.h"

#include <string.h>
#include <unistd.h>

#include "base/cursor.h"
#include "base/mem.h"
#include "model/vec.h"

#define MAGIC       "_logits_"
#define MAGIC_BYTES 8
#define HEAD_BYTES  20
/* Words of a row before the steps: two floats. */
#define ROW_HEAD 4
/* Logits further than this below the highest are all stored as the lowest. */
#define DEPTH 16.0F
#define STEPS 65535.0F
/* What rounding may leave above a probability of 1, and a floor that only a
 * broken file is below. */
#define LOGP_MAX  0.01F
#define LOGP_MIN  (-1000.0F)
#define MAX_N_CTX (1U << 20)

/* ---- rows ----------------------------------------------------------------- */

uint64_t nq_kl_row_words(uint32_t vocab) { return ((uint64_t)vocab + 1) / 2 * 2 + ROW_HEAD; }

/* Rounds to the nearest even by the addition of 2^23; any v gives some bits. */
static uint16_t to_step(float v) {
    float clamped = v > 0 ? (v < STEPS ? v : STEPS) : 0;
    float shifted = clamped + 8388608.0F;
    uint32_t bits;
    memcpy(&bits, &shifted, sizeof bits);
    return (uint16_t)(bits & 0xffff);
}

static float min_of(const float *x, uint32_t n) {
    float min = x[0];
    for (uint32_t i = 1; i < n; i++) {
        min = x[i] < min ? x[i] : min;
    }
    return min;
}

void nq_kl_row_encode(uint16_t *row, const float *logits, float *scratch, uint32_t vocab) {
    float max = nq_vec_max(logits, vocab);
    float min = min_of(logits, vocab);
    min = min > max - DEPTH ? min : max - DEPTH;
    float head[2] = {(max - min) / STEPS, min - (float)nq_vec_logsumexp(logits, scratch, vocab)};
    float inverse = head[0] > 0 ? 1.0F / head[0] : 0;
    memset(row, 0, nq_kl_row_words(vocab) * sizeof *row);
    memcpy(row, head, sizeof head);
    for (uint32_t i = 0; i < vocab; i++) {
        row[ROW_HEAD + i] = to_step((logits[i] - min) * inverse);
    }
}

bool nq_kl_row_decode(float *logp, const uint16_t *row, uint32_t vocab) {
    float head[2];
    memcpy(head, row, sizeof head);
    /* Written so that NaN fails. */
    if (!(head[0] >= 0 && head[1] >= LOGP_MIN && head[1] <= LOGP_MAX &&
          head[0] <= (LOGP_MAX - LOGP_MIN) / STEPS)) {
        return false;
    }
    float max = LOGP_MIN;
    for (uint32_t i = 0; i < vocab; i++) {
        logp[i] = head[0] * (float)row[ROW_HEAD + i] + head[1];
        max = logp[i] > max ? logp[i] : max;
    }
    return max <= LOGP_MAX;
}

/* ---- reading -------------------------------------------------------------- */

/* The header says how large the file is, to the byte: nothing is allocated
 * before that holds. */
static novaq_status check_size(nq_kl_base *b, novaq_error *err) {
    uint64_t scored = b->n_ctx - 1 - b->n_ctx / 2;
    uint64_t tokens = (uint64_t)b->chunks * b->n_ctx * sizeof *b->tokens;
    uint64_t rows = 0;
    uint64_t want = 0;
    b->rows_at = HEAD_BYTES + tokens;
    if (!nq_mul_u64(b->chunks * scored, nq_kl_row_words(b->vocab) * sizeof(uint16_t), &rows) ||
        !nq_add_u64(b->rows_at, rows, &want)) {
        return nq_fail(err, NOVAQ_E_FORMAT, "%s: offset 8: sizes beyond 64 bits", b->source->name);
    }
    if (b->source->size != want) {
        return nq_fail(err, NOVAQ_E_FORMAT,
                       "%s: %llu bytes, but %u windows of %u tokens and a vocabulary of %u make "
                       "%llu: not written to its end? Make it again",
                       b->source->name, (unsigned long long)b->source->size, b->chunks, b->n_ctx,
                       b->vocab, (unsigned long long)want);
    }
    return NOVAQ_OK;
}

static novaq_status read_head(nq_kl_base *b, novaq_error *err) {
    uint8_t head[HEAD_BYTES];
    const char *name = b->source->name;
    if (b->source->size < MAGIC_BYTES) {
        return nq_fail(err, NOVAQ_E_FORMAT, "%s: offset 0: no base of --kl-divergence-base", name);
    }
    NQ_TRY(nq_source_read(b->source, 0, head, MAGIC_BYTES, err));
    if (memcmp(head, MAGIC, MAGIC_BYTES) != 0) {
        return nq_fail(err, NOVAQ_E_FORMAT, "%s: offset 0: no base of --kl-divergence-base", name);
    }
    NQ_TRY(nq_source_read(b->source, 0, head, sizeof head, err));
    nq_cursor c = nq_cursor_init(name, head, sizeof head, 0);
    (void)nq_cursor_bytes(&c, MAGIC_BYTES);
    b->n_ctx = nq_cursor_u32(&c);
    b->vocab = nq_cursor_u32(&c);
    b->chunks = nq_cursor_u32(&c);
    if (b->n_ctx < 4 || b->n_ctx > MAX_N_CTX) {
        return nq_fail(err, NOVAQ_E_FORMAT, "%s: offset 8: a window of %u tokens", name, b->n_ctx);
    }
    if (b->vocab == 0 || b->vocab > INT32_MAX) {
        return nq_fail(err, NOVAQ_E_FORMAT, "%s: offset 12: a vocabulary of %u", name, b->vocab);
    }
    if (b->chunks == 0 || b->chunks > INT32_MAX) {
        return nq_fail(err, NOVAQ_E_FORMAT, "%s: offset 16: %u windows", name, b->chunks);
    }
    return check_size(b, err);
}

novaq_status nq_kl_base_open(nq_kl_base *out, const char *path, novaq_error *err) {
    *out = (nq_kl_base){0};
    NQ_TRY(nq_source_open_file(&out->source, path, err));
    novaq_status st = read_head(out, err);
    if (st != NOVAQ_OK) {
        nq_kl_base_close(out);
    }
    return st;
}

void nq_kl_base_close(nq_kl_base *b) {
    nq_free(b->tokens);
    nq_source_close(&b->source);
    *b = (nq_kl_base){0};
}

novaq_status nq_kl_base_tokens(nq_kl_base *b, uint32_t chunks, novaq_error *err) {
    uint64_t count = (uint64_t)(chunks < b->chunks ? chunks : b->chunks) * b->n_ctx;
    nq_free(b->tokens);
    b->tokens = NULL;
    NQ_TRY(nq_alloc_raw(&b->tokens, count, sizeof *b->tokens, err));
    NQ_TRY(nq_source_read(b->source, HEAD_BYTES, b->tokens, count * sizeof *b->tokens, err));
    for (uint64_t i = 0; i < count; i++) {
        if (b->tokens[i] < 0 || (uint32_t)b->tokens[i] >= b->vocab) {
            return nq_fail(err, NOVAQ_E_FORMAT, "%s: offset %llu: token %d of a vocabulary of %u",
                           b->source->name, (unsigned long long)(HEAD_BYTES + 4 * i), b->tokens[i],
                           b->vocab);
        }
    }
    return NOVAQ_OK;
}

novaq_status nq_kl_base_rows(uint16_t *rows, const nq_kl_base *b, uint64_t first, uint64_t count,
                             novaq_error *err) {
    uint64_t bytes = nq_kl_row_words(b->vocab) * sizeof *rows;
    return nq_source_read(b->source, b->rows_at + first * bytes, rows, count * bytes, err);
}

/* ---- writing -------------------------------------------------------------- */

/* A mistyped name must not cost a model or a text. */
static novaq_status check_target(const char *path, novaq_error *err) {
    char head[MAGIC_BYTES];
    nq_source *s = NULL;
    if (access(path, F_OK) != 0) {
        return NOVAQ_OK;
    }
    NQ_TRY(nq_source_open_file(&s, path, err)); /* refuses devices and directories */
    bool other = s->size > 0;
    novaq_status st = NOVAQ_OK;
    if (s->size >= MAGIC_BYTES) {
        st = nq_source_read(s, 0, head, MAGIC_BYTES, err);
        other = st == NOVAQ_OK && memcmp(head, MAGIC, MAGIC_BYTES) != 0;
    }
    nq_source_close(&s);
    if (st == NOVAQ_OK && other) {
        st = nq_fail(err, NOVAQ_E_ARG,
                     "%s: exists and is no base of --kl-divergence-base; remove it or give another "
                     "name",
                     path);
    }
    return st;
}

static novaq_status write_head(nq_outfile *f, const int32_t *tokens, uint32_t n_ctx, uint32_t vocab,
                               uint32_t chunks, novaq_error *err) {
    const uint32_t head[3] = {n_ctx, vocab, chunks};
    NQ_TRY(nq_outfile_write(f, MAGIC, MAGIC_BYTES, err));
    NQ_TRY(nq_outfile_write(f, head, sizeof head, err));
    return nq_outfile_write(f, tokens, (uint64_t)chunks * n_ctx * sizeof *tokens, err);
}

novaq_status nq_kl_base_create(nq_outfile **out, const char *path, const int32_t *tokens,
                               uint32_t n_ctx, uint32_t vocab, uint32_t chunks, novaq_error *err) {
    *out = NULL;
    NQ_TRY(check_target(path, err));
    NQ_TRY(nq_outfile_open(out, path, err));
    novaq_status st = write_head(*out, tokens, n_ctx, vocab, chunks, err);
    if (st != NOVAQ_OK) {
        nq_outfile_abort(out);
    }
    return st;
}
