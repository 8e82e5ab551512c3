/* test_artifact_hostile.c - artifacts as untrusted input: every flipped byte,
 * truncation, hostile manifests with a valid own hash, bad symbols and numbers. */
#include "sample_artifact.h"

#include <fcntl.h>
#include <math.h>

/* ---- damage ------------------------------------------------------------------- */

static void write_small(const char *path, int single) {
    sample s = sample_make();
    /* One sliding layer, one of two fields with a mean, one plain: small, since
     * every byte costs a verification. */
    const nq_layer layers[3] = {s.layer[2], s.layer[1], s.layer[5]};
    write_layers(path, single, layers, 3, s.config, s.model);
    sample_free(&s);
}

/* Flips one bit of every byte, a different one from byte to byte; target is the
 * artifact, file one of its files. */
static void flip_every_byte(const char *target, const char *file) {
    int fd = open(file, O_RDWR);
    assert_true(fd >= 0);
    uint64_t size = disk_bytes(file);
    for (uint64_t i = 0; i < size; i++) {
        unsigned char byte = 0;
        assert_int_equal(pread(fd, &byte, 1, (off_t)i), 1);
        unsigned char bad = (unsigned char)(byte ^ (1U << ((i * 5 + 5) % 8)));
        assert_int_equal(pwrite(fd, &bad, 1, (off_t)i), 1);
        novaq_error err;
        if (verify_quietly(target, &err) == NOVAQ_OK) {
            fail_msg("%s: flip at %llu went unnoticed", file, (unsigned long long)i);
        }
        assert_true(err.msg[0] != '\0');
        assert_int_equal(pwrite(fd, &byte, 1, (off_t)i), 1);
    }
    novaq_error err;
    must(verify_quietly(target, &err), &err);
    assert_int_equal(close(fd), 0);
}

static void every_flip_is_noticed_in_a_directory(void **state) {
    (void)state;
    write_small(in_scratch("dir"), 0);
    flip_every_byte(in_scratch("dir"), in_scratch("dir/manifest.json"));
    flip_every_byte(in_scratch("dir"), only_chunk(in_scratch("dir")));
    remove_tree(in_scratch("dir"));
}

static void every_flip_is_noticed_in_a_file(void **state) {
    (void)state;
    write_small(in_scratch("one.bin"), 1);
    flip_every_byte(in_scratch("one.bin"), in_scratch("one.bin"));
    remove_tree(in_scratch("one.bin"));
}

static void every_length_but_the_right_one_is_noticed(const char *target, const char *file) {
    char *text = NULL;
    size_t len = 0;
    novaq_error err;
    assert_int_equal(nq_read_file(&text, &len, file, 1 << 24, NULL), NOVAQ_OK);
    for (size_t n = 0; n < len + 70; n += n < 80 || n + 80 > len ? 1 : 61) {
        if (n == len) {
            continue;
        }
        char *cut = take(n + 1, 1);
        memcpy(cut, text, n < len ? n : len);
        put_file(file, cut, n);
        if (verify_quietly(target, &err) == NOVAQ_OK) {
            fail_msg("%s: length %zu went unnoticed", file, n);
        }
        nq_free(cut);
    }
    put_file(file, text, len);
    must(verify_quietly(target, &err), &err);
    nq_free(text);
}

static void truncation_and_growth_are_noticed(void **state) {
    (void)state;
    write_small(in_scratch("dir"), 0);
    every_length_but_the_right_one_is_noticed(in_scratch("dir"), in_scratch("dir/manifest.json"));
    every_length_but_the_right_one_is_noticed(in_scratch("dir"), only_chunk(in_scratch("dir")));
    remove_tree(in_scratch("dir"));
    write_small(in_scratch("one.bin"), 1);
    every_length_but_the_right_one_is_noticed(in_scratch("one.bin"), in_scratch("one.bin"));
    remove_tree(in_scratch("one.bin"));
}

/* ---- hostile manifests ----------------------------------------------------------- */

/* Puts the manifest's own hash right after an edit. */
static void reseal(char *text, size_t len) {
    char hex[NQ_SHA256_HEX + 1];
    size_t at = 0;
    if (nq_manifest_digest(hex, &at, "test", text, len, NULL) == NOVAQ_OK) {
        memcpy(text + at, hex, NQ_SHA256_HEX);
    }
}

