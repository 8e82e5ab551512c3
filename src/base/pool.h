/* pool.h - a persistent thread pool for loops of independent tasks.
 *
 * Owns: the threads. Tasks are numbered; a task may write only what belongs to
 * its number, so that results never depend on how many threads there are or on
 * who ran what. Refuses: task-to-task ordering, nested loops.
 */
#ifndef NQ_BASE_POOL_H
#define NQ_BASE_POOL_H

#include "base/status.h"

typedef struct nq_pool nq_pool;

/* task: 0..count-1. worker: 0..threads-1, for per-thread scratch. */
typedef void (*nq_task_fn)(void *ctx, uint64_t task, unsigned worker);

/* threads = 0: one per online CPU. The caller counts as worker 0. */
NOVAQ_CHECK novaq_status nq_pool_open(nq_pool **out, unsigned threads, novaq_error *err);
void nq_pool_close(nq_pool **pool);
/* Number of workers, at least 1; a NULL pool has one. */
unsigned nq_pool_threads(const nq_pool *pool);
/* Runs fn for each task and returns when all are done. One caller at a time.
 * A NULL pool runs them in order on the calling thread. */
void nq_pool_run(nq_pool *pool, nq_task_fn fn, void *ctx, uint64_t count);
/* A hint between loops: a loop that is to come soon reads bytes
 * [first + i * stride, + bytes) early on, as worker i. Workers that wait bring them closer
 * meanwhile; the memory stays the caller's and is only looked ahead at, never read. NULL first:
 * nothing to fetch. By the caller of nq_pool_run(). */
void nq_pool_expect(nq_pool *pool, const void *first, uint64_t stride, uint64_t bytes);

#endif
