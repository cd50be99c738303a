/* A program of two objects that needs nothing but `host` and `host_data`. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

struct shape {
    const char *name;
    double (*area)(const struct shape *);
    const struct shape *next;
    double side;
    int32_t weights[12];
};

int32_t host(int32_t a, int32_t b);
extern int32_t host_data;
extern int32_t absent(void) __attribute__((weak));

extern int32_t shared_counter;
extern int32_t common_values[16];
extern const struct shape *const all_shapes;
extern const struct shape main_shape;
extern int32_t (*steps[4])(int32_t);
extern const uint8_t bytes[5];
extern const uint16_t halves[5];
extern int64_t words[3000];
extern const char *const names[7];

int32_t overridable(void);
int32_t choose(int32_t which, int32_t x);
int32_t sum_of(int32_t count, ...);
struct shape heavier(struct shape shape, int32_t by);