/* Replaces the first `from` after `after` by `to`; the length stays the same, out
 * of the spaces at the end, so that no size check hides the one under test. */
static void edit(char *text, size_t len, const char *after, const char *from, const char *to) {
    char *p = after != NULL ? strstr(text, after) : text;
    assert_non_null(p);
    p = strstr(p, from);
    if (p == NULL) {
        fail_msg("nothing like %s in the manifest", from);
        return;
    }
    size_t a = strlen(from);
    size_t b = strlen(to);
    size_t rest = len - (size_t)(p - text);
    assert_true(b < rest);
    if (b > a) {
        for (size_t i = 0; i < b - a; i++) { /* only spaces may fall off the end */
            assert_int_equal(text[len - 2 - i], ' ');
        }
        memmove(p + b, p + a, rest - b);
        text[len - 1] = '\n';
    } else {
        memmove(p + b, p + a, rest - a);
        memset(text + len - (a - b), ' ', a - b);
    }
    for (size_t i = 0; i < b; i++) {
        p[i] = to[i];
    }
}

typedef struct hostile {
    const char *after; /* the edit is made behind this text, or NULL */
    const char *from;
    const char *to;
    novaq_status status;
    const char *message; /* part of the message: the check meant must be the one that fires */
} hostile;

#define BAD NOVAQ_E_FORMAT

#define SAMPLE     "\"tests/sample\""
#define ZEROS      "0000000000000000000000000000000000000000000000000000000000000000"
#define SOURCE(of) "{\"format\":\"gguf\",\"tensors\":1,\"bytes\":4,\"blake3\":\"" of "\"}"

