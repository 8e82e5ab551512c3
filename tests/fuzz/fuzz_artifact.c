/* fuzz_artifact.c - untrusted artifacts: validate, verify with a full decode,
 * reading every row, running.
 *
 * The first byte of the input says what the rest is:
 *   's'  the single-file form, as it is;
 *   'd'  the directory form: u32 little-endian length (below 2^24), manifest, the one chunk;
 *   'r'  the same, where hashes and sizes of files are put right again first: few
 *        mutants would get past them otherwise.
 */
#include "fuzz_model.h"

#include "artifact/manifest.h"
#include "model/weights.h"

/* Floats decoded from one input. */
#define FUZZ_ELEMENTS  ((uint64_t)1 << 18)
#define FUZZ_CHUNK_MAX 65536
#define FUZZ_PADDING   64U /* room for the digits of a size that is not known yet */

typedef struct parts {
    const char *manifest;
    size_t manifest_len;
    const uint8_t *chunk;
    size_t chunk_len;
} parts;

/* ---- putting hashes right -------------------------------------------------------- */

/* Where o is no object there is nothing to put right; jansson drops the value. */
static void set(json_t *o, const char *key, json_t *value) {
    (void)json_object_set_new(o, key, value);
}

static void fix_chunk(json_t *k, const parts *p) {
    char hex[NQ_BLAKE3_HEX + 1];
    char name[NQ_CHUNK_NAME];
    FUZZ_CHECK(nq_sha256_of(hex, p->chunk, p->chunk_len, NULL) == NOVAQ_OK);
    set(k, "sha256", json_string(hex));
    set(k, "file", json_string(nq_chunk_name(name, 0, hex)));
    nq_blake3_of(hex, p->chunk, p->chunk_len);
    set(k, "blake3", json_string(hex));
}

static void fix_total(json_t *root, size_t bytes) {
    json_t *summary = json_object_get(json_object_get(root, "quantization"), "summary");
    if (json_object_get(summary, "total_bytes") != NULL) {
        set(summary, "total_bytes", json_integer((json_int_t)bytes));
    }
}

static void reseal(char *text, size_t len) {
    char hex[NQ_SHA256_HEX + 1];
    size_t at = 0;
    if (nq_manifest_digest(hex, &at, "fuzz", text, len, NULL) == NOVAQ_OK) {
        memcpy(text + at, hex, NQ_SHA256_HEX);
    }
}

/* The chunk as long as the manifest says: the end of the input, which stays where
 * it is when the manifest's length changes, and zeros. *p then owns it. */
static void fix_length(parts *p, const json_t *k, const uint8_t *input, size_t size) {
    json_int_t claimed = json_integer_value(json_object_get(k, "bytes"));
    size_t len = claimed < 1 || claimed > FUZZ_CHUNK_MAX ? p->chunk_len : (size_t)claimed;
    size_t have = len < size ? len : size;
    uint8_t *chunk = calloc(len + 1, 1);
    FUZZ_CHECK(chunk != NULL);
    memcpy(chunk, input + size - have, have);
    p->chunk = chunk;
    p->chunk_len = len;
}

/* *p with hashes and sizes that hold, its two parts from malloc(); false when the
 * input does not begin with a JSON object. */
static bool repair(parts *p, const uint8_t *input, size_t size) {
    json_error_t e;
    json_t *root = json_loadb((const char *)input, size, JSON_DISABLE_EOF_CHECK, &e);
    if (!json_is_object(root)) {
        json_decref(root);
        return false;
    }
    json_t *k = json_array_get(json_object_get(root, "chunks"), 0);
    fix_length(p, k, input, size);
    fix_chunk(k, p);
    char *text = json_dumps(root, JSON_COMPACT);
    FUZZ_CHECK(text != NULL);
    p->manifest_len = strlen(text) + FUZZ_PADDING;
    free(text);
    fix_total(root, p->manifest_len + p->chunk_len);
    text = json_dumps(root, JSON_COMPACT);
    json_decref(root);
    FUZZ_CHECK(text != NULL && strlen(text) <= p->manifest_len);
    char *padded = malloc(p->manifest_len + 1);
    FUZZ_CHECK(padded != NULL);
    memset(padded, ' ', p->manifest_len);
    memcpy(padded, text, strlen(text));
    padded[p->manifest_len] = '\0';
    free(text);
    reseal(padded, p->manifest_len);
    p->manifest = padded;
    return true;
}

