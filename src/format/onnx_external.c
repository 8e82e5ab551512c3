/* onnx_external.c - where external data may lie. Owns: containment. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "format/onnx.h"
#include "io/fs.h"

/* "a/b.bin": relative, no step up, no separator of another system. */
static bool is_relative(const char *s) {
    if (s[0] == '\0' || s[0] == '/' || strchr(s, '\\') != NULL || strchr(s, ':') != NULL) {
        return false;
    }
    for (const char *p = s; p != NULL; p = strchr(p, '/')) {
        p += p == s ? 0 : 1;
        size_t n = strcspn(p, "/");
        if (n == 0 || (n == 2 && memcmp(p, "..", 2) == 0)) {
            return false;
        }
    }
    return true;
}

/* Both resolved. */
static bool is_below(const char *path, const char *dir) {
    size_t n = strlen(dir);
    return strncmp(path, dir, n) == 0 && (path[n] == '/' || (n > 0 && dir[n - 1] == '/'));
}

/* *out: nq_free(); NULL when there is no such file. */
static novaq_status resolve(char **out, const char *path, novaq_error *err) {
    char *real = realpath(path, NULL);
    *out = NULL;
    if (real == NULL) {
        return nq_fail_errno(err, NOVAQ_E_IO, errno, "%s: cannot open", path);
    }
    novaq_status st = nq_strdup(out, real, err);
    free(real);
    return st;
}

/* The folder of the file that `path` is, links resolved. */
static novaq_status real_folder(char **out, const char *path, novaq_error *err) {
    char *real = NULL;
    *out = NULL;
    NQ_TRY(resolve(&real, path, err));
    novaq_status st = nq_path_dir(out, real, err);
    nq_free(real);
    return st;
}

static novaq_status check_inside(const char *found, const char *dir, const char *path,
                                 const char *location, novaq_error *err) {
    char *folder = NULL;
    char *beside = NULL;
    novaq_status st = resolve(&folder, dir, err);
    if (st == NOVAQ_OK) {
        st = real_folder(&beside, path, err);
    }
    if (st == NOVAQ_OK && !is_below(found, folder) && !is_below(found, beside)) {
        st = nq_fail(err, NOVAQ_E_FORMAT,
                     "external data \"%.200s\" is a link out of the model's folder", location);
    }
    nq_free(folder);
    nq_free(beside);
    return st;
}

novaq_status nq_onnx_external_name(const char *location, novaq_error *err) {
    return is_relative(location)
               ? NOVAQ_OK
               : nq_fail(err, NOVAQ_E_FORMAT,
                         "external data \"%.200s\" is not a path inside the model's folder",
                         location);
}

novaq_status nq_onnx_external_path(char **out, const char *path, const char *location,
                                   novaq_error *err) {
    *out = NULL;
    NQ_TRY(nq_onnx_external_name(location, err));
    char *dir = NULL;
    char *joined = NULL;
    char *found = NULL;
    novaq_status st = nq_path_dir(&dir, path, err);
    if (st == NOVAQ_OK) {
        st = nq_path_join(&joined, dir, location, err);
    }
    if (st == NOVAQ_OK) {
        st = resolve(&found, joined, err);
    }
    if (st == NOVAQ_OK) {
        st = check_inside(found, dir, path, location, err);
    }
    nq_free(dir);
    nq_free(joined);
    if (st != NOVAQ_OK) {
        nq_free(found);
        return st;
    }
    *out = found;
    return NOVAQ_OK;
}
