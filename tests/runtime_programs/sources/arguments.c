/* Arguments, environment and auxiliary vector are one block, for constructors and for main.
 *
 * position: independent
 * run: one
 * run: one two three
 */
#include <elf.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>

extern char **environ;
static char **first_argv, **first_envp;
static int first_argc;

/* Walks the block as the start-up code of Go, Rust and others does, from argv alone. */
static void walk(const char *who, int argc, char **argv, char **envp) {
  char **each = argv + argc;
  printf("%s: argc %d, before argv %ld, null %d, ", who, argc, ((long *)argv)[-1], !*each);
  printf("envp follows %d, is environ %d, ", ++each == envp, envp == environ);
  printf("aligned %d, ", (int)((uintptr_t)argv % 16));
  while (*each)
    ++each;
  size_t count = 0, known = 0;
  for (uintptr_t *vector = (uintptr_t *)(each + 1); vector[0] != AT_NULL; vector += 2) {
    ++count;
    known += vector[0] == AT_PAGESZ && vector[1] == getauxval(AT_PAGESZ);
    known += vector[0] == AT_RANDOM && vector[1] == getauxval(AT_RANDOM);
    known += vector[0] == AT_SYSINFO_EHDR && vector[1] == getauxval(AT_SYSINFO_EHDR);
  }
  printf("%zu entries, %zu known\n", count, known);
}

/* The texts are contiguous, which programs that change their title rely on. */
static void texts(int argc, char **argv, char **envp) {
  int gaps = 0;
  char *place = argv[0];
  for (char **each = argv; each < argv + argc; place += strlen(place) + 1)
    gaps += *each++ != place;
  for (char **each = envp; *each; place += strlen(place) + 1)
    gaps += *each++ != place;
  printf("%d gaps\n", gaps);
}

static void begin(int argc, char **argv, char **envp) {
  first_argc = argc;
  first_argv = argv;
  first_envp = envp;
  walk("constructor", argc, argv, envp);
}
__attribute__((section(".init_array.50"), used)) static void (*const early)(int, char **,
                                                                            char **) = begin;

__attribute__((constructor)) static void late(int argc, char **argv, char **envp) {
  walk("later constructor", argc, argv, envp);
  texts(argc, argv, envp);
}

int main(int argc, char **argv, char **envp) {
  walk("main", argc, argv, envp);
  printf("same %d %d %d\n", argc == first_argc, argv == first_argv, envp == first_envp);
  for (int each = 1; each < argc; ++each)
    printf("%s ", argv[each]);
  setenv("JITLINK_ADDED", "value", 1);
  printf("%s %d\n", getenv("JITLINK_ADDED"), envp == environ);
  return argc;
}
