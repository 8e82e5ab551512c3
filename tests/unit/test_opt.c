/* test_opt.c - the option table and its parser (cli/opt.h). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "../../cli/opt.h"
#include "novaq.h"

#define MAX_ARGS 24

/* Splits line at blanks ("''" is an empty argument) and parses it. */
static opt_result parse(opt_args *a, char *line) {
    char *argv[MAX_ARGS + 1] = {(char *)(uintptr_t) "novaq"};
    int argc = 1;
    for (char *save = NULL, *word = strtok_r(line, " ", &save); word != NULL && argc < MAX_ARGS;
         word = strtok_r(NULL, " ", &save)) {
        argv[argc++] = strcmp(word, "''") == 0 ? word + 2 : word;
    }
    return opt_parse(a, argc, argv);
}

static opt_result parse_line(opt_args *a, const char *text) {
    static char line[512]; /* parsed values are borrowed from it */
    (void)snprintf(line, sizeof line, "%s", text);
    return parse(a, line);
}

static void test_values_and_defaults(void **state) {
    (void)state;
    opt_args a;
    assert_int_equal(parse_line(&a, "compress --input m.gguf --output=out --target-bits 2.5 "
                                    "--level1-centroids 32 -t3 --seed 18446744073709551615 "
                                    "--tensor-type a=b --tensor-type=c=d --quiet"),
                     OPT_OK);
    assert_int_equal(a.command, CMD_COMPRESS);
    assert_string_equal(a.value[OPT_INPUT].text, "m.gguf");
    assert_string_equal(a.value[OPT_OUTPUT].text, "out");
    assert_true(a.value[OPT_TARGET_BITS].f == 2.5);
    assert_int_equal(a.value[OPT_LEVEL1].u, 32);
    assert_true(a.value[OPT_LEVEL1].seen);
    assert_int_equal(a.value[OPT_LEVEL2].u, 8);
    assert_false(a.value[OPT_LEVEL2].seen);
    assert_int_equal(a.value[OPT_THREADS].u, 3);
    assert_true(a.value[OPT_SEED].u == UINT64_MAX);
    assert_int_equal(a.list_count, 2);
    assert_string_equal(a.list[0], "a=b");
    assert_string_equal(a.list[1], "c=d");
    assert_true(a.value[OPT_QUIET].seen);
    assert_false(a.value[OPT_JSON].seen);
    opt_free(&a);
}

static void test_arguments_anywhere(void **state) {
    static const char *const lines[] = {
        "eval model.gguf --perplexity wiki.raw --ctx 256",
        "eval --perplexity wiki.raw model.gguf --n-ctx=256",
        "eval --perplexity wiki.raw -c 256 -- model.gguf",
    };
    (void)state;
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        opt_args a;
        assert_int_equal(parse_line(&a, lines[i]), OPT_OK);
        assert_int_equal(a.arg_count, 1);
        assert_string_equal(a.args[0], "model.gguf");
        assert_string_equal(a.value[OPT_PERPLEXITY].text, "wiki.raw");
        assert_int_equal(a.value[OPT_N_CTX].u, 256);
        opt_free(&a);
    }
}

