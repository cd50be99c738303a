/* The C library's standard streams have the buffers of a native program.
 *
 * position: independent
 */
#include <stdio.h>
#include <stdio_ext.h>
#include <string.h>
#include <unistd.h>

int main(void) {
  char rest[100];
  int first = getchar();
  long left = read(0, rest, sizeof rest);
  printf("first %d, left %ld\n", first, left);
  /* This comes first if the output before it is buffered. */
  if (write(1, "written at once\n", 16) != 16)
    return 1;
  printf("input %zu %d, output %zu %d\n", __fbufsize(stdin), !!__flbf(stdin), __fbufsize(stdout),
         !!__flbf(stdout));
  return 0;
}
