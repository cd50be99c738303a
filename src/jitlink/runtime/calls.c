/* Calls of C functions with arguments in registers and on the stack, for executors that are other
 * processes. jitlink.abi places the arguments; the code here knows registers, and no types.
 *
 * Specification: System V ABI, AMD64 supplement, 3.2; AAPCS64, 6.
 */
#include "registers.h"
#include "wrapper.h"

struct frame {
  uint64_t function;
  uint64_t integers[INTEGERS];
  uint64_t floats[FLOATS];
  uint64_t count; /* of words on the stack */
  const uint64_t *stack;
  uint64_t results[RESULTS]; /* integer registers, then floating-point registers */
};

/* Loads the registers from a frame, calls the function, and stores the results. */
HIDDEN void jitlink_call_frame(struct frame *frame);

#if defined(__x86_64__)
_Static_assert(offsetof(struct frame, integers) == 8, "used below");
_Static_assert(offsetof(struct frame, floats) == 56, "used below");
_Static_assert(offsetof(struct frame, count) == 120, "used below");
_Static_assert(offsetof(struct frame, results) == 136, "used below");
FUNCTION("jitlink_call_frame",
         "  .hidden jitlink_call_frame\n"
         "  pushq %rbp\n"
         "  .cfi_def_cfa_offset 16\n"
         "  .cfi_offset %rbp, -16\n"
         "  movq %rsp, %rbp\n"
         "  .cfi_def_cfa_register %rbp\n"
         "  pushq %rbx\n"
         "  .cfi_offset %rbx, -24\n"
         "  subq $8, %rsp\n"
         "  movq %rdi, %rbx\n"
         "  movq 120(%rbx), %rcx\n"
         "  movq 128(%rbx), %rsi\n"
         /* The stack pointer is a multiple of 16 at the call. */
         "  testq $1, %rcx\n"
         "  jz 1f\n"
         "  subq $8, %rsp\n"
         "1:\n"
         "  testq %rcx, %rcx\n"
         "  jz 2f\n"
         "  pushq -8(%rsi,%rcx,8)\n"
         "  subq $1, %rcx\n"
         "  jmp 1b\n"
         "2:\n"
         "  movsd 56(%rbx), %xmm0\n"
         "  movsd 64(%rbx), %xmm1\n"
         "  movsd 72(%rbx), %xmm2\n"
         "  movsd 80(%rbx), %xmm3\n"
         "  movsd 88(%rbx), %xmm4\n"
         "  movsd 96(%rbx), %xmm5\n"
         "  movsd 104(%rbx), %xmm6\n"
         "  movsd 112(%rbx), %xmm7\n"
         "  movq 8(%rbx), %rdi\n"
         "  movq 16(%rbx), %rsi\n"
         "  movq 24(%rbx), %rdx\n"
         "  movq 32(%rbx), %rcx\n"
         "  movq 40(%rbx), %r8\n"
         "  movq 48(%rbx), %r9\n"
         /* An upper bound of the floating-point registers, for variadic functions. */
         "  movl $8, %eax\n"
         "  callq *(%rbx)\n"
         "  .globl __jitlink_call_return\n"
         "__jitlink_call_return:\n"
         "  movq %rax, 136(%rbx)\n"
         "  movq %rdx, 144(%rbx)\n"
         "  movsd %xmm0, 152(%rbx)\n"
         "  movsd %xmm1, 160(%rbx)\n"
         "  movq -8(%rbp), %rbx\n"
         "  leave\n"
         "  .cfi_def_cfa %rsp, 8\n"
         "  retq\n");
#elif defined(__aarch64__)
_Static_assert(offsetof(struct frame, integers) == 8, "used below");
_Static_assert(offsetof(struct frame, floats) == 80, "used below");
_Static_assert(offsetof(struct frame, count) == 144, "used below");
_Static_assert(offsetof(struct frame, results) == 160, "used below");
FUNCTION("jitlink_call_frame",
         "  .hidden jitlink_call_frame\n"
         "  stp x29, x30, [sp, #-32]!\n"
         "  .cfi_def_cfa_offset 32\n"
         "  .cfi_offset x29, -32\n"
         "  .cfi_offset x30, -24\n"
         "  mov x29, sp\n"
         "  .cfi_def_cfa_register x29\n"
         "  str x19, [sp, #16]\n"
         "  .cfi_offset x19, -16\n"
         "  mov x19, x0\n"
         "  ldp x9, x10, [x19, #144]\n"
         /* The stack pointer is always a multiple of 16. */
         "  add x11, x9, #1\n"
         "  and x11, x11, #-2\n"
         "  sub sp, sp, x11, lsl #3\n"
         "1:\n"
         "  cbz x9, 2f\n"
         "  sub x9, x9, #1\n"
         "  ldr x11, [x10, x9, lsl #3]\n"
         "  str x11, [sp, x9, lsl #3]\n"
         "  b 1b\n"
         "2:\n"
         "  ldp d0, d1, [x19, #80]\n"
         "  ldp d2, d3, [x19, #96]\n"
         "  ldp d4, d5, [x19, #112]\n"
         "  ldp d6, d7, [x19, #128]\n"
         "  ldp x0, x1, [x19, #8]\n"
         "  ldp x2, x3, [x19, #24]\n"
         "  ldp x4, x5, [x19, #40]\n"
         "  ldp x6, x7, [x19, #56]\n"
         "  ldr x8, [x19, #72]\n"
         "  ldr x9, [x19]\n"
         "  blr x9\n"
         "  .globl __jitlink_call_return\n"
         "__jitlink_call_return:\n"
         "  stp x0, x1, [x19, #160]\n"
         "  stp d0, d1, [x19, #176]\n"
         "  stp d2, d3, [x19, #192]\n"
         "  ldr x19, [x29, #16]\n"
         "  mov sp, x29\n"
         "  ldp x29, x30, [sp], #32\n"
         "  .cfi_def_cfa sp, 0\n"
         "  .cfi_restore x19\n"
         "  .cfi_restore x29\n"
         "  .cfi_restore x30\n"
         "  ret\n");
