/* Alignment, size and initialisation images of thread-local variables, in 8 threads.
 *
 * threads: 8
 * position: independent
 */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

static __thread char one = 'a';
static __thread char lines[64] __attribute__((aligned(64))) = "aligned";
static __thread int number __attribute__((aligned(256)));
static __thread char big[20000] __attribute__((aligned(32)));
static const char *const word = "pointed at";
static __thread const char *const *pointer = &word;
static __thread char *self = 0;

static void *run(void *argument) {
  long bad = 0;
  bad += (uintptr_t)lines % 64 != 0;
  bad += (uintptr_t)&number % 256 != 0;
  bad += (uintptr_t)big % 32 != 0;
  for (size_t i = 0; i < sizeof big; i++)
    bad += big[i] != 0;
  bad += strcmp(lines, "aligned") != 0 || one != 'a' || number != 0 || self != 0;
  bad += strcmp(*pointer, "pointed at") != 0;
  memset(big, (int)(long)argument, sizeof big);
  lines[0] = one = (char)(long)argument;
  number++;
  self = big;
  return (void *)(bad * 1000 + big[19999]);
}

int main(void) {
  pthread_t threads[8];
  for (long i = 0; i < 8; i++)
    pthread_create(&threads[i], 0, run, (void *)i);
  for (int i = 0; i < 8; i++) {
    void *result;
    pthread_join(threads[i], &result);
    printf("%ld\n", (long)result);
  }
  printf("%ld %c\n", (long)run((void *)9L), one == 9 ? 'y' : 'n');
  return 0;
}
