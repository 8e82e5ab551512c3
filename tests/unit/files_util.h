/* files_util.h - temporary trees of files and a clean environment, for the tests of
 * places. */
#ifndef NQ_TESTS_FILES_UTIL_H
#define NQ_TESTS_FILES_UTIL_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/mem.h"
#include "base/sha256.h"
#include "io/files.h"
#include "io/fs.h"

#define UNUSED __attribute__((unused))

static char root[512]; /* of the temporary tree; real path */

/* root/name, in one of a few buffers that take turns. */
UNUSED static const char *at(const char *name) {
    static char path[8][1200];
    static unsigned next;
    char *p = path[next++ % 8];
    (void)snprintf(p, sizeof path[0], "%s/%s", root, name);
    return p;
}

UNUSED static void make_file(const char *name, const char *content) {
    char *dir = NULL;
    assert_int_equal(nq_path_dir(&dir, at(name), NULL), NOVAQ_OK);
    assert_int_equal(nq_make_dir(dir, NULL), NOVAQ_OK);
    assert_int_equal(nq_write_file(at(name), content, strlen(content), NULL), NOVAQ_OK);
    nq_free(dir);
}

UNUSED static void make_link(const char *name, const char *target) {
    char *dir = NULL;
    assert_int_equal(nq_path_dir(&dir, at(name), NULL), NOVAQ_OK);
    assert_int_equal(nq_make_dir(dir, NULL), NOVAQ_OK);
    assert_int_equal(symlink(target, at(name)), 0);
    nq_free(dir);
}

/* The tree and the environment start empty in each test. */
UNUSED static int make_root(void **state) {
    static const char *const names[] = {"HF_TOKEN",
                                        "HUGGINGFACE_HUB_TOKEN",
                                        "HUGGINGFACE_TOKEN",
                                        "HUGGING_FACE_HUB_TOKEN",
                                        "HF_TOKEN_PATH",
                                        "HF_HUB_DISABLE_IMPLICIT_TOKEN",
                                        "HF_ENDPOINT",
                                        "HF_HOME",
                                        "HF_HUB_CACHE",
                                        "HUGGINGFACE_HUB_CACHE",
                                        "XDG_CACHE_HOME",
                                        "HF_HUB_OFFLINE",
                                        "TRANSFORMERS_OFFLINE",
                                        "OLLAMA_MODELS"};
    (void)state;
    const char *base = getenv("TMPDIR");
    char made[256];
    (void)snprintf(made, sizeof made, "%s/novaq-test-XXXXXX",
                   base == NULL || base[0] == '\0' ? "/tmp" : base);
    if (mkdtemp(made) == NULL) {
        return -1;
    }
    char *real = realpath(made, NULL);
    if (real == NULL) {
        return -1;
    }
    (void)snprintf(root, sizeof root, "%s", real);
    free(real);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        (void)unsetenv(names[i]);
    }
    return setenv("HOME", at("home"), 1);
}

static void remove_tree(const char *path) {
    struct stat s;
    assert_int_equal(lstat(path, &s), 0);
    if (!S_ISDIR(s.st_mode)) {
        assert_int_equal(unlink(path), 0);
        return;
    }
    char **names = NULL;
    size_t n = 0;
    assert_int_equal(nq_list_dir(&names, &n, path, NULL), NOVAQ_OK);
    for (size_t i = 0; i < n; i++) {
        char *inner = NULL;
        assert_int_equal(nq_path_join(&inner, path, names[i], NULL), NOVAQ_OK);
        remove_tree(inner);
        nq_free(inner);
    }
    nq_free_names(names, n);
    assert_int_equal(rmdir(path), 0);
}

UNUSED static int drop_root(void **state) {
    (void)state;
    remove_tree(root);
    return 0;
}

UNUSED static nq_files *open_ok(const char *locator) {
    nq_files *f = NULL;
    novaq_error err = {NOVAQ_OK, ""};
    if (nq_files_open(&f, locator, &err) != NOVAQ_OK) {
        fail_msg("%s: %s", locator, err.msg);
    }
    return f;
}

/* That it is refused so, with a message that has these words. */
UNUSED static void open_bad(const char *locator, novaq_status want, const char *says) {
    nq_files *f = NULL;
    novaq_error err = {NOVAQ_OK, ""};
    novaq_status st = nq_files_open(&f, locator, &err);
    assert_null(f);
    if (st != want || strstr(err.msg, says) == NULL) {
        fail_msg("%s: %d, \"%s\"; wanted %d, \"%s\"", locator, (int)st, err.msg, (int)want, says);
    }
}

UNUSED static void expect_text(nq_files *f, const char *name, const char *want) {
    char *text = NULL;
    size_t len = 0;
    novaq_error err = {NOVAQ_OK, ""};
    if (nq_files_text(&text, &len, f, name, 1 << 20, &err) != NOVAQ_OK) {
        fail_msg("%s: %s", name, err.msg);
    }
    if (want == NULL) {
        assert_null(text);
    } else {
        assert_non_null(text);
        assert_string_equal(text, want);
        assert_int_equal(len, strlen(want));
    }
    nq_free(text);
}

/* Reads all of a file; the verdict on its digest. */
UNUSED static novaq_status read_all_of(nq_files *f, const char *name, const char *want,
                                       bool *verified, novaq_error *err) {
    nq_source *s = NULL;
    char got[1024] = "";
    NQ_TRY(nq_files_source(&s, f, name, err));
    assert_true(s->size < sizeof got);
    novaq_status st = nq_source_read(s, 0, got, s->size, err);
    if (st == NOVAQ_OK) {
        assert_string_equal(got, want);
        st = nq_source_verified(verified, s, err);
    }
    nq_source_close(&s);
    return st;
}

#endif