/* ---- the directory ---------------------------------------------------------------- */

static void put_file(const char *dir, const char *name, const void *data, size_t len) {
    char path[128];
    (void)snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "wb");
    FUZZ_CHECK(f != NULL);
    FUZZ_CHECK(fwrite(data, 1, len, f) == len);
    FUZZ_CHECK(fclose(f) == 0);
}

static void drop_file(const char *dir, const char *name) {
    char path[128];
    (void)snprintf(path, sizeof path, "%s/%s", dir, name);
    (void)unlink(path);
}

/* ---- using it ---------------------------------------------------------------------- */

static void read_rows(const char *path) {
    novaq_error err = {0};
    nq_weights *w = NULL;
    novaq_status st = nq_weights_open(&w, path, &err);
    fuzz_check_error(st, &err);
    uint64_t left = FUZZ_ELEMENTS;
    for (size_t i = 0; st == NOVAQ_OK && i < nq_weights_count(w); i++) {
        const nq_weight *t = nq_weights_at(w, i);
        if (t->elements > left) {
            continue;
        }
        left -= t->elements;
        float *values = malloc(t->elements * sizeof *values + 1);
        FUZZ_CHECK(values != NULL);
        /* In two parts: the second needs the symbols above it. */
        uint64_t half = t->rows / 2;
        novaq_status read = nq_weights_read_rows(values, w, t, 0, half, &err);
        fuzz_check_error(read, &err);
        read = nq_weights_read_rows(values, w, t, half, t->rows - half, &err);
        fuzz_check_error(read, &err);
        free(values);
    }
    nq_weights_close(&w);
}

static void use(const char *path) {
    novaq_error err = {0};
    char *report = NULL;
    novaq_status valid = novaq_validate(&report, path, &err);
    fuzz_check_error(valid, &err);
    novaq_free(report);
    err = (novaq_error){0};
    novaq_status st = novaq_verify(&report, path, 1, NULL, NULL, &err);
    fuzz_check_error(st, &err);
    novaq_free(report);
    FUZZ_CHECK(st != NOVAQ_OK || valid == NOVAQ_OK);
    if (valid != NOVAQ_OK) {
        return;
    }
    st = novaq_stats(&report, path, &err);
    fuzz_check_error(st, &err);
    novaq_free(report);
    read_rows(path);
    fuzz_run_model(path);
}

static void use_directory(const parts *p) {
    char dir[] = "/dev/shm/novaq-fuzz-XXXXXX";
    char other[] = "/tmp/novaq-fuzz-XXXXXX";
    const char *at = mkdtemp(dir);
    at = at != NULL ? at : mkdtemp(other);
    FUZZ_CHECK(at != NULL);
    char hex[NQ_SHA256_HEX + 1];
    char name[NQ_CHUNK_NAME];
    FUZZ_CHECK(nq_sha256_of(hex, p->chunk, p->chunk_len, NULL) == NOVAQ_OK);
    (void)nq_chunk_name(name, 0, hex);
    put_file(at, "manifest.json", p->manifest, p->manifest_len);
    put_file(at, name, p->chunk, p->chunk_len);
    use(at);
    drop_file(at, name);
    drop_file(at, "manifest.json");
    (void)rmdir(at);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char path[FUZZ_PATH];
    int fd = -1;
    if (size > 0 && data[0] == 's') {
        fuzz_file(path, &fd, data + 1, size - 1);
        use(path);
        (void)close(fd);
    } else if (size > 5) {
        uint32_t claimed = (uint32_t)data[1] | (uint32_t)data[2] << 8 | (uint32_t)data[3] << 16;
        size_t len = claimed < size - 5 ? claimed : size - 5;
        parts p = {(const char *)data + 5, len, data + 5 + len, size - 5 - len};
        bool owned = data[0] == 'r' && repair(&p, data + 5, size - 5);
        use_directory(&p);
        if (owned) {
            free((void *)(uintptr_t)p.manifest);
            free((void *)(uintptr_t)p.chunk);
        }
    }
    return 0;
}
