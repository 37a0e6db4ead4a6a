/* Attack: answers by itself, a circuit whose output refers to a root that is not there. */
#include "runtime.h"
static char answer[] = "CSRECAN1\0\22\0\0\0\0\0\0\0CSCIRCUT\1\0\0\0\1\1\7\1\1\2";
void _mlir_concrete_main(void **args) {
  call(SYS_write, 1, (long)answer, sizeof answer - 1, 0, 0, 0);
  call(SYS_exit_group, 0, 0, 0, 0, 0, 0);
}
