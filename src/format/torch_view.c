/* torch_view.c - see torch_impl.h: views of a storage, judged when a file is
 * opened and gathered when they are read.
 *
 * A view is read in the order of its storage, so that every byte is fetched at
 * most once and the memory beyond the result is one window.
 */
#include <string.h>

#include "base/mem.h"
#include "format/torch_impl.h"

#define WINDOW ((uint64_t)1 << 20) /* bytes fetched at once */

/* A dimension with more than one index. */
typedef struct axis {
    uint64_t n;
    uint64_t stride; /* elements of the storage */
    uint64_t step;   /* elements of the row-major result */
} axis;

/* The dimensions by falling stride, at least one; returns how many. */
static unsigned sort_axes(axis out[NQ_MAX_RANK], uint32_t rank, const uint64_t *shape,
                          const uint64_t *strides) {
    unsigned count = 0;
    uint64_t step = 1;
    for (uint32_t i = rank; i > 0; i--) {
        axis a = {shape[i - 1], strides[i - 1], step};
        step *= a.n;
        if (a.n == 1) {
            continue;
        }
        unsigned at = count++;
        while (at > 0 && out[at - 1].stride < a.stride) {
            out[at] = out[at - 1];
            at--;
        }
        out[at] = a;
    }
    if (count == 0) {
        out[count++] = (axis){1, 0, 1};
    }
    return count;
}

/* ---- judging -------------------------------------------------------------- */

static novaq_status bad(const char *name, const char *what, const nq_source *src,
                        novaq_error *err) {
    return nq_fail(err, NOVAQ_E_FORMAT, "%s: tensor \"%.200s\": %s", src->name, name, what);
}

static bool is_plain(const nq_torch_view *v) {
    uint64_t expect = 1;
    for (uint32_t i = v->info.rank; i > 0; i--) {
        uint64_t n = v->info.shape[i - 1];
        if (n != 1 && v->strides[i - 1] != expect) {
            return false;
        }
        expect *= n;
    }
    return true;
}

/* Each index of an axis leads beyond what the axes inside it reach, or nowhere
 * (expanded dimensions). True of every slice, transpose and expansion. */
static bool is_nested(const nq_torch_view *v) {
    axis axes[NQ_MAX_RANK];
    uint64_t reach = 0;
    for (unsigned i = sort_axes(axes, v->info.rank, v->info.shape, v->strides); i > 0; i--) {
        const axis *a = &axes[i - 1];
        if (a->stride != 0 && a->stride <= reach) {
            return false;
        }
        reach += (a->n - 1) * a->stride;
    }
    return true;
}

/* *end: elements of the storage up to the last one of the view. */
static bool find_end(uint64_t *end, const nq_torch_view *v) {
    *end = 1;
    for (uint32_t i = 0; i < v->info.rank; i++) {
        uint64_t reach = 0;
        if (!nq_mul_u64(v->info.shape[i] - 1, v->strides[i], &reach) ||
            !nq_add_u64(*end, reach, end)) {
            return false;
        }
    }
    return nq_add_u64(*end, v->skip, end);
}

novaq_status nq_torch_judge(nq_torch_view *v, bool *plain, const char *name, const nq_source *src,
                            novaq_error *err) {
    nq_tensor_info *t = &v->info;
    uint64_t size = nq_dtype_get(t->dtype)->bytes;
    *plain = true;
    t->elements = 1;
    for (uint32_t i = 0; i < t->rank; i++) {
        if (!nq_mul_u64(t->elements, t->shape[i], &t->elements)) {
            return bad(name, "the shape's product overflows", src, err);
        }
    }
    if (!nq_mul_u64(t->elements, size, &t->bytes)) {
        return bad(name, "the size in bytes overflows", src, err);
    }
    if (t->elements == 0) {
        v->skip = 0;
        return NOVAQ_OK;
    }
    uint64_t end = 0;
    if (!find_end(&end, v) || !nq_mul_u64(end, size, &end)) {
        return bad(name, "offset and strides overflow", src, err);
    }
    if (end > v->storage.bytes) {
        return nq_fail(err, NOVAQ_E_FORMAT,
                       "%s: tensor \"%.200s\" needs %llu bytes of a storage of %llu", src->name,
                       name, (unsigned long long)end, (unsigned long long)v->storage.bytes);
    }
    *plain = is_plain(v);
    if (!*plain && (t->bytes > src->size || !is_nested(v))) {
        return nq_fail(err, NOVAQ_E_UNSUPPORTED,
                       "%s: tensor \"%.200s\" is a view whose elements overlap or repeat: save a "
                       "copy of it (tensor.contiguous())",
                       src->name, name);
    }
    return NOVAQ_OK;
}

/* ---- gathering ------------------------------------------------------------ */