static const hostile cases[] = {
    {NULL, "\"1.1.0\"", "\"2.0.0\"", NOVAQ_E_UNSUPPORTED, "schema version"},
    {NULL, "\"1.1.0\"", "\"10.0.0\"", NOVAQ_E_UNSUPPORTED, "schema version"},
    {NULL, "\"1.1.0\"", "\"\"", NOVAQ_E_UNSUPPORTED, "schema version"},
    {NULL, "\"1.1.0\"", "\"1.x\"", NOVAQ_E_UNSUPPORTED, "schema version"},
    {NULL, "\"1.1.0\"", "17", BAD, "schema_version"},
    {NULL, "\"manifest_sha256\"", "\"manifest_sha255\"", BAD, "manifest_sha256"},
    {NULL, SAMPLE, SAMPLE ",\"source\":7", BAD, "source"},
    {NULL, SAMPLE, SAMPLE ",\"source\":{\"format\":\"gguf\"}", BAD, "tensors"},
    {NULL, SAMPLE, SAMPLE ",\"source\":" SOURCE("12"), BAD, "blake3"},
    {NULL, SAMPLE, SAMPLE ",\"source\":" SOURCE(ZEROS), BAD, "does not name"},
    {NULL, "\"form\":\"directory\"", "\"form\":\"single\"", BAD, "offset"},
    {NULL, "\"form\":\"directory\"", "\"form\":\"both\"", BAD, "neither"},
    {NULL, "\"generator\"", "\"form\"", BAD, "duplicate"},
    {"summary", "\"total_layers\":3", "\"total_layers\":4", BAD, "summary"},
    {"summary", "\"total_layers\":3", "\"total_layers\":3.0", BAD, "total_layers"},
    {"summary", "\"total_parameters\":", "\"total_parameters\":1", BAD, "summary"},
    {"summary", "\"total_bytes\":", "\"total_bytes\":1", BAD, "total_bytes"},
    {NULL, "\"chunks\":[", "\"chunks\":7,\"x\":[", BAD, "chunks"},
    {NULL, "\"index\":0", "\"index\":1", BAD, "wrong index"},
    {NULL, "\"index\":0", "\"index\":-1", BAD, "index"},
    {"\"chunks\":[", "\"bytes\":", "\"bytes\":99999999999999", BAD, "size"},
    {"\"chunks\":[", "\"bytes\":", "\"bytes\":99999999999999999999999999", BAD, "bytes"},
    {"\"chunks\":[", "\"bytes\":", "\"bytes\":1", BAD, ""},
    {NULL, "\"file\":\"chunk-", "\"file\":\"../ck-", BAD, "file name"},
    {NULL, "\"file\":\"chunk-0", "\"file\":\"chunk-1", BAD, "file name"},
    {NULL, "\"file\":\"chunk-00000-", "\"file\":\"/etc/passwd-", BAD, "file name"},
    {NULL, "\"file\":\"chunk-", "\"file\":\"\\u0000chunk-", BAD, "JSON"},
    {NULL, "\"sha256\":\"", "\"sha256\":\"A", BAD, "64 lower-case digits"},
    {NULL, "\"blake3\":\"", "\"blake3\":7,\"b\":\"", BAD, "blake3"},
    {NULL, "\"layers\":{", "\"layers\":{},\"x\":{", BAD, "layers"},
    {NULL, "\"layers\":{", "\"layers\":{\"z\":1,", BAD, "layer 'z'"},
    {NULL, "\"shape\":[5,31]", "\"shape\":[5,32]", BAD, "do not fit"},
    {NULL, "\"shape\":[5,31]", "\"shape\":[5,-31]", BAD, "shape"},
    {NULL, "\"shape\":[5,31]", "\"shape\":[5,31.0]", BAD, "shape"},
    {NULL, "\"shape\":[5,31]", "\"shape\":[4294967296,4294967296]", BAD, "shape"},
    {NULL, "\"shape\":[5,31]", "\"shape\":[0,9000000000000000000]", BAD, "too large"},
    {NULL, "\"shape\":[5,31]", "\"shape\":[1,1,1,1,1,1,1,5,31]", BAD, "dimensions"},
    {NULL, "\"rows\":5", "\"rows\":31,\"cols\":5,\"x\":5", BAD, "duplicate"},
    {NULL, "\"rows\":5,\"cols\":31", "\"rows\":31,\"cols\":5", BAD, "one group"},
    {NULL, "\"rows\":5,\"cols\":31", "\"rows\":0,\"cols\":31", BAD, "do not fit"},
    {NULL, "\"source_dtype\":\"f16\"", "\"source_dtype\":\"f17\"", BAD, "source_dtype"},
    {NULL, "\"role\":\"linear\"", "\"role\":\"king\"", BAD, "role"},
    {NULL, "\"k6d3l2\"", "\"k7d3l2\"", BAD, "bytes instead of"},
    {NULL, "\"k6d3l2\"", "\"k6d3l9\"", BAD, "scheme"},
    {NULL, "\"k6d3l2\"", "\"q8\"", BAD, ""},
    {NULL, "\"segment_rows\":4", "\"segment_rows\":0", BAD, "segment_rows"},
    {NULL, "\"segment_rows\":4", "\"segment_rows\":99999999999", BAD, "segment_rows"},
    {NULL, "\"groups\":1", "\"groups\":0", BAD, "groups"},
    {NULL, "\"groups\":2", "\"groups\":3", BAD, "groups"},
    {NULL, "\"group_cols\":20", "\"group_cols\":21", BAD, "groups"},
    {NULL, "\"group_cols\":20", "\"group_cols\":0", BAD, "groups"},
    {NULL, "\"exponent\":-3", "\"exponent\":-300", BAD, "exponent"},
    {NULL, "\"exponent\":-3", "\"exponent\":9999999999", BAD, "exponent"},
    {NULL, "\"block\":0", "\"block\":17", BAD, "rotation"},
    {NULL, "\"block\":0", "\"block\":16", BAD, "rotation"},
    {NULL, "\"seed\":\"0\"", "\"seed\":0", BAD, "seed"},
    {NULL, "\"seed\":\"0\"", "\"seed\":\"-1\"", BAD, "seed"},
    {NULL, "\"seed\":\"0\"", "\"seed\":\"007\"", BAD, "seed"},
    {NULL, "\"seed\":\"0\"", "\"seed\":\"18446744073709551616\"", BAD, "2^64"},
    {NULL, "\"symbols\":{\"chunk\":0", "\"symbols\":{\"chunk\":1", BAD, "does not belong"},
    {NULL, "\"symbols\":{\"chunk\":0", "\"symbols\":{\"chunk\":4294967296", BAD, "too large"},
    {NULL, "\"offset\":0", "\"offset\":64", BAD, "does not belong"},
    {"row_scale", "\"offset\":", "\"offset\":9", BAD, "does not belong"},
    {"row_scale", "\"offset\":", "\"offset\":-", BAD, ""},
    {"row_scale", "\"bytes\":10", "\"bytes\":11", BAD, "bytes instead of"},
    {NULL, "\"row_scale\"", "\"row_skale\"", BAD, "row_scale"},
    {NULL, "\"row_mean\"", "\"row_sum\"", BAD, "pieces"},
    {NULL, "\"pieces\":{", "\"pieces\":{\"row_mean\":{},", BAD, ""},
    {NULL, "\"col_exponent\"", "\"col_exponents\"", BAD, "pieces"},
    {"\"col_exponent\"", "\"bytes\":40", "\"bytes\":80", BAD, "bytes instead of"},
    {"\"col_exponent\"", "\"offset\":", "\"offset\":9", BAD, "does not belong"},
    {NULL, "\"pieces\":{", "\"pieces\":{\"col_exponent\":{},", BAD, ""},
    {"\"bf16\"", "\"pieces\":{", "\"pieces\":{\"col_exponent\":{},", BAD, "pieces"},
    {NULL, "\"error_sums\":[", "\"error_sums\":[1,", BAD, "error_sums"},
    {NULL, "\"error_sums\":[0.25", "\"error_sums\":[null", BAD, "error_sums"},
    {"\"tokenizer\"", "\"bytes\":", "\"bytes\":1", BAD, ""},
    {"\"tokenizer\"", "\"inflated_bytes\":", "\"inflated_bytes\":99999999", BAD, "inflates"},
    {"\"tokenizer\"", "\"zlib\"", "\"zstd\"", BAD, "zlib"},
    {NULL, "\"tokenizer\":{", "\"tokenizer\":0,\"y\":{", BAD, "no piece names"},
    {NULL, "\"model\":{", "\"model\":0,\"z\":{", BAD, "model"},
};

