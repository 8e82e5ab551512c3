/* mutate.c - see mutate.h. */
#include "mutate.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/rng.h"

#define MUTATIONS_MAX 4
#define PIECE_MAX     64 /* bytes cut, repeated or spliced at once, mostly */
#define SCAN          4096

typedef struct dice {
    uint64_t seed;
    uint64_t number;
    uint64_t throws;
} dice;

/* Below n, or 0 when n is 0. */
static size_t pick(dice *d, size_t n) {
    uint64_t r = nq_hash3(d->seed, d->number, d->throws++);
    return n == 0 ? 0 : (size_t)(r % n);
}

/* Headers lie at the start: half of all places are in the first kilobyte. */
static size_t place(dice *d, const bytes *b) {
    size_t near = b->size < 1024 ? b->size : 1024;
    return pick(d, 2) == 0 ? pick(d, near) : pick(d, b->size);
}

static size_t piece(dice *d, size_t limit) {
    size_t n = 1 + pick(d, pick(d, 8) == 0 ? 4096 : PIECE_MAX);
    return n < limit ? n : limit;
}

/* ---- bytes and words --------------------------------------------------------------- */

static void flip_bit(bytes *b, dice *d) { b->data[place(d, b)] ^= (uint8_t)(1U << pick(d, 8)); }

static void set_byte(bytes *b, dice *d) { b->data[place(d, b)] = (uint8_t)pick(d, 256); }

static uint64_t extreme(dice *d, const bytes *b) {
    static const uint64_t values[] = {0,
                                      1,
                                      2,
                                      3,
                                      7,
                                      8,
                                      31,
                                      32,
                                      63,
                                      64,
                                      0x7F,
                                      0x80,
                                      0xFF,
                                      0x100,
                                      0x7FFF,
                                      0x8000,
                                      0xFFFF,
                                      0x10000,
                                      0x7FFFFFFF,
                                      0x80000000,
                                      0xFFFFFFFF,
                                      0x100000000,
                                      1ULL << 40,
                                      1ULL << 60,
                                      INT64_MAX,
                                      1ULL << 63,
                                      UINT64_MAX,
                                      UINT64_MAX - 1,
                                      UINT64_MAX - 31,
                                      UINT64_MAX - 63};
    size_t n = sizeof values / sizeof values[0];
    size_t i = pick(d, n + 2);
    return i < n ? values[i] : i == n ? b->size : b->size - pick(d, 64);
}

/* A little-endian word becomes an extreme value or moves a little. */
static void set_word(bytes *b, dice *d) {
    size_t width = (size_t)1 << pick(d, 4);
    if (b->size < width) {
        return;
    }
    size_t at = place(d, b);
    at = at > b->size - width ? b->size - width : at;
    uint64_t v = 0;
    for (size_t i = 0; i < width; i++) {
        v |= (uint64_t)b->data[at + i] << (8 * i);
    }
    v = pick(d, 3) == 0 ? v + pick(d, 33) - 16 : extreme(d, b);
    for (size_t i = 0; i < width; i++) {
        b->data[at + i] = (uint8_t)(v >> (8 * i));
    }
}

/* ---- lengths ------------------------------------------------------------------------ */

static void cut_out(bytes *b, dice *d) {
    size_t at = place(d, b);
    size_t n = piece(d, b->size - at);
    memmove(b->data + at, b->data + at + n, b->size - at - n);
    b->size -= n;
}

static void shorten(bytes *b, dice *d) {
    b->size = pick(d, 2) == 0 ? pick(d, b->size) : b->size - 1;
}

/* Replaces old bytes at `at` by n bytes of src, which does not overlap b. */
static void replace(bytes *b, size_t at, size_t old, const void *src, size_t n) {
    if (b->size - old + n > b->cap) {
        return;
    }
    memmove(b->data + at + n, b->data + at + old, b->size - at - old);
    memcpy(b->data + at, src, n);
    b->size = b->size - old + n;
}

static void repeat(bytes *b, dice *d) {
    uint8_t copy[SCAN];
    size_t at = place(d, b);
    size_t n = piece(d, b->size - at);
    memcpy(copy, b->data + at, n);
    replace(b, pick(d, 2) == 0 ? at : place(d, b), 0, copy, n);
}

static void splice(bytes *b, const bytes *other, dice *d) {
    if (other->size == 0) {
        return;
    }
    size_t from = place(d, other);
    size_t n = piece(d, other->size - from);
    size_t at = place(d, b);
    size_t old = pick(d, 2) == 0 ? 0 : (n < b->size - at ? n : b->size - at);
    replace(b, at, old, other->data + from, n);
}

