/* Attack: exhausts the stack. */
#include "runtime.h"
static long __attribute__((noinline)) deeper(volatile long n) { return n + deeper(n + 1) * 2; }
void _mlir_concrete_main(void **args) { *(u64 *)args[11] = deeper(0); }
