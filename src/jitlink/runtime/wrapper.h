/* Wrapper functions and SimplePackedSerialization, as jitlink.sps describes them.
 *
 * Integers are little-endian on all machines. At the end of its bytes, a reader sets `failed` and
 * returns zeros from then on, so that callers check once, after the last value.
 */
#ifndef JITLINK_WRAPPER_H
#define JITLINK_WRAPPER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define WEAK __attribute__((weak))
#define HIDDEN __attribute__((visibility("hidden")))

/* Results of up to the size of a pointer are stored inline, larger ones in memory of malloc.
   Size 0 and a pointer: an out-of-band error, a text in memory of malloc. */
typedef struct {
  union {
    char *pointer;
    char bytes[sizeof(char *)];
  } value;
  size_t size;
} wrapper_result;

typedef struct {
  const unsigned char *next;
  size_t left;
  bool failed;
} sps_reader;

static inline sps_reader sps_read(const char *data, size_t size) {
  sps_reader reader = {(const unsigned char *)data, size, false};
  return reader;
}

static inline const unsigned char *sps_take(sps_reader *reader, uint64_t size) {
  const unsigned char *bytes = reader->next;
  if (size > reader->left) {
    reader->failed = true;
    reader->left = 0;
    return 0;
  }
  reader->next += size;
  reader->left -= (size_t)size;
  return bytes;
}

static inline uint64_t sps_number(sps_reader *reader, unsigned size) {
  const unsigned char *bytes = sps_take(reader, size);
  uint64_t number = 0;
  if (bytes)
    while (size--)
      number = number << 8 | bytes[size];
  return number;
}

static inline uint64_t sps_u64(sps_reader *reader) { return sps_number(reader, 8); }

static inline bool sps_bool(sps_reader *reader) { return sps_number(reader, 1) != 0; }

static inline void *sps_address(sps_reader *reader) { return (void *)(uintptr_t)sps_u64(reader); }

/* A count of elements of at least `least` bytes each. */
static inline size_t sps_count(sps_reader *reader, size_t least) {
  uint64_t count = sps_u64(reader);
  if (count > reader->left / least) {
    reader->failed = true;
    return 0;
  }
  return (size_t)count;
}

/* A copy of a string, in memory of malloc; null if there is none. */
static inline char *sps_string(sps_reader *reader) {
  size_t size = sps_count(reader, 1);
  const unsigned char *bytes = sps_take(reader, size);
  char *text = reader->failed ? 0 : malloc(size + 1);
  if (text) {
    memcpy(text, bytes, size);
    text[size] = 0;
  }
  return text;
}

static inline char *sps_put_u64(char *place, uint64_t number) {
  for (unsigned each = 0; each < 8; ++each)
    *place++ = (char)(number >> 8 * each);
  return place;
}

static inline char *sps_put_text(char *place, const char *text, size_t size) {
  place = sps_put_u64(place, size);
  memcpy(place, text, size);
  return place + size;
}

/* What a function without a result returns. */
static inline wrapper_result sps_nothing(void) {
  wrapper_result result = {{0}, 0};
  return result;
}

/* The success of a function whose result is an ERROR, and a BOOL of value false. */
static inline wrapper_result sps_zero_byte(void) {
  wrapper_result result = {{0}, 1};
  return result;
}

/* The failure of a function whose result is an ERROR. */
static inline wrapper_result sps_failure(const char *text) {
  size_t length = strlen(text);
  wrapper_result result = {{0}, 9 + length};
  result.value.pointer = malloc(result.size);
  if (!result.value.pointer)
    abort();
  result.value.pointer[0] = 1;
  sps_put_text(result.value.pointer + 1, text, length);
  return result;
}

static inline wrapper_result sps_malformed(void) {
  return sps_failure("malformed arguments");
}

/* The same of a function whose result is an EXPECTED. */
static inline wrapper_result sps_expected_failure(const char *text) {
  wrapper_result result = sps_failure(text);
  result.value.pointer[0] = 0;
  return result;
}

/* The success of a function whose result is an EXPECTED of a number. */
static inline wrapper_result sps_expected_u64(uint64_t number) {
  wrapper_result result = {{0}, 9};
  result.value.pointer = malloc(result.size);
  if (!result.value.pointer)
    abort();
  result.value.pointer[0] = 1;
  sps_put_u64(result.value.pointer + 1, number);
  return result;
}

static inline wrapper_result sps_out_of_band(const char *text) {
  wrapper_result result = {{0}, 0};
  result.value.pointer = strdup(text);
  return result;
}

/* The bytes of a result, which are in memory of its own or in the result itself. */
static inline const char *sps_bytes(const wrapper_result *result) {
  bool is_inline = result->size <= sizeof result->value.bytes;
  return is_inline ? result->value.bytes : result->value.pointer;
}

static inline void sps_free(const wrapper_result *result) {
  if (result->size > sizeof result->value.bytes || !result->size)
    free(result->value.pointer);
}

#endif
