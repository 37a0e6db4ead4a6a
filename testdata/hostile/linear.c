/* Well-behaved: -(3 * (x + y) + 5), with a copy on the way. */
#include "runtime.h"
void _mlir_concrete_main(void **args) {
  _dfr_start(1, 1, context(args));
  u64 *sum = ciphertext(), *copy = ciphertext(), *result = ciphertext();
  memref_add_lwe_ciphertexts_u64(REF(sum, WORDS), REF(input(args, 0), WORDS), REF(input(args, 1), WORDS));
  memref_copy_one_rank(REF(sum, WORDS), REF(copy, WORDS));
  free(sum);
  memref_mul_cleartext_lwe_ciphertext_u64(REF(copy, WORDS), REF(copy, WORDS), 3);
  memref_add_plaintext_lwe_ciphertext_u64(REF(copy, WORDS), REF(copy, WORDS), 5);
  memref_negate_lwe_ciphertext_u64(REF(result, WORDS), REF(copy, WORDS));
  free(copy);
  output(args, result);
  _dfr_stop(1);
}
