/* names.h - sorted tables of names from untrusted files.
 *
 * Owns: duplicate detection and look-up. Sorting rather than hashing, because
 * no choice of names can make it slower than n log n. Refuses: owning strings.
 */
#ifndef NQ_FORMAT_NAMES_H
#define NQ_FORMAT_NAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct nq_name {
    const char *name; /* borrowed, NUL-terminated */
    size_t index;     /* whatever the caller wants to find by it */
} nq_name;

/* qsort(), but nothing is moved (or allocated for it) when the order is right
 * already, as in files by the usual writers. base may be NULL when empty. */
void nq_sort(void *base, size_t count, size_t size, int (*order)(const void *, const void *));

/* Orders by bytes. */
void nq_names_sort(nq_name *names, size_t count);
/* A name that occurs twice in a sorted table, or NULL. */
const char *nq_names_duplicate(const nq_name *sorted, size_t count);
/* The entry of a sorted table with this name, or NULL. */
const nq_name *nq_names_find(const nq_name *sorted, size_t count, const char *name);

/* Bytes of s[0..len) that are valid UTF-8 (RFC 3629); len if all are. */
uint64_t nq_utf8_prefix(const void *s, uint64_t len);

#endif
