/* net_norm.c - see net_impl.h: norms, biases, sums, caps.
 *
 * A task is NQ_NET_TASK rows. Gradients of vectors are summed per task, then over the
 * tasks in their order, so that they do not depend on the number of threads. */
#include <math.h>
#include <string.h>

#include "base/cpu.h"
#include "model/vec.h"
#include "refine/net_impl.h"

#define LANES 16
/* Elements of one task that caps. */
#define CAP_TASK 4096

typedef struct norm_job {
    nq_net *n;
    const nq_tnorm *norm;
    nq_spans s;
    float *out; /* or dx */
    const float *x;
    const float *dy;
    bool add;
} norm_job;

/* ---- forward ------------------------------------------------------------------ */

static void norm_task(void *ctx, uint64_t task, unsigned worker) {
    const norm_job *j = ctx;
    const nq_hyper *h = &j->n->m->hyper;
    const float *gain = j->norm->gain.value;
    const float *bias = j->norm->bias.value;
    (void)worker;
    for (uint64_t i = 0; i < nq_net_task_rows(j->s.rows, task) * j->s.count; i++) {
        uint64_t row = task * NQ_NET_TASK + i / j->s.count;
        uint64_t at = row * j->s.stride + i % j->s.count * j->s.width;
        if (h->arch->norm == NQ_NORM_LAYER) {
            nq_vec_layernorm(j->out + at, j->x + at, gain, bias, j->s.width, h->norm_eps);
        } else {
            nq_vec_rmsnorm(j->out + at, j->x + at, gain, j->s.width, h->norm_eps);
        }
    }
}

void nq_net_norm(nq_net *n, float *out, const float *x, const nq_tnorm *norm, nq_spans s) {
    norm_job j = {.n = n, .norm = norm, .s = s, .out = out, .x = x};
    nq_pool_run(n->m->pool, norm_task, &j, nq_net_tasks(s.rows));
}

/* ---- backward ------------------------------------------------------------------- */

/* Sums over one vector, c = x - mean: of g dy, and of g dy c. */
typedef struct sums {
    double plain, along;
} sums;

NQ_CPU_CLONES static sums sum_up(const float *dy, const float *x, const float *gain, float mean,
                                 uint64_t n) {
    float plain[LANES] = {0};
    float along[LANES] = {0};
    sums s = {0, 0};
    uint64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        for (int l = 0; l < LANES; l++) {
            float t = dy[i + (uint64_t)l] * gain[i + (uint64_t)l];
            plain[l] += t;
            along[l] += t * (x[i + (uint64_t)l] - mean);
        }
    }
    for (; i < n; i++) {
        float t = dy[i] * gain[i];
        s.plain += (double)t;
        s.along += (double)t * (double)(x[i] - mean);
    }
    for (int l = 0; l < LANES; l++) {
        s.plain += (double)plain[l];
        s.along += (double)along[l];
    }
    return s;
}

/* sum (x - mean)^2 */
NQ_CPU_CLONES static double spread(const float *x, float mean, uint64_t n) {
    float lane[LANES] = {0};
    double sum = 0;
    uint64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        for (int l = 0; l < LANES; l++) {
            float c = x[i + (uint64_t)l] - mean;
            lane[l] += c * c;
        }
    }
    for (; i < n; i++) {
        sum += (double)(x[i] - mean) * (double)(x[i] - mean);
    }
    for (int l = 0; l < LANES; l++) {
        sum += (double)lane[l];
    }
    return sum;
}

/* One vector: y = (x - mean) r g + b, r = 1 / sqrt(mean of c^2 + eps), c = x - mean;
 * dx = r (g dy - shift) - slope c. */
typedef struct slopes {
    float mean, r, shift, slope;
} slopes;

static slopes slopes_of(const norm_job *j, const float *dy, const float *x) {
    const nq_hyper *h = &j->n->m->hyper;
    double width = (double)j->s.width;
    bool layer = h->arch->norm == NQ_NORM_LAYER;
    float mean = layer ? (float)(nq_vec_sum(x, j->s.width) / width) : 0.0F;
    double r = 1.0 / sqrt(spread(x, mean, j->s.width) / width + h->norm_eps);
    sums s = sum_up(dy, x, j->norm->gain.value, mean, j->s.width);
    return (slopes){.mean = mean,
                    .r = (float)r,
                    .shift = layer ? (float)(s.plain / width) : 0.0F,
                    .slope = (float)(s.along * r * r * r / width)};
}

/* dgain and dbias (n) += of this vector; before dx is written, which may be dy. */
NQ_CPU_CLONES static void add_vector(float *restrict dgain, float *restrict dbias, const float *dy,
                                     const float *x, float mean, float r, uint64_t n) {
    for (uint64_t i = 0; i < n; i++) {
        dgain[i] += dy[i] * ((x[i] - mean) * r);
    }
    for (uint64_t i = 0; i < n; i++) {
        dbias[i] += dy[i];
    }
}

NQ_CPU_CLONES static void set_input(float *dx, const float *dy, const float *x, const float *gain,
                                    const slopes *p, bool add, uint64_t n) {
    float mean = p->mean;
    float r = p->r;
    float shift = p->shift;
    float slope = p->slope;
    if (add) {
        for (uint64_t i = 0; i < n; i++) {
            dx[i] += r * (gain[i] * dy[i] - shift) - slope * (x[i] - mean);
        }
    } else {
        for (uint64_t i = 0; i < n; i++) {
            dx[i] = r * (gain[i] * dy[i] - shift) - slope * (x[i] - mean);
        }
    }
}

