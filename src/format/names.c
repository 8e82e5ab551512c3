/* names.c - see names.h. */
#include "format/names.h"

#include <stdlib.h>
#include <string.h>

static int by_name(const void *a, const void *b) {
    return strcmp(((const nq_name *)a)->name, ((const nq_name *)b)->name);
}

void nq_sort(void *base, size_t count, size_t size, int (*order)(const void *, const void *)) {
    const char *p = base;
    for (size_t i = 1; i < count; i++, p += size) {
        if (order(p, p + size) > 0) {
            qsort(base, count, size, order);
            return;
        }
    }
}

void nq_names_sort(nq_name *names, size_t count) { nq_sort(names, count, sizeof *names, by_name); }

const char *nq_names_duplicate(const nq_name *sorted, size_t count) {
    for (size_t i = 1; i < count; i++) {
        if (strcmp(sorted[i - 1].name, sorted[i].name) == 0) {
            return sorted[i].name;
        }
    }
    return NULL;
}

const nq_name *nq_names_find(const nq_name *sorted, size_t count, const char *name) {
    if (count == 0) {
        return NULL;
    }
    nq_name key = {name, 0};
    return bsearch(&key, sorted, count, sizeof *sorted, by_name);
}

/* Length of the UTF-8 sequence at p, 0 if it is not one. */
static unsigned sequence(const uint8_t *p, uint64_t left) {
    uint8_t b = p[0];
    if (b < 0x80) {
        return 1;
    }
    unsigned n = b >= 0xF0 ? 4 : b >= 0xE0 ? 3 : 2;
    if (b < 0xC2 || b > 0xF4 || left < n) {
        return 0;
    }
    /* The second byte excludes overlong forms, surrogates and > U+10FFFF. */
    uint8_t low = b == 0xE0 ? 0xA0 : b == 0xF0 ? 0x90 : 0x80;
    uint8_t high = b == 0xED ? 0x9F : b == 0xF4 ? 0x8F : 0xBF;
    if (p[1] < low || p[1] > high) {
        return 0;
    }
    for (unsigned i = 2; i < n; i++) {
        if ((p[i] & 0xC0U) != 0x80U) {
            return 0;
        }
    }
    return n;
}

uint64_t nq_utf8_prefix(const void *s, uint64_t len) {
    const uint8_t *p = s;
    uint64_t i = 0;
    while (i < len) {
        unsigned n = sequence(p + i, len - i);
        if (n == 0) {
            return i;
        }
        i += n;
    }
    return len;
}
