/* cmd_export.c - plain weights for other tools. */
#include "cmd.h"
#include "progress.h"
#include "report.h"

int cmd_export(const opt_args *a) {
    novaq_export_options o = NOVAQ_EXPORT_OPTIONS_INIT;
    o.input = a->args[0];
    o.output = cli_text(a, OPT_OUTPUT);
    o.format = cli_text(a, OPT_TO);
    o.dtype = cli_text(a, OPT_DTYPE);
    o.threads = cli_uint(a, OPT_THREADS);
    if (o.format == NULL) {
        return cli_usage("export: no format; give --to gguf or --to safetensors");
    }
    if (o.output == NULL) {
        return cli_usage("export: nowhere to write; give --output PATH");
    }
    progress p;
    progress_begin(&p, cli_flag(a, OPT_QUIET));
    o.progress = progress_callback;
    o.progress_ctx = &p;
    novaq_error err = {.code = NOVAQ_OK};
    char *report = NULL;
    novaq_status st = novaq_export(&report, &o, &err);
    progress_end(&p);
    return st == NOVAQ_OK ? cli_report(a, report, report_export) : cli_fail(&err);
}
