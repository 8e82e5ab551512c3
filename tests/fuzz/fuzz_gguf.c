/* fuzz_gguf.c - any bytes as a GGUF file: keys, every tensor, description with
 * tokenizer. */
#include "fuzz_tensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    fuzz_tensors(data, size);
    return 0;
}
