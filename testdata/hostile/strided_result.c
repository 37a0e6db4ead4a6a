/* Well-behaved: the result is every second word of a buffer, from the third one on. */
#include "runtime.h"
void _mlir_concrete_main(void **args) {
  u64 *wide = concrete_checked_malloc(8 * (2 + 2 * WORDS));
  memref_copy_one_rank(REF(input(args, 1), WORDS), wide, wide, 2, WORDS, 2);
  u64 *result = args[11];
  result[0] = result[1] = (u64)wide;
  result[2] = 2;
  result[3] = WORDS;
  result[4] = 2;
}
