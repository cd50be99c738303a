/* What this process has at its addresses: mappings, and symbols of libraries.
 *
 * Specification: glibc, dladdr1; System V gABI, chapter 4, "Symbol Table"; proc(5).
 */
#include <dlfcn.h>
#include <elf.h>
#include <fcntl.h>
#include <link.h>
#include <unistd.h>

#include "executor.h"

int mappings_file = -1;

size_t read_mappings(char *place, size_t most) {
  bool is_open = mappings_file >= 0;
  int file = is_open ? mappings_file : open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
  size_t size = 0;
  ssize_t count;
  while (file >= 0 && size < most &&
         (count = pread(file, place + size, most - size, (off_t)size)) > 0)
    size += (size_t)count;
  if (file >= 0 && !is_open)
    close(file);
  return size;
}

struct bytes all_mappings(size_t before) {
  struct bytes bytes = {0};
  size_t most = 0, read;
  do {
    free(bytes.data);
    most = 4 * most + MAPPINGS_SIZE;
    bytes = (struct bytes){malloc(before + most), before, before + most};
    if (!bytes.data)
      abort();
    read = read_mappings(bytes.data + before, most);
  } while (read == most);
  bytes.size += read;
  return bytes;
}

/* Sequence<Char>(): the list of mappings. */
static wrapper_result list_mappings(const char *data, size_t size) {
  struct bytes bytes = all_mappings(8);
  (void)data, (void)size;
  sps_put_u64(bytes.data, bytes.size - 8);
  return result_of(&bytes);
}

/* The dynamic linker knows the symbol that begins there. */
static void put_symbol(const void *address, struct bytes *bytes) {
  const ElfW(Sym) *symbol = 0;
  Dl_info information;
  bool is_known = dladdr1(address, &information, (void **)&symbol, RTLD_DL_SYMENT) && symbol &&
                  information.dli_saddr == address;
  put_u8(bytes, is_known);
  if (is_known) {
    put_text(bytes, information.dli_fname);
    put_u8(bytes, symbol->st_info & 15);
    put_u64(bytes, symbol->st_size);
  }
}

/* Sequence<Optional<Tuple<String library, UInt8 type, UInt64 size>>>(Sequence<Addr>) */
static wrapper_result find_symbols(const char *data, size_t size) {
  return for_addresses(data, size, put_symbol);
}

const struct bootstrap_symbol address_symbols[] = {
    {"__jitlink_executor_find_symbols", (const void *)find_symbols},
    {"__jitlink_executor_list_mappings", (const void *)list_mappings},
    {0, 0},
};
