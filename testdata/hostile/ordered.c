/* Attack: does what the test writes into `order` before it is loaded, then goes on as if nothing was. */
#include "runtime.h"
enum { SYSTEM_CALL, OLD_SYSTEM_CALL, VIRTUAL_SYSTEM_CALL, BREAKPOINT, DIVISION, HALT, SINGLE_STEP,
       UNALIGNED, THREAD_BASE, OTHER_BASE, CLOCK };
static volatile struct { char mark[16]; long way, number, arguments[6]; } order = {
    {'o', 'r', 'd', 'e', 'r', ' ', 'b', 'y', ' ', 't', 'h', 'e', ' ', 't', 'e', 's'}, -1, -1, {0}};
void _mlir_concrete_main(void **args) {
  volatile long *a = order.arguments;
  long result = order.number;
  switch (order.way) {
  case SYSTEM_CALL: call(order.number, a[0], a[1], a[2], a[3], a[4], a[5]); break;
  case OLD_SYSTEM_CALL:
    __asm__ volatile("int $0x80" : "+a"(result) : "b"(a[0]), "c"(a[1]), "d"(a[2]) : "memory");
    break;
  case VIRTUAL_SYSTEM_CALL: ((long (*)(long, long))(0xffffffffff600000 + 1024 * result))(0, 0); break;
  case BREAKPOINT: __asm__ volatile("int3"); break;
  case DIVISION: __asm__ volatile("xor %%edx, %%edx; div %%rdx" : "+a"(result) : : "rdx"); break;
  case HALT: __asm__ volatile("hlt"); break;
  case SINGLE_STEP: __asm__ volatile("pushf; orq $0x100, (%%rsp); popf; nop" : : : "memory", "cc"); break;
  case UNALIGNED:
    __asm__ volatile("pushf; orq $0x40000, (%%rsp); popf; movq 1(%%rsp), %%rax" : : : "rax", "memory", "cc");
    break;
  case THREAD_BASE: __asm__ volatile("wrfsbase %0" : : "r"(a)); break;
  case OTHER_BASE: __asm__ volatile("wrgsbase %0" : : "r"(a)); break;
  case CLOCK: __asm__ volatile("rdtsc; rdtscp" : : : "rax", "rcx", "rdx"); break;
  }
  u64 *sum = ciphertext();
  memref_add_lwe_ciphertexts_u64(REF(sum, WORDS), REF(input(args, 0), WORDS), REF(input(args, 1), WORDS));
  output(args, sum);
}
