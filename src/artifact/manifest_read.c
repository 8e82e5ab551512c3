/* manifest_read.c - the reading half of manifest.h. The text is untrusted: every
 * member is typed, every size is compared with the one that follows from the
 * layer's parameters, and every piece must lie exactly where a writer would have
 * put it, so that no two pieces overlap and no byte is left unnamed. */
#include <string.h>

#include "artifact/manifest.h"
#include "base/hex.h"

#define NAME_MAX_BYTES 4096U

void nq_contents_free(nq_contents *c) {
    nq_free(c->layers);
    nq_free(c->chunks);
    *c = (nq_contents){0};
}

novaq_status nq_manifest_digest(char hex[NQ_SHA256_HEX + 1], size_t *at, const char *where,
                                const char *text, size_t len, novaq_error *err) {
    static const char key[] = "\"manifest_sha256\":\"";
    char zeros[NQ_SHA256_HEX];
    memset(zeros, '0', sizeof zeros);
    hex[0] = '\0';
    *at = 0;
    const char *p = memmem(text, len, key, sizeof key - 1);
    if (p != NULL) {
        *at = (size_t)(p - text) + sizeof key - 1;
    }
    if (p == NULL || len - *at <= NQ_SHA256_HEX || !nq_is_hex(text + *at, NQ_SHA256_HEX)) {
        return nq_fail(err, NOVAQ_E_FORMAT, "%s: no \"manifest_sha256\" of 64 digits", where);
    }
    nq_sha256 *h = NULL;
    NQ_TRY(nq_sha256_open(&h, err));
    nq_sha256_update(h, text, *at);
    nq_sha256_update(h, zeros, sizeof zeros);
    nq_sha256_update(h, text + *at + NQ_SHA256_HEX, len - *at - NQ_SHA256_HEX);
    novaq_status st = nq_sha256_finish(hex, h, err);
    nq_sha256_close(&h);
    return st;
}

/* ---- version, hash, form ---------------------------------------------------- */

static novaq_status check_version(const json_t *root, const char *where, novaq_error *err) {
    const char *v = NULL;
    NQ_TRY(nq_json_get_string(&v, root, "schema_version", where, err));
    /* 1.MINOR.PATCH: minor versions only add members. */
    static const char digits[] = "0123456789";
    bool known = strncmp(v, "1.", 2) == 0;
    if (known) {
        size_t minor = strspn(v + 2, digits);
        const char *rest = v + 2 + minor;
        known = minor > 0 && rest[0] == '.' && rest[1] != '\0' &&
                rest[1 + strspn(rest + 1, digits)] == '\0';
    }
    if (!known) {
        return nq_fail(err, NOVAQ_E_UNSUPPORTED,
                       "%s: schema version \"%s\"; this novaq reads 1.x, a newer one may read it",
                       where, v);
    }
    return NOVAQ_OK;
}

static novaq_status check_own_hash(const json_t *root, const char *where, const char *text,
                                   size_t len, novaq_error *err) {
    char hex[NQ_SHA256_HEX + 1];
    size_t at = 0;
    const char *claimed = NULL;
    NQ_TRY(nq_json_get_string(&claimed, root, "manifest_sha256", where, err));
    NQ_TRY(nq_manifest_digest(hex, &at, where, text, len, err));
    /* Both: the digits that were skipped must be the member's. */
    if (strcmp(claimed, hex) != 0 || strncmp(text + at, hex, NQ_SHA256_HEX) != 0) {
        return nq_fail(err, NOVAQ_E_FORMAT, "%s: manifest_sha256 does not hold: damaged or edited",
                       where);
    }
    return NOVAQ_OK;
}

static novaq_status read_form(nq_contents *c, const json_t *root, const char *where,
                              novaq_error *err) {
    const char *form = NULL;
    NQ_TRY(nq_json_get_string(&form, root, "form", where, err));
    c->single_file = strcmp(form, "single") == 0;
    if (!c->single_file && strcmp(form, "directory") != 0) {
        return nq_fail(err, NOVAQ_E_FORMAT, "%s: \"form\" is neither directory nor single", where);
    }
    return NOVAQ_OK;
}

