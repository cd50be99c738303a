/* exit called by an initialiser: main never runs, handlers and finalisers do. */
#include <stdio.h>
#include <stdlib.h>

static void handler(void) { puts("handler"); }
__attribute__((constructor(200))) static void first(void) {
  atexit(handler);
  puts("first");
}
__attribute__((constructor(300))) static void second(void) {
  puts("second");
  exit(23);
}
__attribute__((constructor(400))) static void third(void) { puts("not reached"); }
__attribute__((destructor)) static void finish(void) { puts("finish"); }

int main(void) {
  puts("not reached");
  return 0;
}
