/* cmd_tokenize.c - text to token ids. */
#include <stdlib.h>
#include <string.h>

#include "cmd.h"

typedef struct job {
    const novaq_model *model;
    bool add_special;
    bool parse_special;
    bool array; /* ids as a JSON array, else separated by blanks */
} job;

static int print_ids(const job *j, const char *text, size_t len) {
    novaq_error err = {.code = NOVAQ_OK};
    int32_t *ids = NULL;
    size_t count = 0;
    if (novaq_tokenize(&ids, &count, j->model, text, len, j->add_special, j->parse_special, &err) !=
        NOVAQ_OK) {
        return cli_fail(&err);
    }
    const char *sep = j->array ? ", " : " ";
    (void)fputs(j->array ? "[" : "", stdout);
    for (size_t i = 0; i < count; i++) {
        (void)printf("%s%d", i > 0 ? sep : "", (int)ids[i]);
    }
    (void)fputs(j->array ? "]" : "", stdout);
    novaq_free(ids);
    return EXIT_OK;
}

/* One array per line of the text; a final line feed begins no further line. */
static int print_lines(const job *j, const char *text, size_t len) {
    int code = EXIT_OK;
    for (size_t at = 0; at < len && code == EXIT_OK;) {
        const char *end = memchr(text + at, '\n', len - at);
        size_t n = end != NULL ? (size_t)(end - text) - at : len - at;
        code = print_ids(j, text + at, n);
        (void)putchar('\n');
        at += n + 1;
    }
    return code;
}

static int print_text(const opt_args *a, const novaq_model *m, const char *text, size_t len) {
    bool json = cli_flag(a, OPT_JSON);
    job j = {.model = m,
             .add_special = !cli_flag(a, OPT_NO_SPECIAL),
             .parse_special = !cli_flag(a, OPT_NO_PARSE_SPECIAL),
             .array = json || cli_flag(a, OPT_LINES)};
    if (cli_flag(a, OPT_LINES)) {
        return print_lines(&j, text, len);
    }
    (void)fputs(json ? "{\"ids\": " : "", stdout);
    int code = print_ids(&j, text, len);
    (void)fputs(json ? "}\n" : "\n", stdout);
    return code;
}

static int tokenize(const opt_args *a, const char *path, const char *text, size_t len) {
    novaq_model_options mo = NOVAQ_MODEL_OPTIONS_INIT;
    mo.threads = cli_uint(a, OPT_THREADS);
    novaq_error err = {.code = NOVAQ_OK};
    novaq_model *m = NULL;
    if (novaq_model_open(&m, path, &mo, &err) != NOVAQ_OK) {
        return cli_fail(&err);
    }
    int code = print_text(a, m, text, len);
    novaq_model_close(&m);
    return code;
}

int cmd_tokenize(const opt_args *a) {
    const char *named = cli_text(a, OPT_MODEL);
    size_t used = named != NULL ? 0 : 1; /* arguments before TEXT */
    if (named == NULL && a->arg_count == 0) {
        return cli_usage("tokenize: no model; see novaq tokenize --help");
    }
    const char *path = named != NULL ? named : a->args[0];
    const char *literal = a->arg_count > used ? a->args[used] : NULL;
    const char *file = cli_text(a, OPT_FILE);
    if (a->arg_count > used + 1) {
        return cli_usage("tokenize: unexpected argument '%s'; quote the text", a->args[used + 1]);
    }
    if (literal != NULL && file != NULL) {
        return cli_usage("tokenize: two texts, an argument and --file; give one");
    }
    if (literal != NULL) {
        return tokenize(a, path, literal, strlen(literal));
    }
    char *text = NULL;
    size_t len = 0;
    int code = cli_read_text(&text, &len, file != NULL ? file : "-");
    if (code == EXIT_OK) {
        code = tokenize(a, path, text, len);
    }
    free(text);
    return code;
}
