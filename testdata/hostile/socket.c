/* Attack: opens a socket. */
#include "runtime.h"
void _mlir_concrete_main(void **args) { call(SYS_socket, 2, 1, 0, 0, 0, 0); output(args, input(args, 0)); }
