/* Attack: writes far beyond the blocks it was given, both ways, and lets the recorder work on. */
#include "runtime.h"
void _mlir_concrete_main(void **args) {
  for (int i = 0; i < 64; i++) {
    volatile u64 *block = concrete_checked_malloc(64);
    for (int j = -64; j < 512; j++) block[j] = 0x4141414141414141;
    free(concrete_checked_malloc(1 << 12));
    free(concrete_checked_malloc(1 << 20));
  }
  output(args, input(args, 0));
}
