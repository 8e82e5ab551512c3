/* cmd_validate.c - structure of an artifact. */
#include "cmd.h"
#include "report.h"

int cmd_validate(const opt_args *a) {
    novaq_error err = {.code = NOVAQ_OK};
    char *report = NULL;
    novaq_status st = novaq_validate(&report, a->args[0], &err);
    if (st != NOVAQ_OK) {
        int code = cli_fail(&err);
        return st == NOVAQ_E_FORMAT ? EXIT_VERIFY : code;
    }
    return cli_report(a, report, report_validate);
}
