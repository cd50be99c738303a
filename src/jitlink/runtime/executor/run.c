/* Running functions of fixed types. Output of C code is flushed when they return; a process that was
   forked meanwhile exits with what they return, as if that were returned from main. */
#include <stdio.h>
#include <unistd.h>

#include "executor.h"

static wrapper_result number_of(int64_t value, unsigned width) {
  if (is_forked)
    exit((int)value);
  char encoded[8];
  struct bytes bytes = {0};
  sps_put_u64(encoded, (uint64_t)value);
  put(&bytes, encoded, width);
  fflush(0);
  return result_of(&bytes);
}

/* Int64(Addr main, Sequence<String> argv) */
static wrapper_result run_as_main(const char *data, size_t size) {
  sps_reader reader = sps_read(data, size);
  int (*function)(int, char **, char **) = (int (*)(int, char **, char **))sps_address(&reader);
  size_t count = sps_count(&reader, 8);
  /* Never freed: threads and exit handlers of the program may use them when it has ended. */
  char **argv = calloc(count + 1, sizeof *argv);
  for (size_t each = 0; argv && each < count; ++each)
    argv[each] = sps_string(&reader);
  if (reader.failed || !argv)
    return sps_nothing();
  return number_of(function((int)count, argv, environ), 8);
}

/* Int64(Addr main, UInt64 argc, Addr argv, Addr envp): arguments that are in place already. */
static wrapper_result call_main(const char *data, size_t size) {
  sps_reader reader = sps_read(data, size);
  int (*function)(int, char **, char **) = (int (*)(int, char **, char **))sps_address(&reader);
  int count = (int)sps_u64(&reader);
  char **argv = sps_address(&reader);
  sps_u64(&reader);
  if (reader.failed)
    return sps_nothing();
  /* Initialisers may have changed it. */
  return number_of(function(count, argv, environ), 8);
}

/* Int32(Addr function) */
static wrapper_result run_as_void_function(const char *data, size_t size) {
  sps_reader reader = sps_read(data, size);
  int (*function)(void) = (int (*)(void))sps_address(&reader);
  return reader.failed ? sps_nothing() : number_of(function(), 4);
}

/* Int32(Addr function, Int32 argument) */
static wrapper_result run_as_int_function(const char *data, size_t size) {
  sps_reader reader = sps_read(data, size);
  int (*function)(int) = (int (*)(int))sps_address(&reader);
  int argument = (int)(int32_t)sps_number(&reader, 4);
  return reader.failed ? sps_nothing() : number_of(function(argument), 4);
}

const struct bootstrap_symbol run_symbols[] = {
    {"__llvm_orc_bootstrap_run_as_main_wrapper", (const void *)run_as_main},
    {"__llvm_orc_bootstrap_run_as_void_function_wrapper", (const void *)run_as_void_function},
    {"__llvm_orc_bootstrap_run_as_int_function_wrapper", (const void *)run_as_int_function},
    {"__jitlink_executor_call_main", (const void *)call_main},
    {0, 0},
};
