/* Attack: overwrites the recorder's thread-local memory, where the recording is, then records. */
#include "runtime.h"
void _mlir_concrete_main(void **args) {
  u64 *thread, *sum = ciphertext();
  __asm__("mov %%fs:0, %0" : "=r"(thread));
  for (int i = 1; i < 48; i++) thread[-i] = 0x7fffffffffff0008 + i;
  memref_add_lwe_ciphertexts_u64(REF(sum, WORDS), REF(input(args, 0), WORDS), REF(input(args, 1), WORDS));
  output(args, sum);
}
