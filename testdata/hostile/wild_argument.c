/* Attack: hands an address that is nobody's to the runtime. */
#include "runtime.h"
void _mlir_concrete_main(void **args) {
  u64 *wild = (u64 *)0x123456789000;
  memref_negate_lwe_ciphertext_u64(REF(wild, WORDS), REF(wild, WORDS));
}
