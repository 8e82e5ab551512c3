/* test_fs.c - durable files, directories, mapping and the file source. */
#include "reader_util.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/mem.h"
#include "io/source.h"

static char dir[512];

static int make_dir(void **state) {
    (void)state;
    (void)snprintf(dir, sizeof dir, "%s", "");
    temp_dir(dir, sizeof dir);
    return 0;
}

static int drop_dir(void **state) {
    (void)state;
    remove_dir(dir);
    return 0;
}

static char *at(const char *name) {
    static char path[4][700];
    static unsigned next;
    char *p = path[next++ % 4];
    (void)snprintf(p, sizeof path[0], "%s/%s", dir, name);
    return p;
}

static void expect_content(const char *name, const char *want) {
    char *text = NULL;
    size_t len = 0;
    assert_int_equal(nq_read_file(&text, &len, at(name), 1 << 20, NULL), NOVAQ_OK);
    assert_int_equal(len, strlen(want));
    assert_string_equal(text, want);
    nq_free(text);
}

static size_t entries(void) {
    char **names = NULL;
    size_t n = 0;
    assert_int_equal(nq_list_dir(&names, &n, dir, NULL), NOVAQ_OK);
    nq_free_names(names, n);
    return n;
}

/* ---- writing -------------------------------------------------------------- */

static void test_outfile(void **state) {
    (void)state;
    nq_outfile *f = NULL;
    novaq_error err;
    assert_int_equal(nq_outfile_open(&f, at("a"), &err), NOVAQ_OK);
    assert_true(nq_is_file(at(".a.partial")));
    assert_false(nq_is_file(at("a")));
    assert_int_equal(nq_outfile_write(f, "hello world", 11, &err), NOVAQ_OK);
    assert_int_equal(nq_outfile_write(f, NULL, 0, &err), NOVAQ_OK);
    assert_int_equal(nq_outfile_write(f, "!", 1, &err), NOVAQ_OK);
    assert_int_equal(nq_outfile_size(f), 12);
    assert_int_equal(nq_outfile_pwrite(f, 0, "HELLO", 5, &err), NOVAQ_OK);
    assert_int_equal(nq_outfile_pwrite(f, 11, "?", 1, &err), NOVAQ_OK);
    assert_int_equal(nq_outfile_pwrite(f, 12, "?", 1, &err), NOVAQ_E_ARG);
    assert_int_equal(nq_outfile_pwrite(f, UINT64_MAX, "?", 1, &err), NOVAQ_E_ARG);
    assert_int_equal(nq_outfile_pwrite(f, 1, "?", UINT64_MAX, &err), NOVAQ_E_ARG);
    assert_int_equal(nq_outfile_commit(&f, NULL, &err), NOVAQ_OK);
    assert_null(f);
    expect_content("a", "HELLO world?");
    assert_int_equal(entries(), 1);
}

static void test_outfile_other_name(void **state) {
    (void)state;
    nq_outfile *f = NULL;
    novaq_error err;
    assert_int_equal(nq_write_file(at("b"), "old", 3, &err), NOVAQ_OK);
    assert_int_equal(nq_outfile_open(&f, at("chunk"), &err), NOVAQ_OK);
    assert_int_equal(nq_outfile_write(f, "new", 3, &err), NOVAQ_OK);
    expect_content("b", "old");
    assert_int_equal(nq_outfile_commit(&f, at("b"), &err), NOVAQ_OK);
    expect_content("b", "new");
    assert_false(nq_is_file(at("chunk")));
}

static void test_outfile_abort(void **state) {
    (void)state;
    nq_outfile *f = NULL;
    size_t before = entries();
    assert_int_equal(nq_outfile_open(&f, at("gone"), NULL), NOVAQ_OK);
    assert_int_equal(nq_outfile_write(f, "x", 1, NULL), NOVAQ_OK);
    nq_outfile_abort(&f);
    assert_null(f);
    nq_outfile_abort(&f);
    assert_int_equal(entries(), before);
}

/* A leftover of a killed process is replaced, a living writer is respected. */
static void test_outfile_leftover(void **state) {
    (void)state;
    novaq_error err;
    write_plain(dir, ".c.partial", "leftover of considerable length", 31);
    assert_int_equal(nq_write_file(at("c"), "short", 5, &err), NOVAQ_OK);
    expect_content("c", "short");
    nq_outfile *f = NULL;
    nq_outfile *g = NULL;
    assert_int_equal(nq_outfile_open(&f, at("c"), &err), NOVAQ_OK);
    assert_int_equal(nq_outfile_open(&g, at("c"), &err), NOVAQ_E_IO);
    assert_null(g);
    assert_non_null(strstr(err.msg, "another process"));
    assert_int_equal(nq_outfile_write(f, "first", 5, &err), NOVAQ_OK);
    assert_int_equal(nq_outfile_commit(&f, NULL, &err), NOVAQ_OK);
    expect_content("c", "first");
}

