/* cmd_verify.c - every byte of an artifact. */
#include "cmd.h"
#include "progress.h"
#include "report.h"

int cmd_verify(const opt_args *a) {
    novaq_error err = {.code = NOVAQ_OK};
    char *report = NULL;
    progress p;
    progress_begin(&p, cli_flag(a, OPT_QUIET));
    novaq_status st =
        novaq_verify(&report, a->args[0], cli_uint(a, OPT_THREADS), progress_callback, &p, &err);
    progress_end(&p);
    if (st != NOVAQ_OK) {
        int code = cli_fail(&err);
        return st == NOVAQ_E_FORMAT ? EXIT_VERIFY : code;
    }
    return cli_report(a, report, report_validate);
}
