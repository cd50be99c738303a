/* The stack of a function that a call has reached, as unwind information describes it. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <execinfo.h>
#include <string.h>

/* Nine arguments: some are on the stack, an odd number of words. */
int reaches_the_start(int a, int b, int c, int d, int e, int f, int g, int h, int i) {
  void *frames[64];
  int count = backtrace(frames, 64);
  Dl_info last;
  if (a + b + c + d + e + f + g + h + i != 45 || count < 4 || !dladdr(frames[count - 1], &last))
    return 0;
  /* The first function of the process, or that of a thread, which is the C library's. */
  return strstr(last.dli_fname, "libc.so") || strstr(last.dli_fname, "jitlink-executor");
}
