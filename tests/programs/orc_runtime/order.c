/* Initialisers with priorities, of one object; finalisers and `atexit` handlers do not run. */
#include <stdio.h>
#include <stdlib.h>

extern char __dso_handle;
int __cxa_atexit(void (*)(void *), void *, void *);

static void say(void *text) { puts(text); }
static void never(void) { puts("a handler of atexit"); }

__attribute__((constructor)) static void plain(void) {
  puts("plain");
  __cxa_atexit(say, "registered first", &__dso_handle);
  __cxa_atexit(say, "registered second", &__dso_handle);
  atexit(never);
}
__attribute__((constructor(200))) static void second(void) { puts("200"); }
__attribute__((constructor(1000))) static void third(void) { puts("1000"); }
__attribute__((constructor(150))) static void first(void) { puts("150"); }
__attribute__((destructor)) static void last(void) { puts("a finaliser"); }

int main(int argc, char **argv) {
  printf("main %d %s\n", argc, argv[argc - 1]);
  return argc;
}
