/* Exit handlers: in handlers, in finalisers, and when main calls exit. */
#include <stdio.h>
#include <stdlib.h>

static int depth;

static void last_one(void) { puts("registered by a finaliser"); }
static void again(void) {
  printf("handler %d\n", depth);
  if (depth++ < 3)
    atexit(again);
}
static void before(void) {
  puts("before");
  atexit(again);
}
static void after(void) { puts("after"); }

__attribute__((destructor)) static void finish(void) {
  puts("finish");
  atexit(last_one);
}

int main(int argc, char **argv) {
  atexit(before);
  atexit(after);
  printf("%d arguments, the first is %s\n", argc - 1, argc > 1 ? argv[1] : "-");
  if (argc > 1)
    exit(37);
  return 5;
}
