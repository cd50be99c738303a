/* Compresses a stream of 100 MB and restores it, in pieces, with a checksum on both sides. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <zstd.h>

enum { TOTAL = 100 << 20 };
static unsigned char plain[1 << 17], packed[1 << 17], again[1 << 17];
static ZSTD_DStream *restore;
static uint64_t in_sum = 1469598103934665603u, out_sum = 1469598103934665603u;
static size_t packed_size, restored;

static uint64_t add(uint64_t sum, const unsigned char *data, size_t size) {
  for (size_t i = 0; i < size; i++)
    sum = (sum ^ data[i]) * 1099511628211u;
  return sum;
}

static int take(const unsigned char *data, size_t size) {
  ZSTD_inBuffer in = {data, size, 0};
  packed_size += size;
  for (int is_full = 0; in.pos < in.size || is_full;) {
    ZSTD_outBuffer out = {again, sizeof again, 0};
    if (ZSTD_isError(ZSTD_decompressStream(restore, &out, &in)))
      return 1;
    is_full = out.pos == sizeof again;
    out_sum = add(out_sum, again, out.pos);
    restored += out.pos;
  }
  return 0;
}

int main(void) {
  ZSTD_CStream *stream = ZSTD_createCStream();
  uint32_t state = 12345;
  restore = ZSTD_createDStream();
  ZSTD_CCtx_setParameter(stream, ZSTD_c_compressionLevel, 1);
  ZSTD_CCtx_setParameter(stream, ZSTD_c_checksumFlag, 1);
  for (size_t made = 0; made < TOTAL; made += sizeof plain) {
    for (size_t i = 0; i < sizeof plain; i++) {
      if (i % 16 == 0)
        state = state * 1664525 + 1013904223;
      plain[i] = (unsigned char)("linked in memory"[i % 16] + (i % 16 < 4 ? state >> 24 & 7 : 0));
    }
    in_sum = add(in_sum, plain, sizeof plain);
    int is_last = made + sizeof plain >= TOTAL;
    ZSTD_inBuffer in = {plain, sizeof plain, 0};
    for (size_t left = 1; is_last ? left != 0 : in.pos < in.size;) {
      ZSTD_outBuffer out = {packed, sizeof packed, 0};
      left = ZSTD_compressStream2(stream, &out, &in, is_last ? ZSTD_e_end : ZSTD_e_continue);
      if (ZSTD_isError(left) || take(packed, out.pos))
        return 2;
    }
  }
  printf("%zu bytes, packed %zu\n", restored, packed_size);
  printf("%016llx %d\n", (unsigned long long)out_sum, in_sum == out_sum);
  ZSTD_freeCStream(stream);
  ZSTD_freeDStream(restore);
  return in_sum == out_sum ? 0 : 3;
}
