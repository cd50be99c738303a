/* Constructors of two objects, which use stdio and get the arguments of main.
 *
 * parts: 2
 * run: one two
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

extern int order[8], count;

__attribute__((constructor(101 + PART))) static void numbered(void) { order[count++] = PART; }
__attribute__((constructor)) static void plain(int argc, char **argv) {
  char text[32];
  snprintf(text, sizeof text, "%d.%s", argc, argv[argc - 1]);
  printf("part %d: %s, %zu\n", PART, text, strlen(text));
  order[count++] = 10 * PART;
}
__attribute__((destructor(101 + PART))) static void end(void) { printf("end of %d\n", PART); }

#if PART == 1
int order[8], count;

int main(int argc, char **argv) {
  for (int i = 0; i < count; i++)
    printf("%d ", order[i]);
  printf("main %d %s\n", argc, argv[1]);
  return count;
}
#endif
