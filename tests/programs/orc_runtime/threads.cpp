// Eight threads that throw, catch, and open and close their own program.
#include <pthread.h>
#include <stdio.h>

extern "C" {
void *__orc_rt_jit_dlopen(const char *name, int mode);
int __orc_rt_jit_dlclose(void *handle);
}
int thrower(int what);

#if PART == 1
struct Guard {
  int &count;
  ~Guard() { ++count; }
};

static void *run(void *argument) {
  long sum = 0;
  int unwound = 0;
  for (int round = 0; round < 50; ++round) {
    void *handle = __orc_rt_jit_dlopen("main", 1);
    try {
      Guard guard{unwound};
      sum += thrower(round);
    } catch (int number) {
      sum += number * 1000;
    }
    sum += __orc_rt_jit_dlclose(handle);
  }
  *(long *)argument = sum + unwound;
  return 0;
}

int main() {
  pthread_t threads[8];
  long sums[8];
  for (int each = 0; each < 8; ++each)
    pthread_create(&threads[each], 0, run, &sums[each]);
  for (int each = 0; each < 8; ++each) {
    pthread_join(threads[each], 0);
    printf("%ld\n", sums[each]);
  }
  return 0;
}
#else
int thrower(int what) {
  if (what % 3 == 0)
    throw what;
  return what;
}
#endif
