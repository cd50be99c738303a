/* Signal handlers: with information, on a stack of their own, while blocked, in a thread. */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static volatile sig_atomic_t seen[4];
static char stack[1 << 16];

static void with_information(int number, siginfo_t *information, void *context) {
  char here;
  seen[0] += information->si_signo == number && context;
  seen[1] += &here >= stack && &here < stack + sizeof stack;
  seen[2] = information->si_value.sival_int;
}
static void plain(int number) { seen[3] += number == SIGUSR2; }

static void *thread(void *unused) {
  pthread_kill(pthread_self(), SIGUSR2);
  return unused;
}

int main(void) {
  stack_t place = {.ss_sp = stack, .ss_size = sizeof stack};
  struct sigaction action;
  sigset_t blocked, pending;
  pthread_t other;
  memset(&action, 0, sizeof action);
  action.sa_sigaction = with_information;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigaltstack(&place, 0);
  sigaction(SIGUSR1, &action, 0);
  signal(SIGUSR2, plain);
  raise(SIGUSR1);
  sigqueue(getpid(), SIGUSR1, (union sigval){.sival_int = 77});
  printf("%d %d %d\n", seen[0], seen[1], seen[2]);
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGUSR2);
  pthread_sigmask(SIG_BLOCK, &blocked, 0);
  raise(SIGUSR2);
  sigpending(&pending);
  printf("pending %d, seen %d\n", sigismember(&pending, SIGUSR2), seen[3]);
  pthread_sigmask(SIG_UNBLOCK, &blocked, 0);
  pthread_create(&other, 0, thread, 0);
  pthread_join(other, 0);
  printf("seen %d\n", seen[3]);
  return 0;
}
