/* cmd_bench.c - the codec on data whose best possible error is known. */
#include "cmd.h"
#include "report.h"

int cmd_bench(const opt_args *a) {
    novaq_error err = {.code = NOVAQ_OK};
    char *report = NULL;
    bool encoder = cli_flag(a, OPT_ENCODER);
    if (encoder && cli_flag(a, OPT_CODEC)) {
        return cli_usage("bench: --codec and --encoder are two measurements; choose one");
    }
    novaq_status (*bench)(char **, const char *, unsigned, novaq_error *) =
        encoder ? novaq_bench_encoder : novaq_bench_codec;
    if (bench(&report, cli_text(a, OPT_SCHEMES), cli_uint(a, OPT_THREADS), &err) != NOVAQ_OK) {
        return cli_fail(&err);
    }
    return cli_report(a, report, report_bench);
}