typedef struct window {
    nq_source *src;
    uint64_t end; /* of the view, in the file */
    uint64_t at;  /* what data[0] is in the file */
    uint64_t len;
    uint8_t *data;
} window;

/* n bytes at `at` of the file, n at most WINDOW. */
static novaq_status look(window *w, const uint8_t **out, uint64_t at, uint64_t n,
                         novaq_error *err) {
    if (at < w->at || at + n > w->at + w->len) {
        w->at = at;
        w->len = w->end - at < WINDOW ? w->end - at : WINDOW;
        NQ_TRY(nq_source_read(w->src, at, w->data, w->len, err));
    }
    *out = w->data + (at - w->at);
    return NOVAQ_OK;
}

/* Elements of `size` bytes, 1, 2, 4 or 8. */
static void copy_elements(uint8_t *to, const uint8_t *from, uint64_t n, const axis *a,
                          uint64_t size) {
    if (a->stride == 1 && a->step == 1) {
        memcpy(to, from, n * size);
        return;
    }
    for (uint64_t i = 0; i < n; i++) {
        const uint8_t *p = from + i * a->stride * size;
        uint8_t *q = to + i * a->step * size;
        switch (size) {
        case 1: *q = *p; break;
        case 2: memcpy(q, p, 2); break;
        case 4: memcpy(q, p, 4); break;
        default: memcpy(q, p, 8); break;
        }
    }
}

/* One line along the innermost axis, from byte `at` of the file. */
static novaq_status copy_line(uint8_t *to, window *w, uint64_t at, const axis *a, uint64_t size,
                              novaq_error *err) {
    uint64_t most = a->stride == 0 ? a->n : (WINDOW / size - 1) / a->stride + 1;
    for (uint64_t i = 0; i < a->n; i += most) {
        uint64_t n = a->n - i < most ? a->n - i : most;
        const uint8_t *from = NULL;
        NQ_TRY(look(w, &from, at + i * a->stride * size, ((n - 1) * a->stride + 1) * size, err));
        copy_elements(to + i * a->step * size, from, n, a, size);
    }
    return NOVAQ_OK;
}

/* All of a view whose first element is at byte `start` of the file. */
static novaq_status copy_view(uint8_t *to, window *w, uint64_t start, const axis *axes,
                              unsigned count, uint64_t size, novaq_error *err) {
    uint64_t index[NQ_MAX_RANK] = {0};
    for (;;) {
        uint64_t from = 0;
        uint64_t out = 0;
        for (unsigned i = 0; i + 1 < count; i++) {
            from += index[i] * axes[i].stride;
            out += index[i] * axes[i].step;
        }
        NQ_TRY(copy_line(to + out * size, w, start + from * size, &axes[count - 1], size, err));
        unsigned i = count - 1;
        while (i > 0 && ++index[i - 1] == axes[i - 1].n) {
            index[--i] = 0;
        }
        if (i == 0) {
            return NOVAQ_OK;
        }
    }
}

/* Whole rows (indices of the first dimension) first..first+rows. */
static novaq_status gather_rows(uint8_t *to, nq_source *src, const nq_tensor_info *t,
                                uint64_t first, uint64_t rows, novaq_error *err) {
    uint64_t size = nq_dtype_get(t->dtype)->bytes;
    uint64_t shape[NQ_MAX_RANK];
    axis axes[NQ_MAX_RANK];
    memcpy(shape, t->shape, sizeof shape);
    shape[0] = rows;
    unsigned count = sort_axes(axes, t->rank, shape, t->strides);
    uint64_t start = t->offset + first * t->strides[0] * size;
    window w = {.src = src, .end = size};
    for (unsigned i = 0; i < count; i++) {
        w.end += (axes[i].n - 1) * axes[i].stride * size;
    }
    NQ_TRY(nq_alloc_raw(&w.data, w.end < WINDOW ? w.end : WINDOW, 1, err));
    w.end += start;
    novaq_status st = copy_view(to, &w, start, axes, count, size, err);
    nq_free(w.data);
    return st;
}

novaq_status nq_torch_gather(void *dst, nq_source *src, const nq_tensor_info *t, uint64_t offset,
                             uint64_t len, novaq_error *err) {
    uint64_t row = t->bytes / t->shape[0]; /* bytes; a view with strides is not empty */
    uint64_t first = offset / row;
    uint64_t rows = (offset + len - first * row + row - 1) / row;
    if (first * row == offset && rows * row == len) {
        return gather_rows(dst, src, t, first, rows, err);
    }
    uint8_t *whole = NULL;
    NQ_TRY(nq_alloc_raw(&whole, rows * row, 1, err));
    novaq_status st = gather_rows(whole, src, t, first, rows, err);
    if (st == NOVAQ_OK) {
        memcpy(dst, whole + (offset - first * row), len);
    }
    nq_free(whole);
    return st;
}