static novaq_status get_u32(uint32_t *out, const json_t *o, const char *key, const char *where,
                            novaq_error *err) {
    uint64_t v = 0;
    NQ_TRY(nq_json_get_u64(&v, o, key, where, err));
    if (v > UINT32_MAX) {
        return nq_fail(err, NOVAQ_E_FORMAT, "%s: \"%s\" is too large", where, key);
    }
    *out = (uint32_t)v;
    return NOVAQ_OK;
}

static novaq_status get_digest(char out[65], const json_t *o, const char *key, const char *where,
                               novaq_error *err) {
    const char *s = NULL;
    NQ_TRY(nq_json_get_string(&s, o, key, where, err));
    if (strlen(s) != 64 || !nq_is_hex(s, 64)) {
        return nq_fail(err, NOVAQ_E_FORMAT, "%s: \"%s\" is not 64 lower-case digits", where, key);
    }
    memcpy(out, s, 65);
    return NOVAQ_OK;
}

/* What the model was made of: absent in artifacts of schema 1.0, and of those that have
 * no source. Where it is there, the locator names the same tensors. */
static novaq_status read_source(const json_t *root, const char *where, novaq_error *err) {
    static const char prefix[] = NQ_SOURCE_PREFIX;
    const json_t *source = json_object_get(root, "source");
    const char *locator = NULL;
    const char *text = NULL;
    char hex[NQ_BLAKE3_HEX + 1];
    uint64_t n = 0;
    if (source == NULL) {
        return NOVAQ_OK;
    }
    NQ_TRY(nq_json_get_object(&source, root, "source", where, err));
    NQ_TRY(nq_json_get_string(&text, source, "format", where, err));
    NQ_TRY(nq_json_get_u64(&n, source, "tensors", where, err));
    NQ_TRY(nq_json_get_u64(&n, source, "bytes", where, err));
    NQ_TRY(get_digest(hex, source, "blake3", where, err));
    NQ_TRY(nq_json_get_string(&locator, root, "source_locator", where, err));
    size_t start = sizeof prefix - 1;
    return strncmp(locator, prefix, start) == 0 && strcmp(locator + start, hex) == 0
               ? NOVAQ_OK
               : nq_fail(err, NOVAQ_E_FORMAT, "%s: source_locator does not name its \"source\"",
                         where);
}

/* ---- chunks ------------------------------------------------------------------ */

static novaq_status read_chunk(nq_contents *c, size_t i, const json_t *o, const char *where,
                               novaq_error *err) {
    nq_chunk *k = &c->chunks[i];
    uint64_t before = i == 0 ? 0 : c->chunks[i - 1].offset + c->chunks[i - 1].bytes;
    uint64_t end = 0;
    uint64_t index = 0;
    NQ_TRY(nq_json_get_u64(&index, o, "index", where, err));
    NQ_TRY(nq_json_get_u64(&k->bytes, o, "bytes", where, err));
    NQ_TRY(get_digest(k->sha256, o, "sha256", where, err));
    NQ_TRY(get_digest(k->blake3, o, "blake3", where, err));
    k->offset = before;
    if (index != i || k->bytes == 0 || k->bytes % NQ_PIECE_ALIGN != 0 ||
        !nq_add_u64(before, k->bytes, &end) || end > INT64_MAX) {
        return nq_fail(err, NOVAQ_E_FORMAT, "%s: chunk %zu has a wrong index or size", where, i);
    }
    if (c->single_file) {
        uint64_t offset = 0;
        NQ_TRY(nq_json_get_u64(&offset, o, "offset", where, err));
        return offset == before ? NOVAQ_OK
                                : nq_fail(err, NOVAQ_E_FORMAT,
                                          "%s: chunk %zu does not follow the one before", where, i);
    }
    char name[NQ_CHUNK_NAME];
    const char *file = NULL;
    NQ_TRY(nq_json_get_string(&file, o, "file", where, err));
    if (strcmp(file, nq_chunk_name(name, i, k->sha256)) != 0) {
        return nq_fail(err, NOVAQ_E_FORMAT, "%s: chunk %zu: file name \"%s\" instead of %s", where,
                       i, file, name);
    }
    return NOVAQ_OK;
}

