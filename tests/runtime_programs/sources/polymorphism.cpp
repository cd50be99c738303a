// Virtual bases, thunks, covariant results, pointers to members, across two objects.
//
// parts: 2
#include <stdio.h>

struct Top { int top; Top(int n) : top(n) {} virtual Top *self() { return this; } virtual ~Top() {} };
struct A : virtual Top { int a = 10; A() : Top(1) {} A *self() override; virtual int f(int x) { return x + a; } };
struct B : virtual Top { int b = 20; B() : Top(2) {} virtual int g(int x) { return x * b; } };
struct C : A, B {
  int c = 30;
  C() : Top(3) {}
  C *self() override;
  int f(int x) override;
  int g(int x) override;
};
using Member = int (C::*)(int);
extern const Member members[3];
B *as_b(C &);

#if PART == 1
int main() {
  C c;
  Top *top = &c;
  A *a = &c;
  B *b = as_b(c);
  printf("%d %d %d\n", top->top, a->f(1), b->g(2));
  printf("%d %d\n", top->self() == top, static_cast<A *>(a->self()) == a);
  for (Member member : members)
    printf("%d ", (c.*member)(4));
  int C::*field = &C::c;
  printf("%d\n", c.*field);
  auto add = [&](int x) { return x + c.*field; };
  printf("%d\n", add(5));
}
#else
A *A::self() { return this; }
C *C::self() { return this; }
int C::f(int x) { return x + c; }
int C::g(int x) { return x - c; }
const Member members[3] = {&C::f, &C::g, static_cast<Member>(&A::f)};
B *as_b(C &c) { return &c; }
#endif
