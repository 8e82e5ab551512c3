/* cursor.c - see cursor.h. */
#include "base/cursor.h"

#include <string.h>

nq_cursor nq_cursor_init(const char *name, const void *data, uint64_t size, uint64_t base) {
    return (nq_cursor){.data = data, .size = size, .base = base, .name = name};
}

bool nq_cursor_has(nq_cursor *c, uint64_t n) {
    if (c->failed || n > c->size - c->pos) {
        c->failed = true;
        return false;
    }
    return true;
}

uint64_t nq_cursor_left(const nq_cursor *c) { return c->failed ? 0 : c->size - c->pos; }

const uint8_t *nq_cursor_bytes(nq_cursor *c, uint64_t n) {
    if (!nq_cursor_has(c, n)) {
        return NULL;
    }
    const uint8_t *p = c->data + c->pos;
    c->pos += n;
    return p;
}

static uint64_t little_endian(nq_cursor *c, unsigned bytes) {
    const uint8_t *p = nq_cursor_bytes(c, bytes);
    uint64_t v = 0;
    for (unsigned i = 0; p != NULL && i < bytes; i++) {
        v |= (uint64_t)p[i] << (8 * i);
    }
    return v;
}

uint8_t nq_cursor_u8(nq_cursor *c) { return (uint8_t)little_endian(c, 1); }
uint16_t nq_cursor_u16(nq_cursor *c) { return (uint16_t)little_endian(c, 2); }
uint32_t nq_cursor_u32(nq_cursor *c) { return (uint32_t)little_endian(c, 4); }
uint64_t nq_cursor_u64(nq_cursor *c) { return little_endian(c, 8); }

float nq_cursor_f32(nq_cursor *c) {
    uint32_t u = nq_cursor_u32(c);
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

double nq_cursor_f64(nq_cursor *c) {
    uint64_t u = nq_cursor_u64(c);
    double d;
    memcpy(&d, &u, sizeof d);
    return d;
}
