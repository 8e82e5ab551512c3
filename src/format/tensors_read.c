/* tensors_read.c - the bytes of tensors, see tensors.h.
 *
 * Owns: which bytes of a file a tensor needs, reading them from memory when they were
 * read ahead and from the file otherwise, waiting with an ear for interruption. A tensor
 * whose bytes lie in a block of memory is read by the same code as from a file: the
 * block looks like the part of the file that it is a copy of.
 */
#include <string.h>

#include "base/mem.h"
#include "base/wait.h"
#include "format/dequant.h"
#include "format/tensors_impl.h"

/* Stored bytes converted at a time. */
#define READ_CHUNK ((uint64_t)1 << 20)
/* Of slices of tensors that are larger than what may be held. */
#define SLICE_LEAST ((uint64_t)1 << 20)
#define SLICE_MOST  ((uint64_t)16 << 20)

/* ---- a part of a file in memory ------------------------------------------- */

typedef struct part {
    nq_source base; /* first, so that the pointers convert */
    const uint8_t *data;
    uint64_t begin; /* what data[0] is in the file */
} part;

static novaq_status part_read_at(nq_source *s, uint64_t offset, void *dst, uint64_t len,
                                 novaq_error *err) {
    const part *p = (const part *)s;
    if (offset < p->begin) {
        return nq_fail(err, NOVAQ_E_ARG, "%s: offset %llu: not in memory", s->name,
                       (unsigned long long)offset);
    }
    memcpy(dst, p->data + (offset - p->begin), (size_t)len);
    return NOVAQ_OK;
}

static void part_close(nq_source *s) { (void)s; }

static const nq_source_vtable part_vtable = {part_read_at, part_close, NULL};

static part part_of(const nq_source *src, const uint8_t *data, uint64_t begin, uint64_t end) {
    return (part){
        .base = {.vt = &part_vtable, .name = src->name, .size = end}, .data = data, .begin = begin};
}

/* ---- what a tensor needs ---------------------------------------------------- */

/* Bytes of the file from the first to behind the last. */
static void extent_of(uint64_t *begin, uint64_t *end, const nq_tensors *ts,
                      const nq_tensor_info *t) {
    *begin = t->offset;
    *end = t->offset + t->bytes;
    if (t->view != 0) {
        const nq_onnx_view *v = &ts->onnx.views[t->view - 1];
        *end = v->pieces > 0 ? v->end : *end;
    } else if (t->strides != NULL) {
        uint64_t reach = 1; /* elements; all of it is known to lie in the file */
        for (uint32_t i = 0; i < t->rank; i++) {
            reach += (t->shape[i] - 1) * t->strides[i];
        }
        *end = t->offset + reach * nq_dtype_get(t->dtype)->bytes;
    }
    nq_torch_widen(&ts->shards[t->file].torch, t, begin, end);
}

static size_t index_of(const nq_tensors *ts, const nq_tensor_info *t) {
    uintptr_t at = (uintptr_t)t;
    uintptr_t first = (uintptr_t)ts->tensors;
    if (at >= first && at < first + ts->count * sizeof *t) {
        return (size_t)(at - first) / sizeof *t;
    }
    const nq_tensor_info *own = nq_tensors_find(ts, t->name); /* the caller's copy */
    return own == NULL ? ts->count : (size_t)(own - ts->tensors);
}

/* ---- reading from anywhere -------------------------------------------------- */

typedef struct job {
    nq_tensors *ts;
    const nq_tensor_info *t;
    nq_source *src; /* the file, or a part of it in memory */
    void *dst;
    uint64_t offset; /* bytes [offset, offset + len) as presented ... */
    uint64_t len;
    bool floats; /* ... or all of it as float32 */
} job;

static novaq_status read_bytes(const job *j, void *dst, uint64_t offset, uint64_t len,
                               novaq_error *err) {
    const nq_tensor_info *t = j->t;
    if (len == 0) { /* an empty tensor may be placed beyond the end of its file */
        return NOVAQ_OK;
    }
    if (t->view != 0) {
        return nq_onnx_read(dst, &j->ts->onnx, j->src, t, offset, len, err);
    }
    return t->strides != NULL ? nq_torch_gather(dst, j->src, t, offset, len, err)
                              : nq_source_read(j->src, t->offset + offset, dst, len, err);
}

