/* fs.h - files and directories, durably.
 *
 * Owns: temp + fsync + rename writing, whole small files, directory listing,
 * read-only mapping. Refuses: following a half-written file.
 */
#ifndef NQ_IO_FS_H
#define NQ_IO_FS_H

#include <stdbool.h>

#include "base/buf.h"

/* A file being written under PATH's directory as ".NAME.partial"; it becomes
 * PATH only by commit. */
typedef struct nq_outfile nq_outfile;

NOVAQ_CHECK novaq_status nq_outfile_open(nq_outfile **out, const char *path, novaq_error *err);
/* The same, and what a run before left in the partial file stays: it is the file's
 * first nq_outfile_size() bytes. */
NOVAQ_CHECK novaq_status nq_outfile_resume(nq_outfile **out, const char *path, novaq_error *err);
NOVAQ_CHECK novaq_status nq_outfile_write(nq_outfile *f, const void *data, uint64_t len,
                                          novaq_error *err);
/* Overwrites bytes already written (headers known only at the end). */
NOVAQ_CHECK novaq_status nq_outfile_pwrite(nq_outfile *f, uint64_t offset, const void *data,
                                           uint64_t len, novaq_error *err);
uint64_t nq_outfile_size(const nq_outfile *f);
/* Exactly len bytes at offset of what was written. */
NOVAQ_CHECK novaq_status nq_outfile_read(nq_outfile *f, uint64_t offset, void *dst, uint64_t len,
                                         novaq_error *err);
/* Drops all bytes from size on. */
NOVAQ_CHECK novaq_status nq_outfile_truncate(nq_outfile *f, uint64_t size, novaq_error *err);
/* What was written so far survives a loss of power. */
NOVAQ_CHECK novaq_status nq_outfile_sync(nq_outfile *f, novaq_error *err);
/* fsync, rename to `path` (NULL: the path given at open; it may name another file of
 * the same directory), fsync the directory, close: the lock goes last. Consumes *f. */
NOVAQ_CHECK novaq_status nq_outfile_commit(nq_outfile **f, const char *path, novaq_error *err);
/* Closes and unlinks the partial file. NULL is fine. */
void nq_outfile_abort(nq_outfile **f);
/* Closes; the partial file stays, for nq_outfile_resume(). NULL is fine. */
void nq_outfile_leave(nq_outfile **f);

/* The whole file, at most max bytes, NUL-terminated beyond *len. */
NOVAQ_CHECK novaq_status nq_read_file(char **out, size_t *len, const char *path, size_t max,
                                      novaq_error *err);
/* Writes a whole file by temp + fsync + rename. */
NOVAQ_CHECK novaq_status nq_write_file(const char *path, const void *data, size_t len,
                                       novaq_error *err);
bool nq_is_dir(const char *path);
bool nq_is_file(const char *path);
/* Creates a directory (parents too); an existing one is fine. */
NOVAQ_CHECK novaq_status nq_make_dir(const char *path, novaq_error *err);
/* Sorted names of the entries of a directory (without "." and ".."). */
NOVAQ_CHECK novaq_status nq_list_dir(char ***names, size_t *count, const char *path,
                                     novaq_error *err);
void nq_free_names(char **names, size_t count);
/* dir + "/" + name. */
NOVAQ_CHECK novaq_status nq_path_join(char **out, const char *dir, const char *name,
                                      novaq_error *err);
/* The directory part ("." if none). */
NOVAQ_CHECK novaq_status nq_path_dir(char **out, const char *path, novaq_error *err);
/* Borrowed pointer to what follows the last '/'. */
const char *nq_path_base(const char *path);

/* Bytes that may still be written to the file system of path, or of the nearest
 * folder above it that exists; UINT64_MAX when it does not say. */
uint64_t nq_space_left(const char *path);

/* A file mapped read-only. */
typedef struct nq_map {
    const uint8_t *data;
    uint64_t size;
} nq_map;
NOVAQ_CHECK novaq_status nq_map_open(nq_map *out, const char *path, novaq_error *err);
void nq_map_close(nq_map *m);
/* Bytes [begin, end) need not stay in memory; they are read again when touched. */
void nq_map_drop(const nq_map *m, uint64_t begin, uint64_t end);

/* Large scratch, zeroed. on_disk: a temporary file without a name (in TMPDIR, else
 * /var/tmp), whose space is reserved at once, mapped; the system keeps of it in
 * memory what fits. Otherwise plain memory. */
typedef struct nq_scratch {
    void *data;
    uint64_t size;
    bool mapped;
} nq_scratch;
NOVAQ_CHECK novaq_status nq_scratch_open(nq_scratch *out, uint64_t size, bool on_disk,
                                         novaq_error *err);
void nq_scratch_close(nq_scratch *s);

/* A fresh folder in dir, named by pattern (its last six characters are XXXXXX). *out
 * goes to nq_temp_folder_remove(). */
NOVAQ_CHECK novaq_status nq_temp_folder(char **out, const char *dir, const char *pattern,
                                        novaq_error *err);
/* Removes the folder and the files in it, whatever a failure left there too; frees
 * *folder and nulls it. NULL is fine. */
void nq_temp_folder_remove(char **folder);

#endif
