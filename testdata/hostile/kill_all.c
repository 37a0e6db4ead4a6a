/* Attack: signals every process it may signal (signal 0 only: the test runs as somebody). */
#include "runtime.h"
void _mlir_concrete_main(void **args) { call(SYS_kill, -1, 0, 0, 0, 0, 0); output(args, input(args, 0)); }
