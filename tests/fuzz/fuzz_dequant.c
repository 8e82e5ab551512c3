/* fuzz_dequant.c - any bytes as blocks of every element type: no read or write
 * beyond the block, the same values block by block as at once. */
#include "fuzz.h"

#include "base/dtype.h"
#include "format/dequant.h"

#define FUZZ_BYTES 1024

static void *copy(const void *data, size_t size) {
    void *p = malloc(size); /* not nq_alloc(): its padding would hide an overrun */
    FUZZ_CHECK(p != NULL);
    memcpy(p, data, size);
    return p;
}

static void one_type(nq_dtype type, const uint8_t *data, size_t size) {
    const nq_dtype_info *d = nq_dtype_get(type);
    size_t blocks = size / d->bytes;
    if (blocks == 0) {
        return;
    }
    size_t n = blocks * d->block;
    uint8_t *src = copy(data, blocks * d->bytes);
    float *whole = malloc(n * sizeof *whole);
    float *block = malloc(d->block * sizeof *block);
    FUZZ_CHECK(whole != NULL && block != NULL);
    nq_dequantize(whole, type, src, n);
    for (size_t i = 0; i < blocks; i++) {
        nq_dequantize(block, type, src + i * d->bytes, d->block);
        FUZZ_CHECK(memcmp(block, whole + i * d->block, d->block * sizeof *block) == 0);
    }
    free(block);
    free(whole);
    free(src);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    for (int t = 0; t < (int)NQ_DTYPE_COUNT; t++) {
        one_type((nq_dtype)t, data, size < FUZZ_BYTES ? size : FUZZ_BYTES);
    }
    return 0;
}
