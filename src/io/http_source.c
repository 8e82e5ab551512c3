/* http_source.c - see http.h. Owns: one file over HTTP as a source; which reads the one
 * long request of an expected window serves. Two threads may each expect one (a reader,
 * and another that reads ahead of it); a third takes the place of who was idle longest.
 * Refuses: reading on its own (a transfer only moves while a reader waits). */
#include <string.h>

#include "io/http_impl.h"

#define HEAD_BYTES ((uint64_t)64 << 10)  /* read while the size is asked for */
#define SKIP_MAX   ((uint64_t)256 << 10) /* a gap cheaper to read than to ask again */

#define WINDOWS 2

typedef struct window {
    uint64_t turn; /* counts expectations: what was taken before another came is outdated */
    uint64_t start;
    uint64_t end;
    uint64_t next;    /* the window's bytes from here are still to come */
    uint64_t far_end; /* of the last read elsewhere in it, since one in order */
    bool busy;        /* a reader has the range */
    nq_range *range;  /* idle one, or NULL */
    uint64_t used;    /* when; 0: never */
    pthread_t owner;  /* who expected it */
} window;

typedef struct http_source {
    nq_source base; /* first, so that the pointers convert */
    nq_remote f;
    uint8_t *head; /* the first bytes, read at open; never change */
    uint64_t head_len;
    pthread_mutex_t lock; /* of all below */
    pthread_cond_t idle;
    window windows[WINDOWS];
    uint64_t clock; /* of window.used */
} http_source;

/* ---- windows ---- */

static void range_drop(nq_range *g) {
    if (g != NULL) {
        nq_range_free(g);
        nq_free(g);
    }
}

static bool is_near(uint64_t offset, uint64_t next) {
    return offset >= next && offset - next <= SKIP_MAX;
}

static bool is_started(const window *w) { return w->busy || w->range != NULL; }

static bool is_inside(const window *w, uint64_t offset, uint64_t len) {
    return offset >= w->start && offset <= w->end && len <= w->end - offset;
}

/* The window whose request should bring these bytes, or NULL. Under the lock. */
static window *choose(http_source *s, uint64_t offset, uint64_t len) {
    window *found = NULL;
    for (size_t i = 0; i < WINDOWS; i++) {
        window *w = &s->windows[i];
        if (!is_inside(w, offset, len)) {
            continue;
        }
        if (is_started(w) && is_near(offset, w->next)) {
            return w;
        }
        /* The second of two reads in order elsewhere, while nobody read here: reading
         * goes on there. */
        if (!is_started(w) || is_near(offset, w->far_end)) {
            found = w;
        }
    }
    return found;
}

typedef struct window_turn {
    window *w;
    uint64_t turn; /* which expectation of it */
    uint64_t end;
    nq_range *range; /* or NULL */
} window_turn;

/* Takes a window's range for these bytes, waiting for a reader before them. */
static bool window_take(http_source *s, uint64_t offset, uint64_t len, window_turn *t) {
    (void)pthread_mutex_lock(&s->lock);
    window *w = choose(s, offset, len);
    while (w != NULL && w->busy) {
        (void)pthread_cond_wait(&s->idle, &s->lock);
        w = choose(s, offset, len);
    }
    if (w != NULL) {
        *t = (window_turn){w, w->turn, w->end, w->range};
        w->range = NULL;
        w->busy = true;
        w->next = offset + len;
        w->far_end = UINT64_MAX;
        w->used = ++s->clock;
    }
    for (size_t i = 0; w == NULL && i < WINDOWS; i++) {
        window *o = &s->windows[i];
        o->far_end = offset >= o->start && offset < o->end ? offset + len : o->far_end;
    }
    (void)pthread_mutex_unlock(&s->lock);
    return w != NULL;
}

static void window_give(http_source *s, const window_turn *t) {
    nq_range *g = t->range;
    (void)pthread_mutex_lock(&s->lock);
    if (t->turn == t->w->turn) {
        t->w->busy = false;
        t->w->range = g;
        g = NULL;
        (void)pthread_cond_broadcast(&s->idle);
    }
    (void)pthread_mutex_unlock(&s->lock);
    range_drop(g);
}

