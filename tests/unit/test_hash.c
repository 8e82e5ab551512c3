/* test_hash.c - SHA-256 and BLAKE3 against digests made by the programs sha256sum
 * and b3sum of the bytes i % 251 (the inputs of BLAKE3's official vectors). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/blake3.h"
#include "base/hex.h"
#include "base/sha256.h"

#define LONGEST 102400

typedef struct vector {
    size_t len;
    const char *hex;
} vector;

static const vector blake3_vectors[] = {
    {0, "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"},
    {1, "2d3adedff11b61f14c886e35afa036736dcd87a74d27b5c1510225d0f592e213"},
    {2, "7b7015bb92cf0b318037702a6cdd81dee41224f734684c2c122cd6359cb1ee63"},
    {3, "e1be4d7a8ab5560aa4199eea339849ba8e293d55ca0a81006726d184519e647f"},
    {63, "e9bc37a594daad83be9470df7f7b3798297c3d834ce80ba85d6e207627b7db7b"},
    {64, "4eed7141ea4a5cd4b788606bd23f46e212af9cacebacdc7d1f4c6dc7f2511b98"},
    {65, "de1e5fa0be70df6d2be8fffd0e99ceaa8eb6e8c93a63f2d8d1c30ecb6b263dee"},
    {127, "d81293fda863f008c09e92fc382a81f5a0b4a1251cba1634016a0f86a6bd640d"},
    {128, "f17e570564b26578c33bb7f44643f539624b05df1a76c81f30acd548c44b45ef"},
    {129, "683aaae9f3c5ba37eaaf072aed0f9e30bac0865137bae68b1fde4ca2aebdcb12"},
    {1023, "10108970eeda3eb932baac1428c7a2163b0e924c9a9e25b35bba72b28f70bd11"},
    {1024, "42214739f095a406f3fc83deb889744ac00df831c10daa55189b5d121c855af7"},
    {1025, "d00278ae47eb27b34faecf67b4fe263f82d5412916c1ffd97c8cb7fb814b8444"},
    {2047, "58830fbf51a4423c573b164471690570e544cfe793bead46225664796b4b1467"},
    {2048, "e776b6028c7cd22a4d0ba182a8bf62205d2ef576467e838ed6f2529b85fba24a"},
    {2049, "5f4d72f40d7a5f82b15ca2b2e44b1de3c2ef86c426c95c1af0b6879522563030"},
    {3072, "b98cb0ff3623be03326b373de6b9095218513e64f1ee2edd2525c7ad1e5cffd2"},
    {3073, "7124b49501012f81cc7f11ca069ec9226cecb8a2c850cfe644e327d22d3e1cd3"},
    {4095, "0cdbdde4d038f0509412a5d1c3b1fb767d5e8c8a0eb2aae963fd36d1f544791a"},
    {4096, "015094013f57a5277b59d8475c0501042c0b642e531b0a1c8f58d2163229e969"},
    {4097, "9b4052b38f1c5fc8b1f9ff7ac7b27cd242487b3d890d15c96a1c25b8aa0fb995"},
    {5120, "9cadc15fed8b5d854562b26a9536d9707cadeda9b143978f319ab34230535833"},
    {5121, "628bd2cb2004694adaab7bbd778a25df25c47b9d4155a55f8fbd79f2fe154cff"},
    {6144, "3e2e5b74e048f3add6d21faab3f83aa44d3b2278afb83b80b3c35164ebeca205"},
    {6145, "f1323a8631446cc50536a9f705ee5cb619424d46887f3c376c695b70e0f0507f"},
    {7168, "61da957ec2499a95d6b8023e2b0e604ec7f6b50e80a9678b89d2628e99ada77a"},
    {7169, "a003fc7a51754a9b3c7fae0367ab3d782dccf28855a03d435f8cfe74605e7817"},
    {8192, "aae792484c8efe4f19e2ca7d371d8c467ffb10748d8a5a1ae579948f718a2a63"},
    {8193, "bab6c09cb8ce8cf459261398d2e7aef35700bf488116ceb94a36d0f5f1b7bc3b"},
    {16384, "f875d6646de28985646f34ee13be9a576fd515f76b5b0a26bb324735041ddde4"},
    {16385, "1dabe216be2578830263b049de1639f39f05a4da616b9b78c7a5e4e41662fd1f"},
    {31744, "62b6960e1a44bcc1eb1a611a8d6235b6b4b78f32e7abc4fb4c6cdcce94895c47"},
    {65536, "68d647e619a930e7b1082f74f334b0c65a315725569bdc123f0ee11881717bfe"},
    {65537, "7c99f9840a73dfcb6e5bfe4ff6d1558acab7e015640790c26411818bdbe17eca"},
    {99999, "fb802f2c6e8806a78a41783a1df2a7a2cdeb6d5eab4f85a434f7c1805c34ff87"},
    {100000, "d93c23eedaf165a7e0be908ba86f1a7a520d568d2d13cde787c8580c5c72cc54"},
    {102400, "bc3e3d41a1146b069abffad3c0d44860cf664390afce4d9661f7902e7943e085"},
};

static const vector sha256_vectors[] = {
    {0, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
    {1, "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"},
    {55, "463eb28e72f82e0a96c0a4cc53690c571281131f672aa229e0d45ae59b598b59"},
    {56, "da2ae4d6b36748f2a318f23e7ab1dfdf45acdc9d049bd80e59de82a60895f562"},
    {63, "29af2686fd53374a36b0846694cc342177e428d1647515f078784d69cdb9e488"},
    {64, "fdeab9acf3710362bd2658cdc9a29e8f9c757fcf9811603a8c447cd1d9151108"},
    {65, "4bfd2c8b6f1eec7a2afeb48b934ee4b2694182027e6d0fc075074f2fabb31781"},
    {1000, "4e4c294b331f7a2099a379bec34b9f9fc03dc46ab465d998f4d683da53487e6d"},
    {100000, "cd2df694e424bc7968cc37f47751019e5ca0cd1bdf2e479ea537c3a1c32ee1aa"},
};

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static uint8_t input[LONGEST];

static int fill_input(void **state) {
    (void)state;
    for (size_t i = 0; i < LONGEST; i++) {
        input[i] = (uint8_t)(i % 251);
    }
    return 0;
}

static void blake3_matches_b3sum(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT(blake3_vectors); i++) {
        char hex[NQ_BLAKE3_HEX + 1];
        nq_blake3_of(hex, input, blake3_vectors[i].len);
        assert_string_equal(hex, blake3_vectors[i].hex);
    }
}

/* Pieces of every awkward size must give the digest of the whole. */
static void blake3_streams(void **state) {
    (void)state;
    static const size_t steps[] = {1, 3, 63, 64, 65, 1000, 1024, 1025, 4096, 4097, 5000, 9999};
    for (size_t v = 0; v < COUNT(blake3_vectors); v++) {
        for (size_t s = 0; s < COUNT(steps); s++) {
            nq_blake3 h;
            nq_blake3_init(&h);
            for (size_t at = 0; at < blake3_vectors[v].len; at += steps[s]) {
                size_t left = blake3_vectors[v].len - at;
                nq_blake3_update(&h, input + at, left < steps[s] ? left : steps[s]);
            }
            char hex[NQ_BLAKE3_HEX + 1];
            nq_blake3_finish(hex, &h);
            assert_string_equal(hex, blake3_vectors[v].hex);
        }
    }
}

