// Forced unwinding runs destructors, and a handler must rethrow it.
#include <cstdio>
#include <pthread.h>

struct Guard {
  const char *text;
  ~Guard() { std::printf("~Guard %s\n", text); }
};
void leave(int depth);

#if PART == 1
static void *run(void *) {
  Guard guard{"run"};
  try {
    leave(2);
  } catch (int) {
    std::puts("not reached");
  } catch (...) {
    std::puts("on the way");
    throw;
  }
  return nullptr;
}
int main() {
  pthread_t thread;
  void *result;
  pthread_create(&thread, nullptr, run, nullptr);
  pthread_join(thread, &result);
  std::printf("%ld\n", reinterpret_cast<long>(result));
}
#else
void leave(int depth) {
  Guard guard{"leave"};
  if (depth)
    leave(depth - 1);
  pthread_exit(reinterpret_cast<void *>(13));
}
#endif
