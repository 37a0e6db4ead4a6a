/* Attack: forks. */
#include "runtime.h"
void _mlir_concrete_main(void **args) { call(SYS_fork, 0, 0, 0, 0, 0, 0); output(args, input(args, 0)); }
