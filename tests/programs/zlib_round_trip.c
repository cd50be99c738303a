/* Compresses and decompresses a megabyte of text, compares it, and prints whether it packed well. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int compress2(unsigned char *to, unsigned long *to_size, const unsigned char *from,
              unsigned long size, int level);
int uncompress(unsigned char *to, unsigned long *to_size, const unsigned char *from,
               unsigned long size);
unsigned long crc32(unsigned long crc, const unsigned char *data, unsigned size);

enum { SIZE = 1 << 20 };

int main(void) {
    unsigned char *text = malloc(SIZE), *packed = malloc(SIZE), *again = malloc(SIZE);
    for (int i = 0; i < SIZE; i++)
        text[i] = "the quick brown fox "[(i * i >> 3) % 20];
    unsigned long packed_size = SIZE, size = SIZE;
    if (compress2(packed, &packed_size, text, SIZE, 9))
        return 2;
    if (uncompress(again, &size, packed, packed_size))
        return 3;
    if (size != SIZE || memcmp(text, again, SIZE) || crc32(0, text, SIZE) != crc32(0, again, SIZE))
        return 4;
    printf("%lu %s\n", size, packed_size < SIZE / 10 ? "packed well" : "packed badly");
    return 0;
}
