/* The end of a program. */
#include "library.h"

/* There is no environment. */
static char *no_environment[1];
char **environ = no_environment;

char *getenv(const char *name) {
  (void)name;
  return 0;
}

_Noreturn void abort(void) { __jitlink_host_abort(); }

_Noreturn void _Exit(int status) { __jitlink_host_exit(status); }

_Noreturn void _exit(int status) { __jitlink_host_exit(status); }

/* The host runs handlers, and flushes output, when it has ended the program. */
_Noreturn void exit(int status) { __jitlink_host_exit(status); }
