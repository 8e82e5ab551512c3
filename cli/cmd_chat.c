/* cmd_chat.c - a conversation, line by line.
 *
 * Owns: reading lines, the commands that begin with a slash, Ctrl-C, dropping the
 * oldest turns when the context is full. Refuses: colours, editing of lines; the
 * terminal has both. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/json.h"
#include "base/mem.h"
#include "report.h"
#include "talk.h"

/* ---- Ctrl-C ------------------------------------------------------------------ */

static volatile sig_atomic_t pressed; /* and not answered yet, by a message or an end */
static volatile sig_atomic_t answering;
static volatile sig_atomic_t typed; /* lines come from a terminal */

/* The first one stops the answer; a second one, when that takes too long, the
 * program, as one does that waits for a pipe. */
static void on_interrupt(int number) {
    pressed++;
    if (answering ? pressed > 1 : !typed) {
        (void)signal(number, SIG_DFL);
        (void)raise(number);
    }
}

static void watch(void) {
    struct sigaction sa;
    memset(&sa, 0, sizeof sa);
    sa.sa_handler = on_interrupt; /* no SA_RESTART: reading a line ends, too */
    (void)sigemptyset(&sa.sa_mask);
    (void)sigaction(SIGINT, &sa, NULL);
}

static int stopped(void) { return pressed > 0; }

/* Waits for a line on a terminal; false when Ctrl-C came first. Blocked until the
 * wait, the signal cannot slip in between looking and waiting. */
static bool wait_for_line(void) {
    struct pollfd in = {.fd = STDIN_FILENO, .events = POLLIN};
    sigset_t block;
    sigset_t before;
    (void)sigemptyset(&block);
    (void)sigaddset(&block, SIGINT);
    (void)sigprocmask(SIG_BLOCK, &block, &before);
    while (pressed == 0 && ppoll(&in, 1, NULL, &before) < 0 && errno == EINTR) {
        /* some other signal, or a resized window */
    }
    (void)sigprocmask(SIG_SETMASK, &before, NULL);
    return pressed == 0;
}

/* ---- the conversation ----------------------------------------------------------- */

typedef struct talk {
    const opt_args *a;
    novaq_model *m;
    novaq_session *session;
    talk_chat chat;
    json_t *messages; /* array of {role, content} */
    bool terminal;    /* somebody types: prompts, and errors do not end it */
    uint64_t turn;
    int code; /* what the program exits with */
} talk;

static bool say(talk *t, const char *role, const char *text) {
    json_t *o = json_pack("{s:s, s:s}", "role", role, "content", text);
    if (o == NULL || json_array_append_new(t->messages, o) != 0) {
        t->code = cli_fail_text(EXIT_FAIL, "a %s message that is not UTF-8 text", role);
        return false;
    }
    return true;
}

static bool has_system(const talk *t) {
    const char *role = json_string_value(json_object_get(json_array_get(t->messages, 0), "role"));
    return role != NULL && strcmp(role, "system") == 0;
}

/* Forgets all but the system prompt. */
static void reset(talk *t) {
    size_t keep = has_system(t) ? 1 : 0;
    while (json_array_size(t->messages) > keep) {
        (void)json_array_remove(t->messages, keep);
    }
}

/* The oldest turn: what a user said and what came of it. False when the last
 * message is all there is. */
static bool drop_oldest(talk *t) {
    size_t first = has_system(t) ? 1 : 0;
    size_t n = json_array_size(t->messages);
    size_t next = first + 1;
    while (next < n) {
        const char *role =
            json_string_value(json_object_get(json_array_get(t->messages, next), "role"));
        if (role != NULL && strcmp(role, "user") == 0) {
            break;
        }
        next++;
    }
    for (size_t i = first; next < n && i < next; i++) {
        (void)json_array_remove(t->messages, first);
    }
    return next < n;
}

/* Tokens of the conversation as it is; *messages (nq_free) is its JSON. */
static novaq_status measure(talk *t, char **messages, size_t *tokens, novaq_error *err) {
    char *text = NULL;
    int32_t *ids = NULL;
    size_t len = 0;
    NQ_TRY(nq_json_dump(messages, t->messages, 0, err));
    t->chat.options.messages = *messages;
    NQ_TRY(novaq_chat_render(&text, &len, t->m, &t->chat.options, err));
    novaq_status st = novaq_tokenize(&ids, tokens, t->m, text, len, 0, 1, err);
    novaq_free(text);
    novaq_free(ids);
    return st;
}

