/* curve.c - see curve.h. */
#include "curve.h"

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "cmd.h"
#include "gnuplot.h"

#define HEIGHT 800

/* ---- what was told -------------------------------------------------------------------- */

static double number(const json_t *o, const char *key) {
    const json_t *v = json_object_get(o, key);
    return json_is_number(v) ? json_number_value(v) : (double)NAN;
}

static bool append(curve *c, const curve_point *p) {
    if (c->count == c->room) {
        size_t room = c->room > 0 ? c->room * 2 : 256;
        curve_point *more =
            room <= SIZE_MAX / 2 / sizeof *more ? realloc(c->points, room * sizeof *more) : NULL;
        if (more == NULL) {
            return false;
        }
        c->points = more;
        c->room = room;
    }
    c->points[c->count++] = *p;
    return true;
}

static void mark(curve *c, curve_mark kind, double step) {
    if (c->mark_count[kind] < CURVE_MARKS) {
        c->marks[kind][c->mark_count[kind]++] = step;
    }
}

/* Forgets what this round did from a step on: a run that diverged goes on from an earlier
 * one. */
static void forget_from(curve *c, double step) {
    while (c->count > c->earlier && c->points[c->count - 1].step >= step) {
        c->count--;
    }
}

static void add_step(curve *c, const json_t *o) {
    curve_point p = {number(o, "step"), number(o, "kl"), number(o, "held_out_kl"),
                     number(o, "held_out_perplexity")};
    if (!isfinite(p.step)) {
        return;
    }
    c->steps = number(o, "steps");
    if (c->count == 0 && !isfinite(c->first)) {
        c->first = p.step;
    }
    if (json_is_true(json_object_get(o, "rolled_back"))) {
        forget_from(c, p.step + 1);
        mark(c, CURVE_TAKEN_BACK, p.step);
        return;
    }
    forget_from(c, p.step);
    if (c->new_round) {
        mark(c, CURVE_NEXT_ROUND, p.step);
        c->new_round = false;
    }
    c->best_step = number(o, "best_step");
    c->best_kl = number(o, "best_held_out_kl");
    c->incomplete = !append(c, &p) || c->incomplete;
}

/* Of a run, or of a later round of it: those count on. */
static void add_begin(curve *c, const json_t *o) {
    if (c->count > 0 && number(o, "round") > 1) {
        c->earlier = c->count;
        c->new_round = true;
    } else {
        curve_free(c);
        c->first = c->best_step = c->best_kl = (double)NAN;
    }
}

void curve_add(curve *c, const char *json_line) {
    json_t *o = NULL;
    if (nq_json_parse_object(&o, "refine", json_line, strlen(json_line), NULL) != NOVAQ_OK) {
        return;
    }
    const char *event = json_string_value(json_object_get(o, "event"));
    if (event != NULL && strcmp(event, "begin") == 0) {
        add_begin(c, o);
    } else if (event != NULL && strcmp(event, "step") == 0) {
        add_step(c, o);
    }
    json_decref(o);
}

void curve_free(curve *c) {
    free(c->points);
    *c = (curve){0};
}

/* ---- the script ----------------------------------------------------------------------- */

/* Steps of the running mean: so many that it is smooth and still falls with the curve. */
static size_t mean_steps(const curve *c) {
    double n = floor(c->steps / 24);
    return n > 25 ? 25 : n < 5 ? 5 : (size_t)n;
}

/* Step, its divergence, the mean of the last ones. Returns how many there are. */
static size_t put_steps(FILE *out, const curve *c) {
    size_t window = mean_steps(c);
    size_t count = 0;
    (void)fputs("$steps << END\n", out);
    for (size_t i = 0; i < c->count; i++) {
        double sum = 0;
        size_t n = 0;
        for (size_t k = i + 1 > window ? i + 1 - window : 0; k <= i; k++) {
            bool there = isfinite(c->points[k].kl);
            sum += there ? c->points[k].kl : 0;
            n += there ? 1 : 0;
        }
        if (isfinite(c->points[i].kl)) {
            (void)fprintf(out, "%.0f %.9g %.9g\n", c->points[i].step, c->points[i].kl,
                          sum / (double)n);
            count++;
        }
    }
    (void)fputs("END\n", out);
    return count;
}

static bool is_measured(const curve_point *p) {
    return isfinite(p->held_kl) && isfinite(p->held_ppl);
}

/* Step, divergence and perplexity of what is held out. Returns how many there are. */
static size_t put_held(FILE *out, const curve *c) {
    size_t count = 0;
    (void)fputs("$held << END\n", out);
    for (size_t i = 0; i < c->count; i++) {
        const curve_point *p = &c->points[i];
        if (is_measured(p)) {
            (void)fprintf(out, "%.0f %.9g %.9g\n", p->step, p->held_kl, p->held_ppl);
            count++;
        }
    }
    (void)fputs("END\n", out);
    return count;
}

/* The same of the best step; its perplexity is known if this call measured it. */
static void put_best(FILE *out, const curve *c) {
    double ppl = (double)NAN;
    for (size_t i = 0; i < c->count; i++) { /* of two, the later round's */
        const curve_point *p = &c->points[i];
        bool best = p->step >= c->best_step && p->step <= c->best_step;
        ppl = best && is_measured(p) ? p->held_ppl : ppl;
    }
    (void)fprintf(out, "$best << END\n%.0f %.9g %.9g\nEND\n", c->best_step, c->best_kl, ppl);
}

static void put_upright(FILE *out, double step, const char *look) {
    (void)fprintf(out, "set arrow from %.0f, graph 0 to %.0f, graph 1 nohead back %s\n", step, step,
                  look);
}

