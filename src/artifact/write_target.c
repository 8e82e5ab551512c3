/* write_target.c - see write.h: the files of an artifact that is being written.
 *
 * The partial file of what appears last (manifest or single file) is opened
 * first and locked: two writers never share a target. */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "artifact/write_impl.h"

static bool is_partial_of(const char *name, const char *start) {
    size_t n = strlen(name);
    return strncmp(name, start, strlen(start)) == 0 && n > 8 &&
           strcmp(name + n - 8, ".partial") == 0;
}

static bool is_ours(const char *name) {
    return nq_is_chunk_name(name) || strcmp(name, "manifest.json") == 0 ||
           is_partial_of(name, ".chunk-") || is_partial_of(name, ".manifest.json") ||
           is_partial_of(name, ".journal");
}

void nq_write_remove(const nq_writer *w, const char *name) {
    char *path = NULL;
    if (nq_path_join(&path, w->path, name, NULL) == NOVAQ_OK) {
        (void)unlink(path);
    }
    nq_free(path);
}

/* In a directory whose manifest.json is novaq's. */
static bool is_published(const nq_writer *w, const char *name) {
    char *path = NULL;
    nq_map m = {0};
    bool named = true; /* where it cannot be told */
    if (nq_path_join(&path, w->path, "manifest.json", NULL) != NOVAQ_OK) {
        return named;
    }
    if (!nq_is_file(path)) {
        named = false;
    } else if (nq_map_open(&m, path, NULL) == NOVAQ_OK) {
        named = memmem(m.data, (size_t)m.size, name, strlen(name)) != NULL;
        nq_map_close(&m);
    }
    nq_free(path);
    return named;
}

void nq_write_remove_chunk(const nq_writer *w, const char *name) {
    if (!is_published(w, name)) {
        nq_write_remove(w, name);
    }
}

novaq_status nq_write_chunk_path(char **out, const nq_writer *w, size_t index, novaq_error *err) {
    return nq_asprintf(out, err, "%s/chunk-%05zu.bin", w->path, index);
}

/* ---- directories ------------------------------------------------------------------ */

/* A directory may hold an artifact, leftovers of an interrupted run, or
 * nothing. */
static novaq_status check_dir(const char *path, char **names, size_t count, novaq_error *err) {
    for (size_t i = 0; i < count; i++) {
        if (!is_ours(names[i])) {
            return nq_fail(err, NOVAQ_E_ARG,
                           "%s: holds \"%s\", which is not part of an artifact; "
                           "choose an empty or "
                           "new directory",
                           path, names[i]);
        }
        if (strcmp(names[i], "manifest.json") == 0 && !nq_artifact_probe(path)) {
            return nq_fail(err, NOVAQ_E_ARG,
                           "%s: manifest.json is not novaq's; choose an empty or new directory",
                           path);
        }
    }
    return NOVAQ_OK;
}

/* A chunk file that this run has finished, or its partial file at work. */
static bool is_needed(const nq_writer *w, const char *name) {
    char known[NQ_CHUNK_NAME + 16];
    for (size_t i = 0; i < w->c.chunk_count; i++) {
        if (strcmp(name, nq_chunk_name(known, i, w->c.chunks[i].sha256)) == 0) {
            return true;
        }
    }
    (void)snprintf(known, sizeof known, ".chunk-%05zu.bin.partial", w->c.chunk_count);
    return w->open_chunk && strcmp(name, known) == 0;
}

/* Nobody else writes here, so other partial files are dead, and so are chunks
 * that no manifest can name. */
void nq_write_sweep(const nq_writer *w) {
    char **names = NULL;
    size_t count = 0;
    bool artifact = nq_artifact_probe(w->path);
    if (w->c.single_file || nq_list_dir(&names, &count, w->path, NULL) != NOVAQ_OK) {
        return;
    }
    for (size_t i = 0; i < count; i++) {
        bool chunk =
            is_partial_of(names[i], ".chunk-") || (!artifact && nq_is_chunk_name(names[i]));
        if (chunk && !is_needed(w, names[i])) {
            nq_write_remove(w, names[i]);
        }
    }
    nq_free_names(names, count);
}

static novaq_status open_dir(nq_writer *w, novaq_error *err) {
    if (nq_is_file(w->path)) {
        return nq_fail(err, NOVAQ_E_ARG, "%s: is a file; the directory form needs a directory",
                       w->path);
    }
    w->made_dir = !nq_is_dir(w->path);
    NQ_TRY(nq_make_dir(w->path, err));
    char **names = NULL;
    size_t count = 0;
    char *manifest = NULL;
    NQ_TRY(nq_list_dir(&names, &count, w->path, err));
    novaq_status st = check_dir(w->path, names, count, err);
    if (st == NOVAQ_OK) {
        st = nq_path_join(&manifest, w->path, "manifest.json", err);
    }
    if (st == NOVAQ_OK) {
        st = nq_outfile_open(&w->last, manifest, err);
    }
    nq_free(manifest);
    nq_free_names(names, count);
    return st;
}

/* ---- single files ----------------------------------------------------------------- */

static novaq_status open_single(nq_writer *w, novaq_error *err) {
    if (nq_is_dir(w->path) || (nq_is_file(w->path) && !nq_artifact_probe(w->path))) {
        return nq_fail(err, NOVAQ_E_ARG,
                       "%s: exists and is not a single-file artifact; choose another name",
                       w->path);
    }
    char *dir = NULL;
    NQ_TRY(nq_path_dir(&dir, w->path, err));
    novaq_status st = nq_make_dir(dir, err);
    if (st == NOVAQ_OK) {
        st = nq_asprintf(&w->data_path, err, "%s/.%s.data", dir, nq_path_base(w->path));
    }
    if (st == NOVAQ_OK) {
        st = nq_outfile_open(&w->last, w->path, err);
    }
    if (st == NOVAQ_OK) {
        st = nq_outfile_resume(&w->out, w->data_path, err);
    }
    nq_free(dir);
    return st;
}

