/* cmd_run.c - text from a prompt. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/json.h"
#include "base/mem.h"
#include "progress.h"
#include "report.h"
#include "talk.h"

static int stopped(void) { return interrupt_seen(); }

static int generate(const opt_args *a, novaq_model *m, novaq_generate_options *o) {
    talk_stream s = talk_stream_begin(a, stopped);
    talk_fill(o, a);
    o->n_ctx = cli_uint(a, OPT_N_CTX);
    o->kv_type = cli_text(a, OPT_KV_TYPE);
    o->text = talk_on_text;
    o->text_ctx = &s;
    novaq_error err = {.code = NOVAQ_OK};
    char *report = NULL;
    interrupt_watch();
    novaq_status st = novaq_generate(&report, m, o, &err);
    talk_stream_end(&s);
    if (st != NOVAQ_OK) {
        return cli_fail(&err);
    }
    if (!s.show) {
        (void)printf("%s\n", report);
    } else if (!cli_flag(a, OPT_QUIET) && isatty(STDERR_FILENO)) {
        report_speed(report);
    }
    novaq_free(report);
    return interrupt_seen() ? EXIT_INTERRUPTED : EXIT_OK;
}

/* The prompt as what a user says, behind --system. */
static int generate_chat(const opt_args *a, novaq_model *m, const char *prompt) {
    novaq_generate_options o = NOVAQ_GENERATE_OPTIONS_INIT;
    const char *system = cli_text(a, OPT_SYSTEM);
    json_t *messages = system == NULL
                           ? json_pack("[{s:s, s:s}]", "role", "user", "content", prompt)
                           : json_pack("[{s:s, s:s}, {s:s, s:s}]", "role", "system", "content",
                                       system, "role", "user", "content", prompt);
    char *text = NULL;
    talk_chat c;
    int code = talk_chat_begin(&c, a);
    if (code == EXIT_OK && messages == NULL) {
        code = cli_fail_text(EXIT_FAIL, "the prompt is not UTF-8 text");
    }
    if (code == EXIT_OK && nq_json_dump(&text, messages, 0, NULL) != NOVAQ_OK) {
        code = cli_fail_text(EXIT_FAIL, "out of memory");
    }
    if (code == EXIT_OK) {
        c.options.messages = text;
        o.chat = &c.options;
        code = generate(a, m, &o);
    }
    talk_chat_end(&c);
    nq_free(text);
    json_decref(messages);
    return code;
}

static int open_and_generate(const opt_args *a, const char *prompt) {
    novaq_model *m = NULL;
    int code = talk_open(&m, a, "run");
    if (code == EXIT_OK && cli_flag(a, OPT_CHAT)) {
        code = generate_chat(a, m, prompt);
    } else if (code == EXIT_OK) {
        novaq_generate_options o = NOVAQ_GENERATE_OPTIONS_INIT;
        o.prompt = prompt;
        code = generate(a, m, &o);
    }
    novaq_model_close(&m);
    return code;
}

int cmd_run(const opt_args *a) {
    static const char none[] = "run: no prompt; give -p TEXT, or the text on standard input";
    const char *prompt = cli_text(a, OPT_PROMPT);
    char *text = NULL;
    size_t len = 0;
    if (a->arg_count == 0 && cli_text(a, OPT_MODEL) == NULL) {
        return cli_usage("run: no model; see novaq run --help");
    }
    if (!cli_flag(a, OPT_CHAT)) {
        static const opt_id needs_chat[] = {OPT_SYSTEM, OPT_CHAT_TEMPLATE, OPT_TEMPLATE_ARGS};
        for (size_t i = 0; i < sizeof needs_chat / sizeof needs_chat[0]; i++) {
            if (cli_given(a, needs_chat[i])) {
                return cli_usage("run: --%s needs --chat", opt_find(CMD_RUN, needs_chat[i])->name);
            }
        }
    }
    if (prompt != NULL && strcmp(prompt, "-") != 0) {
        return open_and_generate(a, prompt);
    }
    if (prompt == NULL && isatty(STDIN_FILENO)) {
        return cli_usage("%s", none);
    }
    int code = cli_read_text(&text, &len, "-");
    if (code == EXIT_OK && prompt == NULL && len == 0) {
        code = cli_usage("%s", none);
    }
    if (code == EXIT_OK && memchr(text, '\0', len) != NULL) {
        code = cli_fail_text(EXIT_FAIL, "standard input: the prompt has a NUL byte");
    }
    if (code == EXIT_OK) {
        code = open_and_generate(a, text);
    }
    free(text);
    return code;
}
