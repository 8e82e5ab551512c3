/* main.c - from the command line to the command.
 *
 * Owns: dispatch, the options of novaq itself, and noticing that standard
 * output could not be written or that NOVAQ_CPU says nothing. Refuses: everything else.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cpu.h"
#include "cmd.h"

typedef int (*command_fn)(const opt_args *a);

static int cmd_none(const opt_args *a) {
    if (cli_flag(a, OPT_VERSION)) {
        return cmd_version(a);
    }
    if (cli_flag(a, OPT_MAN)) {
        opt_print_man(stdout);
        return EXIT_OK;
    }
    if (cli_text(a, OPT_COMPLETION) != NULL) {
        (void)opt_print_completion(stdout, cli_text(a, OPT_COMPLETION));
        return EXIT_OK;
    }
    return cli_usage("no command; see novaq --help");
}

static const command_fn commands[CMD_COUNT] = {
    [CMD_NONE] = cmd_none,         [CMD_COMPRESS] = cmd_compress, [CMD_LOCAL] = cmd_compress,
    [CMD_HF] = cmd_compress,       [CMD_OLLAMA] = cmd_compress,   [CMD_URL] = cmd_compress,
    [CMD_VALIDATE] = cmd_validate, [CMD_VERIFY] = cmd_verify,     [CMD_STATS] = cmd_stats,
    [CMD_INFO] = cmd_info,         [CMD_REFINE] = cmd_refine,     [CMD_EVAL] = cmd_eval,
    [CMD_RUN] = cmd_run,           [CMD_CHAT] = cmd_chat,         [CMD_TOKENIZE] = cmd_tokenize,
    [CMD_EXPORT] = cmd_export,     [CMD_BENCH] = cmd_bench,       [CMD_COMPLETION] = cmd_completion,
    [CMD_VERSION] = cmd_version,   [CMD_HELP] = cmd_help,
};

static int dispatch(opt_args *a, int argc, char **argv) {
    switch (opt_parse(a, argc, argv)) {
    case OPT_BAD: return cli_usage("%s", a->error);
    case OPT_WANTS_HELP: opt_print_help(stdout, a->command); return EXIT_OK;
    case OPT_OK: break;
    }
    return commands[a->command](a);
}

/* A full disk or a closed pipe behind standard output is a failure, too. */
static int finish_output(int code) {
    errno = 0;
    bool failed = fflush(stdout) != 0 || ferror(stdout) != 0;
    if (failed && code == EXIT_OK) {
        return cli_fail_text(EXIT_FAIL, "cannot write to standard output: %s",
                             errno != 0 ? strerror(errno) : "write failed");
    }
    return code;
}

static void check_environment(void) {
    const char *cpu = getenv("NOVAQ_CPU");
    if (cpu != NULL && cpu[0] != '\0' && !nq_cpu_is_name(cpu)) {
        cli_note("warning: NOVAQ_CPU=%.64s is none of %s; ignored", cpu, NQ_CPU_NAMES);
    }
}

int main(int argc, char **argv) {
    opt_args a;
    check_environment();
    int code = dispatch(&a, argc, argv);
    opt_free(&a);
    return finish_output(code);
}
