/* ollama_manifest.c - which blobs a model consists of.
 *
 * Owns: the kinds of layers and the names their files get here: model.gguf (or
 * model-00001-of-00002.gguf ...), projector.gguf, template, system, params, messages,
 * license. Refuses: adapters, models stored tensor by tensor, models that are nothing
 * but a remote address, digests and sizes that cannot be.
 */
#include <string.h>

#include "base/hex.h"
#include "base/mem.h"
#include "io/ollama_impl.h"

#define LAYERS_MAX 4096
#define KIND       "application/vnd.ollama.image."

static novaq_status bad(const char *where, size_t i, const char *why, novaq_error *err) {
    return nq_fail(err, NOVAQ_E_FORMAT, "%s: layer %zu: %s", where, i, why);
}

typedef struct layer {
    const char *kind; /* what follows KIND, or NULL; borrowed */
    const char *digest;
    uint64_t size;
} layer;

static novaq_status read_layer(layer *out, const json_t *o, size_t i, const char *where,
                               novaq_error *err) {
    const char *type = NULL;
    NQ_TRY(nq_json_get_string(&type, o, "mediaType", where, err));
    NQ_TRY(nq_json_get_string(&out->digest, o, "digest", where, err));
    NQ_TRY(nq_json_get_u64(&out->size, o, "size", where, err));
    out->kind = strncmp(type, KIND, strlen(KIND)) == 0 ? type + strlen(KIND) : NULL;
    if (strncmp(out->digest, "sha256:", 7) != 0 || strlen(out->digest) != 7 + NQ_SHA256_HEX ||
        !nq_is_hex(out->digest + 7, NQ_SHA256_HEX)) {
        return bad(where, i, "its digest is not \"sha256:\" and 64 digits", err);
    }
    out->digest += 7;
    return out->size <= NQ_FILE_SIZE_MAX ? NOVAQ_OK : bad(where, i, "larger than any file", err);
}

static bool is_kind(const layer *l, const char *kind) {
    return l->kind != NULL && strcmp(l->kind, kind) == 0;
}

static novaq_status add(nq_ollama_manifest *m, const layer *l, const char *file, novaq_error *err) {
    nq_ollama_layer *fresh = &m->layers[m->count];
    NQ_TRY(nq_strdup(&fresh->file, file, err));
    memcpy(fresh->digest, l->digest, NQ_SHA256_HEX);
    fresh->size = l->size;
    m->count++;
    return NOVAQ_OK;
}

/* All layers of one kind. stem: "model", end: ".gguf". Those of weights are numbered as
 * splits of a file are, others from the second on. */
static novaq_status add_kind(nq_ollama_manifest *m, size_t *found, const layer *layers, size_t n,
                             const char *kind, const char *stem, const char *end,
                             novaq_error *err) {
    size_t total = 0;
    for (size_t i = 0; i < n; i++) {
        total += is_kind(&layers[i], kind) ? 1 : 0;
    }
    size_t k = 0;
    for (size_t i = 0; i < n; i++) {
        if (!is_kind(&layers[i], kind)) {
            continue;
        }
        char *file = NULL;
        k++;
        NQ_TRY(end[0] != '\0' && total > 1
                   ? nq_asprintf(&file, err, "%s-%05zu-of-%05zu%s", stem, k, total, end)
               : k > 1 ? nq_asprintf(&file, err, "%s-%zu%s", stem, k, end)
                       : nq_asprintf(&file, err, "%s%s", stem, end));
        novaq_status st = add(m, &layers[i], file, err);
        nq_free(file);
        NQ_TRY(st);
    }
    *found = total;
    return NOVAQ_OK;
}

/* Why there is no layer "model". */
static novaq_status no_model(const layer *layers, size_t n, const char *where, novaq_error *err) {
    for (size_t i = 0; i < n; i++) {
        if (is_kind(&layers[i], "tensor")) {
            return nq_fail(err, NOVAQ_E_UNSUPPORTED,
                           "%s: this model is stored tensor by tensor, not as GGUF; take it from "
                           "the Hugging Face Hub (hf://ORG/NAME)",
                           where);
        }
    }
    return nq_fail(err, NOVAQ_E_UNSUPPORTED,
                   "%s: there is no model in it (no layer " KIND "model): models that only run "
                   "on a remote service, for instance, have none",
                   where);
}

static novaq_status name_layers(nq_ollama_manifest *m, const layer *layers, size_t n,
                                const char *where, novaq_error *err) {
    static const char *const texts[] = {"template", "system", "params", "messages", "license"};
    for (size_t i = 0; i < n; i++) {
        if (is_kind(&layers[i], "adapter")) {
            return nq_fail(err, NOVAQ_E_UNSUPPORTED,
                           "%s: this is an adapter (LoRA) on top of a model; compress the model "
                           "that it was made for, or merge the two first",
                           where);
        }
    }
    size_t found = 0;
    NQ_TRY(add_kind(m, &found, layers, n, "model", "model", ".gguf", err));
    if (found == 0) {
        return no_model(layers, n, where, err);
    }
    NQ_TRY(add_kind(m, &found, layers, n, "projector", "projector", ".gguf", err));
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        NQ_TRY(add_kind(m, &found, layers, n, texts[i], texts[i], "", err));
    }
    return NOVAQ_OK;
}

static novaq_status read_layers(nq_ollama_manifest *out, const json_t *root, const char *where,
                                novaq_error *err) {
    const json_t *list = NULL;
    uint64_t version = 0;
    NQ_TRY(nq_json_get_u64(&version, root, "schemaVersion", where, err));
    if (version != 2) {
        return nq_fail(err, NOVAQ_E_UNSUPPORTED, "%s: a manifest of version %llu", where,
                       (unsigned long long)version);
    }
    NQ_TRY(nq_json_get_array(&list, root, "layers", where, err));
    size_t n = json_array_size(list);
    if (n > LAYERS_MAX) {
        return nq_fail(err, NOVAQ_E_FORMAT, "%s: %zu layers", where, n);
    }
    layer *layers = NULL;
    NQ_TRY(nq_alloc(&layers, n, sizeof *layers, err));
    novaq_status st = nq_alloc(&out->layers, n, sizeof *out->layers, err);
    for (size_t i = 0; st == NOVAQ_OK && i < n; i++) {
        st = read_layer(&layers[i], json_array_get(list, i), i, where, err);
    }
    if (st == NOVAQ_OK) {
        st = name_layers(out, layers, n, where, err);
    }
    nq_free(layers);
    return st;
}

novaq_status nq_ollama_manifest_parse(nq_ollama_manifest *out, const char *text, size_t len,
                                      const char *where, novaq_error *err) {
    *out = (nq_ollama_manifest){.count = 0};
    json_t *root = NULL;
    NQ_TRY(nq_json_parse_object(&root, where, text, len, err));
    novaq_status st = read_layers(out, root, where, err);
    json_decref(root);
    return st;
}

void nq_ollama_manifest_free(nq_ollama_manifest *m) {
    for (size_t i = 0; i < m->count; i++) {
        nq_free(m->layers[i].file);
    }
    nq_free(m->layers);
    *m = (nq_ollama_manifest){.count = 0};
}
