/* The JITDylibs of all sessions that have code in this process, and what each still has to run.
 *
 * Everything here is guarded by one lock, which is never held while other code runs.
 */
#ifndef JITLINK_DYLIBS_H
#define JITLINK_DYLIBS_H

#include "wrapper.h"

/* A call into the session: the shape is that of ORC's dispatch functions. */
typedef wrapper_result (*dispatch_function)(void *context, const void *tag, const char *data,
                                            size_t size);

/* Something to be called at exit. The order of registration is one for all dylibs. */
struct handler {
  struct handler *older;
  uint64_t order;
  void (*function)(void *);
  void *argument;
};

/* Pointers to functions; `backwards` if the last one is to be called first. */
struct array {
  uintptr_t *start, *end;
  bool backwards;
};

/* The finalisers that go with one run of initialisers and have not run: those with a priority, then
   the others. They are called from the last one to the first. */
struct finalizers {
  struct finalizers *older;
  size_t with_priority, count;
  struct array arrays[];
};

struct dylib {
  struct dylib *next;
  const void *handle; /* the address of its __dso_handle */
  char *name;
  dispatch_function dispatch;
  void *context;
  uint64_t order; /* when it was opened; 0 if it is not open */
  struct handler *handlers, *quick_handlers;
  struct finalizers *finalizers;
};

/* A half-open range of addresses. */
struct range {
  uintptr_t start, end;
};

HIDDEN void lock_dylibs(void);
HIDDEN void unlock_dylibs(void);

/* The dylib with a handle, or null; with the lock held. */
HIDDEN struct dylib *find_dylib(const void *handle);

/* The same, or what stands for the process itself. */
HIDDEN struct dylib *dylib_or_process(const void *handle);

/* Some dylibs; all of them, and the process, if there is no list. */
struct choice {
  const void *const *handles;
  size_t count;
};

/* The chosen dylib after one, or the first one; null at the end. `place` is 0 at first. With the
   lock held. */
HIDDEN struct dylib *next_dylib(const struct choice *choice, struct dylib *last, size_t *place);

/* The number of the next registration; with the lock held. */
HIDDEN uint64_t next_order(void);

/* Handlers that were registered before this number belong to libraries that were there before the
   program that is running: at exit, each of them runs with the finalisers of its library. */
HIDDEN void set_program_start(uint64_t order);

HIDDEN void free_handlers(struct handler *handler);

/* Puts the process's exit handler that runs ours behind all that the process has so far: libraries
   that code was linked against are to be finalised after that code. */
HIDDEN void move_exit_handler(void);

/* Calls the functions of an array, those that are neither null nor -1, which pad `.ctors`. */
HIDDEN void call_array(const struct array *array, bool backwards, int argc, char **argv,
                       char **environment);

/* Runs what a thread still has to run for dylibs (all if there is no handle), and makes other
   threads forget what they have. */
HIDDEN void end_threads_of(const void *const *handles, size_t count);

/* The same for what threads have to run in memory that is about to go, none of which is run. */
HIDDEN void forget_thread_calls(const struct range *ranges, size_t count);

/* Whether a thread has something to run in some memory. */
HIDDEN bool has_thread_calls(const struct range *ranges, size_t count);

static inline bool is_within(const struct range *ranges, size_t count, uintptr_t address) {
  for (size_t each = 0; each < count; ++each)
    if (ranges[each].start <= address && address < ranges[each].end)
      return true;
  return false;
}

static inline bool is_among(const void *const *handles, size_t count, const void *handle) {
  for (size_t each = 0; each < count; ++each)
    if (handles[each] == handle)
      return true;
  return false;
}

#endif
