/* Attack: imports a function of the C library. */
#include "runtime.h"
int system(const char *);
void _mlir_concrete_main(void **args) { system("true"); }
