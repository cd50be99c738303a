/* Initialisers of JITDylibs, which run in the order that the session passes. */
#include "dylibs.h"

static int argument_count;
static char **arguments, **environment;

void call_array(const struct array *array, bool backwards, int argc, char **argv,
                char **envp) {
  size_t count = (size_t)(array->end - array->start);
  for (size_t each = 0; each < count; ++each) {
    uintptr_t pointer = array->start[backwards != array->backwards ? count - 1 - each : each];
    if (pointer && pointer != UINTPTR_MAX)
      ((void (*)(int, char **, char **))pointer)(argc, argv, envp);
  }
}

/* Error(UInt64 argc, Addr argv, Addr envp): what initialisers get. A program may keep them. */
wrapper_result __jitlink_set_arguments(const char *data, size_t size) {
  sps_reader reader = sps_read(data, size);
  argument_count = (int)sps_u64(&reader);
  arguments = sps_address(&reader);
  environment = sps_address(&reader);
  return reader.failed ? sps_malformed() : sps_zero_byte();
}

static void read_arrays(sps_reader *reader, struct array *arrays, size_t count) {
  for (size_t each = 0; each < count; ++each) {
    arrays[each].start = sps_address(reader);
    arrays[each].end = sps_address(reader);
    arrays[each].backwards = sps_bool(reader);
  }
}

/* Error(Addr handle, Sequence<Tuple<Addr start, Addr end, Bool backwards>> initialisers, the same
   of finalisers, UInt64 number of finalisers with a priority, Bool is_program): records the
   finalisers, which run when the dylib is closed, and runs the initialisers, both in the order in
   which a static linker puts them. */
wrapper_result __jitlink_initialize(const char *data, size_t size) {
  sps_reader reader = sps_read(data, size);
  const void *handle = sps_address(&reader);
  size_t count = sps_count(&reader, 17);
  struct array *arrays = malloc((count + 1) * sizeof *arrays);
  if (arrays)
    read_arrays(&reader, arrays, count);
  size_t final_count = arrays ? sps_count(&reader, 17) : 0;
  struct finalizers *final = malloc(sizeof *final + final_count * sizeof final->arrays[0]);
  if (final) {
    final->count = final_count;
    read_arrays(&reader, final->arrays, final_count);
    final->with_priority = (size_t)sps_u64(&reader);
  }
  bool is_program = sps_bool(&reader);
  if (reader.failed || !arrays || !final) {
    free(arrays);
    free(final);
    return sps_malformed();
  }
  move_exit_handler();
  lock_dylibs();
  struct dylib *dylib = find_dylib(handle);
  if (dylib && !dylib->order)
    dylib->order = next_order();
  if (is_program)
    set_program_start(next_order());
  if (dylib && final_count) {
    final->older = dylib->finalizers;
    dylib->finalizers = final;
  } else {
    free(final);
  }
  unlock_dylibs();
  for (size_t each = 0; dylib && each < count; ++each)
    call_array(&arrays[each], false, argument_count, arguments, environment);
  free(arrays);
  return dylib ? sps_zero_byte() : sps_failure("no such JITDylib is registered");
}
