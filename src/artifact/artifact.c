/* artifact.c - see artifact.h. */
#include "artifact/artifact.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "artifact/inside.h"

#define PROBE_BYTES 64
#define ORIGIN_MAX  ((size_t)16 << 20)

static const char directory_start[] = "{\"schema_version\":\"";
static const char single_start[] = "{\"__metadata__\":{\"novaq_manifest\":\"";

/* ---- recognising --------------------------------------------------------------- */

static bool starts_with(const uint8_t *data, uint64_t size, const char *start) {
    size_t n = strlen(start);
    return size >= n && memcmp(data, start, n) == 0;
}

bool nq_artifact_probe(const char *path) {
    char *manifest = NULL;
    bool dir = nq_is_dir(path);
    if (dir && nq_path_join(&manifest, path, "manifest.json", NULL) != NOVAQ_OK) {
        return false;
    }
    nq_map m = {0};
    bool yes = false;
    if (nq_map_open(&m, dir ? manifest : path, NULL) == NOVAQ_OK) {
        yes = dir ? starts_with(m.data, m.size, directory_start)
                  : m.size > 8 && starts_with(m.data + 8, m.size - 8, single_start);
        nq_map_close(&m);
    }
    nq_free(manifest);
    return yes;
}

/* ---- opening ------------------------------------------------------------------- */

static uint64_t load_u64(const uint8_t *p) {
    uint64_t v = 0;
    for (unsigned i = 0; i < 8; i++) {
        v |= (uint64_t)p[i] << (8 * i);
    }
    return v;
}

static novaq_status check_form(const nq_artifact *a, bool single, novaq_error *err) {
    if (a->c.single_file != single) {
        return nq_fail(err, NOVAQ_E_FORMAT, "%s: the manifest belongs to the other form", a->path);
    }
    return NOVAQ_OK;
}

static novaq_status open_chunk_file(nq_artifact *a, size_t i, novaq_error *err) {
    char name[NQ_CHUNK_NAME];
    char *path = NULL;
    const nq_chunk *k = &a->c.chunks[i];
    NQ_TRY(nq_path_join(&path, a->path, nq_chunk_name(name, i, k->sha256), err));
    novaq_status st = NOVAQ_OK;
    if (!nq_is_file(path)) {
        st = nq_fail(err, NOVAQ_E_FORMAT, "%s: missing, although the manifest names it", path);
    } else {
        st = nq_map_open(&a->maps[i], path, err);
    }
    if (st == NOVAQ_OK && a->maps[i].size != k->bytes) {
        st = nq_fail(err, NOVAQ_E_FORMAT, "%s: %llu bytes instead of %llu", path,
                     (unsigned long long)a->maps[i].size, (unsigned long long)k->bytes);
    }
    if (st == NOVAQ_OK) {
        a->chunk_data[i] = a->maps[i].data;
        a->bytes += k->bytes;
    }
    nq_free(path);
    return st;
}

static novaq_status alloc_chunks(nq_artifact *a, size_t maps, novaq_error *err) {
    NQ_TRY(nq_alloc(&a->chunk_data, a->c.chunk_count, sizeof *a->chunk_data, err));
    if (a->maps == NULL) {
        NQ_TRY(nq_alloc(&a->maps, maps, sizeof *a->maps, err));
        a->map_count = maps;
    }
    return NOVAQ_OK;
}

static novaq_status open_dir(nq_artifact *a, novaq_error *err) {
    char *path = NULL;
    char *text = NULL;
    size_t len = 0;
    NQ_TRY(nq_path_join(&path, a->path, "manifest.json", err));
    novaq_status st = NOVAQ_OK;
    if (!nq_is_file(path)) {
        st = nq_fail(err, NOVAQ_E_FORMAT,
                     "%s: not a novaq artifact (no manifest.json; an interrupted compress leaves "
                     "none)",
                     a->path);
    }
    if (st == NOVAQ_OK) {
        st = nq_read_file(&text, &len, path, NQ_MANIFEST_MAX, err);
    }
    if (st == NOVAQ_OK) {
        st = nq_manifest_read(&a->c, &a->root, path, text, len, err);
    }
    nq_free(text);
    nq_free(path);
    NQ_TRY(st);
    NQ_TRY(check_form(a, false, err));
    NQ_TRY(alloc_chunks(a, a->c.chunk_count, err));
    a->bytes = len;
    for (size_t i = 0; i < a->c.chunk_count; i++) {
        NQ_TRY(open_chunk_file(a, i, err));
    }
    return NOVAQ_OK;
}

