/* Attack: imports a function of the C library without calling it. */
#include "runtime.h"
int system(const char *);
int (*pointer)(const char *) = system;
void _mlir_concrete_main(void **args) { output(args, input(args, 0)); }
