/* Declarations that the two objects of the matrix program share. */
#include <stddef.h>

struct shape {
    const char *name;
    double (*area)(const struct shape *);
    const struct shape *next;
    double side;
};

extern int shared_counter;
extern int common_values[64];
extern long large_values[10000];
extern const long large_constants[100];
extern const char *const day_names[7];
extern const struct shape *const all_shapes;
extern const struct shape main_shape;
extern int (*const steps[4])(int);
extern const char *address_in_main;

int double_it(int x);
int overridable(void);
int choose(int n);
long sum_large(void);
int format_values(char *to, size_t size, const char *format, ...);
int sorted_position(int value);
const char *day_name(int day);
int maybe_missing(void) __attribute__((weak));
