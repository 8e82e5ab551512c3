/* hf.c - a model on the Hugging Face Hub.
 *
 * Owns: pinning a revision to a commit, the list of files (with the SHA-256 of those in
 * large file storage), where each file is had from: the cache of other clients where it
 * is complete there, else the Hub. Refuses: what the Hub's list says of sizes, digests
 * and names unless it is plausible; following its pages to another host.
 */
#include <string.h>

#include "base/hex.h"
#include "base/mem.h"
#include "base/sha256.h"
#include "io/hf_impl.h"

#define PAGES_MAX 1000 /* of the list of files */

typedef struct hub {
    nq_hf_env env;
    nq_hf_locator asked;
    const char *commit; /* files->revision, borrowed */
    char *resolve;      /* "ENDPOINT/REPO/resolve/COMMIT/" */
    bool admitted;      /* the Hub gives files of this repository to us */
} hub;

/* ---- asking the API --------------------------------------------------------- */

/* env->endpoint/api/models/REPO/KIND/REV?QUERY. */
static novaq_status api_url(char **out, const hub *h, const char *kind, const char *revision,
                            const char *query, novaq_error *err) {
    char *prefix = NULL;
    size_t len = 0;
    *out = NULL;
    NQ_TRY(nq_asprintf(&prefix, err, "%s/api/models/%s/%s/", h->env.endpoint, h->asked.repo, kind));
    nq_buf b = nq_buf_init(8192);
    novaq_status st = nq_buf_puts(&b, prefix, err);
    if (st == NOVAQ_OK) {
        st = nq_url_encode(&b, revision, strlen(revision), "", err);
    }
    if (st == NOVAQ_OK) {
        st = nq_buf_puts(&b, query, err);
    }
    if (st == NOVAQ_OK) {
        st = nq_buf_take(&b, out, &len, err);
    }
    nq_buf_free(&b);
    nq_free(prefix);
    return st;
}

/* 200 and JSON, or why not. *next: where the list goes on, or NULL. */
static novaq_status ask(json_t **out, nq_http_reply *reply, nq_files *f, const hub *h,
                        const char *url, novaq_error *err) {
    *out = NULL;
    NQ_TRY(nq_fetch(reply, f, url, h->env.token, NQ_API_REPLY_MAX, err));
    if (reply->status != 200) {
        return nq_hf_refused(reply, &h->env, h->asked.repo, h->asked.revision, err);
    }
    return nq_json_parse(out, url, reply->body, reply->len, err);
}

static bool is_commit(const char *s) {
    return strlen(s) == NQ_HF_COMMIT && nq_is_hex(s, NQ_HF_COMMIT);
}

static novaq_status commit_of_reply(nq_files *f, const json_t *reply, const char *url,
                                    novaq_error *err) {
    const char *sha = NULL;
    NQ_TRY(nq_json_get_string(&sha, reply, "sha", url, err));
    return is_commit(sha) ? nq_strdup(&f->revision, sha, err)
                          : nq_fail(err, NOVAQ_E_FORMAT, "%s: \"sha\" is not a commit", url);
}

/* A transfer that failed altogether may be replaced by what is in the cache, if the user
 * wants that. */
static novaq_status advise_cache(const hub *h, novaq_status st, novaq_error *err) {
    char *commit = NULL;
    novaq_status rc =
        nq_hf_cache_commit(&commit, h->env.cache, h->asked.repo, h->asked.revision, NULL);
    bool cached = rc == NOVAQ_OK && commit != NULL;
    nq_free(commit);
    return cached && err != NULL
               ? nq_fail(err, st,
                         "%.380s (the cache has this model: HF_HUB_OFFLINE=1 uses what is there)",
                         err->msg)
               : st;
}

static novaq_status find_commit(nq_files *f, hub *h, novaq_error *err) {
    if (is_commit(h->asked.revision)) {
        return nq_strdup(&f->revision, h->asked.revision, err);
    }
    char *url = NULL;
    json_t *json = NULL;
    nq_http_reply reply = {0};
    NQ_TRY(api_url(&url, h, "revision", h->asked.revision, "", err));
    novaq_status st = ask(&json, &reply, f, h, url, err);
    if (st == NOVAQ_E_NETWORK && reply.status == 0) {
        st = advise_cache(h, st, err);
    }
    if (st == NOVAQ_OK) {
        st = commit_of_reply(f, json, url, err);
    }
    json_decref(json);
    nq_http_reply_free(&reply);
    nq_free(url);
    return st;
}

