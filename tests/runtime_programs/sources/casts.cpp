// dynamic_cast and typeid on classes of another object, and their exceptions.
//
// parts: 2
#include <stdio.h>
#include <typeinfo>

struct Shape { virtual ~Shape(); virtual int sides() const = 0; };
struct Named { virtual const char *name() const { return "named"; } virtual ~Named() {} };
struct Square : Shape, Named { int sides() const override; const char *name() const override; };
namespace {
struct Private : Shape { int sides() const override { return 10 + PART; } };
}
Shape *make(int which);
const std::type_info &type_of(Shape *shape);

#if PART == 1
int main() {
  Shape *square = make(0), *other = make(1);
  printf("%d %s\n", square->sides(), dynamic_cast<Named *>(square)->name());
  printf("%d %d\n", dynamic_cast<Named *>(other) == nullptr, dynamic_cast<void *>(square) == square);
  printf("%d %d\n", typeid(*square) == type_of(square), typeid(*square) == typeid(Square));
  printf("%d %s\n", dynamic_cast<Private *>(other) == nullptr, typeid(Square).name());
  try {
    (void)dynamic_cast<Named &>(*other);
  } catch (const std::bad_cast &) {
    puts("bad cast");
  }
  try {
    Shape *none = make(9);
    (void)typeid(*none);
  } catch (const std::bad_typeid &) {
    puts("bad typeid");
  }
  int (Shape::*member)() const = &Shape::sides;
  printf("%d %d\n", (square->*member)(), (other->*member)());
  delete square;
  delete other;
}
#else
Shape::~Shape() { puts("~Shape"); }
int Square::sides() const { return 4; }
const char *Square::name() const { return "square"; }
const std::type_info &type_of(Shape *shape) { return typeid(*shape); }
Shape *make(int which) {
  if (which == 0)
    return new Square;
  return which == 1 ? new Private : nullptr;
}
#endif
