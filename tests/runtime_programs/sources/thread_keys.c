/* Keys with destructors, pthread_once, a barrier, a condition and a read-write lock; 8 threads.
 *
 * threads: 8
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

static pthread_key_t key;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
static pthread_rwlock_t lock = PTHREAD_RWLOCK_INITIALIZER;
static int made, destroyed, turn, reads;

static void destroy(void *value) {
  pthread_mutex_lock(&mutex);
  destroyed += *(int *)value;
  pthread_mutex_unlock(&mutex);
  free(value);
}
static void make(void) {
  made++;
  pthread_key_create(&key, destroy);
}

static void *run(void *argument) {
  int number = (int)(long)argument, *own = malloc(sizeof *own);
  pthread_once(&once, make);
  *own = number + 1;
  pthread_setspecific(key, own);
  for (int i = 0; i < 100; i++) {
    pthread_rwlock_rdlock(&lock);
    __atomic_fetch_add(&reads, 1, __ATOMIC_RELAXED);
    pthread_rwlock_unlock(&lock);
  }
  pthread_mutex_lock(&mutex);
  while (turn != number)
    pthread_cond_wait(&condition, &mutex);
  printf("turn of %d\n", number);
  turn++;
  pthread_cond_broadcast(&condition);
  pthread_mutex_unlock(&mutex);
  return 0;
}

int main(void) {
  pthread_t threads[8];
  for (long i = 7; i >= 0; i--)
    pthread_create(&threads[i], 0, run, (void *)i);
  for (int i = 0; i < 8; i++)
    pthread_join(threads[i], 0);
  printf("%d %d %d\n", made, destroyed, reads);
  return 0;
}
