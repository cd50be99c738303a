/* What the libraries of this process have at an address.
 *
 * The dynamic linker gives the symbol that begins there, and its size. Whether it can still change is
 * read from the protection of its memory: after relocation the dynamic linker makes what is constant
 * from then on read-only (PT_GNU_RELRO).
 *
 * Specification: glibc, dladdr1; System V gABI, chapter 4, "Symbol Table".
 */
#include <dlfcn.h>
#include <elf.h>
#include <link.h>
#include <stdio.h>

#include "executor.h"

/* A line of the system's list of mappings; the end is 0 if there is none. */
struct mapping {
  unsigned long start, end;
  char permissions[5], path[4096];
};

static struct mapping mapping_at(unsigned long address) {
  struct mapping found = {0};
  FILE *list = fopen("/proc/self/maps", "re");
  char *line = 0;
  size_t size = 0;
  while (list && getline(&line, &size, list) > 0) {
    struct mapping each = {0};
    int count = sscanf(line, "%lx-%lx %4s %*s %*s %*s %4095[^\n]", &each.start, &each.end,
                       each.permissions, each.path);
    if (count >= 3 && each.start <= address && address < each.end) {
      found = each;
      break;
    }
  }
  free(line);
  if (list)
    fclose(list);
  return found;
}

static void describe_one(void *address, struct bytes *bytes) {
  struct mapping place = mapping_at((unsigned long)(uintptr_t)address);
  const ElfW(Sym) *symbol = 0;
  Dl_info information;
  bool is_known = dladdr1(address, &information, (void **)&symbol, RTLD_DL_SYMENT) && symbol &&
                  information.dli_saddr == address;
  bool is_code = strchr(place.permissions, 'x');
  unsigned type = is_known ? symbol->st_info & 15 : STT_NOTYPE;
  bool is_function =
      type == STT_FUNC || type == STT_GNU_IFUNC || (is_code && type != STT_OBJECT);
  if (!place.end || (!is_known && !is_code)) {
    put_u8(bytes, 0);
    return;
  }
  uint64_t size = is_function ? 0 : symbol->st_size;
  put_u8(bytes, 1);
  put_text(bytes, is_known ? information.dli_fname : place.path);
  put_u8(bytes, is_function);
  put_u64(bytes, size);
  put_u8(bytes, !is_function && !strchr(place.permissions, 'w') &&
                    size <= place.end - (unsigned long)(uintptr_t)address);
}

/* Sequence<Optional<Tuple<String library, Bool function, UInt64 size, Bool constant>>>
   (Sequence<Addr>) */
static wrapper_result describe(const char *data, size_t size) {
  sps_reader reader = sps_read(data, size);
  size_t count = sps_count(&reader, 8);
  struct bytes bytes = {0};
  put_u64(&bytes, count);
  while (count--)
    describe_one(sps_address(&reader), &bytes);
  return result_of(&bytes);
}

const struct bootstrap_symbol address_symbols[] = {
    {"__jitlink_executor_describe_addresses", (const void *)describe},
    {0, 0},
};
