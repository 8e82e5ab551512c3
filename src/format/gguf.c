/* gguf.c - see gguf_parse.h.
 *
 * Layout: "GGUF", u32 version, tensor count, key count, keys, tensor infos,
 * padding, data. Counts, lengths and dimensions are u32 in version 1 and u64
 * later. The header is read in growing pieces because it may hold a large
 * vocabulary; nothing is allocated from a count before the bytes it speaks of
 * have been seen.
 *
 * Where readers differ: names of tensors must be UTF-8 of at most 64 bytes;
 * any other text may hold any bytes, keys no NUL; alignments below 8, booleans
 * above 1 and bytes after the last tensor are accepted.
 */
#include "format/gguf_parse.h"

#include <inttypes.h>
#include <string.h>

#include "base/mem.h"
#include "format/names.h"

#define FIRST_READ ((uint64_t)1 << 20)

typedef struct parser {
    nq_gguf *g;
    nq_source *src;
    uint64_t limit; /* the header cannot reach beyond this offset */
    uint64_t have;  /* bytes read into g->header */
    uint64_t pos;
    unsigned width;        /* bytes of a count: 4 in version 1, else 8 */
    uint64_t string_count; /* in all values */
    size_t kv_cap;
    size_t tensor_cap;
    novaq_error *err;
} parser;

/* ---- bytes ---------------------------------------------------------------- */

static novaq_status bad(const parser *p, uint64_t offset, const char *what) {
    return nq_fail(p->err, NOVAQ_E_FORMAT, "%s: offset %" PRIu64 ": %s", p->src->name, offset,
                   what);
}

static novaq_status read_more(parser *p, uint64_t need) {
    uint64_t step = p->have / 4 < FIRST_READ ? FIRST_READ : p->have / 4;
    uint64_t want = p->have + step;
    if (want < need) {
        want = need;
    }
    if (want > p->limit) {
        want = p->limit;
    }
    uint8_t *fresh = NULL;
    NQ_TRY(nq_alloc_raw(&fresh, want, 1, p->err));
    if (p->have > 0) {
        memcpy(fresh, p->g->header, (size_t)p->have);
    }
    nq_free(p->g->header);
    p->g->header = fresh;
    NQ_TRY(nq_source_read(p->src, p->have, fresh + p->have, want - p->have, p->err));
    p->have = want;
    return NOVAQ_OK;
}

/* Makes n bytes at the position readable, or fails naming what they are. */
static novaq_status need(parser *p, uint64_t n, const char *what) {
    if (n <= p->have - p->pos) {
        return NOVAQ_OK;
    }
    if (n > p->limit - p->pos) {
        if (p->limit < p->src->size) {
            return nq_fail(p->err, NOVAQ_E_UNSUPPORTED,
                           "%s: offset %" PRIu64 ": the header exceeds %" PRIu64 " bytes",
                           p->src->name, p->pos, p->limit);
        }
        return nq_fail(p->err, NOVAQ_E_FORMAT,
                       "%s: offset %" PRIu64 ": %s needs %" PRIu64
                       " bytes, the file ends after %" PRIu64,
                       p->src->name, p->pos, what, n, p->limit - p->pos);
    }
    return read_more(p, p->pos + n);
}

static novaq_status read_uint(parser *p, uint64_t *out, unsigned bytes, const char *what) {
    *out = 0;
    NQ_TRY(need(p, bytes, what));
    for (unsigned i = 0; i < bytes; i++) {
        *out |= (uint64_t)p->g->header[p->pos + i] << (8 * i);
    }
    p->pos += bytes;
    return NOVAQ_OK;
}

/* A count of records that take at least `least` bytes each. */
static novaq_status read_count(parser *p, uint64_t *out, uint64_t least, const char *what) {
    uint64_t at = p->pos;
    NQ_TRY(read_uint(p, out, p->width, what));
    if (*out > (p->limit - p->pos) / least) {
        return nq_fail(p->err, NOVAQ_E_FORMAT,
                       "%s: offset %" PRIu64 ": %s of %" PRIu64 " is more than the file can hold",
                       p->src->name, at, what, *out);
    }
    return NOVAQ_OK;
}

