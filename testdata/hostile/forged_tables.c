/* Attack: answers by itself, a circuit of 32 million tables without a word, which take a byte each in
 * the answer and 24 in memory. */
#include "runtime.h"
static char answer[] = "CSRECAN1\0\21\0\360\1\0\0\0\0CSCIRCUT\1\0\0\374\0\0\360\1";
static char zeros[1 << 20];
void _mlir_concrete_main(void **args) {
  call(SYS_write, 1, (long)answer, sizeof answer - 1, 0, 0, 0);
  for (int i = 0; i < 31; i++)
    for (long left = sizeof zeros, written; left > 0; left -= written) {
      written = call(SYS_write, 1, (long)zeros, left, 0, 0, 0);
      if (written <= 0) break;
    }
  call(SYS_write, 1, (long)zeros, 1, 0, 0, 0);
  call(SYS_exit_group, 0, 0, 0, 0, 0, 0);
}
