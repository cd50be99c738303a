/* Exit handlers and finalisers of JITDylibs.
 *
 * The process's own exit handlers may outlive code that was linked in memory, so that code gets
 * the functions of this file in place of __cxa_atexit and its kin. What they register runs once:
 * when its dylib is closed, before memory that it refers to is deallocated, or when the process
 * exits, whichever comes first. At exit, one of the process's own handlers runs ours.
 *
 * The order is that of a native process. When it exits, handlers run first, the last one first,
 * whichever dylib they belong to; then the dylibs are closed, the last one first. Handlers that a
 * library has registered before the program was initialised run when the library is closed.
 *
 * Specification: Itanium C++ ABI, 3.3.6.
 */
#include <pthread.h>
#include <stdio.h>

#include "dylibs.h"

extern int __cxa_atexit(void (*)(void *), void *, void *);
extern void __cxa_finalize(void *);
extern int __cxa_at_quick_exit(void (*)(void *), void *) WEAK;

static uint64_t program_start;

void set_program_start(uint64_t order) { program_start = order; }

/* Removes the newest handler of the chosen dylibs that is newer than `since`; null if there is
   none. */
static struct handler *take_newest(const struct choice *choice, uint64_t since, bool quick) {
  struct handler **newest = 0, *handler = 0;
  size_t place = 0;
  lock_dylibs();
  for (struct dylib *each = 0; (each = next_dylib(choice, each, &place));) {
    struct handler **first = quick ? &each->quick_handlers : &each->handlers;
    if (*first && (*first)->order > since && (!newest || (*first)->order > (*newest)->order))
      newest = first;
  }
  if (newest) {
    handler = *newest;
    *newest = handler->older;
  }
  unlock_dylibs();
  return handler;
}

static void call_handler(struct handler *handler) {
  void (*function)(void *) = handler->function;
  void *argument = handler->argument;
  free(handler); /* first, because the function may not return */
  function(argument);
}

/* What handlers register while they run is run, too. */
static void run_handlers(const struct choice *choice, uint64_t since, bool quick) {
  for (struct handler *handler; (handler = take_newest(choice, since, quick));)
    call_handler(handler);
}

/* Removes the last finalisers of a dylib that have not run. */
static bool take_finalizers(const void *handle, bool with_priority, struct array *array) {
  bool found = false;
  lock_dylibs();
  struct dylib *dylib = find_dylib(handle);
  for (struct finalizers *each = dylib ? dylib->finalizers : 0; each && !found; each = each->older)
    if (each->count > (with_priority ? 0 : each->with_priority)) {
      *array = each->arrays[--each->count];
      found = true;
    }
  unlock_dylibs();
  return found;
}

static void free_finalizers(const void *handle) {
  lock_dylibs();
  struct dylib *dylib = find_dylib(handle);
  struct finalizers *finalizers = dylib ? dylib->finalizers : 0;
  if (dylib)
    dylib->finalizers = 0;
  unlock_dylibs();
  while (finalizers) {
    struct finalizers *older = finalizers->older;
    free(finalizers);
    finalizers = older;
  }
}

/* Closes one dylib as dlclose does: in a native library, crtbegin.o runs the exit handlers from a
   finaliser without a priority, the first one. */
static void close_dylib(const void *handle) {
  const struct choice choice = {&handle, 1};
  struct array array;
  while (take_finalizers(handle, false, &array))
    call_array(&array, true, 0, 0, 0);
  run_handlers(&choice, 0, false);
  while (take_finalizers(handle, true, &array))
    call_array(&array, true, 0, 0, 0);
  free_finalizers(handle);
  run_handlers(&choice, 0, false);
}

/* Marks the chosen dylib that was opened last as closed; returns its handle, or null if none is
   open. */
static const void *take_last_opened(const struct choice *choice) {
  struct dylib *last = 0;
  size_t place = 0;
  lock_dylibs();
  for (struct dylib *each = 0; (each = next_dylib(choice, each, &place));)
    if (each->order && (!last || each->order > last->order))
      last = each;
  const void *handle = last ? last->handle : 0;
  if (last)
    last->order = 0;
  unlock_dylibs();
  return handle;
}

