/* cached.h - small reads of a source that is far away.
 *
 * Owns: a few MiB of blocks of another source, fetched more at a time the longer reading
 * goes straight on, so that walking a header here and there costs few round trips.
 * Refuses: keeping large reads (they go straight through), several threads, outliving
 * the source below.
 */
#ifndef NQ_IO_CACHED_H
#define NQ_IO_CACHED_H

#include "io/source.h"

/* over: borrowed. What nq_source_expect() names is fetched by as few requests as
 * possible once one byte of it is asked for. */
NOVAQ_CHECK novaq_status nq_cached_open(nq_source **out, nq_source *over, novaq_error *err);

#endif