/* Every command line that the seed documents show. */
static void test_seed_spellings(void **state) {
    static const char *const lines[] = {
        "compress --input hf://openai/gpt-2 --output ./artifacts",
        "compress --input hf://m/L --target-bits 2.0 --level1-centroids 32 --level2-centroids 16 "
        "--output ./artifacts",
        "compress --input ./model.safetensors --output ./artifacts",
        "compress -i x -o y --target-bits 2.5 --level1-centroids 32 --level2-centroids 16 "
        "--max-subspace-dim 24",
        "compress -i x -o y --target-bits 1.0 --level1-centroids 8 --level2-centroids 4 "
        "--max-subspace-dim 12 --min-subspace-dim 4 --max-iterations 100 --tolerance 1e-4 "
        "--seed 42 --outlier-percentile 0.01",
        "hf meta-llama/Llama-3-8B --output llama3-8b-novaq.bin",
        "hf microsoft/Phi-3 --bits 1.5 --subspaces 4 --output phi3-mini-novaq.bin",
        "ollama llama3:8b --output llama3-8b-novaq.bin",
        "ollama mistral:7b --bits 1.5 --subspaces 4 --output mistral-7b-novaq.bin",
        "url https://example.com/model.safetensors --output model-novaq.bin",
        "local /path/to/model.safetensors --output local-model-novaq.bin",
        "compress -i x -o y --target-bits 0.19",
        "hf org/name -f model.gguf --revision refs/pr/1 --resume",
        "compress --input hf://org/name --output x --restart --json-lines",
        "stats llama3-8b-novaq.bin --plot out.png",
        "validate llama3-8b-novaq.bin",
        "stats llama3-8b-novaq.bin",
    };
    (void)state;
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        opt_args a;
        opt_result r = parse_line(&a, lines[i]);
        if (r != OPT_OK) {
            print_error("%s\n  %s\n", lines[i], a.error);
        }
        assert_int_equal(r, OPT_OK);
        opt_free(&a);
    }
}

/* Of texts, a prompt alone may be empty. */
static void test_empty_prompt(void **state) {
    (void)state;
    opt_args a;
    assert_int_equal(parse_line(&a, "run m -p ''"), OPT_OK);
    assert_true(a.value[OPT_PROMPT].seen);
    assert_string_equal(a.value[OPT_PROMPT].text, "");
    opt_free(&a);
}

static void test_seed1_defaults(void **state) {
    (void)state;
    opt_args a;
    assert_int_equal(parse_line(&a, "local m.gguf"), OPT_OK);
    assert_string_equal(a.value[OPT_OUTPUT].text, "novaq_compressed.bin");
    assert_true(a.value[OPT_TARGET_BITS].f == 1.5);
    assert_false(a.value[OPT_SUBSPACES].seen);
    opt_free(&a);
}

static void test_sizes(void **state) {
    static const struct {
        const char *text;
        uint64_t bytes;
    } cases[] = {
        {"1", 1},
        {"45000000", 45000000},
        {"45MB", 45000000},
        {"45mb", 45000000},
        {"7B", 7},
        {"64K", 65536},
        {"64KiB", 65536},
        {"64kB", 64000},
        {"1.5G", UINT64_C(1610612736)},
        {"1.5GiB", UINT64_C(1610612736)},
        {"0.5GB", 500000000},
        {"2t", UINT64_C(2199023255552)},
        {"1.0000001K", 1024}, /* whole bytes */
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char line[64];
        opt_args a;
        (void)snprintf(line, sizeof line, "compress --target-size %s", cases[i].text);
        assert_int_equal(parse_line(&a, line), OPT_OK);
        assert_true(a.value[OPT_TARGET_SIZE].seen);
        assert_int_equal(a.value[OPT_TARGET_SIZE].u, cases[i].bytes);
        opt_free(&a);
    }
}

