/* fs.c - see fs.h. Every call that can be interrupted is repeated, every call
 * that can fail is checked, and a failed fsync is never retried: the kernel has
 * then already dropped the pages it could not write. */
#include "io/fs.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define IO_CHUNK ((uint64_t)1 << 30)

struct nq_outfile {
    int fd;
    char *path;    /* what it becomes by default */
    char *partial; /* what it is until then */
    char *dir;
    uint64_t size; /* bytes */
};

/* ---- paths ---------------------------------------------------------------- */

const char *nq_path_base(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash == NULL ? path : slash + 1;
}

novaq_status nq_path_dir(char **out, const char *path, novaq_error *err) {
    const char *slash = strrchr(path, '/');
    if (slash == NULL) {
        return nq_strdup(out, ".", err);
    }
    return slash == path ? nq_strdup(out, "/", err)
                         : nq_strndup(out, path, (size_t)(slash - path), err);
}

novaq_status nq_path_join(char **out, const char *dir, const char *name, novaq_error *err) {
    size_t n = strlen(dir);
    const char *sep = n > 0 && dir[n - 1] == '/' ? "" : "/";
    return nq_asprintf(out, err, "%s%s%s", dir, sep, name);
}

static int open_retry(const char *path, int flags) {
    int fd;
    do {
        fd = open(path, flags | O_CLOEXEC, 0666);
    } while (fd < 0 && errno == EINTR);
    return fd;
}

/* ---- files being written -------------------------------------------------- */

static void outfile_free(nq_outfile *f) {
    nq_free(f->path);
    nq_free(f->partial);
    nq_free(f->dir);
    nq_free(f);
}

/* Opens and locks the partial file. A leftover of a killed process is reused;
 * one that a living process still writes is refused. */
static novaq_status open_partial(nq_outfile *f, novaq_error *err) {
    for (;;) {
        f->fd = open_retry(f->partial, O_RDWR | O_CREAT | O_NOFOLLOW);
        if (f->fd < 0) {
            return nq_fail_errno(err, NOVAQ_E_IO, errno, "%s: cannot create", f->partial);
        }
        int rc;
        do {
            rc = flock(f->fd, LOCK_EX | LOCK_NB);
        } while (rc != 0 && errno == EINTR);
        if (rc != 0) {
            return nq_fail_errno(err, NOVAQ_E_IO, errno, "%s: another process is writing this file",
                                 f->partial);
        }
        /* Its owner may have renamed the file between open and lock. */
        struct stat ours;
        struct stat named;
        if (fstat(f->fd, &ours) != 0) {
            return nq_fail_errno(err, NOVAQ_E_IO, errno, "%s: cannot examine", f->partial);
        }
        if (stat(f->partial, &named) == 0 && named.st_ino == ours.st_ino &&
            named.st_dev == ours.st_dev) {
            f->size = ours.st_size > 0 ? (uint64_t)ours.st_size : 0;
            return NOVAQ_OK;
        }
        (void)close(f->fd);
        f->fd = -1;
    }
}

novaq_status nq_outfile_truncate(nq_outfile *f, uint64_t size, novaq_error *err) {
    if (size > f->size) {
        return nq_fail(err, NOVAQ_E_ARG, "%s: cannot grow to %llu bytes", f->partial,
                       (unsigned long long)size);
    }
    int rc;
    do {
        rc = ftruncate(f->fd, (off_t)size);
    } while (rc != 0 && errno == EINTR);
    if (rc != 0) {
        return nq_fail_errno(err, NOVAQ_E_IO, errno, "%s: cannot truncate", f->partial);
    }
    f->size = size;
    return NOVAQ_OK;
}

