/* Attack: opens a file. */
#include "runtime.h"
void _mlir_concrete_main(void **args) {
  call(SYS_open, (long)"/etc/passwd", 0, 0, 0, 0, 0);
  output(args, input(args, 0));
}