static novaq_status range_new(nq_range **out, http_source *s, uint64_t from, uint64_t end,
                              novaq_error *err) {
    *out = NULL;
    nq_range *g = NULL;
    NQ_TRY(nq_alloc(&g, 1, sizeof *g, err));
    novaq_status st = nq_range_init(g, &s->f, from, end, true, err);
    if (st != NOVAQ_OK) {
        nq_free(g);
        return st;
    }
    *out = g;
    return NOVAQ_OK;
}

/* By the window's range, which starts anew where it is behind or too far away. */
static novaq_status window_read(http_source *s, window_turn *t, uint64_t offset, void *dst,
                                uint64_t len, novaq_error *err) {
    nq_range **g = &t->range;
    if (*g != NULL && ((*g)->pos > offset || offset - (*g)->pos > SKIP_MAX)) {
        range_drop(*g);
        *g = NULL;
    }
    if (*g == NULL) {
        NQ_TRY(range_new(g, s, offset, t->end, err));
    }
    if ((*g)->pos < offset) {
        NQ_TRY(nq_range_read(*g, NULL, offset - (*g)->pos, err));
    }
    return nq_range_read(*g, dst, len, err);
}

static novaq_status own_read(http_source *s, uint64_t offset, void *dst, uint64_t len,
                             novaq_error *err) {
    nq_range g;
    NQ_TRY(nq_range_init(&g, &s->f, offset, offset + len, false, err));
    novaq_status st = nq_range_read(&g, dst, len, err);
    nq_range_free(&g);
    return st;
}

static novaq_status http_read_at(nq_source *base, uint64_t offset, void *dst, uint64_t len,
                                 novaq_error *err) {
    http_source *s = (http_source *)base;
    uint8_t *p = dst;
    if (offset < s->head_len) {
        uint64_t n = s->head_len - offset < len ? s->head_len - offset : len;
        memcpy(p, s->head + offset, (size_t)n);
        p += n;
        offset += n;
        len -= n;
    }
    if (len == 0) {
        return NOVAQ_OK;
    }
    window_turn t;
    if (!window_take(s, offset, len, &t)) {
        return own_read(s, offset, p, len, err);
    }
    novaq_status st = window_read(s, &t, offset, p, len, err);
    if (st != NOVAQ_OK) {
        range_drop(t.range);
        t.range = NULL;
    }
    window_give(s, &t);
    return st;
}

/* The window that another one replaces: of the same thread, else the one that has not
 * been used for longest. Under the lock. */
static window *replaceable(http_source *s) {
    window *oldest = &s->windows[0];
    for (size_t i = 0; i < WINDOWS; i++) {
        window *w = &s->windows[i];
        if (w->used > 0 && pthread_equal(w->owner, pthread_self())) {
            return w;
        }
        oldest = w->used < oldest->used ? w : oldest;
    }
    return oldest;
}

static bool is_under_way(const http_source *s, uint64_t offset, uint64_t end) {
    bool is = false;
    for (size_t i = 0; i < WINDOWS; i++) {
        const window *w = &s->windows[i];
        is = is || (is_started(w) && is_near(offset, w->next) && end <= w->end);
    }
    return is;
}

static void http_expect(nq_source *base, uint64_t offset, uint64_t len) {
    http_source *s = (http_source *)base;
    nq_range *old = NULL;
    if (offset > base->size || len > base->size - offset) {
        return;
    }
    uint64_t end = offset + len;
    offset = offset < s->head_len ? s->head_len : offset;
    (void)pthread_mutex_lock(&s->lock);
    if (!is_under_way(s, offset, end)) {
        window *w = replaceable(s);
        old = w->range;
        *w = (window){.turn = w->turn + 1,
                      .start = offset,
                      .end = end > offset ? end : offset,
                      .next = offset,
                      .far_end = UINT64_MAX,
                      .used = ++s->clock,
                      .owner = pthread_self()};
        (void)pthread_cond_broadcast(&s->idle);
    }
    (void)pthread_mutex_unlock(&s->lock);
    range_drop(old);
}

