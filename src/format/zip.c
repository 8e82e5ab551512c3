/* zip.c - see zip.h. Field offsets are those of APPNOTE.TXT 6.3. */
#include "format/zip.h"

#include <string.h>
#include <zlib.h>

#include "base/cursor.h"
#include "base/mem.h"

#define SIG_LOCAL     0x04034b50U
#define SIG_CENTRAL   0x02014b50U
#define SIG_END       0x06054b50U
#define SIG_END64     0x06064b50U
#define SIG_LOCATOR64 0x07064b50U

#define LOCAL_BYTES     30U
#define CENTRAL_BYTES   46U
#define END_BYTES       22U
#define END64_BYTES     56U
#define LOCATOR64_BYTES 20U

#define EXTRA_ZIP64     1U
#define EXTRA_USUAL     128U                 /* bytes; torch pads data to 64 */
#define TAIL_USUAL      ((uint64_t)64 << 10) /* bytes of most directories, end included */
#define NAME_MAX_BYTES  1024U
#define FULL16          0xFFFFU
#define FULL32          0xFFFFFFFFU
#define FLAG_DESCRIPTOR (1U << 3) /* sizes follow the data; the directory has them, too */
/* Options of deflate, descriptor, UTF-8 names. The others encrypt or hide. */
#define FLAGS_KNOWN (1U << 1 | 1U << 2 | FLAG_DESCRIPTOR | 1U << 11)

static novaq_status bad(const nq_source *src, uint64_t offset, const char *what, novaq_error *err) {
    return nq_fail(err, NOVAQ_E_FORMAT, "%s: offset %llu: zip: %s", src->name,
                   (unsigned long long)offset, what);
}

static novaq_status bad_entry(const nq_source *src, const nq_zip_entry *e, const char *what,
                              novaq_error *err) {
    return nq_fail(err, NOVAQ_E_FORMAT, "%s: offset %llu: zip record \"%.200s\" %s", src->name,
                   (unsigned long long)e->header, e->name, what);
}

/* ---- the end of the archive ----------------------------------------------- */

typedef struct tail {
    uint64_t count;     /* entries */
    uint64_t size;      /* bytes of the directory */
    uint64_t directory; /* its offset */
    uint64_t end;       /* where it must end: what follows it begins */
} tail;

/* Either the number of the old record or "see the new one". */
static bool agrees(uint64_t old, uint64_t full, uint64_t now) { return old == full || old == now; }

/* The zip64 end record, when a locator stands before the end record. */
static novaq_status read_end64(tail *t, uint64_t end, nq_source *src, novaq_error *err) {
    uint8_t raw[END64_BYTES];
    if (end < LOCATOR64_BYTES + END64_BYTES) {
        return NOVAQ_OK;
    }
    uint64_t locator = end - LOCATOR64_BYTES;
    NQ_TRY(nq_source_read(src, locator, raw, LOCATOR64_BYTES, err));
    nq_cursor c = nq_cursor_init(src->name, raw, LOCATOR64_BYTES, locator);
    if (nq_cursor_u32(&c) != SIG_LOCATOR64) {
        return NOVAQ_OK;
    }
    uint32_t disk = nq_cursor_u32(&c);
    uint64_t at = nq_cursor_u64(&c);
    uint32_t disks = nq_cursor_u32(&c);
    if (disk != 0 || disks > 1) {
        return bad(src, locator, "is spread over several files", err);
    }
    if (at != locator - END64_BYTES) {
        return bad(src, locator, "zip64 end record is not where its locator says", err);
    }
    NQ_TRY(nq_source_read(src, at, raw, END64_BYTES, err));
    c = nq_cursor_init(src->name, raw, END64_BYTES, at);
    if (nq_cursor_u32(&c) != SIG_END64 || nq_cursor_u64(&c) != END64_BYTES - 12) {
        return bad(src, at, "damaged zip64 end record", err);
    }
    (void)nq_cursor_bytes(&c, 4); /* versions */
    uint64_t on_disks = nq_cursor_u64(&c);
    uint64_t here = nq_cursor_u64(&c);
    tail now = {.count = nq_cursor_u64(&c), .end = at};
    now.size = nq_cursor_u64(&c);
    now.directory = nq_cursor_u64(&c);
    if (on_disks != 0 || here != now.count) {
        return bad(src, at, "is spread over several files", err);
    }
    if (!agrees(t->count, FULL16, now.count) || !agrees(t->size, FULL32, now.size) ||
        !agrees(t->directory, FULL32, now.directory)) {
        return bad(src, at, "the two end records contradict each other", err);
    }
    *t = now;
    return NOVAQ_OK;
}

