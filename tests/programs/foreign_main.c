/* The functions that a test calls natively and in an emulator, with the same arguments. */
#include "foreign.h"

static int32_t table[] = {3, 1, 4, 1, 5, 9, 2, 6};
static int32_t zeros[64];

int32_t overridable(void) { return 30; }

static double main_area(const struct shape *shape) { return shape->side / 4; }
const struct shape main_shape = {"main", main_area, NULL, 0.5, {1, 2, 3}};

int32_t fibonacci(int32_t n) { return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2); }

int32_t change_data(int32_t x) {
    shared_counter += x;
    common_values[x & 15] += 3;
    zeros[x & 63] = table[x & 7]++;
    words[x & 2047] += x;
    return shared_counter + common_values[x & 15] * 10 + zeros[x & 63] * 100 +
           (int32_t)words[x & 2047] * 1000;
}

int32_t read_sizes(int32_t i) { return bytes[i % 5] + halves[i % 5] * 3 + (int32_t)words[2999]; }

int32_t call_through(int32_t i, int32_t x) { return steps[i & 3](x) + choose(i, x); }

int32_t letter(int32_t day, int32_t i) { return names[day % 7][i]; }

int32_t vary(int32_t x) { return sum_of(3, x, 2 * x, x - 5) + sum_of(1, overridable()); }

int32_t weigh(int32_t by) {
    struct shape shape = heavier(main_shape, by);
    int32_t sum = 0;
    for (int32_t i = 0; i < 12; i++)
        sum += shape.weights[i] * (i + 1);
    return sum + shape.name[1];
}

double total_area(double scale) {
    double area = 0;
    for (const struct shape *shape = all_shapes; shape; shape = shape->next)
        area += shape->area(shape) * scale;
    return area;
}

int32_t ask_host(int32_t x) { return host(x, host_data) + (absent ? absent() : 7); }

int32_t same_address(void) {
    int32_t (*mine)(int32_t, int32_t) = host;
    return steps[0] != steps[1] && mine == host && all_shapes->next->next == &main_shape;
}
