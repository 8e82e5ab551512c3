/* fuzz_template.c - any bytes as a chat template, rendered with a conversation. */
#include "fuzz.h"

#include "model/template.h"

static const char variables[] =
    "{\"messages\":[{\"role\":\"system\",\"content\":\"S\"},{\"role\":\"user\",\"content\":"
    "\"h\\u00e9 <think>x</think>\"},{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{"
    "\"function\":{\"name\":\"f\",\"arguments\":{\"a\":[1,2.5,true,null]}}}]}],\"tools\":[{"
    "\"type\":\"function\",\"function\":{\"name\":\"f\"}}],\"add_generation_prompt\":true,"
    "\"bos_token\":\"<s>\",\"s\":\"abc\",\"i\":7,\"l\":[3,1,2],\"d\":{\"b\":1,\"a\":\"x\"},\"n\":"
    "null,\"t\":true,\"u\":\"\\u4e16\\ud83d\\ude00\",\"x\":2.5,\"words\":[\"b\",\"A\"]}";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const nq_template_limits limits = {
        .steps = 20000, .memory = (size_t)4 << 20, .output = (size_t)1 << 18};
    novaq_error err = {0};
    nq_template *t = NULL;
    char *text = NULL;
    size_t len = 0;
    struct tm now = {.tm_year = 126, .tm_mon = 10, .tm_mday = 22};
    novaq_status st = nq_template_open(&t, (const char *)data, size, &err);
    fuzz_check_error(st, &err);
    FUZZ_CHECK((st == NOVAQ_OK) == (t != NULL));
    if (st == NOVAQ_OK) {
        json_t *v = json_loads(variables, 0, NULL);
        FUZZ_CHECK(v != NULL);
        st = nq_template_render(&text, &len, t, v, size % 2 == 0 ? &now : NULL, &limits, &err);
        fuzz_check_error(st, &err);
        if (st == NOVAQ_OK) {
            FUZZ_CHECK(text[len] == '\0' && len <= limits.output);
            json_t *utf8 = json_stringn(text, len); /* whatever goes in, UTF-8 comes out */
            FUZZ_CHECK(utf8 != NULL);
            json_decref(utf8);
        }
        json_decref(v);
    }
    nq_free(text);
    nq_template_close(&t);
    return 0;
}
