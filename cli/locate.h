/* locate.h - where a model lies, from what the user typed.
 *
 * Owns: turning the arguments of compress, local, hf, ollama and url into one locator
 * that the library understands: a path, hf://, ollama://, http:// or https://. Refuses:
 * looking there; the library does, and it knows which names are allowed.
 */
#ifndef CLI_LOCATE_H
#define CLI_LOCATE_H

#include "cmd.h"

/* *locator: free(). Returns EXIT_OK, or says what is wrong with the arguments. */
int cli_locate(char **locator, const opt_args *a);

#endif