static void hostile_manifests_are_refused(void **state) {
    (void)state;
    write_small(in_scratch("dir"), 0);
    const char *file = in_scratch("dir/manifest.json");
    char *good = NULL;
    size_t len = 0;
    assert_int_equal(nq_read_file(&good, &len, file, 1 << 24, NULL), NOVAQ_OK);
    char *bad = take(len + 1, 1);
    int wrong = 0;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const hostile *c = &cases[i];
        memcpy(bad, good, len + 1);
        edit(bad, len, c->after, c->from, c->to);
        reseal(bad, len);
        put_file(in_scratch("dir/manifest.json"), bad, len);
        novaq_error err = {0};
        novaq_status st = novaq_validate(NULL, in_scratch("dir"), &err);
        if (st != c->status || strstr(err.msg, c->message) == NULL) {
            print_error("%s -> %s: status %d, message: %s\n", c->from, c->to, (int)st, err.msg);
            wrong++;
        }
    }
    assert_int_equal(wrong, 0);
    /* The table proves something only if an edit that changes nothing passes. */
    memcpy(bad, good, len + 1);
    edit(bad, len, NULL, "\"generator\":\"novaq/", "\"generator\":\"other/");
    reseal(bad, len);
    novaq_error err = {0};
    put_file(in_scratch("dir/manifest.json"), bad, len);
    must(verify_quietly(in_scratch("dir"), &err), &err);
    nq_free(good);
    nq_free(bad);
    remove_tree(in_scratch("dir"));
}

/* ---- things that are no artifact ---------------------------------------------------- */

static void refuse_file(const char *bytes, size_t len) {
    novaq_error err = {0};
    const char *path = in_scratch("x");
    put_file(path, bytes, len);
    assert_int_equal(novaq_validate(NULL, path, &err), NOVAQ_E_FORMAT);
    assert_false(nq_artifact_probe(path) && len < 40);
}

static void other_files_are_refused(void **state) {
    (void)state;
    novaq_error err = {0};
    char head[64] = {0};
    refuse_file("", 0);
    refuse_file("GGUF\3\0\0\0", 8);
    refuse_file("\2\0\0\0\0\0\0\0{}", 10);
    (void)snprintf(head + 8, sizeof head - 8, "%s", "{\"__metadata__\":{\"novaq_manifest\":\"\"}}");
    head[0] = 38;
    refuse_file(head, 46);
    memset(head, 0xFF, 8); /* a header longer than the file, than anything */
    refuse_file(head, 46);
    memset(head, 0, 8);
    refuse_file(head, 46);
    remove_tree(in_scratch("x"));
    assert_int_equal(novaq_validate(NULL, in_scratch("x"), &err), NOVAQ_E_IO);
    assert_false(nq_artifact_probe(in_scratch("x")));
    assert_int_equal(nq_make_dir(in_scratch("x"), NULL), NOVAQ_OK);
    assert_false(nq_artifact_probe(in_scratch("x")));
    assert_true(novaq_verify(NULL, in_scratch("x"), 1, NULL, NULL, &err) != NOVAQ_OK);
    /* A chunk cannot be a symbolic link's broken end or a directory either. */
    remove_tree(in_scratch("x"));
    write_small(in_scratch("dir"), 0);
    const char *chunk = only_chunk(in_scratch("dir"));
    assert_int_equal(unlink(chunk), 0);
    assert_int_equal(mkdir(chunk, 0777), 0);
    assert_int_equal(novaq_validate(NULL, in_scratch("dir"), &err), NOVAQ_E_FORMAT);
    remove_tree(in_scratch("dir"));
}

