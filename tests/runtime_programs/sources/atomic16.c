/* Atomic objects of 16 and 24 bytes, changed by 8 threads: functions of libatomic.
 *
 * links: atomic
 * threads: 8
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

struct pair { unsigned long a, b; };
struct triple { unsigned long a, b, c; };
static _Atomic struct pair pair;
static _Atomic struct triple triple;
static atomic_long plain;

static void *add(void *unused) {
  for (int i = 0; i < 2000; i++) {
    struct pair seen = atomic_load(&pair), next;
    do
      next = (struct pair){seen.a + 1, seen.b + 3};
    while (!atomic_compare_exchange_strong(&pair, &seen, next));
    struct triple old = atomic_load(&triple), then;
    do
      then = (struct triple){old.a + 1, old.b + 2, old.c + 3};
    while (!atomic_compare_exchange_strong(&triple, &old, then));
    atomic_fetch_add(&plain, 5);
  }
  return unused;
}

int main(void) {
  pthread_t threads[8];
  for (int i = 0; i < 8; i++)
    pthread_create(&threads[i], 0, add, 0);
  for (int i = 0; i < 8; i++)
    pthread_join(threads[i], 0);
  struct pair one = atomic_load(&pair);
  struct triple other = atomic_load(&triple);
  printf("%lu %lu, %lu %lu %lu, %ld\n", one.a, one.b, other.a, other.b, other.c, plain);
  return 0;
}
