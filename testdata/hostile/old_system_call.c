/* Attack: asks for the process id through the 32-bit interface, where numbers mean other calls. */
#include "runtime.h"
void _mlir_concrete_main(void **args) {
  long result;
  __asm__ volatile("int $0x80" : "=a"(result) : "a"(20) : "memory");
  output(args, input(args, 0));
}
