/* curve.h - the curve of a refinement.
 *
 * Owns: what was told of its steps, and the picture of it. Refuses: telling more than the
 * run did: steps that an earlier call took are left blank, steps that were taken back are
 * not drawn.
 */
#ifndef CLI_CURVE_H
#define CLI_CURVE_H

#include <stdbool.h>
#include <stddef.h>

typedef struct curve_point {
    double step, kl;          /* kl: of the step itself, NaN where it was not told */
    double held_kl, held_ppl; /* NaN where nothing was measured */
} curve_point;

#define CURVE_MARKS 32

/* What happened besides steps. */
typedef enum curve_mark { CURVE_TAKEN_BACK, CURVE_NEXT_ROUND, CURVE_MARK_KINDS } curve_mark;

typedef struct curve {
    curve_point *points; /* in order of their steps, one round after the other */
    size_t count, room;
    size_t earlier;                              /* points of the rounds before */
    double steps;                                /* of the whole run, as planned */
    double first;                                /* step this call began at */
    double best_step, best_kl;                   /* NaN while nothing was measured */
    double marks[CURVE_MARK_KINDS][CURVE_MARKS]; /* steps it went on from */
    size_t mark_count[CURVE_MARK_KINDS];
    bool new_round;  /* begun, but no step yet */
    bool incomplete; /* memory ran out */
} curve;

/* Takes a line of JSON that novaq_refine() told; others are passed over. */
void curve_add(curve *c, const char *json_line);
/* Before the run: whether the picture can be drawn. Says what is wrong; an exit code. */
int curve_probe(const char *path);
/* Draws what there is; nothing: says so, and it is no failure. */
int curve_draw(const curve *c, const char *path);
void curve_free(curve *c);

#endif
