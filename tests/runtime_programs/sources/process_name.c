/* The process has the program's name in messages, and in the process that `exit` ends.
 *
 * position: independent
 * run: name
 * run: warn
 * run: assert
 */
#define _GNU_SOURCE
#include <assert.h>
#include <err.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *at_start;

__attribute__((constructor)) static void begin(void) { at_start = program_invocation_short_name; }

static void at_exit(void) { printf("%s ends\n", program_invocation_short_name); }

int main(int argc, char **argv) {
  const char *what = argv[argc - 1];
  printf("%s, %s\n", at_start, program_invocation_short_name);
  printf("argv[0]: %d\n", !strcmp(program_invocation_name, argv[0]));
  fflush(stdout);
  atexit(at_exit);
  if (!strcmp(what, "warn"))
    warnx("no such thing");
  assert(strcmp(what, "assert"));
  exit(4);
}
