/* digest.c - see digest.h.
 *
 * The frontier is how far the content has been hashed from its start. A read that covers
 * it moves it on; what was read before is not hashed again; a read beyond it leaves a
 * gap. A gap no larger than the read behind it (headers between the records of an
 * archive, padding, tensors that nobody wants) is read on the spot, since behind it
 * nothing could be hashed any more; larger ones are left to a later reader, who may
 * come in order where this one only looks around.
 */
#include "io/digest.h"

#include <pthread.h>
#include <string.h>

#include "base/mem.h"
#include "base/sha256.h"
#include "io/files.h"

#define GAP_ALWAYS ((uint64_t)64 << 10)  /* bytes of a gap that is read before any read */
#define GAPS_MAX   ((uint64_t)16 << 20)  /* bytes read in all to close gaps ... */
#define GAPS_SHARE 64                    /* ... or this share of the file, if that is more */
#define PIECE      ((uint64_t)256 << 10) /* bytes read at once in a gap */

typedef enum verdict { UNDECIDED, RIGHT, WRONG } verdict;

typedef struct digest_source {
    nq_source base; /* first, so that the pointers convert */
    nq_source *inner;
    pthread_mutex_t lock; /* of all below */
    nq_sha256 *hash;
    uint64_t frontier; /* bytes hashed */
    uint64_t budget;   /* bytes that may still be read for gaps */
    verdict verdict;
    char want[NQ_SHA256_HEX + 1];
    char got[NQ_SHA256_HEX + 1];
} digest_source;

/* Reads and hashes [frontier, end). Called locked. */
static novaq_status close_gap(digest_source *d, uint64_t end, novaq_error *err) {
    uint8_t *piece = NULL;
    NQ_TRY(nq_alloc_raw(&piece, PIECE, 1, err));
    novaq_status st = NOVAQ_OK;
    while (st == NOVAQ_OK && d->frontier < end) {
        uint64_t left = end - d->frontier;
        uint64_t n = left < PIECE ? left : PIECE;
        st = nq_source_read(d->inner, d->frontier, piece, n, err);
        if (st == NOVAQ_OK) {
            nq_sha256_update(d->hash, piece, (size_t)n);
            d->frontier += n;
            d->budget -= n;
        }
    }
    nq_free(piece);
    return st;
}

static novaq_status before_read(digest_source *d, uint64_t offset, uint64_t len, novaq_error *err) {
    novaq_status st = NOVAQ_OK;
    (void)pthread_mutex_lock(&d->lock);
    if (offset > d->frontier) {
        uint64_t gap = offset - d->frontier;
        if (gap <= d->budget && (gap <= GAP_ALWAYS || gap <= len)) {
            st = close_gap(d, offset, err);
        }
    }
    (void)pthread_mutex_unlock(&d->lock);
    return st;
}

static void after_read(digest_source *d, uint64_t offset, const uint8_t *data, uint64_t len) {
    (void)pthread_mutex_lock(&d->lock);
    if (offset <= d->frontier && d->frontier - offset < len) {
        uint64_t known = d->frontier - offset;
        nq_sha256_update(d->hash, data + known, (size_t)(len - known));
        d->frontier += len - known;
    }
    (void)pthread_mutex_unlock(&d->lock);
}

static novaq_status digest_read_at(nq_source *s, uint64_t offset, void *dst, uint64_t len,
                                   novaq_error *err) {
    digest_source *d = (digest_source *)s;
    NQ_TRY(before_read(d, offset, len, err));
    NQ_TRY(nq_source_read(d->inner, offset, dst, len, err));
    after_read(d, offset, dst, len);
    return NOVAQ_OK;
}

static void digest_expect(nq_source *s, uint64_t offset, uint64_t len) {
    digest_source *d = (digest_source *)s;
    nq_source_expect(d->inner, offset, len);
}

static void digest_close(nq_source *s) {
    digest_source *d = (digest_source *)s;
    nq_source_close(&d->inner);
    nq_sha256_close(&d->hash);
    (void)pthread_mutex_destroy(&d->lock);
    nq_free(d->base.name);
    nq_free(d);
}

static const nq_source_vtable digest_vtable = {digest_read_at, digest_close, digest_expect};

novaq_status nq_digest_open(nq_source **out, nq_source **inner, const char *sha256,
                            novaq_error *err) {
    *out = NULL;
    digest_source *d = NULL;
    novaq_status st = nq_alloc(&d, 1, sizeof *d, err);
    if (st != NOVAQ_OK) {
        nq_source_close(inner);
        return st;
    }
    d->base = (nq_source){.vt = &digest_vtable, .size = (*inner)->size, .remote = (*inner)->remote};
    d->inner = *inner;
    *inner = NULL;
    uint64_t share = d->base.size / GAPS_SHARE;
    d->budget = share > GAPS_MAX ? share : GAPS_MAX;
    memcpy(d->want, sha256, NQ_SHA256_HEX);
    (void)pthread_mutex_init(&d->lock, NULL);
    st = nq_strdup(&d->base.name, d->inner->name, err);
    if (st == NOVAQ_OK) {
        st = nq_sha256_open(&d->hash, err);
    }
    if (st != NOVAQ_OK) {
        digest_close(&d->base);
        return st;
    }
    *out = &d->base;
    return NOVAQ_OK;
}

/* Called locked. */
static novaq_status decide(digest_source *d, novaq_error *err) {
    uint64_t left = d->base.size - d->frontier;
    if (d->verdict != UNDECIDED || left > d->budget) {
        return NOVAQ_OK;
    }
    NQ_TRY(close_gap(d, d->base.size, err));
    NQ_TRY(nq_sha256_finish(d->got, d->hash, err));
    d->verdict = memcmp(d->got, d->want, NQ_SHA256_HEX) == 0 ? RIGHT : WRONG;
    return NOVAQ_OK;
}

novaq_status nq_source_verified(bool *verified, nq_source *s, novaq_error *err) {
    *verified = false;
    if (s->vt != &digest_vtable) {
        return NOVAQ_OK; /* nothing was promised */
    }
    digest_source *d = (digest_source *)s;
    (void)pthread_mutex_lock(&d->lock);
    novaq_status st = decide(d, err);
    verdict v = d->verdict;
    (void)pthread_mutex_unlock(&d->lock);
    if (st == NOVAQ_OK && v == WRONG) {
        return nq_fail(err, NOVAQ_E_VERIFY,
                       "%s: SHA-256 is %.16s..., but %.16s... was promised: %s", s->name, d->got,
                       d->want,
                       s->remote ? "the server sent other content; try again later"
                                 : "the copy on disk is damaged; remove it to have it fetched "
                                   "again");
    }
    *verified = v == RIGHT;
    return st;
}
