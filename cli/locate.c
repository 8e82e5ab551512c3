/* locate.c - see locate.h. */
#include "locate.h"

#include <stdlib.h>
#include <string.h>

#define HF     "hf://"
#define OLLAMA "ollama://"

static bool starts_with(const char *s, const char *head) {
    return strncmp(s, head, strlen(head)) == 0;
}

static bool is_web(const char *s) {
    return starts_with(s, "https://") || starts_with(s, "http://");
}

/* ---- Hugging Face ----------------------------------------------------------------- */

/* Characters of "ORG/NAME" or "NAME" before "@REVISION" and "/FILE". */
static size_t repo_length(const char *s) {
    size_t org = strcspn(s, "/@");
    return s[org] == '/' ? org + 1 + strcspn(s + org + 1, "/@") : org;
}

/* What an option says must not be in the name already. rest: what follows the name. */
static int check_rest(const opt_args *a, const char *named, const char *rest) {
    bool revision = rest[0] == '@';
    bool file = strchr(rest, '/') != NULL;
    opt_id twice = cli_given(a, OPT_REVISION) && revision ? OPT_REVISION
                   : cli_given(a, OPT_FILE) && file       ? OPT_FILE
                                                          : OPT_COUNT;
    if (twice == OPT_COUNT) {
        return EXIT_OK;
    }
    const char *name = opt_find(CMD_HF, twice)->name;
    return cli_usage("hf: '%s' says already what --%s '%s' says; give one", named, name,
                     cli_text(a, twice));
}

/* Revisions may have slashes ("feature/x"), which would begin a file. */
static void put_revision(FILE *out, const char *s) {
    (void)fputc('@', out);
    for (; *s != '\0'; s++) {
        if (*s == '/' || *s == '%') {
            (void)fputs(*s == '/' ? "%2F" : "%25", out);
        } else {
            (void)fputc(*s, out);
        }
    }
}

static int locate_hf(FILE *out, const opt_args *a, const char *named) {
    const char *revision = cli_text(a, OPT_REVISION);
    const char *file = cli_text(a, OPT_FILE);
    if (is_web(named)) {
        (void)fputs(named, out); /* a page of the Hub: the library takes it apart */
        return revision == NULL && file == NULL
                   ? EXIT_OK
                   : cli_usage("hf: an address names revision and file itself; with --revision or "
                               "--file give ORG/NAME");
    }
    const char *repo = starts_with(named, HF) ? named + strlen(HF) : named;
    size_t len = repo_length(repo);
    int code = check_rest(a, named, repo + len);
    if (code != EXIT_OK) {
        return code;
    }
    (void)fprintf(out, HF "%.*s", (int)(len & 0xffff), repo);
    if (revision != NULL) {
        put_revision(out, revision);
    } else if (file != NULL && repo[len] == '\0') {
        (void)fputs("@main", out); /* NAME/FILE would be a repository */
    }
    (void)fputs(repo + len, out);
    if (file != NULL) {
        (void)fprintf(out, "/%s", file);
    }
    return EXIT_OK;
}

/* ---- the others --------------------------------------------------------------------- */

/* The command for a place that is not this machine, or NULL. */
static const char *remote_command(const char *named) {
    return starts_with(named, HF)       ? "hf"
           : starts_with(named, OLLAMA) ? "ollama"
           : is_web(named)              ? "url"
                                        : NULL;
}

static int locate(FILE *out, const opt_args *a, const char *named) {
    const char *other = remote_command(named);
    switch (a->command) {
    case CMD_LOCAL:
        if (other != NULL) {
            return cli_usage("local: '%s' is not a path on this machine; run: novaq %s %s", named,
                             other, named);
        }
        break;
    case CMD_HF: return locate_hf(out, a, named);
    case CMD_OLLAMA:
        (void)fprintf(out, "%s%s", starts_with(named, OLLAMA) ? "" : OLLAMA, named);
        return EXIT_OK;
    case CMD_URL:
        if (!is_web(named)) {
            return cli_usage("url: '%s' is not a web address such as https://HOST/FILE; for a "
                             "file on disk run: novaq local PATH",
                             named);
        }
        break;
    default: break;
    }
    (void)fputs(named, out);
    return EXIT_OK;
}

static int find_named(const char **named, const opt_args *a) {
    const char *input = cli_text(a, OPT_INPUT); /* NULL but for compress */
    *named = a->arg_count > 0 ? a->args[0] : input;
    if (*named == NULL) {
        return cli_usage("compress: no model; give --input MODEL");
    }
    if (input != NULL && a->arg_count > 0) {
        return cli_usage("compress: two models, '%s' and --input '%s'; give one", a->args[0],
                         input);
    }
    return EXIT_OK;
}

int cli_locate(char **locator, const opt_args *a) {
    const char *named = NULL;
    size_t len = 0;
    *locator = NULL;
    int code = find_named(&named, a);
    if (code != EXIT_OK) {
        return code;
    }
    FILE *out = open_memstream(locator, &len);
    if (out == NULL) {
        return cli_fail_text(EXIT_FAIL, "out of memory");
    }
    code = locate(out, a, named);
    if (fclose(out) != 0 && code == EXIT_OK) {
        code = cli_fail_text(EXIT_FAIL, "out of memory");
    }
    if (code != EXIT_OK) {
        free(*locator);
        *locator = NULL;
    }
    return code;
}
