/* Attack: writes to an address that is nobody's. */
#include "runtime.h"
void _mlir_concrete_main(void **args) { *(volatile u64 *)0x123456789000 = 1; }
