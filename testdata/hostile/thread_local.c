/* Has a thread-local variable, which nobody sets up. */
#include "runtime.h"
static __thread u64 counter = 1;
void _mlir_concrete_main(void **args) { counter += (u64)args; output(args, input(args, 0)); }
