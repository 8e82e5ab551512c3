/* tensors_read.c - the bytes of tensors, see tensors.h.
 *
 * Owns: which bytes of a file a tensor needs, reading them from memory when they were
 * read ahead and from the file otherwise, waiting with an ear for interruption. A tensor
 * whose bytes lie in a block of memory is read by the same code as from a file: the
 * block looks like the part of the file that it is a copy of.
 */
#include <pthread.h>
#include <string.h>
#include <time.h>

#include "base/mem.h"
#include "format/dequant.h"
#include "format/tensors_impl.h"

/* Stored bytes converted at a time. */
#define READ_CHUNK ((uint64_t)1 << 20)
#define TICK_NS    50000000L

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

static novaq_status perform_direct(job *j, novaq_error *err) {
    uint64_t begin = 0;
    uint64_t end = 0;
    NQ_TRY(nq_torch_prove(&j->ts->shards[j->t->file].torch, j->t, j->src, 0, j->src, err));
    if (j->floats && j->src->remote) { /* it is read in pieces, mostly in order */
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
        struct timespec t;
        (void)clock_gettime(CLOCK_MONOTONIC, &t);
        t.tv_nsec += TICK_NS;
        t.tv_sec += t.tv_nsec / 1000000000L;
        t.tv_nsec %= 1000000000L;
        (void)pthread_cond_timedwait(&e->over, &e->lock, &t);
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
    pthread_condattr_t attr;
    pthread_t thread;
    (void)pthread_mutex_init(&e.lock, NULL);
    (void)pthread_condattr_init(&attr);
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&e.over, &attr);
    (void)pthread_condattr_destroy(&attr);
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

static novaq_status take(nq_ahead_bytes *b, nq_tensors *ts, const nq_tensor_info *t,
                         novaq_error *err) {
    *b = (nq_ahead_bytes){.data = NULL};
    size_t i = ts->ahead == NULL ? ts->count : index_of(ts, t);
    if (i == ts->count || t->elements == 0) {
        return NOVAQ_OK;
    }
    bool asked_to_end = false;
    novaq_status st = nq_ahead_take(b, ts->ahead, (uint32_t)i, ts->tick, &asked_to_end, err);
    if (asked_to_end && ts->files != NULL) {
        nq_files_stop(ts->files);
    }
    return st;
}

static novaq_status execute(job *j, novaq_error *err) {
    nq_tensors *ts = j->ts;
    nq_ahead_bytes b;
    NQ_TRY(take(&b, ts, j->t, err));
    if (b.data == NULL) {
        bool far = ts->tick.fn != NULL && j->src->remote && j->t->elements > 0;
        return far ? read_watched(j, err) : perform_direct(j, err);
    }
    part p = part_of(j->src, b.data, b.begin, b.end);
    j->src = &p.base;
    novaq_status st = perform(j, err);
    nq_ahead_give(ts->ahead, &b);
    return st;
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

/* Empty tensors are left out: there is nothing to fetch. order NULL: all. */
static novaq_status start(nq_tensors *ts, const nq_tensor_info *const *order, size_t count,
                          uint64_t limit, bool keep, novaq_error *err) {
    nq_ahead_item *items = NULL;
    size_t n = 0;
    nq_ahead_close(&ts->ahead);
    NQ_TRY(nq_alloc(&items, count, sizeof *items, err));
    for (size_t k = 0; k < count; k++) {
        size_t i = order == NULL ? k : index_of(ts, order[k]);
        const nq_tensor_info *t = i == ts->count ? NULL : &ts->tensors[i];
        nq_source *src = t == NULL ? NULL : ts->shards[t->file].src;
        if (t == NULL || t->elements == 0 || (keep && !src->remote)) {
            continue;
        }
        items[n] = (nq_ahead_item){.src = src, .key = (uint32_t)i};
        extent_of(&items[n].begin, &items[n].end, ts, t);
        n++;
    }
    nq_ahead_plan plan = {items, n, ts->count, limit, keep, check_item, ts};
    novaq_status st = n == 0 ? NOVAQ_OK : nq_ahead_open(&ts->ahead, &plan, err);
    nq_free(items);
    return st;
}

novaq_status nq_tensors_ahead(nq_tensors *ts, const nq_tensor_info *const *order, size_t count,
                              uint64_t bytes, novaq_error *err) {
    return ts->held ? NOVAQ_OK : start(ts, order, count, bytes, false, err);
}

void nq_tensors_release(nq_tensors *ts, const nq_tensor_info *t) {
    size_t i = ts->ahead == NULL ? ts->count : index_of(ts, t);
    if (i < ts->count) {
        nq_ahead_release(ts->ahead, (uint32_t)i);
    }
}

novaq_status nq_tensors_hold(nq_tensors *ts, novaq_error *err) {
    uint64_t sum = 0;
    if (ts->held) {
        return NOVAQ_OK;
    }
    for (size_t i = 0; i < ts->count; i++) {
        uint64_t bytes = ts->shards[ts->tensors[i].file].src->remote ? ts->tensors[i].bytes : 0;
        if (!nq_add_u64(sum, bytes, &sum) || sum > nq_physical_memory()) {
            return nq_fail(err, NOVAQ_E_MEMORY,
                           "%s: its weights are larger than the memory of this machine, where this "
                           "work must keep them; download the model and give its path",
                           ts->path);
        }
    }
    NQ_TRY(start(ts, NULL, ts->count, UINT64_MAX, true, err));
    ts->held = ts->ahead != NULL;
    return NOVAQ_OK;
}

void nq_tensors_on_wait(nq_tensors *ts, novaq_status (*tick)(void *ctx, novaq_error *err),
                        void *ctx) {
    ts->tick = (nq_ahead_tick){tick, ctx};
}

novaq_status nq_tensors_verified(size_t *verified, nq_tensors *ts, novaq_error *err) {
    *verified = 0;
    if (!ts->held) {
        nq_ahead_close(&ts->ahead);
    }
    for (uint32_t i = 0; i < ts->shard_count; i++) {
        bool one = false;
        NQ_TRY(nq_source_verified(&one, ts->shards[i].src, err));
        *verified += one ? 1 : 0;
    }
    return NOVAQ_OK;
}
