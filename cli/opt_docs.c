/* opt_docs.c - help, completions and the man page from the table. See opt.h. */
#include "opt.h"

#include <math.h>
#include <string.h>

#include "base/cpu.h"
#include "novaq.h"

#define HELP_COLUMN 30
#define HELP_WIDTH  79

static bool has_command(const opt_spec *s, int c) { return (s->commands >> c & 1U) != 0; }

/* "lowest-highest" of a number, "" where there is nothing to say. */
static void range_text(char *buf, size_t size, const opt_spec *s) {
    bool number = s->type == OPT_T_UINT || s->type == OPT_T_REAL;
    buf[0] = '\0';
    if (s->choices != NULL) {
        (void)snprintf(buf, size, "%s", s->choices);
    } else if (number && isinf(s->max)) {
        (void)snprintf(buf, size, "%s %.15g", s->above_min ? "above" : "from", s->min);
    } else if (number && s->max < 4e9) {
        (void)snprintf(buf, size, "%.15g-%.15g", s->min, s->max);
    }
}

/* The help sentence with range and default: "entries (2-256; default 16)". */
static void help_text(char *buf, size_t size, const opt_spec *s) {
    char range[64];
    range_text(range, sizeof range, s);
    const char *preset = s->preset != NULL ? s->preset : "";
    const char *sep = range[0] != '\0' && preset[0] != '\0' ? "; " : "";
    if (range[0] == '\0' && preset[0] == '\0') {
        (void)snprintf(buf, size, "%s", s->help);
    } else {
        (void)snprintf(buf, size, "%s (%s%s%s%s)", s->help, range, sep,
                       preset[0] != '\0' ? "default " : "", preset);
    }
}

/* Prints text broken at blanks, continuing at column indent. */
static void print_wrapped(FILE *out, const char *text, int at, int indent) {
    int column = at;
    for (const char *p = text; *p != '\0';) {
        int len = (int)strcspn(p, " ");
        if (column > indent && column + 1 + len > HELP_WIDTH) {
            (void)fprintf(out, "\n%*s", indent, "");
            column = indent;
        } else if (column > indent) {
            (void)fputc(' ', out);
            column++;
        }
        (void)fprintf(out, "%.*s", len, p);
        column += len;
        p += len;
        p += strspn(p, " ");
    }
    (void)fputc('\n', out);
}

static void print_option(FILE *out, const opt_spec *s) {
    char head[128];
    char help[512];
    char letter[8] = "    ";
    if (s->letter != 0) {
        (void)snprintf(letter, sizeof letter, "-%c, ", s->letter);
    }
    int n = snprintf(head, sizeof head, "  %s--%s%s%s", letter, s->name,
                     s->metavar != NULL ? " " : "", s->metavar != NULL ? s->metavar : "");
    if (n + 2 > HELP_COLUMN) {
        (void)fprintf(out, "%s\n%*s", head, HELP_COLUMN, "");
    } else {
        (void)fprintf(out, "%-*s", HELP_COLUMN, head);
    }
    help_text(help, sizeof help, s);
    if (s->alias != NULL) {
        size_t used = strlen(help);
        (void)snprintf(help + used, sizeof help - used, "; also --%s", s->alias);
    }
    print_wrapped(out, help, HELP_COLUMN, HELP_COLUMN);
}

static void print_commands(FILE *out) {
    (void)fputs("Commands:\n", out);
    for (int c = CMD_NONE + 1; c < CMD_COUNT; c++) {
        (void)fprintf(out, "  %-12s%s\n", opt_commands[c].name, opt_commands[c].summary);
    }
    (void)fputc('\n', out);
}

static const char *const exit_codes[][2] = {
    {"0", "success"},
    {"1", "failure"},
    {"2", "wrong usage"},
    {"3", "verification failed"},
    {"4", "network or authorization"},
    {"130", "interrupted"},
};

