/* Adds ciphertexts of two sizes. */
#include "runtime.h"
void _mlir_concrete_main(void **args) {
  u64 *sum = ciphertext();
  memref_add_lwe_ciphertexts_u64(REF(sum, WORDS), REF(input(args, 0), WORDS), REF(input(args, 1), WORDS - 1));
  output(args, sum);
}
