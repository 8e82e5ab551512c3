/* fuzz_torch.c - any bytes as a file of torch.save(): zip or stream, the pickles,
 * every tensor, description. The stream form has no checksum, so that damaged
 * pickles are read there. */
#include "fuzz_tensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    fuzz_tensors(data, size);
    return 0;
}
