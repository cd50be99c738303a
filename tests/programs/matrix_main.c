/* Checks what a linker does to code and data of two objects; see check(). As a program, it says
 * hello to each of its arguments. */
#include "matrix.h"

#include <stdio.h>
#include <string.h>

static char buffer[128];
static const char own_text[] = "main";

int overridable(void) { return 30; }

static double main_area(const struct shape *shape) { return shape->side; }
const struct shape main_shape = {own_text, main_area, NULL, 0.5};

static int check_data(void) {
    if (shared_counter != 5 || common_values[3] != 0)
        return 1;
    common_values[3] = 17;
    large_values[0] = 1, large_values[9999] = 41;
    if (sum_large() != 42 || large_constants[99] != 40 || large_constants[2] != 3)
        return 2;
    address_in_main = &own_text[1];
    return strcmp(address_in_main, "ain") == 0 ? 0 : 3;
}

static int check_calls(void) {
    static const int expected[] = {5, 17, 40, 30, 8, 'S', 9, 70, -1};
    for (int i = 0; i < 9; i++)
        if (choose(i) != expected[i])
            return 10 + i;
    int value = 3;
    for (int i = 0; i < 3; i++)
        value = steps[i](value);
    if (value != -7 || steps[3](0) != 4 || steps[0] != double_it)
        return 20;
    return sorted_position(7) == 3 && sorted_position(4) == -1 ? 0 : 21;
}

static int check_pointers(void) {
    double area = 0;
    int count = 0;
    for (const struct shape *shape = all_shapes; shape; shape = shape->next, count++)
        area += shape->area(shape);
    if (count != 3 || area != 17.5 || all_shapes->next->next != &main_shape)
        return 30;
    int length = format_values(buffer, sizeof buffer, "%s %d %.2f %s", day_name(9), -4, 2.5,
                               main_shape.name);
    return length == 22 && strcmp(buffer, "Wednesday -4 2.50 main") == 0 ? 0 : 31;
}

/* 0, or the number of the first check that fails. It may be called once. */
int check(void) {
    int failed = check_data();
    if (!failed)
        failed = check_calls();
    if (!failed)
        failed = check_pointers();
    return failed;
}

int main(int argc, char **argv) {
    int failed = check();
    if (failed)
        return failed;
    for (int i = 0; i < argc; i++)
        printf("hello %s\n", argv[i]);
    return 100 + argc;
}
