/* Wrapper functions for allocation actions, which record that they were called. */
#include <stdlib.h>
#include <string.h>

typedef struct {
  union {
    char *pointer;
    char bytes[8];
  } value;
  size_t size;
} result;

char called[4096];

static void record(const char *arguments, size_t size) {
  strncat(called, arguments, size);
}

result succeed(const char *arguments, size_t size) {
  result empty = {{0}, 0};
  record(arguments, size);
  return empty;
}

/* A serialized success, in the result itself. */
result succeed_inline(const char *arguments, size_t size) {
  result inside = {{0}, 1};
  record(arguments, size);
  return inside;
}

/* A serialized failure with the text of the arguments. */
result fail(const char *arguments, size_t size) {
  result packed = {{malloc(9 + size)}, 9 + size};
  record(arguments, size);
  packed.value.pointer[0] = 1;
  memcpy(packed.value.pointer + 1, &size, 8);
  memcpy(packed.value.pointer + 9, arguments, size);
  return packed;
}

/* An out-of-band error with the text of the arguments. */
result fail_out_of_band(const char *arguments, size_t size) {
  result message = {{calloc(size + 1, 1)}, 0};
  record(arguments, size);
  memcpy(message.value.pointer, arguments, size);
  return message;
}

/* Bytes that are no serialized error. */
result answer_nonsense(const char *arguments, size_t size) {
  result nonsense = {{0}, 3};
  record(arguments, size);
  memcpy(nonsense.value.bytes, "\x01\xff\xff", 3);
  return nonsense;
}

/* The arguments. */
result echo(const char *arguments, size_t size) {
  result again = {{0}, size};
  char *place = again.value.bytes;
  if (size > 8)
    place = again.value.pointer = malloc(size);
  memcpy(place, arguments, size);
  return again;
}
