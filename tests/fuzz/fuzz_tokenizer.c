/* fuzz_tokenizer.c - any JSON as a tokenizer, in one of three spellings: an
 * object with "tokenizer" (and perhaps "config") holds a Hugging Face
 * tokenizer.json, one with "added_tokens" is one, any other is the "tokenizer"
 * object of describe.h; what begins like a SentencePiece file is read as one. Then
 * text to ids and back, and the export's spellings. */
#include "fuzz.h"

#include "model/describe.h"
#include "model/tokenizer.h"

#define FUZZ_TEXT 512

static void round_trip(const nq_tokenizer *t, const char *text, size_t len, int special) {
    novaq_error err = {0};
    int32_t *ids = NULL;
    size_t count = 0;
    char *back = NULL;
    size_t back_len = 0;
    novaq_status st = nq_tokenizer_encode(&ids, &count, t, text, len, special, special, &err);
    fuzz_check_error(st, &err);
    if (st == NOVAQ_OK) {
        for (size_t i = 0; i < count; i++) {
            FUZZ_CHECK(ids[i] >= 0 && (size_t)ids[i] < nq_tokenizer_vocab(t));
            (void)nq_tokenizer_is_end(t, ids[i]);
        }
        st = nq_tokenizer_decode(&back, &back_len, t, ids, count, 0, &err);
        FUZZ_CHECK(st == NOVAQ_OK);
        FUZZ_CHECK(back[back_len] == '\0');
    }
    nq_free(ids);
    nq_free(back);
}

static void use(const json_t *desc, const uint8_t *data, size_t size) {
    static const char sample[] =
        "Hello w\xC3\xB6rld 123\xCC\x88  it's\t\xFF\xF0\x9F\x98\x80\n<|im_end|>";
    novaq_error err = {0};
    nq_tokenizer *t = NULL;
    novaq_status st = nq_tokenizer_open(&t, desc, &err);
    fuzz_check_error(st, &err);
    FUZZ_CHECK((st == NOVAQ_OK) == (t != NULL));
    if (t != NULL) {
        size_t from = size > FUZZ_TEXT ? size - FUZZ_TEXT : 0;
        round_trip(t, sample, sizeof sample, 1);
        round_trip(t, (const char *)data + from, size - from, 0);
    }
    nq_tokenizer_close(&t);
}

static void export_it(json_t *desc) {
    novaq_error err = {0};
    json_t *tokenizer = NULL;
    json_t *config = NULL;
    json_t *model = json_pack("{sO}", "tokenizer", desc);
    FUZZ_CHECK(model != NULL);
    novaq_status st = nq_tokenizer_to_hf(&tokenizer, &config, model, &err);
    fuzz_check_error(st, &err);
    json_decref(tokenizer);
    json_decref(config);
    json_decref(model);
    json_t *said = NULL;
    st = nq_tokenizer_to_gguf(&said, desc, &err);
    fuzz_check_error(st, &err);
    FUZZ_CHECK((st == NOVAQ_OK) == (said != NULL));
    json_decref(said);
}

static void sentencepiece(const uint8_t *data, size_t size) {
    novaq_error err = {0};
    json_t *desc = NULL;
    char *why = NULL;
    novaq_status st = nq_describe_tokenizer_spm(&desc, &why, data, size, NULL, &err);
    fuzz_check_error(st, &err);
    FUZZ_CHECK(st != NOVAQ_OK || (desc == NULL) == (why != NULL));
    if (desc != NULL) {
        use(desc, data, size);
        export_it(desc);
    }
    nq_free(why);
    json_decref(desc);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    novaq_error err = {0};
    json_t *root = NULL;
    if (size > 2 && data[0] == '\n' && data[2] == '\n') { /* a piece, its text */
        sentencepiece(data, size);
        return 0;
    }
    novaq_status st = nq_json_parse(&root, "fuzz", (const char *)data, size, &err);
    fuzz_check_error(st, &err);
    if (st != NOVAQ_OK) {
        return 0;
    }
    const json_t *inner = json_object_get(root, "tokenizer");
    json_t *desc = NULL;
    char *why = NULL;
    if (inner != NULL || json_object_get(root, "added_tokens") != NULL) {
        st = nq_describe_tokenizer_hf(&desc, &why, inner != NULL ? inner : root,
                                      json_object_get(root, "config"), &err);
        fuzz_check_error(st, &err);
        FUZZ_CHECK(st != NOVAQ_OK || (desc == NULL) == (why != NULL));
    } else {
        desc = json_incref(root);
    }
    if (desc != NULL) {
        use(desc, data, size);
        export_it(desc);
    }
    nq_free(why);
    json_decref(desc);
    json_decref(root);
    return 0;
}