/* A wrong line and what the message must contain. */
static void test_refusals(void **state) {
    static const char *const cases[][2] = {
        {"", "no command"},
        {"compres --input x", "did you mean 'compress'"},
        {"xyzzy", "unknown command 'xyzzy'; see novaq --help"},
        {"compress --target-bit 2", "did you mean '--target-bits'"},
        {"compress --taget-bits 2", "did you mean '--target-bits'"},
        {"compress --frobnicate", "unknown option '--frobnicate'; see novaq compress --help"},
        {"compress -x", "unknown option '-x'"},
        {"compress --target-bits 9", "a number from 0.19 to 8"},
        {"compress --target-bits 0.18", "a number from 0.19 to 8"},
        {"compress --target-bits nan", "'nan' is not allowed"},
        {"compress --target-bits inf", "'inf' is not allowed"},
        {"compress --target-bits 0x2", "'0x2' is not allowed"},
        {"compress --target-bits 2x", "'2x' is not allowed"},
        {"compress --target-bits ''", "'' is not allowed"},
        {"compress --target-bits 1e999", "'1e999' is not allowed"},
        {"compress --target-bits --", "needs a value"},
        {"compress --target-bits", "--target-bits needs a value: --target-bits BITS"},
        {"compress --level1-centroids 1", "a whole number from 2 to 256"},
        {"compress --level1-centroids 257", "a whole number from 2 to 256"},
        {"compress --level2-centroids -4", "a whole number from 2 to 256"},
        {"compress --level2-centroids 4.5", "a whole number from 2 to 256"},
        {"compress --max-subspace-dim 65", "from 1 to 64"},
        {"compress --min-subspace-dim 65", "from 1 to 64"},
        {"compress --max-memory 2X", "give bytes such as 45000000, 45MB"},
        {"compress --max-memory 0", "'0' is not allowed"},
        {"compress --target-size MB", "'MB' is not allowed"},
        {"compress --target-size -1", "'-1' is not allowed"},
        {"compress --target-size 1.M", "'1.M' is not allowed"},
        {"compress --target-size 1e9", "'1e9' is not allowed"},
        {"compress --target-size 1Mi", "'1Mi' is not allowed"},
        {"compress --target-size 1MBB", "'1MBB' is not allowed"},
        {"compress --target-size 99999999999999999999", "is not allowed"},
        {"compress --target-size 0.5", "'0.5' is not allowed"},
        {"compress --sweeps 17", "from 0 to 16"},
        {"compress --damping 0", "a number above 0 and at most 10"},
        {"compress --column-scales 3", "from 0 to 2"},
        {"compress --column-order random", "one of natural|energy"},
        {"compress --rotation-block 1024", "from 0 to 512"},
        {"compress --no-feedback=1", "--no-feedback takes no value"},
        {"local m --resum=x", "did you mean '--resume'"},
        {"local m --restart=x", "--restart takes no value"},
        {"stats m --plot", "--plot needs a value"},
        {"compress m --revision x", "unknown option '--revision'"},
        {"run m --model ''", "the value is empty"},
        {"compress --max-iterations 0", "from 1 to 1000"},
        {"compress --max-iterations 1001", "from 1 to 1000"},
        {"compress --tolerance 0", "a number above 0"},
        {"compress --tolerance -1e-4", "a number above 0"},
        {"compress --seed 18446744073709551616", "from 0 to 2^64-1"},
        {"compress --normalize rows", "one of rotate|row|paper|none"},
        {"compress --normalize rotate|row", "one of rotate|row|paper|none"},
        {"compress --json=yes", "--json takes no value"},
        {"compress --output ''", "the value is empty"},
        {"compress --input --output x", "needs a value before '--output'"},
        {"compress a b", "unexpected argument 'b'"},
        {"compress --prompt x", "unknown option '--prompt'"},
        {"validate", "give the path of an artifact"},
        {"validate a b", "unexpected argument 'b'"},
        {"run m -p hi --top-p 1.5", "a number from 0 to 1"},
        {"run m -p hi --repeat-penalty 0", "above 0"},
        {"export m --to onnx --output x", "one of gguf|safetensors"},
        {"export m --dtype f64", "one of f16|f32|bf16"},
        {"--frobnicate", "unknown option '--frobnicate'; see novaq --help"},
        {"--completion tcsh", "one of bash|zsh|fish"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        opt_args a;
        opt_result r = parse_line(&a, cases[i][0]);
        if (r != OPT_BAD || strstr(a.error, cases[i][1]) == NULL) {
            fail_msg("'%s': expected '%s', got %d '%s'", cases[i][0], cases[i][1], (int)r, a.error);
        }
        assert_null(strchr(a.error, '\n'));
        opt_free(&a);
    }
}

static void test_messages_stay_one_line(void **state) {
    (void)state;
    opt_args a;
    char word[] = "--in\nput\x1b[31m";
    char *argv[] = {(char *)(uintptr_t) "novaq", (char *)(uintptr_t) "compress", word};
    assert_int_equal(opt_parse(&a, 3, argv), OPT_BAD);
    assert_null(strpbrk(a.error, "\n\x1b"));
    opt_free(&a);
}

static void test_help_is_recognised(void **state) {
    static const char *const lines[] = {"--help", "-h", "compress --help", "run m -h", "stats -qh"};
    static const opt_command_id commands[] = {CMD_NONE, CMD_NONE, CMD_COMPRESS, CMD_RUN, CMD_STATS};
    (void)state;
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        opt_args a;
        assert_int_equal(parse_line(&a, lines[i]), OPT_WANTS_HELP);
        assert_int_equal(a.command, commands[i]);
        opt_free(&a);
    }
}

