/* A little of everything that C puts into an object. */
#include <stddef.h>

extern int puts(const char *);
extern void *malloc(size_t);
extern int outside;
extern int missing_hook(int) __attribute__((weak));

int common_array[100];
static int counter;
static const char *const names[] = {"zero", "one", "two", "three"};
__attribute__((visibility("hidden"))) int hidden_value = 7;
__attribute__((weak)) int weak_hook(int x) { return x + 1; }

struct node {
    struct node *next;
    int value;
};
static struct node last = {NULL, 1};
static struct node first = {&last, 2};

__attribute__((section("custom"))) int in_custom = 3;
extern int __start_custom[], __stop_custom[];

int pick(int n) {
    switch (n) {
    case 0: return puts(names[0]);
    case 1: return counter++;
    case 2: return weak_hook(hidden_value);
    case 3: return missing_hook ? missing_hook(n) : outside;
    case 4: return (int)(__stop_custom - __start_custom);
    case 5: return common_array[n] + in_custom;
    default: return first.next->value;
    }
}

int (*table[])(int) = {pick, weak_hook};

void *make(void) {
    struct node *made = malloc(sizeof *made);
    made->next = &first;
    return made;
}

double scale(double x) { return x * 2.5; }
