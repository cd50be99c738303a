// Exceptions through functions of the C library, and cleanups in the frames around them.
#include <search.h>
#include <stdio.h>
#include <stdlib.h>

struct Guard {
  const char *name;
  ~Guard() { printf("~%s\n", name); }
};
static int calls;
extern "C" int compare(const void *a, const void *b) {
  Guard guard{"compare"};
  if (++calls == 3)
    throw calls;
  return *static_cast<const int *>(a) - *static_cast<const int *>(b);
}
extern "C" void visit(const void *node, VISIT, int) { throw **static_cast<int *const *>(node); }

int main() {
  int numbers[] = {1, 2, 3, 5, 8, 13, 21, 34}, wanted = 1;
  try {
    Guard guard{"bsearch"};
    bsearch(&wanted, numbers, 8, sizeof(int), compare);
  } catch (int number) {
    printf("after %d calls\n", number);
  }
  calls = 0;
  try {
    Guard guard{"qsort"};
    qsort(numbers, 8, sizeof(int), compare);
  } catch (int number) {
    printf("after %d calls\n", number);
  }
  void *tree = nullptr;
  calls = 100;
  tsearch(&numbers[4], &tree, compare);
  try {
    twalk(tree, visit);
  } catch (int number) {
    printf("walked to %d\n", number);
  }
}
