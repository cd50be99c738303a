/* quick_exit runs the handlers of at_quick_exit and no others. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>

static void one(void) { puts("one"); fflush(0); }
static void two(void) { puts("two"); }
static void never(void) { puts("never"); fflush(0); }

__attribute__((destructor)) static void finish(void) { never(); }

int main(void) {
  atexit(never);
  at_quick_exit(one);
  at_quick_exit(two);
  quick_exit(6);
}
