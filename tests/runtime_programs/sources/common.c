/* Common symbols: several sizes and alignments in two objects, one of them overridden.
 *
 * parts: 2
 * flags: -fcommon
 */
#include <stdint.h>
#include <stdio.h>

int number;
double real;
long defined_once;
#if PART == 1
char buffer[100];
int table[3] __attribute__((aligned(128)));
int fill(void);

int main(void) {
  int sum = fill();
  printf("%d %d %.2f %ld\n", sum, number, real, defined_once);
  printf("%d %d %d\n", buffer[0], buffer[99], table[2]);
  printf("%d %d\n", (int)((uintptr_t)table % 128), (int)((uintptr_t)&real % sizeof real));
  return 0;
}
#else
char buffer[300];
int table[7];
long defined_once = 44;

int fill(void) {
  number = 6;
  real = 1.25;
  table[2] = 9;
  for (int i = 0; i < 300; i++)
    buffer[i] = (char)(i % 100);
  return buffer[299] + table[6];
}
#endif
