/* Thread-local state of the process's libraries: errno, dlerror, strtok, and 8 threads.
 *
 * threads: 8
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static pthread_barrier_t barrier;

static void *run(void *argument) {
  long number = (long)argument;
  int failed = number % 2 ? open("/no such file", O_RDONLY) : close(-1);
  pthread_barrier_wait(&barrier);
  long result = failed == -1 ? errno : -1;
  errno = (int)number;
  pthread_barrier_wait(&barrier);
  return (void *)(result * 100 + errno);
}

int main(void) {
  pthread_t threads[8];
  errno = 0;
  pthread_barrier_init(&barrier, 0, 8);
  for (long i = 0; i < 8; i++)
    pthread_create(&threads[i], 0, run, (void *)i);
  for (int i = 0; i < 8; i++) {
    void *result;
    pthread_join(threads[i], &result);
    printf("%ld\n", (long)result);
  }
  printf("main %d\n", errno);
  printf("%s %d\n", chdir("/no such folder") ? strerror(errno) : "?", dlerror() == 0);
  return 0;
}
