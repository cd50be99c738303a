/* printf and its like. Floating-point numbers are formatted by the host, exactly as C requires.
 *
 * Quirks: without wide characters; long double is formatted as double.
 */
#include "library.h"

struct sink {
  FILE *file;
  char *out;
  size_t size, written;
};

static void put(struct sink *sink, const char *text, size_t size) {
  if (sink->file)
    fwrite(text, 1, size, sink->file);
  else if (sink->written < sink->size) {
    size_t room = sink->size - sink->written;
    memcpy(sink->out + sink->written, text, size < room ? size : room);
  }
  sink->written += size;
}

static void pad(struct sink *sink, char with, long count) {
  for (; count > 0; --count)
    put(sink, &with, 1);
}

struct conversion {
  int left, plus, space, alternative, zero;
  long width, precision; /* a precision of -1: none is given */
};

/* Characters between padding, and zeros between a prefix and digits. */
static void put_padded(struct sink *sink, const struct conversion *how, const char *prefix,
                       const char *digits, size_t count, long zeros) {
  size_t before = strlen(prefix);
  long rest = how->width - (long)before - (long)count - (zeros > 0 ? zeros : 0);
  if (!how->left)
    pad(sink, ' ', rest);
  put(sink, prefix, before);
  pad(sink, '0', zeros);
  put(sink, digits, count);
  if (how->left)
    pad(sink, ' ', rest);
}

static void put_integer(struct sink *sink, const struct conversion *how, uintmax_t value,
                        unsigned base, int is_upper, const char *sign) {
  char digits[3 * sizeof value + 2], *first = digits + sizeof digits, prefix[4];
  const char *letters = is_upper ? "0123456789ABCDEF" : "0123456789abcdef";
  size_t used = 0;
  for (uintmax_t rest = value; rest; rest /= base)
    *--first = letters[rest % base];
  if (!value && how->precision)
    *--first = '0';
  size_t count = (size_t)(digits + sizeof digits - first);
  while (sign[used]) {
    prefix[used] = sign[used];
    ++used;
  }
  if (how->alternative && base == 16 && value) {
    prefix[used++] = '0';
    prefix[used++] = is_upper ? 'X' : 'x';
  }
  prefix[used] = 0;
  long zeros = how->precision - (long)count;
  if (how->alternative && base == 8 && zeros < 1 && (!count || *first != '0'))
    zeros = 1;
  if (how->zero && !how->left && how->precision < 0)
    zeros = how->width - (long)used - (long)count;
  put_padded(sink, how, prefix, first, count, zeros);
}

static char *put_number(char *out, long number) {
  if (number >= 10)
    out = put_number(out, number / 10);
  *out++ = (char)('0' + number % 10);
  return out;
}

static void put_double(struct sink *sink, const struct conversion *how, char kind, double value) {
  char text[64], *end = text, piece[64];
  *end++ = '%';
  if (how->left)
    *end++ = '-';
  if (how->plus)
    *end++ = '+';
  if (how->space)
    *end++ = ' ';
  if (how->alternative)
    *end++ = '#';
  if (how->zero)
    *end++ = '0';
  if (how->width > 0)
    end = put_number(end, how->width);
  if (how->precision >= 0) {
    *end++ = '.';
    end = put_number(end, how->precision);
  }
  *end++ = kind;
  *end = 0;
  for (size_t start = 0, total = 1; start < total; start += sizeof piece) {
    total = (size_t)__jitlink_host_format(piece, sizeof piece, start, text, &value);
    put(sink, piece, total - start < sizeof piece ? total - start : sizeof piece);
  }
}

enum length { CHAR, SHORT, INT, LONG, LONG_LONG, MAX, SIZE, DIFFERENCE, LONG_DOUBLE };

