/* Switches keys with parameters that are not those of the specs. */
#include "runtime.h"
void _mlir_concrete_main(void **args) {
  u64 *small = ciphertext();
  memref_keyswitch_lwe_u64(REF(small, SMALL_WORDS), REF(input(args, 0), WORDS), 3, 5, DIMENSION,
                           SMALL_DIMENSION, 0, context(args));
  output(args, input(args, 0));
}
