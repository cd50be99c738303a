// Inline variables, statics of templates and of functions: one of each in two objects, 8 threads.
//
// parts: 2
// threads: 8
#include <pthread.h>
#include <stdio.h>

inline int constructed;
struct Counter {
  int value;
  explicit Counter(int start) : value(start) { printf("counter %d\n", ++constructed); }
};
inline Counter shared{5};
template <int N> struct Holder { static Counter counter; };
template <int N> Counter Holder<N>::counter{N};
inline Counter &guarded() {
  static Counter counter{__sync_fetch_and_add(&constructed, 0)};
  return counter;
}
inline const char *text() { return "same literal"; }
const void *addresses(int which);

#if PART == 1
static void *run(void *) {
  for (int i = 0; i < 100; i++)
    __sync_fetch_and_add(&guarded().value, 1);
  return nullptr;
}
int main() {
  pthread_t threads[8];
  for (auto &thread : threads)
    pthread_create(&thread, nullptr, run, nullptr);
  for (auto &thread : threads)
    pthread_join(thread, nullptr);
  printf("%d %d %d\n", constructed, shared.value, guarded().value);
  printf("%d", addresses(0) == &shared);
  printf("%d", addresses(1) == &Holder<7>::counter);
  printf("%d", addresses(2) == &guarded());
  printf("%d\n", addresses(3) == reinterpret_cast<const void *>(&text));
}
#else
const void *addresses(int which) {
  const void *all[] = {&shared, &Holder<7>::counter, &guarded(),
                       reinterpret_cast<const void *>(&text)};
  return all[which];
}
#endif