void opt_print_help(FILE *out, opt_command_id command) {
    const opt_command *c = &opt_commands[command];
    bool top = command == CMD_NONE;
    (void)fprintf(out, "%s%s - %s\n\n", top ? "" : "novaq ", c->name, c->summary);
    (void)fprintf(out, "Usage: novaq%s%s %s\n\n", top ? "" : " ", top ? "" : c->name, c->synopsis);
    print_wrapped(out, c->text, 0, 0);
    (void)fputc('\n', out);
    if (top) {
        print_commands(out);
    }
    (void)fputs("Options:\n", out);
    for (size_t i = 0; i < opt_spec_count; i++) {
        if (has_command(&opt_specs[i], (int)command)) {
            print_option(out, &opt_specs[i]);
        }
    }
    (void)fputs("\nExamples:\n", out);
    for (size_t i = 0; c->examples[i] != NULL; i++) {
        (void)fprintf(out, "  %s\n", c->examples[i]);
    }
    if (top) {
        (void)fputs("\nExit status:", out);
        for (size_t i = 0; i < sizeof exit_codes / sizeof exit_codes[0]; i++) {
            (void)fprintf(out, "%s %s %s", i > 0 ? "," : "", exit_codes[i][0], exit_codes[i][1]);
        }
        (void)fputs("\n\nnovaq COMMAND --help says more about a command.\n", out);
    }
}

/* ---- completions --------------------------------------------------------- */

/* Prints text with each character of `special` behind a backslash. */
static void put_escaped(FILE *out, const char *text, const char *special) {
    for (const char *p = text; *p != '\0'; p++) {
        if (strchr(special, *p) != NULL) {
            (void)fputc('\\', out);
        }
        (void)fputc(*p, out);
    }
}

/* Text inside single quotes of zsh, where _arguments and _describe give
 * brackets and colons a meaning. */
static void put_zsh(FILE *out, const char *text) {
    for (const char *p = text; *p != '\0'; p++) {
        if (*p == '\'') {
            (void)fputs("'\\''", out);
            continue;
        }
        if (strchr("[]:\\", *p) != NULL) {
            (void)fputc('\\', out);
        }
        (void)fputc(*p, out);
    }
}

static void put_choices(FILE *out, const char *choices) {
    for (const char *p = choices; *p != '\0'; p++) {
        (void)fputc(*p == '|' ? ' ' : *p, out);
    }
}

static void put_command_names(FILE *out) {
    for (int c = CMD_NONE + 1; c < CMD_COUNT; c++) {
        (void)fprintf(out, "%s%s", c > CMD_NONE + 1 ? " " : "", opt_commands[c].name);
    }
}

/* What the positional arguments of a command are, if not files. */
static void put_word_args(FILE *out, int c) {
    if (c == CMD_COMPLETION) {
        put_choices(out, opt_find(CMD_NONE, OPT_COMPLETION)->choices);
    } else if (c == CMD_HELP) {
        put_command_names(out);
    }
}

static void bash_options(FILE *out, int c) {
    for (size_t i = 0; i < opt_spec_count; i++) {
        const opt_spec *s = &opt_specs[i];
        if (has_command(s, c)) {
            (void)fprintf(out, "--%s ", s->name);
            if (s->alias != NULL) {
                (void)fprintf(out, "--%s ", s->alias);
            }
        }
    }
}

static void completion_bash(FILE *out) {
    (void)fputs("# bash completion for novaq\n"
                "_novaq() {\n"
                "    local cur prev words=\"\"\n"
                "    COMPREPLY=()\n"
                "    cur=${COMP_WORDS[COMP_CWORD]}\n"
                "    prev=${COMP_WORDS[COMP_CWORD-1]}\n"
                "    case \"$prev\" in\n",
                out);
    for (size_t i = 0; i < opt_spec_count; i++) {
        if (opt_specs[i].choices != NULL) {
            (void)fprintf(out, "        --%s) words=\"", opt_specs[i].name);
            put_choices(out, opt_specs[i].choices);
            (void)fputs("\" ;;\n", out);
        }
    }
    (void)fputs("    esac\n"
                "    if [[ -n $words ]]; then\n"
                "        mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$cur\")\n"
                "        return\n"
                "    fi\n"
                "    if [[ $COMP_CWORD -eq 1 ]]; then\n"
                "        words=\"",
                out);
    put_command_names(out);
    (void)fputc(' ', out);
    bash_options(out, CMD_NONE);
    (void)fputs("\"\n"
                "        mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$cur\")\n"
                "        return\n"
                "    fi\n"
                "    case \"${COMP_WORDS[1]}\" in\n",
                out);
    for (int c = CMD_NONE + 1; c < CMD_COUNT; c++) {
        (void)fprintf(out, "        %s) words=\"", opt_commands[c].name);
        bash_options(out, c);
        put_word_args(out, c);
        (void)fputs("\" ;;\n", out);
    }
    (void)fputs("    esac\n"
                "    mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$cur\")\n"
                "    if [[ $cur != -* ]]; then\n"
                "        mapfile -t -O \"${#COMPREPLY[@]}\" COMPREPLY < <(compgen -f -- \"$cur\")\n"
                "    fi\n"
                "}\n"
                "complete -o filenames -o bashdefault -F _novaq novaq\n",
                out);
}

