/* ollama_registry.c - asking a registry for a manifest.
 *
 * Owns: the addresses of the OCI distribution protocol, and the token that a registry
 * may want everybody to fetch first (WWW-Authenticate: Bearer realm=...). Nothing secret
 * is ever sent: the token is asked for without credentials. Refuses: realms without TLS
 * for a registry with TLS, manifests whose digest is not the announced one.
 */
#include <string.h>

#include "base/mem.h"
#include "io/ollama_impl.h"

#define TOKEN_MAX 16384

#define ACCEPT                                                                                     \
    "application/vnd.docker.distribution.manifest.v2+json, "                                       \
    "application/vnd.oci.image.manifest.v1+json"

static novaq_status url_of(char **out, const nq_ollama_name *n, const char *what, const char *which,
                           novaq_error *err) {
    return nq_asprintf(out, err, "%s://%s/v2/%s/%s/%s/%s", n->http ? "http" : "https", n->host,
                       n->space, n->model, what, which);
}

novaq_status nq_ollama_blob_url(char **out, const nq_ollama_name *n, const char *digest,
                                novaq_error *err) {
    char which[7 + NQ_SHA256_HEX + 1] = "sha256:";
    memcpy(which + 7, digest, NQ_SHA256_HEX + 1);
    return url_of(out, n, "blobs", which, err);
}

static novaq_status refused(const nq_ollama_name *n, const nq_http_reply *reply, novaq_error *err) {
    if (reply->status == 404) {
        return nq_fail(err, NOVAQ_E_NETWORK, "ollama://%s/%s/%s:%s: %s has no such model or tag",
                       n->host, n->space, n->model, n->tag, n->host);
    }
    if (reply->status == 401 || reply->status == 403) {
        return nq_fail(err, NOVAQ_E_NETWORK,
                       "ollama://%s/%s/%s:%s: there is no such model, or it is private (HTTP %d); "
                       "a private one can be read after `ollama pull`, from the store on disk",
                       n->host, n->space, n->model, n->tag, reply->status);
    }
    return nq_fail(err, NOVAQ_E_NETWORK, "ollama://%s/%s/%s:%s: %s answers HTTP %d", n->host,
                   n->space, n->model, n->tag, n->host, reply->status);
}

/* ---- tokens for anybody ------------------------------------------------------- */

/* The value of key="..." of a challenge; *out NULL when absent. */
static novaq_status parameter(char **out, const char *challenge, const char *key,
                              novaq_error *err) {
    size_t n = strlen(key);
    *out = NULL;
    for (const char *p = strstr(challenge, key); p != NULL; p = strstr(p + 1, key)) {
        bool starts = p == challenge || p[-1] == ' ' || p[-1] == ',';
        if (starts && p[n] == '=' && p[n + 1] == '"') {
            return nq_strndup(out, p + n + 2, strcspn(p + n + 2, "\""), err);
        }
    }
    return NOVAQ_OK;
}

static novaq_status add_parameter(nq_buf *url, const char *challenge, const char *key,
                                  novaq_error *err) {
    char *value = NULL;
    NQ_TRY(parameter(&value, challenge, key, err));
    if (value == NULL) {
        return NOVAQ_OK;
    }
    bool first = memchr(url->data, '?', url->len) == NULL;
    novaq_status st = nq_buf_printf(url, err, "%c%s=", first ? '?' : '&', key);
    if (st == NOVAQ_OK) {
        st = nq_url_encode(url, value, strlen(value), "", err);
    }
    nq_free(value);
    return st;
}

static bool is_fit_realm(const char *realm, const nq_ollama_name *n) {
    bool ok = nq_has_prefix(realm, "https://") || (n->http && nq_has_prefix(realm, "http://"));
    for (const char *p = realm; *p != '\0'; p++) {
        ok = ok && (unsigned char)*p > 0x20 && *p != 0x7f && *p != '@' && *p != '#';
    }
    return ok;
}

static novaq_status token_url(char **out, const char *challenge, const nq_ollama_name *n,
                              novaq_error *err) {
    *out = NULL;
    char *realm = NULL;
    size_t len = 0;
    if (!nq_has_prefix(challenge, "Bearer ")) {
        return NOVAQ_OK;
    }
    NQ_TRY(parameter(&realm, challenge, "realm", err));
    if (realm == NULL || !is_fit_realm(realm, n)) {
        nq_free(realm);
        return NOVAQ_OK;
    }
    nq_buf b = nq_buf_init(8192);
    novaq_status st = nq_buf_puts(&b, realm, err);
    nq_free(realm);
    if (st == NOVAQ_OK) {
        st = add_parameter(&b, challenge, "service", err);
    }
    if (st == NOVAQ_OK) {
        st = add_parameter(&b, challenge, "scope", err);
    }
    if (st == NOVAQ_OK) {
        st = nq_buf_take(&b, out, &len, err);
    }
    nq_buf_free(&b);
    return st;
}