/* Closes dylibs; as a process that exits, by running the handlers of all of them first. */
static void close_all(const struct choice *choice, bool is_exit) {
  if (is_exit)
    run_handlers(choice, program_start, false);
  for (const void *handle; (handle = take_last_opened(choice));)
    close_dylib(handle);
  run_handlers(choice, 0, false);
}

/* The process's exit */

static char exit_key; /* identifies the process's handler that runs ours */
static bool is_moving;

static void at_process_exit(void *unused) {
  static const struct choice everything = {0, 0};
  (void)unused;
  if (!__atomic_load_n(&is_moving, __ATOMIC_ACQUIRE))
    close_all(&everything, true);
}

void move_exit_handler(void) {
  static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;
  pthread_mutex_lock(&turn);
  __atomic_store_n(&is_moving, true, __ATOMIC_RELEASE);
  __cxa_finalize(&exit_key); /* also runs it, which must do nothing then */
  __atomic_store_n(&is_moving, false, __ATOMIC_RELEASE);
  __cxa_atexit(at_process_exit, 0, &exit_key);
  pthread_mutex_unlock(&turn);
}

static void ensure_exit_handler(void) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, move_exit_handler);
}

/* Nothing(): does what is to be done at the process's exit, and leaves nothing to do then. For an
   executor that unmaps all memory before it exits, the runtime's included. */
wrapper_result __jitlink_finalize_process(const char *data, size_t size) {
  (void)data, (void)size;
  __cxa_finalize(&exit_key);
  fflush(0);
  return sps_nothing();
}

static void at_process_quick_exit(void *unused) {
  static const struct choice everything = {0, 0};
  (void)unused;
  run_handlers(&everything, 0, true);
}

static void ensure_quick_exit_handler(void) {
  if (__cxa_at_quick_exit)
    __cxa_at_quick_exit(at_process_quick_exit, 0);
}

/* Called by linked code */

static int add_handler(void (*function)(void *), void *argument, const void *handle, bool quick) {
  struct handler *handler = malloc(sizeof *handler);
  if (!handler)
    return -1;
  handler->function = function;
  handler->argument = argument;
  lock_dylibs();
  struct dylib *dylib = dylib_or_process(handle);
  struct handler **list = quick ? &dylib->quick_handlers : &dylib->handlers;
  handler->order = next_order();
  handler->older = *list;
  *list = handler;
  unlock_dylibs();
  return 0;
}

/* In place of __cxa_atexit. */
int __jitlink_cxa_atexit(void (*function)(void *), void *argument, void *handle) {
  ensure_exit_handler();
  return add_handler(function, argument, handle, false);
}

/* In place of __cxa_at_quick_exit. */
int __jitlink_cxa_at_quick_exit(void (*function)(void *), void *handle) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, ensure_quick_exit_handler);
  return add_handler(function, 0, handle, true);
}

/* In place of __cxa_finalize: runs the exit handlers of one dylib and no finalisers; of all if there
   is no handle. */
void __jitlink_cxa_finalize(const void *handle) {
  const struct choice choice = {handle ? &handle : 0, 1};
  run_handlers(&choice, 0, false);
}

/* Called by the session */

/* Handles, in memory of malloc. */
static const void **read_handles(sps_reader *reader, size_t *count) {
  *count = sps_count(reader, 8);
  const void **handles = malloc((*count + 1) * sizeof *handles);
  for (size_t each = 0; handles && each < *count; ++each)
    handles[each] = sps_address(reader);
  return handles;
}

static void drop_quick_handlers(const void *handle) {
  lock_dylibs();
  struct dylib *dylib = find_dylib(handle);
  struct handler *handlers = dylib ? dylib->quick_handlers : 0;
  if (dylib)
    dylib->quick_handlers = 0;
  unlock_dylibs();
  free_handlers(handlers);
}

/* Error(Sequence<Addr> handles, Bool is_exit): closes dylibs, the last one that was opened first. */
wrapper_result __jitlink_finalize(const char *data, size_t size) {
  sps_reader reader = sps_read(data, size);
  struct choice choice = {0, 0};
  const void **handles = read_handles(&reader, &choice.count);
  bool is_exit = sps_bool(&reader);
  if (reader.failed || !handles) {
    free(handles);
    return sps_malformed();
  }
  choice.handles = handles;
  end_threads_of(handles, choice.count);
  close_all(&choice, is_exit);
  for (size_t each = 0; each < choice.count; ++each) {
    drop_quick_handlers(handles[each]);
    /* Fork handlers are registered with the C library under the handle. */
    __cxa_finalize((void *)handles[each]);
  }
  free(handles);
  fflush(0);
  return sps_zero_byte();
}

