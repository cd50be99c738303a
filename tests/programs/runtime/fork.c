/* Fork handlers, and exit handlers in a child. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static void prepare(void) { puts("prepare"); fflush(0); }
static void parent(void) { puts("parent"); }
static void child(void) { puts("child"); fflush(0); }
static void at_exit(void) { puts("at exit"); }

int main(void) {
  int status = 0;
  atexit(at_exit);
  if (pthread_atfork(prepare, parent, child))
    return 1;
  pid_t pid = fork();
  if (pid == 0)
    exit(9);
  waitpid(pid, &status, 0);
  printf("status %d\n", WEXITSTATUS(status));
  return 0;
}
