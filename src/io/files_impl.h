/* files_impl.h - what the kinds of places share. Private to io/files*, hf*, ollama*.
 *
 * Owns: the struct behind nq_files, its list, checks of names, percent-encoding.
 * Refuses: being included elsewhere.
 */
#ifndef NQ_IO_FILES_IMPL_H
#define NQ_IO_FILES_IMPL_H

#include "base/buf.h"
#include "io/files.h"
#include "io/http.h"

#define NQ_LIST_MAX      100000               /* files of one place */
#define NQ_FILE_SIZE_MAX ((uint64_t)1 << 50)  /* bytes anyone may claim for a file */
#define NQ_NAME_MAX      1024                 /* bytes of a name */
#define NQ_API_REPLY_MAX ((uint64_t)16 << 20) /* bytes of an answer that is not a file */

/* How a kind of place does its work. Names have been checked. */
typedef struct nq_place {
    novaq_status (*has)(bool *has, nq_files *f, const char *name, novaq_error *err);
    /* Without the check of the digest, which files.c adds. */
    novaq_status (*source)(nq_source **out, nq_files *f, const char *name, novaq_error *err);
    /* *text stays NULL where there is no such file. */
    novaq_status (*text)(char **text, size_t *len, nq_files *f, const char *name, size_t max,
                         novaq_error *err);
    void (*close)(void *state); /* may be NULL */
} nq_place;

struct nq_files {
    const nq_place *place;
    void *state; /* the place's own; NULL until it is complete */
    char *locator;
    char *chosen;
    char *dir;
    char *revision;          /* commit or digest, or NULL */
    nq_http *http;           /* NULL: no network */
    bool (*stop)(void *ctx); /* or NULL */
    void *stop_ctx;
    char *query;   /* what tells the chosen file's address from others like it, or NULL */
    nq_file *list; /* its strings are owned; sorted by name once the place is open */
    size_t count;
    size_t cap;
    json_t *opened; /* by name: what is known of the sources that were given out */
};

NOVAQ_CHECK novaq_status nq_local_open(nq_files *f, const char *path, novaq_error *err);
NOVAQ_CHECK novaq_status nq_url_open(nq_files *f, const char *url, novaq_error *err);
NOVAQ_CHECK novaq_status nq_hf_open(nq_files *f, const char *locator, novaq_error *err);
NOVAQ_CHECK novaq_status nq_ollama_open(nq_files *f, const char *locator, novaq_error *err);
/* Whether a web address is a page or file of a model of the Hub (of HF_ENDPOINT). */
bool nq_hf_is_web_address(const char *url);

/* Adds a file to the list, strings copied. sha256 may be NULL. */
NOVAQ_CHECK novaq_status nq_list_add(nq_files *f, const char *name, uint64_t size,
                                     const char *sha256, novaq_error *err);
/* Sorts; a name that is there twice is NOVAQ_E_FORMAT. */
NOVAQ_CHECK novaq_status nq_list_sort(nq_files *f, novaq_error *err);
/* NULL when absent. */
const nq_file *nq_list_find(const nq_files *f, const char *name);

/* Relative, without empty, "." and ".." parts, backslashes, control characters. */
bool nq_name_ok(const char *name);
/* What starts with a scheme, in any case: "hf://". */
bool nq_has_prefix(const char *s, const char *prefix);
/* A non-empty environment variable, or NULL; borrowed. */
const char *nq_env(const char *name);
/* The same, "~/" expanded; *out NULL when unset. */
NOVAQ_CHECK novaq_status nq_env_path(char **out, const char *name, novaq_error *err);

/* Appends s[0..len), percent-encoded but for unreserved characters and those of keep. */
NOVAQ_CHECK novaq_status nq_url_encode(nq_buf *b, const char *s, size_t len, const char *keep,
                                       novaq_error *err);
/* prefix + encoded name, slashes kept. */
NOVAQ_CHECK novaq_status nq_url_join(char **out, const char *prefix, const char *name,
                                     novaq_error *err);
/* s[0..len) with %XX resolved. NOVAQ_E_ARG: bad escapes, control characters. */
NOVAQ_CHECK novaq_status nq_url_decode(char **out, const char *s, size_t len, novaq_error *err);
/* A text of a server, for a message: one line, at most size - 1 characters. */
void nq_printable(char *out, size_t size, const char *s);
/* The same of an address, of which it leaves out names, passwords and the query. */
void nq_printable_url(char *out, size_t size, const char *url);

/* f->http, if it is not there yet. */
NOVAQ_CHECK novaq_status nq_files_network(nq_files *f, novaq_error *err);
/* A GET that follows redirects; the token goes to url's own origin only. The reply may be
 * larger than max where that is less than a MiB. */
NOVAQ_CHECK novaq_status nq_fetch(nq_http_reply *reply, nq_files *f, const char *url,
                                  const char *token, uint64_t max, novaq_error *err);
/* Whether text[0..len) is what the list promises of the file. */
NOVAQ_CHECK novaq_status nq_check_text(const nq_files *f, const nq_file *file, const char *text,
                                       size_t len, novaq_error *err);
/* A whole file of the list, checked like that. *text NULL and NOVAQ_OK: *reply, the caller's
 * in any case, has another status than 200. */
NOVAQ_CHECK novaq_status nq_fetch_text(char **text, size_t *len, nq_http_reply *reply, nq_files *f,
                                       const nq_file *file, const char *url, const char *token,
                                       novaq_error *err);
/* The whole of a copy on disk of a file of the list, checked like that. */
NOVAQ_CHECK novaq_status nq_read_copy(char **text, size_t *len, const nq_files *f,
                                      const nq_file *file, const char *path, novaq_error *err);

#endif
