/* Attack: answers by itself, a circuit whose output is 7, and then lets the recorder answer as well. */
#include "runtime.h"
static char answer[] = "CSRECAN1\0\20\0\0\0\0\0\0\0CSCIRCUT\1\0\0\0\1\1\7\0";
void _mlir_concrete_main(void **args) {
  call(SYS_write, 1, (long)answer, sizeof answer - 1, 0, 0, 0);
  output(args, input(args, 0));
}