/* ---- contents that hash well but mean nothing ---------------------------------------- */

static void verify_says(int single, const nq_layer *l, const json_t *model, const char *message) {
    novaq_error err = {0};
    const char *path = in_scratch("bad");
    write_layers(path, single, l, 1, NULL, model);
    must(novaq_validate(NULL, path, &err), &err);
    assert_int_equal(verify_quietly(path, &err), NOVAQ_E_VERIFY);
    if (strstr(err.msg, message) == NULL) {
        fail_msg("unexpected message: %s", err.msg);
    }
    remove_tree(path);
}

static void symbols_out_of_range_are_noticed(void **state) {
    (void)state;
    sample s = sample_make();
    for (int single = 0; single < 2; single++) {
        nq_layer *l = &s.layer[2]; /* K = 6: 6 and 7 are no symbols */
        uint8_t *row =
            (uint8_t *)(uintptr_t)l->q.symbols + 3 * nq_scheme_row_bytes(&l->scheme, l->q.cols);
        uint8_t symbols[64] = {0};
        uint8_t saved[64];
        uint64_t row_bytes = nq_scheme_row_bytes(&l->scheme, l->q.cols);
        memcpy(saved, row, row_bytes);
        symbols[10] = 6;
        nq_symbols_pack(row, &l->scheme, symbols, l->q.cols);
        verify_says(single, l, NULL, "row 3: symbol 10 is 6");
        symbols[10] = 5;
        symbols[11] = 1; /* 31 columns of d = 3 are 11 symbols: this one is padding */
        nq_symbols_pack(row, &l->scheme, symbols, l->q.cols);
        verify_says(single, l, NULL, "row 3: symbol 11 is 1");
        memcpy(row, saved, row_bytes);
    }
    sample_free(&s);
}

static void numbers_that_are_none_are_noticed(void **state) {
    (void)state;
    sample s = sample_make();
    uint16_t *scale = (uint16_t *)(uintptr_t)s.layer[3].q.row_scale;
    scale[4] = 0x7C00; /* infinity */
    verify_says(0, &s.layer[3], NULL, "not a finite number");
    scale[4] = 0x7E00; /* NaN */
    verify_says(1, &s.layer[3], NULL, "not a finite number");
    uint16_t *books = (uint16_t *)(uintptr_t)s.layer[1].q.codebook_scale;
    books[1] = 0xFC00;
    verify_says(0, &s.layer[1], NULL, "column 20 is not a finite number");
    sample_free(&s);
}

static void column_exponents_out_of_range_are_noticed(void **state) {
    (void)state;
    static const int8_t BAD_VALUES[] = {65, -65, 127, -128};
    sample s = sample_make();
    int8_t *e = (int8_t *)(uintptr_t)s.layer[0].q.col_exponent;
    novaq_error err = {0};
    e[47] = -64;
    write_layers(in_scratch("dir"), 0, s.layer, 1, NULL, s.model);
    must(verify_quietly(in_scratch("dir"), &err), &err);
    remove_tree(in_scratch("dir"));
    for (int i = 0; i < 4; i++) {
        char message[64];
        (void)snprintf(message, sizeof message, "column 47: col_exponent %d", BAD_VALUES[i]);
        e[47] = BAD_VALUES[i];
        verify_says(i % 2, &s.layer[0], NULL, message);
    }
    sample_free(&s);
}

/* Changes one byte of the only chunk and makes both hashes, the file's name and
 * the manifest's hash agree with it. */
