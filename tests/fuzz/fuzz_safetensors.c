/* fuzz_safetensors.c - any bytes as a SafeTensors file: header, every tensor,
 * description. */
#include "fuzz_tensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    fuzz_tensors(data, size);
    return 0;
}
