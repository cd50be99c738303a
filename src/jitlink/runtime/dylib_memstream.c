/* open_memstream for a dylib that defines malloc and free itself; see dylib_malloc.c.
 *
 * Writes go to a stream with functions of its own, which is fully buffered: as POSIX has it, the
 * caller's pointer and size are valid after fflush and fclose.
 */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "wrapper.h"

/* `length` bytes were written, the next write is at `position`, and the buffer has room for
   `room` bytes and a null. */
struct memory {
  char **buffer;
  size_t *size;
  char *start;
  size_t length, position, room;
};

static void publish(const struct memory *memory) {
  *memory->buffer = memory->start;
  *memory->size = memory->position < memory->length ? memory->position : memory->length;
}

static bool make_room(struct memory *memory, size_t wanted) {
  if (wanted <= memory->room)
    return true;
  size_t room = 2 * memory->room > wanted ? 2 * memory->room : wanted;
  char *larger = room < SIZE_MAX ? malloc(room + 1) : 0;
  if (!larger) {
    errno = ENOMEM;
    return false;
  }
  memcpy(larger, memory->start, memory->length);
  memset(larger + memory->length, 0, room + 1 - memory->length);
  free(memory->start);
  memory->start = larger;
  memory->room = room;
  return true;
}

static ssize_t write_memory(void *cookie, const char *bytes, size_t size) {
  struct memory *memory = cookie;
  if (size > SIZE_MAX / 2 - memory->position || !make_room(memory, memory->position + size))
    return 0;
  memcpy(memory->start + memory->position, bytes, size);
  memory->position += size;
  if (memory->position > memory->length)
    memory->length = memory->position;
  publish(memory);
  return (ssize_t)size;
}

static int seek_memory(void *cookie, off64_t *offset, int from) {
  struct memory *memory = cookie;
  off64_t base = from == SEEK_CUR ? (off64_t)memory->position : 0;
  if (from == SEEK_END)
    base = (off64_t)memory->length;
  off64_t place;
  if (__builtin_add_overflow(base, *offset, &place) || place < 0) {
    errno = EINVAL;
    return -1;
  }
  memory->position = (size_t)place;
  *offset = place;
  publish(memory);
  return 0;
}

static int close_memory(void *cookie) {
  publish(cookie);
  free(cookie);
  return 0;
}

WEAK HIDDEN FILE *open_memstream(char **buffer, size_t *size) {
  enum { FIRST = 255 };
  struct memory *memory = malloc(sizeof *memory);
  char *start = malloc(FIRST + 1);
  cookie_io_functions_t functions = {0, write_memory, seek_memory, close_memory};
  FILE *stream = memory && start ? fopencookie(memory, "w", functions) : 0;
  if (!stream) {
    free(memory);
    free(start);
    return 0;
  }
  memset(start, 0, FIRST + 1);
  *memory = (struct memory){buffer, size, start, 0, 0, FIRST};
  publish(memory);
  return stream;
}