static void test_outfile_errors(void **state) {
    (void)state;
    nq_outfile *f = NULL;
    novaq_error err;
    assert_int_equal(nq_outfile_open(&f, at("no/such/dir"), &err), NOVAQ_E_IO);
    assert_null(f);
    assert_int_equal(nq_outfile_open(&f, "folder/", &err), NOVAQ_E_ARG);
    /* A link in the partial file's place is not followed. */
    write_plain(dir, "victim", "keep", 4);
    assert_int_equal(symlink("victim", at(".d.partial")), 0);
    assert_int_equal(nq_outfile_open(&f, at("d"), &err), NOVAQ_E_IO);
    expect_content("victim", "keep");
    assert_int_equal(unlink(at(".d.partial")), 0);
    /* The rename fails: nothing is left behind. */
    assert_int_equal(mkdir(at("taken"), 0777), 0);
    size_t before = entries();
    assert_int_equal(nq_write_file(at("taken"), "x", 1, &err), NOVAQ_E_IO);
    assert_int_equal(entries(), before);
    assert_int_equal(rmdir(at("taken")), 0);
}

/* What the kernel says when a file may not grow arrives as an error. */
static void test_write_fails(void **state) {
    (void)state;
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        (void)signal(SIGXFSZ, SIG_IGN);
        struct rlimit limit = {4096, 4096};
        (void)setrlimit(RLIMIT_FSIZE, &limit);
        static const char block[10000];
        novaq_error err = {.code = NOVAQ_OK, .msg = ""};
        novaq_status st = nq_write_file(at("big"), block, sizeof block, &err);
        bool ok = st == NOVAQ_E_IO && err.code == st && strstr(err.msg, "offset 4096") != NULL &&
                  !nq_is_file(at("big")) && !nq_is_file(at(".big.partial"));
        _exit(ok ? 0 : 1);
    }
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* /dev/full answers every write with ENOSPC. */
static void test_no_space(void **state) {
    (void)state;
    if (access("/dev/full", W_OK) != 0) {
        skip();
    }
    novaq_error err;
    assert_int_equal(nq_fail_errno(&err, NOVAQ_E_IO, ENOSPC, "x"), NOVAQ_E_NOSPACE);
    /* The partial file of "/dev/full" would be in /dev; give the open file's
     * descriptor to /dev/full instead. */
    nq_outfile *f = NULL;
    int next = dup(0); /* the number that open() will take */
    assert_true(next >= 0);
    assert_int_equal(close(next), 0);
    assert_int_equal(nq_outfile_open(&f, at("full"), &err), NOVAQ_OK);
    int full = open("/dev/full", O_WRONLY);
    assert_true(full >= 0);
    assert_int_equal(dup2(full, next), next);
    assert_int_equal(close(full), 0);
    assert_int_equal(nq_outfile_write(f, "x", 1, &err), NOVAQ_E_NOSPACE);
    assert_non_null(strstr(err.msg, ".full.partial"));
    nq_outfile_abort(&f);
    assert_false(nq_is_file(at(".full.partial")));
}

/* Killed before the commit: the old content stays. */
static void test_kill(void **state) {
    (void)state;
    assert_int_equal(nq_write_file(at("k"), "old", 3, NULL), NOVAQ_OK);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        nq_outfile *f = NULL;
        if (nq_outfile_open(&f, at("k"), NULL) == NOVAQ_OK &&
            nq_outfile_write(f, "half", 4, NULL) == NOVAQ_OK) {
            (void)raise(SIGKILL);
        }
        _exit(1);
    }
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status));
    expect_content("k", "old");
    assert_true(nq_is_file(at(".k.partial")));
    assert_int_equal(nq_write_file(at("k"), "new", 3, NULL), NOVAQ_OK);
    expect_content("k", "new");
    assert_false(nq_is_file(at(".k.partial")));
}