static void forge_chunk(const char *dir, uint64_t offset, uint8_t value) {
    char *data = NULL;
    char *text = NULL;
    size_t len = 0;
    size_t text_len = 0;
    char old_path[512];
    (void)snprintf(old_path, sizeof old_path, "%s", only_chunk(dir));
    assert_int_equal(nq_read_file(&data, &len, old_path, 1 << 24, NULL), NOVAQ_OK);
    assert_int_equal(nq_read_file(&text, &text_len, in_scratch("dir/manifest.json"), 1 << 24, NULL),
                     NOVAQ_OK);
    char before[65];
    char after[65];
    assert_int_equal(nq_sha256_of(before, data, len, NULL), NOVAQ_OK);
    nq_blake3 unused;
    nq_blake3_init(&unused);
    char blake_before[65];
    char blake_after[65];
    nq_blake3_of(blake_before, data, len);
    assert_true(offset < len);
    data[offset] = (char)value;
    assert_int_equal(nq_sha256_of(after, data, len, NULL), NOVAQ_OK);
    nq_blake3_of(blake_after, data, len);
    edit(text, text_len, NULL, blake_before, blake_after);
    edit(text, text_len, "\"sha256\"", before, after);
    before[8] = '\0';
    char name[NQ_CHUNK_NAME];
    edit(text, text_len, "\"file\"", before,
         (char[]){after[0], after[1], after[2], after[3], after[4], after[5], after[6], after[7],
                  '\0'});
    reseal(text, text_len);
    assert_int_equal(unlink(old_path), 0);
    char path[512];
    (void)snprintf(path, sizeof path, "%s/%s", dir, nq_chunk_name(name, 0, after));
    put_file(path, data, len);
    put_file(in_scratch("dir/manifest.json"), text, text_len);
    nq_free(data);
    nq_free(text);
}

static void stray_bytes_between_pieces_are_noticed(void **state) {
    (void)state;
    novaq_error err = {0};
    sample s = sample_make();
    write_layers(in_scratch("dir"), 0, &s.layer[4], 1, NULL, s.model);
    /* 192 bytes of data, then the tokenizer and zeros up to a multiple of 64. */
    uint64_t size = disk_bytes(only_chunk(in_scratch("dir")));
    forge_chunk(in_scratch("dir"), size - 1, 1);
    must(novaq_validate(NULL, in_scratch("dir"), &err), &err);
    assert_int_equal(verify_quietly(in_scratch("dir"), &err), NOVAQ_E_VERIFY);
    assert_non_null(strstr(err.msg, "stray byte"));
    forge_chunk(in_scratch("dir"), size - 1, 0);
    must(verify_quietly(in_scratch("dir"), &err), &err);
    forge_chunk(in_scratch("dir"), 192 + 10, 0x55); /* inside the deflated tokenizer */
    assert_int_equal(verify_quietly(in_scratch("dir"), &err), NOVAQ_E_VERIFY);
    assert_non_null(strstr(err.msg, "tokenizer"));
    remove_tree(in_scratch("dir"));
    sample_free(&s);
}

static void inflation_is_capped(void **state) {
    (void)state;
    novaq_error err = {0};
    write_small(in_scratch("dir"), 0);
    char *text = NULL;
    size_t len = 0;
    const char *file = in_scratch("dir/manifest.json");
    assert_int_equal(nq_read_file(&text, &len, file, 1 << 24, NULL), NOVAQ_OK);
    edit(text, len, "\"tokenizer\"", "\"inflated_bytes\":", "\"inflated_bytes\":20000");
    reseal(text, len);
    put_file(file, text, len);
    assert_int_equal(verify_quietly(in_scratch("dir"), &err), NOVAQ_E_VERIFY);
    assert_non_null(strstr(err.msg, "cannot inflate"));
    nq_free(text);
    remove_tree(in_scratch("dir"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_flip_is_noticed_in_a_directory),
        cmocka_unit_test(every_flip_is_noticed_in_a_file),
        cmocka_unit_test(truncation_and_growth_are_noticed),
        cmocka_unit_test(hostile_manifests_are_refused),
        cmocka_unit_test(other_files_are_refused),
        cmocka_unit_test(symbols_out_of_range_are_noticed),
        cmocka_unit_test(numbers_that_are_none_are_noticed),
        cmocka_unit_test(column_exponents_out_of_range_are_noticed),
        cmocka_unit_test(stray_bytes_between_pieces_are_noticed),
        cmocka_unit_test(inflation_is_capped),
    };
    return cmocka_run_group_tests(tests, scratch_open, scratch_close);
}
