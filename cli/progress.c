/* progress.c - see progress.h. */
#include "progress.h"
#include "base/clock.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define BAR_CELLS    24
#define NET_CELLS    8 /* beside what is told of the network */
#define BAR_SECONDS  0.1
#define LINE_SECONDS 15.0
#define MAX_WIDTH    200

/* ---- Ctrl-C -------------------------------------------------------------- */

static volatile sig_atomic_t interrupted;

static void on_signal(int number) {
    (void)number;
    interrupted = 1;
}

void interrupt_watch(void) {
    struct sigaction sa;
    memset(&sa, 0, sizeof sa);
    sa.sa_handler = on_signal;
    /* Back to the default after the first: the second one kills. */
    sa.sa_flags = (int)SA_RESETHAND;
    (void)sigemptyset(&sa.sa_mask);
    (void)sigaction(SIGINT, &sa, NULL);
    (void)sigaction(SIGTERM, &sa, NULL);
}

bool interrupt_seen(void) { return interrupted != 0; }

void interrupt_answered(void) { interrupted = 0; }

/* ---- the line ------------------------------------------------------------ */

/* "12.3 MB" for bytes, "123 tokens" for anything else. */
static void format_amount(char *buf, size_t size, double amount, const char *unit) {
    static const char *const prefixes[] = {"B", "kB", "MB", "GB", "TB"};
    if (strcmp(unit, "B") != 0) {
        (void)snprintf(buf, size, "%.*f %s", amount < 10 ? 1 : 0, amount, unit);
        return;
    }
    size_t i = 0;
    while (amount >= 999.5 && i + 1 < sizeof prefixes / sizeof prefixes[0]) {
        amount /= 1000;
        i++;
    }
    (void)snprintf(buf, size, "%.*f %s", i > 0 && amount < 100 ? 1 : 0, amount, prefixes[i]);
}

static void format_seconds(char *buf, size_t size, double seconds) {
    unsigned long s = seconds < 360000 ? (unsigned long)(seconds + 0.5) : 360000UL;
    if (s >= 3600) {
        (void)snprintf(buf, size, "%lu:%02lu:%02lu", s / 3600, s / 60 % 60, s % 60);
    } else {
        (void)snprintf(buf, size, "%lu:%02lu", s / 60, s % 60);
    }
}

static void append(char *buf, size_t size, const char *text) {
    size_t used = strlen(buf);
    (void)snprintf(buf + used, size - used, "%s", text);
}

static void append_bar(char *buf, size_t size, double share, size_t cells) {
    char bar[BAR_CELLS + 16];
    size_t full = (size_t)(share * (double)cells);
    bar[0] = '[';
    for (size_t i = 0; i < cells; i++) {
        bar[i + 1] = i < full ? '=' : (i == full ? '>' : ' ');
    }
    (void)snprintf(bar + cells + 1, sizeof bar - cells - 1, "] %3d%%", (int)(share * 100));
    append(buf, size, " ");
    append(buf, size, bar);
}

static void append_figures(char *buf, size_t size, const novaq_progress *r, double done,
                           double elapsed, bool known) {
    char part[96];
    char amount[48];
    if (elapsed >= 0.5 && done > 0) {
        format_amount(amount, sizeof amount, done / elapsed, r->unit);
        (void)snprintf(part, sizeof part, "  %s/s", amount);
        append(buf, size, part);
        if (known) {
            format_seconds(amount, sizeof amount, elapsed * ((double)r->total - done) / done);
            (void)snprintf(part, sizeof part, "  ETA %s", amount);
            append(buf, size, part);
        }
    }
    if (r->received > 0) {
        format_amount(amount, sizeof amount, (double)r->received, "B");
        (void)snprintf(part, sizeof part, "  net %s", amount);
        append(buf, size, part);
    }
    if (r->received > 0 && elapsed >= 0.5) {
        format_amount(amount, sizeof amount, (double)r->received / elapsed, "B");
        (void)snprintf(part, sizeof part, " %s/s", amount);
        append(buf, size, part);
    }
    if (isfinite(r->value)) {
        (void)snprintf(part, sizeof part, "  %.4f", r->value);
        append(buf, size, part);
    }
}