static novaq_status read_chunks(nq_contents *c, const json_t *root, const char *where,
                                novaq_error *err) {
    const json_t *list = NULL;
    NQ_TRY(nq_json_get_array(&list, root, "chunks", where, err));
    size_t n = json_array_size(list);
    if (n == 0 || n > NQ_CHUNK_MAX) {
        return nq_fail(err, NOVAQ_E_FORMAT, "%s: %zu chunks", where, n);
    }
    NQ_TRY(nq_alloc(&c->chunks, n, sizeof *c->chunks, err));
    c->chunk_count = n;
    for (size_t i = 0; i < n; i++) {
        NQ_TRY(read_chunk(c, i, json_array_get(list, i), where, err));
    }
    return NOVAQ_OK;
}

/* ---- layers ------------------------------------------------------------------- */

static novaq_status read_shape(nq_layer *l, const json_t *o, novaq_error *err) {
    const json_t *list = NULL;
    NQ_TRY(nq_json_get_array(&list, o, "shape", l->name, err));
    size_t rank = json_array_size(list);
    if (rank > NQ_LAYER_RANK) {
        return nq_fail(err, NOVAQ_E_FORMAT, "layer '%s': %zu dimensions", l->name, rank);
    }
    l->rank = (uint32_t)rank;
    l->elements = 1;
    for (size_t i = 0; i < rank; i++) {
        const json_t *v = json_array_get(list, i);
        if (!json_is_integer(v) || json_integer_value(v) < 0 ||
            !nq_mul_u64(l->elements, (uint64_t)json_integer_value(v), &l->elements)) {
            return nq_fail(err, NOVAQ_E_FORMAT, "layer '%s': bad \"shape\"", l->name);
        }
        l->shape[i] = (uint64_t)json_integer_value(v);
    }
    return NOVAQ_OK;
}

static novaq_status read_role(nq_layer *l, const json_t *o, novaq_error *err) {
    const char *s = NULL;
    NQ_TRY(nq_json_get_string(&s, o, "role", l->name, err));
    for (int r = NQ_ROLE_LINEAR; r <= NQ_ROLE_OTHER; r++) {
        if (strcmp(s, nq_role_name((nq_role)r)) == 0) {
            l->role = (nq_role)r;
            return NOVAQ_OK;
        }
    }
    return nq_fail(err, NOVAQ_E_FORMAT, "layer '%s': unknown role \"%s\"", l->name, s);
}

static novaq_status read_kind(nq_layer *l, const json_t *o, novaq_error *err) {
    const char *s = NULL;
    NQ_TRY(nq_json_get_string(&s, o, "source_dtype", l->name, err));
    if (!nq_dtype_from_name(&l->source_dtype, s)) {
        return nq_fail(err, NOVAQ_E_FORMAT, "layer '%s': unknown source_dtype \"%s\"", l->name, s);
    }
    NQ_TRY(nq_json_get_string(&s, o, "scheme", l->name, err));
    if (nq_scheme_parse(&l->scheme, s, NULL) != NOVAQ_OK) {
        return nq_fail(err, NOVAQ_E_FORMAT, "layer '%s': unknown scheme \"%s\"", l->name, s);
    }
    return NOVAQ_OK;
}

/* Seeds are 64-bit, more than a JSON number keeps: decimal strings. */
static novaq_status read_seed(uint64_t *out, const json_t *o, const char *where, novaq_error *err) {
    const char *s = NULL;
    NQ_TRY(nq_json_get_string(&s, o, "seed", where, err));
    size_t n = strlen(s);
    if (n == 0 || n > 20 || strspn(s, "0123456789") != n || (n > 1 && s[0] == '0')) {
        return nq_fail(err, NOVAQ_E_FORMAT, "layer '%s': bad rotation seed \"%s\"", where, s);
    }
    uint64_t v = 0;
    for (size_t i = 0; i < n; i++) {
        if (!nq_mul_u64(v, 10, &v) || !nq_add_u64(v, (uint64_t)(s[i] - '0'), &v)) {
            return nq_fail(err, NOVAQ_E_FORMAT, "layer '%s': rotation seed above 2^64", where);
        }
    }
    *out = v;
    return NOVAQ_OK;
}