novaq_status nq_outfile_resume(nq_outfile **out, const char *path, novaq_error *err) {
    *out = NULL;
    if (nq_path_base(path)[0] == '\0') {
        return nq_fail(err, NOVAQ_E_ARG, "\"%s\" does not name a file", path);
    }
    nq_outfile *f = NULL;
    NQ_TRY(nq_alloc(&f, 1, sizeof *f, err));
    f->fd = -1;
    novaq_status st = nq_strdup(&f->path, path, err);
    if (st == NOVAQ_OK) {
        st = nq_path_dir(&f->dir, path, err);
    }
    if (st == NOVAQ_OK) {
        st = nq_asprintf(&f->partial, err, "%s/.%s.partial", f->dir, nq_path_base(path));
    }
    if (st == NOVAQ_OK) {
        st = open_partial(f, err);
    }
    if (st != NOVAQ_OK) {
        if (f->fd >= 0) {
            (void)close(f->fd);
        }
        outfile_free(f);
        return st;
    }
    *out = f;
    return NOVAQ_OK;
}

novaq_status nq_outfile_open(nq_outfile **out, const char *path, novaq_error *err) {
    NQ_TRY(nq_outfile_resume(out, path, err));
    novaq_status st = nq_outfile_truncate(*out, 0, err);
    if (st != NOVAQ_OK) {
        nq_outfile_leave(out);
    }
    return st;
}

static novaq_status write_at(nq_outfile *f, uint64_t offset, const void *data, uint64_t len,
                             novaq_error *err) {
    const uint8_t *p = data;
    while (len > 0) {
        size_t want = (size_t)(len < IO_CHUNK ? len : IO_CHUNK);
        ssize_t put = pwrite(f->fd, p, want, (off_t)offset);
        if (put < 0 && errno == EINTR) {
            continue;
        }
        if (put <= 0) {
            return nq_fail_errno(err, NOVAQ_E_IO, put < 0 ? errno : EIO,
                                 "%s: offset %llu: cannot write", f->partial,
                                 (unsigned long long)offset);
        }
        p += put;
        offset += (uint64_t)put;
        len -= (uint64_t)put;
    }
    return NOVAQ_OK;
}

novaq_status nq_outfile_write(nq_outfile *f, const void *data, uint64_t len, novaq_error *err) {
    if (len > (uint64_t)INT64_MAX - f->size) {
        return nq_fail(err, NOVAQ_E_ARG, "%s: file too large", f->partial);
    }
    NQ_TRY(write_at(f, f->size, data, len, err));
    f->size += len;
    return NOVAQ_OK;
}

novaq_status nq_outfile_pwrite(nq_outfile *f, uint64_t offset, const void *data, uint64_t len,
                               novaq_error *err) {
    if (offset > f->size || len > f->size - offset) {
        return nq_fail(err, NOVAQ_E_ARG, "%s: offset %llu: rewriting past the end (%llu)",
                       f->partial, (unsigned long long)offset, (unsigned long long)f->size);
    }
    return write_at(f, offset, data, len, err);
}

uint64_t nq_outfile_size(const nq_outfile *f) { return f->size; }

novaq_status nq_outfile_read(nq_outfile *f, uint64_t offset, void *dst, uint64_t len,
                             novaq_error *err) {
    uint8_t *p = dst;
    while (len > 0) {
        ssize_t got = pread(f->fd, p, (size_t)(len < IO_CHUNK ? len : IO_CHUNK), (off_t)offset);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got <= 0) {
            return nq_fail_errno(err, NOVAQ_E_IO, got < 0 ? errno : EIO,
                                 "%s: offset %llu: cannot read back", f->partial,
                                 (unsigned long long)offset);
        }
        p += got;
        offset += (uint64_t)got;
        len -= (uint64_t)got;
    }
    return NOVAQ_OK;
}

novaq_status nq_outfile_sync(nq_outfile *f, novaq_error *err) {
    return fdatasync(f->fd) == 0
               ? NOVAQ_OK
               : nq_fail_errno(err, NOVAQ_E_IO, errno, "%s: cannot flush to disk", f->partial);
}

static novaq_status sync_dir(const char *dir, novaq_error *err) {
    int fd = open_retry(dir, O_RDONLY | O_DIRECTORY);
    if (fd < 0) {
        return nq_fail_errno(err, NOVAQ_E_IO, errno, "%s: cannot open directory", dir);
    }
    novaq_status st = NOVAQ_OK;
    /* Some file systems have no such thing for directories and say EINVAL. */
    if (fsync(fd) != 0 && errno != EINVAL) {
        st = nq_fail_errno(err, NOVAQ_E_IO, errno, "%s: cannot flush directory", dir);
    }
    (void)close(fd);
    return st;
}

