/* Variable arguments, of every class, across two objects.
 *
 * parts: 2
 */
#include <stdarg.h>
#include <stdio.h>

struct pair { long a; double b; };
struct big { long numbers[5]; };
double total(const char *kinds, ...);
int say(const char *format, ...);

#if PART == 1
int main(void) {
  struct pair pair = {3, 0.5};
  struct big big = {{1, 2, 3, 4, 5}};
  printf("%.3f\n", total("idlLpbs", 1, 2.25, 3L, 4.5L, pair, big, "seven.."));
  printf("%.3f\n", total("dddddddddd", 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0));
  printf("%.3f\n", total("iiiiiiii", 1, 2, 3, 4, 5, 6, 7, 8));
  return say("%s %5d %-6.2f|%Lg %c %p", "text", 42, 3.14159, 2.5L, 'x', (void *)0);
}
#else
double total(const char *kinds, ...) {
  double sum = 0;
  va_list list, copy;
  va_start(list, kinds);
  va_copy(copy, list);
  for (; *kinds; kinds++)
    switch (*kinds) {
    case 'i': sum += va_arg(list, int); break;
    case 'd': sum += va_arg(list, double); break;
    case 'l': sum += va_arg(list, long); break;
    case 'L': sum += (double)va_arg(list, long double); break;
    case 's': for (const char *text = va_arg(list, char *); *text; text++) sum += 1; break;
    case 'p': {
      struct pair pair = va_arg(list, struct pair);
      sum += (double)pair.a + pair.b;
      break;
    }
    case 'b': {
      struct big big = va_arg(list, struct big);
      for (int i = 0; i < 5; i++) sum += (double)big.numbers[i];
    }
    }
  va_end(copy);
  va_end(list);
  return sum;
}
int say(const char *format, ...) {
  va_list list;
  va_start(list, format);
  char text[100];
  int size = vsnprintf(text, sizeof text, format, list);
  puts(text);
  va_end(list);
  return size;
}
#endif