static novaq_status read_matrix(nq_layer *l, const json_t *o, novaq_error *err) {
    nq_qmat *q = &l->q;
    const json_t *r = NULL;
    q->scheme = l->scheme;
    NQ_TRY(nq_json_get_u64(&q->rows, o, "rows", l->name, err));
    NQ_TRY(nq_json_get_u64(&q->cols, o, "cols", l->name, err));
    q->groups = 1;
    q->group_cols = q->cols;
    if (q->scheme.kind == NQ_SCHEME_CODE) {
        NQ_TRY(get_u32(&q->segment_rows, o, "segment_rows", l->name, err));
        NQ_TRY(get_u32(&q->groups, o, "groups", l->name, err));
        NQ_TRY(nq_json_get_u64(&q->group_cols, o, "group_cols", l->name, err));
    }
    if (q->groups == 1 && q->group_cols != q->cols) {
        return nq_fail(err, NOVAQ_E_FORMAT, "layer '%s': one group of not all columns", l->name);
    }
    const json_t *e = json_object_get(o, "exponent");
    json_int_t exponent = json_integer_value(e);
    if (!json_is_integer(e) || exponent < INT32_MIN || exponent > INT32_MAX) {
        return nq_fail(err, NOVAQ_E_FORMAT, "layer '%s': bad \"exponent\"", l->name);
    }
    q->exponent = (int32_t)exponent;
    NQ_TRY(nq_json_get_object(&r, o, "rotation", l->name, err));
    NQ_TRY(get_u32(&q->rotation.block, r, "block", l->name, err));
    return read_seed(&q->rotation.seed, r, l->name, err);
}

static novaq_status read_error_sums(nq_layer *l, const json_t *o, novaq_error *err) {
    double *to[4] = {&l->error.sq_error, &l->error.sq_source, &l->error.sq_decoded, &l->error.dot};
    const json_t *list = NULL;
    NQ_TRY(nq_json_get_array(&list, o, "error_sums", l->name, err));
    l->error_unknown = json_is_null(json_object_get(o, "mse"));
    for (size_t i = 0; i < 4; i++) {
        const json_t *v = json_array_get(list, i);
        if (!json_is_number(v) || json_array_size(list) != 4) {
            return nq_fail(err, NOVAQ_E_FORMAT, "layer '%s': bad \"error_sums\"", l->name);
        }
        *to[i] = json_number_value(v);
    }
    return NOVAQ_OK;
}

static novaq_status read_place(nq_piece *p, const json_t *o, const char *where, novaq_error *err) {
    uint64_t bytes = 0;
    NQ_TRY(get_u32(&p->chunk, o, "chunk", where, err));
    NQ_TRY(nq_json_get_u64(&p->offset, o, "offset", where, err));
    NQ_TRY(nq_json_get_u64(&bytes, o, "bytes", where, err));
    if (p->kind != NQ_PIECE_TOKENIZER && bytes != p->bytes) {
        return nq_fail(err, NOVAQ_E_FORMAT, "layer '%s': %s has %llu bytes instead of %llu", where,
                       nq_piece_name(p->kind), (unsigned long long)bytes,
                       (unsigned long long)p->bytes);
    }
    p->bytes = bytes;
    return NOVAQ_OK;
}

static novaq_status read_pieces(nq_stored_layer *s, const json_t *o, novaq_error *err) {
    const char *name = s->layer.name;
    const json_t *pieces = NULL;
    NQ_TRY(nq_json_get_object(&pieces, o, "pieces", name, err));
    unsigned optional = 0;
    for (unsigned k = NQ_PIECE_ROW_MEAN; k <= NQ_PIECE_COL_EXPONENT; k++) {
        if (json_object_get(pieces, nq_piece_name((nq_piece_kind)k)) != NULL) {
            optional |= 1U << k;
        }
    }
    NQ_TRY(nq_layer_pieces(s, optional, err));
    if (json_object_size(pieces) != s->pieces) {
        return nq_fail(err, NOVAQ_E_FORMAT, "layer '%s': %zu pieces instead of %u", name,
                       json_object_size(pieces), s->pieces);
    }
    for (unsigned i = 0; i < s->pieces; i++) {
        const json_t *p = NULL;
        NQ_TRY(nq_json_get_object(&p, pieces, nq_piece_name(s->piece[i].kind), name, err));
        NQ_TRY(read_place(&s->piece[i], p, name, err));
    }
    return NOVAQ_OK;
}

