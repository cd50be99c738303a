/* Memory that the controller maps, too, and writes to; no content arrives in messages.
 *
 * The controller removes the name of the shared memory once it has mapped it.
 *
 * In a sandbox it is memory without a name, which the controller has created, mapped, and sealed
 * against writes by others. Code and constants are pages of it. Variables are private copies of
 * such pages.
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
  return size;
}

/* Gives pages their protection; those of adopted memory are mapped anew, because what could be
   written must not become executable. */
static bool protect_segment(uint64_t start, uint64_t size, unsigned group) {
  if (!adopted.size || start < adopted.start || start - adopted.start >= adopted.size)
    return protect(start, size, group);
  int prot = protection_of(group);
  if (prot < 0 || (start & (page_size() - 1)))
    return false;
  int flags = MAP_FIXED | (prot & PROT_WRITE ? MAP_PRIVATE : MAP_SHARED);
  return mmap((void *)(uintptr_t)start, round_to_pages(size), prot, flags, adopted.file,
              (off_t)(start - adopted.start)) != MAP_FAILED;
}

/* Maps new shared memory of a name, inaccessible; MAP_FAILED sets errno. */
static void *map_shared(const char *path, uint64_t size) {
  int file = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (file < 0)
    return MAP_FAILED;
  void *start = MAP_FAILED;
  if (!ftruncate(file, (off_t)size))
    start = mmap(0, size, PROT_NONE, MAP_SHARED, file, 0);
  int error = errno;
  close(file);
  if (start == MAP_FAILED)
    unlink(path);
  errno = error;
  return start;
}

static wrapper_result reserved(uint64_t start, uint64_t size, const char *name) {
  add_reservation(&all, (void *)(uintptr_t)start, size);
  struct bytes bytes = {0};
  put_u8(&bytes, 1);
  put_u64(&bytes, start);
  put_text(&bytes, name);
  return result_of(&bytes);
}

/* Expected<Tuple<Addr, String>>(Addr instance, UInt64 size): memory that was adopted has no name. */
static wrapper_result reserve(const char *data, size_t size) {
  static unsigned counter;
  sps_reader reader = sps_read(data, size);
  sps_u64(&reader);
  uint64_t wanted = round_to_pages(sps_u64(&reader));
  if (reader.failed || !wanted)
    return expected_failure("malformed arguments, or no size");
  if (adopted.size) {
    if (wanted > adopted.size || __atomic_exchange_n(&adopted.is_reserved, true, __ATOMIC_RELAXED))
      return expected_failure("the sandbox has no more memory for code");
    return reserved(adopted.start, adopted.size, "");
  }
  char name[64], path[96];
  void *start;
  /* Other containers may share the directory, and have processes of the same number. */
  unsigned attempts = 1000;
  do {
    unsigned number = __atomic_add_fetch(&counter, 1, __ATOMIC_RELAXED);
    snprintf(name, sizeof name, "/jitlink_%ld_%u", (long)getpid(), number);
    snprintf(path, sizeof path, "/dev/shm%s", name);
    start = map_shared(path, wanted);
  } while (start == MAP_FAILED && errno == EEXIST && --attempts);
  if (start == MAP_FAILED)
    return expected_errno("cannot map shared memory");
  return reserved((uintptr_t)start, wanted, name);
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
    if ((group & EXEC) && !protect_segment(start, length, 0))
      return expected_errno("cannot protect memory");
    if (!protect_segment(start, length, group))
      return expected_errno("cannot protect memory");
    if (group & EXEC)
      __builtin___clear_cache((char *)(uintptr_t)start, (char *)(uintptr_t)(start + length));
    key = start < key ? start : key;
  }
  return add_allocation(&all, key, &reader);
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
    {0, 0},
};