static novaq_status read_end(tail *t, nq_source *src, novaq_error *err) {
    uint8_t raw[END_BYTES];
    if (src->size < END_BYTES) {
        return bad(src, 0, "too short for an archive", err);
    }
    uint64_t at = src->size - END_BYTES;
    NQ_TRY(nq_source_read(src, at, raw, sizeof raw, err));
    nq_cursor c = nq_cursor_init(src->name, raw, sizeof raw, at);
    if (nq_cursor_u32(&c) != SIG_END) {
        return bad(src, at, "no end record: the file is cut short or something is appended", err);
    }
    uint16_t disk = nq_cursor_u16(&c);
    uint16_t first_disk = nq_cursor_u16(&c);
    uint16_t here = nq_cursor_u16(&c);
    *t = (tail){.count = nq_cursor_u16(&c), .end = at};
    t->size = nq_cursor_u32(&c);
    t->directory = nq_cursor_u32(&c);
    if (nq_cursor_u16(&c) != 0) {
        return bad(src, at, "has a comment behind its end record", err);
    }
    if ((disk != 0 && disk != FULL16) || (first_disk != 0 && first_disk != FULL16) ||
        here != t->count) {
        return bad(src, at, "is spread over several files", err);
    }
    NQ_TRY(read_end64(t, at, src, err));
    if (t->size > NQ_ZIP_DIRECTORY_MAX) {
        return bad(src, at, "directory is larger than 64 MiB", err);
    }
    uint64_t end = 0;
    if (!nq_add_u64(t->directory, t->size, &end) || end != t->end) {
        return bad(src, at, "directory does not end where the end record begins", err);
    }
    if (t->count > t->size / CENTRAL_BYTES) {
        return bad(src, at, "directory is too small for the records it counts", err);
    }
    return NOVAQ_OK;
}

/* ---- names ---------------------------------------------------------------- */

/* What is wrong with a name, or NULL. */
static const char *name_fault(const char *s, size_t len) {
    if (len == 0 || len > NAME_MAX_BYTES) {
        return "has no name or too long a one";
    }
    if (memchr(s, '\0', len) != NULL || memchr(s, '\\', len) != NULL ||
        nq_utf8_prefix(s, len) != len) {
        return "has a NUL, a backslash or no UTF-8 in its name";
    }
    for (size_t at = 0; at <= len;) {
        const char *slash = memchr(s + at, '/', len - at);
        size_t n = slash == NULL ? len - at : (size_t)(slash - s) - at;
        if (n == 0 || (n == 1 && s[at] == '.') || (n == 2 && memcmp(s + at, "..", 2) == 0)) {
            return "has a path that leads elsewhere";
        }
        at += n + 1;
    }
    return NULL;
}

/* ---- the central directory ------------------------------------------------ */

/* Sizes of 64 bits from the extra fields, for those that are full in the old
 * ones. order: of the fields in the zip64 extra. */
static bool read_zip64(nq_cursor *extra, uint64_t *const *fields, size_t count) {
    bool seen = false;
    while (nq_cursor_left(extra) > 0) {
        uint16_t id = nq_cursor_u16(extra);
        uint16_t n = nq_cursor_u16(extra);
        const uint8_t *p = nq_cursor_bytes(extra, n);
        if (p == NULL || (id == EXTRA_ZIP64 && seen)) {
            return false;
        }
        if (id != EXTRA_ZIP64) {
            continue;
        }
        seen = true;
        nq_cursor c = nq_cursor_init(extra->name, p, n, 0);
        for (size_t i = 0; i < count; i++) {
            if (*fields[i] == FULL32) {
                *fields[i] = nq_cursor_u64(&c);
            }
        }
        if (c.failed) {
            return false;
        }
    }
    return true;
}

static novaq_status check_entry(const nq_zip *z, const nq_source *src, const nq_zip_entry *e,
                                novaq_error *err) {
    if ((e->flags & ~FLAGS_KNOWN) != 0) {
        return nq_fail(err, NOVAQ_E_UNSUPPORTED,
                       "%s: offset %llu: zip record \"%.200s\" is encrypted or uses flags 0x%04x",
                       src->name, (unsigned long long)e->header, e->name, (unsigned)e->flags);
    }
    if (e->method == 0 && e->packed != e->size) {
        return bad_entry(src, e, "is stored, but has two sizes", err);
    }
    uint64_t least = 0;
    if (!nq_add_u64(e->packed, LOCAL_BYTES + strlen(e->name), &least) || e->header > z->directory ||
        least > z->directory - e->header) {
        return bad_entry(src, e, "lies beyond the directory", err);
    }
    return NOVAQ_OK;
}

