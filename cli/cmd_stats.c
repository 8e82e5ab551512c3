/* cmd_stats.c - size and error of every layer. */
#include "cmd.h"
#include "report.h"

int cmd_stats(const opt_args *a) {
    novaq_error err = {.code = NOVAQ_OK};
    char *report = NULL;
    if (novaq_stats(&report, a->args[0], &err) != NOVAQ_OK) {
        return cli_fail(&err);
    }
    return cli_report(a, report, report_stats);
}
