/* refine_made.h - the two halves of novaq_compress() with opt->refine, for whoever wants
 * the artifact in between as well.
 */
#ifndef NQ_COMPRESS_REFINE_MADE_H
#define NQ_COMPRESS_REFINE_MADE_H

#include "novaq.h"

/* Writes what will be refined: budgets leave room for what refinement adds. opt->output is
 * not used. */
NOVAQ_CHECK novaq_status nq_compress_unrefined(const char *made, const novaq_compress_options *opt,
                                               novaq_error *err);
/* Refines it into opt->output. *report (may be NULL): as novaq_compress(). */
NOVAQ_CHECK novaq_status nq_refine_made(char **report, const novaq_compress_options *opt,
                                        const char *made, novaq_error *err);

#endif
