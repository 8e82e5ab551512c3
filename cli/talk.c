/* talk.c - see talk.h. */
#include "talk.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

talk_stream talk_stream_begin(const opt_args *a, int (*stop)(void)) {
    return (talk_stream){.show = !cli_flag(a, OPT_JSON),
                         .terminal = isatty(STDOUT_FILENO) != 0,
                         .newline = true,
                         .stop = stop};
}

/* Bytes at p, of left, that a terminal would obey: ESC and its like, but not line
 * feeds and tabs. */
static size_t control(const unsigned char *p, size_t left) {
    if ((p[0] < 0x20 && p[0] != '\n' && p[0] != '\t') || p[0] == 0x7F) {
        return 1;
    }
    return left > 1 && p[0] == 0xC2 && p[1] >= 0x80 && p[1] < 0xA0 ? 2 : 0;
}

static void put_plain(const char *text, size_t len) {
    for (size_t i = 0; i < len;) {
        size_t n = control((const unsigned char *)text + i, len - i);
        if (n > 0) {
            (void)fputs("\xEF\xBF\xBD", stdout);
            i += n;
        } else {
            (void)putchar((unsigned char)text[i++]);
        }
    }
}

int talk_on_text(void *ctx, const char *text, size_t len) {
    talk_stream *s = ctx;
    if (s->show && len > 0) {
        if (s->terminal) {
            put_plain(text, len);
        } else {
            (void)fwrite(text, 1, len, stdout);
        }
        (void)fflush(stdout);
        s->newline = text[len - 1] == '\n';
    }
    return s->stop() != 0 || ferror(stdout) != 0;
}

void talk_stream_end(talk_stream *s) {
    if (s->show && !s->newline) {
        (void)putchar('\n');
        (void)fflush(stdout);
        s->newline = true;
    }
}

void talk_fill(novaq_generate_options *o, const opt_args *a) {
    o->max_tokens = cli_uint(a, OPT_N_PREDICT);
    o->temperature = (float)cli_real(a, OPT_TEMPERATURE);
    o->top_k = cli_uint(a, OPT_TOP_K);
    o->top_p = (float)cli_real(a, OPT_TOP_P);
    o->min_p = (float)cli_real(a, OPT_MIN_P);
    o->repeat_penalty = (float)cli_real(a, OPT_REPEAT_PENALTY);
    o->seed = a->value[OPT_SEED].u;
    o->ignore_eos = cli_flag(a, OPT_IGNORE_EOS);
    o->stop = a->list;
    o->stop_count = a->list_count;
}

int talk_chat_begin(talk_chat *c, const opt_args *a) {
    const char *file = cli_text(a, OPT_CHAT_TEMPLATE);
    time_t now = time(NULL);
    struct tm local;
    size_t len = 0;
    *c = (talk_chat){.options = NOVAQ_CHAT_OPTIONS_INIT};
    c->options.variables = cli_text(a, OPT_TEMPLATE_ARGS);
    if (localtime_r(&now, &local) != NULL) {
        c->options.now = (int64_t)now + local.tm_gmtoff;
    }
    if (file == NULL) {
        return EXIT_OK;
    }
    int code = cli_read_text(&c->chat_template, &len, file);
    if (code == EXIT_OK && strlen(c->chat_template) != len) {
        code = cli_fail_text(EXIT_FAIL, "%s: the template has a NUL byte", file);
    }
    c->options.chat_template = c->chat_template;
    return code;
}

void talk_chat_end(talk_chat *c) {
    free(c->chat_template);
    c->chat_template = NULL;
}

int talk_open(novaq_model **m, const opt_args *a, const char *command) {
    const char *named = cli_text(a, OPT_MODEL);
    const char *path = a->arg_count > 0 ? a->args[0] : named;
    novaq_model_options o = NOVAQ_MODEL_OPTIONS_INIT;
    novaq_error err = {.code = NOVAQ_OK};
    *m = NULL;
    if (path == NULL) {
        return cli_usage("%s: no model; see novaq %s --help", command, command);
    }
    if (named != NULL && a->arg_count > 0) {
        return cli_usage("%s: two models, '%s' and --model '%s'; give one", command, a->args[0],
                         named);
    }
    o.threads = cli_uint(a, OPT_THREADS);
    return novaq_model_open(m, path, &o, &err) == NOVAQ_OK ? EXIT_OK : cli_fail(&err);
}
