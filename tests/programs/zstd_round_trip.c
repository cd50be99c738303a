/* Compresses and decompresses a megabyte of text, compares it, and prints whether it packed well. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

size_t ZSTD_compress(void *to, size_t capacity, const void *from, size_t size, int level);
size_t ZSTD_decompress(void *to, size_t capacity, const void *from, size_t size);
unsigned ZSTD_isError(size_t code);

enum { SIZE = 1 << 20 };

int main(void) {
    char *text = malloc(SIZE), *packed = malloc(SIZE), *again = malloc(SIZE);
    for (int i = 0; i < SIZE; i++)
        text[i] = "the quick brown fox "[(i * i >> 3) % 20];
    size_t packed_size = ZSTD_compress(packed, SIZE, text, SIZE, 19);
    if (ZSTD_isError(packed_size))
        return 2;
    size_t size = ZSTD_decompress(again, SIZE, packed, packed_size);
    if (ZSTD_isError(size) || size != SIZE || memcmp(text, again, SIZE))
        return 3;
    printf("%zu %s\n", size, packed_size < SIZE / 10 ? "packed well" : "packed badly");
    return 0;
}
