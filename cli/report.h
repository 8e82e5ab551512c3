/* report.h - tables from the library's JSON reports.
 *
 * Owns: how figures look on standard output. Refuses: computing them; and
 * letting a name from a file put control characters on a terminal.
 */
#ifndef CLI_REPORT_H
#define CLI_REPORT_H

/* Each prints one report and returns an exit code. */
int report_compress(const char *json);
int report_plan(const char *json);
int report_stats(const char *json);
int report_info(const char *json);
int report_validate(const char *json); /* verify, too */
int report_eval(const char *json);
int report_ablation(const char *json);
int report_refine(const char *json);
int report_export(const char *json);
int report_bench(const char *json);
int report_speed_md(const char *json); /* report_speed.c: of a model that was benched */
int report_speed_csv(const char *json);
/* {"report": ...} on one line; frees the report. Returns an exit code. */
int report_line(char *report);
/* report_plot.c: draws the layers of a report of stats into a .png or .svg file. */
int report_plot(const char *json, const char *path);
/* The report's "warnings", one line each on standard error. */
void report_warnings(const char *json);
/* The same but for one that was told before; told may be NULL. */
void report_other_warnings(const char *json, const char *told);
/* Says so on standard error when the text had fewer windows than were asked for. */
void report_windows(const char *json, unsigned asked);
/* Tokens and seconds of a generation, one line on standard error. */
void report_speed(const char *json);

#endif
