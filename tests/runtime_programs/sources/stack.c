/* Stack protection, variable arrays, alloca, deep recursion, over-aligned locals.
 *
 * flags: -fstack-protector-all
 * flags: -fstack-protector-all -fcf-protection=full
 */
#include <alloca.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

static __attribute__((noinline)) int sum_of(int size) {
  int numbers[size];
  char *more = alloca((size_t)size * 3);
  int local __attribute__((aligned(128))) = 4;
  memset(more, 1, (size_t)size * 3);
  for (int i = 0; i < size; i++)
    numbers[i] = i + more[i];
  return numbers[size - 1] + local + (int)((uintptr_t)&local % 128);
}
static __attribute__((noinline)) long deep(long depth) {
  volatile char buffer[200];
  buffer[0] = (char)depth;
  return depth ? deep(depth - 1) + (buffer[0] & 1) : 0;
}
static void *thread(void *unused) {
  (void)unused;
  return (void *)(deep(3000) + sum_of(50));
}

int main(void) {
  pthread_t other;
  void *result;
  printf("%d %ld\n", sum_of(100), deep(10000));
  pthread_create(&other, 0, thread, 0);
  pthread_join(other, &result);
  printf("%ld\n", (long)result);
  return 0;
}