/* The table's defaults are the library's. */
static void test_presets_match_the_library(void **state) {
    (void)state;
    const novaq_compress_options c = NOVAQ_COMPRESS_OPTIONS_INIT;
    const novaq_generate_options g = NOVAQ_GENERATE_OPTIONS_INIT;
    const novaq_eval_options e = NOVAQ_EVAL_OPTIONS_INIT;
    const novaq_bench_options b = NOVAQ_BENCH_OPTIONS_INIT;
    opt_args a;
    assert_int_equal(parse_line(&a, "bench"), OPT_OK);
    assert_int_equal(a.value[OPT_REPETITIONS].u, b.repetitions);
    assert_string_equal(a.value[OPT_BENCH_PROMPT].text, "512");
    assert_string_equal(a.value[OPT_BENCH_GENERATE].text, "128");
    assert_true(!a.value[OPT_SEED].seen && b.seed == 42 && b.bits == 2.0); /* as its help says */
    opt_free(&a);
    assert_int_equal(parse_line(&a, "compress"), OPT_OK);
    assert_true(a.value[OPT_TARGET_BITS].f == c.target_bits);
    assert_int_equal(a.value[OPT_LEVEL1].u, c.level1_centroids);
    assert_int_equal(a.value[OPT_LEVEL2].u, c.level2_centroids);
    assert_int_equal(a.value[OPT_MAX_DIM].u, c.max_subspace_dim);
    assert_int_equal(a.value[OPT_MIN_DIM].u, c.min_subspace_dim);
    assert_int_equal(a.value[OPT_SUBSPACES].u, c.subspaces);
    assert_int_equal(a.value[OPT_ITERATIONS].u, c.max_iterations);
    assert_true(a.value[OPT_TOLERANCE].f == c.tolerance);
    assert_int_equal(a.value[OPT_SEED].u, c.seed);
    assert_true(a.value[OPT_OUTLIERS].f == c.outlier_percentile);
    assert_string_equal(a.value[OPT_NORMALIZE].text, c.normalize);
    assert_int_equal(a.value[OPT_SEGMENT_ROWS].u, c.segment_rows);
    assert_string_equal(a.value[OPT_CALIBRATION].text, c.calibration);
    assert_int_equal(a.value[OPT_CALIBRATION_TOKENS].u, c.calibration_tokens);
    assert_true(c.feedback && c.propagate && !c.row_means); /* what the flags turn */
    assert_int_equal(a.value[OPT_SWEEPS].u, c.sweeps);
    assert_true(a.value[OPT_DAMPING].f == c.damping);
    assert_string_equal(a.value[OPT_COLUMN_ORDER].text, c.column_order);
    assert_true(c.column_scales < 0 && !a.value[OPT_COLUMN_SCALES].seen); /* the library chooses */
    assert_int_equal(a.value[OPT_ROTATION_BLOCK].u, c.rotation_block);
    assert_int_equal(a.value[OPT_TARGET_SIZE].u, c.target_size);
    assert_int_equal(a.value[OPT_MAX_MEMORY].u, c.max_memory);
    opt_free(&a);
    assert_int_equal(parse_line(&a, "run"), OPT_OK);
    assert_int_equal(a.value[OPT_N_PREDICT].u, g.max_tokens);
    assert_true((float)a.value[OPT_TEMPERATURE].f == g.temperature);
    assert_int_equal(a.value[OPT_TOP_K].u, g.top_k);
    assert_true((float)a.value[OPT_TOP_P].f == g.top_p);
    assert_true((float)a.value[OPT_MIN_P].f == g.min_p);
    assert_true((float)a.value[OPT_REPEAT_PENALTY].f == g.repeat_penalty);
    assert_int_equal(a.value[OPT_SEED].u, g.seed);
    opt_free(&a);
    assert_int_equal(parse_line(&a, "eval"), OPT_OK);
    assert_int_equal(a.value[OPT_N_CTX].u, e.n_ctx);
    assert_int_equal(a.value[OPT_CHUNKS].u, e.chunks);
    opt_free(&a);
}

