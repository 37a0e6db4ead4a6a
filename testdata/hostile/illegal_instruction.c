/* What a circuit compiled for a newer processor does. */
#include "runtime.h"
void _mlir_concrete_main(void **args) { __builtin_trap(); }
