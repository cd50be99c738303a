/* Destructors of thread-local objects of JITDylibs, which run when their thread ends.
 *
 * Each thread has a list of its own, and registers one function with the process's own mechanism,
 * not one for each destructor: that mechanism cannot drop destructors when a dylib is closed. So
 * destructors of code that was linked in memory run together, the last one first, where the
 * thread's first one would have run.
 *
 * Specification: Itanium C++ ABI, 3.3.6 and the `__cxa_thread_atexit` extension.
 */
#include <pthread.h>

#include "dylibs.h"

extern int __cxa_thread_atexit_impl(void (*)(void *), void *, void *) WEAK;

struct call {
  struct call *older;
  const void *handle;
  void (*function)(void *);
  void *argument;
};

struct thread {
  struct thread *next, **link;
  struct call *calls;
  /* The call that is running, whose end other threads may have to wait for. */
  struct call *running;
  bool will_end;
};

static pthread_key_t key;
static bool has_key;
static struct thread *threads;
static pthread_cond_t call_ended = PTHREAD_COND_INITIALIZER;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* Runs a call that was removed from the list. */
static void run(struct thread *thread, struct call *call) {
  struct call *outer = thread->running;
  thread->running = call;
  pthread_mutex_unlock(&lock);
  call->function(call->argument);
  pthread_mutex_lock(&lock);
  thread->running = outer;
  free(call);
  pthread_cond_broadcast(&call_ended);
}

static void run_all(void *argument) {
  struct thread *thread = argument;
  pthread_mutex_lock(&lock);
  while (thread->calls) {
    struct call *call = thread->calls;
    thread->calls = call->older;
    run(thread, call);
  }
  thread->will_end = false;
  pthread_mutex_unlock(&lock);
}

/* Runs when a thread ends, after its destructors. */
static void forget_thread(void *argument) {
  struct thread *thread = argument;
  if (!__cxa_thread_atexit_impl)
    run_all(thread);
  pthread_mutex_lock(&lock);
  *thread->link = thread->next;
  if (thread->next)
    thread->next->link = thread->link;
  while (thread->calls) {
    struct call *call = thread->calls;
    thread->calls = call->older;
    free(call);
  }
  pthread_mutex_unlock(&lock);
  free(thread);
}

static void make_key(void) { has_key = !pthread_key_create(&key, forget_thread); }

static struct thread *this_thread(void) {
  struct thread *thread = has_key ? pthread_getspecific(key) : 0;
  if (thread || !has_key)
    return thread;
  thread = calloc(1, sizeof *thread);
  if (!thread || pthread_setspecific(key, thread)) {
    free(thread);
    return 0;
  }
  pthread_mutex_lock(&lock);
  thread->next = threads;
  thread->link = &threads;
  if (threads)
    threads->link = &thread->next;
  threads = thread;
  pthread_mutex_unlock(&lock);
  return thread;
}

/* In place of __cxa_thread_atexit_impl and __cxa_thread_atexit. */
int __jitlink_cxa_thread_atexit(void (*function)(void *), void *argument, void *handle) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, make_key);
  struct thread *thread = this_thread();
  struct call *call = thread ? malloc(sizeof *call) : 0;
  if (!call)
    return -1;
  call->handle = handle;
  call->function = function;
  call->argument = argument;
  pthread_mutex_lock(&lock);
  call->older = thread->calls;
  thread->calls = call;
  bool is_first = !thread->will_end;
  thread->will_end = true;
  pthread_mutex_unlock(&lock);
  if (is_first && __cxa_thread_atexit_impl)
    __cxa_thread_atexit_impl(run_all, thread, &threads); /* an address in no library */
  return 0;
}

/* Selects calls of dylibs, or calls that refer to ranges of addresses, which are not to run. */
struct doomed {
  const void *const *handles;
  size_t handle_count;
  const struct range *ranges;
  size_t range_count;
};

static bool is_doomed(const struct doomed *doomed, const struct call *call) {
  return is_among(doomed->handles, doomed->handle_count, call->handle) ||
         is_within(doomed->ranges, doomed->range_count, (uintptr_t)call->function) ||
         is_within(doomed->ranges, doomed->range_count, (uintptr_t)call->argument);
}

/* The link to the newest doomed call of a thread, or null. */
static struct call **newest_of(struct thread *thread, const struct doomed *doomed) {
  for (struct call **link = &thread->calls; *link; link = &(*link)->older)
    if (is_doomed(doomed, *link))
      return link;
  return 0;
}

/* Drops the doomed calls of all threads, and waits for those that run on other threads. */
static void forget(const struct thread *mine, const struct doomed *doomed) {
  for (struct thread *each = threads; each; each = each->next)
    for (struct call **link; (link = newest_of(each, doomed));) {
      struct call *call = *link;
      *link = call->older;
      free(call);
    }
  for (struct thread *each = threads; each;) {
    if (each != mine && each->running && is_doomed(doomed, each->running)) {
      pthread_cond_wait(&call_ended, &lock);
      each = threads; /* the list may have changed */
    } else {
      each = each->next;
    }
  }
}

void end_threads_of(const void *const *handles, size_t count) {
  struct doomed doomed = {handles, count, 0, 0};
  struct thread *mine = has_key ? pthread_getspecific(key) : 0;
  pthread_mutex_lock(&lock);
  for (struct call **link; mine && (link = newest_of(mine, &doomed));) {
    struct call *call = *link;
    *link = call->older;
    run(mine, call);
  }
  forget(mine, &doomed);
  pthread_mutex_unlock(&lock);
}

bool has_thread_calls(const struct range *ranges, size_t count) {
  struct doomed doomed = {0, 0, ranges, count};
  bool found = false;
  pthread_mutex_lock(&lock);
  for (struct thread *each = threads; each && !found; each = each->next)
    found = newest_of(each, &doomed) || (each->running && is_doomed(&doomed, each->running));
  pthread_mutex_unlock(&lock);
  return found;
}

void forget_thread_calls(const struct range *ranges, size_t count) {
  struct doomed doomed = {0, 0, ranges, count};
  pthread_mutex_lock(&lock);
  forget(has_key ? pthread_getspecific(key) : 0, &doomed);
  pthread_mutex_unlock(&lock);
}
