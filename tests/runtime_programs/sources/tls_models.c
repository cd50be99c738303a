/* Thread-local variables under every model, in 8 threads and across two objects.
 *
 * parts: 2
 * threads: 8
 * flags: -ftls-model=global-dynamic
 * flags: -ftls-model=local-dynamic
 * flags: -ftls-model=initial-exec
 * flags: -ftls-model=local-exec
 * flags: -mtls-dialect=gnu2
 */
#include <pthread.h>
#include <stdio.h>

extern __thread int shared;
extern __thread long zeroes[100];
long step(int by);

#if PART == 1
__thread int shared = 40;
__thread long zeroes[100];
static __thread char text[8] = "text";
static __thread int first = 1, second = 2;

static void *run(void *argument) {
  int number = (int)(long)argument;
  for (int i = 0; i < 1000; i++)
    shared += (int)step(number) != 0, first += number, text[0] = 'A';
  int *pointer = &second;
  *pointer += first;
  zeroes[99] += shared;
  return (void *)(zeroes[99] + second + text[0] + text[3] + zeroes[1]);
}

int main(void) {
  pthread_t threads[8];
  for (long i = 0; i < 8; i++)
    pthread_create(&threads[i], 0, run, (void *)i);
  for (int i = 0; i < 8; i++) {
    void *result;
    pthread_join(threads[i], &result);
    printf("thread %d: %ld\n", i, (long)result);
  }
  printf("main: %d %s %ld\n", shared, text, zeroes[99]);
  printf("%ld\n", (long)run((void *)100));
  return shared & 127;
}
#else
static __thread long own = 7;
static __thread short pad[3] = {1, 2, 3};
long step(int by) {
  own += by;
  pad[2]++;
  zeroes[1] = own + pad[2];
  return shared > 10 ? own : 0;
}
#endif
