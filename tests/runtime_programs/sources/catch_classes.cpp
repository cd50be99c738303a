// Exceptions of classes with several and virtual bases, thrown by members of an archive.
//
// parts: 3
// archive: yes
#include <stdio.h>

struct First { int a = 1; virtual ~First() {} };
struct Second { int b = 2; virtual ~Second() {} };
struct Root { int root = 9; virtual ~Root() {} };
struct Left : virtual Root {};
struct Right : virtual Root {};
struct Both : First, Second { int c = 3; };
struct Diamond : Left, Right { ~Diamond() override; };
struct Hidden : private First {};
enum Kind { one, two };
void raise(int which);
void relay(int which);

#if PART == 1
template <typename T> static int tries(int which) {
  try {
    relay(which);
  } catch (T) {
    return 1;
  } catch (...) {
    return 2;
  }
  return 0;
}
int main() {
  for (int which = 0; which < 9; which++)
    printf("%d: %d%d%d%d%d%d%d%d%d\n", which, tries<First &>(which), tries<Second &>(which),
           tries<Root &>(which), tries<int>(which), tries<const void *>(which),
           tries<const char *>(which), tries<Kind>(which), tries<First *>(which),
           tries<Diamond>(which));
  try {
    relay(0);
  } catch (Second &second) {
    printf("%d %d\n", second.b, dynamic_cast<Both &>(second).c);
  }
  try {
    relay(1);
  } catch (Root &root) {
    printf("%d %d\n", root.root, dynamic_cast<Right *>(&root) != nullptr);
  }
}
#elif PART == 2
void raise(int which) {
  static Both both;
  switch (which) {
  case 0: throw Both();
  case 1: throw Diamond();
  case 2: throw Hidden();
  case 3: throw 3;
  case 4: throw "text";
  case 5: throw static_cast<First *>(&both);
  case 6: throw two;
  case 7: throw nullptr;
  case 8: throw [] { return 1; };
  }
}
#else
Diamond::~Diamond() {}
void relay(int which) {
  struct Count { int &n; ~Count() { n++; } };
  static int passed;
  Count count{passed};
  raise(which);
}
#endif
