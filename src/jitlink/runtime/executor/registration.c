/* Registration of unwind information and of objects for debuggers.
 *
 * Specification: GDB manual, "JIT Compilation Interface"; .eh_frame: LSB Core, 10.6.
 */
#include <dlfcn.h>
#include <pthread.h>

#include "executor.h"

void *find_in_unwinder(const char *name) {
  void *found = dlsym(RTLD_DEFAULT, name);
  if (!found) {
    void *library = dlopen("libgcc_s.so.1", RTLD_NOW | RTLD_GLOBAL);
    found = library ? dlsym(library, name) : 0;
  }
  return found;
}

static wrapper_result call_unwinder(const char *name, const char *data, size_t size) {
  sps_reader reader = sps_read(data, size);
  const void *start = sps_address(&reader);
  sps_u64(&reader);
  void (*function)(const void *) = (void (*)(const void *))find_in_unwinder(name);
  if (reader.failed)
    return sps_malformed();
  if (!function)
    return sps_failure("the process has no unwinder");
  function(start);
  return sps_zero_byte();
}

/* Error(Range): a section, which ends with a zero word. */
static wrapper_result register_frames(const char *data, size_t size) {
  return call_unwinder("__register_frame", data, size);
}

static wrapper_result deregister_frames(const char *data, size_t size) {
  return call_unwinder("__deregister_frame", data, size);
}

struct jit_code_entry {
  struct jit_code_entry *next, *previous;
  const char *symfile_address;
  uint64_t symfile_size;
};

struct jit_descriptor {
  uint32_t version, action;
  struct jit_code_entry *relevant, *first;
};

/* Debuggers set a breakpoint here. */
__attribute__((noinline, visibility("default"))) void __jit_debug_register_code(void) {
  __asm__ volatile("" ::: "memory");
}

__attribute__((visibility("default"))) struct jit_descriptor __jit_debug_descriptor = {1, 0, 0, 0};

/* Error(Range object, Bool notify) */
static wrapper_result register_object(const char *data, size_t size) {
  enum { REGISTER = 1 };
  static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
  sps_reader reader = sps_read(data, size);
  uint64_t start = sps_u64(&reader), end = sps_u64(&reader);
  bool notify = sps_bool(&reader);
  struct jit_code_entry *entry = reader.failed ? 0 : calloc(1, sizeof *entry);
  if (!entry)
    return sps_malformed();
  entry->symfile_address = (const char *)(uintptr_t)start;
  entry->symfile_size = end - start;
  pthread_mutex_lock(&lock);
  entry->next = __jit_debug_descriptor.first;
  if (entry->next)
    entry->next->previous = entry;
  __jit_debug_descriptor.first = __jit_debug_descriptor.relevant = entry;
  __jit_debug_descriptor.action = REGISTER;
  if (notify)
    __jit_debug_register_code();
  pthread_mutex_unlock(&lock);
  return sps_zero_byte();
}

const struct bootstrap_symbol registration_symbols[] = {
    {"llvm_orc_registerEHFrameAllocAction", (const void *)register_frames},
    {"llvm_orc_deregisterEHFrameAllocAction", (const void *)deregister_frames},
    {"llvm_orc_registerJITLoaderGDBAllocAction", (const void *)register_object},
    {0, 0},
};