/* A key or tensor name of 1..max bytes (0 allowed for tensors) without NUL.
 * *offset: where it starts in the header, NUL-terminated: it is moved down one
 * byte, over its own length, to make room. */
static novaq_status read_name(parser *p, uint64_t *offset, uint64_t *len, const char *what) {
    uint64_t at = p->pos;
    NQ_TRY(read_count(p, len, 1, what));
    NQ_TRY(need(p, *len, what));
    uint8_t *name = p->g->header + p->pos;
    if (*len > 0 && memchr(name, 0, (size_t)*len) != NULL) {
        return nq_fail(p->err, NOVAQ_E_FORMAT, "%s: offset %" PRIu64 ": %s holds a NUL",
                       p->src->name, at, what);
    }
    *offset = p->pos - 1;
    memmove(p->g->header + *offset, name, (size_t)*len);
    p->g->header[*offset + *len] = '\0';
    p->pos += *len;
    return NOVAQ_OK;
}

/* ---- keys ----------------------------------------------------------------- */

/* Bytes of a scalar; 0 for strings, arrays and unknown numbers. */
static unsigned scalar_size(uint64_t type) {
    static const uint8_t sizes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    return type < sizeof sizes ? sizes[type] : 0;
}

/* Passes over count strings; their places are looked up at the end. */
static novaq_status walk_strings(parser *p, uint64_t count) {
    for (uint64_t i = 0; i < count; i++) {
        uint64_t len = 0;
        NQ_TRY(read_uint(p, &len, p->width, "a string length"));
        if (len > p->have - p->pos) {
            NQ_TRY(need(p, len, "a string"));
        }
        p->pos += len;
    }
    p->string_count += count; /* each took bytes of the header: cannot overflow */
    return NOVAQ_OK;
}

static novaq_status bad_type(const parser *p, uint64_t at, const char *what, uint64_t type) {
    return nq_fail(p->err, NOVAQ_E_FORMAT, "%s: offset %" PRIu64 ": unknown %s type %" PRIu64,
                   p->src->name, at, what, type);
}

static novaq_status read_array_header(parser *p, nq_gguf_kv *kv) {
    uint64_t at = p->pos;
    uint64_t elem = 0;
    NQ_TRY(read_uint(p, &elem, 4, "an array type"));
    if (elem == NQ_GGUF_ARRAY) {
        return bad(p, at, "arrays of arrays are not read");
    }
    unsigned size = elem == NQ_GGUF_STRING ? p->width : scalar_size(elem);
    if (size == 0) {
        return bad_type(p, at, "array element", elem);
    }
    kv->elem = (nq_gguf_type)elem;
    return read_count(p, &kv->count, size, "an array length");
}

/* Until finish(), kv->key and kv->values are header offsets, biased by one so
 * that 0 stays "none": the header may still move. */
static const void *bias(uint64_t offset) { return (const void *)(uintptr_t)(offset + 1); }

static const uint8_t *unbias(const parser *p, const void *v) {
    return p->g->header + ((uintptr_t)v - 1);
}

static novaq_status read_value(parser *p, nq_gguf_kv *kv) {
    uint64_t at = p->pos;
    uint64_t type = 0;
    NQ_TRY(read_uint(p, &type, 4, "a value type"));
    if (type != NQ_GGUF_STRING && type != NQ_GGUF_ARRAY && scalar_size(type) == 0) {
        return bad_type(p, at, "value", type);
    }
    kv->type = (nq_gguf_type)type;
    kv->elem = kv->type;
    kv->count = 1;
    if (kv->type == NQ_GGUF_ARRAY) {
        NQ_TRY(read_array_header(p, kv));
    }
    kv->values = bias(p->pos);
    if (kv->elem == NQ_GGUF_STRING) {
        return walk_strings(p, kv->count);
    }
    uint64_t bytes = kv->count * scalar_size(kv->elem); /* at most the file */
    NQ_TRY(need(p, bytes, "a value"));
    p->pos += bytes;
    return NOVAQ_OK;
}

