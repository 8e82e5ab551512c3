/* clock.h - how much time has passed.
 *
 * Owns: seconds of a clock that only goes forward, for rates, waits and reports. Refuses: the
 * time of day; nothing that is written may depend on it.
 */
#ifndef NQ_BASE_CLOCK_H
#define NQ_BASE_CLOCK_H

#include <time.h>

/* Since some moment that stays the same while the program runs. */
static inline double nq_seconds(void) {
    struct timespec t = {0};
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

#endif
