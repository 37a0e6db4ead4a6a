/* Attack: never ends. */
#include "runtime.h"
void _mlir_concrete_main(void **args) { for (;;) __asm__ volatile(""); }
