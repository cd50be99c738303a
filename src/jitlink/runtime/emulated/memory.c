/* Functions of string.h for memory. Loops are not to be made calls of the functions that they are. */
#include "library.h"

void *memcpy(void *restrict to, const void *restrict from, size_t size) {
  unsigned char *out = to;
  const unsigned char *in = from;
  while (size--)
    *out++ = *in++;
  return to;
}

void *memmove(void *to, const void *from, size_t size) {
  unsigned char *out = to;
  const unsigned char *in = from;
  if ((uintptr_t)out - (uintptr_t)in >= size)
    while (size--)
      *out++ = *in++;
  else
    while (size--)
      out[size] = in[size];
  return to;
}

void *memset(void *data, int byte, size_t size) {
  unsigned char *out = data;
  while (size--)
    *out++ = (unsigned char)byte;
  return data;
}

int memcmp(const void *left, const void *right, size_t size) {
  const unsigned char *a = left, *b = right;
  for (; size; --size, ++a, ++b)
    if (*a != *b)
      return *a - *b;
  return 0;
}

void *memchr(const void *data, int byte, size_t size) {
  const unsigned char *in = data;
  for (; size; --size, ++in)
    if (*in == (unsigned char)byte)
      return (void *)in;
  return 0;
}
