/* kl_base.h - the predictions of a model, on disk.
 *
 * Owns: the file that llama-perplexity writes with --kl-divergence-base and
 * reads with --kl-divergence: "_logits_", then n_ctx, vocabulary and windows (32
 * bits each), the tokens of all windows, then one row for each scored position in
 * their order: scale and lowest log-probability (binary32), vocab 16-bit steps
 * above it, and a blank one when the vocabulary is odd. Little-endian. Refuses:
 * believing a header that the size of the file contradicts.
 */
#ifndef NQ_EVAL_KL_BASE_H
#define NQ_EVAL_KL_BASE_H

#include "io/fs.h"
#include "io/source.h"

/* 16-bit words of one row. */
uint64_t nq_kl_row_words(uint32_t vocab);
/* Log-probabilities of logits (vocab), as llama-perplexity rounds them: nothing
 * below e^-16 of the likeliest. scratch holds vocab floats. */
void nq_kl_row_encode(uint16_t *row, const float *logits, float *scratch, uint32_t vocab);
/* The log-probabilities (vocab). False when the row cannot be such: they would
 * exceed 0, or are no numbers. */
bool nq_kl_row_decode(float *logp, const uint16_t *row, uint32_t vocab);

typedef struct nq_kl_base {
    nq_source *source;
    uint32_t n_ctx; /* 4 to 2^20 */
    uint32_t vocab;
    uint32_t chunks;  /* 1 or more */
    int32_t *tokens;  /* (windows, n_ctx), each below vocab; NULL until read */
    uint64_t rows_at; /* offset of the first row, bytes */
} nq_kl_base;

/* Checks header and size. Release with nq_kl_base_close(). */
NOVAQ_CHECK novaq_status nq_kl_base_open(nq_kl_base *out, const char *path, novaq_error *err);
void nq_kl_base_close(nq_kl_base *b);
/* Reads the tokens of the first `chunks` windows. */
NOVAQ_CHECK novaq_status nq_kl_base_tokens(nq_kl_base *b, uint32_t chunks, novaq_error *err);
/* Rows [first, first + count) into rows (count, nq_kl_row_words()). */
NOVAQ_CHECK novaq_status nq_kl_base_rows(uint16_t *rows, const nq_kl_base *b, uint64_t first,
                                         uint64_t count, novaq_error *err);

/* Begins a base at path; rows follow by nq_outfile_write(). An existing file
 * that is no base is not replaced. */
NOVAQ_CHECK novaq_status nq_kl_base_create(nq_outfile **out, const char *path,
                                           const int32_t *tokens, uint32_t n_ctx, uint32_t vocab,
                                           uint32_t chunks, novaq_error *err);

#endif