/* Who waits for the lock gets it when the file has its name. */
static void test_commit_lock(void **state) {
    (void)state;
    nq_outfile *f = NULL;
    int ready[2];
    char c = 0;
    assert_int_equal(nq_outfile_open(&f, at("c"), NULL), NOVAQ_OK);
    assert_int_equal(nq_outfile_write(f, "new", 3, NULL), NOVAQ_OK);
    assert_int_equal(pipe(ready), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        int fd = open(at(".c.partial"), O_RDWR);
        nq_outfile_leave(&f); /* the parent's descriptor holds the lock */
        bool fine = fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) != 0 && write(ready[1], "x", 1) == 1 &&
                    flock(fd, LOCK_EX) == 0 && nq_is_file(at("c"));
        _exit(fine ? 0 : 1);
    }
    assert_int_equal(read(ready[0], &c, 1), 1);
    assert_int_equal(nq_outfile_commit(&f, NULL, NULL), NOVAQ_OK);
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    expect_content("c", "new");
    (void)close(ready[0]);
    (void)close(ready[1]);
}

/* ---- reading -------------------------------------------------------------- */

static void test_read_file(void **state) {
    (void)state;
    char *text = NULL;
    size_t len = 9;
    novaq_error err;
    assert_int_equal(nq_read_file(&text, &len, at("none"), 10, &err), NOVAQ_E_IO);
    assert_null(text);
    write_plain(dir, "ten", "0123456789", 10);
    assert_int_equal(nq_read_file(&text, &len, at("ten"), 9, &err), NOVAQ_E_FORMAT);
    assert_null(text);
    assert_int_equal(nq_read_file(&text, &len, at("ten"), 10, &err), NOVAQ_OK);
    assert_int_equal(len, 10);
    assert_string_equal(text, "0123456789");
    nq_free(text);
    write_plain(dir, "zero", "", 0);
    assert_int_equal(nq_read_file(&text, &len, at("zero"), 0, &err), NOVAQ_OK);
    assert_int_equal(len, 0);
    assert_int_equal(text[0], 0);
    nq_free(text);
    assert_int_equal(nq_read_file(&text, &len, dir, 100, &err), NOVAQ_E_IO);
    bytes b = {0};
    put_fill(&b, 'z', 100001);
    assert_int_equal(nq_write_file(at("long"), b.data, b.len, &err), NOVAQ_OK);
    assert_int_equal(nq_read_file(&text, &len, at("long"), 200000, &err), NOVAQ_OK);
    assert_int_equal(len, 100001);
    assert_memory_equal(text, b.data, len);
    nq_free(text);
    bytes_free(&b);
}

static void test_source(void **state) {
    (void)state;
    nq_source *s = NULL;
    novaq_error err;
    assert_int_equal(nq_source_open_file(&s, at("none"), &err), NOVAQ_E_IO);
    assert_null(s);
    assert_int_equal(nq_source_open_file(&s, dir, &err), NOVAQ_E_IO);
    assert_non_null(strstr(err.msg, "not a regular file"));
    write_plain(dir, "s", "0123456789", 10);
    assert_int_equal(nq_source_open_file(&s, at("s"), &err), NOVAQ_OK);
    assert_int_equal(s->size, 10);
    assert_string_equal(s->name, at("s"));
    char c[10];
    assert_int_equal(nq_source_read(s, 0, c, 10, &err), NOVAQ_OK);
    assert_memory_equal(c, "0123456789", 10);
    assert_int_equal(nq_source_read(s, 9, c, 1, &err), NOVAQ_OK);
    assert_int_equal(c[0], '9');
    assert_int_equal(nq_source_read(s, 10, c, 0, &err), NOVAQ_OK);
    assert_int_equal(nq_source_read(s, 10, c, 1, &err), NOVAQ_E_FORMAT);
    assert_non_null(strstr(err.msg, "offset 10"));
    assert_int_equal(nq_source_read(s, 11, c, 0, &err), NOVAQ_E_FORMAT);
    assert_int_equal(nq_source_read(s, 1, c, UINT64_MAX, &err), NOVAQ_E_FORMAT);
    nq_source_close(&s);
    assert_null(s);
    nq_source_close(&s);
}

static void test_map(void **state) {
    (void)state;
    nq_map m;
    novaq_error err;
    assert_int_equal(nq_map_open(&m, at("none"), &err), NOVAQ_E_IO);
    assert_int_equal(nq_map_open(&m, dir, &err), NOVAQ_E_IO);
    nq_map_close(&m);
    write_plain(dir, "m", "mapped", 6);
    assert_int_equal(nq_map_open(&m, at("m"), &err), NOVAQ_OK);
    assert_int_equal(m.size, 6);
    nq_map_drop(&m, 0, 6);
    assert_memory_equal(m.data, "mapped", 6);
    nq_map_close(&m);
    static char large[50000];
    memset(large, 'l', sizeof large);
    write_plain(dir, "ml", large, sizeof large);
    assert_int_equal(nq_map_open(&m, at("ml"), &err), NOVAQ_OK);
    nq_map_drop(&m, 5, sizeof large);
    nq_map_drop(&m, 0, sizeof large + 70000); /* beyond its end: nothing */
    assert_memory_equal(m.data, large, sizeof large);
    nq_map_close(&m);
    write_plain(dir, "m0", "", 0);
    assert_int_equal(nq_map_open(&m, at("m0"), &err), NOVAQ_OK);
    assert_int_equal(m.size, 0);
    assert_non_null(m.data);
    nq_map_close(&m);
}

