/* gnuplot.c - see gnuplot.h. */
#include "gnuplot.h"

#include <errno.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/text.h"
#include "cmd.h"
#include "progress.h"

extern char **environ;

/* Says why gnuplot failed, in the first words it printed. */
static int say_failure(FILE *messages, int status) {
    char line[200] = "";
    rewind(messages);
    while (line[strspn(line, " \t\n^")] == '\0' && fgets(line, sizeof line, messages) != NULL) {
    }
    line[strcspn(line, "\n")] = '\0';
    return cli_fail_text(EXIT_FAIL, "gnuplot failed (%d): %s", status, line);
}

/* Looks now and then: a signal just before a wait that sleeps would go unheard. */
static int wait_for(pid_t pid, int *status) {
    const struct timespec pause = {.tv_nsec = 10000000};
    pid_t ended = 0;
    for (bool told = false; (ended = waitpid(pid, status, WNOHANG)) == 0;) {
        if (interrupt_seen() && !told) { /* by Ctrl-C it was told so itself, by kill it was not */
            (void)kill(pid, SIGTERM);
            told = true;
        }
        (void)nanosleep(&pause, NULL);
    }
    if (ended < 0) {
        return cli_fail_text(EXIT_FAIL, "gnuplot: %s", strerror(errno));
    }
    return interrupt_seen() ? cli_fail_text(EXIT_INTERRUPTED, "interrupted") : EXIT_OK;
}

/* The picture's file is its standard output. */
static int run_gnuplot(FILE *script, int picture, FILE *messages, const char *instead) {
    char *argv[] = {(char *)(uintptr_t) "gnuplot", (char *)(uintptr_t) "-d", NULL};
    posix_spawn_file_actions_t actions;
    pid_t pid = 0;
    int status = 0;
    if (posix_spawn_file_actions_init(&actions) != 0) {
        return cli_fail_text(EXIT_FAIL, "out of memory");
    }
    (void)posix_spawn_file_actions_adddup2(&actions, fileno(script), STDIN_FILENO);
    (void)posix_spawn_file_actions_adddup2(&actions, picture, STDOUT_FILENO);
    (void)posix_spawn_file_actions_adddup2(&actions, fileno(messages), STDERR_FILENO);
    int failed = posix_spawnp(&pid, argv[0], &actions, NULL, argv, environ);
    (void)posix_spawn_file_actions_destroy(&actions);
    if (failed == ENOENT) {
        return cli_fail_text(EXIT_FAIL,
                             "--plot needs gnuplot, which is not installed (Debian: apt-get "
                             "install gnuplot-nox); %s has the figures for any other program",
                             instead);
    }
    if (failed != 0) {
        return cli_fail_text(EXIT_FAIL, "cannot start gnuplot: %s", strerror(failed));
    }
    int code = wait_for(pid, &status);
    return code == EXIT_OK && status != 0 ? say_failure(messages, status) : code;
}

/* ---- the file ---------------------------------------------------------------------- */

/* A fresh file beside the picture; *name is freed with free(). */
static int open_fresh(char **name, int *fd, const char *path) {
    static const char tail[] = ".XXXXXX";
    size_t size = strlen(path) + sizeof tail;
    *name = malloc(size);
    if (*name == NULL) {
        return cli_fail_text(EXIT_FAIL, "out of memory");
    }
    (void)snprintf(*name, size, "%s%s", path, tail);
    *fd = mkstemp(*name);
    if (*fd < 0) {
        free(*name);
        *name = NULL;
        return cli_fail_text(EXIT_FAIL, "%s: %s", path, strerror(errno));
    }
    return EXIT_OK;
}

static int put_picture(const gnuplot_picture *p, FILE *script, FILE *messages) {
    char *fresh = NULL;
    int fd = -1;
    struct stat st;
    interrupt_watch(); /* Ctrl-C must not leave it behind */
    int code = open_fresh(&fresh, &fd, p->path);
    if (code != EXIT_OK || fresh == NULL) {
        return code;
    }
    mode_t mask = umask(0);
    (void)umask(mask);
    code = run_gnuplot(script, fd, messages, p->instead);
    if (code == EXIT_OK && (fstat(fd, &st) != 0 || st.st_size == 0)) {
        code = say_failure(messages, 0);
    }
    bool kept = code == EXIT_OK && fchmod(fd, 0666 & ~mask) == 0;
    kept = close(fd) == 0 && kept && rename(fresh, p->path) == 0;
    if (code == EXIT_OK && !kept) {
        code = cli_fail_text(EXIT_FAIL, "%s: %s", p->path, strerror(errno));
    }
    if (code != EXIT_OK) {
        (void)unlink(fresh);
    }
    free(fresh);
    return code;
}

static void put_nothing(FILE *script, const void *data) {
    (void)data;
    (void)fputs("print 'here'\n", script);
}

/* Runs the script; probing: nothing is drawn and nothing stays. */
static int run(const gnuplot_picture *p, bool probing) {
    FILE *script = tmpfile();
    FILE *messages = tmpfile();
    int code = EXIT_OK;
    if (script != NULL && !probing) {
        (void)fprintf(script, "set terminal %s size 1200,%u noenhanced background rgb 'white'\n",
                      nq_ends_with(p->path, ".svg") ? "svg" : "pngcairo", p->height);
    }
    if (script != NULL) {
        (probing ? put_nothing : p->put)(script, p->data);
    }
    /* gnuplot shares the position in the file: from the start again. */
    if (script == NULL || messages == NULL || fflush(script) != 0 ||
        lseek(fileno(script), 0, SEEK_SET) != 0) {
        code = cli_fail_text(EXIT_FAIL, "no temporary file: %s", strerror(errno));
    } else {
        code = probing ? run_gnuplot(script, fileno(messages), messages, p->instead)
                       : put_picture(p, script, messages);
    }
    if (script != NULL) {
        (void)fclose(script);
    }
    if (messages != NULL) {
        (void)fclose(messages);
    }
    return code;
}

/* ---- the calls ---------------------------------------------------------------------- */

int gnuplot_check(const char *path) {
    return nq_ends_with(path, ".svg") || nq_ends_with(path, ".png")
               ? EXIT_OK
               : cli_usage("--plot: '%s' ends neither in .png nor in .svg", path);
}

int gnuplot_probe(const gnuplot_picture *p) {
    char *fresh = NULL;
    int fd = -1;
    int code = gnuplot_check(p->path);
    if (code == EXIT_OK) {
        code = open_fresh(&fresh, &fd, p->path);
    }
    if (fresh != NULL) {
        (void)close(fd);
        (void)unlink(fresh);
        free(fresh);
    }
    return code == EXIT_OK ? run(p, true) : code;
}

int gnuplot_draw(const gnuplot_picture *p) {
    int code = gnuplot_check(p->path);
    return code == EXIT_OK ? run(p, false) : code;
}
