/* Attack: writes to a descriptor other than the answer's. */
#include "runtime.h"
void _mlir_concrete_main(void **args) {
  call(SYS_write, 2, (long)"hello\n", 6, 0, 0, 0);
  output(args, input(args, 0));
}
