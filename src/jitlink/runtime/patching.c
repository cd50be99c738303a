/* Replacing code of an executor while its threads run it. No page that is executable is ever writable.
 *
 * Copies of the pages, with the new code, are moved over them. The kernel moves mappings atomically:
 * a thread that runs there, or that is in the middle of an instruction that spans two pages, sees
 * either the old pages or the new ones; at most it waits until the move is done.
 *
 * Pages that the controller maps, too, are to stay shared. Their copies are other pages of that
 * memory, which the controller has written to. They take the place of the code only until the
 * controller has changed the code's own pages, which nothing executes meanwhile.
 *
 * Specification: mremap(2), MREMAP_FIXED, and shared mappings with an old size of 0.
 */
#include <errno.h>
#include <stdio.h>
#include <sys/mman.h>

#include "wrapper.h"

enum { CODE = PROT_READ | PROT_EXEC };

static bool move_over(void *place, void *pages, size_t size) {
  __builtin___clear_cache((char *)pages, (char *)pages + size);
  return mremap(pages, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, place) != MAP_FAILED;
}

/* Moves pages over others, as code. If that fails, they are unmapped. */
static bool replace(void *place, void *pages, size_t size) {
  if (pages == MAP_FAILED)
    return false;
  if (!mprotect(pages, size, CODE) && move_over(place, pages, size))
    return true;
  int error = errno;
  munmap(pages, size);
  errno = error;
  return false;
}

/* Error(Sequence<Tuple<Addr place, Sequence<Char> code>>): replaces private pages. If the process has
   run out of memory or mappings, some have been replaced. */
wrapper_result __jitlink_replace_code(const char *data, size_t size) {
  enum { PRIVATE = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE };
  sps_reader reader = sps_read(data, size);
  size_t count = sps_count(&reader, 16);
  while (count--) {
    void *place = sps_address(&reader);
    size_t length = sps_count(&reader, 1);
    const unsigned char *code = sps_take(&reader, length);
    if (reader.failed)
      break;
    void *copy = mmap(0, length, PROT_READ | PROT_WRITE, PRIVATE, -1, 0);
    if (copy != MAP_FAILED)
      memcpy(copy, code, length);
    if (!replace(place, copy, length)) {
      char text[160];
      snprintf(text, sizeof text, "cannot replace code: %s", strerror(errno));
      return sps_failure(text);
    }
  }
  return reader.failed ? sps_malformed() : sps_zero_byte();
}

static void *map_again(void *pages, size_t size) { return mremap(pages, 0, size, MREMAP_MAYMOVE); }

/* Maps a copy in the place of shared pages; returns where these are mapped meanwhile. */
static void *map_copy(void *place, size_t size, void *copy) {
  void *original = map_again(place, size);
  if (original == MAP_FAILED)
    return 0;
  if (replace(place, map_again(copy, size), size))
    return original;
  munmap(original, size);
  return 0;
}

static void *map_original(void *place, size_t size, void *original) {
  return move_over(place, original, size) ? place : 0;
}

/* Calls a function for ranges; returns what it does, in the same order. */
static wrapper_result for_ranges(const char *data, size_t size,
                                 void *function(void *place, size_t size, void *other)) {
  sps_reader reader = sps_read(data, size);
  size_t count = sps_count(&reader, 24);
  wrapper_result result = {{0}, 8 + 8 * count};
  if (!count)
    return result;
  char *next = result.value.pointer = malloc(result.size);
  if (!next)
    abort();
  next = sps_put_u64(next, count);
  while (count--) {
    void *place = sps_address(&reader);
    size_t length = sps_u64(&reader);
    next = sps_put_u64(next, (uintptr_t)function(place, length, sps_address(&reader)));
  }
  return result;
}

/* Sequence<Addr originals>(Sequence<Tuple<Addr place, UInt64 size, Addr copy>>): an address is null if
   the process has run out of mappings, and the code there is as before. */
wrapper_result __jitlink_map_copies(const char *data, size_t size) {
  return for_ranges(data, size, map_copy);
}

/* Sequence<Addr places>(Sequence<Tuple<Addr place, UInt64 size, Addr original>>): null is a failure, and
   the copy stays. */
wrapper_result __jitlink_map_originals(const char *data, size_t size) {
  return for_ranges(data, size, map_original);
}