static novaq_status read_floats(const job *j, novaq_error *err) {
    const nq_tensor_info *t = j->t;
    if (t->view != 0) {
        return nq_onnx_read_f32(j->dst, &j->ts->onnx, j->src, t, err);
    }
    const nq_dtype_info *d = nq_dtype_get(t->dtype);
    /* With strides, any part of it may lie all over its storage: at once, then. */
    uint64_t step = t->strides != NULL ? t->bytes : READ_CHUNK / d->bytes * d->bytes;
    float *dst = j->dst;
    uint8_t *raw = NULL;
    NQ_TRY(nq_alloc_raw(&raw, step < t->bytes ? step : t->bytes, 1, err));
    novaq_status st = NOVAQ_OK;
    for (uint64_t at = 0; st == NOVAQ_OK && at < t->bytes; at += step) {
        uint64_t len = t->bytes - at < step ? t->bytes - at : step;
        st = read_bytes(j, raw, at, len, err);
        if (st == NOVAQ_OK) {
            uint64_t n = len / d->bytes * d->block;
            nq_dequantize(dst, t->dtype, raw, n);
            dst += n;
        }
    }
    nq_free(raw);
    return st;
}

static novaq_status perform(const job *j, novaq_error *err) {
    return j->floats ? read_floats(j, err) : read_bytes(j, j->dst, j->offset, j->len, err);
}

static bool is_plain(const nq_tensor_info *t) { return t->view == 0 && t->strides == NULL; }

/* Whether this is the first of pieces, mostly in order, that one request should bring. */
static bool begins_run(const job *j) {
    bool pieces = j->len >= READ_CHUNK / 2 || (j->len == j->t->bytes && !is_plain(j->t));
    return j->src->remote && (j->floats || (j->offset == 0 && pieces));
}

static novaq_status perform_direct(job *j, novaq_error *err) {
    uint64_t begin = 0;
    uint64_t end = 0;
    NQ_TRY(nq_torch_prove(&j->ts->shards[j->t->file].torch, j->t, j->src, 0, j->src, err));
    if (begins_run(j)) {
        extent_of(&begin, &end, j->ts, j->t);
        nq_source_expect(j->src, j->t->offset, end - j->t->offset);
    }
    return perform(j, err);
}

/* ---- with an ear for interruption ------------------------------------------- */

typedef struct errand { /* a direct read by a thread of its own */
    job *job;
    pthread_mutex_t lock;
    pthread_cond_t over;
    bool done;
    novaq_status st;
    novaq_error err;
} errand;

static void *run_errand(void *arg) {
    errand *e = arg;
    novaq_status st = perform_direct(e->job, &e->err);
    (void)pthread_mutex_lock(&e->lock);
    e->st = st;
    e->done = true;
    (void)pthread_cond_signal(&e->over);
    (void)pthread_mutex_unlock(&e->lock);
    return NULL;
}

/* Until the errand is over or the tick wants an end, which ends all transfers. */
static novaq_status watch(errand *e, nq_tensors *ts, novaq_error *err) {
    novaq_status st = NOVAQ_OK;
    (void)pthread_mutex_lock(&e->lock);
    while (!e->done && st == NOVAQ_OK) {
        nq_wait_moment(&e->over, &e->lock);
        if (!e->done) {
            (void)pthread_mutex_unlock(&e->lock);
            st = ts->tick.fn(ts->tick.ctx, err);
            (void)pthread_mutex_lock(&e->lock);
        }
    }
    (void)pthread_mutex_unlock(&e->lock);
    if (st != NOVAQ_OK && ts->files != NULL) {
        nq_files_stop(ts->files);
    }
    return st;
}