/* finish() leaves the hash usable: digests of prefixes, then of more. */
static void blake3_finish_does_not_consume(void **state) {
    (void)state;
    nq_blake3 h;
    nq_blake3_init(&h);
    size_t at = 0;
    for (size_t v = 0; v < COUNT(blake3_vectors); v++) {
        nq_blake3_update(&h, input + at, blake3_vectors[v].len - at);
        at = blake3_vectors[v].len;
        char hex[NQ_BLAKE3_HEX + 1];
        nq_blake3_finish(hex, &h);
        assert_string_equal(hex, blake3_vectors[v].hex);
    }
}

static void sha256_matches_sha256sum(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT(sha256_vectors); i++) {
        char hex[NQ_SHA256_HEX + 1];
        novaq_error err = {0};
        assert_int_equal(nq_sha256_of(hex, input, sha256_vectors[i].len, &err), NOVAQ_OK);
        assert_string_equal(hex, sha256_vectors[i].hex);
    }
}

/* One context, many digests, each fed in two pieces. */
static void sha256_streams_and_restarts(void **state) {
    (void)state;
    novaq_error err = {0};
    nq_sha256 *h = NULL;
    assert_int_equal(nq_sha256_open(&h, &err), NOVAQ_OK);
    for (size_t i = 0; i < COUNT(sha256_vectors); i++) {
        size_t half = sha256_vectors[i].len / 2;
        char hex[NQ_SHA256_HEX + 1];
        nq_sha256_update(h, input, half);
        nq_sha256_update(h, input + half, sha256_vectors[i].len - half);
        assert_int_equal(nq_sha256_finish(hex, h, &err), NOVAQ_OK);
        assert_string_equal(hex, sha256_vectors[i].hex);
    }
    nq_sha256_close(&h);
    assert_null(h);
    nq_sha256_close(&h);
}

static void hex_has_one_spelling(void **state) {
    (void)state;
    char out[9];
    nq_hex(out, (const uint8_t[]){0x00, 0x9a, 0xff, 0x10}, 4);
    assert_string_equal(out, "009aff10");
    assert_true(nq_is_hex("0189af", 6));
    assert_false(nq_is_hex("0189aF", 6));
    assert_false(nq_is_hex("0189ag", 6));
    assert_false(nq_is_hex("01:9af", 6));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blake3_matches_b3sum),
        cmocka_unit_test(blake3_streams),
        cmocka_unit_test(blake3_finish_does_not_consume),
        cmocka_unit_test(sha256_matches_sha256sum),
        cmocka_unit_test(sha256_streams_and_restarts),
        cmocka_unit_test(hex_has_one_spelling),
    };
    return cmocka_run_group_tests(tests, fill_input, NULL);
}
