#include "reservations.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

void *map_below(uint64_t limit, uint64_t size, int protection, int flags, int file) {
  enum { LOWEST = 1 << 20, STEP = 2 << 20, ATTEMPTS = 2048 };
  if (!limit)
    return mmap(0, size, protection, flags, file, 0);
  uint64_t start = size < limit ? (limit - size) & -(uint64_t)STEP : 0;
  for (unsigned attempt = 0; start >= LOWEST && attempt < ATTEMPTS; ++attempt, start -= STEP) {
    void *wanted = (void *)(uintptr_t)start;
    void *found = mmap(wanted, size, protection, flags | MAP_FIXED_NOREPLACE, file, 0);
    if (found == wanted || (found == MAP_FAILED && errno != EEXIST))
      return found;
    /* Kernels before 4.17 take the address for a hint. */
    if (found != MAP_FAILED)
      munmap(found, size);
  }
  errno = ENOMEM;
  return MAP_FAILED;
}

bool has_file(const struct reservation *place) {
  struct stat status;
  return place->inode && !fstat(place->file, &status) && status.st_ino == place->inode &&
         status.st_dev == place->device;
}

void add_reservation(struct reservations *all, void *start, uint64_t size, int file) {
  struct reservation *made = calloc(1, sizeof *made);
  if (!made)
    abort();
  made->start = (uintptr_t)start;
  made->size = size;
  made->file = file;
  struct stat status;
  if (file >= 0 && !fstat(file, &status)) {
    made->device = status.st_dev;
    made->inode = status.st_ino;
  }
  pthread_mutex_lock(&all->lock);
  made->older = all->newest;
  all->newest = made;
  pthread_mutex_unlock(&all->lock);
}

/* The reservation that contains a range; with the lock held. The end of one may be the start of
   another: the range of a single address has a size of 1. */
static struct reservation *find(const struct reservations *all, uint64_t start, uint64_t size) {
  struct reservation *each = all->newest;
  while (each && (start < each->start || start - each->start > each->size ||
                  size > each->size - (start - each->start)))
    each = each->older;
  return each;
}

struct reservation place_of(struct reservations *all, uint64_t start, uint64_t size) {
  struct reservation place = {0};
  pthread_mutex_lock(&all->lock);
  struct reservation *found = find(all, start, size);
  if (found)
    place = *found;
  pthread_mutex_unlock(&all->lock);
  return place;
}

static void free_allocation(struct allocation *allocation) {
  free(allocation->pages);
  free(allocation);
}

wrapper_result add_allocation(struct reservations *all, uint64_t key, sps_reader *actions,
                              struct pages *pages, size_t count) {
  struct allocation *made = calloc(1, sizeof *made);
  if (!made)
    abort();
  made->key = key;
  made->pages = pages;
  made->count = count;
  char *message = run_finalize_actions(actions, &made->actions);
  if (message) {
    wrapper_result failure = sps_expected_failure(message);
    free(message);
    free_allocation(made);
    return failure;
  }
  pthread_mutex_lock(&all->lock);
  struct reservation *place = find(all, key, 1);
  if (place) {
    made->older = place->allocations;
    place->allocations = made;
  }
  pthread_mutex_unlock(&all->lock);
  if (place)
    return sps_expected_u64(key);
  struct bytes failures = {0};
  run_deallocate_actions(&made->actions, &failures);
  free(failures.data);
  free_allocation(made);
  return sps_expected_failure("the memory was released meanwhile");
}

static void free_allocations(struct reservation *reservation, struct bytes *failures) {
  while (reservation->allocations) {
    struct allocation *allocation = reservation->allocations;
    reservation->allocations = allocation->older;
    run_deallocate_actions(&allocation->actions, failures);
    free_allocation(allocation);
  }
}

/* Takes the allocation of a key out of its reservation; null if there is none. */
static struct allocation *take_allocation(struct reservations *all, uint64_t key) {
  struct allocation *found = 0;
  pthread_mutex_lock(&all->lock);
  struct reservation *place = find(all, key, 1);
  struct allocation **link = place ? &place->allocations : 0;
  while (link && *link && (*link)->key != key)
    link = &(*link)->older;
  if (link && *link) {
    found = *link;
    *link = found->older;
  }
  pthread_mutex_unlock(&all->lock);
  return found;
}

/* Takes a reservation out of the list; null if there is none. */
static struct reservation *take_reservation(struct reservations *all, uint64_t start) {
  pthread_mutex_lock(&all->lock);
  struct reservation **link = &all->newest;
  while (*link && (*link)->start != start)
    link = &(*link)->older;
  struct reservation *found = *link;
  if (found)
    *link = found->older;
  pthread_mutex_unlock(&all->lock);
  return found;
}

/* The addresses of a request, which follow the instance. */
struct addresses {
  const char *data;
  size_t count;
};

static bool read_addresses(const char *data, size_t size, struct addresses *addresses) {
  sps_reader reader = sps_read(data, size);
  sps_u64(&reader);
  size_t count = sps_count(&reader, 8);
  *addresses = (struct addresses){(const char *)reader.next, count};
  return !reader.failed;
}

static uint64_t take_last(struct addresses *addresses) {
  sps_reader reader = sps_read(addresses->data + 8 * --addresses->count, 8);
  return sps_u64(&reader);
}

wrapper_result deinitialize_keys(struct reservations *all, const char *data, size_t size) {
  struct addresses keys;
  struct bytes failures = {0};
  if (!read_addresses(data, size, &keys))
    return sps_malformed();
  struct allocation *done = 0;
  while (keys.count) {
    struct allocation *allocation = take_allocation(all, take_last(&keys));
    if (allocation) {
      run_deallocate_actions(&allocation->actions, &failures);
      allocation->older = done;
      done = allocation;
    } else if (!all->ignores_unknown_keys)
      add_failure(&failures, "nothing is initialised at an address");
  }
  /* The actions of one may be functions of another. */
  while (done) {
    struct allocation *allocation = done;
    done = allocation->older;
    for (size_t each = 0; each < allocation->count; ++each)
      madvise((void *)(uintptr_t)allocation->pages[each].start, allocation->pages[each].size,
              MADV_DONTNEED);
    free_allocation(allocation);
  }
  return error_of(&failures);
}

wrapper_result release_starts(struct reservations *all, const char *data, size_t size) {
  struct addresses starts;
  struct bytes failures = {0};
  if (!read_addresses(data, size, &starts))
    return sps_malformed();
  while (starts.count) {
    struct reservation *reservation = take_reservation(all, take_last(&starts));
    if (!reservation) {
      add_failure(&failures, "nothing is reserved at an address");
      continue;
    }
    free_allocations(reservation, &failures);
    munmap((void *)(uintptr_t)reservation->start, reservation->size);
    if (has_file(reservation) && !all->keeps_files)
      close(reservation->file);
    free(reservation);
  }
  return error_of(&failures);
}

void finish_allocations(struct reservations *all) {
  struct bytes failures = {0};
  for (struct reservation *each = all->newest; each; each = each->older)
    free_allocations(each, &failures);
  free(failures.data);
}
