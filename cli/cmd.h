/* cmd.h - the commands and what they share.
 *
 * Owns: exit codes, the way errors are told, the first steps every command
 * takes. Refuses: knowing what is inside the library; novaq.h is all it sees.
 */
#ifndef CLI_CMD_H
#define CLI_CMD_H

#include "novaq.h"
#include "opt.h"

enum {
    EXIT_OK = 0,
    EXIT_FAIL = 1,
    EXIT_USAGE = 2,
    EXIT_VERIFY = 3,
    EXIT_NETWORK = 4,
    EXIT_INTERRUPTED = 130
};

/* Each returns an exit code. */
int cmd_compress(const opt_args *a); /* compress, local, hf, ollama, url */
int cmd_validate(const opt_args *a);
int cmd_verify(const opt_args *a);
int cmd_stats(const opt_args *a);
int cmd_info(const opt_args *a);
int cmd_refine(const opt_args *a);
int cmd_eval(const opt_args *a);
int cmd_run(const opt_args *a);
int cmd_chat(const opt_args *a);
int cmd_tokenize(const opt_args *a);
int cmd_export(const opt_args *a);
int cmd_bench(const opt_args *a);
int cmd_completion(const opt_args *a);
int cmd_version(const opt_args *a);
int cmd_help(const opt_args *a);

/* "novaq: message" on stderr; returns EXIT_USAGE. */
int cli_usage(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* The same for a failed operation; returns the exit code that fits its status. */
int cli_fail(const novaq_error *err);
/* As cli_fail(), for a message of the command line's own. */
int cli_fail_text(int exit_code, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* "novaq: message" on stderr, for what is no failure. */
void cli_note(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Typed values of the options; defaults are filled in by the parser. */
bool cli_flag(const opt_args *a, opt_id id);
bool cli_given(const opt_args *a, opt_id id);
const char *cli_text(const opt_args *a, opt_id id); /* NULL when absent */
unsigned cli_uint(const opt_args *a, opt_id id);
double cli_real(const opt_args *a, opt_id id);

/* A whole file, or standard input for "-". *text is NUL-terminated and freed
 * with free(). Returns EXIT_OK or says what failed. */
int cli_read_text(char **text, size_t *len, const char *path);
/* One call of the library: options is what run passes on to it. */
typedef novaq_status (*cli_work_fn)(char **report, const void *options, novaq_error *err);
/* Runs it with progress on standard error (--quiet: none) and Ctrl-C watched; progress
 * and ctx are those members of options. Returns EXIT_OK or says what failed. */
int cli_work(char **report, const opt_args *a, cli_work_fn run, const void *options,
             novaq_progress_fn *progress, void **ctx);
/* The report as JSON with --json, else by print. Frees the report. */
int cli_report(const opt_args *a, char *report, int (*print)(const char *json));

/* What a refinement tells line by line: to print for --json-lines; to note on standard
 * error: what it will take, each measurement. ctx is not used. */
void cli_refine_line(void *ctx, const char *json_line);
void cli_refine_note(void *ctx, const char *json_line);

/* Whether an output of this name is to be one file: NAME.bin, .novaq or .safetensors. */
bool cli_is_file_name(const char *path);

#endif