/* ---- the list ----------------------------------------------------------------- */

static novaq_status bad_entry(const char *url, const char *name, const char *why,
                              novaq_error *err) {
    char shown[161];
    nq_printable(shown, sizeof shown, name);
    return nq_fail(err, NOVAQ_E_FORMAT, "%.160s: the list of files is not credible: \"%s\": %s",
                   url, shown, why);
}

static novaq_status digest_of_entry(const char **sha256, const json_t *lfs, uint64_t size,
                                    const char *name, const char *url, novaq_error *err) {
    *sha256 = NULL;
    if (!json_is_object(lfs)) {
        return NOVAQ_OK; /* in git itself */
    }
    uint64_t lfs_size = 0;
    NQ_TRY(nq_json_get_string(sha256, lfs, "oid", name, err));
    NQ_TRY(nq_json_get_u64(&lfs_size, lfs, "size", name, err));
    const char *colon = strchr(*sha256, ':'); /* "sha256:" in front is allowed */
    *sha256 = colon != NULL && strncmp(*sha256, "sha256:", 7) == 0 ? colon + 1 : *sha256;
    if (strlen(*sha256) != NQ_SHA256_HEX || !nq_is_hex(*sha256, NQ_SHA256_HEX)) {
        return bad_entry(url, name, "its SHA-256 is not one", err);
    }
    return lfs_size == size ? NOVAQ_OK : bad_entry(url, name, "two sizes", err);
}

static novaq_status add_entry(nq_files *f, const json_t *entry, const char *url, novaq_error *err) {
    const char *type = NULL;
    const char *name = NULL;
    const char *sha256 = NULL;
    uint64_t size = 0;
    NQ_TRY(nq_json_get_string(&type, entry, "type", url, err));
    NQ_TRY(nq_json_get_string(&name, entry, "path", url, err));
    if (strcmp(type, "file") != 0) {
        return NOVAQ_OK; /* folders are told of, too */
    }
    if (!nq_name_ok(name)) {
        return NOVAQ_OK; /* never asked for under such a name */
    }
    NQ_TRY(nq_json_get_u64(&size, entry, "size", name, err));
    if (size > NQ_FILE_SIZE_MAX) {
        return bad_entry(url, name, "larger than any file", err);
    }
    NQ_TRY(digest_of_entry(&sha256, json_object_get(entry, "lfs"), size, name, url, err));
    return nq_list_add(f, name, size, sha256, err);
}

/* The address in one line "link: <ADDRESS>; rel="next"", or NULL; borrowed from it. */
static const char *next_of_line(size_t *len, const char *line) {
    const char *end = line + strcspn(line, "\n");
    for (const char *p = line; p < end;) {
        const char *open = memchr(p, '<', (size_t)(end - p));
        const char *shut = open == NULL ? NULL : memchr(open, '>', (size_t)(end - open));
        if (shut == NULL) {
            return NULL;
        }
        size_t params = strcspn(shut, ",\n");
        const char *rel = strstr(shut, "rel=\"next\"");
        if (rel != NULL && rel < shut + params) {
            *len = (size_t)(shut - open - 1);
            return open + 1;
        }
        p = shut + params + (shut[params] == ',' ? 1 : 0);
    }
    return NULL;
}

/* In whichever of the lines it is. */
static const char *next_link(size_t *len, const char *headers) {
    const char *found = NULL;
    for (const char *line = headers; found == NULL && line != NULL && *line != '\0';) {
        found = strncmp(line, "link:", 5) == 0 ? next_of_line(len, line) : NULL;
        line = strchr(line, '\n');
        line = line == NULL ? NULL : line + 1;
    }
    return found;
}

/* Always a page of our own endpoint: mirrors name the Hub itself, where the token must
 * not go, and a hostile one could name anybody. */
static novaq_status next_page(char **url, const hub *h, const char *headers, novaq_error *err) {
    size_t len = 0;
    const char *link = next_link(&len, headers);
    nq_free(*url);
    *url = NULL;
    if (link == NULL) {
        return NOVAQ_OK;
    }
    char *whole = NULL;
    NQ_TRY(nq_strndup(&whole, link, len, err));
    const char *path = strstr(whole, "/api/models/");
    novaq_status st =
        path == NULL ? nq_fail(err, NOVAQ_E_FORMAT,
                               "hf://%s: the list of files goes on at an address that is none of "
                               "the Hub's",
                               h->asked.repo)
                     : nq_asprintf(url, err, "%s%s", h->env.endpoint, path);
    nq_free(whole);
    return st;
}

