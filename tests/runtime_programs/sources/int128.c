/* 128-bit integers: division and conversion are functions of the compiler's library. */
#include <stdio.h>

typedef __int128 wide;
typedef unsigned __int128 uwide;

static volatile wide a = ((wide)0x123456789abcdef << 64) | 0xfedcba9876543210, b = -987654321987;
static volatile uwide c = ((uwide)0xfedcba9876543210 << 64) | 12345;
static volatile double real = 1e30;

static void show(const char *name, uwide value) {
  printf("%s %016llx%016llx\n", name, (unsigned long long)(value >> 64), (unsigned long long)value);
}

int main(void) {
  show("quotient", (uwide)(a / b));
  show("remainder", (uwide)(a % b));
  show("unsigned", c / 1000000007);
  show("modulo", c % (uwide)a);
  show("product", (uwide)(a * b));
  show("shift", c >> (int)(b & 63));
  printf("%.6e %.6e %.6Le\n", (double)a, (double)c, (long double)b * a);
  show("from double", (uwide)(wide)real);
  show("from float", (uwide)(float)real);
  printf("%d %d\n", __builtin_popcountll((unsigned long long)c), __builtin_ctzll(1ULL << 40));
  return a < b;
}
