/* torch.c - see torch.h: the zip form, and views that become tensors. */
#include "format/torch.h"

#include <string.h>

#include "base/mem.h"
#include "format/names.h"
#include "format/torch_impl.h"
#include "format/zip.h"

#define SMALL_RECORD 64U /* bytes of records such as "byteorder" */
#define REPEATS_MAX  64U /* how often tensors may show a byte of the file, on average */
/* torch.save() begins the bytes of every record at a multiple of this. */
#define TORCH_ALIGNMENT 64U

/* ---- from views to tensors ------------------------------------------------ */

static novaq_status check_names(const nq_torch *t, const char *file, novaq_error *err) {
    nq_name *list = NULL;
    NQ_TRY(nq_alloc_raw(&list, t->count, sizeof *list, err));
    for (size_t i = 0; i < t->count; i++) {
        list[i] = (nq_name){t->tensors[i].name, i};
    }
    nq_names_sort(list, t->count);
    const char *twice = nq_names_duplicate(list, t->count);
    nq_free(list);
    return twice == NULL
               ? NOVAQ_OK
               : nq_fail(err, NOVAQ_E_FORMAT, "%s: tensor \"%.200s\" is there twice", file, twice);
}

static novaq_status place(nq_torch *out, nq_torch_view *v, uint64_t *total, nq_source *src,
                          nq_torch_find_fn find, void *ctx, novaq_error *err) {
    const char *name = out->names + v->name;
    bool plain = true;
    uint64_t offset = 0;
    novaq_status st = find(ctx, &offset, out->names + v->storage.key, v->storage.bytes, err);
    if (st != NOVAQ_OK) {
        return nq_fail_context(err, st, "tensor \"%.200s\"", name);
    }
    NQ_TRY(nq_torch_judge(v, &plain, name, src, err));
    nq_tensor_info *t = &out->tensors[out->count];
    *t = v->info;
    t->name = name;
    /* find() saw the whole storage in the file, so nothing here overflows. */
    t->offset = offset + v->skip * nq_dtype_get(t->dtype)->bytes;
    if (!nq_add_u64(*total, t->bytes, total) || *total / REPEATS_MAX > src->size) {
        return nq_fail(err, NOVAQ_E_FORMAT,
                       "%s: tensor \"%.200s\": up to it, tensors take more than %u times the file",
                       src->name, name, REPEATS_MAX);
    }
    if (!plain) {
        uint64_t *strides = out->strides + out->count * NQ_MAX_RANK;
        memcpy(strides, v->strides, sizeof v->strides);
        t->strides = strides;
    }
    out->count++;
    return NOVAQ_OK;
}

novaq_status nq_torch_finish(nq_torch *out, nq_torch_views *views, nq_source *src,
                             nq_torch_find_fn find, void *ctx, novaq_error *err) {
    size_t len = 0;
    uint64_t total = 0;
    NQ_TRY(nq_buf_take(&views->text, &out->names, &len, err));
    NQ_TRY(nq_alloc(&out->tensors, views->count, sizeof *out->tensors, err));
    NQ_TRY(nq_alloc(&out->strides, views->count * NQ_MAX_RANK, sizeof *out->strides, err));
    for (uint64_t i = 0; i < views->count; i++) {
        NQ_TRY(place(out, &views->v[i], &total, src, find, ctx, err));
    }
    return check_names(out, src->name, err);
}

/* ---- the zip form --------------------------------------------------------- */

typedef struct archive {
    nq_zip zip;
    nq_source *src;
    const char *root; /* of its names, up to the '/', not NUL-terminated */
    size_t root_len;
    uint64_t *offsets; /* of each record's bytes, 0 = not looked up yet */
    uint64_t *looks;   /* (records) nq_torch_claim.look where that was assumed, else 0 */
} archive;

/* The record root/name, or NULL. */
static const nq_zip_entry *find_record(const archive *a, const char *name) {
    char *path = NULL;
    if (nq_asprintf(&path, NULL, "%.*s/%s", (int)a->root_len, a->root, name) != NOVAQ_OK) {
        return NULL;
    }
    const nq_zip_entry *e = nq_zip_find(&a->zip, path);
    nq_free(path);
    return e;
}

/* The one folder with a data.pkl in it. */
static novaq_status find_root(archive *a, novaq_error *err) {
    for (size_t i = 0; i < a->zip.count; i++) {
        const char *name = a->zip.entries[i].name;
        const char *slash = strchr(name, '/');
        if (slash == NULL || strcmp(slash, "/data.pkl") != 0) {
            continue;
        }
        if (a->root != NULL) {
            return nq_fail(err, NOVAQ_E_FORMAT, "%s: offset %llu: a second data.pkl (\"%.200s\")",
                           a->src->name, (unsigned long long)a->zip.entries[i].header, name);
        }
        a->root = name;
        a->root_len = (size_t)(slash - name);
    }
    if (a->root == NULL) {
        return nq_fail(err, NOVAQ_E_UNSUPPORTED,
                       "%s: offset 0: a zip archive without data.pkl: no file of torch.save",
                       a->src->name);
    }
    if (find_record(a, "constants.pkl") != NULL) {
        return nq_fail(err, NOVAQ_E_UNSUPPORTED,
                       "%s: offset 0: a TorchScript program (constants.pkl): save "
                       "model.state_dict() instead",
                       a->src->name);
    }
    return NOVAQ_OK;
}

