/* Symbols with ifunc resolvers, called directly, through pointers and across objects; the C library's.
 *
 * parts: 2
 * links: m
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

typedef int function(int);
int chosen(int);
extern function *const from_data;
int from_other(int);

#if PART == 1
static int resolved;
static int twice(int x) { return 2 * x; }
static int thrice(int x) { return 3 * x; }
static function *resolve(void) {
  int wanted;
  __asm__("" : "=r"(wanted) : "0"(3)); /* opaque, or compilers fold the result */
  return wanted == 3 ? thrice : twice;
}
int chosen(int) __attribute__((ifunc("resolve")));
static int hidden_one(int) __attribute__((ifunc("resolve"), used));

static void *(*volatile copy)(void *, const void *, size_t) = memcpy;
static size_t (*volatile length)(const char *) = strlen;
static double (*volatile rounded)(double) = floor;

__attribute__((constructor)) static void early(void) { resolved = chosen(1); }

int main(void) {
  char text[16];
  function *volatile pointer = chosen;
  printf("%d %d %d %d\n", chosen(2), pointer(3), from_data(4), from_other(5));
  printf("%d %d %d\n", resolved, hidden_one(7), pointer == from_data);
  copy(text, "indirect", 9);
  printf("%s %zu %.1f\n", text, length(text), rounded(-2.5));
  return 0;
}
#else
function *const from_data = chosen;
int from_other(int x) { return chosen(x) + 1; }
#endif
