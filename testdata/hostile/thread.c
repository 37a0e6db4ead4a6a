/* Attack: starts a thread that shares memory. */
#include "runtime.h"
void _mlir_concrete_main(void **args) {
  char *stack = concrete_checked_malloc(1 << 16);
  call(SYS_clone, 0x10f00, (long)(stack + (1 << 15)), 0, 0, 0, 0);
  output(args, input(args, 0));
}