/* ---- opening and closing ---------------------------------------------------------- */

/* The file beside the artifact will be replaced: it must be one of ours. */
static novaq_status check_origin(const char *artifact, novaq_error *err) {
    char *path = NULL;
    char *locator = NULL;
    struct stat there;
    NQ_TRY(nq_origin_path(&path, artifact, err));
    novaq_status st = NOVAQ_OK;
    if (path != NULL && lstat(path, &there) == 0 &&
        (nq_origin_read(&locator, NULL, path, NULL) != NOVAQ_OK || locator == NULL)) {
        st = nq_fail(err, NOVAQ_E_ARG,
                     "%s: is not novaq's, but would be replaced; move it away or choose another "
                     "output",
                     path);
    }
    nq_free(locator);
    nq_free(path);
    return st;
}

static void release(nq_writer *w) {
    nq_outfile_abort(&w->last); /* the lock goes last of all files */
    if (w->made_dir) {
        (void)rmdir(w->path); /* stays if there is something in it */
    }
    nq_map_close(&w->map);
    for (size_t i = 0; i < w->c.layer_count; i++) {
        nq_free((void *)(uintptr_t)w->c.layers[i].layer.name);
        json_decref((json_t *)(uintptr_t)w->c.layers[i].layer.diagnostics);
    }
    for (size_t i = 0; w->made != NULL && i < w->chunk_cap; i++) {
        nq_free(w->made[i]);
    }
    nq_contents_free(&w->c);
    nq_sha256_close(&w->sha);
    json_decref(w->notes);
    json_decref(w->source);
    json_decref(w->origin);
    nq_free(w->made);
    nq_free(w->origin_now);
    nq_free(w->data_path);
    nq_free(w->path);
    nq_free(w);
}

static novaq_status open_target(nq_writer *w, const char *path, novaq_error *err) {
    NQ_TRY(nq_strdup(&w->path, path, err));
    for (size_t n = strlen(path); n > 1 && w->path[n - 1] == '/'; n--) {
        w->path[n - 1] = '\0';
    }
    NQ_TRY(nq_sha256_open(&w->sha, err));
    NQ_TRY(check_origin(w->path, err));
    return w->c.single_file ? open_single(w, err) : open_dir(w, err);
}

/* After a failure to open: what an interrupted run left stays as it is, of what was
 * made just now nothing does. */
static void close_unopened(nq_writer *w) {
    if (w->out != NULL && nq_outfile_size(w->out) == 0) {
        nq_outfile_abort(&w->out);
    }
    if (w->journal.file != NULL && nq_outfile_size(w->journal.file) == 0) {
        nq_journal_remove(&w->journal);
    }
    nq_outfile_leave(&w->out);
    nq_journal_leave(&w->journal);
    release(w);
}

static novaq_status open_writer(nq_writer **out, nq_resumption *how, const char *path,
                                int single_file, const nq_writer_key *key, bool restart,
                                novaq_error *err) {
    *out = NULL;
    *how = NQ_RESUME_NONE;
    if (path == NULL || path[0] == '\0') {
        return nq_fail(err, NOVAQ_E_ARG, "no output path given");
    }
    nq_writer *w = NULL;
    NQ_TRY(nq_alloc(&w, 1, sizeof *w, err));
    w->c.single_file = single_file != 0;
    w->resumable = key != NULL;
    novaq_status st = open_target(w, path, err);
    if (st == NOVAQ_OK) {
        st = nq_write_resume_open(w, how, key, restart, err);
    }
    if (st != NOVAQ_OK) {
        close_unopened(w);
        return st;
    }
    *out = w;
    return NOVAQ_OK;
}

novaq_status nq_writer_open(nq_writer **out, const char *path, int single_file, novaq_error *err) {
    nq_resumption how;
    return open_writer(out, &how, path, single_file, NULL, true, err);
}

novaq_status nq_writer_open_resumable(nq_writer **out, nq_resumption *how, const char *path,
                                      int single_file, const nq_writer_key *key, bool restart,
                                      novaq_error *err) {
    return open_writer(out, how, path, single_file, key, restart, err);
}

novaq_status nq_writer_probe(const char *path, int single_file, novaq_error *err) {
    nq_writer *w = NULL;
    NQ_TRY(nq_alloc(&w, 1, sizeof *w, err));
    w->c.single_file = single_file != 0;
    novaq_status st = open_target(w, path, err);
    close_unopened(w);
    return st;
}

void nq_writer_abort(nq_writer **writer) {
    nq_writer *w = *writer;
    *writer = NULL;
    if (w == NULL) {
        return;
    }
    w->replaying = w->replaying && nq_write_settle(w, NULL) != NOVAQ_OK;
    nq_outfile_abort(&w->out);
    for (size_t i = 0; w->made != NULL && i < w->chunk_cap; i++) {
        if (w->made[i] != NULL) {
            nq_write_remove_chunk(w, nq_path_base(w->made[i]));
        }
    }
    nq_journal_remove(&w->journal);
    release(w);
}

bool nq_writer_leave(nq_writer **writer) {
    nq_writer *w = *writer;
    if (w == NULL) {
        return false;
    }
    bool worth = w->c.layer_count > 0 || json_object_size(w->notes) > 0 ||
                 (w->replaying && w->journal.count > 1);
    if (!w->resumable || !worth) {
        nq_writer_abort(writer);
        return false;
    }
    *writer = NULL;
    nq_outfile_leave(&w->out);
    nq_journal_leave(&w->journal);
    release(w);
    return true;
}