/* The manifest inside a SafeTensors header. *root keeps *text alive. */
static novaq_status find_manifest(json_t **root, const char **text, const nq_artifact *a,
                                  novaq_error *err) {
    const nq_map *m = &a->maps[0];
    *root = NULL;
    if (m->size <= 8 || !starts_with(m->data + 8, m->size - 8, single_start)) {
        return nq_fail(err, NOVAQ_E_FORMAT, "%s: not a novaq artifact", a->path);
    }
    uint64_t n = load_u64(m->data);
    if (n > NQ_HEADER_MAX || n > m->size - 8) {
        return nq_fail(err, NOVAQ_E_FORMAT, "%s: header of %llu bytes does not fit", a->path,
                       (unsigned long long)n);
    }
    NQ_TRY(nq_json_parse_object(root, a->path, (const char *)m->data + 8, (size_t)n, err));
    const json_t *meta = NULL;
    NQ_TRY(nq_json_get_object(&meta, *root, "__metadata__", a->path, err));
    return nq_json_get_string(text, meta, "novaq_manifest", a->path, err);
}

/* The header says the same as the manifest, byte for byte, and the file ends
 * where the last chunk does. */
static novaq_status check_head(nq_artifact *a, const char *text, novaq_error *err) {
    const nq_map *m = &a->maps[0];
    char *head = NULL;
    size_t len = 0;
    NQ_TRY(nq_single_head(&head, &len, &a->c, text, strlen(text), err));
    novaq_status st = NOVAQ_OK;
    const nq_chunk *last = &a->c.chunks[a->c.chunk_count - 1];
    if (m->size < len || memcmp(m->data, head, len) != 0) {
        st = nq_fail(err, NOVAQ_E_FORMAT, "%s: the header does not say what its manifest says",
                     a->path);
    } else if (m->size - len != last->offset + last->bytes) {
        st = nq_fail(err, NOVAQ_E_FORMAT, "%s: %llu bytes of data instead of %llu", a->path,
                     (unsigned long long)(m->size - len),
                     (unsigned long long)(last->offset + last->bytes));
    }
    for (size_t i = 0; st == NOVAQ_OK && i < a->c.chunk_count; i++) {
        a->chunk_data[i] = m->data + len + a->c.chunks[i].offset;
    }
    nq_free(head);
    return st;
}

static novaq_status open_single(nq_artifact *a, novaq_error *err) {
    NQ_TRY(nq_alloc(&a->maps, 1, sizeof *a->maps, err));
    a->map_count = 1;
    NQ_TRY(nq_map_open(&a->maps[0], a->path, err));
    a->bytes = a->maps[0].size;
    json_t *header = NULL;
    const char *text = NULL;
    novaq_status st = find_manifest(&header, &text, a, err);
    if (st == NOVAQ_OK && strlen(text) > NQ_MANIFEST_MAX) {
        st = nq_fail(err, NOVAQ_E_FORMAT, "%s: manifest of more than %zu bytes", a->path,
                     NQ_MANIFEST_MAX);
    }
    if (st == NOVAQ_OK) {
        st = nq_manifest_read(&a->c, &a->root, a->path, text, strlen(text), err);
    }
    if (st == NOVAQ_OK) {
        st = check_form(a, true, err);
    }
    if (st == NOVAQ_OK) {
        st = alloc_chunks(a, 1, err);
    }
    if (st == NOVAQ_OK) {
        st = check_head(a, text, err);
    }
    json_decref(header);
    return st;
}

