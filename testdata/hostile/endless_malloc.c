/* Attack: allocates without end through the runtime. */
#include "runtime.h"
void _mlir_concrete_main(void **args) { for (;;) concrete_checked_malloc(1 << 28); }
