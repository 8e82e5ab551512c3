/* safetensors.c - see safetensors.h.
 *
 * Layout: u64 N (little-endian), N bytes of JSON, data. JSON: one object of
 * name -> {dtype, shape, data_offsets: [begin, end]} with offsets relative to
 * the data, and optionally __metadata__: {string: string}.
 */
#include "format/safetensors.h"

#include <string.h>

#include "base/cursor.h"
#include "base/mem.h"
#include "format/json_scan.h"

/* One tensor's entry while it is read. */
typedef struct entry {
    nq_tensor_info info; /* offset: begin, relative */
    const char *dtype;   /* NULL until seen */
    bool has_shape;
    bool has_offsets;
    uint64_t dims; /* may exceed NQ_MAX_RANK */
    uint64_t end;
} entry;

typedef struct parser {
    nq_scan scan;
    nq_safetensors *st;
    size_t cap; /* of st->tensors */
    const char *file;
} parser;

static novaq_status bad_tensor(const parser *p, const char *name, const char *what,
                               novaq_error *err) {
    return nq_fail(err, NOVAQ_E_FORMAT, "%s: tensor \"%.200s\": %s", p->file, name, what);
}

/* ---- one entry ------------------------------------------------------------ */

static novaq_status read_shape(parser *p, entry *e, novaq_error *err) {
    nq_scan_level l;
    e->has_shape = true;
    e->info.elements = 1;
    NQ_TRY(nq_scan_open_array(&p->scan, &l, err));
    for (;;) {
        bool more = false;
        NQ_TRY(nq_scan_next_item(&p->scan, &l, &more, err));
        if (!more) {
            return NOVAQ_OK;
        }
        uint64_t dim = 0;
        NQ_TRY(nq_scan_u64(&p->scan, &dim, err));
        if (!nq_mul_u64(e->info.elements, dim, &e->info.elements)) {
            return bad_tensor(p, e->info.name, "the shape's product overflows", err);
        }
        if (e->dims < NQ_MAX_RANK) {
            e->info.shape[e->dims] = dim;
        }
        e->dims++;
    }
}

static novaq_status read_offsets(parser *p, entry *e, novaq_error *err) {
    nq_scan_level l;
    uint64_t v[2] = {0, 0};
    size_t n = 0;
    e->has_offsets = true;
    NQ_TRY(nq_scan_open_array(&p->scan, &l, err));
    for (;;) {
        bool more = false;
        NQ_TRY(nq_scan_next_item(&p->scan, &l, &more, err));
        if (!more || n == 2) {
            n += more ? 1 : 0;
            break;
        }
        NQ_TRY(nq_scan_u64(&p->scan, &v[n++], err));
    }
    if (n != 2) {
        return bad_tensor(p, e->info.name, "data_offsets must be two numbers", err);
    }
    if (v[0] > v[1]) {
        return bad_tensor(p, e->info.name, "data_offsets end before they begin", err);
    }
    e->info.offset = v[0];
    e->end = v[1];
    e->info.bytes = v[1] - v[0];
    return NOVAQ_OK;
}

/* Types of the format that have no place in nq_dtype. */
static bool known_elsewhere(const char *dtype) {
    static const char *const names[] = {"F4",          "F6_E2M3",     "F6_E3M2", "F8_E8M0",
                                        "F8_E4M3FNUZ", "F8_E5M2FNUZ", "C64"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (strcmp(dtype, names[i]) == 0) {
            return true;
        }
    }
    return false;
}

