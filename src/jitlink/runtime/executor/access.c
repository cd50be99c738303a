/* Reading and writing memory, several places at once. */
#include "executor.h"

/* void(Sequence<Tuple<Addr, UIntN>>) */
static wrapper_result write_numbers(const char *data, size_t size, unsigned width) {
  sps_reader reader = sps_read(data, size);
  size_t count = sps_count(&reader, 8 + width);
  while (count--) {
    unsigned char *place = sps_address(&reader);
    uint64_t number = sps_number(&reader, width);
    switch (width) {
    case 1: *(uint8_t *)place = (uint8_t)number; break;
    case 2: *(uint16_t *)place = (uint16_t)number; break;
    case 4: *(uint32_t *)place = (uint32_t)number; break;
    default: *(uint64_t *)place = number;
    }
  }
  return sps_nothing();
}

wrapper_result for_addresses(const char *data, size_t size,
                             void (*put_value)(const void *address, struct bytes *bytes)) {
  sps_reader reader = sps_read(data, size);
  size_t count = sps_count(&reader, 8);
  struct bytes bytes = {0};
  put_u64(&bytes, count);
  while (count--)
    put_value(sps_address(&reader), &bytes);
  return result_of(&bytes);
}

static void put_number(uint64_t number, unsigned width, struct bytes *bytes) {
  char encoded[8];
  sps_put_u64(encoded, number);
  put(bytes, encoded, width);
}

/* What writes numbers of N bits, and what reads them: Sequence<UIntN>(Sequence<Addr>). */
#define NUMBERS(bits)                                                                              \
  static wrapper_result write##bits(const char *data, size_t size) {                               \
    return write_numbers(data, size, bits / 8);                                                    \
  }                                                                                                \
  static void put_number##bits(const void *place, struct bytes *bytes) {                           \
    put_number(*(const uint##bits##_t *)place, bits / 8, bytes);                                   \
  }                                                                                                \
  static wrapper_result read##bits(const char *data, size_t size) {                                \
    return for_addresses(data, size, put_number##bits);                                            \
  }
NUMBERS(8)
NUMBERS(16)
NUMBERS(32)
NUMBERS(64)

/* void(Sequence<Tuple<Addr, Sequence<Char>>>) */
static wrapper_result write_buffers(const char *data, size_t size) {
  sps_reader reader = sps_read(data, size);
  size_t count = sps_count(&reader, 16);
  while (count-- && !reader.failed) {
    void *place = sps_address(&reader);
    size_t length = sps_count(&reader, 1);
    const unsigned char *content = sps_take(&reader, length);
    if (!reader.failed)
      memcpy(place, content, length);
  }
  return sps_nothing();
}

/* Sequence<Sequence<UInt8>>(Sequence<Range>) */
static wrapper_result read_buffers(const char *data, size_t size) {
  sps_reader reader = sps_read(data, size);
  size_t count = sps_count(&reader, 16);
  struct bytes bytes = {0};
  put_u64(&bytes, count);
  while (count--) {
    uint64_t start = sps_u64(&reader), end = sps_u64(&reader);
    uint64_t length = end > start ? end - start : 0;
    put_u64(&bytes, length);
    put(&bytes, (const void *)(uintptr_t)start, length);
  }
  return result_of(&bytes);
}

static void put_string(const void *place, struct bytes *bytes) { put_text(bytes, place); }

/* Sequence<String>(Sequence<Addr>) */
static wrapper_result read_strings(const char *data, size_t size) {
  return for_addresses(data, size, put_string);
}

#define BOTH(name, write, read)                                                                    \
  {"__llvm_orc_bootstrap_mem_write_" name "_wrapper", (const void *)write},                        \
  {"__llvm_orc_bootstrap_mem_read_" name "_wrapper", (const void *)read}
const struct bootstrap_symbol access_symbols[] = {
    BOTH("uint8s", write8, read8),
    BOTH("uint16s", write16, read16),
    BOTH("uint32s", write32, read32),
    BOTH("uint64s", write64, read64),
    BOTH("pointers", write64, read64),
    BOTH("buffers", write_buffers, read_buffers),
    {"__llvm_orc_bootstrap_mem_read_strings_wrapper", (const void *)read_strings},
    {0, 0},
};
