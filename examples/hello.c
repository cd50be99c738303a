/* The smallest program: one object, one call into the process's C library. */
#include <stdio.h>

int main(void) {
    puts("Hello, world!");
    return 0;
}
