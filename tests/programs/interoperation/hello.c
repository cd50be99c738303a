/* Prints its arguments. */
#include <stdio.h>

int main(int count, char **words) {
  printf("hello");
  for (int n = 1; n < count; n++)
    printf(" <%s>", words[n]);
  putchar('\n');
  return 10 + count;
}
