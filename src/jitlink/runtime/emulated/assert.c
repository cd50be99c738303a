/* What assert calls, and stack protectors, by the names of glibc and of musl. */
#include "library.h"

int fprintf(FILE *file, const char *format, ...);

_Noreturn void __assert_fail(const char *expression, const char *file, unsigned line,
                             const char *function) {
  fflush(stdout);
  fprintf(stderr, "%s:%u: %s: Assertion `%s' failed.\n", file, line, function ? function : "?",
          expression);
  __jitlink_host_abort();
}

uintptr_t __stack_chk_guard = 0x595e9fbd;

_Noreturn void __stack_chk_fail(void) {
  fprintf(stderr, "*** stack smashing detected ***\n");
  __jitlink_host_abort();
}
