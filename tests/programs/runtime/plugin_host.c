/* A program that opens a library, which natively is a file and here a JITDylib. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NAME "./plugin.so"

static void *open_and_call(void *unused) {
  void *handle = dlopen(NAME, RTLD_NOW);
  int (*function)(int) = dlsym(handle, "twice");
  printf("twice 4 is %d\n", function(4));
  dlclose(handle);
  return unused;
}

static void at_exit(void) { puts("program's handler"); }

int main(void) {
  Dl_info information;
  pthread_t thread;
  atexit(at_exit);
  void *handle = dlopen(NAME, RTLD_NOW), *again = dlopen(NAME, RTLD_LAZY);
  if (!handle) {
    printf("cannot open: %s\n", dlerror());
    return 1;
  }
  printf("same handle: %d\n", handle == again);
  printf("only if loaded: %d\n", dlopen(NAME, RTLD_NOW | RTLD_NOLOAD) == handle);
  dlclose(handle);
  int (*function)(int) = dlsym(handle, "twice");
  printf("twice 3 is %d\n", function(3));
  printf("missing: %d\n", dlsym(handle, "no_such_thing") == 0);
  printf("an error: %d\n", dlerror() != 0);
  printf("and then none: %d\n", dlerror() == 0);
  printf("hidden: %d\n", dlsym(handle, "inside") == 0 && dlerror());
  if (dladdr((void *)function, &information))
    printf("%s in %s, at itself: %d\n", information.dli_sname, strrchr(information.dli_fname, 'p'),
           information.dli_saddr == (void *)function);
  printf("puts: %d\n", dlsym(RTLD_DEFAULT, "puts") == (void *)puts);
  printf("through the library: %d\n", dlsym(handle, "strlen") != 0);
  printf("missing library: %d\n", dlopen("./no such library.so", RTLD_NOW) == 0 && dlerror());
  void *math = dlopen("libm.so.6", RTLD_NOW);
  double (*cosine)(double) = (double (*)(double))dlsym(math, "cos");
  printf("cos 0 is %g\n", cosine(0));
  printf("closed: %d\n", dlclose(math) == 0);
  pthread_create(&thread, 0, open_and_call, 0);
  pthread_join(thread, 0);
  puts("closing");
  dlclose(handle);
  dlclose(handle);
  puts("closed");
  return 0;
}
