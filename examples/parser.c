/* A parser with a mistake: it crashes on an empty text. */
#include <stdlib.h>
#include <string.h>

int last_digit(const char *text) {
  size_t length = strlen(text);
  if (!length)
    abort();
  return text[length - 1] - '0';
}
