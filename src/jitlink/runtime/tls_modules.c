/* TLS modules of an executor that is another process: loaded from memory, and read.
 *
 * In a sandbox there are no files in memory: the controller writes a file, which it names.
 *
 * The C library takes libraries that are loaded under equal paths for the same library, and file
 * descriptors are reused, so every load spells its path differently.
 *
 * Specification: dlopen(3), memfd_create(2).
 */
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "wrapper.h"

enum { CLOSE_ON_EXEC = 1, NO_EXEC_SEAL = 8 };

static int memory_file(void) {
  /* Linux may demand the flag for files without code; before 6.3 it does not know it. */
  int file = (int)syscall(SYS_memfd_create, "jitlink", CLOSE_ON_EXEC | NO_EXEC_SEAL);
  if (file < 0 && errno == EINVAL)
    file = (int)syscall(SYS_memfd_create, "jitlink", CLOSE_ON_EXEC);
  return file;
}

static bool write_all(int file, const unsigned char *bytes, size_t size) {
  while (size) {
    ssize_t written = write(file, bytes, size);
    if (written <= 0)
      return false;
    bytes += written;
    size -= (size_t)written;
  }
  return true;
}

static void *load(int file) {
  static unsigned long count;
  char path[256] = "/proc/self/fd/";
  size_t length = strlen(path);
  for (unsigned long bits = __atomic_add_fetch(&count, 1, __ATOMIC_RELAXED); bits; bits >>= 1) {
    const char *step = bits & 1 ? "./" : "/";
    memcpy(path + length, step, strlen(step));
    length += strlen(step);
  }
  snprintf(path + length, sizeof path - length, "%d", file);
  return dlopen(path, RTLD_NOW | RTLD_LOCAL);
}

/* The result of loading a library. */
static wrapper_result expected_handle(void *handle) {
  if (handle)
    return sps_expected_u64((uintptr_t)handle);
  const char *reason = dlerror();
  return sps_expected_failure(reason ? reason : "unknown reason");
}

/* Expected<Addr>(String path): loads a shared library; its handle. */
wrapper_result __jitlink_load_tls_file(const char *data, size_t size) {
  sps_reader reader = sps_read(data, size);
  char *path = sps_string(&reader);
  if (!path)
    return sps_expected_failure("malformed arguments");
  void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  free(path);
  return expected_handle(handle);
}

/* Expected<Addr>(Sequence<Char> module): the same, of the bytes of a library. */
wrapper_result __jitlink_load_tls_module(const char *data, size_t size) {
  sps_reader reader = sps_read(data, size);
  size_t length = sps_count(&reader, 1);
  const unsigned char *bytes = sps_take(&reader, length);
  if (reader.failed)
    return sps_expected_failure("malformed arguments");
  int file = memory_file();
  if (file < 0)
    return sps_expected_failure(strerror(errno));
  if (!write_all(file, bytes, length)) {
    int error = errno;
    close(file);
    return sps_expected_failure(strerror(error));
  }
  void *handle = load(file);
  close(file);
  return expected_handle(handle);
}

/* Error(Addr handle): unloads a shared library. */
wrapper_result __jitlink_unload_tls_module(const char *data, size_t size) {
  sps_reader reader = sps_read(data, size);
  void *handle = sps_address(&reader);
  if (reader.failed)
    return sps_malformed();
  if (!dlclose(handle))
    return sps_zero_byte();
  const char *reason = dlerror();
  return sps_failure(reason ? reason : "unknown reason");
}

/* Expected<Sequence<UInt64>>(Addr handle, String symbol, UInt64 count): the words at a symbol,
   which have the size of a pointer. */
wrapper_result __jitlink_read_words(const char *data, size_t size) {
  sps_reader reader = sps_read(data, size);
  void *handle = sps_address(&reader);
  char *symbol = sps_string(&reader);
  uint64_t count = sps_u64(&reader);
  const uintptr_t *words = reader.failed || !symbol ? 0 : dlsym(handle, symbol);
  free(symbol);
  if (!words || count > SIZE_MAX / 16)
    return sps_expected_failure("a library loaded from memory has no such symbol");
  wrapper_result result = {{0}, 9 + 8 * (size_t)count};
  result.value.pointer = malloc(result.size);
  if (!result.value.pointer)
    return sps_expected_failure("out of memory");
  result.value.pointer[0] = 1;
  char *place = sps_put_u64(result.value.pointer + 1, count);
  for (uint64_t each = 0; each < count; ++each)
    place = sps_put_u64(place, words[each]);
  return result;
}