/* ---- text --------------------------------------------------------------------------- */

/* The first run of digits at or behind a random place: *at, *n; false if none is near. */
static bool find_number(const bytes *b, dice *d, size_t *at, size_t *n) {
    size_t i = place(d, b);
    size_t end = b->size - i < SCAN ? b->size : i + SCAN;
    while (i < end && !isdigit(b->data[i])) {
        i++;
    }
    *at = i;
    while (i < end && isdigit(b->data[i])) {
        i++;
    }
    *n = i - *at;
    return *n > 0;
}

static void set_number(bytes *b, dice *d) {
    static const char *const odd[] = {
        "-1",   "1e3",  "1.5", "1e999", "-0",   "99999999999999999999",
        "null", "\"\"", "[]",  "{}",    "true", "NaN"};
    char text[32];
    size_t at = 0;
    size_t n = 0;
    if (!find_number(b, d, &at, &n)) {
        return;
    }
    unsigned long long v = 0;
    for (size_t i = 0; i < n && i < 18; i++) {
        v = v * 10 + (unsigned long long)(b->data[at + i] - '0');
    }
    switch (pick(d, 4)) {
    case 0:
        (void)snprintf(text, sizeof text, "%s", odd[pick(d, sizeof odd / sizeof odd[0])]);
        break;
    case 1: (void)snprintf(text, sizeof text, "%llu", (unsigned long long)extreme(d, b)); break;
    case 2: (void)snprintf(text, sizeof text, "%llu", v * 2); break;
    default: (void)snprintf(text, sizeof text, "%llu", v + pick(d, 5) - (v < 2 ? 0 : 2)); break;
    }
    replace(b, at, n, text, strlen(text));
}

/* The inside of a quoted string near a random place. */
static bool find_string(const bytes *b, dice *d, size_t *at, size_t *n) {
    size_t i = place(d, b);
    const uint8_t *open = memchr(b->data + i, '"', b->size - i < SCAN ? b->size - i : SCAN);
    if (open == NULL) {
        return false;
    }
    *at = (size_t)(open - b->data) + 1;
    size_t left = b->size - *at;
    const uint8_t *close = memchr(b->data + *at, '"', left < SCAN ? left : SCAN);
    *n = close == NULL ? 0 : (size_t)(close - b->data) - *at;
    return close != NULL;
}

/* A string becomes another one of the same input, an odd one, or a number. */
static void set_string(bytes *b, dice *d) {
    static const char *const odd[] = {"",    "\\u0000",  "\\ud800",      "\xFF", "..",  "/",
                                      "\\n", "\xC4\xA0", "\xE2\x96\x81", "%s%n", "a b", " "};
    uint8_t copy[SCAN];
    size_t at = 0;
    size_t n = 0;
    size_t from = 0;
    size_t len = 0;
    if (!find_string(b, d, &at, &n)) {
        return;
    }
    if (pick(d, 2) == 0 && find_string(b, d, &from, &len)) {
        memcpy(copy, b->data + from, len);
        replace(b, at, n, copy, len);
    } else {
        const char *s = odd[pick(d, sizeof odd / sizeof odd[0])];
        replace(b, at, n, s, strlen(s));
    }
}

/* ---- the whole ---------------------------------------------------------------------- */

static bool is_text(const bytes *b) {
    return b->size > 16 && (memchr(b->data, '"', b->size < 256 ? b->size : 256) != NULL);
}

static void mutate_once(bytes *b, const bytes *other, dice *d) {
    if (b->size == 0) {
        splice(b, other, d);
        return;
    }
    /* Other damage to text mostly ends in its parser. */
    if (is_text(b) && pick(d, 4) != 0) {
        (pick(d, 3) != 0 ? set_number : set_string)(b, d);
        return;
    }
    switch (pick(d, 8)) {
    case 0: flip_bit(b, d); break;
    case 1: set_byte(b, d); break;
    case 2: cut_out(b, d); break;
    case 3: shorten(b, d); break;
    case 4: repeat(b, d); break;
    case 5: splice(b, other, d); break;
    default: set_word(b, d); break;
    }
}

void mutate(bytes *b, const bytes *other, uint64_t seed, uint64_t number) {
    dice d = {.seed = seed, .number = number};
    for (size_t n = 1 + pick(&d, MUTATIONS_MAX); n > 0; n--) {
        mutate_once(b, other, &d);
    }
}
