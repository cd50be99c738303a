/* The main thread is the only one of its process at first, and may end before others.
 *
 * run: count
 * run: exit
 * run: leave
 * run: namespace
 * threads: 2
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int thread_count(void) {
  DIR *tasks = opendir("/proc/self/task");
  int count = 0;
  for (struct dirent *each; (each = readdir(tasks));)
    count += each->d_name[0] != '.';
  closedir(tasks);
  return count;
}

static int at_start;
static void handler(void) { puts("exit handler"); }

__attribute__((constructor)) static void begin(void) {
  at_start = thread_count();
  atexit(handler);
}
__attribute__((destructor)) static void end(void) { puts("destructor"); }

static void *work(void *main_thread) {
  /* Returns when the main thread has ended. */
  pthread_join(*(pthread_t *)main_thread, 0);
  puts("the other thread goes on");
  return 0;
}

int main(int argc, char **argv) {
  static pthread_t main_thread;
  const char *what = argv[argc - 1];
  printf("threads: %d, %d\n", at_start, thread_count());
  if (!strcmp(what, "namespace")) {
    /* The system refuses this to a process with several threads. */
    int failed = unshare(CLONE_NEWUSER);
    printf("unshare: %s\n", failed ? strerror(errno) : "done");
  }
  if (!strcmp(what, "leave")) {
    pthread_t other;
    main_thread = pthread_self();
    pthread_create(&other, 0, work, &main_thread);
  }
  if (!strcmp(what, "leave") || !strcmp(what, "exit"))
    pthread_exit(0);
  return 3;
}