static enum length read_length(const char **place) {
  const char *text = *place;
  enum length length = INT;
  switch (*text) {
  case 'h':
    length = text[1] == 'h' ? CHAR : SHORT;
    break;
  case 'l':
    length = text[1] == 'l' ? LONG_LONG : LONG;
    break;
  case 'j':
    length = MAX;
    break;
  case 'z':
    length = SIZE;
    break;
  case 't':
    length = DIFFERENCE;
    break;
  case 'L':
    length = LONG_DOUBLE;
    break;
  default:
    return INT;
  }
  *place = text + (length == CHAR || length == LONG_LONG ? 2 : 1);
  return length;
}

static intmax_t read_signed(va_list *arguments, enum length length) {
  switch (length) {
  case CHAR:
    return (signed char)va_arg(*arguments, int);
  case SHORT:
    return (short)va_arg(*arguments, int);
  case LONG:
    return va_arg(*arguments, long);
  case LONG_LONG:
  case LONG_DOUBLE:
    return va_arg(*arguments, long long);
  case MAX:
    return va_arg(*arguments, intmax_t);
  case SIZE:
  case DIFFERENCE:
    return va_arg(*arguments, ptrdiff_t);
  default:
    return va_arg(*arguments, int);
  }
}

static uintmax_t read_unsigned(va_list *arguments, enum length length) {
  switch (length) {
  case CHAR:
    return (unsigned char)va_arg(*arguments, int);
  case SHORT:
    return (unsigned short)va_arg(*arguments, int);
  case LONG:
    return va_arg(*arguments, unsigned long);
  case LONG_LONG:
  case LONG_DOUBLE:
    return va_arg(*arguments, unsigned long long);
  case MAX:
    return va_arg(*arguments, uintmax_t);
  case SIZE:
  case DIFFERENCE:
    return va_arg(*arguments, size_t);
  default:
    return va_arg(*arguments, unsigned);
  }
}

static double read_double(va_list *arguments, enum length length) {
  if (length != LONG_DOUBLE)
    return va_arg(*arguments, double);
  long double value = va_arg(*arguments, long double);
#if __LDBL_MANT_DIG__ == 113
  /* Without the compiler's support library. */
  double narrow;
  __jitlink_host_narrow(&value, &narrow);
  return narrow;
#else
  return (double)value;
#endif
}

static void store_count(va_list *arguments, enum length length, size_t count) {
  void *place = va_arg(*arguments, void *);
  switch (length) {
  case CHAR:
    *(signed char *)place = (signed char)count;
    break;
  case SHORT:
    *(short *)place = (short)count;
    break;
  case LONG:
    *(long *)place = (long)count;
    break;
  case LONG_LONG:
  case LONG_DOUBLE:
    *(long long *)place = (long long)count;
    break;
  case MAX:
    *(intmax_t *)place = (intmax_t)count;
    break;
  case SIZE:
  case DIFFERENCE:
    *(ptrdiff_t *)place = (ptrdiff_t)count;
    break;
  default:
    *(int *)place = (int)count;
  }
}

static long read_number(const char **place, va_list *arguments) {
  long number = 0;
  if (**place == '*') {
    ++*place;
    return va_arg(*arguments, int);
  }
  for (; **place >= '0' && **place <= '9'; ++*place)
    number = number * 10 + (**place - '0');
  return number;
}

static const char *read_flags(const char *format, struct conversion *how) {
  for (;; ++format)
    switch (*format) {
    case '-':
      how->left = 1;
      break;
    case '+':
      how->plus = 1;
      break;
    case ' ':
      how->space = 1;
      break;
    case '#':
      how->alternative = 1;
      break;
    case '0':
      how->zero = 1;
      break;
    default:
      return format;
    }
}