static novaq_status token_of_reply(char **out, const nq_http_reply *reply, const char *where,
                                   novaq_error *err) {
    json_t *json = NULL;
    NQ_TRY(nq_json_parse_object(&json, where, reply->body, reply->len, err));
    const char *t = json_string_value(json_object_get(json, "token"));
    t = t != NULL ? t : json_string_value(json_object_get(json, "access_token"));
    bool ok = t != NULL && t[0] != '\0' && strlen(t) < TOKEN_MAX;
    for (const char *p = t; ok && *p != '\0'; p++) {
        ok = (unsigned char)*p > 0x20 && (unsigned char)*p < 0x7f;
    }
    novaq_status st = ok ? nq_strdup(out, t, err)
                         : nq_fail(err, NOVAQ_E_FORMAT, "%s: no token in the answer", where);
    json_decref(json);
    return st;
}

/* *token stays NULL where the registry hands none out to everybody. */
static novaq_status fetch_token(char **token, nq_files *f, const nq_http_reply *denied,
                                const nq_ollama_name *n, novaq_error *err) {
    char challenge[2048];
    char *url = NULL;
    if (!nq_http_header(challenge, sizeof challenge, denied, "www-authenticate")) {
        return NOVAQ_OK;
    }
    NQ_TRY(token_url(&url, challenge, n, err));
    if (url == NULL) {
        return NOVAQ_OK;
    }
    nq_http_reply reply = {0};
    novaq_status st = nq_fetch(&reply, f, url, NULL, TOKEN_MAX * 2, err);
    if (st == NOVAQ_OK && reply.status == 200) {
        st = token_of_reply(token, &reply, url, err);
    }
    nq_http_reply_free(&reply);
    nq_free(url);
    return st;
}

/* ---- manifests ---------------------------------------------------------------- */

static novaq_status get_manifest(nq_http_reply *reply, nq_files *f, const char *url,
                                 const char *token, novaq_error *err) {
    nq_http_request r = {.url = url, .token = token, .accept = ACCEPT, .max = NQ_API_REPLY_MAX};
    return nq_http_get(reply, f->http, &r, err);
}

static novaq_status check_digest(const nq_http_reply *reply, const char *url, novaq_error *err) {
    char said[7 + NQ_SHA256_HEX + 1];
    char got[NQ_SHA256_HEX + 1];
    if (!nq_http_header(said, sizeof said, reply, "docker-content-digest") ||
        strncmp(said, "sha256:", 7) != 0) {
        return NOVAQ_OK;
    }
    NQ_TRY(nq_sha256_of(got, reply->body, reply->len, err));
    return strcmp(got, said + 7) == 0
               ? NOVAQ_OK
               : nq_fail(err, NOVAQ_E_VERIFY, "%s: the manifest is not the one announced", url);
}

/* The first answer, or the one to the token that it wanted. */
static novaq_status negotiate(nq_http_reply *reply, char **token, nq_files *f,
                              const nq_ollama_name *n, const char *url, novaq_error *err) {
    NQ_TRY(get_manifest(reply, f, url, NULL, err));
    if (reply->status != 401) {
        return NOVAQ_OK;
    }
    NQ_TRY(fetch_token(token, f, reply, n, err));
    if (*token == NULL) {
        return NOVAQ_OK;
    }
    nq_http_reply_free(reply);
    *reply = (nq_http_reply){0};
    return get_manifest(reply, f, url, *token, err);
}

novaq_status nq_ollama_registry_token(char **token, nq_files *f, const nq_ollama_name *n,
                                      novaq_error *err) {
    char *url = NULL;
    nq_http_reply reply = {0};
    *token = NULL;
    NQ_TRY(url_of(&url, n, "manifests", n->tag, err));
    novaq_status st = get_manifest(&reply, f, url, NULL, err);
    if (st == NOVAQ_OK && reply.status == 401) {
        st = fetch_token(token, f, &reply, n, err);
    }
    nq_http_reply_free(&reply);
    nq_free(url);
    return st;
}

novaq_status nq_ollama_registry_manifest(char **text, size_t *len, char **token, nq_files *f,
                                         const nq_ollama_name *n, novaq_error *err) {
    char *url = NULL;
    nq_http_reply reply = {0};
    *text = NULL;
    NQ_TRY(url_of(&url, n, "manifests", n->tag, err));
    novaq_status st = negotiate(&reply, token, f, n, url, err);
    if (st == NOVAQ_OK && reply.status != 200) {
        st = refused(n, &reply, err);
    }
    if (st == NOVAQ_OK) {
        st = check_digest(&reply, url, err);
    }
    if (st == NOVAQ_OK) {
        *text = reply.body;
        *len = reply.len;
        reply.body = NULL;
    }
    nq_http_reply_free(&reply);
    nq_free(url);
    return st;
}
