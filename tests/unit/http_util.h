/* http_util.h - starting tests/python/fault_server.py, and what its files contain. */
#ifndef HTTP_UTIL_H
#define HTTP_UTIL_H

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/mem.h"
#include "io/http.h"

#define FAULT_SIZE 1000000u

typedef struct fault_server {
    pid_t pid;
    int to; /* its standard input: closing it ends it */
    unsigned plain, other, tls, closed;
    char folder[64];
} fault_server;

static fault_server server;

static void server_run(int in, int out) {
    (void)dup2(in, 0);
    (void)dup2(out, 1);
    for (int fd = 3; fd < 64; fd++) {
        (void)close(fd);
    }
    (void)execlp("python3", "python3", FIXTURES "/../python/fault_server.py", server.folder,
                 (char *)NULL);
    _exit(127);
}

/* Patience is short in these tests. Group set-up; python3 must be there. */
static int server_start(void **state) {
    (void)state;
    int in[2], out[2];
    (void)snprintf(server.folder, sizeof server.folder, "/tmp/novaq-http.XXXXXX");
    if (mkdtemp(server.folder) == NULL || pipe(in) != 0 || pipe(out) != 0) {
        return -1;
    }
    server.pid = fork();
    if (server.pid == 0) {
        server_run(in[0], out[1]);
    }
    (void)close(in[0]);
    (void)close(out[1]);
    server.to = in[1];
    FILE *from = fdopen(out[0], "r");
    bool ok =
        server.pid > 0 && from != NULL &&
        fscanf(from, "%u %u %u %u", &server.plain, &server.other, &server.tls, &server.closed) == 4;
    if (from != NULL) {
        (void)fclose(from);
    }
    (void)setenv("NOVAQ_HTTP_RETRIES", "1", 1);
    (void)setenv("NOVAQ_HTTP_STALL", "1.5", 1);
    (void)setenv("NOVAQ_HTTP_CONNECT", "10", 1);
    (void)setenv("no_proxy", "*", 1);
    (void)unsetenv("SSL_CERT_FILE");
    return ok ? 0 : -1;
}

static int server_stop(void **state) {
    (void)state;
    (void)close(server.to);
    int status = 0;
    (void)waitpid(server.pid, &status, 0);
    char path[128];
    const char *const left[] = {"cert.pem", "key.pem"};
    for (size_t i = 0; i < 2; i++) {
        (void)snprintf(path, sizeof path, "%s/%s", server.folder, left[i]);
        (void)unlink(path);
    }
    return rmdir(server.folder);
}

static inline void url_of(char *buf, size_t size, unsigned port, const char *path) {
    (void)snprintf(buf, size, "http://127.0.0.1:%u/%s", port, path);
}

/* Whether p[0..n) are the bytes of a file at `offset`. */
static inline bool content_ok(const uint8_t *p, uint64_t offset, uint64_t n) {
    for (uint64_t k = 0; k < n; k++) {
        uint64_t i = offset + k;
        if (p[k] != (uint8_t)(i * 131 + (i >> 8) * 31)) {
            return false;
        }
    }
    return true;
}

static inline nq_http *open_http(void) {
    nq_http *h = NULL;
    novaq_error err = {0};
    if (nq_http_open(&h, &err) != NOVAQ_OK) {
        fail_msg("%s", err.msg);
    }
    return h;
}

/* What the server saw of /path: "connections N\n", then a line per request. nq_free(). */
static inline char *log_of(unsigned port, const char *path) {
    nq_http *h = open_http();
    char url[256];
    (void)snprintf(url, sizeof url, "http://127.0.0.1:%u/log/%s", port, path);
    nq_http_request r = {.url = url, .max = 1 << 20};
    nq_http_reply reply;
    novaq_error err = {0};
    if (nq_http_get(&reply, h, &r, &err) != NOVAQ_OK) {
        fail_msg("%s", err.msg);
    }
    char *text = reply.body;
    reply.body = NULL;
    nq_http_reply_free(&reply);
    nq_http_close(&h);
    return text;
}

static inline unsigned count_lines(const char *text) {
    unsigned n = 0;
    for (; *text != '\0'; text++) {
        n += *text == '\n';
    }
    return n;
}

/* Requests for /path, and the connections they came by. */
static inline void count_of(unsigned *asked, unsigned *connected, const char *path) {
    char *text = log_of(server.plain, path);
    assert_int_equal(sscanf(text, "connections %u", connected), 1);
    *asked = count_lines(text) - 1;
    nq_free(text);
}

static inline double seconds(void) {
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

#endif