static novaq_status read_kv(parser *p) {
    nq_gguf *g = p->g;
    if (g->kv_count == p->kv_cap) {
        size_t cap = p->kv_cap == 0 ? 64 : p->kv_cap + p->kv_cap / 2;
        NQ_TRY(nq_grow(&g->kvs, g->kv_count, cap, sizeof *g->kvs, p->err));
        p->kv_cap = cap;
    }
    uint64_t at = p->pos;
    uint64_t key = 0;
    uint64_t len = 0;
    NQ_TRY(read_name(p, &key, &len, "a key"));
    if (len == 0) {
        return bad(p, at, "empty key");
    }
    nq_gguf_kv *kv = &g->kvs[g->kv_count++];
    kv->key = bias(key);
    return read_value(p, kv);
}

/* ---- tensors -------------------------------------------------------------- */

static novaq_status bad_tensor(const parser *p, const nq_tensor_info *t, const char *what) {
    return nq_fail(p->err, NOVAQ_E_FORMAT, "%s: tensor \"%s\": %s", p->src->name,
                   (const char *)unbias(p, t->name), what);
}

/* ne is stored fastest dimension first. */
static novaq_status read_shape(parser *p, nq_tensor_info *t) {
    uint64_t rank = 0;
    NQ_TRY(read_uint(p, &rank, 4, "a dimension count"));
    if (rank > 4) {
        return bad_tensor(p, t, "more than 4 dimensions");
    }
    t->rank = (uint32_t)rank;
    t->elements = 1;
    uint64_t extent = 1; /* with empty dimensions left out: strides must fit too */
    for (uint32_t i = 0; i < t->rank; i++) {
        uint64_t ne = 0;
        NQ_TRY(read_uint(p, &ne, p->width, "a dimension"));
        if (ne > INT64_MAX) {
            return bad_tensor(p, t, "a dimension is negative");
        }
        if (!nq_mul_u64(extent, ne == 0 ? 1 : ne, &extent) || extent > INT64_MAX) {
            return bad_tensor(p, t, "the number of elements overflows");
        }
        t->shape[t->rank - 1 - i] = ne;
        t->elements *= ne;
    }
    return NOVAQ_OK;
}

/* Types ggml once had and gave up. */
static bool was_removed(uint64_t type) {
    return type == 4 || type == 5 || (type >= 31 && type <= 33) || (type >= 36 && type <= 38);
}

static novaq_status read_type(parser *p, nq_tensor_info *t) {
    uint64_t type = 0;
    NQ_TRY(read_uint(p, &type, 4, "a tensor type"));
    if (!nq_dtype_from_ggml(&t->dtype, (uint32_t)type)) {
        bool old = was_removed(type);
        return nq_fail(p->err, old ? NOVAQ_E_UNSUPPORTED : NOVAQ_E_FORMAT,
                       "%s: tensor \"%s\": ggml type %" PRIu64 " is %s", p->src->name,
                       (const char *)unbias(p, t->name), type,
                       old ? "no longer defined: convert the model anew" : "unknown");
    }
    const nq_dtype_info *d = nq_dtype_get(t->dtype);
    uint64_t row = t->rank == 0 ? 1 : t->shape[t->rank - 1];
    if (row % d->block != 0) {
        return bad_tensor(p, t, "its rows are not whole blocks of its type");
    }
    if (!nq_mul_u64(t->elements / d->block, d->bytes, &t->bytes)) {
        return bad_tensor(p, t, "its size in bytes overflows");
    }
    return NOVAQ_OK;
}

/* *total: bytes of the tensors so far, each padded to the alignment; the rule
 * is that a tensor's offset equals it. */
static novaq_status read_offset(parser *p, nq_tensor_info *t, uint64_t *total) {
    uint64_t align = p->g->alignment;
    NQ_TRY(read_uint(p, &t->offset, 8, "a tensor offset"));
    if (t->offset != *total) {
        return nq_fail(p->err, NOVAQ_E_FORMAT,
                       "%s: tensor \"%s\": offset %" PRIu64 " where %" PRIu64 " is due",
                       p->src->name, (const char *)unbias(p, t->name), t->offset, *total);
    }
    uint64_t padded = 0;
    if (!nq_add_u64(t->bytes, align - 1, &padded) ||
        !nq_add_u64(*total, padded / align * align, total)) {
        return bad_tensor(p, t, "the sizes of all tensors overflow");
    }
    return NOVAQ_OK;
}

