/* Memory that the controller maps, too, and writes to; no content arrives in messages.
 *
 * The controller removes the name of the shared memory once it has mapped it.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "executor.h"
#include "protections.h"

struct allocation {
  uint64_t key;
  struct actions actions;
  struct allocation *older;
};

struct reservation {
  uint64_t start, size;
  struct allocation *allocations;
  struct reservation *older;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct reservation *reservations;
static char instance;

/* With the lock held. */
static struct reservation *reservation_with(uint64_t start, uint64_t size) {
  struct reservation *each = reservations;
  while (each && (start < each->start || start - each->start > each->size ||
                  size > each->size - (start - each->start)))
    each = each->older;
  return each;
}

/* Expected<Tuple<Addr, String>>(Addr instance, UInt64 size) */
static wrapper_result reserve(const char *data, size_t size) {
  static unsigned counter;
  sps_reader reader = sps_read(data, size);
  sps_u64(&reader);
  uint64_t wanted = round_to_pages(sps_u64(&reader));
  if (reader.failed || !wanted)
    return expected_failure("malformed arguments, or no size");
  char name[64], path[96];
  unsigned number = __atomic_add_fetch(&counter, 1, __ATOMIC_RELAXED);
  snprintf(name, sizeof name, "/jitlink_%ld_%u", (long)getpid(), number);
  snprintf(path, sizeof path, "/dev/shm%s", name);
  int file = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (file < 0)
    return expected_errno("cannot create shared memory");
  struct reservation *made = calloc(1, sizeof *made);
  void *start = MAP_FAILED;
  if (made && !ftruncate(file, (off_t)wanted))
    start = mmap(0, wanted, PROT_NONE, MAP_SHARED, file, 0);
  int error = errno;
  close(file);
  if (start == MAP_FAILED) {
    unlink(path);
    free(made);
    errno = error;
    return expected_errno("cannot map shared memory");
  }
  made->start = (uintptr_t)start;
  made->size = wanted;
  pthread_mutex_lock(&lock);
  made->older = reservations;
  reservations = made;
  pthread_mutex_unlock(&lock);
  struct bytes bytes = {0};
  put_u8(&bytes, 1);
  put_u64(&bytes, made->start);
  put_text(&bytes, name);
  return result_of(&bytes);
}

/* Expected<Addr key>(Addr instance, Addr reservation, SharedMemoryFinalizeRequest) */
static wrapper_result initialize(const char *data, size_t size) {
  sps_reader reader = sps_read(data, size);
  sps_u64(&reader);
  uint64_t place = sps_u64(&reader);
  size_t count = sps_count(&reader, 17);
  uint64_t key = UINT64_MAX;
  const char *problem = reader.failed ? "malformed arguments" : 0;
  for (size_t each = 0; each < count && !problem; ++each) {
    unsigned group = (unsigned)sps_number(&reader, 1);
    uint64_t start = sps_u64(&reader), length = sps_u64(&reader);
    pthread_mutex_lock(&lock);
    struct reservation *found = reader.failed ? 0 : reservation_with(start, length);
    bool is_inside = found && found->start == place;
    pthread_mutex_unlock(&lock);
    if (!is_inside)
      problem = "a segment is not in its reservation";
    else if (!protect(start, length, group))
      problem = "cannot protect memory";
    else
      __builtin___clear_cache((char *)(uintptr_t)start, (char *)(uintptr_t)(start + length));
    key = start < key ? start : key;
  }
  if (problem)
    return expected_failure(problem);
  struct allocation *made = calloc(1, sizeof *made);
  if (!made)
    abort();
  made->key = key;
  char *message = run_finalize_actions(&reader, &made->actions);
  if (message) {
    wrapper_result failure = expected_failure(message);
    free(message);
    free(made);
    return failure;
  }
  pthread_mutex_lock(&lock);
  struct reservation *found = reservation_with(place, 0);
  if (found) {
    made->older = found->allocations;
    found->allocations = made;
  }
  pthread_mutex_unlock(&lock);
  return expected_u64(key);
}

static struct allocation *take_allocation(uint64_t key) {
  struct allocation *found = 0;
  pthread_mutex_lock(&lock);
  for (struct reservation *each = reservations; each && !found; each = each->older)
    for (struct allocation **link = &each->allocations; *link; link = &(*link)->older)
      if ((*link)->key == key) {
        found = *link;
        *link = found->older;
        break;
      }
  pthread_mutex_unlock(&lock);
  return found;
}

static void free_allocation(struct allocation *allocation, struct bytes *failures) {
  run_deallocate_actions(&allocation->actions, failures);
  free(allocation);
}

/* Error(Addr instance, Sequence<Addr keys>): the last one first; unknown keys are ignored. */
static wrapper_result deinitialize(const char *data, size_t size) {
  sps_reader reader = sps_read(data, size);
  sps_u64(&reader);
  size_t count = sps_count(&reader, 8);
  const char *keys = (const char *)reader.next;
  struct bytes failures = {0};
  while (count--) {
    sps_reader key = sps_read(keys + 8 * count, 8);
    struct allocation *allocation = take_allocation(sps_u64(&key));
    if (allocation)
      free_allocation(allocation, &failures);
  }
  return error_of(&failures);
}

/* Error(Addr instance, Sequence<Addr reservations>): the last one first. */
static wrapper_result release(const char *data, size_t size) {
  sps_reader reader = sps_read(data, size);
  sps_u64(&reader);
  size_t count = sps_count(&reader, 8);
  const char *bases = (const char *)reader.next;
  struct bytes failures = {0};
  while (count--) {
    sps_reader base = sps_read(bases + 8 * count, 8);
    uint64_t start = sps_u64(&base);
    pthread_mutex_lock(&lock);
    struct reservation **link = &reservations;
    while (*link && (*link)->start != start)
      link = &(*link)->older;
    struct reservation *found = *link;
    if (found)
      *link = found->older;
    pthread_mutex_unlock(&lock);
    if (!found) {
      static const char unknown[] = "nothing is reserved at an address";
      put(&failures, unknown, sizeof unknown - 1);
      continue;
    }
    while (found->allocations) {
      struct allocation *allocation = found->allocations;
      found->allocations = allocation->older;
      free_allocation(allocation, &failures);
    }
    munmap((void *)(uintptr_t)found->start, found->size);
    free(found);
  }
  return error_of(&failures);
}

void release_shared_memory(void) {
  struct bytes failures = {0};
  for (struct reservation *each = reservations; each; each = each->older)
    while (each->allocations) {
      struct allocation *allocation = each->allocations;
      each->allocations = allocation->older;
      free_allocation(allocation, &failures);
    }
  free(failures.data);
}

const struct bootstrap_symbol shared_memory_symbols[] = {
    {"__llvm_orc_ExecutorSharedMemoryMapperService_Instance", &instance},
    {"__llvm_orc_ExecutorSharedMemoryMapperService_Reserve", (const void *)reserve},
    {"__llvm_orc_ExecutorSharedMemoryMapperService_Initialize", (const void *)initialize},
    {"__llvm_orc_ExecutorSharedMemoryMapperService_Deinitialize", (const void *)deinitialize},
    {"__llvm_orc_ExecutorSharedMemoryMapperService_Release", (const void *)release},
    {0, 0},
};
