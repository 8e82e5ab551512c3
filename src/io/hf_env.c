/* hf_env.c - what the environment says of the Hugging Face Hub.
 *
 * Owns: HF_ENDPOINT, the token, the folder of the cache, offline mode. Tokens, the first
 * that is set: HF_TOKEN, HUGGINGFACE_HUB_TOKEN, HUGGINGFACE_TOKEN,
 * HUGGING_FACE_HUB_TOKEN, the file HF_TOKEN_PATH, the file "token" of HF_HOME (where
 * `hf auth login` leaves it). HF_HUB_ENABLE_HF_TRANSFER and HF_XET_* have nothing to act
 * on here. Refuses: showing tokens.
 */
#include <string.h>
#include <strings.h>

#include "base/mem.h"
#include "io/fs.h"
#include "io/hf_impl.h"

#define TOKEN_MAX 4096 /* bytes of a file that holds one */

static bool is_true(const char *name) {
    const char *v = nq_env(name);
    return v != NULL && (strcmp(v, "1") == 0 || strcasecmp(v, "on") == 0 ||
                         strcasecmp(v, "yes") == 0 || strcasecmp(v, "true") == 0);
}

static novaq_status read_endpoint(char **out, novaq_error *err) {
    const char *v = nq_env("HF_ENDPOINT");
    v = v == NULL ? "https://huggingface.co" : v;
    size_t n = strlen(v);
    while (n > 0 && v[n - 1] == '/') {
        n--;
    }
    bool ok = nq_has_prefix(v, "https://") || nq_has_prefix(v, "http://");
    for (size_t i = 0; i < n; i++) {
        ok = ok && (unsigned char)v[i] > 0x20 && strchr("?#@\\\x7f", v[i]) == NULL;
    }
    return ok ? nq_strndup(out, v, n, err)
              : nq_fail(err, NOVAQ_E_ARG,
                        "HF_ENDPOINT must be an address like https://huggingface.co, without "
                        "user names and queries");
}

/* ---- the token -------------------------------------------------------------- */

/* value without blanks around it; *out NULL when nothing is left. */
static novaq_status take_token(char **out, const char *value, const char *where, novaq_error *err) {
    const char *blank = " \t\r\n";
    value += strspn(value, blank);
    size_t n = strlen(value);
    while (n > 0 && strchr(blank, value[n - 1]) != NULL) {
        n--;
    }
    for (size_t i = 0; i < n; i++) {
        if ((unsigned char)value[i] <= 0x20 || (unsigned char)value[i] >= 0x7f) {
            return nq_fail(err, NOVAQ_E_ARG,
                           "%s holds something that cannot be a token (blanks or other "
                           "characters inside)",
                           where);
        }
    }
    return n == 0 ? NOVAQ_OK : nq_strndup(out, value, n, err);
}

static novaq_status token_of_file(char **out, const char *path, novaq_error *err) {
    if (!nq_is_file(path)) {
        return NOVAQ_OK;
    }
    char *text = NULL;
    size_t len = 0;
    NQ_TRY(nq_read_file(&text, &len, path, TOKEN_MAX, err));
    novaq_status st = take_token(out, text, path, err);
    nq_free(text);
    return st;
}

static novaq_status read_token(char **out, const char *home, novaq_error *err) {
    static const char *const names[] = {"HF_TOKEN", "HUGGINGFACE_HUB_TOKEN", "HUGGINGFACE_TOKEN",
                                        "HUGGING_FACE_HUB_TOKEN"};
    if (is_true("HF_HUB_DISABLE_IMPLICIT_TOKEN")) {
        return NOVAQ_OK;
    }
    for (size_t i = 0; *out == NULL && i < sizeof names / sizeof names[0]; i++) {
        const char *v = nq_env(names[i]);
        NQ_TRY(v == NULL ? NOVAQ_OK : take_token(out, v, names[i], err));
    }
    if (*out != NULL) {
        return NOVAQ_OK;
    }
    char *path = NULL;
    NQ_TRY(nq_env_path(&path, "HF_TOKEN_PATH", err));
    if (path == NULL && home != NULL) {
        NQ_TRY(nq_path_join(&path, home, "token", err));
    }
    novaq_status st = path == NULL ? NOVAQ_OK : token_of_file(out, path, err);
    nq_free(path);
    return st;
}

/* ---- folders ---------------------------------------------------------------- */

/* HF_HOME, else $XDG_CACHE_HOME/huggingface, else ~/.cache/huggingface; or NULL. */
static novaq_status read_home(char **out, novaq_error *err) {
    NQ_TRY(nq_env_path(out, "HF_HOME", err));
    if (*out != NULL) {
        return NOVAQ_OK;
    }
    char *base = NULL;
    NQ_TRY(nq_env_path(&base, "XDG_CACHE_HOME", err));
    novaq_status st = NOVAQ_OK;
    if (base != NULL) {
        st = nq_path_join(out, base, "huggingface", err);
    } else if (nq_env("HOME") != NULL) {
        st = nq_path_join(out, nq_env("HOME"), ".cache/huggingface", err);
    }
    nq_free(base);
    return st;
}

static novaq_status read_cache(char **out, const char *home, novaq_error *err) {
    NQ_TRY(nq_env_path(out, "HF_HUB_CACHE", err));
    if (*out == NULL) {
        NQ_TRY(nq_env_path(out, "HUGGINGFACE_HUB_CACHE", err));
    }
    return *out == NULL && home != NULL ? nq_path_join(out, home, "hub", err) : NOVAQ_OK;
}

novaq_status nq_hf_env_read(nq_hf_env *out, novaq_error *err) {
    *out = (nq_hf_env){.offline = is_true("HF_HUB_OFFLINE") || is_true("TRANSFORMERS_OFFLINE")};
    char *home = NULL;
    novaq_status st = read_home(&home, err);
    if (st == NOVAQ_OK) {
        st = read_endpoint(&out->endpoint, err);
    }
    if (st == NOVAQ_OK) {
        st = read_cache(&out->cache, home, err);
    }
    if (st == NOVAQ_OK && !out->offline) {
        st = read_token(&out->token, home, err);
    }
    nq_free(home);
    return st;
}

void nq_hf_env_free(nq_hf_env *e) {
    nq_free(e->endpoint);
    nq_free(e->token);
    nq_free(e->cache);
    *e = (nq_hf_env){.offline = false};
}