static novaq_status check_order(const archive *a, novaq_error *err) {
    const nq_zip_entry *e = find_record(a, "byteorder");
    uint8_t *text = NULL;
    uint64_t at = 0;
    if (e == NULL) { /* before PyTorch 2.1: the order of the writer, in practice little */
        return NOVAQ_OK;
    }
    NQ_TRY(nq_zip_read(&text, &at, &a->zip, e, SMALL_RECORD, a->src, err));
    bool little = e->size == 6 && memcmp(text, "little", 6) == 0;
    bool big = e->size == 3 && memcmp(text, "big", 3) == 0;
    nq_free(text);
    if (little) {
        return NOVAQ_OK;
    }
    return nq_fail(err, big ? NOVAQ_E_UNSUPPORTED : NOVAQ_E_FORMAT, "%s: offset %llu: %s",
                   a->src->name, (unsigned long long)at,
                   big ? "big-endian, which novaq does not read: save it on another machine"
                       : "neither little- nor big-endian");
}

static novaq_status find_in_zip(void *ctx, uint64_t *offset, const char *key, uint64_t bytes,
                                novaq_error *err) {
    archive *a = ctx;
    char *name = NULL;
    NQ_TRY(nq_asprintf(&name, err, "data/%s", key));
    const nq_zip_entry *e = find_record(a, name);
    nq_free(name);
    if (e == NULL) {
        return nq_fail(err, NOVAQ_E_FORMAT, "%s: there is no record of its storage \"%.100s\"",
                       a->src->name, key);
    }
    if (e->size != bytes) {
        return nq_fail(err, NOVAQ_E_FORMAT,
                       "%s: offset %llu: storage \"%.100s\" claims %llu bytes, its record has %llu",
                       a->src->name, (unsigned long long)e->header, key, (unsigned long long)bytes,
                       (unsigned long long)e->size);
    }
    size_t i = (size_t)(e - a->zip.entries);
    uint64_t *known = &a->offsets[i];
    if (*known == 0 &&
        !(a->src->remote && nq_zip_assume(known, &a->looks[i], &a->zip, e, TORCH_ALIGNMENT))) {
        NQ_TRY(nq_zip_locate(known, &a->zip, e, a->src, err));
    }
    *offset = *known;
    return NOVAQ_OK;
}

/* What was assumed, to be proved when it is read. */
static novaq_status keep_claims(nq_torch *out, archive *a, novaq_error *err) {
    for (size_t i = 0; i < a->zip.count; i++) {
        const nq_zip_entry *e = &a->zip.entries[i];
        if (a->looks[i] == 0) {
            continue;
        }
        nq_torch_claim claim = {.head = e->header,
                                .look = a->looks[i],
                                .data = a->offsets[i],
                                .bytes = e->size,
                                .says = i};
        NQ_TRY(nq_torch_claim_add(out, &claim, err));
    }
    if (out->claim_count > 0) {
        out->zip = a->zip;
        a->zip = (nq_zip){.count = 0};
    }
    return NOVAQ_OK;
}

static novaq_status parse_records(nq_torch *out, archive *a, novaq_error *err) {
    NQ_TRY(find_root(a, err));
    NQ_TRY(check_order(a, err));
    NQ_TRY(nq_alloc(&a->offsets, a->zip.count, sizeof *a->offsets, err));
    NQ_TRY(nq_alloc(&a->looks, a->zip.count, sizeof *a->looks, err));
    const nq_zip_entry *e = find_record(a, "data.pkl");
    if (e == NULL) {
        return nq_fail(err, NOVAQ_E_MEMORY, "%s: out of memory", a->src->name);
    }
    uint8_t *data = NULL;
    uint64_t at = 0;
    nq_torch_tree tree = {.base = 0};
    nq_torch_views views = {.count = 0};
    NQ_TRY(nq_zip_read(&data, &at, &a->zip, e, NQ_PICKLE_MAX, a->src, err));
    novaq_status st = nq_torch_unpickle(&tree, a->src->name, data, e->size, at, err);
    if (st == NOVAQ_OK && tree.pickle.used != e->size) {
        st = nq_fail(err, NOVAQ_E_FORMAT, "%s: offset %llu: bytes behind the end of the pickle",
                     a->src->name, (unsigned long long)(at + tree.pickle.used));
    }
    if (st == NOVAQ_OK) {
        st = nq_torch_collect(&views, &tree, err);
    }
    if (st == NOVAQ_OK) {
        st = nq_torch_finish(out, &views, a->src, find_in_zip, a, err);
    }
    if (st == NOVAQ_OK) {
        st = keep_claims(out, a, err);
    }
    nq_torch_drop(&views);
    nq_pickle_free(&tree.pickle);
    nq_free(data);
    return st;
}

static novaq_status parse_zip(nq_torch *out, nq_source *src, novaq_error *err) {
    archive a = {.src = src};
    NQ_TRY(nq_zip_open(&a.zip, src, err));
    novaq_status st = parse_records(out, &a, err);
    nq_free(a.offsets);
    nq_free(a.looks);
    nq_zip_close(&a.zip);
    return st;
}

/* ---- entry ---------------------------------------------------------------- */

novaq_status nq_torch_parse(nq_torch *out, nq_source *src, novaq_error *err) {
    uint8_t head[4] = {0};
    *out = (nq_torch){.count = 0};
    NQ_TRY(nq_source_read(src, 0, head, src->size < sizeof head ? src->size : sizeof head, err));
    bool zip = memcmp(head, "PK", 2) == 0;
    novaq_status st = zip ? parse_zip(out, src, err) : nq_torch_parse_legacy(out, src, err);
    if (st != NOVAQ_OK) {
        nq_torch_free(out);
    }
    return st;
}

void nq_torch_free(nq_torch *t) {
    nq_free(t->tensors);
    nq_free(t->names);
    nq_free(t->strides);
    nq_free(t->claims);
    nq_zip_close(&t->zip);
    *t = (nq_torch){.count = 0};
}