static novaq_status check_total(const nq_artifact *a, novaq_error *err) {
    const json_t *summary = json_object_get(json_object_get(a->root, "quantization"), "summary");
    uint64_t total = 0;
    NQ_TRY(nq_json_get_u64(&total, summary, "total_bytes", a->path, err));
    if (total != a->bytes) {
        return nq_fail(err, NOVAQ_E_FORMAT, "%s: %llu bytes on disk, total_bytes says %llu",
                       a->path, (unsigned long long)a->bytes, (unsigned long long)total);
    }
    return NOVAQ_OK;
}

/* ---- views --------------------------------------------------------------------- */

static void point(nq_artifact *a, nq_stored_layer *s) {
    for (unsigned i = 0; i < s->pieces; i++) {
        const nq_piece *p = &s->piece[i];
        nq_layer_point(&s->layer, p, a->chunk_data[p->chunk] + p->offset);
    }
}

static int by_name(const void *a, const void *b) {
    return strcmp((*(nq_layer *const *)a)->name, (*(nq_layer *const *)b)->name);
}

static novaq_status index_layers(nq_artifact *a, novaq_error *err) {
    NQ_TRY(nq_alloc(&a->sorted, a->c.layer_count, sizeof *a->sorted, err));
    for (size_t i = 0; i < a->c.layer_count; i++) {
        point(a, &a->c.layers[i]);
        a->sorted[i] = &a->c.layers[i].layer;
    }
    qsort(a->sorted, a->c.layer_count, sizeof *a->sorted, by_name);
    return NOVAQ_OK;
}

static novaq_status open_any(nq_artifact *a, const char *path, novaq_error *err) {
    NQ_TRY(nq_strdup(&a->path, path, err));
    NQ_TRY(nq_is_dir(path) ? open_dir(a, err) : open_single(a, err));
    NQ_TRY(check_total(a, err));
    return index_layers(a, err);
}

novaq_status nq_artifact_open(nq_artifact **out, const char *path, novaq_error *err) {
    *out = NULL;
    nq_artifact *a = NULL;
    NQ_TRY(nq_alloc(&a, 1, sizeof *a, err));
    novaq_status st = open_any(a, path, err);
    if (st != NOVAQ_OK) {
        nq_artifact_close(&a);
        return st;
    }
    *out = a;
    return NOVAQ_OK;
}

void nq_artifact_close(nq_artifact **artifact) {
    nq_artifact *a = *artifact;
    *artifact = NULL;
    if (a == NULL) {
        return;
    }
    for (size_t i = 0; i < a->map_count; i++) {
        nq_map_close(&a->maps[i]);
    }
    nq_free(a->maps);
    nq_free(a->chunk_data);
    nq_free(a->sorted);
    nq_contents_free(&a->c);
    json_decref(a->root);
    nq_free(a->path);
    nq_free(a);
}

size_t nq_artifact_count(const nq_artifact *a) { return a->c.layer_count; }

const nq_layer *nq_artifact_at(const nq_artifact *a, size_t i) { return &a->c.layers[i].layer; }

const nq_layer *nq_artifact_find(const nq_artifact *a, const char *name) {
    const nq_layer key = {.name = name};
    const nq_layer *p = &key;
    nq_layer **hit = bsearch(&p, a->sorted, a->c.layer_count, sizeof *a->sorted, by_name);
    return hit != NULL ? *hit : NULL;
}

const json_t *nq_artifact_manifest(const nq_artifact *a) { return a->root; }

uint64_t nq_artifact_bytes(const nq_artifact *a) { return a->bytes; }

/* ---- where it came from ---------------------------------------------------------- */

static novaq_status take_text(char **out, const json_t *o, const char *key, novaq_error *err) {
    const char *text = json_string_value(json_object_get(o, key));
    return text != NULL ? nq_strdup(out, text, err) : NOVAQ_OK;
}

