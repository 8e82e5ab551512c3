/* wait.h - waiting for a condition, but only a moment at a time, so that who waits can
 * look at other things now and then. The clock is one that nobody sets. */
#ifndef NQ_BASE_WAIT_H
#define NQ_BASE_WAIT_H

#include <pthread.h>
#include <time.h>

#define NQ_MOMENT_NS 50000000L

static inline int nq_wait_init(pthread_cond_t *cond) {
    pthread_condattr_t attr;
    int failed = pthread_condattr_init(&attr);
    if (failed != 0) {
        return failed;
    }
    failed = pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    if (failed == 0) {
        failed = pthread_cond_init(cond, &attr);
    }
    (void)pthread_condattr_destroy(&attr);
    return failed;
}

/* cond: of nq_wait_init(). Until it is signalled, or a moment has passed. */
static inline void nq_wait_moment(pthread_cond_t *cond, pthread_mutex_t *lock) {
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    t.tv_nsec += NQ_MOMENT_NS;
    if (t.tv_nsec >= 1000000000L) {
        t.tv_nsec -= 1000000000L;
        t.tv_sec++;
    }
    (void)pthread_cond_timedwait(cond, lock, &t);
}

#endif
