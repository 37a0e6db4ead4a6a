/* Attack: fills more memory than there is. */
#include "runtime.h"

void _mlir_concrete_main(void **args) {
  memset(ciphertext(), 0, 1ull << 40);
  output(args, input(args, 0));
}
