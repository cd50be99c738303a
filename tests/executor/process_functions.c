/* Functions for an executor to call. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int counter;
int *const nothing = 0;

/* A symbol whose value is null. */
__asm__(".globl null_symbol\n.set null_symbol, 0\n");

/* Prints its arguments; returns 1 if they do not conform to C. */
int print_arguments(int argc, char **argv, char **environment) {
  if (argv[argc] != NULL)
    return 1;
  for (int i = 0; i < argc; ++i) {
    printf("[%s]", argv[i]);
    argv[i][0] = '!'; /* they are writable */
  }
  if (environment == NULL || environment[0] == NULL)
    return 1;
  return argc > 1 ? -2 : 44;
}

static char **kept;

int keep_arguments(int argc, char **argv) {
  kept = argv;
  return argc;
}

int read_kept(void) { return kept[1][0]; }

int leave(int argc, char **argv) {
  printf("leaving");
  exit(argc + 10);
}

int count(void) { return ++counter; }

int negate(int value) { return -value; }
