/* Returns without naming a result. */
#include "runtime.h"
void _mlir_concrete_main(void **args) {}