/* Memory that is about to be deallocated */

static struct range *read_ranges(sps_reader *reader, size_t *count) {
  *count = sps_count(reader, 16);
  struct range *ranges = malloc((*count + 1) * sizeof *ranges);
  for (size_t each = 0; ranges && each < *count; ++each) {
    ranges[each].start = (uintptr_t)sps_u64(reader);
    ranges[each].end = (uintptr_t)sps_u64(reader);
  }
  return ranges;
}

/* The link to the newest handler that refers to some ranges, or null. */
static struct handler **newest_within(const struct range *ranges, size_t count, bool quick) {
  static const struct choice everything = {0, 0};
  struct handler **newest = 0;
  size_t place = 0;
  for (struct dylib *each = 0; (each = next_dylib(&everything, each, &place));) {
    struct handler **link = quick ? &each->quick_handlers : &each->handlers;
    for (; *link; link = &(*link)->older) {
      if (!is_within(ranges, count, (uintptr_t)(*link)->function) &&
          !is_within(ranges, count, (uintptr_t)(*link)->argument))
        continue;
      if (!newest || (*link)->order > (*newest)->order)
        newest = link;
      break; /* the others of this dylib are older */
    }
  }
  return newest;
}

/* The last finalisers that lie in some ranges and have not run; null if there are none. */
static struct array *finalizers_within(const struct range *ranges, size_t count) {
  static const struct choice everything = {0, 0};
  size_t place = 0;
  for (struct dylib *dylib = 0; (dylib = next_dylib(&everything, dylib, &place));)
    for (struct finalizers *each = dylib->finalizers; each; each = each->older)
      for (size_t number = each->count; number--;) {
        struct array *array = &each->arrays[number];
        if (array->start != array->end && is_within(ranges, count, (uintptr_t)array->start))
          return array;
      }
  return 0;
}

/* Bool(Sequence<Range>): whether __jitlink_finalize_memory would find nothing. */
wrapper_result __jitlink_is_memory_final(const char *data, size_t size) {
  sps_reader reader = sps_read(data, size);
  wrapper_result result = {{0}, 1};
  size_t count;
  struct range *ranges = read_ranges(&reader, &count);
  lock_dylibs();
  bool found = reader.failed || !ranges || newest_within(ranges, count, false) ||
               newest_within(ranges, count, true) || finalizers_within(ranges, count);
  unlock_dylibs();
  found = found || has_thread_calls(ranges, count);
  free(ranges);
  result.value.bytes[0] = !found;
  return result;
}

/* Error(Sequence<Range>): runs the handlers and finalisers that refer to memory that is about to
   be deallocated, the last one first, and leaves all others as they are. */
wrapper_result __jitlink_finalize_memory(const char *data, size_t size) {
  sps_reader reader = sps_read(data, size);
  size_t count;
  struct range *ranges = read_ranges(&reader, &count);
  if (reader.failed || !ranges) {
    free(ranges);
    return sps_malformed();
  }
  for (bool is_done = false; !is_done;) {
    struct array final = {0, 0, false};
    lock_dylibs();
    struct handler **link = newest_within(ranges, count, false);
    struct handler *handler = link ? *link : 0;
    struct array *array = link ? 0 : finalizers_within(ranges, count);
    if (link)
      *link = handler->older;
    if (array) {
      final = *array;
      array->end = array->start;
    }
    unlock_dylibs();
    if (handler)
      call_handler(handler);
    else if (array)
      call_array(&final, true, 0, 0, 0);
    else
      is_done = true;
  }
  for (;;) {
    lock_dylibs();
    struct handler **link = newest_within(ranges, count, true);
    struct handler *handler = link ? *link : 0;
    if (link)
      *link = handler->older;
    unlock_dylibs();
    if (!handler)
      break;
    free(handler);
  }
  forget_thread_calls(ranges, count);
  free(ranges);
  return sps_zero_byte();
}