#define LOOK_BEST "dt 3 lw 1.5 lc rgb '#2a8a2a'"

static const struct {
    const char *look, *title;
} marks[CURVE_MARK_KINDS] = {
    [CURVE_TAKEN_BACK] = {"dt 2 lc rgb '#cc3333'", "diverged, went on from here"},
    [CURVE_NEXT_ROUND] = {"dt 4 lc rgb '#7a52a3'", "next round, symbols chosen again"},
};

/* What holds for both panels: axes, steps that were not seen, the best step. */
static void put_frame(FILE *out, const curve *c) {
    double last = c->points[c->count - 1].step;
    (void)fprintf(out,
                  "set multiplot\nset grid lt 1 lc rgb '#dddddd'\nset border 3\n"
                  "set tics nomirror scale 0.5\n"
                  "set lmargin at screen 0.085\nset rmargin at screen 0.97\n"
                  "set xrange [0:%.0f]\nset offsets 0, 0, graph 0.05, graph 0.05\n",
                  last > 1 ? last : 1);
    if (c->first > 0) {
        (void)fprintf(out,
                      "set object 1 rectangle from 0, graph 0 to %.0f, graph 1 behind "
                      "fillcolor rgb '#eeeeee' fillstyle solid noborder\n"
                      "set label 1 'taken by an earlier call' at %.9g, graph 0.5 center "
                      "textcolor rgb '#777777'\n",
                      c->first, c->first / 2);
    }
    for (size_t kind = 0; kind < CURVE_MARK_KINDS; kind++) {
        for (size_t i = 0; i < c->mark_count[kind]; i++) {
            put_upright(out, c->marks[kind][i], marks[kind].look);
        }
    }
    if (isfinite(c->best_step)) {
        put_upright(out, c->best_step, LOOK_BEST);
    }
}

static void put_divergence(FILE *out, const curve *c, size_t steps, size_t held) {
    (void)fprintf(out,
                  "set tmargin at screen 0.89\nset bmargin at screen %s\n"
                  "set label 2 'Refinement, %.0f of %.0f steps' at screen 0.085, screen 0.955 "
                  "font ',14'\n"
                  "set ylabel 'divergence from the teacher (KL, nats a token)'\n"
                  "set key at screen 0.97, screen 0.98 top right reverse Left horizontal maxcols 2 "
                  "samplen 2\nplot ",
                  held > 0 ? "0.42" : "0.09", c->points[c->count - 1].step, c->steps);
    if (steps > 0) {
        (void)fprintf(out,
                      "$steps using 1:2 with points pt 7 ps 0.5 lc rgb '#8ebfdd' "
                      "title 'each step (text learnt from)', "
                      "$steps using 1:3 with lines lw 2 lc rgb '#2171b5' "
                      "title 'mean of the last %zu steps', ",
                      mean_steps(c));
    }
    if (held > 0) {
        (void)fputs("$held using 1:2 with linespoints lw 2 pt 7 ps 0.8 lc rgb '#e6550d' "
                    "title 'text held out', ",
                    out);
    }
    for (size_t kind = 0; kind < CURVE_MARK_KINDS; kind++) {
        if (c->mark_count[kind] > 0) {
            (void)fprintf(out, "NaN with lines %s title '%s', ", marks[kind].look,
                          marks[kind].title);
        }
    }
    if (isfinite(c->best_step) && isfinite(c->best_kl)) {
        (void)fprintf(out,
                      "$best using 1:2 with points pt 6 ps 2.2 lw 2 lc rgb '#2a8a2a' "
                      "title 'best: step %.0f, KL %.4f'",
                      c->best_step, c->best_kl);
    } else {
        (void)fputs("NaN notitle", out);
    }
    (void)fputc('\n', out);
}

static void put_perplexity(FILE *out) {
    (void)fputs("set tmargin at screen 0.37\nset bmargin at screen 0.09\nunset key\n"
                "unset label\nset xlabel 'steps'\nset ylabel 'perplexity, text held out'\n"
                "plot $held using 1:3 with linespoints lw 2 pt 7 ps 0.8 lc rgb '#e6550d', "
                "$best using 1:3 with points pt 6 ps 2.2 lw 2 lc rgb '#2a8a2a'\n",
                out);
}

static void put_script(FILE *out, const void *data) {
    const curve *c = data;
    size_t steps = put_steps(out, c);
    size_t held = put_held(out, c);
    put_best(out, c);
    put_frame(out, c);
    if (held == 0) {
        (void)fputs("set xlabel 'steps'\n", out);
    }
    put_divergence(out, c, steps, held);
    if (held > 0) {
        put_perplexity(out);
    }
    (void)fputs("unset multiplot\n", out);
}

/* ---- the picture ---------------------------------------------------------------------- */

static gnuplot_picture picture(const curve *c, const char *path) {
    return (gnuplot_picture){path, "refine --json-lines", HEIGHT, put_script, c};
}

int curve_probe(const char *path) {
    gnuplot_picture p = picture(NULL, path);
    return gnuplot_probe(&p);
}

int curve_draw(const curve *c, const char *path) {
    bool any = false;
    for (size_t i = 0; i < c->count && !any; i++) {
        any = isfinite(c->points[i].kl) || is_measured(&c->points[i]);
    }
    if (!any) {
        cli_note("no step was taken: %s is not drawn", path);
        return EXIT_OK;
    }
    if (c->incomplete) {
        cli_note("memory ran out: %s lacks some steps", path);
    }
    gnuplot_picture p = picture(c, path);
    return gnuplot_draw(&p);
}
