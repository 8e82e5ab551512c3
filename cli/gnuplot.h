/* gnuplot.h - pictures, drawn by gnuplot.
 *
 * Owns: running it. It reads its script from an unnamed file and writes to standard
 * output, which is a fresh file beside the wanted one: no shell and no path ever reaches
 * it, and the picture appears under its name when it is whole. Refuses: other formats
 * than PNG and SVG; knowing what is drawn.
 */
#ifndef CLI_GNUPLOT_H
#define CLI_GNUPLOT_H

#include <stdio.h>

typedef struct gnuplot_picture {
    const char *path;    /* ends in .png or .svg */
    const char *instead; /* command that prints the figures for any other program */
    unsigned height;     /* pixels; the width is 1200 */
    /* Writes the script but for its terminal: letters, digits and figures of its own. */
    void (*put)(FILE *script, const void *data);
    const void *data; /* of put */
} gnuplot_picture;

/* Each says what is wrong and returns an exit code. */

/* Whether a picture can have this name. */
int gnuplot_check(const char *path);
/* The same, whether it can lie there and whether gnuplot is there: before long work. */
int gnuplot_probe(const gnuplot_picture *p);
int gnuplot_draw(const gnuplot_picture *p);

#endif
