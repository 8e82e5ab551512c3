/* tensor_out.c - see tensor_out.h. */
#include "artifact/tensor_out.h"

#include <math.h>
#include <string.h>

#include "base/half.h"
#include "base/mem.h"

/* Floats of one task's block of rows, about: 4 MiB, whatever the model. */
#define BLOCK_ELEMENTS ((uint64_t)1 << 20)

typedef struct block_task {
    const nq_tensor_out *t;
    uint64_t first;       /* row of task 0 */
    uint64_t per_task;    /* rows */
    uint64_t end;         /* row after the last of this round */
    float *floats;        /* (tasks, per_task, cols); NULL when raw */
    uint8_t *out;         /* (tasks, per_task, cols) elements as written */
    size_t element;       /* bytes of one */
    novaq_status *status; /* (tasks) */
    novaq_error *error;   /* (tasks) */
} block_task;

novaq_status nq_tensor_out_bytes(uint64_t *bytes, const nq_tensor_out *t, novaq_error *err) {
    uint64_t elements = 1;
    uint64_t matrix = 0;
    bool ok = t->rank <= NQ_OUT_RANK && nq_mul_u64(t->rows, t->cols, &matrix);
    for (uint32_t i = 0; ok && i < t->rank; i++) {
        ok = nq_mul_u64(elements, t->shape[i], &elements);
    }
    if (!ok || matrix != elements || nq_dtype_get(t->dtype)->block != 1 ||
        !nq_mul_u64(elements, nq_dtype_get(t->dtype)->bytes, bytes)) {
        return nq_fail(err, NOVAQ_E_ARG, "%s: shape, rows and type do not fit together", t->name);
    }
    return NOVAQ_OK;
}

static uint16_t narrow(float f, nq_dtype type) {
    return type == NQ_F16 ? nq_f32_to_f16(f) : nq_f32_to_bf16(f);
}

/* Little-endian elements of dtype; false at the first finite value that would
 * become infinite, which goes to *bad. */
static bool convert(uint8_t *out, const float *in, uint64_t n, nq_dtype type, float *bad) {
    if (type == NQ_F32) {
        memcpy(out, in, (size_t)n * sizeof *in);
        return true;
    }
    uint16_t infinity = narrow(INFINITY, type);
    for (uint64_t i = 0; i < n; i++) {
        uint16_t h = narrow(in[i], type);
        if ((h & 0x7fff) == infinity && isfinite(in[i])) {
            *bad = in[i];
            return false;
        }
        memcpy(out + 2 * i, &h, sizeof h);
    }
    return true;
}

static novaq_status write_rows(const block_task *b, uint64_t task, novaq_error *err) {
    const nq_tensor_out *t = b->t;
    uint64_t row = b->first + task * b->per_task;
    uint64_t count = b->end - row < b->per_task ? b->end - row : b->per_task;
    uint64_t at = task * b->per_task * t->cols; /* elements */
    uint8_t *out = b->out + at * b->element;
    if (t->raw) {
        return t->read(t, out, row, count, err);
    }
    float *floats = b->floats + at;
    NQ_TRY(t->read(t, floats, row, count, err));
    float bad = 0;
    if (!convert(out, floats, count * t->cols, t->dtype, &bad)) {
        return nq_fail(err, NOVAQ_E_NUMERIC,
                       "%s: the value %g does not fit %s; export with --dtype f32%s", t->name,
                       (double)bad, nq_dtype_get(t->dtype)->name,
                       t->dtype == NQ_F16 ? " or bf16" : "");
    }
    return NOVAQ_OK;
}

static void run_task(void *ctx, uint64_t task, unsigned worker) {
    block_task *b = ctx;
    (void)worker;
    b->status[task] = write_rows(b, task, &b->error[task]);
}

/* The first failed task's error, so that it does not depend on timing. */
static novaq_status first_failure(const block_task *b, uint64_t tasks, novaq_error *err) {
    for (uint64_t i = 0; i < tasks; i++) {
        if (b->status[i] != NOVAQ_OK) {
            if (err != NULL) {
                *err = b->error[i];
            }
            return b->status[i];
        }
    }
    return NOVAQ_OK;
}

static novaq_status tell(nq_out_progress *p, const char *item, uint64_t bytes, novaq_error *err) {
    p->done += bytes;
    if (p->fn == NULL) {
        return NOVAQ_OK;
    }
    novaq_progress report = {.phase = "export",
                             .item = item,
                             .done = p->done,
                             .total = p->total,
                             .unit = "B",
                             .value = NAN};
    return p->fn(p->ctx, &report) == 0 ? NOVAQ_OK
                                       : nq_fail(err, NOVAQ_E_INTERRUPTED, "export interrupted");
}

static novaq_status write_blocks(nq_outfile *f, block_task *b, nq_pool *pool, unsigned tasks,
                                 nq_out_progress *progress, novaq_error *err) {
    const nq_tensor_out *t = b->t;
    for (b->first = 0; b->first < t->rows; b->first = b->end) {
        uint64_t left = t->rows - b->first;
        uint64_t rows = left < b->per_task * tasks ? left : b->per_task * tasks;
        uint64_t used = (rows + b->per_task - 1) / b->per_task;
        b->end = b->first + rows;
        nq_pool_run(pool, run_task, b, used);
        NQ_TRY(first_failure(b, used, err));
        uint64_t bytes = rows * t->cols * b->element;
        NQ_TRY(nq_outfile_write(f, b->out, bytes, err));
        NQ_TRY(tell(progress, t->name, bytes, err));
    }
    return NOVAQ_OK;
}

static uint64_t rows_per_task(const nq_tensor_out *t, unsigned tasks) {
    uint64_t multiple = t->row_multiple > 0 ? t->row_multiple : 1;
    uint64_t rows = BLOCK_ELEMENTS / t->cols;
    uint64_t share = (t->rows + tasks - 1) / tasks;
    rows = rows < share ? rows : share;
    rows = (rows + multiple - 1) / multiple * multiple;
    return rows > 0 ? rows : multiple;
}

novaq_status nq_tensor_out_write(nq_outfile *f, const nq_tensor_out *t, nq_pool *pool,
                                 nq_out_progress *progress, novaq_error *err) {
    uint64_t bytes = 0;
    NQ_TRY(nq_tensor_out_bytes(&bytes, t, err));
    if (bytes == 0) {
        return NOVAQ_OK;
    }
    unsigned tasks = nq_pool_threads(pool);
    block_task b = {
        .t = t, .per_task = rows_per_task(t, tasks), .element = nq_dtype_get(t->dtype)->bytes};
    uint64_t elements = 0;
    if (!nq_mul_u64(b.per_task * tasks, t->cols, &elements)) {
        return nq_fail(err, NOVAQ_E_MEMORY, "%s: rows of %llu columns are too long", t->name,
                       (unsigned long long)t->cols);
    }
    novaq_status st = nq_alloc(&b.status, tasks, sizeof *b.status, err);
    if (st == NOVAQ_OK) {
        st = nq_alloc(&b.error, tasks, sizeof *b.error, err);
    }
    if (st == NOVAQ_OK) {
        st = nq_alloc_raw(&b.out, elements, b.element, err);
    }
    if (st == NOVAQ_OK && !t->raw) {
        st = nq_alloc_raw(&b.floats, elements, sizeof *b.floats, err);
    }
    if (st == NOVAQ_OK) {
        st = write_blocks(f, &b, pool, tasks, progress, err);
    }
    nq_free(b.floats);
    nq_free(b.out);
    nq_free(b.error);
    nq_free(b.status);
    return st;
}