static novaq_status read_watched(job *j, novaq_error *err) {
    errand e = {.job = j, .err = {.msg = ""}};
    pthread_t thread;
    (void)pthread_mutex_init(&e.lock, NULL);
    (void)nq_wait_init(&e.over);
    int failed = pthread_create(&thread, NULL, run_errand, &e);
    novaq_status st = NOVAQ_OK;
    if (failed != 0) {
        st = nq_fail_errno(err, NOVAQ_E_MEMORY, failed, "cannot start a thread to read with");
    } else {
        st = watch(&e, j->ts, err);
        (void)pthread_join(thread, NULL);
        if (st == NOVAQ_OK && e.st != NOVAQ_OK) {
            st = nq_fail(err, e.st, "%s", e.err.msg);
        }
    }
    (void)pthread_cond_destroy(&e.over);
    (void)pthread_mutex_destroy(&e.lock);
    return st;
}

/* ---- reading ---------------------------------------------------------------- */

/* The bytes that hold byte `at` of the file. */
static novaq_status take(nq_ahead_bytes *b, nq_tensors *ts, const nq_tensor_info *t, uint64_t at,
                         novaq_error *err) {
    *b = (nq_ahead_bytes){.data = NULL, .end = UINT64_MAX};
    size_t i = ts->ahead == NULL ? ts->count : index_of(ts, t);
    if (i == ts->count || t->elements == 0) {
        return NOVAQ_OK;
    }
    bool asked_to_end = false;
    novaq_status st = nq_ahead_take(b, ts->ahead, (uint32_t)i, at, ts->tick, &asked_to_end, err);
    if (asked_to_end && ts->files != NULL) {
        nq_files_stop(ts->files);
    }
    return st;
}

static novaq_status execute_direct(job *j, novaq_error *err) {
    bool far = j->ts->tick.fn != NULL && j->src->remote && j->t->elements > 0;
    return far ? read_watched(j, err) : perform_direct(j, err);
}

/* The file as far as a plain tensor goes: from memory what is there, slice by slice. */
typedef struct stream {
    nq_source base; /* first, so that the pointers convert */
    nq_source *file;
    nq_tensors *ts;
    const nq_tensor_info *t;
} stream;

static novaq_status stream_read_at(nq_source *s, uint64_t offset, void *dst, uint64_t len,
                                   novaq_error *err) {
    const stream *f = (const stream *)s;
    uint8_t *to = dst;
    for (uint64_t end = offset + len; offset < end;) {
        nq_ahead_bytes b;
        NQ_TRY(take(&b, f->ts, f->t, offset, err));
        uint64_t n = (b.end < end ? b.end : end) - offset;
        if (b.data == NULL) {
            job j = {f->ts, f->t, f->file, to, offset - f->t->offset, n, false};
            NQ_TRY(execute_direct(&j, err));
        } else {
            memcpy(to, b.data + (offset - b.begin), (size_t)n);
            nq_ahead_give(f->ts->ahead, &b, offset + n);
        }
        to += n;
        offset += n;
    }
    return NOVAQ_OK;
}

static const nq_source_vtable stream_vtable = {stream_read_at, part_close, NULL};

/* All of it, where the bytes of a tensor are in memory at once. */
static novaq_status execute_whole(job *j, novaq_error *err) {
    nq_tensors *ts = j->ts;
    nq_ahead_bytes b;
    NQ_TRY(take(&b, ts, j->t, j->t->offset, err));
    if (b.data == NULL) {
        return execute_direct(j, err);
    }
    part p = part_of(j->src, b.data, b.begin, b.end);
    job from_memory = *j;
    from_memory.src = &p.base;
    novaq_status st = perform(&from_memory, err);
    nq_ahead_give(ts->ahead, &b, b.end);
    return st;
}

