/* Attack: asks for memory that is writable and executable. */
#include "runtime.h"
void _mlir_concrete_main(void **args) {
  call(SYS_mmap, 0, 4096, 7, 0x22, -1, 0);
  output(args, input(args, 0));
}
