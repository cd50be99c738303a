/* Calls of Python from an executor that is another process: Python functions that are defined for
 * linked code, and stubs of functions that are not linked yet. Both are calls into the controller,
 * with the addresses of the tags below.
 *
 * The controller numbers its own calls of linked code. The number of the call that a thread is in
 * goes along, so that an exception of a Python function is raised where that call was made. It is 0
 * on threads that linked code has started.
 *
 * Specification: System V ABI, AMD64 supplement, 3.2; AAPCS64, 6.
 */
#include <errno.h>
#include <pthread.h>

#include "dylibs.h"
#include "registers.h"

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

static uintptr_t this_call(void) {
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
  uintptr_t outer = this_call();
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

#if defined(__x86_64__)
_Static_assert(offsetof(struct entry_frame, floats) == 48, "used below");
_Static_assert(offsetof(struct entry_frame, stack) == 112, "used below");
_Static_assert(offsetof(struct entry_frame, results) == 120, "used below");
_Static_assert(sizeof(struct entry_frame) <= 160, "used below");
FUNCTION("__jitlink_python_entry",
         "  pushq %rbp\n"
         "  .cfi_def_cfa_offset 16\n"
         "  .cfi_offset %rbp, -16\n"
         "  movq %rsp, %rbp\n"
         "  .cfi_def_cfa_register %rbp\n"
         "  subq $160, %rsp\n"
         "  movq %rdi, 0(%rsp)\n"
         "  movq %rsi, 8(%rsp)\n"
         "  movq %rdx, 16(%rsp)\n"
         "  movq %rcx, 24(%rsp)\n"
         "  movq %r8, 32(%rsp)\n"
         "  movq %r9, 40(%rsp)\n"
         "  movsd %xmm0, 48(%rsp)\n"
         "  movsd %xmm1, 56(%rsp)\n"
         "  movsd %xmm2, 64(%rsp)\n"
         "  movsd %xmm3, 72(%rsp)\n"
         "  movsd %xmm4, 80(%rsp)\n"
         "  movsd %xmm5, 88(%rsp)\n"
         "  movsd %xmm6, 96(%rsp)\n"
         "  movsd %xmm7, 104(%rsp)\n"
         "  leaq 16(%rbp), %rax\n"
         "  movq %rax, 112(%rsp)\n"
         "  movq %r11, %rdi\n"
         "  movq %rsp, %rsi\n"
         "  callq jitlink_call_python\n"
         "  movq 120(%rsp), %rax\n"
         "  movq 128(%rsp), %rdx\n"
         "  movsd 136(%rsp), %xmm0\n"
         "  movsd 144(%rsp), %xmm1\n"
         "  leave\n"
         "  .cfi_def_cfa %rsp, 8\n"
         "  retq\n");
FUNCTION("__jitlink_return_zero",
         "  xorl %eax, %eax\n"
         "  xorl %edx, %edx\n"
         "  pxor %xmm0, %xmm0\n"
         "  pxor %xmm1, %xmm1\n"
         "  retq\n");
#elif defined(__aarch64__)
_Static_assert(offsetof(struct entry_frame, floats) == 72, "used below");
_Static_assert(offsetof(struct entry_frame, stack) == 136, "used below");
_Static_assert(offsetof(struct entry_frame, results) == 144, "used below");
_Static_assert(sizeof(struct entry_frame) == 192, "used below");
FUNCTION("__jitlink_python_entry",
         "  hint #34\n" /* bti c */
         "  stp x29, x30, [sp, #-16]!\n"
         "  .cfi_def_cfa_offset 16\n"
         "  .cfi_offset x29, -16\n"
         "  .cfi_offset x30, -8\n"
         "  mov x29, sp\n"
         "  .cfi_def_cfa_register x29\n"
         "  sub sp, sp, #192\n"
         "  stp x0, x1, [sp, #0]\n"
         "  stp x2, x3, [sp, #16]\n"
         "  stp x4, x5, [sp, #32]\n"
         "  stp x6, x7, [sp, #48]\n"
         "  str x8, [sp, #64]\n"
         "  stp d0, d1, [sp, #72]\n"
         "  stp d2, d3, [sp, #88]\n"
         "  stp d4, d5, [sp, #104]\n"
         "  stp d6, d7, [sp, #120]\n"
         "  add x9, x29, #16\n"
         "  str x9, [sp, #136]\n"
         "  mov x0, x16\n"
         "  mov x1, sp\n"
         "  bl jitlink_call_python\n"
         "  ldp x0, x1, [sp, #144]\n"
         "  ldp d0, d1, [sp, #160]\n"
         "  ldp d2, d3, [sp, #176]\n"
         "  mov sp, x29\n"
         "  ldp x29, x30, [sp], #16\n"
         "  .cfi_def_cfa sp, 0\n"
         "  .cfi_restore x29\n"
         "  .cfi_restore x30\n"
         "  ret\n");
FUNCTION("__jitlink_return_zero",
         "  hint #34\n"
         "  mov x0, xzr\n"
         "  mov x1, xzr\n"
         "  movi v0.2d, #0\n"
         "  movi v1.2d, #0\n"
         "  movi v2.2d, #0\n"
         "  movi v3.2d, #0\n"
         "  ret\n");
#endif

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
  place = sps_put_u64(place, this_call());
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
  place = sps_put_u64(place, this_call());
  place = sps_put_u64(place, stub);
  sps_put_u64(place, return_address);
  call_controller(&__jitlink_resume_tag, data, sizeof data, &address, 1);
  errno = error;
  return (uintptr_t)address;
}
