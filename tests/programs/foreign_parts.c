/* The other object: functions and data that those of foreign_main.c use. */
#include "foreign.h"

int32_t shared_counter = 5;
int32_t common_values[16];
int64_t words[3000] = {[2999] = 11};
const uint8_t bytes[5] = {1, 2, 3, 250, 5};
const uint16_t halves[5] = {1000, 2, 3, 65535, 5};
const char *const names[7] = {"Monday", "Tuesday", "Wednesday", "Thursday",
                              "Friday", "Saturday", "Sunday"};
static int32_t calls;

static double square_area(const struct shape *shape) { return shape->side * shape->side; }
static double circle_area(const struct shape *shape) {
    return 3.25 * shape->side * shape->side;
}
static const struct shape square = {"square", square_area, &main_shape, 2.0, {0}};
static const struct shape circle = {"circle", circle_area, &square, 2.0, {0}};
const struct shape *const all_shapes = &circle;

static int32_t double_it(int32_t x) { return calls++, x * 2; }
static int32_t add_one(int32_t x) { return calls++, x + 1; }
static int32_t negate(int32_t x) { return calls++, -x; }
static int32_t count_calls(int32_t x) { return x + calls; }
int32_t (*steps[4])(int32_t) = {double_it, add_one, negate, count_calls};

__attribute__((weak)) int32_t overridable(void) { return 1; }

int32_t choose(int32_t which, int32_t x) {
    switch (which) {
    case 0: return shared_counter;
    case 1: return x * 3;
    case 2: return overridable();
    case 3: return double_it(x) ^ 21;
    case 4: return names[x % 7][0];
    case 5: return calls + 100;
    case 6: return host(x, 1);
    case 7: return -x;
    default: return -1;
    }
}

int32_t sum_of(int32_t count, ...) {
    va_list arguments;
    int32_t sum = 0;
    va_start(arguments, count);
    while (count--)
        sum += va_arg(arguments, int32_t);
    va_end(arguments);
    return sum;
}

struct shape heavier(struct shape shape, int32_t by) {
    for (int32_t i = 0; i < 12; i++)
        shape.weights[i] += by;
    return shape;
}

/* Compilers call these implicitly. */
void *memcpy(void *to, const void *from, size_t size) {
    for (size_t i = 0; i < size; i++)
        ((volatile char *)to)[i] = ((const volatile char *)from)[i];
    return to;
}

void *memset(void *to, int value, size_t size) {
    for (size_t i = 0; i < size; i++)
        ((volatile char *)to)[i] = (char)value;
    return to;
}