void progress_format(char *buf, size_t size, const novaq_progress *r, uint64_t peak, double elapsed,
                     size_t width) {
    bool known = r->total > 0;
    uint64_t shown = known && peak > r->total ? r->total : peak;
    (void)snprintf(buf, size, "%s", r->phase);
    if (known) {
        append_bar(buf, size, (double)shown / (double)r->total,
                   r->received > 0 ? NET_CELLS : BAR_CELLS);
    } else {
        char amount[48];
        format_amount(amount, sizeof amount, (double)shown, r->unit);
        append(buf, size, "  ");
        append(buf, size, amount);
    }
    append_figures(buf, size, r, (double)shown, elapsed, known);
    if (r->items_total > 0) {
        char part[48];
        (void)snprintf(part, sizeof part, "  %llu/%llu", (unsigned long long)r->items,
                       (unsigned long long)r->items_total);
        append(buf, size, part);
    }
    if (r->item != NULL && r->item[0] != '\0') {
        append(buf, size, "  ");
        append(buf, size, r->item);
    }
    /* Names come from files: nothing but printable ASCII reaches a terminal. */
    for (char *p = buf; *p != '\0'; p++) {
        if ((unsigned char)*p < 0x20 || (unsigned char)*p > 0x7e) {
            *p = '?';
        }
    }
    if (width < size && strlen(buf) > width) {
        buf[width] = '\0';
    }
}

/* ---- showing it ---------------------------------------------------------- */

static size_t terminal_width(void) {
    struct winsize w;
    if (ioctl(STDERR_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col > 1) {
        return w.ws_col - 1U; /* the last column would wrap on some terminals */
    }
    return 79;
}

void progress_begin(progress *p, bool quiet) {
    const char *term = getenv("TERM");
    bool dumb = term == NULL || term[0] == '\0' || strcmp(term, "dumb") == 0;
    *p = (progress){.mode = PROGRESS_OFF};
    if (!quiet) {
        p->mode = isatty(STDERR_FILENO) && !dumb ? PROGRESS_BAR : PROGRESS_LINES;
    }
    p->drawn = nq_seconds();
    interrupt_watch();
}

static void draw(progress *p, const char *line) {
    size_t len = strlen(line);
    /* Blanks instead of an escape sequence wipe what was longer before. */
    size_t wipe = p->width > len ? p->width - len : 0;
    (void)fprintf(stderr, "\r%s%*s", line, (int)wipe, "");
    (void)fflush(stderr);
    p->width = len;
}

static void erase(progress *p) {
    if (p->width > 0) {
        (void)fprintf(stderr, "\r%*s\r", (int)p->width, "");
        (void)fflush(stderr);
        p->width = 0;
    }
}

static void show(progress *p, const novaq_progress *r, double t) {
    char line[MAX_WIDTH + 1];
    size_t width = p->mode == PROGRESS_BAR ? terminal_width() : MAX_WIDTH;
    novaq_progress shown = *r;
    shown.received = r->received > p->before ? r->received - p->before : 0;
    progress_format(line, sizeof line, &shown, p->peak, t - p->started, width);
    if (p->mode == PROGRESS_BAR) {
        draw(p, line);
    } else {
        (void)fprintf(stderr, "%s\n", line);
    }
    p->drawn = t;
}

int progress_callback(void *ctx, const novaq_progress *r) {
    progress *p = ctx;
    if (interrupt_seen()) {
        return 1;
    }
    if (p->mode == PROGRESS_OFF) {
        return 0;
    }
    double t = nq_seconds();
    if (strncmp(p->phase, r->phase, sizeof p->phase - 1) != 0) {
        (void)snprintf(p->phase, sizeof p->phase, "%s", r->phase);
        p->started = t;
        p->peak = 0;
        p->before = r->received;
    }
    if (r->done > p->peak) {
        p->peak = r->done;
    }
    if (t - p->drawn >= (p->mode == PROGRESS_BAR ? BAR_SECONDS : LINE_SECONDS)) {
        show(p, r, t);
    }
    return 0;
}

void progress_end(progress *p) { erase(p); }
