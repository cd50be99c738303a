/* Zero-filled data, and functions for other objects. */
#include "stack.h"

enum { CAPACITY = 64 };

static double values[CAPACITY];
static int depth;

bool push(double value) {
    if (depth == CAPACITY)
        return false;
    values[depth++] = value;
    return true;
}

bool pop(double *value) {
    if (depth == 0)
        return false;
    *value = values[--depth];
    return true;
}