static void back_task(void *ctx, uint64_t task, unsigned worker) {
    const norm_job *j = ctx;
    uint64_t width = j->s.width;
    float *dgain = j->n->in.parts + task * 2 * width;
    (void)worker;
    memset(dgain, 0, 2 * width * sizeof *dgain);
    for (uint64_t i = 0; i < nq_net_task_rows(j->s.rows, task) * j->s.count; i++) {
        uint64_t row = task * NQ_NET_TASK + i / j->s.count;
        uint64_t at = row * j->s.stride + i % j->s.count * width;
        slopes p = slopes_of(j, j->dy + at, j->x + at);
        add_vector(dgain, dgain + width, j->dy + at, j->x + at, p.mean, p.r, width);
        set_input(j->out + at, j->dy + at, j->x + at, j->norm->gain.value, &p, j->add, width);
    }
}

/* v's gradient += the parts at `first` of each task, `step` apart. */
static void add_parts(const nq_net *n, const nq_tvector *v, uint64_t first, uint64_t step,
                      uint64_t tasks) {
    for (uint64_t t = 0; v->grad != NULL && t < tasks; t++) {
        nq_vec_add(v->grad, n->in.parts + t * step + first, v->n);
    }
}

void nq_net_norm_backward(nq_net *n, float *dx, bool add, const float *dy, const float *x,
                          const nq_tnorm *norm, nq_spans s) {
    norm_job j = {.n = n, .norm = norm, .s = s, .out = dx, .x = x, .dy = dy, .add = add};
    uint64_t tasks = nq_net_tasks(s.rows);
    nq_pool_run(n->m->pool, back_task, &j, tasks);
    add_parts(n, &norm->gain, 0, 2 * s.width, tasks);
    add_parts(n, &norm->bias, s.width, 2 * s.width, tasks);
}

/* ---- biases and sums -------------------------------------------------------------- */

typedef struct rows_job {
    nq_net *n;
    float *y;
    const float *x;
    uint64_t width, stride;
} rows_job;

static void add_bias_task(void *ctx, uint64_t task, unsigned worker) {
    const rows_job *j = ctx;
    (void)worker;
    for (uint64_t i = 0; i < nq_net_task_rows(j->n->rows, task); i++) {
        nq_vec_add(j->y + (task * NQ_NET_TASK + i) * j->stride, j->x, j->width);
    }
}

void nq_net_add_bias(nq_net *n, float *x, const nq_tvector *bias, uint64_t stride) {
    if (bias->value != NULL) {
        rows_job j = {.n = n, .y = x, .x = bias->value, .width = bias->n, .stride = stride};
        nq_pool_run(n->m->pool, add_bias_task, &j, nq_net_tasks(n->rows));
    }
}

static void sum_rows_task(void *ctx, uint64_t task, unsigned worker) {
    const rows_job *j = ctx;
    float *sum = j->n->in.parts + task * j->width;
    (void)worker;
    memset(sum, 0, j->width * sizeof *sum);
    for (uint64_t i = 0; i < nq_net_task_rows(j->n->rows, task); i++) {
        nq_vec_add(sum, j->x + (task * NQ_NET_TASK + i) * j->stride, j->width);
    }
}

void nq_net_bias_backward(nq_net *n, const nq_tvector *bias, const float *dy, uint64_t stride) {
    if (bias->grad != NULL) {
        rows_job j = {.n = n, .x = dy, .width = bias->n, .stride = stride};
        nq_pool_run(n->m->pool, sum_rows_task, &j, nq_net_tasks(n->rows));
        add_parts(n, bias, 0, bias->n, nq_net_tasks(n->rows));
    }
}

static void add_rows_task(void *ctx, uint64_t task, unsigned worker) {
    const rows_job *j = ctx;
    uint64_t at = task * NQ_NET_TASK * j->width;
    (void)worker;
    nq_vec_add(j->y + at, j->x + at, nq_net_task_rows(j->n->rows, task) * j->width);
}

void nq_net_add(nq_net *n, float *y, const float *x) {
    uint64_t dim = n->m->hyper.dim;
    rows_job j = {.n = n, .y = y, .x = x, .width = dim, .stride = dim};
    nq_pool_run(n->m->pool, add_rows_task, &j, nq_net_tasks(n->rows));
}

/* ---- caps --------------------------------------------------------------------------- */

typedef struct cap_job {
    float *x;
    const float *y;
    uint64_t n;
    float cap;
} cap_job;

static uint64_t cap_count(const cap_job *j, uint64_t at) {
    return j->n - at < CAP_TASK ? j->n - at : CAP_TASK;
}

static void cap_task(void *ctx, uint64_t task, unsigned worker) {
    const cap_job *j = ctx;
    uint64_t at = task * CAP_TASK;
    (void)worker;
    nq_vec_softcap(j->x + at, cap_count(j, at), j->cap);
}

void nq_net_softcap(nq_net *n, float *x, uint64_t count, float cap) {
    cap_job j = {.x = x, .n = count, .cap = cap};
    nq_pool_run(n->m->pool, cap_task, &j, (count + CAP_TASK - 1) / CAP_TASK);
}

/* d/dx of y = cap tanh(x / cap) is 1 - (y / cap)^2. */
static void cap_back_task(void *ctx, uint64_t task, unsigned worker) {
    const cap_job *j = ctx;
    uint64_t at = task * CAP_TASK;
    float by = 1.0F / j->cap;
    (void)worker;
    for (uint64_t i = at; i < at + cap_count(j, at); i++) {
        float t = j->y[i] * by;
        j->x[i] *= 1.0F - t * t;
    }
}

void nq_net_softcap_backward(nq_net *n, float *dx, const float *y, uint64_t count, float cap) {
    cap_job j = {.x = dx, .y = y, .n = count, .cap = cap};
    nq_pool_run(n->m->pool, cap_back_task, &j, (count + CAP_TASK - 1) / CAP_TASK);
}
