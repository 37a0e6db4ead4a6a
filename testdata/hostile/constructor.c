/* Attack: runs code when it is loaded. */
#include "runtime.h"
static __attribute__((constructor)) void run(void) { call(SYS_exit_group, 0, 0, 0, 0, 0, 0); }
void _mlir_concrete_main(void **args) { output(args, input(args, 0)); }
