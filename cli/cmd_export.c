/* cmd_export.c - plain weights for other tools. */
#include "cmd.h"
#include "report.h"

static novaq_status run_export(char **report, const void *options, novaq_error *err) {
    return novaq_export(report, options, err);
}

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
    char *report = NULL;
    int code = cli_work(&report, a, run_export, &o, &o.progress, &o.progress_ctx);
    return code == EXIT_OK ? cli_report(a, report, report_export) : code;
}
