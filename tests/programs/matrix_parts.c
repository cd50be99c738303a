/* The part of the matrix program that its main calls. */
#include "matrix.h"

#include <stdarg.h>
#include <stdlib.h>

int vsnprintf(char *to, size_t size, const char *format, va_list arguments);

int shared_counter = 5;
int common_values[64];
long large_values[10000];
const long large_constants[100] = {1, 2, 3, [99] = 40};
const char *const day_names[7] = {"Monday", "Tuesday", "Wednesday", "Thursday",
                                  "Friday", "Saturday", "Sunday"};
const char *address_in_main;

static int calls;
static int values[] = {5, 3, 9, 1, 7};

static double square_area(const struct shape *shape) { return shape->side * shape->side; }
static double circle_area(const struct shape *shape) {
    return 3.25 * shape->side * shape->side;
}
static const struct shape square = {"square", square_area, &main_shape, 2.0};
static const struct shape circle = {"circle", circle_area, &square, 2.0};
const struct shape *const all_shapes = &circle;

int double_it(int x) { return calls++, x * 2; }
static int add_one(int x) { return calls++, x + 1; }
static int negate(int x) { return calls++, -x; }
static int count_calls(int x) { return x + calls; }
int (*const steps[4])(int) = {double_it, add_one, negate, count_calls};

__attribute__((weak)) int overridable(void) { return 1; }

int choose(int n) {
    switch (n) {
    case 0: return shared_counter;
    case 1: return common_values[3];
    case 2: return (int)large_constants[99];
    case 3: return overridable();
    case 4: return double_it(n);
    case 5: return day_names[n][0];
    case 6: return values[2];
    case 7: return maybe_missing ? maybe_missing() : 70;
    default: return -1;
    }
}

long sum_large(void) {
    long sum = 0;
    for (size_t i = 0; i < sizeof large_values / sizeof *large_values; i++)
        sum += large_values[i];
    return sum;
}

int format_values(char *to, size_t size, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(to, size, format, arguments);
    va_end(arguments);
    return length;
}

static int compare(const void *a, const void *b) { return *(const int *)a - *(const int *)b; }

int sorted_position(int value) {
    qsort(values, sizeof values / sizeof *values, sizeof *values, compare);
    const int *found = bsearch(&value, values, sizeof values / sizeof *values, sizeof *values,
                               compare);
    return found ? (int)(found - values) : -1;
}

const char *day_name(int day) { return day_names[day % 7]; }
