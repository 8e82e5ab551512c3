/* fuzz_model.c - any bytes as a model file that is opened for running and
 * continues a prompt: hyperparameters against shapes, tokenizer, forward pass. */
#include "fuzz_model.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char path[FUZZ_PATH];
    int fd = -1;
    fuzz_file(path, &fd, data, size);
    fuzz_run_model(path);
    (void)close(fd);
    return 0;
}
