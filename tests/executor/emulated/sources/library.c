/* What the C library of emulated machines does, printed as any C library prints it. */
#include <ctype.h>
#include <errno.h>
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const double doubles[] = {0.0, -0.0, 1.0, -1.5, 0.1, 123456789.125, 1e-5, 9.995, 1e22, 1e300,
                                 DBL_MAX, DBL_MIN, 5e-324, 2.5, 3.5, 0.5};
static const char *const formats[] = {"%f", "%.0f", "%.3f", "%10.2f|", "%-12.1f|", "%+f", "% f", "%012.3f",
                                      "%e", "%.0e", "%E", "%g", "%.3g", "%#g", "%G", "%#.0f", "%a", "%.2a", "%A"};

static void print_doubles(void) {
  for (size_t f = 0; f < sizeof formats / sizeof *formats; ++f)
    for (size_t d = 0; d < sizeof doubles / sizeof *doubles; ++d) {
      printf("%s: ", formats[f]);
      printf(formats[f], doubles[d]);
      printf("\n");
    }
  printf("%f %F %5.1f| %-6e| %06f %+g\n", INFINITY, -INFINITY, NAN, INFINITY, INFINITY, INFINITY);
  printf("%Lf %.2Le\n", 1.5L, 2.25L);
}

static void print_integers(void) {
  printf("%d %i %5d|%-5d|%05d|%+d|% d|%.3d|%8.3d|%.0d|\n", 1, -2, 3, 4, 5, 6, 7, 8, 9, 0);
  printf("%u %x %X %#x %#X %o %#o %#.3o %#x\n", 4294967295u, 255, 255, 255, 255, 8, 8, 8, 0);
  printf("%hhd %hd %lld %llu %jd %zu %td\n", 300, 70000, INT64_MIN, UINT64_MAX, (intmax_t)-5, (size_t)7,
         (ptrdiff_t)-8);
  printf("%*d|%-*d|%.*d|%*d|\n", 6, 1, 6, 2, 4, 3, -6, 4);
  printf("%c%c%%|%5c|%-5c|\n", 'a', 'b', 'c', 'd');
  printf("%s|%10s|%-10s|%.2s|%.10s|%5.1s|\n", "text", "right", "left", "cut", "short", "one");
  int count = 0;
  printf("12345%n", &count);
  printf(" %d\n", count);
  char buffer[8];
  printf("%d ", snprintf(buffer, sizeof buffer, "%s", "longer than that"));
  printf("%s %d\n", buffer, snprintf(0, 0, "%d", 12345));
}

static void print_strings(void) {
  char text[32] = "one,two;;three", *rest, copy[32];
  for (char *word = strtok_r(text, ",;", &rest); word; word = strtok_r(0, ",;", &rest))
    printf("<%s>", word);
  printf("%d %d %d\n", strcmp("a", "b") < 0, strncmp("abc", "abd", 2), strcmp("\xff", "a") > 0);
  strcpy(copy, "abc");
  strcat(copy, "def");
  memmove(copy + 1, copy, 5);
  printf("%s %s %s %d\n", copy, strchr(copy, 'c'), strrchr("a/b/c", '/'), (int)strspn("aabbc", "ab"));
  printf("%s %d %d %s\n", strstr("haystack", "st"), (int)strcspn("abc;", ";"), memcmp("ab", "ac", 2) < 0,
         strpbrk("hello", "ol"));
  printf("%d%d%d%d %c%c\n", !!isalpha('x'), !!isdigit('x'), !!isspace('\t'), !!ispunct('!'), toupper('q'),
         tolower('Q'));
}

static int compare(const void *a, const void *b) {
  int x = *(const int *)a, y = *(const int *)b;
  return (x > y) - (x < y);
}

