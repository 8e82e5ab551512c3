/* fuzz_kl_base.c - any bytes as a file of a model's predictions: header, tokens,
 * rows. */
#include "fuzz.h"

#include "eval/kl_base.h"

/* Rows looked at in each file. */
#define MAX_ROWS 64

static void read_rows(const nq_kl_base *b) {
    uint64_t rows = (uint64_t)b->chunks * (b->n_ctx - 1 - b->n_ctx / 2);
    novaq_error err = {0};
    uint16_t *row = NULL;
    float *logp = NULL;
    /* The size of the file has been checked: this is less than it has. */
    FUZZ_CHECK(nq_alloc_raw(&row, nq_kl_row_words(b->vocab), sizeof *row, &err) == NOVAQ_OK);
    FUZZ_CHECK(nq_alloc_raw(&logp, b->vocab, sizeof *logp, &err) == NOVAQ_OK);
    for (uint64_t i = 0; i < rows && i < MAX_ROWS; i++) {
        FUZZ_CHECK(nq_kl_base_rows(row, b, i, 1, &err) == NOVAQ_OK);
        if (nq_kl_row_decode(logp, row, b->vocab)) {
            for (uint32_t k = 0; k < b->vocab; k++) {
                FUZZ_CHECK(logp[k] <= 0.01F && logp[k] >= -1000.0F);
            }
        }
    }
    novaq_status st = nq_kl_base_rows(row, b, rows, 1, &err);
    FUZZ_CHECK(st == NOVAQ_E_FORMAT);
    fuzz_check_error(st, &err);
    nq_free(row);
    nq_free(logp);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char path[FUZZ_PATH];
    int fd;
    nq_kl_base b;
    novaq_error err = {0};
    fuzz_file(path, &fd, data, size);
    novaq_status st = nq_kl_base_open(&b, path, &err);
    fuzz_check_error(st, &err);
    if (st == NOVAQ_OK) {
        FUZZ_CHECK(b.rows_at < size);
        read_rows(&b);
        st = nq_kl_base_tokens(&b, b.chunks, &err);
        fuzz_check_error(st, &err);
        for (uint64_t i = 0; st == NOVAQ_OK && i < (uint64_t)b.chunks * b.n_ctx; i++) {
            FUZZ_CHECK(b.tokens[i] >= 0 && (uint32_t)b.tokens[i] < b.vocab);
        }
    }
    nq_kl_base_close(&b);
    (void)close(fd);
    return 0;
}
