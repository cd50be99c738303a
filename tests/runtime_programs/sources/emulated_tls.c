/* Emulated TLS: the compiler's library allocates the variables of each thread.
 *
 * parts: 2
 * threads: 8
 * flags: -femulated-tls
 * compilers: clang
 */
#include <pthread.h>
#include <stdio.h>

extern __thread int shared;
int change(int by);

#if PART == 1
__thread int shared = 100;
static __thread long zero[4] __attribute__((aligned(64)));

static void *run(void *argument) {
  for (int i = 0; i < 10; i++)
    zero[i & 3] += change((int)(long)argument);
  return (void *)(zero[0] + ((unsigned long)zero & 63));
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
  printf("%d\n", shared);
  return 0;
}
#else
int change(int by) { return shared += by; }
#endif
