/* reader_util.h - what the tests of the readers share: a byte builder, temporary
 * files, a source in memory and the table runner for malformed files. */
#ifndef NQ_TESTS_READER_UTIL_H
#define NQ_TESTS_READER_UTIL_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "format/tensors_impl.h"
#include "io/fs.h"

#define UNUSED __attribute__((unused))

/* ---- bytes ---------------------------------------------------------------- */

typedef struct bytes {
    uint8_t *data;
    size_t len;
    size_t cap;
} bytes;

UNUSED static void put(bytes *b, const void *p, size_t n) {
    if (b->data == NULL || b->len + n > b->cap) {
        b->cap = (b->len + n) * 2 + 64;
        b->data = realloc(b->data, b->cap);
        assert_non_null(b->data);
    }
    if (n > 0) {
        memcpy(b->data + b->len, p, n);
    }
    b->len += n;
}

UNUSED static void put_int(bytes *b, uint64_t v, unsigned n) {
    for (unsigned i = 0; i < n; i++) {
        uint8_t byte = (uint8_t)(v >> (8 * i));
        put(b, &byte, 1);
    }
}

UNUSED static void put_fill(bytes *b, int value, size_t n) {
    uint8_t byte = (uint8_t)value;
    for (size_t i = 0; i < n; i++) {
        put(b, &byte, 1);
    }
}

UNUSED static void put_pad(bytes *b, size_t align) {
    put_fill(b, 0, (align - b->len % align) % align);
}

UNUSED static void bytes_free(bytes *b) {
    free(b->data);
    *b = (bytes){0};
}

/* ---- files ---------------------------------------------------------------- */

/* A fresh directory under TMPDIR or /tmp. */
UNUSED static void temp_dir(char *out, size_t cap) {
    const char *base = getenv("TMPDIR");
    (void)snprintf(out, cap, "%s/novaq-test-XXXXXX",
                   base == NULL || base[0] == '\0' ? "/tmp" : base);
    assert_non_null(mkdtemp(out));
}

UNUSED static void remove_dir(const char *dir) {
    char **names = NULL;
    size_t count = 0;
    assert_int_equal(nq_list_dir(&names, &count, dir, NULL), NOVAQ_OK);
    for (size_t i = 0; i < count; i++) {
        char path[1024];
        (void)snprintf(path, sizeof path, "%s/%s", dir, names[i]);
        assert_int_equal(remove(path), 0);
    }
    nq_free_names(names, count);
    assert_int_equal(rmdir(dir), 0);
}

UNUSED static void write_plain(const char *dir, const char *name, const void *data, size_t len) {
    char path[1024];
    (void)snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, len, f), len);
    assert_int_equal(fclose(f), 0);
}

/* ---- a source in memory --------------------------------------------------- */

typedef struct mem_source {
    nq_source base;
    const uint8_t *data;
} mem_source;

UNUSED static novaq_status mem_read(nq_source *s, uint64_t offset, void *dst, uint64_t len,
                                    novaq_error *err) {
    (void)err;
    memcpy(dst, ((mem_source *)s)->data + offset, (size_t)len);
    return NOVAQ_OK;
}

UNUSED static void mem_close(nq_source *s) { (void)s; }

static const nq_source_vtable mem_vtable = {mem_read, mem_close, NULL};

UNUSED static mem_source mem_open(const void *data, size_t len) {
    static char name[] = "memory";
    return (mem_source){.base = {.vt = &mem_vtable, .name = name, .size = len}, .data = data};
}

/* ---- malformed files as tables -------------------------------------------- */

typedef struct bad_case {
    const char *name;
    void (*build)(bytes *b);
    novaq_status want;
    const char *says; /* must occur in the message, unless NULL */
} bad_case;