/* ---- directories and paths ------------------------------------------------ */

static void test_directories(void **state) {
    (void)state;
    novaq_error err;
    assert_int_equal(nq_make_dir(at("x/y//z/"), &err), NOVAQ_OK);
    assert_true(nq_is_dir(at("x/y/z")));
    assert_int_equal(nq_make_dir(at("x/y/z"), &err), NOVAQ_OK);
    assert_int_equal(nq_make_dir("/", &err), NOVAQ_OK);
    write_plain(dir, "x/y/file", "", 0);
    assert_int_equal(nq_make_dir(at("x/y/file"), &err), NOVAQ_E_IO);
    assert_int_equal(nq_make_dir(at("x/y/file/deeper"), &err), NOVAQ_E_IO);
    write_plain(dir, "x/y/B", "", 0);
    write_plain(dir, "x/y/.dot", "", 0);
    char **names = NULL;
    size_t n = 0;
    assert_int_equal(nq_list_dir(&names, &n, at("x/y"), &err), NOVAQ_OK);
    assert_int_equal(n, 4);
    assert_string_equal(names[0], ".dot");
    assert_string_equal(names[1], "B");
    assert_string_equal(names[2], "file");
    assert_string_equal(names[3], "z");
    nq_free_names(names, n);
    assert_int_equal(nq_list_dir(&names, &n, at("absent"), &err), NOVAQ_E_IO);
    assert_null(names);
    assert_false(nq_is_file(at("x")));
    assert_false(nq_is_dir(at("x/y/file")));
    assert_int_equal(rmdir(at("x/y/z")), 0);
    remove_dir(at("x/y"));
    assert_int_equal(rmdir(at("x")), 0);
}

static void test_many_names(void **state) {
    (void)state;
    assert_int_equal(mkdir(at("many"), 0777), 0);
    for (unsigned i = 0; i < 100; i++) {
        char name[32];
        (void)snprintf(name, sizeof name, "many/%03u", (i * 37) % 100);
        write_plain(dir, name, "", 0);
    }
    char **names = NULL;
    size_t n = 0;
    assert_int_equal(nq_list_dir(&names, &n, at("many"), NULL), NOVAQ_OK);
    assert_int_equal(n, 100);
    for (unsigned i = 0; i < 100; i++) {
        assert_int_equal(strtoul(names[i], NULL, 10), i);
    }
    nq_free_names(names, n);
    remove_dir(at("many"));
}

static void test_paths(void **state) {
    (void)state;
    static const struct {
        const char *path, *dir, *base;
    } rows[] = {
        {"a", ".", "a"},   {"/a", "/", "a"}, {"a/b", "a", "b"}, {"/a/b", "/a", "b"},
        {"./a", ".", "a"}, {"a/", "a", ""},  {"", ".", ""},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char *d = NULL;
        assert_int_equal(nq_path_dir(&d, rows[i].path, NULL), NOVAQ_OK);
        assert_string_equal(d, rows[i].dir);
        nq_free(d);
        assert_string_equal(nq_path_base(rows[i].path), rows[i].base);
    }
    char *p = NULL;
    assert_int_equal(nq_path_join(&p, "a", "b", NULL), NOVAQ_OK);
    assert_string_equal(p, "a/b");
    nq_free(p);
    assert_int_equal(nq_path_join(&p, "/", "b", NULL), NOVAQ_OK);
    assert_string_equal(p, "/b");
    nq_free(p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_outfile),        cmocka_unit_test(test_outfile_other_name),
        cmocka_unit_test(test_outfile_abort),  cmocka_unit_test(test_outfile_leftover),
        cmocka_unit_test(test_outfile_errors), cmocka_unit_test(test_write_fails),
        cmocka_unit_test(test_no_space),       cmocka_unit_test(test_kill),
        cmocka_unit_test(test_commit_lock),    cmocka_unit_test(test_read_file),
        cmocka_unit_test(test_source),         cmocka_unit_test(test_map),
        cmocka_unit_test(test_directories),    cmocka_unit_test(test_many_names),
        cmocka_unit_test(test_paths),
    };
    return cmocka_run_group_tests(tests, make_dir, drop_dir);
}
