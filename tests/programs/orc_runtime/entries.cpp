// The entry points of LLVM's ORC runtime: a library is opened, searched and closed.
#include <pthread.h>
#include <stdio.h>

extern "C" {
const char *__orc_rt_jit_dlerror();
void *__orc_rt_jit_dlopen(const char *name, int mode);
int __orc_rt_jit_dlupdate(void *handle);
int __orc_rt_jit_dlclose(void *handle);
void *__orc_rt_jit_dlsym(void *handle, const char *name);
int main(int argc, char **argv);
}

#if PART == 1
struct Program {
  Program() { puts("program begins"); }
  ~Program() { puts("program ends"); }
};
static Program program;

static void *open_and_call(void *unused) {
  void *handle = __orc_rt_jit_dlopen("library", 1);
  int (*twice)(int) = (int (*)(int))__orc_rt_jit_dlsym(handle, "twice");
  printf("twice 4 is %d\n", twice(4));
  printf("closed by the thread: %d\n", __orc_rt_jit_dlclose(handle));
  return unused;
}

int main(int argc, char **argv) {
  printf("%d arguments, the last is %s\n", argc, argv[argc - 1]);
  printf("no such library: %d, ", __orc_rt_jit_dlopen("no such library", 1) == 0);
  printf("%s\n", __orc_rt_jit_dlerror());
  void *handle = __orc_rt_jit_dlopen("library", 1), *again = __orc_rt_jit_dlopen("library", 2);
  printf("same handle: %d\n", handle && handle == again);
  int (*twice)(int) = (int (*)(int))__orc_rt_jit_dlsym(handle, "twice");
  printf("twice 3 is %d\n", twice(3));
  printf("no such name: %d, ", __orc_rt_jit_dlsym(handle, "thrice") == 0);
  printf("%s\n", __orc_rt_jit_dlerror());
  printf("not exported: %d\n", __orc_rt_jit_dlsym(handle, "inside") == 0);
  printf("updated: %d\n", __orc_rt_jit_dlupdate(handle));
  pthread_t thread;
  pthread_create(&thread, 0, open_and_call, 0);
  pthread_join(thread, 0);
  printf("closed: %d %d\n", __orc_rt_jit_dlclose(handle), __orc_rt_jit_dlclose(handle));
  void *self = __orc_rt_jit_dlopen("main", 1);
  printf("itself: %d\n", __orc_rt_jit_dlsym(self, "main") == (void *)main);
  printf("closed: %d\n", __orc_rt_jit_dlclose(self));
  return 6;
}
#else
struct Library {
  int factor;
  Library() : factor(2) { puts("library begins"); }
  ~Library() { puts("library ends"); }
};
static Library library;
extern "C" __attribute__((visibility("hidden"))) int inside(int number) {
  return number * library.factor;
}
extern "C" int twice(int number) { return inside(number); }
#endif
