/* Memory that the controller maps, too, and writes to; no content arrives in messages.
 *
 * Code and constants are pages that are shared. Variables are private copies of such pages: a process
 * that linked code forks is to have its own.
 *
 * The controller removes the name of the shared memory once it has mapped it.
 *
 * In a sandbox it is memory without a name, which the controller has created, mapped, and sealed
 * against writes by others. Pages are mapped anew there, too: what could be written must not become
 * executable.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "protections.h"
#include "reservations.h"

static struct reservations all = {
    .lock = PTHREAD_MUTEX_INITIALIZER,
    .ignores_unknown_keys = true,
};
static char instance;

/* Memory of the controller's. */
static struct {
  uint64_t start, size;
  int file;
  bool is_reserved;
} adopted;

uint64_t adopt_shared_memory(int file) {
  enum { SEAL_FUTURE_WRITE = 16, WANTED = SEAL_FUTURE_WRITE | F_SEAL_SHRINK | F_SEAL_SEAL };
  struct stat status;
  int seals = fcntl(file, F_GET_SEALS);
  if (seals < 0 || (seals & WANTED) != WANTED || fstat(file, &status))
    return 0;
  uint64_t size = (uint64_t)status.st_size & ~(page_size() - 1);
  void *start = mmap(0, size, PROT_NONE, MAP_SHARED, file, 0);
  if (start == MAP_FAILED)
    return 0;
  fcntl(file, F_SETFD, FD_CLOEXEC);
  adopted.start = (uintptr_t)start;
  adopted.size = size;
  adopted.file = file;
  all.keeps_files = true; /* a sandbox forbids to close this one */
  return size;
}

/* Maps new shared memory of a name, inaccessible, and records it; MAP_FAILED sets errno. */
static void *map_shared(const char *path, uint64_t size, uint64_t limit) {
  int file = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (file < 0)
    return MAP_FAILED;
  void *start = MAP_FAILED;
  if (!ftruncate(file, (off_t)size))
    start = map_below(limit, size, PROT_NONE, MAP_SHARED, file);
  if (start != MAP_FAILED) {
    add_reservation(&all, start, size, file);
    return start;
  }
  int error = errno;
  close(file);
  unlink(path);
  errno = error;
  return start;
}

/* Maps pages of a reservation anew, with what the controller has written. */
static bool map_segment(const struct reservation *place, uint64_t start, uint64_t size,
                        unsigned group) {
  int prot = protection_of(group);
  if (prot < 0)
    return false;
  if (!has_file(place)) {
    errno = EBADF;
    return false;
  }
  int flags = MAP_FIXED | MAP_NORESERVE | (group & WRITE ? MAP_PRIVATE : MAP_SHARED);
  return mmap((void *)(uintptr_t)start, round_to_pages(size), prot, flags, place->file,
              (off_t)(start - place->start)) != MAP_FAILED;
}

static wrapper_result reserved(uint64_t start, const char *name) {
  struct bytes bytes = {0};
  put_u8(&bytes, 1);
  put_u64(&bytes, start);
  put_text(&bytes, name);
  return result_of(&bytes);
}

/* Expected<Tuple<Addr, String>>(Addr instance, UInt64 size), or with a third argument, UInt64 limit.
   Memory that was adopted has no name. */
static wrapper_result reserve(const char *data, size_t size) {
  static unsigned counter;
  sps_reader reader = sps_read(data, size);
  sps_u64(&reader);
  uint64_t wanted = round_to_pages(sps_u64(&reader)), limit = reader.left ? sps_u64(&reader) : 0;
  if (reader.failed || !wanted)
    return sps_expected_failure("malformed arguments, or no size");
  if (adopted.size) {
    if (limit || wanted > adopted.size ||
        __atomic_exchange_n(&adopted.is_reserved, true, __ATOMIC_RELAXED))
      return sps_expected_failure("the sandbox has no more memory for code");
    add_reservation(&all, (void *)(uintptr_t)adopted.start, adopted.size, adopted.file);
    return reserved(adopted.start, "");
  }
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
  return reserved((uintptr_t)start, name);
}

/* Maps the next segment of a request into a reservation; false sets errno. */
static bool read_segment(sps_reader *reader, uint64_t reservation, struct pages *pages) {
  unsigned group = (unsigned)sps_number(reader, 1);
  uint64_t start = sps_u64(reader), size = sps_u64(reader);
  struct reservation place = place_of(&all, start, size);
  if (reader->failed || !reservation || place.start != reservation) {
    errno = EFAULT;
    return false;
  }
  *pages = (struct pages){start, round_to_pages(size)};
  /* Emulators, such as qemu before 8.1, do not see what another process writes: pages that lose
     their permissions are what tells them that code has changed. */
  if (((group & EXEC) && !protect(start, size, 0)) || !map_segment(&place, start, size, group))
    return false;
  if (group & EXEC)
    __builtin___clear_cache((char *)(uintptr_t)start, (char *)(uintptr_t)(start + size));
  return true;
}

/* Expected<Addr key>(Addr instance, Addr reservation, SharedMemoryFinalizeRequest) */
static wrapper_result initialize(const char *data, size_t size) {
  sps_reader reader = sps_read(data, size);
  sps_u64(&reader);
  uint64_t place = sps_u64(&reader), key = UINT64_MAX;
  size_t count = sps_count(&reader, 17);
  if (reader.failed || !count)
    return sps_expected_failure("malformed arguments, or no segments");
  struct pages *pages = calloc(count, sizeof *pages);
  if (!pages)
    abort();
  for (size_t each = 0; each < count; ++each) {
    if (!read_segment(&reader, place, &pages[each])) {
      wrapper_result failure = errno == EFAULT
                                   ? sps_expected_failure("a segment is not in its reservation")
                                   : expected_errno("cannot protect memory");
      free(pages);
      return failure;
    }
    key = pages[each].start < key ? pages[each].start : key;
  }
  return add_allocation(&all, key, &reader, pages, count);
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
    {"__jitlink_executor_reserve_shared_below", (const void *)reserve},
    {0, 0},
};
