/* Attack: ends without an answer. */
#include "runtime.h"
void _mlir_concrete_main(void **args) { call(SYS_exit_group, 0, 0, 0, 0, 0, 0); }
