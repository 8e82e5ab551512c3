/* test_torch_zip.c - zip archives that lie about themselves: each is refused, in
 * one line that names file and place. Also run under ASan and UBSan.
 */
#include "torch_util.h"

/* ---- archives that lie ------------------------------------------------------------ */

typedef enum part { LOCAL, CENTRAL, END, LOCATOR64, END64 } part;

/* One field of the good archive overwritten. */
typedef struct patch {
    const char *name;
    part part;
    unsigned record; /* of LOCAL and CENTRAL: 0 data.pkl, 1 byteorder, 2 data/0 */
    unsigned at;     /* byte within the part */
    unsigned width;
    uint64_t value;
    novaq_status want;
    const char *says;
} patch;

static const patch patches[] = {
    {"end: signature", END, 0, 0, 4, 0x06054b51, FORMAT, "no end record"},
    {"end: disk", END, 0, 4, 2, 1, FORMAT, "several files"},
    {"end: disk of the directory", END, 0, 6, 2, 1, FORMAT, "several files"},
    {"end: two counts", END, 0, 8, 2, 3, FORMAT, "several files"},
    {"end: fewer records", END, 0, 8, 4, 0x00030003, FORMAT, "belong to no record"},
    {"end: more records", END, 0, 8, 4, 0x00050005, FORMAT, "too small"},
    {"end: far more records", END, 0, 8, 4, 0xFFFEFFFE, FORMAT, "too small"},
    {"end: directory longer", END, 0, 12, 4, 4096, FORMAT, "does not end where"},
    {"end: directory of 4 GiB", END, 0, 12, 4, 0xFFFFFFFF, FORMAT, "64 MiB"},
    {"end: directory elsewhere", END, 0, 16, 4, 0, FORMAT, "does not end where"},
    {"end: comment", END, 0, 20, 2, 1, FORMAT, "comment"},
    {"central: signature", CENTRAL, 1, 0, 4, 0, FORMAT, "damaged directory"},
    {"central: encrypted", CENTRAL, 2, 8, 2, 0x0809, UNSUP, "encrypted"},
    {"central: hidden sizes", CENTRAL, 2, 8, 2, 0x2808, UNSUP, "encrypted"},
    {"central: strong encryption", CENTRAL, 2, 8, 2, 0x0848, UNSUP, "encrypted"},
    {"central: compressed pickle", CENTRAL, 0, 10, 2, 8, UNSUP, "compressed (method 8)"},
    {"central: compressed storage", CENTRAL, 2, 10, 2, 14, UNSUP, "compressed (method 14)"},
    {"central: crc of the pickle", CENTRAL, 0, 16, 4, 1, FORMAT, "CRC-32"},
    {"central: crc of the byte order", CENTRAL, 1, 16, 4, 1, FORMAT, "CRC-32"},
    {"central: packed smaller", CENTRAL, 2, 20, 4, 15, FORMAT, "two sizes"},
    {"central: size larger", CENTRAL, 2, 24, 4, 1000000, FORMAT, "two sizes"},
    {"central: both sizes larger", CENTRAL, 2, 20, 8, 0x0000100000001000, FORMAT, "beyond"},
    {"central: both sizes 4 GiB", CENTRAL, 2, 20, 8, 0xFFFFFFFEFFFFFFFE, FORMAT, "beyond"},
    {"central: sizes in an extra field that is not there", CENTRAL, 2, 20, 8, UINT64_MAX, FORMAT,
     "beyond"},
    {"central: sizes reach the next record", CENTRAL, 2, 20, 8, 0x0000004500000045, FORMAT,
     "overlaps"},
    {"central: sizes smaller", CENTRAL, 2, 20, 8, 0x0000000800000008, FORMAT, "record has 8"},
    {"central: name longer", CENTRAL, 2, 28, 2, 60000, FORMAT, "within a record"},
    {"central: no name", CENTRAL, 2, 28, 2, 0, FORMAT, "no name"},
    {"central: extra fields", CENTRAL, 3, 30, 2, 9, FORMAT, "within a record"},
    {"central: comment", CENTRAL, 3, 32, 2, 9, FORMAT, "within a record"},
    {"central: disk", CENTRAL, 2, 34, 2, 1, FORMAT, "another disk"},
    {"central: header of another record", CENTRAL, 2, 42, 4, 0, FORMAT, "overlaps"},
    {"central: header in the directory", CENTRAL, 2, 42, 4, 0x7FFFFFFF, FORMAT, "beyond"},
    {"central: header not at the start", CENTRAL, 0, 42, 4, 1, FORMAT, "something is before it"},
    {"central: header beside a record", CENTRAL, 2, 42, 4, 129, FORMAT, NULL},
    {"local: signature", LOCAL, 2, 0, 4, 0, FORMAT, "no local header"},
    {"local: encrypted", LOCAL, 2, 6, 2, 0x0809, FORMAT, "contradicts"},
    {"local: compressed", LOCAL, 2, 8, 2, 8, FORMAT, "contradicts"},
    {"local: crc", LOCAL, 2, 14, 4, 1, FORMAT, "contradicts"},
    {"local: packed", LOCAL, 2, 18, 4, 15, FORMAT, "contradicts"},
    {"local: size", LOCAL, 0, 22, 4, 1 << 30, FORMAT, "contradicts"},
    {"local: sizes in an extra field that is not there", LOCAL, 2, 18, 8, UINT64_MAX, FORMAT,
     "contradicts"},
    {"local: name longer", LOCAL, 2, 26, 2, 9, FORMAT, "another name"},
    {"local: extra fields longer", LOCAL, 2, 28, 2, 200, FORMAT, "overlaps"},
    {"local: extra fields of 64 KiB", LOCAL, 2, 28, 2, 0xFFFF, FORMAT, "overlaps"},
    {"local: extra fields cut", LOCAL, 2, 28, 2, 3, FORMAT, "contradicts"},
    {"local: other name", LOCAL, 2, 30, 1, 'n', FORMAT, "contradicts"},
    {"local: name of the pickle", LOCAL, 0, 30 + 9, 1, 'L', FORMAT, "contradicts"},
};

