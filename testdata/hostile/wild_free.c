/* Attack: frees memory that it did not allocate. */
#include "runtime.h"
void _mlir_concrete_main(void **args) { free(input(args, 0) + 2); }
