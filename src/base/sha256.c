/* sha256.c - see sha256.h. */
#include "base/sha256.h"

#include <openssl/evp.h>

#include "base/hex.h"
#include "base/mem.h"

struct nq_sha256 {
    EVP_MD_CTX *ctx;
    int failed;
};

static void restart(nq_sha256 *h) {
    h->failed = EVP_DigestInit_ex(h->ctx, EVP_sha256(), NULL) != 1;
}

novaq_status nq_sha256_open(nq_sha256 **out, novaq_error *err) {
    *out = NULL;
    nq_sha256 *h = NULL;
    NQ_TRY(nq_alloc(&h, 1, sizeof *h, err));
    h->ctx = EVP_MD_CTX_new();
    if (h->ctx != NULL) {
        restart(h);
    }
    if (h->ctx == NULL || h->failed) {
        nq_sha256_close(&h);
        return nq_fail(err, NOVAQ_E_MEMORY, "cannot set up SHA-256");
    }
    *out = h;
    return NOVAQ_OK;
}

void nq_sha256_update(nq_sha256 *h, const void *data, size_t len) {
    if (len > 0 && EVP_DigestUpdate(h->ctx, data, len) != 1) {
        h->failed = 1;
    }
}

novaq_status nq_sha256_finish(char hex[NQ_SHA256_HEX + 1], nq_sha256 *h, novaq_error *err) {
    uint8_t digest[EVP_MAX_MD_SIZE];
    unsigned n = 0;
    int ok = !h->failed && EVP_DigestFinal_ex(h->ctx, digest, &n) == 1 && n == NQ_SHA256_BYTES;
    hex[0] = '\0';
    if (ok) {
        nq_hex(hex, digest, NQ_SHA256_BYTES);
    }
    restart(h);
    return ok ? NOVAQ_OK : nq_fail(err, NOVAQ_E_MEMORY, "SHA-256 failed");
}

void nq_sha256_close(nq_sha256 **h) {
    if (*h != NULL) {
        EVP_MD_CTX_free((*h)->ctx);
        nq_free(*h);
        *h = NULL;
    }
}

novaq_status nq_sha256_of(char hex[NQ_SHA256_HEX + 1], const void *data, size_t len,
                          novaq_error *err) {
    nq_sha256 *h = NULL;
    hex[0] = '\0';
    NQ_TRY(nq_sha256_open(&h, err));
    nq_sha256_update(h, data, len);
    novaq_status st = nq_sha256_finish(hex, h, err);
    nq_sha256_close(&h);
    return st;
}
