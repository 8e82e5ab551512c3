/* json_scan.h - a pull scanner for JSON headers that may be hostile.
 *
 * Owns: the grammar of RFC 8259, walked without building a tree, so that a
 * header of n bytes costs about n bytes and n log n steps. Strings are decoded
 * where they stand. Refuses: duplicate keys in any object, NUL, lone
 * surrogates, nesting beyond 127, anything after the value.
 */
#ifndef NQ_FORMAT_JSON_SCAN_H
#define NQ_FORMAT_JSON_SCAN_H

#include "format/names.h"

#include "base/status.h"

typedef struct nq_scan {
    char *text;   /* borrowed and modified; valid UTF-8 */
    uint64_t len; /* bytes */
    uint64_t pos;
    uint64_t base;    /* file offset of text[0] */
    const char *file; /* for messages */
    unsigned depth;
    nq_name *keys; /* keys of all open objects, innermost last; owned */
    size_t key_count;
    size_t key_cap;
} nq_scan;

/* An object or array being walked. */
typedef struct nq_scan_level {
    size_t first_key; /* its first in nq_scan.keys */
    bool started;
} nq_scan_level;

/* Refuses text that is not UTF-8. Release with nq_scan_free() in any case. */
NOVAQ_CHECK novaq_status nq_scan_init(nq_scan *s, const char *file, char *text, uint64_t len,
                                      uint64_t base, novaq_error *err);
void nq_scan_free(nq_scan *s);

/* The first character of the next token, 0 at the end. */
char nq_scan_peek(nq_scan *s);
NOVAQ_CHECK novaq_status nq_scan_open_object(nq_scan *s, nq_scan_level *l, novaq_error *err);
/* *key: the next key (borrowed; its value must be consumed next), or NULL once
 * the object is closed and has no key twice. */
NOVAQ_CHECK novaq_status nq_scan_next_key(nq_scan *s, nq_scan_level *l, const char **key,
                                          novaq_error *err);
NOVAQ_CHECK novaq_status nq_scan_open_array(nq_scan *s, nq_scan_level *l, novaq_error *err);
/* *more: whether another element follows (to be consumed next). */
NOVAQ_CHECK novaq_status nq_scan_next_item(nq_scan *s, nq_scan_level *l, bool *more,
                                           novaq_error *err);
/* NUL-terminated, borrowed from the text. */
NOVAQ_CHECK novaq_status nq_scan_string(nq_scan *s, const char **out, novaq_error *err);
/* A non-negative integer written without fraction or exponent. */
NOVAQ_CHECK novaq_status nq_scan_u64(nq_scan *s, uint64_t *out, novaq_error *err);
/* Any value, checked and dropped. */
NOVAQ_CHECK novaq_status nq_scan_skip(nq_scan *s, novaq_error *err);
/* Only white space may follow. */
NOVAQ_CHECK novaq_status nq_scan_end(nq_scan *s, novaq_error *err);

/* NOVAQ_E_FORMAT with file and current offset. */
novaq_status nq_scan_fail(const nq_scan *s, novaq_error *err, const char *what);

#endif
