/* files_local.c - a place in the file system.
 *
 * Owns: what a path stands for and how its files are named in messages: as the user
 * would name them. Links are followed (the caches of other tools consist of them); who
 * takes file names out of a model's content checks where links lead. Refuses: nothing
 * that the system does not refuse.
 */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "base/mem.h"
#include "io/files_impl.h"
#include "io/fs.h"

typedef struct local {
    bool bare; /* the folder is "." and was not named */
} local;

static novaq_status path_of(char **out, const nq_files *f, const char *name, novaq_error *err) {
    const local *l = f->state;
    return l->bare ? nq_strdup(out, name, err) : nq_path_join(out, f->dir, name, err);
}

static novaq_status local_has(bool *has, nq_files *f, const char *name, novaq_error *err) {
    char *path = NULL;
    NQ_TRY(path_of(&path, f, name, err));
    *has = nq_is_file(path);
    nq_free(path);
    return NOVAQ_OK;
}

static novaq_status local_source(nq_source **out, nq_files *f, const char *name, novaq_error *err) {
    char *path = NULL;
    NQ_TRY(path_of(&path, f, name, err));
    novaq_status st = nq_source_open_file(out, path, err);
    nq_free(path);
    return st;
}

static novaq_status local_text(char **text, size_t *len, nq_files *f, const char *name, size_t max,
                               novaq_error *err) {
    char *path = NULL;
    NQ_TRY(path_of(&path, f, name, err));
    struct stat st;
    novaq_status rc = NOVAQ_OK;
    /* Whatever is there but cannot be read is an error; pipes are refused, not waited for. */
    if (stat(path, &st) == 0 && !S_ISDIR(st.st_mode)) {
        rc = S_ISREG(st.st_mode) ? nq_read_file(text, len, path, max, err)
                                 : nq_fail(err, NOVAQ_E_IO, "%s: not a regular file", path);
    }
    nq_free(path);
    return rc;
}

static void local_close(void *state) { nq_free(state); }

static const nq_place local_place = {local_has, local_source, local_text, local_close};

/* The regular files of the folder itself; those of its folders are had by name. */
static novaq_status list_folder(nq_files *f, novaq_error *err) {
    char **names = NULL;
    size_t n = 0;
    NQ_TRY(nq_list_dir(&names, &n, f->dir, err));
    novaq_status st = NOVAQ_OK;
    for (size_t i = 0; st == NOVAQ_OK && i < n && f->count < NQ_LIST_MAX; i++) {
        char *path = NULL;
        struct stat s;
        st = nq_path_join(&path, f->dir, names[i], err);
        if (st == NOVAQ_OK && nq_name_ok(names[i]) && stat(path, &s) == 0 && S_ISREG(s.st_mode)) {
            st = nq_list_add(f, names[i], (uint64_t)s.st_size, NULL, err);
        }
        nq_free(path);
    }
    nq_free_names(names, n);
    return st;
}

/* Someone may have written the name of a model on the Hub without hf://. */
static bool looks_like_repository(const char *path) {
    const char *slash = strchr(path, '/');
    return slash != NULL && slash != path && slash[1] != '\0' && strchr(slash + 1, '/') == NULL &&
           path[0] != '.' && path[0] != '~';
}

static novaq_status no_such(const char *path, int why, novaq_error *err) {
    char *folder = NULL;
    NQ_TRY(nq_path_dir(&folder, path, err));
    bool advise = why == ENOENT && looks_like_repository(path) && !nq_is_dir(folder);
    nq_free(folder);
    if (advise) {
        return nq_fail(err, NOVAQ_E_IO,
                       "%s: cannot open: %s (for a model on the Hugging Face Hub write hf://%s)",
                       path, strerror(why), path);
    }
    return nq_fail_errno(err, NOVAQ_E_IO, why, "%s: cannot open", path);
}

novaq_status nq_local_open(nq_files *f, const char *path, novaq_error *err) {
    struct stat s;
    if (stat(path, &s) != 0) {
        return no_such(path, errno, err);
    }
    local *l = NULL;
    NQ_TRY(nq_alloc(&l, 1, sizeof *l, err));
    f->place = &local_place;
    f->state = l;
    NQ_TRY(nq_strdup(&f->locator, path, err));
    if (S_ISDIR(s.st_mode)) {
        NQ_TRY(nq_strdup(&f->dir, path, err));
        return list_folder(f, err);
    }
    l->bare = strchr(path, '/') == NULL;
    NQ_TRY(nq_path_dir(&f->dir, path, err));
    NQ_TRY(nq_strdup(&f->chosen, nq_path_base(path), err));
    novaq_error ignored;
    novaq_status st = list_folder(f, &ignored);
    /* The file can be had even where its folder cannot be listed. */
    return st == NOVAQ_E_MEMORY ? nq_fail(err, st, "%s: out of memory", path) : NOVAQ_OK;
}
