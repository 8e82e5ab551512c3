/* fuzz.h - what the fuzz targets share: bytes as a file without touching the
 * disk, and a check that stops the program.
 *
 * Each fuzz_NAME.c defines LLVMFuzzerTestOneInput() over real entry points. With
 * NOVAQ_FUZZ=ON libFuzzer calls it, otherwise replay_main.c does. A target must
 * accept any bytes; it finds something by crashing, by a sanitizer's report, by
 * FUZZ_CHECK or by not coming back.
 */
#ifndef NQ_TESTS_FUZZ_H
#define NQ_TESTS_FUZZ_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/mem.h"

#define FUZZ_UNUSED __attribute__((unused))

/* A promise of the code under test. */
#define FUZZ_CHECK(what)                                                                           \
    do {                                                                                           \
        if (!(what)) {                                                                             \
            (void)fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #what);        \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A path that reads as data[0..size); *fd is to be closed by the caller. */
#define FUZZ_PATH 32
FUZZ_UNUSED static void fuzz_file(char path[FUZZ_PATH], int *fd, const void *data, size_t size) {
    *fd = memfd_create("novaq-fuzz", MFD_CLOEXEC);
    FUZZ_CHECK(*fd >= 0);
    for (size_t done = 0; done < size;) {
        ssize_t n = write(*fd, (const char *)data + done, size - done);
        FUZZ_CHECK(n > 0);
        done += (size_t)n;
    }
    (void)snprintf(path, FUZZ_PATH, "/proc/self/fd/%d", *fd);
}

/* A failure must say why, in one line. */
FUZZ_UNUSED static void fuzz_check_error(novaq_status st, const novaq_error *err) {
    if (st != NOVAQ_OK) {
        FUZZ_CHECK(err->code == st);
        FUZZ_CHECK(err->msg[0] != '\0' && strchr(err->msg, '\n') == NULL);
    }
}

#endif
