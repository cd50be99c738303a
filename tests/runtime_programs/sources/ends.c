/* Every way to end a process, with its exit status and the handlers that run.
 *
 * run: return
 * run: exit
 * run: nested
 * run: quick_exit
 * run: _Exit
 * run: abort
 * run: signal
 * run: thread
 * run: pthread_exit
 */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void say(const char *text) {
  if (write(1, text, strlen(text)) < 0)
    _exit(99);
}
static void quick(void) { say("quick handler\n"); }
static void again(void) { say("handler of a handler\n"); }
static void handler(void) {
  say("handler\n");
  atexit(again);
}
__attribute__((destructor)) static void finish(void) { say("finish\n"); }
static void *thread(void *status) { exit((int)(long)status); }

int main(int argc, char **argv) {
  const char *how = argc > 1 ? argv[1] : "";
  pthread_t other;
  say("begin\n");
  atexit(handler);
  at_quick_exit(quick);
  printf("what is buffered: ");
  if (!strcmp(how, "exit"))
    exit(300); /* the low byte counts */
  if (!strcmp(how, "nested")) {
    atexit(quick);
    exit(5);
  }
  if (!strcmp(how, "quick_exit"))
    quick_exit(6);
  if (!strcmp(how, "_Exit"))
    _Exit(7);
  if (!strcmp(how, "abort"))
    abort();
  if (!strcmp(how, "signal"))
    raise(SIGTERM);
  if (!strcmp(how, "thread")) {
    pthread_create(&other, 0, thread, (void *)8L);
    pthread_join(other, 0);
  }
  if (!strcmp(how, "pthread_exit")) {
    pthread_create(&other, 0, thread, (void *)9L);
    pthread_exit(0);
  }
  return -1;
}
