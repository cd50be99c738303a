// operator new: when it fails, with alignment, and replaced by the program's own.
//
// library: c++
#include <new>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

static long count, balance;
void *operator new(size_t size) {
  count++, balance++;
  if (void *place = size < SIZE_MAX / 4 ? malloc(size ? size : 1) : nullptr)
    return place;
  throw std::bad_alloc();
}
void operator delete(void *place) noexcept {
  balance -= place != nullptr;
  free(place);
}
void operator delete(void *place, size_t) noexcept { operator delete(place); }
void *operator new[](size_t size) { return operator new(size); }
void operator delete[](void *place) noexcept { operator delete(place); }
void operator delete[](void *place, size_t) noexcept { operator delete(place); }

struct alignas(256) Wide { char bytes[300]; };
static volatile size_t huge = SIZE_MAX / 2;

int main() {
  int *one = new int(4), *many = new int[100]();
  printf("%d %ld\n", *one + many[99], count);
  delete one;
  delete[] many;
  Wide *wide = new Wide;
  printf("%d %ld\n", static_cast<int>(reinterpret_cast<uintptr_t>(wide) % 256), balance);
  delete wide;
  try {
    ::operator delete(::operator new(huge));
    puts("not reached");
  } catch (const std::bad_alloc &) {
    puts("bad_alloc");
  }
  alignas(int) char buffer[sizeof(int)];
  printf("%d\n", *new (buffer) int(12));
}