static void print_numbers(void) {
  char *end;
  long long value = strtoll("  -0x7fz", &end, 0);
  printf("%lld %s %d %d\n", value, end, atoi("  42x"), (int)strtol("zz", 0, 36));
  errno = 0;
  value = strtoll("99999999999999999999", 0, 10);
  printf("%lld %d\n", value, errno == ERANGE);
  double parsed = strtod("1.5e3x", &end);
  printf("%g %s %g %g %g\n", parsed, end, strtod("0x1.8p1", 0), strtod("-inf", 0), atof("none"));
  int numbers[100], key = 37 * 7 % 101;
  for (int n = 0; n < 100; ++n)
    numbers[n] = n * 37 % 101;
  qsort(numbers, 100, sizeof *numbers, compare);
  int *found = bsearch(&key, numbers, 100, sizeof *numbers, compare);
  printf("%d %d %d %d\n", numbers[0], numbers[50], numbers[99], *found);
  printf("%d %d\n", div(-7, 2).quot, div(-7, 2).rem);
}

static void print_mathematics(void) {
  volatile double x = 0.7, two = 2;
  printf("%.12g %.12g %.12g %.12g %.12g %.12g\n", sin(x), cos(x), tan(x), asin(x), acos(x), atan(x));
  printf("%.12g %.12g %.12g %.12g %.12g\n", exp(x), log(x), log2(x), log10(x), pow(two, x));
  printf("%.12g %.12g %.12g %.12g\n", sqrt(x), cbrt(x), hypot(x, two), atan2(x, two));
  printf("%g %g %g %g %g %g\n", floor(-x), ceil(-x), trunc(-x), round(two + 0.5), rint(two + 0.5), fmod(-5, 3));
  int exponent;
  double whole, fraction = frexp(48 * x, &exponent), part = modf(-3.25, &whole);
  printf("%.12g %d %g %.12g %g\n", fraction, exponent, ldexp(1, -1074), part, whole);
  printf("%g %g %g %g\n", fmax(x, NAN), fmin(x, two), copysign(two, -0.0), fabs(-two));
  printf("%.6f %.6f %.6f\n", sinf((float)x), sqrtf((float)x), powf((float)two, (float)x));
  printf("%g %d %g %d\n", log(0.0 * x), !!isnan(sqrt(-two)), exp(1000 * x), (int)lround(two + 0.5));
}

static void print_heap(void) {
  enum { COUNT = 64 };
  char *blocks[COUNT] = {0};
  unsigned state = 1, sum = 0;
  for (int n = 0; n < 2000; ++n) {
    state = state * 1103515245u + 12345u;
    unsigned place = state >> 8 & (COUNT - 1), size = state >> 16 & 1023;
    if (blocks[place] && state & 1) {
      free(blocks[place]);
      blocks[place] = 0;
    } else {
      blocks[place] = realloc(blocks[place], size + 1);
      memset(blocks[place], (int)place, size + 1);
    }
    for (int each = 0; each < COUNT; ++each)
      if (blocks[each] && *blocks[each] != (char)each)
        printf("block %d was overwritten\n", each);
    sum += place;
  }
  char *aligned = aligned_alloc(256, 512), *zeros = calloc(7, 9);
  for (int n = 0; n < 63; ++n)
    sum += (unsigned)zeros[n];
  printf("%u %d\n", sum, (int)((uintptr_t)aligned % 256));
  free(aligned);
  free(zeros);
  for (int n = 0; n < COUNT; ++n)
    free(blocks[n]);
  void *volatile none = malloc(SIZE_MAX / 2);
  printf("%d\n", none == 0);
}

static jmp_buf place;

static void jump(int depth) {
  if (!depth)
    longjmp(place, 5);
  jump(depth - 1);
}

static void handler(void) { puts("a handler"); }

int main(int argc, char **argv) {
  atexit(handler);
  print_doubles();
  print_integers();
  print_strings();
  print_numbers();
  print_mathematics();
  print_heap();
  int jumped = setjmp(place);
  if (!jumped)
    jump(10);
  printf("%d %d %s\n", jumped, argc, argv[argc - 1]);
  fputs("an error\n", stderr);
  printf("not the end of a line");
  exit(argc + 40);
}