static novaq_status list_page(nq_files *f, const hub *h, char **url, novaq_error *err) {
    json_t *json = NULL;
    nq_http_reply reply = {0};
    novaq_status st = ask(&json, &reply, f, h, *url, err);
    if (st == NOVAQ_OK && !json_is_array(json)) {
        st = nq_fail(err, NOVAQ_E_FORMAT, "%s: not a list of files", *url);
    }
    for (size_t i = 0; st == NOVAQ_OK && i < json_array_size(json); i++) {
        st = add_entry(f, json_array_get(json, i), *url, err);
    }
    if (st == NOVAQ_OK) {
        st = next_page(url, h, reply.headers, err);
    }
    json_decref(json);
    nq_http_reply_free(&reply);
    return st;
}

static novaq_status list_files(nq_files *f, const hub *h, novaq_error *err) {
    char *url = NULL;
    NQ_TRY(api_url(&url, h, "tree", f->revision, "?recursive=true", err));
    novaq_status st = NOVAQ_OK;
    for (unsigned page = 0; st == NOVAQ_OK && url != NULL; page++) {
        st = page < PAGES_MAX ? list_page(f, h, &url, err)
                              : nq_fail(err, NOVAQ_E_FORMAT, "hf://%s: a list of files without end",
                                        h->asked.repo);
    }
    nq_free(url);
    return st;
}

/* ---- files -------------------------------------------------------------------- */

static novaq_status hub_has(bool *has, nq_files *f, const char *name, novaq_error *err) {
    (void)err;
    *has = nq_list_find(f, name) != NULL;
    return NOVAQ_OK;
}

static novaq_status cached(char **path, const nq_files *f, const nq_file *file, novaq_error *err) {
    const hub *h = f->state;
    return nq_hf_cache_file(path, h->env.cache, h->asked.repo, h->commit, file, err);
}

/* Offline, what was in the cache may have been removed since it was listed. */
static novaq_status check_online(const nq_files *f, const nq_file *file, novaq_error *err) {
    const hub *h = f->state;
    return f->http != NULL
               ? NOVAQ_OK
               : nq_fail(err, NOVAQ_E_NETWORK,
                         "%s: offline (HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE), and \"%.200s\" is "
                         "no longer in the cache %s",
                         f->locator, file->name, h->env.cache);
}

/* Restricted models are listed to everybody; whether we get their files shows only when
 * one is asked for. Once is enough. */
static novaq_status knock(nq_files *f, const char *url, const char *name, novaq_error *err) {
    hub *h = f->state;
    if (h->admitted) {
        return NOVAQ_OK;
    }
    nq_http_request r = {.url = url, .token = h->env.token, .head = true, .no_follow = true};
    nq_http_reply reply = {0};
    novaq_status st = nq_http_get(&reply, f->http, &r, err);
    bool no_head = reply.status == 405 || reply.status == 501; /* of some mirrors */
    if (st == NOVAQ_OK && reply.status >= 400 && !no_head) {
        st = nq_hf_refused(&reply, &h->env, h->asked.repo, name, err);
    }
    h->admitted = st == NOVAQ_OK;
    nq_http_reply_free(&reply);
    return st;
}

static novaq_status remote_source(nq_source **out, nq_files *f, const nq_file *file,
                                  novaq_error *err) {
    const hub *h = f->state;
    char *url = NULL;
    char *shown = NULL;
    NQ_TRY(check_online(f, file, err));
    NQ_TRY(nq_url_join(&url, h->resolve, file->name, err));
    novaq_status st = nq_asprintf(&shown, err, "hf://%s/%s", h->asked.repo, file->name);
    if (st == NOVAQ_OK) {
        st = knock(f, url, file->name, err);
    }
    if (st == NOVAQ_OK) {
        nq_http_file http = {
            .url = url, .name = shown, .token = h->env.token, .size = file->size, .login = true};
        st = nq_http_source(out, f->http, &http, err);
    }
    nq_free(shown);
    nq_free(url);
    return st;
}

static novaq_status hub_source(nq_source **out, nq_files *f, const char *name, novaq_error *err) {
    const nq_file *file = nq_list_find(f, name);
    if (file == NULL) {
        return nq_hf_no_file(f, name, err);
    }
    char *path = NULL;
    NQ_TRY(cached(&path, f, file, err));
    novaq_status st =
        path != NULL ? nq_source_open_file(out, path, err) : remote_source(out, f, file, err);
    nq_free(path);
    return st;
}