static novaq_status check_entry(parser *p, entry *e, novaq_error *err) {
    nq_tensor_info *t = &e->info;
    if (e->dtype == NULL || !e->has_shape || !e->has_offsets) {
        return bad_tensor(p, t->name,
                          e->dtype == NULL ? "has no dtype"
                          : e->has_shape   ? "has no data_offsets"
                                           : "has no shape",
                          err);
    }
    if (!nq_dtype_from_safetensors(&t->dtype, e->dtype)) {
        bool known = known_elsewhere(e->dtype);
        return nq_fail(err, known ? NOVAQ_E_UNSUPPORTED : NOVAQ_E_FORMAT,
                       "%s: tensor \"%.200s\": %s dtype \"%.40s\"", p->file, t->name,
                       known ? "novaq does not read" : "unknown", e->dtype);
    }
    if (e->dims > NQ_MAX_RANK) {
        return nq_fail(err, NOVAQ_E_UNSUPPORTED,
                       "%s: tensor \"%.200s\" has %llu dimensions, novaq reads at most %d", p->file,
                       t->name, (unsigned long long)e->dims, NQ_MAX_RANK);
    }
    t->rank = (uint32_t)e->dims;
    uint64_t bytes = 0;
    if (!nq_mul_u64(t->elements, nq_dtype_get(t->dtype)->bytes, &bytes)) {
        return bad_tensor(p, t->name, "the size in bytes overflows", err);
    }
    if (bytes != t->bytes) {
        return nq_fail(err, NOVAQ_E_FORMAT,
                       "%s: tensor \"%.200s\": dtype and shape take %llu bytes, data_offsets %llu",
                       p->file, t->name, (unsigned long long)bytes, (unsigned long long)t->bytes);
    }
    return NOVAQ_OK;
}

static novaq_status append(parser *p, const nq_tensor_info *t, novaq_error *err) {
    nq_safetensors *st = p->st;
    if (st->count == p->cap) {
        size_t cap = p->cap == 0 ? 64 : p->cap + p->cap / 2;
        NQ_TRY(nq_grow(&st->tensors, st->count, cap, sizeof *st->tensors, err));
        p->cap = cap;
    }
    st->tensors[st->count++] = *t;
    return NOVAQ_OK;
}

static novaq_status read_entry(parser *p, const char *name, novaq_error *err) {
    entry e = {.info = {.name = name}};
    nq_scan_level l;
    NQ_TRY(nq_scan_open_object(&p->scan, &l, err));
    for (;;) {
        const char *key = NULL;
        NQ_TRY(nq_scan_next_key(&p->scan, &l, &key, err));
        if (key == NULL) {
            break;
        }
        if (strcmp(key, "dtype") == 0) {
            NQ_TRY(nq_scan_string(&p->scan, &e.dtype, err));
        } else if (strcmp(key, "shape") == 0 && !e.has_shape) {
            NQ_TRY(read_shape(p, &e, err));
        } else if (strcmp(key, "data_offsets") == 0) {
            NQ_TRY(read_offsets(p, &e, err));
        } else {
            NQ_TRY(nq_scan_skip(&p->scan, err));
        }
    }
    NQ_TRY(check_entry(p, &e, err));
    return append(p, &e.info, err);
}

/* ---- the header ----------------------------------------------------------- */

static novaq_status read_metadata(parser *p, novaq_error *err) {
    if (nq_scan_peek(&p->scan) == 'n') {
        return nq_scan_skip(&p->scan, err); /* null: as good as absent */
    }
    nq_scan_level l;
    NQ_TRY(nq_scan_open_object(&p->scan, &l, err));
    for (;;) {
        const char *key = NULL;
        const char *value = NULL;
        NQ_TRY(nq_scan_next_key(&p->scan, &l, &key, err));
        if (key == NULL) {
            return NOVAQ_OK;
        }
        NQ_TRY(nq_scan_string(&p->scan, &value, err));
        if (strcmp(key, "novaq_manifest") == 0) {
            p->st->is_artifact = true;
        }
    }
}

static novaq_status read_header(parser *p, novaq_error *err) {
    nq_scan_level l;
    NQ_TRY(nq_scan_open_object(&p->scan, &l, err));
    for (;;) {
        const char *key = NULL;
        NQ_TRY(nq_scan_next_key(&p->scan, &l, &key, err));
        if (key == NULL) {
            return nq_scan_end(&p->scan, err);
        }
        if (strcmp(key, "__metadata__") == 0) {
            NQ_TRY(read_metadata(p, err));
        } else {
            NQ_TRY(read_entry(p, key, err));
        }
    }
}

