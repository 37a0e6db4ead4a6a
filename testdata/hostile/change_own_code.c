/* Attack: makes its own code writable and executable. */
#include "runtime.h"
void _mlir_concrete_main(void **args) {
  long page = (long)_mlir_concrete_main & ~4095L;
  call(SYS_mprotect, page, 4096, 3 | 4, 0, 0, 0);
  output(args, input(args, 0));
}
