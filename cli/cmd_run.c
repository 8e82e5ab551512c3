/* cmd_run.c - text from a prompt. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cmd.h"
#include "progress.h"
#include "report.h"

typedef struct stream {
    bool show;    /* print the text as it appears */
    bool newline; /* nothing printed yet, or a line feed last */
} stream;

static int on_text(void *ctx, const char *text, size_t len) {
    stream *s = ctx;
    if (s->show && len > 0) {
        (void)fwrite(text, 1, len, stdout);
        (void)fflush(stdout);
        s->newline = text[len - 1] == '\n';
    }
    return interrupt_seen() || ferror(stdout) != 0;
}

static void fill(novaq_generate_options *o, const opt_args *a) {
    o->max_tokens = cli_uint(a, OPT_N_PREDICT);
    o->temperature = (float)cli_real(a, OPT_TEMPERATURE);
    o->top_k = cli_uint(a, OPT_TOP_K);
    o->top_p = (float)cli_real(a, OPT_TOP_P);
    o->min_p = (float)cli_real(a, OPT_MIN_P);
    o->repeat_penalty = (float)cli_real(a, OPT_REPEAT_PENALTY);
    o->seed = a->value[OPT_SEED].u;
    o->ignore_eos = cli_flag(a, OPT_IGNORE_EOS);
}

static int generate(const opt_args *a, novaq_model *m, const char *prompt) {
    bool json = cli_flag(a, OPT_JSON);
    stream s = {.show = !json, .newline = true};
    novaq_generate_options o = NOVAQ_GENERATE_OPTIONS_INIT;
    fill(&o, a);
    o.prompt = prompt;
    o.text = on_text;
    o.text_ctx = &s;
    novaq_error err = {.code = NOVAQ_OK};
    char *report = NULL;
    interrupt_watch();
    novaq_status st = novaq_generate(&report, m, &o, &err);
    if (!json && !s.newline) {
        (void)putchar('\n');
        (void)fflush(stdout);
    }
    if (st != NOVAQ_OK) {
        return cli_fail(&err);
    }
    if (json) {
        (void)printf("%s\n", report);
    } else if (!cli_flag(a, OPT_QUIET) && isatty(STDERR_FILENO)) {
        report_speed(report);
    }
    novaq_free(report);
    return interrupt_seen() ? EXIT_INTERRUPTED : EXIT_OK;
}

static int open_and_generate(const opt_args *a, const char *path, const char *prompt) {
    novaq_model_options mo = NOVAQ_MODEL_OPTIONS_INIT;
    mo.threads = cli_uint(a, OPT_THREADS);
    novaq_error err = {.code = NOVAQ_OK};
    novaq_model *m = NULL;
    if (novaq_model_open(&m, path, &mo, &err) != NOVAQ_OK) {
        return cli_fail(&err);
    }
    int code = generate(a, m, prompt);
    novaq_model_close(&m);
    return code;
}

int cmd_run(const opt_args *a) {
    const char *named = cli_text(a, OPT_MODEL);
    const char *path = a->arg_count > 0 ? a->args[0] : named;
    const char *prompt = cli_text(a, OPT_PROMPT);
    if (path == NULL) {
        return cli_usage("run: no model; see novaq run --help");
    }
    if (named != NULL && a->arg_count > 0) {
        return cli_usage("run: two models, '%s' and --model '%s'; give one", a->args[0], named);
    }
    if (prompt == NULL) {
        return cli_usage("run: no prompt; give -p TEXT, or -p - for standard input");
    }
    if (strcmp(prompt, "-") != 0) {
        return open_and_generate(a, path, prompt);
    }
    char *text = NULL;
    size_t len = 0;
    int code = cli_read_text(&text, &len, "-");
    if (code == EXIT_OK && memchr(text, '\0', len) != NULL) {
        code = cli_fail_text(EXIT_FAIL, "standard input: the prompt has a NUL byte");
    }
    if (code == EXIT_OK) {
        code = open_and_generate(a, path, text);
    }
    free(text);
    return code;
}
