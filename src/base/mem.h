/* mem.h - allocation with overflow checks.
 *
 * Owns: the only calls of malloc/free below cli/. Sizes that come from files
 * are multiplied and added here or not at all. Refuses: aborting.
 */
#ifndef NQ_BASE_MEM_H
#define NQ_BASE_MEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

/* Largest single allocation that input may cause: beyond it a file lies or the
 * machine is the wrong one. */
#define NQ_ALLOC_MAX ((uint64_t)1 << 40)

/* *out = a*b or a+b; false (and *out = 0) on overflow. */
bool nq_mul_u64(uint64_t a, uint64_t b, uint64_t *out);
bool nq_add_u64(uint64_t a, uint64_t b, uint64_t *out);

/* count*size bytes in *out (a void ** of any type), zeroed, 64-byte aligned,
 * freed by nq_free(). count*size == 0 gives a unique small block.
 * NOVAQ_E_MEMORY on overflow, above NQ_ALLOC_MAX, or when malloc fails. */
NOVAQ_CHECK novaq_status nq_alloc(void *out, uint64_t count, uint64_t size, novaq_error *err);

/* The same without zeroing, for large scratch that is overwritten at once. */
NOVAQ_CHECK novaq_status nq_alloc_raw(void *out, uint64_t count, uint64_t size, novaq_error *err);

/* Grows *inout from old_count to new_count elements, contents kept, new part
 * zeroed. On failure *inout is unchanged. */
NOVAQ_CHECK novaq_status nq_grow(void *inout, uint64_t old_count, uint64_t new_count, uint64_t size,
                                 novaq_error *err);

/* Copies s[0..len) and a NUL. */
NOVAQ_CHECK novaq_status nq_strndup(char **out, const char *s, size_t len, novaq_error *err);
NOVAQ_CHECK novaq_status nq_strdup(char **out, const char *s, novaq_error *err);

/* printf into a fresh string. */
NOVAQ_CHECK novaq_status nq_asprintf(char **out, novaq_error *err, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

void nq_free(void *p);

/* Large memory, zeroed, that goes back to the system as soon as it is freed: the
 * allocator keeps freed pieces of a few megabytes. bytes: at least 1, the same for both. */
NOVAQ_CHECK novaq_status nq_pages(uint8_t **out, uint64_t bytes, novaq_error *err);
void nq_pages_free(uint8_t *p, uint64_t bytes);

/* Bytes of memory the machine has, or the control group the process is in (a container)
 * may take, if that is less; 2^31 when nothing says. */
uint64_t nq_physical_memory(void);
/* What a control group's memory limit says: bytes, or UINT64_MAX for none ("max", 0, or no
 * number). Pure. */
uint64_t nq_memory_limit(const char *text);

#endif
