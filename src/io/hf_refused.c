/* hf_refused.c - why the Hub refused, and what to do about it.
 *
 * Owns: turning statuses, X-Error-Code and X-Error-Message into one line of advice,
 * suggesting names of files. Refuses: passing a server's text on uncut, or with our token.
 */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "io/hf_impl.h"

#define MESSAGE_MAX 161 /* characters of the server's own words, with the NUL */
#define SUGGESTIONS 3
#define COMPARE_MAX 96 /* characters of a name that are looked at for suggestions */

typedef struct words {
    char code[64];
    char text[MESSAGE_MAX];
} words;

/* One header; "" where the token is in it. */
static void word_of(char *out, size_t size, const nq_http_reply *reply, const char *name,
                    const char *token) {
    char raw[1024];
    (void)nq_http_header(raw, sizeof raw, reply, name);
    nq_printable(out, size, token != NULL && strstr(raw, token) != NULL ? "" : raw);
}

static words words_of(const nq_http_reply *reply, const char *token) {
    words w;
    word_of(w.code, sizeof w.code, reply, "x-error-code", token);
    word_of(w.text, sizeof w.text, reply, "x-error-message", token);
    return w;
}

static novaq_status gated(const nq_hf_env *env, const char *repo, novaq_error *err) {
    if (env->token == NULL) {
        return nq_fail(err, NOVAQ_E_NETWORK,
                       "hf://%s: access to this model is restricted: ask for it at %s/%s, then set "
                       "HF_TOKEN to a token of that account",
                       repo, env->endpoint, repo);
    }
    return nq_fail(err, NOVAQ_E_NETWORK,
                   "hf://%s: access to this model is restricted and the account of the token in "
                   "use has not been granted it: ask for it at %s/%s",
                   repo, env->endpoint, repo);
}

static novaq_status no_repository(const nq_hf_env *env, const char *repo, novaq_error *err) {
    const char *slash = strchr(repo, '/');
    /* "hf://gpt2/model.safetensors" reads as a repository of that name. */
    const char *dot = slash == NULL ? NULL : strrchr(slash, '.');
    static const char *const ends[] = {".safetensors", ".gguf", ".json", ".bin", ".onnx", ".pth"};
    for (size_t i = 0; dot != NULL && i < sizeof ends / sizeof ends[0]; i++) {
        if (strcmp(dot, ends[i]) == 0) {
            return nq_fail(err, NOVAQ_E_NETWORK,
                           "hf://%s: there is no such model; for a file of the model %.*s write "
                           "hf://%.*s@main%s",
                           repo, (int)(slash - repo), repo, (int)(slash - repo), repo, slash);
        }
    }
    return nq_fail(err, NOVAQ_E_NETWORK,
                   env->token == NULL
                       ? "hf://%s: there is no such model on %s, or it is private (then set "
                         "HF_TOKEN to a token of an account that may read it)"
                       : "hf://%s: there is no such model on %s, or the account of the token in "
                         "use may not read it",
                   repo, env->endpoint);
}

static novaq_status by_status(const nq_http_reply *reply, const words *w, const nq_hf_env *env,
                              const char *repo, novaq_error *err) {
    if (reply->status == 401 && env->token != NULL) {
        return nq_fail(err, NOVAQ_E_NETWORK,
                       "hf://%s: %s does not accept the token (HTTP 401 %s): make a new one, or "
                       "unset it for public models",
                       repo, env->endpoint, w->text);
    }
    if (reply->status == 429) {
        return nq_fail(err, NOVAQ_E_NETWORK, "hf://%s: too many requests (HTTP 429): %s", repo,
                       env->token == NULL ? "wait some minutes, or set HF_TOKEN, which allows more"
                                          : "wait some minutes");
    }
    if (reply->status == 451 || strstr(w->text, "disabled") != NULL) {
        return nq_fail(err, NOVAQ_E_NETWORK, "hf://%s: this model has been disabled (HTTP %d %s)",
                       repo, reply->status, w->text);
    }
    return nq_fail(err, NOVAQ_E_NETWORK, "hf://%s: %s answers HTTP %d %s", repo, env->endpoint,
                   reply->status, w->text);
}

/* Where the Hub led to, tokens change nothing. */
static bool is_elsewhere(const nq_http_reply *reply, const nq_hf_env *env) {
    size_t n = strlen(env->endpoint);
    return reply->url != NULL &&
           !(nq_has_prefix(reply->url, env->endpoint) && reply->url[n] == '/');
}