/* Of this process: other work on the machine does not count. */
UNUSED static double seconds(void) {
    struct timespec t;
    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Reads all tensors of an accepted file, so that a bound that was not checked
 * shows. Rows of absurd size cannot be in a file that was accepted. */
UNUSED static void read_everything(nq_tensors *ts) {
    for (size_t i = 0; i < nq_tensors_count(ts); i++) {
        const nq_tensor_info *t = nq_tensors_at(ts, i);
        float *f = malloc((size_t)t->elements * sizeof *f + 1);
        assert_non_null(f);
        novaq_error err;
        assert_int_equal(nq_tensors_read_f32(f, ts, t, &err), NOVAQ_OK);
        free(f);
    }
}

/* The first failure of reading all tensors. */
UNUSED static novaq_status try_everything(nq_tensors *ts) {
    novaq_status st = NOVAQ_OK;
    for (size_t i = 0; st == NOVAQ_OK && i < nq_tensors_count(ts); i++) {
        const nq_tensor_info *t = nq_tensors_at(ts, i);
        float *f = malloc((size_t)t->elements * sizeof *f + 1);
        assert_non_null(f);
        st = nq_tensors_read_f32(f, ts, t, NULL);
        free(f);
    }
    return st;
}

/* The same bytes far away, where less is looked at when the file is opened and the rest
 * when it is read: the verdict comes by then. */
UNUSED static void check_far(char *path, const bytes *b, const bad_case *c) {
    mem_source m = mem_open(b->data, b->len);
    m.base.name = path;
    m.base.remote = true;
    nq_source *src = &m.base;
    nq_tensors *ts = NULL;
    novaq_error err = {.code = NOVAQ_OK, .msg = ""};
    novaq_status got = nq_tensors_open_source(&ts, &src, &err);
    if (got == NOVAQ_E_ARG && strstr(err.msg, "not at hand") != NULL) {
        return; /* data in another file */
    }
    if (got == NOVAQ_OK) {
        got = try_everything(ts);
    }
    nq_tensors_close(&ts);
    if (got != c->want) {
        fail_msg("%s: far away %s instead of %s (%s)", c->name, novaq_status_name(got),
                 novaq_status_name(c->want), err.msg);
    }
}

/* Opens the bytes as dir/file and checks the verdict and its message. */
UNUSED static void check_bytes(const char *dir, const char *file, const bytes *b,
                               const bad_case *c) {
    write_plain(dir, file, b->data, b->len);
    char path[1024];
    (void)snprintf(path, sizeof path, "%s/%s", dir, file);
    nq_tensors *ts = NULL;
    novaq_error err = {.code = NOVAQ_OK, .msg = ""};
    double start = seconds();
    novaq_status got = nq_tensors_open(&ts, path, &err);
    double took = seconds() - start;
    if (got != c->want) {
        fail_msg("%s: %s instead of %s (%s)", c->name, novaq_status_name(got),
                 novaq_status_name(c->want), err.msg);
    }
    if (took > 1.0) {
        fail_msg("%s: took %.2f s", c->name, took);
    }
    check_far(path, b, c);
    if (got == NOVAQ_OK) {
        read_everything(ts);
        nq_tensors_close(&ts);
        return;
    }
    assert_null(ts);
    assert_int_equal(err.code, got);
    if (strstr(err.msg, path) == NULL) {
        fail_msg("%s: message does not name the file: %s", c->name, err.msg);
    }
    if (strstr(err.msg, "offset ") == NULL && strstr(err.msg, "tensor \"") == NULL) {
        fail_msg("%s: message names neither offset nor tensor: %s", c->name, err.msg);
    }
    if (c->says != NULL && strstr(err.msg, c->says) == NULL) {
        fail_msg("%s: message lacks \"%s\": %s", c->name, c->says, err.msg);
    }
}

UNUSED static void run_case(const char *dir, const char *file, const bad_case *c) {
    bytes b = {0};
    c->build(&b);
    check_bytes(dir, file, &b, c);
    bytes_free(&b);
}

/* Runs a table; none of it may need much memory. */
UNUSED static void run_cases(const bad_case *cases, size_t count, const char *file) {
    char dir[512];
    temp_dir(dir, sizeof dir);
    struct rusage before;
    struct rusage after;
    (void)getrusage(RUSAGE_SELF, &before);
    for (size_t i = 0; i < count; i++) {
        run_case(dir, file, &cases[i]);
    }
    (void)getrusage(RUSAGE_SELF, &after);
    assert_true(after.ru_maxrss - before.ru_maxrss < 512 * 1024); /* KiB; ASan keeps freed memory */
    remove_dir(dir);
}

#endif
