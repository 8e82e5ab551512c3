/* metric_choice.h - from a recipe to the metric its matrices are coded under. */
#ifndef NQ_COMPRESS_METRIC_CHOICE_H
#define NQ_COMPRESS_METRIC_CHOICE_H

#include "compress/recipe.h"

/* order_block: columns that are coded together. */
nq_metric_options nq_metric_choice(const nq_recipe *r, unsigned order_block);

#endif
