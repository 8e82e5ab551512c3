/* files_probe.c - shows what io/files.h makes of a locator, for the tests in Python.
 *
 *   files_probe LOCATOR [COMMAND [NAME]]...
 *
 * Commands, in order, over one place: list (name, size, sha256 of each file), origin,
 * has NAME, text NAME (size and sha256 of it, or "absent"), read NAME (in pieces, in
 * order, then the verdict on its digest), mixed NAME (pieces from the end first, then in
 * order), head NAME (its first 16 bytes in hex), received. The first line of the output is
 * the locator as pinned, the second the chosen file. The exit status is minus the status of
 * what failed, its message on stderr. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hex.h"
#include "base/mem.h"
#include "base/sha256.h"
#include "io/files.h"

#define PIECE ((uint64_t)100003)

static novaq_status list(nq_files *f) {
    for (size_t i = 0; i < nq_files_count(f); i++) {
        const nq_file *e = nq_files_at(f, i);
        (void)printf("file %s %" PRIu64 " %s\n", e->name, e->size,
                     e->sha256 == NULL ? "-" : e->sha256);
    }
    return NOVAQ_OK;
}

static novaq_status origin(nq_files *f, novaq_error *err) {
    json_t *o = NULL;
    char *text = NULL;
    NQ_TRY(nq_files_origin(&o, f, err));
    novaq_status st = nq_json_dump(&text, o, 0, err);
    if (st == NOVAQ_OK) {
        (void)printf("origin %s\n", text);
    }
    nq_free(text);
    json_decref(o);
    return st;
}

static novaq_status text(nq_files *f, const char *name, novaq_error *err) {
    char *t = NULL;
    size_t len = 0;
    char hex[NQ_SHA256_HEX + 1];
    NQ_TRY(nq_files_text(&t, &len, f, name, (size_t)64 << 20, err));
    if (t == NULL) {
        (void)printf("text %s absent\n", name);
        return NOVAQ_OK;
    }
    novaq_status st = nq_sha256_of(hex, t, len, err);
    (void)printf("text %s %zu %s\n", name, len, hex);
    nq_free(t);
    return st;
}

static novaq_status read_in_order(char hex[NQ_SHA256_HEX + 1], nq_source *s, uint8_t *piece,
                                  novaq_error *err) {
    nq_sha256 *hash = NULL;
    NQ_TRY(nq_sha256_open(&hash, err));
    novaq_status st = NOVAQ_OK;
    nq_source_expect(s, 0, s->size);
    for (uint64_t at = 0; st == NOVAQ_OK && at < s->size; at += PIECE) {
        uint64_t n = s->size - at < PIECE ? s->size - at : PIECE;
        st = nq_source_read(s, at, piece, n, err);
        if (st == NOVAQ_OK) {
            nq_sha256_update(hash, piece, (size_t)n);
        }
    }
    if (st == NOVAQ_OK) {
        st = nq_sha256_finish(hex, hash, err);
    }
    nq_sha256_close(&hash);
    return st;
}

static novaq_status read_back(nq_source *s, uint8_t *piece, novaq_error *err) {
    for (uint64_t at = s->size / PIECE; at > 0; at--) {
        uint64_t n = s->size - at * PIECE < PIECE ? s->size - at * PIECE : PIECE;
        NQ_TRY(nq_source_read(s, at * PIECE, piece, n, err));
    }
    return NOVAQ_OK;
}

static novaq_status read_source(nq_source *s, const char *name, bool mixed, novaq_error *err) {
    uint8_t *piece = NULL;
    char hex[NQ_SHA256_HEX + 1];
    bool verified = false;
    NQ_TRY(nq_alloc(&piece, PIECE, 1, err));
    novaq_status st = mixed ? read_back(s, piece, err) : NOVAQ_OK;
    if (st == NOVAQ_OK) {
        st = read_in_order(hex, s, piece, err);
    }
    nq_free(piece);
    NQ_TRY(st);
    NQ_TRY(nq_source_verified(&verified, s, err));
    (void)printf("read %s %" PRIu64 " %s %s %s\n", name, s->size, hex,
                 verified ? "verified" : "unverified", s->remote ? "remote" : "local");
    return NOVAQ_OK;
}

static novaq_status head(nq_source *s, const char *name, novaq_error *err) {
    uint8_t bytes[16];
    char hex[2 * sizeof bytes + 1];
    uint64_t n = s->size < sizeof bytes ? s->size : sizeof bytes;
    NQ_TRY(nq_source_read(s, 0, bytes, n, err));
    nq_hex(hex, bytes, (size_t)n);
    (void)printf("head %s %s\n", name, hex);
    return NOVAQ_OK;
}

static novaq_status with_source(nq_files *f, const char *command, const char *name,
                                novaq_error *err) {
    nq_source *s = NULL;
    NQ_TRY(nq_files_source(&s, f, name, err));
    novaq_status st = strcmp(command, "head") == 0
                          ? head(s, name, err)
                          : read_source(s, name, strcmp(command, "mixed") == 0, err);
    nq_source_close(&s);
    return st;
}

static novaq_status with_name(nq_files *f, const char *command, const char *name,
                              novaq_error *err) {
    if (strcmp(command, "has") == 0) {
        bool has = false;
        NQ_TRY(nq_files_has(&has, f, name, err));
        (void)printf("has %s %s\n", name, has ? "yes" : "no");
        return NOVAQ_OK;
    }
    return strcmp(command, "text") == 0 ? text(f, name, err) : with_source(f, command, name, err);
}

static novaq_status obey(nq_files *f, int argc, char **argv, novaq_error *err) {
    for (int i = 2; i < argc; i++) {
        if (strcmp(argv[i], "list") == 0) {
            NQ_TRY(list(f));
        } else if (strcmp(argv[i], "origin") == 0) {
            NQ_TRY(origin(f, err));
        } else if (strcmp(argv[i], "received") == 0) {
            (void)printf("received %" PRIu64 "\n", nq_files_received(f));
        } else if (i + 1 < argc) {
            NQ_TRY(with_name(f, argv[i], argv[i + 1], err));
            i++;
        }
    }
    return NOVAQ_OK;
}

int main(int argc, char **argv) {
    if (argc < 2) {
        (void)fputs("usage: files_probe LOCATOR [COMMAND [NAME]]...\n", stderr);
        return 99;
    }
    novaq_error err = {NOVAQ_OK, ""};
    nq_files *f = NULL;
    novaq_status st = nq_files_open(&f, argv[1], &err);
    if (st == NOVAQ_OK) {
        const char *chosen = nq_files_chosen(f);
        (void)printf("locator %s\nchosen %s\n", nq_files_locator(f), chosen == NULL ? "-" : chosen);
        st = obey(f, argc, argv, &err);
    }
    if (st != NOVAQ_OK) {
        (void)fprintf(stderr, "%s: %s\n", novaq_status_name(st), err.msg);
    }
    nq_files_close(&f);
    return -(int)st;
}
