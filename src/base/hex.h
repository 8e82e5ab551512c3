/* hex.h - bytes as lower-case hexadecimal text.
 *
 * Owns: writing digests and recognising them. Refuses: upper case, so that one
 * digest has one spelling.
 */
#ifndef NQ_BASE_HEX_H
#define NQ_BASE_HEX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* 2*len digits and a NUL. */
void nq_hex(char *out, const uint8_t *bytes, size_t len);
/* True when s[0..digits) are all lower-case hexadecimal digits. */
bool nq_is_hex(const char *s, size_t digits);

#endif