novaq_status nq_outfile_commit(nq_outfile **file, const char *path, novaq_error *err) {
    nq_outfile *f = *file;
    *file = NULL;
    const char *target = path != NULL ? path : f->path;
    bool renamed = false;
    novaq_status st = fsync(f->fd) == 0 ? NOVAQ_OK
                                        : nq_fail_errno(err, NOVAQ_E_IO, errno,
                                                        "%s: cannot flush to disk", f->partial);
    if (st == NOVAQ_OK) {
        renamed = rename(f->partial, target) == 0;
        st = renamed ? sync_dir(f->dir, err)
                     : nq_fail_errno(err, NOVAQ_E_IO, errno, "%s: cannot rename to %s", f->partial,
                                     target);
    }
    if (!renamed) {
        (void)unlink(f->partial);
    }
    /* Last, since the lock goes with it. Its bytes are on the disk: there is nothing left
     * that closing could fail to write. */
    (void)close(f->fd);
    outfile_free(f);
    return st;
}

void nq_outfile_abort(nq_outfile **file) {
    nq_outfile *f = *file;
    *file = NULL;
    if (f == NULL) {
        return;
    }
    /* Unlinked before the lock goes with the descriptor, so that a waiting
     * process never has its fresh file removed. */
    (void)unlink(f->partial);
    (void)close(f->fd);
    outfile_free(f);
}

void nq_outfile_leave(nq_outfile **file) {
    nq_outfile *f = *file;
    *file = NULL;
    if (f != NULL) {
        (void)close(f->fd);
        outfile_free(f);
    }
}

novaq_status nq_write_file(const char *path, const void *data, size_t len, novaq_error *err) {
    nq_outfile *f = NULL;
    NQ_TRY(nq_outfile_open(&f, path, err));
    novaq_status st = nq_outfile_write(f, data, len, err);
    if (st == NOVAQ_OK) {
        return nq_outfile_commit(&f, NULL, err);
    }
    nq_outfile_abort(&f);
    return st;
}

/* ---- reading -------------------------------------------------------------- */

static novaq_status read_all(nq_buf *b, int fd, const char *path, size_t max, novaq_error *err) {
    uint8_t chunk[16384];
    for (;;) {
        ssize_t got = read(fd, chunk, sizeof chunk);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            return nq_fail_errno(err, NOVAQ_E_IO, errno, "%s: offset %zu: cannot read", path,
                                 b->len);
        }
        if (got == 0) {
            return NOVAQ_OK;
        }
        if ((size_t)got > max - b->len) {
            return nq_fail(err, NOVAQ_E_FORMAT, "%s: larger than %zu bytes, the limit here", path,
                           max);
        }
        NQ_TRY(nq_buf_append(b, chunk, (size_t)got, err));
    }
}

novaq_status nq_read_file(char **out, size_t *len, const char *path, size_t max, novaq_error *err) {
    *out = NULL;
    *len = 0;
    int fd = open_retry(path, O_RDONLY);
    if (fd < 0) {
        return nq_fail_errno(err, NOVAQ_E_IO, errno, "%s: cannot open", path);
    }
    nq_buf b = nq_buf_init(max);
    novaq_status st = read_all(&b, fd, path, max, err);
    (void)close(fd);
    if (st == NOVAQ_OK) {
        st = nq_buf_take(&b, out, len, err);
    }
    nq_buf_free(&b);
    return st;
}

