// Cancelled threads: destructors and catch (...) run, 8 at once.
//
// threads: 8
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

static int destroyed, seen, ends[2];
struct Guard { ~Guard() { __sync_fetch_and_add(&destroyed, 1); } };

static void wait_inside(int depth) {
  Guard guard;
  char byte;
  if (depth)
    wait_inside(depth - 1);
  else if (read(ends[0], &byte, 1) >= 0)
    puts("not reached");
}
static void *run(void *) {
  Guard guard;
  try {
    wait_inside(4);
  } catch (...) {
    __sync_fetch_and_add(&seen, 1);
    throw;
  }
  return nullptr;
}
int main() {
  pthread_t threads[8];
  int cancelled = 0;
  if (pipe(ends))
    return 1;
  for (auto &thread : threads)
    pthread_create(&thread, nullptr, run, nullptr);
  usleep(1000);
  for (auto &thread : threads)
    pthread_cancel(thread);
  for (auto &thread : threads) {
    void *result;
    pthread_join(thread, &result);
    cancelled += result == PTHREAD_CANCELED;
  }
  // Also threads that were cancelled before they reached read.
  printf("%d %d\n", cancelled, destroyed >= seen * 6);
  return 0;
}