/* One _arguments specification: '--name=[help]:META:action'. */
static void zsh_spec(FILE *out, const opt_spec *s, const char *dashes, const char *name) {
    (void)fprintf(out, " \\\n                '%s%s%s%s[", s->type == OPT_T_LIST ? "*" : "", dashes,
                  name, s->metavar != NULL && dashes[1] == '-' ? "=" : "");
    put_zsh(out, s->help);
    (void)fputc(']', out);
    if (s->choices != NULL) {
        (void)fprintf(out, ":%s:(", s->metavar);
        put_choices(out, s->choices);
        (void)fputc(')', out);
    } else if (s->metavar != NULL) {
        (void)fprintf(out, ":%s:%s", s->metavar, s->type == OPT_T_TEXT ? "_files" : "");
    }
    (void)fputc('\'', out);
}

static void zsh_specs(FILE *out, int c) {
    (void)fputs("_arguments -s -S", out);
    for (size_t i = 0; i < opt_spec_count; i++) {
        const opt_spec *s = &opt_specs[i];
        if (!has_command(s, c)) {
            continue;
        }
        char letter[2] = {s->letter, '\0'};
        if (s->letter != 0) {
            zsh_spec(out, s, "-", letter);
        }
        zsh_spec(out, s, "--", s->name);
        if (s->alias != NULL) {
            zsh_spec(out, s, "--", s->alias);
        }
    }
    (void)fputs(" \\\n                ", out);
    if (c == CMD_COMPLETION || c == CMD_HELP) {
        (void)fputs("'*:word:(", out);
        put_word_args(out, c);
        (void)fputs(")'", out);
    } else {
        (void)fputs("'*:file:_files'", out);
    }
}

static void completion_zsh(FILE *out) {
    (void)fputs("#compdef novaq\n"
                "_novaq() {\n"
                "    local -a commands\n"
                "    commands=(\n",
                out);
    for (int c = CMD_NONE + 1; c < CMD_COUNT; c++) {
        (void)fprintf(out, "        '%s:", opt_commands[c].name);
        put_zsh(out, opt_commands[c].summary);
        (void)fputs("'\n", out);
    }
    (void)fputs("    )\n"
                "    if (( CURRENT == 2 )) && [[ ${words[2]} != -* ]]; then\n"
                "        _describe -t commands 'novaq command' commands\n"
                "        return\n"
                "    fi\n"
                "    local command=${words[2]}\n"
                "    if [[ $command != -* ]]; then\n"
                "        shift words\n"
                "        (( CURRENT-- ))\n"
                "    fi\n"
                "    case $command in\n",
                out);
    for (int c = CMD_NONE + 1; c < CMD_COUNT; c++) {
        (void)fprintf(out, "        %s)\n            ", opt_commands[c].name);
        zsh_specs(out, c);
        (void)fputs("\n            ;;\n", out);
    }
    (void)fputs("        *)\n            ", out);
    zsh_specs(out, CMD_NONE);
    (void)fputs("\n            ;;\n"
                "    esac\n"
                "}\n"
                "if [[ ${funcstack[1]} == _novaq ]]; then\n"
                "    _novaq \"$@\"\n"
                "else\n"
                "    compdef _novaq novaq\n"
                "fi\n",
                out);
}

