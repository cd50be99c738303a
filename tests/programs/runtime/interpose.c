/* A function that interposes the C library's, and calls it. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

int abs(int number) {
  int (*next)(int) = (int (*)(int))dlsym(RTLD_NEXT, "abs");
  printf("abs of %d\n", number);
  return next(number) + 100;
}

int main(int argc, char **argv) {
  (void)argv;
  int (*first)(int) = (int (*)(int))dlsym(RTLD_DEFAULT, "abs");
  printf("the first is %s\n", first ? "there" : "missing");
  return first ? first(-argc) : 0;
}