static int by_offset(const void *a, const void *b) {
    const nq_tensor_info *x = a;
    const nq_tensor_info *y = b;
    if (x->offset != y->offset) {
        return x->offset < y->offset ? -1 : 1;
    }
    if (x->bytes != y->bytes) {
        return x->bytes < y->bytes ? -1 : 1;
    }
    return strcmp(x->name, y->name);
}

/* Tensors must tile the data: sorted, each begins where the last one ended. */
static novaq_status check_layout(parser *p, uint64_t data_offset, uint64_t data_bytes,
                                 novaq_error *err) {
    nq_safetensors *st = p->st;
    nq_sort(st->tensors, st->count, sizeof *st->tensors, by_offset);
    uint64_t end = 0;
    for (size_t i = 0; i < st->count; i++) {
        nq_tensor_info *t = &st->tensors[i];
        if (t->offset != end) {
            return bad_tensor(p, t->name,
                              t->offset < end ? "overlaps the tensor before it"
                                              : "leaves a hole in the data before it",
                              err);
        }
        if (t->bytes > data_bytes - end) {
            return bad_tensor(p, t->name, "its data lies beyond the end of the file", err);
        }
        end += t->bytes;
        t->offset += data_offset;
    }
    if (end != data_bytes) {
        return nq_fail(err, NOVAQ_E_FORMAT, "%s: offset %llu: %llu bytes belong to no tensor",
                       p->file, (unsigned long long)(data_offset + end),
                       (unsigned long long)(data_bytes - end));
    }
    return NOVAQ_OK;
}

/* *n: bytes of JSON, which the file is known to have. */
static novaq_status header_length(uint64_t *n, nq_source *src, novaq_error *err) {
    if (src->size < 8) {
        return nq_fail(err, NOVAQ_E_FORMAT, "%s: offset 0: %llu bytes are too few for SafeTensors",
                       src->name, (unsigned long long)src->size);
    }
    uint8_t raw[8];
    NQ_TRY(nq_source_read(src, 0, raw, sizeof raw, err));
    nq_cursor c = nq_cursor_init(src->name, raw, sizeof raw, 0);
    *n = nq_cursor_u64(&c);
    if (*n > NQ_SAFETENSORS_HEADER_MAX) {
        return nq_fail(err, NOVAQ_E_FORMAT,
                       "%s: offset 0: header length %llu is above the limit of %u", src->name,
                       (unsigned long long)*n, NQ_SAFETENSORS_HEADER_MAX);
    }
    if (*n == 0 || *n > src->size - 8) {
        return nq_fail(err, NOVAQ_E_FORMAT,
                       "%s: offset 0: header length %llu does not fit a file of %llu bytes",
                       src->name, (unsigned long long)*n, (unsigned long long)src->size);
    }
    return NOVAQ_OK;
}

novaq_status nq_safetensors_parse(nq_safetensors *out, nq_source *src, novaq_error *err) {
    *out = (nq_safetensors){.header = NULL};
    uint64_t n = 0;
    NQ_TRY(header_length(&n, src, err));
    NQ_TRY(nq_alloc_raw(&out->header, n, 1, err));
    parser p = {.st = out, .file = src->name};
    novaq_status st = nq_source_read(src, 8, out->header, n, err);
    if (st == NOVAQ_OK) {
        st = nq_scan_init(&p.scan, src->name, out->header, n, 8, err);
    }
    if (st == NOVAQ_OK) {
        st = read_header(&p, err);
    }
    if (st == NOVAQ_OK) {
        st = check_layout(&p, 8 + n, src->size - 8 - n, err);
    }
    nq_scan_free(&p.scan);
    if (st != NOVAQ_OK) {
        nq_safetensors_free(out);
    }
    return st;
}

void nq_safetensors_free(nq_safetensors *st) {
    nq_free(st->tensors);
    nq_free(st->header);
    *st = (nq_safetensors){.header = NULL};
}
