/* replay_main.c - runs a fuzz target without libFuzzer: every file of a corpus,
 * then mutants of them, the same ones each time.
 *
 * usage: TARGET [--mutate N] [--seed S] PATH...
 *
 * Folders are searched; only *.py and *.sh in them are left out. An input that
 * makes the target fail is written to ./crash-TARGET and named on stderr; give
 * that file as the only PATH to see it again. Refuses inputs that take longer
 * than 20 seconds.
 */
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/stat.h>

#include "fuzz.h"
#include "mutate.h"

#define SECONDS 20U
#define GROWTH  8192U /* bytes a mutant may be longer than its input */

typedef struct corpus {
    bytes *items;
    char **names;
    size_t count;
} corpus;

/* For signal handlers only. */
static const bytes *running;
static char crash_name[256];

/* Large claims are to be refused by novaq, not by this machine's memory. */
const char *__asan_default_options(void);
const char *__asan_default_options(void) {
    return "allocator_may_return_null=1:max_allocation_size_mb=2048";
}

/* UBSan's own runtime does not know ASan's death callback; abort() comes back here. */
const char *__ubsan_default_options(void);
const char *__ubsan_default_options(void) { return "abort_on_error=1:print_stacktrace=1"; }

void __sanitizer_set_death_callback(void (*callback)(void)) __attribute__((weak));

static void keep_input(void) {
    static const char said[] = "the input is in ";
    if (running == NULL) {
        return;
    }
    int fd = open(crash_name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd >= 0 && write(fd, running->data, running->size) == (ssize_t)running->size) {
        (void)!write(2, said, sizeof said - 1);
        (void)!write(2, crash_name, strlen(crash_name));
        (void)!write(2, "\n", 1);
    }
    running = NULL;
}

static void on_signal(int number) {
    static const char slow[] = "no answer in time\n";
    if (number == SIGALRM) {
        (void)!write(2, slow, sizeof slow - 1);
    }
    keep_input();
    _exit(1);
}

static void watch(const char *program) {
    const char *base = strrchr(program, '/');
    (void)snprintf(crash_name, sizeof crash_name, "crash-%s", base == NULL ? program : base + 1);
    (void)signal(SIGALRM, on_signal);
    (void)signal(SIGABRT, on_signal);
    if (__sanitizer_set_death_callback != NULL) {
        __sanitizer_set_death_callback(keep_input);
    } else {
        (void)signal(SIGSEGV, on_signal);
        (void)signal(SIGFPE, on_signal);
        (void)signal(SIGBUS, on_signal);
    }
}

/* The target gets memory of exactly this size, so that overruns show. */
static void run(const bytes *b) {
    uint8_t *exact = malloc(b->size > 0 ? b->size : 1);
    FUZZ_CHECK(exact != NULL);
    memcpy(exact, b->data, b->size);
    running = b;
    (void)alarm(SECONDS);
    (void)LLVMFuzzerTestOneInput(exact, b->size);
    (void)alarm(0);
    running = NULL;
    free(exact);
}

/* ---- corpus ------------------------------------------------------------------------- */

static void add_file(corpus *c, const char *path, size_t size) {
    FILE *f = fopen(path, "rb");
    bytes b = {.data = malloc(size + 1), .size = size, .cap = size};
    FUZZ_CHECK(f != NULL && b.data != NULL && fread(b.data, 1, size, f) == size);
    (void)fclose(f);
    c->items = realloc(c->items, (c->count + 1) * sizeof *c->items);
    c->names = realloc(c->names, (c->count + 1) * sizeof *c->names);
    FUZZ_CHECK(c->items != NULL && c->names != NULL);
    c->names[c->count] = strdup(path);
    c->items[c->count++] = b;
}

static bool is_script(const char *name) {
    size_t n = strlen(name);
    return n > 3 && (strcmp(name + n - 3, ".py") == 0 || strcmp(name + n - 3, ".sh") == 0);
}

static bool add_path(corpus *c, const char *path) {
    struct stat st;
    if (stat(path, &st) != 0) {
        (void)fprintf(stderr, "%s: cannot be read\n", path);
        return false;
    }
    if (!S_ISDIR(st.st_mode)) {
        add_file(c, path, (size_t)st.st_size);
        return true;
    }
    struct dirent **entries = NULL;
    int n = scandir(path, &entries, NULL, alphasort); /* sorted: the same mutants everywhere */
    bool ok = n >= 0;
    for (int i = 0; i < n; i++) {
        const char *name = entries[i]->d_name;
        char child[1024];
        (void)snprintf(child, sizeof child, "%s/%s", path, name);
        if (name[0] != '.' && !is_script(name)) {
            ok = add_path(c, child) && ok;
        }
        free(entries[i]);
    }
    free(entries);
    return ok;
}

static void drop_corpus(corpus *c) {
    for (size_t i = 0; i < c->count; i++) {
        free(c->items[i].data);
        free(c->names[i]);
    }
    free(c->items);
    free(c->names);
}

/* ---- mutants ------------------------------------------------------------------------ */

/* Mutants of every input in turn. */
static void run_mutants(const corpus *c, uint64_t count, uint64_t seed) {
    size_t cap = GROWTH;
    for (size_t i = 0; i < c->count; i++) {
        cap = c->items[i].size + GROWTH > cap ? c->items[i].size + GROWTH : cap;
    }
    bytes b = {.data = malloc(cap), .cap = cap};
    FUZZ_CHECK(b.data != NULL);
    for (uint64_t i = 0; i < count; i++) {
        const bytes *from = &c->items[i % c->count];
        const bytes *other = &c->items[(i / c->count + i) % c->count];
        memcpy(b.data, from->data, from->size);
        b.size = from->size;
        mutate(&b, other, seed, i);
        run(&b);
    }
    free(b.data);
}

/* ---- main --------------------------------------------------------------------------- */

static bool is_option(char **argv, int i, int argc, const char *name) {
    return strcmp(argv[i], name) == 0 && i + 1 < argc;
}

int main(int argc, char **argv) {
    uint64_t mutants = 0;
    uint64_t seed = 1;
    corpus c = {0};
    bool ok = true;
    watch(argv[0]);
    for (int i = 1; i < argc; i++) {
        if (is_option(argv, i, argc, "--mutate")) {
            mutants = strtoull(argv[++i], NULL, 10);
        } else if (is_option(argv, i, argc, "--seed")) {
            seed = strtoull(argv[++i], NULL, 10);
        } else {
            ok = add_path(&c, argv[i]) && ok;
        }
    }
    if (!ok || c.count == 0) {
        (void)fprintf(stderr, "usage: %s [--mutate N] [--seed S] PATH...\n", argv[0]);
        return 2;
    }
    for (size_t i = 0; i < c.count; i++) {
        run(&c.items[i]);
    }
    run_mutants(&c, mutants, seed);
    (void)printf("%zu inputs, %llu mutants: nothing found\n", c.count, (unsigned long long)mutants);
    drop_corpus(&c);
    return 0;
}