/* The same, in an archive with zip64 records. */
static const patch patches64[] = {
    {"zip64: signature", END64, 0, 0, 4, 0, FORMAT, "damaged zip64"},
    {"zip64: length", END64, 0, 4, 8, 45, FORMAT, "damaged zip64"},
    {"zip64: length of 2^64", END64, 0, 4, 8, UINT64_MAX, FORMAT, "damaged zip64"},
    {"zip64: disk", END64, 0, 16, 4, 1, FORMAT, "several files"},
    {"zip64: two counts", END64, 0, 24, 8, 3, FORMAT, "several files"},
    {"zip64: size of 2^63", END64, 0, 40, 8, 1ULL << 63, FORMAT, "64 MiB"},
    {"zip64: directory wraps around", END64, 0, 48, 8, UINT64_MAX - 7, FORMAT, "does not end"},
    {"zip64: contradicts the end record", END, 0, 8, 4, 0x00050005, FORMAT, "contradict"},
    {"locator: signature", LOCATOR64, 0, 0, 4, 0, FORMAT, NULL},
    {"locator: disk", LOCATOR64, 0, 4, 4, 1, FORMAT, "several files"},
    {"locator: elsewhere", LOCATOR64, 0, 8, 8, 0, FORMAT, "not where its locator"},
    {"locator: far away", LOCATOR64, 0, 8, 8, UINT64_MAX, FORMAT, "not where its locator"},
    {"locator: two disks", LOCATOR64, 0, 16, 4, 2, FORMAT, "several files"},
};

static size_t place_of(const archive *a, const patch *p) {
    switch (p->part) {
    case LOCAL: return a->local[p->record] + p->at;
    case CENTRAL: return a->central[p->record] + p->at;
    case END: return a->end + p->at;
    case LOCATOR64: return a->end - 20 + p->at;
    case END64: return a->end - 76 + p->at;
    }
    return 0;
}

static void run_patches(const patch *list, size_t count, bool zip64) {
    static const char good[] = NAMED(GOOD);
    room *r = enter();
    for (size_t i = 0; i < count; i++) {
        const patch *p = &list[i];
        archive a;
        build_checkpoint(&a, good, sizeof good - 1, zip64);
        judge(r, "untouched", &a.b, OK_, NULL);
        for (unsigned k = 0; k < p->width; k++) {
            a.b.data[place_of(&a, p) + k] = (uint8_t)(p->value >> (8 * k));
        }
        judge(r, p->name, &a.b, p->want, p->says);
        bytes_free(&a.b);
    }
    leave(r);
}

static void test_archives(void **state) {
    (void)state;
    run_patches(patches, sizeof patches / sizeof patches[0], false);
    run_patches(patches64, sizeof patches64 / sizeof patches64[0], true);
}

typedef struct named_case {
    const char *name; /* of one more record */
    novaq_status want;
    const char *says;
} named_case;

static void test_record_names(void **state) {
    (void)state;
    static const char good[] = NAMED(GOOD);
    static const named_case cases[] = {
        {"m/data/1", OK_, NULL},
        {"m/data/0", FORMAT, "there twice"},
        {"m/data.pkl", FORMAT, "there twice"},
        {"n/data.pkl", FORMAT, "second data.pkl"},
        {"m/constants.pkl", UNSUP, "TorchScript"},
        {"../data.pkl", FORMAT, "leads elsewhere"},
        {"m/../../etc/passwd", FORMAT, "leads elsewhere"},
        {"/etc/passwd", FORMAT, "leads elsewhere"},
        {"m//x", FORMAT, "leads elsewhere"},
        {"m/./x", FORMAT, "leads elsewhere"},
        {"m/x/", FORMAT, "leads elsewhere"},
        {"m\\x", FORMAT, "backslash"},
        {"m/\xff", FORMAT, "UTF-8"},
    };
    room *r = enter();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const record records[] = {{"m/data.pkl", good, sizeof good - 1},
                                  {"m/data/0", storage, sizeof storage},
                                  {cases[i].name, "", 0}};
        archive a;
        build_archive(&a, records, 3, i % 2 == 0);
        judge(r, cases[i].name, &a.b, cases[i].want, cases[i].says);
        bytes_free(&a.b);
    }
    leave(r);
}

