/* slow_util.h - a remote source in memory that counts what is asked of it, delays, fails
 * and gets stuck when told so. */
#ifndef NQ_TESTS_SLOW_UTIL_H
#define NQ_TESTS_SLOW_UTIL_H

#include <pthread.h>
#include <stdatomic.h>

#include "reader_util.h"

typedef struct slow {
    nq_source base;
    const uint8_t *data;
    unsigned delay_us; /* per read */
    uint64_t fail_at;  /* reads that reach this byte fail, `failures` times */
    atomic_int failures;
    atomic_bool stuck; /* reads do not return until this is false */
    atomic_ulong reads;
    atomic_ulong bytes;
    atomic_ulong expects;   /* of another end than the one before */
    atomic_ulong expected;  /* that end */
    atomic_uint wrong;      /* what must not be asked of a source */
    atomic_ulong backwards; /* reads that do not begin where the one before ended */
    atomic_ulong reached;
    bool owned;
} slow;

UNUSED static novaq_status slow_read(nq_source *s, uint64_t offset, void *dst, uint64_t len,
                                     novaq_error *err) {
    slow *f = (slow *)s;
    atomic_fetch_add(&f->reads, 1);
    atomic_fetch_add(&f->bytes, len);
    atomic_fetch_add(&f->backwards, atomic_exchange(&f->reached, offset + len) > offset);
    while (atomic_load(&f->stuck)) {
        usleep(200);
    }
    if (f->delay_us > 0) {
        usleep(f->delay_us);
    }
    if (offset <= f->fail_at && f->fail_at - offset < len &&
        atomic_fetch_sub(&f->failures, 1) > 0) {
        return nq_fail(err, NOVAQ_E_NETWORK, "%s: offset %llu: cut off", s->name,
                       (unsigned long long)offset);
    }
    memcpy(dst, f->data + offset, (size_t)len);
    return NOVAQ_OK;
}

UNUSED static void slow_close(nq_source *s) {
    if (((slow *)s)->owned) {
        free(s);
    }
}

UNUSED static void slow_expect(nq_source *s, uint64_t offset, uint64_t len) {
    slow *f = (slow *)s; /* called by threads, in which an assertion cannot fail */
    bool ok = offset <= s->size && len <= s->size - offset;
    atomic_fetch_add(&f->wrong, ok ? 0 : 1);
    atomic_fetch_add(&f->expects, atomic_exchange(&f->expected, offset + len) != offset + len);
}

static const nq_source_vtable slow_vtable = {slow_read, slow_close, slow_expect};

UNUSED static void slow_init(slow *f, const uint8_t *data, size_t len) {
    static char name[] = "slow";
    *f = (slow){.base = {.vt = &slow_vtable, .name = name, .size = len, .remote = true},
                .data = data,
                .fail_at = UINT64_MAX};
}

#endif
