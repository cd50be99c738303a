/* The processor's features, from the compiler's library; functions in several versions.
 *
 * compilers: gcc clang
 * links: gcc
 */
#include <stdio.h>

__attribute__((target_clones("avx2", "default"))) static int sum(const int *numbers, int count) {
  int total = 0;
  for (int i = 0; i < count; i++)
    total += numbers[i] * numbers[i];
  return total;
}

int main(void) {
  int numbers[100];
  for (int i = 0; i < 100; i++)
    numbers[i] = i;
  __builtin_cpu_init();
  printf("%d %d\n", __builtin_cpu_supports("sse2") != 0, sum(numbers, 100));
  return __builtin_cpu_supports("avx2") ? 2 : 1;
}
