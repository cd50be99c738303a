// thread_local objects with constructors and destructors, of two objects, in 8 threads.
//
// parts: 2
// threads: 8
#include <pthread.h>
#include <stdio.h>

struct Object {
  int number;
  const char *name;
  Object(int n, const char *text);
  ~Object();
};
extern thread_local Object shared;
extern thread_local int computed;
inline thread_local Object common{3, "inline"};
Object &of_function();
int two();

#if PART == 1
static thread_local Object own{1, "own"};
static thread_local int plain = 5;

static void *run(void *argument) {
  long number = reinterpret_cast<long>(argument);
  if (number == 2)
    return nullptr;
  shared.number += number;
  own.number += plain++;
  common.number++;
  of_function().number += 10;
  if (number % 2)
    pthread_exit(nullptr);
  return reinterpret_cast<void *>(static_cast<long>(computed));
}
int main() {
  printf("main\n");
  for (long i = 0; i < 8; i++) {
    pthread_t thread;
    void *result;
    pthread_create(&thread, nullptr, run, reinterpret_cast<void *>(i));
    pthread_join(thread, &result);
    printf("thread %ld: %ld\n", i, reinterpret_cast<long>(result));
  }
  printf("main has %d %d\n", shared.number, plain);
  run(reinterpret_cast<void *>(100));
  return shared.number;
}
#else
thread_local Object shared{2, "shared"};
thread_local int computed = two() * 21;
int two() { return shared.number; }
Object &of_function() {
  thread_local Object object{4, "of a function"};
  return object;
}
Object::Object(int n, const char *text) : number(n), name(text) { printf("+%s\n", name); }
Object::~Object() { printf("-%s %d\n", name, number); }
#endif
