/* cmd.c - see cmd.h. */
#include "cmd.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "progress.h"

static void say(const char *fmt, va_list ap) __attribute__((format(printf, 1, 0)));

static void say(const char *fmt, va_list ap) {
    char line[640];
    (void)vsnprintf(line, sizeof line, fmt, ap);
    for (char *p = line; *p != '\0'; p++) {
        if ((unsigned char)*p < 0x20 || *p == 0x7f) {
            *p = '?';
        }
    }
    (void)fprintf(stderr, "novaq: %s\n", line);
}

int cli_usage(const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    say(fmt, ap);
    va_end(ap);
    return EXIT_USAGE;
}

int cli_fail_text(int exit_code, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    say(fmt, ap);
    va_end(ap);
    return exit_code;
}

void cli_note(const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    say(fmt, ap);
    va_end(ap);
}

static int exit_code_of(novaq_status s) {
    switch (s) {
    case NOVAQ_OK: return EXIT_OK;
    case NOVAQ_E_ARG: return EXIT_USAGE;
    case NOVAQ_E_VERIFY: return EXIT_VERIFY;
    case NOVAQ_E_NETWORK: return EXIT_NETWORK;
    case NOVAQ_E_INTERRUPTED: return EXIT_INTERRUPTED;
    case NOVAQ_E_MEMORY:
    case NOVAQ_E_IO:
    case NOVAQ_E_FORMAT:
    case NOVAQ_E_UNSUPPORTED:
    case NOVAQ_E_NUMERIC:
    case NOVAQ_E_NOSPACE: return EXIT_FAIL;
    }
    return EXIT_FAIL;
}

int cli_fail(const novaq_error *err) {
    const char *msg = err->msg[0] != '\0' ? err->msg : novaq_status_name(err->code);
    return cli_fail_text(exit_code_of(err->code), "%s", msg);
}

bool cli_flag(const opt_args *a, opt_id id) { return a->value[id].seen; }
bool cli_given(const opt_args *a, opt_id id) { return a->value[id].seen; }
const char *cli_text(const opt_args *a, opt_id id) { return a->value[id].text; }
unsigned cli_uint(const opt_args *a, opt_id id) { return (unsigned)a->value[id].u; }
double cli_real(const opt_args *a, opt_id id) { return a->value[id].f; }

/* Reads to the end in growing steps: standard input has no size. */
static int read_all(char **text, size_t *len, FILE *f, const char *path) {
    size_t cap = 1 << 16;
    char *buf = malloc(cap);
    size_t used = 0;
    while (buf != NULL) {
        used += fread(buf + used, 1, cap - used - 1, f);
        if (used < cap - 1) {
            break;
        }
        char *more = cap <= SIZE_MAX / 2 ? realloc(buf, cap * 2) : NULL;
        if (more == NULL) {
            free(buf);
            buf = NULL;
        } else {
            buf = more;
            cap *= 2;
        }
    }
    if (buf == NULL) {
        return cli_fail_text(EXIT_FAIL, "%s: out of memory", path);
    }
    if (ferror(f)) {
        free(buf);
        return cli_fail_text(EXIT_FAIL, "%s: %s", path, strerror(errno));
    }
    buf[used] = '\0';
    *text = buf;
    *len = used;
    return EXIT_OK;
}

int cli_read_text(char **text, size_t *len, const char *path) {
    *text = NULL;
    *len = 0;
    if (strcmp(path, "-") == 0) {
        return read_all(text, len, stdin, "standard input");
    }
    FILE *f = fopen(path, "rb");
    if (f == NULL) {
        return cli_fail_text(EXIT_FAIL, "%s: %s", path, strerror(errno));
    }
    int code = read_all(text, len, f, path);
    (void)fclose(f);
    return code;
}

int cli_work(char **report, const opt_args *a, cli_work_fn run, const void *options,
             novaq_progress_fn *progress_fn, void **ctx) {
    novaq_error err = {.code = NOVAQ_OK};
    progress p;
    *report = NULL;
    progress_begin(&p, cli_flag(a, OPT_QUIET));
    *progress_fn = progress_callback;
    *ctx = &p;
    novaq_status st = run(report, options, &err);
    progress_end(&p);
    return st == NOVAQ_OK ? EXIT_OK : cli_fail(&err);
}

bool cli_is_file_name(const char *path) {
    static const char *const tails[] = {".bin", ".novaq", ".safetensors"};
    for (size_t i = 0; i < sizeof tails / sizeof tails[0]; i++) {
        if (nq_ends_with(path, tails[i]) && strlen(path) > strlen(tails[i])) {
            return true;
        }
    }
    return false;
}

int cli_report(const opt_args *a, char *report, int (*print)(const char *json)) {
    int code = EXIT_OK;
    if (cli_flag(a, OPT_JSON)) {
        (void)printf("%s\n", report);
    } else {
        code = print(report);
    }
    novaq_free(report);
    return code;
}
