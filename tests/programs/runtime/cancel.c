/* Threads that end early: their cleanup handlers run while the stack is unwound. */
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

static void clean(int *number) { printf("clean %d\n", *number); }
static void handler(void *text) { puts(text); }

static __attribute__((noinline)) void deep(int depth) {
  __attribute__((cleanup(clean))) int number = depth;
  if (depth)
    deep(depth - 1);
  else
    pthread_exit((void *)11);
  puts("not reached");
}

static void *exits(void *unused) {
  (void)unused;
  pthread_cleanup_push(handler, "handler of the thread");
  deep(3);
  pthread_cleanup_pop(0);
  return 0;
}

static int pipe_ends[2];

static void *waits(void *unused) {
  __attribute__((cleanup(clean))) int number = 100;
  char byte;
  (void)unused;
  if (read(pipe_ends[0], &byte, 1))
    puts("not reached");
  return 0;
}

int main(void) {
  pthread_t thread;
  void *result;
  pthread_create(&thread, 0, exits, 0);
  pthread_join(thread, &result);
  printf("result %d\n", (int)(long)result);
  if (pipe(pipe_ends))
    return 1;
  pthread_create(&thread, 0, waits, 0);
  pthread_cancel(thread);
  pthread_join(thread, &result);
  printf("cancelled %d\n", result == PTHREAD_CANCELED);
  return 0;
}
