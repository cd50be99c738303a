/* Called from print-args-main.c: the linker resolves the call. */
#include <stdio.h>

void print_args(int count, char *const *arguments) {
    for (int i = 0; i < count; i++)
        printf("argument %d: %s\n", i, arguments[i]);
}
