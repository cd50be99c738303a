// Destruction by unwinding: parts of objects, arrays, arguments; function try blocks; rethrowing.
//
// parts: 2
#include <stdio.h>

struct Part {
  int number;
  explicit Part(int n);
  ~Part();
};
struct Thing {
  Part a, b, c;
  explicit Thing(int bad);
};
struct Derived : Thing {
  Part last;
  explicit Derived(int bad);
};
extern int budget;

#if PART == 1
int budget = 100;

static void array() {
  budget = 3;
  try {
    struct Numbered : Part { Numbered() : Part(budget) {} };
    delete[] new Numbered[10];
  } catch (int number) {
    printf("array %d\n", number);
  }
  budget = 100;
}
static void again(int depth) {
  Part part(depth);
  try {
    if (depth == 0)
      throw 5L;
    again(depth - 1);
  } catch (long &number) {
    number += depth;
    if (depth < 3)
      throw;
    printf("rethrown %ld\n", number);
  }
}
int main() {
  for (int bad = 1; bad < 5; bad++)
    try {
      Derived derived(bad);
      printf("complete %d\n", derived.last.number);
    } catch (int number) {
      printf("caught %d\n", number);
    }
  array();
  again(3);
  try {
    try {
      throw 1;
    } catch (int) {
      throw 2.5;
    }
  } catch (double number) {
    printf("replaced %.1f\n", number);
  }
}
#else
Part::Part(int n) : number(n) {
  if (n < 0 || !budget--)
    throw n;
  printf("+%d ", n);
}
Part::~Part() { printf("-%d ", number); }
Thing::Thing(int bad) try : a(1), b(bad == 2 ? -2 : 2), c(bad == 3 ? -3 : 3) {
  if (bad == 4)
    throw 44;
} catch (int number) {
  printf("in the constructor %d\n", number);
}
Derived::Derived(int bad) : Thing(bad), last(bad == 1 ? 11 : -11) {}
#endif