novaq_status nq_manifest_read_layer(nq_stored_layer *s, const char *name, const json_t *o,
                                    const char *where, novaq_error *err) {
    nq_layer *l = &s->layer;
    l->name = name;
    if (name[0] == '\0' || strlen(name) > NAME_MAX_BYTES || !json_is_object(o)) {
        return nq_fail(err, NOVAQ_E_FORMAT, "%s: layer '%.80s' has no proper name or is no object",
                       where, name);
    }
    NQ_TRY(read_shape(l, o, err));
    NQ_TRY(read_role(l, o, err));
    NQ_TRY(read_kind(l, o, err));
    if (l->scheme.kind == NQ_SCHEME_CODE || l->scheme.kind == NQ_SCHEME_Q8) {
        NQ_TRY(read_matrix(l, o, err));
    }
    NQ_TRY(read_pieces(s, o, err));
    NQ_TRY(read_error_sums(l, o, err));
    l->diagnostics = json_object_get(o, "diagnostics");
    if (l->diagnostics != NULL && !json_is_object(l->diagnostics)) {
        return nq_fail(err, NOVAQ_E_FORMAT, "layer '%s': bad \"diagnostics\"", name);
    }
    return NOVAQ_OK;
}

static novaq_status read_layers(nq_contents *c, json_t *root, const char *where, novaq_error *err) {
    json_t *layers = json_object_get(root, "layers");
    size_t n = json_object_size(layers);
    if (!json_is_object(layers) || n == 0) {
        return nq_fail(err, NOVAQ_E_FORMAT, "%s: \"layers\" is missing or empty", where);
    }
    NQ_TRY(nq_alloc(&c->layers, n, sizeof *c->layers, err));
    c->layer_count = n;
    const char *name;
    json_t *o;
    size_t i = 0;
    json_object_foreach(layers, name, o) {
        NQ_TRY(nq_manifest_read_layer(&c->layers[i++], name, o, where, err));
    }
    return NOVAQ_OK;
}

static novaq_status read_tokenizer(nq_contents *c, const json_t *root, const char *where,
                                   novaq_error *err) {
    const json_t *model = NULL;
    NQ_TRY(nq_json_get_object(&model, root, "model", where, err));
    const json_t *t = json_object_get(model, "tokenizer");
    c->has_tokenizer = json_is_object(t);
    if (!c->has_tokenizer) {
        return NOVAQ_OK;
    }
    const char *encoding = NULL;
    nq_piece *p = &c->tokenizer;
    *p = (nq_piece){.kind = NQ_PIECE_TOKENIZER, .dtype = "U8", .rank = 1};
    NQ_TRY(read_place(p, t, "tokenizer", err));
    p->shape[0] = p->bytes;
    NQ_TRY(nq_json_get_u64(&c->tokenizer_inflated, t, "inflated_bytes", where, err));
    NQ_TRY(nq_json_get_string(&encoding, t, "encoding", where, err));
    if (strcmp(encoding, "zlib") != 0 || c->tokenizer_inflated > NQ_INFLATED_MAX) {
        return nq_fail(err, NOVAQ_E_FORMAT,
                       "%s: tokenizer is not zlib or inflates to more than %llu bytes", where,
                       (unsigned long long)NQ_INFLATED_MAX);
    }
    return NOVAQ_OK;
}

/* ---- placement ------------------------------------------------------------------ */

typedef struct place {
    uint32_t chunk;
    uint64_t offset; /* end of the piece before, not aligned */
} place;

/* The piece must begin at the next multiple of 64, or, where a chunk may end,
 * at the start of the next chunk. */
