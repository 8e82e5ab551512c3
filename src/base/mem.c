/* mem.c - see mem.h. */
#include "base/mem.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

bool nq_mul_u64(uint64_t a, uint64_t b, uint64_t *out) {
    if (__builtin_mul_overflow(a, b, out)) {
        *out = 0;
        return false;
    }
    return true;
}

bool nq_add_u64(uint64_t a, uint64_t b, uint64_t *out) {
    if (__builtin_add_overflow(a, b, out)) {
        *out = 0;
        return false;
    }
    return true;
}

/* out is a T ** for any T; memcpy keeps within the aliasing rules. */
static void store(void *out, void *p) { memcpy(out, &p, sizeof p); }

static void *load(const void *slot) {
    void *p;
    memcpy(&p, slot, sizeof p);
    return p;
}

novaq_status nq_alloc_raw(void *out, uint64_t count, uint64_t size, novaq_error *err) {
    store(out, NULL);
    uint64_t bytes = 0;
    if (!nq_mul_u64(count, size, &bytes) || bytes > NQ_ALLOC_MAX) {
        return nq_fail(err, NOVAQ_E_MEMORY, "refusing to allocate %llu x %llu bytes",
                       (unsigned long long)count, (unsigned long long)size);
    }
    /* Whole cache lines: SIMD code may load the last line in full. */
    uint64_t padded = (bytes + 64 + 63) / 64 * 64;
    void *p = aligned_alloc(64, (size_t)padded);
    if (p == NULL) {
        return nq_fail(err, NOVAQ_E_MEMORY, "out of memory (%llu bytes)",
                       (unsigned long long)bytes);
    }
    store(out, p);
    return NOVAQ_OK;
}

novaq_status nq_alloc(void *out, uint64_t count, uint64_t size, novaq_error *err) {
    NQ_TRY(nq_alloc_raw(out, count, size, err));
    memset(load(out), 0, (size_t)(count * size));
    return NOVAQ_OK;
}

novaq_status nq_pages(uint8_t **out, uint64_t bytes, novaq_error *err) {
    *out = NULL;
    if (bytes == 0 || bytes > NQ_ALLOC_MAX) {
        return nq_fail(err, NOVAQ_E_MEMORY, "refusing to allocate %llu bytes",
                       (unsigned long long)bytes);
    }
    void *p = mmap(NULL, (size_t)bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) {
        return nq_fail(err, NOVAQ_E_MEMORY, "out of memory (%llu bytes)",
                       (unsigned long long)bytes);
    }
    *out = p;
    return NOVAQ_OK;
}

void nq_pages_free(uint8_t *p, uint64_t bytes) {
    if (p != NULL) {
        (void)munmap(p, (size_t)bytes);
    }
}

novaq_status nq_grow(void *inout, uint64_t old_count, uint64_t new_count, uint64_t size,
                     novaq_error *err) {
    void *old = load(inout);
    void *fresh = NULL;
    NQ_TRY(nq_alloc(&fresh, new_count, size, err));
    if (old != NULL && old_count > 0) {
        uint64_t keep = old_count < new_count ? old_count : new_count;
        memcpy(fresh, old, (size_t)(keep * size));
    }
    nq_free(old);
    store(inout, fresh);
    return NOVAQ_OK;
}

novaq_status nq_strndup(char **out, const char *s, size_t len, novaq_error *err) {
    NQ_TRY(nq_alloc(out, (uint64_t)len + 1, 1, err));
    memcpy(*out, s, len);
    return NOVAQ_OK;
}

novaq_status nq_strdup(char **out, const char *s, novaq_error *err) {
    return nq_strndup(out, s, strlen(s), err);
}

novaq_status nq_asprintf(char **out, novaq_error *err, const char *fmt, ...) {
    *out = NULL;
    va_list ap;
    va_start(ap, fmt);
    va_list again;
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    novaq_status st = n < 0 ? nq_fail(err, NOVAQ_E_ARG, "unprintable text")
                            : nq_alloc(out, (uint64_t)n + 1, 1, err);
    if (st == NOVAQ_OK) {
        (void)vsnprintf(*out, (size_t)n + 1, fmt, again);
    }
    va_end(again);
    return st;
}

void nq_free(void *p) { free(p); }

void novaq_free(void *p) { nq_free(p); }

uint64_t nq_memory_limit(const char *text) {
    char *end = NULL;
    if (text[0] < '0' || text[0] > '9') { /* strtoull() would take blanks and signs */
        return UINT64_MAX;
    }
    errno = 0;
    unsigned long long v = strtoull(text, &end, 10);
    bool whole = end[strspn(end, "\n")] == '\0';
    return errno == 0 && whole && v > 0 ? v : UINT64_MAX;
}

static uint64_t limit_in(const char *path) {
    char line[64];
    FILE *f = fopen(path, "re");
    if (f == NULL) {
        return UINT64_MAX;
    }
    bool read = fgets(line, sizeof line, f) != NULL;
    (void)fclose(f);
    return read ? nq_memory_limit(line) : UINT64_MAX;
}

uint64_t nq_physical_memory(void) {
    static const char *const groups[] = {"/sys/fs/cgroup/memory.max",
                                         "/sys/fs/cgroup/memory/memory.limit_in_bytes"};
    long pages = sysconf(_SC_PHYS_PAGES);
    long size = sysconf(_SC_PAGESIZE);
    uint64_t bytes = 0;
    if (pages <= 0 || size <= 0 || !nq_mul_u64((uint64_t)pages, (uint64_t)size, &bytes)) {
        bytes = (uint64_t)1 << 31;
    }
    for (size_t i = 0; i < sizeof groups / sizeof groups[0]; i++) {
        uint64_t limit = limit_in(groups[i]);
        bytes = limit < bytes ? limit : bytes;
    }
    return bytes;
}
