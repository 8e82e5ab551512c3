/* cmd_bench.c - the codec on data whose best possible error is known. */
#include "cmd.h"
#include "report.h"

int cmd_bench(const opt_args *a) {
    novaq_error err = {.code = NOVAQ_OK};
    char *report = NULL;
    if (novaq_bench_codec(&report, cli_text(a, OPT_SCHEMES), cli_uint(a, OPT_THREADS), &err) !=
        NOVAQ_OK) {
        return cli_fail(&err);
    }
    return cli_report(a, report, report_bench);
}
