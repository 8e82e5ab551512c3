/* cmd_stats.c - size and error of every layer. */
#include "cmd.h"
#include "gnuplot.h"
#include "report.h"

int cmd_stats(const opt_args *a) {
    novaq_error err = {.code = NOVAQ_OK};
    char *report = NULL;
    const char *picture = cli_text(a, OPT_PLOT);
    int code = picture != NULL ? gnuplot_check(picture) : EXIT_OK;
    if (code != EXIT_OK) {
        return code;
    }
    if (novaq_stats(&report, a->args[0], &err) != NOVAQ_OK) {
        return cli_fail(&err);
    }
    code = picture != NULL ? report_plot(report, picture) : EXIT_OK;
    if (code != EXIT_OK) {
        novaq_free(report);
        return code;
    }
    return cli_report(a, report, report_stats);
}
