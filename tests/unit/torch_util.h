/* torch_util.h - what the tests of malformed PyTorch files share: pickles as
 * strings, archives as torch writes them, and the check of a verdict. */
#ifndef NQ_TESTS_TORCH_UTIL_H
#define NQ_TESTS_TORCH_UTIL_H

#include "reader_util.h"

#include <zlib.h>

#define OK_    NOVAQ_OK
#define FORMAT NOVAQ_E_FORMAT
#define UNSUP  NOVAQ_E_UNSUPPORTED

/* ---- pickles ---------------------------------------------------------------------- */

#define PROTO            "\x80\2"
#define TEXT1(c)         "X\1\0\0\0" c
#define OD               "ccollections\nOrderedDict\n)R"
#define STORE_AS(t, n)   "(X\7\0\0\0storage" t TEXT1("0") "X\3\0\0\0cpu" n "tQ"
#define STORE            STORE_AS("ctorch\nFloatStorage\n", "K\4") /* 16 bytes */
#define V2               "ctorch._utils\n_rebuild_tensor_v2\n"
#define VIEW(s, o, n, d) V2 "(" s o n d "\x89" OD "tR"
#define SHAPE            "K\2K\2\x86"
#define DENSE            "K\2K\1\x86"
#define GOOD             VIEW(STORE, "K\0", SHAPE, DENSE)
#define NAMED(t)         PROTO "}" TEXT1("a") t "s."
#define BIG              "\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f" /* 2^63 - 1 */
#define NEGATIVE         "J\xff\xff\xff\xff"

/* ---- archives --------------------------------------------------------------------- */

typedef struct record {
    const char *name;
    const void *data;
    size_t len;
} record;

#define RECORDS 8

/* Where things are in an archive that was put together. */
typedef struct archive {
    bytes b;
    size_t local[RECORDS];
    size_t central[RECORDS];
    size_t directory;
    size_t end; /* the end record */
} archive;

UNUSED static uint32_t crc_of(const record *r) {
    return (uint32_t)crc32(crc32(0, NULL, 0), r->data, (uInt)r->len);
}

UNUSED static void put_end(bytes *b, uint64_t count, uint64_t directory, uint64_t size) {
    put_int(b, 0x06054b50, 4);
    put_int(b, 0, 4);
    put_int(b, count, 2);
    put_int(b, count, 2);
    put_int(b, size, 4);
    put_int(b, directory, 4);
    put_int(b, 0, 2);
}

UNUSED static void put_end64(bytes *b, uint64_t count, uint64_t directory, uint64_t size) {
    size_t at = b->len;
    put_int(b, 0x06064b50, 4);
    put_int(b, 44, 8);
    put_int(b, 0x2d002d, 4);
    put_int(b, 0, 8);
    put_int(b, count, 8);
    put_int(b, count, 8);
    put_int(b, size, 8);
    put_int(b, directory, 8);
    put_int(b, 0x07064b50, 4);
    put_int(b, 0, 4);
    put_int(b, at, 8);
    put_int(b, 1, 4);
}

/* A record whose sizes and place are in extra fields, as beyond 4 GiB. */
UNUSED static void put_wide_central(bytes *b, const record *r, size_t local) {
    put_int(b, 0x02014b50, 4);
    put_int(b, 0, 4);
    put_int(b, 0x0808, 2);
    put_fill(b, 0, 6);
    put_int(b, crc_of(r), 4);
    put_int(b, UINT64_MAX, 8);
    put_int(b, strlen(r->name), 2);
    put_int(b, 28, 2);
    put_fill(b, 0, 2 + 2 + 2 + 4);
    put_int(b, 0xFFFFFFFF, 4);
    put(b, r->name, strlen(r->name));
    put_int(b, 1, 2);
    put_int(b, 24, 2);
    put_int(b, r->len, 8);
    put_int(b, r->len, 8);
    put_int(b, local, 8);
}

/* As torch writes them: stored, padded, sizes in the directory only. */
UNUSED static void build_archive(archive *a, const record *records, size_t count, bool zip64) {
    *a = (archive){.end = 0};
    bytes *b = &a->b;
    for (size_t i = 0; i < count; i++) {
        const record *r = &records[i];
        size_t name = strlen(r->name);
        a->local[i] = b->len;
        put_int(b, 0x04034b50, 4);
        put_int(b, 0x08080000, 4); /* version, flags */
        put_int(b, 0, 6);
        put_fill(b, 0, 4 + 4 + 4); /* crc and sizes: later */
        put_int(b, name, 2);
        size_t pad = (64 - (b->len + 2 + name + 4) % 64) % 64;
        put_int(b, pad + 4, 2);
        put(b, r->name, name);
        put_int(b, 0x4246, 2);
        put_int(b, pad, 2);
        put_fill(b, 'Z', pad);
        put(b, r->data, r->len);
        put_int(b, 0x08074b50, 4);
        put_int(b, crc_of(r), 4);
        put_int(b, r->len, 4);
        put_int(b, r->len, 4);
    }
    a->directory = b->len;
    for (size_t i = 0; i < count; i++) {
        const record *r = &records[i];
        a->central[i] = b->len;
        put_int(b, 0x02014b50, 4);
        put_int(b, 0, 4);
        put_int(b, 0x0808, 2);
        put_int(b, 0, 6);
        put_int(b, crc_of(r), 4);
        put_int(b, r->len, 4);
        put_int(b, r->len, 4);
        put_int(b, strlen(r->name), 2);
        put_fill(b, 0, 2 + 2 + 2 + 2 + 4);
        put_int(b, a->local[i], 4);
        put(b, r->name, strlen(r->name));
    }
    size_t size = b->len - a->directory;
    if (zip64) {
        put_end64(b, count, a->directory, size);
    }
    a->end = b->len;
    put_end(b, zip64 ? 0xFFFF : count, zip64 ? 0xFFFFFFFF : a->directory,
            zip64 ? 0xFFFFFFFF : size);
}

static const char storage[16] = "0123456789abcde";

/* A checkpoint of one tensor, around this pickle. */
UNUSED static void build_checkpoint(archive *a, const void *pickle, size_t len, bool zip64) {
    const record records[] = {{"m/data.pkl", pickle, len},
                              {"m/byteorder", "little", 6},
                              {"m/data/0", storage, sizeof storage},
                              {"m/version", "3\n", 2}};
    build_archive(a, records, 4, zip64);
}

/* ---- running ---------------------------------------------------------------------- */

typedef struct room {
    char dir[512];
    struct rusage before;
} room;

UNUSED static room *enter(void) {
    static room r;
    temp_dir(r.dir, sizeof r.dir);
    (void)getrusage(RUSAGE_SELF, &r.before);
    return &r;
}

UNUSED static void leave(room *r) {
    struct rusage after;
    (void)getrusage(RUSAGE_SELF, &after);
    assert_true(after.ru_maxrss - r->before.ru_maxrss < 512 * 1024); /* KiB */
    remove_dir(r->dir);
}

UNUSED static void judge(const room *r, const char *name, const bytes *b, novaq_status want,
                         const char *says) {
    const bad_case c = {name, NULL, want, says};
    check_bytes(r->dir, "m.pt", b, &c);
}

#endif