static void fish_option(FILE *out, const opt_spec *s, int c, const char *name) {
    if (c == CMD_NONE) {
        (void)fputs("complete -c novaq -n __fish_use_subcommand", out);
    } else {
        (void)fprintf(out, "complete -c novaq -n '__fish_seen_subcommand_from %s'",
                      opt_commands[c].name);
    }
    (void)fprintf(out, " -l %s", name);
    if (s->letter != 0 && name == s->name) {
        (void)fprintf(out, " -s %c", s->letter);
    }
    if (s->choices != NULL) {
        (void)fputs(" -x -a '", out);
        put_choices(out, s->choices);
        (void)fputc('\'', out);
    } else if (s->metavar != NULL) {
        (void)fputs(s->type == OPT_T_TEXT ? " -r -F" : " -x", out);
    }
    (void)fputs(" -d '", out);
    put_escaped(out, s->help, "'\\");
    (void)fputs("'\n", out);
}

static void completion_fish(FILE *out) {
    (void)fputs("# fish completion for novaq\n", out);
    for (int c = CMD_NONE + 1; c < CMD_COUNT; c++) {
        (void)fprintf(out, "complete -c novaq -f -n __fish_use_subcommand -a %s -d '",
                      opt_commands[c].name);
        put_escaped(out, opt_commands[c].summary, "'\\");
        (void)fputs("'\n", out);
    }
    for (int c = CMD_NONE; c < CMD_COUNT; c++) {
        for (size_t i = 0; i < opt_spec_count; i++) {
            if (has_command(&opt_specs[i], c)) {
                fish_option(out, &opt_specs[i], c, opt_specs[i].name);
                if (opt_specs[i].alias != NULL) {
                    fish_option(out, &opt_specs[i], c, opt_specs[i].alias);
                }
            }
        }
    }
    (void)fputs("complete -c novaq -f -n '__fish_seen_subcommand_from completion' -a '", out);
    put_word_args(out, CMD_COMPLETION);
    (void)fputs("'\ncomplete -c novaq -f -n '__fish_seen_subcommand_from help' -a '", out);
    put_word_args(out, CMD_HELP);
    (void)fputs("'\n", out);
}

bool opt_print_completion(FILE *out, const char *shell) {
    if (strcmp(shell, "bash") == 0) {
        completion_bash(out);
    } else if (strcmp(shell, "zsh") == 0) {
        completion_zsh(out);
    } else if (strcmp(shell, "fish") == 0) {
        completion_fish(out);
    } else {
        return false;
    }
    return true;
}

/* ---- man page ------------------------------------------------------------ */

/* Text for troff: hyphens that must stay ASCII, no control lines. */
static void put_roff(FILE *out, const char *text) {
    if (*text == '.' || *text == '\'') {
        (void)fputs("\\&", out);
    }
    for (const char *p = text; *p != '\0'; p++) {
        switch (*p) {
        case '-': (void)fputs("\\-", out); break;
        case '\\': (void)fputs("\\e", out); break;
        case '\'': (void)fputs("\\(aq", out); break;
        case '^': (void)fputs("\\(ha", out); break;
        case '~': (void)fputs("\\(ti", out); break;
        default: (void)fputc(*p, out);
        }
    }
}

static void man_option(FILE *out, const opt_spec *s) {
    char help[512];
    (void)fputs(".TP\n", out);
    if (s->letter != 0) {
        (void)fprintf(out, "\\fB\\-%c\\fR, ", s->letter);
    }
    (void)fputs("\\fB\\-\\-", out);
    put_roff(out, s->name);
    (void)fputs("\\fR", out);
    if (s->alias != NULL) {
        (void)fputs(", \\fB\\-\\-", out);
        put_roff(out, s->alias);
        (void)fputs("\\fR", out);
    }
    if (s->metavar != NULL) {
        (void)fputs(" \\fI", out);
        put_roff(out, s->metavar);
        (void)fputs("\\fR", out);
    }
    (void)fputc('\n', out);
    help_text(help, sizeof help, s);
    put_roff(out, help);
    (void)fputs(".\n", out);
}

static void man_command(FILE *out, int c) {
    (void)fprintf(out, ".SS novaq %s ", opt_commands[c].name);
    put_roff(out, opt_commands[c].synopsis);
    (void)fputc('\n', out);
    put_roff(out, opt_commands[c].text);
    (void)fputc('\n', out);
    for (size_t i = 0; i < opt_spec_count; i++) {
        if (has_command(&opt_specs[i], c) && opt_specs[i].id != OPT_HELP) {
            man_option(out, &opt_specs[i]);
        }
    }
}

