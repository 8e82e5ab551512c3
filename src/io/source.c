/* source.c - see source.h. Owns: bounds of every read and the file source.
 * Refuses: devices, pipes and directories; short reads. */
#include "io/source.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"

/* One pread() call of Linux moves at most 2^31 - 4096 bytes. */
#define CHUNK_MAX ((uint64_t)1 << 30)

typedef struct file_source {
    nq_source base; /* first, so that the pointers convert */
    int fd;
} file_source;

static novaq_status file_read_at(nq_source *s, uint64_t offset, void *dst, uint64_t len,
                                 novaq_error *err) {
    const file_source *f = (const file_source *)s;
    uint8_t *p = dst;
    while (len > 0) {
        size_t want = (size_t)(len < CHUNK_MAX ? len : CHUNK_MAX);
        ssize_t got = pread(f->fd, p, want, (off_t)offset);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            return nq_fail_errno(err, NOVAQ_E_IO, errno, "%s: offset %llu: cannot read", s->name,
                                 (unsigned long long)offset);
        }
        if (got == 0) {
            return nq_fail(err, NOVAQ_E_IO, "%s: offset %llu: the file shrank while being read",
                           s->name, (unsigned long long)offset);
        }
        p += got;
        offset += (uint64_t)got;
        len -= (uint64_t)got;
    }
    return NOVAQ_OK;
}

static void file_close(nq_source *s) {
    file_source *f = (file_source *)s;
    if (f->fd >= 0) {
        (void)close(f->fd); /* opened for reading: nothing can be lost */
    }
    nq_free(s->name);
    nq_free(f);
}

static const nq_source_vtable file_vtable = {file_read_at, file_close, NULL};

static novaq_status file_open(file_source *f, const char *path, novaq_error *err) {
    /* O_NONBLOCK: opening a pipe must be refused, not wait for a writer. */
    do {
        f->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    } while (f->fd < 0 && errno == EINTR);
    struct stat st;
    if (f->fd < 0 || fstat(f->fd, &st) != 0) {
        return nq_fail_errno(err, NOVAQ_E_IO, errno, "%s: cannot open", path);
    }
    if (!S_ISREG(st.st_mode)) {
        return nq_fail(err, NOVAQ_E_IO, "%s: not a regular file", path);
    }
    f->base.size = (uint64_t)st.st_size;
    return nq_strdup(&f->base.name, path, err);
}

novaq_status nq_source_open_file(nq_source **out, const char *path, novaq_error *err) {
    *out = NULL;
    file_source *f = NULL;
    NQ_TRY(nq_alloc(&f, 1, sizeof *f, err));
    f->base.vt = &file_vtable;
    novaq_status st = file_open(f, path, err);
    if (st != NOVAQ_OK) {
        file_close(&f->base);
        return st;
    }
    *out = &f->base;
    return NOVAQ_OK;
}

bool nq_source_is_file(const nq_source *s, const char *path) {
    struct stat opened;
    struct stat found;
    return s->vt == &file_vtable && fstat(((const file_source *)s)->fd, &opened) == 0 &&
           stat(path, &found) == 0 && opened.st_dev == found.st_dev &&
           opened.st_ino == found.st_ino;
}

novaq_status nq_source_read(nq_source *s, uint64_t offset, void *dst, uint64_t len,
                            novaq_error *err) {
    if (offset > s->size || len > s->size - offset) {
        return nq_fail(err, NOVAQ_E_FORMAT,
                       "%s: offset %llu: %llu bytes wanted, but the file ends at %llu", s->name,
                       (unsigned long long)offset, (unsigned long long)len,
                       (unsigned long long)s->size);
    }
    return len == 0 ? NOVAQ_OK : s->vt->read_at(s, offset, dst, len, err);
}

void nq_source_expect(nq_source *s, uint64_t offset, uint64_t len) {
    if (s->vt->expect != NULL && len > 0) {
        s->vt->expect(s, offset, len);
    }
}

void nq_source_close(nq_source **s) {
    if (*s != NULL) {
        (*s)->vt->close(*s);
        *s = NULL;
    }
}