static novaq_status follow(place *at, const nq_contents *c, const nq_piece *p, bool may_turn,
                           const char *layer, novaq_error *err) {
    uint64_t next = nq_align_piece(at->offset);
    if (may_turn && p->chunk == at->chunk + 1 && next == c->chunks[at->chunk].bytes) {
        at->chunk++;
        next = 0;
    }
    uint64_t limit = at->chunk < c->chunk_count ? c->chunks[at->chunk].bytes : 0;
    if (p->chunk != at->chunk || p->chunk >= c->chunk_count || p->offset != next || next > limit ||
        p->bytes > limit - next) {
        return nq_fail(err, NOVAQ_E_FORMAT,
                       "layer '%s': %s is at chunk %u offset %llu, where it does not belong", layer,
                       nq_piece_name(p->kind), p->chunk, (unsigned long long)p->offset);
    }
    at->offset = p->offset + p->bytes;
    return NOVAQ_OK;
}

static novaq_status check_placement(const nq_contents *c, const char *where, novaq_error *err) {
    place at = {0};
    for (size_t i = 0; i < c->layer_count; i++) {
        for (unsigned k = 0; k < c->layers[i].pieces; k++) {
            const nq_stored_layer *s = &c->layers[i];
            NQ_TRY(follow(&at, c, &s->piece[k], k == 0, s->layer.name, err));
        }
    }
    if (c->has_tokenizer) {
        NQ_TRY(follow(&at, c, &c->tokenizer, true, "tokenizer", err));
    }
    if (at.chunk + 1 != c->chunk_count || nq_align_piece(at.offset) != c->chunks[at.chunk].bytes) {
        return nq_fail(err, NOVAQ_E_FORMAT, "%s: the chunks hold bytes that no piece names", where);
    }
    return NOVAQ_OK;
}

static novaq_status check_summary(const nq_contents *c, const json_t *root, const char *where,
                                  novaq_error *err) {
    const json_t *quantization = NULL;
    const json_t *summary = NULL;
    uint64_t layers = 0;
    uint64_t parameters = 0;
    uint64_t sum = 0;
    NQ_TRY(nq_json_get_object(&quantization, root, "quantization", where, err));
    NQ_TRY(nq_json_get_object(&summary, quantization, "summary", where, err));
    NQ_TRY(nq_json_get_u64(&layers, summary, "total_layers", where, err));
    NQ_TRY(nq_json_get_u64(&parameters, summary, "total_parameters", where, err));
    for (size_t i = 0; i < c->layer_count; i++) {
        if (!nq_add_u64(sum, c->layers[i].layer.elements, &sum)) {
            break;
        }
    }
    if (layers != c->layer_count || parameters != sum || sum == 0) {
        return nq_fail(err, NOVAQ_E_FORMAT, "%s: the summary does not count these layers", where);
    }
    return NOVAQ_OK;
}

static novaq_status read_all(nq_contents *c, json_t *root, const char *where, const char *text,
                             size_t len, novaq_error *err) {
    NQ_TRY(check_version(root, where, err));
    NQ_TRY(check_own_hash(root, where, text, len, err));
    NQ_TRY(read_form(c, root, where, err));
    NQ_TRY(read_source(root, where, err));
    NQ_TRY(read_chunks(c, root, where, err));
    NQ_TRY(read_layers(c, root, where, err));
    NQ_TRY(read_tokenizer(c, root, where, err));
    NQ_TRY(check_placement(c, where, err));
    return check_summary(c, root, where, err);
}

novaq_status nq_manifest_read(nq_contents *c, json_t **root, const char *where, const char *text,
                              size_t len, novaq_error *err) {
    *c = (nq_contents){0};
    *root = NULL;
    json_t *parsed = NULL;
    NQ_TRY(nq_json_parse_object(&parsed, where, text, len, err));
    novaq_status st = read_all(c, parsed, where, text, len, err);
    if (st != NOVAQ_OK) {
        nq_contents_free(c);
        json_decref(parsed);
        return st;
    }
    *root = parsed;
    return NOVAQ_OK;
}
