/* text.h - what C's string functions lack. */
#ifndef NQ_BASE_TEXT_H
#define NQ_BASE_TEXT_H

#include <stdbool.h>
#include <string.h>

static inline bool nq_ends_with(const char *s, const char *end) {
    size_t n = strlen(s);
    size_t m = strlen(end);
    return n >= m && memcmp(s + n - m, end, m) == 0;
}

#endif