/* Leaves room for an answer, by forgetting. */
static novaq_status fit(talk *t, char **messages, novaq_error *err) {
    size_t n_ctx = novaq_session_n_ctx(t->session);
    size_t room = cli_uint(t->a, OPT_N_PREDICT);
    room = room < n_ctx / 4 ? room : n_ctx / 4;
    for (unsigned dropped = 0;; dropped++) {
        size_t tokens = 0;
        nq_free(*messages);
        *messages = NULL;
        NQ_TRY(measure(t, messages, &tokens, err));
        if (tokens + room <= n_ctx || !drop_oldest(t)) {
            if (dropped > 0) {
                cli_note("note: the context is full; the oldest %s forgotten",
                         dropped > 1 ? "turns are" : "turn is");
            }
            if (tokens > n_ctx) {
                return nq_fail(err, NOVAQ_E_ARG,
                               "the message makes %zu tokens, the context has %zu; shorten it or "
                               "give a larger --ctx",
                               tokens, n_ctx);
            }
            return NOVAQ_OK;
        }
    }
}

static novaq_status answer(talk *t, char **report, novaq_error *err) {
    char *messages = NULL;
    talk_stream s = talk_stream_begin(t->a, stopped);
    novaq_generate_options o = NOVAQ_GENERATE_OPTIONS_INIT;
    novaq_status st = fit(t, &messages, err);
    if (st == NOVAQ_OK) {
        talk_fill(&o, t->a);
        o.seed += t->turn++;
        o.chat = &t->chat.options;
        o.text = talk_on_text;
        o.text_ctx = &s;
        answering = 1; /* pressed since the line was read: the answer ends at once */
        st = novaq_session_generate(report, t->session, &o, err);
        answering = 0;
        talk_stream_end(&s);
    }
    nq_free(messages);
    return st;
}

/* What was answered becomes part of the conversation. */
static void keep_answer(talk *t, const char *report) {
    json_t *o = json_loads(report, JSON_ALLOW_NUL, NULL);
    const char *text = json_string_value(json_object_get(o, "text"));
    const char *stop = json_string_value(json_object_get(o, "stop"));
    if (text != NULL) {
        (void)say(t, "assistant", text);
    }
    bool quiet = cli_flag(t->a, OPT_QUIET);
    if (!quiet && stop != NULL && (strcmp(stop, "context") == 0 || strcmp(stop, "length") == 0)) {
        cli_note(strcmp(stop, "context") == 0 ? "note: the answer was cut off: the context is full"
                                              : "note: the answer was cut off at --max-tokens");
    }
    json_decref(o);
}

/* One line of a user. False ends the conversation. */
static bool take_turn(talk *t, const char *line) {
    novaq_error err = {.code = NOVAQ_OK};
    char *report = NULL;
    if (!say(t, "user", line)) {
        return t->terminal;
    }
    if (answer(t, &report, &err) != NOVAQ_OK) {
        t->code = cli_fail(&err);
        (void)json_array_remove(t->messages, json_array_size(t->messages) - 1);
        return t->terminal;
    }
    keep_answer(t, report);
    if (cli_flag(t->a, OPT_JSON)) {
        (void)printf("%s\n", report);
        (void)fflush(stdout);
    } else if (!cli_flag(t->a, OPT_QUIET) && t->terminal && isatty(STDERR_FILENO)) {
        report_speed(report);
    }
    novaq_free(report);
    t->code = EXIT_OK;
    if (pressed > 0 && !t->terminal) {
        t->code = EXIT_INTERRUPTED;
        return false;
    }
    return ferror(stdout) == 0;
}

/* ---- commands ---------------------------------------------------------------------- */

static void help(void) {
    (void)puts("/help           this list\n"
               "/reset          forget the conversation, keep the system prompt\n"
               "/system [TEXT]  set the system prompt, or remove it, and forget the rest\n"
               "/save FILE      write the conversation as JSON\n"
               "/quit           leave (so does Ctrl-D)\n"
               "A line that begins with // is sent without the first slash; a line that ends\n"
               "with a backslash goes on in the next. Ctrl-C stops an answer.");
}

static void set_system(talk *t, const char *text) {
    (void)json_array_clear(t->messages);
    if (text[0] != '\0') {
        (void)say(t, "system", text);
    }
}

static void save(talk *t, const char *path) {
    if (path[0] == '\0') {
        cli_note("/save needs the name of a file");
    } else if (json_dump_file(t->messages, path, JSON_INDENT(2)) != 0) {
        cli_note("%s: %s", path, strerror(errno));
    } else {
        cli_note("%s: %zu messages", path, json_array_size(t->messages));
    }
}

/* False ends the conversation. */
static bool obey(talk *t, char *line) {
    char *rest = line + strcspn(line, " \t");
    if (*rest != '\0') {
        *rest++ = '\0';
        rest += strspn(rest, " \t");
    }
    if (strcmp(line, "/quit") == 0 || strcmp(line, "/exit") == 0) {
        return false;
    }
    if (strcmp(line, "/help") == 0) {
        help();
    } else if (strcmp(line, "/reset") == 0) {
        reset(t);
    } else if (strcmp(line, "/system") == 0) {
        set_system(t, rest);
    } else if (strcmp(line, "/save") == 0) {
        save(t, rest);
    } else {
        cli_note("no command '%s'; /help lists them", line);
    }
    (void)fflush(stdout);
    return true;
}

/* ---- lines ----------------------------------------------------------------------------- */

typedef enum line_result { LINE_READ, LINE_END, LINE_INTERRUPTED } line_result;

