/* utf8.h - cutting a stream of bytes at whole characters.
 *
 * Owns: the well-formedness table of Unicode (3.9, D92). Refuses: meaning.
 */
#ifndef NQ_MODEL_UTF8_H
#define NQ_MODEL_UTF8_H

#include <stddef.h>
#include <stdint.h>

/* Looks at the character at s[0..len), len > 0: its length 1-4 when whole and
 * well-formed, 0 when it may still become so with more bytes, -1 when s[0]
 * cannot begin a well-formed character. */
int nq_utf8_whole(const uint8_t *s, size_t len);

#endif
