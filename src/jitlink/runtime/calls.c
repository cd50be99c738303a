/* Calls of C functions with arguments in registers and on the stack, for executors that are other
 * processes. jitlink.abi places the arguments; the code here knows registers, and no types.
 */
#include "machine.h"
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

_Static_assert(offsetof(struct frame, integers) == 8, "as CALL_FRAME has it");
_Static_assert(offsetof(struct frame, floats) == CALL_FLOATS, "as CALL_FRAME has it");
_Static_assert(offsetof(struct frame, count) == CALL_COUNT, "as CALL_FRAME has it");
_Static_assert(offsetof(struct frame, results) == CALL_RESULTS, "as CALL_FRAME has it");
FUNCTION("jitlink_call_frame", "  .hidden jitlink_call_frame\n" CALL_FRAME);

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
