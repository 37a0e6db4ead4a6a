/* Attack: refuses by itself, with a name that would clear the reader's terminal. */
#include "runtime.h"
static char answer[] = "CSRECAN1\1\6\0\0\0\0\0\0\0\3\4\33[2J";
void _mlir_concrete_main(void **args) {
  call(SYS_write, 1, (long)answer, sizeof answer - 1, 0, 0, 0);
  call(SYS_exit_group, 0, 0, 0, 0, 0, 0);
}
