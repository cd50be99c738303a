/* Compresses text at all levels and with each strategy, restores it, and prints sizes and checksums. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

enum { SIZE = 300000, ROOM = SIZE + 4096 };
static unsigned char plain[SIZE], packed[ROOM], again[SIZE];

static size_t compress_with(int level, int strategy) {
  z_stream stream = {.next_in = plain, .avail_in = SIZE, .next_out = packed, .avail_out = ROOM};
  if (deflateInit2(&stream, level, Z_DEFLATED, 15 + 16, 8, strategy) != Z_OK ||
      deflate(&stream, Z_FINISH) != Z_STREAM_END)
    exit(1);
  deflateEnd(&stream);
  return stream.total_out;
}

static int restore(size_t size) {
  z_stream stream = {.next_in = packed, .avail_in = (uInt)size};
  if (inflateInit2(&stream, 15 + 16) != Z_OK)
    return 1;
  int status = Z_OK;
  /* In pieces of odd sizes. */
  while (status == Z_OK && stream.total_out < SIZE) {
    stream.next_out = again + stream.total_out;
    stream.avail_out = SIZE - stream.total_out < 997 ? (uInt)(SIZE - stream.total_out) : 997;
    status = inflate(&stream, Z_NO_FLUSH);
  }
  inflateEnd(&stream);
  return memcmp(plain, again, SIZE);
}

int main(void) {
  unsigned state = 12345;
  for (int i = 0; i < SIZE; i++) {
    state = state * 1664525 + 1013904223;
    plain[i] = (unsigned char)(i % 7 ? "the same words again and again, "[i % 32] : 'a' + (state >> 28));
  }
  printf("%08lx %08lx\n", crc32(0, plain, SIZE), adler32(1, plain, SIZE));
  for (int strategy = Z_DEFAULT_STRATEGY; strategy <= Z_FIXED; strategy++)
    for (int level = 0; level <= 9; level++) {
      memset(again, 0, SIZE);
      size_t size = compress_with(level, strategy);
      printf("%d %d %zu %d\n", strategy, level, size, restore(size));
    }
  return 0;
}