static novaq_status execute(job *j, novaq_error *err) {
    if (j->ts->ahead == NULL) {
        return execute_direct(j, err);
    }
    if (!is_plain(j->t)) {
        return execute_whole(j, err);
    }
    nq_ahead_bytes b;
    NQ_TRY(take(&b, j->ts, j->t, j->t->offset + j->offset, err));
    if (b.data == NULL && b.end == UINT64_MAX) {
        return execute_direct(j, err); /* all at once, not piece by piece */
    }
    if (b.data != NULL) {
        nq_ahead_give(j->ts->ahead, &b, b.begin); /* there, but nothing read of it yet */
    }
    stream s = {
        .base = {.vt = &stream_vtable, .name = j->src->name, .size = j->src->size},
        .file = j->src,
        .ts = j->ts,
        .t = j->t,
    };
    job in_slices = *j;
    in_slices.src = &s.base;
    return perform(&in_slices, err);
}

novaq_status nq_tensors_read(void *dst, nq_tensors *ts, const nq_tensor_info *t, uint64_t offset,
                             uint64_t len, novaq_error *err) {
    if (offset > t->bytes || len > t->bytes - offset) {
        return nq_fail(err, NOVAQ_E_ARG,
                       "%s: tensor \"%.200s\": %llu bytes at %llu wanted, it has %llu", ts->path,
                       t->name, (unsigned long long)len, (unsigned long long)offset,
                       (unsigned long long)t->bytes);
    }
    job j = {ts, t, ts->shards[t->file].src, dst, offset, len, false};
    return len == 0 ? NOVAQ_OK : execute(&j, err);
}

novaq_status nq_tensors_read_f32(float *dst, nq_tensors *ts, const nq_tensor_info *t,
                                 novaq_error *err) {
    job j = {ts, t, ts->shards[t->file].src, dst, 0, t->bytes, true};
    return execute(&j, err);
}

/* ---- reading ahead ------------------------------------------------------------ */

/* What a record says of itself stands before its bytes, and came along. */
static novaq_status check_item(void *ctx, const nq_ahead_item *item, const uint8_t *data,
                               novaq_error *err) {
    nq_tensors *ts = ctx;
    const nq_tensor_info *t = &ts->tensors[item->key];
    part p = part_of(item->src, data, item->begin, item->end);
    return nq_torch_prove(&ts->shards[t->file].torch, t, &p.base, item->begin, item->src, err);
}

/* What is to be fetched, in order. */
typedef struct list {
    nq_ahead_item *items;
    size_t count;
    size_t cap;
} list;

static novaq_status add_item(list *l, const nq_ahead_item *item, novaq_error *err) {
    if (l->count == l->cap) {
        size_t cap = l->cap == 0 ? 64 : l->cap * 2;
        NQ_TRY(nq_grow(&l->items, l->cap, cap, sizeof *l->items, err));
        l->cap = cap;
    }
    l->items[l->count++] = *item;
    return NOVAQ_OK;
}

/* Adds tensor i. What is larger than the limit comes in slices; where a part of it may lie
 * all over its storage its reader reads it, and nothing overtakes him. */
static novaq_status add_tensor(list *l, const nq_tensors *ts, size_t i, uint64_t limit,
                               novaq_error *err) {
    const nq_tensor_info *t = &ts->tensors[i];
    uint64_t begin = 0;
    uint64_t end = 0;
    extent_of(&begin, &end, ts, t);
    nq_ahead_item m = {.src = ts->shards[t->file].src, .begin = begin, .end = end};
    m.key = (uint32_t)i;
    bool large = end - begin > limit && end - begin > SLICE_LEAST;
    m.direct = large && !is_plain(t);
    uint64_t slice = limit / 4 < SLICE_LEAST  ? SLICE_LEAST
                     : limit / 4 > SLICE_MOST ? SLICE_MOST
                                              : limit / 4;
    while (large && !m.direct && end - m.begin > slice) {
        m.end = m.begin + slice;
        m.more = true;
        NQ_TRY(add_item(l, &m, err));
        m.begin = m.end;
        m.end = end;
        m.more = false;
    }
    return add_item(l, &m, err);
}

static novaq_status start(nq_tensors *ts, const list *l, uint64_t limit, bool keep,
                          novaq_error *err) {
    nq_ahead_plan plan = {l->items, l->count, ts->count, limit, keep, check_item, ts};
    return l->count == 0 ? NOVAQ_OK : nq_ahead_open(&ts->ahead, &plan, err);
}

