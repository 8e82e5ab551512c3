/* status.c - see status.h. */
#include "base/status.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const char *novaq_status_name(novaq_status s) {
    switch (s) {
    case NOVAQ_OK: return "ok";
    case NOVAQ_E_ARG: return "invalid argument";
    case NOVAQ_E_MEMORY: return "out of memory";
    case NOVAQ_E_IO: return "input/output error";
    case NOVAQ_E_FORMAT: return "malformed file";
    case NOVAQ_E_UNSUPPORTED: return "unsupported";
    case NOVAQ_E_VERIFY: return "verification failed";
    case NOVAQ_E_NETWORK: return "network error";
    case NOVAQ_E_INTERRUPTED: return "interrupted";
    case NOVAQ_E_NUMERIC: return "not a finite number";
    case NOVAQ_E_NOSPACE: return "disk full";
    }
    return "unknown status";
}

/* Names come from untrusted files: a control character must not reach a
 * terminal or break the one-line promise. */
static void make_one_line(char *msg) {
    for (char *p = msg; *p != '\0'; p++) {
        if ((unsigned char)*p < 0x20 || *p == 0x7f) {
            *p = '?';
        }
    }
}

static void set_message(novaq_error *err, novaq_status code, const char *fmt, va_list ap) {
    err->code = code;
    (void)vsnprintf(err->msg, sizeof err->msg, fmt, ap);
    make_one_line(err->msg);
}

novaq_status(nq_fail)(novaq_error *err, novaq_status code, const char *fmt, ...) {
    if (err != NULL) {
        va_list ap;
        va_start(ap, fmt);
        set_message(err, code, fmt, ap);
        va_end(ap);
    }
    return code;
}

novaq_status(nq_fail_errno)(novaq_error *err, novaq_status code, int errnum, const char *fmt, ...) {
    if (errnum == ENOSPC || errnum == EDQUOT) {
        code = NOVAQ_E_NOSPACE;
    }
    if (err != NULL) {
        va_list ap;
        va_start(ap, fmt);
        set_message(err, code, fmt, ap);
        va_end(ap);
        char space[128];
        /* The GNU variant (_GNU_SOURCE): thread-safe, and it always has a text. */
        const char *reason = strerror_r(errnum, space, sizeof space);
        size_t used = strlen(err->msg);
        (void)snprintf(err->msg + used, sizeof err->msg - used, ": %s", reason);
    }
    return code;
}

novaq_status nq_fail_context(novaq_error *err, novaq_status code, const char *fmt, ...) {
    if (err != NULL) {
        char inner[sizeof err->msg];
        memcpy(inner, err->msg, sizeof inner);
        va_list ap;
        va_start(ap, fmt);
        set_message(err, code, fmt, ap);
        va_end(ap);
        size_t used = strlen(err->msg);
        (void)snprintf(err->msg + used, sizeof err->msg - used, ": %s", inner);
    }
    return code;
}