static void convert(struct sink *sink, struct conversion *how, enum length length, char kind,
                    va_list *arguments) {
  switch (kind) {
  case 'd':
  case 'i': {
    intmax_t value = read_signed(arguments, length);
    const char *sign = value < 0 ? "-" : how->plus ? "+" : how->space ? " " : "";
    put_integer(sink, how, value < 0 ? -(uintmax_t)value : (uintmax_t)value, 10, 0, sign);
    break;
  }
  case 'u':
    put_integer(sink, how, read_unsigned(arguments, length), 10, 0, "");
    break;
  case 'o':
    put_integer(sink, how, read_unsigned(arguments, length), 8, 0, "");
    break;
  case 'x':
  case 'X':
    put_integer(sink, how, read_unsigned(arguments, length), 16, kind == 'X', "");
    break;
  case 'p': {
    uintptr_t value = (uintptr_t)va_arg(*arguments, void *);
    how->alternative = 1;
    if (value)
      put_integer(sink, how, value, 16, 0, "");
    else
      put_padded(sink, how, "", "(nil)", 5, 0);
    break;
  }
  case 'c': {
    char character = (char)va_arg(*arguments, int);
    put_padded(sink, how, "", &character, 1, 0);
    break;
  }
  case 's': {
    const char *text = va_arg(*arguments, const char *);
    if (!text)
      text = how->precision < 0 || how->precision >= 6 ? "(null)" : "";
    size_t size = how->precision < 0 ? strlen(text) : strnlen(text, (size_t)how->precision);
    put_padded(sink, how, "", text, size, 0);
    break;
  }
  case 'n':
    store_count(arguments, length, sink->written);
    break;
  default:
    put_double(sink, how, kind, read_double(arguments, length));
  }
}

static int format_into(struct sink *sink, const char *format, va_list given) {
  va_list arguments;
  va_copy(arguments, given);
  while (*format) {
    const char *plain = format;
    while (*format && *format != '%')
      ++format;
    put(sink, plain, (size_t)(format - plain));
    if (!*format)
      break;
    const char *start = format++;
    struct conversion how = {0, 0, 0, 0, 0, 0, -1};
    format = read_flags(format, &how);
    how.width = read_number(&format, &arguments);
    if (how.width < 0) {
      how.left = 1;
      how.width = -how.width;
    }
    if (*format == '.') {
      ++format;
      how.precision = read_number(&format, &arguments);
    }
    enum length length = read_length(&format);
    if (*format == '%')
      put(sink, "%", 1);
    else if (*format && strchr("diuoxXpcsnaAeEfFgG", *format))
      convert(sink, &how, length, *format, &arguments);
    else
      /* Not a conversion: as it is. */
      put(sink, start, (size_t)(format - start) + (*format != 0));
    if (*format)
      ++format;
  }
  va_end(arguments);
  return sink->written > INT32_MAX ? -1 : (int)sink->written;
}

int vfprintf(FILE *file, const char *format, va_list arguments) {
  struct sink sink = {file, 0, 0, 0};
  return format_into(&sink, format, arguments);
}

int vsnprintf(char *out, size_t size, const char *format, va_list arguments) {
  struct sink sink = {0, out, size ? size - 1 : 0, 0};
  int count = format_into(&sink, format, arguments);
  if (size)
    out[sink.written < size - 1 ? sink.written : size - 1] = 0;
  return count;
}

int vprintf(const char *format, va_list arguments) { return vfprintf(stdout, format, arguments); }

int vsprintf(char *out, const char *format, va_list arguments) {
  return vsnprintf(out, PTRDIFF_MAX, format, arguments);
}

#define FORWARD(call)                                                                              \
  va_list arguments;                                                                               \
  va_start(arguments, format);                                                                     \
  int count = call;                                                                                \
  va_end(arguments);                                                                               \
  return count

int printf(const char *format, ...) { FORWARD(vfprintf(stdout, format, arguments)); }

int fprintf(FILE *file, const char *format, ...) { FORWARD(vfprintf(file, format, arguments)); }

int sprintf(char *out, const char *format, ...) {
  FORWARD(vsnprintf(out, PTRDIFF_MAX, format, arguments));
}

int snprintf(char *out, size_t size, const char *format, ...) {
  FORWARD(vsnprintf(out, size, format, arguments));
}
