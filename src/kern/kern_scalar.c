/* kern_scalar.c - the reference: the shared bodies, compiled for the baseline. */
#include "kern/kern_body.h"

const nq_kern nq_kern_scalar = {"scalar",    body_shortest_path, body_nearest_pair, body_hadamard,
                                body_unpack, body_lut,           body_dot_i8,       body_dot_f32};
