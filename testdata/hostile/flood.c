/* Attack: writes to the answer's pipe without end. */
#include "runtime.h"
static char rubbish[1 << 16];
void _mlir_concrete_main(void **args) {
  for (;;) call(SYS_write, 1, (long)rubbish, sizeof rubbish, 0, 0, 0);
}
