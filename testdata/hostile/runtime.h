/* The runtime that a Concrete circuit is linked against, and raw system calls for the attacks.
 *
 * All circuits here have two inputs x and y and one output, each one ciphertext of 32 + 1 words.
 * A memory reference is five words: allocated, aligned, offset, size, stride. */
#include <stdint.h>

typedef uint64_t u64;
typedef uint32_t u32;

enum { DIMENSION = 32, WORDS = DIMENSION + 1, SMALL_DIMENSION = 4, SMALL_WORDS = SMALL_DIMENSION + 1 };

/* A contiguous buffer as the five arguments of a memory reference. */
#define REF(buffer, size) (buffer), (buffer), 0, (size), 1
#define REF_TYPES u64 *, u64 *, u64, u64, u64

void memref_add_lwe_ciphertexts_u64(REF_TYPES, REF_TYPES, REF_TYPES);
void memref_add_plaintext_lwe_ciphertext_u64(REF_TYPES, REF_TYPES, u64);
void memref_mul_cleartext_lwe_ciphertext_u64(REF_TYPES, REF_TYPES, u64);
void memref_negate_lwe_ciphertext_u64(REF_TYPES, REF_TYPES);
void memref_keyswitch_lwe_u64(REF_TYPES, REF_TYPES, u32, u32, u32, u32, u32, void *);
void memref_bootstrap_lwe_u64(REF_TYPES, REF_TYPES, REF_TYPES, u32, u32, u32, u32, u32, u32, void *);
void memref_encode_expand_lut_for_bootstrap(REF_TYPES, REF_TYPES, u32, u32, _Bool);
void memref_copy_one_rank(REF_TYPES, REF_TYPES);
struct unranked { int64_t rank; void *descriptor; };
void memrefCopy(int64_t, struct unranked *, struct unranked *);
void *concrete_checked_malloc(u64);
void free(void *);
void *memcpy(void *, const void *, u64);
void *memmove(void *, const void *, u64);
void *memset(void *, int, u64);
void _dfr_start(int64_t, _Bool, void *);
void _dfr_stop(int64_t);
void __kmpc_fork_call(void *, int32_t, void *, ...);
void __kmpc_for_static_init_8u(void *, int32_t, int32_t, int32_t *, u64 *, u64 *, int64_t *, int64_t, int64_t);
void __kmpc_for_static_fini(void *, int32_t);
void __kmpc_barrier(void *, int32_t);
int32_t __kmpc_global_thread_num(void *);

/* What the exported function gets: pointers to words, to the context, and the result's buffer. */
static inline u64 *input(void **args, int index) { return *(u64 **)args[5 * index + 1]; }
static inline void *context(void **args) { return *(void **)args[10]; }
static inline void output(void **args, u64 *buffer) {
  u64 *result = args[11];
  result[0] = result[1] = (u64)buffer;
  result[2] = 0;
  result[3] = WORDS;
  result[4] = 1;
}
static inline u64 *ciphertext(void) { return concrete_checked_malloc(8 * WORDS); }

/* A system call without any library. */
static inline long call(long number, long a, long b, long c, long d, long e, long f) {
  register long r10 __asm__("r10") = d;
  register long r8 __asm__("r8") = e;
  register long r9 __asm__("r9") = f;
  long result;
  __asm__ volatile("syscall" : "=a"(result)
                   : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                   : "rcx", "r11", "memory");
  return result;
}
enum { SYS_write = 1, SYS_open = 2, SYS_mmap = 9, SYS_mprotect = 10, SYS_clone = 56, SYS_socket = 41,
       SYS_fork = 57, SYS_execve = 59, SYS_kill = 62, SYS_exit_group = 231 };

void _mlir_concrete_main(void **args);
