/* The JITDylibs of all sessions in this process, with handlers and finalisers that have not run.
 *
 * Everything here is guarded by one lock, which is never held while other code runs.
 */
#ifndef JITLINK_DYLIBS_H
#define JITLINK_DYLIBS_H

#include "wrapper.h"

/* Calls into the session; the type is that of ORC's dispatch functions. */
typedef wrapper_result (*dispatch_function)(void *context, const void *tag, const char *data,
                                            size_t size);

/* An exit handler. Registrations are numbered across all dylibs. */
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

/* The finalisers that were recorded with one run of initialisers and have not run: those with a
   priority, then the others. They are called from the last one to the first. */
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

/* The same, or the entry of the process itself. */
HIDDEN struct dylib *dylib_or_process(const void *handle);

/* The dylibs with some handles; all dylibs, and the process, if `handles` is null. */
struct choice {
  const void *const *handles;
  size_t count;
};

/* The chosen dylib after `last`, or the first one; null at the end. `place` is 0 at first. With the
   lock held. */
HIDDEN struct dylib *next_dylib(const struct choice *choice, struct dylib *last, size_t *place);

/* The number of the next registration; with the lock held. */
HIDDEN uint64_t next_order(void);

/* Handlers with a lower number were registered by libraries before the running program was
   initialised: at exit, each of them runs with the finalisers of its library. */
HIDDEN void set_program_start(uint64_t order);

HIDDEN void free_handlers(struct handler *handler);

/* Registers the process's exit handler that runs ours anew, after all that the process has by now:
   libraries that code was linked against are to be finalised after that code. */
HIDDEN void move_exit_handler(void);

/* Calls the functions of an array, those that are neither null nor -1, which pad `.ctors`. */
HIDDEN void call_array(const struct array *array, bool backwards, int argc, char **argv,
                       char **envp);

/* Runs the calling thread's destructors of thread-local objects of dylibs, and drops those of other
   threads. */
HIDDEN void end_threads_of(const void *const *handles, size_t count);

/* Drops the destructors of all threads that refer to memory that is about to be deallocated. */
HIDDEN void forget_thread_calls(const struct range *ranges, size_t count);

/* Whether a thread has a destructor that refers to some memory. */
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