novaq_status nq_origin_read(char **locator, char **source, const char *path, novaq_error *err) {
    char *text = NULL;
    size_t len = 0;
    json_t *o = NULL;
    *locator = NULL;
    if (source != NULL) {
        *source = NULL;
    }
    NQ_TRY(nq_read_file(&text, &len, path, ORIGIN_MAX, err));
    novaq_status st = nq_json_parse_object(&o, path, text, len, err);
    if (st == NOVAQ_OK) {
        st = take_text(locator, o, "locator", err);
    }
    if (st == NOVAQ_OK && source != NULL) {
        st = take_text(source, o, "source", err);
    }
    json_decref(o);
    nq_free(text);
    return st;
}

/* One that tells of another source was left by an artifact that has been replaced. */
static novaq_status read_origin(char **locator, const nq_artifact *a, const char *path,
                                novaq_error *err) {
    const json_t *own = json_object_get(json_object_get(a->root, "source"), "blake3");
    const char *hash = json_string_value(own);
    char *about = NULL;
    novaq_status st = nq_origin_read(locator, &about, path, err);
    if (about != NULL && (hash == NULL || strcmp(about, hash) != 0)) {
        nq_free(*locator);
        *locator = NULL;
    }
    nq_free(about);
    return st;
}

novaq_status nq_artifact_origin(char **locator, const nq_artifact *a, novaq_error *err) {
    const char *named = json_string_value(json_object_get(a->root, "source_locator"));
    char *path = NULL;
    *locator = NULL;
    if (named != NULL && strncmp(named, NQ_SOURCE_PREFIX, strlen(NQ_SOURCE_PREFIX)) != 0) {
        return nq_strdup(locator, named, err);
    }
    NQ_TRY(nq_origin_path(&path, a->path, err));
    bool there = path != NULL && nq_is_file(path);
    novaq_status st = there ? read_origin(locator, a, path, err) : NOVAQ_OK;
    nq_free(path);
    return st;
}

/* ---- the model description ------------------------------------------------------ */

/* DEFLATE cannot exceed 1032:1, so a larger claim needs no attempt. */
static novaq_status inflate_tokenizer(json_t **out, const nq_artifact *a, novaq_error *err) {
    const nq_piece *p = &a->c.tokenizer;
    uint64_t size = a->c.tokenizer_inflated;
    char *text = NULL;
    if (size / 1032 > p->bytes || p->bytes > UINT32_MAX) {
        return nq_fail(err, NOVAQ_E_FORMAT, "%s: tokenizer cannot inflate to %llu bytes", a->path,
                       (unsigned long long)size);
    }
    NQ_TRY(nq_alloc_raw(&text, size + 1, 1, err));
    uLongf got = (uLongf)size + 1; /* one more, so that too much is noticed */
    uLong used = (uLong)p->bytes;
    novaq_status st = NOVAQ_OK;
    if (uncompress2((Bytef *)text, &got, a->chunk_data[p->chunk] + p->offset, &used) != Z_OK ||
        got != size || used != p->bytes) {
        st = nq_fail(err, NOVAQ_E_FORMAT, "%s: the tokenizer's zlib data are damaged", a->path);
    }
    if (st == NOVAQ_OK) {
        st = nq_json_parse_object(out, a->path, text, (size_t)size, err);
    }
    nq_free(text);
    return st;
}

novaq_status nq_artifact_model(json_t **out, const nq_artifact *a, novaq_error *err) {
    *out = NULL;
    json_t *tokenizer = NULL;
    json_t *model = json_deep_copy(json_object_get(a->root, "model"));
    if (model == NULL) {
        return nq_fail(err, NOVAQ_E_MEMORY, "%s: cannot copy the model description", a->path);
    }
    novaq_status st = NOVAQ_OK;
    if (a->c.has_tokenizer) {
        st = inflate_tokenizer(&tokenizer, a, err);
    }
    if (tokenizer != NULL && json_object_set_new(model, "tokenizer", tokenizer) != 0) {
        st = nq_fail(err, NOVAQ_E_MEMORY, "%s: cannot build the model description", a->path);
    }
    if (st != NOVAQ_OK) {
        json_decref(model);
        return st;
    }
    *out = model;
    return NOVAQ_OK;
}