static novaq_status read_tensor(parser *p, uint64_t *total) {
    nq_gguf *g = p->g;
    if (g->tensor_count == p->tensor_cap) {
        size_t cap = p->tensor_cap == 0 ? 64 : p->tensor_cap + p->tensor_cap / 2;
        NQ_TRY(nq_grow(&g->tensors, g->tensor_count, cap, sizeof *g->tensors, p->err));
        p->tensor_cap = cap;
    }
    uint64_t at = p->pos;
    uint64_t name = 0;
    uint64_t len = 0;
    NQ_TRY(read_name(p, &name, &len, "a tensor name"));
    if (len > NQ_GGUF_NAME_MAX) {
        return bad(p, at, "tensor name longer than 64 bytes");
    }
    if (nq_utf8_prefix(p->g->header + name, len) != len) {
        return bad(p, at, "tensor name is not UTF-8");
    }
    nq_tensor_info *t = &g->tensors[g->tensor_count++];
    t->name = bias(name);
    NQ_TRY(read_shape(p, t));
    NQ_TRY(read_type(p, t));
    return read_offset(p, t, total);
}

/* ---- the whole ------------------------------------------------------------ */

static novaq_status read_version(parser *p) {
    NQ_TRY(need(p, 4, "the magic"));
    if (memcmp(p->g->header, "GGUF", 4) != 0) {
        return bad(p, 0, "not a GGUF file (no magic)");
    }
    p->pos = 4;
    uint64_t version = 0;
    NQ_TRY(read_uint(p, &version, 4, "the version"));
    if (version != 0 && (version & 0xFFFF) == 0) {
        return nq_fail(p->err, NOVAQ_E_UNSUPPORTED,
                       "%s: offset 4: a big-endian GGUF file: convert it to little-endian first",
                       p->src->name);
    }
    if (version == 0) {
        return bad(p, 4, "GGUF version 0 does not exist");
    }
    if (version > 3) {
        return nq_fail(p->err, NOVAQ_E_UNSUPPORTED,
                       "%s: offset 4: GGUF version %" PRIu64 ", novaq reads versions 1 to 3",
                       p->src->name, version);
    }
    p->g->version = (uint32_t)version;
    p->width = version == 1 ? 4 : 8;
    return NOVAQ_OK;
}

/* Keys and names become pointers, now that the header stays where it is. */
static novaq_status fix_pointers(parser *p) {
    nq_gguf *g = p->g;
    if (p->string_count > 0) {
        NQ_TRY(nq_alloc_raw(&g->strings, p->string_count, sizeof *g->strings, p->err));
    }
    nq_gguf_string *next = g->strings;
    for (size_t i = 0; i < g->kv_count; i++) {
        nq_gguf_kv *kv = &g->kvs[i];
        kv->key = (const char *)unbias(p, kv->key);
        kv->values = unbias(p, kv->values);
        if (kv->elem != NQ_GGUF_STRING) {
            continue;
        }
        kv->strings = next;
        const uint8_t *at = kv->values;
        for (uint64_t j = 0; j < kv->count; j++) {
            uint64_t len = 0;
            for (unsigned b = 0; b < p->width; b++) {
                len |= (uint64_t)at[b] << (8 * b);
            }
            at += p->width;
            *next++ = (nq_gguf_string){(const char *)at, len};
            at += len;
        }
        kv->values = NULL;
    }
    return NOVAQ_OK;
}

static novaq_status check_unique(parser *p, nq_name *names, size_t count, const char *what) {
    nq_names_sort(names, count);
    const char *twice = nq_names_duplicate(names, count);
    return twice == NULL ? NOVAQ_OK
                         : nq_fail(p->err, NOVAQ_E_FORMAT,
                                   "%s: header before offset %" PRIu64 ": %s \"%.200s\" twice",
                                   p->src->name, p->pos, what, twice);
}

