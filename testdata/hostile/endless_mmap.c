/* Attack: takes all address space by system calls, then asks the runtime for more. */
#include "runtime.h"
void _mlir_concrete_main(void **args) {
  for (long size = 1L << 40; size >= 4096; size /= 2)
    while (call(SYS_mmap, 0, size, 3, 0x22, -1, 0) > 0) {}
  for (;;) concrete_checked_malloc(1 << 20);
}