static novaq_status remote_text(char **text, size_t *len, nq_files *f, const nq_file *file,
                                novaq_error *err) {
    const hub *h = f->state;
    char *url = NULL;
    nq_http_reply reply = {0};
    NQ_TRY(check_online(f, file, err));
    NQ_TRY(nq_url_join(&url, h->resolve, file->name, err));
    novaq_status st = nq_fetch_text(text, len, &reply, f, file, url, h->env.token, err);
    if (st == NOVAQ_OK && *text == NULL) {
        st = nq_hf_refused(&reply, &h->env, h->asked.repo, file->name, err);
    }
    nq_http_reply_free(&reply);
    nq_free(url);
    return st;
}

static novaq_status hub_text(char **text, size_t *len, nq_files *f, const char *name, size_t max,
                             novaq_error *err) {
    const nq_file *file = nq_list_find(f, name);
    if (file == NULL) {
        return NOVAQ_OK;
    }
    if (file->size > max) {
        return nq_fail(err, NOVAQ_E_FORMAT, "%s: %s: larger than %zu bytes, the limit here",
                       f->locator, name, max);
    }
    char *path = NULL;
    NQ_TRY(cached(&path, f, file, err));
    novaq_status st = path == NULL ? remote_text(text, len, f, file, err)
                                   : nq_read_copy(text, len, f, file, path, err);
    nq_free(path);
    return st;
}

static void hub_close(void *state) {
    hub *h = state;
    nq_hf_env_free(&h->env);
    nq_hf_locator_free(&h->asked);
    nq_free(h->resolve);
    nq_free(h);
}

static const nq_place hub_place = {hub_has, hub_source, hub_text, hub_close};

/* ---- opening ------------------------------------------------------------------ */

static novaq_status open_offline(nq_files *f, const hub *h, novaq_error *err) {
    NQ_TRY(nq_hf_cache_commit(&f->revision, h->env.cache, h->asked.repo, h->asked.revision, err));
    if (f->revision != NULL) {
        NQ_TRY(nq_hf_cache_list(f, h->env.cache, h->asked.repo, f->revision, err));
    }
    return f->count > 0 ? NOVAQ_OK
                        : nq_fail(err, NOVAQ_E_NETWORK,
                                  "hf://%s@%s: offline (HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE) "
                                  "and not in the cache %s",
                                  h->asked.repo, h->asked.revision,
                                  h->env.cache == NULL ? "(there is none)" : h->env.cache);
}

static novaq_status open_online(nq_files *f, hub *h, novaq_error *err) {
    NQ_TRY(nq_files_network(f, err));
    NQ_TRY(find_commit(f, h, err));
    return list_files(f, h, err);
}

/* The file that was asked for must be there. */
static novaq_status choose(nq_files *f, const hub *h, novaq_error *err) {
    NQ_TRY(nq_list_sort(f, err));
    if (h->asked.file == NULL) {
        return NOVAQ_OK;
    }
    if (nq_list_find(f, h->asked.file) == NULL) {
        return nq_hf_no_file(f, h->asked.file, err);
    }
    return nq_strdup(&f->chosen, h->asked.file, err);
}

novaq_status nq_hf_open(nq_files *f, const char *locator, novaq_error *err) {
    hub *h = NULL;
    NQ_TRY(nq_alloc(&h, 1, sizeof *h, err));
    f->place = &hub_place;
    f->state = h;
    NQ_TRY(nq_hf_env_read(&h->env, err));
    NQ_TRY(nq_hf_locator_parse(&h->asked, locator, h->env.endpoint, err));
    NQ_TRY(nq_asprintf(&f->locator, err, "hf://%s", h->asked.repo));
    NQ_TRY(h->env.offline ? open_offline(f, h, err) : open_online(f, h, err));
    h->commit = f->revision;
    NQ_TRY(choose(f, h, err));
    nq_free(f->locator);
    f->locator = NULL;
    NQ_TRY(nq_asprintf(&f->locator, err, "hf://%s@%s%s%s", h->asked.repo, h->commit,
                       f->chosen == NULL ? "" : "/", f->chosen == NULL ? "" : f->chosen));
    return nq_asprintf(&h->resolve, err, "%s/%s/resolve/%s/", h->env.endpoint, h->asked.repo,
                       h->commit);
}
