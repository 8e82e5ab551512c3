/* cmd_info.c - what a model is. */
#include "cmd.h"
#include "report.h"

int cmd_info(const opt_args *a) {
    novaq_error err = {.code = NOVAQ_OK};
    char *report = NULL;
    if (novaq_info(&report, a->args[0], &err) != NOVAQ_OK) {
        return cli_fail(&err);
    }
    return cli_report(a, report, report_info);
}
