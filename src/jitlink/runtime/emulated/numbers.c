/* Conversions of stdlib.h; floating-point numbers are parsed by the host. */
#include "library.h"

int *__errno_location(void);
#define ERANGE 34

static int digit_of(char c) {
  if (c >= '0' && c <= '9')
    return c - '0';
  if ((c | 32) >= 'a' && (c | 32) <= 'z')
    return (c | 32) - 'a' + 10;
  return 36;
}

/* Parses a number; its absolute value is at most `limit`, which errors give. */
static uintmax_t parse(const char *text, char **end, int base, int *is_negative, int *overflows) {
  const char *place = text;
  uintmax_t value = 0;
  *is_negative = *overflows = 0;
  while (*place == ' ' || (*place >= '\t' && *place <= '\r'))
    ++place;
  if (*place == '+' || *place == '-')
    *is_negative = *place++ == '-';
  if ((base == 0 || base == 16) && *place == '0' && (place[1] | 32) == 'x' &&
      digit_of(place[2]) < 16) {
    place += 2;
    base = 16;
  } else if (base == 0)
    base = *place == '0' ? 8 : 10;
  const char *first = place;
  for (int digit; (digit = digit_of(*place)) < base; ++place)
    if (__builtin_mul_overflow(value, (uintmax_t)base, &value) ||
        __builtin_add_overflow(value, (uintmax_t)digit, &value))
      *overflows = 1;
  if (end)
    *end = (char *)(place == first ? text : place);
  return value;
}

static intmax_t parse_signed(const char *text, char **end, int base, intmax_t most) {
  int is_negative, overflows;
  uintmax_t value = parse(text, end, base, &is_negative, &overflows);
  uintmax_t limit = (uintmax_t)most + (is_negative ? 1 : 0);
  if (overflows || value > limit) {
    *__errno_location() = ERANGE;
    value = limit;
  }
  return is_negative ? (intmax_t)-value : (intmax_t)value;
}

static uintmax_t parse_unsigned(const char *text, char **end, int base, uintmax_t most) {
  int is_negative, overflows;
  uintmax_t value = parse(text, end, base, &is_negative, &overflows);
  if (overflows || value > most) {
    *__errno_location() = ERANGE;
    return most;
  }
  return is_negative ? -value & most : value;
}

long strtol(const char *restrict text, char **restrict end, int base) {
  return (long)parse_signed(text, end, base, __LONG_MAX__);
}

long long strtoll(const char *restrict text, char **restrict end, int base) {
  return parse_signed(text, end, base, __LONG_LONG_MAX__);
}

unsigned long strtoul(const char *restrict text, char **restrict end, int base) {
  return (unsigned long)parse_unsigned(text, end, base, __LONG_MAX__ * 2UL + 1);
}

unsigned long long strtoull(const char *restrict text, char **restrict end, int base) {
  return parse_unsigned(text, end, base, __LONG_LONG_MAX__ * 2ULL + 1);
}

long __isoc23_strtol(const char *restrict text, char **restrict end, int base) {
  return strtol(text, end, base);
}

unsigned long __isoc23_strtoul(const char *restrict text, char **restrict end, int base) {
  return strtoul(text, end, base);
}

int atoi(const char *text) { return (int)strtol(text, 0, 10); }

long atol(const char *text) { return strtol(text, 0, 10); }

long long atoll(const char *text) { return strtoll(text, 0, 10); }

double strtod(const char *restrict text, char **restrict end) {
  double value;
  size_t used = __jitlink_host_parse(text, &value);
  if (end)
    *end = (char *)text + used;
  if (__builtin_isinf(value) && used && digit_of(text[used - 1]) < 10)
    *__errno_location() = ERANGE;
  return value;
}

float strtof(const char *restrict text, char **restrict end) { return (float)strtod(text, end); }

double atof(const char *text) { return strtod(text, 0); }

int abs(int value) { return value < 0 ? -value : value; }

long labs(long value) { return value < 0 ? -value : value; }

long long llabs(long long value) { return value < 0 ? -value : value; }

struct division { int quotient, remainder; };

struct division div(int left, int right) {
  return (struct division){left / right, left % right};
}

struct long_division { long quotient, remainder; };

struct long_division ldiv(long left, long right) {
  return (struct long_division){left / right, left % right};
}

static unsigned long long state = 1;

void srand(unsigned seed) { state = seed; }

int rand(void) {
  state = state * 6364136223846793005ULL + 1442695040888963407ULL;
  return (int)(state >> 33);
}