novaq_status nq_tensors_ahead(nq_tensors *ts, const nq_tensor_info *const *order, size_t count,
                              uint64_t bytes, novaq_error *err) {
    list l = {NULL, 0, 0};
    novaq_status st = NOVAQ_OK;
    if (ts->held) {
        return NOVAQ_OK;
    }
    nq_ahead_close(&ts->ahead);
    for (size_t k = 0; st == NOVAQ_OK && k < count; k++) {
        size_t i = index_of(ts, order[k]);
        if (i < ts->count && ts->tensors[i].elements > 0) { /* else there is nothing to fetch */
            st = add_tensor(&l, ts, i, bytes, err);
        }
    }
    if (st == NOVAQ_OK) {
        st = start(ts, &l, bytes, false, err);
    }
    nq_free(l.items);
    return st;
}

void nq_tensors_release(nq_tensors *ts, const nq_tensor_info *t) {
    size_t i = ts->ahead == NULL ? ts->count : index_of(ts, t);
    if (i < ts->count) {
        nq_ahead_release(ts->ahead, (uint32_t)i);
    }
}

/* Tensors that share bytes (views of one storage) get one range, which is fetched once.
 * *sum: bytes of all ranges, UINT64_MAX where they are more than can be counted. */
static void merge(list *l, uint64_t *sum) {
    *sum = 0;
    for (size_t first = 0, next = 0; first < l->count; first = next) {
        nq_ahead_item *m = &l->items[first];
        next = first + 1;
        while (next < l->count && l->items[next].src == m->src && l->items[next].begin < m->end &&
               l->items[next].end > m->begin) {
            const nq_ahead_item *o = &l->items[next++];
            m->begin = o->begin < m->begin ? o->begin : m->begin;
            m->end = o->end > m->end ? o->end : m->end;
        }
        for (size_t k = first + 1; k < next; k++) {
            l->items[k].begin = m->begin;
            l->items[k].end = m->end;
        }
        *sum = nq_add_u64(*sum, m->end - m->begin, sum) ? *sum : UINT64_MAX;
    }
}

novaq_status nq_tensors_hold(nq_tensors *ts, novaq_error *err) {
    list l = {NULL, 0, 0};
    uint64_t sum = 0;
    novaq_status st = NOVAQ_OK;
    if (ts->held) {
        return NOVAQ_OK;
    }
    nq_ahead_close(&ts->ahead);
    for (size_t i = 0; st == NOVAQ_OK && i < ts->count; i++) {
        if (ts->tensors[i].elements > 0 && ts->shards[ts->tensors[i].file].src->remote) {
            st = add_tensor(&l, ts, i, UINT64_MAX, err);
        }
    }
    merge(&l, &sum);
    if (st == NOVAQ_OK && sum > nq_physical_memory()) {
        st = nq_fail(err, NOVAQ_E_MEMORY,
                     "%s: its weights are larger than the memory of this machine, where this "
                     "work must keep them; download the model and give its path",
                     ts->path);
    }
    if (st == NOVAQ_OK) {
        st = start(ts, &l, UINT64_MAX, true, err);
    }
    nq_free(l.items);
    ts->held = ts->ahead != NULL;
    return st;
}

void nq_tensors_on_wait(nq_tensors *ts, novaq_status (*tick)(void *ctx, novaq_error *err),
                        void *ctx) {
    ts->tick = (nq_ahead_tick){tick, ctx};
}

novaq_status nq_tensors_verified(size_t *verified, size_t *promised, nq_tensors *ts,
                                 novaq_error *err) {
    *verified = 0;
    *promised = 0;
    if (!ts->held) {
        nq_ahead_close(&ts->ahead);
    }
    for (uint32_t i = 0; i < ts->shard_count; i++) {
        bool one = false;
        NQ_TRY(nq_source_verified(&one, ts->shards[i].src, err));
        *verified += one ? 1 : 0;
        *promised += ts->shards[i].promised ? 1 : 0;
    }
    return NOVAQ_OK;
}
