/* hf_impl.h - what the files of the Hugging Face Hub's client share. Private to io/hf*.
 *
 * Owns: what a locator says, what the environment says, the cache of other clients.
 */
#ifndef NQ_IO_HF_IMPL_H
#define NQ_IO_HF_IMPL_H

#include "io/files_impl.h"

#define NQ_HF_COMMIT 40 /* digits of a commit */

typedef struct nq_hf_locator {
    char *repo;     /* "org/name" or "name" */
    char *revision; /* branch, tag or commit; "main" where none is said */
    char *file;     /* or NULL */
} nq_hf_locator;

NOVAQ_CHECK novaq_status nq_hf_locator_parse(nq_hf_locator *out, const char *text,
                                             const char *endpoint, novaq_error *err);
void nq_hf_locator_free(nq_hf_locator *l);

typedef struct nq_hf_env {
    char *endpoint; /* without '/' at the end */
    char *token;    /* or NULL */
    char *cache;    /* folder of the cache, or NULL */
    bool offline;
} nq_hf_env;

NOVAQ_CHECK novaq_status nq_hf_env_read(nq_hf_env *out, novaq_error *err);
void nq_hf_env_free(nq_hf_env *e);

/* ---- the cache: only read --------------------------------------------------- */

/* The commit that a revision was when it was last fetched, or NULL. */
NOVAQ_CHECK novaq_status nq_hf_cache_commit(char **out, const char *cache, const char *repo,
                                            const char *revision, novaq_error *err);
/* A complete copy of a file of the list, or NULL. */
NOVAQ_CHECK novaq_status nq_hf_cache_file(char **out, const char *cache, const char *repo,
                                          const char *commit, const nq_file *file,
                                          novaq_error *err);
/* Lists what the cache has of a commit; none: nothing. */
NOVAQ_CHECK novaq_status nq_hf_cache_list(nq_files *f, const char *cache, const char *repo,
                                          const char *commit, novaq_error *err);

/* ---- refusals --------------------------------------------------------------- */

/* Why the Hub did not give what was asked for, with advice; never NOVAQ_OK. what: the
 * revision or file that was asked for, or NULL. */
novaq_status nq_hf_refused(const nq_http_reply *reply, const nq_hf_env *env, const char *repo,
                           const char *what, novaq_error *err);
/* There is no such file in the list; names what comes near. */
novaq_status nq_hf_no_file(const nq_files *f, const char *name, novaq_error *err);

#endif