static void prompt(const talk *t, const char *mark) {
    if (t->terminal) {
        (void)fputs(mark, stdout);
        (void)fflush(stdout);
    }
}

/* One line without its end; those that end with a backslash are joined. */
static line_result read_line(const talk *t, char **line, size_t *cap) {
    size_t used = 0;
    char *part = NULL;
    size_t part_cap = 0;
    line_result result = LINE_READ;
    prompt(t, "> ");
    for (bool more = true; more;) {
        bool waited = !t->terminal || wait_for_line();
        ssize_t n = waited ? getline(&part, &part_cap, stdin) : -1;
        if (n < 0) {
            result = pressed > 0 ? LINE_INTERRUPTED : used > 0 ? LINE_READ : LINE_END;
            clearerr(stdin);
            break;
        }
        size_t len = (size_t)n;
        len -= len > 0 && part[len - 1] == '\n';
        len -= len > 0 && part[len - 1] == '\r';
        more = len > 0 && part[len - 1] == '\\';
        if (more) {
            part[len - 1] = '\n';
            prompt(t, ". ");
        }
        char *grown = used + len + 1 > *cap ? realloc(*line, 2 * (used + len + 1)) : *line;
        if (grown == NULL) {
            result = LINE_END;
            break;
        }
        *cap = used + len + 1 > *cap ? 2 * (used + len + 1) : *cap;
        *line = grown;
        memcpy(*line + used, part, len);
        used += len;
        (*line)[used] = '\0';
    }
    free(part);
    return result;
}

static void converse(talk *t) {
    char *line = NULL;
    size_t cap = 0;
    for (bool again = false, go_on = true; go_on;) {
        line_result r = read_line(t, &line, &cap);
        if (r == LINE_INTERRUPTED) {
            prompt(t, "\n");
            if (again || pressed > 1 || !t->terminal) {
                t->code = EXIT_INTERRUPTED;
                break;
            }
            pressed = 0; /* before the message: the next one may follow at once */
            cli_note("Ctrl-C again or Ctrl-D leaves");
            again = true;
            continue;
        }
        again = false;
        if (r == LINE_END) {
            prompt(t, "\n");
            break;
        }
        const char *text = line + strspn(line, " \t");
        if (text[0] == '/' && text[1] != '/') {
            go_on = obey(t, line + (text - line));
        } else if (text[0] != '\0') {
            go_on = take_turn(t, text[0] == '/' ? text + 1 : line);
        }
        pressed = 0; /* one that came too late for the answer */
    }
    free(line);
}

static int open_session(talk *t) {
    novaq_session_options o = NOVAQ_SESSION_OPTIONS_INIT;
    novaq_error err = {.code = NOVAQ_OK};
    o.n_ctx = cli_uint(t->a, OPT_N_CTX);
    o.kv_type = cli_text(t->a, OPT_KV_TYPE);
    return novaq_session_open(&t->session, t->m, &o, &err) == NOVAQ_OK ? EXIT_OK : cli_fail(&err);
}

/* A model without a template says so before anything is typed. */
static int try_template(talk *t) {
    novaq_error err = {.code = NOVAQ_OK};
    char *text = NULL;
    size_t len = 0;
    t->chat.options.messages = "[{\"role\": \"user\", \"content\": \"-\"}]";
    novaq_status st = novaq_chat_render(&text, &len, t->m, &t->chat.options, &err);
    novaq_free(text);
    return st == NOVAQ_OK || st == NOVAQ_E_ARG ? EXIT_OK : cli_fail(&err);
}

int cmd_chat(const opt_args *a) {
    talk t = {.a = a, .terminal = isatty(STDIN_FILENO) && isatty(STDOUT_FILENO)};
    int code = talk_chat_begin(&t.chat, a);
    t.messages = json_array();
    if (code == EXIT_OK && t.messages == NULL) {
        code = cli_fail_text(EXIT_FAIL, "out of memory");
    }
    if (code == EXIT_OK) {
        code = talk_open(&t.m, a, "chat");
    }
    if (code == EXIT_OK) {
        code = try_template(&t);
    }
    if (code == EXIT_OK) {
        code = open_session(&t);
    }
    if (code == EXIT_OK && cli_text(a, OPT_SYSTEM) != NULL &&
        !say(&t, "system", cli_text(a, OPT_SYSTEM))) {
        code = t.code;
    }
    if (code == EXIT_OK) {
        typed = t.terminal;
        watch();
        if (t.terminal && !cli_flag(a, OPT_QUIET)) {
            cli_note("/help lists commands, Ctrl-C stops an answer, Ctrl-D leaves");
        }
        converse(&t);
        /* Whoever types has seen what went wrong and could go on. */
        code = t.terminal && t.code != EXIT_INTERRUPTED ? EXIT_OK : t.code;
    }
    novaq_session_close(&t.session);
    novaq_model_close(&t.m);
    json_decref(t.messages);
    talk_chat_end(&t.chat);
    return code;
}
