/* Tables in sections: their bounds are encapsulation symbols. */
#include <stdio.h>

struct entry { const char *name; int (*function)(int); };
#define ENTRY(function) \
  __attribute__((section("entries"), used, aligned(8))) static struct entry entry_##function = \
      {#function, function};

extern struct entry __start_entries[], __stop_entries[];
extern char nothing_start[] __asm__("__start_no_such_section") __attribute__((weak));
static int add(int x) { return x + 1; }
static int negate(int x) { return -x; }
static int square(int x) { return x * x; }
ENTRY(add)
ENTRY(negate)
ENTRY(square)

int main(void) {
  int sum = 0;
  for (struct entry *each = __start_entries; each < __stop_entries; each++) {
    printf("%s %d\n", each->name, each->function(5));
    sum += each->function(2);
  }
  return sum;
}