static void http_close(nq_source *base) {
    http_source *s = (http_source *)base;
    for (size_t i = 0; i < WINDOWS; i++) {
        range_drop(s->windows[i].range);
    }
    (void)pthread_cond_destroy(&s->idle);
    (void)pthread_mutex_destroy(&s->lock);
    (void)pthread_mutex_destroy(&s->f.lock);
    for (size_t i = 0; i < s->f.header_count; i++) {
        nq_free(s->f.headers[i]);
    }
    nq_free(s->f.headers);
    nq_free(s->f.url);
    nq_free(s->f.token);
    nq_free(s->f.etag);
    nq_free(s->f.modified);
    nq_free(s->f.target);
    nq_free(s->head);
    nq_free(base->name);
    nq_free(s);
}

static const nq_source_vtable http_vtable = {http_read_at, http_close, http_expect};

/* ---- opening ---- */

static novaq_status copy_request(http_source *s, const nq_http_file *f, novaq_error *err) {
    NQ_TRY(nq_header_check(f->token, f->headers, f->header_count, err));
    NQ_TRY(nq_strdup(&s->f.url, f->url, err));
    if (f->token != NULL) {
        NQ_TRY(nq_strdup(&s->f.token, f->token, err));
    }
    NQ_TRY(nq_alloc(&s->f.headers, f->header_count, sizeof *s->f.headers, err));
    for (; s->f.header_count < f->header_count; s->f.header_count++) {
        NQ_TRY(nq_strdup(&s->f.headers[s->f.header_count], f->headers[s->f.header_count], err));
    }
    return f->name != NULL ? nq_strdup(&s->base.name, f->name, err)
                           : nq_url_show(&s->base.name, f->url, err);
}

static novaq_status ask_size(http_source *s, novaq_error *err) {
    NQ_TRY(nq_alloc_raw(&s->head, 1, HEAD_BYTES, err));
    NQ_TRY(nq_range_ask(&s->f, s->head, HEAD_BYTES, &s->head_len, err));
    s->base.size = s->f.size;
    return NOVAQ_OK;
}

novaq_status nq_http_source(nq_source **out, nq_http *h, const nq_http_file *f, novaq_error *err) {
    *out = NULL;
    http_source *s = NULL;
    NQ_TRY(nq_alloc(&s, 1, sizeof *s, err));
    if (pthread_mutex_init(&s->f.lock, NULL) != 0 || pthread_mutex_init(&s->lock, NULL) != 0 ||
        pthread_cond_init(&s->idle, NULL) != 0) {
        nq_free(s);
        return nq_fail(err, NOVAQ_E_MEMORY, "cannot make a lock");
    }
    s->base.vt = &http_vtable;
    s->base.remote = true;
    s->base.size = f->size;
    s->f.h = h;
    s->f.size = f->size;
    s->f.login = f->login;
    s->f.renew = f->renew;
    s->f.renew_ctx = f->renew_ctx;
    for (size_t i = 0; i < WINDOWS; i++) {
        s->windows[i].far_end = UINT64_MAX;
    }
    novaq_status st = copy_request(s, f, err);
    s->f.name = s->base.name;
    if (st == NOVAQ_OK && f->size == NQ_HTTP_ASK) {
        st = ask_size(s, err);
    }
    if (st != NOVAQ_OK) {
        http_close(&s->base);
        return st;
    }
    *out = &s->base;
    return NOVAQ_OK;
}

/* What was pinned stays as long as the source. */
static const char *pinned(const nq_source *base, bool date) {
    /* Casting the const away: the lock is what makes reading safe. */
    http_source *s = (http_source *)(uintptr_t)base;
    (void)pthread_mutex_lock(&s->f.lock);
    const char *text = date ? s->f.modified : s->f.etag;
    (void)pthread_mutex_unlock(&s->f.lock);
    return text != NULL ? text : "";
}

const char *nq_http_etag(const nq_source *base) { return pinned(base, false); }
const char *nq_http_modified(const nq_source *base) { return pinned(base, true); }
