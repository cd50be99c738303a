/* The library that plugin_host.c opens. */
#include <stdio.h>
#include <stdlib.h>

static int factor;

static void at_exit(void) { puts("plugin's handler"); }
__attribute__((constructor)) static void begin(void) {
  factor = 2;
  atexit(at_exit);
  puts("plugin begins");
}
__attribute__((destructor)) static void end(void) { puts("plugin ends"); }
__attribute__((destructor(150))) static void last(void) { puts("plugin ends, last of all"); }
__attribute__((visibility("hidden"))) int inside(int number) { return number * factor; }
int twice(int number) { return inside(number); }
