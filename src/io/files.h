/* files.h - the files of one model, wherever they live.
 *
 * Owns: what a locator means, one list of named files, opening them:
 *   PATH                           a file, or a directory (one of its files, or a choice)
 *   hf://ORG/NAME[@REV][/FILE]     Hugging Face Hub; the revision is pinned to a commit
 *   ollama://[HOST/][NS/]NAME[:TAG]  the local store, else the registry
 *   http://..., https://...        one file; others of its folder by name
 * Refuses: names that leave the place (absolute, "..", backslashes, control
 * characters), knowing formats.
 *
 * Threads: nq_files_stop() from any thread; opened sources as source.h says; the rest
 * by one thread at a time.
 */
#ifndef NQ_IO_FILES_H
#define NQ_IO_FILES_H

#include "base/json.h"
#include "io/source.h"

#define NQ_SIZE_UNKNOWN UINT64_MAX

typedef struct nq_files nq_files;

typedef struct nq_file {
    const char *name;   /* relative to the place, '/' between folders */
    uint64_t size;      /* bytes, or NQ_SIZE_UNKNOWN */
    const char *sha256; /* 64 hex digits of its content, where the place promises one */
} nq_file;

/* Opens the place: for the Hub resolves the revision and lists the files, for Ollama
 * reads the manifest, for a path looks only. Environment variables that apply are
 * listed in docs/STREAMING.md. NOVAQ_E_NETWORK: unreachable, refused (with advice). */
NOVAQ_CHECK novaq_status nq_files_open(nq_files **out, const char *locator, novaq_error *err);
/* The same. stop is asked in every step of every exchange and while waiting, now and of all
 * its sources later, by any thread: true ends them with NOVAQ_E_INTERRUPTED. NULL: never. */
NOVAQ_CHECK novaq_status nq_files_open_with(nq_files **out, const char *locator,
                                            bool (*stop)(void *ctx), void *ctx, novaq_error *err);
void nq_files_close(nq_files **f);
/* A locator of another place than the file system ("hf://", "https://", ...). */
bool nq_is_remote(const char *locator);

/* The locator with the revision pinned: "hf://org/name@<commit>/file". */
const char *nq_files_locator(const nq_files *f);
/* The file the locator named, or NULL: the place as a whole. */
const char *nq_files_chosen(const nq_files *f);
/* The directory of a place on disk, else NULL. */
const char *nq_files_dir(const nq_files *f);
/* All files, sorted by name; 0 where the place cannot list (http). */
size_t nq_files_count(const nq_files *f);
const nq_file *nq_files_at(const nq_files *f, size_t i);
/* Whether there is a file of this name; asks the server where there is no list. */
NOVAQ_CHECK novaq_status nq_files_has(bool *has, nq_files *f, const char *name, novaq_error *err);
/* Opens one. A promised SHA-256 is checked while it is read, see nq_source_verified(). */
NOVAQ_CHECK novaq_status nq_files_source(nq_source **out, nq_files *f, const char *name,
                                         novaq_error *err);
/* A whole small file, at most max bytes, NUL-terminated beyond *len. *text NULL and
 * NOVAQ_OK where there is none of this name. *text: nq_free(). */
NOVAQ_CHECK novaq_status nq_files_text(char **text, size_t *len, nq_files *f, const char *name,
                                       size_t max, novaq_error *err);
/* Ends running and later transfers of all its sources with NOVAQ_E_INTERRUPTED. */
void nq_files_stop(nq_files *f);
/* What is known of where it came from: {"locator", "revision", "files": {name: {"size",
 * "sha256", "etag", "modified", "query_blake3"}}}, of the last four what is known and
 * needed. *out is the caller's. */
NOVAQ_CHECK novaq_status nq_files_origin(json_t **out, const nq_files *f, novaq_error *err);
/* Bytes that came over the network so far, of all its sources. Thread-safe. */
uint64_t nq_files_received(const nq_files *f);

/* After the last read of a source that nq_files_source() gave: *verified when all its
 * bytes went by in order and their SHA-256 is the promised one; false when nothing was
 * promised or not all was read. NOVAQ_E_VERIFY when it is another one. Small gaps that
 * no tensor needs (headers, padding) are read to close them. */
NOVAQ_CHECK novaq_status nq_source_verified(bool *verified, nq_source *s, novaq_error *err);

#endif
