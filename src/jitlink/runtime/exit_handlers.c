/* Exit handlers and finalisers of JITDylibs.
 *
 * The process's own exit handlers may outlive code that was linked in memory, so that code gets
 * the functions of this file in place of __cxa_atexit and its kin. What they note is run when a
 * dylib is closed, when memory goes that it refers to, or when the process exits, whichever comes
 * first, and never twice. For the last of these there is one handler among the process's own.
 *
 * As in a native process, all handlers come before all finalisers, the last one first, whichever
 * dylib they belong to.
 *
 * Specification: Itanium C++ ABI, 3.3.6.
 */
#include <pthread.h>
#include <stdio.h>

#include "dylibs.h"

extern int __cxa_atexit(void (*)(void *), void *, void *);
extern void __cxa_finalize(void *);
extern int __cxa_at_quick_exit(void (*)(void *), void *) WEAK;

/* Takes the newest handler of the chosen dylibs, or else the newest finalisers, out of its list. */
static bool take_newest(const struct choice *choice, struct handler **handler,
                        struct finalizers **finalizers) {
  struct handler **newest = 0;
  struct finalizers **last = 0;
  size_t place = 0;
  lock_dylibs();
  for (struct dylib *each = 0; (each = next_dylib(choice, each, &place));) {
    if (each->handlers && (!newest || each->handlers->order > (*newest)->order))
      newest = &each->handlers;
    if (each->finalizers && (!last || each->finalizers->order > (*last)->order))
      last = &each->finalizers;
  }
  *handler = newest ? *newest : 0;
  *finalizers = last && !newest ? *last : 0;
  if (*handler)
    *newest = (*handler)->older;
  else if (*finalizers)
    *last = (*finalizers)->older;
  unlock_dylibs();
  return *handler || *finalizers;
}

static void call_handler(struct handler *handler) {
  void (*function)(void *) = handler->function;
  void *argument = handler->argument;
  free(handler); /* first, because the function may not return */
  function(argument);
}

/* What handlers register while they run is run, too. */
static void run_all(const struct choice *choice) {
  struct handler *handler;
  struct finalizers *finalizers;
  while (take_newest(choice, &handler, &finalizers)) {
    if (handler) {
      call_handler(handler);
      continue;
    }
    for (size_t each = finalizers->count; each--;)
      call_array(&finalizers->arrays[each], true, 0, 0, 0);
    free(finalizers);
  }
}

/* The process's exit */

static char exit_key; /* identifies the process's handler that runs ours */
static bool is_moving;

static void at_process_exit(void *unused) {
  static const struct choice everything = {0, 0};
  (void)unused;
  if (!__atomic_load_n(&is_moving, __ATOMIC_ACQUIRE))
    run_all(&everything);
}

void move_exit_handler(void) {
  static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;
  pthread_mutex_lock(&turn);
  __atomic_store_n(&is_moving, true, __ATOMIC_RELEASE);
  __cxa_finalize(&exit_key); /* runs it, too, and then it must do nothing */
  __atomic_store_n(&is_moving, false, __ATOMIC_RELEASE);
  __cxa_atexit(at_process_exit, 0, &exit_key);
  pthread_mutex_unlock(&turn);
}

static void ensure_exit_handler(void) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, move_exit_handler);
}

static void at_process_quick_exit(void *unused) {
  (void)unused;
  for (;;) {
    struct handler **newest = 0;
    struct choice everything = {0, 0};
    size_t place = 0;
    lock_dylibs();
    for (struct dylib *each = 0; (each = next_dylib(&everything, each, &place));)
      if (each->quick_handlers && (!newest || each->quick_handlers->order > (*newest)->order))
        newest = &each->quick_handlers;
    struct handler *handler = newest ? *newest : 0;
    if (handler)
      *newest = handler->older;
    unlock_dylibs();
    if (!handler)
      return;
    call_handler(handler);
  }
}

static void ensure_quick_exit_handler(void) {
  if (__cxa_at_quick_exit)
    __cxa_at_quick_exit(at_process_quick_exit, 0);
}

/* What linked code calls */

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

/* Runs the exit handlers of one dylib and no finalisers; of all if there is no handle. */
void __jitlink_cxa_finalize(void *handle) {
  for (;;) {
    struct handler **newest = 0;
    struct choice choice = {0, 0};
    const void *const handles[] = {handle};
    size_t place = 0;
    if (handle)
      choice = (struct choice){handles, 1};
    lock_dylibs();
    for (struct dylib *each = 0; (each = next_dylib(&choice, each, &place));)
      if (each->handlers && (!newest || each->handlers->order > (*newest)->order))
        newest = &each->handlers;
    struct handler *handler = newest ? *newest : 0;
    if (handler)
      *newest = handler->older;
    unlock_dylibs();
    if (!handler)
      return;
    call_handler(handler);
  }
}

/* What the session calls */

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

/* Error(Sequence<Addr> handles): closes dylibs, as a process does that exits. */
wrapper_result __jitlink_finalize(const char *data, size_t size) {
  sps_reader reader = sps_read(data, size);
  struct choice choice = {0, 0};
  const void **handles = read_handles(&reader, &choice.count);
  if (reader.failed || !handles) {
    free(handles);
    return sps_malformed();
  }
  choice.handles = handles;
  end_threads_of(handles, choice.count);
  run_all(&choice);
  for (size_t each = 0; each < choice.count; ++each) {
    drop_quick_handlers(handles[each]);
    /* The C library, too, knows the handle: of fork handlers. */
    __cxa_finalize((void *)handles[each]);
  }
  free(handles);
  fflush(0);
  return sps_zero_byte();
}

/* Memory that is about to go */

static struct range *read_ranges(sps_reader *reader, size_t *count) {
  *count = sps_count(reader, 16);
  struct range *ranges = malloc((*count + 1) * sizeof *ranges);
  for (size_t each = 0; ranges && each < *count; ++each) {
    ranges[each].start = (uintptr_t)sps_u64(reader);
    ranges[each].end = (uintptr_t)sps_u64(reader);
  }
  return ranges;
}

/* The newest handler that refers to some ranges: where it hangs, or null. */
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

/* The newest finalisers that lie in some ranges; null if there are none. */
static struct array *finalizers_within(const struct range *ranges, size_t count) {
  static const struct choice everything = {0, 0};
  struct finalizers *newest = 0;
  struct array *found = 0;
  size_t place = 0;
  for (struct dylib *dylib = 0; (dylib = next_dylib(&everything, dylib, &place));)
    for (struct finalizers *each = dylib->finalizers; each; each = each->older)
      for (size_t array = 0; array < each->count; ++array) {
        struct array *candidate = &each->arrays[array];
        if (candidate->start == candidate->end ||
            !is_within(ranges, count, (uintptr_t)candidate->start))
          continue;
        if (!newest || each->order >= newest->order) {
          newest = each;
          found = candidate;
        }
      }
  return found;
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
   go, the last one first, and leaves all others as they are. */
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