static int clash(const char *a, const char *b) {
    return a != NULL && b != NULL && strcmp(a, b) == 0;
}

/* Within a command no name, alias or letter stands for two options, and the
 * table's rows are complete. */
static void test_table_is_consistent(void **state) {
    (void)state;
    for (size_t i = 0; i < opt_spec_count; i++) {
        const opt_spec *s = &opt_specs[i];
        assert_true(s->commands != 0);
        assert_int_equal(s->metavar == NULL, s->type == OPT_T_FLAG);
        assert_int_equal(s->choices != NULL, s->type == OPT_T_CHOICE);
        assert_true(s->help[0] != '\0' && s->help[strlen(s->help) - 1] != '.');
        for (size_t j = i + 1; j < opt_spec_count; j++) {
            const opt_spec *t = &opt_specs[j];
            if ((s->commands & t->commands) != 0) {
                assert_false(clash(s->name, t->name) || clash(s->name, t->alias) ||
                             clash(s->alias, t->name) || clash(s->alias, t->alias));
                assert_false(s->letter != 0 && s->letter == t->letter);
                assert_true(s->id != t->id);
                assert_false(s->type == OPT_T_LIST && t->type == OPT_T_LIST);
            }
        }
    }
    for (int c = 0; c < CMD_COUNT; c++) {
        assert_non_null(opt_commands[c].name);
        assert_non_null(opt_commands[c].examples[0]);
        assert_non_null(opt_find((opt_command_id)c, OPT_HELP));
    }
}

/* The examples that help shows must themselves be right. */
static void test_examples_parse(void **state) {
    (void)state;
    for (int c = CMD_NONE + 1; c < CMD_COUNT; c++) {
        for (size_t i = 0; opt_commands[c].examples[i] != NULL; i++) {
            const char *text = strstr(opt_commands[c].examples[i], "novaq ");
            assert_non_null(text);
            char line[512];
            (void)snprintf(line, sizeof line, "%s", text + strlen("novaq "));
            /* The shell's part: redirections, and blanks within quotes. */
            line[strcspn(line, "<>)")] = '\0';
            for (char *p = line, quoted = 0; *p != '\0'; p++) {
                quoted ^= *p == '"';
                if (quoted && *p == ' ') {
                    *p = '_';
                }
            }
            opt_args a;
            if (parse_line(&a, line) != OPT_OK) {
                fail_msg("%s: %s", opt_commands[c].examples[i], a.error);
            }
            assert_int_equal(a.command, c);
            opt_free(&a);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values_and_defaults),
        cmocka_unit_test(test_arguments_anywhere),
        cmocka_unit_test(test_seed_spellings),
        cmocka_unit_test(test_seed1_defaults),
        cmocka_unit_test(test_empty_prompt),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_messages_stay_one_line),
        cmocka_unit_test(test_help_is_recognised),
        cmocka_unit_test(test_presets_match_the_library),
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_table_is_consistent),
        cmocka_unit_test(test_examples_parse),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
