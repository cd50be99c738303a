/* Initialisers, handlers and finalisers of a program and of the library that it is linked against. */
#include <stdio.h>
#include <stdlib.h>

#if PART == 1
#define WHO "program"
#else
#define WHO "library"
#endif

void in_library(void);

static void at_exit(void) { puts(WHO ": at exit"); }
static void at_exit_later(void) { puts(WHO ": at exit, registered later"); }
__attribute__((constructor)) static void begin(void) {
  puts(WHO ": begin");
  atexit(at_exit);
}
__attribute__((destructor)) static void end(void) { puts(WHO ": end"); }
__attribute__((destructor(200))) static void late_end(void) { puts(WHO ": late end"); }

#if PART == 1
int main(int argc, char **argv) {
  (void)argv;
  puts("main");
  in_library();
  atexit(at_exit_later);
  in_library();
  if (argc > 1)
    exit(3);
  return 4;
}
#else
void in_library(void) { atexit(at_exit_later); }
#endif
