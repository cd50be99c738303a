/* Evaluates its arguments in postfix notation: `3 4 + 2 x` is 14. Exit status 2 if they are invalid.
 * As with llvm-jitlink, argv[0] is the first argument. The linker fills the table of operators with
 * addresses of functions and strings. */
#include "stack.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static double add(double a, double b) { return a + b; }
static double subtract(double a, double b) { return a - b; }
static double multiply(double a, double b) { return a * b; }
static double divide(double a, double b) { return a / b; }

static const struct {
    const char *name;
    double (*apply)(double, double);
} operators[] = {{"+", add}, {"-", subtract}, {"x", multiply}, {"/", divide}};

static bool take(const char *word) {
    for (size_t i = 0; i < sizeof operators / sizeof *operators; i++) {
        double a, b;
        if (strcmp(word, operators[i].name) == 0)
            return pop(&b) && pop(&a) && push(operators[i].apply(a, b));
    }
    char *end;
    double number = strtod(word, &end);
    return end != word && *end == '\0' && push(number);
}

int main(int argc, char **argv) {
    for (int i = 0; i < argc; i++) {
        if (!take(argv[i])) {
            fprintf(stderr, "calculate: cannot use '%s' here\n", argv[i]);
            return 2;
        }
    }
    double result, left_over;
    if (!pop(&result) || pop(&left_over)) {
        fputs("calculate: one result expected\n", stderr);
        return 2;
    }
    printf("%g\n", result);
    return 0;
}
