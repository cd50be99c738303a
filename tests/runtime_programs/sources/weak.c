/* Weak symbols: missing, overridden, alone, aliases, and one of two.
 *
 * parts: 3
 * position: independent
 */
#include <stdio.h>

#define WEAK __attribute__((weak))

#if PART == 1
WEAK int missing(int);
extern WEAK int missing_data;
WEAK int overridden(void) { return 1; }
WEAK int alone(void) { return 10; }
int strong(void) { return 5; }
int other_name(void) __attribute__((weak, alias("strong")));
WEAK int both(void);
int data_of_two(void);
extern int shared_data;

int main(void) {
  printf("%d %d\n", missing ? missing(1) : -1, &missing_data != 0);
  printf("%d %d %d %d\n", overridden(), alone(), other_name(), other_name == strong);
  printf("%d %d\n", both(), shared_data);
  printf("%d\n", data_of_two() == shared_data);
  return 0;
}
#elif PART == 2
int overridden(void) { return 2; }
WEAK int both(void) { return 77; }
WEAK int shared_data = 30;
int data_of_two(void) { return shared_data; }
#else
WEAK int both(void) { return 77; }
WEAK int shared_data = 30;
#endif
