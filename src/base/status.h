/* status.h - how every layer reports failure.
 *
 * Owns: filling in the caller's novaq_error. Refuses: printing, exiting,
 * remembering errors anywhere but in the caller's struct.
 */
#ifndef NQ_BASE_STATUS_H
#define NQ_BASE_STATUS_H

#include "novaq.h"

/* Records code and a one-line message in *err (NULL is fine) and returns code,
 * so that `return nq_fail(err, NOVAQ_E_FORMAT, "%s: ...", path)` reads well. */
novaq_status nq_fail(novaq_error *err, novaq_status code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* As nq_fail(), with ": strerror(errnum)" appended; ENOSPC and EDQUOT become
 * NOVAQ_E_NOSPACE whatever code says. */
novaq_status nq_fail_errno(novaq_error *err, novaq_status code, int errnum, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/* Puts "context: " before the message already in *err; returns err's code. */
novaq_status nq_fail_context(novaq_error *err, novaq_status code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

#ifdef __clang_analyzer__
/* Static analysis cannot see that these never return NOVAQ_OK. */
#define nq_fail(err, code, ...)            (nq_fail(err, code, __VA_ARGS__), (code))
#define nq_fail_errno(err, code, num, ...) (nq_fail_errno(err, code, num, __VA_ARGS__), (code))
#endif

/* Leaves the function at once on failure. Only where nothing is owned yet;
 * otherwise use a status variable and one `goto done`. */
#define NQ_TRY(expr)                                                                               \
    do {                                                                                           \
        novaq_status nq_try_status_ = (expr);                                                      \
        if (nq_try_status_ != NOVAQ_OK) {                                                          \
            return nq_try_status_;                                                                 \
        }                                                                                          \
    } while (0)

#endif
