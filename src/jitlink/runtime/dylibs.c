/* The table of JITDylibs, by the address of their `__dso_handle`. */
#include <pthread.h>

#include "dylibs.h"

enum { BUCKETS = 1024 };
static struct dylib *buckets[BUCKETS];
/* Owns what code registers with a handle of no dylib, such as null. */
static struct dylib process;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static uint64_t last_order;

uint64_t next_order(void) { return ++last_order; }

void lock_dylibs(void) { pthread_mutex_lock(&lock); }

void unlock_dylibs(void) { pthread_mutex_unlock(&lock); }

static struct dylib **bucket_of(const void *handle) {
  uintptr_t number = (uintptr_t)handle;
  return &buckets[(number >> 3 ^ number >> 13 ^ number >> 23) % BUCKETS];
}

struct dylib *find_dylib(const void *handle) {
  struct dylib *dylib = *bucket_of(handle);
  while (dylib && dylib->handle != handle)
    dylib = dylib->next;
  return dylib;
}

struct dylib *dylib_or_process(const void *handle) {
  struct dylib *found = find_dylib(handle);
  return found ? found : &process;
}

struct dylib *next_dylib(const struct choice *choice, struct dylib *last, size_t *place) {
  if (choice->handles) {
    while (*place < choice->count) {
      struct dylib *found = find_dylib(choice->handles[(*place)++]);
      if (found)
        return found;
    }
    return 0;
  }
  struct dylib *found = last ? last->next : &process;
  while (!found && *place < BUCKETS)
    found = buckets[(*place)++];
  return found;
}

/* Error(Addr handle, String name, Addr dispatch, Addr context) */
wrapper_result __jitlink_register_dylib(const char *data, size_t size) {
  sps_reader reader = sps_read(data, size);
  struct dylib *dylib = calloc(1, sizeof *dylib);
  if (!dylib)
    return sps_failure("out of memory");
  dylib->handle = sps_address(&reader);
  dylib->name = sps_string(&reader);
  dylib->dispatch = (dispatch_function)sps_address(&reader);
  dylib->context = sps_address(&reader);
  if (reader.failed || !dylib->name) {
    free(dylib->name);
    free(dylib);
    return sps_malformed();
  }
  pthread_mutex_lock(&lock);
  dylib->next = *bucket_of(dylib->handle);
  *bucket_of(dylib->handle) = dylib;
  pthread_mutex_unlock(&lock);
  return sps_zero_byte();
}

void free_handlers(struct handler *handler) {
  while (handler) {
    struct handler *older = handler->older;
    free(handler);
    handler = older;
  }
}

/* Error(Addr handle): discards handlers and finalisers that have not run. */
wrapper_result __jitlink_deregister_dylib(const char *data, size_t size) {
  sps_reader reader = sps_read(data, size);
  const void *handle = sps_address(&reader);
  pthread_mutex_lock(&lock);
  struct dylib **place = bucket_of(handle);
  while (*place && (*place)->handle != handle)
    place = &(*place)->next;
  struct dylib *dylib = *place;
  if (dylib)
    *place = dylib->next;
  pthread_mutex_unlock(&lock);
  if (!dylib)
    return sps_failure("no such JITDylib is registered");
  free_handlers(dylib->handlers);
  free_handlers(dylib->quick_handlers);
  while (dylib->finalizers) {
    struct finalizers *older = dylib->finalizers->older;
    free(dylib->finalizers);
    dylib->finalizers = older;
  }
  free(dylib->name);
  free(dylib);
  return sps_zero_byte();
}
