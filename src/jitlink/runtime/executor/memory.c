/* Memory whose content arrives in messages. A slab is one reservation; its regions are initialised
 * one by one, and are known by the lowest address of their segments.
 */
#include <errno.h>
#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

#include "executor.h"
#include "protections.h"

struct region {
  uint64_t key;
  struct actions actions;
  struct region *older;
};

struct slab {
  uint64_t start, end;
  struct region *regions;
  struct slab *older;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct slab *slabs;
static char instance;

/* With the lock held. */
static struct slab *slab_with(uint64_t start, uint64_t size) {
  struct slab *slab = slabs;
  while (slab && (start < slab->start || start > slab->end || size > slab->end - start))
    slab = slab->older;
  return slab;
}

/* Expected<Addr>(Addr instance, UInt64 size) */
static wrapper_result reserve(const char *data, size_t size) {
  sps_reader reader = sps_read(data, size);
  sps_u64(&reader);
  uint64_t wanted = round_to_pages(sps_u64(&reader));
  if (reader.failed || !wanted)
    return expected_failure("malformed arguments, or no size");
  struct slab *slab = calloc(1, sizeof *slab);
  void *start = slab ? mmap(0, wanted, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
                     : MAP_FAILED;
  if (start == MAP_FAILED) {
    free(slab);
    return expected_errno("cannot reserve memory");
  }
  slab->start = (uintptr_t)start;
  slab->end = slab->start + wanted;
  pthread_mutex_lock(&lock);
  slab->older = slabs;
  slabs = slab;
  pthread_mutex_unlock(&lock);
  return expected_u64(slab->start);
}

struct request {
  unsigned group;
  uint64_t start, size, given;
  const unsigned char *content;
};

static struct request read_request(sps_reader *reader) {
  struct request request = {0};
  request.group = (unsigned)sps_number(reader, 1);
  request.start = sps_u64(reader);
  request.size = sps_u64(reader);
  request.given = sps_count(reader, 1);
  request.content = sps_take(reader, request.given);
  return request;
}

static const char *write_request(const struct request *request) {
  char *start = (char *)(uintptr_t)request->start;
  /* The pages may have been in use before. */
  if (!protect(request->start, request->size, READ | WRITE))
    return "cannot make memory writable";
  memcpy(start, request->content, request->given);
  memset(start + request->given, 0, request->size - request->given);
  __builtin___clear_cache(start, start + request->size);
  return protect(request->start, request->size, request->group) ? 0 : "cannot protect memory";
}

/* Expected<Addr key>(Addr instance, FinalizeRequest) */
static wrapper_result initialize(const char *data, size_t size) {
  sps_reader reader = sps_read(data, size);
  sps_u64(&reader);
  size_t count = sps_count(&reader, 25);
  sps_reader checked = reader;
  uint64_t key = UINT64_MAX;
  pthread_mutex_lock(&lock);
  const char *problem = count ? 0 : "a request has no segments";
  struct slab *slab = 0;
  for (size_t each = 0; each < count && !problem; ++each) {
    struct request request = read_request(&checked);
    struct slab *found = checked.failed ? 0 : slab_with(request.start, request.size);
    if (!found || (slab && slab != found))
      problem = "segments are not in one reservation";
    else if (request.given > request.size)
      problem = "a segment is smaller than its content";
    else if (request.start & (page_size() - 1))
      problem = "a segment does not begin at a page";
    slab = found;
    key = request.start < key ? request.start : key;
  }
  pthread_mutex_unlock(&lock);
  for (size_t each = 0; each < count && !problem; ++each) {
    struct request request = read_request(&reader);
    problem = write_request(&request);
  }
  if (problem)
    return expected_failure(problem);
  struct region *region = calloc(1, sizeof *region);
  if (!region)
    abort();
  region->key = key;
  char *message = run_finalize_actions(&reader, &region->actions);
  if (message) {
    wrapper_result failure = expected_failure(message);
    free(message);
    free(region);
    return failure;
  }
  pthread_mutex_lock(&lock);
  slab = slab_with(key, 0);
  if (slab) {
    region->older = slab->regions;
    slab->regions = region;
  }
  pthread_mutex_unlock(&lock);
  return expected_u64(key);
}

static void free_region(struct region *region, struct bytes *failures) {
  run_deallocate_actions(&region->actions, failures);
  free(region);
}

/* Takes the region of a key out of its slab; null if there is none. */
static struct region *take_region(uint64_t key) {
  struct region *found = 0;
  pthread_mutex_lock(&lock);
  struct slab *slab = slab_with(key, 0);
  for (struct region **link = slab ? &slab->regions : 0; link && *link; link = &(*link)->older)
    if ((*link)->key == key) {
      found = *link;
      *link = found->older;
      break;
    }
  pthread_mutex_unlock(&lock);
  return found;
}

static void add_failure(struct bytes *failures, const char *text) {
  if (failures->size)
    put(failures, "\n", 1);
  put(failures, text, strlen(text));
}

/* Error(Addr instance, Sequence<Addr keys>): the last one first. */
static wrapper_result deinitialize(const char *data, size_t size) {
  sps_reader reader = sps_read(data, size);
  sps_u64(&reader);
  size_t count = sps_count(&reader, 8);
  const char *keys = (const char *)reader.next;
  struct bytes failures = {0};
  while (count--) {
    sps_reader key = sps_read(keys + 8 * count, 8);
    struct region *region = take_region(sps_u64(&key));
    if (region)
      free_region(region, &failures);
    else
      add_failure(&failures, "nothing is initialised at an address");
  }
  return error_of(&failures);
}

static void free_slab(struct slab *slab, struct bytes *failures) {
  while (slab->regions) {
    struct region *region = slab->regions;
    slab->regions = region->older;
    free_region(region, failures);
  }
  munmap((void *)(uintptr_t)slab->start, slab->end - slab->start);
  free(slab);
}

/* Error(Addr instance, Sequence<Addr bases>): the last one first. */
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
    struct slab **link = &slabs;
    while (*link && (*link)->start != start)
      link = &(*link)->older;
    struct slab *slab = *link;
    if (slab)
      *link = slab->older;
    pthread_mutex_unlock(&lock);
    if (slab)
      free_slab(slab, &failures);
    else
      add_failure(&failures, "nothing is reserved at an address");
  }
  return error_of(&failures);
}

void release_memory(void) {
  struct bytes failures = {0};
  /* Actions of one slab may be functions of another: all run before any is unmapped. */
  for (struct slab *slab = slabs; slab; slab = slab->older)
    while (slab->regions) {
      struct region *region = slab->regions;
      slab->regions = region->older;
      free_region(region, &failures);
    }
  free(failures.data);
}

const struct bootstrap_symbol memory_symbols[] = {
    {"__llvm_orc_SimpleExecutorMemoryManager_Instance", &instance},
    {"__llvm_orc_SimpleExecutorMemoryManager_reserve_wrapper", (const void *)reserve},
    {"__llvm_orc_SimpleExecutorMemoryManager_initialize_wrapper", (const void *)initialize},
    {"__llvm_orc_SimpleExecutorMemoryManager_deinitialize_wrapper", (const void *)deinitialize},
    {"__llvm_orc_SimpleExecutorMemoryManager_release_wrapper", (const void *)release},
    {0, 0},
};
