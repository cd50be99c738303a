/* Memory that the controller maps, too, and writes to; no content arrives in messages.
 *
 * The controller removes the name of the shared memory once it has mapped it.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "protections.h"
#include "reservations.h"

static struct reservations all = {
    .lock = PTHREAD_MUTEX_INITIALIZER,
    .ignores_unknown_keys = true,
};
static char instance;

/* Maps new shared memory of a name, inaccessible; MAP_FAILED sets errno. */
static void *map_shared(const char *path, uint64_t size, uint64_t limit) {
  int file = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (file < 0)
    return MAP_FAILED;
  void *start = MAP_FAILED;
  if (!ftruncate(file, (off_t)size))
    start = map_below(limit, size, PROT_NONE, MAP_SHARED, file);
  int error = errno;
  close(file);
  if (start == MAP_FAILED)
    unlink(path);
  errno = error;
  return start;
}

static wrapper_result reserve_below_limit(sps_reader *reader, bool is_limited) {
  static unsigned counter;
  sps_u64(reader);
  uint64_t wanted = round_to_pages(sps_u64(reader)), limit = is_limited ? sps_u64(reader) : 0;
  if (reader->failed || !wanted || (is_limited && !limit))
    return expected_failure("malformed arguments, or no size");
  char name[64], path[96];
  void *start;
  /* Other containers may share the directory, and have processes of the same number. */
  unsigned attempts = 1000;
  do {
    unsigned number = __atomic_add_fetch(&counter, 1, __ATOMIC_RELAXED);
    snprintf(name, sizeof name, "/jitlink_%ld_%u", (long)getpid(), number);
    snprintf(path, sizeof path, "/dev/shm%s", name);
    start = map_shared(path, wanted, limit);
  } while (start == MAP_FAILED && errno == EEXIST && --attempts);
  if (start == MAP_FAILED)
    return expected_errno("cannot map shared memory");
  add_reservation(&all, start, wanted);
  struct bytes bytes = {0};
  put_u8(&bytes, 1);
  put_u64(&bytes, (uintptr_t)start);
  put_text(&bytes, name);
  return result_of(&bytes);
}

/* Expected<Tuple<Addr, String>>(Addr instance, UInt64 size) */
static wrapper_result reserve(const char *data, size_t size) {
  sps_reader reader = sps_read(data, size);
  return reserve_below_limit(&reader, false);
}

/* Expected<Tuple<Addr, String>>(Addr instance, UInt64 size, UInt64 limit) */
static wrapper_result reserve_below(const char *data, size_t size) {
  sps_reader reader = sps_read(data, size);
  return reserve_below_limit(&reader, true);
}

/* Expected<Addr key>(Addr instance, Addr reservation, SharedMemoryFinalizeRequest) */
static wrapper_result initialize(const char *data, size_t size) {
  sps_reader reader = sps_read(data, size);
  sps_u64(&reader);
  uint64_t place = sps_u64(&reader), key = UINT64_MAX;
  size_t count = sps_count(&reader, 17);
  if (reader.failed)
    return expected_failure("malformed arguments");
  for (size_t each = 0; each < count; ++each) {
    unsigned group = (unsigned)sps_number(&reader, 1);
    uint64_t start = sps_u64(&reader), length = sps_u64(&reader);
    if (reader.failed || !place || place_of(&all, start, length) != place)
      return expected_failure("a segment is not in its reservation");
    /* Emulators, such as qemu before 8.1, do not see what another process writes: pages that lose
       their permissions are what tells them that code has changed. */
    if ((group & EXEC) && !protect(start, length, 0))
      return expected_errno("cannot protect memory");
    if (!protect(start, length, group))
      return expected_errno("cannot protect memory");
    if (group & EXEC)
      __builtin___clear_cache((char *)(uintptr_t)start, (char *)(uintptr_t)(start + length));
    key = start < key ? start : key;
  }
  return add_allocation(&all, key, &reader, 0, 0);
}

static wrapper_result deinitialize(const char *data, size_t size) {
  return deinitialize_keys(&all, data, size);
}

static wrapper_result release(const char *data, size_t size) {
  return release_starts(&all, data, size);
}

void finish_shared_memory(void) { finish_allocations(&all); }

const struct bootstrap_symbol shared_memory_symbols[] = {
    {"__llvm_orc_ExecutorSharedMemoryMapperService_Instance", &instance},
    {"__llvm_orc_ExecutorSharedMemoryMapperService_Reserve", (const void *)reserve},
    {"__llvm_orc_ExecutorSharedMemoryMapperService_Initialize", (const void *)initialize},
    {"__llvm_orc_ExecutorSharedMemoryMapperService_Deinitialize", (const void *)deinitialize},
    {"__llvm_orc_ExecutorSharedMemoryMapperService_Release", (const void *)release},
    {"__jitlink_executor_reserve_shared_below", (const void *)reserve_below},
    {0, 0},
};