bool nq_is_dir(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

bool nq_is_file(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

/* ---- directories ---------------------------------------------------------- */

static novaq_status make_one(const char *path, novaq_error *err) {
    if (mkdir(path, 0777) == 0 || (errno == EEXIST && nq_is_dir(path)) || nq_is_dir(path)) {
        return NOVAQ_OK;
    }
    return nq_fail_errno(err, NOVAQ_E_IO, errno, "%s: cannot create directory", path);
}

novaq_status nq_make_dir(const char *path, novaq_error *err) {
    char *copy = NULL;
    NQ_TRY(nq_strdup(&copy, path, err));
    novaq_status st = NOVAQ_OK;
    for (char *p = copy; st == NOVAQ_OK && *p != '\0'; p++) {
        if (*p == '/' && p != copy && p[-1] != '/') {
            *p = '\0';
            st = make_one(copy, err);
            *p = '/';
        }
    }
    if (st == NOVAQ_OK) {
        st = make_one(copy, err);
    }
    nq_free(copy);
    return st;
}

static int by_bytes(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static novaq_status collect(char ***names, size_t *count, DIR *d, const char *path,
                            novaq_error *err) {
    size_t cap = 0;
    for (;;) {
        errno = 0;
        const struct dirent *e = readdir(d);
        if (e == NULL) {
            return errno == 0 ? NOVAQ_OK
                              : nq_fail_errno(err, NOVAQ_E_IO, errno, "%s: cannot list", path);
        }
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) {
            continue;
        }
        if (*count == cap) {
            size_t fresh = cap == 0 ? 16 : cap * 2;
            NQ_TRY(nq_grow(names, cap, fresh, sizeof **names, err));
            cap = fresh;
        }
        NQ_TRY(nq_strdup(&(*names)[*count], e->d_name, err));
        (*count)++;
    }
}

novaq_status nq_list_dir(char ***names, size_t *count, const char *path, novaq_error *err) {
    *names = NULL;
    *count = 0;
    DIR *d = opendir(path);
    if (d == NULL) {
        return nq_fail_errno(err, NOVAQ_E_IO, errno, "%s: cannot open directory", path);
    }
    novaq_status st = collect(names, count, d, path, err);
    (void)closedir(d);
    if (st != NOVAQ_OK) {
        nq_free_names(*names, *count);
        *names = NULL;
        *count = 0;
        return st;
    }
    if (*count > 1) {
        qsort(*names, *count, sizeof **names, by_bytes);
    }
    return NOVAQ_OK;
}

void nq_free_names(char **names, size_t count) {
    for (size_t i = 0; i < count; i++) {
        nq_free(names[i]);
    }
    nq_free(names);
}

uint64_t nq_space_left(const char *path) {
    struct statvfs fs;
    char *at = NULL;
    char *up = NULL;
    int rc = -1;
    if (nq_strdup(&at, path, NULL) != NOVAQ_OK) {
        return UINT64_MAX;
    }
    while ((rc = statvfs(at, &fs)) != 0 && strcmp(at, ".") != 0 && strcmp(at, "/") != 0) {
        if (nq_path_dir(&up, at, NULL) != NOVAQ_OK) {
            break;
        }
        nq_free(at);
        at = up;
    }
    nq_free(at);
    uint64_t bytes = 0;
    return rc == 0 && nq_mul_u64(fs.f_bavail, fs.f_frsize, &bytes) ? bytes : UINT64_MAX;
}

/* ---- mapping -------------------------------------------------------------- */

/* What an empty file maps to: mmap() refuses length 0. */
static const uint8_t nothing[1] = {0};

novaq_status nq_map_open(nq_map *out, const char *path, novaq_error *err) {
    *out = (nq_map){.data = nothing};
    int fd = open_retry(path, O_RDONLY | O_NONBLOCK);
    if (fd < 0) {
        return nq_fail_errno(err, NOVAQ_E_IO, errno, "%s: cannot open", path);
    }
    struct stat st;
    novaq_status rc = NOVAQ_OK;
    if (fstat(fd, &st) != 0) {
        rc = nq_fail_errno(err, NOVAQ_E_IO, errno, "%s: cannot examine", path);
    } else if (!S_ISREG(st.st_mode)) {
        rc = nq_fail(err, NOVAQ_E_IO, "%s: not a regular file", path);
    } else if (st.st_size > 0) {
        void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
        if (p == MAP_FAILED) {
            rc = nq_fail_errno(err, NOVAQ_E_IO, errno, "%s: cannot map", path);
        } else {
            *out = (nq_map){.data = p, .size = (uint64_t)st.st_size};
        }
    }
    (void)close(fd);
    return rc;
}

void nq_map_close(nq_map *m) {
    if (m->size > 0) {
        (void)munmap((void *)(uintptr_t)m->data, (size_t)m->size);
    }
    *m = (nq_map){.data = NULL};
}

void nq_map_drop(const nq_map *m, uint64_t begin, uint64_t end) {
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    begin -= begin % page;
    end -= end % page;
    if (begin < end && end <= m->size) {
        (void)madvise((void *)(uintptr_t)(m->data + begin), (size_t)(end - begin), MADV_DONTNEED);
    }
}

/* ---- scratch ---------------------------------------------------------------- */

/* Reserves the space first: a full disk must be an error here, not a signal when
 * the memory is touched. */
static novaq_status map_scratch(nq_scratch *out, const char *dir, novaq_error *err) {
    char *path = NULL;
    NQ_TRY(nq_path_join(&path, dir, "novaq-XXXXXX", err));
    int fd = mkstemp(path);
    novaq_status st = NOVAQ_OK;
    if (fd < 0) {
        st = nq_fail(err, NOVAQ_E_IO, "%s: cannot create a temporary file: %s", dir,
                     strerror(errno));
    } else {
        (void)unlink(path);
        int code;
        do {
            code = posix_fallocate(fd, 0, (off_t)out->size);
        } while (code == EINTR);
        if (code != 0) {
            st = nq_fail(err, code == ENOSPC ? NOVAQ_E_NOSPACE : NOVAQ_E_IO,
                         "%s: cannot reserve %llu bytes for calibration activations: %s; set "
                         "TMPDIR, or use fewer --calibration-tokens",
                         dir, (unsigned long long)out->size, strerror(code));
        }
    }
    nq_free(path);
    if (st == NOVAQ_OK) {
        out->data = mmap(NULL, out->size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        out->mapped = out->data != MAP_FAILED;
        if (!out->mapped) {
            out->data = NULL;
            st = nq_fail(err, NOVAQ_E_IO, "%s: cannot map a temporary file: %s", dir,
                         strerror(errno));
        }
    }
    if (fd >= 0) {
        (void)close(fd);
    }
    return st;
}

novaq_status nq_scratch_open(nq_scratch *out, uint64_t size, bool on_disk, novaq_error *err) {
    *out = (nq_scratch){.size = size};
    if (size > NQ_ALLOC_MAX) {
        return nq_fail(err, NOVAQ_E_MEMORY, "%llu bytes of scratch are too many",
                       (unsigned long long)size);
    }
    if (!on_disk || size == 0) {
        return nq_alloc(&out->data, size, 1, err);
    }
    const char *dir = getenv("TMPDIR");
    return map_scratch(out, dir != NULL && dir[0] != '\0' ? dir : "/var/tmp", err);
}

void nq_scratch_close(nq_scratch *s) {
    if (s->mapped) {
        (void)munmap(s->data, s->size);
    } else {
        nq_free(s->data);
    }
    *s = (nq_scratch){0};
}

/* ---- temporary folders ------------------------------------------------------- */

novaq_status nq_temp_folder(char **out, const char *dir, const char *pattern, novaq_error *err) {
    char *name = NULL;
    *out = NULL;
    NQ_TRY(nq_path_join(&name, dir, pattern, err));
    if (mkdtemp(name) == NULL) {
        nq_free(name);
        return nq_fail(err, NOVAQ_E_IO, "%s: cannot make a folder there; set TMPDIR", dir);
    }
    *out = name;
    return NOVAQ_OK;
}

void nq_temp_folder_remove(char **folder) {
    char **names = NULL;
    size_t count = 0;
    if (*folder == NULL) {
        return;
    }
    if (nq_list_dir(&names, &count, *folder, NULL) == NOVAQ_OK) {
        for (size_t i = 0; i < count; i++) {
            char *path = NULL;
            if (nq_path_join(&path, *folder, names[i], NULL) == NOVAQ_OK) {
                (void)unlink(path);
            }
            nq_free(path);
        }
        nq_free_names(names, count);
    }
    (void)rmdir(*folder);
    nq_free(*folder);
    *folder = NULL;
}