static novaq_status refused_elsewhere(const nq_http_reply *reply, const char *repo,
                                      novaq_error *err) {
    char shown[201];
    nq_printable_url(shown, sizeof shown, reply->url);
    return nq_fail(err, NOVAQ_E_NETWORK,
                   "hf://%s: the storage server does not give what the Hub says it has (HTTP %d): "
                   "run the same command again: %s",
                   repo, reply->status, shown);
}

novaq_status nq_hf_refused(const nq_http_reply *reply, const nq_hf_env *env, const char *repo,
                           const char *what, novaq_error *err) {
    words w = words_of(reply, env->token);
    if (is_elsewhere(reply, env)) {
        return refused_elsewhere(reply, repo, err);
    }
    if (strcmp(w.code, "GatedRepo") == 0) {
        return gated(env, repo, err);
    }
    if (strcmp(w.code, "RevisionNotFound") == 0) {
        return nq_fail(err, NOVAQ_E_NETWORK,
                       "hf://%s: no branch, tag or commit \"%.100s\"; %s/%s/tree/main shows those "
                       "there are",
                       repo, what == NULL ? "" : what, env->endpoint, repo);
    }
    if (strcmp(w.code, "EntryNotFound") == 0) {
        return nq_fail(err, NOVAQ_E_NETWORK, "hf://%s: no file \"%.200s\"", repo,
                       what == NULL ? "" : what);
    }
    /* To a wrong token the Hub says that the repository is not there: told apart by
     * its words. */
    bool token_wrong = reply->status == 401 && env->token != NULL &&
                       (strstr(w.text, "credentials") != NULL || strstr(w.text, "token") != NULL);
    bool absent = strcmp(w.code, "RepoNotFound") == 0 || reply->status == 404 ||
                  (reply->status == 401 && env->token == NULL);
    return absent && !token_wrong ? no_repository(env, repo, err)
                                  : by_status(reply, &w, env, repo, err);
}

/* ---- suggestions ------------------------------------------------------------ */

static char lower(char c) { return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c; }

/* Letters to add, drop or exchange to make b of a; only the first ones count. */
static unsigned distance(const char *a, const char *b) {
    unsigned row[COMPARE_MAX + 1];
    size_t n = strnlen(b, COMPARE_MAX);
    for (size_t j = 0; j <= n; j++) {
        row[j] = (unsigned)j;
    }
    for (size_t i = 0; i < COMPARE_MAX && a[i] != '\0'; i++) {
        unsigned diagonal = row[0];
        row[0] = (unsigned)i + 1;
        for (size_t j = 0; j < n; j++) {
            unsigned change = diagonal + (lower(a[i]) != lower(b[j]) ? 1U : 0U);
            unsigned step = (row[j] < row[j + 1] ? row[j] : row[j + 1]) + 1;
            diagonal = row[j + 1];
            row[j + 1] = change < step ? change : step;
        }
    }
    return row[n];
}

typedef struct near_name {
    const char *name;
    unsigned distance;
} near_name;

static void insert(near_name best[SUGGESTIONS], near_name fresh) {
    for (size_t i = 0; i < SUGGESTIONS; i++) {
        if (best[i].name == NULL || fresh.distance < best[i].distance) {
            near_name moved = best[i];
            best[i] = fresh;
            fresh = moved;
        }
        if (fresh.name == NULL) {
            return;
        }
    }
}

novaq_status nq_hf_no_file(const nq_files *f, const char *name, novaq_error *err) {
    near_name best[SUGGESTIONS] = {{NULL, 0}};
    size_t len = strlen(name);
    bool folder = false;
    for (size_t i = 0; i < f->count; i++) {
        const char *have = f->list[i].name;
        /* Names of a folder as a whole come first. */
        bool inside = strncmp(have, name, len) == 0 && have[len] == '/';
        folder = folder || inside;
        insert(best, (near_name){have, inside ? 0 : distance(name, have) + 1});
    }
    char shown[201];
    char hints[SUGGESTIONS][161];
    nq_printable(shown, sizeof shown, name);
    for (size_t i = 0; i < SUGGESTIONS; i++) {
        nq_printable(hints[i], sizeof hints[i], best[i].name == NULL ? "" : best[i].name);
    }
    bool two = best[1].name != NULL;
    bool three = best[2].name != NULL;
    return nq_fail(err, NOVAQ_E_NETWORK, "%s: %s \"%s\"; there is %s%s%s%s%s", f->locator,
                   folder ? "not a file but a folder:" : "no file", shown,
                   best[0].name == NULL ? "nothing at all" : hints[0], two ? ", " : "", hints[1],
                   three ? ", " : "", hints[2]);
}
