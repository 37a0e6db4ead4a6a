/* Attack: blocks all signals, answers by itself, and never ends. */
#include "runtime.h"
static char answer[] = "CSRECAN1\0\20\0\0\0\0\0\0\0CSCIRCUT\1\0\0\0\1\1\7\0";
void _mlir_concrete_main(void **args) {
  u64 all = ~0ul;
  call(14, 0, (long)&all, 0, 8, 0, 0);
  call(SYS_write, 1, (long)answer, sizeof answer - 1, 0, 0, 0);
  for (;;) __asm__ volatile("pause");
}