static const char *const environment[][2] = {
    {"NOVAQ_CPU", "Highest instruction set to use, one of " NQ_CPU_NAMES "."},
    {"HF_TOKEN, HUGGINGFACE_HUB_TOKEN, HUGGINGFACE_TOKEN, HUGGING_FACE_HUB_TOKEN, HF_TOKEN_PATH",
     "Token for private and gated models of the Hugging Face Hub; the first that is set, else the "
     "file that hf auth login leaves."},
    {"HF_ENDPOINT, HF_HUB_CACHE, HF_HOME, HF_HUB_OFFLINE",
     "Address of the hub; where complete copies of files may lie already; 1: use nothing else."},
    {"OLLAMA_MODELS", "Store of a local Ollama."},
    {"NOVAQ_HTTP_RETRIES, NOVAQ_HTTP_STALL, NOVAQ_HTTP_CONNECT",
     "Patience with a network: further attempts, seconds without a byte, seconds to connect."},
    {"http_proxy, https_proxy, no_proxy, SSL_CERT_FILE",
     "Proxies and trusted certificates, as curl has them."},
    {"TMPDIR", "Folder of temporary files."},
    {"SOURCE_DATE_EPOCH", "Time to record in an artifact, in seconds since 1970."},
    {"NO_COLOR, TERM",
     "Nothing is printed in colour. With TERM=dumb progress is plain lines, as it is when "
     "standard error is not a terminal."},
};

static void man_environment(FILE *out) {
    (void)fputs(".SH ENVIRONMENT\n", out);
    for (size_t i = 0; i < sizeof environment / sizeof environment[0]; i++) {
        (void)fputs(".TP\n\\fB", out);
        put_roff(out, environment[i][0]);
        (void)fputs("\\fR\n", out);
        put_roff(out, environment[i][1]);
        (void)fputc('\n', out);
    }
}

void opt_print_man(FILE *out) {
    (void)fprintf(out,
                  ".TH NOVAQ 1 \"\" \"novaq %s\" \"User Commands\"\n"
                  ".SH NAME\nnovaq \\- %s\n"
                  ".SH SYNOPSIS\n",
                  NOVAQ_VERSION, opt_commands[CMD_NONE].summary);
    for (int c = CMD_NONE + 1; c < CMD_COUNT; c++) {
        (void)fprintf(out, ".B novaq %s\n", opt_commands[c].name);
        if (opt_commands[c].synopsis[0] != '\0') {
            put_roff(out, opt_commands[c].synopsis);
            (void)fputc('\n', out);
        }
        (void)fputs(c + 1 < CMD_COUNT ? ".br\n" : "", out);
    }
    (void)fputs(".SH DESCRIPTION\n", out);
    put_roff(out, opt_commands[CMD_NONE].text);
    (void)fputs("\n.PP\nResults go to standard output, progress and errors to standard error.\n"
                ".SH OPTIONS\n",
                out);
    for (size_t i = 0; i < opt_spec_count; i++) {
        if (has_command(&opt_specs[i], CMD_NONE)) {
            man_option(out, &opt_specs[i]);
        }
    }
    (void)fputs(".SH COMMANDS\nEvery command has \\fB\\-\\-help\\fR.\n", out);
    for (int c = CMD_NONE + 1; c < CMD_COUNT; c++) {
        man_command(out, c);
    }
    (void)fputs(".SH EXAMPLES\n.nf\n", out);
    for (int c = CMD_NONE + 1; c < CMD_COUNT; c++) {
        for (size_t i = 0; opt_commands[c].examples[i] != NULL; i++) {
            put_roff(out, opt_commands[c].examples[i]);
            (void)fputc('\n', out);
        }
    }
    (void)fputs(".fi\n.SH EXIT STATUS\n", out);
    for (size_t i = 0; i < sizeof exit_codes / sizeof exit_codes[0]; i++) {
        (void)fprintf(out, ".TP\n%s\n%s.\n", exit_codes[i][0], exit_codes[i][1]);
    }
    man_environment(out);
}
