/* cursor.h - bounds-checked reading of untrusted bytes.
 *
 * Owns: position and the first error. Every read past the end fails, yields
 * zero and makes the cursor stay failed, so a parser may read a whole record
 * and check once. Refuses: reading without a bound.
 */
#ifndef NQ_BASE_CURSOR_H
#define NQ_BASE_CURSOR_H

#include <stdbool.h>

#include "base/status.h"

typedef struct nq_cursor {
    const uint8_t *data; /* borrowed */
    uint64_t size;
    uint64_t pos;
    uint64_t base;    /* file offset of data[0], for messages */
    const char *name; /* file name for messages, borrowed */
    bool failed;
} nq_cursor;

nq_cursor nq_cursor_init(const char *name, const void *data, uint64_t size, uint64_t base);
/* True when n more bytes are there; otherwise marks the cursor failed. */
bool nq_cursor_has(nq_cursor *c, uint64_t n);
uint64_t nq_cursor_left(const nq_cursor *c);
/* Little-endian integers; 0 once failed. */
uint8_t nq_cursor_u8(nq_cursor *c);
uint16_t nq_cursor_u16(nq_cursor *c);
uint32_t nq_cursor_u32(nq_cursor *c);
uint64_t nq_cursor_u64(nq_cursor *c);
float nq_cursor_f32(nq_cursor *c);
double nq_cursor_f64(nq_cursor *c);
/* n bytes at the cursor, borrowed; NULL once failed. */
const uint8_t *nq_cursor_bytes(nq_cursor *c, uint64_t n);

#endif