static novaq_status read_entry(nq_zip *z, nq_cursor *c, char **names, const nq_source *src,
                               novaq_error *err) {
    uint64_t at = c->base + c->pos;
    nq_zip_entry *e = &z->entries[z->count];
    if (nq_cursor_u32(c) != SIG_CENTRAL) {
        return bad(src, at, "damaged directory", err);
    }
    (void)nq_cursor_bytes(c, 4); /* versions */
    e->flags = nq_cursor_u16(c);
    e->method = nq_cursor_u16(c);
    (void)nq_cursor_bytes(c, 4); /* time */
    e->crc = nq_cursor_u32(c);
    e->packed = nq_cursor_u32(c);
    e->size = nq_cursor_u32(c);
    uint16_t name_len = nq_cursor_u16(c);
    uint16_t extra_len = nq_cursor_u16(c);
    uint16_t comment_len = nq_cursor_u16(c);
    uint16_t disk = nq_cursor_u16(c);
    (void)nq_cursor_bytes(c, 6); /* attributes */
    e->header = nq_cursor_u32(c);
    const uint8_t *name = nq_cursor_bytes(c, name_len);
    const uint8_t *extra = nq_cursor_bytes(c, extra_len);
    (void)nq_cursor_bytes(c, comment_len);
    if (c->failed || name == NULL || extra == NULL) {
        return bad(src, at, "directory ends within a record", err);
    }
    const char *fault = name_fault((const char *)name, name_len);
    if (fault != NULL) {
        return nq_fail(err, NOVAQ_E_FORMAT, "%s: offset %llu: zip record %zu %s", src->name,
                       (unsigned long long)at, z->count, fault);
    }
    e->name = *names;
    memcpy(e->name, name, name_len);
    e->name[name_len] = '\0';
    *names += name_len + 1U;
    nq_cursor x = nq_cursor_init(src->name, extra, extra_len, 0);
    uint64_t *const fields[] = {&e->size, &e->packed, &e->header};
    if (disk != 0 || !read_zip64(&x, fields, 3)) {
        return bad_entry(src, e, "has damaged extra fields or lies on another disk", err);
    }
    NQ_TRY(check_entry(z, src, e, err));
    z->count++;
    return NOVAQ_OK;
}

static int by_header(const void *a, const void *b) {
    const nq_zip_entry *x = a;
    const nq_zip_entry *y = b;
    return x->header < y->header ? -1 : x->header > y->header;
}

/* No record twice, none within another, nothing before the first. */
static novaq_status check_layout(nq_zip *z, const nq_source *src, novaq_error *err) {
    nq_sort(z->entries, z->count, sizeof *z->entries, by_header);
    if (z->count > 0 && z->entries[0].header != 0) {
        return bad_entry(src, &z->entries[0], "is the first, but something is before it", err);
    }
    for (size_t i = 0; i + 1 < z->count; i++) {
        const nq_zip_entry *e = &z->entries[i];
        /* At least this much; nq_zip_locate() knows the exact end. */
        uint64_t least = LOCAL_BYTES + strlen(e->name) + e->packed;
        if (least > z->entries[i + 1].header - e->header) {
            return bad_entry(src, e, "overlaps the one behind it", err);
        }
    }
    for (size_t i = 0; i < z->count; i++) {
        z->by_name[i] = (nq_name){z->entries[i].name, i};
    }
    nq_names_sort(z->by_name, z->count);
    const char *twice = nq_names_duplicate(z->by_name, z->count);
    if (twice != NULL) {
        return bad_entry(src, nq_zip_find(z, twice), "is there twice", err);
    }
    return NOVAQ_OK;
}

static novaq_status read_directory(nq_zip *z, const tail *t, const uint8_t *raw,
                                   const nq_source *src, novaq_error *err) {
    nq_cursor c = nq_cursor_init(src->name, raw, t->size, t->directory);
    char *names = z->names;
    z->directory = t->directory;
    for (uint64_t i = 0; i < t->count; i++) {
        NQ_TRY(read_entry(z, &c, &names, src, err));
    }
    if (nq_cursor_left(&c) != 0) {
        return bad(src, t->directory + c.pos, "bytes in the directory belong to no record", err);
    }
    return check_layout(z, src, err);
}

