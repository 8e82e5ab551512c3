/* gaussian_table.h - look-ups in the generated gaussian_codebooks.h, which only
 * codebook.c includes (its data exist once). */
#ifndef NQ_QUANT_GAUSSIAN_TABLE_H
#define NQ_QUANT_GAUSSIAN_TABLE_H

#include <stdbool.h>

/* Measured MSE per weight of the stored codebook on unit Gaussian data; false
 * when the scheme has none. */
bool nq_gaussian_mse(double *mse, const char *scheme_name);

#endif
