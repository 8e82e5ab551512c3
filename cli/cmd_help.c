/* cmd_help.c - novaq help, version, completion: what the program says of itself. */
#include "cmd.h"

int cmd_help(const opt_args *a) {
    opt_command_id c = CMD_NONE;
    if (a->arg_count > 0) {
        c = opt_command_find(a->args[0]);
        if (c == CMD_NONE) {
            char near[80];
            return cli_usage("help: unknown command '%s'%s", a->args[0],
                             opt_suggest_command(near, sizeof near, a->args[0]));
        }
    }
    opt_print_help(stdout, c);
    return EXIT_OK;
}

int cmd_version(const opt_args *a) {
    if (cli_flag(a, OPT_JSON)) {
        (void)printf("{\"version\": \"%s\"}\n", NOVAQ_VERSION);
    } else {
        (void)printf("novaq %s\n", NOVAQ_VERSION);
    }
    return EXIT_OK;
}

int cmd_completion(const opt_args *a) {
    if (!opt_print_completion(stdout, a->args[0])) {
        return cli_usage("completion: '%s' is not a known shell; give one of %s", a->args[0],
                         opt_find(CMD_NONE, OPT_COMPLETION)->choices);
    }
    return EXIT_OK;
}
