/* Attack: begins an answer of 2^56 bytes and keeps its word. */
#include "runtime.h"
static char answer[1 << 16] = "CSRECAN1\0\0\0\0\0\0\0\0\1";
void _mlir_concrete_main(void **args) {
  call(SYS_write, 1, (long)answer, 17, 0, 0, 0);
  for (;;) call(SYS_write, 1, (long)(answer + 32), sizeof answer - 32, 0, 0, 0);
}