#endif

/* A copy of memory of the caller; addresses in it take the place of argument words. */
struct buffer {
  void *memory;
  size_t size;
  bool is_output;
};

static uint64_t *word_at(struct frame *frame, uint64_t *stack, uint64_t slot) {
  if (slot < INTEGERS)
    return &frame->integers[slot];
  slot -= INTEGERS + FLOATS;
  return slot < frame->count ? &stack[slot] : 0;
}

static void read_buffers(sps_reader *reader, struct frame *frame, uint64_t *stack,
                         struct buffer *buffers, size_t count) {
  for (size_t each = 0; each < count && !reader->failed; ++each) {
    struct buffer *buffer = &buffers[each];
    buffer->is_output = sps_bool(reader);
    uint64_t size = sps_u64(reader);
    size_t given = sps_count(reader, 1);
    const unsigned char *content = sps_take(reader, given);
    if (reader->failed || given > size || !(buffer->memory = calloc(1, size ? size : 1))) {
      reader->failed = true;
      return;
    }
    buffer->size = size;
    memcpy(buffer->memory, content, given);
    for (size_t pointers = sps_count(reader, 16); pointers; --pointers) {
      uint64_t *word = word_at(frame, stack, sps_u64(reader)), offset = sps_u64(reader);
      if (!word || offset > size) {
        reader->failed = true;
        return;
      }
      *word = (uintptr_t)buffer->memory + offset;
    }
  }
}

static wrapper_result results_of(const struct frame *frame, const struct buffer *buffers,
                                 size_t count) {
  wrapper_result result = {{0}, 8 * RESULTS + 8};
  size_t outputs = 0;
  for (size_t each = 0; each < count; ++each)
    if (buffers[each].is_output) {
      ++outputs;
      result.size += 8 + buffers[each].size;
    }
  char *place = result.value.pointer = malloc(result.size);
  if (!place)
    abort();
  for (unsigned each = 0; each < RESULTS; ++each)
    place = sps_put_u64(place, frame->results[each]);
  place = sps_put_u64(place, outputs);
  for (size_t each = 0; each < count; ++each)
    if (buffers[each].is_output)
      place = sps_put_text(place, buffers[each].memory, buffers[each].size);
  return result;
}

static wrapper_result malformed_or_too_large(void) {
  return sps_out_of_band("malformed arguments, or too little memory for them");
}

/* Tuple<UInt64 x RESULTS, Sequence<Sequence<Char>> outputs>(Addr function,
   UInt64 x INTEGERS, UInt64 x FLOATS, Sequence<UInt64> stack,
   Sequence<Tuple<Bool is_output, UInt64 size, Sequence<Char> content,
                  Sequence<Tuple<UInt64 slot, UInt64 offset>>>> buffers) */
wrapper_result __jitlink_call(const char *data, size_t size) {
  sps_reader reader = sps_read(data, size);
  struct frame frame = {.function = sps_u64(&reader)};
  for (unsigned each = 0; each < INTEGERS; ++each)
    frame.integers[each] = sps_u64(&reader);
  for (unsigned each = 0; each < FLOATS; ++each)
    frame.floats[each] = sps_u64(&reader);
  frame.count = sps_count(&reader, 8);
  uint64_t *stack = calloc(frame.count + 1, sizeof *stack);
  for (uint64_t each = 0; stack && each < frame.count; ++each)
    stack[each] = sps_u64(&reader);
  frame.stack = stack;
  size_t count = sps_count(&reader, 25);
  struct buffer *buffers = calloc(count + 1, sizeof *buffers);
  if (stack && buffers)
    read_buffers(&reader, &frame, stack, buffers, count);
  wrapper_result result;
  if (stack && buffers && !reader.failed) {
    jitlink_call_frame(&frame);
    result = results_of(&frame, buffers, count);
  } else {
    result = malformed_or_too_large();
  }
  for (size_t each = 0; buffers && each < count; ++each)
    free(buffers[each].memory);
  free(buffers);
  free(stack);
  return result;
}

/* Sequence<Char>(Addr, UInt64 size): for executors that have no service for it. */
wrapper_result __jitlink_read_memory(const char *data, size_t size) {
  sps_reader reader = sps_read(data, size);
  const char *place = sps_address(&reader);
  size_t count = (size_t)sps_u64(&reader);
  wrapper_result result = {{0}, 8 + count};
  if (reader.failed || count > SIZE_MAX / 2 || !(result.value.pointer = malloc(result.size)))
    return malformed_or_too_large();
  sps_put_text(result.value.pointer, place, count);
  return result;
}