static novaq_status check_keys(parser *p) {
    nq_gguf *g = p->g;
    nq_name *names = NULL;
    NQ_TRY(nq_alloc_raw(&names, g->kv_count, sizeof *names, p->err));
    for (size_t i = 0; i < g->kv_count; i++) {
        names[i] = (nq_name){(const char *)unbias(p, g->kvs[i].key), i};
    }
    novaq_status st = check_unique(p, names, g->kv_count, "key");
    const nq_name *hit = nq_names_find(names, g->kv_count, "general.alignment");
    g->alignment = 32;
    if (st == NOVAQ_OK && hit != NULL) {
        const nq_gguf_kv *kv = &g->kvs[hit->index];
        const uint8_t *v = unbias(p, kv->values);
        if (kv->type == NQ_GGUF_U32) {
            g->alignment =
                (uint64_t)v[0] | (uint64_t)v[1] << 8 | (uint64_t)v[2] << 16 | (uint64_t)v[3] << 24;
        }
        if (kv->type != NQ_GGUF_U32 || g->alignment == 0 ||
            (g->alignment & (g->alignment - 1)) != 0) {
            st = bad(p, (uintptr_t)kv->values - 1,
                     "general.alignment is not a power of two of type u32");
        }
    }
    nq_free(names);
    return st;
}

static novaq_status check_tensors(parser *p) {
    nq_gguf *g = p->g;
    nq_name *names = NULL;
    NQ_TRY(nq_alloc_raw(&names, g->tensor_count, sizeof *names, p->err));
    for (size_t i = 0; i < g->tensor_count; i++) {
        g->tensors[i].name = (const char *)unbias(p, g->tensors[i].name);
        names[i] = (nq_name){g->tensors[i].name, i};
    }
    novaq_status st = check_unique(p, names, g->tensor_count, "tensor");
    nq_free(names);
    for (size_t i = 0; st == NOVAQ_OK && i < g->tensor_count; i++) {
        nq_tensor_info *t = &g->tensors[i];
        uint64_t end = 0;
        if (!nq_add_u64(t->offset, g->data_offset, &t->offset) ||
            !nq_add_u64(t->offset, t->bytes, &end) || (t->bytes > 0 && end > p->src->size)) {
            st = nq_fail(p->err, NOVAQ_E_FORMAT,
                         "%s: tensor \"%s\": its %" PRIu64 " bytes at offset %" PRIu64
                         " reach beyond the end of the file (%" PRIu64 "); is it truncated?",
                         p->src->name, t->name, t->bytes, t->offset, p->src->size);
        }
    }
    return st;
}

static novaq_status parse(parser *p) {
    NQ_TRY(read_version(p));
    uint64_t tensors = 0;
    uint64_t keys = 0;
    /* Least sizes: tensor = name length, rank, type, offset; key = length, one
     * byte, type, one byte of value. */
    NQ_TRY(read_count(p, &tensors, p->width + 16U, "a tensor count"));
    NQ_TRY(read_count(p, &keys, p->width + 6U, "a key count"));
    for (uint64_t i = 0; i < keys; i++) {
        NQ_TRY(read_kv(p));
    }
    NQ_TRY(check_keys(p));
    uint64_t total = 0;
    for (uint64_t i = 0; i < tensors; i++) {
        NQ_TRY(read_tensor(p, &total));
    }
    uint64_t align = p->g->alignment;
    p->g->data_offset = (p->pos + align - 1) / align * align; /* both below 2^33 */
    NQ_TRY(fix_pointers(p));
    return check_tensors(p);
}

novaq_status nq_gguf_parse(nq_gguf *out, nq_source *src, novaq_error *err) {
    *out = (nq_gguf){.version = 0};
    parser p = {.g = out, .src = src, .err = err};
    p.limit = src->size < NQ_GGUF_HEADER_MAX ? src->size : NQ_GGUF_HEADER_MAX;
    novaq_status st = parse(&p);
    if (st != NOVAQ_OK) {
        nq_gguf_free(out);
    }
    return st;
}

void nq_gguf_free(nq_gguf *g) {
    nq_free(g->kvs);
    nq_free(g->tensors);
    nq_free(g->strings);
    nq_free(g->header);
    *g = (nq_gguf){.version = 0};
}
