/* Needs a relocation that Concrete's objects do not have (R_X86_64_64). */
#include "runtime.h"
u64 visible = 1;
u64 *pointer = &visible;
void _mlir_concrete_main(void **args) { output(args, pointer); }