novaq_status nq_zip_open(nq_zip *out, nq_source *src, novaq_error *err) {
    *out = (nq_zip){.count = 0};
    tail t = {.count = 0};
    uint64_t near = src->size < TAIL_USUAL ? src->size : TAIL_USUAL;
    nq_source_expect(src, src->size - near, near);
    NQ_TRY(read_end(&t, src, err));
    uint8_t *raw = NULL;
    NQ_TRY(nq_alloc_raw(&raw, t.size, 1, err));
    nq_source_expect(src, t.directory, t.size);
    novaq_status st = nq_source_read(src, t.directory, raw, t.size, err);
    if (st == NOVAQ_OK) {
        st = nq_alloc(&out->entries, t.count, sizeof *out->entries, err);
    }
    if (st == NOVAQ_OK) {
        st = nq_alloc(&out->by_name, t.count, sizeof *out->by_name, err);
    }
    if (st == NOVAQ_OK) { /* a record takes more than its name and a NUL */
        st = nq_alloc_raw(&out->names, t.size, 1, err);
    }
    if (st == NOVAQ_OK) {
        st = read_directory(out, &t, raw, src, err);
    }
    nq_free(raw);
    if (st != NOVAQ_OK) {
        nq_zip_close(out);
    }
    return st;
}

void nq_zip_close(nq_zip *z) {
    nq_free(z->entries);
    nq_free(z->by_name);
    nq_free(z->names);
    *z = (nq_zip){.count = 0};
}

/* ---- records -------------------------------------------------------------- */

const nq_zip_entry *nq_zip_find(const nq_zip *z, const char *name) {
    const nq_name *hit = nq_names_find(z->by_name, z->count, name);
    return hit == NULL ? NULL : &z->entries[hit->index];
}

/* Sizes in a local header: as in the directory, or zero where they follow the
 * data. */
static bool sizes_agree(const nq_zip_entry *e, uint32_t crc, uint64_t packed, uint64_t size) {
    bool later = (e->flags & FLAG_DESCRIPTOR) != 0;
    return (crc == e->crc || (later && crc == 0)) &&
           (packed == e->packed || (later && packed == 0)) &&
           (size == e->size || (later && size == 0));
}

/* c: over the local header, which has name_len bytes of name. */
static bool local_agrees(const nq_zip_entry *e, nq_cursor *c, size_t name_len) {
    (void)nq_cursor_bytes(c, 6); /* signature, version */
    bool same = nq_cursor_u16(c) == e->flags;
    same = nq_cursor_u16(c) == e->method && same;
    (void)nq_cursor_bytes(c, 4); /* time */
    uint32_t crc = nq_cursor_u32(c);
    uint64_t packed = nq_cursor_u32(c);
    uint64_t size = nq_cursor_u32(c);
    (void)nq_cursor_bytes(c, 4); /* lengths */
    const uint8_t *name = nq_cursor_bytes(c, name_len);
    uint64_t *const fields[] = {&size, &packed};
    return same && name != NULL && memcmp(name, e->name, name_len) == 0 &&
           read_zip64(c, fields, 2) && sizes_agree(e, crc, packed, size);
}

/* *n: bytes of the local header, from its first 30. */
static novaq_status local_length(uint64_t *n, const nq_zip_entry *e, const uint8_t *raw,
                                 uint64_t next, const nq_source *src, novaq_error *err) {
    nq_cursor c = nq_cursor_init(src->name, raw, LOCAL_BYTES, e->header);
    if (nq_cursor_u32(&c) != SIG_LOCAL) {
        return bad_entry(src, e, "has no local header", err);
    }
    (void)nq_cursor_bytes(&c, 22);
    size_t name_len = nq_cursor_u16(&c);
    if (name_len != strlen(e->name)) {
        return bad_entry(src, e, "has another name in its local header", err);
    }
    *n = LOCAL_BYTES + name_len + nq_cursor_u16(&c);
    if (*n > next - e->header || e->packed > next - e->header - *n) {
        return bad_entry(src, e, "overlaps what is behind it", err);
    }
    return NOVAQ_OK;
}

/* Bytes of a local header and what may be behind it: one read, mostly. */
static uint64_t local_usual(const nq_zip_entry *e, uint64_t next) {
    uint64_t n = LOCAL_BYTES + strlen(e->name) + EXTRA_USUAL;
    return n < next - e->header ? n : next - e->header;
}

