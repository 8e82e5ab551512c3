/* progress.h - what the user sees while an operation runs.
 *
 * Owns: the bar on a terminal, plain lines elsewhere, and noticing Ctrl-C.
 * Refuses: colours, escape sequences, standard output, going backwards.
 */
#ifndef CLI_PROGRESS_H
#define CLI_PROGRESS_H

#include <stdbool.h>
#include <stddef.h>

#include "novaq.h"

typedef enum progress_mode {
    PROGRESS_OFF,  /* --quiet */
    PROGRESS_BAR,  /* a terminal */
    PROGRESS_LINES /* anything else, or TERM=dumb: a line now and then */
} progress_mode;

typedef struct progress {
    progress_mode mode;
    char phase[32];
    double started;  /* of this phase; seconds of the monotonic clock */
    double drawn;    /* when something was last shown */
    uint64_t peak;   /* most units reported in this phase */
    uint64_t before; /* bytes received before this phase */
    size_t width;    /* characters of the bar on the screen */
} progress;

/* Chooses the mode and begins to watch for Ctrl-C: the first one asks the
 * operation to stop, a second one kills the program. */
void progress_begin(progress *p, bool quiet);
/* A novaq_progress_fn whose ctx is a progress. */
int progress_callback(void *ctx, const novaq_progress *report);
/* Erases the bar, so that other output starts on a clean line. */
void progress_end(progress *p);

/* Begins to watch for Ctrl-C without showing anything. */
void interrupt_watch(void);
/* True once Ctrl-C was pressed. */
bool interrupt_seen(void);
/* What was pressed is answered: what is done now can be interrupted again. */
void interrupt_answered(void);

/* One line of at most width characters. peak: units to show as done; report->received
 * counts from the start of the phase. Pure. */
void progress_format(char *buf, size_t size, const novaq_progress *report, uint64_t peak,
                     double elapsed, size_t width);

#endif
