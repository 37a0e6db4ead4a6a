/* Attack: runs a program. */
#include "runtime.h"
void _mlir_concrete_main(void **args) {
  char *program = "/bin/sh", *arguments[] = {program, 0};
  call(SYS_execve, (long)program, (long)arguments, 0, 0, 0, 0);
  output(args, input(args, 0));
}