static novaq_status read_local(uint64_t *offset, const nq_zip_entry *e, uint64_t next,
                               nq_source *src, novaq_error *err) {
    uint8_t *raw = NULL;
    uint64_t n = 0;
    uint64_t have = local_usual(e, next);
    NQ_TRY(nq_alloc_raw(&raw, have, 1, err));
    novaq_status st = nq_source_read(src, e->header, raw, have, err);
    if (st == NOVAQ_OK) {
        st = local_length(&n, e, raw, next, src, err);
    }
    if (st == NOVAQ_OK && n > have) {
        nq_free(raw);
        st = nq_alloc_raw(&raw, n, 1, err);
        st = st == NOVAQ_OK ? nq_source_read(src, e->header, raw, n, err) : st;
    }
    if (st == NOVAQ_OK) {
        nq_cursor c = nq_cursor_init(src->name, raw, n, e->header);
        if (!local_agrees(e, &c, strlen(e->name))) {
            st = bad_entry(src, e, "contradicts the directory in its local header", err);
        }
    }
    nq_free(raw);
    *offset = e->header + n;
    return st;
}

/* Where the next record, or the directory, begins. */
static uint64_t next_of(const nq_zip *z, const nq_zip_entry *e) {
    return (size_t)(e - z->entries) + 1 < z->count ? e[1].header : z->directory;
}

bool nq_zip_assume(uint64_t *offset, uint64_t *look, const nq_zip *z, const nq_zip_entry *e,
                   uint64_t alignment) {
    /* Behind the bytes: nothing, or a descriptor of 32 or of 64 bits. */
    static const uint64_t behind[] = {0, 16, 24};
    uint64_t next = next_of(z, e);
    uint64_t least = LOCAL_BYTES + strlen(e->name);
    bool descriptor = (e->flags & FLAG_DESCRIPTOR) != 0;
    for (size_t i = descriptor ? 1 : 0; e->method == 0 && i < (descriptor ? 3U : 1U); i++) {
        uint64_t room = next - e->header - least; /* the directory was checked for this */
        if (e->size > room || behind[i] > room - e->size) {
            continue;
        }
        uint64_t at = next - behind[i] - e->size;
        if (at % alignment == 0 && at - e->header - least <= FULL16) {
            *offset = at;
            *look = local_usual(e, next);
            return true;
        }
    }
    return false;
}

novaq_status nq_zip_locate(uint64_t *offset, const nq_zip *z, const nq_zip_entry *e, nq_source *src,
                           novaq_error *err) {
    *offset = 0;
    if (e->method != 0) {
        return nq_fail(err, NOVAQ_E_UNSUPPORTED,
                       "%s: offset %llu: zip record \"%.200s\" is compressed (method %u); "
                       "torch.save stores records as they are",
                       src->name, (unsigned long long)e->header, e->name, (unsigned)e->method);
    }
    return read_local(offset, e, next_of(z, e), src, err);
}

static uint32_t crc_of(const uint8_t *data, uint64_t n) {
    uLong crc = crc32(0, NULL, 0);
    for (uint64_t at = 0; at < n;) {
        uInt step = n - at < ((uint64_t)1 << 30) ? (uInt)(n - at) : (uInt)1 << 30;
        crc = crc32(crc, data + at, step);
        at += step;
    }
    return (uint32_t)crc;
}

novaq_status nq_zip_read(uint8_t **data, uint64_t *offset, const nq_zip *z, const nq_zip_entry *e,
                         uint64_t max, nq_source *src, novaq_error *err) {
    *data = NULL;
    if (e->size > max) {
        return nq_fail(
            err, NOVAQ_E_FORMAT,
            "%s: offset %llu: zip record \"%.200s\" has %llu bytes, at most %llu are read",
            src->name, (unsigned long long)e->header, e->name, (unsigned long long)e->size,
            (unsigned long long)max);
    }
    NQ_TRY(nq_zip_locate(offset, z, e, src, err));
    NQ_TRY(nq_alloc_raw(data, e->size, 1, err));
    novaq_status st = nq_source_read(src, *offset, *data, e->size, err);
    /* torch.serialization.set_crc32_options(False) leaves zero there. */
    bool none = e->crc == 0 && (e->flags & FLAG_DESCRIPTOR) != 0;
    if (st == NOVAQ_OK && !none && crc_of(*data, e->size) != e->crc) {
        st = bad_entry(src, e, "is damaged: its CRC-32 is another", err);
    }
    if (st != NOVAQ_OK) {
        nq_free(*data);
        *data = NULL;
    }
    return st;
}