static void test_odd_archives(void **state) {
    (void)state;
    static const char good[] = NAMED(GOOD);
    room *r = enter();
    archive a;
    build_checkpoint(&a, good, sizeof good - 1, false);
    put(&a.b, "x", 1);
    judge(r, "a byte appended", &a.b, FORMAT, "no end record");
    bytes_free(&a.b);
    build_checkpoint(&a, good, sizeof good - 1, false);
    bytes twice = {0};
    put(&twice, a.b.data, a.b.len);
    put(&twice, a.b.data, a.b.len);
    judge(r, "two archives", &twice, FORMAT, "does not end where");
    bytes_free(&twice);
    bytes_free(&a.b);
    const record big[] = {{"m/data.pkl", good, sizeof good - 1}, {"m/byteorder", "big", 3}};
    build_archive(&a, big, 2, false);
    judge(r, "big-endian", &a.b, UNSUP, "big-endian");
    bytes_free(&a.b);
    const record middle[] = {{"m/data.pkl", good, sizeof good - 1}, {"m/byteorder", "middle", 6}};
    build_archive(&a, middle, 2, false);
    judge(r, "middle-endian", &a.b, FORMAT, "neither little- nor big-endian");
    bytes_free(&a.b);
    const record other[] = {{"notes.txt", "hello", 5}};
    build_archive(&a, other, 1, false);
    judge(r, "no checkpoint", &a.b, UNSUP, "without data.pkl");
    bytes_free(&a.b);
    bytes none = {0};
    put(&none, "PK\3\4", 4);
    put_fill(&none, 0, 60);
    judge(r, "nothing behind the signature", &none, FORMAT, "no end record");
    bytes_free(&none);
    leave(r);
}

static void test_wide_records(void **state) {
    (void)state;
    static const char good[] = NAMED(GOOD);
    room *r = enter();
    archive a;
    bytes b = {0};
    const record records[] = {{"m/data.pkl", good, sizeof good - 1},
                              {"m/data/0", storage, sizeof storage}};
    build_archive(&a, records, 2, true);
    put(&b, a.b.data, a.directory);
    put_wide_central(&b, &records[0], a.local[0]);
    size_t second = b.len;
    put_wide_central(&b, &records[1], a.local[1]);
    put_end64(&b, 2, a.directory, b.len - a.directory);
    put_end(&b, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF);
    judge(r, "zip64 records", &b, OK_, NULL);
    size_t extra = second + 46 + 8;
    for (size_t i = 4; i < 28; i += 8) {
        uint8_t was = b.data[extra + i + 7];
        b.data[extra + i + 7] = 0x80;
        judge(r, "zip64 number of 2^63", &b, FORMAT, i < 20 ? "two sizes" : "beyond");
        b.data[extra + i + 7] = was;
    }
    b.data[extra + 2] = 16; /* the place is missing, and 8 bytes make no extra field */
    judge(r, "zip64 extra field too short", &b, FORMAT, "extra fields");
    bytes_free(&b);
    bytes_free(&a.b);
    leave(r);
}

/* Many records over the same bytes: what makes a zip bomb of 46 MB hold 4.5 PB. */
static void test_overlapping_records(void **state) {
    (void)state;
    static const char good[] = NAMED(GOOD);
    const record one = {"m/data.pkl", good, sizeof good - 1};
    archive a;
    bytes b = {0};
    room *r = enter();
    build_archive(&a, &one, 1, false);
    put(&b, a.b.data, a.directory);
    for (unsigned i = 0; i < 1000; i++) {
        char name[16];
        (void)snprintf(name, sizeof name, "m/data/%03u", i);
        put(&b, a.b.data + a.central[0], 46);
        b.data[b.len - 46 + 28] = 10;
        put(&b, name, 10);
    }
    put_end(&b, 1000, a.directory, b.len - a.directory);
    judge(r, "records over each other", &b, FORMAT, "overlaps");
    bytes_free(&b);
    bytes_free(&a.b);
    leave(r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_archives),     cmocka_unit_test(test_record_names),
        cmocka_unit_test(test_odd_archives), cmocka_unit_test(test_overlapping_records),
        cmocka_unit_test(test_wide_records),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
