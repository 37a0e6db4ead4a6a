/* Attack: begins an answer, one byte after the other, and stays silent before its last byte. */
#include "runtime.h"
static char answer[] = "CSRECAN1\0\20\0\0\0\0\0\0\0CSCIRCUT\1\0\0\0\1\1\7\0";
void _mlir_concrete_main(void **args) {
  for (int i = 0; i + 2 < sizeof answer; i++) call(SYS_write, 1, (long)(answer + i), 1, 0, 0, 0);
  for (;;) __asm__ volatile("pause");
}
