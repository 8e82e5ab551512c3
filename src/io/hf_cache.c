/* hf_cache.c - the cache that the Hub's other clients keep.
 *
 * Layout: models--ORG--NAME/{refs/REVISION (a commit), snapshots/COMMIT/FILE (links to
 * blobs), blobs/ETAG}; files on their way end in ".incomplete". Owns: finding complete
 * files there. Refuses: writing there, files of another size than the Hub lists.
 */
#include <string.h>
#include <sys/stat.h>

#include "base/hex.h"
#include "base/mem.h"
#include "io/fs.h"
#include "io/hf_impl.h"

#define DEPTH_MAX 16 /* folders inside folders */

/* cache/models--org--name/rest. */
static novaq_status path_in(char **out, const char *cache, const char *repo, const char *rest,
                            novaq_error *err) {
    const char *slash = strchr(repo, '/');
    int org = slash == NULL ? 0 : (int)(slash - repo);
    return nq_asprintf(out, err, "%s/models--%.*s%s%s/%s", cache, org, repo,
                       slash == NULL ? "" : "--", slash == NULL ? repo : slash + 1, rest);
}

static bool size_of_file(uint64_t *size, const char *path) {
    struct stat s;
    bool ok = stat(path, &s) == 0 && S_ISREG(s.st_mode);
    *size = ok ? (uint64_t)s.st_size : 0;
    return ok;
}

novaq_status nq_hf_cache_commit(char **out, const char *cache, const char *repo,
                                const char *revision, novaq_error *err) {
    *out = NULL;
    if (nq_is_hex(revision, NQ_HF_COMMIT) && revision[NQ_HF_COMMIT] == '\0') {
        return nq_strdup(out, revision, err);
    }
    if (cache == NULL) {
        return NOVAQ_OK;
    }
    char *refs = NULL;
    char *path = NULL;
    char *text = NULL;
    size_t len = 0;
    NQ_TRY(path_in(&refs, cache, repo, "refs", err));
    novaq_status st = nq_path_join(&path, refs, revision, err);
    if (st == NOVAQ_OK && nq_is_file(path)) {
        st = nq_read_file(&text, &len, path, 256, err);
    }
    if (st == NOVAQ_OK && text != NULL) {
        text[strcspn(text, " \t\r\n")] = '\0';
        if (strlen(text) == NQ_HF_COMMIT && nq_is_hex(text, NQ_HF_COMMIT)) {
            *out = text;
            text = NULL;
        }
    }
    nq_free(text);
    nq_free(path);
    nq_free(refs);
    return st;
}

/* Keeps *out where it is a file of that size, else frees and nulls it. */
static void keep_complete(char **out, uint64_t want) {
    uint64_t size = 0;
    if (*out != NULL && (!size_of_file(&size, *out) || size != want)) {
        nq_free(*out);
        *out = NULL;
    }
}

novaq_status nq_hf_cache_file(char **out, const char *cache, const char *repo, const char *commit,
                              const nq_file *file, novaq_error *err) {
    *out = NULL;
    char *rest = NULL;
    if (cache == NULL) {
        return NOVAQ_OK;
    }
    NQ_TRY(nq_asprintf(&rest, err, "snapshots/%s/%s", commit, file->name));
    novaq_status st = path_in(out, cache, repo, rest, err);
    nq_free(rest);
    NQ_TRY(st);
    keep_complete(out, file->size);
    /* The same content may be there from another commit. */
    if (*out == NULL && file->sha256 != NULL) {
        NQ_TRY(nq_asprintf(&rest, err, "blobs/%s", file->sha256));
        st = path_in(out, cache, repo, rest, err);
        nq_free(rest);
        keep_complete(out, file->size);
    }
    return st;
}

/* ---- listing ---------------------------------------------------------------- */

static novaq_status list_under(nq_files *f, const char *root, const char *under, unsigned depth,
                               novaq_error *err);

/* under: "" or "folder/". */
static novaq_status list_entry(nq_files *f, const char *root, const char *under, const char *entry,
                               unsigned depth, novaq_error *err) {
    char *name = NULL;
    char *path = NULL;
    NQ_TRY(nq_asprintf(&name, err, "%s%s", under, entry));
    novaq_status st = nq_path_join(&path, root, name, err);
    uint64_t size = 0;
    if (st == NOVAQ_OK && nq_name_ok(name)) {
        if (size_of_file(&size, path)) {
            st = nq_list_add(f, name, size, NULL, err);
        } else if (nq_is_dir(path) && depth < DEPTH_MAX) {
            char *deeper = NULL;
            st = nq_asprintf(&deeper, err, "%s/", name);
            if (st == NOVAQ_OK) {
                st = list_under(f, root, deeper, depth + 1, err);
            }
            nq_free(deeper);
        }
    }
    nq_free(path);
    nq_free(name);
    return st;
}

static novaq_status list_under(nq_files *f, const char *root, const char *under, unsigned depth,
                               novaq_error *err) {
    char *path = NULL;
    char **names = NULL;
    size_t n = 0;
    NQ_TRY(nq_path_join(&path, root, under, err));
    novaq_status st = nq_list_dir(&names, &n, path, err);
    nq_free(path);
    for (size_t i = 0; st == NOVAQ_OK && i < n; i++) {
        st = list_entry(f, root, under, names[i], depth, err);
    }
    nq_free_names(names, n);
    return st;
}

novaq_status nq_hf_cache_list(nq_files *f, const char *cache, const char *repo, const char *commit,
                              novaq_error *err) {
    char *rest = NULL;
    char *root = NULL;
    if (cache == NULL) {
        return NOVAQ_OK;
    }
    NQ_TRY(nq_asprintf(&rest, err, "snapshots/%s", commit));
    novaq_status st = path_in(&root, cache, repo, rest, err);
    if (st == NOVAQ_OK && nq_is_dir(root)) {
        st = list_under(f, root, "", 0, err);
    }
    nq_free(root);
    nq_free(rest);
    return st;
}
