/* Destructors of thread-local objects, as compilers register them. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

extern char __dso_handle;
int __cxa_thread_atexit_impl(void (*)(void *), void *, void *);

static void say(void *text) { puts(text); }
static void more(void *text) {
  puts(text);
  __cxa_thread_atexit_impl(say, "registered by a destructor", &__dso_handle);
}

static void *run(void *unused) {
  __cxa_thread_atexit_impl(say, "first of the thread", &__dso_handle);
  __cxa_thread_atexit_impl(more, "second of the thread", &__dso_handle);
  puts("the thread ends");
  return unused;
}

static void at_exit(void) { puts("at exit"); }

int main(int argc, char **argv) {
  pthread_t thread;
  (void)argv;
  atexit(at_exit);
  __cxa_thread_atexit_impl(say, "of the main thread", &__dso_handle);
  pthread_create(&thread, 0, run, 0);
  pthread_join(thread, 0);
  puts("main ends");
  if (argc > 1)
    exit(2);
  return 3;
}
