/* test_locate.c - command lines to locators (cli/locate.h). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "../../cli/locate.h"

#define MAX_ARGS 12

/* Exit status; *locator: free(). */
static int locate(char **locator, const char *line) {
    char words[256];
    char *argv[MAX_ARGS] = {(char *)(uintptr_t) "novaq"};
    int argc = 1;
    opt_args a;
    (void)snprintf(words, sizeof words, "%s", line);
    for (char *save = NULL, *word = strtok_r(words, " ", &save); word != NULL && argc < MAX_ARGS;
         word = strtok_r(NULL, " ", &save)) {
        argv[argc++] = word;
    }
    assert_int_equal(opt_parse(&a, argc, argv), OPT_OK);
    int code = cli_locate(locator, &a);
    opt_free(&a);
    return code;
}

static void test_locators(void **state) {
    static const char *const cases[][2] = {
        {"compress --input ./m.safetensors", "./m.safetensors"},
        {"compress m.gguf", "m.gguf"},
        {"compress --input hf://openai/gpt-2", "hf://openai/gpt-2"},
        {"compress --input ollama://llama3:8b", "ollama://llama3:8b"},
        {"local /path/to/m.gguf", "/path/to/m.gguf"},
        {"url https://example.com/m.safetensors", "https://example.com/m.safetensors"},
        {"hf meta-llama/Llama-3-8B", "hf://meta-llama/Llama-3-8B"},
        {"hf hf://org/name", "hf://org/name"},
        {"hf org/name@v1/sub/m.gguf", "hf://org/name@v1/sub/m.gguf"},
        {"hf org/name@refs/pr/1", "hf://org/name@refs/pr/1"},
        {"hf gpt2", "hf://gpt2"},
        {"hf gpt2 -f model.safetensors", "hf://gpt2@main/model.safetensors"},
        {"hf org/name -f sub/m.gguf", "hf://org/name@main/sub/m.gguf"},
        {"hf org/name --revision v1.0", "hf://org/name@v1.0"},
        {"hf org/name --revision feature/x%", "hf://org/name@feature%2Fx%25"},
        {"hf org/name --revision main -f m.gguf", "hf://org/name@main/m.gguf"},
        {"hf org/name@v1 -f m.gguf", "hf://org/name@v1/m.gguf"},
        {"hf https://huggingface.co/org/name/tree/main",
         "https://huggingface.co/org/name/tree/main"},
        {"ollama mistral:7b", "ollama://mistral:7b"},
        {"ollama hf.co/org/name:Q8_0", "ollama://hf.co/org/name:Q8_0"},
        {"ollama ollama://mistral", "ollama://mistral"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *got = NULL;
        assert_int_equal(locate(&got, cases[i][0]), EXIT_OK);
        assert_string_equal(got, cases[i][1]);
        free(got);
    }
}

static void test_refusals(void **state) {
    static const char *const lines[] = {
        "compress --output x",
        "compress a --input b",
        "url m.safetensors",
        "local hf://org/name",
        "local ollama://llama3:8b",
        "local https://example.com/m.safetensors",
        "url hf://org/name",
        "hf org/name@v1 --revision v2",
        "hf org/name/m.gguf --file m.gguf",
        "hf https://huggingface.co/org/name --revision v2",
    };
    (void)state;
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        char *got = NULL;
        assert_int_equal(locate(&got, lines[i]), EXIT_USAGE);
        assert_null(got);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_locators),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
