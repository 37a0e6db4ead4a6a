/* Well-behaved: a table of four signed entries applied to x and to zero, in a parallel loop. */
#include "runtime.h"
static const u64 entries[4] = {0, 1, 2, 3};
struct region { void **args; u64 *inputs, *results; };
static void body(int32_t *thread, int32_t *bound_thread, struct region *region) {
  int32_t last = 0;
  u64 lower = 0, upper = 1;
  int64_t stride = 1;
  __kmpc_for_static_init_8u(0, *thread, 34, &last, &lower, &upper, &stride, 1, 0);
  for (u64 i = lower; i <= upper; i++) {
    u64 *small = concrete_checked_malloc(8 * SMALL_WORDS), *table = ciphertext();
    memref_keyswitch_lwe_u64(REF(small, SMALL_WORDS), region->inputs, region->inputs, i * WORDS, WORDS, 1,
                             3, 4, DIMENSION, SMALL_DIMENSION, 0, context(region->args));
    memref_encode_expand_lut_for_bootstrap(REF(table, DIMENSION), REF((u64 *)entries, 4), DIMENSION, 2, 1);
    memref_bootstrap_lwe_u64(region->results, region->results, i * WORDS, WORDS, 1, REF(small, SMALL_WORDS),
                             REF(table, DIMENSION), SMALL_DIMENSION, DIMENSION, 1, 23, 1, 0,
                             context(region->args));
    free(table);
    free(small);
  }
  __kmpc_for_static_fini(0, *thread);
  __kmpc_barrier(0, *thread);
}
void _mlir_concrete_main(void **args) {
  u64 *inputs = concrete_checked_malloc(16 * WORDS), *results = concrete_checked_malloc(16 * WORDS);
  /* Row 0 is x, row 1 is the trivial zero; copied as a column of two tensors, as MLIR does. */
  u64 from[7] = {0, (u64)input(args, 0), 0, 1, WORDS, WORDS, 1};
  u64 to[7] = {0, (u64)inputs, 0, 1, WORDS, WORDS, 1};
  memrefCopy(8, &(struct unranked){2, from}, &(struct unranked){2, to});
  for (int i = 0; i < WORDS; i++) inputs[WORDS + i] = 0;
  struct region region = {args, inputs, results};
  __kmpc_fork_call(0, 1, body, &region);
  u64 *sum = ciphertext();
  memref_add_lwe_ciphertexts_u64(REF(sum, WORDS), REF(results, WORDS), REF(results + WORDS, WORDS));
  output(args, sum);
}
