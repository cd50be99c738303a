/* Libraries of the process, and their symbols. */
#include <dlfcn.h>
#include <pthread.h>

#include "executor.h"

static char instance;

/* Expected<Addr>(Addr instance, String path, UInt64 mode): an empty path is the process. */
static wrapper_result open_dylib(const char *data, size_t size) {
  sps_reader reader = sps_read(data, size);
  sps_u64(&reader);
  char *path = sps_string(&reader);
  if (reader.failed || !path) {
    free(path);
    return sps_expected_failure("malformed arguments");
  }
  void *handle = dlopen(*path ? path : 0, RTLD_NOW | RTLD_GLOBAL);
  free(path);
  if (handle)
    return sps_expected_u64((uintptr_t)handle);
  const char *reason = dlerror();
  return sps_expected_failure(reason ? reason : "unknown reason");
}

/* The address of a symbol, of a version of it after an at sign; 0 if there is none. */
static uint64_t find(void *handle, char *name) {
  char *at = strchr(name, '@');
  if (!at)
    return (uintptr_t)dlsym(handle, name);
  *at = 0;
  uint64_t address = (uintptr_t)dlvsym(handle, name, at + 1 + (at[1] == '@'));
  *at = '@';
  return address;
}

/* What programs expect in their process, and this one has not loaded. */
static struct {
  const char *library;
  const char *prefixes[6]; /* of the names that it may define, up to a null */
  bool is_loaded;
} providers[] = {
    {"libm.so.6", {""}, 0},
    {"libgcc_s.so.1", {"_Unwind_", "__register_frame", "__deregister_frame", "__gcc_"}, 0},
    {"libstdc++.so.6", {"_Z", "__cxa_", "__gxx_", "_Unwind_", "__dynamic_cast"}, 0},
};

static pthread_mutex_t loading = PTHREAD_MUTEX_INITIALIZER; /* guards them */
static unsigned loaded;                                      /* how many were loaded */

void load_providers(const char *name) {
  pthread_mutex_lock(&loading);
  for (size_t each = 0; each < sizeof providers / sizeof *providers; ++each)
    for (const char *const *prefix = providers[each].prefixes; *prefix; ++prefix) {
      if (providers[each].is_loaded || (name && strncmp(name, *prefix, strlen(*prefix))))
        continue;
      providers[each].is_loaded = true;
      if (dlopen(providers[each].library, RTLD_NOW | RTLD_GLOBAL))
        __atomic_add_fetch(&loaded, 1, __ATOMIC_RELEASE);
    }
  pthread_mutex_unlock(&loading);
}

/* The address of a symbol of the process or a library, or of what programs expect there. */
static uint64_t look_up(void *handle, char *name) {
  unsigned before = __atomic_load_n(&loaded, __ATOMIC_ACQUIRE);
  uint64_t address = find(handle, name);
  if (address)
    return address;
  load_providers(name);
  /* Another thread may have loaded them meanwhile. */
  return before == __atomic_load_n(&loaded, __ATOMIC_ACQUIRE) ? 0 : find(handle, name);
}

/* Expected<Sequence<Optional<ExecutorSymbolDef>>>(Addr handle, Sequence<Tuple<String, Bool>>) */
static wrapper_result resolve(const char *data, size_t size) {
  enum { EXPORTED = 16 };
  sps_reader reader = sps_read(data, size);
  void *handle = sps_address(&reader);
  size_t count = sps_count(&reader, 9);
  struct bytes bytes = {0};
  put_u8(&bytes, 1);
  put_u64(&bytes, count);
  for (size_t each = 0; each < count; ++each) {
    char *name = sps_string(&reader);
    bool is_required = sps_bool(&reader);
    if (reader.failed || !name) {
      free(name);
      free(bytes.data);
      return sps_expected_failure("malformed arguments");
    }
    uint64_t address = *name ? look_up(handle, name) : 0;
    free(name);
    put_u8(&bytes, address || !is_required);
    if (address || !is_required) {
      put_u64(&bytes, address);
      put_u8(&bytes, EXPORTED);
      put_u8(&bytes, 0);
    }
  }
  return result_of(&bytes);
}

const struct bootstrap_symbol dylib_symbols[] = {
    {"__llvm_orc_SimpleExecutorDylibManager_Instance", &instance},
    {"__llvm_orc_SimpleExecutorDylibManager_open_wrapper", (const void *)open_dylib},
    {"__llvm_orc_SimpleExecutorDylibManager_resolve_wrapper", (const void *)resolve},
    {0, 0},
};
