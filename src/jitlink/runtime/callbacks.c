/* Calls of Python from an executor that is another process: Python functions that are defined for
 * linked code, and stubs of functions that are not linked yet. Both are calls into the controller,
 * with the addresses of the tags below.
 *
 * The controller numbers its own calls of linked code. The number of the call that a thread is in
 * goes along, so that an exception of a Python function is raised where that call was made. It is 0
 * on threads that linked code has started.
 */
#include <errno.h>
#include <pthread.h>

#include "dylibs.h"
#include "machine.h"

char __jitlink_python_tag;
char __jitlink_resume_tag;

static dispatch_function dispatch;
static void *dispatch_context;

/* The number of the controller's call that a thread is in */

static pthread_key_t key;

static void make_key(void) {
  if (pthread_key_create(&key, 0))
    abort();
}

uintptr_t __jitlink_this_call(void) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, make_key);
  return (uintptr_t)pthread_getspecific(key);
}

/* Void(Addr dispatch, Addr context): before anything here is called. */
wrapper_result __jitlink_set_python_dispatch(const char *data, size_t size) {
  sps_reader reader = sps_read(data, size);
  uintptr_t function = sps_u64(&reader);
  dispatch_context = sps_address(&reader);
  dispatch = (dispatch_function)function;
  return sps_nothing();
}

/* (UInt64 number, Addr function, ...): the result of a wrapper function, called with the rest of
   the arguments and on behalf of a call with that number. */
wrapper_result __jitlink_call_wrapper(const char *data, size_t size) {
  sps_reader reader = sps_read(data, size);
  void *number = sps_address(&reader);
  wrapper_result (*function)(const char *, size_t) =
      (wrapper_result(*)(const char *, size_t))sps_u64(&reader);
  if (reader.failed)
    return sps_nothing();
  uintptr_t outer = __jitlink_this_call();
  pthread_setspecific(key, number);
  wrapper_result result = function((const char *)reader.next, reader.left);
  pthread_setspecific(key, (void *)outer);
  return result;
}

/* Calls of Python functions */

/* What a function of its own, which the controller links for each Python function, leads to. */
struct python_function {
  void (*entry)(void); /* jitlink_python_entry */
  uint64_t number;
  uint64_t words; /* of the arguments on the stack */
};

struct entry_frame {
  uint64_t integers[INTEGERS];
  uint64_t floats[FLOATS];
  const uint64_t *stack;
  uint64_t results[RESULTS]; /* integer registers, then floating-point registers */
};

/* Stores the registers that hold arguments in a frame, and loads those that hold results. The
   address of the function is in a register that no argument is in. */
void __jitlink_python_entry(void);

/* What a call of a stub continues at that cannot be carried out: returns zero. */
void __jitlink_return_zero(void);

_Static_assert(offsetof(struct entry_frame, floats) == ENTRY_FLOATS, "as PYTHON_ENTRY has it");
_Static_assert(offsetof(struct entry_frame, stack) == ENTRY_STACK, "as PYTHON_ENTRY has it");
_Static_assert(offsetof(struct entry_frame, results) == ENTRY_RESULTS, "as PYTHON_ENTRY has it");
_Static_assert(sizeof(struct entry_frame) <= ENTRY_SIZE, "as PYTHON_ENTRY has it");
FUNCTION("__jitlink_python_entry", PYTHON_ENTRY);
FUNCTION("__jitlink_return_zero", RETURN_ZERO);

/* Has the controller handle a call: words in, words out. Zeros are what a call returns that it does
   not handle. */
static void call_controller(const char *tag, const char *data, size_t size, uint64_t *results,
                            size_t count) {
  wrapper_result result = dispatch(dispatch_context, tag, data, size);
  sps_reader reader = sps_read(sps_bytes(&result), result.size);
  for (size_t each = 0; each < count; ++each)
    results[each] = sps_u64(&reader);
  sps_free(&result);
}

/* UInt64 x RESULTS(UInt64 caller, UInt64 number, UInt64 x INTEGERS, UInt64 x FLOATS,
   Sequence<UInt64> stack) */
HIDDEN void jitlink_call_python(const struct python_function *function,
                                struct entry_frame *frame) {
  int error = errno;
  size_t size = 8 * (2 + INTEGERS + FLOATS + 1 + (size_t)function->words);
  char *data = malloc(size), *place = data;
  if (!data)
    abort();
  place = sps_put_u64(place, __jitlink_this_call());
  place = sps_put_u64(place, function->number);
  for (unsigned each = 0; each < INTEGERS; ++each)
    place = sps_put_u64(place, frame->integers[each]);
  for (unsigned each = 0; each < FLOATS; ++each)
    place = sps_put_u64(place, frame->floats[each]);
  place = sps_put_u64(place, function->words);
  for (uint64_t each = 0; each < function->words; ++each)
    place = sps_put_u64(place, frame->stack[each]);
  call_controller(&__jitlink_python_tag, data, size, frame->results, RESULTS);
  free(data);
  errno = error;
}

/* Where the call of a stub continues: UInt64(UInt64 caller, UInt64 stub, Addr return_address). The
   reentry calls it; 0 is that the process cannot go on. */
uintptr_t __jitlink_resume(uint64_t stub, uintptr_t return_address) {
  int error = errno;
  uint64_t address = 0;
  char data[24], *place = data;
  place = sps_put_u64(place, __jitlink_this_call());
  place = sps_put_u64(place, stub);
  sps_put_u64(place, return_address);
  call_controller(&__jitlink_resume_tag, data, sizeof data, &address, 1);
  errno = error;
  return (uintptr_t)address;
}
