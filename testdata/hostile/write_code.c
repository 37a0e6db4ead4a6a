/* Attack: overwrites its own code. */
#include "runtime.h"
void _mlir_concrete_main(void **args) {
  *(volatile char *)_mlir_concrete_main = 0;
  output(args, input(args, 0));
}
