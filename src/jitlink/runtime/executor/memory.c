/* Memory whose content arrives in messages. */
#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include "protections.h"
#include "reservations.h"

static struct reservations all = {.lock = PTHREAD_MUTEX_INITIALIZER};
static char instance;

/* Expected<Addr>(Addr instance, UInt64 size), or with a third argument, UInt64 limit. */
static wrapper_result reserve(const char *data, size_t size) {
  sps_reader reader = sps_read(data, size);
  sps_u64(&reader);
  uint64_t wanted = round_to_pages(sps_u64(&reader)), limit = reader.left ? sps_u64(&reader) : 0;
  if (reader.failed || !wanted)
    return sps_expected_failure("malformed arguments, or no size");
  int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  void *start = map_below(limit, wanted, PROT_READ | PROT_WRITE, flags, -1);
  if (start == MAP_FAILED)
    return expected_errno("cannot reserve memory");
  add_reservation(&all, start, wanted, -1);
  return sps_expected_u64((uintptr_t)start);
}

struct segment {
  unsigned group;
  uint64_t start, size, given;
  const unsigned char *content;
};

static struct segment read_segment(sps_reader *reader) {
  struct segment segment = {0};
  segment.group = (unsigned)sps_number(reader, 1);
  segment.start = sps_u64(reader);
  segment.size = sps_u64(reader);
  segment.given = sps_count(reader, 1);
  segment.content = sps_take(reader, segment.given);
  return segment;
}

/* False sets errno. */
static bool write_segment(const struct segment *segment) {
  char *start = (char *)(uintptr_t)segment->start;
  /* The pages may have been in use before. */
  if (!protect(segment->start, segment->size, READ | WRITE))
    return false;
  /* Pages that are dropped are zero, and take no memory until they are used. */
  if (madvise(start, round_to_pages(segment->size), MADV_DONTNEED))
    memset(start + segment->given, 0, segment->size - segment->given);
  memcpy(start, segment->content, segment->given);
  if (segment->group & EXEC)
    __builtin___clear_cache(start, start + segment->size);
  return protect(segment->start, segment->size, segment->group);
}

/* Checks all segments before the first is written, and finds the lowest address. */
static const char *check_segments(sps_reader reader, size_t count, uint64_t *key) {
  uint64_t place = 0;
  *key = UINT64_MAX;
  for (size_t each = 0; each < count; ++each) {
    struct segment segment = read_segment(&reader);
    uint64_t found = reader.failed ? 0 : place_of(&all, segment.start, segment.size).start;
    if (!found || (place && place != found))
      return "segments are not in one reservation";
    if (segment.given > segment.size)
      return "a segment is smaller than its content";
    if (segment.start & (page_size() - 1))
      return "a segment does not begin at a page";
    place = found;
    *key = segment.start < *key ? segment.start : *key;
  }
  return count ? 0 : "a request has no segments";
}

/* Expected<Addr key>(Addr instance, FinalizeRequest) */
static wrapper_result initialize(const char *data, size_t size) {
  sps_reader reader = sps_read(data, size);
  uint64_t key;
  sps_u64(&reader);
  size_t count = sps_count(&reader, 25);
  const char *problem = check_segments(reader, count, &key);
  if (problem)
    return sps_expected_failure(problem);
  struct pages *pages = calloc(count, sizeof *pages);
  if (!pages)
    abort();
  for (size_t each = 0; each < count; ++each) {
    struct segment segment = read_segment(&reader);
    pages[each] = (struct pages){segment.start, round_to_pages(segment.size)};
    if (!write_segment(&segment)) {
      wrapper_result failure = expected_errno("cannot protect memory");
      free(pages);
      return failure;
    }
  }
  return add_allocation(&all, key, &reader, pages, count);
}

static wrapper_result deinitialize(const char *data, size_t size) {
  return deinitialize_keys(&all, data, size);
}

static wrapper_result release(const char *data, size_t size) {
  return release_starts(&all, data, size);
}

void finish_memory(void) { finish_allocations(&all); }

const struct bootstrap_symbol memory_symbols[] = {
    {"__llvm_orc_SimpleExecutorMemoryManager_Instance", &instance},
    {"__llvm_orc_SimpleExecutorMemoryManager_reserve_wrapper", (const void *)reserve},
    {"__llvm_orc_SimpleExecutorMemoryManager_initialize_wrapper", (const void *)initialize},
    {"__llvm_orc_SimpleExecutorMemoryManager_deinitialize_wrapper", (const void *)deinitialize},
    {"__llvm_orc_SimpleExecutorMemoryManager_release_wrapper", (const void *)release},
    {"__jitlink_executor_reserve_below", (const void *)reserve},
    {0, 0},
};
