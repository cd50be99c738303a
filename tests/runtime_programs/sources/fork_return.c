/* A child that returns from main: a process of its own, with its own exit status and handlers. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static pid_t program;

static void at_exit(void) { puts(getpid() == program ? "parent ends" : "child ends"); }

int main(void) {
  int status = 0;
  program = getpid();
  atexit(at_exit);
  fflush(stdout);
  pid_t pid = fork();
  if (pid == 0) {
    puts("child");
    return 5;
  }
  waitpid(pid, &status, 0);
  printf("status %d\n", WIFEXITED(status) ? WEXITSTATUS(status) : -1);
  return 0;
}
