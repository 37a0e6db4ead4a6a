/* Attack: bootstraps with a new table every time. */
#include "runtime.h"
void _mlir_concrete_main(void **args) {
  u64 *small = ciphertext(), *table = ciphertext(), *result = ciphertext();
  memref_keyswitch_lwe_u64(REF(small, SMALL_WORDS), REF(input(args, 0), WORDS), 3, 4, DIMENSION,
                           SMALL_DIMENSION, 0, context(args));
  for (int i = 0; i < WORDS; i++) table[i] = 0;
  for (;; table[0]++)
    memref_bootstrap_lwe_u64(REF(result, WORDS), REF(small, SMALL_WORDS), REF(table, DIMENSION),
                             SMALL_DIMENSION, DIMENSION, 1, 23, 1, 0, context(args));
}
